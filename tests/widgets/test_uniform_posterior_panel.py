from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib.data.faces import EXPRESSIONS, PaperFaces
from tutorial_lib.methods.uniform_posterior import UniformPosterior
from tutorial_lib.training.presets import PRESETS
from tutorial_lib.widgets.uniform_posterior import LABEL, uniform_posterior_panel


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return PaperFaces(size=32, length=4).batch(range(4))["image"]


@pytest.fixture(scope="module")
def model() -> UniformPosterior:
    torch.manual_seed(0)
    return UniformPosterior(PRESETS["uniform_posterior"]["smoke"].method).eval()


@pytest.fixture(scope="module")
def means(model) -> dict[str, torch.Tensor]:
    return {"expression": torch.randn(4, *model.config.code_shape, generator=torch.Generator().manual_seed(1))}


@pytest.fixture
def panel(model, pictures, means):
    return uniform_posterior_panel(model, pictures, means, {"expression": EXPRESSIONS})


def shows(panel, expected: torch.Tensor) -> bool:
    """Whether the panel's picture is `expected`, but for rounding."""
    drawn = np.asarray(Image.open(BytesIO(panel.png))).astype(int)
    return np.abs(drawn - ((expected[0].permute(1, 2, 0) + 1) * 127.5).detach().numpy()).max() <= 1


def file(picture: np.ndarray, kind: str = "PNG") -> bytes:
    written = BytesIO()
    Image.fromarray(picture).save(written, kind)
    return written.getvalue()


def test_picture_is_the_models_swap(panel, model, pictures):
    panel.set(rest=0, identity=1, expression=2, illumination=3, gaze=0)
    a, b, c, d = pictures.split(1)
    assert shows(panel, model.swap(a, identity=b, expression=c, illumination=d))
    assert not shows(panel, model.swap(a, identity=b, expression=d, illumination=d))


def test_strip_shows_what_the_swap_changes(panel, model, pictures):
    same = dict.fromkeys(("rest", "identity", "expression", "illumination", "gaze"), 2)
    panel.set(**same)
    source, own, differs = (np.asarray(Image.open(BytesIO(tile))).astype(int) for tile in panel.strip.values())
    assert list(panel.strip) == ["rest from", "drawn again", "what differs"]
    for tile, expected in ((source, pictures[2:3]), (own, model.reconstruct(pictures[2]))):
        assert np.abs(tile - ((expected[0].permute(1, 2, 0) + 1) * 127.5).detach().numpy()).max() <= 1
    assert differs.min() == 255
    panel.set(expression=1)
    changed = (model.swap(pictures[2], expression=pictures[1]) - model.reconstruct(pictures[2])).abs().mean((0, 1)).detach()
    differs = np.asarray(Image.open(BytesIO(panel.strip["what differs"]))).astype(int)
    assert np.abs(255 - differs - 255 * changed.numpy()).max() <= 1


def test_cuts_are_the_weights_of_three_people(panel, model, pictures):
    panel.set(rest=0, expression=0, illumination=0, gaze=0, identity=1, identity_2=2, identity_3=3, cuts=(0.2, 0.7))
    assert panel.state["shares"] == "20 % of B · 50 % of C · 30 % of D"
    assert shows(panel, model.mix(pictures[:1], "identity", pictures[1:], [0.2, 0.5, 0.3]))


@pytest.mark.parametrize("cuts", [(1 / 3, 2 / 3), [0.2, 0.5]])
def test_code_of_any_cuts_makes_the_picture(panel, model, pictures, means, cuts):
    panel.set(identity=1, identity_2=2, identity_3=3, cuts=cuts)
    given = {"model": model, "pictures": pictures, "means": means}
    exec(panel.code, given)
    assert shows(panel, given["image"])


@pytest.mark.parametrize(("cuts", "only"), [((1, 1), 1), ((0, 1), 2), ((0, 0), 3)])
def test_handles_at_the_ends_leave_one_person(panel, model, pictures, cuts, only):
    panel.set(rest=0, expression=0, illumination=0, gaze=0, identity=1, identity_2=2, identity_3=3, cuts=cuts)
    assert shows(panel, model.swap(pictures[:1], identity=pictures[only : only + 1]))


