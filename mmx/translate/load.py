"""A bridge and the decoder it was trained for, found and loaded by the command's name."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import mmx.compat  # noqa: F401  (torchaudio must be mended before transformers or diffusers are imported)
from mmx import tasks
from mmx.device import placed
from mmx.models.store import Located, locate
from mmx.translate.base import Names, Translator


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
