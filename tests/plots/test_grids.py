import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from tutorial_lib.plots.grids import feature_sheet, image_grid, stage_sheet, swap_sheet, to_uint8, triangle_sheet


def labels(figure) -> tuple[list[str], list[str]]:
    axes = figure.axes[0]
    return [t.get_text() for t in axes.get_yticklabels()], [t.get_text() for t in axes.get_xticklabels()]


def test_rows_and_columns_carry_their_labels():
    figure = image_grid(torch.zeros(2, 3, 3, 8, 8), ["swan", "owl"], ["a", "b", "c"], title="Birds")
    assert labels(figure) == (["swan", "owl"], ["a", "b", "c"])
    assert figure.axes[0].get_title(loc="left") == "Birds"


def test_cells_hold_the_pictures_in_reading_order():
    grey = torch.linspace(-1, 1, 6).view(2, 3, 1, 1, 1).expand(2, 3, 3, 8, 8)
    canvas = image_grid(list(grey)).axes[0].images[0].get_array()
    centres = canvas[4::9, 4::9, 0]  # cells of 8 pixels, gaps of 1
    assert centres.tolist() == [[0, 51, 102], [153, 204, 255]]


def test_a_stage_sheet_has_a_row_for_each_stage():
    figure = stage_sheet({"background": torch.zeros(4, 3, 8, 8), "mask": torch.ones(4, 1, 8, 8)})
    assert labels(figure)[0] == ["background", "mask"]


def test_masks_run_from_ink_to_white():
    dark, light = to_uint8(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1))[:, 0, 0]
    assert dark.max() < 80
    assert (light == 255).all()


def test_pictures_outside_the_range_are_clipped():
    assert (to_uint8(torch.full((1, 3, 1, 1), 1.5)) == 255).all()


@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (2, 4, 1, 8, 8), (0, 4, 3, 8, 8)])
def test_a_wrong_shape_is_named(shape):
    with pytest.raises(ValueError, match=r"pictures must be \(R, C, 3, H, W\)"):
        image_grid(torch.zeros(shape))


def test_stages_of_different_length_are_named():
    with pytest.raises(ValueError, match=r"stages must agree in N, H, W, got .*'mask': \(3, 1, 8, 8\)"):
        stage_sheet({"image": torch.zeros(4, 3, 8, 8), "mask": torch.zeros(3, 1, 8, 8)})


def test_a_missing_label_is_named():
    with pytest.raises(ValueError, match=r"row_labels must have 2 entries, got 1: \['swan'\]"):
        image_grid(torch.zeros(2, 3, 3, 8, 8), ["swan"])


def test_figures_show_themselves_and_are_unknown_to_pyplot():
    before = plt.get_fignums()
    figure = image_grid(torch.zeros(1, 2, 3, 8, 8))
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert plt.get_fignums() == before


def test_the_callers_settings_are_left_alone():
    before = dict(plt.rcParams)
    image_grid(np.zeros((1, 2, 3, 8, 8), dtype=np.float32))
    assert dict(plt.rcParams) == before


def test_each_channel_has_a_scale_of_its_own_and_rows_share_it():
    ramp = torch.linspace(0, 1, 16).view(1, 1, 4, 4)
    features = torch.cat([torch.cat([ramp, 0 * ramp]), 100 * torch.cat([0 * ramp, ramp])], 1)  # (2, 2, 4, 4)
    canvas = feature_sheet(torch.zeros(2, 3, 8, 8), features).axes[0].images[0].get_array()
    cell = [[canvas[9 * r : 9 * r + 8, 9 * c : 9 * c + 8, 0] for c in range(3)] for r in range(2)]  # 8 pixels, gaps of 1
    for row, column in ((0, 1), (1, 2)):
        assert cell[row][column].min() < 80 and cell[row][column].max() == 255
        assert np.ptp(cell[1 - row][column]) == 0


def test_features_of_another_number_of_pictures_are_refused():
    with pytest.raises(ValueError, match="N = 2"):
        feature_sheet(torch.zeros(2, 3, 8, 8), torch.zeros(3, 2, 4, 4))


def greys(*shape: int) -> torch.Tensor:
    """Flat pictures (*shape, 3, 8, 8) from black to white."""
    n = torch.Size(shape).numel()
    return torch.linspace(-1, 1, n).view(*shape, 1, 1, 1).expand(*shape, 3, 8, 8)


def test_a_swap_sheet_has_donors_above_and_targets_to_the_left():
    figure = swap_sheet(greys(2), -greys(3), greys(2, 3), ["ann", "bob"], ["a", "b", "c"])
    canvas = figure.axes[0].images[0].get_array()
    assert canvas.shape == (8 + 3 + 8 + 1 + 8, 8 + 3 + 8 + 1 + 8 + 1 + 8, 3)  # 1 + 2 pixels after the edges, 1 elsewhere
    ys, xs = np.array([4, 15, 24]), np.array([4, 15, 24, 33])
    assert canvas[np.ix_(ys, xs)][..., 0].tolist() == [[255, 255, 128, 0], [0, 0, 51, 102], [255, 153, 204, 255]]
    assert labels(figure) == (["", "ann", "bob"], ["", "a", "b", "c"])


def test_results_that_do_not_fit_targets_and_donors_are_named():
    with pytest.raises(ValueError, match=r"\(2, 3, 3, 8, 8\) here, got \(3, 2, 3, 8, 8\)"):
        swap_sheet(greys(2), greys(3), greys(3, 2))
    with pytest.raises(ValueError, match=r"column_labels must have 3 entries, got 2: \['a', 'b'\]"):
        swap_sheet(greys(2), greys(3), greys(2, 3), column_labels=["a", "b"])


def test_a_triangle_has_rows_of_one_to_n():
    canvas = triangle_sheet(greys(6), ["top", "left", "right"]).axes[0].images[0].get_array()
    assert canvas.shape == (26, 26, 3)
    assert canvas[4, 13, 0] == 0
    assert canvas[13, [8, 17], 0].tolist() == [51, 102]
    assert canvas[22, [4, 13, 22], 0].tolist() == [153, 204, 255]
    assert (canvas[4, :8] == 255).all()


def test_names_of_the_lower_corners_stand_below_the_pictures():
    figure = triangle_sheet(greys(15), ["first person", "second one", "third one"])
    figure.draw_without_rendering()
    (axes,) = figure.axes
    bottom = axes.transData.transform((0, axes.images[0].get_array().shape[0]))[1]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert all(box.y1 <= bottom + 1 and box.y0 >= 0 for box in boxes[1:]) and boxes[1].x1 < boxes[2].x0


@pytest.mark.parametrize("n", [1, 4, 7])
def test_what_fills_no_triangle_is_named(n):
    with pytest.raises(ValueError, match=rf"K = 3, 6, 10, 15 …, got \({n}, 3, 8, 8\)"):
        triangle_sheet(greys(n))
    with pytest.raises(ValueError, match="corners must have 3 entries, got 2"):
        triangle_sheet(greys(3), ["a", "b"])
