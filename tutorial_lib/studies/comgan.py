"""What ComGAN's paper claims, measured on PaperBirds: where mask gradients vanish, and segmentation without a label.

    python -m tutorial_lib evaluate comgan       # the shipped DS-ComGAN and its segmenter, and the stored runs of `ablate`
    python -m tutorial_lib ablate comgan         # the three families from three seeds; DS-ComGAN with one thing taken away;
                                                 # a supervised U-Net to compare with

Which side of a mask is the object nobody has told these models: masks are scored as they are or all complemented, one choice
for the whole set (`iou`); the published code chooses for each picture (`iou.per_image`), which flatters.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.data.birds import POSE, PaperBirds
from tutorial_lib.data.pictures import save_sheet
from tutorial_lib.layers import UNet, seeded, update
from tutorial_lib.methods.comgan import FAMILIES, ComGAN, Composition, DSComGAN, Segmenter, is_trivial, mask_watch
from tutorial_lib.metrics.control import ControlMatrix, control_matrix
from tutorial_lib.metrics.generation import extract, fid, inception_score
from tutorial_lib.metrics.oracle import Oracle
from tutorial_lib.metrics.segmentation import best_of_complement, dice, iou
from tutorial_lib.studies.finegan import (
    Generated,
    beside_bars,
    explained_pose,
    generate_and_read,
    generated_features,
)
from tutorial_lib.studies.oracle import HELD_OUT
from tutorial_lib.training.checkpoints import load, results
from tutorial_lib.training.loop import averaged_weights, train
from tutorial_lib.training.presets import PRESETS, build

SHIPPED = "ds_comgan_segmenter"  # the checkpoint that `evaluate comgan` measures: generator and segmenter

BARS = {
    "iou": (">=", 0.80), "dice": (">=", 0.88), "several.iou": (">=", 0.70), "several.dice": (">=", 0.80),
}  # fmt: skip

# IoU and Dice: birds, dogs, cars, flowers, CLEVR6. Photographs, but for CLEVR6.
PAPER_SEGMENTATION = {
    "GrabCut": ("30.2 / 42.7", "58.3 / 70.9", "61.3 / 73.1", "69.2 / 79.1", "19.0 / 30.5"),
    "ReDO": ("46.5 / 60.2", "55.7 / 70.3", "52.5 / 68.6", "76.4 / –", "18.6 / 31.0"),
    "OneGAN": ("55.5 / 69.2", "71.0 / 81.7", "71.2 / 82.6", "", ""),
    "DRC": ("56.4 / 70.9", "71.7 / 83.2", "72.4 / 83.7", "", "84.7 / 91.5"),
    "DS-ComGAN": ("60.7 / 71.3", "74.5 / 84.6", "76.7 / 86.6", "76.9 / 83.1", "90.0 / 94.6"),
}
# FID and IS, on ComGAN's protocol: birds, dogs, cars.
PAPER_PICTURES = {
    "FineGAN": ("46.68 / 4.62", "69.52 / 8.27", "45.72 / 2.85"),
    "MixNMatch": ("45.59 / 4.78", "68.31 / 8.32", "45.94 / 2.60"),
    "DS-ComGAN": ("16.26 / 4.79", "60.84 / 9.17", "34.17 / 2.84"),
}

# ---- pictures, control and masks of the shipped model ---------------------------------------------------------------------


def layer_control(generated: Generated) -> ControlMatrix:
    """Rows f, b, z; columns texture, shape, background, pose (the continuous components)."""
    labels, codes = generated.reading.labels(), generated.codes
    factors = {name: labels[name].numpy() for name in ("texture", "shape", "background")}
    factors["pose"] = generated.reading.pose[:, 1:].numpy()
    return control_matrix({"f": codes.index("f").numpy(), "b": codes.index("b").numpy(), "z": codes.z.numpy()}, factors)


def drawn_figures(model: DSComGAN, oracle: Oracle, samples: int) -> dict[str, float]:
    """What the generator's pictures show: control, pose, and its own masks beside those the oracle sees in them."""
    generated = generate_and_read(model, oracle, samples)
    matrix, pose = layer_control(generated), explained_pose(generated)
    agreement, complement = best_of_complement(generated.masks, generated.reading.mask)
    return {
        "control.background": matrix["b", "background"],
        "control.foreground": max(matrix["f", "texture"], matrix["f", "shape"]),
        "control.texture": matrix["f", "texture"],
        "control.shape": matrix["f", "shape"],
        "control.leak": max(matrix["f", "background"], matrix["b", "texture"], matrix["b", "shape"]),
        "pose.r2": float(np.mean([pose[name] for name in POSE[1:]])),
        "pose.flip": pose["flip"],
        "drawn.iou": agreement,
        "drawn.complement": float(complement),
        "drawn.trivial": float(is_trivial(generated.masks).float().mean()),
    }


