"""How far two artifacts are from each other, whatever they say of themselves."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageSequence

PICTURE, SOUND = 255, 32_767  # the largest value of a channel, and of a 16-bit sample
LAST_BITS = {PICTURE: 2, SOUND: 32}  # differences up to which it is rounding that differs, and not what was computed


def largest_difference(a: bytes, b: bytes) -> tuple[int, int] | None:
    """Two artifacts of the same kind and size → the largest difference of two values, and the largest value there is.

    None where they can't be compared, as where one of them is damaged.
    """
    try:
        (first, most), (second, other) = _values(a), _values(b)
    except Exception:  # damaged files make decoders raise anything
        return None
    if most != other or first.shape != second.shape:
        return None
    return int(np.abs(first - second).max(initial=0)), most


def _values(data: bytes) -> tuple[np.ndarray, int]:
    """Frames of pixels (N, H, W, 3) or samples (T, C), and the largest value that they may have."""
    if data[:4] == b"RIFF":
        import soundfile

        return soundfile.read(io.BytesIO(data), dtype="int16", always_2d=True)[0].astype(np.int32), SOUND
    with Image.open(io.BytesIO(data), formats=("PNG", "GIF")) as image:
        frames = [np.asarray(frame.convert("RGB"), np.int32) for frame in ImageSequence.Iterator(image)]
    return np.stack(frames), PICTURE
