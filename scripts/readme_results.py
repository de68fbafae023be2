"""Write the README's results from the figures in the model cards: python scripts/readme_results.py

Each table stands between <!-- results:NAME --> and <!-- /results -->; a test holds the README to what this prints.
"""

import argparse
import json
import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from tutorial_lib.studies import comgan, gmvae, mixnmatch, uniform_posterior
from tutorial_lib.studies.finegan import BARS, PAPER, reached
from tutorial_lib.training.checkpoints import lineage

ROOT = Path(__file__).resolve().parent.parent
PLACE = re.compile(r"(<!-- results:(\w+) -->\n).*?(<!-- /results -->)", re.DOTALL)


def card(name: str) -> dict:
    """The card of a shipped checkpoint."""
    return json.loads((ROOT / "data" / "checkpoints" / f"{name}.json").read_text())


def whole(about: dict, name: str) -> float:
    """What a card says of all these runs together: `images`, `steps` or `seconds`."""
    return sum(stage[name] for stage in lineage(about))


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the first column has no head."""
    lines = [("", *heads), ("---",) * (1 + len(heads)), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def beside(name: str, value: float, bars: dict[str, tuple[str, float]]) -> str:
    """The bar that a figure has to reach, and whether it missed it."""
    sign, limit = bars[name]
    return f"{'≥' if sign == '>=' else '≤'} {limit:.2f}{'' if reached(name, value, bars) else ' (missed)'}"


def measured(name: str, figures: dict[str, float], bars: dict[str, tuple[str, float]]) -> tuple[str, str]:
    """A figure, to two places or as many more as show that it missed its bar, and the bar, if there is one."""
    value, places = figures[name], 2
    if name not in bars:
        return f"{value:.2f}", ""
    while f"{value:.{places}f}" == f"{bars[name][1]:.{places}f}" and not reached(name, value, bars):
        places += 1
    return f"{value:.{places}f}", beside(name, value, bars)


def bars() -> str:
    """FineGAN beside its bars."""
    about = card("finegan")
    f, sorting = about["figures"], next(stage for stage in lineage(about) if stage["method"] == "finegan_clusters")
    minutes, both = whole(about, "seconds") / 60, (about["seconds"] + sorting["seconds"]) / 60

    def row(label: str, name: str, text: str = "") -> tuple[str, str, str]:
        figure, bar = measured(name, f, BARS)
        return label, text or figure, bar

    rows = [
        row("control of *b* over background", "control.background"),
        row("control of *p* over shape", "control.shape"),
        row("control of *c* over texture", "control.texture"),
        row("largest leak of *b*, *p*, *c* off the diagonal", "control.leak"),
        row(
            "pose explained by *z*, mean R² (by the parent's share of *z*, and *p*)",
            "pose.r2",
            f"{f['pose.r2']:.2f} ({f['pose.r2.given_p']:.2f})",
        ),
        row("mask against the oracle's, IoU", "mask.iou"),
        (
            "real pictures sorted without labels: NMI with shape; texture",
            f"{f['sorted.shape']:.2f}; {f['sorted.texture']:.2f}",
            "",
        ),
        ("parameters of the generator", f"{f['params']:,.0f}", ""),
        (
            f"pictures seen in training ({sorting['images']:,} of them its own, to cut out real ones)",
            f"{whole(about, 'images'):,}",
            "",
        ),
        (f"training, core-minutes ({both:.0f} minutes on two cores, the others on one)", f"{minutes + both:.0f}", "≤ 240"),
    ]
    return markdown(("measured", "bar"), rows)


def paper() -> str:
    """FineGAN beside its paper."""
    f = card("finegan")["figures"]

    def clusters(score: str) -> str:
        return f"shape {f[score + '.shape']:.2f}, texture {f[score + '.texture']:.2f}"

    def published(name: str, digits: int) -> list[str]:
        return [f"{value:.{digits}f}" for value in PAPER[name]]

    rows = [
        ("FID, FineGAN", f"{f['fid']:.1f} (floor {f['fid.floor']:.1f})", *published("fid", 2)),
        ("FID, InfoGAN of the same size", f"{f['infogan.fid']:.1f}", *published("infogan.fid", 2)),
        ("KID, FineGAN; InfoGAN", f"{f['kid']:.3f}; {f['infogan.kid']:.3f}", "–", "–", "–"),
        ("Inception Score, FineGAN", f"{f['is']:.2f}", *published("is", 2)),
        ("Inception Score, InfoGAN", f"{f['infogan.is']:.2f}", *published("infogan.is", 2)),
        ("clustering NMI", f"shape {f['nmi.shape']:.2f}, texture {f['nmi.texture']:.2f}", *published("nmi", 3)),
        (
            "clustering accuracy",
            f"shape {f['accuracy.shape']:.2f}, texture {f['accuracy.texture']:.2f}",
            "0.126",
            "0.079",
            "0.078",
        ),
    ]
    return markdown(("here", "paper: birds", "dogs", "cars"), rows)


def oracle() -> str:
    """The oracle on held-out renders."""
    f = card("oracle")["figures"]
    pose = {name.removeprefix("pose."): value for name, value in f.items() if name.startswith("pose.")}
    worst = min(pose, key=pose.get)
    least = math.floor(100 * pose[worst]) / 100  # "at least" must stay true
    cells = [f"{100 * f[name]:.1f} %" for name in ("background", "shape", "texture")]
    cells += [f"{f['keypoints']:.2f} pixels", f"IoU {f['mask.iou']:.3f}", f"R² at least {least:.2f} ({worst})"]
    return (
        "| background | shape | texture | keypoints | mask | pose |\n|---|---|---|---|---|---|\n"
        f"| {' | '.join(cells)} |\n| bar: 99 % | 99 % | 99 % | 1 pixel | 0.95 | 0.95 |\n"
    )


def faces() -> str:
    """The face oracle on held-out draws."""
    f = card("face_oracle")["figures"]
    names = ("identity", "expression", "illumination", "gaze")
    cells = [f"{100 * f[name]:.1f} %" for name in names] + [f"R² {f['strength']:.3f}"]
    missed = " (missed)" if f["strength"] < 0.98 else ""
    return (
        f"| {' | '.join(names)} | strength |\n|---|---|---|---|---|\n"
        f"| {' | '.join(cells)} |\n| bar: 98 % | 98 % | 98 % | 98 % | 0.98{missed} |\n"
    )


MIXES = {
    "encode.background": "code *b* read off real pictures, NMI with the background",
    "encode.shape": "code *p*, with the shape",
    "encode.texture": "code *c*, with the texture",
    "mix.background": "mixes of four donors that keep the donor's background",
    "mix.shape": "… shape",
    "mix.texture": "… texture",
    "pose.r2.code": "pose of the mix explained by B's pose, R², code mode",
    "pose.r2.feature": "… feature mode",
    "mask.iou.feature": "mask in feature mode against B's true mask, IoU",
}
TABLE3 = {
    "finegan": "FineGAN, encoders fitted afterwards",
    "code": "code mode",
    "feature": "feature mode",
    "code_short": "code mode, short run",
    "no_paired": "… without the paired loss",
    "no_reprediction": "… without reprediction",
    "tied": "… codes tied in reprediction",
    "redraw": "… and L1 of pictures redrawn, for the encoders",
    "feature_short": "feature mode, short run",
    "no_l1": "… without L1",
    "no_adversarial": "… without the adversarial loss",
    "l1_more": "… with a hundred times the weight on L1",
    "redraw_at_once": "… and L1 of pictures redrawn, for S, from the start",
}


def mixes() -> str:
    """MixNMatch beside its bars."""
    f = card("mixnmatch")["figures"]
    rows = [(label, *measured(name, f, mixnmatch.BARS)) for name, label in MIXES.items()]
    rows += [("FID; FineGAN's", f"{f['fid']:.1f}; {f['finegan.fid']:.1f}", "")]
    for name, code in (("shape", "p"), ("texture", "c")):
        values = [f[key] for key in (f"nmi.{name}", f"alone.nmi.{name}", f"finegan.nmi.{name}")]
        label = (
            f"NMI, {name}: features for *p* and *c* together, as published; for *{code}* alone; FineGAN's for *{code}* alone"
        )
        rows.append((label, "; ".join(f"{value:.2f}" for value in values), ""))
    return markdown(("measured", "bar"), rows)


def table3() -> str:
    """MixNMatch's Table 3, and FID, beside the paper's."""
    f = card("mixnmatch")["figures"]
    rows = []
    for row, label in TABLE3.items():
        cells = [f"{f[f'table3.{row}.shape']:.2f}", f"{f[f'table3.{row}.texture']:.3f}"]
        paper = [f"{value:g}" for value in mixnmatch.PAPER_TABLE3.get(row, ())] or ["–", "–"]
        rows.append((label, *cells, *paper))
    return markdown(("keypoint L2, pixels of 64", "texture χ²", "paper: pixels of 128", "χ²"), rows)


ATTRIBUTES = {
    "synthesis.accuracy": ("results with the donor's expression, from the donor's code", "stargan.accuracy"),
    "label.accuracy": ("… from the mean code of the expression, as good as the label that StarGAN gets", "stargan.accuracy"),
    "intensity": ("strength of the donor's expression and of the result's, correlation", "stargan.intensity"),
    "identity.kept": ("results nearest to the right one of eight strangers", None),
    "own.accuracy": ("own attribute read off its code, the worst", None),
    "entropy.expression_from_identity": ("entropy of C_expression on codes of identity, share of its ceiling", None),
    "entropy.identity_from_expression": ("entropy of C_identity on codes of expression", None),
}


def attributes() -> str:
    """The uniform-posterior model beside its bars and StarGAN."""
    f = card("uniform_posterior")["figures"]
    rows = []
    for name, (label, other) in ATTRIBUTES.items():
        theirs = "–" if other is None else f"{f[other]:.2f}"
        rows.append((label, *measured(name, f, uniform_posterior.BARS), theirs))
    swaps = ", ".join(f"{f[f'swap.{name}']:.2f}" for name in ("identity", "illumination", "gaze"))
    rows += [
        ("results with the donor's identity, illumination, gaze", swaps, "", "–"),
        (
            "distance (L1, of 2) from a result with the donor's expression to the true picture",
            f"{f['l1.expression']:.3f}",
            "",
            "–",
        ),
        (
            "its classifier, from real pictures: expressions of people it knows, of strangers",
            f"{f['classifier.known']:.2f}, {f['classifier.strangers']:.2f}",
            "",
            "–",
        ),
        ("FID, oracle features", f"{f['fid']:.1f}", "", f"{f['stargan.fid']:.1f}"),
        ("a linear probe's best accuracy for another attribute, times chance", f"{f['probe.leak']:.1f}", "", "–"),
    ]
    return markdown(("measured", "bar", "StarGAN"), rows)


def hopkins() -> str:
    """The uniform-posterior paper's Table III beside the paper's."""
    measured = uniform_posterior.table3(uniform_posterior.stored_runs())
    rows = []
    for name, published in uniform_posterior.PAPER_TABLE3.items():
        pairs = measured[True][name], measured[False][name], *published
        rows.append((name, *(f"{mean:.2f} ± {spread:.2f}" for mean, spread in pairs)))
    return markdown(("with the loss", "without", "paper: with", "without"), rows)


def segmentation() -> str:
    """DS-ComGAN's masks of real pictures beside bars, GrabCut and a supervised network."""
    f = card(comgan.SHIPPED)["figures"]

    def row(label: str, prefix: str, bar: str = "") -> tuple[str, str, str, str]:
        return label, f"{f[f'{prefix}iou']:.2f}", f"{f[f'{prefix}dice']:.2f}", bar

    photographs = comgan.PAPER_SEGMENTATION["DS-ComGAN"][0].split(" / ")
    rows = [
        row("S, one bird, with its mirror image", "", beside("iou", f["iou"], comgan.BARS)),
        ("… by one look, as published", f"{f['iou.one_look']:.2f}", "–", ""),
        ("… with the better side of each picture, as in the public code", f"{f['iou.per_image']:.2f}", "–", ""),
        row("S, several birds", "several.", beside("several.iou", f["several.iou"], comgan.BARS)),
        row("GrabCut, one bird", "grabcut."),
        row("the same U-Net, trained on true masks", "supervised."),
        ("paper: DS-ComGAN, photographs of birds", *(f"{float(percent) / 100:.2f}" for percent in photographs), ""),
    ]
    return markdown(("IoU", "Dice", "bar, IoU"), rows)


