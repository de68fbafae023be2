import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tutorial_lib.data.faces import EXPRESSIONS, GAZES, NUISANCE, TRAINING, render, sample_scene
from tutorial_lib.data.moons import ThreeMoons
from tutorial_lib.methods.gmvae import GMVAE, LatentCodes
from tutorial_lib.metrics.face_oracle import FaceOracle
from tutorial_lib.studies import gmvae as study
from tutorial_lib.studies.oracle import HELD_OUT
from tutorial_lib.training import checkpoints
from tutorial_lib.training.loop import History
from tutorial_lib.training.presets import PRESETS, build

SMOKE = PRESETS["gmvae"]["smoke"]
QUALITY = ("is", "diversity", "fid")
KEYS = [
    "moons.coverage", "moons.cvaegan.coverage", "digits.accuracy", *QUALITY,
    *(f"{kind}.{name}" for kind in ("compared", "cvae", "cvaegan", "cgan") for name in QUALITY),
    "probe.label_from_zs", "probe.label_from_zu_over_chance", "probe.rest_from_zu", "active_units",
    "compared.active_units", "vae.active_units", "unseen.label", "unseen.rest", "unseen.beside.label", "unseen.beside.rest",
    "inpaint.psnr", "compared.inpaint.psnr", "cvaegan.inpaint.psnr",
]  # fmt: skip


def make(method: str = "gmvae") -> nn.Module:
    torch.manual_seed(0)
    return build(PRESETS[method]["smoke"].method).eval()


@pytest.fixture(scope="module")
def oracle() -> FaceOracle:
    return make("face_oracle")


@pytest.fixture(scope="module")
def model() -> GMVAE:
    return make()


class Stub:
    """What a model of faces must say of itself."""

    name = "stub"
    config = SimpleNamespace(image_size=32, n_classes=TRAINING, label="identity")


# ---- generated pictures


@pytest.mark.parametrize("part", [1.0, 0.5])
def test_coverage_is_the_share_of_the_true_spread(part):
    class Moons:
        config = SimpleNamespace(n_classes=3)

        def sample(self, label, generator):
            points = ThreeMoons(length=len(label), seed=HELD_OUT).batch(range(len(label)))["image"]
            return label, points * torch.tensor([1.0, part]) + torch.tensor([0.0, 3.0])

    assert study.coverage(Moons(), 600) == pytest.approx(part)


class Painter(Stub):
    """Draws faces of the label it is given, all the same ones if it has collapsed."""

    def __init__(self, collapsed: bool = False):
        self.collapsed, self.drawn = collapsed, 0

    def sample(self, n, generator):
        label = n if isinstance(n, torch.Tensor) else torch.arange(n) % TRAINING
        scene = sample_scene(
            7, torch.zeros(len(label)).long() if self.collapsed else range(self.drawn, self.drawn + len(label))
        )
        self.drawn += len(label)
        return label, render(scene.replace(identity=label), 32)["image"]


def test_quality_knows_true_faces_from_collapsed_and_untrained_ones(oracle, model):
    true, collapsed, untrained = (study.quality(m, oracle, 200) for m in (Painter(), Painter(collapsed=True), model))
    assert true.keys() == {"is", "fid", "diversity"}
    assert true["fid"] < collapsed["fid"] and true["fid"] < untrained["fid"]
    assert collapsed["diversity"] == pytest.approx(0, abs=1e-4) and true["diversity"] > 0.2


def test_plain_vae_has_no_diversity_within_a_class(oracle):
    assert study.quality(make("vae"), oracle, 100).keys() == {"is", "fid"}


def test_classes_of_a_sheet_lie_evenly_among_all(model, monkeypatch):
    asked = []
    monkeypatch.setattr(
        model, "sample", lambda n, generator: (asked.append(n.tolist()), (n, torch.zeros(len(n), 3, 32, 32)))[1]
    )
    assert study.of_each_class(model, 2, torch.Generator(), classes=4).shape == (4, 2, 3, 32, 32)
    assert asked == [[0, 0], [10, 10], [20, 20], [30, 30]]


