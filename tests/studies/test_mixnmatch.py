import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tutorial_lib.data.birds import PaperBirds, render
from tutorial_lib.metrics.oracle import Oracle
from tutorial_lib.studies import mixnmatch as study
from tutorial_lib.training import checkpoints
from tutorial_lib.training.presets import PRESETS, build

KEYS = {"shape", "texture", "l1", "keep.background", "keep.shape", "keep.texture", "pose.r2", "pose.flip", "mask.iou"}


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    torch.manual_seed(0)
    return Oracle(PRESETS["oracle"]["smoke"].method).eval()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return build(PRESETS["mixnmatch"]["smoke"].method).eval()


class Truth:
    """A model that answers with the true mix, and an oracle that knows it."""

    config = SimpleNamespace(image_size=32)

    def __init__(self, n: int):
        self.pairs, self.answers = study.pairs(32, n), {}

    def mix(self, *, background, texture, shape, mode, pose=None):
        self.pair = next(self.pairs)
        assert torch.equal(background, self.pair.a["image"]) and torch.equal(shape, self.pair.b["image"])
        return SimpleNamespace(image=self.pair.truth["image"].as_subclass(torch.Tensor), mask=self.pair.b["mask"])

    def read(self, image):
        truth = self.pair.truth
        labels = {name: truth[name] for name in ("background", "shape", "texture")}
        return SimpleNamespace(labels=lambda: labels, keypoints=truth["keypoints"], pose=truth["pose"])


def test_pairs_have_the_true_mix():
    (pair,) = study.pairs(32, 5)
    birds = PaperBirds(32, length=10, seed=study.HELD_OUT + 7)
    a, b = birds.scenes(range(5)), birds.scenes(range(5, 10))
    for name in ("mask", "keypoints", "pose", "shape"):
        torch.testing.assert_close(pair.truth[name], pair.b[name])
    for name in ("texture", "background"):
        assert torch.equal(pair.truth[name], pair.a[name])
    outside = (pair.truth["mask"] == 0) & (pair.a["mask"] == 0)
    same = (pair.truth["image"] == pair.a["image"]).all(1, keepdim=True)
    assert same[outside].all()
    torch.testing.assert_close(
        pair.truth["image"], render(b.replace(texture=a.texture, background=a.background, ground=a.ground), 32)["image"]
    )


def test_true_mixes_score_as_well_as_one_can():
    truth = Truth(150)
    scores = study.score_mixes(truth, truth, "feature", 150)
    assert scores.keys() == KEYS
    assert scores["shape"] == scores["l1"] == 0 and scores["mask.iou"] == pytest.approx(1)
    assert all(
        scores[name] == pytest.approx(1) for name in ("keep.background", "keep.shape", "keep.texture", "pose.r2", "pose.flip")
    )
    assert 0 < scores["texture"] < 0.4  # the same plumage on another shape


@pytest.mark.parametrize("mode", ["code", "feature"])
def test_untrained_model_is_scored(mode, model, oracle):
    scores = study.score_mixes(model, oracle, mode, 120)
    assert scores.keys() == KEYS and all(math.isfinite(value) for value in scores.values())
    assert scores["keep.texture"] < 0.3


def test_four_donors_and_encoding_have_every_figure(model, oracle):
    figures = study.four_donors(model, oracle, 110) | study.encoding(model, 110)
    names = {f"{kind}.{factor}" for kind in ("mix", "encode") for factor in ("background", "shape", "texture")}
    assert figures.keys() >= names | {*study.CLUSTERS, *(f"alone.{name}" for name in study.CLUSTERS)}
    assert all(0 <= figures[name] <= 1 for name in names)


def test_posthoc_encoders_learn_generated_pictures_and_leave_the_generator_alone():
    torch.manual_seed(0)
    trained = replace(PRESETS["finegan"]["smoke"].method, segmenter_widths=(4, 8), real_information=1.0, child_judged=True)
    finegan, config = build(trained), PRESETS["mixnmatch_code"]["smoke"].method
    config = replace(config, z_dim=12)  # FineGAN's own counts
    with torch.no_grad():
        for _ in range(30):
            finegan.sample(16)  # so that its BatchNorm knows its variances, and b shows
    model = study.posthoc_encoders(finegan.eval(), config, steps=150)
    for name, value in finegan.generator.state_dict().items():
        assert torch.equal(value, model.generator.state_dict()[name])
    codes = finegan.sample_codes(200, tied=False)
    with torch.no_grad():
        read = model.encode(finegan.generate(codes).image)
    assert (read.index("b") == codes.index("b")).float().mean() > 0.3  # a tenth by chance


