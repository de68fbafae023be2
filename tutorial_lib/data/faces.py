"""PaperFaces: rendered paper-cut faces with every factor known.

A picture has an *identity* (who), an *expression* with a *strength*, an *illumination* and a *gaze*. All are independent, and
any combination can be rendered, so "this person, screaming a little, lit from the left" exists as a picture and a model can be
compared with it. 40 people are for training; 8 more have faces of their own and are held out. For what has to generalise to
strangers there is a crowd of 200 more, put together at random from the same features.

    faces = PaperFaces(size=64, length=20_000, seed=0)             # identities 0 … 39
    strangers = PaperFaces(length=2000, identities="held_out")     # identities 40 … 47
    many = PaperFaces(length=50_000, identities="many")            # 0 … 39 and, the crowd, 48 … 247
    batch = faces.batch(range(16))                                 # pictures and labels
    scene = sample_scene(seed=0, indices=range(16))                # the factors alone; change any of them ...
    batch = render(scene.replace(strength=torch.ones(16)), 64)     # ... and draw them

Left and right are the viewer's: gaze "left" looks to the left of the picture, illumination "left" comes from there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.data.batched import BatchedDataset, Factors
from tutorial_lib.data.papercut import (
    Points,
    blob,
    disc,
    grid,
    leaf,
    look_up,
    planes,
    positions,
    rotation,
    strip,
    uniform,
    union,
)

EXPRESSIONS = ("neutral", "scream", "squint", "surprise")
ILLUMINATIONS = ("frontal", "left", "right", "top", "below")
GAZES = ("left", "straight", "right")
NUISANCE = ("x", "y", "roll", "scale")
SIZES = (32, 256)
Identities = Literal["train", "held_out", "all", "many"]

# What one unit of each nuisance means, in half picture widths, degrees and as a share of the size.
SHIFT, ROLL, SCALE = 0.05, 5.0, 0.05


@dataclass
class Scene(Factors):
    """The factors of B pictures.

    identity (B,) int64 in 0 … 247; expression (B,) int64 in the order of `EXPRESSIONS`; strength (B,) float in [0, 1];
    illumination, gaze (B,) int64 in the order of `ILLUMINATIONS` and `GAZES`; nuisance (B, 4) float in [-1, 1], in the order of
    `NUISANCE`; backdrop (B, 2) float in [0, 1): the colours of the wall and of the clothes, which mean nothing.
    """

    identity: Tensor
    expression: Tensor
    strength: Tensor
    illumination: Tensor
    gaze: Tensor
    nuisance: Tensor
    backdrop: Tensor


def sample_scene(
    seed: int, indices: Tensor | Sequence[int], *, identities: Identities = "train", weakest: float = 0.2
) -> Scene:
    """Draw the scenes of a data set, all factors independent: row i depends on (seed, indices[i]) only.

    identities: "train" (0 … 39), "held_out" (40 … 47), "all" (both) or "many" ("train" and the crowd, 48 … 247). weakest in
    [0, 1]: strength is uniform in [weakest, 1]; an expression of strength 0 looks neutral, so that no one could tell its label.
    Raises ValueError for other values.
    """
    if identities not in get_args(Identities):
        raise ValueError(f"identities must be one of {get_args(Identities)}, got {identities!r}")
    if not 0 <= weakest <= 1:
        raise ValueError(f"weakest must lie in [0, 1], got {weakest}")
    indices = torch.as_tensor(indices, dtype=torch.int64)
    if indices.numel() and indices.min() < 0:
        raise IndexError(f"indices must not be negative, got {int(indices.min())}")
    who = torch.arange(PEOPLE)
    crowd = who >= TRAINING + HELD_OUT
    of_them = {"train": who < TRAINING, "held_out": ~crowd & (who >= TRAINING), "all": ~crowd, "many": crowd | (who < TRAINING)}
    who = who[of_them[identities]]
    u = uniform(seed, indices, 11)
    return Scene(
        identity=who[(u[:, 0] * len(who)).long()],
        expression=(u[:, 1] * len(EXPRESSIONS)).long(),
        strength=weakest + (1 - weakest) * u[:, 2],
        illumination=(u[:, 3] * len(ILLUMINATIONS)).long(),
        gaze=(u[:, 4] * len(GAZES)).long(),
        nuisance=2 * u[:, 5:9] - 1,
        backdrop=u[:, 9:11],
    )


def render(scene: Scene, size: int = 64, contrast: float = 1.0) -> dict[str, Tensor]:
    """Draw scenes; returns a batch (see `PaperFaces`). The same scene is the same picture at every size from 32 to 256.

    contrast: the power that light and shadow are raised to; with 0 no light can be told from another.

    An expression moves brows, lids, mouth and jaw away from the person's own neutral face, each in proportion to its strength,
    as far as `_MOVES` says at strength 1: a scream opens the mouth wide, drops the jaw and lifts the inner ends of the brows; a
    squint narrows the eyes under knitted brows and presses the lips; surprise lifts the brows, opens the eyes and rounds the
    mouth. So strength 0 is the neutral face, and the strength of a neutral face has no effect.

    Raises ValueError that names the factor and its range for a value outside it, for a size outside `SIZES` and for a negative
    contrast.
    """
    if not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(f"size must lie in {SIZES}, got {size}")
    if not contrast >= 0:
        raise ValueError(f"contrast must not be negative, got {contrast}")
    _check(scene)
    group = scene.identity // len(_CAST)  # each draws on a table of its own
    picture = scene.strength.new_empty(len(scene), 3, size, size)
    for number in group.unique().tolist():
        rows = group == number
        picture[rows] = _draw(scene[rows], _people(number, picture.device), size, contrast)
    names = ("identity", "expression", "strength", "illumination", "gaze", "nuisance")
    return {"image": picture.clamp(0, 1) * 2 - 1} | {name: getattr(scene, name) for name in names}


def _draw(scene: Scene, people: "_People", size: int, contrast: float) -> Tensor:
    person, albedo = _pose(scene, people, size), _wall(scene, size)
    for layer in (_behind, _skin, _eyes, _mouth, _in_front):
        albedo = layer(albedo, person)
    return _light(albedo, person, contrast)


def _check(scene: Scene) -> None:
    classes = {
        "identity": PEOPLE, "expression": len(EXPRESSIONS), "illumination": len(ILLUMINATIONS), "gaze": len(GAZES),
    }  # fmt: skip
    for name, n in classes.items():
        value = getattr(scene, name)
        if value.numel() and not (int(value.min()) >= 0 and int(value.max()) < n):
            raise ValueError(f"{name} must lie in 0 … {n - 1}, got {int(value.min())} … {int(value.max())}")
    for name, low in (("strength", 0), ("nuisance", -1), ("backdrop", 0)):
        value = getattr(scene, name)
        if value.numel() and not (value.min() >= low and value.max() <= 1):  # NaN fails too
            raise ValueError(f"{name} must lie in [{low}, 1], got {float(value.min()):g} … {float(value.max()):g}")


class PaperFaces(BatchedDataset):
    """A data set of rendered faces; picture i depends on (seed, i) and on nothing else.

    An item is a dict; a batch has the same names with a leading axis B: image (3, size, size) float in [-1, 1]; identity,
    expression, illumination, gaze int64; strength float in [0, 1], of no effect where the expression is neutral; nuisance (4,)
    float in [-1, 1], in the order of `NUISANCE`. identities and weakest: see `sample_scene`; contrast: see `render`. anonymous:
    the held-out people come without a name, identity -1, as pictures do whose label is unknown. partner: with each picture come
    two more of the person, in the same light and looking the same way, in the same expression as each other: "partner", in
    another place and before another wall, and "frame", as if a moment later.
    """

    def __init__(
        self,
        size: int = 64,
        length: int = 20_000,
        seed: int = 0,
        identities: Identities = "train",
        weakest: float = 0.2,
        device: str = "cpu",
        anonymous: bool = False,
        contrast: float = 1.0,
        partner: bool = False,
    ):
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        self.size, self.length, self.seed, self.device, self.anonymous = size, length, seed, device, anonymous
        self.identities, self.weakest, self.contrast, self.partner = identities, weakest, contrast, partner
        self.batch([0])  # a wrong size or option fails here, not in the middle of a run

    def __len__(self) -> int:
        return self.length

    def scenes(self, indices: Sequence[int]) -> Scene:
        """The factors of the pictures `indices`."""
        indices = torch.as_tensor(list(indices), dtype=torch.int64)
        if indices.numel() and int(indices.max()) >= self.length:
            raise IndexError(f"picture {int(indices.max())} of a set of {self.length}")
        return self._drawn(indices)

    def _drawn(self, indices: Tensor) -> Scene:
        return sample_scene(self.seed, indices, identities=self.identities, weakest=self.weakest).to(self.device)

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Render the pictures `indices` together."""
        scenes = self.scenes(indices)
        batch = render(scenes, self.size, self.contrast)
        if self.partner:
            other = self._drawn(torch.as_tensor(list(indices), dtype=torch.int64) + self.length)  # of no picture of this set
            kept = {name: getattr(scenes, name) for name in ("identity", "illumination", "gaze")}
            later = scenes.replace(expression=other.expression, strength=other.strength)
            for name, scene in (("partner", other.replace(**kept)), ("frame", later)):
                batch[name] = render(scene, self.size, self.contrast)["image"]
        if self.anonymous:
            held_out = (batch["identity"] >= TRAINING) & (batch["identity"] < TRAINING + HELD_OUT)
            batch["identity"] = torch.where(held_out, -1, batch["identity"])
        return batch


