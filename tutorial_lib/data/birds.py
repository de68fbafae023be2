"""PaperBirds: rendered paper-cut birds with every factor known.

A picture has a *background*, a *shape* (the species), a *texture* (its papers) and a *pose*. In nature a species has its own
plumage: shape i comes in textures 4i … 4i + 3 (`tied=True`). The renderer can put any texture on any shape in front of any
background in any pose, so "the texture of A on the shape of B" exists as a picture and a model can be compared with it.

    birds = PaperBirds(size=64, length=20_000, seed=0)
    batch = birds.batch(range(16))                           # pictures, masks, boxes, keypoints and factors
    scene = sample_scene(seed=0, indices=torch.arange(16))   # the factors alone; change any of them ...
    batch = render(scene, size=64)                           # ... and draw them
    batch = render(scene, size=64, style="sketch")           # the same birds in pencil: another domain, the same truth
    batch = render(clip(scene[:1], frames=24), size=64)      # the first bird hopping about
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor
from torchvision import tv_tensors

from tutorial_lib.data.batched import BatchedDataset, Factors
from tutorial_lib.data.papercut import (
    blob,
    disc,
    grid,
    leaf,
    look_up,
    positions,
    rotation,
    sheets,
    smooth,
    strip,
    uniform,
    union,
)

SHAPES = ("owl", "flamingo", "duck", "toucan", "peacock", "swallow")
BACKGROUNDS = (
    "foliage", "ripples", "reeds", "pebbles", "clouds", "scales", "stars", "honeycomb", "dunes", "petals",
)  # fmt: skip
POSE = ("flip", "x", "y", "scale", "rotation", "head", "wing")
KEYPOINTS = ("beak", "eye", "crown", "nape", "breast", "back", "belly", "tail", "shoulder", "wing")
SIZES = (32, 256)
Style = Literal["paper", "sketch", "cartoon"]
STYLES = get_args(Style)

# What one unit of each pose component means, in half picture widths and degrees.
SHIFT, SMALLEST, LARGEST, ROTATION, HEAD, WING = 0.2, 0.58, 0.82, 24.0, 26.0, 34.0

PAPER = {
    "ink": "#27323f", "cream": "#f8efdc", "white": "#ffffff", "grey": "#8f9ba1", "brown": "#8d5a3a",
    "coral": "#ee6a50", "red": "#c92f3c", "orange": "#f3862f", "mustard": "#f2b632", "lime": "#c2d140",
    "leaf": "#63ab4d", "forest": "#24694a", "teal": "#16918c", "sky": "#4fa9e0", "navy": "#2b4c93",
    "plum": "#7b3a7d", "lilac": "#b898dc", "pink": "#f092ac",
}  # fmt: skip
_LINES = {"graphite": "#3d4046", "outline": "#1b1f26"}
MARKS = ("bib", "stripes", "spots", "feathers")

# Body, marks on the body, wing, head and tail. Row 4i + k is worn by shape i with the marks MARKS[k].
_PAPERS = (
    ("brown", "cream", "ink", "mustard"), ("teal", "cream", "navy", "coral"),
    ("plum", "pink", "ink", "lilac"), ("grey", "white", "ink", "coral"),
    ("pink", "cream", "coral", "red"), ("coral", "cream", "red", "plum"),
    ("lilac", "white", "plum", "pink"), ("mustard", "orange", "red", "brown"),
    ("white", "mustard", "grey", "forest"), ("sky", "white", "navy", "mustard"),
    ("orange", "cream", "brown", "ink"), ("forest", "lime", "leaf", "mustard"),
    ("ink", "mustard", "plum", "red"), ("red", "ink", "ink", "cream"),
    ("leaf", "mustard", "forest", "red"), ("navy", "sky", "ink", "pink"),
    ("navy", "teal", "teal", "leaf"), ("lime", "forest", "forest", "teal"),
    ("pink", "red", "plum", "sky"), ("cream", "sky", "sky", "navy"),
    ("sky", "coral", "ink", "ink"), ("plum", "lilac", "lilac", "cream"),
    ("mustard", "ink", "ink", "teal"), ("coral", "plum", "navy", "navy"),
)  # fmt: skip
TEXTURES = tuple(f"{papers[0]} {MARKS[i % 4]}" for i, papers in enumerate(_PAPERS))
TEXTURES_PER_SHAPE = len(TEXTURES) // len(SHAPES)

# Ground, large cut-outs, small cut-outs: quieter than the birds.
_GROUNDS = (
    ("#cfdcb6", "#a9c48c", "#86a96f"), ("#a9d3e3", "#c6e4ec", "#84b9d3"), ("#efe1b4", "#dcc588", "#c4a868"),
    ("#b9aea3", "#d8cfc4", "#e7e0d6"), ("#bcdcf2", "#f3f8fb", "#dcecf7"), ("#8cc7bd", "#b5ded2", "#6aada4"),
    ("#46507f", "#646f9f", "#f0dc9a"), ("#f0c987", "#e3ad62", "#f8e2b6"), ("#e6b79c", "#d79a7f", "#f2d2bd"),
    ("#f3d3dc", "#e3a6ba", "#fbeef0"),
)  # fmt: skip


@dataclass
class Scene(Factors):
    """The factors of B pictures, each picture with K birds (K is 1 unless asked for more).

    background (B,) int64; ground (B, 4) float in [0, 1): where its paper is laid and how it is turned;
    shape, texture (B, K) int64; pose (B, K, 7) float, in the order of `POSE`: flip is 0 (faces right) or 1, the others lie in
    [-1, 1]; room (B, K, 3) float: x, y and scale of the space each bird has (0, 0, 1 for one bird); camera (B, 2) float: the
    point that the picture's centre looks at, in half picture widths (0, 0 unless moved).
    """

    background: Tensor
    ground: Tensor
    shape: Tensor
    texture: Tensor
    pose: Tensor
    room: Tensor
    camera: Tensor


def sample_scene(
    seed: int, indices: Tensor | Sequence[int], *, tied: bool = True, correlation: float = 0.0, n_birds: int = 1
) -> Scene:
    """Draw the scenes of a data set: row i depends on (seed, indices[i]) only.

    tied: each shape wears its own four textures. correlation: probability that the background is the texture's favourite
    (texture modulo 10) and not any. n_birds: birds a picture, 1 to 4, each in its own quarter if more than one.
    """
    if not 0 <= correlation <= 1:
        raise ValueError(f"correlation must lie in [0, 1], got {correlation}")
    if not 1 <= n_birds <= 4:
        raise ValueError(f"n_birds must be 1 to 4, got {n_birds}")
    indices = torch.as_tensor(indices, dtype=torch.int64)
    if indices.numel() and indices.min() < 0:
        raise IndexError(f"indices must not be negative, got {int(indices.min())}")
    ground = uniform(seed, indices, 7)
    bird = torch.stack([uniform(seed + 7919 * (k + 1), indices, 9) for k in range(n_birds)], 1)  # (B, K, 9)
    shape = (bird[..., 0] * len(SHAPES)).long()
    own = TEXTURES_PER_SHAPE * shape + (bird[..., 1] * TEXTURES_PER_SHAPE).long()
    texture = own if tied else (bird[..., 1] * len(TEXTURES)).long()
    favourite = texture[:, 0] % len(BACKGROUNDS)
    background = torch.where(ground[:, 0] < correlation, favourite, (ground[:, 1] * len(BACKGROUNDS)).long())
    pose = 2 * bird[..., 2:] - 1
    pose[..., 0] = (pose[..., 0] > 0).float()
    camera = torch.zeros(len(indices), 2)
    return Scene(background, ground[:, 2:6], shape, texture, pose, _rooms(n_birds, ground[:, 6]), camera)


def _rooms(n_birds: int, turn: Tensor) -> Tensor:
    if n_birds == 1:
        return torch.tensor([[[0.0, 0.0, 1.0]]]).expand(len(turn), -1, -1).to(turn)
    quarters = torch.tensor([[-0.48, -0.48], [0.48, 0.48], [0.48, -0.48], [-0.48, 0.48]]).to(turn)[:n_birds]
    mirror = torch.where(turn[:, None, None] < 0.5, torch.tensor([-1.0, 1.0]).to(turn), torch.ones(2).to(turn))
    return torch.cat([quarters * mirror, torch.full((len(turn), n_birds, 1), 0.55).to(turn)], -1)


def clip(scene: Scene, frames: int, *, hops: int = 2, reach: float = 0.8) -> Scene:
    """A film of one bird: it hops forth and back, leans, nods and flaps, and turns around at both ends of its way.

    scene: one picture of one bird. Returns `frames` scenes that differ in pose (frames, 1, 7) only: x, y, rotation, head and
    wing move as sines of the frame's number over `frames`, so that frame `frames` would be frame 0 again; flip changes at the
    top of a hop, in the middle and at the end; scale stays. hops: hops each way. reach in [0, 1]: how much of its range a
    movement takes; the rest is the scene's own pose.
    """
    if tuple(scene.shape.shape) != (1, 1):
        raise ValueError(f"scene must be one picture of one bird, got {len(scene)} with {scene.shape.shape[1]}")
    if frames < 2:
        raise ValueError(f"frames must be at least 2, got {frames}")
    if hops < 1:
        raise ValueError(f"hops must be at least 1, got {hops}")
    if not 0 <= reach <= 1:
        raise ValueError(f"reach must lie in [0, 1], got {reach}")
    own = scene.pose[0, 0]
    number = torch.arange(frames, device=own.device)
    way = 2 * math.pi * number / frames  # once forth and back
    hop = 2 * hops * way  # 0 at the top of a hop
    ahead = 1 - 2 * own[0]  # 1 where the clip starts to the right
    flip = (own[0] + (2 * number >= frames)) % 2
    facing = 1 - 2 * flip
    pose = own.repeat(frames, 1)
    pose[:, 0] = flip
    movements = {
        "x": -ahead * way.cos(),
        "y": -hop.cos(),
        "rotation": 0.6 * facing * hop.sin(),  # beak up on the way up, down on the way down
        "head": -(hop - 0.8).cos(),  # lowest a little after landing
        "wing": -hop.sin(),  # raised on the way up
    }
    for name, movement in movements.items():
        i = POSE.index(name)
        pose[:, i] = (1 - reach) * own[i] + reach * movement
    return scene[[0] * frames].replace(pose=pose[:, None])


def render(scene: Scene, size: int = 64, *, style: Style = "paper") -> dict[str, Tensor]:
    """Draw scenes; returns a batch (see `PaperBirds`). The same scene is the same picture at every size from 32 to 256.

    style: "paper"; "sketch", pencil lines on white paper; "cartoon", flat colours and dark outlines on the background's ground
    colour. Only the image depends on it: everything that is drawn lies inside the mask, whose outlines all styles share.
    """
    if style not in STYLES:
        raise ValueError(f"style must be one of {STYLES}, got {style!r}")
    if not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(f"size must lie in {SIZES}, got {size}")
    for name, n in (("background", len(BACKGROUNDS)), ("shape", len(SHAPES)), ("texture", len(TEXTURES))):
        value = getattr(scene, name)
        if value.numel() and not (int(value.min()) >= 0 and int(value.max()) < n):
            raise ValueError(f"{name} must lie in 0 … {n - 1}, got {int(value.min())} … {int(value.max())}")
    flip, others = scene.pose[..., 0], scene.pose[..., 1:]
    if not ((flip == 0) | (flip == 1)).all():
        raise ValueError(f"pose: flip must be 0 or 1, got {float(flip.min()):g} … {float(flip.max()):g}")
    if not (others.abs() <= 1).all():  # NaN fails too
        low, high = float(others.min()), float(others.max())
        raise ValueError(f"pose: all but flip must lie in [-1, 1], got {low:g} … {high:g}")
    lay_out, colour = {"paper": (_background, _papers), "sketch": (_blank, _pencil), "cartoon": (_plain, _flat)}[style]
    picture = lay_out(scene, size)
    n_birds = scene.shape.shape[1]
    mask = torch.zeros_like(picture[:, :1])
    keypoints, covers = [], []
    for k in range(n_birds):
        picture, cover, points = _paste_bird(picture, scene, k, colour)
        mask = mask + cover - mask * cover
        keypoints.append(points)
        covers.append(cover)
    keypoints = torch.stack(keypoints, 1)  # (B, K, 10, 2)
    visible = ((keypoints >= 0) & (keypoints < size)).all(-1)
    for front in range(1, n_birds):  # a later bird hides what lies behind it
        at = (keypoints[:, :front].flatten(1, 2) / size * 2 - 1)[:, :, None]
        hidden = torch.nn.functional.grid_sample(covers[front], at, align_corners=False)[:, 0, :, 0] > 0.5
        visible[:, :front] &= ~hidden.unflatten(1, (front, -1))
    batch = {
        "image": picture * 2 - 1,
        "mask": tv_tensors.Mask(mask),
        "box": tv_tensors.BoundingBoxes(_boxes(mask), format="XYXY", canvas_size=(size, size)),
        "keypoints": keypoints,
        "visible": visible,
        "background": scene.background,
        "shape": scene.shape,
        "texture": scene.texture,
        "pose": scene.pose,
    }
    if n_birds == 1:
        batch |= {name: batch[name][:, 0] for name in ("keypoints", "visible", "shape", "texture", "pose")}
    batch["keypoints"] = tv_tensors.KeyPoints(batch["keypoints"], canvas_size=(size, size))
    return batch


class PaperBirds(BatchedDataset):
    """A data set of rendered birds; picture i depends on (seed, i) and on nothing else.

    An item is a dict; a batch has the same names with a leading axis B: image (3, size, size) float in [-1, 1]; mask (1, size,
    size) float in [0, 1], the exact alpha of the composition; box (4,), x1 y1 x2 y2 in pixels, in a single item (1, 4);
    keypoints (10, 2) float, x y in pixels, in the order of `KEYPOINTS`; these three are tv_tensors, so that torchvision's v2
    transforms move them with the picture (but its flips take keypoints for numbers of pixels, and put them one pixel too far to
    the left, or up: they are places, 0 … size); visible (10,) bool: in the picture and not behind another bird; background,
    shape, texture int64; pose (7,) float as in `Scene`. With n_birds > 1 the box and mask hold all birds, and keypoints,
    visible, shape, texture and pose have an axis of birds in front.

    wander: adds `scene` and `scene_box`, another window on the same scene, its centre moved by up to `wander` half widths each
    way: what the published random crop of the whole photograph is to a background critic.
    """

    def __init__(
        self,
        size: int = 64,
        length: int = 20_000,
        seed: int = 0,
        tied: bool = True,
        correlation: float = 0.0,
        n_birds: int = 1,
        wander: float | None = None,
        device: str = "cpu",
    ):
        if wander is not None and not 0 <= wander <= 1:
            raise ValueError(f"wander must lie in [0, 1], got {wander}")
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        self.size, self.length, self.seed, self.wander, self.device = size, length, seed, wander, device
        self.tied, self.correlation, self.n_birds = tied, correlation, n_birds
        self.batch([0])  # a wrong size or option fails here, not in the middle of a run

    def __len__(self) -> int:
        return self.length

    def scenes(self, indices: Sequence[int]) -> Scene:
        """The factors of the pictures `indices`."""
        indices = torch.as_tensor(list(indices), dtype=torch.int64)
        if indices.numel() and int(indices.max()) >= self.length:
            raise IndexError(f"picture {int(indices.max())} of a set of {self.length}")
        scene = sample_scene(self.seed, indices, tied=self.tied, correlation=self.correlation, n_birds=self.n_birds)
        return scene.to(self.device)

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Render the pictures `indices` together."""
        scenes = self.scenes(indices)
        batch = render(scenes, self.size)
        if self.wander is not None:
            away = uniform(self.seed + 15485863, torch.as_tensor(list(indices), dtype=torch.int64), 2).to(self.device) * 2 - 1
            view = render(scenes.replace(camera=away * self.wander), self.size)
            batch |= {"scene": view["image"], "scene_box": view["box"]}
        return batch


