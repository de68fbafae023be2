import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from tutorial_lib.data.faces import EXPRESSIONS, ILLUMINATIONS, PaperFaces, render
from tutorial_lib.methods.baselines import StarGAN
from tutorial_lib.methods.uniform_posterior import UniformPosterior
from tutorial_lib.metrics.control import ControlMatrix
from tutorial_lib.metrics.face_oracle import FaceOracle
from tutorial_lib.studies import uniform_posterior as study
from tutorial_lib.training import checkpoints
from tutorial_lib.training.loop import History
from tutorial_lib.training.presets import PRESETS, build

KEYS = {
    "hopkins.with", "hopkins.without", "hopkins.with.worst", "hopkins.without.worst", "hopkins.codes.with",
    "hopkins.codes.without", "hopkins.codes.with.worst", "hopkins.codes.without.worst", "entropy.expression_from_identity",
    "entropy.identity_from_expression", "own.accuracy", "synthesis.accuracy", "fid", "stargan.fid", "stargan.accuracy",
    "intensity", "stargan.intensity", "identity.kept", "probe.leak", "label.accuracy", "label.fid",
    "swap.identity", "swap.expression", "swap.illumination", "swap.gaze", "l1.again", "l1.identity", "l1.expression",
    "l1.illumination", "l1.gaze", "classifier.known", "classifier.strangers",
}  # fmt: skip


def smoke(method: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return build(PRESETS[method]["smoke"].method).eval()


@pytest.fixture(scope="module")
def model() -> UniformPosterior:
    return smoke("uniform_posterior")


@pytest.fixture(scope="module")
def stargan() -> StarGAN:
    return smoke("stargan")


@pytest.fixture(scope="module")
def oracle() -> FaceOracle:
    return smoke("face_oracle")


def run(disentangled: bool, seed: int, values: list[float], spread: float = 0.0) -> study.Shallow:
    """A run with one Hopkins value for each expression; 0.05 more in the codes, and 0.1 less with shuffled lights."""

    def rows(more: float) -> list:
        return [[[value + more, spread]] * len(ILLUMINATIONS) for value in values]

    found = {space: {"true": rows(more), "shuffled": rows(more - 0.1)} for space, more in (("plane", 0), ("codes", 0.05))}
    return study.Shallow(disentangled, seed, 10, 1.0, found, {}, 1.0, 0.2, [], [], [])


# ---- Table III


@pytest.fixture(scope="module")
def bent_clusters() -> tuple[np.ndarray, np.ndarray]:
    """An arc of points for each of four expressions, far apart, a twelfth of each from the others: (2000, 2) and (2000,)."""
    rng = np.random.default_rng(0)
    place, expression = rng.integers(4, size=2000), rng.integers(4, size=2000)
    expression = np.where(rng.random(2000) < 1 / 12, expression, place)
    angle, radius = np.pi * rng.random(2000), 2 + rng.random(2000)
    return 20 * place[:, None] + np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1), expression


def test_a_cluster_is_made_of_those_among_their_own(bent_clusters):
    plane, expression = bent_clusters
    place = (plane[:, 0] + 10) // 20
    assert (study.among_their_own(plane, expression) == (place == expression)).all()


def test_hopkins_is_one_half_for_mixed_lights_whatever_the_shape_and_near_one_for_separate_ones(bent_clusters):
    plane, expression = bent_clusters
    mixed = np.random.default_rng(1).integers(5, size=2000)
    along = (np.arctan2(plane[:, 1] % 20, (plane[:, 0] + 10) % 20 - 10) / np.pi * 5).astype(int)  # a fifth of the arc each
    some = np.where(np.arange(2000) % 2, mixed, along)
    found = [np.array(study.illumination_hopkins(plane, expression, light)) for light in (mixed, some, along)]
    assert all(one.shape == (4, 5, 2) for one in found)
    by_expression = [one[..., 0].mean(1) for one in found]
    assert by_expression[0] == pytest.approx([0.5] * 4, abs=0.05)
    assert by_expression[1].min() > by_expression[0].max() + 0.05
    assert found[2][..., 0].min() > 0.9


def test_hopkins_is_one_half_for_mixed_lights_in_more_than_two_dimensions_too(bent_clusters):
    plane, expression = bent_clusters
    codes = np.concatenate([plane, np.random.default_rng(2).normal(size=(2000, 5))], axis=1)
    mixed, apart = np.random.default_rng(1).integers(5, size=2000), np.digitize(codes[:, 4], [-0.84, -0.25, 0.25, 0.84])
    found = [np.array(study.illumination_hopkins(codes, expression, light))[..., 0].mean(1) for light in (mixed, apart)]
    assert found[0] == pytest.approx([0.5] * 4, abs=0.06)
    assert found[1].min() > found[0].max() + 0.05