# ---- the people -----------------------------------------------------------------------------------------------------------

_SKIN = {
    "porcelain": "#f9dcc9", "peach": "#f4c6a2", "sand": "#e8b485", "honey": "#d69a66", "amber": "#bd7c4c",
    "bronze": "#9a5f3c", "cocoa": "#834f39", "ebony": "#724535",
}  # fmt: skip
_HAIR = {
    "ink": "#2a2630", "espresso": "#4b3029", "chestnut": "#7d4529", "copper": "#b9532a", "ginger": "#dd7b32",
    "honey": "#c8923e", "straw": "#ecca78", "ash": "#9d968f", "snow": "#efe9df", "plum": "#7a3a63", "teal": "#2a7f86",
    "rose": "#e5839c", "coral": "#e4644b", "mustard": "#e3a72f", "navy": "#33497f", "forest": "#3f7351",
}  # fmt: skip
_IRIS = ("#3b241c", "#6f4526", "#8d7a2f", "#4f8a57", "#3d83b5", "#6d7f92")

_GLASSES, _BEARDS = ("round", "square"), ("f", "stubble", "moustache", "goatee", "full")

Person = tuple[str, str, str, str, str]  # hair, its colour, skin, glasses, beard; "f" marks freckles

# The last eight are held out.
_CAST: tuple[Person, ...] = (
    ("bob", "ink", "porcelain", "", ""), ("afro", "espresso", "cocoa", "", ""),
    ("crop", "ginger", "peach", "", "full"), ("bun", "chestnut", "sand", "round", ""),
    ("bald", "ash", "honey", "", "goatee"), ("long", "straw", "peach", "", ""),
    ("quiff", "ink", "amber", "square", ""), ("curls", "copper", "porcelain", "", "f"),
    ("scarf", "teal", "sand", "", ""), ("receding", "ash", "peach", "round", "moustache"),
    ("pigtails", "ginger", "porcelain", "", "f"), ("mohawk", "coral", "bronze", "", ""),
    ("parting", "espresso", "honey", "", "stubble"), ("buns", "ink", "ebony", "", ""),
    ("beanie", "mustard", "peach", "", "stubble"), ("waves", "plum", "sand", "square", ""),
    ("mop", "honey", "porcelain", "", ""), ("ponytail", "ink", "bronze", "", ""),
    ("spikes", "straw", "peach", "", ""), ("afro", "copper", "amber", "round", ""),
    ("bald", "snow", "ebony", "square", "full"), ("long", "ink", "honey", "", ""),
    ("crop", "snow", "cocoa", "", "moustache"), ("waves", "honey", "peach", "", "f"),
    ("bob", "rose", "amber", "", ""), ("beret", "navy", "porcelain", "round", ""),
    ("curls", "ink", "cocoa", "", "goatee"), ("quiff", "copper", "porcelain", "", "moustache"),
    ("bun", "snow", "peach", "", ""), ("receding", "espresso", "bronze", "", "full"),
    ("mop", "ink", "sand", "square", ""), ("scarf", "coral", "bronze", "round", ""),
    ("parting", "straw", "porcelain", "", ""), ("pigtails", "espresso", "cocoa", "", ""),
    ("spikes", "teal", "sand", "", "goatee"), ("beanie", "plum", "ebony", "", ""),
    ("ponytail", "straw", "honey", "square", ""), ("mohawk", "forest", "porcelain", "", "full"),
    ("buns", "rose", "peach", "", "f"), ("beret", "coral", "cocoa", "", "moustache"),
    ("waves", "ink", "cocoa", "", ""), ("bald", "ginger", "porcelain", "round", "full"),
    ("curls", "snow", "sand", "square", ""), ("bob", "ginger", "honey", "", "f"),
    ("quiff", "ash", "ebony", "", "stubble"), ("scarf", "mustard", "peach", "", ""),
    ("long", "copper", "porcelain", "round", ""), ("crop", "ink", "sand", "", "goatee"),
)  # fmt: skip
TRAINING, HELD_OUT, CROWD = 40, 8, 200
PEOPLE = TRAINING + HELD_OUT + CROWD

