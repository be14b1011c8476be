"""The one training loop. What is trained is a `Task`; everything else (schedule, EMA, saving, resuming) is here."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mmx.device import autocast
from mmx.errors import Interrupted, NonFiniteError, UsageError
from mmx.training.engine.checkpoint import flatten_optimizer, load_state, restore_optimizer, save_state
from mmx.training.engine.interrupt import Interruptible
from mmx.training.engine.log import Log
from mmx.training.engine.memory import keep_freed_memory
from mmx.training.engine.parallel import Team, join_batch_norms
from mmx.training.engine.progress import Progress

LOWER_IS_BETTER = ("nll", "rank", "loss", "l1", "stft", "alignment", "uniformity", "features")  # in a metric's name


class Task(Protocol):
    """What a run optimises. Batches are a function of the generator alone, so that a resumed run repeats them.

    Tasks that several processes can share take a third argument in `batch`: which part of the batch is wanted.
    """

    name: str
    module: nn.Module

    def batch(self, size: int, generator: torch.Generator) -> dict[str, Tensor]: ...

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]: ...

    def validate(self, module: nn.Module) -> dict[str, float]: ...

    def preview(self, module: nn.Module, path: Path) -> None: ...


@dataclass(frozen=True)
class LoopConfig:
    """How to train. The schedule is a linear warm-up and a cosine to zero over `max_steps`."""

    max_steps: int
    batch_size: int
    lr: float
    warmup: int = 200
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip_norm: float = 1.0
    ema: float = 0.999
    seed: int = 0
    device: str = "cpu"
    bf16: bool = True
    save_seconds: float = 120.0
    validate_steps: int = 500
    accumulate: int = 1  # batches whose gradients make one step
    metric: str | None = None  # of val, by which the best weights are kept; the last are, without
    patience: int = 0  # validations without a better metric after which a run stops; 0: never
    lr_scales: tuple[tuple[str, float], ...] = ()  # the rate of parameters whose names begin so, in lr

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / max(1, self.max_steps - self.warmup)))


def generator_of(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """A CPU generator that is a function of (seed, step, stream): the reason why runs resume exactly."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 4 + stream & 0x7FFF_FFFF_FFFF_FFFF)


