"""What the label-relevant VAE's paper claims, measured on PaperFaces, with who it is as the label.

    python -m tutorial_lib ablate gmvae       # three moons, digits, the baselines, the tuning on unseen people
    python -m tutorial_lib evaluate gmvae     # the shipped checkpoint beside what `ablate` stored

The face oracle is the classifier of the Inception Score, reads off whose face a picture shows and what it does, and is the
supervised network that the codes are compared with.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.data.digits import Digits
from tutorial_lib.data.faces import EXPRESSIONS, GAZES, ILLUMINATIONS, NUISANCE, Identities, PaperFaces
from tutorial_lib.data.moons import ThreeMoons
from tutorial_lib.data.pictures import save_sheet
from tutorial_lib.methods.baselines import CVAEGAN
from tutorial_lib.methods.gmvae import GMVAE, kl_loss
from tutorial_lib.metrics.face_oracle import FaceOracle
from tutorial_lib.metrics.generation import diversity, fid, inception_score, ms_ssim
from tutorial_lib.metrics.probe import linear_probe
from tutorial_lib.studies.finegan import beside_bars
from tutorial_lib.studies.oracle import HELD_OUT
from tutorial_lib.training.checkpoints import card, load, results, start_from, write_text
from tutorial_lib.training.loop import averaged_weights, train
from tutorial_lib.training.presets import PRESETS, Preset, build, compared_with

BARS = {
    "digits.accuracy": (">=", 0.96), "probe.label_from_zs": (">=", 0.95), "probe.label_from_zu_over_chance": ("<=", 1.5),
    "probe.rest_from_zu": (">=", 0.7),
}  # fmt: skip

# What the paper claims of two figures. Similar quality is a score or a distance within a tenth. Compared are models that made
# as many updates: `compared` is not the shipped one, which made more.
CLAIMS = (
    ("moons.coverage", ">=", 1.0, "moons.cvaegan.coverage"),
    ("compared.diversity", ">=", 1.0, "cvaegan.diversity"),
    ("compared.is", ">=", 0.9, "cvaegan.is"),
    ("compared.fid", "<=", 1.1, "cvaegan.fid"),
    ("compared.active_units", ">=", 1.0, "vae.active_units"),
    ("compared.inpaint.psnr", ">=", 1.0, "cvaegan.inpaint.psnr"),
)

# The paper's diversity: faces, CIFAR-10, CIFAR-100, birds. On a scale of its own: to compare orderings with, not values.
PAPER = {"diversity": (0.0157, 0.0149, 0.0190, 0.0192), "cvaegan.diversity": (0.0141, 0.0136, 0.0179, 0.0195)}

COMPARED = ("compared", "cvae", "cvaegan", "cgan")

Model = GMVAE | CVAEGAN


# ---- generated pictures ---------------------------------------------------------------------------------------------------


def faces(model: Model, samples: int, part: int, identities: Identities = "train") -> Iterator[dict[str, Tensor]]:
    """Batches of faces that no model has been trained on, a set of them for each `part`."""
    data = PaperFaces(model.config.image_size, length=samples, seed=HELD_OUT + 20 + part, identities=identities)
    return data.stream(100)


@torch.no_grad()
def quality(model: Model, oracle: FaceOracle, samples: int = 5000, seed: int = 0) -> dict[str, float]:
    """Inception Score and FID (by the oracle's identities and activations) of `samples` pictures, and their diversity.

    diversity: 1 − MS-SSIM over the pairs of 12 pictures of each class (of fewer below 1,200 samples); none of the plain VAE,
    which draws no class on request.
    """
    real = torch.cat([oracle.read(batch["image"]).activations for batch in faces(model, samples, 0)])
    random = torch.Generator().manual_seed(seed)
    readings = [oracle.read(model.sample(min(100, samples - k), generator=random)[1]) for k in range(0, samples, 100)]
    fake, logits = (torch.cat([getattr(read, name) for read in readings]) for name in ("activations", "identity"))
    figures = {"is": inception_score(logits.numpy())[0], "fid": fid(real.numpy(), fake.numpy())}
    if model.name == "vae":
        return figures
    each = max(2, min(12, samples // 100))
    return figures | {"diversity": diversity(of_each_class(model, each, random))}


@torch.no_grad()
def of_each_class(model: Model, n: int, random: torch.Generator, classes: int | None = None) -> Tensor:
    """n samples of each class, or of `classes` that lie evenly among them: (C, n, 3, H, W)."""
    total = model.config.n_classes
    chosen = torch.arange(classes or total) * total // (classes or total)
    return torch.stack([model.sample(label.repeat(n), generator=random)[1] for label in chosen])


@torch.no_grad()
def coverage(model: Model, samples: int = 3000, seed: int = 0) -> float:
    """Three moons: spread along y, which tells no class, of generated points over that of true ones; mean over the classes.

    Spread: how wide the middle nine tenths are. 1: all of the direction is covered; the paper's cVAE-GAN stays in a part of it.
    """
    real = ThreeMoons(length=samples, seed=HELD_OUT).batch(range(samples))
    _, points = model.sample(real["label"], generator=torch.Generator().manual_seed(seed))

    def spread(y: Tensor) -> Tensor:
        low, high = y.quantile(torch.tensor([0.05, 0.95]))
        return high - low

    of_class = [real["label"] == c for c in range(model.config.n_classes)]
    return float(torch.stack([spread(points[own, 1]) / spread(real["image"][own, 1]) for own in of_class]).mean())


# ---- the split ------------------------------------------------------------------------------------------------------------

REST = ("expression", "illumination", "gaze", "strength", *NUISANCE)


@torch.no_grad()
def probes(model: GMVAE, oracle: FaceOracle, samples: int = 5000, seed: int = 0) -> dict[str, dict[str, float]]:
    """What linear probes read off z_s and off a sampled z_u, beside what the image gives, for identity and each of `REST`.

    Accuracy of labels; R² of the strength (where there is an expression) and of place, roll and scale. The image gives what the
    oracle reads, or, of what it does not read, what a linear probe reads off the pixels at a quarter of the size. On at least
    500 faces, of which some are of each person.
    """
    random = torch.Generator().manual_seed(seed)
    found: dict[str, list[Tensor]] = {name: [] for name in ("z_s", "z_u", "pixels")}
    truth: dict[str, list[Tensor]] = {}
    read: dict[str, list[Tensor]] = {}
    for batch in faces(model, max(samples, 500), 1):
        codes, reading = model.encode(batch["image"]), oracle.read(batch["image"])
        z_u = codes.mu_u + codes.sigma_u * torch.randn(codes.mu_u.shape, generator=random)
        for name, value in (("z_s", codes.z_s), ("z_u", z_u), ("pixels", F.avg_pool2d(batch["image"], 4).flatten(1))):
            found[name].append(value)
        for name in ("identity", "expression", "illumination", "gaze", "strength", "nuisance"):
            truth.setdefault(name, []).append(batch[name])
        for name, value in (reading.labels() | {"strength": reading.strength}).items():
            read.setdefault(name, []).append(value)
    codes, truth, read = ({k: torch.cat(v).numpy() for k, v in parts.items()} for parts in (found, truth, read))
    truth |= dict(zip(NUISANCE, truth.pop("nuisance").T, strict=True))
    expressive = truth["expression"] != EXPRESSIONS.index("neutral")

    figures = {}
    for factor in ("identity", *REST):
        rows = expressive if factor == "strength" else slice(None)
        true = truth[factor][rows]
        scores = {name: linear_probe(codes[name][rows], true, seed=seed) for name in ("z_s", "z_u")}
        if factor in NUISANCE:
            image = linear_probe(codes["pixels"], true, seed=seed)
        elif factor == "strength":
            image = float(1 - np.square(read[factor][rows] - true).sum() / np.square(true - true.mean()).sum())
        else:
            image = float((read[factor] == true).mean())
        figures[factor] = scores | {"image": image}
    return figures


def share(score: float, of: float) -> float:
    """A score as a share of another, in [0, 1]."""
    return min(1.0, max(0.0, score) / max(of, 1e-6))


@torch.no_grad()
def collapse(model: Model, samples: int = 2000) -> tuple[int, list[float]]:
    """How many dimensions of z_u (or of a baseline's code) say anything, and the mean KL of each from N(0, I) in nats.

    A dimension is active where the variance of its mean over pictures is above 0.01 (Burda et al. 2016).
    """
    means, kls = [], []
    for batch in faces(model, samples, 2):
        if isinstance(model, GMVAE):
            codes = model.encode(batch["image"])
            mu, sigma = codes.mu_u, codes.sigma_u
        else:
            mu, sigma = model.encode(batch["image"], batch["identity"])
        means.append(mu)
        kls.append(kl_loss(mu, sigma))
    active = torch.cat(means).var(0) > 0.01
    return int(active.sum()), [round(value, 4) for value in torch.cat(kls).mean(0).tolist()]


@torch.no_grad()
def directions(model: GMVAE, samples: int = 2000) -> dict[str, Tensor]:
    """How z_u moves with what is known of the picture, (d_u,) by name: least squares of μ_u on all factors together.

    One unit is the whole way from straight to the right (gaze), from even light to light from the right (light x) or from above
    (light y), from neutral to an expression of strength 1, or one unit of place, roll and scale (`NUISANCE`).
    """
    means, factors = [], []
    for batch in faces(model, samples, 3):
        means.append(model.encode(batch["image"]).mu_u)
        light = F.one_hot(batch["illumination"], len(ILLUMINATIONS)).float()
        side = {name: light[:, i] for i, name in enumerate(ILLUMINATIONS)}
        shown = F.one_hot(batch["expression"], len(EXPRESSIONS)) * batch["strength"][:, None]
        columns = [batch["gaze"] - GAZES.index("straight"), side["right"] - side["left"], side["top"] - side["below"]]
        columns += [*shown[:, 1:].unbind(1), *batch["nuisance"].unbind(1), torch.ones(len(light))]
        factors.append(torch.stack([column.float() for column in columns], 1))
    slopes = torch.linalg.lstsq(torch.cat(factors), torch.cat(means)).solution
    return dict(zip(("gaze", "light x", "light y", *EXPRESSIONS[1:], *NUISANCE), slopes[:-1], strict=True))


@torch.no_grad()
def swapped(model: GMVAE, oracle: FaceOracle, identities: Identities, samples: int = 2000) -> dict[str, float]:
    """z_s of one face with z_u of another person's: the share of pictures that show the first's identity and the second's rest.

    label; expression, illumination, gaze, and their mean as rest. The oracle knows 48 people.
    """
    label_from, rest_from = (faces(model, samples, part, identities) for part in (4, 5))
    kept = dict.fromkeys(("identity", "expression", "illumination", "gaze"), 0)
    pairs = 0
    for a, b in zip(label_from, rest_from, strict=True):
        others = a["identity"] != b["identity"]
        a, b = ({name: value[others] for name, value in batch.items()} for batch in (a, b))
        labels = oracle.read(model.swap(a["image"], b["image"])).labels()
        for name in kept:
            kept[name] += int((labels[name] == (a if name == "identity" else b)[name]).sum())
        pairs += int(others.sum())
    figures = {name: count / pairs for name, count in kept.items()}
    label = figures.pop("identity")
    return {"label": label, "rest": sum(figures.values()) / len(figures), **figures}


# ---- inpainting -----------------------------------------------------------------------------------------------------------

# Top, bottom, left and right of what is missing, as shares of the picture's side (section 4.5).
REGIONS = {
    "right half": (0.0, 1.0, 0.5, 1.0), "eyes": (0.35, 0.625, 0.25, 0.75), "nose and mouth": (0.55, 0.875, 0.3, 0.7),
    "bottom half": (0.5, 1.0, 0.0, 1.0),
}  # fmt: skip


def region(name: str, size: int) -> tuple[slice, slice]:
    """Rows and columns of a region of `REGIONS` in a picture of size x size. Raises ValueError for another name."""
    if name not in REGIONS:
        raise ValueError(f"region must be one of {', '.join(REGIONS)}, got {name!r}")
    top, bottom, left, right = (round(edge * size) for edge in REGIONS[name])
    return slice(top, bottom), slice(left, right)


def hole(where: str | tuple[slice, slice], size: int) -> Tensor:
    """The mask M of a region, bool (1, 1, size, size): True where pixels are missing. where: its name, or rows and columns."""
    mask = torch.zeros(1, 1, size, size, dtype=torch.bool)
    mask[:, :, *(region(where, size) if isinstance(where, str) else where)] = True
    return mask


def fill_in(model: Model, batch: dict[str, Tensor], name: str) -> Tensor:
    """A batch's pictures with a region inpainted; a baseline is told the label, this model is not."""
    mask = hole(name, model.config.image_size)
    if isinstance(model, GMVAE):
        return model.inpaint(batch["image"], mask)
    return model.inpaint(batch["image"], mask, batch["identity"])


@torch.no_grad()
def inpainting(model: Model, samples: int = 1000) -> dict[str, dict[str, float]]:
    """For each of `REGIONS` psnr, in dB over the hole, and ms_ssim, of the whole picture, which differs in the hole alone."""
    from torchmetrics.functional.image import peak_signal_noise_ratio

    batches = list(faces(model, samples, 6))
    truth = torch.cat([batch["image"] for batch in batches])
    figures = {}
    for name in REGIONS:
        filled = torch.cat([fill_in(model, batch, name) for batch in batches])
        place = (..., *region(name, model.config.image_size))
        psnr = peak_signal_noise_ratio(filled[place].clamp(-1, 1), truth[place], data_range=2.0)
        figures[name] = {"psnr": float(psnr), "ms_ssim": float(ms_ssim(filled, truth).mean())}
    return figures


def mean_psnr(figures: dict[str, dict[str, float]]) -> float:
    """The mean of `inpainting`'s PSNR over the regions."""
    return sum(scores["psnr"] for scores in figures.values()) / len(figures)


# ---- sheets ---------------------------------------------------------------------------------------------------------------

Sheet = tuple[Tensor, int]  # pictures (N, 3, H, W) in [-1, 1], and how many of them make a row


def sample_sheet(model: Model, rows: int = 6, columns: int = 8, seed: int = 0) -> Sheet:
    """Samples, a class a row; the plain VAE has none."""
    return of_each_class(model, columns, torch.Generator().manual_seed(seed), classes=rows).flatten(0, 1), columns


@torch.no_grad()
def swap_sheet(model: GMVAE, label_from: Tensor, rest_from: Tensor) -> Sheet:
    """z_s of the first column's pictures (R, 3, H, W) with z_u of the first row's (C, 3, H, W) (Fig. 6)."""
    columns = len(rest_from)
    mixed = model.swap(label_from.repeat_interleave(columns, 0), rest_from.repeat(len(label_from), 1, 1, 1))
    rows = torch.cat([label_from[:, None], mixed.unflatten(0, (-1, columns))], 1)
    head = torch.cat([torch.ones_like(rest_from[:1]), rest_from])
    return torch.cat([head, rows.flatten(0, 1)]), columns + 1


@torch.no_grad()
def inpainting_sheet(model: Model, rows: int = 4) -> Sheet:
    """A face a row: what it is, then for each region what is seen of it and what the model makes of that (Fig. 7)."""
    (batch,) = faces(model, rows, 6)
    columns = [batch["image"]]
    for name in REGIONS:
        columns += [batch["image"].masked_fill(hole(name, model.config.image_size), 0), fill_in(model, batch, name)]
    return torch.stack(columns, 1).flatten(0, 1), len(columns)


def first_of_each(batch: dict[str, Tensor], label: str, n: int) -> Tensor:
    """The first picture of each of the first n labels that a batch has, (n, 3, H, W)."""
    labels = batch[label].unique()[:n]
    return torch.stack([batch["image"][batch[label] == value][0] for value in labels])


# ---- what is trained beside the shipped model -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """What is known of a run at its end: figures (lists: one number a dimension of the code), and sheets by name."""

    figures: dict[str, float | list[float]]
    sheets: dict[str, Sheet] = field(default_factory=dict)


def _measure_moons(model: Model, samples: int) -> Measured:
    return Measured({"coverage": coverage(model, samples)})


@torch.no_grad()
def _measure_digits(model: GMVAE, samples: int) -> Measured:
    scans = Digits("held_out", size=model.config.image_size)
    scans = scans.batch(range(len(scans)))
    right = (model.classify(scans["image"]) == scans["label"]).float().mean()
    donors = first_of_each(scans, "label", 10)
    sheets = {"samples": sample_sheet(model, 10, 10), "swaps": swap_sheet(model, donors, donors)}
    return Measured({"accuracy": float(right)}, sheets)


def _measure_compared(model: Model, samples: int) -> Measured:
    """Quality; of what has an encoder active units and KL; and inpainting by this model and by cVAE-GAN, which is told who."""
    figures, sheets = quality(model, load("face_oracle"), samples), {"samples": sample_sheet(model)}
    if model.name != "cgan":
        figures["active_units"], figures["kl"] = collapse(model, min(2000, samples))
    if model.name in ("gmvae", "cvaegan"):
        scores = inpainting(model, min(1000, samples))
        figures["inpaint.psnr"] = mean_psnr(scores)
        figures |= {f"inpaint.{name}.{measure}": value for name, row in scores.items() for measure, value in row.items()}
        sheets["inpaint"] = inpainting_sheet(model)
    return Measured(figures, sheets)


def _measure_unseen(model: GMVAE, samples: int) -> Measured:
    """Swaps between unseen people, by the tuned model and, as `before`, by the one the tuning began with."""
    oracle, before = load("face_oracle"), load("gmvae", expect="gmvae")
    figures = swapped(model, oracle, "held_out", min(2000, samples))
    figures |= {f"before.{name}": value for name, value in swapped(before, oracle, "held_out", min(2000, samples)).items()}
    (batch,) = faces(model, 100, 7, "held_out")
    donors = first_of_each(batch, "identity", 6)
    return Measured(figures, {"swaps": swap_sheet(model, donors, batch["image"][-8:])})


@dataclass(frozen=True)
class Run:
    """A run of `ablate`: a preset, what its data change, how many seeds it has, and what is measured."""

    method: str
    preset: str
    measure: Callable[[Any, int], Measured]
    seeds: int = 1
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def chosen(self) -> Preset:
        preset = PRESETS[self.method][self.preset]
        return replace(preset, data=preset.data | self.data)


RUNS = {
    "moons": Run("gmvae", "moons", _measure_moons, seeds=3),
    "moons.cvaegan": Run("cvaegan", "moons", _measure_moons, seeds=3),
    "digits": Run("gmvae", "digits", _measure_digits),
    # This method after as many updates as the baselines make, and the baselines.
    "compared": Run("gmvae", "compared", _measure_compared),
    **{kind: Run(kind, "laptop", _measure_compared) for kind in ("cvaegan", "vae", "cvae", "cgan")},
    # As the paper does it, on unseen people alone; and beside the others with their names.
    "unseen": Run("gmvae", "unseen", _measure_unseen),
    "unseen.beside": Run("gmvae", "unseen", _measure_unseen, data={"identities": "all"}),
}


@dataclass(frozen=True)
class Stored:
    """A run that `ablate` wrote: which it was, and what was measured at its end."""

    name: str
    seed: int
    steps: int
    seconds: float
    figures: dict[str, float | list[float]]
    start: str | None = None  # SHA-256 of the checkpoint that it started from

    @property
    def file(self) -> str:
        return f"{self.name.replace('.', '_')}_{self.seed}"


def ablate(folder: Path, *, steps: int | None = None, seed: int = 0, samples: int = 5000) -> dict[str, dict]:
    """Train and measure every one of `RUNS`, from `seed` onwards, and write figures and sheets of each into `folder`.

    steps: of the method; the baselines make as many updates as its stage two, a third. None: each preset's own number. Runs of
    as many steps and the same start whose figures are there already are kept, and one that was interrupted goes on from its
    snapshot in runs/NAME_OF_FOLDER. The tuning on unseen people starts from the shipped model. Returns the figures by the runs'
    names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, run in RUNS.items():
        for number in range(seed, seed + run.seeds):
            preset = run.chosen
            settings = replace(preset.run, seed=number)
            if steps is not None:
                base = PRESETS["gmvae"][compared_with(run.preset)]
                each = 1 if run.method == "gmvae" else base.method.stage_one_updates
                settings = replace(settings, steps=max(1, steps // each))
            start = None if preset.start is None else card(preset.start)["sha256"]
            empty = Stored(name, number, settings.steps, 0.0, {}, start)
            if any(replace(done, seconds=0.0, figures={}) == empty for done in stored_runs(folder)):
                continue
            torch.manual_seed(number)
            model = build(preset.method)
            about = {} if preset.start is None else {"start": start_from(model, preset.start)}
            work = Path("runs") / folder.name / "_".join([empty.file, str(settings.steps), *([start[:8]] if start else [])])
            history = train(model, preset.dataset(), settings, work, resume=True, about=about).whole()
            with averaged_weights(model, history.averaged):
                measured = run.measure(model, samples)
            for kind, (pictures, columns) in measured.sheets.items():
                path = folder / f"{empty.file}_{kind}.png"
                save_sheet(pictures, path, columns=columns)
            stored = replace(empty, seconds=round(history.seconds, 1), figures=measured.figures)
            write_text(json.dumps(vars(stored)) + "\n", folder / f"{empty.file}.json")
    return {run.file: run.figures for run in stored_runs(folder)}


def stored_runs(folder: Path | None = None) -> list[Stored]:
    """The runs that `ablate` wrote into `folder` (the course's own if left out), in the order of `RUNS` and of their seeds."""
    folder = results("gmvae") if folder is None else folder
    runs = [Stored(**json.loads(path.read_text())) for path in folder.glob("*.json")]
    return sorted(runs, key=lambda run: (list(RUNS).index(run.name), run.seed))


def stored_figure(runs: list[Stored], name: str, figure: str) -> float:
    """A figure of a run, mean over its seeds. Raises FileNotFoundError if there is none."""
    values = [run.figures[figure] for run in runs if run.name == name]
    if not values:
        raise FileNotFoundError(f"no run {name!r} is stored: `python -m tutorial_lib ablate gmvae` trains it")
    return sum(values) / len(values)


# ---- all figures ----------------------------------------------------------------------------------------------------------


def evaluate(method: GMVAE, card: dict | None = None, *, samples: int = 5000) -> dict[str, float]:
    """All figures by name: the model's on PaperFaces, and those of the runs that `ablate` stored.

    probe.label_from_zs: as a share of the oracle's accuracy; probe.rest_from_zu: the mean over `REST` of what z_u gives as a
    share of what the image gives. Raises ValueError for a model of other data, FileNotFoundError if a stored run is missing.
    """
    if method.config.label != "identity":
        raise ValueError(f"the model must have PaperFaces' identity as its label, got {method.config.label!r}")
    runs, oracle = stored_runs(), load("face_oracle")
    stored = {
        "moons.coverage": stored_figure(runs, "moons", "coverage"),
        "moons.cvaegan.coverage": stored_figure(runs, "moons.cvaegan", "coverage"),
        "digits.accuracy": stored_figure(runs, "digits", "accuracy"),
    }
    compared = {f"{kind}.{name}": stored_figure(runs, kind, name) for kind in COMPARED for name in ("is", "diversity", "fid")}
    others = {
        "compared.active_units": stored_figure(runs, "compared", "active_units"),
        "vae.active_units": stored_figure(runs, "vae", "active_units"),
        "unseen.label": stored_figure(runs, "unseen", "label"),
        "unseen.rest": stored_figure(runs, "unseen", "rest"),
        "unseen.beside.label": stored_figure(runs, "unseen.beside", "label"),
        "unseen.beside.rest": stored_figure(runs, "unseen.beside", "rest"),
    }
    inpainted = {f"{name}.inpaint.psnr": stored_figure(runs, name, "inpaint.psnr") for name in ("compared", "cvaegan")}
    method.eval()
    made = quality(method, oracle, samples)
    read = probes(method, oracle, samples)
    rest = [share(read[factor]["z_u"], read[factor]["image"]) for factor in REST]
    return {
        **stored,
        **{name: made[name] for name in ("is", "diversity", "fid")},
        **compared,
        "probe.label_from_zs": share(read["identity"]["z_s"], read["identity"]["image"]),
        "probe.label_from_zu_over_chance": read["identity"]["z_u"] * method.config.n_classes,
        "probe.rest_from_zu": sum(rest) / len(rest),
        "active_units": collapse(method, min(2000, samples))[0],
        **others,
        "inpaint.psnr": mean_psnr(inpainting(method, min(1000, samples))),
        **inpainted,
    }


def table(figures: dict[str, float]) -> str:
    """The figures beside their bars, what the paper claims of them, and its own."""
    lines = beside_bars(figures, BARS, "PaperFaces and toys")
    lines += ["", f"{'the paper claims':<60}{'measured':>16}"]
    for name, sign, factor, other in CLAIMS:
        if name not in figures or other not in figures:
            continue
        value, limit = figures[name], figures[other]
        holds = value >= factor * limit if sign == ">=" else value <= factor * limit
        claim = f"{name} {sign} {'' if factor == 1 else f'{factor:g} x '}{other}"
        lines.append(f"{claim:<60}{value:>8.3f}{limit:>8.3f}  {'yes' if holds else 'no'}")
    lines += ["", f"{'the paper':<32}{'faces':>10}{'CIFAR-10':>10}{'CIFAR-100':>10}{'birds':>10}"]
    lines += [f"{name:<32}" + "".join(f"{value:>10.4f}" for value in row) for name, row in PAPER.items()]
    return "\n".join(lines)
