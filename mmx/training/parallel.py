"""Several processes that train as one: `accelerate launch` starts them, this joins them."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


class _Sum(torch.autograd.Function):
    """The sum over all processes; every process's gradient reaches every term."""

    @staticmethod
    def forward(context, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


class _Gather(torch.autograd.Function):
    """All processes' items in order; gradients of all processes flow back to where an item came from."""

    @staticmethod
    def forward(context, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x)
        context.count = len(x)
        return torch.cat(parts)

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        start = dist.get_rank() * context.count
        return total[start : start + context.count]


class Team:
    """The processes of a run. Alone, everything here is the identity."""

    def __init__(self, device: str = "cpu") -> None:
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = 0
        self.device = device
        if self.world > 1:
            from accelerate import PartialState

            state = PartialState(cpu=device == "cpu")
            self.rank, self.world, self.device = state.process_index, state.num_processes, str(state.device)

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes files and talks."""
        return self.rank == 0

    def part(self, size: int) -> slice:
        """This process's items of a batch of `size` items a process."""
        return slice(self.rank * size, (self.rank + 1) * size)

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            dist.barrier()

    def gather(self, x: Tensor) -> Tensor:
        """(B, ...) of each process → (world * B, ...) in all of them, in order; gradients flow back to where they belong."""
        if self.world == 1:
            return x
        return _Gather.apply(x.contiguous())

    def mean_gradients(self, parameters: Iterable[nn.Parameter], flags: Tensor) -> Tensor:
        """Average the gradients of all processes in place, in one message; returns the sum of everyone's `flags` (K,)."""
        if self.world == 1:
            return flags
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([*(g.flatten().float() for g in grads), flags.to(grads[0].device)])
        dist.all_reduce(flat)
        start = 0
        for grad in grads:
            grad.copy_((flat[start : start + grad.numel()] / self.world).view_as(grad))
            start += grad.numel()
        return flat[start:].cpu()


class JoinedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the items of all processes (torch's own SyncBatchNorm knows GPUs only)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.float()
        count = x.numel() / x.shape[1] * dist.get_world_size()
        mean = _Sum.apply(wide.sum((0, 2, 3))) / count
        var = _Sum.apply((wide - mean[:, None, None]).square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight / (var + self.eps).sqrt()
        return (wide * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]).to(x.dtype)


def join_batch_norms(module: nn.Module, team: Team) -> None:
    """Let every batch normalisation of a module see all processes' items."""
    if team.world > 1:
        for child in module.modules():
            if type(child) is nn.BatchNorm2d:
                child.__class__ = JoinedBatchNorm2d
