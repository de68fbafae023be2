"""Curves from a metric log."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from tutorial_lib.plots.style import FAINT, GREY, NotebookFigure, colours, legend_of, new_figure, styled

BOOKKEEPING = frozenset({"step", "steps", "images", "seconds", "images_per_second"})


def read_log(path: str | Path) -> list[dict]:
    """The lines of a metrics.jsonl file."""
    return [json.loads(line) for line in Path(path).read_text().splitlines() if line]


@styled
def metric_curves(
    metrics: Sequence[Mapping], keys: Sequence[str] | None = None, title: str | None = None, columns: int = 4
) -> NotebookFigure:
    """A small panel for each value over the steps, on its own scale; all losses unless `keys` names some.

    `metrics`: lines with `step` and values, flat or under `losses`, as the training loop logs them.
    """
    steps, values = series(metrics, keys)
    columns = min(columns, len(values))
    rows = math.ceil(len(values) / columns)
    figure = new_figure(1.9 * columns, 1.25 * rows + 0.3 * bool(title))
    panels = figure.subplots(rows, columns, squeeze=False)
    draw_curves(panels.flat, steps, values)
    for axes in panels.flat[-columns:]:
        axes.set_xlabel("step", fontsize=7.5)
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    return figure


@styled
def compared_curves(
    groups: Mapping[str, Sequence[Mapping[str, Sequence[float]]]], keys: Mapping[str, str], columns: int = 3
) -> NotebookFigure:
    """A panel for each key, by key and title: the runs of each group thin, in its colour, and their mean, smoothed over a
    twentieth of the run, thick.

    A run is its log by column: `step`, and a value a step under each key; runs that lack a key are left out of its panel. Runs
    may end at different steps. Raises ValueError if those of a group were logged at different ones.
    """
    if not any(groups.values()) or not keys:
        raise ValueError(f"needs at least one run and one key, got groups {list(groups)} and keys {list(keys)}")
    columns = min(columns, len(keys))
    rows = math.ceil(len(keys) / columns)
    figure = new_figure(2.6 * columns, 1.75 * rows + 0.3)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (key, title) in zip(panels, keys.items(), strict=False):
        for (name, runs), colour in zip(groups.items(), colours(len(groups)), strict=True):
            drawn = [run for run in runs if key in run]
            for run in drawn:
                axes.plot(run["step"], run[key], color=colour, linewidth=0.5, alpha=0.45)
            if drawn:
                shortest = min(len(run[key]) for run in drawn)
                if len({tuple(run["step"][:shortest]) for run in drawn}) > 1:
                    raise ValueError(f"runs of {name!r} were logged at different steps: there is no mean of {key!r}")
                mean = np.mean([run[key][:shortest] for run in drawn], axis=0)
                window = max(1, shortest // 20)
                smooth = np.convolve(mean, np.ones(window) / window, mode="valid")
                start = (window - 1) // 2
                axes.plot(drawn[0]["step"][start : start + len(smooth)], smooth, color=colour, label=name, linewidth=1.8)
        axes.set_title(title, fontsize=8.5)
        axes.grid(axis="y")
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.tick_params(labelsize=7, labelcolor=GREY, length=0)
        axes.locator_params(nbins=4)
    for axes in panels[len(keys) :]:
        axes.set_visible(False)
    figure.legend(*legend_of(panels), loc="outside lower center", ncols=len(groups))
    return figure


def series(metrics: Sequence[Mapping], keys: Sequence[str] | None = None) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Steps (T,) and each value (T,) of a metric log; NaN where a line lacks it."""
    lines = [{**line, **line.get("losses", {})} for line in metrics]
    if not lines or any("step" not in line for line in lines):
        raise ValueError(f"metrics must be lines with a 'step', got {lines[:1] or 'none'}")
    found = {k: None for line in lines for k, v in line.items() if isinstance(v, Real) and k not in BOOKKEEPING}
    keys = list(found) if keys is None else list(keys)
    unknown = [key for key in keys if all(key not in line for line in lines)]
    if unknown or not keys:
        raise ValueError(f"metrics has no {unknown or 'values'}; it has {', '.join(found) or 'nothing but steps'}")
    steps = np.array([line["step"] for line in lines])
    return steps, {key: np.array([float(line.get(key, math.nan)) for line in lines]) for key in keys}


def draw_curves(panels: Iterable[Axes], steps: np.ndarray, values: Mapping[str, np.ndarray], until: int | None = None) -> None:
    """One panel a value: the curve, its name, its latest value. Steps run to `until`; panels left over are hidden.

    Some values are not there in every line: they are joined over those without.
    """
    panels = list(panels)
    for axes, (name, line), colour in zip(panels, values.items(), colours(len(values)), strict=False):
        there = np.isfinite(line)
        at, line = steps[there], line[there]
        axes.plot(at, line, color=colour)
        axes.plot(at[-1:], line[-1:], "o", color=colour, markersize=3, clip_on=False)
        axes.set_title(name.replace("_", " "), fontsize=7.5, pad=4)
        axes.set_title(f"{line[-1]:.3g}" if len(line) else "", fontsize=7.5, pad=4, loc="right", color=GREY)
        axes.grid(axis="y")
        axes.tick_params(labelsize=7, labelcolor=GREY, length=0)
        axes.spines["left"].set_visible(False)
        axes.locator_params(nbins=3)
        axes.set_xlim(0, until or steps[-1])
        axes.set_xticks([0, until or steps[-1]], ["0", f"{until or steps[-1]:,}"])
        axes.get_xticklabels()[0].set_ha("left")
        axes.get_xticklabels()[1].set_ha("right")
        if len(line) and line.min() < 0 < line.max():
            axes.axhline(0, color=FAINT, linewidth=0.8)
    for axes in panels[len(values) :]:
        axes.set_visible(False)
