"""A bridge and the decoder it was trained for, found and loaded by the command's name."""

from __future__ import annotations

from functools import lru_cache

import mmx.compat  # noqa: F401  (torchaudio must be mended before transformers or diffusers are imported)
from mmx import tasks
from mmx.decoders.load import load_decoder
from mmx.device import placed
from mmx.models.store import locate
from mmx.translate.base import Names, Translator


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

    bridge, decoder, encoder: a folder, or None for the starter; encoder: for bridges with a frozen encoder, of
    img2speech the image decoder that it looks with. dtype: "auto" is fp32 on the CPU and fp16 elsewhere. low_memory,
    compile: of the decoder. Raises ModelError, UsageError.
    """
    row = tasks.task(task)
    where = placed(device, dtype)
    decoder_at = locate(decoder, task, "decoder")
    loaded = load_decoder(decoder_at, row.target.modality).place(where, low_memory=low_memory, compile=compile)
    translator: type[Translator] = tasks.find(row.by_words.get(bridge or "", row.translator))
    return translator.open(task, Names(bridge, encoder), loaded, decoder_at)
