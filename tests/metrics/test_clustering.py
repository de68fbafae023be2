from itertools import permutations

import numpy as np
import pytest

from tutorial_lib.metrics.clustering import hungarian_accuracy, kmeans, nmi, score_clusters


def rays(n_each: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three directions with lengths from 1 to 50: clusters only after normalisation."""
    rng = np.random.default_rng(seed)
    classes = np.repeat(np.arange(3), n_each)
    return (np.eye(3)[classes] + 0.02 * rng.normal(size=(3 * n_each, 3))) * rng.uniform(1, 50, (3 * n_each, 1)), classes


def test_directions_are_found_whatever_their_length():
    features, classes = rays()
    found = score_clusters(features, classes)
    assert (found.nmi, found.accuracy) == (pytest.approx(1), 1)


def test_hungarian_accuracy_is_the_best_of_all_renamings():
    rng = np.random.default_rng(0)
    labels, classes = rng.integers(4, size=60), rng.integers(4, size=60)
    best = max(np.mean(np.array(order)[labels] == classes) for order in permutations(range(4)))
    assert hungarian_accuracy(labels, classes) == pytest.approx(best)


def test_hungarian_accuracy_with_more_clusters_than_classes():
    assert hungarian_accuracy(np.array([0, 1, 2, 2]), np.array([0, 0, 1, 1])) == 0.75


def test_nmi_of_half_a_refinement_is_the_hand_computed_value():
    """Four even labels, two even classes: I = ln 2, mean entropy = (ln 4 + ln 2) / 2."""
    assert nmi(np.array([0, 1, 2, 3]), np.array([0, 0, 1, 1])) == pytest.approx(2 / 3)


def test_nmi_of_constant_labels_is_zero():
    assert nmi(np.zeros(5, int), np.zeros(5, int)) == 0


def test_kmeans_is_repeatable():
    features, _ = rays()
    assert (kmeans(features, 5, seed=3) == kmeans(features, 5, seed=3)).all()


def test_more_clusters_than_samples_are_refused():
    with pytest.raises(ValueError, match="n_clusters must lie between 1 and the 4 samples, got 5"):
        kmeans(np.eye(4), 5)


def test_soft_classes_are_refused():
    with pytest.raises(ValueError, match=r"classes must be integer labels of shape \(N,\), got float64 \(4, 4\)"):
        nmi(np.zeros(4, int), np.eye(4))


def test_different_lengths_are_refused():
    with pytest.raises(ValueError, match="one length, got 3 and 4"):
        hungarian_accuracy(np.zeros(3, int), np.zeros(4, int))
