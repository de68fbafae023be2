import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from tutorial_lib.metrics.control import ControlMatrix
from tutorial_lib.plots.control import control_heatmap

MATRIX = ControlMatrix(np.array([[1.0, 0.02, 0.5], [0.1, 0.9, 0.0]]), ("b", "p"), ("background", "shape", "texture"))


def test_rows_columns_and_entries_are_written():
    axes = control_heatmap(MATRIX).axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["b", "p"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["background", "shape", "texture"]
    assert [t.get_text() for t in axes.texts] == ["1.00", "0.02", "0.50", "0.10", "0.90", "0.00"]


def test_several_matrices_stand_side_by_side_on_one_scale():
    figure = control_heatmap({"FineGAN": MATRIX, "InfoGAN": MATRIX})
    panels = figure.axes[:2]
    assert [axes.get_title(loc="left") for axes in panels] == ["FineGAN", "InfoGAN"]
    assert [axes.collections[0].get_clim() for axes in panels] == [(0, 1), (0, 1)]


def test_every_entry_can_be_read_on_its_cell():
    """Contrast as WCAG defines it, at least 3 : 1 for all values."""

    def luminance(colour) -> float:
        rgb = np.array(to_rgb(colour))
        return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)

    values = np.linspace(0, 1, 21)
    axes = control_heatmap(ControlMatrix(values[None], ("b",), tuple(f"{v:.2f}" for v in values))).axes[0]
    cells = axes.collections[0].to_rgba(values)
    for value, text, cell in zip(values, axes.texts, cells, strict=True):
        low, high = sorted((luminance(text.get_color()), luminance(cell)))
        assert (high + 0.05) / (low + 0.05) >= 3, f"entry {value:.2f}"


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="matrix is empty"):
        control_heatmap({})


def test_no_figure_is_left_open():
    before = plt.get_fignums()
    control_heatmap(MATRIX).png()
    assert plt.get_fignums() == before
