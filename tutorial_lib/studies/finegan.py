"""What FineGAN's paper claims, measured on a checkpoint trained on PaperBirds.

    python -m tutorial_lib evaluate finegan      # the shipped checkpoint
    python -m tutorial_lib ablate finegan        # trains the ablations of notebook 01
Everything is read off pictures by the oracle. Codes are sampled untied, each from its prior, but for FID, KID and the Inception
Score, where they are tied as in the data: untied birds wear plumages no real bird here has.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tutorial_lib.codes import Codes
from tutorial_lib.data.birds import POSE, SHAPES, TEXTURES, PaperBirds
from tutorial_lib.data.pictures import save_sheet
from tutorial_lib.methods.finegan import CodePredictor, FineGAN, child_to_parent, fit_predictor
from tutorial_lib.metrics.clustering import nmi, score_clusters
from tutorial_lib.metrics.control import ControlMatrix, control_matrix, pose_scores
from tutorial_lib.metrics.generation import extract, fid, inception_score, kid
from tutorial_lib.metrics.oracle import Oracle, Reading
from tutorial_lib.metrics.segmentation import iou
from tutorial_lib.studies.oracle import HELD_OUT
from tutorial_lib.training.checkpoints import load
from tutorial_lib.training.loop import averaged_weights, train
from tutorial_lib.training.presets import PRESETS

BARS = {
    "control.background": (">=", 0.8), "control.shape": (">=", 0.8), "control.texture": (">=", 0.8),
    "control.leak": ("<=", 0.15), "pose.r2": (">=", 0.6), "mask.iou": (">=", 0.75),
}  # fmt: skip

# FineGAN's paper: birds, dogs, cars. Other data and another feature network: to compare orderings with, not values.
PAPER = {"fid": (11.25, 25.66, 16.03), "infogan.fid": (13.20, 29.34, 17.63), "is": (52.53, 46.92, 32.62),
         "infogan.is": (47.32, 43.16, 28.62), "nmi": (0.403, 0.233, 0.354), "accuracy": (0.126, 0.079, 0.078)}  # fmt: skip


@dataclass
class Generated:
    """Generated pictures' codes, what the oracle reads off them, and the generator's own masks (N, 1, H, W)."""

    codes: Codes
    reading: Reading
    masks: Tensor


@torch.no_grad()
def generate_and_read(model: FineGAN, oracle: Oracle, n: int, *, tied: bool = False, seed: int = 0) -> Generated:
    """Draw n pictures and read them with the oracle; pictures are not kept."""
    codes = model.sample_codes(n, tied=tied, generator=torch.Generator().manual_seed(seed))
    readings, masks = [], []
    for start in range(0, n, 100):
        stages = model.generate(codes[start : start + 100])
        readings.append(oracle.read(stages.image))
        masks.append(stages.mask)
    fields = Reading.__dataclass_fields__
    reading = Reading(**{name: torch.cat([getattr(part, name) for part in readings]) for name in fields})
    return Generated(codes, reading, torch.cat(masks))


def control(codes: Codes, reading: Reading) -> ControlMatrix:
    """Rows b, p, c, z; columns background, shape, texture, pose (the continuous components)."""
    factors = {name: labels.numpy() for name, labels in reading.labels().items()}
    factors["pose"] = reading.pose[:, 1:].numpy()
    rows = {name: codes.index(name).numpy() for name in "bpc"} | {"z": codes.z.numpy()}
    return control_matrix(rows, factors)


def explained_pose(generated: Generated) -> dict[str, float]:
    """How well z explains each component of the pose: R² on pictures that were not fitted; for flip the accuracy."""
    pose = generated.reading.pose.clone()
    pose[:, 0] = (pose[:, 0] > 0.5).float()
    return pose_scores(generated.codes.z.numpy(), pose.numpy(), POSE)


def cluster(predictor: CodePredictor, samples: int = 2000, seed: int = 0) -> dict[str, float]:
    """k-means on the code predictor's features of held-out real renders: NMI and accuracy for shape and for texture."""
    birds = PaperBirds(predictor.config.image_size, length=samples, seed=HELD_OUT + 1)
    shapes, textures, for_parent, for_child = [], [], [], []
    with torch.no_grad():
        for batch in birds.stream(100):
            _, _, parent, child = predictor(batch["image"])
            for_parent.append(parent)
            for_child.append(child)
            shapes.append(batch["shape"])
            textures.append(batch["texture"])
    figures = {}
    for name, features, classes, n in (
        ("shape", for_parent, shapes, len(SHAPES)),
        ("texture", for_child, textures, len(TEXTURES)),
    ):
        scores = score_clusters(torch.cat(features).numpy(), torch.cat(classes).numpy(), n, seed=seed)
        figures |= {f"nmi.{name}": scores.nmi, f"accuracy.{name}": scores.accuracy}
    return figures


