"""A space, found and loaded by what --space names."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import mmx.compat  # noqa: F401  (torchaudio must be mended before transformers or diffusers are imported)
from mmx.decoders.face_words import FILE
from mmx.device import pick_device
from mmx.errors import UsageError
from mmx.models.store import Located, locate
from mmx.spaces.base import Space
from mmx.spaces.calibration import find_calibration, kept_at
from mmx.spaces.faces import open_faces
from mmx.spaces.joint import open_joint
from mmx.spaces.pretrained import open_pretrained


def load_space_anew(name: str | None = None, *, bridge: str | None = None, device: str = "auto") -> Space:
    """The space of a name.

    name: None is the starter; an image decoder's folder, a CLIP, SigLIP or CLAP folder, a short name or hf-hub: id.
    bridge: what sounds, or arrays, come into an image decoder's space by; None is the starter, for sounds.

    Raises ModelError, NetworkError, UsageError.
    """
    at, where = locate(name, "sound2img", "decoder"), pick_device(device)
    if bridge is not None and not (at.folder / "teacher" / "text_encoder").is_dir():
        raise UsageError(f"--bridge {bridge}: {at.name} is no image decoder's space", hint="leave it out")
    space = _opened(at, bridge, where)
    known = (space.fingerprint, *space.extends[::-1])
    found = (find_calibration(at.folder, own) for own in known)
    folders = [at.folder, *([at.companion] if at.companion else [])]
    files = (*folders, *space.files, *map(kept_at, known))
    return replace(space, calibration=next(filter(None, found), None), files=files)


# loaded once for each set of arguments
load_space = lru_cache(maxsize=2)(load_space_anew)


def _opened(at: Located, bridge: str | None, where: str) -> Space:
    teacher = at.folder / "teacher"
    if not teacher.is_dir():
        return open_pretrained(at, where)
    if (at.folder / FILE).is_file() and not (teacher / "text_encoder").is_dir():
        return open_faces(at, where)
    return open_joint(at, bridge, where)
