"""Where to compute, in what, and with how many threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from mmx.errors import UsageError
from mmx.launch import launched

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# kinds of device, the best first, and whether this machine has one
KINDS: dict[str, Callable[[], bool]] = {
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
    "cpu": lambda: True,
}
SMALL = 32_000_000  # weights times items: less work than this is done before several threads have met


def bf16_pays(device: str) -> bool:
    """Whether bfloat16 is faster than float32 there.

    On CPUs without instructions for it (AVX2: most laptops) it is 9 to 17 times slower.
    """
    return device.split(":")[0] != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def autocast(device: str | torch.device, wanted: bool = True) -> torch.autocast:
    """Mixed precision in bfloat16 where it is wanted and pays; elsewhere everything stays float32."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=wanted and bf16_pays(kind))


def device_of(module: torch.nn.Module) -> torch.device:
    """Where a module's weights are."""
    return next(module.parameters()).device


def pick_device(device: str) -> str:
    """ "auto" → the best device here. Raises UsageError for one that is not here."""
    if device == "auto":
        best = next(kind for kind, here in KINDS.items() if here())
        return f"cuda:{launched().local}" if best == "cuda" and launched().world > 1 else best
    kind = device.split(":")[0]
    if kind not in KINDS:
        raise UsageError(f"--device {device}: no such kind of device", hint="auto, cpu, cuda, cuda:N or mps")
    if not KINDS[kind]():
        raise UsageError(
            f"--device {device}: this torch sees no such device here", hint="--device auto takes what there is"
        )
    return device


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Compute with this many threads: sums of other parts differ in their last bits. None: with as many as now."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def threads_for(*networks: torch.nn.Module, items: int = 1) -> Iterator[None]:
    """Inside, one thread computes where networks do little on the CPU; for large ones there are as many as ever.

    Their results then are the same however many cores a machine has: other threads sum in another order.
    """
    weights = [weight for network in networks for weight in network.parameters()]
    little = items * sum(weight.numel() for weight in weights) < SMALL and all(w.device.type == "cpu" for w in weights)
    with threads(1 if little else None):
        yield


# a forked child has none of its parent's threads, and would wait for them for ever
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


@dataclass(frozen=True)
class Placed:
    """Where a model computes, in what, and why so. name: a key of DTYPES."""

    device: str
    name: str = "fp32"
    reason: str = ""

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.name]


def placed(device: str, dtype: str) -> Placed:
    """What --device and --dtype come to here. Raises UsageError."""
    if dtype not in ("auto", *DTYPES):
        raise UsageError(f"--dtype {dtype}: no such type", hint="auto, fp32, bf16 or fp16")
    where = pick_device(device)
    why_device = "as asked" if device != "auto" else "no GPU is here" if where == "cpu" else "the GPU that is here"
    if dtype != "auto":
        return Placed(where, dtype, f"{why_device}; --dtype {dtype}")
    if where == "cpu":
        return Placed(where, "fp32", f"{why_device}; exact on CPUs")
    return Placed(where, "fp16", f"{why_device}; half the memory")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; cuBLAS and MPS have no class of their own for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "out of memory" in str(error)


def machine() -> dict[str, Any]:
    """What the last bits of results depend on here, as provenance keeps it: threads, and the instructions that the
    CPU's kernels are made of."""
    return {"threads": torch.get_num_threads(), "cpu": torch.backends.cpu.get_cpu_capability()}
