import numpy as np
import pytest

from tutorial_lib.metrics.probe import linear_probe

N = 1000
RNG = np.random.default_rng(0)
LABELS = RNG.integers(4, size=400)


@pytest.fixture(scope="module")
def code() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, 4))


@pytest.mark.parametrize("dimension", [50, 2000])
def test_what_is_there_linearly_is_read(dimension):
    directions = RNG.normal(size=(4, dimension))
    features = directions[LABELS] + 0.1 * RNG.normal(size=(400, dimension))
    assert linear_probe(features, LABELS) > 0.99
    assert linear_probe(1e3 * features + 7, LABELS) == pytest.approx(linear_probe(features, LABELS))


@pytest.mark.parametrize("dimension", [20, 2000])
def test_noise_is_read_by_chance_even_where_it_can_be_fitted(dimension):
    assert linear_probe(RNG.normal(size=(400, dimension)), LABELS) == pytest.approx(0.25, abs=0.08)


def test_label_on_one_side_of_a_plane_is_read_and_one_that_no_plane_separates_is_not(code):
    assert linear_probe(code, (code[:, 0] > code[:, 1]).astype(int)) > 0.97
    assert linear_probe(code, (code[:, 0] * code[:, 1] > 0).astype(int)) == pytest.approx(0.5, abs=0.07)


def test_r2_is_the_share_of_the_variance_that_is_no_noise(code):
    noise = np.random.default_rng(1).normal(size=N)
    assert linear_probe(code, code[:, 2] + noise) == pytest.approx(0.5, abs=0.06)
    both = np.stack([code[:, 2] + noise, code[:, 0]], 1)
    assert linear_probe(code, both) == pytest.approx(0.75, abs=0.04)


def test_scale_of_a_feature_does_not_matter(code):
    scaled = code * [1e-4, 1, 1e4, 1]
    assert linear_probe(scaled, code[:, 0]) == pytest.approx(linear_probe(code, code[:, 0]))


@pytest.mark.parametrize(
    ("features", "factor", "message"),
    [
        (np.zeros((5, 2)), np.array([0, 1, 0, 1]), r"features must be .*\(4, D\), got shape \(5, 2\)"),
        (np.full((4, 2), np.nan), np.array([0, 1, 0, 1]), "finite"),
        (np.zeros((8, 2)), np.zeros(8, dtype=int), "at least 2 classes"),
        (np.zeros((8, 2)), np.arange(8) // 7, r"each at least 5 times, got \[7, 1\]"),
        (np.zeros((8, 2)), np.array(["a", "b"] * 4), "integers, booleans or floats, got <U1"),
        (np.zeros((12, 2)), np.full(12, 0.3), r"must be finite and vary in each component, got values from 0\.3 to 0\.3"),
        (np.zeros((12, 2)), np.stack([np.arange(12.0), np.ones(12)], 1), r"from \[0\. 1\.\] to \[11\.  1\.\]"),
        (np.zeros((12, 2)), np.append(np.arange(11.0), np.nan), "must be finite .*, got values from nan to nan"),
        (np.zeros((6, 2)), np.arange(6.0), "floats must be at least two a fold, here 10, got 6"),
        (np.zeros((0, 2)), np.zeros(0), "floats must be at least two a fold, here 10, got 0"),
    ],
)
def test_wrong_input_is_named(features, factor, message):
    with pytest.raises(ValueError, match=message):
        linear_probe(features, factor)


def test_booleans_are_labels():
    features = np.random.default_rng(0).normal(size=(200, 3))
    factor = features[:, 0] > 0
    assert linear_probe(features, factor) == linear_probe(features, factor.astype(int)) > 0.9
