"""The label-relevant VAE at the table: who, and everything else, each from a picture or from its prior; and what is missing."""

from collections.abc import Mapping

import torch
from ipywidgets import Dropdown, FloatSlider, IntRangeSlider, IntSlider, ToggleButtons
from torch import Tensor

from tutorial_lib.data.pictures import as_given, as_pictures
from tutorial_lib.methods.gmvae import GMVAE
from tutorial_lib.studies.gmvae import REGIONS, hole, region
from tutorial_lib.widgets.panel import LETTERS, Panel, State, check_eval, to_uint8

PRIOR = -1  # the choice of the prior instead of a picture
OWN = "a rectangle of your own"
STRIP = ("the picture", "what is seen of it", "inpainted")


def gmvae_panel(model: GMVAE, pictures: Tensor, directions: Mapping[str, Tensor] | None = None) -> Panel:
    """z_s from picture A, B, … or from a class, z_u from a picture or from N(0, I), and one of the pictures inpainted.

    pictures (N, 3, H, W): up to seven; one place more is kept for a picture that the user uploads. `walk` moves z_s inside its
    class by so many standard deviations along a random direction, the one of number `way`; the class of a picture is the one
    the mixture reads off it. directions: how z_u moves with what has a name, (d_u,) each (studies.gmvae.directions); a slider
    each. What is missing is one of the paper's regions or any rectangle, in pixels from the picture's upper left corner.
    Raises ValueError if the model is in training mode, and for a direction that is no vector of z_u.
    """
    check_eval(model)
    if not 1 <= len(pictures) < len(LETTERS):
        raise ValueError(f"pictures must be 1 … {len(LETTERS) - 1}, got {len(pictures)}")
    config, device = model.config, model.step.device
    directions = {name: torch.as_tensor(vector).float().to(device) for name, vector in (directions or {}).items()}
    for name, vector in directions.items():
        if vector.shape != (config.z_u_dim,):
            raise ValueError(f"direction {name!r} must be ({config.z_u_dim},), got {tuple(vector.shape)}")
    size = config.image_size
    same, there = as_given(pictures, size), "" if device.type == "cpu" else ".to(model.step.device)"
    pictures = as_pictures(pictures, size).cpu()
    shown = [*pictures.split(1), pictures[:1]]  # the last is the upload's place

    @torch.inference_mode()
    def read(picture: Tensor) -> tuple[Tensor, Tensor, int]:
        codes = model.encode(picture.to(device))
        return codes.z_s, codes.mu_u, int(model.mixture.log_density(codes.z_s).argmax())

    known = [read(picture) for picture in shown]
    filled: dict[tuple, list] = {}  # the last strip: dragging a slider of the codes does not inpaint again

    def inpainting(state: State) -> list:
        chosen = state["picture"], state["rows"], state["columns"]
        if chosen not in filled:
            whole, missing = shown[chosen[0]], hole((slice(*state["rows"]), slice(*state["columns"])), size)
            made = model.inpaint(whole.to(device), missing.to(device))
            filled.clear()
            filled[chosen] = [to_uint8(picture[0]) for picture in (whole, whole.masked_fill(missing, 0), made)]
        return filled[chosen]

    def noise(seed: int, dim: int) -> Tensor:
        return torch.randn(1, dim, generator=torch.Generator().manual_seed(seed)).to(device)

    @torch.inference_mode()
    def draw(state: State):
        label = torch.tensor([state["c"]], device=device)
        mean, log_variance = model.mixture.component(label)
        z_s = mean if state["label"] == PRIOR else known[state["label"]][0]
        z_s = z_s + state["walk"] * torch.exp(0.5 * log_variance) * noise(state["way"], config.z_s_dim)
        z_u = noise(state["z"], config.z_u_dim) if state["rest"] == PRIOR else known[state["rest"]][1]
        for name, vector in directions.items():
            z_u = z_u + state[name] * vector
        return to_uint8(model.decode(z_s, z_u)[0]), inpainting(state)

    def upload(data: bytes):
        picture = as_pictures(data, size)
        shown[-1], known[-1] = picture, read(picture)
        filled.clear()
        return to_uint8(shown[-1][0])

    def follow(state: State) -> State:
        decided = {} if state["label"] == PRIOR else {"c": known[state["label"]][2]}
        decided |= {} if state["walk"] else {"way": state["way"]}  # nowhere to go
        decided |= {} if state["rest"] == PRIOR else {"z": state["z"]}
        if state["region"] != OWN:
            rows, columns = region(state["region"], size)
            decided |= {"rows": (rows.start, rows.stop), "columns": (columns.start, columns.stop)}
        return decided

    def sample(seed: int) -> State:
        random = torch.Generator().manual_seed(seed)
        label, rest = torch.randint(len(pictures), (2,), generator=random).tolist()
        return {"label": label, "rest": rest}

    def code(state: State) -> str:
        def encoded(chosen: int) -> str:
            picture = f"pictures[{chosen}:{chosen + 1}]"
            picture = picture if same else f"as_pictures({picture}, size={size})"
            return f"model.encode({'yours' if chosen == len(pictures) else picture})"

        def drawn(seed: int, dim: int) -> str:
            return f"torch.randn(1, {dim}, generator=torch.Generator().manual_seed({seed})){there}"

        own = len(pictures) in (state["label"], state["rest"])
        moved = [name for name in directions if state[name]]
        given = [
            "model",
            *(["pictures"] if {state["label"], state["rest"]} != {PRIOR} else []),
            *(["directions"] if moved else []),
        ]
        lines = ["import torch", ""]
        resized = not same and any(0 <= state[name] < len(pictures) for name in ("label", "rest"))
        lines += ["from tutorial_lib.data.pictures import as_pictures", ""] if own or resized else []
        lines += [f"# {', '.join(given)}: {'those' if len(given) > 1 else 'the one'} of this panel"]
        lines += [f'yours = as_pictures("yours.png", size={size})  # the file that was uploaded'] if own else []
        lines += ["with torch.inference_mode():"]
        if state["label"] == PRIOR or state["walk"]:
            lines += [f"    mean, log_variance = model.mixture.component(torch.tensor([{state['c']}]))"]
        lines += [f"    z_s = {'mean' if state['label'] == PRIOR else encoded(state['label']) + '.z_s'}"]
        if state["walk"]:
            lines += [f"    way = {drawn(state['way'], config.z_s_dim)}"]
            lines += [f"    z_s = z_s + {state['walk']:g} * torch.exp(0.5 * log_variance) * way"]
        rest = drawn(state["z"], config.z_u_dim) if state["rest"] == PRIOR else encoded(state["rest"]) + ".mu_u"
        lines += [f"    z_u = {rest}"]
        lines += [f'    z_u = z_u + {state[name]:g} * directions["{name}"]{there}' for name in moved]
        return "\n".join([*lines, f"    image = model.decode(z_s, z_u)  # (1, 3, {size}, {size}) in [-1, 1]", ""])

    letters = [(LETTERS[i], i) for i in range(len(shown))]

    def source() -> ToggleButtons:
        return ToggleButtons(options=[*letters, ("prior", PRIOR)], value=0, description="from")

    def slider(name: str, limit: float) -> FloatSlider:
        return FloatSlider(0, min=-limit, max=limit, step=0.05, description=name)

    return Panel(
        {
            "label, z_s": {
                "label": source(),
                "c": IntSlider(0, min=0, max=config.n_classes - 1, description="class"),
                "way": IntSlider(0, min=0, max=100, description="way"),
                "walk": slider("walk", 1.5),
            },
            "rest, z_u": {
                "rest": source(),
                "z": IntSlider(0, min=0, max=10_000, description="z_u"),
                **{name: slider(name, 1.5) for name in directions},
            },
            "inpainting": {
                "picture": ToggleButtons(options=letters, value=0, description="of"),
                "region": Dropdown(options=[*REGIONS, OWN], description="missing"),
                "rows": IntRangeSlider(value=(0, size), min=0, max=size, description="rows"),
                "columns": IntRangeSlider(value=(0, size), min=0, max=size, description="columns"),
            },
        },
        draw,
        follow=follow,
        sample=sample,
        sources=0,
        strip=STRIP,
        pictures=[to_uint8(picture[0]) for picture in shown],
        upload=upload,
        code=code,
        model=model,
        name="gmvae",
    )
