"""MixNMatch at the table: each factor from one of several real pictures, from the user's own, or from a code."""

import torch
from ipywidgets import Checkbox, IntSlider, ToggleButtons
from torch import Tensor

from tutorial_lib.codes import NAMES, Codes
from tutorial_lib.data.pictures import as_given, as_pictures
from tutorial_lib.methods.mixnmatch import CodeMode, MixNMatch, stitch
from tutorial_lib.widgets.panel import LETTERS, Panel, State, check_eval, to_uint8

STRIP = {"background": "background", "parent mask": "parent_mask", "parent": "parent", "child mask": "child_mask"}
FACTORS = ("background", "shape", "pose", "texture")
KEPT = {"background": "background", "texture": "object"}  # by stitching, if the factor comes with the shape
CODE = -1  # the choice of a code instead of a picture


def keeps(state: State) -> list[str]:
    """What of the shape's own picture the mix leaves as it is."""
    return [keep for factor, keep in KEPT.items() if state[factor] == state["shape"]]


def mixnmatch_panel(model: CodeMode, pictures: Tensor, *, mode: str = "code") -> Panel:
    """Background, shape, pose and texture each from picture A, B, …, or from a code of its own.

    pictures (N, 3, H, W): up to seven; one place more is kept for a picture that the user uploads. In feature mode the pose
    comes with the shape, and the texture's or the background's own pixels can be kept (stitched) where the mask says so.
    mode: the one to start with; "feature" needs a model with both. Raises ValueError if the model is in training mode.
    """
    check_eval(model)
    if not 1 <= len(pictures) < len(LETTERS):
        raise ValueError(f"pictures must be 1 … {len(LETTERS) - 1}, got {len(pictures)}")
    both = isinstance(model, MixNMatch)
    if mode not in ("code", "feature") or (mode == "feature" and not both):
        raise ValueError(f"mode must be {'code or feature' if both else 'code: the model has no other'}, got {mode!r}")
    size = model.config.image_size
    device = model.step.device
    same = as_given(pictures, size)
    shown = [*as_pictures(pictures, size).to(device).split(1)]
    shown.append(shown[0])  # the upload's place

    def read(picture: Tensor) -> tuple[Codes, Tensor | None]:
        with torch.inference_mode():
            return model.encode(picture), model.extractor(picture) if both else None

    known = [read(picture) for picture in shown]

    def chosen_code(state: State, factor: str) -> Tensor:
        chosen = state[factor]
        if chosen != CODE:
            return getattr(known[chosen][0], NAMES[factor])
        if factor == "pose":
            random = torch.Generator().manual_seed(state["z"])
            return torch.randn(1, model.config.z_dim, generator=random).to(device)
        name = NAMES[factor]
        n = dict(zip("bpc", model.code_sizes, strict=True))[name]
        return torch.nn.functional.one_hot(torch.tensor([state[name]]), n).float().to(device)

    @torch.inference_mode()
    def draw(state: State):
        codes = Codes(*(chosen_code(state, factor) for factor in ("pose", "background", "shape", "texture")))
        feature = None
        if state.get("feature") and state["shape"] != CODE:
            feature = known[state["shape"]][1]
            # The feature takes the place of p and z; the background stage still has its share of z.
            codes.z = torch.zeros_like(codes.z) if state["background"] == CODE else known[state["background"]][0].z
        stages = model.generator(codes, feature)
        image = stages.image
        if state.get("stitch") and feature is not None:
            # What the shape's own picture shares with the mix is taken from it.
            kept, own = keeps(state), shown[state["shape"]]
            image = own if len(kept) == len(KEPT) else stitch(stages, own, *kept) if kept else image
        return to_uint8(image[0]), [to_uint8(getattr(stages, field)[0]) for field in STRIP.values()]

    def upload(data: bytes):
        picture = as_pictures(data, size).to(device)
        shown[-1], known[-1] = picture, read(picture)
        return to_uint8(shown[-1][0])

    def follow(state: State) -> State:
        """A code's slider shows what the encoder has read off the picture, and moves where no picture is chosen."""
        pose = {"pose": state["shape"]} if state.get("feature") else {}
        chosen = state | pose
        read_off = {
            name: state["z"] if factor == "pose" else int(known[chosen[factor]][0].index(name))
            for factor, name in NAMES.items()
            if chosen[factor] != CODE
        }
        return pose | read_off

    def sample(seed: int) -> State:
        random = torch.Generator().manual_seed(seed)
        chosen = torch.randint(len(pictures), (len(FACTORS),), generator=random).tolist()
        return dict(zip(FACTORS, chosen, strict=True))

    def code(state: State) -> str:
        feature = bool(state.get("feature")) and state["shape"] != CODE

        def source(factor: str) -> str:
            chosen = state[factor]
            if chosen == CODE and factor == "pose":
                return f"model.sample_codes(1, generator=torch.Generator().manual_seed({state['z']}))"
            return str(state[NAMES[factor]]) if chosen == CODE else picture(chosen)

        def picture(chosen: int) -> str:
            return "yours" if chosen == len(pictures) else f"pictures[{chosen}:{chosen + 1}]"

        def model_sized(picture: str) -> str:
            return picture if same or picture == "yours" else f"as_pictures({picture}, size={size})"

        own = any(state[factor] == len(pictures) for factor in FACTORS)
        kept = keeps(state) if feature and state["stitch"] else []
        whole, stitched = len(kept) == len(KEPT), len(kept) == 1
        lines = ["import torch", ""]
        lines += ["from tutorial_lib.data.pictures import as_pictures"] if own or (whole and not same) else []
        lines += ["from tutorial_lib.methods.mixnmatch import stitch"] if stitched else []
        lines += [""] if len(lines) > 2 else []
        lines += ["# model, pictures: those of this panel"]
        lines += [f'yours = as_pictures("yours.png", size={size})  # the file that was uploaded'] if own else []
        lines += ["with torch.inference_mode():", "    stages = model.mix("]
        lines += [f"        {factor}={source(factor)}," for factor in FACTORS if not (feature and factor == "pose")]
        lines += ['        mode="feature",'] if feature else []
        image = f'stitch(stages, {picture(state["shape"])}, keep="{kept[0]}")' if stitched else "stages.image"
        image = model_sized(picture(state["shape"])) if whole else image
        return "\n".join([*lines, "    )", f"image = {image}  # (1, 3, {size}, {size}) in [-1, 1]", ""])

    letters = [*((LETTERS[i], i) for i in range(len(shown))), ("code", CODE)]
    sliders = dict(zip("bpc", model.code_sizes, strict=True)) | {"z": 10_000}

    def controls(factor: str) -> dict:
        name = NAMES[factor]
        choice = ToggleButtons(options=letters, value=0, description="from")
        return {factor: choice, name: IntSlider(0, min=0, max=sliders[name] - 1, description=f"{name}  code")}

    options = {}
    if both:
        options["feature"] = Checkbox(mode == "feature", description="feature mode: exact shape and pose", indent=False)
        options["stitch"] = Checkbox(False, description="stitch what stays", indent=False)
    return Panel(
        {factor: controls(factor) for factor in FACTORS},
        draw,
        options=options,
        follow=follow,
        sample=sample,
        sources=0,
        strip=tuple(STRIP),
        pictures=[to_uint8(picture[0]) for picture in shown],
        upload=upload,
        code=code,
        model=model,
        name="mixnmatch",
    )
