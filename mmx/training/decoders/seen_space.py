"""The joint space of a decoder that a GAN draws for: its semantic part learned from what EfficientNet sees, its layout
part fixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.data.photos import Photos
from mmx.training.decoders.axes import colour_axes, discriminants, principal
from mmx.training.decoders.mixed import mixed
from mmx.training.decoders.space import SpaceConfig, SpaceTask, to_pixels
from mmx.training.teachers.efficientnet import EfficientNet
from mmx.training.teachers.features import SIDE, glimpsed

SEEN_SPACE = SpaceConfig(dim=96, semantic_dim=64, semantic_share=0.7, layout_cells=4, sees=96)


@dataclass
class Example:
    """Who shows what there is to see: the frozen network, which looks at `side` pixels, and its features (N, F) of the
    photos of both splits.

    known: of a space to go on from, the semantic part (N, K) of the training photos.
    """

    net: EfficientNet
    features: tuple[Tensor, Tensor]
    known: Tensor | None = None
    side: int = SIDE


class SeenSpaceTask(SpaceTask):
    """The semantic part points where the features of the very same pixels do in the directions that tell names apart.

    The two look at photos that are cut and mixed anew each time (function matching: Beyer et al. 2022, "Knowledge
    distillation: a good teacher is patient and consistent"), and of what the frozen network sees beside names a head
    that is thrown away must tell the principal directions. Texts come to what is seen by InfoNCE.
    """

    name = "space"
    lower_is_better = ()
    seen_weight, rest_weight, rest_dim, surest = 4.0, 2.0, 256, 2.0

    def __init__(self, photos: Photos, val: Photos, example: Example, config: SpaceConfig, seed: int = 0) -> None:
        super().__init__(photos, val, config, seed)
        space, self.config, self.example = self.module.space, config, example
        features = example.features
        axes = discriminants(features[0], self.synset_ids, config.semantic_dim)
        if example.known is not None:
            axes = axes.toward(features[0], example.known)
        self.axes, self.rest = axes, principal(features[0], min(self.rest_dim, features[0].shape[1]))
        self.usual = axes(features[0]).norm(dim=1).mean()
        self.seen, self.val_seen = (F.normalize(axes(part), dim=1) for part in features)
        weight, bias = colour_axes(
            to_pixels(photos.pixels[:: max(1, len(photos) // 4096)]), config.layout_cells, len(space.layout.bias)
        )
        space.layout.requires_grad_(False)
        space.layout.weight.copy_(weight)
        space.layout.bias.copy_(bias)
        # in place of the head that rebuilds the layout, which is fixed here: one that tells the principal directions
        self.module.head = nn.Linear(space.semantic.in_features, self.rest.matrix.shape[1])
        self.val_synsets = self._synsets_of(val)

    def _synsets_of(self, photos: Photos) -> Tensor:
        known = {meta["synset"]: int(k) for meta, k in zip(self.photos.meta, self.synset_ids, strict=True)}
        return torch.tensor([known.get(meta["synset"], -1) for meta in photos.meta])

    def shown(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, S, S) → what the frozen network sees there: the semantic part (B, K), longer where it is surer, and
        the principal directions.
        """
        features = glimpsed(self.example.net, pixels, self.example.side).float().cpu()
        return self.axes(features).to(pixels.device), self.rest(features).to(pixels.device)

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        space = self.module.space
        pixels = mixed(to_pixels(batch["images"]), generator)
        named, rest = self.shown(pixels)
        features = space.feature_maps(pixels)[-1].float()
        semantic, layout = space.parts_of(pixels, features)
        sure = (named.norm(dim=1) / self.usual).clamp(max=self.surest)
        apart = (sure * (1 - F.cosine_similarity(semantic.float(), named, dim=1))).mean()
        missed = 1 - F.cosine_similarity(self.module.head(features.mean((2, 3))).float(), rest, dim=1).mean()
        contrast = self._contrast(batch, torch.cat((semantic.detach(), layout), dim=-1))
        return (
            contrast + self.seen_weight * apart + self.rest_weight * missed,
            {"contrast": contrast.item(), "apart": apart.item(), "missed": missed.item()},
        )

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
