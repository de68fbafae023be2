"""Sheets of pictures with labelled rows and columns."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from torch import Tensor

from tutorial_lib.plots.style import INK, NotebookFigure, new_figure, styled

GAP = 0.06  # white between cells, as a share of a cell


@styled
def image_grid(
    pictures: Tensor | Sequence[Tensor],
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    title: str | None = None,
    cell: float = 0.7,
) -> NotebookFigure:
    """Pictures (R, C, 3, H, W) in [-1, 1], or R rows (C, 3, H, W), side by side. `cell`: inches a picture."""
    rows = list(pictures)
    shapes = {tuple(row.shape) for row in rows}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 4 or shape[1] != 3 or 0 in shape:
        raise ValueError(
            f"pictures must be (R, C, 3, H, W) or equal rows (C, 3, H, W), got rows {[tuple(r.shape) for r in rows]}"
        )
    return _sheet([to_uint8(row) for row in rows], row_labels, column_labels, title, cell)


@styled
def stage_sheet(
    stages: Mapping[str, Tensor],
    column_labels: Sequence[str] | None = None,
    title: str | None = None,
    cell: float = 0.7,
) -> NotebookFigure:
    """One row a stage: pictures (N, 3, H, W) in [-1, 1], or masks (N, 1, H, W) in [0, 1], shown in greys."""
    if len({(len(stage), *stage.shape[2:]) for stage in stages.values()}) != 1:
        raise ValueError(f"stages must agree in N, H, W, got { {k: tuple(v.shape) for k, v in stages.items()} }")
    for name, stage in stages.items():
        if stage.ndim != 4 or stage.shape[1] not in (1, 3):
            raise ValueError(f"stage {name!r} must be (N, 3, H, W) or (N, 1, H, W), got {tuple(stage.shape)}")
    return _sheet([to_uint8(stage) for stage in stages.values()], list(stages), column_labels, title, cell)


@styled
def feature_sheet(
    pictures: Tensor, features: Tensor, row_labels: Sequence[str] | None = None, title: str | None = None, cell: float = 0.7
) -> NotebookFigure:
    """Pictures (N, 3, H, W), and beside each its features (N, C, h, w), a cell a channel.

    Each channel is drawn on a scale of its own, from its lowest 1 % (ink) to its highest (white), the same in all rows.
    """
    if len(pictures) != len(features) or features.ndim != 4:
        raise ValueError(f"features must be (N, C, h, w) with N = {len(pictures)}, got {tuple(features.shape)}")
    features = features.detach().float().cpu()
    low, high = (features.movedim(1, 0).flatten(1).quantile(q, dim=1).view(1, -1, 1, 1) for q in (0.01, 0.99))
    maps = ((features - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    maps = torch.nn.functional.interpolate(maps, size=tuple(pictures.shape[2:]))
    rows = [
        np.concatenate([to_uint8(picture[None]), to_uint8(channels[:, None])])
        for picture, channels in zip(pictures, maps, strict=True)
    ]
    return _sheet(rows, row_labels, ["", *(str(i) for i in range(features.shape[1]))], title, cell)


@styled
def swap_sheet(
    targets: Tensor,
    donors: Tensor,
    results: Tensor,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    title: str | None = None,
    cell: float = 0.7,
) -> NotebookFigure:
    """What donors (C, 3, H, W), along the top, make of targets (R, 3, H, W), down the left: results (R, C, 3, H, W)."""
    size = tuple(targets.shape[1:])
    expected = (len(targets), len(donors), *size)
    if len(size) != 3 or size[0] != 3 or tuple(donors.shape[1:]) != size or tuple(results.shape) != expected:
        raise ValueError(
            f"results must be (R, C, 3, H, W) of targets (R, 3, H, W) and donors (C, 3, H, W): {expected} here, "
            f"got {tuple(results.shape)} and donors {tuple(donors.shape)}"
        )
    _check_labels(row_labels, column_labels, len(targets), len(donors))
    corner = np.full((1, *size[1:], 3), 255, dtype=np.uint8)
    rows = [np.concatenate([corner, to_uint8(donors)])]
    rows += [np.concatenate([to_uint8(of[None]), to_uint8(row)]) for of, row in zip(targets, results, strict=True)]
    labels = (["", *named] if named else None for named in (row_labels, column_labels))
    return _sheet(rows, *labels, title, cell, margin=2)


@styled
def triangle_sheet(
    pictures: Tensor, corners: Sequence[str] | None = None, title: str | None = None, cell: float = 0.7
) -> NotebookFigure:
    """Pictures (n (n + 1) / 2, 3, H, W) in a triangle, rows of 1, 2, … n: mixtures of three things.

    corners: what stands at the top, the lower left and the lower right.
    """
    n = (math.isqrt(8 * len(pictures) + 1) - 1) // 2
    if pictures.ndim != 4 or pictures.shape[1] != 3 or n < 2 or n * (n + 1) // 2 != len(pictures):
        raise ValueError(f"pictures must be (K, 3, H, W) with K = 3, 6, 10, 15 …, got {tuple(pictures.shape)}")
    if corners is not None and len(corners) != 3:
        raise ValueError(f"corners must have 3 entries, got {len(corners)}: {list(corners)}")
    height, width = pictures.shape[2:]
    gap = max(1, round(GAP * width))
    step_y, step_x = height + gap, width + gap
    canvas = np.full((n * step_y - gap, n * step_x - gap, 3), 255, dtype=np.uint8)
    left = iter(to_uint8(pictures))
    for r in range(n):
        for c in range(r + 1):
            x = c * step_x + (n - 1 - r) * step_x // 2
            canvas[r * step_y : r * step_y + height, x : x + width] = next(left)
    named = 0.25 * bool(corners)
    figure = new_figure(n * cell * (1 + GAP) + 0.1, n * cell * height / width * (1 + GAP) + 0.1 + named + 0.3 * bool(title))
    axes = figure.add_subplot()
    axes.imshow(canvas)
    axes.set_axis_off()
    axes.set_anchor("NW")
    places = ((n / 2 + 0.5) * step_x + gap, step_y / 2), (0, canvas.shape[0] + gap), (canvas.shape[1], canvas.shape[0] + gap)
    aligned = ("left", "center"), ("left", "top"), ("right", "top")
    for name, (x, y), (side, edge) in zip(corners or (), places, aligned, strict=False):
        axes.text(x, y, name, ha=side, va=edge, fontsize=8.5)
    if title:
        axes.set_title(title)
    return figure


def draw_grid(
    axes: Axes,
    rows: Sequence[np.ndarray],
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    margin: int = 0,
) -> None:
    """Rows of uint8 pictures (C, H, W, 3) as one image on given axes.

    margin: how many gaps more lie between the first row or column and the others.
    """
    n_rows, n_columns, height, width = len(rows), *rows[0].shape[:3]
    _check_labels(row_labels, column_labels, n_rows, n_columns)
    gap = max(1, round(GAP * width))
    top = [r * (height + gap) + (r > 0) * margin * gap for r in range(n_rows)]
    left = [c * (width + gap) + (c > 0) * margin * gap for c in range(n_columns)]
    canvas = np.full((top[-1] + height, left[-1] + width, 3), 255, dtype=np.uint8)
    for y, row in zip(top, rows, strict=True):
        for x, picture in zip(left, row, strict=True):
            canvas[y : y + height, x : x + width] = picture
    axes.imshow(canvas)
    axes.set_anchor("NW")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, top=False, bottom=False, labeltop=True, labelbottom=False, pad=4)
    axes.set_yticks([y + height / 2 for y in top] if row_labels else [], row_labels or [])
    axes.set_xticks([x + width / 2 for x in left] if column_labels else [], column_labels or [])


def _check_labels(row_labels, column_labels, n_rows: int, n_columns: int) -> None:
    for name, labels, n in (("row_labels", row_labels, n_rows), ("column_labels", column_labels, n_columns)):
        if labels is not None and len(labels) != n:
            raise ValueError(f"{name} must have {n} entries, got {len(labels)}: {list(labels)}")


def _sheet(rows, row_labels, column_labels, title, cell, margin=0) -> NotebookFigure:
    n_columns, height, width = rows[0].shape[:3]
    beside = 0.085 * max((len(str(label)) for label in row_labels), default=0) if row_labels else 0.0
    figure = new_figure(
        (n_columns + margin * GAP) * cell * (1 + GAP) + beside + 0.1,
        (len(rows) + margin * GAP) * cell * height / width * (1 + GAP) + 0.25 * bool(column_labels) + 0.3 * bool(title) + 0.1,
    )
    axes = figure.add_subplot()
    draw_grid(axes, rows, row_labels, column_labels, margin)
    if column_labels and max(len(str(label)) for label in column_labels) > 11 * cell / 0.7:
        axes.tick_params(axis="x", labelrotation=40)
        for label in axes.get_xticklabels():
            label.set(ha="left", rotation_mode="anchor")
        figure.set_figheight(figure.get_figheight() + 0.035 * max(len(str(label)) for label in column_labels))
    if title:
        axes.set_title(title)
    return figure


def to_uint8(pictures: Tensor) -> np.ndarray:
    """uint8 (N, H, W, 3) from pictures (N, 3, H, W) in [-1, 1] or masks (N, 1, H, W) in [0, 1], ink to white."""
    pictures = torch.as_tensor(pictures).detach().float().cpu()
    ink = torch.tensor(to_rgb(INK)).view(3, 1, 1)
    unit = (pictures + 1) / 2 if pictures.shape[1] == 3 else torch.lerp(ink, torch.ones(3, 1, 1), pictures)
    return (unit.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
