"""The one training loop. What is trained is a `Task`; everything else (schedule, EMA, saving, resuming) is here."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmx.decoders.base import tensors_digest
from mmx.device import autocast
from mmx.errors import Interrupted, NonFiniteError, UsageError
from mmx.interrupt import Interruptible
from mmx.progress import Progress
from mmx.training.engine.ahead import Ahead, Drawn
from mmx.training.engine.average import Average, swapped
from mmx.training.engine.checkpoint import flatten_optimizer, load_state, restore_optimizer, save_state
from mmx.training.engine.identity import plain, refuse_another
from mmx.training.engine.log import Log
from mmx.training.engine.memory import keep_freed_memory
from mmx.training.engine.parallel import Team, join_batch_norms
from mmx.training.engine.task import FREE, LoopConfig, Task, generator_of, parameter_groups


class Run:
    """One task being trained into one folder: state-*/ (resumable), log.jsonl, curves.png, previews.

    With several processes (`team`), all train and the first one writes. events: JSON lines on stdout. tensorboard: logs
    into tensorboard/.
    """

    def __init__(
        self,
        task: Task,
        config: LoopConfig,
        folder: Path,
        team: Team | None = None,
        *,
        identity: Mapping[str, Any] | None = None,
        after: Sequence[Run] = (),
        deadline: float = math.inf,
        events: bool = False,
        tensorboard: bool = False,
    ) -> None:
        self.task, self.config, self.folder, self.team = task, config, folder, team or Team(config.device)
        self.deadline = deadline
        self.drawn: Callable[[int], Drawn] = self._draw  # what gives the batches; `fit` lets them be made ahead
        self.identity = plain(identity or {}) | {"processes": self.team.world}
        self.upstream = {run.task.name: run.digest for run in after}
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
        self.saved: int | None = None  # the step that is on disk
        self.metrics: dict[str, float] = {}
        self.best: dict[str, Tensor] = {}
        self.stale = 0  # validations since the best
        self.best_value: float | None = None
        self.log = Log(task.name, folder, events=events, tensorboard=tensorboard) if self.team.leads else None
        self.unnamed = False  # as an earlier version saved it, which kept no identity
        self.outdated = False  # there is a state, of an upstream that is no more
        self._restore(after)

    @property
    def digest(self) -> str:
        """Of the weights that this run exports as it is now: the upstream identity of the stages after it."""
        return tensors_digest(self.best or self.average.tensors)

    def _restore(self, after: Sequence[Run]) -> None:
        found = load_state(self.folder)
        if found is None:
            return
        tensors, meta = found
        settings = [field for field in fields(self.config) if field.name not in FREE]
        usual = {field.name: field.default for field in settings if field.default is not MISSING}
        refuse_another(
            self.folder, plain(usual) | meta, {field.name: getattr(self.config, field.name) for field in settings}
        )
        refuse_another(self.folder, meta.get("identity", {}), self.identity)
        self.unnamed = "identity" not in meta
        # what an earlier version trained one after the other still belongs together where nothing was trained since
        self.outdated = (
            not all(run.unnamed for run in after) if self.unnamed else meta.get("upstream", {}) != self.upstream
        )
        if self.outdated:
            return
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
        self.saved = self.step
        self.stale, self.best_value = meta.get("stale", 0), meta.get("best_value")

    def save(self) -> None:
        """Write the whole state, where it is not on disk yet; a kill at any moment leaves this state or the one before
        it.
        """
        if not self.team.leads or self.saved == self.step:
            return
        state = {
            "module": self.module.state_dict(),
            "average": self.average.tensors,
            "optimizer": flatten_optimizer(self.optimizer, self.module),
        }
        kept = {"task": self.task.name, "metrics": self.metrics, "stale": self.stale, "best_value": self.best_value}
        named = {"identity": self.identity, "upstream": self.upstream}
        save_state(
            self.folder,
            self.step,
            state | ({"best": self.best} if self.best else {}),
            asdict(self.config) | kept | named,
        )
        self.saved, self.unnamed = self.step, False

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

    def _draw(self, number: int) -> Drawn:
        """This process's part of the `number`-th batch of all, on the CPU, and what the loss draws from."""
        config, team = self.config, self.team
        generator = generator_of(config.seed, number)
        if team.world == 1:
            return self.task.batch(config.batch_size, generator), generator
        return self.task.batch(config.batch_size * team.world, generator, team.part(config.batch_size)), generator

    def _backward(self, number: int) -> tuple[Tensor, dict[str, float]]:
        """The `number`-th batch of all: its loss, and its share of the gradients."""
        config = self.config
        batch, generator = self.drawn(number)
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
        """Before an hour is lost: raise UsageError where val does not measure what the best weights are to be
        kept by.
        """
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
        value = self.metrics[metric] * (-1 if metric in self.task.lower_is_better else 1)
        if self.best_value is None or value > self.best_value:
            self.best_value, self.stale = value, 0
            self.best = {name: tensor.clone() for name, tensor in self.average.tensors.items()}
        else:
            self.stale += 1

    def fit(self, *, quiet: bool = False) -> dict[str, float]:
        """Train to `max_steps`, or to the deadline.

        Ctrl-C saves, then raises Interrupted. Returns the last validation metrics.
        """
        config = self.config
        self.folder.mkdir(parents=True, exist_ok=True)
        quiet = quiet or not self.team.leads
        if self.outdated:
            self._start_again(quiet)
        if config.metric and not self.step and self.team.leads:
            self._refuse_unknown_metric()
        size = config.batch_size * self.team.world * config.accumulate
        progress = Progress(self.task.name, config.max_steps, self.step, size, quiet=quiet)
        with progress, Interruptible() as wish, Ahead(self._draw, config.max_steps * config.accumulate) as ahead:
            self.drawn = ahead
            try:
                asked = self._steps(progress, wish, ahead)
            finally:
                self.drawn = self._draw
                if self.whole and all(torch.isfinite(p).all() for p in self.module.parameters()):
                    self.save()
        self.best = self.team.from_leader(self.best, self.average.tensors)
        if asked or wish.asked:
            raise Interrupted(
                f"{self.task.name}: stopped and saved at step {self.step} of {config.max_steps}",
                hint="the same command goes on from here",
            )
        return self.metrics

    def _start_again(self, quiet: bool) -> None:
        """What was measured goes; the outdated state stays until there is a new one."""
        if not self.team.leads:
            return
        (self.folder / "log.jsonl").unlink(missing_ok=True)
        if not quiet:
            print(f"{self.task.name}: starts again, because what it builds on was trained since", file=sys.stderr)

    def _steps(self, progress: Progress, wish: Interruptible, ahead: Ahead) -> bool:
        """Steps until the run is over, time is up, val is bored or somebody asks; whether any process was asked to
        stop.
        """
        config, saved = self.config, time.monotonic()
        stop = asked = False
        while self.step < config.max_steps and not stop:
            bored = 0 < config.patience <= self.stale
            enough = bored or wish.asked or time.monotonic() >= self.deadline
            if enough and self.team.world == 1:
                break
            # several processes stop after the same step
            parts, stop, asked = self._one_step(stop=enough, asked=wish.asked)
            progress.update(self.step, parts, self.metrics)
            if self.log and (self.step % 50 == 0 or self.step <= 10):
                self.log.trained(self.step, parts, progress.rate)
            if self.step % config.validate_steps == 0 or self.step == config.max_steps:
                ahead.settle()
                self._validate()
                progress.update(self.step, parts, self.metrics)
            if time.monotonic() - saved > config.save_seconds:
                self.save()
                saved = time.monotonic()
        return asked

    def averaged(self) -> nn.Module:
        """The module with its averaged weights, the best or else the last, in eval mode, for export. Ends the run."""
        self.module.load_state_dict(self.best or self.average.tensors)
        return self.module.eval()
