"""What a bridge is, and how it is saved and loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mmx.bridges.frontends import Frontend
from mmx.decoders.base import ConditioningSpec, Decoder
from mmx.errors import ModelError, NonFiniteError
from mmx.models.store import Located


@dataclass(frozen=True)
class BridgeConfig:
    """What a bridge folder's config.json holds.

    task: the command it serves. spec: the conditioning it was trained for (a ConditioningSpec as a dict).
    labels: names it can report having heard, each with the text that stands for it in the joint space.
    sources: what it takes: one of sound, voice, image, text and array; or a sound, and an image beside it. array: of
    arrays, which (`bridges.array_frontend.ArrayKind`). logit_scale: learned inverse temperature.
    architecture: which encoder (a key of bridges.points.ARCHITECTURES), channels, norm, sizes: its arguments; norm is
    what a CNN normalises by, "batch" or "group", and those of earlier versions, which do not name it, do by batch.
    mean (D,): of its points on the training sources, where that was measured.
    prior: sizes of its diffusion prior, or None. source: name and fingerprint of the frozen encoder that it looks or
    listens with, where it has one. writer: sizes of its unit writer, where it writes units.
    """

    task: str
    spec: dict[str, Any]
    labels: dict[str, str] = field(default_factory=dict)
    logit_scale: float = 1.0
    sources: tuple[str, ...] = ("sound",)
    channels: tuple[int, ...] = (32, 64, 128, 256)
    norm: str = "batch"
    architecture: str = "cnn"
    sizes: dict[str, Any] = field(default_factory=dict)
    prior: dict[str, int] | None = None
    prior_guidance: float = 2.0
    prior_steps: int = 32
    prior_temperature: float = 1.0
    source: dict[str, str] | None = None
    writer: dict[str, int] | None = None
    array: dict[str, Any] | None = None
    mean: tuple[float, ...] | None = None
    version: int = 1


class Bridge(nn.Module, PyTorchModelHubMixin):
    """Source media → conditioning. Subclasses set `encoder` and `frontend`, and define `forward`.

    `from_pretrained` takes a folder or a hub id, `save_pretrained` and `push_to_hub` write config.json and
    model.safetensors.
    """

    encoder: nn.Module

    def __init__(self, config: BridgeConfig | dict[str, Any]) -> None:
        super().__init__()
        config = BridgeConfig(**config) if isinstance(config, dict) else config  # the hub mixin hands over plain JSON
        self.config = config
        self.spec = ConditioningSpec.from_dict(config.spec)
        self.prior: nn.Module | None = None
        self.frontend: Frontend | None = None  # of a bridge with a frozen encoder `attach` or `use` sets it

    def require(self, decoder: Decoder, name: str) -> None:
        """Raise ModelError, which calls this bridge `name`, unless it was trained for this decoder."""
        self.spec.require(decoder.spec, bridge=name)

    def attach(self, encoder: Located) -> None:
        """Load the frozen encoder that `config.source` names. Raises ModelError for another one."""
        raise NotImplementedError

    def use(self, frontend: Frontend) -> None:
        """Hear or see with this. Its frozen encoder is neither saved, nor trained, nor counted."""
        self.frontend = frontend

    def prepare(self, media: Any) -> Tensor:
        """One source medium → its features (W, ...), without a batch axis."""
        assert self.frontend is not None, "attach comes first"
        return self.frontend.prepare(media)

    def sample(self, condition: Tensor, generator: torch.Generator, *, guidance: float | None = None) -> Tensor:
        """A point (C,) of the joint space → one raw conditioning (D,) for the decoder.

        With a prior it is a draw from what fits the source; without, the point itself at the targets' mean norm.
        """
        if self.prior is None:
            return condition * self.spec.mean_norm
        raw = self.prior.sample(
            condition,
            generator,
            steps=self.config.prior_steps,
            guidance=self.config.prior_guidance if guidance is None else guidance,
            temperature=self.config.prior_temperature,
        )
        return raw * (self.spec.mean_norm / raw.norm())

    @classmethod
    def load(cls, folder: Path) -> Bridge:
        """Read a bridge folder; ModelError when it is missing parts, was changed, or holds numbers that are not
        finite."""
        missing = [name for name in ("config.json", "model.safetensors") if not (folder / name).exists()]
        if missing:
            raise ModelError(
                f"{folder} is not a bridge: it has no {' and no '.join(missing)}", hint="mmx train-bridge makes one"
            )
        try:
            # not by from_pretrained: the mixin prints on stdout, where a picture may be on its way
            bridge = cls(json.loads((folder / "config.json").read_text(encoding="utf8")))
            bridge.load_state_dict(load_file(folder / "model.safetensors"))
        except (RuntimeError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise ModelError(f"{folder}: the bridge can't be read: {str(error).splitlines()[0]}") from None
        if not all(torch.isfinite(value).all() for value in bridge.state_dict().values() if value.is_floating_point()):
            raise NonFiniteError(
                f"{folder}: the bridge's weights hold NaN or infinity", hint="train it again or fetch it again"
            )
        return bridge.float().eval().requires_grad_(False)


class WordsBridge:
    """A bridge that goes through words. Nothing in it is trained, so it belongs to no decoder's space: it has no spec
    and no config."""

    def require(self, decoder: Decoder, name: str) -> None:
        """Any decoder will do that words can drive."""


def likeliest(shares: Tensor, names: Sequence[str], top: int) -> list[tuple[str, float]]:
    """Probabilities (K,) of K names → the `top` likeliest, the best first."""
    best = shares.topk(min(top, len(names)))
    return [(names[i], round(p, 4)) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]


def require_source(config: BridgeConfig, name: str, fingerprint: str) -> None:
    """Raise ModelError unless a frozen encoder is the one that a bridge was trained with."""
    wanted = config.source or {"name": "nothing", "fingerprint": ""}
    if wanted["fingerprint"] != fingerprint:
        raise ModelError(
            f"this bridge was trained with the encoder {wanted['name']} ({wanted['fingerprint'][:12]}), "
            f"not with {name} ({fingerprint[:12]})",
            hint="give that one with --encoder, or train the bridge again for this one",
        )
