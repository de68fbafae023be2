import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.patches import Ellipse

from tutorial_lib.plots.classes import DEVIATIONS, class_panels
from tutorial_lib.plots.style import PALETTE

POINTS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [4.0, 2.0]])
LABELS = torch.tensor([0, 0, 1])
MEANS, LOG_VARIANCES = torch.tensor([[0.5, 0.0], [4.0, 2.0]]), torch.tensor([[0.0, 0.0], [4.0, -2.0]]).exp().log()


def shown(axes) -> list[tuple]:
    """Place and colour of every point."""
    return [
        (tuple(map(float, point)), tuple(dots.get_facecolor()[0][:3]))
        for dots in axes.collections
        for point in dots.get_offsets()
    ]


def test_points_have_the_colour_of_their_class_in_every_panel():
    figure = class_panels({"all": (POINTS, LABELS), "the second class": (POINTS[2:], LABELS[2:])})
    first, second = (to_rgba(colour)[:3] for colour in PALETTE[:2])
    assert shown(figure.axes[0]) == [((0.0, 0.0), first), ((1.0, 0.0), first), ((4.0, 2.0), second)]
    assert shown(figure.axes[1]) == [((4.0, 2.0), second)]


def test_panels_have_one_scale_that_shows_all_points():
    figure = class_panels({"near": (POINTS[:2], LABELS[:2]), "far": (POINTS + 10, LABELS)})
    near, far = figure.axes
    assert near.get_xlim() == far.get_xlim() and near.get_ylim() == far.get_ylim()
    for (low, high), axis in ((near.get_xlim(), 0), (near.get_ylim(), 1)):
        assert low < 0 and high > float(POINTS[:, axis].max()) + 10
    assert near.get_xlim()[1] - near.get_xlim()[0] == pytest.approx(near.get_ylim()[1] - near.get_ylim()[0])


def test_an_ellipse_reaches_as_many_standard_deviations_as_it_says():
    axes = class_panels({"codes": (POINTS, LABELS)}, {"codes": (MEANS, LOG_VARIANCES)}).axes[0]
    ellipses = [patch for patch in axes.patches if isinstance(patch, Ellipse)]
    assert len(ellipses) == 2 * len(DEVIATIONS)
    inner = ellipses[len(DEVIATIONS)]  # of the second class: standard deviations e² and 1/e
    assert tuple(inner.center) == (4.0, 2.0)
    deviation = LOG_VARIANCES[1].div(2).exp()
    assert (inner.width, inner.height) == pytest.approx((2 * float(deviation[0]), 2 * float(deviation[1])))
    assert [text.get_text() for text in axes.texts] == ["0", "1"]


def test_a_class_without_points_still_has_its_gaussian():
    axes = class_panels({"codes": (POINTS[:2], LABELS[:2])}, {"codes": (MEANS, LOG_VARIANCES)}).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0", "1"]


@pytest.mark.parametrize(
    ("panels", "gaussians", "message"),
    [
        ({}, {}, "panels is empty"),
        ({"a": (torch.zeros(3, 3), LABELS)}, {}, r"panel 'a' needs points \(N, 2\) and labels \(N,\), got \(3, 3\) and \(3,\)"),
        ({"a": (POINTS, LABELS[:2])}, {}, r"got \(3, 2\) and \(2,\)"),
        ({"a": (POINTS, LABELS)}, {"b": (MEANS, MEANS)}, "gaussians of 'b', which is no panel; there are a"),
        ({"a": (POINTS, LABELS)}, {"a": (MEANS, MEANS[:1])}, r"must be two of \(C, 2\), got \(2, 2\) and \(1, 2\)"),
    ],
)
def test_what_does_not_fit_is_named(panels, gaussians, message):
    with pytest.raises(ValueError, match=message):
        class_panels(panels, gaussians)
