"""What is measured of a bridge while it trains: retrieval on val, beside an oracle and chance; and of its targets."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmx.bridges.points import PointBridge
from mmx.data.pairs import Pairs, Rows

VAL = 1000  # pairs that retrieval is measured on, at most
STATISTICS = 16_384  # targets that mean and std are taken of
LOWER_IS_BETTER = ("val_mean_rank", "val_alignment", "val_uniformity")  # of what `retrieval` measures


def measured_spec(decoder: Any, pairs: Pairs) -> dict[str, Any]:
    """A decoder's spec; the mean norm of full-size decoders' targets, which their folders do not tell, is measured."""
    spec = decoder.spec.as_dict()
    if decoder.spec.mean_norm == 1.0:
        some = torch.stack([pairs.targets.get(i)[0].float() for i in spread(len(pairs.targets), VAL).tolist()])
        spec["mean_norm"] = round(some.norm(dim=1).mean().item(), 4)
    return spec


def target_statistics(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (D,) of the targets, of a sample where there are many."""
    some = torch.stack([pairs.targets.get(i)[0].float() for i in spread(len(pairs.targets), STATISTICS).tolist()])
    return some.mean(0), some.std(0) + 1e-6


def spread(count: int, limit: int, seed: int = 0) -> Tensor:
    """At most `limit` of `count` positions, drawn without order, the same each time."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:limit].sort().values


@torch.no_grad()
def retrieval(points: Tensor, targets: Tensor, own: Tensor, others: Tensor) -> dict[str, float]:
    """How well sources find targets that belong to them, and targets sources.

    points (N, D), targets (M, D), any norm; own (N,), others (M,): labels. Recall at 1, 5 and 10 both ways, the mean
    rank of the first right target (1 is best), alignment and uniformity (Wang and Isola 2020), and what guessing gives.
    """
    x, y = F.normalize(points.float(), dim=-1), F.normalize(targets.float(), dim=-1)
    right = own[:, None] == others[None, :]
    scores = x @ y.T
    found = {}
    for way, order, hit in (("", scores, right), ("back_", scores.T, right.T)):
        ranked = hit.gather(1, order.argsort(1, descending=True))
        for k in (1, 5, 10):
            found[f"val_{way}recall_at_{k}"] = ranked[:, :k].any(1).float().mean().item()
        if not way:
            found["val_mean_rank"] = (ranked.int().argmax(1) + 1).float().mean().item()
    found["val_alignment"] = (2 - 2 * scores[right]).mean().item()
    apart = torch.pdist(x[:512]).square()
    found["val_uniformity"] = torch.exp(-2 * apart).mean().log().item() if len(apart) else 0.0
    found["val_chance"] = right.float().mean().item()
    return found


@torch.no_grad()
def oracle_recall(pairs: Pairs, picks: Tensor) -> float:
    """Recall at 1 when each target is sought by the same target mirrored: what a perfect bridge might reach."""
    both = torch.stack([pairs.targets.get(i).float() for i in picks.tolist()])
    return retrieval(both[:, -1], both[:, 0], pairs.targets.labels[picks], pairs.targets.labels[picks])[
        "val_recall_at_1"
    ]


@torch.no_grad()
def points_of(bridge: PointBridge, sources: Rows, picks: Tensor, batch: int = 16) -> Tensor:
    """Unit points (N, D) of some sources, on the CPU."""
    device = next(bridge.parameters()).device
    return torch.cat(
        [
            bridge(torch.stack([bridge.frontend.windows(sources.get(i)) for i in part.tolist()]).to(device))
            .float()
            .cpu()
            for part in picks.split(batch)
        ]
    )


def validate_points(val: Pairs | None, bridge: PointBridge, label_texts: Tensor | None) -> dict[str, float]:
    """Retrieval both ways on val; where labels have texts, how often a sound's own is the nearest; oracle and
    chance."""
    if val is None:
        return {}
    picks = spread(len(val.sources), VAL)
    points, labels = points_of(bridge, val.sources, picks), val.sources.labels[picks]
    theirs = picks if val.direct else spread(len(val.targets), VAL)
    targets = torch.stack([val.targets.get(i)[0].float() for i in theirs.tolist()])
    found = retrieval(points, targets, labels, val.targets.labels[theirs])
    found["val_oracle_recall_at_1"] = oracle_recall(val, theirs)
    if label_texts is not None:
        guesses = (points @ label_texts.T).argmax(1)
        found["val_top1"] = (
            torch.stack([(guesses[labels == k] == k).float().mean() for k in labels.unique()]).mean().item()
        )
        found["val_top1_chance"] = 1 / len(label_texts)
    return found
