"""Paper-cut drawing: outlines as signed distance fields, coverage, and random numbers that depend on (seed, index) only.

A cut-out is stored once as a *signed distance* (negative inside) on a small grid. Looking it up at any position, scale and
angle and dividing by the width of a pixel gives an anti-aliased edge at every picture size.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Points = Sequence[tuple[float, float]]


def uniform(seed: int, indices: Tensor, n: int) -> Tensor:
    """Uniform numbers in [0, 1), shape (len(indices), n); row i depends on (seed, indices[i]) and on nothing else.

    A counter-based generator (the 32-bit finaliser of MurmurHash3, applied three times), so that a picture is the same whatever
    batch it is rendered in and on whatever device.
    """
    column = torch.arange(n, device=indices.device)
    state = _hash(torch.full_like(indices, seed & 0xFFFFFFFF))
    state = _hash(state ^ (indices & 0xFFFFFFFF))[:, None]
    return _hash(_hash(state + 0x9E3779B9 * (column + 1) & 0xFFFFFFFF)).double().div(2**32).float().clamp(max=1 - 2**-24)


def _hash(x: Tensor) -> Tensor:
    """MurmurHash3's 32-bit finaliser on int64 tensors that hold values below 2**32."""
    x = (x ^ (x >> 16)) * 0x85EBCA6B & 0xFFFFFFFF
    x = (x ^ (x >> 13)) * 0xC2B2AE35 & 0xFFFFFFFF
    return x ^ (x >> 16)


def smooth(points: Points, per_segment: int = 8) -> Tensor:
    """A closed Catmull-Rom curve through `points`; a point given twice in a row becomes a corner. Shape (n, 2)."""
    p = torch.tensor(points, dtype=torch.float64)
    p0, p1, p2, p3 = (p.roll(shift, 0) for shift in (1, 0, -1, -2))
    p0, p1, p2, p3 = (q[(p1 != p2).any(1)] for q in (p0, p1, p2, p3))  # nothing to draw between twins: a corner
    t = torch.linspace(0, 1, per_segment + 1, dtype=torch.float64)[:-1, None, None]
    curve = 0.5 * (
        2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * (p1 - p2) + p3 - p0) * t**3
    )  # (per_segment, n, 2)
    return curve.transpose(0, 1).reshape(-1, 2)


def polygon_distance(outline: Tensor, at: Tensor) -> Tensor:
    """Signed distance from `at` (..., 2) to a closed polygon (n, 2): negative inside, exact."""
    a, b = outline, outline.roll(-1, 0)
    edge, to = b - a, at[..., None, :] - a
    along = ((to * edge).sum(-1) / edge.square().sum(-1).clamp(min=1e-12)).clamp(0, 1)
    distance = (to - along[..., None] * edge).norm(dim=-1).amin(-1)
    y, x = at[..., None, 1], at[..., None, 0]
    crosses = (a[:, 1] > y) != (b[:, 1] > y)
    left = x < a[:, 0] + edge[:, 0] * (y - a[:, 1]) / torch.where(edge[:, 1] == 0, 1e-12, edge[:, 1])
    inside = (crosses & left).sum(-1) % 2 == 1
    return torch.where(inside, -distance, distance)


def blob(points: Points):
    """A cut-out with a smooth outline through `points`."""
    outline = smooth(points)
    return lambda at: polygon_distance(outline.to(at), at)


def disc(x: float, y: float, radius: float):
    """A disc."""
    return lambda at: (at - torch.tensor([x, y]).to(at)).norm(dim=-1) - radius


def strip(points: Points, width: float):
    """A strip of paper of constant width along a chain of points, with round ends."""
    chain = torch.tensor(points, dtype=torch.float64)

    def distance(at: Tensor) -> Tensor:
        a, edge = chain[:-1].to(at), (chain[1:] - chain[:-1]).to(at)
        to = at[..., None, :] - a
        along = ((to * edge).sum(-1) / edge.square().sum(-1)).clamp(0, 1)
        return (to - along[..., None] * edge).norm(dim=-1).amin(-1) - width / 2

    return distance


def leaf(x: float, y: float, angle: float, length: float, width: float):
    """A leaf (vesica) centred at (x, y), pointing along `angle` in radians."""
    half, bulge = length / 2, width / 2
    radius = (half**2 + bulge**2) / (2 * bulge)

    def distance(at: Tensor) -> Tensor:
        offset = at - torch.tensor([x, y]).to(at)
        u = offset[..., 0] * math.cos(angle) + offset[..., 1] * math.sin(angle)
        v = -offset[..., 0] * math.sin(angle) + offset[..., 1] * math.cos(angle)
        return torch.hypot(u, v.abs() + radius - bulge) - radius

    return distance


def union(*parts):
    """Several cut-outs as one."""
    return lambda at: torch.stack([part(at) for part in parts]).amin(0)


def grid(size: int, extent: float) -> Tensor:
    """Centres of a size x size grid over [-extent, extent]^2, shape (size, size, 2), x first, float64."""
    line = (torch.arange(size, dtype=torch.float64) + 0.5) / size * 2 * extent - extent
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], -1)


def sheets(stack: Tensor) -> Tensor:
    """The same stack (n, C, S, S), in memory channel by channel: each channel's n fields below each other, one tall sheet."""
    return stack.transpose(0, 1).contiguous().transpose(0, 1)


def look_up(stack: Tensor, which: Tensor, at: Tensor) -> Tensor:
    """Bilinear look-up in a stack of fields, one of which each picture uses.

    stack: (n, C, S, S); which: (B,) indices into n; at: (B, H, W, 2) positions in [-1, 1]^2 of that field. Returns
    (B, C, H, W). The fields lie below each other in one tall sheet; nothing is copied if `sheets` has laid them out so.
    """
    n, channels, size, _ = stack.shape
    sheet = stack.transpose(0, 1).reshape(1, channels, n * size, size).expand(len(which), -1, -1, -1)
    edge = 1 - 1 / size  # never blend with the neighbour in the sheet
    x, y = at.clamp(-edge, edge).unbind(-1)
    y = (y + 1 + 2 * which[:, None, None]) / n - 1
    return F.grid_sample(sheet, planes(x, y), align_corners=False)


def planes(x: Tensor, y: Tensor) -> Tensor:
    """x and y (B, H, W) as positions (B, H, W, 2), in memory all x, then all y, which is faster to compute with."""
    return torch.stack([x, y]).movedim(0, -1)


def positions(size: int, matrix: Tensor, offset: Tensor) -> Tensor:
    """Where each pixel centre of a size x size picture ([-1, 1]^2, y down) lies after `matrix @ pixel + offset`.

    matrix (B, 2, 2), offset (B, 2) -> (B, size, size, 2), in memory as `planes` lays it out.
    """
    line = (torch.arange(size, device=matrix.device) + 0.5) / size * 2 - 1
    rows = matrix.movedim(1, 0)[..., None, None]  # (2, B, 2, 1, 1)
    offset = offset.movedim(1, 0)[..., None, None]
    return (line * rows[:, :, 0] + (line[:, None] * rows[:, :, 1] + offset)).movedim(0, -1)


def rotation(angle: Tensor) -> Tensor:
    """Rotation matrices (B, 2, 2) for angles (B,) in radians; with y down, a positive angle turns clockwise."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], -1).reshape(-1, 2, 2)