def test_table_has_table_3_beside_the_papers():
    lines = study.table({"mix.shape": 0.9, "table3.code.shape": 3.21, "table3.code.texture": 0.4}).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert rows["mix.shape"] == ["0.900", ">=", "0.80"]
    assert rows["code"] == ["3.21", "0.400", "20.57", "0.540"]
    assert rows["tied"] == ["nan", "nan", "26.95", "0.601"]


def test_ablations_train_and_measure_every_row(monkeypatch, tmp_path, oracle):
    for name, preset in (("mixnmatch_code", "plain"), ("mixnmatch", "first")):
        monkeypatch.setitem(PRESETS[name], preset, PRESETS[name]["smoke"])
    for name in ("finegan", "mixnmatch"):
        torch.manual_seed(0)
        checkpoints.save(build(PRESETS[name]["smoke"].method), tmp_path / "checkpoints" / f"{name}.safetensors", card={})
    monkeypatch.setenv("TUTORIAL_LIB_DATA", str(tmp_path))
    monkeypatch.setattr(study, "load", lambda name: oracle)
    figures = study.ablate(tmp_path / "results" / "mixnmatch_ablation", steps=2, samples=20)
    assert figures.keys() == study.ABLATIONS.keys()
    assert set(study.PAPER_TABLE3) <= figures.keys() | {"finegan", "code", "feature"}
    assert study.stored_ablations() == figures
    assert {path.stem for path in (tmp_path / "results" / "mixnmatch_ablation").glob("*.png")} == figures.keys()

    trained, train = [], study.train
    monkeypatch.setattr(
        study, "train", lambda model, *args, **kwargs: trained.append(model.name) or train(model, *args, **kwargs)
    )
    assert study.ablate(tmp_path / "results" / "mixnmatch_ablation", steps=2, samples=20) == figures
    assert not trained  # nothing is trained twice
    checkpoints.save(build(PRESETS["finegan"]["smoke"].method), tmp_path / "checkpoints" / "finegan.safetensors", card={})
    again = study.ablate(tmp_path / "results" / "mixnmatch_ablation", steps=2, samples=20)
    assert trained == ["mixnmatch_code"] * 5  # but what began from another checkpoint,
    assert all((again[row] == figures[row]) == (study.ABLATIONS[row][2] == "mixnmatch") for row in figures)
    study.ablate(tmp_path / "results" / "mixnmatch_ablation", steps=2, samples=10)
    assert len(trained) == 5 + len(study.ABLATIONS)  # and what was measured on another number of pairs


def test_ablations_of_feature_mode_begin_from_the_code_mode_before_it(monkeypatch, tmp_path):
    monkeypatch.setenv("TUTORIAL_LIB_DATA", str(tmp_path))
    places = [tmp_path / "checkpoints" / f"{name}.safetensors" for name in ("mixnmatch_code", "first", "mixnmatch")]
    code, *stages = (build(PRESETS[name]["smoke"].method) for name in ("mixnmatch_code", "mixnmatch", "mixnmatch"))
    checkpoints.save(code, places[0], card={})
    for before, stage, place in zip(places, stages, places[1:], strict=False):
        checkpoints.save(stage, place, card={"start": checkpoints.start_from(stage, before)})
    assert study.beginning("mixnmatch") == checkpoints.sha256(places[0]) == study.beginning("mixnmatch_code")


@pytest.mark.skipif(not {"finegan", "mixnmatch"} <= set(checkpoints.shipped()), reason="no checkpoints are shipped")
def test_stored_ablations_began_from_what_is_shipped():
    rows = study.stored_ablations()
    assert rows.keys() == study.ABLATIONS.keys()
    for row, figures in rows.items():
        assert figures["start"] == study.beginning(study.ABLATIONS[row][2])
        assert figures["samples"] == 5000


@pytest.mark.skipif(not {"finegan", "mixnmatch"} <= set(checkpoints.shipped()), reason="no checkpoints are shipped")
def test_both_cards_have_the_same_clusters_of_finegan():
    mixnmatch, finegan = (checkpoints.card(name)["figures"] for name in ("mixnmatch", "finegan"))
    assert {name: mixnmatch[f"finegan.{name}"] for name in study.CLUSTERS} == {name: finegan[name] for name in study.CLUSTERS}


def test_a_sheet_of_mixes_has_the_donors_above_and_the_truth_below(model):
    (pair,) = study.pairs(32, 3)
    sheet = study.mix_sheet(model, "feature", n=3)
    assert sheet.shape == (4, 3, 3, 32, 32)
    for row, part in ((0, pair.a), (1, pair.b), (3, pair.truth)):
        assert torch.equal(sheet[row], part["image"].as_subclass(torch.Tensor))
    assert 0 < (sheet[2] - sheet[3]).abs().mean() < 2
