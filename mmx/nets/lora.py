"""Low-rank corrections to a frozen network that is kept elsewhere (LoRA, Hu et al. 2022): the only weights of
it that are trained and saved.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from mmx.nets.sound import VectorHead

QUERIES_AND_VALUES = (
    "q_proj",
    "v_proj",
    "query",
    "value",
)  # the layers that the paper adapts, as transformers calls them


def adaptable(network: nn.Module) -> dict[str, list[int]]:
    """The attention layers of a network that can be adapted: name → [inputs, outputs]."""
    return {
        name: [module.in_features, module.out_features]
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and name.split(".")[-1] in QUERIES_AND_VALUES
    }


class Adapters(nn.Module):
    """Weight → weight + scale * up @ down, of each of some linear layers. At first they change nothing."""

    def __init__(self, rank: int, layers: dict[str, list[int]], alpha: float = 16.0) -> None:
        super().__init__()
        self.scale, self.names = alpha / rank, {self._key(name): name for name in layers}
        self.down = nn.ParameterDict(
            {self._key(name): torch.randn(rank, inputs) / inputs**0.5 for name, (inputs, _) in layers.items()}
        )
        self.up = nn.ParameterDict(
            {self._key(name): torch.zeros(outputs, rank) for name, (_, outputs) in layers.items()}
        )

    @staticmethod
    def _key(name: str) -> str:
        return name.replace(".", "/")  # a parameter's name may hold no dot

    def attach(self, network: nn.Module) -> None:
        """Correct the layers of `network` from now on. Raises KeyError where it lacks one of them."""
        modules = dict(network.named_modules())
        for key, name in self.names.items():
            # where the weight is read, and not where the layer is called: some networks (WavLM) never call it
            # not tried out now: these factors may be on another device yet than the network
            register_parametrization(modules[name], "weight", _Corrected(self, key), unsafe=True)


class _Corrected(nn.Module):
    """A weight (O, I) → the same with a low-rank correction, whose factors belong to an `Adapters`."""

    def __init__(self, adapters: Adapters, key: str) -> None:
        super().__init__()
        object.__setattr__(self, "adapters", adapters)
        self.key = key

    def forward(self, weight: Tensor) -> Tensor:
        down, up = self.adapters.down[self.key], self.adapters.up[self.key]
        return weight + self.adapters.scale * (up @ down).to(weight.dtype)


class AdaptedEncoder(nn.Module):
    """Waveforms (B, T) through a frozen encoder with adapters, then a head → embeddings (B, D).

    `attach` comes before the first call.
    """

    def __init__(self, dim: int, inputs: int, rank: int, layers: dict[str, list[int]], dropout: float = 0.2) -> None:
        super().__init__()
        self.adapters = Adapters(rank, layers)
        self.head = VectorHead(dim, inputs, dropout=dropout)

    def attach(self, listener: Any) -> None:
        """Put the adapters on a `Listener`'s model. It is no part of this module: neither saved nor trained."""
        self.adapters.attach(listener.hearing)
        object.__setattr__(self, "listener", listener)

    def forward(self, waves: Tensor) -> Tensor:
        return self.head(self.listener.embed(waves))
