"""How long a slider takes from its changed value to the new PNG bytes.

    python benchmarks/sliders.py [--threads 2] [--changes 200]

Writes data/results/sliders.json. Random weights take as long as trained ones.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from tutorial_lib.training.checkpoints import machine
from tutorial_lib.training.presets import PRESETS, build
from tutorial_lib.widgets.birds import bird_panel
from tutorial_lib.widgets.finegan import finegan_panel
from tutorial_lib.widgets.panel import Panel

RESULTS = Path(__file__).resolve().parent.parent / "data" / "results" / "sliders.json"
TARGET = 33  # ms, 95th percentile


def redraw_times(panel: Panel, changes: int) -> np.ndarray:
    """Milliseconds of single changes, the controls taking turns, each to a value that a random picture has."""
    times, seed = [], 100
    while len(times) < changes:
        seed += 1
        for name, value in panel._sample(seed).items():
            if value == panel.state[name] or len(times) == changes:
                continue
            start = time.perf_counter()
            panel.controls[name].value = value
            times.append(1e3 * (time.perf_counter() - start))
            if panel.error:
                raise RuntimeError(panel.error)
    return np.array(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--changes", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    panels = {
        "renderer, 256 x 256": bird_panel(),
        "FineGAN, 64 x 64 and 5 stages": finegan_panel(build(PRESETS["finegan"]["laptop"].method).eval()),
    }
    result = {"machine": machine(), "threads": arguments.threads, "changes": arguments.changes, "target_p95_ms": TARGET}
    for name, panel in panels.items():
        redraw_times(panel, 20)  # the first pictures are slower
        median, p95 = np.percentile(redraw_times(panel, arguments.changes), [50, 95])
        result[name] = {"median_ms": round(median, 1), "p95_ms": round(p95, 1)}
        print(f"{name:32} median {median:5.1f} ms   95th percentile {p95:5.1f} ms   (at most {TARGET})")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
