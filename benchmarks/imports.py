"""What importing the library adds to importing torch.

    python benchmarks/imports.py [--repeats 5]

Each import in a process of its own, by turns. Writes data/results/imports.json.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from tutorial_lib.training.checkpoints import machine

RESULTS = Path(__file__).resolve().parent.parent / "data" / "results" / "imports.json"
TARGET = 0.3  # seconds that `import tutorial_lib` may add
PROGRAMS = {"torch": "torch", "tutorial_lib": "torch, tutorial_lib", "every method": "torch, tutorial_lib.training.presets"}


def seconds(modules: str) -> float:
    """How long `import modules` takes in a fresh process, without the start of Python itself."""
    code = f"import time; start = time.perf_counter(); import {modules}; print(time.perf_counter() - start)"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    times = {name: [] for name in PROGRAMS}
    for _ in range(repeats):
        for name, modules in PROGRAMS.items():
            times[name].append(seconds(modules))
    medians = {name: statistics.median(each) for name, each in times.items()}
    added = {name: round(medians[name] - medians["torch"], 3) for name in PROGRAMS if name != "torch"}
    print(f"import torch {medians['torch']:.2f} s; seconds more for {added} (tutorial_lib: at most {TARGET})")
    result = {"machine": machine(), "torch": round(medians["torch"], 3), "added": added, "target": TARGET}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
