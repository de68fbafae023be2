"""Freed memory is kept for the next training step, and goes back to the system after the last. Each in a process of its own:
how much memory this one has free already depends on the tests before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tutorial_lib.training import memory
from tutorial_lib.training.memory import memory_kept

PROLOGUE = """
import re
from pathlib import Path
import torch
from tutorial_lib.training.memory import memory_kept

def taken():  # MB
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

def use():
    blocks = [torch.ones(25_000_000) for _ in range(3)]  # 100 MB each

before = taken()
"""

needs_glibc = pytest.mark.skipif(
    memory._glibc("malloc_trim") is None or not Path("/proc/self/status").exists(), reason="glibc, and Linux's /proc"
)


def figures(program: str) -> list[float]:
    """What a program after the prologue prints: MB more than before."""
    command, without_gpu = [sys.executable, "-c", PROLOGUE + program], os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=without_gpu)
    return [float(line) for line in done.stdout.split()]


@needs_glibc
def test_memory_is_kept_inside_and_given_back_after():
    inside, after, usual = figures("""
with memory_kept(torch.device("cpu")):
    use()
    print(taken() - before)
print(taken() - before)
use()
print(taken() - before)
""")
    assert inside > 280
    assert after < 60
    assert usual < 60


@needs_glibc
def test_memory_is_given_back_after_an_error():
    (after,) = figures("""
try:
    with memory_kept(torch.device("cpu")):
        use()
        raise ValueError
except ValueError:
    print(taken() - before)
""")
    assert after < 60


@needs_glibc
def test_a_gpus_training_leaves_the_process_as_it_is():
    (inside,) = figures("""
with memory_kept(torch.device("cuda")):
    use()
    print(taken() - before)
""")
    assert inside < 60


@needs_glibc
def test_the_training_loop_keeps_memory_from_step_to_step():
    between, after = figures("""
from torch import nn
from tutorial_lib.training.loop import RunSettings, train

class Hungry(nn.Module):
    name, averaged, config = "hungry", (), {}

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.optimizers = {"weight": torch.optim.Adam(self.parameters())}

    def training_step(self, batch):
        self.taken = taken() - before
        use()
        return {"loss": self.weight.detach().sum()}

model = Hungry()
train(model, [{"x": torch.zeros(1)}] * 8, RunSettings(steps=3, batch_size=2), progress=False)
print(model.taken)
print(taken() - before)
""")
    assert between > 280
    assert after < between - 200


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory, "_glibc", lambda name: None)
    with memory_kept(torch.device("cpu")):
        pass


def test_a_missing_function_is_no_error():
    assert memory._glibc("no_such_function_anywhere") is None
