"""How many pictures of 64 x 64 a renderer draws in a second.

    python benchmarks/renderers.py birds [--threads 2]      # or faces

Writes data/results/birds.json (faces.json).
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from tutorial_lib.data.batched import BatchedDataset
from tutorial_lib.data.birds import PaperBirds
from tutorial_lib.data.faces import PaperFaces
from tutorial_lib.training.checkpoints import machine

RESULTS = Path(__file__).resolve().parent.parent / "data" / "results"
RENDERERS = {"birds": PaperBirds, "faces": PaperFaces}
TARGET, SIZE, PICTURES, REPEATS = 1500, 64, 2048, 5


def rate(pictures: BatchedDataset) -> float:
    """Pictures a second over one pass."""
    start = time.perf_counter()
    for _ in pictures.stream():
        pass
    return len(pictures) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("renderer", choices=RENDERERS)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    threads = arguments.threads
    torch.set_num_threads(threads)
    pictures = RENDERERS[arguments.renderer](size=SIZE, length=PICTURES)
    rate(pictures)  # builds the tables
    rates = [rate(pictures) for _ in range(REPEATS)]
    result = {"machine": machine(), "threads": threads, "size": SIZE, "target_images_per_second": TARGET}
    result["images_per_second"] = round(statistics.median(rates))
    print(f"{result['images_per_second']} pictures a second at {SIZE} x {SIZE} with {threads} threads (at least {TARGET})")
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{arguments.renderer}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
