"""What bridges into a space of points share in training: how sounds and voices are heard, previews, and the points that
are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from mmx.bridges.audio_encoders import Listener
from mmx.bridges.base import BridgeConfig
from mmx.bridges.frontends import Frontend, FrozenVector, LogMel, Wave
from mmx.bridges.points import ARCHITECTURES, PointBridge
from mmx.data.features import Embeddings
from mmx.data.manifest import Manifest
from mmx.decoders.base import Decoder
from mmx.errors import UsageError
from mmx.nets.lora import adaptable
from mmx.training.bridges.base import BridgeRecipe, BridgeTask, Setting, Sides
from mmx.training.bridges.measures import LOWER_IS_BETTER, measured_spec, validate_points
from mmx.training.bridges.prior import Previews


def heard(recipe: BridgeRecipe, *, voice: bool) -> tuple[Frontend, dict[str, Any]]:
    """How sounds or voices are heard, and what the bridge's config says of it. Raises ModelError, UsageError."""
    if recipe.encoder is None:
        about = {"architecture": recipe.architecture, "sizes": recipe.sizes}
        if "norm" in ARCHITECTURES[recipe.architecture].fields:
            about["norm"] = recipe.norm
        return LogMel(voice=voice), about
    listener = Listener.load(recipe.encoder, recipe.team.device)
    source = {"name": listener.name, "fingerprint": listener.fingerprint}
    sizes = recipe.sizes | {"inputs": listener.dim}
    if not recipe.lora:
        return FrozenVector(listener, voice=voice), {"architecture": "frozen", "sizes": sizes, "source": source}
    layers = adaptable(listener.hearing)
    if not layers:
        raise UsageError(
            f"--lora: {listener.name} has no attention layers that can be adapted", hint="leave --lora out"
        )
    about = {"architecture": "lora", "sizes": sizes | {"rank": recipe.lora, "layers": layers}, "source": source}
    return Wave(listener, voice=voice), about


class PointTask(BridgeTask):
    """Sources become points of the decoder's space, near those of their targets; a prior may be trained on them
    afterwards."""

    lower_is_better = LOWER_IS_BETTER
    bridge_kind: ClassVar[type[PointBridge]]
    prior_sizes: ClassVar[dict[str, int]]
    drawing: ClassVar[dict[str, float]]  # how the prior is drawn from

    @classmethod
    def sides(cls, recipe: BridgeRecipe, decoder: Decoder, manifest: Manifest) -> Sides:
        frontend, about = heard(recipe, voice=cls.bridge_kind.hears_voices)
        return Sides(frontend, Embeddings(decoder), about | {"sources": recipe.sources})

    def __init__(self, setting: Setting, **config: Any) -> None:
        """config: further fields of the bridge's config."""
        super().__init__(setting)
        self.config = BridgeConfig(
            task=self.recipe.task,
            spec=measured_spec(self.decoder, self.pairs),
            prior=self.prior_sizes if self.recipe.prior_steps or self.recipe.loss == "prior" else None,
            **(self.drawing | setting.sides.about | config),
        )
        self.compared = self.recipe.comparison(self.pairs, self.config.spec["mean_norm"])
        self.show = Previews(self.decoder, self.val) if self.val is not None else None

    def validate(self, module: nn.Module) -> dict[str, float]:
        return validate_points(self.val, module.bridge, self.label_texts)

    def preview(self, module: nn.Module, path: Path) -> None:
        """Val sources through the bridge, without a prior, and the frozen decoder."""
        if self.show is not None:
            self.show(module.bridge, path)
