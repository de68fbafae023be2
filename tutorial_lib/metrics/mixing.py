"""How well a mix keeps what it should, as MixNMatch's paper measures it (Table 3).

C takes texture and background from A, shape and pose from B. Shape: how far C's keypoints lie from B's. Texture: how much the
colours around C's keypoints differ from those around A's.
"""

import torch
from torch import Tensor


def keypoint_distance(found: Tensor, true: Tensor, visible: Tensor) -> Tensor:
    """Mean distance in pixels of keypoints (B, K, 2) over those that are visible (B, K): one number; NaN if none is."""
    distance = (found - true).as_subclass(Tensor).norm(dim=-1)
    return distance[visible].mean()


def colour_histograms(images: Tensor, keypoints: Tensor, *, patch: int = 8, bins: int = 4) -> Tensor:
    """L1-normalised joint RGB histograms (B, K, bins³) of the `patch` x `patch` pixels around each keypoint.

    images (B, 3, H, W) in [-1, 1]; keypoints (B, K, 2) in pixels, x first, (0, 0) the outer corner of the first pixel. A patch
    that would reach over the edge is moved inside. The paper takes 16 x 16 pixels of 128 x 128, which are 8 x 8 of 64 x 64.
    """
    height, width = images.shape[-2:]
    if patch > min(height, width):
        raise ValueError(f"patch: {patch} pixels do not fit into pictures of {height} x {width}")
    first = (keypoints.as_subclass(Tensor) - patch / 2).round().long()
    x = first[..., 0].clamp(0, width - patch)[..., None] + torch.arange(patch, device=images.device)  # (B, K, patch)
    y = first[..., 1].clamp(0, height - patch)[..., None] + torch.arange(patch, device=images.device)
    levels = ((images.as_subclass(Tensor) + 1) / 2 * bins).long().clamp(0, bins - 1)
    colour = (levels[:, 0] * bins + levels[:, 1]) * bins + levels[:, 2]  # (B, H, W)
    batch = torch.arange(len(images), device=images.device)[:, None, None, None]
    patches = colour[batch, y[..., :, None], x[..., None, :]].flatten(2)  # (B, K, patch²)
    counts = torch.zeros(*patches.shape[:2], bins**3, device=images.device)
    return counts.scatter_add_(2, patches, torch.ones_like(patches, dtype=counts.dtype)) / patch**2


def chi_squared(a: Tensor, b: Tensor) -> Tensor:
    """½ Σ (a - b)² / (a + b) over the last axis: 0 for equal histograms, 1 for disjoint ones."""
    return 0.5 * ((a - b).square() / (a + b).clamp(min=1e-12)).sum(-1)


def texture_distance(a: Tensor, keypoints_a: Tensor, c: Tensor, keypoints_c: Tensor, visible: Tensor, **histogram) -> Tensor:
    """Mean χ² between the colours around each keypoint of A and around the same keypoint of C, over those `visible` (B, K)."""
    of_a, of_c = colour_histograms(a, keypoints_a, **histogram), colour_histograms(c, keypoints_c, **histogram)
    return chi_squared(of_a, of_c)[visible].mean()
