from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # toy_method, for the tests and for the processes they start

from toy_method import Pictures, Toy, ToyConfig


@pytest.fixture
def make_toy():
    """A function that makes the same untrained Toy each time."""

    def make(kind: type[Toy] = Toy, **config) -> Toy:
        torch.manual_seed(0)
        return kind(ToyConfig(**config))

    return make


@pytest.fixture
def pictures() -> Pictures:
    return Pictures()


@pytest.fixture
def toy_registered(monkeypatch):
    """Let `checkpoints.load` know the Toy."""
    from tutorial_lib.training import presets

    monkeypatch.setitem(presets.METHODS, "toy", (ToyConfig, Toy))