# ---- the background -------------------------------------------------------------------------------------------------------

_TILE = 128  # cells a side of one period of a background


def _background(scene: Scene, size: int) -> Tensor:
    """(B, 3, size, size) in [0, 1]."""
    device = scene.background.device
    tiles, colours = _tiles(device), _colours(_GROUNDS, device)[scene.background]  # (B, 3, 3)
    turn = (scene.ground[:, 2] - 0.5) * 0.5
    zoom = 0.5 * (0.85 + 0.3 * scene.ground[:, 3])
    matrix = rotation(turn) * zoom[:, None, None]
    where = positions(size, matrix, scene.ground[:, :2] * 2 + (matrix @ scene.camera[..., None])[..., 0])
    distance = look_up(tiles, scene.background, ((where % 2) - 1) * (_TILE / (_TILE + 2)))
    cover = _cover(distance, pixel=2 / size * zoom)
    picture = colours[:, 0, :, None, None]
    for layer in range(2):
        picture = torch.lerp(picture, colours[:, layer + 1, :, None, None], cover[:, layer : layer + 1])
    return picture


def _plain(scene: Scene, size: int) -> Tensor:
    """The background's ground colour and nothing on it."""
    ground = _colours(_GROUNDS, scene.background.device)[scene.background][:, 0, :, None, None]
    return ground.expand(-1, -1, size, size)


