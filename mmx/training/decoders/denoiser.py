"""The third stage of a starter image decoder, the diffusion model over latents, and the fourth, which fits the codec's
decoder to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.data.photos import Photos
from mmx.device import autocast, device_of
from mmx.training.decoders.codec import feature_distance
from mmx.training.decoders.space import to_images, to_pixels


@dataclass(frozen=True)
class DenoiserConfig:
    """Sizes of the diffusion UNet over the codec's latents."""

    channels: tuple[int, ...] = (128, 192)
    layers: int = 1
    tokens_dim: int = 64
    sample_size: int = 8


def build_denoiser(config: DenoiserConfig, latent_channels: int, dim: int):
    """A fresh UNet of Kandinsky 2.2's kind: conditioned on an image embedding (B, dim) and nothing else."""
    from diffusers import UNet2DConditionModel

    deeper = len(config.channels) - 1
    return UNet2DConditionModel(
        sample_size=config.sample_size,
        in_channels=latent_channels,
        out_channels=2 * latent_channels,
        down_block_types=("DownBlock2D",) + ("SimpleCrossAttnDownBlock2D",) * deeper,
        up_block_types=("SimpleCrossAttnUpBlock2D",) * deeper + ("UpBlock2D",),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        encoder_hid_dim=dim,
        encoder_hid_dim_type="image_proj",
        addition_embed_type="image",
        cross_attention_dim=config.tokens_dim,
        attention_head_dim=32,
        norm_num_groups=16,
        resnet_time_scale_shift="scale_shift",
    )


