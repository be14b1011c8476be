"""The one training loop. What is trained is a `Task`; everything else (schedule, EMA, saving, resuming) is here."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from mmx.errors import Interrupted, NonFiniteError, UsageError
from mmx.training.checkpoint import flatten_optimizer, load_state, restore_optimizer, save_state
from mmx.training.progress import Progress


class Task(Protocol):
    """What a run optimises. Batches are a function of the generator alone, so that a resumed run repeats them."""

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

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / max(1, self.max_steps - self.warmup)))


def generator_of(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """A CPU generator that is a function of (seed, step, stream): the reason why runs resume exactly."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 4 + stream & 0x7FFF_FFFF_FFFF_FFFF)


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
    """One task being trained into one folder: state-*/ (resumable), log.jsonl, previews."""

    def __init__(self, task: Task, config: LoopConfig, folder: Path) -> None:
        self.task, self.config, self.folder = task, config, folder
        self.module = task.module.to(config.device).train()
        self.optimizer = torch.optim.AdamW(
            self.module.parameters(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
        )
        self.average = Average(self.module, config.ema)
        self.step = 0
        self.metrics: dict[str, float] = {}
        self._restore()

    def _restore(self) -> None:
        found = load_state(self.folder)
        if found is None:
            return
        tensors, meta = found
        if meta["seed"] != self.config.seed or meta["batch_size"] != self.config.batch_size:
            raise UsageError(
                f"{self.folder} was started with --seed {meta['seed']} --batch-size {meta['batch_size']}",
                hint="give the same values to resume, or another output folder",
            )
        self.module.load_state_dict(tensors["module"])
        self.average.tensors = {k: v.to(self.config.device) for k, v in tensors["average"].items()}
        restore_optimizer(self.optimizer, self.module, tensors["optimizer"])
        self.step, self.metrics = meta["step"], meta["metrics"]

    def save(self) -> None:
        """Write the whole state; a kill at any moment leaves this state or the one before it."""
        save_state(
            self.folder,
            self.step,
            {
                "module": self.module.state_dict(),
                "average": self.average.tensors,
                "optimizer": flatten_optimizer(self.optimizer, self.module),
            },
            asdict(self.config) | {"task": self.task.name, "metrics": self.metrics},
        )

    def _one_step(self) -> dict[str, float]:
        config = self.config
        generator = generator_of(config.seed, self.step)
        batch = {key: value.to(config.device) for key, value in self.task.batch(config.batch_size, generator).items()}
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr_at(self.step)
        torch.manual_seed(
            config.seed * 1_000_003 + self.step
        )  # dropout knows no other generator; a resumed run repeats it
        with torch.autocast(config.device.split(":")[0], torch.bfloat16, enabled=config.bf16):
            loss, parts = self.task.loss(batch, generator)
        if not torch.isfinite(loss):
            raise NonFiniteError(
                f"{self.task.name}: the loss is {loss.item()} at step {self.step}",
                hint=f"lower --lr; the last good state is in {self.folder}",
            )
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.average.update(self.module, self.step)
        return {"loss": loss.item()} | parts

    def _validate(self) -> None:
        with swapped(self.module, self.average) as module, torch.no_grad():
            self.metrics = self.task.validate(module)
            self.task.preview(module, self.folder / "preview.png")

    def _log(self, record: dict) -> None:
        with (self.folder / "log.jsonl").open("a", encoding="utf8") as file:
            file.write(json.dumps(record) + "\n")

    def fit(self, *, quiet: bool = False, max_minutes: float = math.inf) -> dict[str, float]:
        """Train to `max_steps`. Ctrl-C saves, then raises Interrupted. Returns the last validation metrics."""
        config = self.config
        self.folder.mkdir(parents=True, exist_ok=True)
        start = saved = time.monotonic()
        with Progress(self.task.name, config.max_steps, self.step, config.batch_size, quiet=quiet) as progress:
            try:
                while self.step < config.max_steps and time.monotonic() - start < max_minutes * 60:
                    parts = self._one_step()
                    progress.update(self.step, parts, self.metrics)
                    if self.step % 50 == 0:
                        self._log({"step": self.step} | {k: round(v, 5) for k, v in parts.items()})
                    if self.step % config.validate_steps == 0 or self.step == config.max_steps:
                        self._validate()
                        self._log({"step": self.step, "val": self.metrics})
                        progress.update(self.step, parts, self.metrics)
                    if time.monotonic() - saved > config.save_seconds:
                        self.save()
                        saved = time.monotonic()
            except KeyboardInterrupt:
                raise Interrupted(
                    f"{self.task.name}: stopped and saved at step {self.step} of {config.max_steps}",
                    hint="the same command goes on from here",
                ) from None
            finally:
                if all(torch.isfinite(p).all() for p in self.module.parameters()):
                    self.save()
        return self.metrics

    def averaged(self) -> nn.Module:
        """The module with its averaged weights, in eval mode, for export. Ends the run."""
        self.module.load_state_dict(self.average.tensors)
        return self.module.eval()