def _blank(scene: Scene, size: int) -> Tensor:
    """White paper."""
    return torch.ones(len(scene), 3, size, size, device=scene.background.device)


@cache
def _tiles(device) -> Tensor:
    """Signed distances of two layers of cut-outs for every background, (10, 2, S + 2, S + 2), periodic in both directions."""
    at = grid(_TILE, 1.0)
    x, y = at.unbind(-1)
    pi = math.pi

    def scattered(kind, n: int, seed: int, **size) -> Tensor:
        """n copies of a cut-out, spread evenly (best of 24 candidates each) and wrapped around the edges."""
        generator = torch.Generator().manual_seed(seed)
        placed = torch.empty(0, 2, dtype=torch.float64)
        distance = torch.full_like(x, 9.0)
        for _ in range(n):
            options = torch.rand(24, 2, generator=generator, dtype=torch.float64) * 2 - 1
            if len(placed):
                gap = (options[:, None] - placed).abs()
                options = options[torch.minimum(gap, 2 - gap).norm(dim=-1).amin(1).argmax()][None]
            placed = torch.cat([placed, options[:1]])
            angle = float(torch.rand(1, generator=generator)) * 2 * pi
            centre = placed[-1]
            wrapped = (at - centre + 1) % 2 - 1
            distance = torch.minimum(distance, kind(angle, **size)(wrapped))
        return distance

    def one_leaf(angle, length, width):
        return leaf(0, 0, angle, length, width)

    def cloud(angle, size):
        puffs = [(-0.5, 0.1, 0.3), (-0.1, -0.15, 0.42), (0.35, 0.0, 0.36), (0.65, 0.16, 0.22), (0.0, 0.18, 0.3)]
        return union(*(disc(size * u, size * v, size * r) for u, v, r in puffs))

    def star(angle, size):
        return union(*(leaf(0, 0, angle + k * pi / 2, 2 * size, 0.55 * size) for k in range(2)))

    def flower(angle, size):
        return union(
            *(
                disc(
                    0.62 * size * math.cos(angle + k * 0.4 * pi),
                    0.62 * size * math.sin(angle + k * 0.4 * pi),
                    0.44 * size,
                )
                for k in range(5)
            )
        )

    def dot(angle, size):
        return disc(0, 0, size)

    def waves(periods: int, sway: float, sways: int, width: float, along: Tensor, across: Tensor, shift=0.0) -> Tensor:
        phase = (across + sway * torch.sin(pi * sways * along)) * periods + shift
        return ((phase % 2 - 1).abs() - width) / periods

    def cells(n: int, seed: int, gap: float) -> Tensor:
        """Rounded Voronoi cells around n scattered points."""
        generator = torch.Generator().manual_seed(seed)
        line = (torch.arange(n, dtype=torch.float64) + 0.5) / n * 2 - 1
        v, u = torch.meshgrid(line, line, indexing="ij")
        points = torch.stack([u, v], -1) + (torch.rand(n, n, 2, generator=generator, dtype=torch.float64) - 0.5) * 1.3 / n
        gaps = ((at[..., None, :] - points.reshape(-1, 2) + 1) % 2 - 1).norm(dim=-1).topk(2, largest=False).values
        return gap - (gaps[..., 1] - gaps[..., 0])

    def scales(rows: int, width: float) -> Tensor:
        """Arcs of overlapping discs, as roof tiles overlap."""
        step, radius, distance = 2 / rows, 2 / rows, torch.full_like(x, 9.0)
        found = torch.zeros_like(x, dtype=torch.bool)
        for row in range(-1, 3):
            index = torch.floor((y + 1) / step) + row
            v = (y + 1) - index * step
            u = (x + (index % 2) * radius + 1) % (2 * radius) - radius
            r = torch.hypot(u, v)
            inside = (r < radius) & ~found
            ring = torch.minimum((r - 0.80 * radius).abs(), (r - 0.34 * radius).abs()) - width
            distance = torch.where(inside, ring, distance)
            found |= inside
        return distance

    def comb(gap: float) -> Tensor:
        """Hexagons on a period of 6 x 4 sqrt(3) units, squeezed a little to fit the square."""
        root = math.sqrt(3)
        u, v = 3 * x, 2 * root * y
        a = torch.stack([(u + 0.5) % 1 - 0.5, (v + 0.5 * root) % root - 0.5 * root], -1)
        b = torch.stack([u % 1 - 0.5, v % root - 0.5 * root], -1)
        nearer = torch.where((a.norm(dim=-1) < b.norm(dim=-1))[..., None], a, b).abs()
        hexagon = torch.maximum(nearer[..., 0], 0.5 * nearer[..., 0] + 0.5 * root * nearer[..., 1]) - 0.5
        return (hexagon + gap) / 3.2

    layers = [
        (scattered(one_leaf, 16, 1, length=0.62, width=0.26), scattered(one_leaf, 14, 2, length=0.44, width=0.16)),
        (waves(4, 0.06, 2, 0.36, x, y), waves(4, 0.06, 2, 0.12, x, y, 1.0)),
        (waves(4, 0.05, 1, 0.34, y, x), waves(4, 0.05, 1, 0.10, y, x, 1.1)),
        (cells(5, 3, 0.07), cells(5, 3, 0.26)),
        (scattered(cloud, 5, 4, size=0.42), scattered(cloud, 6, 9, size=0.2)),
        (scales(4, 0.035), scales(4, 0.014) + 0.05),
        (scattered(dot, 16, 5, size=0.10), scattered(star, 15, 6, size=0.17)),
        (comb(0.06), comb(0.27)),
        (waves(2, 0.14, 2, 0.42, x, (x + y)), waves(2, 0.14, 2, 0.10, x, (x + y), 1.0)),
        (scattered(flower, 13, 7, size=0.24), scattered(dot, 26, 8, size=0.055)),
    ]  # fmt: skip
    tiles = torch.stack([torch.stack(pair) for pair in layers]).float()
    return sheets(torch.nn.functional.pad(tiles, (1, 1, 1, 1), mode="circular")).to(device)


