"""`mmx train-mapper`: one text's edit of any picture as a small network (StyleCLIP's latent mapper, Patashnik et al.
2021), trained through the frozen decoder by the terms that optimise a single edit."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from mmx.bridges.base import BridgeConfig
from mmx.bridges.mapper import ARCHITECTURE, SIZES, TASK, Mapper
from mmx.data.photos import Photos, load_photos
from mmx.decoders.base import tensors_digest
from mmx.decoders.load import load_decoder
from mmx.device import placed
from mmx.errors import InputError, UsageError
from mmx.guided.edit import Editor
from mmx.guided.edit_terms import LR, STEPS, Seen, Terms
from mmx.guided.invert import on_shell
from mmx.guided.residual import Schedule
from mmx.models.store import locate, seal
from mmx.options import FREE
from mmx.recipes.mapper import MapperOptions
from mmx.training.card import mapper_card
from mmx.training.engine.identity import recipe_identity, weights_digest
from mmx.training.engine.loop import Run
from mmx.training.engine.task import LoopConfig
from mmx.training.teachers.features import kept
from mmx.translate.base import Blend, Names, generator_for

VAL = 16  # pictures that are measured
Row = dict[str, float]


@dataclass(frozen=True)
class MapperRecipe(MapperOptions):
    """Everything `mmx train-mapper` was asked for, and the line itself."""

    command: str = field(default="", metadata=FREE)

    @property
    def schedule(self) -> LoopConfig:
        """The loop's settings."""
        return LoopConfig(
            self.max_steps, self.batch_size, self.lr, warmup=min(20, self.max_steps // 10), ema=0.98, seed=self.seed,
            device=placed(self.device, "fp32").device, bf16=False, validate_steps=100, save_seconds=60,
        )  # fmt: skip


class MapperTask:
    """The terms of `mmx edit` over many pictures' conditionings (N, D), each drawn from another noise in each step."""

    name = "mapper"
    lower_is_better = ("val_wish", "val_likeness", "val_l2")

    def __init__(self, mapper: Mapper, editor: Editor, terms: Terms, train: Tensor, val: Tensor) -> None:
        self.module, self.editor, self.terms = mapper, editor, terms
        self.train, self.val = train, val
        self.weighted = terms.all(train.shape[1] / mapper.spec.mean_norm**2)

    def batch(self, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        picks = torch.randint(len(self.train), (size,), generator=generator)
        return {"start": self.train[picks], "noise": torch.randint(2**31, (size,), generator=generator)}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Row]:
        seen = self.seen(batch["start"], self.module(batch["start"]), batch["noise"].tolist())
        losses = {term.name: term.loss(seen) for term in self.weighted}
        total = torch.stack([term.weight * losses[term.name] for term in self.weighted]).sum()
        return total, {name: float(loss.detach()) for name, loss in losses.items()}

    def seen(self, start: Tensor, residual: Tensor, noise: Sequence[int]) -> Seen:
        """What the terms look at of conditionings (B, D), edited by residuals (B, D); each is drawn from its noise."""
        with torch.no_grad():
            before = self._look(start, noise)
        return Seen(self._look(on_shell(start + residual, start), noise), before, residual)

    def _look(self, points: Tensor, noise: Sequence[int]) -> Tensor:
        draws = [generator_for(seed, 0) for seed in noise]
        pixels = self.editor.decoder.paint(points, generators=draws) / 2 + 0.5
        return self.editor.space.see(pixels.clamp(0, 1))

    def validate(self, module: nn.Module) -> Row:
        if not len(self.val):
            return {}
        start = self.val.to(next(module.parameters()).device)
        seen = self.seen(start, module(start), range(len(start)))
        return {f"val_{term.name}": float(term.loss(seen)) for term in self.weighted}

    def preview(self, module: nn.Module, path: Path) -> None:
        """The val pictures as the decoder draws them, and below each its edit."""
        from mmx.media.image import grid

        start = self.val[:8].to(next(module.parameters()).device)
        if len(start):
            points = torch.cat((start, module.edited(start))).cpu()
            draws = [generator_for(seed, 0) for seed in [*range(len(start))] * 2]
            grid(self.editor.decoder.decode(points, generators=draws), len(start)).save(path)


def train_mapper(recipe: MapperRecipe) -> Path:
    """Trains and writes `run/mapper`. The same recipe on the same run resumes. Raises what its parts raise."""
    editor = opened(recipe)
    before = weights_digest(*editor.decoder.networks())
    wanted = editor.wanted([Blend(recipe.text, 1.0)], recipe.strength, recipe.keep, recipe.l2)
    train, val = conditionings(editor, recipe)
    torch.manual_seed(recipe.seed)  # the initial weights
    mapper = Mapper(
        BridgeConfig(
            TASK, editor.decoder.spec.as_dict(), {recipe.text: recipe.text}, sources=("image",),
            architecture=ARCHITECTURE, sizes=SIZES,
        )
    )  # fmt: skip
    task = MapperTask(mapper, editor, Terms(wanted), train, val)
    identity = recipe_identity(
        recipe,
        decoder=editor.decoder_at.sha256,
        space=editor.space.fingerprint,
        data=tensors_digest({"train": train, "val": val}),
    )
    deadline = time.monotonic() + 60 * recipe.minutes
    run = Run(task, recipe.schedule, recipe.run / "state", identity=identity, deadline=deadline)
    run.fit(quiet=recipe.quiet)
    if not run.step:
        raise UsageError("--max-minutes: time was up before the first step", hint="give it longer")
    assert weights_digest(*editor.decoder.networks()) == before, "the frozen decoder was trained, too"
    return export(recipe, task, run)


def opened(recipe: MapperRecipe) -> Editor:
    """The frozen models. Raises ModelError."""
    at = locate(recipe.decoder, TASK, "decoder")
    decoder = load_decoder(at, "image").place(placed(recipe.device, "fp32"))
    return Editor.open(TASK, Names(None, recipe.encoder), decoder, at)


def conditionings(editor: Editor, recipe: MapperRecipe) -> tuple[Tensor, Tensor]:
    """What the teacher sees in pictures of both splits (N, D), raw; kept in the run. Raises InputError."""
    teacher = editor.decoder.teacher
    prefix = "faces" if teacher.names_faces else "images"
    everything = load_photos(recipe.data, teacher.image_size, prefix)
    order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(0)).tolist()
    found = []
    for name, most in (("train", recipe.limit), ("val", VAL)):
        whole = Photos(everything.pixels[order], [everything.meta[i] for i in order]).split(name)
        some = Photos(whole.pixels[:most], whole.meta[:most])
        if not len(some) and name == "train":
            raise InputError(f"{recipe.data}: there are no {prefix} to train on in it")

        def look(part: Tensor) -> Tensor:
            return editor.decoder.targets([Image.fromarray(pixels.numpy()) for pixels in part]).clone()

        seen = kept(some, look, editor.decoder.spec.fingerprint, recipe.run / "embeds" / name) if len(some) else None
        found.append(torch.zeros(0, *editor.decoder.spec.shape) if seen is None else seen)
    return found[0], found[1]


