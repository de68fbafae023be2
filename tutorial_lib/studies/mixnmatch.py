"""What MixNMatch's paper claims, measured on a checkpoint trained on PaperBirds.

    python -m tutorial_lib evaluate mixnmatch      # the shipped checkpoint
    python -m tutorial_lib ablate mixnmatch        # trains the rows of Table 3 that ablate, and measures them

A pair (A, B) of held-out birds: the mix takes background and texture from A, shape and pose from B. PaperBirds can draw the
true answer, so beside the paper's measures stands the distance to it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from tutorial_lib.codes import Codes
from tutorial_lib.data.birds import POSE, SHAPES, TEXTURES, PaperBirds, render
from tutorial_lib.data.pictures import save_sheet
from tutorial_lib.layers import seeded, update
from tutorial_lib.methods.finegan import SORTING, FineGAN, FineGANConfig, fit_predictor
from tutorial_lib.methods.mixnmatch import CodeMode, CodeModeConfig, MixNMatch
from tutorial_lib.metrics.clustering import nmi, score_clusters
from tutorial_lib.metrics.generation import extract, fid, inception_score, kid
from tutorial_lib.metrics.mixing import keypoint_distance, texture_distance
from tutorial_lib.metrics.oracle import Oracle
from tutorial_lib.metrics.segmentation import iou
from tutorial_lib.studies.finegan import beside_bars, generated_features
from tutorial_lib.studies.finegan import cluster as cluster_posthoc
from tutorial_lib.studies.oracle import HELD_OUT, pose_r2
from tutorial_lib.training import checkpoints
from tutorial_lib.training.checkpoints import load, results, start_from
from tutorial_lib.training.loop import averaged_weights, train
from tutorial_lib.training.presets import PRESETS, build

BARS = {
    "encode.background": (">=", 0.8), "encode.shape": (">=", 0.8), "encode.texture": (">=", 0.7),
    "mix.background": (">=", 0.8), "mix.shape": (">=", 0.8), "mix.texture": (">=", 0.8),
    "pose.r2.code": (">=", 0.6), "pose.r2.feature": (">=", 0.8), "mask.iou.feature": (">=", 0.8),
}  # fmt: skip

# Table 3 of the paper: keypoint L2 in pixels of 128, texture χ². Birds, photographs.
PAPER_TABLE3 = {
    "finegan": (21.04, 0.602), "code": (20.57, 0.540), "feature": (16.29, 0.565), "no_paired": (60.41, 0.798),
    "no_reprediction": (47.67, 0.724), "tied": (26.95, 0.601), "no_l1": (61.76, 0.575), "no_adversarial": (17.61, 0.572),
}  # fmt: skip
# Tables 1 and 2: birds, dogs, cars.
PAPER = {"fid": (9.17, 24.24, 6.48), "finegan.fid": (11.25, 25.66, 16.03), "is": (50.05, 46.97, 31.12),
         "nmi": (0.422, 0.324, 0.357), "finegan.nmi": (0.403, 0.233, 0.354), "accuracy": (0.136, 0.089, 0.079)}  # fmt: skip
CLUSTERS = ("nmi.shape", "accuracy.shape", "nmi.texture", "accuracy.texture")


@dataclass
class Pair:
    """A batch of held-out pairs: A, B and the true mix, each as `PaperBirds.batch` gives them."""

    a: dict[str, Tensor]
    b: dict[str, Tensor]
    truth: dict[str, Tensor]


def pairs(size: int, n: int, seed: int = HELD_OUT + 7, batch_size: int = 100) -> Iterator[Pair]:
    """n pairs of held-out birds with the true picture of A's background and texture on B's shape and pose."""
    birds = PaperBirds(size, length=2 * n, seed=seed)
    for start in range(0, n, batch_size):
        rows = range(start, min(start + batch_size, n))
        of_a, of_b = birds.scenes(rows), birds.scenes([n + i for i in rows])
        mixed = of_b.replace(background=of_a.background, ground=of_a.ground, texture=of_a.texture)
        yield Pair(*(render(scene, size) for scene in (of_a, of_b, mixed)))


@torch.no_grad()
def score_mixes(model: CodeMode, oracle: Oracle, mode: str, n: int = 5000) -> dict[str, float]:
    """Table 3's two measures, L1 to the true mix, and whether the oracle reads each donor's factor, over n pairs.

    Keys: shape (keypoint L2, pixels), texture (χ²), l1, keep.background, keep.shape, keep.texture (share of mixes), pose.r2
    (mean over the continuous components), pose.flip (accuracy), mask.iou (of the model's mask with B's). Keypoints and colours
    are means over what is visible in a batch of pairs, then over pairs.
    """
    sums = dict.fromkeys(("shape", "texture", "l1", "keep.background", "keep.shape", "keep.texture"), 0.0)
    poses, true_poses, masks, true_masks = [], [], [], []
    for pair in pairs(model.config.image_size, n):
        a, b = pair.a["image"].as_subclass(Tensor), pair.b["image"].as_subclass(Tensor)
        pose = {} if mode == "feature" else {"pose": b}
        mixed = model.mix(background=a, texture=a, shape=b, mode=mode, **pose)
        read, count = oracle.read(mixed.image), len(a)
        labels = read.labels()
        seen = pair.a["visible"] & pair.b["visible"]
        batch = {
            "shape": keypoint_distance(read.keypoints, pair.b["keypoints"], pair.b["visible"]),
            "texture": texture_distance(a, pair.a["keypoints"], mixed.image, read.keypoints, seen),
            "l1": (mixed.image - pair.truth["image"].as_subclass(Tensor)).abs().mean(),
            "keep.background": (labels["background"] == pair.a["background"]).float().mean(),
            "keep.shape": (labels["shape"] == pair.b["shape"]).float().mean(),
            "keep.texture": (labels["texture"] == pair.a["texture"]).float().mean(),
        }
        for name, value in batch.items():
            sums[name] += float(value) * count
        poses.append(read.pose)
        true_poses.append(pair.b["pose"])
        masks.append(mixed.mask)
        true_masks.append(pair.b["mask"].as_subclass(Tensor))
    figures = {name: value / n for name, value in sums.items()}
    found, true = torch.cat(poses), torch.cat(true_poses)
    r2 = pose_r2(found, true)
    figures["pose.r2"] = fmean(r2[name] for name in POSE[1:])
    figures["pose.flip"] = float(((found[:, 0] > 0.5) == (true[:, 0] > 0.5)).float().mean())
    return figures | {"mask.iou": iou(torch.cat(masks), torch.cat(true_masks))}


@torch.no_grad()
def four_donors(model: CodeMode, oracle: Oracle, n: int = 2000) -> dict[str, float]:
    """Code mode with a donor for each factor: the share of mixes in which the oracle reads the donor's, and R² of the pose."""
    birds = PaperBirds(model.config.image_size, length=4 * n, seed=HELD_OUT + 11)
    kept, found, true = dict.fromkeys(("background", "shape", "texture"), 0), [], []
    for start in range(0, n, 100):
        donors = [birds.batch(range(start + k * n, min(start + 100, n) + k * n)) for k in range(4)]
        images = [donor["image"].as_subclass(Tensor) for donor in donors]
        mixed = model.mix(background=images[0], texture=images[1], shape=images[2], pose=images[3])
        read = oracle.read(mixed.image)
        for donor, name in zip(donors, ("background", "texture", "shape"), strict=False):
            kept[name] += int((read.labels()[name] == donor[name]).sum())
        found.append(read.pose)
        true.append(donors[3]["pose"])
    figures = {f"mix.{name}": count / n for name, count in kept.items()}
    return figures | {f"mix.pose.{name}": r2 for name, r2 in pose_r2(torch.cat(found), torch.cat(true)).items()}


