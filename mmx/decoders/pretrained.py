"""Full-size image decoders in their own file formats: Kandinsky 2.2, Stable unCLIP, Stable Diffusion with an IP-Adapter.

Each is the library's own pipeline, driven by image embeddings alone. A decoder is a folder of the hub or of this machine, some with a
companion beside it ("DECODER+COMPANION"): Kandinsky's prior holds the image encoder, an IP-Adapter its weights and encoder.
"""

from __future__ import annotations

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
from mmx.decoders.pretrained_parts import (
    ClipTeacher,
    OnnxFaces,
    adapter_parts,
    arc2face_teacher,
    companion_beside,
    ip_adapter_teacher,
    kandinsky_teacher,
    pipeline_class,
    read_part,
    read_pipeline,
    unclip_teacher,
)
from mmx.errors import ModelError, UsageError
from mmx.models.store import Located


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
    teacher: Callable[
        ..., tuple[ClipTeacher | OnnxFaces | None, int]
    ]  # of the pipeline and the companion; and its width


def _kandinsky(decoder: HubDecoder, embeds: Tensor, guidance: float) -> dict[str, Any]:
    return {"image_embeds": embeds, "negative_image_embeds": decoder.negative.to(embeds).expand(len(embeds), -1)}


def _unclip(decoder: HubDecoder, embeds: Tensor, guidance: float) -> dict[str, Any]:
    return {"prompt": [""] * len(embeds), "image_embeds": embeds, "noise_level": 0}


def _ip_adapter(decoder: HubDecoder, embeds: Tensor, guidance: float) -> dict[str, Any]:
    both = torch.cat((torch.zeros_like(embeds), embeds)) if guidance > 1 else embeds  # negatives first
    return {"prompt": [""] * len(embeds), "ip_adapter_image_embeds": [both[:, None]]}


def _arc2face(decoder: HubDecoder, embeds: Tensor, guidance: float) -> dict[str, Any]:
    return {"prompt_embeds": face_prompt(decoder.pipeline, embeds)}


FACE_PROMPT, FACE_TOKEN = "photo of a id person", "id"


def face_prompt(pipeline, faces: Tensor) -> Tensor:
    """ArcFace embeddings (B, D) → prompt embeddings (B, L, W): a face takes the place of one token's embedding, zero-padded to the
    text tower's width (Arc2Face, Papantoniou et al., ECCV 2024)."""
    tokenizer, tower = pipeline.tokenizer, pipeline.text_encoder
    ids = tokenizer(
        FACE_PROMPT, truncation=True, padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt"
    ).input_ids.to(faces.device)
    place = ids[0] == tokenizer.encode(FACE_TOKEN, add_special_tokens=False)[0]
    padded = torch.nn.functional.pad(faces, (0, tower.config.hidden_size - faces.shape[1]))

    def inject(_module: torch.nn.Module, _inputs: Any, embedded: Tensor) -> Tensor:
        return torch.where(place[None, :, None], padded[:, None].to(embedded.dtype), embedded)

    # the tower takes no embeddings in place of ids: they are changed where they leave its table
    handle = tower.get_input_embeddings().register_forward_hook(inject)
    try:
        return tower(ids.expand(len(faces), -1)).last_hidden_state
    finally:
        handle.remove()


OPENRAIL = "CreativeML Open RAIL-M"
FAMILIES = {
    "KandinskyV22Pipeline": Family(
        "kandinsky-2.2", "Apache-2.0", True, 50, 4.0, 512, 6.0, "kandinsky-2-2-prior", _kandinsky, kandinsky_teacher
    ),
    "StableUnCLIPImg2ImgPipeline": Family(
        "stable-unclip", OPENRAIL + "++", True, 20, 10.0, 768, 6.0, "", _unclip, unclip_teacher
    ),
    "StableDiffusionPipeline": Family(
        "sd-ip-adapter", OPENRAIL, True, 30, 7.5, 512, 4.0, "IP-Adapter", _ip_adapter, ip_adapter_teacher
    ),
    "StableDiffusionXLPipeline": Family(
        "sdxl-ip-adapter", OPENRAIL + "++", True, 30, 5.0, 1024, 9.0, "IP-Adapter", _ip_adapter, ip_adapter_teacher
    ),
}


