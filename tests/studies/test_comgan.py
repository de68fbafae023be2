import json
from dataclasses import replace

import pytest
import torch

from tutorial_lib.methods.comgan import FAMILIES, LayerCodes
from tutorial_lib.metrics.oracle import Reading
from tutorial_lib.studies import comgan as study
from tutorial_lib.studies.finegan import Generated
from tutorial_lib.training.loop import History
from tutorial_lib.training.presets import PRESETS, build

REQUIRED = {
    "trivial.pi1", "trivial.pi2", "trivial.comgan", "gradient.pi1", "gradient.pi2", "gradient.comgan", "fid", "finegan.fid",
    "control.background", "control.foreground", "pose.r2", "iou", "dice", "iou.per_image", "several.iou", "several.dice",
    "grabcut.iou", "supervised.iou",
}  # fmt: skip


@pytest.fixture
def smoke(monkeypatch, tmp_path):
    """Every preset the study trains is the smoke preset, and nothing is read from the course's own results."""
    for name, preset in (("comgan", "laptop"), ("ds_comgan", "first"), ("ds_comgan_segmenter", "laptop")):
        monkeypatch.setitem(PRESETS[name], preset, PRESETS[name]["smoke"])
    judged = replace(PRESETS["comgan"]["smoke"].method, real_penalty=0.1)  # as the laptop preset's
    monkeypatch.setitem(PRESETS["comgan"], "laptop", replace(PRESETS["comgan"]["smoke"], method=judged))
    torch.manual_seed(0)
    known = {name: build(PRESETS[name]["smoke"].method).eval() for name in ("oracle", "finegan", "mixnmatch")}
    monkeypatch.setattr(study, "load", known.__getitem__)
    monkeypatch.setenv("TUTORIAL_LIB_DATA", str(tmp_path))
    return tmp_path / "results" / "comgan_ablation"


def run(family: str, weight: float, seed: int, trivial: float, gradients: list[float]) -> study.Watched:
    log = {"step": list(range(len(gradients))), "grad_mask": gradients}
    return study.Watched(family, weight, seed, 100, 1.0, {"trivial": trivial}, log)


def test_a_run_is_judged_by_the_median_of_its_last_tenth():
    assert run("pi1", 1.0, 0, 0.0, [9.0] * 27 + [1.0, 5.0, 2.0]).gradient == 2.0
    assert run("pi1", 1.0, 0, 0.0, [9.0, 3.0]).gradient == 3.0


def test_figures_are_means_over_seeds_and_the_regulariser_is_kept_apart():
    runs = [run("pi1", 1.0, 0, 0.2, [1.0]), run("pi1", 1.0, 1, 0.6, [3.0]), run("pi1", 0.0, 0, 1.0, [7.0])]
    expected = {"trivial.pi1": 0.4, "gradient.pi1": 2.0, "free.trivial.pi1": 1.0, "free.gradient.pi1": 7.0}
    assert study.gradient_figures(runs) == pytest.approx(expected)
    expected |= {"light.trivial.pi1": 0.5, "light.gradient.pi1": 9.0}
    assert study.gradient_figures([*runs, run("pi1", 0.1, 0, 0.5, [9.0])]) == pytest.approx(expected)


def test_one_choice_of_side_for_the_whole_set():
    true = torch.zeros(3, 1, 4, 4)
    true[..., :2] = 1
    found = 1 - true
    found[0] = true[0]  # one of three has the other side
    scores = study.scores(found, true)
    assert scores == pytest.approx({"iou": 2 / 3, "dice": 2 / 3, "complement": 1.0, "iou.per_image": 1.0})


def test_grabcut_finds_a_plain_square():
    image = torch.full((2, 3, 32, 32), 0.6)
    image[:, :, 8:20, 10:24] = torch.tensor([-0.8, 0.2, -0.5]).view(3, 1, 1)
    true = torch.zeros(2, 1, 32, 32)
    true[:, :, 8:20, 10:24] = 1
    assert study.iou(study.grabcut(image), true) > 0.95