@torch.no_grad()
def encode_held_out(model: CodeMode, n: int = 2000) -> tuple[Codes, dict[str, Tensor], dict[str, Tensor]]:
    """Codes of n held-out real renders, their true factors, and the penultimate features of E_p and E_c."""
    birds = PaperBirds(model.config.image_size, length=n, seed=HELD_OUT + 1)
    codes, truth, features = [], {}, {"p": [], "c": []}
    for batch in birds.stream(100):
        image = batch["image"].as_subclass(Tensor)
        codes.append(model.encode(image))
        for name, parts in features.items():
            parts.append(model.encoders[name].features(image))
        for name in ("background", "shape", "texture", "pose"):
            truth.setdefault(name, []).append(batch[name])
    together = {name: torch.cat(parts) for name, parts in truth.items()}
    return Codes.cat(codes), together, {name: torch.cat(parts) for name, parts in features.items()}


def encoding(model: CodeMode, n: int = 2000, seed: int = 0) -> dict[str, float]:
    """How far the codes of held-out real renders agree with the true factors (NMI), and Table 2: k-means on E_p's and E_c's
    features, each scaled to unit length, concatenated; `alone.`: on those of E_p for the shape and of E_c for the texture, as
    FineGAN's predictors are measured."""
    codes, truth, features = encode_held_out(model, n)
    figures = {
        f"encode.{factor}": nmi(codes.index(name).numpy(), truth[factor].numpy())
        for name, factor in zip("bpc", ("background", "shape", "texture"), strict=True)
    }
    joint = torch.cat([torch.nn.functional.normalize(part, dim=1) for part in features.values()], 1).numpy()
    for name, code, classes in (("shape", "p", len(SHAPES)), ("texture", "c", len(TEXTURES))):
        for prefix, taken in (("", joint), ("alone.", features[code].numpy())):
            scores = score_clusters(taken, truth[name].numpy(), classes, seed=seed)
            figures |= {f"{prefix}nmi.{name}": scores.nmi, f"{prefix}accuracy.{name}": scores.accuracy}
    return figures


