import numpy as np
import pytest
import torch
from torch import nn

from tutorial_lib.metrics.generation import diversity, extract, fid, inception_score, kid, ms_ssim


def gaussian(mean: np.ndarray, covariance: np.ndarray, n: int = 2000, seed: int = 0) -> np.ndarray:
    """A sample whose mean and covariance are exactly the ones given."""
    x = np.random.default_rng(seed).normal(size=(n, len(mean)))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    return x @ np.linalg.cholesky(covariance).T + mean


COVARIANCE = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 0.5]])


def test_fid_of_shifted_gaussians_is_the_squared_shift():
    shift = np.array([1.0, -2.0, 0.5])
    value = fid(gaussian(np.zeros(3), COVARIANCE), gaussian(shift, COVARIANCE, seed=1))
    assert value == pytest.approx(shift @ shift, abs=1e-6)


def test_fid_of_scaled_gaussians_is_the_closed_form():
    """With covariances S and s²S the trace term is (1 - s)² tr S."""
    value = fid(gaussian(np.zeros(3), COVARIANCE), gaussian(np.zeros(3), 9 * COVARIANCE, seed=1))
    assert value == pytest.approx(4 * np.trace(COVARIANCE), abs=1e-6)


def test_kid_of_one_distribution_is_about_zero():
    rng = np.random.default_rng(0)
    mean, std = kid(rng.normal(size=(2000, 8)), rng.normal(size=(2000, 8)), subsets=20, subset_size=500)
    assert abs(mean) < 2 * std < 0.05


def test_kid_of_all_samples_is_the_unbiased_mmd_summed_by_hand():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=(12, 3)) + 1

    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    pairs = [(i, j) for i in range(12) for j in range(12)]
    within = sum(kernel(s[i], s[j]) for s in (x, y) for i, j in pairs if i != j) / (12 * 11)
    across = 2 * sum(kernel(x[i], y[j]) for i, j in pairs) / 12**2
    assert kid(x, y, subsets=1, subset_size=12)[0] == pytest.approx(within - across)


def test_kid_is_repeatable_and_leaves_the_global_random_state():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 3)), rng.normal(size=(50, 3))
    before = torch.get_rng_state()
    assert kid(x, y, subset_size=20) == kid(x, y, subset_size=20)
    assert torch.equal(torch.get_rng_state(), before)


def test_inception_score_of_confident_even_classes_is_their_number():
    logits = 1000.0 * np.eye(7)[np.arange(700) % 7]
    assert inception_score(logits, splits=1) == (pytest.approx(7), 0.0)


def test_inception_score_of_one_posterior_is_one():
    logits = np.tile(np.random.default_rng(0).normal(size=5), (100, 1))
    assert inception_score(logits)[0] == pytest.approx(1)


def test_inception_score_survives_a_class_that_never_occurs():
    logits = np.zeros((40, 3))
    logits[:, 0] = 1e5
    assert inception_score(logits, splits=2)[0] == pytest.approx(1)


def test_inception_score_takes_equal_splits_of_two_pictures_or_more():
    logits = 1000.0 * np.eye(2)[np.arange(21) % 2]
    assert inception_score(logits, splits=10) == inception_score(logits[:20], splits=10)
    for few in (10, 19):
        with pytest.raises(ValueError, match=rf"splits must lie between 1 and half the number of samples \({few}\), got 10"):
            inception_score(logits[:few])


@pytest.mark.parametrize("score", [fid, kid])
def test_one_sample_is_refused(score):
    with pytest.raises(ValueError, match="fake needs at least 2 samples, got 1"):
        score(np.zeros((5, 3)), np.zeros((1, 3)))


@pytest.mark.parametrize("score", [fid, kid])
def test_features_of_different_networks_are_refused(score):
    with pytest.raises(ValueError, match="got 3 and 4 features"):
        score(np.zeros((5, 3)), np.zeros((5, 4)))


