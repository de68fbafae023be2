import pytest
import torch

from tutorial_lib.data.birds import PaperBirds, render
from tutorial_lib.metrics.mixing import chi_squared, colour_histograms, keypoint_distance, texture_distance


def test_keypoint_distance_counts_what_is_visible():
    true = torch.zeros(1, 3, 2)
    found = torch.tensor([[[3.0, 4.0], [0.0, 1.0], [100.0, 0.0]]])
    assert float(keypoint_distance(found, true, torch.tensor([[True, True, False]]))) == pytest.approx(3)
    assert keypoint_distance(found, true, torch.zeros(1, 3, dtype=torch.bool)).isnan()


def test_histogram_by_hand():
    images = torch.full((1, 3, 16, 16), -1.0)
    images[:, 0, :, 8:] = 1.0  # black on the left, red on the right
    left, middle, right = colour_histograms(images, torch.tensor([[[4.0, 8.0], [8.0, 8.0], [12.0, 8.0]]]), patch=8, bins=2)[0]
    black, red = torch.eye(8)[0], torch.eye(8)[4]
    torch.testing.assert_close(left, black)
    torch.testing.assert_close(middle, (black + red) / 2)
    torch.testing.assert_close(right, red)


def test_patch_at_the_edge_is_moved_inside():
    images = torch.rand(1, 3, 16, 16) * 2 - 1
    corner, outside = colour_histograms(images, torch.tensor([[[4.0, 4.0], [-3.0, -20.0]]]), patch=8)[0]
    torch.testing.assert_close(corner, outside)


def test_histogram_agrees_with_counting():
    images, at = torch.rand(2, 3, 20, 24) * 2 - 1, torch.tensor([[[7.3, 9.8]], [[15.0, 6.2]]])
    found = colour_histograms(images, at, patch=6, bins=3)
    for i, (x, y) in enumerate([(4, 7), (12, 3)]):
        patch = ((images[i, :, y : y + 6, x : x + 6] + 1) / 2 * 3).floor().clamp(max=2).flatten(1).T
        count = torch.zeros(27)
        for r, g, b in patch.tolist():
            count[int(9 * r + 3 * g + b)] += 1 / 36
        torch.testing.assert_close(found[i, 0], count)


def test_patch_larger_than_the_picture_is_named():
    with pytest.raises(ValueError, match="patch: 9 pixels do not fit into pictures of 8 x 8"):
        colour_histograms(torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 2), patch=9)


def test_chi_squared_is_zero_for_equal_and_one_for_disjoint_histograms():
    a, b = torch.tensor([0.5, 0.5, 0, 0]), torch.tensor([0, 0, 0.25, 0.75])
    assert float(chi_squared(a, a)) == 0
    assert float(chi_squared(a, b)) == pytest.approx(1)
    assert float(chi_squared(a, (a + b) / 2)) == pytest.approx(0.5 * (0.25**2 / 0.75 * 2 + 0.125 + 0.375), abs=1e-6)


def test_true_mix_has_less_texture_distance_than_the_shape_donor():
    birds = PaperBirds(length=40, seed=5)
    a, b = birds.batch(range(20)), birds.batch(range(20, 40))
    scene_a, scene_b = birds.scenes(range(20)), birds.scenes(range(20, 40))
    truth = render(scene_b.replace(texture=scene_a.texture))
    seen = a["visible"] & b["visible"]
    of_truth, of_donor = (
        float(texture_distance(a["image"], a["keypoints"], c["image"], c["keypoints"], seen)) for c in (truth, b)
    )
    assert of_truth < 0.7 * of_donor
