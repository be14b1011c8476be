"""The three stages of a starter image decoder: the joint space, the codec, the denoiser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.nets.dual import DualEncoder, LayoutHead
from mmx.training.captions import TEMPLATES, all_captions, train_tokenizer, words_of
from mmx.training.data import Photos
from mmx.training.losses import infonce


def to_pixels(images: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 → (B, 3, S, S) float in [-1, 1], channels last in memory."""
    return (images.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def random_crops(pixels: Tensor, generator: torch.Generator, min_scale: float = 0.6) -> Tensor:
    """Random flips and crops of `min_scale`..1 of the side, resampled to the same size. (B, 3, S, S) → the same."""
    count = len(pixels)
    scale = 1 - (1 - min_scale) * torch.rand(count, generator=generator)
    flip = 1 - 2 * (torch.rand(count, generator=generator) < 0.5).float()
    shift = (2 * torch.rand(count, 2, generator=generator) - 1) * (1 - scale)[:, None]
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale * flip, scale, shift
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False).to(pixels.device)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


@dataclass(frozen=True)
class SpaceConfig:
    """Sizes of the joint space's two towers."""

    dim: int = 512
    image_size: int = 64
    hidden_sizes: tuple[int, ...] = (80, 160, 320)
    depths: tuple[int, ...] = (2, 2, 2)
    text_width: int = 128
    text_layers: int = 2


