"""Whether voices that are alike become faces that are alike, by a speaker encoder that others trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmx.media.audio import Waveform
from mmx.training.teachers.ge2e import SpeakerEncoder


def agreement(first: Tensor, second: Tensor, pairs: Tensor) -> float:
    """Spearman's rank correlation of two likenesses (N, N) over some pairs (N, N) bool."""
    from scipy.stats import spearmanr

    return float(spearmanr(first[pairs].numpy(), second[pairs].numpy()).statistic)


def voice_likeness(
    encoder: SpeakerEncoder, voices: Sequence[Waveform], made: dict[str, Tensor], truth: Tensor, seed: int = 0
) -> dict[str, dict[str, float]]:
    """How the cosines of what was made of voices are ordered beside those of the speaker encoder's: of all pairs of
    speakers, and of those of one gender.

    made: row → unit vectors (N, D), one a voice; truth (N,). The oracle compares first halves as second halves are.
    """
    whole = torch.stack([encoder.embed(wave) for wave in voices])
    cut = [len(wave.samples) // 2 for wave in voices]
    halves = [
        torch.stack([encoder.embed(Waveform(part, wave.sample_rate)) for part, wave in zip(parts, voices, strict=True)])
        for parts in (
            [wave.samples[:at] for wave, at in zip(voices, cut, strict=True)],
            [wave.samples[at:] for wave, at in zip(voices, cut, strict=True)],
        )
    ]
    upper = torch.ones(len(voices), len(voices), dtype=torch.bool).triu(1)
    same = upper & (truth[:, None] == truth[None, :])
    order = torch.randperm(len(voices), generator=torch.Generator().manual_seed(seed))
    shuffled = next(iter(made.values()))[order]
    rows = {name: (whole @ whole.T, points @ points.T) for name, points in made.items()}
    rows |= {
        "oracle: halves of the voices": (halves[0] @ halves[0].T, halves[1] @ halves[1].T),
        "random: another voice's": (whole @ whole.T, shuffled @ shuffled.T),
    }
    return {name: {"all": agreement(a, b, upper), "one_gender": agreement(a, b, same)} for name, (a, b) in rows.items()}
