"""A bridge and the decoder it was trained for, found and loaded by the command's name."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

import mmx.compat  # noqa: F401  (torchaudio must be mended before transformers or diffusers are imported)
from mmx.errors import UsageError
from mmx.models.store import Located, locate
from mmx.translate.base import Translator

# a command loads the libraries of its own models only
TRANSLATORS = {
    "sound2img": ("mmx.translate.sound2img", "SoundTranslator"),
    "voice2face": ("mmx.translate.voice2face", "VoiceTranslator"),
    "img2speech": ("mmx.translate.img2speech", "SightTranslator"),
    "text2img": ("mmx.translate.text2img", "TextTranslator"),
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


@dataclass(frozen=True)
class Names:
    """Which models a command was asked for, by name; None is the starter or what the decoder brings."""

    bridge: str | None
    decoder: str | None
    encoder: str | None


def _trained(task: str, names: Names, decoder: Any, decoder_at: Located) -> Translator:
    """A translator around a trained bridge."""
    module, name = TRANSLATORS[task]
    translator: type[Translator] = getattr(importlib.import_module(module), name)
    bridge_at = locate(names.bridge, task, "bridge")
    own, encoder_at = translator.bridge_kind.load(bridge_at.folder), None
    if own.config.source is not None:
        encoder_at = locate(names.encoder, task, "encoder")
        own.attach(encoder_at)
    elif names.encoder is not None:
        raise UsageError(f"--encoder {names.encoder}: this bridge looks and listens by itself", hint="leave it out")
    ready = translator(task, own, decoder, bridge_at=bridge_at, decoder_at=decoder_at)
    ready.encoder_at = encoder_at
    return ready


def _text(task: str, names: Names, decoder: Any, decoder_at: Located) -> Translator:
    from mmx.bridges.words_prompt import prompter_of
    from mmx.translate.text2img import TextTranslator

    prompter, bridge_at = prompter_of(decoder, names.bridge, decoder_at)
    return TextTranslator(task, prompter, decoder, bridge_at=bridge_at, decoder_at=decoder_at)


def _tags(task: str, names: Names, decoder: Any, decoder_at: Located) -> Translator:
    from mmx.bridges.audio_encoders import Listener
    from mmx.bridges.words_prompt import prompter_of
    from mmx.bridges.words_tags import TagsBridge
    from mmx.translate.tags import TagsTranslator

    encoder_at = locate(names.encoder or "clap", task, "encoder")
    prompter, _ = prompter_of(decoder, None, decoder_at)
    bridge = TagsBridge(Listener.load(encoder_at))
    at = Located("tags", encoder_at.folder)
    ready = TagsTranslator(task, bridge, decoder, prompter, bridge_at=at, decoder_at=decoder_at)
    ready.encoder_at = encoder_at
    return ready


def _caption(task: str, names: Names, decoder: Any, decoder_at: Located) -> Translator:
    from mmx.bridges.words_caption import CaptionBridge
    from mmx.translate.caption import CaptionTranslator

    encoder_at = locate(names.encoder or "captioner", task, "encoder")
    bridge = CaptionBridge.load(encoder_at, decoder)
    at = Located("caption", encoder_at.folder, encoder_at.companion)
    ready = CaptionTranslator(task, bridge, decoder, bridge_at=at, decoder_at=decoder_at)
    ready.encoder_at = encoder_at
    return ready


# how a command's translator is made when its bridge has one of these names, which are no folders: they are not trained
BY_WORDS: dict[tuple[str, str | None], Callable[[str, Names, Any, Located], Translator]] = {
    ("sound2img", "tags"): _tags,
    ("img2speech", "caption"): _caption,
}


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
    if task not in TRANSLATORS:
        raise UsageError(f"no translator is called {task}", hint=f"there are: {', '.join(TRANSLATORS)}")
    where = placed(device, dtype)
    decoder_at = locate(decoder, task, "decoder")
    module, name = TRANSLATORS[task]
    kind = getattr(importlib.import_module(module), name).decoder_kind
    loaded = open_decoder(decoder_at, kind)
    if low_memory and hasattr(loaded, "spare"):
        loaded.spare(where.device, where.dtype)
    else:
        loaded.to(where.device, where.dtype)
    if compile and hasattr(loaded, "pipeline"):
        loaded.pipeline.unet.compile()
    make = _text if task == "text2img" else BY_WORDS.get((task, bridge), _trained)
    return make(task, Names(bridge, decoder, encoder), loaded, decoder_at)