def build_space(config: SpaceConfig, vocab_size: int, end_token: int) -> DualEncoder:
    """Fresh towers, made of the transformers library's own classes."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, ResNetConfig, ResNetModel

    image = ResNetModel(
        ResNetConfig(
            embedding_size=config.hidden_sizes[0],
            hidden_sizes=list(config.hidden_sizes),
            depths=list(config.depths),
            layer_type="basic",
        )
    )
    text = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=vocab_size,
            hidden_size=config.text_width,
            intermediate_size=2 * config.text_width,
            num_hidden_layers=config.text_layers,
            num_attention_heads=4,
            max_position_embeddings=16,
            projection_dim=config.dim,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=end_token,
        )
    )
    return DualEncoder(image, text, image_size=config.image_size)


class _SpaceModule(nn.Module):
    def __init__(self, space: DualEncoder) -> None:
        super().__init__()
        self.space = space
        self.head = LayoutHead(space.dim)


class SpaceTask:
    """Joint image-text space: InfoNCE between photos and captions, and a small reconstruction head for layout."""

    name = "space"
    layout_weight = 4.0

    def __init__(self, photos: Photos, val: Photos, config: SpaceConfig, seed: int = 0) -> None:
        self.photos, self.val = photos, val
        self.tokenizer = train_tokenizer(all_captions(photos.meta))
        torch.manual_seed(seed)  # the initial weights; everything later draws from generators
        self.module = _SpaceModule(build_space(config, len(self.tokenizer), self.tokenizer.eos_token_id))
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
        tokens = self.tokenizer(captions, padding=True, return_tensors="pt")
        synsets, concepts = self.synset_ids[picks], self.concept_ids[picks]
        # caption j belongs to photo i when it names i's synset, or i's concept
        positives = torch.where(
            by_concept[None, :], concepts[:, None] == concepts[None, :], synsets[:, None] == synsets[None, :]
        )
        return {
            "images": self.photos.pixels[picks],
            "ids": tokens.input_ids,
            "mask": tokens.attention_mask,
            "positives": positives,
        }

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        space = self.module.space
        pixels = random_crops(to_pixels(batch["images"]), generator)
        semantic, layout = space.image_parts(pixels)
        # the layout part is shaped by reconstruction alone; texts still learn what layout is usual for a name
        image = torch.cat((semantic, layout.detach()), dim=-1)
        contrast = infonce(
            image,
            space.encode_text(batch["ids"], batch["mask"]),
            scale=space.logit_scale.exp(),
            positives=batch["positives"],
        )
        embeds = torch.cat((semantic, layout), dim=-1) * space.dim**0.5
        rebuilt = self.module.head(embeds).float()
        coarse = F.l1_loss(rebuilt, F.avg_pool2d(pixels, pixels.shape[-1] // 32))
        return contrast + self.layout_weight * coarse, {"contrast": contrast.item(), "layout": coarse.item()}

    def validate(self, module: nn.Module) -> dict[str, float]:
        space = module.space
        tokens = self.tokenizer([f"a photo of a {c}" for c in self.concepts], padding=True, return_tensors="pt")
        text = space.encode_text(tokens.input_ids, tokens.attention_mask)
        hits, coarse = [], []
        for start in range(0, len(self.val), 256):
            pixels = to_pixels(self.val.pixels[start : start + 256])
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

        pixels = to_pixels(self.val.pixels[:16])
        coarse = F.interpolate(module.head(module.space.encode_image(pixels)), size=pixels.shape[-1])
        pairs = torch.stack((pixels, coarse), 1).flatten(0, 1)
        grid(to_images(pairs), columns=8).save(path)


def to_images(pixels: Tensor) -> list:
    """(B, 3, S, S) in [-1, 1] → RGB pictures."""
    from PIL import Image

    array = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(item) for item in array]


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
    """Squared distance of channel-normalised feature maps, averaged over all but the `skip` finest (LPIPS without learned
    weights, Zhang et al. 2018). a, b: (B, 3, S, S); gradients flow into `a` only."""
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
        pixels = to_pixels(self.val.pixels[:256])
        rebuilt = module.decode(module.encode(pixels).latents, force_not_quantize=True).sample.clamp(-1, 1)
        mse = (rebuilt - pixels).pow(2).mean((1, 2, 3))
        return {
            "psnr": (10 * torch.log10(4 / mse)).mean().item(),
            "val_features": feature_distance(self.teacher, rebuilt, pixels).item(),
        }

    def preview(self, module: nn.Module, path: Path) -> None:
        from mmx.media.image import grid

        pixels = to_pixels(self.val.pixels[:16])
        rebuilt = module.decode(module.encode(pixels).latents, force_not_quantize=True).sample
        grid(to_images(torch.stack((pixels, rebuilt), 1).flatten(0, 1)), columns=8).save(path)


@torch.no_grad()
def encode_all(photos: Photos, encode, batch: int = 256) -> Tensor:
    """`encode` applied to all photos, plain and then mirrored: (2N, ...) float32, computed in bfloat16 (training data only)."""
    pieces = []
    for mirrored in (False, True):
        for start in range(0, len(photos), batch):
            pixels = to_pixels(photos.pixels[start : start + batch])
            with torch.autocast("cpu", torch.bfloat16):
                pieces.append(encode(pixels.flip(3) if mirrored else pixels).float())
    return torch.cat(pieces)


@torch.no_grad()
def whiten_latents(codec, latents: Tensor) -> Tensor:
    """Fold the latents' mean and std a channel into the codec's own normalisation, so that they come out
    standardised: the Kandinsky pipeline applies no scaling factor. latents (N, C, h, w) are returned as the codec now gives them."""
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    into, out = codec.down_blocks[-1][-1], codec.up_blocks[0][0]
    into.weight.div_(std)
    into.bias.copy_((into.bias - mean) / std)
    out.bias.add_(out.weight[:, :, 0, 0] @ mean)
    out.weight.mul_(std[None, :, None, None])
    return (latents - mean[:, None, None]) / std[:, None, None]


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
        latents, embeds = (tensor[:512] for tensor in self.val)
        return {"val_v": self._v_loss(module, latents, embeds, generator).item()}

    def preview(self, module: nn.Module, path: Path) -> None:
        """Eight val photos through the codec alone, then through embedding and denoiser at guidance 1 and 3."""
        from mmx.media.image import grid

        latents, embeds = self.val[0][:8], self.val[1][:8]
        rows = to_images(self.decoder.movq.decode(latents, force_not_quantize=True).sample)
        for guidance in (1.01, 3.0):
            generators = [torch.Generator().manual_seed(i) for i in range(8)]
            rows += self.decoder(module, embeds, self.null, guidance, generators)
        grid(rows, columns=8).save(path)


@torch.no_grad()
def first_guesses(unet: nn.Module, embeds: Tensor, latents: Tensor, seed: int, batch: int = 256) -> Tensor:
    """The denoiser's guess at each picture's latents from pure noise and its embedding: (N, C, h, w), one step of sampling.

    embeds (N, D), latents (N, C, h, w): only their shape matters. Computed in bfloat16.
    """
    scheduler = build_scheduler()
    last = scheduler.config.num_train_timesteps - 1
    signal = scheduler.alphas_cumprod[last]
    generator = torch.Generator().manual_seed(seed)
    found = []
    for start in range(0, len(embeds), batch):
        part = embeds[start : start + batch].float()
        noise = torch.randn(len(part), *latents.shape[1:], generator=generator)
        noisy = noise.contiguous(memory_format=torch.channels_last)
        steps = torch.full((len(part),), last)
        with torch.autocast("cpu", torch.bfloat16):
            v = unet(noisy, steps, None, added_cond_kwargs={"image_embeds": part}).sample
        found.append((signal.sqrt() * noise - (1 - signal).sqrt() * v[:, : latents.shape[1]].float()).half())
    return torch.cat(found)


class FinishTask:
    """The codec's decoder learns to make a picture of what the denoiser guesses: L1 and feature loss to the real photo.

    A diffusion model that was trained for an hour on a CPU guesses the likely layout and colours well and the details badly. Half of the
    inputs are its first guesses, from which the decoder learns to finish the picture; the others are encoded photos, so that
    it stays the codec's decoder. The encoder is not touched, so the denoiser stays right.
    """

    name = "finish"
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
        # without the stem's map: where details can't be known, it would be pleased with any texture of the right strength
        features = feature_distance(self.teacher, drawn.roll(shift, (2, 3)), pixels.roll(shift, (2, 3)), skip=1)
        l1 = F.l1_loss(drawn, pixels)
        return l1 + self.feature_weight * features, {"l1": l1.item(), "features": features.item()}

    def validate(self, module: nn.Module) -> dict[str, float]:
        pixels = to_pixels(self.val.pixels[:256])
        drawn = module.decode(self.val_guesses[:256].float(), force_not_quantize=True).sample.clamp(-1, 1)
        return {
            "guess_l1": F.l1_loss(drawn, pixels).item(),
            "guess_features": feature_distance(self.teacher, drawn, pixels).item(),
        }

    def preview(self, module: nn.Module, path: Path) -> None:
        from mmx.media.image import grid

        drawn = module.decode(self.val_guesses[:16].float(), force_not_quantize=True).sample
        pairs = torch.stack((to_pixels(self.val.pixels[:16]), drawn), 1).flatten(0, 1)
        grid(to_images(pairs), columns=8).save(path)
