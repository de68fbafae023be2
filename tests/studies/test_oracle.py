from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from tutorial_lib.data.birds import POSE, PaperBirds
from tutorial_lib.metrics.oracle import Reading
from tutorial_lib.studies import oracle as study

SAMPLES = 150


@dataclass
class Teller:
    """Tells the truth about the held-out renders, its keypoints moved by a number of pixels."""

    shift: tuple[float, float] = (0.0, 0.0)
    config = SimpleNamespace(image_size=32)

    def eval(self):
        self.truth = PaperBirds(size=32, length=SAMPLES, seed=study.HELD_OUT, tied=False).stream(100)

    def read(self, images: torch.Tensor) -> Reading:
        batch = next(self.truth)
        assert torch.equal(images, batch["image"])
        logits = [F.one_hot(batch[name], n).float() for name, n in (("background", 10), ("shape", 6), ("texture", 24))]
        keypoints = batch["keypoints"] + torch.tensor(self.shift)
        return Reading(*logits, batch["pose"], keypoints, batch["mask"], images.flatten(1))


def test_truth_gets_perfect_figures():
    figures = study.evaluate(Teller(), samples=SAMPLES)
    assert figures.pop("keypoints") == 0
    assert set(figures) == {"background", "shape", "texture", "mask.iou", *(f"pose.{name}" for name in POSE)}
    assert all(value == pytest.approx(1) for value in figures.values())


def test_keypoint_error_is_in_pixels_of_64():
    assert study.evaluate(Teller((1.5, 2.0)), samples=SAMPLES)["keypoints"] == pytest.approx(2.5 * 2, rel=1e-4)


def test_pose_r2_is_scikit_learns():
    from sklearn.metrics import r2_score

    true, noise = torch.randn(2, 50, len(POSE), generator=torch.Generator().manual_seed(0))
    read = true * 0.5 + noise * torch.arange(len(POSE)) / 2  # from half the truth to far worse than its mean
    assert list(study.pose_r2(read, true)) == list(POSE)
    assert list(study.pose_r2(read, true).values()) == pytest.approx(r2_score(true, read, multioutput="raw_values"), rel=1e-4)


def test_held_out_renders_are_of_no_presets_seed():
    from tutorial_lib.training.presets import PRESETS

    seeds = {preset.data.get("seed", 0) for presets in PRESETS.values() for preset in presets.values()}
    assert study.HELD_OUT not in seeds


def test_table_has_figures_beside_bars():
    rows = {
        line.split()[0]: line.split()[1:]
        for line in study.table({"shape": 0.991, "keypoints": 0.4, "pose.x": 0.97}).splitlines()
    }
    assert rows["shape"] == ["0.991", ">=", "0.99"]
    assert rows["keypoints"] == ["0.400", "<=", "1.00"]
    assert rows["pose.x"] == ["0.970", ">=", "0.95"]
