"""What a panel offers for copying makes its picture."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib.data.birds import PaperBirds
from tutorial_lib.training.presets import PRESETS, build
from tutorial_lib.widgets.birds import bird_panel
from tutorial_lib.widgets.comgan import composition_panel, ds_comgan_panel, segmentation_panel
from tutorial_lib.widgets.finegan import finegan_panel
from tutorial_lib.widgets.gmvae import PRIOR, gmvae_panel
from tutorial_lib.widgets.mixnmatch import CODE, mixnmatch_panel
from tutorial_lib.widgets.uniform_posterior import LABEL, uniform_posterior_panel

PICTURES = PaperBirds(size=32, length=3).batch(range(3))["image"].as_subclass(torch.Tensor)
OWN = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)


def model(name: str):
    torch.manual_seed(0)
    return build(PRESETS[name]["smoke"].method).eval()


def run(code: str, **given) -> np.ndarray:
    """The picture that the code makes, as uint8 (H, W, 3)."""
    space = dict(given)
    exec(code, space)
    assert space["image"].shape[:2] == (1, 3)
    return ((space["image"][0].permute(1, 2, 0) + 1) * 127.5).clamp(0, 255).numpy()


def check(panel, **given) -> None:
    shown = np.asarray(Image.open(BytesIO(panel.png))).astype(int)
    assert np.abs(run(panel.code, **given) - shown).max() <= 1, panel.code


@pytest.mark.parametrize("shuffles", [0, 2])
def test_birds(shuffles):
    panel = bird_panel(size=32, sources=1)
    for _ in range(shuffles):
        panel.shuffle()
    check(panel)


def test_whole_numbers_are_numbers_like_others():
    """A list of whole numbers alone would be a tensor of another type."""
    panel = bird_panel(size=32, sources=1)
    panel.set(**dict.fromkeys(("x", "y", "scale", "rotation", "head", "wing"), 0))
    check(panel)
    finegan = model("finegan")
    panel = finegan_panel(finegan, sources=1, components=100)
    panel.set(**{name: 0 for name in panel.controls if name.startswith("z")})
    check(panel, model=finegan)


@pytest.mark.parametrize("components", [2, 100])
def test_finegan(components):
    finegan = model("finegan")
    panel = finegan_panel(finegan, sources=1, components=components)
    panel.set(b=1, z1=-1.25)
    check(panel, model=finegan)


def test_finegan_without_any_slider_for_z():
    finegan = model("finegan")
    check(finegan_panel(finegan, sources=1, components=0), model=finegan)


@pytest.fixture(scope="module")
def mixnmatch():
    return model("mixnmatch")


@pytest.mark.parametrize(
    "state",
    [
        {"background": 0, "shape": 1, "pose": 2, "texture": 0},
        {"background": CODE, "shape": CODE, "pose": CODE, "texture": CODE, "b": 3, "p": 1, "c": 2, "z": 7},
        {"background": 0, "shape": 1, "texture": 2, "feature": True},
        {"background": CODE, "shape": 1, "texture": 2, "feature": True},
        {"background": 0, "shape": CODE, "texture": 2, "feature": True},
        {"background": 1, "shape": 1, "texture": 2, "feature": True, "stitch": True},
        {"background": 2, "shape": 1, "texture": 1, "feature": True, "stitch": True},
        {"background": 0, "shape": 3, "texture": 3, "feature": True, "stitch": True},
        {"background": 1, "shape": 1, "texture": 1, "feature": True, "stitch": True},
    ],
)
def test_mixnmatch(mixnmatch, state, tmp_path, monkeypatch):
    panel = mixnmatch_panel(mixnmatch, PICTURES)
    Image.fromarray(OWN).save(tmp_path / "yours.png")
    monkeypatch.chdir(tmp_path)
    panel.upload((tmp_path / "yours.png").read_bytes())
    panel.set(**state)
    check(panel, model=mixnmatch, pictures=PICTURES)


def test_composition():
    panel = composition_panel(32)
    panel.set(bird=5, alike=0.4, background_knows=0.3, x=-0.2, bias=1.5)
    check(panel)


@pytest.mark.parametrize("components", [2, 100])
def test_ds_comgan(components):
    comgan = model("ds_comgan_segmenter")
    panel = ds_comgan_panel(comgan, sources=1, components=components)
    panel.set(f=2, b=1)
    check(panel, model=comgan)


@pytest.mark.parametrize("state", [{"picture": 1, "threshold": 0.45}, {"picture": 3, "complement": True}])
def test_segmentation(state, tmp_path, monkeypatch):
    segmenter = model("ds_comgan_segmenter")
    panel = segmentation_panel(segmenter, PICTURES)
    Image.fromarray(OWN).save(tmp_path / "yours.png")
    monkeypatch.chdir(tmp_path)
    panel.upload((tmp_path / "yours.png").read_bytes())
    panel.set(**state)
    check(panel, model=segmenter, pictures=PICTURES)


@pytest.mark.parametrize(
    "state",
    [
        {"label": 0, "rest": 1},
        {"label": PRIOR, "c": 3, "rest": PRIOR, "z": 11},
        {"label": PRIOR, "c": 2, "walk": -1.0, "way": 4, "rest": 2, "gaze": 0.75},
        {"label": 3, "walk": 0.5, "rest": 3, "light": -1.5},
    ],
)
def test_gmvae(state, tmp_path, monkeypatch):
    vae = model("gmvae")
    directions = dict(zip(("gaze", "light"), torch.randn(2, vae.config.z_u_dim), strict=True))
    panel = gmvae_panel(vae, PICTURES, directions)
    Image.fromarray(OWN).save(tmp_path / "yours.png")
    monkeypatch.chdir(tmp_path)
    panel.upload((tmp_path / "yours.png").read_bytes())
    panel.set(**state)
    check(panel, model=vae, pictures=PICTURES, directions=directions)


@pytest.mark.parametrize(
    "state",
    [
        {"identity": 0, "expression": 1, "rest": 2},
        {"identity": 0, "identity_2": 1, "identity_3": 3, "cuts": (0.35, 0.8), "gaze": 3},
        {"expression": LABEL, "expression_label": 2, "expression_strength": 0.6},
        {"expression": 1, "expression_strength": 1.5},
    ],
)
def test_uniform_posterior(state, tmp_path, monkeypatch):
    faces = model("uniform_posterior")
    means = {"expression": torch.randn(4, *faces.config.code_shape)}
    panel = uniform_posterior_panel(faces, PICTURES, means)
    Image.fromarray(OWN).save(tmp_path / "yours.png")
    monkeypatch.chdir(tmp_path)
    panel.upload((tmp_path / "yours.png").read_bytes())
    panel.set(**state)
    check(panel, model=faces, pictures=PICTURES, means=means)


LARGE = PaperBirds(size=48, length=3).batch(range(3))["image"].as_subclass(torch.Tensor)


@pytest.mark.parametrize("pictures", [LARGE, ((PICTURES + 1) * 127.5).to(torch.uint8)], ids=["larger", "uint8"])
def test_pictures_of_any_kind(pictures):
    mixnmatch, gmvae = model("mixnmatch"), model("gmvae")
    panel = mixnmatch_panel(mixnmatch, pictures, mode="feature")
    panel.set(shape=1, background=1, texture=1, stitch=True)
    check(panel, model=mixnmatch, pictures=pictures)
    panel = gmvae_panel(gmvae, pictures)
    panel.set(label=1, rest=2)
    check(panel, model=gmvae, pictures=pictures)


def test_code_is_that_of_the_picture_that_is_shown():
    mixnmatch = model("mixnmatch")
    panel = mixnmatch_panel(mixnmatch, PICTURES)
    panel.set(background=len(PICTURES))  # nothing was uploaded
    assert "upload one first" in panel.error
    check(panel, model=mixnmatch, pictures=PICTURES)


@pytest.mark.parametrize("name", ["mixnmatch", "gmvae", "ds_comgan_segmenter"])
def test_a_model_that_went_back_to_training_is_left_alone(name):
    there = model(name)
    panel = {"mixnmatch": mixnmatch_panel, "gmvae": gmvae_panel, "ds_comgan_segmenter": segmentation_panel}[name](
        there, PICTURES
    )
    before, shown = {key: value.clone() for key, value in there.state_dict().items()}, panel.png
    there.train()
    upload = BytesIO()
    Image.fromarray(OWN).save(upload, "png")
    for move in (lambda: panel.set(**{next(iter(panel.controls)): 1}), lambda: panel.upload(upload.getvalue())):
        move()
        assert "the model is in training mode" in panel.error and panel.png == shown
    assert all(torch.equal(value, before[key]) for key, value in there.state_dict().items())
