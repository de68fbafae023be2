"""Checkpoints: a safetensors file beside a JSON card that says where the weights come from.

    method = load("finegan")                       # shipped with the course
    method = load("runs/finegan/model.safetensors")  # one's own

Nothing is ever unpickled. A file is written beside its place and then moved there, so that a run that dies while
it writes leaves the old file whole.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

REPOSITORY = Path(__file__).resolve().parents[2]
KEPT = ("method", "sha256", "steps", "images", "seconds", "finished", "start")  # of the card of what a run started from
PACKAGES = ("torch", "torchvision", "accelerate", "safetensors", "torchmetrics", "scikit-learn", "numpy")


class CheckpointError(RuntimeError):
    """A checkpoint that is damaged, or that belongs to another method or config."""


def folder() -> Path:
    """Where shipped checkpoints lie: `data/checkpoints` of `TUTORIAL_LIB_DATA` if that is set, else of the repository.

    A package that was installed from a wheel carries them itself.
    """
    installed = Path(__file__).resolve().parents[1] / "data"
    home = installed if (installed / "checkpoints").exists() else REPOSITORY / "data"
    return Path(os.environ.get("TUTORIAL_LIB_DATA") or home) / "checkpoints"


def results(method: str) -> Path:
    """Where the stored runs of a method's ablations lie: what `ablate` writes if no other folder is named."""
    return folder().parent / "results" / f"{method}_ablation"


def shipped() -> list[str]:
    """Names of the shipped checkpoints, sorted."""
    return sorted(path.stem for path in folder().glob("*.safetensors"))


def save(method: nn.Module, path: str | Path, *, card: Mapping[str, Any]) -> Path:
    """Write `method` to `path` (*.safetensors) and its card to the same name with .json.

    `card` adds what only the caller knows (data, run, steps, images, seconds); method, config, parameters, machine,
    versions, commit and the file's SHA-256 are filled in here. If the file is the one that was there, its measured figures
    stay, and where it was made.
    Raises OSError if the disk has no room for the file.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path: a checkpoint's name ends in .safetensors, got {path}")
    write_tensors(method.state_dict(), path)
    digest = sha256(path)
    earlier = _card_of(path, digest)
    made = {"machine": machine(), "versions": versions(), "commit": commit()}
    filled = {
        "method": method.name,
        "config": config_dict(method),
        **card,
        "parameters": sum(p.numel() for p in method.parameters()),
        **{name: earlier.get(name, now) for name, now in made.items()},
        "sha256": digest,
    }
    filled["figures"] = dict(card.get("figures") or earlier.get("figures", {}))
    write_text(json.dumps(filled, indent=2) + "\n", path.with_suffix(".json"))
    return path


def load(name_or_path: str | Path, *, expect: str | None = None) -> nn.Module:
    """The method in a checkpoint, rebuilt from its card, on the CPU and in eval mode.

    `name_or_path` is the name of a shipped checkpoint or a path; `expect` the method it should hold. Raises
    FileNotFoundError (saying what is shipped) or CheckpointError (damaged, another method, or tensors that do not fit
    the config).
    """
    from tutorial_lib.training.presets import METHODS, from_dict

    path = find(name_or_path)
    about = card(path)
    name = about["method"]
    if expect is not None and name != expect:
        raise CheckpointError(f"{path} holds the method {name!r}, expected {expect!r}")
    if name not in METHODS:
        raise CheckpointError(f"{path} holds the method {name!r}; known methods are {', '.join(METHODS)}")
    config_class, method_class = METHODS[name]
    try:
        config = from_dict(config_class, about["config"])
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its config does not fit {config_class.__name__}: {error}") from error

    tensors = read_tensors(path, sha256_expected=about.get("sha256"))[0]
    with torch.random.fork_rng(devices=[]):  # the initial weights are thrown away: let them cost no random numbers
        method = method_class(config)
    load_tensors(method, tensors, path)
    return method.eval()


def start_from(
    method: nn.Module, name_or_path: str | Path, *, only: Sequence[str] | None = None, anew: Sequence[str] = ()
) -> dict[str, Any]:
    """Give `method` those networks of a checkpoint that it has too.

    Returns, for a card, where they come from: the checkpoint's method, SHA-256, steps, pictures and seconds, and its own start.
    only: names of the networks to take; all that both have if None. anew: names of networks, or of parts of them
    ("classifiers.identity"), that are not taken. Parts that the method calls `optional` are taken if both have them. Optimisers
    and steps start anew.

    Raises FileNotFoundError; CheckpointError if the file is damaged, if a network of the same name has other sizes, or if one
    is missing that the method names in `needs`; ValueError if the method has no part of a name in `anew`.
    """
    fresh = tuple(f"{part}." for part in anew)
    for part in fresh:
        if not any(name.startswith(part) for name in method.state_dict()):
            raise ValueError(f"anew: {method.name} has no {part[:-1]!r}")
    path = find(name_or_path)
    about = card(path)
    tensors = read_tensors(path, sha256_expected=about.get("sha256"))[0]
    for part in (f"{name}." for name in getattr(method, "optional", ())):
        if not all(any(name.startswith(part) for name in names) for names in (tensors, method.state_dict())):
            fresh += (part,)
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(fresh)}
    networks = {name.split(".")[0] for name in tensors if "." in name}
    networks = networks if only is None else networks & set(only)
    shared = {name: network for name, network in method.named_children() if name in networks}
    needs = getattr(method, "needs", method.averaged)
    if missing := sorted(set(needs) - shared.keys()):
        raise CheckpointError(f"{path} holds the method {about['method']!r}: {method.name} needs its {', '.join(missing)}")
    for name, network in shared.items():
        part = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        own = {key: value for key, value in network.state_dict().items() if f"{name}.{key}".startswith(fresh)}
        load_tensors(network, part | own, path)
    return {name: about[name] for name in KEPT if name in about}


def card(name_or_path: str | Path) -> dict[str, Any]:
    """The card of a checkpoint. Raises FileNotFoundError, or CheckpointError if the card is damaged."""
    path = find(name_or_path).with_suffix(".json")
    if not path.exists():
        raise CheckpointError(f"{path} is missing: a checkpoint is a .safetensors file and the .json card beside it")
    try:
        about = json.loads(path.read_text())
        missing = {"method", "config"} - about.keys()
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: not a JSON object ({error})") from error
    if missing:
        raise CheckpointError(f"{path} is damaged: no entry {', '.join(sorted(missing))}")
    return about


def lineage(about: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The run of a card and those that it started from, in the order in which they were trained."""
    line = [about]
    while "start" in line[0]:
        line.insert(0, line[0]["start"])
    return line


