"""The uniform-posterior model at the table: each attribute from a picture or a label, and a person mixed out of three."""

from collections.abc import Mapping, Sequence

import torch
from ipywidgets import HTML, Dropdown, FloatRangeSlider, FloatSlider, ToggleButtons
from torch import Tensor

from tutorial_lib.data.pictures import as_pictures
from tutorial_lib.methods.uniform_posterior import REST, UniformPosterior, mixture
from tutorial_lib.widgets.panel import LETTERS, Panel, State, check_eval, to_uint8

LABEL = -1  # the choice of a label's code instead of a picture's


def uniform_posterior_panel(
    model: UniformPosterior,
    pictures: Tensor,
    means: Mapping[str, Tensor] | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    *,
    mixed: str = "identity",
) -> Panel:
    """Each attribute and the rest from picture A, B, …, and the `mixed` attribute from three of them at once.

    pictures (N, 3, H, W): up to seven; one place more is kept for a picture that the user uploads. The two handles of `cuts`
    cut 0 … 1 into three parts, the weights of the three donors of `mixed` (Eq. 11): they sum to 1 wherever the handles are.

    means: class-mean codes (n_classes, *code_shape) by attribute, as `class_means` gives them. Such an attribute can be had by
    its label, called `names[attribute][label]`, and has a strength: 0 is the mean of class 0, 1 what is chosen, and between
    (or a little beyond) the codes on the line through both (Eq. 12).

    Below the picture: that from which the rest comes, what the decoder makes of its own codes, and where the result differs.

    Raises ValueError if the model is in training mode, and for means, names or `mixed` that do not fit it.
    """
    check_eval(model)
    if not 1 <= len(pictures) < len(LETTERS):
        raise ValueError(f"pictures must be 1 … {len(LETTERS) - 1}, got {len(pictures)}")
    classes, config = dict(model.config.attributes), model.config
    means, names = dict(means or {}), dict(names or {})
    if mixed not in classes or mixed in means:
        raise ValueError(f"mixed must be an attribute without means, one of {', '.join(classes.keys() - means)}; got {mixed!r}")
    if unknown := names.keys() - classes.keys():
        raise ValueError(f"names are by attribute, of {', '.join(classes)}; got {', '.join(sorted(unknown))}")
    for attribute, codes in means.items():
        expected = (classes.get(attribute, 0), *config.code_shape)
        if tuple(codes.shape) != expected:
            raise ValueError(f"means[{attribute!r}] must be {expected}, got {tuple(codes.shape)}")
        called = names.setdefault(attribute, [str(i) for i in range(len(codes))])
        if len(called) != len(codes):
            raise ValueError(f"names[{attribute!r}] must have {len(codes)} entries, got {len(called)}")
    means = {attribute: codes.to(model.step.device) for attribute, codes in means.items()}
    size, there = config.image_size, "" if model.step.device.type == "cpu" else ".to(model.step.device)"
    shown = [*as_pictures(pictures, size).split(1), as_pictures(pictures[:1], size)]  # the last is the upload's place
    letters = [(LETTERS[i], i) for i in range(len(shown))]
    donors = (mixed, f"{mixed}_2", f"{mixed}_3")

    @torch.inference_mode()
    def read(picture: Tensor) -> tuple[dict[str, Tensor], dict[str, int], Tensor]:
        """The codes of a picture, the labels that are read off them, and the picture drawn again."""
        codes = model.encode(picture)
        labels = {name: int(classify.read(codes[name]).argmax()) for name, classify in model.classifiers.items()}
        return codes, labels, model.decode(codes)[0]

    known = [read(picture) for picture in shown]

    def shares(state: State) -> tuple[float, float, float]:
        low, high = state["cuts"]
        return low, high - low, 1 - high

    def code_of(state: State, name: str) -> Tensor:
        if name == mixed:
            return mixture(torch.cat([known[state[donor]][0][mixed] for donor in donors]), shares(state))
        if name not in means:
            return known[state[name]][0][name]
        label = state[f"{name}_label"]
        chosen = means[name][label : label + 1] if state[name] == LABEL else known[state[name]][0][name]
        return torch.lerp(means[name][:1], chosen, state[f"{name}_strength"])

    @torch.inference_mode()
    def draw(state: State):
        image = model.decode({name: code_of(state, name) for name in model.encoders})[0]
        own = known[state[REST]][2]
        changed = (image - own).abs().mean(0, keepdim=True)  # drawn white where they agree, black from half of the range on
        return to_uint8(image), [to_uint8(shown[state[REST]][0]), to_uint8(own), to_uint8(1 - changed.clamp(max=1))]

    def upload(data: bytes):
        picture = as_pictures(data, size)
        shown[-1], known[-1] = picture, read(picture)
        return to_uint8(shown[-1][0])

    def follow(state: State) -> State:
        parts = (f"{100 * share:.0f} % of {LETTERS[state[donor]]}" for donor, share in zip(donors, shares(state), strict=True))
        read_off = {f"{name}_label": known[state[name]][1][name] for name in means if state[name] != LABEL}
        return read_off | {"shares": " · ".join(parts)}

    def code(state: State) -> str:
        chosen = {state[name] for name in (*donors, *(name for name in model.encoders if name != mixed))}
        own, labelled = len(pictures) in chosen, any(name in means for name in model.encoders)

        def encoded(index: int, name: str) -> str:
            picture = "yours" if index == len(pictures) else f"pictures[{index}:{index + 1}]"
            return f'model.encode({picture})["{name}"]'

        lines = ["import torch", ""]
        lines += ["from tutorial_lib.data.pictures import as_pictures"] if own else []
        lines += ["from tutorial_lib.methods.uniform_posterior import mixture", ""]
        lines += [f"# model, pictures{', means' if labelled else ''}: those of this panel"]
        lines += [f'yours = as_pictures("yours.png", size={size})  # the file that was uploaded'] if own else []
        lines += ["with torch.inference_mode():", "    codes = {}"]
        for name in model.encoders:
            if name == mixed:
                people = ", ".join(encoded(state[donor], mixed) for donor in donors)
                weights = ", ".join(f"{share:.6g}" for share in shares(state))
                lines += [f"    people = torch.cat([{people}])", f'    codes["{name}"] = mixture(people, [{weights}])']
                continue
            index = state[name]
            source = f'means["{name}"][[{state[f"{name}_label"]}]]{there}' if index == LABEL else encoded(index, name)
            if name in means:
                source = f'torch.lerp(means["{name}"][[0]]{there}, {source}, {state[f"{name}_strength"]:g})'
            lines += [f'    codes["{name}"] = {source}']
        return "\n".join([*lines, f"    image = model.decode(codes)  # (1, 3, {size}, {size}) in [-1, 1]", ""])

    def sample(seed: int) -> State:
        random = torch.Generator().manual_seed(seed)
        chosen = (donors[0], *(name for name in model.encoders if name != mixed))
        first = torch.randint(len(pictures), (len(chosen),), generator=random).tolist()
        others = {name: (first[0] + i) % len(pictures) for i, name in enumerate(donors[1:], start=1)}
        return dict(zip(chosen, first, strict=True)) | others

    def source(description: str, options: Sequence[tuple[str, int]] = letters) -> ToggleButtons:
        return ToggleButtons(options=list(options), value=0, description=description)

    def controls(name: str) -> dict:
        if name == mixed:
            cuts = FloatRangeSlider(value=(1, 1), min=0, max=1, step=0.01, description="cuts", readout=False)
            toggles = {donor: source(which) for donor, which in zip(donors, ("from", "second", "third"), strict=True)}
            return toggles | {"cuts": cuts, "shares": HTML("", description="shares")}
        if name not in means:
            return {name: source("from")}
        labels = [(called, i) for i, called in enumerate(names[name])]
        return {
            name: source("from", [*letters, ("label", LABEL)]),
            f"{name}_label": Dropdown(options=labels, value=0, description="label"),
            f"{name}_strength": FloatSlider(1, min=0, max=1.5, step=0.05, description="strength"),
        }

    return Panel(
        {name: controls(name) for name in (*classes, REST)},
        draw,
        follow=follow,
        sample=sample,
        sources=0,
        strip=("rest from", "drawn again", "what differs"),
        pictures=[to_uint8(picture[0]) for picture in shown],
        upload=upload,
        code=code,
        model=model,
        name="uniform_posterior",
    )
