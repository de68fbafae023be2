"""Draw the README's pictures: every bird of the left column in every plumage and background of the top row.

    .venv/bin/python scripts/readme_picture.py

true_mixing.png is the true answer, mixed by the renderer; mixnmatch_mixing.png is what the shipped MixNMatch makes of the same
task, from the very same pictures; finegan_mixing.png what the shipped FineGAN makes of it, from codes.
"""

import argparse

import torch
from torch import Tensor

from tutorial_lib.data.birds import PaperBirds, render
from tutorial_lib.plots.grids import image_grid
from tutorial_lib.training import checkpoints

RESULTS = checkpoints.REPOSITORY / "data" / "results"
DRESSES, BIRDS = 8, 5


def by_renderer(seed: int = 286) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures to take texture and background from, to take shape and pose from, and each of these in each of those."""
    scenes = PaperBirds(length=DRESSES + BIRDS, seed=seed).scenes(range(DRESSES + BIRDS))
    dresses, birds = scenes[:DRESSES], scenes[DRESSES:]
    row, column = pairs()
    mixed = dresses[column].replace(shape=birds.shape[row], pose=birds.pose[row])
    return tuple(render(scenes, 128)["image"] for scenes in (dresses, birds, mixed))


@torch.no_grad()
def by_finegan(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """The same, by the shipped model."""
    model = checkpoints.load("finegan")
    codes = model.sample_codes(DRESSES + BIRDS, generator=torch.Generator().manual_seed(seed))
    dresses, birds = codes[:DRESSES], codes[DRESSES:]
    birds.p = torch.eye(model.config.n_parents)[:BIRDS]  # a parent for each row
    row, column = pairs()
    mixed = birds[row].mix(texture=dresses[column], background=dresses[column])
    return tuple(model.generate(codes).image for codes in (dresses, birds, mixed))


@torch.no_grad()
def by_mixnmatch(seed: int = 286) -> tuple[Tensor, Tensor, Tensor]:
    """The same, from the renderer's pictures, in feature mode."""
    model = checkpoints.load("mixnmatch")
    pictures = PaperBirds(length=DRESSES + BIRDS, seed=seed).batch(range(DRESSES + BIRDS))["image"].as_subclass(Tensor)
    dresses, birds = pictures[:DRESSES], pictures[DRESSES:]
    row, column = pairs()
    mixed = model.mix(background=dresses[column], texture=dresses[column], shape=birds[row], mode="feature")
    return dresses, birds, mixed.image


def pairs() -> tuple[Tensor, Tensor]:
    """Row and column of every entry of the table."""
    return tuple(torch.cartesian_prod(torch.arange(BIRDS), torch.arange(DRESSES)).unbind(1))


def draw(name: str, dresses: Tensor, birds: Tensor, mixed: Tensor) -> None:
    """Write one table."""
    corner = torch.ones_like(birds[:1])
    table = torch.cat([birds[:, None], mixed.unflatten(0, (BIRDS, DRESSES))], 1)
    RESULTS.mkdir(parents=True, exist_ok=True)
    image_grid([torch.cat([corner, dresses]), *table], cell=0.75).savefig(RESULTS / name)  # in all its colours
    print(f"Wrote data/results/{name}")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    draw("true_mixing.png", *by_renderer())
    draw("finegan_mixing.png", *by_finegan())
    draw("mixnmatch_mixing.png", *by_mixnmatch())