def update_card(name_or_path: str | Path, figures: Mapping[str, float]) -> None:
    """Write measured figures into a checkpoint's card, over those of the same name."""
    path = find(name_or_path).with_suffix(".json")
    about = card(path)
    about["figures"] = {**about.get("figures", {}), **figures}
    write_text(json.dumps(about, indent=2) + "\n", path)


def find(name_or_path: str | Path) -> Path:
    """Path of the .safetensors file for the name of a shipped checkpoint, or a path to it, to its card or to a run's folder."""
    path = Path(name_or_path)
    if path.suffix in (".safetensors", ".json"):
        places = [path.with_suffix(".safetensors")]
    else:
        beside = folder() if path.parent == Path() else path.parent
        places = [beside / f"{path.name}.safetensors", path / "model.safetensors"]
    if not (there := [place for place in places if place.exists()]):
        raise FileNotFoundError(f"no checkpoint at {places[0]}; shipped in {folder()}: {', '.join(shipped()) or 'none'}")
    return there[0]


def config_dict(method: nn.Module) -> dict[str, Any]:
    """A method's config as JSON would give it back (tuples become lists)."""
    return json.loads(json.dumps(dataclasses.asdict(method.config)))


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """`module.load_state_dict`, with an error that names the file and what does not fit."""
    expected = module.state_dict()
    for problem, names in (
        ("has no tensor for", expected.keys() - tensors.keys()),
        ("has tensors unknown to this config:", tensors.keys() - expected.keys()),
    ):
        if names:
            raise CheckpointError(f"{path} {problem} {_some(names)}")
    for name, tensor in expected.items():
        if tensors[name].shape != tensor.shape:
            shapes = f"{tuple(tensors[name].shape)}, this config expects {tuple(tensor.shape)}"
            raise CheckpointError(f"{path}: {name} has shape {shapes}")
    module.load_state_dict(dict(tensors))


def write_tensors(tensors: Mapping[str, Tensor], path: Path, *, header: Mapping[str, str] | None = None) -> None:
    """Write tensors to a safetensors file, whole or not at all. Raises OSError if it cannot, ENOSPC if the disk has no room."""
    # A copy each: safetensors takes neither shared storage (tied weights) nor channels-last strides.
    copies = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    needed = sum(t.numel() * t.element_size() for t in copies.values()) + 2**20
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        message = f"no disk space for {path.name}: needs {needed / 2**20:.0f} MiB, free are {free / 2**20:.0f} MiB"
        raise OSError(errno.ENOSPC, message, str(path.parent))
    try:
        _replace(path, lambda temporary: save_file(copies, temporary, metadata=dict(header or {})))
    except SafetensorError as error:  # over a quota, say, which `disk_usage` does not see
        raise OSError(f"{path} could not be written: {error}") from error


def write_text(text: str, path: Path) -> None:
    """Write a text file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, lambda temporary: temporary.write_text(text))


def read_tensors(path: Path, *, sha256_expected: str | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file. Raises CheckpointError if it is damaged, OSError if it cannot be read."""
    path.open("rb").close()  # of a file that may not be read safetensors says that there is none
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not iterable)
            header = file.metadata() or {}
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if sha256_expected is not None and sha256(path) != sha256_expected:
        raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one on its card")
    return tensors, header


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def machine() -> dict[str, Any]:
    """Processor, cores and GPU. No host name and no path: cards are published."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cpu": model, "cores": os.cpu_count(), "gpu": gpu}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter for a result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def commit() -> str | None:
    """The repository's commit, with "+changes" if files differ from it; None outside a repository, or inside another one."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(REPOSITORY), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != REPOSITORY.resolve():
            return None  # installed in somebody's project
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def remove_leftovers(folder: Path) -> None:
    """Remove what writers that were killed have left in a run's folder: as much as a snapshot, each time."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def _replace(path: Path, write: Any) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # as the user's umask wants it; safetensors makes files that only their owner may read
        write(temporary)
        if temporary.stat().st_mode != mode:
            temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _card_of(path: Path, digest: str) -> dict[str, Any]:
    """The card that lies beside `path`, if it is the card of this very file; else an empty one."""
    try:
        about = card(path)
    except CheckpointError:  # there is none yet, or a damaged one
        return {}
    return about if about.get("sha256") == digest else {}


def _some(names: set[str]) -> str:
    first = sorted(names)[:3]
    return ", ".join(first) + (f" and {len(names) - len(first)} more" if len(names) > len(first) else "")
