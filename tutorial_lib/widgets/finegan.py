"""Sliders on FineGAN's codes, with the stages behind the picture."""

import torch
from ipywidgets import Checkbox, FloatSlider, IntSlider

from tutorial_lib.codes import Codes
from tutorial_lib.methods.finegan import FineGAN, Stages, child_to_parent
from tutorial_lib.widgets.panel import Panel, State, check_eval, spell_z, to_uint8

STRIP = {
    "background": "background",
    "parent mask": "parent_mask",
    "parent": "parent",
    "child mask": "child_mask",
    "child": "child_foreground",
}
_LIMIT = 2.5  # a component of z lies beyond it once in eighty draws


def finegan_panel(model: FineGAN, *, tied: bool = False, sources: int = 6, components: int = 8) -> Panel:
    """b, p, c and z on controls; below the picture the stages that made it; pictures A, B, … to mix factors from.

    tied: start with the lock closed, in which p follows c as in training (and b, if it was trained with b = c).
    components: how many of z's components get a slider of their own; those beyond are drawn together from one number.
    Raises ValueError if the model is not in eval mode: BatchNorm has no statistics of a single picture.
    """
    check_eval(model)
    config = model.config
    shared = config.z_background or 0  # the first components of z, seen by the background stage only
    background_z = [f"z{i + 1}" for i in range(min(shared, components // 2))]
    pose_z = [f"z{i + 1}" for i in range(shared, min(config.z_dim, shared + components))]
    hidden = config.z_dim - len(background_z) - len(pose_z)
    last: dict[str, object] = {}

    def codes(state: State) -> Codes:
        z = torch.randn(1, config.z_dim, generator=torch.Generator().manual_seed(state.get("rest", 0)))
        for name in (*background_z, *pose_z):
            z[0, int(name[1:]) - 1] = state[name]
        indices = (torch.tensor([state[name]]) for name in "bpc")
        return Codes.from_indices(z, *indices, model.code_sizes).to(model.step.device)

    @torch.inference_mode()
    def draw(state: State):
        wanted = codes(state)
        pose = (state["p"], wanted.z[0, shared:].tolist())
        feature = last["stages"].feature if last.get("pose") == pose else None  # b and c leave the parent's feature as it is
        stages: Stages = model.generator(wanted, feature)
        last.update(pose=pose, stages=stages)
        return to_uint8(stages.image[0]), [to_uint8(getattr(stages, field)[0]) for field in STRIP.values()]

    def follow(state: State) -> State:
        if not state["tied"]:
            return {}
        parent = int(child_to_parent(torch.tensor(state["c"]), config.n_parents, config.n_children))
        return {"p": parent} | ({"b": state["c"]} if config.tie_background else {})

    def sample(seed: int) -> State:
        generator = torch.Generator().manual_seed(seed)
        drawn = model.sample_codes(1, generator=generator)
        z = drawn.z[0].clamp(-_LIMIT, _LIMIT).tolist()
        state = {name: int(drawn.index(name)) for name in "bpc"}
        state |= {name: round(z[int(name[1:]) - 1], 2) for name in (*background_z, *pose_z)}
        return state | ({"rest": seed} if hidden else {})

    def code(state: State) -> str:
        return f"""\
import torch

from tutorial_lib.codes import Codes

# model: the FineGAN of this panel
{spell_z(state, (*background_z, *pose_z), config.z_dim)}
b, p, c = torch.tensor([[{state["b"]}], [{state["p"]}], [{state["c"]}]])
codes = Codes.from_indices(z, b, p, c, sizes=model.code_sizes)
with torch.inference_mode():
    image = model.generate(codes.to(model.step.device)).image  # (1, 3, {config.image_size}, {config.image_size}) in [-1, 1]
"""

    def index(name: str, n: int, label: str) -> IntSlider:
        return IntSlider(0, min=0, max=n - 1, description=f"{name}  {label}")

    def walk(names: list[str]) -> dict[str, FloatSlider]:
        return {name: FloatSlider(0.0, min=-_LIMIT, max=_LIMIT, step=0.01, description=name) for name in names}

    rest = {"rest": IntSlider(0, min=0, max=9999, description="other z")} if hidden else {}
    n_backgrounds, n_parents, n_children = model.code_sizes
    return Panel(
        {
            "background": {"b": index("b", n_backgrounds, "class"), **walk(background_z)},
            "shape": {"p": index("p", n_parents, "parent")},
            "pose": {**rest, **walk(pose_z)},
            "texture": {"c": index("c", n_children, "child")},
        },
        draw,
        options={"tied": Checkbox(tied, description="lock: c decides p, as in training", indent=False)},
        follow=follow,
        sample=sample,
        sources=sources,
        strip=tuple(STRIP),
        code=code,
        model=model,
        name="finegan",
    )