def test_control_of_layers_is_read_by_name():
    random, n = torch.Generator().manual_seed(0), 600
    texture, background = torch.randint(24, (n,), generator=random), torch.randint(10, (n,), generator=random)
    pose = torch.rand(n, 7, generator=random)
    codes = LayerCodes.from_indices(pose[:, 1:], texture, background, (24, 10))
    one_hot, nothing = torch.nn.functional.one_hot, torch.empty(n, 0)
    reading = Reading(one_hot(background, 10), one_hot(texture // 4, 6), one_hot(texture, 24), pose, nothing, nothing, nothing)
    matrix = study.layer_control(Generated(codes, reading, nothing))
    assert matrix["f", "texture"] == pytest.approx(1) and matrix["b", "background"] == pytest.approx(1)
    assert matrix["f", "background"] < 0.15 and matrix["z", "pose"] > 0.9


def test_a_supervised_network_learns_masks():
    few, more = (study.supervised_unet((4, 8), 32, steps=steps, seed=0) for steps in (1, 60))
    score = [study.iou(*study.masks(network, study.held_out(32, 100))) for network in (few, more)]
    assert score[1] > score[0] + 0.1


def test_every_run_is_trained_once_and_stored(smoke, monkeypatch):
    figures = study.ablate(smoke, steps=4, seeds=2, ds_steps=2, samples=100)
    assert figures.keys() == {*study.ABLATIONS, "supervised"}
    runs = study.stored_runs()
    assert [(r.family, r.seed) for r in runs if r.binary_weight == 1] == [(f, s) for f in FAMILIES for s in range(2)]
    for less in (0.1, 0.0):
        assert [(r.family, r.seed) for r in runs if r.binary_weight == less] == [(f, 0) for f in FAMILIES]
    assert all(len(r.log["grad_mask"]) == len(r.log["step"]) > 0 for r in runs)
    assert {path.stem for path in (smoke / "gradients").glob("*.png")} == {r.name for r in runs}
    spectral = study.stored_runs(condition="gradients_spectral")
    assert [r.name for r in spectral] == [r.name for r in runs] and spectral[0].log != runs[0].log
    assert study.stored_figures()["supervised.iou"] == figures["supervised"]["iou"]
    for name in ("train", "supervised_unet"):
        monkeypatch.setattr(study, name, None)  # nothing is trained twice
    assert study.ablate(smoke, steps=4, seeds=2, ds_steps=2, samples=100) == figures


def test_an_interrupted_run_is_not_stored(smoke, monkeypatch):
    monkeypatch.setattr(study, "train", lambda *args, **kwargs: History(interrupted=True))
    with pytest.raises(KeyboardInterrupt):
        study.ablate(smoke, steps=4)
    assert study.stored_runs() == []


def test_evaluation_has_every_figure(smoke):
    torch.manual_seed(0)
    model = build(PRESETS["ds_comgan_segmenter"]["smoke"].method)
    smoke.mkdir(parents=True)
    (smoke / "figures.json").write_text(json.dumps({"supervised": {"iou": 0.9, "dice": 0.95}}))
    (smoke / "gradients").mkdir()
    for family in FAMILIES:
        stored = replace(run(family, 1.0, 0, 0.5, [1.0]))
        (smoke / "gradients" / f"{stored.name}.json").write_text(json.dumps(vars(stored)))
    figures = study.evaluate(model, samples=200)
    assert figures.keys() >= REQUIRED
    assert all(isinstance(value, float | int) and value == value for value in figures.values())
    lines = study.table(figures)
    assert all(name in lines for name in ("supervised.iou", "DS-ComGAN", "CLEVR6"))


def test_final_masks_say_what_is_trivial():
    torch.manual_seed(0)
    model = build(PRESETS["comgan"]["smoke"].method).eval()
    torch.nn.init.constant_(model.generator.mask[-1].weight, 0.0)  # a mask that does not vary
    figures, sheet = study.final_masks(model, n=100, columns=5)
    assert figures["trivial"] == 1.0 and figures["mask_spread"] == 0.0
    assert sheet.shape == (4, 5, 3, 32, 32)
