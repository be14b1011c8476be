"""Two sources at once: `--source sound+image`. A bridge that hears a sound and sees a picture, and leans on both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmx.bridges.sound import SoundBridge
from mmx.data.manifest import Manifest
from mmx.data.pairs import Pairs, others_of
from mmx.decoders.base import Decoder
from mmx.errors import InputError
from mmx.training.bridges.base import BridgeRecipe, Sides
from mmx.training.bridges.measures import VAL, points_of, retrieval, spread
from mmx.training.bridges.sound import SoundBridgeTask

LOST = 0.3  # the share of items whose sound is left out in a step, and as many whose picture is (modality dropout)
WAYS = {
    "": (True, True),
    "sound_only_": (True, False),
    "image_only_": (False, True),
}  # in a metric's name: what is there


class FusionTask(SoundBridgeTask):
    """Sound and picture land where the target is, together and each alone.

    Without modality dropout the bridge would collapse onto the easier one, and be lost without it.
    """

    mixup = 0.0

    @classmethod
    def sides(cls, recipe: BridgeRecipe, decoder: Decoder, manifest: Manifest) -> Sides:
        if manifest.direct and manifest.second_sources is None:
            raise InputError(
                f"{recipe.data}: no pictures to hear the sounds with",
                hint="a folder hints/ with equal stems, or a column source2 in the manifest",
            )
        return super().sides(recipe, decoder, manifest)

    def batch(self, size: int, generator: torch.Generator, part: slice = slice(None)) -> dict[str, Tensor]:
        batch = super().batch(size, generator, part)
        draws = torch.rand(size, 3, generator=generator)[part]
        lost = draws[:, 0]
        there = torch.stack((lost >= LOST, (lost < LOST) | (lost >= 2 * LOST)), 1)
        seen = others_of(self.pairs, batch["picks"], batch["labels"][:, 0], draws[:, 1], draws[:, 2])
        return batch | {"seen": seen, "there": there}

    def points(self, batch: dict[str, Tensor]) -> Tensor:
        bridge = self.module.bridge
        return bridge.fused(bridge.encoder(batch["features"]), batch["seen"], batch["there"])

    def validate(self, module: nn.Module) -> dict[str, float]:
        return validate_ways(self.val, module.bridge)


@torch.no_grad()
def validate_ways(val: Pairs | None, bridge: SoundBridge) -> dict[str, float]:
    """Retrieval with both sources, with the sound alone and with the picture alone; and what each adds to the other.

    val_sound_share and val_image_share are Shapley values of recall at 1 (Shapley 1953), which sum to what both reach
    above chance.
    """
    if val is None:
        return {}
    picks = spread(len(val.sources), VAL)
    labels = val.sources.labels[picks]
    theirs = picks if val.direct else spread(len(val.targets), VAL)
    targets = torch.stack([val.targets.get(i)[0].float() for i in theirs.tolist()])
    sounds = points_of(bridge, val.sources, picks)
    places = torch.rand(len(picks), generator=torch.Generator().manual_seed(0))
    seen = others_of(val, picks, labels, places, torch.zeros(len(picks)))
    device = next(bridge.parameters()).device
    found: dict[str, float] = {}
    for way, (hears, sees) in WAYS.items():
        there = torch.tensor([[hears, sees]], device=device).expand(len(picks), -1)
        points = bridge.fused(sounds.to(device), seen.to(device), there).cpu()
        measured = retrieval(points, targets, labels, val.targets.labels[theirs])
        found |= {
            name.replace("val_", f"val_{way}", 1): value
            for name, value in measured.items()
            if way == "" or "recall_at_1" in name
        }
    both, sound, image = (found[f"val_{way}recall_at_1"] for way in WAYS)
    alone = found["val_chance"]
    found["val_sound_share"] = ((sound - alone) + (both - image)) / 2
    found["val_image_share"] = ((image - alone) + (both - sound)) / 2
    return found
