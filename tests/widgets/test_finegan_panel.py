from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib.codes import Codes
from tutorial_lib.methods.finegan import FineGAN
from tutorial_lib.training.presets import PRESETS
from tutorial_lib.widgets.finegan import STRIP, finegan_panel

CONFIG = PRESETS["finegan"]["smoke"].method


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return FineGAN(CONFIG).eval()


@pytest.fixture(scope="module")
def panel(model):
    return finegan_panel(model, sources=2)


@pytest.fixture(autouse=True)
def start(panel):
    panel.reset()


def decode(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data))).astype(int)


def generated(model, state) -> np.ndarray:
    z = torch.tensor([[state[f"z{i + 1}"] for i in range(CONFIG.z_dim)]])
    codes = Codes.from_indices(z, *(torch.tensor([state[name]]) for name in "bpc"), model.code_sizes)
    with torch.no_grad():
        return ((model.generate(codes).image[0].permute(1, 2, 0) + 1) * 127.5).numpy()


@pytest.mark.parametrize(
    "values", [{"b": 3}, {"c": 9}, {"p": 2}, {"z1": -1.5}, {"z8": 2.0}, {"b": 1, "p": 4, "c": 0, "z5": 0.5}]
)
def test_picture_is_what_the_model_generates(model, panel, values):
    panel.set(**values)
    assert np.abs(decode(panel.png) - generated(model, panel.state)).max() <= 1


@pytest.mark.parametrize(
    ("factor", "values"), [("background", {"b": 7}), ("shape", {"p": 5}), ("texture", {"c": 20}), ("pose", {"z6": 2.0})]
)
def test_every_factor_changes_the_picture(panel, factor, values):
    assert values.keys() <= set(panel.factors[factor])
    panel.set(**dict.fromkeys(values, 0))
    before = panel.png
    panel.set(**values)
    assert panel.png != before


def test_background_z_leaves_the_parent_mask(panel):
    before = panel.strip
    panel.set(z1=2.0)
    assert panel.strip["parent mask"] == before["parent mask"] and panel.strip["background"] != before["background"]


def test_strip_has_the_stages_in_order(panel):
    assert list(panel.strip) == list(STRIP) == ["background", "parent mask", "parent", "child mask", "child"]


def test_lock_makes_p_follow_c(panel):
    panel.set(tied=True, c=CONFIG.n_children - 1)
    assert panel.state["p"] == CONFIG.n_parents - 1 and panel.controls["p"].disabled and not panel.controls["b"].disabled


def test_lock_makes_b_follow_too_where_it_did_in_training():
    config = replace(CONFIG, tie_background=True, n_backgrounds=CONFIG.n_children)
    panel = finegan_panel(FineGAN(config).eval(), tied=True, sources=0)
    panel.set(c=11)
    assert panel.state["b"] == 11 and panel.controls["b"].disabled


def test_long_z_draws_the_rest_from_one_number(model):
    panel = finegan_panel(model, sources=0, components=2)
    before = panel.png
    panel.set(rest=panel.state["rest"] + 1)
    assert panel.png != before and "z8" not in panel.state


def test_same_state_is_the_same_picture(panel):
    before = panel.png
    panel.shuffle()
    panel.reset()
    assert panel.png == before


def test_every_control_has_label_and_tooltip(panel):
    assert all(control.description and control.tooltip for control in panel.controls.values())


def test_model_in_training_mode_is_refused():
    with pytest.raises(ValueError, match="training mode.*model.eval()"):
        finegan_panel(FineGAN(CONFIG))
