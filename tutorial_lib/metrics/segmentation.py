"""Overlap of masks (B, 1, H, W) in [0, 1]: intersection over union, and Dice."""

from collections.abc import Callable

import torch
from torch import Tensor


def iou(predicted: Tensor, target: Tensor, *, threshold: float | None = 0.5) -> float:
    """Intersection over union, averaged over the pictures; two empty masks agree perfectly (1).

    Masks count as 1 above `threshold`; with None they are compared as they are, sum(min) / sum(max).
    """
    return float(iou_per_image(predicted, target, threshold=threshold).mean())


def dice(predicted: Tensor, target: Tensor, *, threshold: float | None = 0.5) -> float:
    """Dice coefficient, 2 |A ∩ B| / (|A| + |B|), averaged over the pictures; thresholds and empty masks as in `iou`."""
    return float(dice_per_image(predicted, target, threshold=threshold).mean())


def iou_per_image(predicted: Tensor, target: Tensor, *, threshold: float | None = 0.5) -> Tensor:
    """IoU of each picture, (B,)."""
    predicted, target = _masks(predicted, target, threshold)
    return _ratio(torch.minimum(predicted, target).sum(dim=1), torch.maximum(predicted, target).sum(dim=1))


def dice_per_image(predicted: Tensor, target: Tensor, *, threshold: float | None = 0.5) -> Tensor:
    """Dice of each picture, (B,)."""
    predicted, target = _masks(predicted, target, threshold)
    return _ratio(2 * torch.minimum(predicted, target).sum(dim=1), predicted.sum(dim=1) + target.sum(dim=1))


def best_of_complement(
    predicted: Tensor,
    target: Tensor,
    *,
    score: Callable[..., Tensor] = iou_per_image,
    per_image: bool = False,
    threshold: float | None = 0.5,
) -> tuple[float, bool | Tensor]:
    """Score of masks whose side (figure or ground) is unknown: (mean score, whether the complement was taken).

    One choice for the whole set, as an unsupervised model has one free label. `per_image` chooses for every picture
    (the second value is then bool, (B,)), which flatters: a random mask never falls below what a coin gives.
    """
    straight = score(predicted, target, threshold=threshold)
    if threshold is not None:  # the complement is of what lies above it
        predicted, target, threshold = (predicted > threshold).float(), (target > threshold).float(), 0.5
    flipped = score(1 - predicted.float(), target, threshold=threshold)
    if per_image:
        return float(torch.maximum(straight, flipped).mean()), flipped > straight
    take_flipped = bool(flipped.mean() > straight.mean())
    return float((flipped if take_flipped else straight).mean()), take_flipped


def _masks(predicted: Tensor, target: Tensor, threshold: float | None) -> tuple[Tensor, Tensor]:
    if predicted.shape != target.shape:
        raise ValueError(f"predicted and target must agree, got {tuple(predicted.shape)} and {tuple(target.shape)}")
    masks = []
    for name, mask in (("predicted", predicted), ("target", target)):
        if mask.ndim != 4 or mask.shape[1] != 1 or len(mask) == 0:
            raise ValueError(f"{name} must have shape (B, 1, H, W), got {tuple(mask.shape)}")
        mask = mask.float()
        if not ((mask >= 0) & (mask <= 1)).all():
            raise ValueError(f"{name} must lie in [0, 1], got {float(mask.min()):.3g} to {float(mask.max()):.3g}")
        masks.append((mask if threshold is None else (mask > threshold).float()).flatten(1))
    return masks[0], masks[1]


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator > 0, numerator / denominator.clamp(min=1e-12), 1.0)