# ---- the birds ------------------------------------------------------------------------------------------------------------
# Drawn facing right on [-1.2, 1.2]^2, y down. `still` does not move against the body; `head` turns about `neck`, `wing`
# about `joint`.

_FIELD, _EXTENT = 160, 1.3


@dataclass(frozen=True)
class _Bird:
    tail: object
    eyespots: object
    legs: object
    body: object
    beak: object
    head: object
    eye: object
    pupil: object
    wing: object
    neck: tuple[float, float]
    joint: tuple[float, float]
    keypoints: dict[str, tuple[float, float]]


def _feet(*xs: float, top: float, bottom: float):
    return union(
        *(strip([(x, top), (x, bottom)], 0.07) for x in xs),
        *(strip([(x, bottom), (x + 0.14, bottom + 0.01)], 0.07) for x in xs),
    )


def _species() -> tuple[_Bird, ...]:
    nothing = disc(9, 9, 0.01)
    owl = _Bird(
        tail=blob([(-0.3, 0.4), (0.0, 0.6), (-0.22, 1.1), (-0.22, 1.1), (-0.58, 1.0), (-0.58, 1.0)]),
        eyespots=nothing,
        legs=_feet(-0.1, 0.2, top=0.7, bottom=0.95),
        body=blob([(0, -0.4), (0.42, -0.2), (0.54, 0.25), (0.4, 0.68), (0.02, 0.84), (-0.36, 0.68), (-0.5, 0.25),
                   (-0.42, -0.2)]),
        beak=blob([(0.06, -0.42), (0.06, -0.42), (0.26, -0.42), (0.26, -0.42), (0.18, -0.18), (0.18, -0.18)]),
        head=blob([(-0.56, -1.04), (-0.56, -1.04), (-0.22, -0.84), (0.02, -0.86), (0.28, -0.84), (0.6, -1.04),
                   (0.6, -1.04), (0.6, -0.6), (0.48, -0.24), (0.02, -0.1), (-0.44, -0.24), (-0.56, -0.6)]),
        eye=union(disc(-0.12, -0.52, 0.2), disc(0.36, -0.52, 0.2)),
        pupil=union(disc(-0.07, -0.52, 0.1), disc(0.41, -0.52, 0.1)),
        wing=blob([(-0.2, -0.16), (-0.5, -0.06), (-0.66, 0.3), (-0.56, 0.82), (-0.56, 0.82), (-0.26, 0.6), (-0.06, 0.2)]),
        neck=(0.0, -0.3), joint=(-0.26, -0.05),
        keypoints={"beak": (0.18, -0.18), "eye": (0.36, -0.52), "crown": (0.02, -0.86), "nape": (-0.5, -0.4),
                   "breast": (0.46, 0.0), "back": (-0.5, 0.25), "belly": (0.14, 0.8), "tail": (-0.4, 1.05),
                   "shoulder": (-0.3, -0.1), "wing": (-0.56, 0.82)},
    )  # fmt: skip
    flamingo = _Bird(
        tail=blob([(-0.95, 0.3), (-0.95, 0.3), (-0.7, -0.02), (-0.35, -0.1), (-0.4, 0.3)]),
        eyespots=nothing,
        legs=union(strip([(-0.12, 0.2), (-0.16, 0.66), (-0.1, 1.1)], 0.075), strip([(-0.1, 1.1), (0.08, 1.12)], 0.075),
                   strip([(0.1, 0.2), (0.34, 0.58), (0.06, 0.74)], 0.075)),
        body=blob([(-0.78, 0.14), (-0.5, -0.16), (-0.1, -0.24), (0.28, -0.12), (0.38, 0.08), (0.2, 0.3), (-0.15, 0.38),
                   (-0.5, 0.32)]),
        beak=blob([(0.56, -1.02), (0.8, -0.96), (0.92, -0.66), (0.92, -0.66), (0.74, -0.72), (0.56, -0.82)]),
        head=union(strip([tuple(p) for p in smooth([(0.16, 0.1), (0.42, 0.02), (0.58, -0.2), (0.5, -0.42), (0.3, -0.58),
                   (0.28, -0.78), (0.48, -0.92)])[:48].tolist()], 0.19), disc(0.5, -0.92, 0.185)),
        eye=disc(0.54, -0.95, 0.075), pupil=disc(0.56, -0.95, 0.04),
        wing=blob([(0.18, -0.1), (-0.2, -0.18), (-0.62, 0.06), (-0.92, 0.42), (-0.92, 0.42), (-0.4, 0.3), (0.04, 0.2)]),
        neck=(0.24, 0.04), joint=(0.02, -0.02),
        keypoints={"beak": (0.92, -0.66), "eye": (0.54, -0.95), "crown": (0.46, -1.1), "nape": (0.2, -0.7),
                   "breast": (0.4, 0.14), "back": (-0.3, -0.22), "belly": (-0.15, 0.38), "tail": (-0.95, 0.3),
                   "shoulder": (0.1, -0.08), "wing": (-0.92, 0.42)},
    )  # fmt: skip
    duck = _Bird(
        tail=blob([(-1.12, -0.2), (-1.12, -0.2), (-0.8, -0.1), (-0.5, 0.1), (-0.56, 0.42), (-0.86, 0.24)]),
        eyespots=nothing,
        legs=_feet(-0.14, 0.2, top=0.5, bottom=0.84),
        body=blob([(-0.92, 0.06), (-0.6, 0.04), (-0.2, -0.06), (0.25, -0.1), (0.6, 0.02), (0.68, 0.28), (0.46, 0.56),
                   (0.0, 0.68), (-0.5, 0.58), (-0.84, 0.32)]),
        beak=blob([(0.72, -0.66), (0.92, -0.56), (1.14, -0.54), (1.16, -0.42), (0.94, -0.36), (0.7, -0.38)]),
        head=blob([(0.16, 0.08), (0.3, -0.16), (0.24, -0.44), (0.28, -0.7), (0.5, -0.86), (0.74, -0.8), (0.86, -0.58),
                   (0.8, -0.36), (0.66, -0.2), (0.68, 0.06), (0.5, 0.26), (0.3, 0.24)]),
        eye=disc(0.6, -0.6, 0.1), pupil=disc(0.63, -0.6, 0.055),
        wing=blob([(0.3, 0.06), (-0.05, 0.0), (-0.4, 0.06), (-0.86, 0.0), (-0.86, 0.0), (-0.6, 0.32), (-0.15, 0.48),
                   (0.2, 0.36)]),
        neck=(0.42, 0.02), joint=(0.16, 0.18),
        keypoints={"beak": (1.16, -0.46), "eye": (0.6, -0.6), "crown": (0.54, -0.86), "nape": (0.24, -0.4),
                   "breast": (0.68, 0.28), "back": (-0.3, -0.03), "belly": (0.0, 0.68), "tail": (-1.12, -0.2),
                   "shoulder": (0.24, 0.1), "wing": (-0.86, 0.0)},
    )  # fmt: skip
    toucan = _Bird(
        tail=blob([(-0.12, 0.42), (-0.42, 0.3), (-0.86, 1.0), (-0.86, 1.0), (-0.58, 1.12), (-0.58, 1.12)]),
        eyespots=nothing,
        legs=_feet(-0.02, 0.18, top=0.5, bottom=0.8),
        body=blob([(0.06, -0.5), (0.3, -0.2), (0.38, 0.2), (0.18, 0.58), (-0.18, 0.7), (-0.44, 0.44), (-0.42, 0.02),
                   (-0.22, -0.36)]),
        beak=blob([(0.2, -0.84), (0.62, -0.88), (1.0, -0.66), (1.16, -0.24), (1.16, -0.24), (0.92, -0.36), (0.6, -0.4),
                   (0.24, -0.34)]),
        head=blob([(0.02, -0.98), (0.28, -0.86), (0.4, -0.6), (0.32, -0.3), (0.16, -0.12), (-0.14, -0.16), (-0.3, -0.44),
                   (-0.24, -0.8)]),
        eye=disc(0.12, -0.64, 0.13), pupil=disc(0.15, -0.64, 0.065),
        wing=blob([(0.02, -0.22), (-0.3, -0.16), (-0.52, 0.2), (-0.56, 0.84), (-0.56, 0.84), (-0.22, 0.6), (0.06, 0.24)]),
        neck=(0.02, -0.3), joint=(-0.14, -0.06),
        keypoints={"beak": (1.16, -0.24), "eye": (0.12, -0.64), "crown": (0.02, -0.98), "nape": (-0.3, -0.44),
                   "breast": (0.36, 0.1), "back": (-0.44, 0.1), "belly": (0.04, 0.66), "tail": (-0.72, 1.06),
                   "shoulder": (-0.1, -0.16), "wing": (-0.56, 0.84)},
    )  # fmt: skip
    spokes = [math.radians(a) for a in range(180, 361, 20)]
    fan = [leaf(-0.1 + 0.5 * math.cos(a), 0.3 + 0.54 * math.sin(a), a, 1.15, 0.4) for a in spokes]
    peacock = _Bird(
        tail=union(*fan, *(disc(-0.1 + 0.84 * math.cos(a), 0.3 + 0.9 * math.sin(a), 0.16) for a in spokes),
                   disc(-0.1, 0.3, 0.5)),
        eyespots=union(*(disc(-0.1 + 0.82 * math.cos(a), 0.3 + 0.88 * math.sin(a), 0.1) for a in spokes)),
        legs=_feet(-0.08, 0.16, top=0.7, bottom=1.02),
        body=blob([(0.1, -0.1), (0.36, 0.14), (0.4, 0.46), (0.2, 0.78), (-0.14, 0.82), (-0.36, 0.54), (-0.3, 0.18)]),
        beak=blob([(0.4, -0.52), (0.4, -0.52), (0.68, -0.38), (0.68, -0.38), (0.4, -0.3), (0.4, -0.3)]),
        head=union(strip([(0.1, 0.22), (0.16, -0.1), (0.24, -0.36)], 0.3), disc(0.27, -0.42, 0.2),
                   *(strip([(0.25, -0.5), (u, -0.78)], 0.05) for u in (0.1, 0.24, 0.38)),
                   *(disc(u, -0.8, 0.075) for u in (0.08, 0.24, 0.4))),
        eye=disc(0.33, -0.45, 0.085), pupil=disc(0.35, -0.45, 0.045),
        wing=blob([(0.1, 0.1), (-0.18, 0.12), (-0.42, 0.4), (-0.56, 0.86), (-0.56, 0.86), (-0.16, 0.68), (0.08, 0.4)]),
        neck=(0.1, 0.16), joint=(-0.02, 0.24),
        keypoints={"beak": (0.68, -0.38), "eye": (0.33, -0.45), "crown": (0.24, -0.84), "nape": (0.04, -0.3),
                   "breast": (0.4, 0.34), "back": (-0.36, 0.4), "belly": (0.1, 0.82), "tail": (-0.1, -0.75),
                   "shoulder": (0.0, 0.16), "wing": (-0.56, 0.86)},
    )  # fmt: skip
    swallow = _Bird(
        tail=union(blob([(-0.3, 0.0), (-1.18, -0.06), (-1.18, -0.06), (-0.7, 0.2), (-1.02, 0.62), (-1.02, 0.62),
                         (-0.3, 0.3)]),
                   blob([(0.3, 0.14), (0.14, 0.6), (-0.3, 1.04), (-0.3, 1.04), (-0.3, 0.6), (-0.12, 0.2)])),
        eyespots=nothing,
        legs=nothing,
        body=blob([(0.66, -0.1), (0.4, -0.24), (0.0, -0.16), (-0.4, 0.04), (-0.64, 0.18), (-0.3, 0.3), (0.14, 0.3),
                   (0.5, 0.18)]),
        beak=blob([(0.78, -0.26), (0.78, -0.26), (1.1, -0.04), (1.1, -0.04), (0.78, 0.04), (0.78, 0.04)]),
        head=blob([(0.66, -0.38), (0.88, -0.24), (0.9, -0.02), (0.7, 0.14), (0.4, 0.14), (0.32, -0.12), (0.44, -0.32)]),
        eye=disc(0.7, -0.15, 0.09), pupil=disc(0.725, -0.15, 0.048),
        wing=blob([(0.34, 0.0), (0.3, -0.5), (-0.06, -0.92), (-0.62, -1.12), (-0.62, -1.12), (-0.44, -0.66),
                   (-0.24, -0.3), (-0.1, 0.1), (0.16, 0.14)]),
        neck=(0.48, -0.04), joint=(0.12, -0.02),
        keypoints={"beak": (1.1, -0.04), "eye": (0.7, -0.15), "crown": (0.66, -0.38), "nape": (0.38, -0.24),
                   "breast": (0.56, 0.16), "back": (-0.3, 0.0), "belly": (0.0, 0.3), "tail": (-1.1, 0.26),
                   "shoulder": (0.26, -0.1), "wing": (-0.62, -1.12)},
    )  # fmt: skip
    return owl, flamingo, duck, toucan, peacock, swallow


