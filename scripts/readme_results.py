"""Write the README's results from the figures in the model cards: python scripts/readme_results.py

Each table stands between <!-- results:NAME --> and <!-- /results -->; a test holds the README to what this prints.
"""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = re.compile(r"(<!-- results:(\w+) -->\n).*?(<!-- /results -->)", re.DOTALL)


def card(name: str) -> dict:
    """The card of a shipped checkpoint."""
    return json.loads((ROOT / "data" / "checkpoints" / f"{name}.json").read_text())


def bars() -> str:
    """FineGAN beside its bars."""
    about = card("finegan")
    f = about["figures"]
    rows = [
        ("control of *b* over background", f"{f['control.background']:.2f}", "≥ 0.80"),
        ("control of *p* over shape", f"{f['control.shape']:.2f}", "≥ 0.80"),
        ("control of *c* over texture", f"{f['control.texture']:.2f}", "≥ 0.80"),
        ("largest leak of *b*, *p*, *c* off the diagonal", f"{f['control.leak']:.2f}", "≤ 0.15"),
        ("pose explained by *z*, mean R² (given *p* too)", f"{f['pose.r2']:.2f} ({f['pose.r2.given_p']:.2f})", "≥ 0.60"),
        ("mask against the oracle's, IoU", f"{f['mask.iou']:.2f}", "≥ 0.75"),
        ("parameters of the generator", f"{f['params']:,.0f}", ""),
        ("pictures seen in training", f"{about['images']:,}", ""),
        ("training, wall time on two busy cores", f"{about['seconds'] / 60:.0f} minutes", "≤ 120"),
    ]
    missed = {name for name, value, bar in rows[:6] if not reached(value, bar)}
    rows = [(name, value, bar + (" (missed)" if name in missed else "")) for name, value, bar in rows]
    return "\n".join(["| | measured | bar |", "|---|---|---|", *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def reached(value: str, bar: str) -> bool:
    """Whether a figure as shown is on the right side of its bar."""
    sign, limit = bar.split()
    number = float(value.split()[0])
    return number >= float(limit) if sign == "≥" else number <= float(limit)


def paper() -> str:
    """FineGAN beside its paper."""
    f = card("finegan")["figures"]

    def clusters(score: str) -> str:
        return f"shape {f[score + '.shape']:.2f}, texture {f[score + '.texture']:.2f}"

    rows = [
        ("FID, FineGAN", f"{f['fid']:.1f} (floor {f['fid.floor']:.1f})", "11.25", "25.66", "16.03"),
        ("FID, InfoGAN of the same size and budget", f"{f['infogan.fid']:.1f}", "13.20", "29.34", "17.63"),
        ("KID, FineGAN; InfoGAN", f"{f['kid']:.3f}; {f['infogan.kid']:.3f}", "–", "–", "–"),
        ("Inception Score, FineGAN", f"{f['is']:.2f}", "52.53", "46.92", "32.62"),
        ("clustering NMI", f"shape {f['nmi.shape']:.2f}, texture {f['nmi.texture']:.2f}", "0.403", "0.233", "0.354"),
        (
            "clustering accuracy",
            f"shape {f['accuracy.shape']:.2f}, texture {f['accuracy.texture']:.2f}",
            "0.126",
            "0.079",
            "0.078",
        ),
    ]
    head = ["| | here | paper: birds | dogs | cars |", "|---|---|---|---|---|"]
    return "\n".join([*head, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def oracle() -> str:
    """The oracle on held-out renders."""
    f = card("oracle")["figures"]
    pose = {name.removeprefix("pose."): value for name, value in f.items() if name.startswith("pose.")}
    worst = min(pose, key=pose.get)
    cells = [f"{100 * f[name]:.1f} %" for name in ("background", "shape", "texture")]
    cells += [f"{f['keypoints']:.2f} pixels", f"IoU {f['mask.iou']:.3f}", f"R² at least {pose[worst]:.2f} ({worst})"]
    return (
        "| background | shape | texture | keypoints | mask | pose |\n|---|---|---|---|---|---|\n"
        f"| {' | '.join(cells)} |\n| bar: 99 % | 99 % | 99 % | 1 pixel | 0.95 | 0.95 |\n"
    )


TABLES = {"bars": bars, "paper": paper, "oracle": oracle}


def filled(text: str) -> str:
    """`text` with every table written anew."""
    return PLACE.sub(lambda place: place[1] + TABLES[place[2]]() + place[3], text)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text()))
