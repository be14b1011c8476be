"""`mmx pairs`: videos → (sound, frame) pairs, of which those are kept whose sound and frame belong together.

Sound2Scene (Sung-Bin et al., CVPR 2023) trains on the moments of a video in which the sound is seen, not on all of it.
Here a moment is scored by a bridge and its decoder's teacher: the cosine between where the sound lands and where the
frame is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch.nn.functional as F

from mmx.errors import InputError
from mmx.media.audio import wav_bytes
from mmx.media.files import write_atomic
from mmx.media.image import png_bytes
from mmx.media.video import Moment, moments
from mmx.translate.sound2img import SoundTranslator

SILENCE = -55.0  # dB of full scale, root mean square
FLAT = 6.0  # standard deviation of a frame's pixels (0..255) below which nothing is to be seen
OUTLIER = 2.0  # robust standard deviations below the median of all scores


@dataclass
class VideoPairs:
    """What became of the videos."""

    kept: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: {"silent": 0, "flat": 0, "not the best": 0, "outlier": 0})
    unreadable: list[str] = field(default_factory=list)


def score(translator: SoundTranslator, moment: Moment) -> float:
    """How well a moment's sound and frame belong together: a cosine."""
    point = translator.point(moment.sound)
    return float(F.normalize(translator.decoder.targets([moment.frame])[0], dim=-1) @ point)


def make_pairs(
    videos: Sequence[Path], output: Path, translator: SoundTranslator, *, every: float, window: float, top: int
) -> VideoPairs:
    """Write `output`/audios, images and pairs.jsonl: of each video at most `top` moments, without outliers among all.

    A pair's rows say video, seconds and score; pairs of one video share a split.
    """
    found, rows = VideoPairs(), []
    for number, path in enumerate(videos):
        try:
            scored = []
            for moment in moments(path, every=every, window=window, sample_rate=16_000):
                reason = _useless(moment)
                if reason:
                    found.dropped[reason] += 1
                    continue
                scored.append((score(translator, moment), moment))
                scored.sort(key=lambda pair: -pair[0])
                found.dropped["not the best"] += len(scored[top:])
                del scored[top:]
        except InputError as error:
            found.unreadable.append(f"{path.name}: {error}")
            continue
        for value, moment in scored:
            stem = f"{number:05d}-{int(moment.seconds * 1000):08d}"
            write_atomic(output / "audios" / f"{stem}.wav", wav_bytes(moment.sound))
            write_atomic(output / "images" / f"{stem}.png", png_bytes(moment.frame, {}))
            rows.append((value, stem, path.name, moment.seconds))
    _write(output, rows, found)
    return found


def _useless(moment: Moment) -> str | None:
    if moment.sound.rms_db < SILENCE:
        return "silent"
    return "flat" if np.asarray(moment.frame).std() < FLAT else None


def _write(output: Path, rows: list[tuple[float, str, str, float]], found: VideoPairs) -> None:
    """The manifest of the rows that are no outliers; the others' files are taken away."""
    from mmx.data.manifest import held_out

    scores = np.array([row[0] for row in rows])
    floor = -np.inf
    if len(rows) >= 8:  # of fewer there is no telling what is usual
        middle = np.median(scores)
        floor = middle - OUTLIER * 1.4826 * np.median(np.abs(scores - middle))
    lines = []
    for value, stem, name, seconds in rows:
        files = (f"audios/{stem}.wav", f"images/{stem}.png")
        if value < floor:
            found.dropped["outlier"] += 1
            for file in files:
                (output / file).unlink()
            continue
        found.kept += 1
        row = {"source": files[0], "target": files[1], "split": held_out(name), "video": name}
        lines.append(json.dumps(row | {"seconds": round(seconds, 3), "score": round(value, 4)}))
    write_atomic(output / "pairs.jsonl", "".join(f"{line}\n" for line in lines).encode())