# the same pipelines with another companion beside them: the folder in it that tells which it is
BY_COMPANION = {
    "arc2face": Family(
        "arc2face",
        "MIT; its face recogniser: non-commercial research",
        False,
        25,
        3.0,
        512,
        4.0,
        "Arc2Face",
        _arc2face,
        arc2face_teacher,
    )
}


class HubDecoder:
    """A diffusers pipeline driven by image embeddings. teacher: None for families whose encoder is elsewhere (FaceID: ArcFace)."""

    def __init__(
        self,
        family: Family,
        pipeline,
        teacher: ClipTeacher | OnnxFaces | None,
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
        self.negative = teacher.zero() if isinstance(teacher, ClipTeacher) else torch.zeros(1, spec.shape[0])

    @property
    def teacher(self) -> ClipTeacher | OnnxFaces:
        """The frozen image encoder. Raises ModelError where the family has none of its own."""
        if self._teacher is None:
            raise ModelError(
                f"{self.spec.name} has no image encoder: its conditioning is made by a face recogniser (ArcFace)",
                hint="a bridge trained for it can drive it; to train one, put the recogniser's .onnx into its companion's folder",
            )
        return self._teacher

    @cached_property
    def prior(self):
        """The family's own pipeline from texts to image embeddings. Raises ModelError where it has none."""
        if self.family.name != "kandinsky-2.2" or getattr(self._teacher, "texts", None) is None:
            raise ModelError(
                f"{self.spec.name} has no prior from texts to image embeddings",
                hint="--decoder kandinsky-2.2 has one; others are driven by bridges",
            )
        text_encoder, tokenizer = self._teacher.texts
        shared = {"image_encoder": self._teacher.net, "text_encoder": text_encoder, "tokenizer": tokenizer}
        prior = read_pipeline("KandinskyV22PriorPipeline", self._companion, **shared)
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
            self._teacher.to(device, dtype)
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
        from mmx.decoders.unclip import finite_pictures

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
        family, companion = FAMILIES[kind], at.companion
        for folder, other in BY_COMPANION.items():
            if companion and (companion / folder).is_dir():
                family = other
        companion = companion or companion_beside(at.folder, family.companion)
        if family.companion and companion is None:
            raise ModelError(
                f"{at.name}: a {family.name} decoder needs {family.companion} beside it",
                hint="give both, with a + between them: --decoder DECODER+COMPANION",
            )
        quiet_libraries()
        parts: dict[str, Any] = {"safety_checker": None} if kind == "StableDiffusionPipeline" else {}
        if family.name == "arc2face":
            parts["unet"] = read_part("diffusers", "UNet2DConditionModel", companion / "arc2face")
            parts["text_encoder"] = read_part("transformers", "CLIPTextModel", companion / "encoder")
        pipeline = read_pipeline(kind, at.folder, **parts)
        teacher, dim = family.teacher(pipeline, companion)
        folder, parts = (companion, (".",)) if companion else (at.folder, ("image_encoder", "image_normalizer"))
        # an IP-Adapter's folder may hold others, too: which of them were fetched must not tell spaces apart
        read = adapter_parts(pipeline, folder) if family.companion == "IP-Adapter" else parts
        own, former = fingerprint(folder, read, variants=False), fingerprint(folder, parts)
        spec = ConditioningSpec(f"{family.name}/image", (dim,), 1.0, own, former)
        decoder = cls(family, pipeline, teacher, spec, companion)
        sample = getattr(pipeline.unet.config, "sample_size", None)
        if isinstance(sample, int):  # the size that this checkpoint was trained at
            decoder.defaults["size"] = sample * _scale(pipeline)
        return decoder


def _scale(pipeline) -> int:
    return getattr(pipeline, "vae_scale_factor", None) or getattr(pipeline, "movq_scale_factor", 8)
