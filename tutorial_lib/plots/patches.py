"""Which patches of a picture count for FineGAN's background critic."""

from collections.abc import Sequence

import numpy as np
from matplotlib.patches import Rectangle
from torch import Tensor

from tutorial_lib.plots.grids import to_uint8
from tutorial_lib.plots.style import PALETTE, NotebookFigure, new_figure, styled


@styled
def patch_figure(
    scenes: Tensor, boxes: Tensor, weights: Tensor, receptive_field: int, stride: int, titles: Sequence[str] | None = None
) -> NotebookFigure:
    """Scenes (N, 3, S, S) with their boxes (N, 4); a dot is a cell of the critic, at the centre of what it sees.

    Filled dots count (weights (N, cells, cells) of 1), hollow ones are left out. The dashed square is what one cell sees.
    """
    if not len(scenes) == len(boxes) == len(weights):
        raise ValueError(f"scenes, boxes and weights must agree in N, got {len(scenes)}, {len(boxes)}, {len(weights)}")
    figure = new_figure(1.9 * len(scenes), 2.1)
    centre = np.arange(weights.shape[-1]) * stride + receptive_field / 2
    x, y = np.meshgrid(centre, centre)
    panels = figure.subplots(1, len(scenes), squeeze=False)[0]
    for i, (axes, scene, box, weight) in enumerate(zip(panels, to_uint8(scenes), boxes.tolist(), weights, strict=True)):
        size = scene.shape[0]
        axes.imshow(scene, extent=(0, size, size, 0))
        counts = weight.numpy() > 0
        axes.scatter(x[~counts], y[~counts], s=9, facecolors="none", edgecolors="white", linewidths=0.7)
        axes.scatter(x[counts], y[counts], s=11, color="white", edgecolors="black", linewidths=0.5)
        x1, y1, x2, y2 = box
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=PALETTE[1], linewidth=1.8))
        chosen = np.argwhere(counts)
        if len(chosen):
            row, column = chosen[0]
            corner = (column * stride, row * stride)
            axes.add_patch(Rectangle(corner, receptive_field, receptive_field, fill=False, linestyle="--", color="black"))
        axes.set(xticks=[], yticks=[], xlim=(0, size), ylim=(size, 0))
        axes.set_title(f"{counts.sum()} of {counts.size} cells count" if titles is None else titles[i], fontsize=8)
        axes.spines[:].set_visible(False)
    return figure
