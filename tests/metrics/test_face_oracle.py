from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from tutorial_lib.data.faces import PaperFaces
from tutorial_lib.metrics.face_oracle import LABELS, FaceOracle, FaceOracleConfig, Reading
from tutorial_lib.studies import face_oracle as study
from tutorial_lib.training import checkpoints
from tutorial_lib.training.presets import PRESETS

SMOKE, LAPTOP = (PRESETS["face_oracle"][name].method for name in ("smoke", "laptop"))


@pytest.fixture
def oracle() -> FaceOracle:
    torch.manual_seed(0)
    return FaceOracle(SMOKE)


def test_reading_has_the_promised_shapes(oracle):
    reading = oracle.read(torch.zeros(3, 3, 32, 32))
    assert {name: tuple(value.shape) for name, value in vars(reading).items()} == {
        "identity": (3, 48), "expression": (3, 4), "illumination": (3, 5), "gaze": (3, 3), "strength": (3,),
        "features": (3, 16), "activations": (3, 32),
    }  # fmt: skip


def test_features_have_length_one(oracle):
    features = oracle.read(PaperFaces(size=32, length=6).batch(range(6))["image"]).features
    torch.testing.assert_close(features.square().sum(1), torch.ones(6))


def test_labels_are_the_most_probable_classes(oracle):
    reading = oracle.read(torch.zeros(2, 3, 32, 32))
    reading.expression = torch.eye(4)[[3, 1]]
    assert reading.labels()["expression"].tolist() == [3, 1]


def test_laptop_oracle_is_small_enough_to_ship():
    with torch.device("meta"):
        oracle = FaceOracle(LAPTOP)
    assert sum(value.numel() * value.element_size() for value in oracle.state_dict().values()) < 3e6


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (2, 1, 32, 32), (3, 32, 32)])
def test_picture_of_a_wrong_shape_is_named(oracle, shape):
    with pytest.raises(ValueError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        oracle.read(torch.zeros(shape))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"image_size": 40}, "image_size .*40"), ({"widths": (8, 8)}, "widths"), ({"n_features": 0}, "n_features .*0")],
)
def test_wrong_config_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        FaceOracleConfig(**options)


def test_training_on_one_batch_reduces_every_loss(oracle):
    batch = PaperFaces(size=32, length=8, identities="all").batch(range(8))
    losses = [oracle.training_step(batch) for _ in range(60)]
    for name in losses[0]:
        assert torch.stack([step[name] for step in losses[-5:]]).mean() < losses[0][name], name
    assert int(oracle.step) == 60


def test_strength_of_a_neutral_face_is_taught_as_nought():
    """A drawn strength has no effect on a neutral face, so the loss must not depend on it."""
    batch = PaperFaces(size=32, length=4).batch(range(4))
    batch["expression"] = torch.zeros_like(batch["expression"])

    def loss(strength: float) -> torch.Tensor:
        torch.manual_seed(0)
        return FaceOracle(SMOKE).training_step(batch | {"strength": torch.full((4,), strength)})["strength"]

    assert loss(0.2) == loss(0.9)


# ---- the study


@dataclass
class Teller:
    """Tells the truth about the held-out draws; its strengths are off by a factor."""

    factor: float = 1.0
    wrong: str | None = None
    config = SimpleNamespace(image_size=32)

    def eval(self):
        self.truth = PaperFaces(size=32, length=SAMPLES, seed=study.HELD_OUT, identities="all").stream(100)

    def read(self, images: torch.Tensor) -> Reading:
        batch = next(self.truth)
        assert torch.equal(images, batch["image"])
        logits = {
            name: F.one_hot((batch[name] + (name == self.wrong)) % classes, classes).float() for name, classes in LABELS.items()
        }
        flat = images.flatten(1)
        return Reading(**logits, strength=self.factor * batch["strength"], features=flat, activations=flat)


SAMPLES = 150


def test_truth_gets_perfect_figures():
    figures = study.evaluate(Teller(), samples=SAMPLES)
    assert set(figures) == {*LABELS, "strength"}
    assert all(value == pytest.approx(1) for value in figures.values())


@pytest.mark.parametrize("name", LABELS)
def test_wrong_label_spoils_its_own_figure_only(name):
    figures = study.evaluate(Teller(wrong=name), samples=SAMPLES)
    assert figures.pop(name) == 0
    assert all(value == pytest.approx(1) for value in figures.values())


def test_strength_is_r2_of_expressive_faces():
    faces = PaperFaces(size=32, length=SAMPLES, seed=study.HELD_OUT, identities="all").scenes(range(SAMPLES))
    true = faces.strength[faces.expression != 0].double()
    expected = 1 - (0.1 * true).square().mean() / true.var(correction=0)
    assert study.evaluate(Teller(factor=0.9), samples=SAMPLES)["strength"] == pytest.approx(float(expected), abs=1e-4)


def test_table_has_figures_beside_bars():
    rows = {line.split()[0]: line.split()[1:] for line in study.table({"identity": 0.991, "strength": 0.97}).splitlines()}
    assert rows["identity"] == ["0.991", ">=", "0.98"]
    assert rows["strength"] == ["0.970", ">=", "0.98"]


@pytest.mark.skipif("face_oracle" not in checkpoints.shipped(), reason="no face oracle is shipped")
@torch.no_grad()
def test_shipped_face_oracle_reads_new_draws():
    oracle = checkpoints.load("face_oracle")
    batch = PaperFaces(size=oracle.config.image_size, length=300, seed=77_777, identities="all").batch(range(300))
    for name, labels in oracle.read(batch["image"]).labels().items():
        assert (labels == batch[name]).double().mean() >= 0.96, name
