"""Classes in the plane: points, and the Gaussians that a mixture prior gives them."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from torch import Tensor

from tutorial_lib.plots.style import NotebookFigure, colours, new_figure, styled

DEVIATIONS = (1, 2)  # of the ellipses


@styled
def class_panels(
    panels: Mapping[str, tuple[Tensor, Tensor]],
    gaussians: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    columns: int = 4,
    size: float = 2.1,
) -> NotebookFigure:
    """A panel for each title: points (N, 2) with labels (N,), a colour a class; all panels have one scale.

    gaussians: means and log variances, both (C, 2), by the titles of the panels they belong to; drawn as ellipses of one and
    two standard deviations with the class's number in the middle. Raises ValueError for other shapes, and for titles that no
    panel has.
    """
    panels = {title: (_array(points), _array(labels)) for title, (points, labels) in panels.items()}
    gaussians = {title: (_array(mean), _array(log)) for title, (mean, log) in (gaussians or {}).items()}
    _check(panels, gaussians)
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(columns * size, rows * (size + 0.25))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    classes = np.unique(np.concatenate([labels for _, labels in panels.values()]))
    palette = dict(zip(classes.tolist(), colours(len(classes)), strict=True))
    low, high = _limits(panels, gaussians)
    centre, reach = (low + high) / 2, 0.54 * (high - low).max()
    for place, (title, (points, labels)) in zip(axes, panels.items(), strict=False):
        marker = float(np.clip(1500 / len(points), 1.5, 12))
        for label, colour in palette.items():
            place.scatter(*points[labels == label].T, s=marker, color=colour, linewidths=0, alpha=0.6, rasterized=True)
        if title in gaussians:
            _ellipses(place, *gaussians[title], palette)
        place.set(title=title, xticks=[], yticks=[], aspect="equal")
        place.set(xlim=(centre[0] - reach, centre[0] + reach), ylim=(centre[1] - reach, centre[1] + reach))
    for place in axes[len(panels) :]:
        place.set_visible(False)
    return figure


def _ellipses(axes: Axes, means: np.ndarray, log_variances: np.ndarray, palette: Mapping[int, object]) -> None:
    for label, (mean, deviation) in enumerate(zip(means, np.exp(0.5 * log_variances), strict=True)):
        colour = palette.get(label, "black")
        for times in DEVIATIONS:
            width, height = 2 * times * deviation
            axes.add_patch(Ellipse(mean, width, height, fill=False, edgecolor=colour, linewidth=1.4 / times))
        axes.text(
            *mean, str(label), color=colour, fontsize=8, weight="bold", ha="center", va="center", clip_on=True,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )  # fmt: skip


def _limits(panels: Mapping, gaussians: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner (2,) of what all panels show: all points, and the middle of every Gaussian."""
    shown = [points for points, _ in panels.values()] + [means for means, _ in gaussians.values()]
    shown = np.concatenate(shown)
    return shown.min(0), shown.max(0)


def _check(panels: Mapping, gaussians: Mapping) -> None:
    if not panels:
        raise ValueError("panels is empty: nothing to draw")
    for title, (points, labels) in panels.items():
        if points.ndim != 2 or points.shape[1] != 2 or labels.shape != points.shape[:1]:
            raise ValueError(f"panel {title!r} needs points (N, 2) and labels (N,), got {points.shape} and {labels.shape}")
    for title, (means, log_variances) in gaussians.items():
        if title not in panels:
            raise ValueError(f"gaussians of {title!r}, which is no panel; there are {', '.join(panels)}")
        if means.ndim != 2 or means.shape[1] != 2 or log_variances.shape != means.shape:
            raise ValueError(f"gaussians of {title!r} must be two of (C, 2), got {means.shape} and {log_variances.shape}")


def _array(values: Tensor) -> np.ndarray:
    return torch.as_tensor(values).detach().cpu().numpy()