# The smallest and largest value a person has of each measure, in half picture widths unless it says otherwise.
_MEASURES = {
    "width": (0.43, 0.56), "height": (0.55, 0.66),  # half the face's
    "square": (1.95, 2.9), "taper": (0.02, 0.34), "cheeks": (-0.04, 0.09),  # exponent; the chin's narrowness; share of width
    "ear": (0.07, 0.12), "neck": (0.15, 0.23),
    "eye_x": (0.40, 0.50),  # share of the face's width
    "eye_y": (-0.04, 0.06), "eye_w": (0.1, 0.145), "eye_h": (0.062, 0.098), "eye_slope": (-0.2, 0.2), "iris": (0, 1),
    "brow_y": (0.03, 0.075), "brow_w": (0.1, 0.16), "brow_h": (0.014, 0.038), "brow_arch": (0.0, 0.06),
    "brow_slope": (-0.1, 0.22),
    "nose_y": (0.19, 0.27), "nose_w": (0.055, 0.125), "nose_bridge": (0.02, 0.05),
    "mouth_y": (0.4, 0.46), "mouth_w": (0.13, 0.21), "mouth_curve": (0.018, 0.075), "lip": (0.016, 0.05),
    "mirror": (0, 1),  # from a half on, the hair is drawn the other way round
}  # fmt: skip

