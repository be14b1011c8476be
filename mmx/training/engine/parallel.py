"""Several processes that train as one: `accelerate launch` or `torchrun` starts them, this joins them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmx.launch import launched

T = TypeVar("T")
CHUNK = 1 << 19  # numbers


def _of_all(x: Tensor) -> Tensor:
    """(...) of each process → (world, ...) in all of them; for a few numbers quicker than a sum of all."""
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x)
    return torch.stack(parts)


class _JoinedBatchNorm(torch.autograd.Function):
    """Batch normalisation over the items of all processes, one message each way; torch's fused kernels do the rest."""

    @staticmethod
    def forward(context, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, C, H, W) → normalised (B, C, H, W), mean (C,), biased variance (C,)."""
        count = x.numel() // x.shape[1]
        own = weight.new_zeros(2, x.shape[1])
        torch.batch_norm_update_stats(x, own[0], own[1], 1.0)  # mean and unbiased variance
        means, variances = _of_all(own).unbind(1)
        # by the means' own spread (Chan et al. 1983): a difference of mean squares would lose digits
        mean = means.mean(0)
        var = variances.mean(0) * ((count - 1) / count) + (means - mean).square().mean(0)
        context.save_for_backward(x, weight, mean, var)
        context.eps = eps
        context.mark_non_differentiable(mean, var)
        return torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, eps)[0], mean, var

    @staticmethod
    def backward(context, gradient: Tensor, *_nothing: None) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, var = context.saved_tensors
        inverse = (var + context.eps).rsqrt()
        _, along, total = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, var, mean, inverse, True, context.eps, [False, True, True]
        )
        share = _of_all(torch.stack((along, total))).sum(0) / (x.numel() // x.shape[1] * dist.get_world_size())
        # w/s (dy - mean(dy) - x^ mean(dy x^)), as in Ioffe and Szegedy (2015): an affine map of x, and one of dy
        scale = weight * inverse
        # written out over an item in its own order: C numbers are too short a run for a vector unit
        factor = torch.empty_like(gradient[:1]).copy_(scale[:, None, None])
        result = torch.empty_like(gradient)
        # a few items at a time: what is between stays in the core's own cache, and memory is what this waits for
        step = max(1, CHUNK // gradient[0].numel())
        for part in (slice(k, k + step) for k in range(0, len(x), step)):
            affine = torch.native_batch_norm(
                x[part], -scale * share[0], -scale * share[1], mean, var, False, 0.0, context.eps
            )[0]
            torch.addcmul(affine, gradient[part], factor, out=result[part])
        return result, along, total, None


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
        self.world = launched().world
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

    def share(self, value: T) -> list[T]:
        """Every process's value, by rank, once all are here."""
        if self.world == 1:
            return [value]
        values: list = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def gather(self, x: Tensor) -> Tensor:
        """(B, ...) of each process → (world * B, ...) in all of them, in order; gradients flow back to where they
        belong.
        """
        if self.world == 1:
            return x
        return _Gather.apply(x.contiguous())

    def from_leader(self, tensors: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
        """The leader's tensors in all processes; they are none, or named and shaped as `like`."""
        if self.world == 1:
            return tensors
        some = torch.tensor([float(bool(tensors))], device=self.device)
        dist.broadcast(some, 0)
        if not some:
            return {}
        found = {name: tensors[name] if self.leads else torch.empty_like(value) for name, value in like.items()}
        for value in found.values():
            dist.broadcast(value, 0)
        return found

    def mean_gradients(self, parameters: Iterable[nn.Parameter], flags: Tensor) -> Tensor:
        """Average the gradients of all processes in place, in one message; returns the sum of everyone's
        `flags` (K,).
        """
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
    """Batch normalisation over the items of all processes on CPUs (torch's own SyncBatchNorm knows GPUs only)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        count = x.numel() // x.shape[1] * dist.get_world_size()
        normal, mean, var = _JoinedBatchNorm.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (count / (count - 1)), self.momentum)
            self.num_batches_tracked += 1
        return normal


def join_batch_norms(module: nn.Module, team: Team) -> None:
    """Let every batch normalisation of a module see all processes' items."""
    if team.world == 1:
        return
    if torch.device(team.device).type != "cpu":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = JoinedBatchNorm2d
