import numpy as np
import pytest

from tutorial_lib.metrics.embedding import embed


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    classes = np.repeat(np.arange(3), 20)
    return 10 * np.eye(6)[classes] + np.random.default_rng(0).normal(size=(60, 6)), classes


@pytest.mark.parametrize("method", ["tsne", pytest.param("umap", marks=pytest.mark.slow)])
def test_groups_stay_together_in_the_plane(blobs, method):
    features, classes = blobs
    points = embed(features, method)
    distance = np.linalg.norm(points[:, None] - points, axis=-1) + 1e9 * np.eye(60)
    assert (classes[distance.argmin(axis=1)] == classes).all()


def test_tsne_is_repeatable(blobs):
    assert (embed(blobs[0], seed=1) == embed(blobs[0], seed=1)).all()


def test_an_unknown_method_is_named(blobs):
    with pytest.raises(ValueError, match="method must be .*, got 'pca'"):
        embed(blobs[0], "pca")


def test_equal_features_are_refused():
    with pytest.raises(ValueError, match="all features are equal"):
        embed(np.ones((20, 4)))
