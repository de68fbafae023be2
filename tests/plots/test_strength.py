import numpy as np
import pytest

from tutorial_lib.plots.strength import correlation, strength_panels

GIVEN, LABEL = np.linspace(0, 1, 12), np.arange(12) % 2 + 1
NAMES = ("neutral", "scream", "squint")


def test_a_panel_a_model_with_its_correlation():
    figure = strength_panels({"kept": (GIVEN, GIVEN / 2, LABEL), "one for all": (GIVEN, np.full(12, 0.7), LABEL)}, NAMES)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["kept, r = 1.00", "one for all, r = 0.00"]


def test_points_are_given_and_read_by_label():
    figure = strength_panels({"kept": (GIVEN, GIVEN / 2, LABEL)}, NAMES)
    scream, squint = (dots.get_offsets() for dots in figure.axes[0].collections)
    np.testing.assert_allclose(scream, np.stack([GIVEN[::2], GIVEN[::2] / 2], 1))
    np.testing.assert_allclose(squint, np.stack([GIVEN[1::2], GIVEN[1::2] / 2], 1))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["scream", "squint"]


def test_the_legend_names_what_any_panel_shows():
    figure = strength_panels({"a": (GIVEN, GIVEN, np.ones(12, int)), "b": (GIVEN, GIVEN, 2 * np.ones(12, int))}, NAMES)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["scream", "squint"]


def test_correlation_is_pearsons():
    a, b = np.random.default_rng(0).normal(size=(2, 50))
    by_hand = ((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std())
    assert correlation(a, b) == pytest.approx(by_hand)


def test_what_cannot_be_drawn_is_named():
    with pytest.raises(ValueError, match="readings is empty"):
        strength_panels({}, NAMES)
    with pytest.raises(ValueError, match=r"StarGAN: strengths and labels must be \(N,\) each"):
        strength_panels({"StarGAN": (GIVEN, GIVEN[:3], LABEL)}, NAMES)