def held_out(size: int, n: int, n_birds: int = 1) -> PaperBirds:
    """Real renders for segmentation that no model has seen."""
    return PaperBirds(size, length=n, seed=HELD_OUT + 13, n_birds=n_birds)


@torch.no_grad()
def masks(segment, birds: PaperBirds) -> tuple[Tensor, Tensor]:
    """Masks (N, 1, H, W) that `segment(images)` finds in all pictures of a set, and the true ones."""
    pairs = [(segment(batch["image"].as_subclass(Tensor)), batch["mask"].as_subclass(Tensor)) for batch in birds.stream(100)]
    found, true = zip(*pairs, strict=True)
    return torch.cat(found), torch.cat(true)


def scores(found: Tensor, true: Tensor) -> dict[str, float]:
    """IoU and Dice with one choice of side for the whole set (complement: 1 if the object is 0), and IoU with the better side
    of each picture."""
    overlap, complement = best_of_complement(found, true)
    return {
        "iou": overlap,
        "dice": dice(1 - found if complement else found, true),
        "complement": float(complement),
        "iou.per_image": best_of_complement(found, true, per_image=True)[0],
    }


def grabcut(images: Tensor, margin: int = 2, rounds: int = 5) -> Tensor:
    """OpenCV's GrabCut, told nothing but that the outermost `margin` pixels are background. Masks (B, 1, H, W), 0 or 1."""
    import cv2

    pictures = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).flip(-1).numpy()  # OpenCV reads BGR
    found = []
    for picture in pictures:
        height, width = picture.shape[:2]
        mask, models = np.zeros((height, width), np.uint8), [np.zeros((1, 65)) for _ in range(2)]
        box = (margin, margin, width - 2 * margin, height - 2 * margin)
        cv2.setRNGSeed(0)
        cv2.grabCut(np.ascontiguousarray(picture), mask, box, *models, rounds, cv2.GC_INIT_WITH_RECT)
        found.append(torch.from_numpy(np.isin(mask, (cv2.GC_FGD, cv2.GC_PR_FGD))))
    return torch.stack(found)[:, None].float()


def evaluate(method: Segmenter, card: dict | None = None, *, samples: int = 5000) -> dict[str, float]:
    """All figures of DS-ComGAN on PaperBirds, by name, with those of the stored runs of `ablate`."""
    oracle, size = load("oracle"), method.config.image_size
    method.eval()
    figures = stored_gradient_figures()
    real = PaperBirds(size, length=samples, seed=HELD_OUT + 2)
    features = extract(lambda x: oracle.read(x).features, (batch["image"] for batch in real.stream(100)))
    for prefix, model in (("", method), ("finegan.", load("finegan")), ("mixnmatch.", load("mixnmatch"))):
        fake, logits = generated_features(model, oracle, samples, tied=True)
        figures |= {f"{prefix}fid": fid(features, fake), f"{prefix}is": inception_score(logits)[0]}
    figures |= drawn_figures(method, oracle, samples)
    one, several = (held_out(size, min(2000, samples), n_birds) for n_birds in (1, 3))
    figures |= scores(*masks(method.segment, one))
    figures["iou.one_look"] = scores(*masks(partial(method.segment, mirrored=False), one))["iou"]
    figures |= {f"several.{name}": value for name, value in scores(*masks(method.segment, several)).items()}
    figures |= {f"grabcut.{name}": value for name, value in scores(*masks(grabcut, one)).items()}
    figures |= stored_figures()
    figures["params"] = sum(p.numel() for p in method.generator.parameters())
    return figures