def parameter_groups(module: nn.Module, scales: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    """An optimizer's groups: a network inside a task's module, such as a critic, may learn at its own rate."""
    groups: list[dict[str, Any]] = [{"params": [], "scale": scale} for scale in (1.0, *(scale for _, scale in scales))]
    for name, parameter in module.named_parameters():
        own = [number for number, (prefix, _) in enumerate(scales, 1) if name.startswith(prefix)]
        groups[own[0] if own else 0]["params"].append(parameter)
    return groups


class Average:
    """Exponential moving average of a module's weights; buffers (batch norm statistics) are copied."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))  # the start is forgotten quickly
        parameters = dict(module.named_parameters())
        averaged = [name for name in self.tensors if name in parameters]
        torch._foreach_lerp_([self.tensors[n] for n in averaged], [parameters[n].detach() for n in averaged], 1 - decay)
        for name, value in module.state_dict().items():
            if name not in parameters:
                self.tensors[name].copy_(value)


class swapped:
    """Inside, `module` holds the averaged weights and is in eval mode."""

    def __init__(self, module: nn.Module, average: Average) -> None:
        self.module, self.average = module, average

    def __enter__(self) -> nn.Module:
        self.own = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        self.module.load_state_dict(self.average.tensors)
        return self.module.eval()

    def __exit__(self, *_: object) -> None:
        self.module.load_state_dict(self.own)
        self.module.train()


class Run:
    """One task being trained into one folder: state-*/ (resumable), log.jsonl, curves.png, previews.

    With several processes (`team`), all train and the first one writes. events: JSON lines on stdout. tensorboard: logs into tensorboard/.
    """

    def __init__(
        self,
        task: Task,
        config: LoopConfig,
        folder: Path,
        team: Team | None = None,
        *,
        events: bool = False,
        tensorboard: bool = False,
    ) -> None:
        self.task, self.config, self.folder, self.team = task, config, folder, team or Team(config.device)
        if torch.device(config.device).type == "cpu":
            keep_freed_memory()
        self.module = task.module.to(config.device).train()
        join_batch_norms(self.module, self.team)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.module, config.lr_scales),
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        self.average = Average(self.module, config.ema)
        self.step = 0
        self.whole = True  # no step is half done: what is here may be saved
        self.metrics: dict[str, float] = {}
        self.best: dict[str, Tensor] = {}
        self.stale = 0  # validations since the best
        self.best_value: float | None = None
        self.log = Log(task.name, folder, events=events, tensorboard=tensorboard) if self.team.leads else None
        self._restore()

    def _restore(self) -> None:
        found = load_state(self.folder)
        if found is None:
            return
        tensors, meta = found
        for name, option in (("seed", "--seed"), ("batch_size", "--batch-size"), ("accumulate", "--accumulate")):
            if meta.get(name, 1) != getattr(self.config, name):
                raise UsageError(
                    f"{self.folder} was started with {option} {meta.get(name, 1)}",
                    hint="give the same value to resume, or another output folder",
                )
        try:
            self.module.load_state_dict(tensors["module"])
        except RuntimeError:
            raise UsageError(
                f"{self.folder} holds a run of another model than this command trains",
                hint="give the command that it was started with, or another output folder",
            ) from None
        self.average.tensors = {k: v.to(self.config.device) for k, v in tensors["average"].items()}
        restore_optimizer(self.optimizer, self.module, tensors["optimizer"])
        self.best = {k: v.to(self.config.device) for k, v in tensors.get("best", {}).items()}
        self.step, self.metrics = meta["step"], meta["metrics"]
        self.stale, self.best_value = meta.get("stale", 0), meta.get("best_value")

    def save(self) -> None:
        """Write the whole state; a kill at any moment leaves this state or the one before it."""
        if not self.team.leads:
            return
        state = {
            "module": self.module.state_dict(),
            "average": self.average.tensors,
            "optimizer": flatten_optimizer(self.optimizer, self.module),
        }
        kept = {"task": self.task.name, "metrics": self.metrics, "stale": self.stale, "best_value": self.best_value}
        save_state(
            self.folder, self.step, state | ({"best": self.best} if self.best else {}), asdict(self.config) | kept
        )

    def _one_step(self, *, stop: bool = False, asked: bool = False) -> tuple[dict[str, float], bool, bool]:
        """One optimiser step; whether any process wants to stop, and whether any was asked to."""
        config, parts, finite = self.config, {}, True
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr_at(self.step) * group["scale"]
        # dropout knows no other generator; a resumed run repeats it
        torch.manual_seed((config.seed * 1_000_003 + self.step) * self.team.world + self.team.rank)
        for micro in range(config.accumulate):
            loss, now = self._backward(self.step * config.accumulate + micro)
            finite = finite and bool(torch.isfinite(loss))
            for key, value in ({"loss": loss.item()} | now).items():
                parts[key] = parts.get(key, 0.0) + value / config.accumulate
        flags = self.team.mean_gradients(self.module.parameters(), torch.tensor([float(not finite), stop, asked]))
        if flags[0]:
            raise NonFiniteError(
                f"{self.task.name}: the loss is {parts['loss']} at step {self.step}",
                hint=f"lower --lr; the last good state is in {self.folder}",
            )
        nn.utils.clip_grad_norm_(self.module.parameters(), config.clip_norm)
        self.whole = False
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.average.update(self.module, self.step)
        self.whole = True
        return parts, bool(flags[1]), bool(flags[2])

    def _backward(self, number: int) -> tuple[Tensor, dict[str, float]]:
        """The `number`-th batch of all: its loss, and its share of the gradients."""
        config, team = self.config, self.team
        generator = generator_of(config.seed, number)
        if team.world > 1:
            batch = self.task.batch(config.batch_size * team.world, generator, team.part(config.batch_size))
        else:
            batch = self.task.batch(config.batch_size, generator)
        batch = {key: value.to(config.device) for key, value in batch.items()}
        with autocast(config.device, config.bf16):
            loss, parts = self.task.loss(batch, generator)
        if torch.isfinite(loss):
            (loss / config.accumulate).backward()
        else:
            for parameter in self.module.parameters():  # the others must not wait for gradients that never come
                if parameter.requires_grad and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        return loss.detach(), parts

    def _validate(self) -> None:
        if self.team.leads:
            with swapped(self.module, self.average) as module, torch.no_grad():
                self.metrics = self.task.validate(module)
                self.task.preview(module, self.folder / "preview.png")
            self.log.validated(self.step, self.metrics)
            self._keep_best()
        self.team.wait()

    def _refuse_unknown_metric(self) -> None:
        """Before an hour is lost: raise UsageError where val does not measure what the best weights are to be kept by."""
        with swapped(self.module, self.average) as module, torch.no_grad():
            found = self.task.validate(module)
        if self.config.metric not in found:
            raise UsageError(
                f"--metric {self.config.metric}: there is no such metric",
                hint=f"there are: {', '.join(found)}" if found else "the data has no val split to measure one on",
            )

    def _keep_best(self) -> None:
        metric = self.config.metric
        if metric is None:
            return
        value = self.metrics[metric] * (-1 if any(word in metric for word in LOWER_IS_BETTER) else 1)
        if self.best_value is None or value > self.best_value:
            self.best_value, self.stale = value, 0
            self.best = {name: tensor.clone() for name, tensor in self.average.tensors.items()}
        else:
            self.stale += 1

    def fit(self, *, quiet: bool = False, max_minutes: float = math.inf) -> dict[str, float]:
        """Train to `max_steps`. Ctrl-C saves, then raises Interrupted. Returns the last validation metrics."""
        config = self.config
        self.folder.mkdir(parents=True, exist_ok=True)
        if config.metric and not self.step and self.team.leads:
            self._refuse_unknown_metric()
        start = saved = time.monotonic()
        size = config.batch_size * self.team.world * config.accumulate
        progress = Progress(self.task.name, config.max_steps, self.step, size, quiet=quiet or not self.team.leads)
        with progress, Interruptible() as wish:
            try:
                stop = asked = False
                while self.step < config.max_steps and not stop:
                    late = time.monotonic() - start >= max_minutes * 60
                    bored = 0 < config.patience <= self.stale
                    enough = late or bored or wish.asked
                    if enough and self.team.world == 1:
                        break
                    # several processes stop after the same step
                    parts, stop, asked = self._one_step(stop=enough, asked=wish.asked)
                    progress.update(self.step, parts, self.metrics)
                    if self.log and (self.step % 50 == 0 or self.step <= 10):
                        self.log.trained(self.step, parts, progress.rate)
                    if self.step % config.validate_steps == 0 or self.step == config.max_steps:
                        self._validate()
                        progress.update(self.step, parts, self.metrics)
                    if time.monotonic() - saved > config.save_seconds:
                        self.save()
                        saved = time.monotonic()
            finally:
                if self.whole and all(torch.isfinite(p).all() for p in self.module.parameters()):
                    self.save()
        if asked or wish.asked:
            raise Interrupted(
                f"{self.task.name}: stopped and saved at step {self.step} of {config.max_steps}",
                hint="the same command goes on from here",
            )
        return self.metrics

    def averaged(self) -> nn.Module:
        """The module with its averaged weights, the best or else the last, in eval mode, for export. Ends the run."""
        self.module.load_state_dict(self.best or self.average.tensors)
        return self.module.eval()
