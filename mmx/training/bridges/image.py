"""`mmx train-bridge img2speech`: a unit writer that looks at photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.bridges.base import BridgeConfig
from mmx.bridges.frontends import Image
from mmx.bridges.image import ImageBridge
from mmx.bridges.image_encoders import open_image_encoder
from mmx.bridges.units import UnitBridge
from mmx.data.features import Units
from mmx.data.manifest import Manifest
from mmx.data.pairs import Groups, Pairs, Rows
from mmx.decoders.base import Decoder
from mmx.errors import InputError
from mmx.media.audio import wav_bytes
from mmx.models.store import locate
from mmx.nets.speech import collapse
from mmx.nets.writer import MAX_REPEAT, MAX_UNITS, Sampling
from mmx.training.bridges.augment import crops
from mmx.training.bridges.base import BridgeRecipe, BridgeTask, Setting, Sides
from mmx.training.bridges.measures import spread
from mmx.training.engine.loop import LoopConfig

WRITER = {"width": 192, "depth": 3, "heads": 4}


class ImageBridgeTask(BridgeTask):
    """Next-unit prediction: any photo of a label with any spoken caption of it, drawn anew each step.

    Where labels pair them, the state before the first unit is also asked for the label: of some forty units only the
    few that tell names apart have to do with the picture, and alone they teach the bridge slowly to look. The
    classifier is not kept.
    """

    schedule = LoopConfig(2500, 64, 1e-3, weight_decay=0.05, ema=0.998, warmup=300, validate_steps=250)
    lower_is_better = ("val_nll", "val_nll_random")
    duration_weight, label_weight = 0.2, 0.2
    bridge_kind: ClassVar[type[ImageBridge] | type[UnitBridge]] = ImageBridge

    @classmethod
    def sides(cls, recipe: BridgeRecipe, decoder: Decoder, manifest: Manifest) -> Sides:
        """It looks with the starter image decoder's teacher unless told otherwise."""
        at = recipe.encoder or locate(None, recipe.task, "encoder")
        encoder = open_image_encoder(at, recipe.team.device)
        return Sides(
            Image(encoder), Units(decoder), {"source": {"name": encoder.name, "fingerprint": encoder.fingerprint}}
        )

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.pairs = _short_enough(self.pairs)
        patches, channels = self.looked(setting.sides.about)
        self.config = BridgeConfig(
            task=self.recipe.task,
            spec=self.decoder.spec.as_dict(),
            writer=WRITER | self.recipe.sizes | {"patches": patches, "channels": channels},
            **setting.sides.about,
        )
        torch.manual_seed(self.recipe.seed)
        kinds = 0 if self.pairs.direct else int(self.pairs.targets.labels.max()) + 1
        self.module = _Module(self.bridge_kind(self.config), kinds)
        self.module.bridge.use(self.frontend)

    def looked(self, about: dict[str, Any]) -> tuple[int, int]:
        """(P, C) of what the writer goes on from. about: what the bridge's config says of its source."""
        return tuple(self.frontend.crop(self.pairs.sources, 0, 0.0).shape)

    def batch(self, size: int, generator: torch.Generator, part: slice = slice(None)) -> dict[str, Tensor]:
        picks, labels = self.pairs.draw(size, generator)
        places = torch.rand(size, 2, generator=generator)[part]
        captions = self.pairs.targets_of(picks[part], labels[part], places[:, 0])
        batch = self._batch(self.pairs.sources, picks[part], places[:, 1], self.pairs.targets, captions)
        return batch | {"labels": labels[part]}

    def _batch(self, seen: Rows, picks: Tensor, places: Tensor, said: Rows, captions: Tensor) -> dict[str, Tensor]:
        tokens, counts = self._captions(said, captions)
        patches = self.frontend.finish(crops(self.frontend, seen, picks, places))
        return {"patches": patches, "tokens": tokens, "counts": counts}

    def _captions(self, said: Rows, picks: Tensor) -> tuple[Tensor, Tensor]:
        """Captions as collapsed units with an end token, padded (B, L), and their repeats (B, L)."""
        rows = [collapse(said.get(i).long()) for i in picks.tolist()]
        writer = self.module.bridge.encoder
        longest = max(len(units) for units, _ in rows) + 1
        tokens = torch.full((len(rows), longest), writer.pad)
        counts = torch.zeros(len(rows), longest, dtype=torch.long)
        for row, (units, repeats) in enumerate(rows):
            tokens[row, : len(units)], tokens[row, len(units)] = units, writer.end
            counts[row, : len(units)] = repeats.clamp(max=MAX_REPEAT)
        return tokens, counts

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        bridge = self.module.bridge
        patches = bridge.tokens(batch["patches"])
        nll, lasting, state = bridge.encoder.loss(patches, batch["tokens"], batch["counts"])
        total, parts = nll + self.duration_weight * lasting, {"nll": nll.item(), "duration": lasting.item()}
        if self.module.naming is not None:
            named = F.cross_entropy(self.module.naming(state).float(), batch["labels"], label_smoothing=0.1)
            total, parts = total + self.label_weight * named, parts | {"label": named.item()}
        return total, parts

    def validate(self, module: nn.Module) -> dict[str, float]:
        """How likely val photos' own captions are, and another label's (the random row)."""
        if self.val is None:
            return {}
        # captions of the train split: what is new in val is the photo
        said = self.val.targets if self.val.direct else self.pairs.targets
        labels = said.labels.unique() if not self.val.direct else None
        picks = spread(len(self.val.sources), 512)
        if labels is not None:
            picks = picks[torch.isin(self.val.sources.labels[picks], labels)]
        places = torch.rand(len(picks), generator=torch.Generator().manual_seed(0))
        found = {}
        for name, shift in (("val_nll", 0), ("val_nll_random", len(picks) // 2)):
            own = picks.roll(shift)
            captions = own if self.val.direct else Groups(said.labels).draw(self.val.sources.labels[own], places)
            batch = self._batch(self.val.sources, picks, torch.zeros(len(picks)), said, captions)
            batch = {key: value.to(self.team.device) for key, value in batch.items()}
            patches = module.bridge.tokens(batch["patches"])
            nll, _, state = module.bridge.encoder.loss(patches, batch["tokens"], batch["counts"])
            found[name] = nll.item()
            if module.naming is not None and not shift:
                truth = self.val.sources.labels[picks].to(state.device)
                found["val_top1"] = (module.naming(state).argmax(1) == truth).float().mean().item()
                found["val_top1_chance"] = 1 / len(self.pairs.shared)
        return found

    def preview(self, module: nn.Module, path: Path) -> None:
        """What a val photo says so far, as a sound beside `path`."""
        if self.val is not None:
            seen = self.frontend.finish(self.frontend.crop(self.val.sources, 0, 0.0).float()[None])
            seen = seen.to(self.team.device)
            units = module.bridge.write(seen, Sampling(), torch.Generator().manual_seed(0)).cpu()
            if len(units):
                path.with_suffix(".wav").write_bytes(wav_bytes(self.decoder.decode([units])[0]))


class _Module(nn.Module):
    def __init__(self, bridge: ImageBridge, kinds: int) -> None:
        super().__init__()
        self.bridge = bridge
        width = bridge.encoder.places.shape[1]
        self.naming = nn.Linear(width, kinds) if kinds else None


def _short_enough(pairs: Pairs) -> Pairs:
    """Without captions that no utterance may be as long as."""
    lengths = [len(collapse(pairs.targets.get(i).long())[0]) for i in range(len(pairs.targets))]
    keep = torch.tensor(np.array(lengths) < MAX_UNITS).nonzero()[:, 0]
    if not len(keep):
        raise InputError(f"every utterance is longer than {MAX_UNITS} units", hint="give shorter ones")
    if pairs.direct:
        return pairs.subset(keep)
    targets = Rows(pairs.targets.cache, pairs.targets.rows[keep], pairs.targets.labels[keep])
    return Pairs(pairs.sources, targets, pairs.direct, pairs.weights)
