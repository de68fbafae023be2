"""ComGAN by hand, where the mask's gradient goes; sliders on DS-ComGAN's codes; and its segmenter on pictures."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from ipywidgets import Checkbox, FloatSlider, IntSlider, ToggleButtons
from torch import Tensor

from tutorial_lib.data.birds import PaperBirds, render
from tutorial_lib.data.pictures import as_pictures
from tutorial_lib.methods.comgan import DSComGAN, LayerCodes, Segmenter
from tutorial_lib.widgets.panel import LETTERS, Panel, State, check_eval, spell_z, to_uint8

_LIMIT = 2.5  # a component of z lies beyond it once in eighty draws


def composition(foreground: Tensor, background: Tensor, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
    """x = F M + B (1 - M) with M = sigmoid(logits), and the gradients of L = |x - target|² / 2, summed over pixels.

    Pictures (3, H, W), logits (1, H, W). Returns image, mask, on_mask = dL/dM = dL/dx (F - B), and on_logits = dL/dM M (1 - M).
    """
    mask = logits.sigmoid()
    image = foreground * mask + background * (1 - mask)
    on_mask = ((image - target) * (foreground - background)).sum(0, keepdim=True)
    return {"image": image, "mask": mask, "on_mask": on_mask, "on_logits": on_mask * mask * (1 - mask)}


def composition_panel(size: int = 64, seed: int = 0) -> Panel:
    """F, B and M moved by hand, to make a picture of a bird; below it the gradient that the mask would learn from.

    F starts as the real picture, B as its background with nobody in it. alike: F is painted as B, from 0 (not) to 1 (F = B);
    background_knows: the bird is painted into B. M is a sigmoid of how far a pixel lies inside a disc: bias lifts all of it,
    steepness hardens its edge.
    """
    birds = PaperBirds(size, length=40, seed=seed)
    axis = torch.linspace(-1, 1, size)

    @cache
    def scenery(k: int) -> tuple[Tensor, Tensor]:
        """The picture of bird k, and its background with nobody in it."""
        scene = birds.scenes([k])
        nobody = scene.replace(room=torch.tensor([[[50.0, 50.0, 0.1]]]))
        return render(scene, size)["image"][0], render(nobody, size)["image"][0]

    def draw(state: State):
        target, ground = scenery(state["bird"])
        background = torch.lerp(ground, target, state["background_knows"])
        foreground = torch.lerp(target, background, state["alike"])
        inside = state["radius"] - ((axis - state["x"]).square() + (axis[:, None] - state["y"]).square()).sqrt()
        logits = state["bias"] + state["steepness"] * inside[None]
        made = composition(foreground, background, logits, target)
        tiles = [to_uint8(foreground), to_uint8(background), to_uint8(made["mask"])]
        return to_uint8(made["image"]), [*tiles, _heat(made["on_mask"]), _heat(4 * made["on_logits"])]

    def code(state: State) -> str:
        k, x, y, radius = (state[name] for name in ("bird", "x", "y", "radius"))
        return f"""\
import torch

from tutorial_lib.data.birds import PaperBirds, render
from tutorial_lib.widgets.comgan import composition

birds = PaperBirds({size}, length=40, seed={seed})
target = birds.batch([{k}])["image"][0]
nobody = birds.scenes([{k}]).replace(room=torch.tensor([[[50.0, 50.0, 0.1]]]))
background = torch.lerp(render(nobody, {size})["image"][0], target, {state["background_knows"]:g})
foreground = torch.lerp(target, background, {state["alike"]:g})
axis = torch.linspace(-1, 1, {size})
inside = {radius:g} - ((axis - {x:g}) ** 2 + (axis[:, None] - {y:g}) ** 2).sqrt()
logits = {state["bias"]:g} + {state["steepness"]:g} * inside[None]
made = composition(foreground, background, logits, target)
image = made["image"][None]  # (1, 3, {size}, {size}) in [-1, 1]
"""

    def slider(value: float, low: float, high: float, description: str) -> FloatSlider:
        return FloatSlider(value, min=low, max=high, step=0.01, description=description)

    return Panel(
        {
            "foreground": {"alike": slider(0.0, 0.0, 1.0, "like B")},
            "background": {"background_knows": slider(0.0, 0.0, 1.0, "bird")},
            "mask": {
                "bias": slider(0.0, -12.0, 12.0, "bias"),
                "steepness": slider(8.0, 0.0, 40.0, "steep"),
                "x": slider(0.0, -1.0, 1.0, "x"),
                "y": slider(0.0, -1.0, 1.0, "y"),
                "radius": slider(0.35, 0.05, 1.0, "radius"),
            },
            "picture": {"bird": IntSlider(3, min=0, max=39, description="real")},
        },
        draw,
        strip=("F", "B", "mask M", "|dL/dM|", "|dL/dlogit| · 4"),
        code=code,
        name="composition",
    )


def _heat(gradient: Tensor) -> np.ndarray:
    """|gradient| (1, H, W), white where it is 0 and black where it is 1 or more."""
    return to_uint8(1 - gradient.abs().clamp(max=1))


def ds_comgan_panel(model: DSComGAN, *, tied: bool = False, sources: int = 6, components: int = 8) -> Panel:
    """f, b and z on controls; below the picture its layers; pictures A, B, … to mix from.

    components: how many of z's components get a slider of their own; those beyond are drawn together from one number. Raises
    ValueError if the model is in training mode.
    """
    check_eval(model)
    own = [f"z{i + 1}" for i in range(min(components, model.config.z_dim))]
    hidden = model.config.z_dim - len(own)

    @torch.inference_mode()
    def draw(state: State):
        z = torch.randn(1, model.config.z_dim, generator=torch.Generator().manual_seed(state.get("rest", 0)))
        z[0, : len(own)] = torch.tensor([state[name] for name in own])
        indices = (torch.tensor([state[name]]) for name in "fb")
        drawn = model.generate(LayerCodes.from_indices(z, *indices, model.code_sizes).to(model.step.device))
        layers = [drawn.foreground, drawn.mask, drawn.background, *([] if drawn.direct is None else [drawn.direct])]
        return to_uint8(drawn.image[0]), [to_uint8(layer[0]) for layer in layers]

    def sample(seed: int) -> State:
        codes = model.sample_codes(1, tied=False, generator=torch.Generator().manual_seed(seed))
        z = codes.z[0].clamp(-_LIMIT, _LIMIT).tolist()
        state = {name: int(codes.index(name)) for name in "fb"} | {name: round(z[i], 2) for i, name in enumerate(own)}
        return state | ({"rest": seed} if hidden else {})

    def code(state: State) -> str:
        size = model.config.image_size
        return f"""\
