"""Full-size image decoders in their own file formats: Kandinsky 2.2, Stable unCLIP, Stable Diffusion with an IP-Adapter.

Each is the library's own pipeline, driven by image embeddings alone. A decoder is a folder of the hub or of this machine, some with a
companion beside it ("DECODER+COMPANION"): Kandinsky's prior holds the image encoder, an IP-Adapter its weights and encoder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mmx.compat import quiet_libraries
from mmx.decoders.base import ConditioningSpec, fingerprint, freeze
from mmx.errors import ModelError, UsageError
from mmx.store import Located


@dataclass(frozen=True)
class Family:
    """What is known of a kind of decoder. companion: what the second folder is, or "". gigabytes: of GPU memory in fp16."""

    name: str
    licence: str
    commercial: bool
    steps: int
    guidance: float
    size: int
    gigabytes: float
    companion: str
    inputs: Callable[[HubDecoder, Tensor, float], dict[str, Any]]


def _kandinsky(decoder: HubDecoder, embeds: Tensor, guidance: float) -> dict[str, Any]:
    return {"image_embeds": embeds, "negative_image_embeds": decoder.negative.to(embeds).expand(len(embeds), -1)}


def _unclip(decoder: HubDecoder, embeds: Tensor, guidance: float) -> dict[str, Any]:
    return {"prompt": [""] * len(embeds), "image_embeds": embeds, "noise_level": 0}


def _ip_adapter(decoder: HubDecoder, embeds: Tensor, guidance: float) -> dict[str, Any]:
    both = torch.cat((torch.zeros_like(embeds), embeds)) if guidance > 1 else embeds  # negatives first
    return {"prompt": [""] * len(embeds), "ip_adapter_image_embeds": [both[:, None]]}


OPENRAIL = "CreativeML Open RAIL-M"
FAMILIES = {
    "KandinskyV22Pipeline": Family(
        "kandinsky-2.2", "Apache-2.0", True, 50, 4.0, 512, 6.0, "kandinsky-2-2-prior", _kandinsky
    ),
    "StableUnCLIPImg2ImgPipeline": Family("stable-unclip", OPENRAIL + "++", True, 20, 10.0, 768, 6.0, "", _unclip),
    "StableDiffusionPipeline": Family("sd-ip-adapter", OPENRAIL, True, 30, 7.5, 512, 4.0, "IP-Adapter", _ip_adapter),
    "StableDiffusionXLPipeline": Family(
        "sdxl-ip-adapter", OPENRAIL + "++", True, 30, 5.0, 1024, 9.0, "IP-Adapter", _ip_adapter
    ),
}


def _works_on(net: torch.nn.Module) -> torch.device:
    """Where a network computes: where its weights are, or where accelerate's offloading brings them to."""
    hook = getattr(net, "_hf_hook", None)
    return net.device if getattr(hook, "execution_device", None) is None else torch.device(hook.execution_device)