@torch.no_grad()
def sorted_pictures(method: FineGAN, samples: int = 2000) -> dict[str, float]:
    """How far the parents and children that held-out real renders are sorted into agree with shape and texture (NMI).

    Empty for a model that sorts no pictures.
    """
    if method.config.segmenter_widths is None:
        return {}
    birds = PaperBirds(method.config.image_size, length=samples, seed=HELD_OUT + 1)
    children, shapes, textures = [], [], []
    for batch in birds.stream(100):
        _, child = method.sort(batch["image"])
        children.append(child.argmax(1))
        shapes.append(batch["shape"])
        textures.append(batch["texture"])
    child = torch.cat(children)
    parent = child_to_parent(child, method.config.n_parents, method.config.n_children)
    return {
        "sorted.shape": nmi(parent.numpy(), torch.cat(shapes).numpy()),
        "sorted.texture": nmi(child.numpy(), torch.cat(textures).numpy()),
    }


@torch.no_grad()
def generated_features(model: nn.Module, oracle: Oracle, n: int, seed: int = 0, **tied: bool) -> tuple[np.ndarray, np.ndarray]:
    """The oracle's features (n, 128) and texture logits (n, 24) of n generated pictures."""
    random = torch.Generator().manual_seed(seed)
    features, logits = [], []
    for start in range(0, n, 100):
        reading = oracle.read(model.sample(min(100, n - start), generator=random, **tied)[1])
        features.append(reading.features)
        logits.append(reading.texture)
    return torch.cat(features).numpy(), torch.cat(logits).numpy()


def evaluate(method: FineGAN, card: dict | None = None, *, samples: int = 5000) -> dict[str, float]:
    """All figures of FineGAN on PaperBirds, by name; `samples` pictures for each, at most 2,000 for clusters."""
    oracle = load("oracle")
    method.eval()
    untied = generate_and_read(method, oracle, samples)
    matrix = control(untied.codes, untied.reading)
    pose = explained_pose(untied)
    own = method.config.z_background or 0
    with_shape = np.concatenate([untied.codes.z[:, own:].numpy(), untied.codes.p.numpy()], 1)
    figures = {
        "control.background": matrix["b", "background"],
        "control.shape": matrix["p", "shape"],
        "control.texture": matrix["c", "texture"],
        "control.leak": matrix.leak(rows=("b", "p", "c")),
        "pose.r2": float(np.mean([pose[name] for name in POSE[1:]])),
        "pose.flip": pose["flip"],
        **{f"pose.{name}": pose[name] for name in POSE[1:]},
        "pose.r2.given_p": float(np.mean(list(pose_scores(with_shape, untied.reading.pose[:, 1:].numpy(), POSE[1:]).values()))),
        "mask.iou": iou(untied.masks, untied.reading.mask),
    }
    size = method.config.image_size
    halves = (PaperBirds(size, length=samples, seed=HELD_OUT + 2 + half) for half in range(2))
    real, other = (
        extract(lambda x: oracle.read(x).features, (batch["image"] for batch in half.stream(100))) for half in halves
    )
    fake, logits = generated_features(method, oracle, samples, tied=True)
    infogan, infogan_logits = generated_features(load("infogan"), oracle, samples)
    subset = min(1000, samples)
    figures |= {"fid": fid(real, fake), "fid.floor": fid(real, other), "infogan.fid": fid(real, infogan)}
    figures |= {"kid": kid(real, fake, subset_size=subset)[0], "infogan.kid": kid(real, infogan, subset_size=subset)[0]}
    figures |= {"is": inception_score(logits)[0], "infogan.is": inception_score(infogan_logits)[0]}
    few = min(2000, samples)
    figures |= cluster(fit_predictor(method), few) | sorted_pictures(method, few)
    figures["params"] = sum(p.numel() for p in method.generator.parameters())
    return figures


def reached(name: str, value: float, bars: dict[str, tuple[str, float]] = BARS) -> bool:
    """Whether a figure is on the right side of its bar."""
    sign, limit = bars[name]
    return value >= limit if sign == ">=" else value <= limit


def beside_bars(figures: dict[str, float], bars: dict[str, tuple[str, float]], data: str = "PaperBirds") -> list[str]:
    """Lines of a table: the figures on `data` beside their bars, (">=" or "<=", limit) by name."""
    lines = [f"{data:<24}{'measured':>10}{'bar':>10}"]
    for name, value in figures.items():
        bar = ""
        if name in bars:
            bar = "{} {:.2f}".format(*bars[name]) + ("" if reached(name, value, bars) else "  missed")
        lines.append(f"{name:<24}{value:>10.0f}" if value > 1000 else f"{name:<24}{value:>10.3f}    {bar}")
    return lines


