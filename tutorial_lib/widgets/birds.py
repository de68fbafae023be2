"""Sliders on the renderer: the true mixing that models are measured against."""

import torch
from ipywidgets import Checkbox, FloatSlider, SelectionSlider

from tutorial_lib.data.birds import (
    BACKGROUNDS,
    POSE,
    SHAPES,
    TEXTURES,
    TEXTURES_PER_SHAPE,
    render,
    sample_scene,
)
from tutorial_lib.widgets.panel import Panel, State, to_uint8


def bird_panel(*, tied: bool = False, size: int = 256, sources: int = 6) -> Panel:
    """Every factor of PaperBirds on a control; picture `sources` can be mixed.

    tied: start with the lock closed, in which the texture decides the shape: shape i wears the textures 4i … 4i + 3.
    """
    first = sample_scene(seed=0, indices=[0])

    def draw(state: State):
        pose = torch.tensor([[[float(state[name]) for name in POSE]]])
        index = {name: torch.tensor([state[name]]) for name in ("background", "shape", "texture")}
        scene = first.replace(
            background=index["background"], shape=index["shape"][None], texture=index["texture"][None], pose=pose
        )
        with torch.inference_mode():
            return to_uint8(render(scene, size)["image"][0])

    def follow(state: State) -> State:
        return {"shape": state["texture"] // TEXTURES_PER_SHAPE} if state["tied"] else {}

    def sample(seed: int) -> State:
        scene = sample_scene(seed=1, indices=[seed])
        pose = dict(zip(POSE, scene.pose[0, 0].tolist(), strict=True))
        return {
            "background": int(scene.background),
            "shape": int(scene.shape),
            "texture": int(scene.texture),
            **{name: round(value, 2) for name, value in pose.items()},
            "flip": pose["flip"] > 0,
        }

    def code(state: State) -> str:
        pose = ", ".join(f"{float(state[name]):g}" for name in POSE)
        return f"""\
import torch

from tutorial_lib.data.birds import render, sample_scene

scene = sample_scene(seed=0, indices=[0]).replace(
    background=torch.tensor([{state["background"]}]),  # {BACKGROUNDS[state["background"]]}
    shape=torch.tensor([[{state["shape"]}]]),  # {SHAPES[state["shape"]]}
    texture=torch.tensor([[{state["texture"]}]]),  # {TEXTURES[state["texture"]]}
    # {", ".join(POSE)}
    pose=torch.tensor([[[{pose}]]], dtype=torch.float32),
)
image = render(scene, size={size})["image"]  # (1, 3, {size}, {size}) in [-1, 1]
"""

    def choice(label: str, names: tuple[str, ...]) -> SelectionSlider:
        return SelectionSlider(options=[(name, i) for i, name in enumerate(names)], value=0, description=label)

    pose = {name: FloatSlider(0.0, min=-1, max=1, step=0.01, description=name) for name in POSE if name != "flip"}
    return Panel(
        {
            "background": {"background": choice("pattern", BACKGROUNDS)},
            "shape": {"shape": choice("species", SHAPES)},
            "pose": {"flip": Checkbox(False, description="flip: facing left", indent=False), **pose},
            "texture": {"texture": choice("papers", TEXTURES)},
        },
        draw,
        options={"tied": Checkbox(tied, description="lock: the texture decides the shape", indent=False)},
        follow=follow,
        sample=sample,
        sources=sources,
        code=code,
        name="paperbird",
    )
