import numpy as np
import pytest

from tutorial_lib.metrics.hopkins import hopkins
from tutorial_lib.plots.embeddings import embed, embedding_panels


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


def test_a_panel_for_each_labelling_with_named_classes(blobs):
    points, classes = blobs[0][:, :2], blobs[1]
    figure = embedding_panels(points, {"shape": classes, "scale": points[:, 0]}, names={"shape": ["swan", "owl", "duck"]})
    panels = figure.axes[:2]
    assert [axes.get_title(loc="left") for axes in panels] == ["shape", "scale"]
    assert [t.get_text() for t in panels[0].get_legend().get_texts()] == ["swan", "owl", "duck"]


def test_one_class_has_one_colour(blobs):
    axes = embedding_panels(blobs[0][:, :2], {"shape": blobs[1]}).axes[0]
    colours = axes.collections[0].get_facecolors()
    assert [len(np.unique(colours[blobs[1] == c], axis=0)) for c in range(3)] == [1, 1, 1]
    assert len(np.unique(colours, axis=0)) == 3


def test_the_hopkins_statistic_stands_below(blobs):
    statistic = hopkins(blobs[0])
    assert str(statistic) in embedding_panels(blobs[0][:, :2], {"shape": blobs[1]}, statistic).get_supxlabel()


def test_labels_of_another_length_are_named(blobs):
    with pytest.raises(ValueError, match=r"labels\['shape'\] must have shape \(60,\), got \(59,\)"):
        embedding_panels(blobs[0][:, :2], {"shape": blobs[1][1:]})


def test_points_outside_the_plane_are_named(blobs):
    with pytest.raises(ValueError, match=r"points must have shape \(N, 2\), got \(60, 6\)"):
        embedding_panels(*blobs)
