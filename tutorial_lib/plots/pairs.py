"""Pairs of a picture and a code, as MixNMatch's image-code discriminators see them."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from tutorial_lib.plots.grids import to_uint8
from tutorial_lib.plots.style import GREY, PALETTE, NotebookFigure, new_figure, styled


@styled
def pair_figure(pairs: Mapping[str, tuple[Tensor, Tensor, Tensor]], cell: float = 0.8) -> NotebookFigure:
    """A row for each kind of pair, by name: pictures (N, 3, H, W), the code of each (N, K) as bars, and D's scores (N,)."""
    counts = {name: tuple(len(part) for part in parts) for name, parts in pairs.items()}
    if len({count for row in counts.values() for count in row}) != 1:
        raise ValueError(f"pictures, codes and scores must agree in N, got {counts}")
    n = len(next(iter(pairs.values()))[0])
    figure = new_figure(n * cell + 1.2, len(pairs) * 1.85 * cell)
    panels = figure.subplots(2 * len(pairs), n, squeeze=False, height_ratios=[1, 0.45] * len(pairs))
    for row, (name, (pictures, codes, scores)) in enumerate(pairs.items()):
        codes = codes.detach().float().cpu().numpy()
        for column, (picture, code, score) in enumerate(zip(to_uint8(pictures), codes, scores.tolist(), strict=True)):
            above, below = panels[2 * row : 2 * row + 2, column]
            above.imshow(picture)
            above.set(xticks=[], yticks=[])
            above.spines[:].set_visible(False)
            below.bar(np.arange(len(code)), code, width=0.85, color=PALETTE[row])
            below.set(ylim=(min(0.0, codes.min()), max(1.0, codes.max())), xticks=[], yticks=[])
            below.spines["left"].set_visible(False)
            below.set_xlabel(f"D: {score:.1f}", fontsize=7.5, color=GREY, labelpad=2)
        panels[2 * row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8.5)
    return figure
