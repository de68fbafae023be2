"""What a training step costs: how that grows, and what each saving is worth."""

from collections.abc import Mapping, Sequence

from tutorial_lib.plots.style import GREY, INK, PALETTE, NotebookFigure, new_figure, styled

COSTS = {"seconds": "seconds a step", "gigabytes": "GB of tensors at once"}


@styled
def cost_curves(points: Sequence[Mapping], titles: Mapping[str, str | Sequence[str]]) -> NotebookFigure:
    """Seconds and memory of a training step, a column for each title, against what is changed there.

    points: {"curve", "x", "seconds", "gigabytes"} each, as benchmarks/costs.py stores them; titles: title by the name of a
    curve, or by several that share a column, named "first, second". Raises ValueError for a curve that has no points.
    """
    columns = {title: [name] if isinstance(name, str) else list(name) for title, name in titles.items()}
    known = {point["curve"] for point in points}
    if unknown := [name for names in columns.values() for name in names if name not in known]:
        raise ValueError(f"points has no curve {unknown[0]!r}; it has {', '.join(sorted(known))}")
    figure = new_figure(2.5 * len(columns), 3.6)
    panels = figure.subplots(len(COSTS), len(columns), sharex="col", squeeze=False)
    for row, (cost, label) in zip(panels, COSTS.items(), strict=True):
        for axes, (title, names) in zip(row, columns.items(), strict=True):
            for name, colour in zip(names, PALETTE, strict=False):
                curve = sorted((point["x"], point[cost]) for point in points if point["curve"] == name)
                axes.plot(*zip(*curve, strict=True), "o-", color=colour, markersize=3.5, label=name.split(", ")[-1])
            places = sorted({point["x"] for point in points if point["curve"] in names})
            axes.set_xticks(places, [f"{place:,}" for place in places])
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)
            axes.grid(axis="y")
            axes.tick_params(labelsize=7, labelcolor=GREY)
            if cost == "seconds":
                axes.set_title(title, fontsize=8.5)
            if len(names) > 1 and cost == "seconds":
                axes.legend(fontsize=7)
        row[0].set_ylabel(label, fontsize=7.5)
    return figure


@styled
def saving_bars(steps: Mapping[str, Mapping], title: str, reference: str = "fp32, no savings") -> NotebookFigure:
    """Pictures a second of every arrangement of a training step, as bars, in multiples of one of them.

    steps: {"images_per_second"} by arrangement, as benchmarks/training_step.py stores them. Raises ValueError if the reference
    is not among them.
    """
    if reference not in steps:
        raise ValueError(f"steps has no {reference!r}; it has {', '.join(steps) or 'nothing'}")
    ratios = {name: step["images_per_second"] / steps[reference]["images_per_second"] for name, step in steps.items()}
    figure = new_figure(7.0, 0.26 * len(ratios) + 0.7)
    axes = figure.subplots()
    places = range(len(ratios), 0, -1)
    shades = [PALETTE[0] if "without" not in name and "no savings" not in name else PALETTE[6] for name in ratios]
    axes.barh(places, list(ratios.values()), color=shades, height=0.7)
    for place, ratio in zip(places, ratios.values(), strict=True):
        axes.text(ratio, place, f" {ratio:.2f}", va="center", fontsize=7.5, color=INK)
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.set_yticks(places, list(ratios), fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"pictures a second; {reference} = 1", fontsize=7.5)
    axes.set_title(title)
    return figure
