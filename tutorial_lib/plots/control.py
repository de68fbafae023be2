"""The control matrix as a heat map."""

from collections.abc import Mapping

from tutorial_lib.metrics.control import ControlMatrix
from tutorial_lib.plots.style import INK, SEQUENTIAL, NotebookFigure, new_figure, styled


@styled
def control_heatmap(matrix: ControlMatrix | Mapping[str, ControlMatrix], cell: float = 0.62) -> NotebookFigure:
    """One control matrix, or several by title side by side, from 0 (paper) to 1 (ink). `cell`: inches an entry."""
    import seaborn

    matrices = {"": matrix} if isinstance(matrix, ControlMatrix) else dict(matrix)
    if not matrices:
        raise ValueError("matrix is empty: no control matrix to draw")
    widest = max(len(m.columns) for m in matrices.values())
    tallest = max(len(m.rows) for m in matrices.values())
    label_width = 0.085 * max(len(row) for m in matrices.values() for row in m.rows)
    figure = new_figure(
        len(matrices) * (widest * cell + 0.25 + label_width) + 0.5, tallest * cell + 0.45 + 0.2 * (len(matrices) > 1)
    )
    panels = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axes, (title, m) in zip(panels, matrices.items(), strict=True):
        seaborn.heatmap(
            m.values, vmin=0, vmax=1, cmap=SEQUENTIAL, square=True, linewidths=2, linecolor="white", cbar=False,
            annot=True, fmt=".2f", annot_kws={"size": 8.5}, xticklabels=m.columns, yticklabels=m.rows, ax=axes,
        )  # fmt: skip
        axes.tick_params(length=0, labelrotation=0)
        axes.tick_params(axis="x", labelsize=7.5, pad=12)
        for label in axes.get_xticklabels():
            label.set_verticalalignment("baseline")
        for entry, value in zip(axes.texts, m.values.flat, strict=True):
            entry.set_color(INK if value < 0.6 else "white")  # where ink and white stand out equally
        axes.set_title(title)
    bar = figure.colorbar(panels[-1].collections[0], cax=panels[-1].inset_axes([1.04, 0, 0.14 / widest, 1]), ticks=[0, 0.5, 1])
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    bar.set_ticklabels(["0", "0.5", "1"])
    return figure
