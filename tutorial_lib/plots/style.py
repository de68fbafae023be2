"""One look for all figures: palette, colour map, type."""

import functools
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from PIL import Image

from tutorial_lib.data.pictures import small_png

INK, GREY, FAINT = "#22313a", "#7b868c", "#d9dedf"
PALETTE = (
    "#1f7a8c", "#e4714f", "#e2b33c", "#4b5fa8", "#8fae5d",
    "#b3528c", "#69b8c9", "#9a6a3f", "#8d7cc3", "#7b868c",
)  # fmt: skip
SEQUENTIAL = LinearSegmentedColormap.from_list(
    "paper_to_ink", ["#f8f6f0", "#d3e5dd", "#8fc4ba", "#43909a", "#1d5d73", "#123447"]
)

RC = {
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that figures look the same everywhere
    "font.size": 8.5,
    "text.color": INK,
    "figure.titlesize": 10.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.titlepad": 7,
    "axes.labelcolor": GREY,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#edf0f0",
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
}

P, R = ParamSpec("P"), TypeVar("R")


def legend_of(panels: Iterable[Axes]) -> tuple[list[Artist], list[str]]:
    """Handles and labels of what has a name in any of the panels, each once."""
    found: dict[str, Artist] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


class NotebookFigure(Figure):
    """A figure that shows itself as the value of a cell, whether or not pyplot was ever imported."""

    def png(self, *, small: bool = True) -> bytes:
        """The figure as the bytes of a `small_png`, so that stored notebooks stay small; or, sooner, in all its colours."""
        canvas = FigureCanvasAgg(self)
        if small:
            canvas.draw()
            return small_png(Image.fromarray(np.asarray(canvas.buffer_rgba())))
        file = BytesIO()
        canvas.print_png(file)
        return file.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png()


def new_figure(width: float, height: float) -> NotebookFigure:
    """An empty figure, size in inches. Call it inside a `styled` function."""
    return NotebookFigure(figsize=(width, height))


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function under the course's matplotlib settings and leave the caller's alone."""

    @functools.wraps(function)
    def in_style(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(RC):
            return function(*args, **kwargs)

    return in_style


def colours(n: int) -> list:
    """n colours that can be told apart: the palette, or an even walk around the hues when it is too short."""
    if n <= len(PALETTE):
        return list(PALETTE[:n])
    import seaborn

    return list(seaborn.husl_palette(n, s=0.75, l=0.62))