def export(recipe: MapperRecipe, task: MapperTask, run: Run) -> Path:
    """config.json, model.safetensors (float16), metrics.json, README.md and SHA256SUMS. Returns the folder."""
    folder, mapper = recipe.run / "mapper", run.averaged().cpu()
    stored = Mapper(mapper.config)
    stored.load_state_dict(mapper.state_dict())
    stored.half().save_pretrained(folder)
    measured: dict[str, Any] = {
        "command": recipe.command, "notes": recipe.notes, "seed": recipe.seed, "text": recipe.text, "steps": run.step,
        "batch_size": recipe.batch_size, "pictures": len(task.train), "decoder": task.editor.decoder_at.name,
        "space": task.editor.space.name, "val": compared(task, Mapper.load(folder)),
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(measured, indent=1), encoding="utf8")
    (folder / "README.md").write_text(mapper_card(task.editor.decoder.spec, measured), encoding="utf8")
    seal(folder)
    return folder


def compared(task: MapperTask, mapper: Mapper) -> dict[str, Row]:
    """The terms on val pictures, and seconds of the processor for each: of the mapper, of an optimisation of each
    picture alone, which is the oracle, of the straight way where there is one, and of no edit."""
    editor, wanted = task.editor, task.terms.wanted
    mapper = mapper.to(editor.decoder.device)
    starts = task.val.to(editor.decoder.device)

    def by_steps(start: Tensor, number: int) -> Tensor:
        return editor.by_steps(start, wanted, Schedule(STEPS, LR), (number, 0))[0]

    ways: dict[str, Callable[[Tensor, int], Tensor]] = {
        "mapper": lambda start, _: mapper.edited(start),
        "oracle: optimisation": by_steps,
        "no edit": lambda start, _: start,
    }
    if editor.space_at is None and wanted.direction.shape == editor.decoder.spec.shape:
        ways["--direction"] = lambda start, _: editor.shifted(start, wanted, wanted.strength)
    rows: dict[str, Row] = {}
    for name, way in ways.items() if len(starts) else ():
        began = time.process_time()
        with torch.no_grad():
            points = torch.cat([way(start[None], number) for number, start in enumerate(starts)])
        took = (time.process_time() - began) / len(starts)
        with torch.no_grad():
            seen = task.seen(starts, points - starts, range(len(starts)))
            rows[name] = {term.name: float(term.loss(seen)) for term in task.weighted} | {"cpu_s": took}
    return rows
