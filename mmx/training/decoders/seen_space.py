"""The joint space of a decoder that a GAN draws for: its semantic part learned from what EfficientNet sees, its layout
part fixed.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.data.photos import Photos
from mmx.training.decoders.axes import colour_axes, discriminants
from mmx.training.decoders.space import SpaceConfig, SpaceTask, random_crops, to_pixels
from mmx.training.losses import infonce

SEEN_SPACE = SpaceConfig(dim=96, semantic_dim=64, semantic_share=0.7, layout_cells=4)


class SeenSpaceTask(SpaceTask):
    """The semantic part points where the photo's features do in the directions that tell names apart; texts by InfoNCE,
    as before.

    features: the frozen teacher's, (N, F) of `photos` and of `val`.
    """

    name = "space"
    lower_is_better = ()
    seen_weight, min_scale = 4.0, 0.7

    def __init__(
        self, photos: Photos, val: Photos, features: tuple[Tensor, Tensor], config: SpaceConfig, seed: int = 0
    ) -> None:
        super().__init__(photos, val, config, seed)
        space, self.config = self.module.space, config
        axes = discriminants(features[0], self.synset_ids, config.semantic_dim)
        self.seen, self.val_seen = (F.normalize(axes(part), dim=1) for part in features)
        weight, bias = colour_axes(
            to_pixels(photos.pixels[:: max(1, len(photos) // 4096)]), config.layout_cells, len(space.layout.bias)
        )
        space.layout.requires_grad_(False)
        space.layout.weight.copy_(weight)
        space.layout.bias.copy_(bias)
        self.module.head = nn.Identity()  # nothing has to be rebuilt from a layout that is fixed
        self.val_synsets = self._synsets_of(val)

    def _synsets_of(self, photos: Photos) -> Tensor:
        known = {meta["synset"]: int(k) for meta, k in zip(self.photos.meta, self.synset_ids, strict=True)}
        return torch.tensor([known.get(meta["synset"], -1) for meta in photos.meta])

    def batch(self, size: int, generator: torch.Generator) -> dict[str, Tensor]:
        batch = super().batch(size, generator)
        return batch | {"seen": self.seen[batch["picks"]]}

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        space = self.module.space
        pixels = random_crops(to_pixels(batch["images"]), generator, self.min_scale)
        semantic, layout = space.image_parts(pixels)
        contrast = infonce(
            torch.cat((semantic, layout), dim=-1),
            space.encode_text(batch["ids"], batch["mask"]),
            scale=space.logit_scale.exp(),
            positives=batch["positives"],
        )
        apart = 1 - F.cosine_similarity(semantic.float(), batch["seen"], dim=-1).mean()
        return contrast + self.seen_weight * apart, {"contrast": contrast.item(), "apart": apart.item()}

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Concepts named by their text, synsets by the nearest mean of the training photos' targets; cosine to val's
        own targets.
        """
        space, device = module.space, module.space.logit_scale.device
        text = self.concept_points(space, device).cpu()
        parts = self.val.pixels.split(256)
        embeds = torch.cat([space.encode_image(to_pixels(part).to(device)).cpu() for part in parts])
        truth = torch.tensor([self.concepts.index(m["concept"]) if m.get("concept") else -1 for m in self.val.meta])
        named = ((embeds @ text.T).argmax(1) == truth)[truth >= 0].float().mean().item()
        semantic = F.normalize(embeds[:, : self.config.semantic_dim], dim=1)
        means = torch.stack([self.seen[self.synset_ids == k].mean(0) for k in self.synset_ids.unique()])
        hits = (semantic @ F.normalize(means, dim=1).T).argmax(1) == self.val_synsets
        return {
            "concept_top1": named,
            "synset_top1": hits.float().mean().item(),
            "seen_cosine": F.cosine_similarity(semantic, self.val_seen, dim=1).mean().item(),
        }

    def preview(self, module: nn.Module, path: Path) -> None:
        """Nothing is rebuilt, so there is nothing to show."""
