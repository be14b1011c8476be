"""The first stage of a starter face decoder: the feature space of faces."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.data.photos import Photos
from mmx.decoders.towers import fresh_resnet
from mmx.device import device_of
from mmx.nets.dual import LayoutHead
from mmx.nets.face import GENDERS, FaceEncoder, unit
from mmx.training.decoders.space import random_crops, to_images, to_pixels
from mmx.training.losses import nt_xent


@dataclass(frozen=True)
class FaceConfig:
    """Sizes of the face teacher."""

    dim: int = 256
    image_size: int = 96
    sees: int = 64  # pixels a side that the network looks at: less than half the work of all 96
    hidden_sizes: tuple[int, ...] = (48, 96, 192)
    depths: tuple[int, ...] = (1, 2, 2)


def build_face_encoder(config: FaceConfig) -> FaceEncoder:
    """A fresh encoder around a fresh residual network."""
    image = fresh_resnet(config.hidden_sizes, config.depths)
    return FaceEncoder(image, dim=config.dim, image_size=config.image_size, sees=config.sees)


def relit(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Another light: contrast, brightness and colour cast of each picture (B, 3, S, S) changed at random."""
    draws = torch.rand(len(pixels), 5, 1, 1, generator=generator).to(pixels.device) * 2 - 1
    contrast, brightness, cast = 1 + 0.3 * draws[:, :1], 0.25 * draws[:, 1:2], 0.1 * draws[:, 2:]
    return (pixels * contrast + brightness + cast).clamp(-1, 1)


class _FaceModule(nn.Module):
    def __init__(self, encoder: FaceEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = LayoutHead(encoder.dim)


class FaceTask:
    """Features that hold more of a face than its labels: two differently cut and lit views of a face lie together and
    apart from other faces (SimCLR, Chen et al. 2020), gender and age band can be read off, and a coarse face can be
    rebuilt, in the light that it was taken in.
    """

    name = "space"
    lower_is_better = ("rebuilt_l1",)
    attribute_weight, rebuild_weight, temperature = 0.5, 2.0, 0.15

    def __init__(self, photos: Photos, val: Photos, config: FaceConfig, seed: int = 0) -> None:
        self.photos, self.val = photos, val
        torch.manual_seed(seed)  # the initial weights; everything later draws from generators
        self.module = _FaceModule(build_face_encoder(config)).to(memory_format=torch.channels_last)
        encoder = self.module.encoder
        self.classes, self.val_classes = (
            torch.tensor([encoder.class_of(meta["gender"], meta["age"]) for meta in part.meta])
            for part in (photos, val)
        )

    def batch(self, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        picks = torch.randint(len(self.photos), (size,), generator=generator)
        return {"images": self.photos.pixels[picks], "classes": self.classes[picks]}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        plain = to_pixels(batch["images"])
        views = [relit(random_crops(plain, generator, 0.8), generator) for _view in range(2)]
        raw = self.module.encoder.encode_image(torch.cat(views).contiguous(memory_format=torch.channels_last))
        contrast = nt_xent(unit(raw), self.temperature)
        classes = batch["classes"].repeat(2)
        attributes = F.cross_entropy(self.module.encoder.classify(raw).float(), classes, label_smoothing=0.1)
        rebuilt = self.module.head(raw[: len(plain)]).float()
        coarse = F.l1_loss(rebuilt, F.avg_pool2d(views[0], plain.shape[-1] // 32))
        total = contrast + self.attribute_weight * attributes + self.rebuild_weight * coarse
        return total, {"contrast": contrast.item(), "attributes": attributes.item(), "rebuilt": coarse.item()}

    def validate(self, module: nn.Module) -> dict[str, float]:
        encoder, device, genders, bands, coarse = module.encoder, device_of(module), [], [], []
        for start in range(0, len(self.val), 256):
            pixels = to_pixels(self.val.pixels[start : start + 256], device)
            raw = encoder.encode_image(pixels)
            truth = self.val_classes[start : start + 256].to(device)
            genders.append(encoder.gender_shares(raw).argmax(1) == truth // len(encoder.ages))
            bands.append(encoder.age_shares(raw).argmax(1) == truth % len(encoder.ages))
            coarse.append(F.l1_loss(module.head(raw), F.avg_pool2d(pixels, pixels.shape[-1] // 32)))
        share = lambda hits: torch.cat(hits).float().mean().item()  # noqa: E731
        return {"gender": share(genders), "age_band": share(bands), "rebuilt_l1": torch.stack(coarse).mean().item()}

    def preview(self, module: nn.Module, path: Path) -> None:
        from mmx.media.image import grid

        pixels = to_pixels(self.val.pixels[:16], device_of(module))
        coarse = F.interpolate(module.head(module.encoder.encode_image(pixels)), size=pixels.shape[-1])
        grid(to_images(torch.stack((pixels, coarse), 1).flatten(0, 1)), columns=8).save(path)


assert GENDERS == ("female", "male")  # the words of the data's labels
