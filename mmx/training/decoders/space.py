"""The first stage of a starter image decoder, the joint space; and what all stages do with pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.data.captions import TEMPLATES, all_captions, train_tokenizer, words_of
from mmx.data.photos import Photos
from mmx.decoders.towers import fresh_resnet, fresh_text_tower
from mmx.device import autocast, device_of
from mmx.nets.dual import DualEncoder, LayoutHead
from mmx.training.losses import infonce


def to_pixels(images: Tensor, device: torch.device | str | None = None) -> Tensor:
    """(B, S, S, 3) uint8 → (B, 3, S, S) float in [-1, 1], channels last in memory, where they are or on `device`."""
    return (images.to(device or images.device).permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(
        memory_format=torch.channels_last
    )


def random_crops(pixels: Tensor, generator: torch.Generator, min_scale: float = 0.6, max_scale: float = 1.0) -> Tensor:
    """Random flips and crops of `min_scale`..`max_scale` of the side, resampled to the same size; what is beyond the
    edge is mirrored. (B, 3, S, S) → the same.
    """
    count = len(pixels)
    scale = max_scale - (max_scale - min_scale) * torch.rand(count, generator=generator)
    flip = 1 - 2 * (torch.rand(count, generator=generator) < 0.5).float()
    shift = (2 * torch.rand(count, 2, generator=generator) - 1) * (1 - scale).abs()[:, None]
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale * flip, scale, shift
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False).to(pixels.device)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


@dataclass(frozen=True)
class SpaceConfig:
    """Sizes of the joint space's two towers."""

    dim: int = 512
    image_size: int = 64
    sees: int = 0  # pixels of a side at which the image tower looks; 0: image_size
    hidden_sizes: tuple[int, ...] = (80, 160, 320)
    depths: tuple[int, ...] = (2, 2, 2)
    text_width: int = 128
    text_layers: int = 2
    semantic_dim: int | None = None  # half of dim
    semantic_share: float = 0.6  # of the squared norm
    layout_cells: int = 0  # 0: the layout is learned


def build_space(config: SpaceConfig, vocabulary: int) -> DualEncoder:
    """Fresh towers. vocabulary: how many subwords there are."""
    image = fresh_resnet(config.hidden_sizes, config.depths)
    text = fresh_text_tower(
        vocabulary=vocabulary,
        width=config.text_width,
        inner=2 * config.text_width,
        layers=config.text_layers,
        heads=4,
        dim=config.dim,
    )
    return DualEncoder(
        image,
        text,
        image_size=config.image_size,
        sees=config.sees,
        semantic_dim=config.semantic_dim,
        semantic_share=config.semantic_share,
        layout_cells=config.layout_cells,
    )


class _SpaceModule(nn.Module):
    def __init__(self, space: DualEncoder) -> None:
        super().__init__()
        self.space = space
        self.head = LayoutHead(space.dim)


