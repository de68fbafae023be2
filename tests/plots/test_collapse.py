import pytest

from tutorial_lib.plots.collapse import kl_bars


def test_a_bar_for_each_dimension_the_highest_first_on_one_scale():
    figure = kl_bars({"collapsed": [0.0, 0.1, 0.0], "alive": [1.0, 3.0]})
    heights = [[bar.get_height() for bar in axes.patches] for axes in figure.axes]
    assert heights == [[0.1, 0.0, 0.0], [3.0, 1.0]]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["collapsed", "alive"]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ({}, "codes is empty"),
        ({"a": [1.0, -0.5]}, "KL of 'a' must be .*not negative"),
        ({"a": [float("nan")]}, "finite"),
        ({"a": [[1.0]]}, r"must be \(d,\)"),
    ],
)
def test_what_is_no_kl_is_named(codes, message):
    with pytest.raises(ValueError, match=message):
        kl_bars(codes)
