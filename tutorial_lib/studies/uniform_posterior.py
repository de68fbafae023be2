"""What the uniform-posterior paper claims, measured on PaperFaces.

    python -m tutorial_lib evaluate uniform_posterior      # the shipped checkpoint, beside the shipped StarGAN
    python -m tutorial_lib ablate uniform_posterior        # Fig. 4, Table III: trains the shallow model, three seeds each way

Attributes are read off results by the face oracle, which knows the held-out people too.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from torch import Tensor

from tutorial_lib.data.batched import InMemory
from tutorial_lib.data.faces import EXPRESSIONS, HELD_OUT, ILLUMINATIONS, PEOPLE, TRAINING, PaperFaces, Scene, render
from tutorial_lib.methods.baselines import StarGAN
from tutorial_lib.methods.uniform_posterior import ShallowModel, UniformPosterior
from tutorial_lib.metrics.control import ControlMatrix
from tutorial_lib.metrics.embedding import embed
from tutorial_lib.metrics.face_oracle import FaceOracle, Reading
from tutorial_lib.metrics.generation import extract, fid
from tutorial_lib.metrics.hopkins import hopkins
from tutorial_lib.metrics.probe import linear_probe
from tutorial_lib.studies.finegan import beside_bars
from tutorial_lib.studies.oracle import HELD_OUT as SEED
from tutorial_lib.training.checkpoints import load, results, write_text
from tutorial_lib.training.loop import averaged_weights, train
from tutorial_lib.training.presets import PRESETS, build

BARS = {
    "hopkins.with.worst": ("<=", 0.65), "hopkins.without.worst": (">=", 0.73),
    "entropy.expression_from_identity": (">=", 0.9), "entropy.identity_from_expression": (">=", 0.9),
    "own.accuracy": (">=", 0.95), "synthesis.accuracy": (">=", 0.95), "label.accuracy": (">=", 0.95),
    "intensity": (">=", 0.8), "identity.kept": (">=", 0.8),
}  # fmt: skip

# Table III: Hopkins statistic with the disentanglement loss and without, mean and spread. MultiPIE, photographs.
PAPER_TABLE3 = {
    "neutral": ((0.62, 0.10), (0.80, 0.11)), "scream": ((0.52, 0.11), (0.86, 0.08)),
    "squint": ((0.57, 0.08), (0.73, 0.17)), "surprise": ((0.59, 0.10), (0.74, 0.07)),
}  # fmt: skip
# Table IV: accuracy and FID of expression synthesis on MultiPIE, BU-3DFE, RaFD.
PAPER_TABLE4 = {
    "pix2pix": ((0.99, 121.86), (0.89, 58.99), (0.99, 91.57)), "CycleGAN": ((0.96, 97.12), (0.63, 65.55), (0.93, 71.44)),
    "StarGAN": ((0.99, 75.39), (0.74, 59.58), (0.95, 55.99)), "this method": ((1.0, 90.95), (0.77, 46.62), (0.94, 52.44)),
}  # fmt: skip

NEUTRAL = EXPRESSIONS.index("neutral")

# ---- Table III: do expression codes still cluster by illumination? --------------------------------------------------------

SPACES = ("plane", "codes")  # what the statistic is taken in: the t-SNE plane of the codes, as in the paper, or the codes
LIGHTS = ("true", "shuffled")  # labels that it is taken by; shuffled, it says what is not due to light


@dataclass(frozen=True)
class Shallow:
    """One run of the shallow model, and its expression codes of faces that it was not trained on."""

    disentangled: bool  # λ_dis 1 or 0
    seed: int
    steps: int
    seconds: float
    # By `SPACES` and `LIGHTS`: mean and spread over draws, by expression and illumination.
    hopkins: dict[str, dict[str, list[list[list[float]]]]]
    accuracy: dict[str, float]  # C_m on z_m, by attribute
    entropy: float  # of C_illumination on the expression codes, as a share of log 5
    probe: float  # accuracy of a linear probe for the illumination on the same codes
    plane: list[list[float]]  # t-SNE of the expression codes, (N, 2)
    expression: list[int]
    illumination: list[int]

    @property
    def name(self) -> str:
        return f"{'with' if self.disentangled else 'without'}_{self.seed}"


def among_their_own(points: np.ndarray, expression: np.ndarray, neighbours: int = 15) -> np.ndarray:
    """Which points (N, d) lie in their expression's cluster: most of those around have the same expression, (N,) bool.

    A face that is taken for another's expression lies in another cluster, and says nothing about its own.
    """
    from sklearn.neighbors import NearestNeighbors

    around = NearestNeighbors(n_neighbors=neighbours).fit(points).kneighbors(return_distance=False)
    return (expression[around] == expression[:, None]).mean(axis=1) > 0.5


def illumination_hopkins(points: np.ndarray, expression: np.ndarray, illumination: np.ndarray) -> list[list[list[float]]]:
    """The Hopkins statistic [expression][illumination] of points (N, d), as [mean, standard deviation] over draws.

    Of the faces in an expression's cluster (`among_their_own`) that have one light: 0.5 if light says nothing about where in it
    a face lies, near 1 if each light has a corner of it to itself. The paper says "within each expression cluster" and "per
    illumination label", and not what the m points are thrown into. In a plane they are thrown where the cluster is. In the
    usual box the clusters of the stored runs score 0.71 to 0.95 even with shuffled lights, for they are long and bent. In more
    dimensions they are the cluster's faces under other lights: almost all of a box, or of a window, is empty there. NaN where
    there are fewer than ten faces.
    """
    inside, rows = among_their_own(points, expression), []
    for e in range(len(EXPRESSIONS)):
        cluster = inside & (expression == e)
        row = []
        for i in range(len(ILLUMINATIONS)):
            part, others = points[cluster & (illumination == i)], points[cluster & (illumination != i)]
            where = {"window": points[cluster]} if points.shape[1] == 2 else {"reference": others}
            enough = min(len(part), len(others)) > 9
            found = hopkins(part, m=min(len(part) // 10, len(others), 100), **where) if enough else None
            row.append([round(found.mean, 4), round(found.std, 4)] if found else [math.nan, math.nan])
        rows.append(row)
    return rows


@torch.no_grad()
def measure_shallow(model: ShallowModel, data: PaperFaces) -> dict:
    """What a run of the shallow model is described by, on faces that it was not trained on: fields of `Shallow`."""
    faces = data.batch(range(len(data)))
    codes = model.encode(faces["image"])
    expression, illumination = (faces[name].numpy() for name in ("expression", "illumination"))
    spaces = {"plane": embed(codes["expression"].numpy()), "codes": codes["expression"].numpy()}
    lights = {"true": illumination, "shuffled": np.random.default_rng(0).permutation(illumination)}
    accuracy = {
        name: float((classifier.read(codes[name]).argmax(1) == faces[name]).float().mean())
        for name, classifier in model.classifiers.items()
    }
    return {
        "hopkins": {
            space: {name: illumination_hopkins(points, expression, labels) for name, labels in lights.items()}
            for space, points in spaces.items()
        },
        "accuracy": accuracy,
        "entropy": entropy_share(model.classifiers["illumination"].read(codes["expression"])),
        "probe": linear_probe(codes["expression"].numpy(), illumination),
        "plane": spaces["plane"].round(2).tolist(),
        "expression": expression.tolist(),
        "illumination": illumination.tolist(),
    }


def entropy_share(logits: Tensor) -> float:
    """The mean entropy of posteriors of logits (B, n), as a share of its ceiling log n."""
    return float(torch.distributions.Categorical(logits=logits).entropy().mean() / math.log(logits.shape[1]))


def ablate(
    folder: Path, *, steps: int | None = None, seed: int = 0, seeds: int = 3, samples: int = 2000
) -> dict[str, dict[str, float]]:
    """Train the shallow model with the disentanglement loss and without, from `seeds` seeds onwards from `seed`.

    steps: the preset's if left out. Writes each run into `folder`; runs of as many steps that are there already are kept.
    Returns Table III for each run, in the t-SNE plane: the mean over illuminations by expression.
    """
    preset = PRESETS["uniform_posterior_shallow"]["laptop"]
    steps = preset.run.steps if steps is None else steps
    data = InMemory(preset.dataset())
    folder.mkdir(parents=True, exist_ok=True)
    done = {run.name for run in stored_runs(folder) if run.steps == steps}
    for run in range(seed, seed + seeds):
        for disentangled in (True, False):
            if f"{'with' if disentangled else 'without'}_{run}" in done:
                continue
            torch.manual_seed(run)
            model = build(replace(preset.method, disentanglement_weight=float(disentangled)))
            history = train(model, data, replace(preset.run, steps=steps, seed=run)).whole()
            with averaged_weights(model, history.averaged):
                measured = measure_shallow(model, PaperFaces(**preset.data | {"length": samples, "seed": SEED}))
            shallow = Shallow(disentangled, run, steps, round(history.seconds, 1), **measured)
            write_text(json.dumps(vars(shallow)) + "\n", folder / f"{shallow.name}.json")
    return {run.name: {row: cell[0] for row, cell in table3([run])[run.disentangled].items()} for run in stored_runs(folder)}


def stored_runs(folder: Path | None = None) -> list[Shallow]:
    """The runs that `ablate` wrote into `folder` (the course's own if left out), those with the loss first, by seed."""
    folder = results("uniform_posterior") if folder is None else folder
    runs = [Shallow(**json.loads(path.read_text())) for path in folder.glob("*.json")]
    return sorted(runs, key=lambda run: (not run.disentangled, run.seed))


def table3(runs: list[Shallow], lights: str = "true", space: str = "plane") -> dict[bool, dict[str, tuple[float, float]]]:
    """Table III, with the disentanglement loss (True) and without: by expression, mean and spread of the Hopkins statistic.

    The mean is over illuminations and seeds; the spread is the standard deviation over those and over the draws of each.
    """
    table = {}
    for disentangled in (True, False):
        values = [run.hopkins[space][lights] for run in runs if run.disentangled == disentangled]
        if not values:
            continue
        means, stds = np.moveaxis(np.array(values), -1, 0)  # (seeds, expressions, illuminations) each
        spread = np.sqrt(means.var(axis=(0, 2)) + np.square(stds).mean(axis=(0, 2)))
        cells = zip(EXPRESSIONS, means.mean(axis=(0, 2)).tolist(), spread.tolist(), strict=True)
        table[disentangled] = {name: (round(value, 4), round(std, 4)) for name, value, std in cells}
    return table


def hopkins_figures(runs: list[Shallow]) -> dict[str, float]:
    """`hopkins.with` and `.without`, the mean of Table III over expressions, and `.worst`, its worst expression.

    Those are of the plane; `hopkins.codes.*` are of the codes.
    """
    figures = {}
    for space in SPACES:
        for disentangled, rows in table3(runs, space=space).items():
            name = "hopkins." + ("" if space == "plane" else f"{space}.") + ("with" if disentangled else "without")
            values = [value for value, _ in rows.values()]
            worst = np.max if disentangled else np.min  # which, unlike Python's, tell of a value that is NaN
            figures |= {name: mean(values), f"{name}.worst": float(worst(values))}
    return figures


# ---- the full model: what its codes say -----------------------------------------------------------------------------------


def acquaintances(model: UniformPosterior, samples: int, seed: int) -> PaperFaces:
    """New faces of the people that a model was trained on: the 40, or the crowd too if it has a class for each of them."""
    identities = "many" if dict(model.config.attributes).get("identity") == PEOPLE else "train"
    return PaperFaces(model.config.image_size, length=samples, seed=seed, identities=identities)


@torch.no_grad()
def posteriors(model: UniformPosterior, samples: int = 2000) -> dict[str, float]:
    """`entropy.A_from_B`: of C_A on codes of B, as a share of its ceiling (Fig. 5); `own.A`: accuracy of C_A on its own.

    B is every attribute and "rest". On `samples` faces that were not trained on, of the people that were.
    """
    sums: dict[str, float] = {}
    for batch in acquaintances(model, samples, SEED).stream(100):
        codes, share = model.encode(batch["image"]), len(batch["image"]) / samples
        for attribute, classifier in model.classifiers.items():
            own = (classifier.read(codes[attribute]).argmax(1) == batch[attribute]).float().mean()
            found = {f"entropy.{attribute}_from_{of}": entropy_share(classifier.read(code)) for of, code in codes.items()}
            for name, value in (found | {f"own.{attribute}": float(own)}).items():
                sums[name] = sums.get(name, 0.0) + share * value
    return sums


@torch.no_grad()
def recognition(model: UniformPosterior, samples: int = 2000) -> dict[str, float]:
    """The share of real pictures of which C_expression is right: new ones of people it has learned from, and of strangers.

    Mixed pictures learn their expression from this classifier alone.
    """
    size, classifier = model.config.image_size, model.classifiers["expression"]
    whose = {
        "classifier.known": acquaintances(model, samples, SEED + 7),
        "classifier.strangers": PaperFaces(size, length=samples, seed=SEED + 7, identities="held_out"),
    }
    return {
        name: sum(int((classifier(part["image"]).argmax(1) == part["expression"]).sum()) for part in faces.stream(100))
        / samples
        for name, faces in whose.items()
    }


@torch.no_grad()
def probe_matrix(model: UniformPosterior, samples: int = 2000) -> ControlMatrix:
    """What a linear probe reads off each code: accuracy by code (the attributes', then the rest's) and attribute.

    On at least 400 faces, of which some are of each person.

    A uniform posterior says that C_m', which is linear, reads nothing off a code; another linear map still might. Faces that
    were not trained on, of the 40 people.
    """
    samples = max(samples, 400)
    faces = PaperFaces(model.config.image_size, length=samples, seed=SEED).batch(range(samples))
    attributes = tuple(model.classifiers)
    names = (*attributes, *(name for name in model.encoders if name not in attributes))
    rows = []
    for name in names:  # one code at a time: together they are large
        images = faces["image"].split(100)
        codes = torch.cat([model.encoders[name](part).flatten(1) for part in images]).numpy()
        rows.append([linear_probe(codes, faces[attribute].numpy(), folds=2) for attribute in attributes])
    return ControlMatrix(np.array(rows), names, attributes)


def probe_leak(matrix: ControlMatrix, classes: dict[str, int]) -> float:
    """The largest ratio of a probe's accuracy to chance, 1 / classes, off the diagonal: 1 where nothing can be read."""
    cells = ((row, column) for row in matrix.rows for column in matrix.columns if row != column)
    return max(matrix[row, column] * classes[column] for row, column in cells)


# ---- the full model: expression synthesis on people it has not seen -------------------------------------------------------


def scene_pairs(samples: int, batch_size: int = 100) -> Iterator[tuple[Scene, Scene]]:
    """Batches of scenes of held-out people: targets, who look neutral, and donors of an expression, drawn on their own."""
    faces = PaperFaces(length=2 * samples, seed=SEED + 3, identities="held_out")
    for start in range(0, samples, batch_size):
        rows = range(start, min(start + batch_size, samples))
        target = faces.scenes(rows)
        target = target.replace(expression=torch.full_like(target.expression, NEUTRAL))
        yield target, faces.scenes([samples + i for i in rows])


def pairs(size: int, samples: int, batch_size: int = 100) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """The pictures of `scene_pairs`, with their labels."""
    for target, donor in scene_pairs(samples, batch_size):
        yield render(target, size), render(donor, size)


@dataclass
class Synthesis:
    """What the oracle reads off N results, and what it should: the targets' identity, the donors' expression and strength."""

    reading: Reading
    identity: Tensor
    expression: Tensor
    strength: Tensor

    def accuracy(self) -> float:
        """The share of results with the donor's expression."""
        return float((self.reading.labels()["expression"] == self.expression).float().mean())

    def intensity(self) -> float:
        """Pearson's correlation of donors' strengths with the results', over expressions that have one; 0 if constant."""
        seen = self.expression != NEUTRAL
        given, found = self.strength[seen].double(), self.reading.strength[seen].double()
        if found.std() == 0:
            return 0.0
        return float(torch.corrcoef(torch.stack([given, found]))[0, 1])

    def kept(self, gallery: Tensor) -> float:
        """The share of results whose identity features lie nearest to their target's own in a gallery (HELD_OUT, n)."""
        nearest = TRAINING + (self.reading.features @ gallery.T).argmax(1)
        return float((nearest == self.identity).float().mean())


@torch.no_grad()
def synthesise(
    model: UniformPosterior | StarGAN, oracle: FaceOracle, samples: int = 2000, *, means: Tensor | None = None
) -> Synthesis:
    """Give neutral held-out people the expressions of donors: by the donors' codes or, with StarGAN, by their labels.

    means: of each label, the code (n, *code_shape) that takes the place of the donors' own (`mean_expressions`).
    """
    readings, truth = [], []
    for target, donor in pairs(model.config.image_size, samples):
        if isinstance(model, StarGAN):
            drawn = model.translate(target["image"], expression=donor["expression"])
        else:
            given = donor["image"] if means is None else means[donor["expression"]]
            drawn = model.swap(target["image"], expression=given)
        readings.append(oracle.read(drawn.float()))
        truth.append((target["identity"], donor["expression"], donor["strength"]))
    fields = Reading.__dataclass_fields__
    reading = Reading(**{name: torch.cat([getattr(part, name) for part in readings]) for name in fields})
    return Synthesis(reading, *map(torch.cat, zip(*truth, strict=True)))


def mean_expressions(model: UniformPosterior, samples: int = 800) -> Tensor:
    """A code for each expression, as good as a label: the mean over faces of the people it was trained on (section IV-C)."""
    faces = acquaintances(model, samples, SEED + 6).batch(range(samples))
    return model.class_means("expression", faces["image"], faces["expression"])


@torch.no_grad()
def gallery(oracle: FaceOracle, samples: int = 800) -> Tensor:
    """The mean identity features of each held-out person, of length 1, (HELD_OUT, n), from real pictures."""
    sums = 0.0
    for batch in PaperFaces(oracle.config.image_size, length=samples, seed=SEED + 4, identities="held_out").stream(100):
        who = torch.nn.functional.one_hot(batch["identity"] - TRAINING, HELD_OUT).float()
        sums = sums + who.T @ oracle.read(batch["image"]).features
    return torch.nn.functional.normalize(sums)


@torch.no_grad()
def single_swaps(model: UniformPosterior, oracle: FaceOracle, samples: int = 2000) -> dict[str, float]:
    """Held-out people get one attribute A from held-out donors, an expression with its strength, and are looked at in two ways.

    `swap.A`: the share of results in which the oracle reads the donor's. A person counts as the donor if the identity features
    of the result lie nearest to the donor's own in a gallery.
    `l1.A`: mean |result − true picture|, which lies in [0, 2]; `l1.again`: of the targets themselves, drawn again.
    """
    size, people = model.config.image_size, gallery(oracle)
    right, off = dict.fromkeys(model.classifiers, 0.0), dict.fromkeys(("again", *model.classifiers), 0.0)

    def distance(drawn: Tensor, true: Scene) -> float:
        return float((drawn - render(true, size)["image"]).abs().mean((1, 2, 3)).sum()) / samples

    for target, donor in scene_pairs(samples):
        codes, given = (model.encode(render(scene, size)["image"]) for scene in (target, donor))
        off["again"] += distance(model.decode(codes).float(), target)
        for name in model.classifiers:
            drawn = model.decode(codes | {name: given[name]}).float()
            factors = (name, "strength") if name == "expression" else (name,)
            off[name] += distance(drawn, target.replace(**{factor: getattr(donor, factor) for factor in factors}))
            reading = oracle.read(drawn)
            found = reading.labels() | {"identity": TRAINING + (reading.features @ people.T).argmax(1)}
            right[name] += float((found[name] == getattr(donor, name)).sum()) / samples
    return {f"swap.{name}": share for name, share in right.items()} | {f"l1.{name}": mean for name, mean in off.items()}


def evaluate(method: UniformPosterior, card: dict | None = None, *, samples: int = 2000) -> dict[str, float]:
    """All figures of the method on PaperFaces, by name; those of Table III are of the runs that `ablate` stored, if it did."""
    oracle, stargan = load("face_oracle"), load("stargan")
    method.eval()
    said = posteriors(method, samples)
    real = PaperFaces(method.config.image_size, length=samples, seed=SEED + 5, identities="held_out")
    features = extract(lambda x: oracle.read(x).activations, (batch["image"] for batch in real.stream(100)))
    ours, theirs = (synthesise(model, oracle, samples) for model in (method, stargan))
    by_label = synthesise(method, oracle, samples, means=mean_expressions(method))
    figures = hopkins_figures(stored_runs()) | single_swaps(method, oracle, samples)
    figures |= recognition(method, samples)
    return figures | {
        "entropy.expression_from_identity": said["entropy.expression_from_identity"],
        "entropy.identity_from_expression": said["entropy.identity_from_expression"],
        "own.accuracy": min(said[f"own.{attribute}"] for attribute in method.classifiers),
        "synthesis.accuracy": ours.accuracy(),
        "label.accuracy": by_label.accuracy(),
        "label.fid": fid(features, by_label.reading.activations.numpy()),
        "fid": fid(features, ours.reading.activations.numpy()),
        "stargan.fid": fid(features, theirs.reading.activations.numpy()),
        "stargan.accuracy": theirs.accuracy(),
        "intensity": ours.intensity(),
        "stargan.intensity": theirs.intensity(),
        "identity.kept": ours.kept(gallery(oracle)),
        "probe.leak": probe_leak(probe_matrix(method, samples), dict(method.config.attributes) | {"identity": TRAINING}),
    }


def table(figures: dict[str, float], runs: list[Shallow] | None = None) -> str:
    """The figures beside their bars, Table III of `runs` (those stored if left out) beside the paper's, and its Table IV."""
    lines = beside_bars(figures, BARS, "PaperFaces")
    runs = stored_runs() if runs is None else runs
    for space, lights in product(SPACES, LIGHTS):
        rows = table3(runs, lights, space)
        lines += ["", f"{f'Hopkins, {space}, {lights}':<24}{'with':>14}{'without':>14}{'paper: with':>16}{'without':>14}"]
        for name, paper in PAPER_TABLE3.items():
            ours = [rows.get(disentangled, {}).get(name, (math.nan, math.nan)) for disentangled in (True, False)]
            cells = "".join(
                f"{f'{value:.2f} ± {std:.2f}':>{width}}"
                for (value, std), width in zip((*ours, *paper), (14, 14, 16, 14), strict=True)
            )
            lines.append(f"{name:<24}{cells}")
    lines += ["", f"{'accuracy / FID':<24}" + "".join(f"{name:>16}" for name in ("MultiPIE", "BU-3DFE", "RaFD"))]
    for name, row in PAPER_TABLE4.items():
        lines.append(f"{name:<24}" + "".join(f"{f'{accuracy:.2f} / {distance:.2f}':>16}" for accuracy, distance in row))
    return "\n".join(lines)
