"""Small training data that tests make, and what stands in for frozen models on it."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import soundfile
import torch
from PIL import Image

from mmx.data.cache import Cache
from mmx.data.digests import Digests
from mmx.data.fill import Resolved, Space, resolve
from mmx.data.items import Item
from mmx.data.sharing import Group
from tests.conftest import RATE, tone

EMPTY = torch.zeros(0, 2)


def write(folder: Path, count: int) -> list[Item]:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.bin").write_bytes(bytes([number, number + 1]))
    return [Item(f"{number}", str(folder / f"{number}.bin")) for number in range(count)]


class Encoder:
    """Bytes → a row as long as the first byte; counts what it was asked for; 7 can't be used."""

    name, empty = "encoder", EMPTY

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, payloads: list[bytes], names: list[str]) -> list[torch.Tensor | None]:
        self.calls += len(payloads)
        return [None if not p or p[0] == 7 else torch.full((p[0] + 1, 2), float(p[1])) for p in payloads]


def filled(items: list[Item], root: Path, encoder: Encoder, group: Group | None = None) -> tuple[Resolved, Cache]:
    """What became of items in a cache folder, as a new process finds it."""
    space = Space.of(root, encoder)
    return resolve(items, space, Digests(root), group), space.cache


def wav(hertz: float, seconds: float = 1.0) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(seconds, hertz), RATE, format="WAV")
    return buffer.getvalue()


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (value % 256, 255 - value % 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def pair_folder(folder: Path, count: int = 6) -> Path:
    for name, suffix, make in (("audios", "wav", lambda k: wav(200 + 50 * k)), ("images", "png", lambda k: png(9 * k))):
        (folder / name / "deep").mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (folder / name / "deep" / f"x{number}.{suffix}").write_bytes(make(number))
    return folder


class Bytes:
    """Features for the tests: a file's first byte as a row."""

    name, empty = "bytes", torch.zeros(0, 1)

    def encode(self, payloads, names):
        return [torch.tensor([[float(len(p))]]) if p else None for p in payloads]


COMMON = (
    "--prior-steps",
    "0",
    "--dropout",
    "0",
    "--mixed-precision",
    "no",
    "--device",
    "cpu",
    "--max-steps",
    "6",
    "--quiet",
)


def losses(run: Path) -> list[float]:
    """The loss of step 1, and all others that the log holds."""
    lines = [json.loads(line) for line in (run / "bridge" / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def write_shard(path: Path, samples: dict[str, dict[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for key, parts in samples.items():
            for suffix, data in parts.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
