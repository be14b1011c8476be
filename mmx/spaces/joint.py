"""The space of an image decoder's teacher: pictures and texts by the teacher, sounds by a bridge that leads into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmx.bridges.points import PointBridge
from mmx.decoders.base import ConditioningSpec, fingerprint
from mmx.decoders.gan import space_of
from mmx.decoders.teacher import Teacher
from mmx.decoders.unclip import SPACE
from mmx.digest import sha256
from mmx.errors import ModelError, UsageError
from mmx.media.audio import Waveform
from mmx.media.formats import SAMPLE_RATE
from mmx.models.store import Located, locate
from mmx.spaces.base import PHOTO_PROMPTS, Space
from mmx.spaces.cells import teacher_cells
from mmx.spaces.continued import Continued
from mmx.spaces.pixels import teacher_sees


def open_joint(at: Located, bridge: str | None, device: str) -> Space:
    """An image decoder's folder of any family, and bridges that were trained for it.

    bridge: the folder of one from sounds or from arrays. Where it is not from sounds, the starter's is there,
    too, unless it was trained for another decoder. Raises ModelError, UsageError.
    """
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
        are_far=teacher.are_far,
        continued=Continued(teacher),
        models=[teacher.net],
    )
    spec = ConditioningSpec(at.name, (teacher.net.dim,), 1.0, space_of(at.folder))
    found = [] if bridge is None else [_bridge(bridge, spec)]
    if not any(own and own[0].config.sources[0] == "sound" for own in found):
        found.insert(0, _bridge(None, spec))
    for own in filter(None, found):
        alone = ADDED[own[0].config.sources[0]](alone, *own)
    return alone


def _with_sounds(space: Space, bridge: PointBridge, at: Located) -> Space:
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
        rate=SAMPLE_RATE,
        models=[*space.models, bridge],
        files=(*space.files, *_files(at, bridge)),
    )


def _with_arrays(space: Space, bridge: PointBridge, at: Located) -> Space:
    """Arrays were matched with pictures, so they are told apart by what pictures are."""

    def see(arrays: Sequence[np.ndarray]) -> Tensor:
        return bridge(torch.stack([bridge.prepare(array) for array in arrays]))

    return replace(
        space,
        name=f"{space.name}+{at.name}",
        fingerprint=sha256(f"{space.fingerprint}+{at.sha256}".encode()),
        extends=(*space.extends, space.fingerprint),
        encoders={**space.encoders, "array": see},
        scale={**space.scale, "array": space.scale["image"]},
        prompts={**space.prompts, "array": PHOTO_PROMPTS},
        models=[*space.models, bridge],
        files=(*space.files, *_files(at, bridge)),
        means={**space.means, **({"array": bridge.config.mean} if bridge.config.mean else {})},
    )


def _files(at: Located, bridge: PointBridge) -> list[Path]:
    """The folders of a bridge and its encoder."""
    source = bridge.config.source
    return [at.folder] + ([locate(source["name"], "sound2img", "encoder").folder] if source else [])


ADDED: dict[str, Callable[[Space, PointBridge, Located], Space]] = {"sound": _with_sounds, "array": _with_arrays}


def _bridge(name: str | None, spec: ConditioningSpec) -> tuple[PointBridge, Located] | None:
    """The bridge named, which must fit the decoder; or the starter where it does."""
    at = locate(name, "sound2img", "bridge")
    bridge = PointBridge.load(at.folder)
    if bridge.config.sources[0] not in ADDED:
        raise UsageError(
            f"--bridge {at.name}: it is from {bridge.config.sources[0]}s", hint="one from sounds or arrays"
        )
    try:
        bridge.spec.require(spec, bridge=at.name)
    except ModelError:
        if name is not None:
            raise
        return None
    if bridge.config.source is not None:
        bridge.attach(locate(bridge.config.source["name"], "sound2img", "encoder"))
    return bridge, at
