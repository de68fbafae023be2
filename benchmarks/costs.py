"""How the cost of a training step grows with the batch, the resolution and the number of codes.

    python benchmarks/costs.py [--threads 2] [--quick]

FineGAN at its published widths, 128 x 128, batch 4, N_c = 200, one of the three changed at a time; N_c also with the code
convolved as full planes. Seconds are medians, all points in turns, so that what else the machine does meets each of them; bytes
are those of the tensors held at once. Writes data/results/costs.json.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

from tutorial_lib.data.birds import PaperBirds
from tutorial_lib.methods.finegan import FineGAN, FineGANConfig
from tutorial_lib.training.checkpoints import machine
from tutorial_lib.training.loop import fuse
from tutorial_lib.training.plan import Work, count

RESULTS = Path(__file__).resolve().parent.parent / "data" / "results" / "costs.json"
BATCHES, SIZES, CODES = (2, 4, 8, 16), (64, 128, 256), (200, 500, 1000, 2000)


def config(size: int = 128, codes: int = 200, *, exact: bool = True) -> FineGANConfig:
    """FineGAN's published widths at any size: up blocks are left out, or added, before the last."""
    base = FineGANConfig()
    more = {256: 1, 128: 0, 64: -1, 32: -2}[size]

    def fitted(widths: tuple[int, ...]) -> tuple[int, ...]:
        inner = widths[:-1]
        return (*(inner + inner[-1:] if more > 0 else inner[: len(inner) + more]), widths[-1])

    return replace(
        base,
        image_size=size,
        background_size=max(size - 2, 62),  # D_b's patches are 34 pixels wide
        background_widths=fitted(base.background_widths),
        parent_widths=fitted(base.parent_widths),
        n_children=codes,
        tie_background=False,  # N_b stays as it is
        exact_planes=exact,
    )


def cases(
    batches: Sequence[int], sizes: Sequence[int], codes: Sequence[int]
) -> dict[str, list[tuple[int, FineGANConfig, int]]]:
    """Each curve as (x, config, batch)."""
    return {
        "batch": [(batch, config(), batch) for batch in batches],
        "resolution": [(size, config(size), 4) for size in sizes],
        "codes, exact planes": [(n, config(codes=n), 4) for n in codes],
        "codes, full planes": [(n, config(codes=n, exact=False), 4) for n in codes],
    }


def ready(settings: FineGANConfig, batch_size: int) -> tuple[FineGAN, dict[str, Tensor]]:
    """A model with weights that cost no time, as any weights do here, and a batch for it."""
    torch.manual_seed(0)
    with mock.patch.object(nn.init, "orthogonal_", lambda weight: nn.init.normal_(weight, std=0.02)):
        model = FineGAN(settings).train()
    fuse(model)  # as the loop does
    return model, PaperBirds(size=settings.image_size, length=batch_size, wander=1.0).batch(range(batch_size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small cases, once: only to see that it works; writes nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    curves = cases((2, 4), (32,), (200,)) if arguments.quick else cases(BATCHES, SIZES, CODES)
    if arguments.quick:
        curves["batch"] = [(batch, config(32), batch) for batch in (2, 4)]
        curves["codes, exact planes"], curves["codes, full planes"] = (
            [(200, config(32, exact=exact), 4)] for exact in (True, False)
        )
    seconds: dict[tuple[FineGANConfig, int], list[float]] = {}  # one configuration is a point of several curves
    work: dict[tuple[FineGANConfig, int], Work] = {}
    for _ in range(1 if arguments.quick else arguments.repeats):
        for case in dict.fromkeys((settings, batch_size) for curve in curves.values() for _, settings, batch_size in curve):
            model, batch = ready(*case)
            model.training_step(batch)  # the optimisers make their states
            if case not in work:
                work[case] = count(model, batch, "fp32")
            start = time.perf_counter()
            model.training_step(batch)
            seconds.setdefault(case, []).append(time.perf_counter() - start)
    points = []
    for name, curve in curves.items():
        for x, *case in curve:
            of, each = work[tuple(case)], seconds[tuple(case)]
            points.append({"curve": name, "x": x, "seconds": round(statistics.median(each), 3)})
            points[-1] |= {"gflop": round(of.flops / 1e9, 1), "gigabytes": round(of.peak / 1e9, 3)}
            print(points[-1], flush=True)
    if not arguments.quick:
        result = {"machine": machine(), "threads": arguments.threads, "repeats": arguments.repeats, "points": points}
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