def build_scheduler():
    """The noise schedule in training and sampling: cosine, v-prediction, deterministic sampling."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )


class DenoiserTask:
    """Latent diffusion conditioned on the teacher's image embedding (unCLIP, Ramesh et al. 2022), v-prediction.

    latents (N, C, h, w) and embeds (N, D) are computed once. A tenth of the items see `null` instead, the embedding
    of a black image, which is Kandinsky 2.2's negative; the others see their embedding with a little noise, because
    at translation time it comes from a prior.
    """

    name = "denoiser"
    lower_is_better = ("val_v",)
    drop, embed_noise = 0.1, 0.25

    def __init__(
        self,
        latents: Tensor,
        embeds: Tensor,
        val: tuple[Tensor, Tensor],
        null: Tensor,
        decoder,
        config: DenoiserConfig,
        seed: int = 0,
    ) -> None:
        self.latents, self.embeds, self.val, self.null, self.decoder = latents, embeds, val, null, decoder
        from diffusers.models.attention_processor import AttnAddedKVProcessor

        self.scale = embeds.std(0)
        torch.manual_seed(seed)
        self.module = build_denoiser(config, latents.shape[1], embeds.shape[1]).to(memory_format=torch.channels_last)
        # over so few tokens plain products are several times as fast backward as the fused attention is on a CPU
        self.module.set_attn_processor(AttnAddedKVProcessor())
        self.scheduler = build_scheduler()

    def batch(self, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        picks = torch.randint(len(self.latents), (size,), generator=generator)
        embeds = self.embeds[picks].float()
        strength = self.embed_noise * torch.rand(size, 1, generator=generator)
        embeds = embeds + strength * self.scale * torch.randn(embeds.shape, generator=generator)
        dropped = torch.rand(size, 1, generator=generator) < self.drop
        return {"latents": self.latents[picks].float(), "embeds": torch.where(dropped, self.null, embeds)}

    def _v_loss(self, module: nn.Module, latents: Tensor, embeds: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        # stratified over the batch: every batch sees all noise levels
        steps = (
            (torch.arange(len(latents)) + torch.rand(len(latents), generator=generator)) / len(latents) * 1000
        ).long()
        steps = steps.to(latents.device)
        noisy = self.scheduler.add_noise(latents, noise, steps).contiguous(memory_format=torch.channels_last)
        guess = module(noisy, steps, None, added_cond_kwargs={"image_embeds": embeds}).sample.float()
        wanted = self.scheduler.get_velocity(latents, noise, steps)
        return F.mse_loss(guess[:, : latents.shape[1]], wanted)

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return self._v_loss(self.module, batch["latents"], batch["embeds"], generator), {}

    def validate(self, module: nn.Module) -> dict[str, float]:
        generator = torch.Generator().manual_seed(0)
        latents, embeds = (tensor[:512].to(device_of(module)) for tensor in self.val)
        return {"val_v": self._v_loss(module, latents, embeds, generator).item()}

    def preview(self, module: nn.Module, path: Path) -> None:
        """Eight val photos through the codec alone, then through embedding and denoiser at guidance 1 and 3."""
        from mmx.media.image import grid

        latents, embeds, null = (x.to(device_of(module)) for x in (self.val[0][:8], self.val[1][:8], self.null))
        rows = to_images(self.decoder.movq.decode(latents, force_not_quantize=True).sample)
        for guidance in (1.01, 3.0):
            generators = [torch.Generator().manual_seed(i) for i in range(8)]
            rows += self.decoder(module, embeds, null, guidance, generators)
        grid(rows, columns=8).save(path)


@torch.no_grad()
def first_guesses(unet: nn.Module, embeds: Tensor, latents: Tensor, seed: int, batch: int = 256) -> Tensor:
    """The denoiser's guess at each picture's latents from pure noise and its embedding: (N, C, h, w), one step of
    sampling.

    embeds (N, D), latents (N, C, h, w): only their shape matters. Computed in bfloat16 where that pays; all tensors on
    the CPU.
    """
    device = device_of(unet)
    scheduler = build_scheduler()
    last = scheduler.config.num_train_timesteps - 1
    signal = scheduler.alphas_cumprod[last]
    generator = torch.Generator().manual_seed(seed)
    found = []
    for start in range(0, len(embeds), batch):
        part = embeds[start : start + batch].float()
        noise = torch.randn(len(part), *latents.shape[1:], generator=generator)
        noisy = noise.to(device).contiguous(memory_format=torch.channels_last)
        steps = torch.full((len(part),), last, device=device)
        with autocast(device):
            v = unet(noisy, steps, None, added_cond_kwargs={"image_embeds": part.to(device)}).sample.cpu()
        found.append((signal.sqrt() * noise - (1 - signal).sqrt() * v[:, : latents.shape[1]].float()).half())
    return torch.cat(found)


class FinishTask:
    """The codec's decoder learns to make a picture of what the denoiser guesses: L1 and feature loss to the real photo.

    A diffusion model that was trained for an hour on a CPU guesses the likely layout and colours well and the details
    badly. Half of the inputs are its first guesses, from which the decoder learns to finish the picture; the others are
    encoded photos, so that it stays the codec's decoder. The encoder is not touched, so the denoiser stays right.
    """

    name = "finish"
    lower_is_better = ("guess_l1", "guess_features")
    guess_share, feature_weight, latent_noise = 0.75, 0.25, 0.1

    def __init__(
        self,
        photos: Photos,
        val: Photos,
        teacher,
        codec,
        pairs: tuple[Tensor, Tensor],
        val_guesses: Tensor,
        seed: int = 0,
    ) -> None:
        self.photos, self.val, self.teacher = photos, val, teacher.eval().requires_grad_(False)
        self.latents, self.guesses = pairs
        self.val_guesses = val_guesses
        self.module = codec
        for part in (codec.in_block, codec.down_blocks, codec.vquantizer):
            part.requires_grad_(False)
        for part in (codec.up_blocks, codec.out_block):
            part.requires_grad_(True)

    def batch(self, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        picks = torch.randint(len(self.photos), (size,), generator=generator)
        guessed = torch.rand(size, 1, 1, 1, generator=generator) < self.guess_share
        encoded = self.latents[picks].float()
        encoded = encoded + self.latent_noise * torch.randn(encoded.shape, generator=generator)
        return {
            "images": self.photos.pixels[picks],
            "latents": torch.where(guessed, self.guesses[picks].float(), encoded),
        }

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        pixels = to_pixels(batch["images"])
        drawn = self.module.decode(batch["latents"], force_not_quantize=True).sample.float()
        shift = torch.randint(0, 4, (2,), generator=generator).tolist()
        # without the stem's map: where details can't be known, it would be pleased with any texture of the right
        # strength
        features = feature_distance(self.teacher, drawn.roll(shift, (2, 3)), pixels.roll(shift, (2, 3)), skip=1)
        l1 = F.l1_loss(drawn, pixels)
        return l1 + self.feature_weight * features, {"l1": l1.item(), "features": features.item()}

    def validate(self, module: nn.Module) -> dict[str, float]:
        pixels = to_pixels(self.val.pixels[:256], device_of(module))
        drawn = module.decode(self.val_guesses[:256].to(pixels.device).float(), force_not_quantize=True).sample.clamp(
            -1, 1
        )
        return {
            "guess_l1": F.l1_loss(drawn, pixels).item(),
            "guess_features": feature_distance(self.teacher, drawn, pixels).item(),
        }

    def preview(self, module: nn.Module, path: Path) -> None:
        from mmx.media.image import grid

        pixels = to_pixels(self.val.pixels[:16], device_of(module))
        drawn = module.decode(self.val_guesses[:16].to(pixels.device).float(), force_not_quantize=True).sample
        pairs = torch.stack((pixels, drawn), 1).flatten(0, 1)
        grid(to_images(pairs), columns=8).save(path)
