"""The second stage of a starter image decoder: the autoencoder between pixels and latents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.data.photos import Photos
from mmx.device import device_of
from mmx.nets.dual import DualEncoder
from mmx.training.decoders.space import to_images, to_pixels


@dataclass(frozen=True)
class CodecConfig:
    """Sizes of the autoencoder between pixels and latents: patches of `patch` pixels a side, then residual blocks."""

    patch: int = 8
    width: int = 384
    blocks: int = 4
    latent_channels: int = 16
    latent_noise: float = 0.05  # in standard deviations of the latents


def build_codec(config: CodecConfig):
    """A fresh Paella autoencoder (Rampas et al. 2022), used without its codebook, as Kandinsky's decoder uses its own.

    All its work is done on patches, which a CPU is 20 times faster at than at convolutions over pixels.
    """
    from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel

    codec = PaellaVQModel(
        up_down_scale_factor=config.patch,
        levels=1,
        bottleneck_blocks=config.blocks,
        embed_dim=config.width,
        latent_channels=config.latent_channels,
        num_vq_embeddings=1,
        scale_factor=1.0,
    )
    # KandinskyV22Pipeline reads the factor between pixels and latents off the number of these
    codec.register_to_config(block_out_channels=[config.width] * (config.patch.bit_length()))
    return codec


def feature_distance(net: DualEncoder, a: Tensor, b: Tensor, skip: int = 0) -> Tensor:
    """Squared distance of channel-normalised feature maps, averaged over all but the `skip` finest (LPIPS without
    learned weights, Zhang et al. 2018). a, b: (B, 3, S, S); gradients flow into `a` only."""
    with torch.no_grad():
        wanted = net.feature_maps(b)
    terms = [
        (F.normalize(x.float(), dim=1) - F.normalize(y.float(), dim=1)).pow(2).sum(1).mean()
        for x, y in zip(net.feature_maps(a)[skip:], wanted[skip:], strict=True)
    ]
    return torch.stack(terms).mean()


class CodecTask:
    """Autoencoder: L1 and feature loss, with a little noise on the latents so that nearby ones look alike."""

    name = "codec"
    lower_is_better = ("val_features",)
    feature_weight = 0.4

    def __init__(self, photos: Photos, val: Photos, teacher: DualEncoder, config: CodecConfig, seed: int = 0) -> None:
        self.photos, self.val, self.teacher = photos, val, teacher.eval().requires_grad_(False)
        self.latent_noise = config.latent_noise
        torch.manual_seed(seed)
        self.module = build_codec(config).to(memory_format=torch.channels_last)
        self.module.vquantizer.requires_grad_(False)

    def batch(self, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"images": self.photos.pixels[torch.randint(len(self.photos), (size,), generator=generator)]}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        pixels = to_pixels(batch["images"])
        flip = torch.rand(len(pixels), 1, 1, 1, generator=generator).to(pixels.device) < 0.5
        pixels = torch.where(flip, pixels.flip(3), pixels).contiguous(memory_format=torch.channels_last)
        latents = self.module.encode(pixels).latents
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        rebuilt = self.module.decode(latents + self.latent_noise * noise, force_not_quantize=True).sample.float()
        # the teacher's stem takes every fourth pixel: unshifted, its grid would be painted into the pictures
        shift = torch.randint(0, 4, (2,), generator=generator).tolist()
        half = len(pixels) // 2 or 1  # the teacher costs as much as the codec itself
        features = feature_distance(self.teacher, rebuilt[:half].roll(shift, (2, 3)), pixels[:half].roll(shift, (2, 3)))
        l1 = F.l1_loss(rebuilt, pixels)
        return l1 + self.feature_weight * features, {"l1": l1.item(), "features": features.item()}

    def validate(self, module: nn.Module) -> dict[str, float]:
        pixels = to_pixels(self.val.pixels[:256], device_of(module))
        rebuilt = module.decode(module.encode(pixels).latents, force_not_quantize=True).sample.clamp(-1, 1)
        mse = (rebuilt - pixels).pow(2).mean((1, 2, 3))
        return {
            "psnr": (10 * torch.log10(4 / mse)).mean().item(),
            "val_features": feature_distance(self.teacher, rebuilt, pixels).item(),
        }

    def preview(self, module: nn.Module, path: Path) -> None:
        from mmx.media.image import grid

        pixels = to_pixels(self.val.pixels[:16], device_of(module))
        rebuilt = module.decode(module.encode(pixels).latents, force_not_quantize=True).sample
        grid(to_images(torch.stack((pixels, rebuilt), 1).flatten(0, 1)), columns=8).save(path)


@torch.no_grad()
def whiten_latents(codec, latents: Tensor) -> Tensor:
    """Fold the latents' mean and std a channel into the codec's own normalisation, so that they come out
    standardised: the Kandinsky pipeline applies no scaling factor. latents (N, C, h, w), on the CPU, are returned as
    the codec now gives them."""
    moments = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    into, out = codec.down_blocks[-1][-1], codec.up_blocks[0][0]
    mean, std = (x.to(into.weight.device) for x in moments)
    into.weight.div_(std)
    into.bias.copy_((into.bias - mean) / std)
    out.bias.add_(out.weight[:, :, 0, 0] @ mean)
    out.weight.mul_(std[None, :, None, None])
    mean, std = moments
    return (latents - mean[:, None, None]) / std[:, None, None]
