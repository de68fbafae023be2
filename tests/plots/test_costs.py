import pytest

from tutorial_lib.plots.costs import cost_curves, saving_bars

POINTS = [
    {"curve": name, "x": x, "seconds": slope * x, "gigabytes": x / 10}
    for name, slope in (("batch", 0.5), ("codes, exact planes", 0.1), ("codes, full planes", 0.3))
    for x in (8, 2, 4)
]


def test_curves_are_drawn_in_order_with_a_row_a_cost():
    figure = cost_curves(POINTS, {"batch size": "batch", "N_c": ("codes, exact planes", "codes, full planes")})
    batch, codes, memory, _ = figure.axes
    assert [list(line.get_ydata()) for line in batch.lines] == [[1.0, 2.0, 4.0]]
    assert [line.get_label() for line in codes.lines] == ["exact planes", "full planes"]
    assert list(memory.lines[0].get_ydata()) == [0.2, 0.4, 0.8]
    assert [label.get_text() for label in memory.get_xticklabels()] == ["2", "4", "8"]
    assert all(axes.get_ylim()[0] == 0 for axes in figure.axes)


def test_curve_without_points_is_named():
    with pytest.raises(ValueError, match="points has no curve 'resolution'; it has batch, codes, exact planes"):
        cost_curves(POINTS, {"size": "resolution"})


def test_bars_are_ratios_to_the_reference():
    steps = {name: {"images_per_second": rate} for name, rate in (("bf16", 1.5), ("fp32 without: planes", 0.75), ("base", 0.5))}
    axes = saving_bars(steps, "title", "base").axes[0]
    assert [bar.get_width() for bar in axes.patches] == [3.0, 1.5, 1.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(steps)


def test_bars_name_a_reference_that_is_missing():
    with pytest.raises(ValueError, match="steps has no 'fp32, no savings'; it has fp32"):
        saving_bars({"fp32": {"images_per_second": 1.5}}, "title")
