"""`mmx train-bridge img2speech`: a unit writer that looks at photos."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from mmx.bridges.base import BridgeConfig
from mmx.bridges.sight import SightBridge, patches_of
from mmx.decoders.base import fingerprint
from mmx.decoders.image import SPACE as IMAGE_SPACE
from mmx.decoders.speech import PARTS, SpeechDecoder
from mmx.decoders.teacher import Teacher
from mmx.errors import InputError
from mmx.nets.speech import collapse
from mmx.nets.writer import MAX_REPEAT, MAX_UNITS
from mmx.store import Located, locate
from mmx.training.bridge import BridgeRecipe, export_bridge, schedule_of
from mmx.training.data import Photos, load_photos, members
from mmx.training.image import encode_all
from mmx.training.loop import LoopConfig, Run
from mmx.training.spoken import load_spoken

SCHEDULE = LoopConfig(6000, 64, 1e-3, weight_decay=0.05, ema=0.998, warmup=300, validate_steps=500)
WRITER = {"width": 256, "depth": 4, "heads": 4}


@dataclass(frozen=True)
class Seen:
    """Photos as patches (2N, P, C) float16, plain and then mirrored, and the synset's number of each (2N,)."""

    patches: Tensor
    synsets: Tensor


@dataclass(frozen=True)
class Said:
    """Captions as collapsed units with an end token, padded (M, L), their repeats (M, L), and the synset's number of each (M,)."""

    tokens: Tensor
    counts: Tensor
    synsets: Tensor


class SightTask:
    """Next-unit prediction: any photo of a synset with any spoken caption of it, drawn anew each step."""

    name = "bridge"
    duration_weight = 0.2

    def __init__(self, seen: Seen, val: Seen, said: Said, config: BridgeConfig, seed: int = 0) -> None:
        self.seen, self.val, self.said = seen, val, said
        torch.manual_seed(seed)
        self.module = _Module(SightBridge(config))
        self.captions = members(said.synsets)
        self.known = torch.tensor([int(s) in self.captions for s in seen.synsets]).nonzero()[:, 0]

    def _captions(self, synsets: Tensor, generator: torch.Generator) -> Tensor:
        places = torch.rand(len(synsets), generator=generator).tolist()
        own = [self.captions[int(s)] for s in synsets]
        return torch.stack([group[int(place * len(group))] for group, place in zip(own, places, strict=True)])

    def batch(self, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        picks = self.known[torch.randint(len(self.known), (size,), generator=generator)]
        captions = self._captions(self.seen.synsets[picks], generator)
        longest = int((self.said.counts[captions] > 0).sum(1).max()) + 1
        return {
            "patches": self.seen.patches[picks].float(),
            "tokens": self.said.tokens[captions, :longest],
            "counts": self.said.counts[captions, :longest],
        }

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        nll, lasting = self.module.bridge.encoder.loss(batch["patches"], batch["tokens"], batch["counts"])
        return nll + self.duration_weight * lasting, {"nll": nll.item(), "duration": lasting.item()}

    def validate(self, module: nn.Module) -> dict[str, float]:
        """How likely val photos' own captions are, and another synset's (the random row)."""
        generator = torch.Generator().manual_seed(0)
        known = [i for i, s in enumerate(self.val.synsets.tolist()) if s in self.captions][:256]
        if not known:
            return {}
        found = {}
        for name, synsets in (
            ("val_nll", self.val.synsets[known]),
            ("val_nll_random", self.val.synsets[known].roll(1)),
        ):
            captions = self._captions(synsets, generator)
            nll, _ = module.bridge.encoder.loss(
                self.val.patches[known].float(), self.said.tokens[captions], self.said.counts[captions]
            )
            found[name] = nll.item()
        return found

    def preview(self, module: nn.Module, path: Path) -> None:
        """What is written is heard: `mmx img2speech` with this run as its bridge."""


class _Module(nn.Module):
    def __init__(self, bridge: SightBridge) -> None:
        super().__init__()
        self.bridge = bridge


def load_said(folder: Path, decoder: SpeechDecoder, synsets: list[str]) -> Said:
    """The spoken captions of a folder as units. Captions of unknown synsets, and those that are too long, are left out."""
    rows = []
    for wave, meta in load_spoken(folder):
        if meta.get("synset") not in synsets:
            continue
        units, counts = collapse(decoder.targets([wave])[0])
        if len(units) < MAX_UNITS:
            rows.append((units, counts.clamp(max=MAX_REPEAT), synsets.index(meta["synset"])))
    if not rows:
        raise InputError(f"{folder}: no spoken caption belongs to a photo", hint="mmx data speak makes spoken-*.tar")
    pad, end = decoder.spec.shape[0], decoder.spec.shape[0] + 2
    longest = max(len(units) for units, _, _ in rows) + 1
    tokens, counts = torch.full((len(rows), longest), pad), torch.zeros(len(rows), longest, dtype=torch.long)
    for row, (units, repeats, _) in enumerate(rows):
        tokens[row, : len(units)], tokens[row, len(units)] = units, end
        counts[row, : len(units)] = repeats
    return Said(tokens, counts, torch.tensor([synset for _, _, synset in rows]))


def load_seen(photos: Photos, teacher: Teacher, synsets: list[str]) -> Seen:
    """Photos as the frozen encoder sees them."""
    numbers = torch.tensor([synsets.index(meta["synset"]) for meta in photos.meta]).repeat(2)
    return Seen(encode_all(photos, lambda pixels: patches_of(teacher, pixels)).half(), numbers)


def train_sight_bridge(recipe: BridgeRecipe, images: Located | None = None) -> Path:
    """Train, export and return `recipe.run`. images: the image decoder whose teacher it looks with; the starter's when absent."""
    decoder = SpeechDecoder.load(recipe.decoder.folder)
    before = fingerprint(recipe.decoder.folder, PARTS)
    images = images or locate(None, "sound2img", "decoder")
    teacher = Teacher.load(images.folder / "teacher")
    photos = load_photos(recipe.data, teacher.net.image_size)
    synsets = sorted({meta["synset"] for meta in photos.meta})
    seen, val = (load_seen(photos.split(split), teacher, synsets) for split in ("train", "val"))
    config = BridgeConfig(
        task="img2speech",
        spec=decoder.spec.as_dict(),
        source={"name": images.name, "fingerprint": fingerprint(images.folder, IMAGE_SPACE)},
        writer=WRITER | {"patches": seen.patches.shape[1], "channels": seen.patches.shape[2]},
    )
    task = SightTask(seen, val, load_said(recipe.data, decoder, synsets), config, recipe.seed)
    run = Run(
        task, schedule_of(SCHEDULE, recipe, recipe.max_steps, recipe.batch_size, recipe.lr), recipe.run / "bridge"
    )
    metrics = run.fit(quiet=recipe.quiet, max_minutes=recipe.max_minutes)
    bridge: SightBridge = run.averaged().bridge
    bridge.config = replace(config)
    assert fingerprint(recipe.decoder.folder, PARTS) == before, "the frozen decoder changed on disk"
    export_bridge(bridge, recipe, metrics, run.step)
    return recipe.run
