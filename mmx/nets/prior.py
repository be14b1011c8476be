"""A diffusion prior over embeddings: what the source leaves open is sampled here."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from mmx.device import threads_for


def alpha_bar(t: Tensor) -> Tensor:
    """Signal power at time t in [0, 1]: the cosine schedule (Nichol & Dhariwal 2021, eq. 17)."""
    return torch.cos((t + 0.008) / 1.008 * math.pi / 2).pow(2).clamp(1e-5, 0.99999)


def time_features(t: Tensor, dim: int) -> Tensor:
    """t (B,) in [0, 1] → sinusoidal features (B, dim)."""
    frequencies = torch.exp(torch.linspace(0, math.log(1000), dim // 2, device=t.device))
    angles = t[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


class EmbeddingPrior(nn.Module):
    """p(target embedding | condition), as DALL-E 2's diffusion prior (Ramesh et al. 2022), as a residual MLP.

    Works on standardised embeddings; `mean` and `std` (D,) are those of the targets. Predicts v (Salimans & Ho 2022).
    Conditions are unit-norm vectors (B, C) of the joint space: sounds and texts alike. A learned vector stands for
    "no condition", for classifier-free guidance.
    """

    def __init__(self, dim: int, condition_dim: int, width: int = 512, depth: int = 6, dropout: float = 0.1) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.nothing = nn.Parameter(torch.zeros(condition_dim))
        self.inputs = nn.Linear(dim, width)
        self.context = nn.Sequential(
            nn.Linear(condition_dim + width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )
        self.modulate = nn.Linear(
            width, 3 * width
        )  # shared by all blocks (PixArt's adaLN-single), plus an offset a block
        self.offsets = nn.Parameter(torch.zeros(depth, 3 * width))
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(depth))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(2 * width, width))
            for _ in range(depth)
        )
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def velocity(self, noisy: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Noisy standardised embedding (B, D), time (B,), condition (B, C) → v (B, D)."""
        scaled = condition * math.sqrt(condition.shape[-1])
        context = self.context(torch.cat((scaled, time_features(t, self.width)), dim=-1))
        shared = self.modulate(context)
        x = self.inputs(noisy)
        for norm, block, offset in zip(self.norms, self.blocks, self.offsets, strict=True):
            shift, scale, gate = (shared + offset).chunk(3, dim=-1)
            x = x + (1 + gate) * block(norm(x) * (1 + scale) + shift)
        return self.out(x)

    def loss(self, targets: Tensor, conditions: Tensor, generator: torch.Generator, drop: float = 0.1) -> Tensor:
        """Mean squared error of v at random times. targets: raw embeddings (B, D); conditions: unit-norm (B, C)."""
        count, device = len(targets), targets.device
        clean = (targets - self.mean) / self.std
        noise = torch.randn(targets.shape, generator=generator).to(device)
        t = ((torch.arange(count) + torch.rand(count, generator=generator)) / count).to(device)
        dropped = (torch.rand(count, 1, generator=generator) < drop).to(device)
        signal = alpha_bar(t)[:, None]
        noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
        wanted = signal.sqrt() * noise - (1 - signal).sqrt() * clean
        guess = self.velocity(noisy, t, torch.where(dropped, self.nothing, conditions))
        return (guess.float() - wanted).pow(2).mean()

    def sample(
        self,
        condition: Tensor,
        generator: torch.Generator,
        *,
        steps: int = 32,
        guidance: float = 2.0,
        temperature: float = 1.0,
    ) -> Tensor:
        """One raw embedding (D,) for one condition (C,): DDIM (Song et al. 2021) with classifier-free guidance.

        temperature: scale of the noise it starts from; below 1 the draws are more typical and less different.
        """
        with threads_for(self):
            return self._sample(condition, generator, steps, guidance=guidance, temperature=temperature)

    def _sample(
        self, condition: Tensor, generator: torch.Generator, steps: int, *, guidance: float, temperature: float
    ) -> Tensor:
        both = torch.stack((condition, self.nothing))
        x = temperature * torch.randn(self.mean.shape, generator=generator).to(condition.device)
        times = torch.linspace(1, 0, steps + 1, device=condition.device)
        for now, then in pairwise(times):
            signal, later = alpha_bar(now), alpha_bar(then)
            with_it, without = self.velocity(x.expand(2, -1), now.expand(2), both)
            v = without + guidance * (with_it - without)
            clean = signal.sqrt() * x - (1 - signal).sqrt() * v
            noise = signal.sqrt() * v + (1 - signal).sqrt() * x
            x = later.sqrt() * clean + (1 - later).sqrt() * noise
        return clean * self.std + self.mean
