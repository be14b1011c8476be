"""Weights to start from, of a model that need not be of quite the same build."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def take_fitting(module: nn.Module, known: Mapping[str, Tensor]) -> int:
    """Copy what fits: tensors of the same name and shape. Returns how many there were."""
    own = module.state_dict()
    fitting = {name: value for name, value in known.items() if name in own and value.shape == own[name].shape}
    module.load_state_dict(own | fitting)
    return len(fitting)
