import numpy as np
import pytest

from tutorial_lib.metrics.hopkins import hopkins
from tutorial_lib.plots.embeddings import embedding_panels


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    classes = np.repeat(np.arange(3), 20)
    return 10 * np.eye(6)[classes] + np.random.default_rng(0).normal(size=(60, 6)), classes


def test_a_panel_for_each_labelling_with_named_classes(blobs):
    points, classes = blobs[0][:, :2], blobs[1]
    figure = embedding_panels(points, {"shape": classes, "scale": points[:, 0]}, names={"shape": ["swan", "owl", "duck"]})
    panels = figure.axes[:2]
    assert [axes.get_title(loc="left") for axes in panels] == ["shape", "scale"]
    assert [t.get_text() for t in panels[0].get_legend().get_texts()] == ["swan", "owl", "duck"]


def test_a_label_without_a_name_is_called_what_it_is(blobs):
    points, classes = blobs[0][:, :2], blobs[1]
    labels = {"shape": classes - 1, "maker": np.array(["ann", "bob", "eve"])[classes]}
    figure = embedding_panels(points, labels, names={"shape": ["swan", "owl"], "maker": ["a", "b", "c"]})
    legends = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in figure.axes[:2]]
    assert legends == [["-1", "swan", "owl"], ["ann", "bob", "eve"]]


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
