"""What reading a medium found that the user should know, kept with the medium."""

from __future__ import annotations

from typing import Any

from PIL import Image

from mmx.media.audio import Waveform
from mmx.media.findings import Note

NOTES = "notes"  # of a picture's `info`, which Pillow keeps for such things


def notes_of(medium: Any) -> tuple[Note, ...]:
    """The notes of a sound or a picture; nothing else has any."""
    if isinstance(medium, Image.Image):
        return medium.info.get(NOTES, ())
    return medium.notes if isinstance(medium, Waveform) else ()