def layers() -> str:
    """DS-ComGAN's pictures and control beside FineGAN's and MixNMatch's."""
    f = card(comgan.SHIPPED)["figures"]
    models = {"DS-ComGAN": "", "FineGAN": "finegan.", "MixNMatch": "mixnmatch."}
    published = zip(*(comgan.PAPER_PICTURES[model][0].split(" / ") for model in models), strict=True)  # birds
    rows = [
        (label, *(f"{f[prefix + name]:.1f}" for prefix in models.values()), "; ".join(paper))
        for (name, label), paper in zip(
            {"fid": "FID, oracle features", "is": "Inception Score"}.items(), published, strict=True
        )
    ]
    own = {
        "control.foreground": "control of *f* over texture or shape",
        "control.background": "control of *b* over background",
        "pose.r2": "pose explained by *z*, mean R²",
    }
    rows += [(label, f"{f[name]:.2f}", "", "", "") for name, label in own.items()]
    return markdown((*models, "paper: birds"), rows)


def gradients() -> str:
    """The three families of ComGAN's paper, by their stored runs."""
    f = comgan.stored_gradient_figures()
    columns = ["gradient", "trivial", "light.trivial", "spectral.gradient", "spectral.trivial", "spectral.light.trivial"]
    rows = [
        (name, *(f"{f[f'{column}.{family}']:.2f}" for column in columns))
        for family, name in {"pi1": "Π1", "pi2": "Π2", "comgan": "ComGAN"}.items()
    ]
    heads = ("R1: gradient on a mask", "trivial masks", "… at β = 0.1", "spectral norm: gradient", "trivial", "… at β = 0.1")
    return markdown(heads, rows)