class ClipTeacher:
    """A CLIP vision tower as the library's pipelines use it: pictures → raw image embeddings. Frozen."""

    def __init__(self, encoder, processor, texts: tuple[Any, Any] | None = None) -> None:
        self.net, self.processor, self.texts = freeze(encoder), processor, texts
        self.dim = int(encoder.config.projection_dim)

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB pictures of any size → raw embeddings (B, D), float32."""
        pixels = self.processor(list(images), return_tensors="pt").pixel_values
        return self.net(pixels.to(_works_on(self.net), self.net.dtype)).image_embeds.float().cpu()

    @torch.inference_mode()
    def zero(self) -> Tensor:
        """The embedding (1, D) of zero pixel values, as Kandinsky's prior pipeline defines its negative."""
        size = self.net.config.image_size
        return self.net(
            torch.zeros(1, 3, size, size, device=_works_on(self.net), dtype=self.net.dtype)
        ).image_embeds.float()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts → unit-norm embeddings (B, D). Raises ModelError where the decoder has no text tower in this space."""
        if self.texts is None:
            raise ModelError("this decoder's space has no text encoder")
        encoder, tokenizer = self.texts
        tokens = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        return torch.nn.functional.normalize(encoder(**tokens).text_embeds.float(), dim=-1)


class HubDecoder:
    """A diffusers pipeline driven by image embeddings. teacher: None for families whose encoder is elsewhere (FaceID: ArcFace)."""

    def __init__(
        self,
        family: Family,
        pipeline,
        teacher: ClipTeacher | None,
        spec: ConditioningSpec,
        companion: Path | None = None,
    ) -> None:
        self.family, self.pipeline, self.spec, self._teacher = family, pipeline, spec, teacher
        self._companion, self._spared = companion, ""
        self.defaults: dict[str, Any] = {"steps": family.steps, "guidance": family.guidance, "size": family.size}
        pipeline.set_progress_bar_config(disable=True)
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                freeze(part)
        self.negative = teacher.zero() if teacher is not None else torch.zeros(1, spec.shape[0])

    @property
    def teacher(self) -> ClipTeacher:
        """The frozen image encoder. Raises ModelError where the family has none of its own."""
        if self._teacher is None:
            raise ModelError(
                f"{self.spec.name} has no image encoder: its conditioning is made by a face recogniser (ArcFace)",
                hint="a bridge trained for it can drive it, and nothing else",
            )
        return self._teacher

    @cached_property
    def prior(self):
        """The family's own pipeline from texts to image embeddings. Raises ModelError where it has none."""
        if self.family.name != "kandinsky-2.2" or self._teacher is None or self._teacher.texts is None:
            raise ModelError(
                f"{self.spec.name} has no prior from texts to image embeddings",
                hint="--decoder kandinsky-2.2 has one; others are driven by bridges",
            )
        text_encoder, tokenizer = self._teacher.texts
        shared = {"image_encoder": self._teacher.net, "text_encoder": text_encoder, "tokenizer": tokenizer}
        prior = _pipeline("KandinskyV22PriorPipeline", self._companion, **shared)
        prior.set_progress_bar_config(disable=True)
        freeze(prior.prior)
        if self._spared and self.device.type != "cpu":
            prior.to(dtype=self.pipeline.unet.dtype).enable_sequential_cpu_offload(device=self.device)
            return prior
        return prior.to(self.device, self.pipeline.unet.dtype)

    def prompt(self, text: str, generator: torch.Generator) -> Tensor:
        """A text → a raw embedding (D,) that the family's own text prior draws."""
        return self.prior(text, generator=[generator], output_type="pt").image_embeds[0].float().cpu()

    @property
    def device(self) -> torch.device:
        """Where it computes; with `spare` its parts lie elsewhere until then."""
        return torch.device(self._spared) if self._spared else self.pipeline.unet.device

    def to(self, device: str, dtype: torch.dtype = torch.float32) -> HubDecoder:
        """Move every part to a device and a dtype."""
        self.pipeline.to(device, dtype)
        if self._teacher is not None:
            self._teacher.net.to(device, dtype)
        self.negative = self.negative.to(device)
        return self

    def spare(self, device: str, dtype: torch.dtype = torch.float32) -> HubDecoder:
        """As `to`, with as little of the device's memory as can be: each part comes when it is needed, pictures leave in tiles."""
        self.pipeline.to(dtype=dtype)
        if device != "cpu":
            self.pipeline.enable_sequential_cpu_offload(device=device)
        codec = getattr(self.pipeline, "vae", None)
        if codec is not None:  # Kandinsky's has no tiles
            codec.enable_slicing()
            codec.enable_tiling()
        self._spared = device
        return self

    def targets(self, media: Sequence[Image.Image]) -> Tensor:
        """RGB pictures → raw embeddings (B, D)."""
        return self.teacher.embed_images(media)

    @torch.inference_mode()
    def decode(
        self,
        conditioning: Tensor,
        *,
        generators: Sequence[torch.Generator],
        steps: int | None = None,
        guidance: float | None = None,
        size: int | None = None,
    ) -> list[Image.Image]:
        """Raw embeddings (B, D) → B pictures, item i from generators[i] alone. On the CPU one by one, as the starter does.

        Raises UsageError for a conditioning or a size that does not fit, ModelError when memory runs out.
        """
        from mmx.decoders.image import finite_pictures

        if conditioning.shape[1:] != self.spec.shape:
            raise UsageError(
                f"{self.spec.name} listens to {list(self.spec.shape)}, and was given {list(conditioning.shape[1:])}",
                hint="give the bridge that was trained for it",
            )
        guidance = self.defaults["guidance"] if guidance is None else guidance
        chunk = 1 if self.device.type == "cpu" else len(conditioning)
        side = size or self.defaults["size"]
        pictures: list[Image.Image] = []
        for start in range(0, len(conditioning), chunk):
            part = conditioning[start : start + chunk].to(self.device, self.pipeline.unet.dtype)
            output = self.pipeline(
                **self.family.inputs(self, part, guidance),
                height=side,
                width=side,
                num_inference_steps=steps or self.defaults["steps"],
                guidance_scale=guidance,
                generator=list(generators[start : start + chunk]),
                output_type="np",
            ).images
            pictures += finite_pictures(torch.from_numpy(output) * 2 - 1)
        return pictures

    @classmethod
    def load(cls, at: Located) -> HubDecoder:
        """Read a pipeline's folder, and its companion. Raises ModelError when they are not what they should be."""
        kind = pipeline_class(at.folder)
        if kind not in FAMILIES:
            raise ModelError(f"{at.name} is a {kind}", hint=f"decoders are: {', '.join(FAMILIES)}")
        family = FAMILIES[kind]
        companion = at.companion or _companion_beside(at.folder, family)
        if family.companion and companion is None:
            raise ModelError(
                f"{at.name}: a {family.name} decoder needs {family.companion} beside it",
                hint="give both, with a + between them: --decoder DECODER+COMPANION",
            )
        quiet_libraries()
        pipeline = _pipeline(kind, at.folder, safety_checker=None if kind == "StableDiffusionPipeline" else ...)
        teacher, dim = {"kandinsky-2.2": _kandinsky_teacher, "stable-unclip": _unclip_teacher}.get(
            family.name, _ip_adapter_teacher
        )(pipeline, companion)
        parts = fingerprint(companion or at.folder, (".",) if companion else ("image_encoder", "image_normalizer"))
        decoder = cls(
            family, pipeline, teacher, ConditioningSpec(f"{family.name}/image", (dim,), 1.0, parts), companion
        )
        sample = getattr(pipeline.unet.config, "sample_size", None)
        if isinstance(sample, int):  # the size that this checkpoint was trained at
            decoder.defaults["size"] = sample * _scale(pipeline)
        return decoder