class SpaceTask:
    """Joint image-text space: InfoNCE between photos and captions, and a small reconstruction head for layout."""

    name = "space"
    lower_is_better = ("layout_l1",)
    layout_weight = 4.0

    def __init__(self, photos: Photos, val: Photos, config: SpaceConfig, seed: int = 0) -> None:
        self.photos, self.val = photos, val
        self.reader = train_tokenizer(all_captions(photos.meta))
        torch.manual_seed(seed)  # the initial weights; everything later draws from generators
        self.module = _SpaceModule(build_space(config, len(self.reader)))
        self.module = self.module.to(memory_format=torch.channels_last)
        synsets = sorted({meta["synset"] for meta in photos.meta})
        self.concepts = sorted({meta["concept"] for meta in photos.meta if meta.get("concept")})
        self.synset_ids = torch.tensor([synsets.index(meta["synset"]) for meta in photos.meta])
        self.concept_ids = torch.tensor(
            [self.concepts.index(meta["concept"]) if meta.get("concept") else -1 for meta in photos.meta]
        )

    def _captions(self, picks: Tensor, generator: torch.Generator) -> tuple[list[str], Tensor]:
        """A caption a photo, by its concept (a third of the time, where it has one) or its own name."""
        draws = torch.rand(len(picks), 3, generator=generator)
        by_concept = (draws[:, 0] < 0.34) & (self.concept_ids[picks] >= 0)
        captions = []
        for pick, general, (_kind, template, word) in zip(
            picks.tolist(), by_concept.tolist(), draws.tolist(), strict=True
        ):
            words = words_of(self.photos.meta[pick])
            name = self.photos.meta[pick]["concept"] if general else words[int(word * len(words))]
            captions.append(TEMPLATES[int(template * len(TEMPLATES))].format(name))
        return captions, by_concept

    def batch(self, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        picks = torch.randint(len(self.photos), (size,), generator=generator)
        captions, by_concept = self._captions(picks, generator)
        ids, mask = self.reader(captions)
        synsets, concepts = self.synset_ids[picks], self.concept_ids[picks]
        # caption j belongs to photo i when it names i's synset, or i's concept
        positives = torch.where(
            by_concept[None, :], concepts[:, None] == concepts[None, :], synsets[:, None] == synsets[None, :]
        )
        return {
            "picks": picks,
            "images": self.photos.pixels[picks],
            "ids": ids,
            "mask": mask,
            "positives": positives,
        }

    def _contrast(self, batch: dict[str, Tensor], images: Tensor) -> Tensor:
        """InfoNCE between what images (B, D) become and what a batch's captions do."""
        space = self.module.space
        texts = space.encode_text(batch["ids"], batch["mask"])
        return infonce(images, texts, scale=space.logit_scale.exp(), positives=batch["positives"])

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        space = self.module.space
        pixels = random_crops(to_pixels(batch["images"]), generator)
        semantic, layout = space.image_parts(pixels)
        # the layout part is shaped by reconstruction alone; texts still learn what layout is usual for a name
        contrast = self._contrast(batch, torch.cat((semantic, layout.detach()), dim=-1))
        embeds = torch.cat((semantic, layout), dim=-1) * space.dim**0.5
        rebuilt = self.module.head(embeds).float()
        coarse = F.l1_loss(rebuilt, F.avg_pool2d(pixels, pixels.shape[-1] // 32))
        return contrast + self.layout_weight * coarse, {"contrast": contrast.item(), "layout": coarse.item()}

    def concept_points(self, space: DualEncoder, device: torch.device) -> Tensor:
        """What the space makes of the concepts' names (K, D), on `device`."""
        ids, mask = self.reader([f"a photo of a {c}" for c in self.concepts])
        return space.encode_text(ids.to(device), mask.to(device))

    def validate(self, module: nn.Module) -> dict[str, float]:
        space, device = module.space, device_of(module)
        text = self.concept_points(space, device)
        hits, coarse = [], []
        for start in range(0, len(self.val), 256):
            pixels = to_pixels(self.val.pixels[start : start + 256], device)
            embeds = space.encode_image(pixels)
            coarse.append(
                F.l1_loss(module.head(embeds), F.avg_pool2d(pixels, pixels.shape[-1] // 32), reduction="none").mean(
                    (1, 2, 3)
                )
            )
            for meta, guess in zip(
                self.val.meta[start : start + 256], (embeds @ text.T).argmax(1).tolist(), strict=True
            ):
                if meta.get("concept"):
                    hits.append(self.concepts[guess] == meta["concept"])
        return {"concept_top1": sum(hits) / len(hits), "layout_l1": torch.cat(coarse).mean().item()}

    def preview(self, module: nn.Module, path: Path) -> None:
        from mmx.media.image import grid

        pixels = to_pixels(self.val.pixels[:16], device_of(module))
        coarse = F.interpolate(module.head(module.space.encode_image(pixels)), size=pixels.shape[-1])
        pairs = torch.stack((pixels, coarse), 1).flatten(0, 1)
        grid(to_images(pairs), columns=8).save(path)


def to_images(pixels: Tensor) -> list:
    """(B, 3, S, S) in [-1, 1] → RGB pictures."""
    from PIL import Image

    array = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(item) for item in array]


@torch.no_grad()
def encode_all(photos: Photos, encode: Callable[[Tensor], Tensor], device: str = "cpu", batch: int = 256) -> Tensor:
    """`encode`, whose weights are on `device`, of all photos, plain and then mirrored: (2N, ...) float32 on the CPU.

    In bfloat16 where that pays: this is training data only.
    """
    pieces = []
    for mirrored in (False, True):
        for start in range(0, len(photos), batch):
            pixels = to_pixels(photos.pixels[start : start + batch], device)
            with autocast(device):
                pieces.append(encode(pixels.flip(3) if mirrored else pixels).float().cpu())
    return torch.cat(pieces)
