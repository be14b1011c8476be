"""Frozen text encoders that bridges from texts read with, and how a text is read by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmx.bridges.audio_encoders import Listener, kind_of
from mmx.bridges.frontends import Cached
from mmx.compat import quiet_libraries
from mmx.decoders.base import fingerprint, freeze
from mmx.decoders.teacher import Teacher
from mmx.errors import InputError, ModelError
from mmx.media.texts import text_of
from mmx.models.store import Located

KINDS = ("clip", "siglip", "clap")
PADDING = {"clip": True, "siglip": "max_length"}  # SigLIP was trained on texts that are all of one length


@dataclass(frozen=True)
class TextEncoder:
    """embed: texts → vectors (B, C). name, fingerprint: which it is; dim: C; network: what it computes with."""

    embed: Callable[[Sequence[str]], Tensor]
    network: nn.Module
    name: str
    fingerprint: str
    dim: int


def open_text_encoder(at: Located, device: str = "cpu") -> TextEncoder:
    """Read an image decoder's folder, whose teacher reads texts, or one of CLIP, SigLIP or CLAP. Raises ModelError."""
    if (at.folder / "teacher" / "text_encoder").is_dir():
        teacher = Teacher.load(at.folder / "teacher")
        teacher.to(device, torch.float32)
        own = fingerprint(at.folder / "teacher", ("text_encoder", "tokenizer", "heads.json", "heads.safetensors"))
        return TextEncoder(teacher.embed_texts, teacher.net, at.name, own, teacher.net.dim)
    kind = kind_of(at.folder)
    if kind not in KINDS:
        raise ModelError(f"{at.name} is a {kind} model", hint=f"what reads is an image decoder, or {', '.join(KINDS)}")
    if kind == "clap":
        listener = Listener.load(at, device)
        return TextEncoder(listener.embed_texts, listener.model, at.name, listener.fingerprint, listener.dim)
    return _tower(at, kind, device)


def _tower(at: Located, kind: str, device: str) -> TextEncoder:
    """The text side of a CLIP or SigLIP folder."""
    from transformers import AutoModel, AutoTokenizer

    quiet_libraries("transformers")
    try:
        model = AutoModel.from_pretrained(at.folder, dtype=torch.float32, local_files_only=True, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(at.folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{at.name}: the encoder can't be loaded: {str(error).splitlines()[0]}") from None
    freeze(model).to(device)
    most = min(tokenizer.model_max_length, model.config.text_config.max_position_embeddings)

    @torch.inference_mode()
    def embed(texts: Sequence[str]) -> Tensor:
        tokens = tokenizer(list(texts), padding=PADDING[kind], truncation=True, max_length=most, return_tensors="pt")
        wanted = {name: tokens[name].to(device) for name in ("input_ids", "attention_mask") if name in tokens}
        return model.get_text_features(**wanted).pooler_output.float().cpu()

    return TextEncoder(embed, model, at.name, fingerprint(at.folder, (".",)), len(embed(["a"])[0]))


class Words:
    """One vector (1, C) that a frozen text encoder makes of a text; in the cache as float16."""

    can_mix, count = False, 1

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder, self.networks = encoder, (encoder.network,)
        self.name = f"text-{encoder.fingerprint[:16]}"
        self.empty = torch.zeros(0, encoder.dim, dtype=torch.float16)

    def prepare(self, medium: str) -> Tensor:
        """A text → (1, C)."""
        return self.encoder.embed([medium]).float().clone()

    def encode(self, payloads: Sequence[bytes], names: Sequence[str]) -> list[Tensor | None]:
        """Files → rows (1, C) of the cache; None for what is no text."""
        texts = [_text_or_none(payload, name) for payload, name in zip(payloads, names, strict=True)]
        good = [text for text in texts if text is not None]
        rows = iter(self.encoder.embed(good).half()[:, None] if good else ())
        return [None if text is None else next(rows) for text in texts]

    def crop(self, rows: Cached, pick: int, place: float) -> Tensor:
        """The vector (C,), wherever `place` is."""
        return rows.get(pick)[0]

    def finish(self, crops: Tensor) -> Tensor:
        """Vectors (B, C) as they are."""
        return crops

    def windows(self, row: Tensor) -> Tensor:
        return row.float()


def _text_or_none(payload: bytes, name: str) -> str | None:
    try:
        return text_of(payload, name)
    except InputError:
        return None
