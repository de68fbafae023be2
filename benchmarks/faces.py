"""How many pictures of 64 x 64 the renderer draws in a second.

    python benchmarks/faces.py [--threads 2]

Writes data/results/faces.json.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from tutorial_lib.data.faces import PaperFaces
from tutorial_lib.training.checkpoints import machine

RESULTS = Path(__file__).resolve().parent.parent / "data" / "results" / "faces.json"
TARGET, SIZE, PICTURES, REPEATS = 1500, 64, 2048, 5


def rate(faces: PaperFaces) -> float:
    """Pictures a second over one pass."""
    start = time.perf_counter()
    for _ in faces.stream():
        pass
    return len(faces) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    threads = parser.parse_args().threads
    torch.set_num_threads(threads)
    faces = PaperFaces(size=SIZE, length=PICTURES)
    rate(faces)  # builds the tables
    rates = [rate(faces) for _ in range(REPEATS)]
    result = {"machine": machine(), "threads": threads, "size": SIZE, "target_images_per_second": TARGET}
    result["images_per_second"] = round(statistics.median(rates))
    print(f"{result['images_per_second']} pictures a second at {SIZE} x {SIZE} with {threads} threads (at least {TARGET})")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