def table(figures: dict[str, float]) -> str:
    """The figures beside their bars, then beside the paper's."""
    lines = beside_bars(figures, BARS)
    lines += ["", f"{'the paper (photographs)':<24}{'birds':>10}{'dogs':>10}{'cars':>10}"]
    lines += [f"{name:<24}" + "".join(f"{value:>10.3f}" for value in row) for name, row in PAPER.items()]
    return "\n".join(lines)


# ---- ablations ------------------------------------------------------------------------------------------------------------


class Untied(FineGAN):
    """FineGAN trained on codes without the tie between parent and child."""

    def sample_codes(self, n: int, *, tied: bool = True, generator: torch.Generator | None = None) -> Codes:
        return super().sample_codes(n, tied=False, generator=generator)


# name -> (class, what the config changes)
ABLATIONS: dict[str, tuple[type[FineGAN], dict]] = {
    "the recipe": (FineGAN, {}),
    "no background critic": (FineGAN, {"background_weight": 0.0, "background_first": 0}),
    "no mask losses": (FineGAN, {"mask_area": None, "mask_match_weight": 0.0, "mask_entropy_weight": 0.0}),
    "a child mask of its own": (FineGAN, {"child_inside": False}),
    "codes untied": (Untied, {}),
}


@torch.no_grad()
def where_codes_act(model: FineGAN, n: int = 200, seed: int = 0) -> dict[str, float]:
    """How much redrawing one code changes the picture inside and outside the object's mask: mean absolute difference.

    Keys `b.inside`, `b.outside`, and so on. b should act outside, c inside; p and z move the outline and act on both sides.
    Also `area`, the share of the picture the mask covers, and `grey`, the share of mask values between 0.1 and 0.9.
    """
    random = torch.Generator().manual_seed(seed)
    codes, other = (model.sample_codes(n, tied=False, generator=random) for _ in range(2))
    base = model.generate(codes)
    figures = {"area": float(base.mask.mean()), "grey": float(((base.mask > 0.1) & (base.mask < 0.9)).float().mean())}
    for name, factor in zip("bpcz", ("background", "shape", "texture", "pose"), strict=True):
        changed = model.generate(codes.mix(**{factor: other}))
        difference = (changed.image - base.image).abs().mean(1, keepdim=True)
        inside = torch.minimum(base.mask, changed.mask)
        outside = 1 - torch.maximum(base.mask, changed.mask)
        figures[f"{name}.inside"] = float((difference * inside).sum() / inside.sum().clamp(min=1))
        figures[f"{name}.outside"] = float((difference * outside).sum() / outside.sum().clamp(min=1))
    return figures


@torch.no_grad()
def ablation_sheet(model: FineGAN, seed: int = 0) -> Tensor:
    """(3, 12, 3, H, W): backgrounds, masks in grey and pictures of twelve tied samples, two of each parent."""
    codes = model.sample_codes(12, generator=torch.Generator().manual_seed(seed))
    children = torch.arange(12) * model.config.n_children // 12
    parents = child_to_parent(children, model.config.n_parents, model.config.n_children)
    codes = Codes.from_indices(codes.z, codes.index("b"), parents, children, model.code_sizes)
    stages = model.generate(codes)
    return torch.stack([stages.background, stages.mask.expand(-1, 3, -1, -1) * 2 - 1, stages.image])


def ablate(folder: Path, *, steps: int = 1000, seed: int = 0) -> dict[str, dict[str, float]]:
    """Train every ablation at 32 x 32 (preset `live`) for the same steps; writes figures and a sheet of each into `folder`.

    What is there already, of as many steps and the same seed, is kept.
    """
    preset = PRESETS["finegan"]["live"]
    run = replace(preset.run, steps=steps, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    path, made = folder / "figures.json", {"steps": steps, "seed": seed}
    figures = json.loads(path.read_text()) if path.exists() else {}
    for name, (method_class, change) in ABLATIONS.items():
        if made.items() <= figures.get(name, {}).items():
            continue
        torch.manual_seed(seed)
        model = method_class(replace(preset.method, **change))
        history = train(model, preset.dataset(), run).whole()
        with averaged_weights(model, history.averaged):
            figures[name] = {**where_codes_act(model), "seconds": history.seconds, **made}
            sheet = ablation_sheet(model)
        save_sheet(sheet.flatten(0, 1), folder / f"{name.replace(' ', '_')}.png", columns=sheet.shape[1])
        path.write_text(json.dumps(figures, indent=2) + "\n")
    return figures
