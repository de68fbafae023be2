"""Draw data/results/readme.png: every bird of the left column in every plumage and background of the top row.

    .venv/bin/python scripts/readme_picture.py

FineGAN mixes if its checkpoint is shipped, otherwise the renderer does.
"""

import torch
from torch import Tensor

from tutorial_lib.data.birds import PaperBirds, render
from tutorial_lib.plots.grids import image_grid
from tutorial_lib.training import checkpoints

PATH = checkpoints.REPOSITORY / "data" / "results" / "readme.png"
DRESSES, BIRDS = 8, 5


def by_renderer(seed: int = 8) -> tuple[Tensor, Tensor, Tensor]:
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
    row, column = pairs()
    mixed = birds[row].mix(texture=dresses[column], background=dresses[column])
    return tuple(model.generate(codes).image for codes in (dresses, birds, mixed))


def pairs() -> tuple[Tensor, Tensor]:
    """Row and column of every entry of the table."""
    return tuple(torch.cartesian_prod(torch.arange(BIRDS), torch.arange(DRESSES)).unbind(1))


def main() -> None:
    dresses, birds, mixed = by_finegan() if "finegan" in checkpoints.shipped() else by_renderer()
    corner = torch.ones_like(birds[:1])
    table = torch.cat([birds[:, None], mixed.unflatten(0, (BIRDS, DRESSES))], 1)
    picture = image_grid([torch.cat([corner, dresses]), *table], cell=0.9)
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_bytes(picture.png())
    print(f"Wrote {PATH.relative_to(checkpoints.REPOSITORY)}")


if __name__ == "__main__":
    main()
