"""Features in the plane: t-SNE and UMAP panels coloured by what is known."""

from collections.abc import Mapping

import numpy as np

from tutorial_lib.metrics.embedding import embed as embed
from tutorial_lib.metrics.hopkins import Hopkins
from tutorial_lib.plots.style import GREY, SEQUENTIAL, NotebookFigure, colours, new_figure, styled


@styled
def embedding_panels(
    points: np.ndarray,
    labels: Mapping[str, np.ndarray],
    hopkins: Hopkins | None = None,
    names: Mapping[str, list[str]] | None = None,
    size: float = 2.9,
) -> NotebookFigure:
    """The same points (N, 2) once for each labelling (N,): integers or strings as colours, floats as a scale.

    `names[key][i]` is what class i of labelling `key` is called. `hopkins`, of the features or of the points, stands below.
    """
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points must have shape (N, 2), got {points.shape}")
    if not labels:
        raise ValueError("labels is empty: nothing to colour the points by")
    for key, values in labels.items():
        if np.shape(values) != (len(points),):
            raise ValueError(f"labels[{key!r}] must have shape ({len(points)},), got {np.shape(values)}")

    figure = new_figure(len(labels) * (size + 0.8), size + 0.35 + 0.2 * (hopkins is not None))
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    reach = 0.53 * np.ptp(points, axis=0).max() * np.array([-1, 1])
    marker = float(np.clip(4000 / len(points), 2.5, 18))
    for axes, (key, values) in zip(figure.subplots(1, len(labels), squeeze=False)[0], labels.items(), strict=True):
        values = np.asarray(values)
        style = {"s": marker, "linewidths": 0, "alpha": 0.85, "rasterized": True}
        if values.dtype.kind == "f":
            dots = axes.scatter(*points.T, c=values, cmap=SEQUENTIAL, **style)
            bar = figure.colorbar(dots, ax=axes, shrink=0.7, aspect=22, pad=0.02)
            bar.outline.set_visible(False)
            bar.ax.tick_params(length=0, labelsize=7)
        else:
            classes = np.unique(values)
            palette = np.array([colour if len(classes) > 10 else _rgb(colour) for colour in colours(len(classes))])
            index = np.searchsorted(classes, values)
            axes.scatter(*points.T, c=palette[index], **style)
            for i, c in enumerate(classes):
                known = names[key] if names and key in names and values.dtype.kind in "iu" else ()
                name = known[c] if known and 0 <= c < len(known) else str(c)  # −1 is unknown
                axes.scatter([], [], color=palette[i], s=16, label=name)
            axes.legend(
                loc="center left", bbox_to_anchor=(1, 0.5), ncols=1 + len(classes) // 13,
                handletextpad=0.1, columnspacing=0.6, labelspacing=0.35, borderaxespad=0.2, fontsize=7,
            )  # fmt: skip
        axes.set(title=key, xticks=[], yticks=[], aspect="equal")
        axes.set(xlim=centre[0] + reach, ylim=centre[1] + reach)
        axes.spines[:].set_visible(False)
    if hopkins is not None:
        figure.supxlabel(f"Hopkins statistic: {hopkins}   (0.5: spread evenly over their box)", color=GREY, fontsize=8)
    return figure


def _rgb(colour: str) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    return to_rgb(colour)