# ---- the split


class Reader(Stub):
    """Codes that are known exactly: it follows the faces it is shown. And an oracle that makes no mistake."""

    def __init__(self, part: int, samples: int):
        self.batches = study.faces(self, samples, part)

    def encode(self, image):
        self.batch = next(self.batches)
        assert torch.equal(image, self.batch["image"])
        who = nn.functional.one_hot(self.batch["identity"], TRAINING).float()
        gaze = nn.functional.one_hot(self.batch["gaze"], len(GAZES)).float()
        mu = torch.cat([gaze, self.batch["nuisance"]], 1)
        return LatentCodes(who, mu, torch.full_like(mu, 1e-3))

    def read(self, image):
        return SimpleNamespace(labels=lambda: {k: self.batch[k] for k in ("identity", "expression", "illumination", "gaze")},
                               strength=self.batch["strength"])  # fmt: skip


def test_probes_find_what_each_code_holds_and_nothing_else():
    reader = Reader(1, 500)
    found = study.probes(reader, reader, 100)
    assert found.keys() == {"identity", *study.REST}
    assert found["identity"]["z_s"] > 0.99 and found["identity"]["z_u"] < 3 / TRAINING
    assert found["gaze"]["z_u"] > 0.99 and found["gaze"]["z_s"] < 0.45
    assert all(found[name]["z_u"] > 0.99 > 0.1 > found[name]["z_s"] for name in NUISANCE)
    assert found["expression"]["z_u"] < 0.4 and found["strength"]["z_u"] < 0.1
    assert all(found[name]["image"] == 1 for name in ("identity", "expression", "illumination", "gaze", "strength"))
    assert 0.2 < found["x"]["image"] <= 1


@pytest.mark.parametrize(("score", "of", "expected"), [(0.4, 0.8, 0.5), (0.9, 0.8, 1), (-0.3, 0.8, 0), (0.0, 0.0, 0)])
def test_share_of_a_score_lies_between_nought_and_one(score, of, expected):
    assert study.share(score, of) == pytest.approx(expected)


@pytest.mark.parametrize("method", ["gmvae", "vae", "cvaegan"])
def test_collapsed_dimensions_are_not_counted(method):
    model = make(method)
    out = (model.rest_encoder if method == "gmvae" else model.encoder).out
    d = out.out_features // 2
    with torch.no_grad():
        out.weight[:d] *= 1000
        for row in (1, 1 + d):
            out.weight[row], out.bias[row] = 0, 0  # μ = 0, σ = 1 for every picture
    active, kl = study.collapse(model, 100)
    assert active == d - 1
    assert kl[1] == 0 and all(value > 0 for k, value in enumerate(kl) if k != 1)


def test_directions_are_those_in_which_the_factors_move_the_code():
    found = study.directions(Reader(3, 400), 400)
    assert list(found) == ["gaze", "light x", "light y", *EXPRESSIONS[1:], *NUISANCE]
    # What the code holds exactly: to the right minus to the left (dimensions 2 and 0), place, roll and scale (3 to 6).
    moved = {name: torch.cat([step[2:3] - step[:1], step[3:]]) for name, step in found.items()}
    for k, name in enumerate(("gaze", *NUISANCE)):
        torch.testing.assert_close(moved[name], torch.eye(5)[k], atol=1e-4, rtol=0)
    for name in ("light x", "light y", *EXPRESSIONS[1:]):
        torch.testing.assert_close(moved[name], torch.zeros(5), atol=1e-4, rtol=0)


