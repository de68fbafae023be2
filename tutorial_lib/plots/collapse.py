"""Which dimensions of a code say anything: the KL of each from its prior."""

from collections.abc import Mapping, Sequence

import numpy as np

from tutorial_lib.plots.style import GREY, NotebookFigure, colours, new_figure, styled


@styled
def kl_bars(codes: Mapping[str, Sequence[float]], width: float = 2.6, height: float = 1.7) -> NotebookFigure:
    """A panel for each code by title: the KL (d,) of its dimensions in nats, the highest first, all on one scale.

    Raises ValueError if there is no code, and for values that are no KL: not finite or negative.
    """
    if not codes:
        raise ValueError("codes is empty: nothing to draw")
    values = {title: np.sort(np.asarray(kl, dtype=float))[::-1] for title, kl in codes.items()}
    for title, kl in values.items():
        if kl.ndim != 1 or not len(kl) or not np.isfinite(kl).all() or kl.min() < -1e-6:
            raise ValueError(f"the KL of {title!r} must be (d,), finite and not negative, got {codes[title]!r:.80}")
    figure = new_figure(width * len(values), height)
    panels = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    for axes, (title, kl), colour in zip(panels, values.items(), colours(len(values)), strict=True):
        axes.bar(np.arange(1, len(kl) + 1), kl, color=colour, width=0.8)
        axes.set_title(title)
        axes.grid(axis="y")
        axes.set_xticks(sorted({1, len(kl)}))
        axes.set_xlabel("dimensions, the busiest first", fontsize=7.5)
        axes.tick_params(labelsize=7, labelcolor=GREY, length=0)
        axes.spines["left"].set_visible(False)
    panels[0].set_ylabel("KL in nats", fontsize=7.5)
    return figure
