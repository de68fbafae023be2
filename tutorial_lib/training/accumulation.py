"""One update of several networks from a batch that is computed in parts, for GPUs that the whole batch does not fit.

A method's training step makes several updates in a row, and each is meant to see what those before it have changed: the
generator learns from a discriminator that has just learned. Adding up all gradients of one part after the other would break
that. So the updates come one after the other, and for each of them all parts are gone through:

    update of D:  gradients of part 1, … of part k; their mean; D moves
    update of G:  the same, with the D that has moved; G moves

For that the training step is run anew for every part, up to the update in question; those before it are not made again, those
after it not reached. Each part draws the same random numbers every time. What it costs is time: all that comes before an
update is computed once more for it.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from tutorial_lib.data.batched import typed
from tutorial_lib.layers import random_state_kept


class _Reached(BaseException):
    """Ends a training step at the update whose gradients were wanted; no method may take it for an error of its own."""


class Accumulation:
    """`accumulation(batch)` is `method.training_step(batch)` computed in `parts` equal parts; returns the mean losses.

    The step of the whole batch where losses are means over pictures. But BatchNorm normalises each part by itself; the mean of
    FineGAN's D_b is over the cells that remain of a part, GM-VAE's over what is labelled in it; running statistics, like all
    buffers, are left as the last part leaves them; and random numbers are others than the whole batch's.
    Losses are told as they are when the last update is computed: those of earlier updates have these in them already.
    """

    def __init__(self, method: nn.Module, parts: int, updates: int = 0):
        self.method, self.parts = method, parts
        self.updates = updates  # in the last step; the next one probably has as many

    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        method, parts = self.method, split(batch, self.parts)
        device = next(method.parameters()).device
        buffers = {name: buffer.clone() for name, buffer in method.named_buffers()}
        seeds = torch.randint(2**62, (self.parts,)).tolist()
        update, done = 0, []
        with random_state_kept(device):
            while not done:
                gradients = _Gradients(method, update, self.updates)
                with gradients:
                    for part, seed in zip(parts, seeds, strict=True):
                        for name, buffer in method.named_buffers():
                            buffer.copy_(buffers[name])
                        torch.manual_seed(seed)
                        gradients.start_part()
                        try:
                            done.append(method.training_step(part))
                        except _Reached:
                            continue
                gradients.step(self.parts)
                update += gradients.optimizer is not None
        self.updates = update
        return {name: torch.stack([losses[name].float() for losses in done]).mean() for name in done[0]}


def split(batch: dict[str, Tensor], parts: int) -> list[dict[str, Tensor]]:
    """A batch as `parts` batches. Raises ValueError if its tensors cannot be divided so."""

    def part(name: str, value: Tensor, i: int) -> Tensor:
        each, rest = divmod(len(value), parts)
        if rest:
            raise ValueError(f"batch[{name!r}] has {len(value)} rows, which cannot be divided into {parts} parts")
        return typed(value[i * each : (i + 1) * each], value)

    return [{name: part(name, value, i) for name, value in batch.items()} for i in range(parts)]


class _Gradients:
    """Inside its `with` block no optimiser of the method steps; the gradients of update number `wanted` are added up."""

    def __init__(self, method: nn.Module, wanted: int, expected: int):
        self.optimizers, self.wanted, self.expected = method.optimizers.values(), wanted, expected
        self.calls = 0
        self.optimizer: torch.optim.Optimizer | None = None
        self._sums: dict[nn.Parameter, Tensor] = {}
        # A method may change a rate for one update and put it back after it, which it cannot where its step is cut short.
        self._usual = [_rates(optimizer) for optimizer in self.optimizers]
        self._rates: list[float] = []

    def __enter__(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step = partial(self._instead_of_step, optimizer)  # hides the method of the class

    def __exit__(self, *_) -> None:
        for optimizer, rates in zip(self.optimizers, self._usual, strict=True):
            del optimizer.step
            _set_rates(optimizer, rates)

    def start_part(self) -> None:
        self.calls = 0
        for optimizer, rates in zip(self.optimizers, self._usual, strict=True):
            _set_rates(optimizer, rates)

    def _instead_of_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.calls += 1
        if self.calls <= self.wanted:
            return
        if self.calls > self.wanted + 1:
            raise _Reached
        self.optimizer, self._rates = optimizer, _rates(optimizer)
        for parameter in _parameters(optimizer):
            if parameter.grad is not None:
                self._sums[parameter] = self._sums.get(parameter, 0) + parameter.grad
        if self.calls < self.expected:  # the last update is followed through, to the losses
            raise _Reached

    def step(self, parts: int) -> None:
        """Make the update with the mean of the gradients, if there was one of that number."""
        if self.optimizer is None:
            return
        for parameter in _parameters(self.optimizer):
            parameter.grad = self._sums[parameter] / parts if parameter in self._sums else None
        usual = _rates(self.optimizer)
        _set_rates(self.optimizer, self._rates)
        self.optimizer.step()
        _set_rates(self.optimizer, usual)


def _rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def _set_rates(optimizer: torch.optim.Optimizer, rates: list[float]) -> None:
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
