"""Strengths read off results against the strengths that were asked for."""

from collections.abc import Mapping, Sequence

import numpy as np

from tutorial_lib.plots.style import FAINT, GREY, NotebookFigure, colours, legend_of, new_figure, styled


@styled
def strength_panels(
    readings: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]], names: Sequence[str], size: float = 2.5
) -> NotebookFigure:
    """A panel for each model, by name: strengths read (N,) over strengths given (N,), coloured by label (N,).

    readings: (given, read, label) of each; names[i] is what label i is called, and only labels that occur are drawn. Pearson's
    correlation over all of them stands above. On the grey line a result is as strong as what it was made from.
    """
    if not readings:
        raise ValueError("readings is empty: no model to draw")
    readings = {model: tuple(map(np.asarray, parts)) for model, parts in readings.items()}
    for model, parts in readings.items():
        if len({part.shape for part in parts}) != 1 or parts[0].ndim != 1 or len(parts[0]) < 2:
            raise ValueError(f"{model}: strengths and labels must be (N,) each, N >= 2, got {[part.shape for part in parts]}")
    figure = new_figure(len(readings) * size + 1.6, size + 0.4)
    panels = figure.subplots(1, len(readings), squeeze=False, sharex=True, sharey=True)[0]
    for axes, (model, (given, read, label)) in zip(panels, readings.items(), strict=True):
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, zorder=0)
        for i, colour in enumerate(colours(len(names))):
            if (label == i).any():
                axes.scatter(given[label == i], read[label == i], s=9, color=colour, alpha=0.7, linewidths=0, label=names[i])
        axes.set_title(f"{model}, r = {correlation(given, read):.2f}")
        axes.set(xlabel="donor's strength", xlim=(-0.03, 1.03), aspect="equal")
        axes.tick_params(labelsize=7, labelcolor=GREY, length=0)
        axes.grid()
    panels[0].set_ylabel("result's strength")
    low, high = np.quantile(np.concatenate([read for _, read, _ in readings.values()]), (0.005, 0.995))
    panels[0].set_ylim(min(0, low) - 0.03, max(1, high) + 0.03)
    figure.legend(*legend_of(panels), loc="outside right center", markerscale=1.8, handletextpad=0.1)
    return figure


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's, and 0 where one of them does not vary."""
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) > 0 and np.ptp(b) > 0 else 0.0
