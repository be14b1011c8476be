"""Training data of a few samples, and the commands that train on it."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from mmx.media.audio import Waveform, wav_bytes
from tests.conftest import RATE, ROOT, tone
from tests.small_data import write_shard

COLOURS = {"dog": (200, 40, 40), "cat": (40, 40, 200)}


def jpeg(colour: tuple[int, int, int], size: int, rng: np.random.Generator) -> bytes:
    pixels = np.clip(np.array(colour) + rng.integers(-30, 30, (size, size, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def sound(hertz: float, rng: np.random.Generator) -> bytes:
    wave = tone(3.5, hertz) + 0.01 * rng.standard_normal(int(3.5 * RATE)).astype(np.float32)
    return wav_bytes(Waveform(wave.astype(np.float32), RATE))


def two_concepts(folder: Path, seed: int = 0) -> Path:
    """Shards of photos and sounds of two concepts: red photos and low tones, blue photos and high tones."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    photos, sounds = {}, {}
    for number in range(24):
        concept, split = ("dog", "cat")[number % 2], "val" if number >= 18 else "train"
        meta = {"synset": concept, "words": concept, "concept": concept, "split": split}
        photos[f"p{number}"] = {"jpg": jpeg(COLOURS[concept], 64, rng), "json": json.dumps(meta).encode()}
        hertz = (300 if concept == "dog" else 3000) * rng.uniform(0.9, 1.1)
        sounds[f"s{number}"] = {"wav": sound(hertz, rng), "json": json.dumps(meta).encode()}
    write_shard(folder / "images-000.tar", photos)
    write_shard(folder / "sounds-000.tar", sounds)
    return folder


def two_kinds_of_people(folder: Path) -> Path:
    """Shards of faces of two colours, and voices of two pitches, made by the samples' own script."""
    spec = importlib.util.spec_from_file_location("make", ROOT / "assets" / "samples" / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    rng = np.random.default_rng(0)
    faces, voices = {}, {}
    for number in range(16):
        gender, split = ("female", "male")[number % 2], "val" if number >= 12 else "train"
        meta = {"age": 30, "gender": gender, "split": split}
        colour = (220, 180, 150) if gender == "female" else (90, 70, 60)
        faces[f"f{number}"] = {"jpg": jpeg(colour, 96, rng), "json": json.dumps(meta).encode()}
        if number % 4 < 2:
            spoken = make.talk(np.random.default_rng(number), *((210.0, 1.17) if gender == "female" else (110.0, 1.0)))
            wave = wav_bytes(Waveform(spoken.astype(np.float32), RATE))
            voices[f"v{number}"] = {"wav": wave, "json": json.dumps(meta | {"speaker": str(number)}).encode()}
    write_shard(folder / "faces-000.tar", faces)
    write_shard(folder / "voices-000.tar", voices)
    return folder


def bridge_command(data: Path, run: Path, decoder: Path, *more: str) -> list[str]:
    command: list[str] = ["train-bridge", "sound2img", "--data", str(data), "-o", str(run), "--decoder", str(decoder)]
    return [*command, "--max-steps", "30", "--batch-size", "8", "--prior-steps", "4", "--device", "cpu", *more]
