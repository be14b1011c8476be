"""A device beside the CPU, in plain torch: what a GPU is to code that moves tensors, on a machine that has none.

Its tensors hold real values and say that they are on "standin:0". Whatever meets a tensor of the CPU there raises, as
on a GPU; so does `numpy()`, and drawing with a CPU generator. Modules move there and back, gradients flow, optimisers
step. Autocast changes nothing.

    def test_x(second_device, ...):          # the fixture, which also makes --device standin a choice
        mmx_in_process("sound2img", ..., "--device", second_device)
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._pytree import tree_flatten, tree_map

NAME = "standin"
aten = torch.ops.aten
# of these, tensors of two devices may meet: copies, and indexing by positions that are on the CPU
COPIES = (aten.copy_.default, aten._copy_from.default, aten._copy_from_and_resize.default)
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)

# `torch.tensor(values, device=...)` reads and copies below Python's own dispatch, where a fallback is not found
BELOW = (
    *(aten.copy_.default, aten._to_copy.default, aten._local_scalar_dense.default),
    *(aten.detach.default, aten.lift_fresh.default, aten.alias.default),
)
# left alone, these make an empty tensor and let the CPU enlarge it, of which its stand-in would not hear
GROWING = (
    *(aten.arange.default, aten.arange.start, aten.arange.start_step, aten.linspace.default, aten.logspace.default),
    *(aten.eye.default, aten.eye.m, aten.randperm.default, aten.randperm.generator),
    *(aten.hann_window.default, aten.hann_window.periodic),
)


class StandIn(Tensor):
    """A tensor of the device; `held` is its value, a tensor of the CPU that shares memory as its views do."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> StandIn:
        about = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        own = Tensor._make_wrapper_subclass(cls, held.size(), device=torch.device(NAME, 0), **about)
        own.held = held
        return own

    def __repr__(self) -> str:
        return f"StandIn({self.held!r})"

    def tolist(self) -> Any:
        return self.held.tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if op is aten._has_compatible_shallow_copy_type.default:
            return False  # a module that moves gets new parameters
        if op._can_decompose():  # in inference mode operators come here whole
            return op.decompose(*args, **kwargs)
        return _call(op, *args, **kwargs)


def _call(op: Any, *args: Any, **kwargs: Any) -> Any:
    """One operator: on the CPU, with what the stand-ins hold; what comes out is on the device that was asked for, or
    that of what went in.
    """
    given = tree_flatten((args, kwargs))[0]
    there = [x for x in given if isinstance(x, StandIn)]
    asked = kwargs.get("device")
    on_device = bool(there) if asked is None else torch.device(asked).type == NAME
    _refuse_two_devices(op, args, given, there, on_device)
    held_args, held_kwargs = tree_map(lambda x: x.held if isinstance(x, StandIn) else x, (args, kwargs))
    if asked is not None:
        held_kwargs["device"] = torch.device("cpu")
    if op is aten.view.default and not held_args[0].is_contiguous():
        op = aten.reshape.default  # the CPU's layout of a result may differ from what the device's would be
    result = op(*held_args, **held_kwargs)
    if op in COPIES:
        return args[0]
    if not on_device:
        return result
    return tree_map(lambda x: _raised(x, there) if isinstance(x, Tensor) else x, result)


def _raised(result: Tensor, there: list[StandIn]) -> StandIn:
    """A result of the CPU as one of the device: an input, where the operator worked in place; an inference tensor where
    torch has one.
    """
    place = result.untyped_storage().data_ptr()
    for x in there:
        if x.held is result:
            return x
        if not x.is_inference() and x.held.untyped_storage().data_ptr() == place:
            with torch.inference_mode(False):  # a view of what is none is none, either
                return StandIn(result)
    return StandIn(result)


def _refuse_two_devices(op: Any, args: tuple, given: list, there: list[StandIn], on_device: bool) -> None:
    here = [x for x in given if isinstance(x, Tensor) and not isinstance(x, StandIn) and x.dim() > 0]
    positions = op in INDEXED and isinstance(args[0], StandIn)
    if there and here and op not in COPIES and not positions:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {NAME}:0 and cpu ({op})")
    if on_device and any(isinstance(x, torch.Generator) for x in given):
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu' ({op})")


class _Backend(backend_registration._DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


@cache
def register() -> list[torch.library.Library]:
    """Make the device known to torch, once a process; what is returned must stay alive."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, _Backend())
    everything, some = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    everything.fallback(_call, "PrivateUse1")
    everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    for op in BELOW + GROWING:
        some.impl(op, lambda *args, _op=op, **kwargs: _call(_op, *args, **kwargs), "PrivateUse1")
    return [everything, some]