class Swapper(Stub):
    """Mixes that are pairs of pictures, and an oracle that looks each up among the faces they were made of."""

    def __init__(self, samples: int, copies: bool = False):
        self.known = [{k: torch.cat([b[k] for b in study.faces(self, samples, part, "held_out")]) for k in self.factors}
                      for part in (4, 5)]  # fmt: skip
        self.copies = copies

    factors = ("image", "identity", "expression", "illumination", "gaze")

    def swap(self, label_from, rest_from):
        return torch.stack([rest_from if self.copies else label_from, rest_from], 1)

    def read(self, pairs):
        def look_up(factor, pictures):
            every = torch.cat([part["image"] for part in self.known]).flatten(1)
            rows = torch.stack([(every == picture.flatten()).all(1).nonzero()[0, 0] for picture in pictures])
            return torch.cat([part[factor] for part in self.known])[rows]

        labels = {name: look_up(name, pairs[:, int(name != "identity")]) for name in self.factors[1:]}
        return SimpleNamespace(labels=lambda: labels)


def test_true_swaps_agree_and_copies_keep_no_label():
    true, copy = (study.swapped(stub, stub, "held_out", 60) for stub in (Swapper(60), Swapper(60, copies=True)))
    assert true == dict.fromkeys(("label", "rest", "expression", "illumination", "gaze"), 1.0)
    assert copy["label"] == 0 and copy["rest"] == 1


# ---- inpainting


def test_eyes_are_inside_their_region():
    scene = sample_scene(3, range(40), identities="all")
    looks = [render(scene.replace(gaze=torch.full((40,), gaze)), 64)["image"] for gaze in (0, 2)]
    changed = (looks[0] != looks[1]).any(1, keepdim=True)
    assert changed.any() and not (changed & ~study.hole("eyes", 64)).any()


def test_regions_cover_what_their_names_say():
    assert study.hole("right half", 32)[..., 16:].all() and not study.hole("right half", 32)[..., :16].any()
    assert study.hole("bottom half", 32)[..., 16:, :].all() and not study.hole("bottom half", 32)[..., :16, :].any()
    with pytest.raises(ValueError, match="region must be one of right half, eyes, .*'ears'"):
        study.hole("ears", 32)


def test_psnr_counts_the_hole_alone():
    class Filler(Stub):
        def inpaint(self, x, hole, label):
            assert hole.shape == (1, 1, 32, 32) and label.shape == (len(x),)
            return torch.where(hole, x - 0.2 * torch.where(x < 0, -1, 1), x)  # off by 0.2: 10 log10(2² / 0.2²) = 20 dB

    found = study.inpainting(Filler(), 30)
    assert found.keys() == study.REGIONS.keys()
    assert all(scores["psnr"] == pytest.approx(20, abs=1e-3) and 0 < scores["ms_ssim"] < 1 for scores in found.values())
    assert study.mean_psnr(found) == pytest.approx(20, abs=1e-3)


# ---- what is trained beside, and all figures


def test_shipped_model_sees_no_held_out_person_and_the_tuning_no_name():
    rows = range(300)
    seen = PRESETS["gmvae"]["laptop"].dataset().scenes(rows).identity
    assert int(seen.max()) < TRAINING
    alone, beside = (study.RUNS[name].chosen.dataset().batch(rows) for name in ("unseen", "unseen.beside"))
    assert (alone["identity"] == -1).all()
    unknown = (beside["identity"] == -1).float().mean()
    assert unknown == pytest.approx(8 / 48, abs=0.07) and int(beside["identity"].max()) < TRAINING


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """The course's data folder with smoke checkpoints, and smoke presets in place of those that take long."""
    folder = tmp_path_factory.mktemp("course")
    for method in ("gmvae", "face_oracle"):
        checkpoints.save(make(method), folder / "checkpoints" / f"{method}.safetensors", card={})
    unseen = replace(SMOKE, data={**SMOKE.data, "identities": "held_out", "anonymous": True}, start="gmvae")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTORIAL_LIB_DATA", str(folder))
        patch.chdir(folder)
        patch.setitem(PRESETS["gmvae"], "compared", SMOKE)
        patch.setitem(PRESETS["gmvae"], "unseen", replace(unseen, method=replace(SMOKE.method, stage_one_updates=1)))
        for kind in ("vae", "cvae", "cvaegan", "cgan"):
            patch.setitem(PRESETS[kind], "laptop", PRESETS[kind]["smoke"])
        yield folder