_PARTS = {"still": ("tail", "eyespots", "legs", "body"), "head": ("beak", "head", "eye", "pupil"), "wing": ("wing",)}
_LAYERS = tuple(part for parts in _PARTS.values() for part in parts)  # as they lie upon each other, the lowest first


@cache
def _birds(device) -> dict[str, Tensor]:
    """Fields and joints of all species: still, head (6, 4, S, S) and wing (6, 1, S, S), which hold their `_PARTS`; marks
    (4, 1, S, S); neck, joint (6, 2); keypoints (6, 10, 2)."""
    at = grid(_FIELD, _EXTENT)
    birds = _species()

    def stack(*parts: str) -> Tensor:
        return sheets(torch.stack([torch.stack([getattr(bird, part)(at) for part in parts]) for bird in birds]).float())

    keypoints = [[bird.keypoints[name] for name in KEYPOINTS] for bird in birds]
    table = {
        **{group: stack(*parts) for group, parts in _PARTS.items()},
        "marks": _marks(at).float()[:, None],
        "neck": torch.tensor([bird.neck for bird in birds]),
        "joint": torch.tensor([bird.joint for bird in birds]),
        "keypoints": torch.tensor(keypoints),
    }
    return {name: value.to(device) for name, value in table.items()}


def _marks(at: Tensor) -> Tensor:
    """Signed distances of the marks on a bird's body: bib, stripes, spots, feathers."""
    x, y = at.unbind(-1)
    bib = 0.24 - y + 0.25 * (0.1 - x)
    stripes = ((x / 0.15 + 0.35 * torch.sin(3 * y)) % 2 - 1).abs() * 0.15 - 0.075
    row = torch.floor(y / 0.2)
    spots = torch.hypot((x + 0.13 * (row % 2)) % 0.26 - 0.13, y % 0.2 - 0.1) - 0.07
    feathers = ((y / 0.14 + (x / 0.16 % 2 - 1).abs()) % 2 - 1).abs() * 0.1 - 0.05
    return torch.stack([bib, stripes, spots, feathers])


