import pytest

from tutorial_lib.plots.costs import cost_curves, saving_bars

POINTS = [
    {"curve": name, "x": x, "seconds": slope * x, "gigabytes": x / 10}
    for name, slope in (("batch", 0.5), ("codes", 0.1), ("codes, full planes", 0.3))
    for x in (8, 2, 4)
]


def test_curves_are_drawn_in_order_with_a_row_a_cost():
    figure = cost_curves(POINTS, {"batch size": "batch", "N_c": ("codes", "codes, full planes")})
    batch, codes, memory, _ = figure.axes
    assert [list(line.get_ydata()) for line in batch.lines] == [[1.0, 2.0, 4.0]]
    assert [line.get_label() for line in codes.lines] == ["codes", "full planes"]
    assert list(memory.lines[0].get_ydata()) == [0.2, 0.4, 0.8]
    assert list(batch.xaxis.get_majorticklocs()) == [2, 4, 8]
    assert all(axes.get_ylim()[0] == 0 for axes in figure.axes)


def test_curve_without_points_is_named():
    with pytest.raises(ValueError, match="points has no curve 'resolution'; it has batch, codes"):
        cost_curves(POINTS, {"size": "resolution"})


def test_bars_are_ratios_to_the_reference():
    steps = {"fp32": {"images_per_second": 1.5}, "fp32 without: planes": {"images_per_second": 1.0}}
    axes = saving_bars(steps, 0.5, "title").axes[0]
    assert [bar.get_width() for bar in axes.patches] == [3.0, 2.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(steps)


def test_bars_need_a_reference():
    with pytest.raises(ValueError, match="a reference above 0, got 1 steps and 0"):
        saving_bars({"fp32": {"images_per_second": 1.5}}, 0, "title")