@pytest.fixture(scope="module")
def ablated(workplace):
    folder = workplace / "results" / "gmvae_ablation"
    return folder, study.ablate(folder, steps=3, samples=60)


def test_ablate_trains_measures_and_stores_every_run(ablated):
    folder, figures = ablated
    files = [f"{name.replace('.', '_')}_{seed}" for name, run in study.RUNS.items() for seed in range(run.seeds)]
    assert list(figures) == files and {path.stem for path in folder.glob("*.json")} == set(files)
    steps = {run.name: run.steps for run in study.stored_runs()}
    assert steps["moons"] == steps["digits"] == steps["unseen"] == 3 and steps["moons.cvaegan"] == steps["cgan"] == 1
    assert {path.stem for path in folder.glob("*.png")} >= {
        "digits_0_swaps",
        "cvaegan_0_inpaint",
        "cvae_0_samples",
        "unseen_0_swaps",
    }
    assert len(figures["vae_0"]["kl"]) == PRESETS["vae"]["smoke"].method.z_dim and "kl" not in figures["cgan_0"]
    assert {"label", "before.label"} <= figures["unseen_0"].keys()


def test_ablate_keeps_what_is_there(ablated, monkeypatch):
    folder, figures = ablated
    monkeypatch.setattr(study, "train", lambda *_, **__: pytest.fail("trained again"))
    assert study.ablate(folder, steps=3, samples=60) == figures


def test_ablate_makes_anew_what_started_from_another_model(ablated, monkeypatch):
    folder, _ = ablated
    (made,) = (run for run in study.stored_runs(folder) if run.name == "unseen" and run.seed == 0)
    assert made.start == checkpoints.card("gmvae")["sha256"]
    monkeypatch.setattr(study, "card", lambda name: {"sha256": "0" * 64})
    asked = []
    monkeypatch.setattr(study, "train", lambda *where, **_: asked.append(where[3].name) or History(interrupted=True))
    with pytest.raises(KeyboardInterrupt):
        study.ablate(folder, steps=3, samples=60)
    assert asked == ["unseen_0_3_00000000"]


def test_interrupted_ablation_stores_no_half_run(workplace, monkeypatch, tmp_path):
    monkeypatch.setattr(study, "train", lambda *_, **__: History(interrupted=True))
    with pytest.raises(KeyboardInterrupt):
        study.ablate(tmp_path, steps=3)
    assert not list(tmp_path.iterdir())


def test_evaluate_has_the_figures_that_were_asked_for(ablated, model):
    figures = study.evaluate(model, samples=500)
    assert list(figures) == KEYS
    assert all(math.isfinite(value) for value in figures.values())
    runs = study.stored_runs()
    seeds = [run.figures["coverage"] for run in runs if run.name == "moons"]
    assert len(seeds) == 3 and figures["moons.coverage"] == pytest.approx(sum(seeds) / 3)


def test_missing_run_is_named():
    with pytest.raises(FileNotFoundError, match="no run 'digits' is stored: .* ablate gmvae"):
        study.stored_figure([], "digits", "accuracy")


def test_model_of_other_data_is_named():
    with pytest.raises(ValueError, match="PaperFaces' identity as its label, got 'label'"):
        study.evaluate(build(PRESETS["gmvae"]["moons"].method))


def test_table_has_bars_claims_and_the_papers_figures():
    lines = study.table(
        {"digits.accuracy": 0.95, "compared.diversity": 0.4, "cvaegan.diversity": 0.3, "compared.fid": 9.0, "cvaegan.fid": 8.0}
    ).splitlines()
    assert any(line.split() == ["digits.accuracy", "0.950", ">=", "0.96", "missed"] for line in lines)
    claims = {line.split()[0]: line.split()[-1] for line in lines if line.endswith(("yes", "no"))}
    assert claims == {"compared.diversity": "yes", "compared.fid": "no"}
    assert any(line.split() == ["cvaegan.diversity", "0.0141", "0.0136", "0.0179", "0.0195"] for line in lines)