def code_config(config: CodeModeConfig) -> CodeModeConfig:
    """The part of a config of both modes that is code mode's."""
    return CodeModeConfig(**{name: getattr(config, name) for name in CodeModeConfig.__dataclass_fields__})


def posthoc_encoders(finegan: FineGAN, config: CodeModeConfig, steps: int = 1000, seed: int = 0) -> CodeMode:
    """FineGAN with encoders fitted afterwards on its pictures alone: the baseline of Table 3, and the start of notebook 02.

    config: sizes of the encoders; whatever is FineGAN's own in it follows `finegan`, but for what trains that.
    """
    own = {field.name: getattr(finegan.config, field.name) for field in fields(FineGANConfig)}
    own |= {field.name: field.default for field in fields(FineGANConfig) if field.name in SORTING}  # for what trains G
    config = replace(config, **own, silhouette_weight=0.0, pose_weight=0.0)
    with seeded(seed):
        model = CodeMode(config)
        model.generator.load_state_dict(finegan.generator.state_dict())
        model.generator.eval().requires_grad_(False)
        model.encoders.train()
        optimizer = torch.optim.Adam(model.encoders.parameters(), lr=1e-3, betas=(0.9, 0.99))
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * (1 - step / steps)
            codes, drawn = model.draw_for_reprediction(32)
            read = {name: encoder(drawn) for name, encoder in model.encoders.items()}
            update(optimizer, sum(model.reprediction_losses(codes, read).values()))
    return model.eval()


def evaluate(method: MixNMatch, card: dict | None = None, *, samples: int = 5000) -> dict[str, float]:
    """All figures of MixNMatch on PaperBirds, by name, with the ablations' stored rows of Table 3."""
    oracle, finegan = load("oracle"), load("finegan")
    method.eval()
    figures = encoding(method, min(2000, samples)) | four_donors(method, oracle, min(2000, samples))
    rows = {
        "finegan": score_mixes(posthoc_encoders(finegan, code_config(method.config)), oracle, "code", samples),
        "code": score_mixes(method, oracle, "code", samples),
        "feature": score_mixes(method, oracle, "feature", samples),
    }
    for mode in ("code", "feature"):
        figures |= {f"mix.l1.{mode}": rows[mode]["l1"], f"pose.r2.{mode}": rows[mode]["pose.r2"]}
        figures |= {f"mask.iou.{mode}": rows[mode]["mask.iou"]}
    real = PaperBirds(method.config.image_size, length=samples, seed=HELD_OUT + 2)
    features = extract(lambda x: oracle.read(x).features, (batch["image"] for batch in real.stream(100)))
    for prefix, model in (("", method), ("finegan.", finegan)):
        fake, logits = generated_features(model, oracle, samples, tied=True)
        figures |= {
            f"{prefix}fid": fid(features, fake),
            f"{prefix}kid": kid(features, fake, subset_size=min(1000, samples))[0],
            f"{prefix}is": inception_score(logits)[0],
        }
    # As its card has them: a predictor fitted anew, on other threads, would tell plumages apart a little better or worse.
    clusters = checkpoints.card("finegan").get("figures", {})
    if not clusters.keys() >= set(CLUSTERS):
        clusters = cluster_posthoc(fit_predictor(finegan))
    figures |= {f"finegan.{name}": clusters[name] for name in CLUSTERS}
    for row, scores in (rows | stored_ablations()).items():
        figures |= {f"table3.{row}.shape": scores["shape"], f"table3.{row}.texture": scores["texture"]}
    return figures


def table(figures: dict[str, float]) -> str:
    """The figures beside their bars, then Table 3 and Tables 1 and 2 beside the paper's."""
    lines = beside_bars({name: value for name, value in figures.items() if not name.startswith("table3.")}, BARS)
    lines += ["", table3(figures)]
    lines += ["", f"{'the paper (photographs)':<28}{'birds':>10}{'dogs':>10}{'cars':>10}"]
    lines += [f"{name:<28}" + "".join(f"{value:>10.3f}" for value in row) for name, row in PAPER.items()]
    return "\n".join(lines)


