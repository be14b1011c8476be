"""The image decoder that draws in one step: a generator's folder, with its teacher beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmx.decoders.base import ConditioningSpec, fingerprint, freeze, keep_small
from mmx.decoders.diffusion import finite_pictures
from mmx.decoders.face_teacher import FaceTeacher
from mmx.decoders.frozen import FrozenDecoder
from mmx.decoders.teacher import Teacher, image_side
from mmx.decoders.unclip import SPACE, TEACHERS, family_of
from mmx.device import threads_for
from mmx.errors import ModelError, UsageError
from mmx.models.store import Located
from mmx.nets.generator import Generator

WEIGHTS = "generator.safetensors"


class GanDecoder(FrozenDecoder):
    """Raw embeddings → pictures by one pass of a generator."""

    batch = 256

    def __init__(self, net: Generator, teacher: Teacher | FaceTeacher, spec: ConditioningSpec) -> None:
        super().__init__(teacher, spec, {"steps": 1, "size": net.size})
        self.net = freeze(net)

    def _move(self, device: str, dtype: torch.dtype) -> None:
        self.net.to(device, dtype)

    def _compile(self) -> None:
        self.net.compile()

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
        """Raw embeddings (B, D) → B pictures. It draws in one step, of one size and without guidance: raises UsageError
        for others, and for a conditioning that does not fit.

        Noise is drawn on the CPU from one generator an item.
        """
        self._refuse(conditioning, steps, guidance, size)

        def draw(part: Tensor, draws: Sequence[torch.Generator]) -> list[Image.Image]:
            return finite_pictures(self._pixels(part, draws).permute(0, 2, 3, 1))

        return self._in_batches(conditioning, generators, draw)

    def paint(self, conditioning: Tensor, *, generators: Sequence[torch.Generator], **options: Any) -> Tensor:
        self._refuse(conditioning, **options)
        return self._pixels(conditioning, generators).float()

    def first_layer(self, conditioning: Tensor) -> Tensor:
        """What the generator makes of conditionings (B, D) first, without noise: (B, N)."""
        return self.net.style[0](F.pad(conditioning, (self.net.noise, 0)))

    def _refuse(
        self, conditioning: Tensor, steps: int | None = None, guidance: float | None = None, size: int | None = None
    ) -> None:
        self.spec.refuse_misfit(conditioning)
        for name, value in (("--steps", steps), ("--guidance", guidance), ("--size", size)):
            only = {"--steps": 1, "--guidance": 1.0, "--size": self.net.size}[name]
            if value not in (None, only):
                raise UsageError(
                    f"{name} {value}: this decoder draws in one step", hint=f"leave it out, or {name} {only}"
                )

    def _pixels(self, embeds: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Raw embeddings (B, D) → (B, 3, S, S) in about [-1, 1], where it computes."""
        dtype = self.net.colours.weight.dtype
        noise = torch.stack([torch.randn(self.net.noise, generator=generator) for generator in generators])
        with threads_for(self.net, items=len(embeds)), self.at_work(self.net) as net:
            return net(noise.to(self.device, dtype), embeds.to(self.device, dtype))

    @classmethod
    def load(cls, at: Located | Path) -> GanDecoder:
        """Read a decoder folder. Raises ModelError when it is not one."""
        from safetensors.torch import load_file

        folder = at if isinstance(at, Path) else at.folder
        about = folder / "mmx.json"
        settings = json.loads(about.read_text(encoding="utf8")) if about.exists() else {}
        if "generator" not in settings or not (folder / WEIGHTS).exists():
            raise ModelError(
                f"{folder} is not a decoder with a generator", hint="mmx train-decoder image --family gan makes one"
            )
        net = Generator(**settings["generator"])
        net.load_state_dict({name: value.to(torch.float32) for name, value in load_file(folder / WEIGHTS).items()})
        spec = ConditioningSpec.from_dict(settings["spec"] | {"fingerprint": space_of(folder)})
        spec = replace(spec, former=fingerprint(folder, SPACE))
        teacher = TEACHERS[settings["family"]].load(folder / "teacher")
        return cls(net.to(memory_format=torch.channels_last), teacher, spec)


def space_of(folder: Path) -> str:
    """The fingerprint of the space of an image decoder of ours, which its bridges carry: of what embeds pictures.

    Of a diffusion decoder, and of faces, it is that of the whole teacher, as in all bridges that there are.
    """
    reads_texts = (folder / "teacher" / "text_encoder").exists()
    return image_side(folder / "teacher") if reads_texts and (folder / WEIGHTS).exists() else fingerprint(folder, SPACE)


def save_gan_decoder(
    folder: Path, net: Generator, teacher: Teacher | FaceTeacher, *, name: str, teacher_folder: Path | None = None
) -> None:
    """Write the folder that `GanDecoder.load` reads: float16, the matrices float8.

    teacher_folder: where the teacher was loaded from, copied as it is, so that its space keeps its fingerprint.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in net.state_dict().items()
    }
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    keep_small(folder / WEIGHTS)
    if teacher_folder is None:
        teacher.save(folder / "teacher")
    else:
        shutil.copytree(teacher_folder, folder / "teacher", dirs_exist_ok=True)
    spec = ConditioningSpec(name, (teacher.net.dim,), teacher.net.dim**0.5, space_of(folder))
    about = {
        "family": family_of(teacher),
        "format": "gan",
        "spec": spec.as_dict(),
        "defaults": {"steps": 1, "size": net.size},
        "generator": net.sizes,
    }
    (folder / "mmx.json").write_text(json.dumps(about, indent=1), encoding="utf8")
