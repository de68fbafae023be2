"""Everything but tests/gpu is trained on the CPU, also where there is a GPU: by the tests, and in the kernels of notebooks that
are run beside them, which inherit this."""

import os

import pytest
import torch

os.environ["ACCELERATE_USE_CPU"] = "yes"


@pytest.fixture
def learnt_from():
    """An optimiser -> its parameters' gradients, which fill as it makes a step: `layers.update` keeps none of them."""

    def watch(optimizer: torch.optim.Optimizer) -> dict[torch.nn.Parameter, torch.Tensor]:
        found = {}

        def keep(optimizer, args, kwargs):
            parameters = (p for group in optimizer.param_groups for p in group["params"])
            found.update((p, p.grad.clone()) for p in parameters if p.grad is not None)

        optimizer.register_step_pre_hook(keep)
        return found

    return watch
