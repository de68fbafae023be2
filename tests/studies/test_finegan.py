import math
from dataclasses import replace

import pytest
import torch

from tutorial_lib.codes import Codes
from tutorial_lib.methods.finegan import CodePredictor, CodePredictorConfig
from tutorial_lib.metrics.oracle import Oracle, Reading
from tutorial_lib.studies import finegan as study
from tutorial_lib.training import checkpoints
from tutorial_lib.training.loop import History
from tutorial_lib.training.presets import PRESETS, build

SIZES = (10, 6, 24)
REQUIRED = {
    "control.background", "control.shape", "control.texture", "control.leak", "pose.r2", "mask.iou", "fid", "fid.floor", "kid",
    "infogan.fid", "nmi.shape", "nmi.texture", "params",
}  # fmt: skip


def perfect(n: int = 1200) -> tuple[Codes, Reading]:
    """What a generator would give whose codes are the factors: b, p and c the classes, z the pose."""
    random = torch.Generator().manual_seed(0)
    classes = [torch.randint(k, (n,), generator=random) for k in SIZES]
    pose = torch.rand(n, 7, generator=random) * 2 - 1
    codes = Codes.from_indices(pose[:, 1:], *classes, SIZES)
    nothing = torch.empty(n, 0)
    return codes, Reading(codes.b, codes.p, codes.c, pose, nothing, nothing, nothing)


def test_control_of_a_perfect_generator_is_the_identity():
    matrix = study.control(*perfect())
    assert (matrix.rows, matrix.columns) == (("b", "p", "c", "z"), ("background", "shape", "texture", "pose"))
    assert matrix.diagonal[:3] == pytest.approx(1)
    assert matrix["z", "pose"] > 0.95
    assert matrix.leak() < 0.1


def test_control_of_a_generator_that_ignores_its_codes_is_nothing():
    codes, reading = perfect()
    shuffled = codes[torch.randperm(len(codes), generator=torch.Generator().manual_seed(1))]
    assert study.control(shuffled, reading).values.max() < 0.1


def test_generated_pictures_keep_the_order_of_their_codes():
    torch.manual_seed(0)
    model = build(PRESETS["finegan"]["smoke"].method).eval()
    oracle = Oracle(PRESETS["oracle"]["smoke"].method).eval()
    generated = study.generate_and_read(model, oracle, 120)  # more than one batch, and not a whole number of them
    assert len(generated.codes) == len(generated.masks) == len(generated.reading.pose) == 120
    with torch.no_grad():
        stages = model.generate(generated.codes[110:])
        torch.testing.assert_close(generated.masks[110:], stages.mask)
        torch.testing.assert_close(generated.reading.pose[110:], oracle.read(stages.image).pose, atol=1e-4, rtol=1e-4)


def test_features_of_as_many_pictures_as_asked_for():
    torch.manual_seed(0)
    model = build(PRESETS["finegan"]["smoke"].method).eval()
    oracle = Oracle(PRESETS["oracle"]["smoke"].method).eval()
    features, logits = study.generated_features(model, oracle, 130, tied=True)
    assert features.shape == (130, 128) and logits.shape == (130, 24)


def test_clustering_is_scored_for_shape_and_texture():
    torch.manual_seed(0)
    predictor = CodePredictor(CodePredictorConfig(32, 6, 24, (4, 8, 8))).eval()
    figures = study.cluster(predictor, samples=100)
    assert figures.keys() == {"nmi.shape", "nmi.texture", "accuracy.shape", "accuracy.texture"}
    assert all(0 <= value <= 1 for value in figures.values())


def test_sorted_pictures_are_scored_against_their_species_and_plumages(monkeypatch):
    torch.manual_seed(0)
    model = build(replace(PRESETS["finegan"]["smoke"].method, segmenter_widths=(4, 8))).eval()
    birds = study.PaperBirds(32, length=300, seed=study.HELD_OUT + 1).batch(range(300))
    plumage, asked = birds["texture"], iter(range(0, 300, 100))

    def knows(images):
        start = next(asked)
        torch.testing.assert_close(images, birds["image"][start : start + 100])
        return None, torch.nn.functional.one_hot((plumage[start : start + 100] + 4) % 24, 24)  # other names, same families

    monkeypatch.setattr(model, "sort", knows)
    assert study.sorted_pictures(model, samples=300) == pytest.approx({"sorted.shape": 1, "sorted.texture": 1})
    assert study.sorted_pictures(build(PRESETS["finegan"]["smoke"].method)) == {}


def test_table_has_measured_figures_beside_bars_and_the_papers():
    lines = study.table({"control.shape": 0.9123, "control.leak": 0.04, "params": 338_480}).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert rows["control.shape"] == ["0.912", ">=", "0.80"]
    assert rows["control.leak"] == ["0.040", "<=", "0.15"]
    assert rows["params"] == ["338480"]
    assert rows["nmi"] == ["0.403", "0.233", "0.354"]


@pytest.mark.parametrize(("value", "expected"), [(0.65, True), (0.66, False), (0.0, True), (math.nan, False)])
def test_a_bar_is_reached_by_what_equals_it_and_not_by_nan(value, expected):
    assert study.reached("a", value, {"a": ("<=", 0.65)}) == expected
    assert study.reached("a", -value, {"a": (">=", -0.65)}) == expected


@pytest.mark.slow
@pytest.mark.skipif(not {"finegan", "infogan", "oracle"} <= set(checkpoints.shipped()), reason="no checkpoints are shipped")
def test_evaluation_of_the_shipped_model_has_every_figure(monkeypatch):
    fit = study.fit_predictor
    monkeypatch.setattr(study, "fit_predictor", lambda model: fit(model, steps=2))
    figures = study.evaluate(checkpoints.load("finegan"), samples=150)
    assert figures.keys() >= REQUIRED
    assert all(isinstance(value, float | int) for value in figures.values())
    assert figures["control.shape"] > figures["control.leak"]


def test_ablate_keeps_what_is_there_and_makes_what_is_not(tmp_path, monkeypatch):
    trained = []

    def train(model, data, run):
        trained.append(type(model).__name__)
        return History(averaged={"generator": model.generator}, seconds=1.0)

    monkeypatch.setattr(study, "train", train)
    monkeypatch.setattr(study, "where_codes_act", lambda model: {"b": 1.0})
    monkeypatch.setattr(study, "ABLATIONS", dict(list(study.ABLATIONS.items())[:2]))
    figures = study.ablate(tmp_path, steps=2)
    assert len(trained) == 2 and study.ablate(tmp_path, steps=2) == figures and len(trained) == 2
    study.ablate(tmp_path, steps=3)
    assert len(trained) == 4
