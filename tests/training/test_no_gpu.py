"""Training steps on a GPU that is not there: tensors have a device and a type, and no values.

Shows what mixes devices, and what CUDA's autocast refuses; a backward pass cannot be made so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tutorial_lib.methods import comgan
from tutorial_lib.training.plan import first_batch
from tutorial_lib.training.presets import METHODS, PRESETS, build

GPU = torch.device("cuda")


@contextmanager
def a_gpu() -> Iterator[None]:
    """In here tensors without values are made, on a GPU if nothing else is said. What reads one gets 0, or False."""

    def gradients(outputs, inputs, **options):
        inputs = [inputs] if isinstance(inputs, Tensor) else inputs
        return tuple(torch.empty_like(x).requires_grad_() for x in inputs)

    with pytest.MonkeyPatch.context() as patch, FakeTensorMode(), GPU:
        patch.setattr(Tensor, "__int__", lambda tensor: 0)
        patch.setattr(Tensor, "__bool__", lambda tensor: False)
        patch.setattr(Tensor, "backward", lambda tensor, **options: None)
        patch.setattr(torch.autograd, "grad", gradients)
        patch.setattr(comgan, "gradient_watch", lambda *_: {})  # looks at gradients, of which there are none
        yield


@contextmanager
def bf16() -> Iterator[None]:
    """CUDA's autocast, which `torch.autocast` does not turn on where there is no GPU."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


@pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'", "ignore:CUDA is not available")
@pytest.mark.parametrize("name", [name for name in METHODS if name in PRESETS])
def test_training_step_computes_all_losses_on_the_gpu_in_bf16(name):
    preset = PRESETS[name]["smoke"]
    late = {key: 0 for key in ("background_first", "classifiers_first") if hasattr(preset.method, key)}
    config = replace(preset.method, **late)
    batch = first_batch(preset.dataset(), preset.run.batch_size, torch.device("cpu"))
    method = build(config).train()
    expected = set().union(*(method.training_step(batch) for _ in range(6)))  # some updates are made in some steps only
    with a_gpu():
        method = build(config).train()
        assert {parameter.device.type for parameter in method.parameters()} == {"cuda"}
        batch = {key: torch.empty(value.shape, dtype=value.dtype) for key, value in batch.items()}
        with bf16():
            losses = method.training_step(batch)
        assert losses.keys() == {key for key in expected if not key.startswith("grad_")}
        assert {loss.device.type for loss in losses.values()} == {"cuda"}


def test_what_only_a_gpu_refuses_is_refused_here():
    with a_gpu():
        with pytest.raises(RuntimeError, match="device"):
            torch.ones(2) + torch.ones(2, device="cpu")
        with bf16():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
            with pytest.raises(RuntimeError, match="unsafe to autocast"):
                F.binary_cross_entropy(torch.ones(2), torch.ones(2))
