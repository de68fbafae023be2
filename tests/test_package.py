import subprocess
import sys

import pytest

HEAVY = ("umap", "torchmetrics", "sklearn", "matplotlib", "accelerate")


@pytest.mark.parametrize(
    "module",
    ["tutorial_lib", pytest.param("tutorial_lib.training.presets", marks=pytest.mark.slow)],
)
def test_import_is_light(module):
    code = f"import sys, {module}; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
