"""How well the oracle reads held-out, untied renders."""

import torch
from torch import Tensor

from tutorial_lib.data.birds import POSE, PaperBirds
from tutorial_lib.metrics.oracle import Oracle
from tutorial_lib.metrics.segmentation import iou_per_image

HELD_OUT = 1_000_003  # a seed no training set uses

BARS = {"background": 0.99, "shape": 0.99, "texture": 0.99, "keypoints": 1.0, "mask.iou": 0.95}


@torch.no_grad()
def evaluate(method: Oracle, card: dict | None = None, *, samples: int = 2000) -> dict[str, float]:
    """Accuracy of the classes, mean keypoint error in pixels at 64 x 64, mask IoU, R² of each pose component."""
    method.eval()
    birds = PaperBirds(size=method.config.image_size, length=samples, seed=HELD_OUT, tied=False)
    right = dict.fromkeys(("background", "shape", "texture"), 0)
    apart, visible, overlap, read, true = 0.0, 0, 0.0, [], []
    for batch in birds.stream(100):
        reading = method.read(batch["image"])
        for name, labels in reading.labels().items():
            right[name] += int((labels == batch[name]).sum())
        distance = (reading.keypoints - batch["keypoints"]).norm(dim=-1)
        apart += float(distance[batch["visible"]].sum())
        visible += int(batch["visible"].sum())
        overlap += float(iou_per_image(reading.mask, batch["mask"]).sum())
        read.append(reading.pose)
        true.append(batch["pose"])
    figures = {name: n / samples for name, n in right.items()}
    figures |= {"keypoints": apart / visible * 64 / method.config.image_size, "mask.iou": overlap / samples}
    return figures | {f"pose.{name}": r2 for name, r2 in pose_r2(torch.cat(read), torch.cat(true)).items()}


def pose_r2(read: Tensor, true: Tensor) -> dict[str, float]:
    """R² of each part of the pose (N, 7) as read, by name: 1 at best, below 0 if the mean of the true ones were nearer."""
    r2 = 1 - (read - true).square().sum(0) / (true - true.mean(0)).square().sum(0)
    return dict(zip(POSE, r2.tolist(), strict=True))


def table(figures: dict[str, float]) -> str:
    """The figures beside their bars."""
    lines = [f"{'on held-out untied renders':<28}{'measured':>10}{'bar':>10}"]
    for name, value in figures.items():
        bar = BARS.get(name, 0.95 if name.startswith("pose.") else None)
        sign = "<=" if name == "keypoints" else ">="
        lines.append(f"{name:<28}{value:>10.3f}{'' if bar is None else f'{sign} {bar:.2f}':>10}")
    return "\n".join(lines)
