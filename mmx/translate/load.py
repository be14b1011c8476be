"""A bridge and the decoder it was trained for, found and loaded by the command's name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

import mmx.compat  # noqa: F401  (torchaudio must be mended before transformers or diffusers are imported)
from mmx import tasks
from mmx.errors import UsageError
from mmx.models.store import Located, locate
from mmx.translate.base import Names, Translator

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(device: str) -> str:
    """ "auto" → the best device here. Raises UsageError for one that is not here."""
    if device == "auto":
        own = os.environ.get("LOCAL_RANK") if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None
        return (
            f"cuda{f':{own}' if own else ''}"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    kind = device.split(":")[0]
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind not in here:
        raise UsageError(f"--device {device}: no such kind of device", hint="auto, cpu, cuda, cuda:N or mps")
    if not here[kind]:
        raise UsageError(
            f"--device {device}: this torch sees no such device here", hint="--device auto takes what there is"
        )
    return device


@dataclass(frozen=True)
class Placed:
    """Where a translator computes, in what, and why so. name: a key of DTYPES."""

    device: str
    name: str
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.name]


def placed(device: str, dtype: str) -> Placed:
    """What --device and --dtype come to here. Raises UsageError."""
    if dtype not in ("auto", *DTYPES):
        raise UsageError(f"--dtype {dtype}: no such type", hint="auto, fp32, bf16 or fp16")
    where = pick_device(device)
    why_device = "as asked" if device != "auto" else "no GPU is here" if where == "cpu" else "the GPU that is here"
    if dtype != "auto":
        return Placed(where, dtype, f"{why_device}; --dtype {dtype}")
    if where == "cpu":
        return Placed(where, "fp32", f"{why_device}; exact on CPUs")
    return Placed(where, "fp16", f"{why_device}; half the memory")


def open_decoder(at: Located, kind: type) -> Any:
    """A decoder folder of ours, of the class that a translator wants, or a full-size model in its own format."""
    if not (at.folder / "mmx.json").exists():
        if kind.__name__ == "ImageDecoder" and (at.folder / "model_index.json").exists():
            from mmx.decoders.pretrained import HubDecoder

            return HubDecoder.load(at)
        if kind.__name__ == "SpeechDecoder" and (at.folder / "config.json").exists():
            from mmx.decoders.unit_vocoder import UnitVocoder

            return UnitVocoder.load(at)
    return kind.load(at)


@lru_cache(maxsize=4)
def load(
    task: str,
    *,
    bridge: str | None = None,
    decoder: str | None = None,
    encoder: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    low_memory: bool = False,
    compile: bool = False,
) -> Translator:
    """The translator of a command, such as load("sound2img"). Loaded once for each set of arguments.

    bridge, decoder, encoder: a folder, or None for the starter; encoder: for bridges with a frozen encoder, of img2speech the image
    decoder that it looks with. dtype: "auto" is fp32 on the CPU and fp16 elsewhere. low_memory, compile: of full-size decoders and
    diffusion models.
    Raises ModelError, UsageError.
    """
    row = tasks.task(task)
    where = placed(device, dtype)
    decoder_at = locate(decoder, task, "decoder")
    loaded = open_decoder(decoder_at, tasks.find(row.decoder_kinds))
    if low_memory and hasattr(loaded, "spare"):
        loaded.spare(where.device, where.dtype)
    else:
        loaded.to(where.device, where.dtype)
    if compile and hasattr(loaded, "pipeline"):
        loaded.pipeline.unet.compile()
    translator: type[Translator] = tasks.find(row.by_words.get(bridge or "", row.translator))
    return translator.open(task, Names(bridge, encoder), loaded, decoder_at)
