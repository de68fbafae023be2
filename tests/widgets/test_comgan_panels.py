from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib.data.birds import PaperBirds
from tutorial_lib.methods.comgan import LayerCodes
from tutorial_lib.training.presets import PRESETS, build
from tutorial_lib.widgets.comgan import composition, composition_panel, ds_comgan_panel, segmentation_panel


def decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data))).astype(int)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build(PRESETS["ds_comgan_segmenter"]["smoke"].method).eval()


@pytest.fixture(scope="module")
def by_hand():
    return composition_panel(32)


@pytest.fixture(autouse=True)
def start(by_hand):
    by_hand.reset()


def test_gradients_by_hand_are_those_of_autograd():
    random = torch.Generator().manual_seed(0)
    foreground, background, target = torch.rand(3, 3, 4, 4, generator=random) * 2 - 1
    logits = torch.randn(1, 4, 4, generator=random).requires_grad_()
    made = composition(foreground, background, logits, target)
    made["mask"].retain_grad()
    (0.5 * (made["image"] - target).square().sum()).backward()
    torch.testing.assert_close(made["on_mask"], made["mask"].grad)
    torch.testing.assert_close(made["on_logits"], logits.grad)


@pytest.mark.parametrize(
    ("moved", "silent"), [({"alike": 1.0}, ("|dL/dM|", "|dL/dlogit| · 4")), ({"bias": -12.0}, ("|dL/dlogit| · 4",))]
)
def test_the_gradient_goes_where_layers_are_alike_or_the_mask_is_saturated(by_hand, moved, silent):
    assert all((decode(by_hand.strip[name]) < 200).any() for name in silent)
    by_hand.set(**moved)
    for name in silent:
        assert (decode(by_hand.strip[name]) >= 250).all()


def test_layers_by_hand_make_the_real_picture_where_the_mask_is_one(by_hand):
    by_hand.set(bias=12.0, bird=7)
    real = PaperBirds(32, length=40, seed=0).batch([7])["image"][0]
    assert np.abs(decode(by_hand.png) - ((real.permute(1, 2, 0) + 1) * 127.5).numpy()).max() <= 1


def test_the_picture_is_what_the_model_draws(model):
    panel = ds_comgan_panel(model, sources=2)
    panel.set(f=5, b=2, z1=1.0)
    state = panel.state
    z = torch.tensor([[state[f"z{i + 1}"] for i in range(model.config.z_dim)]])
    codes = LayerCodes.from_indices(z, torch.tensor([5]), torch.tensor([2]), model.code_sizes)
    with torch.no_grad():
        expected = ((model.generate(codes).image[0].permute(1, 2, 0) + 1) * 127.5).numpy()
    assert np.abs(decode(panel.png) - expected).max() <= 1
    before = panel.png
    panel.take("foreground", 1)
    assert panel.state["f"] == panel.sources[1]["f"] and (panel.png != before or panel.sources[1]["f"] == 5)


def test_what_is_cut_out_and_what_is_left_make_the_picture(model):
    pictures = PaperBirds(32, length=3, seed=5).batch(range(3))["image"]
    panel = segmentation_panel(model, pictures)
    panel.set(picture=1)
    cut, left, whole = decode(panel.png), decode(panel.strip["what is left"]), decode(panel.strip["picture"])
    paper = round(1.9 * 127.5)
    assert (np.where(np.abs(cut - paper) <= 1, left, cut) == whole).mean() > 0.99
    once = panel.png
    panel.set(complement=True)
    assert panel.png != once


def test_an_upload_takes_the_last_place_and_a_wrong_one_is_one_line(model):
    panel = segmentation_panel(model, PaperBirds(32, length=2, seed=5).batch(range(2))["image"])
    file = BytesIO()
    Image.new("RGB", (40, 40), "teal").save(file, "PNG")
    panel.set(picture=2)
    before = decode(panel.strip["S(x)"])
    panel.upload(file.getvalue())
    with torch.no_grad():
        mask = model.segment(torch.tensor([-1.0, 1 / 255, 1 / 255])[:, None, None].expand(1, 3, 32, 32))[0, 0].numpy()
    assert np.abs(decode(panel.strip["S(x)"]) - 255 * mask).max() <= 1 < np.abs(decode(panel.strip["S(x)"]) - before).max()
    assert np.abs(decode(panel.strip["picture"]) - np.array([0, 128, 128])).max() <= 1
    panel.upload(b"no picture")
    assert "not an image" in panel.error


def test_a_model_in_training_mode_is_refused(model):
    model.train()
    try:
        for make in (ds_comgan_panel, lambda m: segmentation_panel(m, torch.zeros(1, 3, 32, 32))):
            with pytest.raises(ValueError, match="training mode"):
                make(model)
    finally:
        model.eval()
