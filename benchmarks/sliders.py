"""How long a slider takes from its changed value to the new PNG bytes.

    python benchmarks/sliders.py [--threads 2] [--changes 200] [--quick]

Writes data/results/sliders.json. Random weights take as long as trained ones.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import torch
from ipywidgets import Widget
from torch import nn

from tutorial_lib.data.birds import PaperBirds
from tutorial_lib.data.faces import PaperFaces
from tutorial_lib.training.checkpoints import machine
from tutorial_lib.training.presets import PRESETS, build
from tutorial_lib.widgets.birds import bird_panel
from tutorial_lib.widgets.comgan import composition_panel, ds_comgan_panel, segmentation_panel
from tutorial_lib.widgets.finegan import finegan_panel
from tutorial_lib.widgets.gmvae import gmvae_panel
from tutorial_lib.widgets.mixnmatch import mixnmatch_panel
from tutorial_lib.widgets.panel import APART, Panel
from tutorial_lib.widgets.uniform_posterior import uniform_posterior_panel

RESULTS = Path(__file__).resolve().parent.parent / "data" / "results" / "sliders.json"
TARGET = 33  # ms, 95th percentile


def laptop(method: str) -> nn.Module:
    """A method of the size that is shipped, untrained."""
    return build(PRESETS[method]["laptop"].method).eval()


def panels() -> dict[str, Callable[[], Panel]]:
    """Every panel of notebooks 00 to 06, on models of the size that is shipped; the segmenter has read its pictures before."""
    birds = PaperBirds(size=64, length=6).batch(range(6))["image"]
    faces = PaperFaces(size=64, length=6).batch(range(6))["image"]
    return {
        "renderer, 256 x 256": bird_panel,
        "FineGAN, 64 x 64 and 5 stages": lambda: finegan_panel(laptop("finegan")),
        "MixNMatch, code mode": lambda: mixnmatch_panel(laptop("mixnmatch"), birds),
        "MixNMatch, feature mode": lambda: mixnmatch_panel(laptop("mixnmatch"), birds, mode="feature"),
        "ComGAN by hand": composition_panel,
        "DS-ComGAN": lambda: ds_comgan_panel(laptop("ds_comgan")),
        "DS-ComGAN's segmenter": lambda: segmentation_panel(laptop("ds_comgan_segmenter"), birds),
        "uniform posterior": lambda: uniform_posterior_panel(laptop("uniform_posterior"), faces),
        "GM-VAE": lambda: gmvae_panel(laptop("gmvae"), faces),
    }


def another(control: Widget, random: Random) -> object:
    """Another value that a user could give this control."""
    if isinstance(control.value, bool):
        return not control.value
    if hasattr(control, "options"):
        values = [option[1] if isinstance(option, tuple) else option for option in control.options]
        return random.choice([value for value in values if value != control.value] or values)
    steps = round((control.max - control.min) / control.step)
    if isinstance(control.value, tuple):  # a range: its lower and its upper end
        return tuple(sorted(control.min + control.step * random.randint(0, steps) for _ in control.value))
    return type(control.value)(control.min + control.step * random.randint(0, steps))


def redraw_times(panel: Panel, changes: int, seed: int = 0) -> np.ndarray:
    """Milliseconds from a control's new value to the new picture's bytes; the controls take turns, but for locked ones.

    What leaves every pixel as it was does not count, nor does the strip, which comes after the picture.
    """
    times, start, random = [], 0.0, Random(seed)

    def drawn(change) -> None:
        times.append(1e3 * (time.perf_counter() - start))

    if panel.takes_uploads:
        panel.upload(bytes(panel.thumbnails[0].value))  # each place has a picture then
    panel._image.observe(drawn, "value")
    while len(times) < changes:
        for control in panel.controls.values():
            if control.disabled or len(times) == changes:
                continue
            value = another(control, random)
            time.sleep(APART)  # a move of its own: within a drag, a picture waits for the page
            start = time.perf_counter()
            control.value = value
            if panel.error:
                raise RuntimeError(panel.error)
    panel._image.unobserve(drawn, "value")
    return np.array(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="a few changes only, to see that it works; writes nothing")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.changes = 5
    torch.set_num_threads(arguments.threads)
    result = {"machine": machine(), "threads": arguments.threads, "changes": arguments.changes, "target_p95_ms": TARGET}
    for name, make in panels().items():
        panel = make()
        redraw_times(panel, 20)  # the first pictures are slower
        median, p95 = np.percentile(redraw_times(panel, arguments.changes, seed=1), [50, 95])
        result[name] = {"median_ms": round(median, 1), "p95_ms": round(p95, 1)}
        print(f"{name:32} median {median:5.1f} ms   95th percentile {p95:5.1f} ms   (at most {TARGET})", flush=True)
    if arguments.quick:
        return
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
