import pytest
import torch

from tutorial_lib.data.birds import PaperBirds
from tutorial_lib.metrics.oracle import Oracle, OracleConfig, augment, expected_position
from tutorial_lib.training import checkpoints
from tutorial_lib.training.presets import PRESETS

SMOKE = PRESETS["oracle"]["smoke"].method


@pytest.fixture
def oracle() -> Oracle:
    torch.manual_seed(0)
    return Oracle(SMOKE)


def test_reading_has_the_promised_shapes(oracle):
    reading = oracle.read(torch.zeros(3, 3, 32, 32))
    shapes = {name: tuple(value.shape) for name, value in vars(reading).items()}
    assert shapes == {
        "background": (3, 10), "shape": (3, 6), "texture": (3, 24), "pose": (3, 7), "keypoints": (3, 10, 2),
        "mask": (3, 1, 32, 32), "features": (3, 128),
    }  # fmt: skip
    assert reading.mask.min() >= 0 and reading.mask.max() <= 1
    assert reading.keypoints.min() >= 0 and reading.keypoints.max() <= 32


def test_labels_are_the_most_probable_classes(oracle):
    reading = oracle.read(torch.zeros(2, 3, 32, 32))
    reading.shape = torch.eye(6)[[4, 1]]
    assert reading.labels()["shape"].tolist() == [4, 1]


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (2, 1, 32, 32), (3, 32, 32)])
def test_picture_of_a_wrong_shape_is_named(oracle, shape):
    with pytest.raises(ValueError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        oracle.read(torch.zeros(shape))


@pytest.mark.parametrize(("options", "message"), [({"image_size": 40}, "image_size .*40"), ({"widths": (8, 8)}, "widths")])
def test_wrong_config_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        OracleConfig(**options)


def test_training_on_one_batch_reduces_every_loss(oracle):
    batch = PaperBirds(size=32, length=8, tied=False).batch(range(8))
    losses = [oracle.training_step(batch) for _ in range(60)]
    for name in losses[0]:
        assert torch.stack([step[name] for step in losses[-5:]]).mean() < losses[0][name], name
    assert int(oracle.step) == 60


def test_hidden_keypoints_teach_nothing(oracle):
    batch = PaperBirds(size=32, length=4).batch(range(4))
    assert oracle.training_step(batch | {"visible": torch.zeros_like(batch["visible"])})["keypoints"] == 0


def test_expected_position_of_one_hot_cell_is_its_centre():
    heat = torch.full((1, 1, 4, 8), -1e4)
    heat[0, 0, 1, 6] = 1e4  # row 1 of 4, column 6 of 8
    torch.testing.assert_close(expected_position(heat)[0, 0], torch.tensor([6.5 / 8 * 2 - 1, 1.5 / 4 * 2 - 1]))


def test_expected_position_of_a_flat_map_is_the_middle():
    torch.testing.assert_close(expected_position(torch.zeros(1, 2, 5, 7)), torch.zeros(1, 2, 2))


def test_augmentation_keeps_the_range_and_changes_each_picture_its_own_way():
    torch.manual_seed(0)
    changed = augment(torch.full((2, 3, 8, 8), 0.5))
    assert changed.abs().max() <= 1
    assert not torch.allclose(changed[0], changed[1])


@pytest.mark.skipif("oracle" not in checkpoints.shipped(), reason="no oracle is shipped")
@torch.no_grad()
def test_shipped_oracle_reads_held_out_untied_renders():
    oracle = checkpoints.load("oracle")
    batch = PaperBirds(size=oracle.config.image_size, length=300, seed=77_777, tied=False).batch(range(300))
    reading = oracle.read(batch["image"])
    for name, labels in reading.labels().items():
        assert (labels == batch[name]).double().mean() >= 0.97, name
    distance = (reading.keypoints - batch["keypoints"]).norm(dim=-1)[batch["visible"]].mean()
    assert distance * 64 / oracle.config.image_size <= 1.2
