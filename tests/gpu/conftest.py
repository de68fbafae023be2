"""The tests of this folder need a GPU. Where there is none they are skipped, and the summary says so.

TUTORIAL_LIB_TEST_DEVICE=cpu python -m pytest tests/gpu     # to try the tests themselves without one
"""

from __future__ import annotations

import os

import pytest
import torch

ASKED = os.environ.get("TUTORIAL_LIB_TEST_DEVICE", "cuda")
MISSING = "no GPU here: nothing of bf16, channels_last, torch.compile or several GPUs was tested on one"
_skipped: list[str] = []


def pytest_collection_modifyitems(items):
    if ASKED != "cuda" or torch.cuda.is_available():
        return
    for item in items:
        if item.path.parent.name == "gpu":
            item.add_marker(pytest.mark.skip(reason=MISSING))
            _skipped.append(item.name)


def pytest_terminal_summary(terminalreporter):
    if _skipped:
        terminalreporter.section("GPU tests SKIPPED", yellow=True, bold=True)
        terminalreporter.line(f"{len(_skipped)} tests in tests/gpu: {MISSING}", yellow=True)


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device(ASKED)


@pytest.fixture(autouse=True)
def on_the_device(monkeypatch, device):
    """Accelerate chooses its device once in a process: it is to choose anew for these tests, and anew for those after them."""
    from accelerate.state import AcceleratorState

    monkeypatch.setenv("ACCELERATE_USE_CPU", "no" if device.type == "cuda" else "yes")
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