def test_an_expression_without_a_cluster_has_no_statistic():
    plane, expression = np.random.default_rng(0).random((400, 2)), np.arange(400) % 4
    found = study.illumination_hopkins(plane, expression, np.zeros(400, int))
    assert np.shape(found) == (4, 5, 2) and np.isnan(found).all()


def test_table3_is_the_mean_over_illuminations_and_seeds_with_its_spread():
    runs = [
        run(True, 0, [0.4, 0.5, 0.6, 0.7], 0.3),
        run(True, 1, [0.6, 0.5, 0.6, 0.7], 0.3),
        run(False, 0, [0.9, 0.8, 0.8, 0.8]),
    ]
    table = study.table3(runs)
    assert table[True]["neutral"] == (pytest.approx(0.5), pytest.approx(math.hypot(0.1, 0.3), abs=1e-4))
    assert [row[0] for row in table[False].values()] == pytest.approx([0.9, 0.8, 0.8, 0.8])
    assert study.table3(runs, "shuffled")[False]["scream"][0] == pytest.approx(0.7)
    assert study.table3(runs, space="codes")[False]["scream"][0] == pytest.approx(0.85)
    plane = {"hopkins.with": 0.575, "hopkins.with.worst": 0.7, "hopkins.without": 0.825, "hopkins.without.worst": 0.8}
    codes = {name.replace("hopkins.", "hopkins.codes."): value + 0.05 for name, value in plane.items()}
    assert study.hopkins_figures(runs) == pytest.approx(plane | codes)
    assert study.table3([]) == study.hopkins_figures([]) == {}


def test_ablation_trains_both_rows_keeps_them_and_goes_on_where_it_stopped(monkeypatch, tmp_path):
    monkeypatch.setenv("TUTORIAL_LIB_DATA", str(tmp_path))
    monkeypatch.setitem(PRESETS["uniform_posterior_shallow"], "laptop", PRESETS["uniform_posterior_shallow"]["smoke"])
    monkeypatch.setattr(study, "among_their_own", lambda plane, _: np.full(len(plane), True))  # two steps make no clusters
    folder, trained = tmp_path / "results" / "uniform_posterior_ablation", []

    def counted(model, *args):
        trained.append(model.config.disentanglement_weight)
        return train(model, *args)

    train = study.train
    monkeypatch.setattr(study, "train", counted)
    figures = study.ablate(folder, steps=2, seeds=1, samples=500)
    assert figures.keys() == {"with_0", "without_0"} and figures["with_0"].keys() == set(EXPRESSIONS)
    assert trained == [1.0, 0.0]
    first, second = study.stored_runs()
    assert (first.name, second.name) == ("with_0", "without_0")
    assert np.shape(first.plane) == (500, 2) and len(first.illumination) == 500
    shapes = {space: {name: np.shape(values) for name, values in of.items()} for space, of in first.hopkins.items()}
    assert shapes == dict.fromkeys(study.SPACES, dict.fromkeys(study.LIGHTS, (4, 5, 2)))
    assert 0 <= first.entropy <= 1 and first.accuracy.keys() == {"expression", "illumination"}

    (folder / "without_0.json").unlink()
    assert study.ablate(folder, steps=2, seeds=1, samples=500) == figures  # the same numbers, from the same seed
    assert trained == [1.0, 0.0, 0.0]


def test_an_interrupted_run_is_not_stored(monkeypatch, tmp_path):
    monkeypatch.setattr(study, "train", lambda *args: History(interrupted=True))
    with pytest.raises(KeyboardInterrupt):
        study.ablate(tmp_path, steps=2, seeds=1, samples=300)
    assert study.stored_runs(tmp_path) == []


# ---- what codes say


def test_entropy_is_a_share_of_its_ceiling():
    assert study.entropy_share(torch.zeros(3, 7)) == pytest.approx(1)
    assert study.entropy_share(200 * torch.eye(4)) == pytest.approx(0, abs=1e-6)
    logits = torch.tensor([[0.0, 1.0, -2.0], [3.0, 0.5, 0.0]])
    expected = np.mean([stats.entropy(row) for row in logits.softmax(1).numpy()]) / math.log(3)
    assert study.entropy_share(logits) == pytest.approx(expected)


