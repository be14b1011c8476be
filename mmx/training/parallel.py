"""Several processes that train as one: `accelerate launch` starts them, this joins them."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


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


class _JoinedNorm(torch.autograd.Function):
    """Batch normalisation by the statistics of all processes' items: one small message forward and one back."""

    @staticmethod
    def forward(context, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        count = x.numel() / x.shape[1] * dist.get_world_size()
        sums = torch.stack(
            (
                x.sum((0, 2, 3), dtype=torch.float32),
                torch.linalg.vector_norm(x, 2, (0, 2, 3), dtype=torch.float32).square(),
            )
        )
        dist.all_reduce(sums)
        mean = sums[0] / count
        var = (sums[1] / count - mean.square()).clamp(min=0)
        context.save_for_backward(x, weight, mean, (var + eps).rsqrt())
        context.count = count
        context.mark_non_differentiable(mean, var)
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps), mean, var

    @staticmethod
    def backward(context, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, scale = context.saved_tensors
        plain = gradient.sum((0, 2, 3), dtype=torch.float32)
        along = ((gradient * x).sum((0, 2, 3), dtype=torch.float32) - mean * plain) * scale
        sums = torch.stack((plain, along))
        dist.all_reduce(sums)
        # dx = w s (dy - mean(dy) - x^ mean(dy x^)), as a dy + b x + c with a number a channel (Ioffe & Szegedy 2015)
        a = weight * scale
        b = -a * scale * sums[1] / context.count
        c = -a * sums[0] / context.count - b * mean
        a, b, c = (value.to(x.dtype)[:, None, None] for value in (a, b, c))
        return torch.addcmul(torch.addcmul(c, gradient, a), x, b), along, plain, None


class JoinedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the items of all processes (torch's own SyncBatchNorm knows GPUs only)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        y, mean, var = _JoinedNorm.apply(x, self.weight, self.bias, self.eps)
        count = x.numel() / x.shape[1] * dist.get_world_size()
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        return y


def join_batch_norms(module: nn.Module, team: Team) -> None:
    """Let every batch normalisation of a module see all processes' items."""
    if team.world > 1:
        for child in module.modules():
            if type(child) is nn.BatchNorm2d:
                child.__class__ = JoinedBatchNorm2d