def test_strength_goes_from_the_mean_of_class_0_to_the_donor(panel, model, pictures, means):
    panel.set(rest=0, identity=0, illumination=0, gaze=0, expression=1, expression_strength=0.25)
    donor = model.encode(pictures[1])["expression"]
    assert shows(panel, model.swap(pictures[:1], expression=0.75 * means["expression"][:1] + 0.25 * donor))


def test_label_gives_its_mean_code(panel, model, pictures, means):
    panel.set(rest=0, identity=0, illumination=0, gaze=0, expression=LABEL, expression_label=2)
    assert not panel.controls["expression_label"].disabled
    assert shows(panel, model.swap(pictures[:1], expression=means["expression"][2:3]))


def test_label_of_a_picture_is_what_the_classifier_reads(panel, model, pictures):
    for i, picture in enumerate(pictures.split(1)):
        panel.set(expression=i)
        assert panel.state["expression_label"] == int(model.posterior("expression", picture).argmax())
    assert panel.controls["expression_label"].disabled


def test_attributes_without_means_have_no_strength(model, pictures):
    panel = uniform_posterior_panel(model, pictures)
    assert set(panel.factors) == {"identity", "expression", "illumination", "gaze", "rest"}
    assert not [name for name in panel.controls if "strength" in name or "label" in name]


def test_upload_takes_the_last_place(panel, model, pictures):
    own = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    panel.set(rest=0, identity=0, expression=0, illumination=4, gaze=0)
    panel.upload(file(own))
    assert panel.error == ""
    assert shows(panel, model.swap(pictures[:1], illumination=Image.fromarray(own)))


def test_upload_that_is_no_picture_is_one_line_and_changes_nothing(panel):
    before = panel.png
    panel.upload(b"hello")
    assert "not an image" in panel.error and "\n" not in panel.error and panel.png == before


def test_shuffle_and_reset(panel):
    first = panel.png
    panel.shuffle()
    donors = [panel.state[name] for name in ("identity", "identity_2", "identity_3")]
    assert len(set(donors)) == 3
    assert all(0 <= panel.state[name] < 4 for name in ("identity", "expression", "illumination", "gaze", "rest"))
    panel.reset()
    assert panel.png == first


def test_a_single_picture_is_enough(model, pictures):
    panel = uniform_posterior_panel(model, pictures[:1])
    assert shows(panel, model.reconstruct(pictures[:1]))


@pytest.mark.parametrize(("n", "message"), [(0, "pictures must be 1 … 7, got 0"), (8, "got 8")])
def test_wrong_number_of_pictures_is_named(model, pictures, n, message):
    with pytest.raises(ValueError, match=message):
        uniform_posterior_panel(model, pictures[:1].expand(n, -1, -1, -1))


def test_means_names_and_mixed_that_do_not_fit_are_named(model, pictures, means):
    with pytest.raises(ValueError, match=r"means\['expression'\] must be \(4, 4, 8, 8\), got \(3, 4, 8, 8\)"):
        uniform_posterior_panel(model, pictures, {"expression": means["expression"][:3]})
    with pytest.raises(ValueError, match=r"names\['expression'\] must have 4 entries, got 2"):
        uniform_posterior_panel(model, pictures, means, {"expression": ["a", "b"]})
    with pytest.raises(ValueError, match="names are by attribute, of identity, .*; got expresion"):
        uniform_posterior_panel(model, pictures, means, {"expresion": ["a", "b"]})
    with pytest.raises(ValueError, match="mixed must be an attribute without means, .* got 'expression'"):
        uniform_posterior_panel(model, pictures, means, mixed="expression")


def test_model_in_training_mode_is_refused(pictures):
    with pytest.raises(ValueError, match="eval"):
        uniform_posterior_panel(UniformPosterior(PRESETS["uniform_posterior"]["smoke"].method), pictures)