# What an expression does at strength 1: brows and inner brow ends rise, lids open (share of the eye), the mouth opens, widens
# (share) and curves upwards, the chin drops.
_ACTIONS = ("brow", "slope", "upper", "lower", "open", "wide", "curve", "jaw")
_MOVES = (
    (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    (0.03, 0.5, 0.1, -0.25, 0.23, 0.08, -0.1, 0.2),
    (-0.06, -0.42, -0.55, -0.55, 0.004, 0.12, -0.07, -0.035),
    (0.11, 0.0, 0.55, 0.35, 0.13, -0.45, -0.02, 0.1),
)


def _crowd() -> tuple[Person, ...]:
    """200 people put together at random. None has the hair of somebody held out, in its colour."""
    kinds = (list(_hair()), list(_HAIR), list(_SKIN), ["", "", "", *_GLASSES], [""] * 5 + list(_BEARDS))
    draws = uniform(22, torch.arange(2 * CROWD), len(kinds)).tolist()
    drawn = [tuple(kind[int(u * len(kind))] for kind, u in zip(kinds, draw, strict=True)) for draw in draws]
    taken = {person[:2] for person in _CAST[TRAINING:]}
    return tuple(person for person in drawn if person[:2] not in taken)[:CROWD]


def _measures(crowd: bool = False) -> dict[str, Tensor]:
    """Everybody's measures between smallest and largest: of the 48 evenly spaced, dealt out at random; of the crowd random."""
    dealt = uniform(20, torch.arange(len(_CAST)), len(_MEASURES)).argsort(0).double().add(0.5).div(len(_CAST))
    if crowd:
        dealt = uniform(21, torch.arange(CROWD), len(_MEASURES)).double()
    low, high = torch.tensor(list(_MEASURES.values()), dtype=torch.float64).unbind(1)
    return dict(zip(_MEASURES, (low + (high - low) * dealt).unbind(1), strict=True))


# ---- hair: drawn on a head of half width and half height 1, chin at (0, 1), y down -----------------------------------------


def _symmetric(points: Points):
    """A cut-out whose right half runs through `points`; it begins and ends on the axis."""
    left = [(-u, v) for u, v in reversed(points) if u]
    return blob([*points, *left])


def _without(part, hole):
    """A cut-out with a hole in it."""
    return lambda at: torch.maximum(part(at), -hole(at))


def _cap(top: float = -1.2, line: float = -0.6, side: float = 0.0, wide: float = 1.07):
    """Hair that lies on the skull: its top, the hairline on the forehead, how far it comes down at the ears."""
    return _symmetric([
        (0, top), (0.52, 0.96 * top), (0.92 * wide, 0.62 * top), (wide, -0.3), (wide - 0.01, side), (wide - 0.01, side),
        (0.91, side), (0.91, side), (0.88, -0.36), (0.7, line + 0.12), (0.36, line), (0, line),
    ])  # fmt: skip


def _ring(n: int, radius: float, u: float, v: float, size: float, start: float = 0.0, stop: float = 1.0):
    """n discs along an arc around (u, v), the share start … stop of a turn that begins on the left and runs over the top."""
    turns = [math.pi * (1 + 2 * (start + (stop - start) * k / (n - 1))) for k in range(n)]
    return union(*(disc(u + radius * math.cos(t), v + radius * math.sin(t), size) for t in turns))


def _hair() -> dict[str, tuple]:
    """For each style what lies behind and what lies in front of the face."""
    nothing = disc(9, 9, 0.1)
    return {
        "bald": (nothing, nothing),
        "crop": (nothing, _cap(line=-0.58, side=-0.02)),
        "parting": (
            nothing,
            blob([(-1.05, 0.05), (-1.05, 0.05), (-1.1, -0.45), (-0.86, -1.0), (-0.3, -1.27), (0.4, -1.24), (0.95, -0.9),
                  (1.09, -0.4), (1.04, 0.05), (1.04, 0.05), (0.93, -0.1), (0.84, -0.5), (0.5, -0.52), (0.0, -0.66),
                  (-0.42, -0.98), (-0.42, -0.98), (-0.6, -0.66), (-0.88, -0.42), (-0.92, -0.05)]),
        ),
        "quiff": (
            nothing,
            union(_cap(top=-1.14, line=-0.66, side=0.02),
                  blob([(-0.8, -0.7), (-0.98, -1.0), (-0.72, -1.2), (-0.1, -1.3), (0.5, -1.42), (1.04, -1.52), (1.04, -1.52),
                        (1.08, -1.1), (0.84, -0.74), (0.4, -0.62), (0.0, -0.72), (-0.4, -0.6)])),
        ),
        "spikes": (
            nothing,
            union(_cap(top=-1.12, line=-0.62, side=-0.05),
                  *(leaf(1.0 * math.cos(t), -0.22 + 1.0 * math.sin(t), t, 0.85, 0.34)
                    for t in (math.pi * (1.09 + 0.82 * k / 7) for k in range(8)))),
        ),
        "mohawk": (
            nothing,
            blob([(-0.16, -0.62), (-0.3, -1.0), (-0.34, -1.5), (-0.34, -1.5), (-0.18, -1.36), (0.0, -1.72), (0.0, -1.72),
                  (0.18, -1.36), (0.34, -1.5), (0.34, -1.5), (0.3, -1.0), (0.16, -0.62), (0.0, -0.5), (0.0, -0.5)]),
        ),
        "receding": (
            union(*(disc(s * 1.0, -0.25, 0.26) for s in (-1, 1))),
            union(*(blob([(s * 0.95, 0.12), (s * 0.95, 0.12), (s * 1.12, 0.06), (s * 1.14, -0.3), (s * 1.0, -0.6),
                          (s * 0.8, -0.68), (s * 0.88, -0.4), (s * 0.93, -0.15)]) for s in (-1, 1))),
        ),
        "afro": (
            union(disc(0, -0.42, 1.22), _ring(17, 1.2, 0, -0.42, 0.26, -0.13, 0.63)),
            union(_cap(top=-1.3, line=-0.56, side=-0.1), _ring(9, 0.92, 0, -0.1, 0.2, 0.09, 0.41)),
        ),
        "curls": (
            union(_ring(11, 1.02, 0, -0.25, 0.36, -0.12, 0.62), disc(0, -0.4, 1.05)),
            union(*(disc(u, v, r) for u, v, r in (
                (-0.92, -0.42, 0.27), (-0.72, -0.78, 0.3), (-0.36, -0.94, 0.33), (0.05, -0.88, 0.33), (0.42, -0.96, 0.31),
                (0.74, -0.76, 0.29), (0.94, -0.4, 0.25), (-0.18, -0.66, 0.2), (0.28, -0.68, 0.19), (-0.56, -0.62, 0.2)))),
        ),
        "bun": (
            disc(0, -1.27, 0.36),
            _symmetric([(0, -1.17), (0.5, -1.12), (0.95, -0.78), (1.06, -0.3), (1.0, 0.1), (1.0, 0.1), (0.9, -0.2),
                        (0.76, -0.5), (0.4, -0.78), (0, -0.86)]),
        ),
        "buns": (
            union(disc(-0.8, -1.2, 0.42), disc(0.8, -1.2, 0.42)),
            _symmetric([(0, -1.18), (0.5, -1.13), (0.95, -0.78), (1.06, -0.3), (1.0, 0.12), (1.0, 0.12), (0.88, -0.24),
                        (0.6, -0.5), (0.3, -0.66), (0.0, -0.96), (0.0, -0.96)]),
        ),
        "bob": (
            _symmetric([(0, -1.26), (0.7, -1.16), (1.18, -0.66), (1.3, 0.0), (1.34, 0.62), (1.34, 0.62), (0.9, 0.7),
                        (0.0, 0.7)]),
            _symmetric([(0, -1.26), (0.66, -1.14), (1.08, -0.7), (1.2, 0.0), (1.24, 0.6), (1.24, 0.6), (0.98, 0.58),
                        (0.92, 0.2), (0.9, -0.36), (0.9, -0.36), (0.5, -0.34), (0, -0.36)]),
        ),
        "mop": (
            _symmetric([(0, -1.2), (0.7, -1.1), (1.14, -0.6), (1.22, 0.0), (1.1, 0.3), (0.6, 0.3), (0, 0.3)]),
            _symmetric([(0, -1.3), (0.6, -1.2), (1.08, -0.78), (1.2, -0.2), (1.12, 0.2), (1.12, 0.2), (0.96, -0.1),
                        (0.8, -0.3), (0.8, -0.3), (0.6, -0.42), (0.4, -0.28), (0.4, -0.28), (0.2, -0.4), (0, -0.26),
                        (0, -0.26)]),
        ),
        "long": (
            _symmetric([(0, -1.26), (0.7, -1.14), (1.14, -0.66), (1.26, 0.1), (1.3, 1.0), (1.22, 1.72), (0.6, 1.8), (0, 1.8)]),
            _symmetric([(0, -1.22), (0.6, -1.14), (1.06, -0.7), (1.2, 0.0), (1.26, 0.8), (1.24, 1.5), (1.24, 1.5), (1.0, 1.3),
                        (0.96, 0.7), (0.92, 0.1), (0.72, -0.44), (0.3, -0.8), (0.0, -1.0), (0.0, -1.0)]),
        ),
        "waves": (
            _symmetric([(0, -1.28), (0.8, -1.14), (1.28, -0.66), (1.22, -0.2), (1.46, 0.2), (1.3, 0.6), (1.52, 1.0),
                        (1.34, 1.4), (0.8, 1.5), (0, 1.4)]),
            blob([(-0.5, -1.1), (-0.5, -1.1), (0.0, -1.3), (0.6, -1.22), (1.12, -0.78), (1.14, -0.3), (1.3, 0.16), (1.16, 0.6),
                  (1.34, 1.05), (1.34, 1.05), (1.04, 0.9), (0.98, 0.5), (1.0, 0.1), (0.84, -0.3), (0.4, -0.56), (-0.1, -0.8),
                  (-0.5, -1.1), (-0.5, -1.1), (-0.62, -0.7), (-0.86, -0.36), (-0.94, 0.1), (-1.06, 0.4), (-1.2, 0.1),
                  (-1.1, -0.4), (-0.96, -0.8)]),
        ),
        "ponytail": (
            blob([(0.5, -1.0), (1.0, -1.3), (1.5, -1.0), (1.62, -0.4), (1.44, 0.1), (1.56, 0.6), (1.56, 0.6), (1.16, 0.3),
                  (1.16, -0.2), (1.22, -0.7), (0.8, -0.7)]),
            _symmetric([(0, -1.2), (0.5, -1.14), (0.95, -0.8), (1.06, -0.3), (1.0, 0.06), (1.0, 0.06), (0.9, -0.3),
                        (0.72, -0.6), (0.34, -0.72), (0, -0.7)]),
        ),
        "pigtails": (
            union(*(union(*(disc(s * (1.12 + 0.10 * math.sin(0.8 * k)), 0.1 + 0.27 * k, 0.24 - 0.015 * k) for k in range(6)))
                    for s in (-1, 1))),
            _symmetric([(0, -1.2), (0.55, -1.13), (1.0, -0.76), (1.1, -0.2), (1.1, 0.14), (1.1, 0.14), (0.94, 0.08),
                        (0.86, -0.3), (0.6, -0.42), (0.3, -0.46), (0, -0.44)]),
        ),
        "beanie": (
            nothing,
            union(_symmetric([(0, -1.42), (0.5, -1.36), (0.94, -1.0), (1.1, -0.6), (1.1, -0.6), (0.6, -0.52), (0, -0.5)]),
                  strip([(-1.06, -0.42), (-0.55, -0.52), (0, -0.55), (0.55, -0.52), (1.06, -0.42)], 0.34),
                  disc(0, -1.52, 0.24)),
        ),
        "beret": (
            nothing,
            union(blob([(-1.0, -0.56), (-1.34, -0.86), (-1.2, -1.2), (-0.5, -1.42), (0.4, -1.36), (1.02, -1.0), (1.08, -0.56),
                        (0.6, -0.62), (0.0, -0.66), (-0.6, -0.6)]), strip([(-0.2, -1.36), (-0.24, -1.56)], 0.12)),
        ),
        "scarf": (
            _symmetric([(0, -1.24), (0.7, -1.12), (1.16, -0.6), (1.26, 0.1), (1.22, 0.8), (1.4, 1.4), (1.6, 2.0), (0, 2.0)]),
            _without(_symmetric([(0, -1.28), (0.66, -1.16), (1.12, -0.66), (1.22, 0.1), (1.06, 0.8), (1.2, 1.2), (0.7, 1.44),
                                 (0, 1.5)]),
                     _symmetric([(0, -0.74), (0.5, -0.66), (0.8, -0.42), (0.9, 0.0), (0.8, 0.54), (0.5, 0.88), (0, 1.0)])),
        ),
    }  # fmt: skip


# ---- what keeps its shape: fields on [-1.2, 1.2]^2, one set a person -------------------------------------------------------

_FIELD, _EXTENT = 128, 1.2
_HAIR_FIELD, _HAIR_EXTENT = 112, 2.1
_MIDDLE = 0.08  # of the face, a little below that of the picture
_OUTER = ("back", "clothes", "neck", "ear", "head", "beard", "glasses", "front")  # where none of these is, is the wall
_STILL = (*_OUTER, "nose", "freckles")

# Where the light comes from, x, y (down), z (towards the viewer), and how strong it is.
_LAMPS = (
    (0.0, -0.4, 1.0, 1.0), (-1.0, -0.25, 0.4, 1.15), (1.0, -0.25, 0.4, 1.15), (0.0, -1.0, 0.3, 1.2), (0.0, 1.0, 0.35, 1.1),
)  # fmt: skip
_LIGHT, _SHADOW = (1.1, 1.07, 1.0), (0.5, 0.4, 0.43)


@dataclass(frozen=True)
class _People:
    """What is known of a group of n people before they are drawn.

    still (n, 10, S, S): signed distances of the parts `_STILL`; shade (n * 5, 1, S, S) in [0, 1]: how much light falls on
    each point, a field for each person and lamp; measures (n,) and colours (n, 3, 1, 1): by name.
    """

    still: Tensor
    shade: Tensor
    measures: dict[str, Tensor]
    colours: dict[str, Tensor]


@cache
def _people(group: int, device) -> _People:
    """Group 0 are the 48; the crowd follows in groups as large."""
    if group == 0:
        cast, dealt = _CAST, _measures()
    else:
        members = slice((group - 1) * len(_CAST), group * len(_CAST))
        cast, dealt = _crowd()[members], {name: value[members] for name, value in _measures(crowd=True).items()}
    measures = {name: value[:, None, None].float() for name, value in dealt.items()}
    at = grid(_FIELD, _EXTENT).float()
    parts = _parts(cast, measures, at)
    height = _height(measures, parts, at)
    shade = torch.stack([_shade(height, lamp) for lamp in _LAMPS], 1).flatten(0, 1)
    return _People(
        torch.stack([parts[name] for name in _STILL]).transpose(0, 1).to(device),  # laid out as by `sheets`
        shade[:, None].to(device),
        {name: value.flatten().to(device) for name, value in measures.items()},
        {name: value.to(device) for name, value in _dyes(cast, measures).items()},
    )


def _level(m: dict[str, Tensor], at: Tensor) -> Tensor:
    """Every person's face: -1 in its middle, 0 on its outline, (n, S, S)."""
    v = (at[..., 1] - _MIDDLE) / m["height"]
    half = 1 + m["cheeks"] * torch.exp(-(((v - 0.25) / 0.35) ** 2)) - m["taper"] * v.clamp(0, 1.3) ** 2
    u = at[..., 0].abs() / (m["width"] * half)
    power = torch.where(v > 0, m["square"], 2.2)  # the jaw is the person's own, the skull is round
    return u**power + v.abs() ** power - 1


def _parts(cast: tuple[Person, ...], m: dict[str, Tensor], at: Tensor) -> dict[str, Tensor]:
    """Signed distances (n, S, S) of the parts `_STILL` on a grid `at`."""
    x, y = at.unbind(-1)
    side = x.abs()
    level = _level(m, at)
    slope = torch.stack(torch.gradient(level, spacing=2 * _EXTENT / len(at), dim=(1, 2))).norm(dim=0)
    head = level / slope.clamp(min=0.5)
    back, front = _hairdos(cast, m, at)
    neck = torch.maximum(side - m["neck"] - 0.4 * (y - 0.72).clamp(min=0) ** 2, 0.3 - y)
    shoulders = torch.hypot(0.85 * x, y - 1.72) - 0.9
    bridge = torch.maximum(side - m["nose_bridge"] * (0.7 + (y - m["eye_y"])), m["eye_y"] - 0.04 - y)
    tip = torch.hypot(x * 0.05 / m["nose_w"], y - m["nose_y"] + 0.05) - 0.05
    parts = {
        "back": back,
        "clothes": torch.maximum(shoulders, 0.27 - torch.hypot(x, 0.9 * (y - 0.62))),
        "neck": neck,
        "ear": torch.hypot(1.3 * (side - m["width"]), y - m["eye_y"] - 0.1) - m["ear"],
        "head": head,
        "nose": torch.minimum(torch.maximum(bridge, y - m["nose_y"] + 0.04), tip),
        "beard": _beards(cast, m, x, y, head),
        "freckles": _freckles(cast, m, x, y),
        "glasses": _glasses(cast, m, x, y),
        "front": front,
    }
    return {name: distance.clamp(-0.4, 0.4).expand(len(cast), -1, -1) for name, distance in parts.items()}


def _hairdos(cast: tuple[Person, ...], m: dict[str, Tensor], at: Tensor) -> tuple[Tensor, Tensor]:
    """The hair behind and in front of every face, stretched to fit it."""
    styles = _hair()
    strips = grid(_HAIR_FIELD, _HAIR_EXTENT).float().split(8)  # a few rows at a time stay in the processor's cache
    stack = torch.stack([torch.stack([torch.cat([part(at) for at in strips]) for part in pair]) for pair in styles.values()])
    which = torch.tensor([list(styles).index(person[0]) for person in cast])
    u = at[..., 0] / m["width"] * torch.where(m["mirror"] < 0.5, 1.0, -1.0)
    v = (at[..., 1] - _MIDDLE) / m["height"]
    distance = look_up(stack, which, planes(u, v) / _HAIR_EXTENT) * m["width"][:, None]
    return distance[:, 0], distance[:, 1]


def _choose(cast: tuple[Person, ...], column: int, options: dict[str, Tensor]) -> Tensor:
    """Of fields (n, S, S) by name, for each person the one that a column of the cast names; far away where it names none."""
    nothing = torch.full_like(next(iter(options.values())), 1.0)
    chosen = [options.get(person[column], nothing)[i] for i, person in enumerate(cast)]
    return torch.stack(chosen)


def _beards(cast: tuple[Person, ...], m: dict[str, Tensor], x: Tensor, y: Tensor, head: Tensor) -> Tensor:
    side = x.abs()
    lip = m["mouth_y"] - 0.075
    edge = lip - 0.02 - (lip - 0.12) * (side / m["width"]) ** 2  # from under the nose up to the ears
    full = torch.maximum(head - 0.05, edge - y)
    curl = (lip - y + 0.35 * (side - 0.06).clamp(min=0) ** 1.5).abs()
    half = m["mouth_w"] + 0.07
    moustache = torch.maximum(curl - 0.05 * (1 - (side / half) ** 2).clamp(min=0).sqrt(), side - half)
    chin = torch.maximum(torch.hypot(1.25 * x, y - m["height"] - _MIDDLE + 0.1) - 0.19, m["mouth_y"] + 0.045 - y)
    goatee = torch.minimum(moustache + 0.022, chin)
    return _choose(cast, 4, {"full": full, "stubble": full, "moustache": moustache, "goatee": goatee})


def _freckles(cast: tuple[Person, ...], m: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    spots = uniform(3, torch.arange(26), 3)
    u = 0.1 + 0.75 * spots[:, 0]
    distance = torch.full_like(m["width"] * x, 1.0)
    for k in range(len(u)):
        sign = 1 if k % 2 else -1
        away = torch.hypot(x - sign * u[k] * m["width"], y - 0.1 - 0.2 * spots[k, 1])
        distance = torch.minimum(distance, away - 0.009 - 0.008 * spots[k, 2])
    return _choose(cast, 4, {"f": distance})


def _glasses(cast: tuple[Person, ...], m: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    side, thick = x.abs(), 0.02
    centre = m["eye_x"] * m["width"]
    u, v = side - centre, y - m["eye_y"] - 0.01
    radius = 0.04 + m["eye_w"]
    round_lens = torch.hypot(u, v) - radius
    square_lens = (u.abs() ** 4 + (1.25 * v.abs()) ** 4 + 1e-9) ** 0.25 - radius
    bridge = torch.maximum((y - m["eye_y"] + 0.02).abs(), side - centre + radius)
    arms = torch.maximum((y - m["eye_y"]).abs(), centre + radius - side).maximum(side - m["width"] - 0.02)
    frames = {
        name: torch.minimum(torch.minimum(lens.abs(), bridge), arms) - thick
        for name, lens in (("round", round_lens), ("square", square_lens))
    }
    return _choose(cast, 3, frames)


def _height(m: dict[str, Tensor], parts: dict[str, Tensor], at: Tensor) -> Tensor:
    """The form that the light falls on: how far every point stands out, (n, S, S) in half picture widths."""
    x, y = at.unbind(-1)
    side = x.abs()

    def bump(u, v, width, height) -> Tensor:
        return torch.exp(-((u / width) ** 2) - (v / height) ** 2)

    def dome(part: str, reach: float) -> Tensor:
        """From 0 at the edge of a part to 1 at `reach` inside it, round."""
        return (1 - (1 + parts[part] / reach).clamp(0, 1) ** 2).sqrt()

    eye = side - m["eye_x"] * m["width"]
    face = 0.46 * (-_level(m, at)).clamp(0, 1) ** 0.6
    face = face + 0.05 * bump(side - 0.55 * m["width"], y - m["nose_y"] + 0.02, 0.13, 0.12)  # cheeks
    face = face - 0.05 * bump(eye, y - m["eye_y"], 0.13, 0.1) + 0.03 * bump(eye, y - m["eye_y"] + 0.15, 0.2, 0.06)
    along = ((y - m["eye_y"] + 0.1) / (m["nose_y"] - m["eye_y"] + 0.1)).clamp(0, 1)
    under = ((m["nose_y"] + 0.03 - y) / 0.06).clamp(0, 1)
    nose = (0.03 + 0.19 * along**1.5) * torch.exp(-((x / (0.035 + 0.8 * m["nose_w"] * along)) ** 2)) * under
    face = face + nose * (y > m["eye_y"] - 0.1)
    face = face + 0.035 * bump(x, y - m["mouth_y"], 0.16, 0.06) + 0.04 * bump(x, y - _MIDDLE - 0.88 * m["height"], 0.12, 0.08)
    face = face + 0.03 * dome("beard", 0.08)
    layers = (
        ("back", 0.18 * dome("back", 0.3)),
        ("clothes", 0.22 * dome("clothes", 0.4)),
        ("neck", 0.14 + 0.1 * dome("neck", 0.2)),
        ("ear", 0.12 + 0.08 * dome("ear", 0.08)),
        ("head", 0.16 + face),
        ("front", None),
    )
    height = torch.zeros_like(face)
    for part, z in layers:
        if part == "front":  # hair lies on whatever is below
            z = torch.maximum(height, 0.2 + 0 * height) + 0.05 + 0.1 * dome("front", 0.22)
        height = torch.where(parts[part] < 0, z, height)
    return _blur(height, 2)


def _shade(height: Tensor, lamp: tuple[float, float, float, float]) -> Tensor:
    """Light on a height field (n, S, S) in [0, 1]: a wrapped Lambert cosine, and shadows cast on what lies behind."""
    x, y, z, strength = lamp
    cell = 2 * _EXTENT / height.shape[-1]
    dy, dx = torch.gradient(height, spacing=cell, dim=(1, 2))
    length = math.sqrt(x * x + y * y + z * z)
    cosine = (z - x * dx - y * dy) / (1 + dx**2 + dy**2).sqrt() / length
    cosine = ((cosine + 0.15) / 1.15).clamp(min=0)  # a lamp of some size: its light reaches a little around the form
    across = math.hypot(x, y)
    shadow = torch.zeros_like(height)
    for step in range(1, 17):  # towards the lamp: what stands above the ray?
        moved = height.roll((-round(step * y / across), -round(step * x / across)), (1, 2))
        shadow = torch.maximum(shadow, ((moved - height - step * cell * z / across) / 0.06).clamp(0, 1))
    direct = cosine * (1 - 0.75 * _blur(shadow, 1))
    return _blur((0.1 + 0.9 * strength * direct).clamp(0, 1), 1)


def _blur(field: Tensor, radius: int) -> Tensor:
    """Twice the mean over a square, (n, S, S)."""
    for _ in range(2):
        field = F.avg_pool2d(F.pad(field[:, None], [radius] * 4, mode="replicate"), 2 * radius + 1, 1)[:, 0]
    return field


# ---- colours --------------------------------------------------------------------------------------------------------------

_WALLS = ("#f1e4cf", "#d5dfc9", "#c9dce0", "#e3d5e4", "#f3d6c2", "#f1e4cf")
_CLOTHES = ("#2f5d73", "#c9573f", "#e0a93a", "#5f7f4f", "#7b4a6d", "#2f5d73")
_HATS = ("scarf", "beanie", "beret")  # the colour is theirs, not the hair's
_DARK = ("bronze", "cocoa", "ebony")  # skins on which a dark frame would not show


def _rgb(colour: str) -> Tensor:
    """A hex colour as floats in [0, 1], (3, 1, 1)."""
    return torch.tensor([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])[:, None, None]


def _dyes(cast: tuple[Person, ...], m: dict[str, Tensor]) -> dict[str, Tensor]:
    """The colours of every person's parts, (n, 3, 1, 1) each."""
    skin = torch.stack([_rgb(_SKIN[person[2]]) for person in cast])
    hair = torch.stack([_rgb(_HAIR[person[1]]) for person in cast])
    own = torch.stack([_rgb(_HAIR["espresso" if person[0] in _HATS else person[1]]) for person in cast])
    stubble = torch.tensor([person[4] == "stubble" for person in cast])[:, None, None, None]
    red = _rgb("#c8434a")
    return {
        "skin": skin,
        "hair": hair,
        "behind": 0.82 * hair,
        "beard": torch.where(stubble, torch.lerp(skin, own, 0.38), 0.92 * own),
        "brow": 0.7 * own,
        "nose": torch.lerp(0.9 * skin, red, 0.12),
        "freckles": torch.lerp(0.8 * skin, _rgb("#9c4a22"), 0.35),
        "blush": torch.lerp(skin, red, 0.22),
        "lips": torch.lerp(0.86 * skin, red, 0.5),
        "lash": 0.3 * skin,
        "glasses": torch.stack([_rgb("#e2b04a" if person[2] in _DARK else "#2d2a33") for person in cast]),
        "iris": torch.stack([_rgb(_IRIS[k]) for k in (m["iris"].flatten() * len(_IRIS)).long()]),
    }


@cache
def _paint(colours: tuple[str, ...], device) -> Tensor:
    """Hex colours as floats in [0, 1], (n, 3, 1, 1)."""
    return torch.stack([_rgb(colour) for colour in colours]).to(device)


def _blend(colours: tuple[str, ...], share: Tensor) -> Tensor:
    """A colour between neighbours of a list, for shares (B,) in [0, 1] of the way along it, (B, 3, 1, 1)."""
    place = share * (len(colours) - 1)
    first = place.long().clamp(max=len(colours) - 2)
    table = _paint(colours, share.device)
    return torch.lerp(table[first], table[first + 1], (place - first)[:, None, None, None])


# ---- drawing --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Posed:
    """B people in their places.

    x, y (B, H, W): where the pixels lie on the face; pixel (B, 1, 1): how wide they are there; cover: coverage of each part of
    `_STILL`, silhouette: of the whole person, (B, 1, H, W); shade (B, 1, H, W) in [0, 1]; face: measures after the expression,
    (B, 1, 1) each; look (B, 1, 1): where the pupils are, -1 left, 1 right; colours (B, 3, 1, 1) each.
    """

    x: Tensor
    y: Tensor
    pixel: Tensor
    cover: dict[str, Tensor]
    silhouette: Tensor
    shade: Tensor
    face: dict[str, Tensor]
    look: Tensor
    colours: dict[str, Tensor]


def _pose(scene: Scene, people: _People, size: int) -> _Posed:
    who = scene.identity % len(_CAST)
    move = _moves(scene)
    shift_x, shift_y, roll, scale = scene.nuisance.unbind(-1)
    scale = 1 + SCALE * scale
    back = rotation(-roll * math.radians(ROLL)) / scale[:, None, None]
    centre = SHIFT * torch.stack([shift_x, shift_y], -1)
    at = positions(size, back, -(back * centre[:, None]).sum(-1))
    x, y = at.unbind(-1)
    # The chin takes with it what is around it; shoulders and brow stay.
    pulled = y - move["jaw"] * torch.exp(-(((y - 0.7) / 0.3) ** 2))
    where = planes(x, pulled) / _EXTENT
    still = look_up(people.still, who, where)
    shade = look_up(people.shade, who * len(ILLUMINATIONS) + scene.illumination, where)
    pixel = (2 / size / scale)[:, None, None]
    cover = dict(zip(_STILL, _cover(still, pixel[..., None]).split(1, 1), strict=True))
    face = {name: value[who][:, None, None] for name, value in people.measures.items()}
    colours = {name: value[who] for name, value in people.colours.items()}
    look = (scene.gaze - 1).to(x)[:, None, None]
    colours["clothes"] = _blend(_CLOTHES, scene.backdrop[:, 1])
    silhouette = _cover(still[:, : len(_OUTER)].amin(1, keepdim=True), pixel[..., None])
    return _Posed(x, y, pixel, cover, silhouette, shade, _expressed(face, move), look, colours)


def _moves(scene: Scene) -> dict[str, Tensor]:
    """How far an expression moves what it moves, by the names of `_ACTIONS`, (B, 1, 1) each."""
    table = torch.tensor(_MOVES, device=scene.strength.device)
    moves = table[scene.expression] * scene.strength[:, None]
    return {name: move[:, None, None] for name, move in zip(_ACTIONS, moves.unbind(1), strict=True)}


def _expressed(own: dict[str, Tensor], move: dict[str, Tensor]) -> dict[str, Tensor]:
    """A person's measures, moved by an expression."""
    face = own | {
        "brow_y": own["eye_y"] - own["eye_h"] - own["brow_y"] - move["brow"],
        "brow_slope": own["brow_slope"] + move["slope"],
        "upper": own["eye_h"] * (1 + move["upper"]),
        "lower": 0.85 * own["eye_h"] * (1 + move["lower"]),
        "mouth_y": own["mouth_y"] + 0.35 * move["jaw"],
        "mouth_w": own["mouth_w"] * (1 + move["wide"]),
        "mouth_curve": (own["mouth_curve"] + move["curve"]) * (1 + move["wide"]) ** 2,
        "open": move["open"],
    }
    return face | {"eye_x": own["eye_x"] * own["width"]}


def _wall(scene: Scene, size: int) -> Tensor:
    """A wall with a paler disc on it, (B, 3, size, size) in [0, 1]."""
    wall = _blend(_WALLS, scene.backdrop[:, 0])
    x, y = grid(size, 1.0).float().to(wall.device).unbind(-1)
    disc_cover = (0.5 - (torch.hypot(x, y - 0.05) - 0.86) * size / 2).clamp(0, 1)
    return torch.lerp(wall, torch.lerp(wall, torch.ones_like(wall), 0.38), disc_cover)


def _behind(picture: Tensor, person: _Posed) -> Tensor:
    """Hair that hangs behind, neck, clothes."""
    for part, colour in (("back", "behind"), ("neck", "skin"), ("clothes", "clothes")):
        picture = torch.lerp(picture, person.colours[colour], person.cover[part])
    return picture


def _skin(picture: Tensor, person: _Posed) -> Tensor:
    """Ears and face with what grows on it."""
    face, colours = person.face, person.colours
    for part in ("ear", "head"):
        picture = torch.lerp(picture, colours["skin"], person.cover[part])
    u, v = (person.x.abs() - 0.62 * face["width"]) / 0.16, (person.y - face["nose_y"]) / 0.13
    blush = (1 - u * u - v * v).clamp(min=0)[:, None] * person.cover["head"]
    picture = torch.lerp(picture, colours["blush"], blush)
    for part in ("freckles", "beard", "nose"):
        picture = torch.lerp(picture, colours[part], person.cover[part])
    return picture


def _eyes(picture: Tensor, person: _Posed) -> Tensor:
    rows = _rows(picture, -0.35, 0.4)
    x, y, pixel, face, colours = person.x[:, rows], person.y[:, rows], person.pixel, person.face, person.colours
    u = x.abs() - face["eye_x"]  # outwards from the middle of each eye
    y = y - face["eye_y"]
    v = y + face["eye_slope"] * u
    lid = torch.where(v < 0, face["upper"], face["lower"])
    bow = lid / face["eye_w"] ** 2
    edge = (v.abs() - lid + bow * u * u) / (1 + (2 * bow * u) ** 2).sqrt()
    inside = _cover(edge, pixel)
    right = (x >= 0).to(x)
    pupil_x = x - torch.lerp(-face["eye_x"], face["eye_x"], right) - 0.5 * face["eye_w"] * person.look
    away = torch.hypot(pupil_x, y)
    glint = torch.hypot(pupil_x + 0.022, y + 0.024) - 0.019
    part = picture[:, :, rows]
    for colour, cover in (
        (colours["lash"], _cover(edge - 0.02, pixel) * (v < 0)),
        (_paint(("#fbf7ef",), x.device), inside),
        (colours["iris"], _cover(away - 0.066, pixel) * inside),
        (_paint(("#17131a",), x.device), _cover(away - 0.036, pixel) * inside),
        (_paint(("#ffffff",), x.device), _cover(glint, pixel) * inside),
    ):
        part = torch.lerp(part, colour, cover[:, None])
    return _exchange(picture, rows, part)


def _mouth(picture: Tensor, person: _Posed) -> Tensor:
    rows = _rows(picture, 0.1, 0.98)
    x, y, pixel, face, colours = person.x[:, rows], person.y[:, rows], person.pixel, person.face, person.colours
    t = (x / face["mouth_w"]) ** 2
    v = y - face["mouth_y"] + face["mouth_curve"] * t
    above = v < 0
    gap = 0.009 + torch.where(above, 0.4, 0.8) * face["open"]
    steep = (1 + (4 * gap * t * x / face["mouth_w"] ** 2) ** 2).sqrt()
    inner = (v.abs() - gap * (1 - t * t)) / steep
    s = (x / (face["mouth_w"] + 0.02)) ** 2
    lip = gap + torch.where(above, 0.75, 1.0) * face["lip"]
    outer = v.abs() - lip * (1 - s * s)
    inside = _cover(inner, pixel)
    wide = (face["mouth_w"] / 0.2).clamp(max=1.2)
    teeth = v + (0.7 - 0.55 * wide) * face["open"]
    tongue = torch.hypot(0.8 * x, v - face["open"]) - 0.6 * face["open"] + 0.005
    part = picture[:, :, rows]
    for colour, cover in (
        (colours["lips"], _cover(outer, pixel)),
        (_paint(("#4d1a28",), x.device), inside),
        (_paint(("#d9646c",), x.device), _cover(tongue, pixel) * inside),
        (_paint(("#fbf3e6",), x.device), _cover(teeth, pixel) * _cover(inner + 0.008, pixel)),
    ):
        part = torch.lerp(part, colour, cover[:, None])
    return _exchange(picture, rows, part)


def _in_front(picture: Tensor, person: _Posed) -> Tensor:
    """Hair on the forehead; brows, which would be hidden behind it in nature; glasses."""
    face, colours = person.face, person.colours
    picture = torch.lerp(picture, colours["hair"], person.cover["front"])
    rows = _rows(picture, -0.6, 0.25)
    u = person.x[:, rows].abs() - face["eye_x"] - 0.01
    t = (u / face["brow_w"]) ** 2
    v = person.y[:, rows] - face["brow_y"] - face["brow_slope"] * u + face["brow_arch"] * (1 - t)
    thick = face["brow_h"] * (1 - 0.35 * u / face["brow_w"])
    brow = torch.maximum(v.abs() - thick, u.abs() - face["brow_w"])
    part = torch.lerp(picture[:, :, rows], colours["brow"], _cover(brow, person.pixel)[:, None])
    picture = _exchange(picture, rows, part)
    return torch.lerp(picture, colours["glasses"], person.cover["glasses"])


def _light(picture: Tensor, person: _Posed, contrast: float) -> Tensor:
    """Light on the person; the wall is lit evenly, so that it tells no label."""
    light, shadow = (torch.tensor(of, device=picture.device)[:, None, None] ** contrast for of in (_LIGHT, _SHADOW))
    return picture * torch.lerp(torch.ones_like(light), torch.lerp(shadow, light, person.shade), person.silhouette)


# ---- helpers --------------------------------------------------------------------------------------------------------------


def _cover(distance: Tensor, pixel: Tensor) -> Tensor:
    """The share of a pixel a cut-out covers, from signed distances and pixel widths in one unit."""
    return (0.5 - distance / pixel).clamp(0, 1)


def _rows(picture: Tensor, top: float, bottom: float) -> slice:
    """The rows of a picture between two heights in [-1, 1]: nothing of a feature is ever drawn outside them."""
    size = picture.shape[-1]
    return slice(math.floor((top + 1) / 2 * size), math.ceil((bottom + 1) / 2 * size))


def _exchange(picture: Tensor, rows: slice, part: Tensor) -> Tensor:
    return torch.cat([picture[:, :, : rows.start], part, picture[:, :, rows.stop :]], 2)
