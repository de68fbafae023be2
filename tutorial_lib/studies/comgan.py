"""What ComGAN's paper claims, measured on PaperBirds: where mask gradients vanish.

python -m tutorial_lib ablate comgan         # trains the three families, with and without the regulariser, three seeds each
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torchvision.utils import save_image

from tutorial_lib.methods.comgan import FAMILIES, ComGAN, mask_watch
from tutorial_lib.training.checkpoints import folder as checkpoint_folder
from tutorial_lib.training.loop import averaged_weights, train
from tutorial_lib.training.presets import PRESETS, build

# ---- the gradient experiment ----------------------------------------------------------------------------------------------

WATCHED = (
    "d", "g", "grad_mask", "grad_mask_head", "grad_phi", "mask_mean", "mask_spread", "trivial", "difference", "slope", "binary",
)  # fmt: skip


@dataclass(frozen=True)
class Watched:
    """One run of the gradient experiment: which it was, its log by column, and what its masks were in the end."""

    family: str
    binary_weight: float
    seed: int
    steps: int
    seconds: float
    final: dict[str, float]  # trivial, mask_mean, mask_spread, difference, slope: averaged weights, 1,000 samples
    log: dict[str, list[float]]  # `step`, and what `gradient_watch` and `mask_watch` saw at each

    @property
    def name(self) -> str:
        return f"{self.family}_{'regularised' if self.binary_weight else 'free'}_{self.seed}"

    @property
    def gradient(self) -> float:
        """The median norm of the gradient on a mask over the last tenth of training."""
        values = self.log["grad_mask"]
        return median(values[-max(1, len(values) // 10) :])


def ablate(folder: Path, *, steps: int = 1000, seed: int = 0, seeds: int = 3) -> dict[str, dict[str, float]]:
    """Train the three families at 32 x 32, with the binary regulariser and without, from `seeds` seeds onwards from `seed`.

    Writes, for each run, its log and final masks into `folder`; runs of as many steps that are there already are kept. Returns
    what is measured at the end of each run, by name.
    """
    preset = PRESETS["comgan"]["laptop"]
    folder.mkdir(parents=True, exist_ok=True)
    for run in range(seed, seed + seeds):
        for binary_weight in (1.0, 0.0):
            for family in FAMILIES:
                done = {watched.name for watched in stored_runs(folder) if watched.steps == steps}
                empty = Watched(family, binary_weight, run, steps, 0.0, {}, {})
                if empty.name in done:
                    continue
                torch.manual_seed(run)
                model = build(replace(preset.method, family=family, binary_weight=binary_weight))
                history = train(model, preset.dataset(), replace(preset.run, steps=steps, seed=run))
                with averaged_weights(model, history.averaged):
                    final, sheet = final_masks(model)
                names = ("step", *(name for name in WATCHED if name in history.records[0]))
                log = {name: [_short(record[name]) for record in history.records] for name in names}
                watched = replace(empty, seconds=round(history.seconds, 1), final=final, log=log)
                save_image(sheet, folder / f"{watched.name}.png", nrow=sheet.shape[0] // 4, padding=1, pad_value=1)
                (folder / f"{watched.name}.json").write_text(json.dumps(vars(watched)) + "\n")
    return {watched.name: {**watched.final, "gradient": watched.gradient} for watched in stored_runs(folder)}


@torch.no_grad()
def final_masks(model: ComGAN, n: int = 1000, seed: int = 0) -> tuple[dict[str, float], Tensor]:
    """`mask_watch` over n samples, and a sheet (4 * 12, 3, H, W) in [0, 1] of the first: pictures, F, B, masks."""
    random = torch.Generator().manual_seed(seed)
    parts = [model.generate(model.sample_codes(100, generator=random)) for _ in range(n // 100)]
    watches = [mask_watch(part) for part in parts]
    figures = {name: _short(sum(float(watch[name]) for watch in watches) / len(watches)) for name in watches[0]}
    first = parts[0]
    mask = first.mask.expand(-1, 3, -1, -1)
    pictures = [(part + 1) / 2 for part in (first.image, first.foreground, first.background)]
    return figures, torch.cat([part[:12].float() for part in (*pictures, mask)])


def _short(value: float) -> float:
    return float(f"{float(value):.4g}")


def stored_runs(folder: Path | None = None) -> list[Watched]:
    """The runs that `ablate` wrote into `folder` (the course's own if left out), by family, regulariser and seed."""
    folder = checkpoint_folder().parent / "results" / "comgan_ablation" if folder is None else folder
    runs = [Watched(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]
    families = list(FAMILIES)
    return sorted(runs, key=lambda run: (families.index(run.family), -run.binary_weight, run.seed))


def of(runs: list[Watched], family: str, *, regularised: bool) -> Iterator[Watched]:
    """Those of one family with the regulariser, or without."""
    return (run for run in runs if run.family == family and bool(run.binary_weight) == regularised)