def _scale(pipeline) -> int:
    return getattr(pipeline, "vae_scale_factor", None) or getattr(pipeline, "movq_scale_factor", 8)


def _pipeline(kind: str, folder: Path, **options: Any):
    import diffusers

    options = {name: value for name, value in options.items() if value is not ...}
    try:
        return getattr(diffusers, kind).from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True, **options
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{folder.name}: the decoder can't be loaded: {str(error).splitlines()[0]}") from None


def pipeline_class(folder: Path) -> str:
    """The class that a pipeline folder's model_index.json names. Raises ModelError."""
    try:
        return json.loads((folder / "model_index.json").read_text(encoding="utf8"))["_class_name"]
    except (OSError, ValueError, KeyError):
        raise ModelError(
            f"{folder} is no decoder: it has no model_index.json", hint="give a diffusers pipeline folder"
        ) from None


def _companion_beside(folder: Path, family: Family) -> Path | None:
    """A companion that lies in the decoder's folder or next to it under its usual name."""
    if not family.companion:
        return None
    return next((p for p in (folder / family.companion, folder.parent / family.companion) if p.is_dir()), None)


def _vision(folder: Path, processor_folder: Path) -> tuple[Any, Any]:
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    try:
        encoder = CLIPVisionModelWithProjection.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
        known = (processor_folder / "preprocessor_config.json").exists()
        size = encoder.config.image_size
        processor = (
            CLIPImageProcessor.from_pretrained(processor_folder)
            if known
            else CLIPImageProcessor(size=size, crop_size=size)
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder}: the image encoder can't be loaded: {str(error).splitlines()[0]}") from None
    return encoder, processor


def _kandinsky_teacher(pipeline, prior: Path) -> tuple[ClipTeacher, int]:
    encoder, processor = _vision(prior / "image_encoder", prior / "image_processor")
    texts = None
    if (prior / "text_encoder").is_dir() and (prior / "tokenizer").is_dir():
        from transformers import AutoTokenizer, CLIPTextModelWithProjection

        texts = (
            freeze(CLIPTextModelWithProjection.from_pretrained(prior / "text_encoder", dtype=torch.float32)),
            AutoTokenizer.from_pretrained(prior / "tokenizer"),
        )
    return ClipTeacher(encoder, processor, texts), int(encoder.config.projection_dim)


def _unclip_teacher(pipeline, companion: Path | None) -> tuple[ClipTeacher, int]:
    return ClipTeacher(pipeline.image_encoder, pipeline.feature_extractor), int(
        pipeline.image_encoder.config.projection_dim
    )


def _ip_adapter_teacher(pipeline, adapter: Path) -> tuple[ClipTeacher | None, int]:
    """Load the adapter's weights into the pipeline; its image encoder lies beside them, but for FaceID."""
    weights = _adapter_file(adapter, xl=type(pipeline).__name__ == "StableDiffusionXLPipeline")
    encoder = weights.parent / "image_encoder"
    has_encoder = encoder.is_dir()
    try:
        pipeline.load_ip_adapter(
            str(adapter),
            subfolder=weights.parent.relative_to(adapter).as_posix(),
            weight_name=weights.name,
            image_encoder_folder="image_encoder" if has_encoder else None,
            local_files_only=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{weights.name}: the adapter can't be loaded: {str(error).splitlines()[0]}") from None
    if not has_encoder:
        projection = pipeline.unet.encoder_hid_proj.image_projection_layers[0]
        return None, next(p.shape[1] for p in projection.parameters() if p.dim() == 2)
    return ClipTeacher(pipeline.image_encoder, pipeline.feature_extractor), int(
        pipeline.image_encoder.config.projection_dim
    )


def _adapter_file(adapter: Path, *, xl: bool) -> Path:
    """The adapter's weights: the only ones there, or those of the usual name."""
    found = [p for p in sorted(adapter.rglob("*.safetensors")) if "image_encoder" not in p.parts]
    usual = [p for p in found if p.name == ("ip-adapter_sdxl.safetensors" if xl else "ip-adapter_sd15.safetensors")]
    if len(found) == 1 or usual:
        return (usual or found)[0]
    if not found:
        raise ModelError(
            f"{adapter.name}: no .safetensors of an IP-Adapter here", hint="weights in pickles are not read"
        )
    raise ModelError(
        f"{adapter.name} holds {len(found)} adapters",
        hint=f"give a folder with one: {', '.join(p.name for p in found[:4])}",
    )
