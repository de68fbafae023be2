import numpy as np
import pytest

from tutorial_lib.metrics.probes import probe

N = 1000


@pytest.fixture(scope="module")
def code() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, 4))


def test_label_on_one_side_of_a_plane_is_read_and_a_random_one_is_not(code):
    assert probe(code, (code[:, 0] > code[:, 1]).astype(int)) > 0.97
    assert probe(code, np.random.default_rng(1).integers(0, 5, N)) == pytest.approx(0.2, abs=0.05)


def test_label_that_no_plane_separates_is_not_read(code):
    assert probe(code, (code[:, 0] * code[:, 1] > 0).astype(int)) == pytest.approx(0.5, abs=0.07)


def test_r2_is_the_share_of_the_variance_that_is_no_noise(code):
    noise = np.random.default_rng(1).normal(size=N)
    assert probe(code, code[:, 2] + noise) == pytest.approx(0.5, abs=0.06)
    both = np.stack([code[:, 2] + noise, code[:, 0]], 1)
    assert probe(code, both) == pytest.approx(0.75, abs=0.04)


def test_scale_of_a_code_does_not_matter(code):
    scaled = code * [1e-4, 1, 1e4, 1]
    assert probe(scaled, code[:, 0]) == pytest.approx(probe(code, code[:, 0]))


def test_what_does_not_fit_is_named(code):
    with pytest.raises(ValueError, match=r"got \(1000, 4\) and \(10,\)"):
        probe(code, np.zeros(10))
    with pytest.raises(ValueError, match="every label needs at least 5 samples, one has 1"):
        probe(code, (np.arange(N) == 3).astype(int))
