"""How well the face oracle reads draws it has not seen, of all people."""

import torch

from tutorial_lib.data.faces import EXPRESSIONS, PaperFaces
from tutorial_lib.metrics.face_oracle import LABELS, FaceOracle
from tutorial_lib.studies.oracle import HELD_OUT

BARS = {**dict.fromkeys(LABELS, 0.98), "strength": 0.98}


@torch.no_grad()
def evaluate(method: FaceOracle, card: dict | None = None, *, samples: int = 2000) -> dict[str, float]:
    """Accuracy of each label; R² of the strength where the expression is not neutral."""
    method.eval()
    faces = PaperFaces(size=method.config.image_size, length=samples, seed=HELD_OUT, identities="all")
    right = dict.fromkeys(LABELS, 0)
    read, true = [], []
    for batch in faces.stream(100):
        reading = method.read(batch["image"])
        for name, labels in reading.labels().items():
            right[name] += int((labels == batch[name]).sum())
        expressive = batch["expression"] != EXPRESSIONS.index("neutral")
        read.append(reading.strength[expressive])
        true.append(batch["strength"][expressive])
    read, true = torch.cat(read), torch.cat(true)
    r2 = 1 - (read - true).square().sum() / (true - true.mean()).square().sum()
    return {name: n / samples for name, n in right.items()} | {"strength": float(r2)}


def table(figures: dict[str, float]) -> str:
    """The figures beside their bars."""
    lines = [f"{'on held-out draws':<28}{'measured':>10}{'bar':>10}"]
    for name, value in figures.items():
        bar = BARS.get(name)
        lines.append(f"{name:<28}{value:>10.3f}{'' if bar is None else f'>= {bar:.2f}':>10}")
    return "\n".join(lines)