SPLIT = {
    "digits.accuracy": "held-out scanned digits, by the mixture's posterior",
    "probe.label_from_zs": "who, read off *z_s* by a linear probe, as a share of a supervised network",
    "probe.label_from_zu_over_chance": "who, read off *z_u*, times chance",
    "probe.rest_from_zu": "the rest, read off *z_u*, as a share of what the picture gives",
    "unseen.label": "swaps between strangers after tuning on them without labels: who",
    "unseen.rest": "… and the rest",
    "unseen.beside.label": "… tuned beside the forty with names: who",
    "unseen.beside.rest": "… and the rest",
}


def split() -> str:
    """The label-relevant VAE beside its bars."""
    f = card("gmvae")["figures"]
    rows = [(label, *measured(name, f, gmvae.BARS)) for name, label in SPLIT.items()]
    return markdown(("measured", "bar"), rows)


def classes() -> str:
    """The label-relevant VAE beside its baselines, after as many updates and as shipped."""
    f = card("gmvae")["figures"]
    f["moons.compared.coverage"] = f.pop("moons.coverage")
    kinds = {
        "compared.": "this model, as many updates", "cvaegan.": "cVAE-GAN", "cvae.": "cVAE", "cgan.": "cGAN",
        "": "this model, as shipped",
    }  # fmt: skip
    measures = {
        "is": ("Inception Score, at most 48", 1), "diversity": ("diversity within a person, 1 − MS-SSIM", 3),
        "fid": ("FID, oracle features", 1), "moons.coverage": ("three moons, coverage of *y*", 2),
        "inpaint.psnr": ("PSNR in the hole, dB", 1),
    }  # fmt: skip
    rows = []
    for measure, (label, digits) in measures.items():
        first, _, rest = measure.partition(".")
        names = [f"{first}.{kind}{rest}" if first == "moons" else f"{kind}{measure}" for kind in kinds]
        rows.append((label, *(f"{f[name]:.{digits}f}" if name in f else "–" for name in names)))
    return markdown(tuple(kinds.values()), rows)


def shares() -> str:
    """The share of a matrix product's FLOP/s that each method's training step reaches, highest first."""
    found = json.loads((ROOT / "data" / "results" / "training_step.json").read_text())["of_a_matrix_product"]
    ordered = sorted(found.items(), key=lambda item: -item[1])
    return textwrap.fill(", ".join(f"`{name}` {share:.2f}" for name, share in ordered), 128, break_on_hyphens=False) + "\n"


TABLES = {
    "bars": bars, "paper": paper, "mixes": mixes, "table3": table3, "attributes": attributes, "hopkins": hopkins,
    "segmentation": segmentation, "layers": layers, "gradients": gradients, "split": split, "classes": classes,
    "oracle": oracle, "faces": faces, "shares": shares,
}  # fmt: skip


def filled(text: str) -> str:
    """`text` with every table written anew."""
    return PLACE.sub(lambda place: place[1] + TABLES[place[2]]() + place[3], text)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text()))