def table3(figures: dict[str, float]) -> str:
    """Table 3 beside the paper's: its ablations, from `no_paired` on, are short runs here."""
    lines = [f"{'Table 3':<20}{'keypoint L2':>12}{'texture χ²':>12}{'paper L2 (128)':>16}{'paper χ²':>10}"]
    for row, (shape, texture) in PAPER_TABLE3.items():
        ours = [figures.get(f"table3.{row}.{measure}", float("nan")) for measure in ("shape", "texture")]
        lines.append(f"{row:<20}{ours[0]:>12.2f}{ours[1]:>12.3f}{shape:>16.2f}{texture:>10.3f}")
    return "\n".join(lines)


# ---- ablations ------------------------------------------------------------------------------------------------------------

# Row of Table 3 -> method and preset, the checkpoint it starts from, mode, what the config changes. The rows "short" have the
# published losses and are trained for as many steps as the ablations: what those are to be compared with. "redraw" and
# "l1_more" have one of the things that the shipped model's losses have more; "redraw_at_once" has what its second stage has,
# from the start.
_CODE, _FEATURE = ("mixnmatch_code", "plain", "finegan", "code"), ("mixnmatch", "first", "mixnmatch", "feature")
ABLATIONS: dict[str, tuple[str, str, str, str, dict]] = {
    "code_short": (*_CODE, {}),
    "no_paired": (*_CODE, {"paired": False}),
    "no_reprediction": (*_CODE, {"reprediction": "none"}),
    "tied": (*_CODE, {"reprediction": "tied"}),
    "redraw": (*_CODE, {"redraw_weight": PRESETS["mixnmatch_code"]["laptop"].method.redraw_weight}),
    "feature_short": (*_FEATURE, {"feature_l1_weight": 1.0}),
    "no_l1": (*_FEATURE, {"feature_l1_weight": 0.0}),
    "no_adversarial": (*_FEATURE, {"feature_l1_weight": 1.0, "feature_adversarial_weight": 0.0}),
    "l1_more": (*_FEATURE, {}),
    "redraw_at_once": (*_FEATURE, {"feature_redraw_weight": PRESETS["mixnmatch"]["second"].method.feature_redraw_weight}),
}


def beginning(name: str) -> str:
    """SHA-256 of the checkpoint from which a run that starts from `name` has its weights: in feature mode, whose S starts anew,
    of the code mode that made generator and encoders."""
    for stage in reversed(checkpoints.lineage(checkpoints.card(name))):
        if stage["method"] != MixNMatch.name:
            break
    return stage["sha256"]


def ablate(folder: Path, *, steps: int = 400, seed: int = 0, samples: int = 5000) -> dict[str, dict[str, Any]]:
    """Train every ablation for the same steps: those of code mode from the shipped FineGAN, those of feature mode from the
    shipped generator and encoders. Writes figures.json and a sheet of mixes after each; rows that are there already, of as many
    steps and pairs, the same seed and the same beginning, are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    oracle, path = load("oracle"), folder / "figures.json"
    figures = json.loads(path.read_text()) if path.exists() else {}
    for row, (name, preset_name, start, mode, change) in ABLATIONS.items():
        made = {"steps": steps, "seed": seed, "samples": samples, "start": beginning(start)}
        if made.items() <= figures.get(row, {}).items():
            continue
        preset = PRESETS[name][preset_name]
        torch.manual_seed(seed)
        model = build(replace(preset.method, **change))
        start_from(model, start, only=model.needs if mode == "feature" else None)  # S itself starts anew
        history = train(model, preset.dataset(), replace(preset.run, steps=steps, seed=seed), progress=False).whole()
        with averaged_weights(model, history.averaged):
            scores, sheet = score_mixes(model, oracle, mode, samples), mix_sheet(model, mode)
        save_sheet(sheet.flatten(0, 1), folder / f"{row}.png", columns=sheet.shape[1])
        figures[row] = {**scores, "seconds": history.seconds, **made}
        path.write_text(json.dumps(figures, indent=2) + "\n")
    return figures


@torch.no_grad()
def mix_sheet(model: CodeMode, mode: str, n: int = 10) -> Tensor:
    """(4, n, 3, H, W): A, which gives background and texture; B, which gives shape and pose; the mix; the true one."""
    (pair,) = pairs(model.config.image_size, n)
    a, b, truth = (part["image"].as_subclass(Tensor) for part in (pair.a, pair.b, pair.truth))
    pose = {} if mode == "feature" else {"pose": b}
    return torch.stack([a, b, model.mix(background=a, texture=a, shape=b, mode=mode, **pose).image, truth])


def stored_ablations() -> dict[str, dict[str, Any]]:
    """What `ablate` stored with the course; empty if nothing is."""
    path = results("mixnmatch") / "figures.json"
    return json.loads(path.read_text()) if path.exists() else {}