@dataclass(frozen=True)
class _Laid:
    """One bird of every scene in its place, not coloured yet.

    distance, cover: signed distance in the bird's own units, and coverage, of each part, (B, 1, H, W); at (B, H, W, 2): where
    the pixels lie in the fields of the body; pixel (B,): their width in those units; scale, texture (B,).
    """

    distance: dict[str, Tensor]
    cover: dict[str, Tensor]
    at: Tensor
    pixel: Tensor
    scale: Tensor
    texture: Tensor


def _paste_bird(
    picture: Tensor, scene: Scene, k: int, colour: Callable[[_Laid], dict[str, Tensor]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Paste bird k of every scene: the picture, the bird's coverage (B, 1, H, W), its keypoints in pixels (B, 10, 2)."""
    laid, points = _lay_bird(scene, k, picture.shape[-1])
    cover, colours = laid.cover, colour(laid)
    bird = colours["tail"]
    for part in _LAYERS[1:]:  # the legs stand behind the tail
        bird = torch.lerp(bird, colours[part], cover[part] * (1 - cover["tail"]) if part == "legs" else cover[part])
    bare = 1 - cover["tail"]
    for part in ("legs", "body", "beak", "head", "wing"):
        bare = bare * (1 - cover[part])
    return torch.lerp(picture, bird, 1 - bare), 1 - bare, points


def _lay_bird(scene: Scene, k: int, size: int) -> tuple[_Laid, Tensor]:
    """Bird k of every scene in its pose, and its keypoints in pixels (B, 10, 2)."""
    table, shape = _birds(scene.pose.device), scene.shape[:, k]
    flip, x, y, scale, turn, head, wing = scene.pose[:, k].unbind(-1)
    room = scene.room[:, k]
    scale = (0.5 * (SMALLEST + LARGEST) + 0.5 * (LARGEST - SMALLEST) * scale) * room[:, 2]
    centre = torch.stack([x, y], -1) * SHIFT * room[:, 2:] + room[:, :2] - scene.camera

    # From the bird's own coordinates to the picture and back.
    mirror = torch.diag_embed(torch.stack([1 - 2 * flip, torch.ones_like(flip)], -1))
    out = rotation(turn * math.radians(ROTATION)) @ mirror * scale[:, None, None]
    back = torch.linalg.inv(out)
    still = (back, -(back @ centre[..., None])[..., 0])
    turns = {
        "head": (rotation(head * math.radians(HEAD)), table["neck"][shape]),
        "wing": (rotation(wing * math.radians(WING)), table["joint"][shape]),
    }
    frames = {"still": still}
    for part, (spin, pivot) in turns.items():  # undo the joint: q = spin^-1 (p - pivot) + pivot
        undo = spin.transpose(1, 2)
        frames[part] = (undo @ back, (undo @ (still[1] - pivot)[..., None])[..., 0] + pivot)
    where = {part: positions(size, matrix, offset) / _EXTENT for part, (matrix, offset) in frames.items()}

    pixel = 2 / size / scale
    distance, cover = {}, {}
    for group, parts in _PARTS.items():
        field = look_up(table[group], shape, where[group])
        # Outside the field `look_up` gives what is at its edge: in a small picture perhaps less than a pixel from the bird.
        field = field + _EXTENT * (where[group] - where[group].clamp(-1, 1)).norm(dim=-1)[:, None]
        distance |= zip(parts, field.split(1, 1), strict=True)
        cover |= zip(parts, _cover(field, pixel).split(1, 1), strict=True)

    points = table["keypoints"][shape].clone()
    for part, names in (("head", ("beak", "eye", "crown", "nape")), ("wing", ("wing",))):
        spin, pivot = turns[part]
        rows = [KEYPOINTS.index(name) for name in names]
        points[:, rows] = (points[:, rows] - pivot[:, None]) @ spin.transpose(1, 2) + pivot[:, None]
    points = points @ out.transpose(1, 2) + centre[:, None]
    return _Laid(distance, cover, where["still"], pixel, scale, scene.texture[:, k]), (points + 1) / 2 * size


# ---- the styles: what a bird's parts are coloured with -----------------------------------------------------------------------


def _papers(bird: _Laid) -> dict[str, Tensor]:
    """Each part's own paper, the body's with marks and the wing's shadow on it."""
    papers = _plumage(bird.texture)
    shade = 0.22 * (1 - bird.distance["wing"] / 0.09).clamp(0, 1)
    marks = _cover(look_up(_birds(bird.at.device)["marks"], bird.texture % len(MARKS), bird.at), bird.pixel)
    return papers | {"body": torch.lerp(papers["body"], papers["eyespots"], marks) * (1 - shade)}


def _pencil(bird: _Laid) -> dict[str, Tensor]:
    """White paper with a pencil line around every part; legs, which are lines, and pupils are pencil all over."""
    graphite, white = _paint("graphite", bird.at.device), _paint("white", bird.at.device)
    return _outlined(bird, dict.fromkeys(_LAYERS, white) | dict.fromkeys(("legs", "pupil"), graphite), graphite, width=0.026)


def _flat(bird: _Laid) -> dict[str, Tensor]:
    """Each part's own colour with a dark outline; eyes and eyespots, which it would fill, go without."""
    colours = _plumage(bird.texture)
    outlined = _outlined(bird, colours, _paint("outline", bird.at.device), width=0.038)
    return outlined | {part: colours[part] for part in ("eye", "pupil", "eyespots")}


def _outlined(bird: _Laid, colours: dict[str, Tensor], line: Tensor, width: float) -> dict[str, Tensor]:
    """Colours with a line inside the edge of every part, `width` half picture widths wide and at least a pixel."""
    width = torch.maximum(width / bird.scale, bird.pixel)[:, None, None, None]
    return {part: torch.lerp(line, colours[part], _cover(bird.distance[part] + width, bird.pixel)) for part in _LAYERS}


def _plumage(texture: Tensor) -> dict[str, Tensor]:
    """The colours of a bird's parts in its textures (B,), each (B, 3, 1, 1) or (3, 1, 1)."""
    papers = _colours(tuple(tuple(PAPER[name] for name in papers) for papers in _PAPERS), texture.device)[texture]
    body, mark, wing, accent = (papers[:, i, :, None, None] for i in range(4))
    horn, ink, white = (_paint(name, texture.device) for name in ("orange", "ink", "white"))
    return {"tail": accent, "eyespots": mark, "legs": horn, "body": body, "beak": horn, "head": accent, "eye": white,
            "pupil": ink, "wing": wing}  # fmt: skip


# ---- helpers --------------------------------------------------------------------------------------------------------------


def _cover(distance: Tensor, pixel: Tensor) -> Tensor:
    """The share of a pixel a cut-out covers, from signed distances (B, C, H, W) and pixel widths (B,) in one unit."""
    return (0.5 - distance / pixel[:, None, None, None]).clamp(0, 1)


def _boxes(mask: Tensor) -> Tensor:
    """x1, y1, x2, y2 in pixels around what is more than half covered, (B, 4); zeros where nothing is."""
    solid = mask[:, 0] > 0.5
    edges = []
    for line in (solid.any(1), solid.any(2)):  # columns, rows
        line = line.float()
        edges.append((line.argmax(1), line.shape[1] - line.flip(1).argmax(1)))
    (x1, x2), (y1, y2) = edges
    return torch.stack([x1, y1, x2, y2], 1).float() * solid.any((1, 2))[:, None]


def _paint(name: str, device) -> Tensor:
    """A colour of `PAPER` or of the lines, (3, 1, 1) in [0, 1]."""
    return _colours((((PAPER | _LINES)[name],),), device)[0, 0][:, None, None]


@cache
def _colours(table: tuple[tuple[str, ...], ...], device) -> Tensor:
    """Hex colours as floats in [0, 1], (rows, columns, 3)."""
    rgb = [[[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in row] for row in table]
    return torch.tensor(rgb, device=device)