def test_classifiers_that_know_nothing_have_all_the_entropy():
    model = smoke("uniform_posterior")
    for classifier in model.classifiers.values():
        torch.nn.init.zeros_(classifier.logits.weight)
        torch.nn.init.zeros_(classifier.logits.bias)
    said = study.posteriors(model, 120)
    entropies = [value for name, value in said.items() if name.startswith("entropy.")]
    assert len(entropies) == 4 * 5 and entropies == pytest.approx([1.0] * 20)
    gazes = PaperFaces(32, length=120, seed=study.SEED).batch(range(120))["gaze"]
    assert said["own.gaze"] == pytest.approx(float((gazes == 0).float().mean()))  # argmax of equal logits is the first


def test_acquaintances_are_the_people_that_a_model_has_a_class_for(model):
    assert study.acquaintances(model, 400, 0).scenes(range(400)).identity.max() < 40
    config = SimpleNamespace(image_size=32, attributes=(("identity", 248), ("expression", 4)))
    people = study.acquaintances(SimpleNamespace(config=config), 2000, 0).scenes(range(2000)).identity
    assert people.max() == 247 and not ((people >= 40) & (people < 48)).any()


def test_recognition_tells_strangers_from_people_it_knows():
    """A classifier that knows strangers by heart, and calls everybody else neutral."""
    known, strangers = (
        PaperFaces(32, length=60, seed=study.SEED + 7, identities=of).batch(range(60)) for of in ("train", "held_out")
    )

    def by_heart(images):
        distance = (images[:, None] - strangers["image"]).abs().amax((2, 3, 4))
        label = torch.where(distance.amin(1) < 1e-6, strangers["expression"][distance.argmin(1)], study.NEUTRAL)
        return torch.nn.functional.one_hot(label, 4)

    config = SimpleNamespace(image_size=32, attributes=(("identity", 40),))
    found = study.recognition(SimpleNamespace(config=config, classifiers={"expression": by_heart}), 60)
    assert found["classifier.strangers"] == 1
    assert found["classifier.known"] == pytest.approx(float((known["expression"] == study.NEUTRAL).float().mean()))


def test_probe_matrix_has_a_row_for_each_code(model):
    matrix = study.probe_matrix(model, 100)
    assert matrix.rows == ("identity", "expression", "illumination", "gaze", "rest")
    assert matrix.columns == ("identity", "expression", "illumination", "gaze")
    assert matrix.values.min() >= 0 and matrix.values.max() <= 1
    assert matrix["gaze", "illumination"] > 0.5  # an untrained encoder keeps what it sees


def test_probe_leak_is_the_largest_ratio_to_chance_off_the_diagonal():
    values = np.array([[1.0, 0.3], [0.2, 1.0], [0.1, 0.26]])
    matrix = ControlMatrix(values, ("identity", "expression", "rest"), ("identity", "expression"))
    assert study.probe_leak(matrix, {"identity": 8, "expression": 4}) == pytest.approx(0.2 * 8)
    assert study.probe_leak(matrix, {"identity": 5, "expression": 4}) == pytest.approx(0.3 * 4)


# ---- synthesis


def test_targets_are_neutral_and_everyone_is_held_out():
    batches = list(study.pairs(32, 120))
    assert [len(target["image"]) for target, _ in batches] == [100, 20]
    for target, donor in batches:
        assert (target["expression"] == study.NEUTRAL).all()
        assert target["identity"].min() >= 40 and donor["identity"].min() >= 40
        assert not torch.equal(target["identity"], donor["identity"])
    assert torch.cat([donor["expression"] for _, donor in batches]).unique().tolist() == [0, 1, 2, 3]


class Truth:
    """A model that draws the true answer: the target's face with the donor's expression and strength."""

    config = SimpleNamespace(image_size=64)

    def __init__(self, n: int):
        self.faces, self.n, self.done = PaperFaces(64, length=2 * n, seed=study.SEED + 3, identities="held_out"), n, 0

    def swap(self, image, *, expression):
        rows = range(self.done, self.done + len(image))
        self.done += len(image)
        donor = self.faces.scenes([self.n + i for i in rows])
        assert torch.equal(expression, render(donor, 64)["image"])
        return render(self.faces.scenes(rows).replace(expression=donor.expression, strength=donor.strength), 64)["image"]


def test_true_answers_score_as_well_as_the_oracle_reads():
    oracle = checkpoints.load("face_oracle")
    result = study.synthesise(Truth(120), oracle, 120)
    assert result.accuracy() > 0.95
    assert result.intensity() > 0.95
    assert result.kept(study.gallery(oracle, 200)) == 1


