"""A bridge and the decoder it was trained for, found and loaded by the command's name."""

from __future__ import annotations

import importlib
import os
from functools import lru_cache
from typing import Any

import torch

import mmx.compat  # noqa: F401  (torchaudio must be mended before transformers or diffusers are imported)
from mmx.errors import UsageError
from mmx.store import Located, locate
from mmx.translators.base import Translator

# a command loads the libraries of its own models only
TRANSLATORS = {
    "sound2img": ("mmx.translators.sound", "SoundTranslator"),
    "voice2face": ("mmx.translators.voice", "VoiceTranslator"),
    "img2speech": ("mmx.translators.sight", "SightTranslator"),
}
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


def open_decoder(at: Located, kind: type) -> Any:
    """A decoder folder of ours, of the class that a translator wants, or a full-size pipeline in its own format."""
    if (
        kind.__name__ == "ImageDecoder"
        and not (at.folder / "mmx.json").exists()
        and (at.folder / "model_index.json").exists()
    ):
        from mmx.decoders.hub import HubDecoder

        return HubDecoder.load(at)
    return kind.load(at.folder)


@lru_cache(maxsize=4)
def load(
    task: str,
    *,
    bridge: str | None = None,
    decoder: str | None = None,
    encoder: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Translator:
    """The translator of a command, such as load("sound2img"). Loaded once for each set of arguments.

    bridge, decoder, encoder: a folder, or None for the starter; encoder: for bridges with a frozen encoder, of img2speech the image
    decoder that it looks with. dtype: "auto" is fp32 on the CPU and fp16 elsewhere.
    Raises ModelError, UsageError.
    """
    if task not in TRANSLATORS:
        raise UsageError(f"no translator is called {task}", hint=f"there are: {', '.join(TRANSLATORS)}")
    if dtype not in ("auto", *DTYPES):
        raise UsageError(f"--dtype {dtype}: no such type", hint="auto, fp32, bf16 or fp16")
    where = pick_device(device)
    bridge_at, decoder_at = locate(bridge, task, "bridge"), locate(decoder, task, "decoder")
    module, name = TRANSLATORS[task]
    translator: type[Translator] = getattr(importlib.import_module(module), name)
    loaded = open_decoder(decoder_at, translator.decoder_kind)
    loaded.to(where, DTYPES.get(dtype, torch.float32 if where == "cpu" else torch.float16))
    own, encoder_at = translator.bridge_kind.load(bridge_at.folder), None
    if own.config.source is not None:
        encoder_at = locate(encoder, task, "encoder")
        own.attach(encoder_at)
    elif encoder is not None:
        raise UsageError(f"--encoder {encoder}: this bridge looks and listens by itself", hint="leave it out")
    ready = translator(task, own, loaded, bridge_at=bridge_at, decoder_at=decoder_at)
    ready.encoder_at = encoder_at
    return ready