import torch

from tutorial_lib.methods.comgan import LayerCodes

# model: the DS-ComGAN of this panel
{spell_z(state, own, model.config.z_dim)}
f, b = torch.tensor([[{state["f"]}], [{state["b"]}]])
codes = LayerCodes.from_indices(z, f, b, sizes=model.code_sizes)
with torch.inference_mode():
    image = model.generate(codes.to(model.step.device)).image  # (1, 3, {size}, {size}) in [-1, 1]
"""

    n_foregrounds, n_backgrounds = model.code_sizes
    walk = {name: FloatSlider(0.0, min=-_LIMIT, max=_LIMIT, step=0.01, description=name) for name in own}
    rest = {"rest": IntSlider(0, min=0, max=9999, description="other z")} if hidden else {}
    same = n_foregrounds == n_backgrounds
    return Panel(
        {
            "background": {"b": IntSlider(0, min=0, max=n_backgrounds - 1, description="b  class")},
            "foreground": {"f": IntSlider(0, min=0, max=n_foregrounds - 1, description="f  class")},
            "mask": {**rest, **walk},
        },
        draw,
        options={"tied": Checkbox(tied, description="lock: b = f", indent=False)} if same else {},
        follow=lambda state: {"b": state["f"]} if state.get("tied") else {},
        sample=sample,
        sources=sources,
        strip=("F", "mask M", "B", *(("X_z",) if model.config.direct_image else ())),
        code=code,
        model=model,
        name="ds_comgan",
    )


def segmentation_panel(model: Segmenter, pictures: Tensor | Sequence, *, complement: bool = False) -> Panel:
    """The object of picture A, B, … or of one that the user uploads, cut out by S at a threshold.

    pictures (N, 3, H, W): up to seven; S reads each once. complement: the object is what S calls 0.
    """
    check_eval(model)
    size = model.config.image_size
    shown = [*as_pictures(pictures, size).cpu().split(1)]
    if not 1 <= len(shown) < len(LETTERS):
        raise ValueError(f"pictures must be 1 … {len(LETTERS) - 1}, got {len(shown)}")
    shown.append(shown[0])  # the upload's place

    @cache
    def segmented(place: int) -> Tensor:
        return model.segment(shown[place])[0].cpu()

    @torch.inference_mode()
    def draw(state: State):
        picture, mask = shown[state["picture"]], segmented(state["picture"])
        mask = 1 - mask if state["complement"] else mask
        hard = (mask > state["threshold"]).float()
        paper = torch.full_like(picture[0], 0.9)
        cut = torch.lerp(paper, picture[0], hard)
        return to_uint8(cut), [to_uint8(picture[0]), to_uint8(mask), to_uint8(torch.lerp(picture[0], paper, hard))]

    def upload(data: bytes):
        shown[-1] = as_pictures(data, size)
        segmented.cache_clear()
        return to_uint8(shown[-1][0])

    def code(state: State) -> str:
        own = state["picture"] == len(shown) - 1
        source = '"yours.png"' if own else f"pictures[{state['picture']}]"
        there = ".cpu()" if isinstance(pictures, Tensor) and pictures.device.type != "cpu" else ""
        return f"""\
import torch

from tutorial_lib.data.pictures import as_pictures

# {"model: the one of this panel; yours.png: the file that was uploaded" if own else "model, pictures: those of this panel"}
picture = as_pictures({source}, size={size}){there}
with torch.inference_mode():
    mask = {"1 - " if state["complement"] else ""}model.segment(picture).cpu()
image = torch.where(mask > {state["threshold"]:g}, picture, torch.tensor(0.9))  # (1, 3, {size}, {size}) in [-1, 1]
"""

    letters = [(LETTERS[i], i) for i in range(len(shown))]
    return Panel(
        {
            "picture": {"picture": ToggleButtons(options=letters, value=0, description="from")},
            "mask": {
                "threshold": FloatSlider(0.5, min=0.02, max=0.98, step=0.01, description="threshold"),
                "complement": Checkbox(complement, description="the object is what S calls 0", indent=False),
            },
        },
        draw,
        strip=("picture", "S(x)", "what is left"),
        pictures=[to_uint8(picture[0]) for picture in shown],
        upload=upload,
        code=code,
        model=model,
        name="segmentation",
    )
