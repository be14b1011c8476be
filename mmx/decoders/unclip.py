"""The image decoder: an unCLIP diffusion model in a diffusers Kandinsky 2.2 folder, with its teacher beside it.

A face decoder is the same thing with another teacher: its conditioning is a face's feature.
"""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mmx.compat import quiet_libraries
from mmx.decoders.base import ConditioningSpec, fingerprint, keep_small
from mmx.decoders.diffusion import DiffusionDecoder
from mmx.decoders.face_teacher import FaceTeacher
from mmx.decoders.teacher import Teacher
from mmx.errors import ModelError, UsageError
from mmx.models.store import Located

PARTS = ("unet", "movq", "scheduler", "teacher")
SPACE = (
    "teacher",
)  # what a bridge depends on: the space. A decoder that was trained longer in the same space still fits


TEACHERS = {"image": Teacher, "face": FaceTeacher}


def family_of(teacher: Teacher | FaceTeacher) -> str:
    """What decoders with this teacher are of, a key of TEACHERS."""
    return next(name for name, kind in TEACHERS.items() if isinstance(teacher, kind))


class ImageDecoder(DiffusionDecoder):
    """A `KandinskyV22Pipeline` driven by image embeddings alone; the negative is the embedding of a black image."""

    batch = 64
    output_type = "pt"  # of the pipeline: (B, 3, S, S) in [-1, 1]
    signed = True

    def __init__(
        self, pipeline, teacher: Teacher | FaceTeacher, spec: ConditioningSpec, defaults: dict[str, Any]
    ) -> None:
        super().__init__(pipeline, teacher, spec, defaults)
        self.negative = teacher.embed([Image.new("RGB", (defaults["size"],) * 2)])

    def side(self, size: int) -> int:
        side = self.pipeline.movq_scale_factor  # the pipeline makes latents in multiples of this many a side
        patch = getattr(self.pipeline.movq.config, "up_down_scale_factor", side)  # pixels a latent
        unit = side * patch
        if size % unit or size < unit:
            raise UsageError(
                f"--size {size} does not fit this decoder",
                hint=f"give a multiple of {unit}; it was trained at {self.defaults['size']}",
            )
        return size // patch * side

    def first_layer(self, conditioning: Tensor) -> Tensor:
        """What the UNet makes of conditionings (B, D) first: its tokens, flat (B, N)."""
        return self.pipeline.unet.encoder_hid_proj(conditioning).flatten(1)

    def inputs(self, embeds: Tensor, guidance: float) -> dict[str, Any]:
        return {"image_embeds": embeds, "negative_image_embeds": self.negative.to(embeds).expand(len(embeds), -1)}

    def pixels(self, output: Tensor) -> Tensor:
        return output.permute(0, 2, 3, 1)

    @classmethod
    def load(cls, at: Located | Path) -> ImageDecoder:
        """Read a decoder folder. Raises ModelError when it is not one."""
        from diffusers import KandinskyV22Pipeline

        folder = at if isinstance(at, Path) else at.folder
        about = folder / "mmx.json"
        if not about.exists():
            raise ModelError(
                f"{folder} is not an image decoder: it has no mmx.json", hint="mmx train-decoder image makes one"
            )
        settings = json.loads(about.read_text(encoding="utf8"))
        if settings["family"] not in TEACHERS:
            raise ModelError(f"{folder} is a {settings['family']} decoder, and pictures are asked for")
        quiet_libraries()
        importlib.import_module(PAELLA)  # diffusers takes a module that model_index.json names only if it is imported
        pipeline = KandinskyV22Pipeline.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.movq.to(memory_format=torch.channels_last)
        spec = ConditioningSpec.from_dict(settings["spec"] | {"fingerprint": fingerprint(folder, SPACE)})
        return cls(pipeline, TEACHERS[settings["family"]].load(folder / "teacher"), spec, settings["defaults"])


PAELLA = "diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model"


def _name_codec_module(folder: Path) -> None:
    """diffusers writes that the Paella autoencoder is in its top-level module, where it is not; say where it is."""
    path = folder / "model_index.json"
    index = json.loads(path.read_text(encoding="utf8"))
    if index["movq"] == ["diffusers", "PaellaVQModel"]:
        index["movq"] = [PAELLA, "PaellaVQModel"]
        path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf8")


def save_image_decoder(
    folder: Path,
    pipeline,
    teacher: Teacher | FaceTeacher,
    *,
    name: str,
    mean_norm: float,
    defaults: dict[str, Any],
    teacher_folder: Path | None = None,
) -> None:
    """Write the folder that `ImageDecoder.load`, and plain diffusers, read. Weights are stored as float16, the matrices
    of what draws as float8.

    teacher_folder: where the teacher was loaded from, copied as it is, so that its space keeps its fingerprint.
    """
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    _name_codec_module(folder)
    for part in ("unet", "movq"):
        keep_small(folder / part / "diffusion_pytorch_model.safetensors")
    pipeline.to(dtype=torch.float32)
    if teacher_folder is None:
        teacher.save(folder / "teacher")
    else:
        shutil.copytree(teacher_folder, folder / "teacher", dirs_exist_ok=True)
    spec = ConditioningSpec(name, (teacher.net.dim,), mean_norm, fingerprint(folder, SPACE))
    (folder / "mmx.json").write_text(
        json.dumps({"family": family_of(teacher), "spec": spec.as_dict(), "defaults": defaults}, indent=1),
        encoding="utf8",
    )
