import numpy as np
import pytest

from tutorial_lib.metrics.probe import linear_probe

RNG = np.random.default_rng(0)
LABELS = RNG.integers(4, size=400)


def test_what_is_there_linearly_is_read():
    directions = RNG.normal(size=(4, 50))
    features = directions[LABELS] + 0.1 * RNG.normal(size=(400, 50))
    assert linear_probe(features, LABELS) > 0.99
    assert linear_probe(1e3 * features + 7, LABELS) == linear_probe(features, LABELS)  # scale and place do not matter


@pytest.mark.parametrize("dimension", [20, 2000])
def test_noise_is_read_by_chance_even_where_it_can_be_fitted(dimension):
    assert linear_probe(RNG.normal(size=(400, dimension)), LABELS) == pytest.approx(0.25, abs=0.08)


def test_what_is_there_but_not_linearly_is_not_read():
    sign = RNG.choice([-1.0, 1.0], size=(400, 2))
    parity = (sign.prod(axis=1) > 0).astype(int)
    assert linear_probe(sign, parity) < 0.65


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.zeros((5, 2)), np.array([0, 1, 0, 1]), r"features must be .*\(4, D\), got shape \(5, 2\)"),
        (np.full((4, 2), np.nan), np.array([0, 1, 0, 1]), "finite"),
        (np.zeros((4, 2)), np.array([0, 0, 0, 0]), "at least 2 classes"),
        (np.zeros((4, 2)), np.array([0, 0, 0, 1]), "each at least twice"),
        (np.zeros((4, 2)), np.array([0.0, 1.0, 0.0, 1.0]), "labels must be integer"),
    ],
)
def test_wrong_input_is_named(features, labels, message):
    with pytest.raises(ValueError, match=message):
        linear_probe(features, labels)
