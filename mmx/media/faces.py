"""Where a face is in a picture, by OpenCV's stock cascade (Viola and Jones 2001)."""

from __future__ import annotations

import importlib.util

import numpy as np
from PIL import Image

from mmx.errors import InputError

LOOKED_AT = 256  # pixels of the longer side
ROOM = 1.6  # of a found face's side, what is cut out: chin and hair, as in aligned faces
ALIGNED = 0.4  # of the picture's side; a face as large fills the picture already


def can_find() -> bool:
    """Whether faces can be looked for here."""
    return importlib.util.find_spec("cv2") is not None


def find_face(picture: Image.Image, name: str) -> Image.Image:
    """RGB picture → the square around its largest face, or all of it where the face fills it.

    Without OpenCV (the extra `train` brings it) it is taken to be an aligned face. Raises InputError where no face is
    found.
    """
    if not can_find():
        return picture
    boxes = _faces(picture)
    if not boxes:
        raise InputError(f"{name}: no face found", hint="give a picture in which a face is seen from the front")
    left, top, side = max(boxes, key=lambda box: box[2])
    if side >= ALIGNED * max(picture.size):
        return picture
    half, x, y = ROOM * side / 2, left + side / 2, top + side / 2
    corners = (max(0, x - half), max(0, y - half), min(picture.width, x + half), min(picture.height, y + half))
    return picture.crop(tuple(round(corner) for corner in corners))


def _faces(picture: Image.Image) -> list[tuple[float, float, float]]:
    """Left, top and side of each, in the picture's pixels. A border lets the cascade find faces that touch the edge."""
    import cv2

    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    scale = LOOKED_AT / max(picture.size)
    size = [max(1, round(length * scale)) for length in picture.size]
    gray = np.asarray(picture.convert("L").resize(size, Image.Resampling.BICUBIC))
    edge = min(gray.shape) // 4
    found = cascade.detectMultiScale(np.pad(gray, edge, mode="edge"), 1.05, 4, minSize=(LOOKED_AT // 10,) * 2)
    return [((x - edge) / scale, (y - edge) / scale, side / scale) for x, y, side, _ in found]
