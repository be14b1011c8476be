"""Weights averaged over the steps."""

from __future__ import annotations

import torch
from torch import nn


class Average:
    """Exponential moving average of a module's weights; buffers (batch norm statistics) are copied."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))  # the start is forgotten quickly
        parameters = dict(module.named_parameters())
        averaged = [name for name in self.tensors if name in parameters]
        torch._foreach_lerp_([self.tensors[n] for n in averaged], [parameters[n].detach() for n in averaged], 1 - decay)
        for name, value in module.state_dict().items():
            if name not in parameters:
                self.tensors[name].copy_(value)


class swapped:
    """Inside, `module` holds the averaged weights and is in eval mode."""

    def __init__(self, module: nn.Module, average: Average) -> None:
        self.module, self.average = module, average

    def __enter__(self) -> nn.Module:
        self.own = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        self.module.load_state_dict(self.average.tensors)
        return self.module.eval()

    def __exit__(self, *_: object) -> None:
        self.module.load_state_dict(self.own)
        self.module.train()
