from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib.data.birds import POSE, TEXTURES_PER_SHAPE, render, sample_scene
from tutorial_lib.widgets.birds import bird_panel


@pytest.fixture(scope="module")
def panel():
    return bird_panel(size=64, sources=2)


@pytest.fixture(autouse=True)
def start(panel):
    panel.reset()


def shown(panel) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(panel.png))).astype(int)


def mask(panel) -> np.ndarray:
    """Where the renderer puts the bird of the panel's state."""
    state = panel.state
    pose = torch.tensor([[[float(state[name]) for name in POSE]]])
    scene = sample_scene(0, [0]).replace(shape=torch.tensor([[state["shape"]]]), pose=pose)
    return render(scene, 64)["mask"][0, 0].numpy() > 0.5


def changed(panel, **values) -> tuple[float, float]:
    """Mean change of the pixels inside and outside the bird."""
    before, bird = shown(panel), mask(panel)
    panel.set(**values)
    change = np.abs(shown(panel) - before).mean(-1)
    return change[bird].mean(), change[~bird].mean()


def test_background_changes_what_is_not_bird(panel):
    inside, outside = changed(panel, background=(panel.state["background"] + 1) % 10)
    assert outside > 20 * inside


def test_texture_changes_the_bird_only(panel):
    inside, outside = changed(panel, texture=(panel.state["texture"] + 5) % 24)
    assert inside > 20 * outside


@pytest.mark.parametrize("name", ["shape", *POSE])
def test_shape_and_pose_move_pixels(panel, name):
    value = panel.state[name]
    inside, _ = changed(panel, **{name: not value if name == "flip" else (value + 1) % 6 if name == "shape" else -0.9})
    assert inside > 0


def test_lock_ties_shape_to_texture(panel):
    panel.set(tied=True, texture=14)
    assert panel.state["shape"] == 14 // TEXTURES_PER_SHAPE and panel.controls["shape"].disabled


def test_texture_of_one_on_the_shape_of_another(panel):
    panel.take("shape", 1)
    assert panel.state["shape"] == panel.sources[1]["shape"] and panel.state["texture"] == panel.sources[0]["texture"]


def test_every_control_has_label_and_tooltip(panel):
    assert all(control.description and control.tooltip for control in panel.controls.values())
