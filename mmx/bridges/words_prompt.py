"""Texts → an image decoder's conditioning: what `mmx text2img` runs on, and bridges that go through words."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mmx.bridges.base import WordsBridge
from mmx.bridges.sound import SoundBridge
from mmx.decoders.base import Decoder
from mmx.errors import ModelError
from mmx.models.store import Located, locate


class Prompter(WordsBridge):
    """Texts → an image decoder's conditioning; what a text leaves open is drawn from a generator."""

    def __init__(self, draw: Callable[[str, torch.Generator], Tensor]) -> None:
        self.draw = draw

    def __call__(self, text: str, generator: torch.Generator) -> Tensor:
        """A text → one raw conditioning (D,)."""
        return self.draw(text, generator)


def prompter_of(decoder: Decoder, bridge: str | None, decoder_at: Located) -> tuple[Prompter, Located]:
    """What turns texts into a decoder's conditioning: its own prior where it has one, else a bridge's; and where that
    is.

    Raises ModelError where the decoder's space has no texts, or the bridge was trained for another decoder or has no
    prior.
    """
    prior = decoder.text_prior() if bridge is None else None
    if prior is not None:
        return Prompter(prior), Located(f"{decoder_at.name}, its own prior", decoder_at.companion or decoder_at.folder)
    at = locate(bridge, "text2img", "bridge")
    own = SoundBridge.load(at.folder)
    own.require(decoder, at.name)
    if own.prior is None:
        raise ModelError(
            f"{at.name} has no prior, and without one a text drives nothing", hint="train it with --prior-steps"
        )
    decoder.teacher.embed_texts([""])  # or else it says now that there is no text tower
    # its diffusion prior was trained on texts of the same joint space, too
    return Prompter(lambda text, draw: own.sample(decoder.teacher.embed_texts([text])[0], draw)), at