def table(figures: dict[str, float]) -> str:
    """The figures beside their bars, then beside the paper's."""
    lines = beside_bars(figures, BARS)
    heads = ("birds", "dogs", "cars", "flowers", "CLEVR6")
    for title, rows in (("the paper: IoU / Dice", PAPER_SEGMENTATION), ("the paper: FID / IS", PAPER_PICTURES)):
        lines += ["", f"{title:<24}" + "".join(f"{head:>14}" for head in heads[: len(rows["DS-ComGAN"])])]
        lines += [f"{name:<24}" + "".join(f"{value:>14}" for value in row) for name, row in rows.items()]
    return "\n".join(lines)


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
        return f"{self.family}_beta{self.binary_weight:g}_{self.seed}"

    @property
    def gradient(self) -> float:
        """The median norm of the gradient on a mask over the last tenth of training."""
        values = self.log["grad_mask"]
        return median(values[-max(1, len(values) // 10) :])


# The folder of a set of runs -> what it changes in the preset: nothing; or a discriminator that spectral norm holds back, and
# the rate that goes with it, in the place of R1.
CONDITIONS = {"gradients": {}, "gradients_spectral": {"real_penalty": 0.0, "learning_rate": 4e-4}}
# Weights of the binary regulariser -> what figures by them are called: the published one; a tenth of it; none.
BETAS = {1.0: "", 0.1: "light.", 0.0: "free."}


def watch_families(folder: Path, *, steps: int, seeds: Sequence[int]) -> list[Watched]:
    """Train the three families at 32 x 32, with the binary regulariser from each seed, from the first also with less and none.

    folder: named as one of `CONDITIONS`. Runs of as many steps that are there already are kept. Returns all runs there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = {run.name for run in stored_runs(folder) if run.steps == steps}
    for seed in seeds:
        for binary_weight in BETAS if seed == seeds[0] else (1.0,):
            for family in FAMILIES:
                if Watched(family, binary_weight, seed, steps, 0.0, {}, {}).name not in done:
                    watch(folder, family, seed, steps, {"binary_weight": binary_weight} | CONDITIONS[folder.name])
    return stored_runs(folder)


def watch(folder: Path, family: str, seed: int, steps: int, change: dict[str, Any]) -> Watched:
    """Train one family, and write its log and a sheet of what it drew in the end into `folder`."""
    preset = PRESETS["comgan"]["laptop"]
    torch.manual_seed(seed)
    model = build(replace(preset.method, family=family, **change))
    history = train(model, preset.dataset(), replace(preset.run, steps=steps, seed=seed)).whole()
    with averaged_weights(model, history.averaged):
        final, sheet = final_masks(model)
    names = ("step", *(name for name in WATCHED if name in history.records[0]))
    log = {name: [_short(record[name]) for record in history.records] for name in names}
    run = Watched(family, model.config.binary_weight, seed, steps, round(history.seconds, 1), final, log)
    save_sheet(sheet.flatten(0, 1), folder / f"{run.name}.png", columns=sheet.shape[1])
    (folder / f"{run.name}.json").write_text(json.dumps(vars(run)) + "\n")
    return run


@torch.no_grad()
def final_masks(model: ComGAN, n: int = 1000, seed: int = 0, columns: int = 12) -> tuple[dict[str, float], Tensor]:
    """`mask_watch` over n samples, and a sheet (4, columns, 3, H, W): pictures, F, B and masks, in grey, of the first."""
    random = torch.Generator().manual_seed(seed)
    parts = [model.generate(model.sample_codes(100, generator=random)) for _ in range(n // 100)]
    watches = [mask_watch(part) for part in parts]
    figures = {name: _short(fmean(float(watch[name]) for watch in watches)) for name in watches[0]}
    first = parts[0]
    return figures, layers(first)[:, :columns]


def _short(value: float) -> float:
    return float(f"{float(value):.4g}")


def stored_runs(folder: Path | None = None, *, condition: str = "gradients") -> list[Watched]:
    """The runs in `folder` (left out: those that the course has of a condition), by family, the regulariser first, and seed."""
    folder = results("comgan") / condition if folder is None else folder
    runs = [Watched(**json.loads(path.read_text())) for path in folder.glob("*.json")]
    return sorted(runs, key=lambda run: (list(FAMILIES).index(run.family), -run.binary_weight, run.seed))


def of(runs: list[Watched], family: str, binary_weight: float = 1.0) -> list[Watched]:
    """Those of one family with the binary regulariser of that weight."""
    return [run for run in runs if (run.family, run.binary_weight) == (family, binary_weight)]


def gradient_figures(runs: list[Watched]) -> dict[str, float]:
    """trivial.FAMILY, the share of trivial masks, and gradient.FAMILY, the gradient norm at the end, means over the seeds;
    under `light.` and `free.` with less of the regulariser and without it."""
    figures = {}
    for binary_weight, prefix in BETAS.items():
        for family in FAMILIES:
            if some := of(runs, family, binary_weight):
                figures[f"{prefix}trivial.{family}"] = fmean(run.final["trivial"] for run in some)
                figures[f"{prefix}gradient.{family}"] = fmean(run.gradient for run in some)
    return figures


def stored_gradient_figures() -> dict[str, float]:
    """`gradient_figures` of the stored runs, and of those with spectral norm under `spectral.`."""
    spectral = gradient_figures(stored_runs(condition="gradients_spectral"))
    return gradient_figures(stored_runs()) | {f"spectral.{name}": value for name, value in spectral.items()}


# ---- ablations of DS-ComGAN, and a supervised U-Net -----------------------------------------------------------------------

# name -> what the config changes
ABLATIONS = {
    "the recipe": {},
    "no binary regulariser": {"binary_weight": 0.0},
    "no direct picture": {"direct_image": False},
    "no shared features": {"family": "pi2"},
}


def ablate(
    folder: Path, *, steps: int = 1000, seed: int = 0, seeds: int = 3, ds_steps: int = 400, samples: int = 1000
) -> dict[str, dict[str, float]]:
    """The gradient experiment from `seeds` seeds, DS-ComGAN's ablations for `ds_steps` each, and a supervised U-Net.

    Writes figures.json and sheets into `folder`, and the runs of each condition into a folder of their own in there; what is
    there already, of as many steps, is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for condition in CONDITIONS:
        watch_families(folder / condition, steps=steps, seeds=range(seed, seed + seeds))
    path = folder / "figures.json"
    figures = json.loads(path.read_text()) if path.exists() else {}
    for name, change in ABLATIONS.items():
        if (figures.get(name, {}).get("steps"), figures.get(name, {}).get("seed")) == (ds_steps, seed):
            continue
        preset = PRESETS["ds_comgan"]["first"]
        torch.manual_seed(seed)
        model = build(replace(preset.method, **change))
        history = train(model, preset.dataset(), replace(preset.run, steps=ds_steps, seed=seed)).whole()
        with averaged_weights(model, history.averaged):
            figures[name] = drawn_figures(model, load("oracle"), samples)
            sheet = layer_sheet(model)
        figures[name] |= {"seconds": history.seconds, "steps": ds_steps, "seed": seed}
        save_sheet(sheet.flatten(0, 1), folder / f"{name.replace(' ', '_')}.png", columns=sheet.shape[1])
        path.write_text(json.dumps(figures, indent=2) + "\n")
    if "supervised" not in figures or (figures["supervised"]["steps"], figures["supervised"]["seed"]) != (steps, seed):
        started, preset = time.perf_counter(), PRESETS["ds_comgan_segmenter"]["laptop"]
        network = supervised_unet(preset.method.unet_widths, preset.method.image_size, steps=steps, seed=seed)
        found, true = masks(network, held_out(preset.method.image_size, 2 * samples))
        figures["supervised"] = {"iou": iou(found, true), "dice": dice(found, true), "steps": steps, "seed": seed}
        figures["supervised"]["seconds"] = time.perf_counter() - started
        path.write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def supervised_unet(widths: tuple[int, ...], size: int, *, steps: int, seed: int = 0, batch_size: int = 16) -> nn.Module:
    """S's network trained on the true masks of training pictures, cross entropy: the ceiling."""
    birds = PaperBirds(size, length=steps * batch_size, seed=seed)
    with seeded(seed):
        network = UNet(widths).train()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
        for batch in birds.stream(batch_size):
            loss = F.binary_cross_entropy(network(batch["image"].as_subclass(Tensor)), batch["mask"].as_subclass(Tensor))
            update(optimizer, loss)
            schedule.step()
    return network.eval()


@torch.no_grad()
def layer_sheet(model: DSComGAN, n: int = 12, seed: int = 0) -> Tensor:
    """(4, n, 3, H, W): pictures, foregrounds, backgrounds and masks, in grey, of n untied samples."""
    return layers(model.generate(model.sample_codes(n, tied=False, generator=torch.Generator().manual_seed(seed))))


def layers(drawn: Composition) -> Tensor:
    """(4, B, 3, H, W) in [-1, 1]: pictures, foregrounds, backgrounds, and masks in grey."""
    mask = drawn.mask.expand(-1, 3, -1, -1) * 2 - 1
    return torch.stack([drawn.image, drawn.foreground, drawn.background, mask]).float()


def stored_figures() -> dict[str, float]:
    """supervised.iou and supervised.dice as `ablate` stored them with the course; empty if it has not."""
    path = results("comgan") / "figures.json"
    stored = json.loads(path.read_text()) if path.exists() else {}
    return {f"supervised.{name}": value for name, value in stored.get("supervised", {}).items() if name in ("iou", "dice")}