def test_means_of_labels_take_the_place_of_the_donors_codes(model, oracle):
    means = study.mean_expressions(model, 60)
    seen = PaperFaces(32, length=60, seed=study.SEED + 6).batch(range(60))
    surprised = seen["image"][seen["expression"] == 3]
    torch.testing.assert_close(means[3], model.encode(surprised)["expression"].mean(0))
    (target, donor), given = next(study.pairs(32, 8)), []

    def swap(image, *, expression):
        given.append((image, expression))
        return image

    study.synthesise(SimpleNamespace(config=model.config, swap=swap), oracle, 8, means=means)
    ((image, codes),) = given
    assert torch.equal(image, target["image"]) and torch.equal(codes, means[donor["expression"]])


def test_single_swaps_tell_what_came_from_the_donor_and_how_far_off_the_picture_is():
    names = ("identity", "expression", "illumination", "gaze")

    class Everything:
        """A model whose codes are the whole picture, of which it draws that of one attribute."""

        config, classifiers = SimpleNamespace(image_size=64), dict.fromkeys(names)

        def encode(self, image):
            return dict.fromkeys(("rest", *names), image)

        def decode(self, codes):
            return codes[self.drawn]

    oracle, model = checkpoints.load("face_oracle"), Everything()
    faces = PaperFaces(64, length=240, seed=study.SEED + 3, identities="held_out")
    target, donor = faces.scenes(range(120)), faces.scenes(range(120, 240))
    target = target.replace(expression=torch.zeros(120, dtype=torch.int64))
    true = {name: target.replace(**{name: getattr(donor, name)}) for name in names}
    true["expression"] = true["expression"].replace(strength=donor.strength)
    for model.drawn in ("identity", "gaze"):
        found = study.single_swaps(model, oracle, 120)
        assert found.keys() == {"l1.again", *(f"{kind}.{name}" for kind in ("swap", "l1") for name in names)}
        assert found["l1.again"] == 0
        for name, scene in true.items():
            drawn = donor if name == model.drawn else target
            expected = (render(drawn, 64)["image"] - render(scene, 64)["image"]).abs().mean()
            assert found[f"l1.{name}"] == pytest.approx(float(expected), rel=1e-4)
            alike = float((getattr(drawn, name) == getattr(donor, name)).float().mean())
            assert found[f"swap.{name}"] == pytest.approx(alike, abs=0.02)


class Unchanged(Truth):
    """A model that returns the target."""

    def swap(self, image, *, expression):
        return image


def test_unchanged_targets_keep_their_identity_and_nothing_else():
    oracle = checkpoints.load("face_oracle")
    result = study.synthesise(Unchanged(120), oracle, 120)
    neutral = float((result.expression == study.NEUTRAL).float().mean())
    assert result.accuracy() == pytest.approx(neutral, abs=0.05)
    assert abs(result.intensity()) < 0.3
    assert result.kept(study.gallery(oracle, 200)) == 1


def test_a_strength_that_never_changes_has_no_intensity():
    reading = SimpleNamespace(strength=torch.full((4,), 0.5))
    result = study.Synthesis(reading, torch.zeros(4), torch.tensor([1, 1, 2, 0]), torch.tensor([0.2, 0.9, 0.4, 1.0]))
    assert result.intensity() == 0
    reading.strength = torch.tensor([0.1, 0.8, 0.3, 0.0])  # the neutral face does not count
    assert result.intensity() == pytest.approx(1)


# ---- all of it


def test_evaluation_has_the_figures_and_no_others(monkeypatch, tmp_path, model, stargan, oracle):
    monkeypatch.setattr(study, "load", {"face_oracle": oracle, "stargan": stargan}.__getitem__)
    monkeypatch.setattr(study, "stored_runs", lambda: [run(True, 0, [0.5] * 4), run(False, 0, [0.8] * 4)])
    figures = study.evaluate(model, samples=400)
    assert figures.keys() == KEYS
    assert all(isinstance(value, float) and math.isfinite(value) for value in figures.values())
    assert (figures["hopkins.with"], figures["hopkins.without.worst"]) == pytest.approx((0.5, 0.8))


def test_table_has_bars_and_the_papers_tables():
    runs = [run(True, 0, [0.5, 0.6, 0.55, 0.5]), run(False, 0, [0.8, 0.9, 0.85, 0.8])]
    lines = study.table({"intensity": 0.85, "identity.kept": 0.5, "fid": 12.3}, runs).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in reversed(lines) if line}
    assert rows["intensity"] == ["0.850", ">=", "0.80"]
    assert rows["identity.kept"][-1] == "missed"
    assert rows["fid"] == ["12.300"]
    assert rows["scream"] == ["0.60", "±", "0.00", "0.90", "±", "0.00", "0.52", "±", "0.11", "0.86", "±", "0.08"]
    assert rows["StarGAN"][:3] == ["0.99", "/", "75.39"]
    assert "nan" in study.table({}, [])
