"""What makes several processes act as one: equal starts, averaged gradients, BatchNorm over the whole batch.

Each process holds the whole method and an equal slice of the global batch. A method calls its own optimisers,
several of them, in an order the loop does not know: DistributedDataParallel cannot wrap that, a hook on each can.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def broadcast(module: nn.Module) -> None:
    """Give every process the parameters and buffers of process 0."""
    for tensor in (*module.parameters(), *module.buffers()):
        dist.broadcast(tensor.detach(), src=0)


def average_gradients(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Average an optimiser's gradients over the processes (for `register_step_pre_hook`)."""
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if not parameters:
        return
    flat = torch.cat([p.grad.flatten() for p in parameters])  # one message instead of one for each parameter
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for parameter, mean in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad.copy_(mean.view_as(parameter))


class _Sum(torch.autograd.Function):
    """Sum over the processes; so is the gradient, for what one process puts in reaches the losses of all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)


class CrossProcessBatchNorm(_BatchNorm):
    """BatchNorm whose mean and variance are taken over the equal slices of all processes, on any device.

    torch.nn.SyncBatchNorm is the same for GPUs only. Shapes (B, C, ...) as in BatchNorm1d and BatchNorm2d.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected input of shape (B, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized():
            return super().forward(input)
        self._check_input_dim(input)
        processes = dist.get_world_size()
        dims = [0, *range(2, input.dim())]
        shape = [1, -1] + [1] * (input.dim() - 2)

        x = input.float()
        mean = _Sum.apply(x.mean(dims)) / processes  # (C,)
        centred = x - mean.view(shape)
        # Mean first, then variance: one message more than E[x^2] - E[x]^2, and no cancellation.
        variance = _Sum.apply(centred.square().mean(dims)) / processes
        count = processes * input.numel() // input.shape[1]
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach() * count / (count - 1))

        y = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        self.num_batches_tracked += 1
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
        self.running_var.lerp_(unbiased_variance.to(self.running_var.dtype), rate)


def convert_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Replace every BatchNorm by a cross-process one with the same Parameters (so optimisers stay valid)."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    if isinstance(module, _BatchNorm) and not isinstance(module, CrossProcessBatchNorm):
        converted = CrossProcessBatchNorm(
            module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats
        )
        converted._parameters.update(module._parameters)
        converted._buffers.update(module._buffers)
        return converted.train(module.training)
    for name, child in module.named_children():
        module.add_module(name, convert_batch_norm(child, device))
    return module
