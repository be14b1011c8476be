"""What every `mmx train-bridge` shares: the recipe, and what a task supplies to the one trainer."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmx.bridges.base import Bridge, BridgeConfig
from mmx.bridges.frontends import Frontend
from mmx.data.fill import Features
from mmx.data.manifest import Manifest
from mmx.data.pairs import Loaded, Pairs
from mmx.decoders.base import Decoder, fingerprint
from mmx.device import pick_device
from mmx.errors import ModelError
from mmx.models.store import Located, locate
from mmx.options import FREE
from mmx.recipes.bridge import BridgeOptions
from mmx.training.bridges.measures import target_statistics
from mmx.training.engine.identity import recipe_identity
from mmx.training.engine.initial import take_fitting
from mmx.training.engine.loop import LoopConfig, Run
from mmx.training.engine.parallel import Team
from mmx.training.losses import Comparison


@dataclass(frozen=True)
class BridgeRecipe(BridgeOptions):
    """What `mmx train-bridge` was asked for, and what that comes to on this machine."""

    command: str = field(default="", metadata=FREE)
    started: float = field(default_factory=lambda: time.monotonic(), init=False, metadata=FREE)

    @property
    def deadline(self) -> float:
        """Of all stages together, on the clock of time.monotonic."""
        return self.started + 60 * self.minutes

    @cached_property
    def team(self) -> Team:
        """The processes that train together, and their device."""
        return Team(pick_device(self.device))

    @cached_property
    def decoder(self) -> Located:
        """Where the frozen decoder is."""
        return locate(self.decoder_name, self.task, "decoder")

    @cached_property
    def encoder(self) -> Located | None:
        """Where the frozen encoder is, if one was named."""
        return None if self.encoder_name is None else locate(self.encoder_name, self.task, "encoder")

    @cached_property
    def init(self) -> Located | None:
        """Where the bridge is whose weights it starts from, if one was named."""
        return None if self.init_name is None else locate(self.init_name, self.task, "bridge")

    @property
    def sources(self) -> tuple[str, ...]:
        """What is heard and seen."""
        return tuple((self.source or "sound").split("+"))

    @property
    def sizes(self) -> dict[str, Any]:
        """What was asked of the architecture."""
        return {} if self.dropout is None else {"dropout": self.dropout}

    def loop(self, usual: LoopConfig, **changes: Any) -> LoopConfig:
        """A stage's schedule with what was asked for."""
        asked = self.schedule | changes
        steps = asked.get("max_steps", usual.max_steps)
        return replace(usual, **asked, warmup=min(usual.warmup, steps // 10 + 1), device=self.team.device)

    def prior_loop(self, usual: LoopConfig) -> LoopConfig:
        """The prior's schedule: its own size and rate, the run's seed and precision."""
        steps = self.prior_steps
        return replace(
            usual,
            max_steps=steps,
            warmup=min(usual.warmup, steps // 10 + 1),
            seed=self.seed,
            bf16=self.schedule["bf16"],
            device=self.team.device,
        )

    def comparison(self, pairs: Pairs, norm: float) -> Comparison:
        """Where the loss compares points with targets."""
        return Comparison(norm, target_statistics(pairs) if self.normalize_targets else None)

    def begin(self, module: nn.Module, kind: type[Bridge], part: str = "") -> None:
        """Give a fresh module what fits of the weights of the bridge that --init names, or of its part, such as
        "prior.".

        Raises ModelError where that is no bridge of this kind, or nothing of it fits.
        """
        if self.init is None:
            return
        known = kind.load(self.init.folder).state_dict()
        known = {name.removeprefix(part): value for name, value in known.items() if name.startswith(part)}
        taken = take_fitting(module, known)
        if known and not taken:
            raise ModelError(f"--init {self.init.name}: none of its weights fits this bridge")
        fresh = len(module.state_dict()) - taken
        if known and fresh and self.team.leads and not self.quiet:
            print(f"--init {self.init.name}: {fresh} of {fresh + taken} tensors begin anew", file=sys.stderr)

    def start(self, task: Any, usual: LoopConfig, stage: str = "bridge", after: Sequence[Run] = ()) -> Run:
        """A stage's run, restored where it was begun with the same options, data and models, and `after` the same
        runs."""
        config = self.prior_loop(usual) if stage == "prior" else self.loop(usual)
        return Run(
            task,
            config,
            self.run / stage,
            self.team,
            identity=recipe_identity(
                self,
                data=data_sha256(task.pairs),
                decoder=decoder_fingerprint(self.decoder),
                encoder=self.encoder and decoder_fingerprint(self.encoder),
                init=self.init and self.init.sha256,
            ),
            after=after,
            deadline=self.deadline,
            events=self.events,
            tensorboard=self.tensorboard,
        )


@dataclass(frozen=True)
class Sides:
    """What a task asks of its data: how sources are heard or seen, and the targets. about: what the bridge's config
    says of the first."""

    frontend: Frontend
    targets: Features
    about: dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What a bridge's task is made of, once its data is in the cache. The decoder is on the team's device."""

    recipe: BridgeRecipe
    decoder: Decoder
    sides: Sides
    loaded: Loaded


class BridgeTask:
    """What a command supplies to the one trainer: features, a config and a module; and, as a `Task` of the loop,
    batches and a loss.

    The module's attribute `bridge` is the bridge.
    """

    name = "bridge"
    schedule: ClassVar[LoopConfig]
    lower_is_better: ClassVar[tuple[str, ...]]
    label_texts: Tensor | None = (
        None  # (K, D), on the CPU: what stands for each label in the joint space, where texts do
    )
    module: nn.Module
    config: BridgeConfig

    @classmethod
    def sides(cls, recipe: BridgeRecipe, decoder: Decoder, manifest: Manifest) -> Sides:
        """How this data is heard or seen. Raises InputError, ModelError, UsageError for what this task can't be
        trained with."""
        raise NotImplementedError

    def __init__(self, setting: Setting) -> None:
        self.recipe, self.decoder, self.frontend = setting.recipe, setting.decoder, setting.sides.frontend
        self.pairs, self.val, self.team = setting.loaded.train, setting.loaded.val, setting.recipe.team

    def batch(self, size: int, generator: torch.Generator, part: slice = slice(None)) -> dict[str, Tensor]:
        """A batch of `size` items, or this part of it: a function of the generator alone."""
        raise NotImplementedError

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """What is minimised, and what the log is told."""
        raise NotImplementedError

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Metrics on val, or nothing where there is none."""
        raise NotImplementedError

    def preview(self, module: nn.Module, path: Path) -> None:
        """What val sources become so far, at `path`."""
        raise NotImplementedError

    def finished(self, module: nn.Module) -> Bridge:
        """The trained module → its bridge, whose prior may be yet to train."""
        module.bridge.config = self.config
        return module.bridge


def decoder_fingerprint(at: Located) -> str:
    """sha256 over all weights and configs of a decoder, and of its companion: what must not change while a bridge
    trains."""
    return "".join(fingerprint(folder, (".",)) for folder in (at.folder, at.companion) if folder)


def data_sha256(pairs: Pairs) -> str:
    """One digest over what a run was trained on: the content keys of both sides and their labels."""
    digest = hashlib.sha256()
    for side in (pairs.sources, pairs.targets):
        keys = side.cache.keys_of(side.rows.numpy())
        order = keys.argsort(kind="stable")
        digest.update(keys[order].tobytes() + side.labels.numpy()[order].tobytes())
    return digest.hexdigest()
