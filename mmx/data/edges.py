"""Edge drawings of photos: a modality that anybody can make, beside the photos that it was made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from mmx.data.items import refuse_many_bad
from mmx.data.shards import find_shards, stream, write_shard
from mmx.errors import InputError
from mmx.media.image import png_bytes, read_image

SIGMA = 1.0  # pixels of the smoothing
STRONG, WEAK = 0.9, 0.75  # quantiles of the steepness: where a line may begin, and as far as it goes on
FLAT = 4.0  # levels a pixel; what is less steep is no edge, in whatever picture


def edges_of(picture: Image.Image) -> Image.Image:
    """A picture → its edges in white on black, of its size (Canny 1986): where it is steepest across, and joined
    to a strong edge by what is at least weak."""
    grey = ndimage.gaussian_filter(np.asarray(picture.convert("L"), np.float32), SIGMA)
    across, down = ndimage.sobel(grey, 1) / 4, ndimage.sobel(grey, 0) / 4
    steep = np.hypot(across, down)
    ridge = steep * _is_steepest(steep, across, down)
    weak, strong = (ridge > max(FLAT, float(np.quantile(steep, share))) for share in (WEAK, STRONG))
    parts, count = ndimage.label(weak, np.ones((3, 3)))
    kept = np.zeros(count + 1, bool)
    kept[np.unique(parts[strong])] = True
    kept[0] = False
    return Image.fromarray((kept[parts] * 255).astype(np.uint8))


def _is_steepest(steep: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Where (H, W) neither neighbour across the edge is steeper."""
    padded = np.pad(steep, 1)
    turn = np.round(np.arctan2(down, across) / (np.pi / 4)).astype(int) % 4  # 0: to the right, 1: to the lower right...
    kept = np.zeros(steep.shape, bool)
    for number, (y, x) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
        height, width = steep.shape
        one = padded[1 + y : 1 + y + height, 1 + x : 1 + x + width]
        other = padded[1 - y : 1 - y + height, 1 - x : 1 - x + width]
        kept |= (turn == number) & (steep >= one) & (steep > other)
    return kept


def make_edges(data: Path, output: Path) -> int:
    """Shards of photos → shards edges-*.tar whose samples hold KEY.png, the drawing, KEY.jpg and KEY.json with the
    split; how many. Raises InputError where more than 5 % of the photos can't be read, OutputError."""
    bad: list[str] = []
    count = 0
    for number, path in enumerate(find_shards(data, "images")):
        samples = list(_drawn(path, bad))
        write_shard(output / f"edges-{number:03d}.tar", samples)
        count += len(samples)
    refuse_many_bad(bad, len(bad) + count, f"{data}: ")
    return count


def _drawn(path: str, bad: list[str]) -> Iterator[tuple[str, dict[str, bytes]]]:
    for sample in stream(path):
        photo = sample.of("image")
        if photo is None:
            continue
        try:
            drawing = edges_of(read_image(photo, name=sample.key))
        except InputError:
            bad.append(sample.key)
            continue
        kept = {name: sample.meta[name] for name in ("split", "concept", "synset") if name in sample.meta}
        yield sample.key, {"png": png_bytes(drawing), "jpg": photo, "json": json.dumps(kept).encode()}