@pytest.mark.parametrize("score", [fid, kid])
def test_nan_in_features_is_named(score):
    features = np.zeros((5, 3))
    features[2, 1] = np.nan
    with pytest.raises(ValueError, match="real has NaN or infinite values in 1 of 5 samples"):
        score(features, np.zeros((5, 3)))


def test_a_subset_larger_than_the_sample_is_refused():
    with pytest.raises(ValueError, match="subset_size .* got 1000 with 5 real and 6 fake"):
        kid(np.zeros((5, 3)), np.zeros((6, 3)))


class Probe(nn.Module):
    """Mean colours; notes the mode it was called in."""

    def __init__(self):
        super().__init__()
        self.part = nn.Dropout()

    def forward(self, pictures):
        self.called_in = self.part.training
        return pictures.mean(dim=(2, 3))


def test_extract_is_the_network_on_all_pictures_in_order():
    pictures = torch.rand(7, 3, 4, 4)
    assert np.allclose(extract(Probe(), pictures, batch_size=3), pictures.mean(dim=(2, 3)))


def test_extract_takes_batches_as_they_come():
    pictures = torch.rand(7, 3, 4, 4)
    assert np.allclose(extract(Probe(), iter(pictures.split(2))), extract(Probe(), pictures))


def test_extract_runs_in_eval_mode_and_puts_the_mode_back():
    probe = Probe()
    extract(probe, torch.rand(2, 3, 4, 4))
    assert not probe.called_in
    assert probe.training
    assert probe.part.training


def test_extract_refuses_feature_maps():
    with pytest.raises(ValueError, match=r"shape \(B, D\), got \(2, 3, 4, 4\)"):
        extract(nn.Identity(), torch.rand(2, 3, 4, 4))


# ---- MS-SSIM


def grey(level: float, size: int) -> torch.Tensor:
    """A picture (1, 3, size, size) of one grey, `level` in [0, 1]."""
    return torch.full((1, 3, size, size), 2 * level - 1)


@pytest.mark.parametrize(("size", "weight"), [(12, 1.0), (24, 0.8644), (64, 0.4760)])
def test_ms_ssim_of_two_greys_is_the_luminance_of_the_coarsest_scale(size, weight):
    luminance = (2 * 0.2 * 0.8 + 1e-4) / (0.2**2 + 0.8**2 + 1e-4)  # contrast and structure are the same
    assert float(ms_ssim(grey(0.2, size), grey(0.8, size))) == pytest.approx(luminance**weight, rel=1e-3)


def test_ms_ssim_is_one_for_equal_pictures_and_less_for_noisier_ones():
    torch.manual_seed(0)
    x = torch.rand(3, 3, 64, 64) * 2 - 1
    noise = torch.randn_like(x)
    values = torch.stack([ms_ssim(x, (x + share * noise).clamp(-1, 1)) for share in (0.0, 0.1, 0.5)])
    assert values.shape == (3, 3)
    torch.testing.assert_close(values[0], torch.ones(3))
    assert (values[:-1] > values[1:]).all()


def test_diversity_is_the_mean_over_pairs_and_classes():
    levels = [[0.5, 0.5, 0.5], [0.2, 0.2, 0.8]]
    pictures = torch.stack([torch.cat([grey(level, 12) for level in of_class]) for of_class in levels])
    unlike = 1 - (2 * 0.2 * 0.8 + 1e-4) / (0.2**2 + 0.8**2 + 1e-4)
    assert diversity(pictures) == pytest.approx((0 + 2 / 3 * unlike) / 2, rel=1e-3)


def test_pictures_that_cannot_be_compared_are_named():
    with pytest.raises(ValueError, match=r"two \(N, 3, H, W\), got \(1, 3, 12, 12\) and \(1, 3, 24, 24\)"):
        ms_ssim(grey(0, 12), grey(0, 24))
    with pytest.raises(ValueError, match=r"at least 12 pixels a side, got \(8, 8\)"):
        ms_ssim(grey(0, 8), grey(0, 8))
    with pytest.raises(ValueError, match=r"at least 2, 3, H, W\), got \(4, 1, 3, 12, 12\)"):
        diversity(torch.zeros(4, 1, 3, 12, 12))
