"""The space of an image decoder's teacher: pictures and texts by the teacher, sounds by a bridge that leads into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from mmx.bridges.sound import SoundBridge
from mmx.decoders.base import ConditioningSpec, fingerprint
from mmx.decoders.gan import space_of
from mmx.decoders.teacher import Teacher
from mmx.decoders.unclip import SPACE
from mmx.digest import sha256
from mmx.errors import ModelError
from mmx.media.audio import Waveform
from mmx.models.store import Located, locate
from mmx.spaces.base import PHOTO_PROMPTS, Space
from mmx.spaces.cells import teacher_cells
from mmx.spaces.pixels import teacher_sees


def open_joint(at: Located, bridge: str | None, device: str) -> Space:
    """An image decoder's folder of any family, and a sound bridge that was trained for it. bridge: its folder; None is
    the starter, which is left out where it was trained for another decoder. Raises ModelError."""
    if not (at.folder / "teacher" / "text_encoder").is_dir():
        raise ModelError(f"{at.name}: its teacher reads no texts", hint="a space wants an image decoder's folder")
    teacher = Teacher.load(at.folder / "teacher")
    teacher.to(device, torch.float32)
    alone = Space(
        at.name,
        fingerprint(at.folder, SPACE),  # with the texts, which have no part in what bridges carry
        teacher.net.dim,
        encoders={"image": teacher.embed, "text": teacher.embed_texts},
        scale={"image": float(teacher.net.logit_scale.exp())},
        prompts={"image": PHOTO_PROMPTS},
        cells=partial(teacher_cells, teacher),
        pixels=partial(teacher_sees, teacher),
        models=[teacher.net],
    )
    own = _bridge(bridge, ConditioningSpec(at.name, (teacher.net.dim,), 1.0, space_of(at.folder)))
    return alone if own is None else _with_sounds(alone, *own)


def _with_sounds(space: Space, bridge: SoundBridge, at: Located) -> Space:
    def hear(waves: Sequence[Waveform]) -> Tensor:
        return bridge(torch.stack([bridge.prepare(wave) for wave in waves]))

    return replace(
        space,
        name=f"{space.name}+{at.name}",
        fingerprint=sha256(f"{space.fingerprint}+{at.sha256}".encode()),
        encoders={**space.encoders, "sound": hear},
        scale={**space.scale, "sound": bridge.logit_scale},
        # sounds were matched with texts about photos, so they are told apart by such
        prompts={**space.prompts, "sound": PHOTO_PROMPTS},
        labels=tuple(bridge.config.labels),
        rate=bridge.rate,
        models=[*space.models, bridge],
    )


def _bridge(name: str | None, spec: ConditioningSpec) -> tuple[SoundBridge, Located] | None:
    """The bridge named, which must fit the decoder; or the starter where it does."""
    at = locate(name, "sound2img", "bridge")
    bridge = SoundBridge.load(at.folder)
    try:
        bridge.spec.require(spec, bridge=at.name)
    except ModelError:
        if name is not None:
            raise
        return None
    if bridge.config.source is not None:
        bridge.attach(locate(bridge.config.source["name"], "sound2img", "encoder"))
    return bridge, at
