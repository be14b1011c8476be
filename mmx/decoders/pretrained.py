"""Full-size image decoders in their own file formats: Kandinsky 2.2, Stable unCLIP, Stable Diffusion with an
IP-Adapter.

Each is the library's own pipeline, driven by image embeddings alone. A decoder is a folder of the hub or of this
machine, some with a companion beside it ("DECODER+COMPANION"): Kandinsky's prior holds the image encoder, an IP-Adapter
its weights and encoder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmx.compat import quiet_libraries
from mmx.decoders.base import ConditioningSpec, Teacher, TextPrior, fingerprint, freeze
from mmx.decoders.diffusion import DiffusionDecoder
from mmx.decoders.pretrained_parts import (
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
from mmx.errors import ModelError
from mmx.models.store import Located


@dataclass(frozen=True)
class Family:
    """What is known of a kind of decoder. companion: what the second folder is, or "". batch: pictures at once on a
    GPU.

    inputs: embeddings (B, D) → what drives the pipeline. teacher: of the pipeline and the companion; and its width D.
    """

    name: str
    steps: int
    guidance: float
    size: int
    batch: int
    companion: str
    inputs: Callable[[HubDecoder, Tensor, float], dict[str, Any]]
    teacher: Callable[..., tuple[Teacher, int]]


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
    """ArcFace embeddings (B, D) → prompt embeddings (B, L, W): a face takes the place of one token's embedding,
    zero-padded to the text tower's width (Arc2Face, Papantoniou et al., ECCV 2024)."""
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


# the class of a pipeline → its family
FAMILIES = {
    "KandinskyV22Pipeline": Family(
        "kandinsky-2.2",
        steps=50,
        guidance=4.0,
        size=512,
        batch=8,
        companion="kandinsky-2-2-prior",
        inputs=_kandinsky,
        teacher=kandinsky_teacher,
    ),
    "StableUnCLIPImg2ImgPipeline": Family(
        "stable-unclip",
        steps=20,
        guidance=10.0,
        size=768,
        batch=4,
        companion="",
        inputs=_unclip,
        teacher=unclip_teacher,
    ),
    "StableDiffusionPipeline": Family(
        "sd-ip-adapter",
        steps=30,
        guidance=7.5,
        size=512,
        batch=8,
        companion="IP-Adapter",
        inputs=_ip_adapter,
        teacher=ip_adapter_teacher,
    ),
    "StableDiffusionXLPipeline": Family(
        "sdxl-ip-adapter",
        steps=30,
        guidance=5.0,
        size=1024,
        batch=4,
        companion="IP-Adapter",
        inputs=_ip_adapter,
        teacher=ip_adapter_teacher,
    ),
}
# the same pipelines with another companion beside them: the folder in it that tells which it is
BY_COMPANION = {
    "arc2face": Family(
        "arc2face",
        steps=25,
        guidance=3.0,
        size=512,
        batch=8,
        companion="Arc2Face",
        inputs=_arc2face,
        teacher=arc2face_teacher,
    )
}


class HubDecoder(DiffusionDecoder):
    """A full-size pipeline of the hub."""

    def __init__(
        self, family: Family, pipeline, teacher: Teacher, spec: ConditioningSpec, companion: Path | None = None
    ) -> None:
        defaults = {"steps": family.steps, "guidance": family.guidance, "size": family.size}
        sample = getattr(pipeline.unet.config, "sample_size", None)
        if isinstance(sample, int):  # the size that this checkpoint was trained at
            defaults["size"] = sample * _scale(pipeline)
        super().__init__(pipeline, teacher, spec, defaults)
        self.family, self.batch, self._companion = family, family.batch, companion
        self.signed = family.inputs is _kandinsky

    def inputs(self, embeds: Tensor, guidance: float) -> dict[str, Any]:
        return self.family.inputs(self, embeds, guidance)

    @cached_property
    def negative(self) -> Tensor:
        """The embedding (1, D) that Kandinsky's guidance leads away from."""
        return self.teacher.zero()

    @cached_property
    def prior(self):
        """The family's own pipeline from texts to image embeddings. Raises ModelError where it has none."""
        if self.family.inputs is not _kandinsky or not self.teacher.has_texts:
            raise ModelError(
                f"{self.spec.name} has no prior from texts to image embeddings",
                hint="--decoder kandinsky-2.2 has one; others are driven by bridges",
            )
        text_encoder, tokenizer = self.teacher.texts
        shared = {"image_encoder": self.teacher.net, "text_encoder": text_encoder, "tokenizer": tokenizer}
        prior = read_pipeline("KandinskyV22PriorPipeline", self._companion, **shared)
        prior.set_progress_bar_config(disable=True)
        freeze(prior.prior)
        if self.spared and self.device.type != "cpu":
            prior.to(dtype=self.pipeline.unet.dtype).enable_sequential_cpu_offload(device=self.device)
            return prior
        return prior.to(self.device, self.pipeline.unet.dtype)

    def prompt(self, text: str, generator: torch.Generator) -> Tensor:
        """A text → a raw embedding (D,) that the family's own text prior draws."""
        return self.prior(text, generator=[generator], output_type="pt").image_embeds[0].float().cpu()

    def text_prior(self) -> TextPrior:
        assert self.prior is not None  # it is loaded now, or says now that there is none
        return self.prompt

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
        return cls(family, pipeline, teacher, spec, companion)


def _scale(pipeline) -> int:
    return getattr(pipeline, "vae_scale_factor", None) or getattr(pipeline, "movq_scale_factor", 8)
