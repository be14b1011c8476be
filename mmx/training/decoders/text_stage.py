"""`mmx train-decoder text`: another text tower for an image decoder's teacher; everything else of the decoder stays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.data.captions import train_tokenizer
from mmx.data.photos import load_photos
from mmx.data.sentences import read_captions
from mmx.decoders.gan import space_of
from mmx.decoders.horizon import Horizon
from mmx.decoders.teacher import HEADS, Teacher, image_side
from mmx.decoders.towers import TextReader, fresh_text_tower, save_text_tower
from mmx.digest import sha256
from mmx.errors import InputError, UsageError
from mmx.models.store import seal
from mmx.training.card import with_texts
from mmx.training.decoders.text import TextTask
from mmx.training.decoders.text_measures import FRAMES, calibrated, measure, temperature
from mmx.training.engine.loop import Run
from mmx.training.engine.task import LoopConfig
from mmx.training.teachers.features import digest_of, embeds_of

LENGTH, VOCABULARY = 32, 4096
SCHEDULE = LoopConfig(
    2000, 64, 2e-3, warmup=100, weight_decay=0.05, ema=0.99, bf16=False, validate_steps=500, save_seconds=60
)


@dataclass
class TextRecipe:
    """Everything `mmx train-decoder text` was asked for. start: the decoder's folder. captions: text files, one a
    line."""

    data: Path
    run: Path
    start: Path
    captions: tuple[Path, ...]
    seed: int = 0
    device: str = "cpu"
    steps: dict[str, int] = field(default_factory=dict)
    quiet: bool = False
    command: str = ""
    notes: str = ""

    @property
    def schedule(self) -> LoopConfig:
        """With the recipe's seed, device and number of steps."""
        steps = self.steps.get("text", SCHEDULE.max_steps)
        warmup = min(SCHEDULE.warmup, steps // 10)
        return replace(SCHEDULE, max_steps=steps, warmup=warmup, seed=self.seed, device=self.device)


def train_text(recipe: TextRecipe) -> Path:
    """Trains and writes `run/decoder`. The same recipe on the same run resumes. Raises UsageError, InputError."""
    folder, source = recipe.run / "decoder", recipe.start / "teacher"
    if folder.resolve() == recipe.start.resolve():
        raise UsageError(f"--init {recipe.start} lies in the run itself", hint="give another -o")
    captions, teacher = read_captions(recipe.captions), Teacher.load(source)
    teacher.net.to(recipe.device)
    everything = load_photos(recipe.data, teacher.image_size)
    splits = [everything.split(name) for name in ("train", "val")]
    if not all(map(len, splits)):
        raise InputError(f"{recipe.data}: its photos are not of two splits, train and val")
    embeds = [
        embeds_of(photos, teacher, recipe.run / "embeds" / name)
        for name, photos in zip(("train", "val"), splits, strict=True)
    ]

    def fresh(vocabulary: Sequence[str]) -> tuple[TextReader, nn.Module]:
        reader = train_tokenizer(vocabulary, VOCABULARY, length=LENGTH)
        torch.manual_seed(recipe.seed)  # the initial weights
        sizes = teacher.net.text_encoder.sizes | {"vocabulary": len(reader), "length": LENGTH}
        return reader, fresh_text_tower(**sizes)

    task = TextTask(*splits, (embeds[0], embeds[1]), captions, fresh)
    identity = {
        "data": digest_of(everything.pixels),
        "init": image_side(source),
        "captions": sha256("\n".join(captions).encode()),
    }
    run = Run(task, recipe.schedule, recipe.run / "text", identity=identity)
    run.fit(quiet=recipe.quiet)
    tower = run.averaged().cpu()
    found = task.validate(tower)
    before = measure(teacher.embed_texts, task.val, task.val_embeds, task.targets, task.sentences)
    write(recipe, task, tower)
    carded(recipe, folder, {"val": found, "before": before, "captions": len(captions), "photos": len(splits[0])})
    return folder


def write(recipe: TextRecipe, task: TextTask, tower: nn.Module) -> None:
    """The decoder's folder with another text tower, its tokenizer, temperature and horizon."""
    from safetensors.torch import load_file, save_file

    folder = recipe.run / "decoder"
    shutil.copytree(recipe.start, folder, copy_function=shutil.copyfile, dirs_exist_ok=True)
    teacher, embed = folder / "teacher", task.embed(tower)
    horizon = task.targets.horizon(calibrated(embed, task.targets, task.sentences))
    heads = load_file(teacher / HEADS)
    heads["logit_scale"] = scale_of(task, embed).log().to(heads["logit_scale"])
    save_file(heads, teacher / HEADS)
    save_text_tower(tower.half(), teacher / "text_encoder")
    task.reader.save(teacher / "tokenizer")
    Horizon(horizon.points, round(horizon.least, 4)).save(teacher)
    about = json.loads((folder / "mmx.json").read_text(encoding="utf8"))
    if about["spec"]["fingerprint"] != space_of(folder):
        about["spec"]["fingerprint"] = space_of(folder)
        (folder / "mmx.json").write_text(json.dumps(about, indent=1), encoding="utf8")


def scale_of(task: TextTask, embed: Any) -> Tensor:
    """The inverse temperature of photos beside the texts of all groups of things that are one synset's."""
    groups = [number for number, things in enumerate(task.targets.things) if len(things) == 1]
    texts = embed([FRAMES["photo"].format(task.targets.names[number][0]) for number in groups])
    synset = {next(iter(task.targets.things[number])): k for k, number in enumerate(groups)}
    truth = torch.tensor([synset.get(meta["synset"], -1) for meta in task.val.meta])
    known = truth >= 0
    return torch.tensor(temperature(F.normalize(task.val_embeds[known], dim=1), texts, truth[known]))


def carded(recipe: TextRecipe, folder: Path, measured: dict[str, Any]) -> None:
    """What changed and what was measured, beside what the decoder's own training had measured; sealed."""
    own = {"command": recipe.command, "notes": recipe.notes, "seed": recipe.seed} | measured
    numbers, card = folder / "metrics.json", folder / "README.md"
    former = json.loads(numbers.read_text(encoding="utf8")) if numbers.exists() else {}
    numbers.write_text(json.dumps(former | {"text": own}, indent=1), encoding="utf8")
    text = card.read_text(encoding="utf8") if card.exists() else ""
    card.write_text(with_texts(text, own), encoding="utf8")
    seal(folder)
