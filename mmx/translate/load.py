"""A bridge and the decoder it was trained for, found and loaded by the command's name."""

from __future__ import annotations

import os
import threading
from functools import lru_cache

import mmx.compat  # noqa: F401  (torchaudio must be mended before transformers or diffusers are imported)
from mmx import tasks
from mmx.decoders.load import load_decoder
from mmx.device import Placed, placed
from mmx.models.store import locate
from mmx.translate.base import Names, Translator

# the libraries patch torch while they load a model: two loads at once would meet each other's patches
_ONE = threading.RLock()
if hasattr(os, "register_at_fork"):  # a child must not find it held by a thread that it does not have
    os.register_at_fork(before=_ONE.acquire, after_in_parent=_ONE.release, after_in_child=_ONE.release)


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
    """The translator of a command, such as load("sound2img"). Loaded once for each set of arguments, whichever thread
    asks; several threads may call it.

    bridge, decoder, encoder: a folder, or None for the starter; encoder: for bridges with a frozen encoder, of
    img2speech the image decoder that it looks with. dtype: "auto" is fp32 on the CPU and fp16 elsewhere. low_memory,
    compile: of the decoder. Raises ModelError, UsageError.
    """
    with _ONE:
        how = (("low_memory", low_memory), ("compile", compile))
        return _loaded(task, Names(bridge, encoder), decoder, placed(device, dtype), how)


def load_anew(
    task: str,
    names: Names,
    decoder: str | None,
    where: Placed,
    how: tuple[tuple[str, bool], ...],
) -> Translator:
    """As `load`, whatever was loaded before. Raises ModelError, UsageError."""
    with _ONE:
        return _opened(task, names, decoder, where, how)


def _opened(
    task: str, names: Names, decoder: str | None, where: Placed, how: tuple[tuple[str, bool], ...]
) -> Translator:
    row = tasks.task(task)
    decoder_at = locate(decoder, task, "decoder")
    loaded = load_decoder(decoder_at, row.target.modality).place(where, **dict(how))
    translator: type[Translator] = tasks.find(row.by_words.get(names.bridge or "", row.translator))
    return translator.open(task, names, loaded, decoder_at)


_loaded = lru_cache(maxsize=4)(_opened)
