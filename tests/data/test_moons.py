import math

import pytest
import torch
from scipy import stats

from tutorial_lib.data.moons import ThreeMoons


@pytest.fixture(scope="module")
def points() -> dict[str, torch.Tensor]:
    return ThreeMoons(length=20_000).batch(range(20_000))


def test_points_depend_on_seed_and_index_only(points):
    rows = [17, 3, 512]
    again = ThreeMoons(length=1000).batch(rows)
    assert torch.equal(again["image"], points["image"][rows]) and torch.equal(again["label"], points["label"][rows])
    assert not torch.equal(ThreeMoons(seed=1).batch(rows)["image"], again["image"])


def test_points_lie_on_half_circles_of_radius_one_but_for_the_noise(points):
    centre = torch.stack([2.2 * (points["label"] - 1) - 0.5, torch.zeros(20_000)], 1)
    offset = points["image"] - centre
    angle = torch.atan2(offset[:, 1], offset[:, 0])
    inside = angle.abs() < 1.2  # away from the ends the distance to the circle is the noise alone
    radial = offset.norm(dim=1)[inside] - 1
    assert radial.mean().item() == pytest.approx(0.15**2 / 2, abs=0.004)  # noise along the circle adds to the radius
    assert radial.std().item() == pytest.approx(0.15, rel=0.05)


def test_noise_is_gaussian(points):
    # y of the point is sin(angle) + noise; with angle uniform, its variance is 1/2 + 0.15².
    assert points["image"][:, 1].var().item() == pytest.approx(0.5 + 0.15**2, rel=0.03)
    middle = points["image"][:, 0] - 2.2 * (points["label"] - 1) - 0.5
    beyond = (middle > 0.3).float().mean().item()  # two deviations beyond the outermost point of the circle
    angle = torch.linspace(-math.pi / 2, math.pi / 2, 10_001).double()
    expected = stats.norm.sf((1.3 - angle.cos().numpy()) / 0.15).mean()
    assert beyond == pytest.approx(expected, abs=0.003)


def test_x_decides_the_class_and_y_does_not(points):
    x, y = points["image"].T
    assert ((x / 2.2).round().clamp(-1, 1) + 1 == points["label"]).float().mean() > 0.999
    heights = [y[points["label"] == c].numpy() for c in range(3)]
    assert min(stats.ks_2samp(heights[0], other).pvalue for other in heights[1:]) > 1e-3
    assert stats.chisquare(points["label"].bincount().numpy()).pvalue > 1e-3


def test_stream_and_items_give_what_batches_give():
    moons = ThreeMoons(length=25)
    batch = moons.batch(range(25))
    assert torch.equal(torch.cat([part["image"] for part in moons.stream(batch_size=10)]), batch["image"])
    assert torch.equal(moons[7]["image"], batch["image"][7]) and moons[7]["image"].shape == (2,)
    assert torch.equal(moons.collate(moons.__getitems__([3, 5]))["label"], batch["label"][[3, 5]])


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        ThreeMoons(length=0)
    with pytest.raises(IndexError, match="5 of a set of 5"):
        ThreeMoons(length=5).batch([5])
