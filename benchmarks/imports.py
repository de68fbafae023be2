"""What importing the library adds to importing torch.

    python benchmarks/imports.py [--repeats 5]

Each in a process of its own, by turns, and timed there once torch is imported. Writes data/results/imports.json.
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
ADDED = {"tutorial_lib": "tutorial_lib", "every method": "tutorial_lib.training.presets"}


def seconds(module: str, after: str = "time") -> float:
    """How long `import module` takes in a fresh process that has imported `after`."""
    code = f"import time, {after}; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    alone, times = [], {name: [] for name in ADDED}
    for _ in range(repeats):
        alone.append(seconds("torch"))
        for name, module in ADDED.items():
            times[name].append(seconds(module, after="torch"))
    torch = statistics.median(alone)
    added = {name: round(statistics.median(each), 3) for name, each in times.items()}
    print(f"import torch {torch:.2f} s; seconds more for {added} (tutorial_lib: at most {TARGET})")
    result = {"machine": machine(), "torch": round(torch, 3), "added": added, "target": TARGET}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
