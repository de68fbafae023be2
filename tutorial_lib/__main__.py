"""Train, measure and sample the course's models without a notebook.

python -m tutorial_lib train finegan --preset laptop      # train; `train finegan --help` lists every setting
python -m tutorial_lib plan finegan --gpu A100            # parameters, FLOPs, memory and hours of a run, before it is started
python -m tutorial_lib evaluate finegan                   # measure the shipped checkpoint, as the paper does
python -m tutorial_lib ablate finegan                     # train and measure the method with parts taken away
python -m tutorial_lib sample finegan --out sheet.png     # a sheet of pictures
python -m tutorial_lib data check cub PATH                # is a copy of a data set right? And a sheet of samples
python -m tutorial_lib data get cub                       # download a data set, or say whom to ask
python -m tutorial_lib doctor                             # device, versions, what is shipped and whether it is intact
"""

import contextlib
import dataclasses
import importlib.util
import inspect
import json
import math
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import Tensor, nn
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import save_image

from tutorial_lib.data import download
from tutorial_lib.training import checkpoints
from tutorial_lib.training.loop import Progress, RunSettings, averaged_weights, choose_precision, train
from tutorial_lib.training.presets import DATA, METHODS, PHOTOS, PRESETS, Preset, build, head_start, on_photos

MethodName = Annotated[Literal[tuple(METHODS)], tyro.conf.Positional]
Layout = Literal[tuple(PHOTOS)]
USER_ERRORS = (ValueError, OSError, FloatingPointError, checkpoints.CheckpointError)


def train_command(method_name: str, preset_name: str, photos_layout: str | None = None) -> type:
    """The `train` command, with the fields and defaults of one preset of one method, on its own data or on photographs."""
    chosen: Preset = PRESETS[method_name][preset_name]
    if photos_layout is not None:
        chosen = on_photos(method_name, preset_name, photos_layout)

    @dataclass
    class Train:
        """Train a method. Ctrl-C saves; the same command with --resume goes on from there.

        Name the method (and --preset) before --help to see its settings: they are the preset's until you change them.
        """

        method: Annotated[Literal[tuple(PRESETS)], tyro.conf.Positional] = method_name
        """What to train."""
        preset: Literal[tuple(PRESETS[method_name])] = preset_name
        """smoke: seconds; laptop: two cores, at most two hours a stage; paper: published size, for GPUs."""
        photos: Path | None = None
        """A folder of photographs to train on, instead of the preset's rendered pictures."""
        layout: Layout = photos_layout or "folder"
        """How that folder is laid out: one's own pictures, or the published data set of that name."""
        folder: Path = Path("runs") / method_name
        """Where the log, the snapshot, sample sheets and the trained model go."""
        resume: bool = False
        """Go on from the folder's snapshot, if there is one."""
        start: str | None = chosen.start
        """Name or path of a checkpoint whose networks to start from."""
        run: RunSettings = chosen.run
        config: type(chosen.method) = chosen.method
        data: dict[str, Any] = dataclasses.field(default_factory=lambda: dict(chosen.data))

        def __call__(self) -> None:
            if self.photos is None and self.layout != "folder":
                raise ValueError(f"layout: {self.layout} needs --photos, the folder it lies in")
            # The defaults here are those of what `parse` has found among the words.
            layout = None if self.photos is None else self.layout
            if (self.method, self.preset, layout) != (method_name, preset_name, photos_layout):
                raise ValueError("name the method first, and --preset and --layout once")
            data = self.data if self.photos is None else {"root": self.photos, **self.data}
            preset = Preset(self.config, data, chosen.source, self.run, self.start, chosen.anew)
            run_training(preset, self.folder, self.resume, own_start=self.start == chosen.start)

    return Train


def start_from(method: torch.nn.Module, preset: Preset, own: bool) -> dict[str, Any]:
    """`checkpoints.start_from`; if an earlier stage makes the checkpoint, the error names that.

    own: the start is the preset's own, and was trained on the data set that this run is on, or CheckpointError is raised.
    """
    wanted = DATA[preset.source].__name__
    try:
        found = checkpoints.card(preset.start).get("data", {}).get("name", wanted)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}{stage_before(preset)}") from error
    if own and found != wanted:
        message = f"{preset.start} was trained on {found}, this run is on {wanted}"
        raise checkpoints.CheckpointError(f"{message}{stage_before(preset)}")
    return checkpoints.start_from(method, preset.start, anew=preset.anew)


def stage_before(preset: Preset) -> str:
    """The sentence that says how to make the checkpoint that a preset starts from; empty if no preset makes it."""
    photos = f" --photos {shlex.quote(str(preset.data['root']))} --layout {preset.source}" if "root" in preset.data else ""
    stages = {f"runs/{name}": f"{name}{photos}, with a preset of the same size" for name in PRESETS}
    for name, presets in PRESETS.items():
        stages |= {f"runs/{name}_{p}": f"{name} --preset {p} --folder runs/{name}_{p}{photos}" for p in presets}
    made = stages.get(Path(preset.start).parent.as_posix())
    return f". The stage before this one makes it: python -m tutorial_lib train {made}" if made else ""


def run_training(preset: Preset, folder: Path, resume: bool, own_start: bool) -> None:
    """Train into `folder`, with a sample sheet at every snapshot, and say where things are."""
    from accelerate import Accelerator

    accelerator, run = Accelerator(), preset.run
    if run.steps <= (part := head_start(preset.method)):
        raise ValueError(f"steps: the first {part} train a part of the method only, so more are needed; got {run.steps}")
    torch.manual_seed(run.seed)
    method, about = build(preset.method), {}
    going_on = resume and (folder / "snapshot.safetensors").exists()
    if preset.start is not None:
        try:
            about["start"] = start_from(method, preset, own_start)
        except FileNotFoundError:
            if not going_on:
                raise
            if accelerator.is_main_process:
                print(f"{preset.start} is not there; what was taken from it is in the snapshot, which goes on")
    if preset.start is not None and preset.anew and not going_on and accelerator.is_main_process:
        print(f"from {preset.start}, but for {' and '.join(preset.anew)}, which the preset begins anew")

    data = preset.dataset()
    images = getattr(data, "images", None)  # of pictures of one's own: published ones are known by their names
    if images is not None and folder.resolve().is_relative_to(images.resolve()):
        raise ValueError(f"{folder} would lie among the pictures of {data.root}: --folder PATH puts it elsewhere")
    for remark in check_labels(preset.method, data):
        if accelerator.is_main_process:
            print(remark)

    def draw(progress: Progress) -> None:
        if progress.step % run.snapshot_every and progress.step != progress.steps:
            return
        with averaged_weights(progress.method, progress.averaged), torch.no_grad():
            path = folder / "samples" / f"{progress.step:06d}.png"
            if hasattr(method, "sample"):
                save_sheet(sample(progress.method, 64, seed=0), path)
            else:
                n = min(8, len(data))  # spread over the set, which may be in order of people
                rows = progress.method.sheet(data.batch([i * len(data) // n for i in range(n)])["image"])
                save_sheet(torch.cat(rows), path, columns=len(rows[0]))

    pictures = getattr(preset.method, "network", None) != "mlp"  # which makes points
    callbacks = [draw] if pictures and (hasattr(method, "sample") or hasattr(method, "sheet")) else []
    history = train(method, data, run, folder, resume=resume, callbacks=callbacks, accelerator=accelerator, about=about)
    if history.interrupted:
        if accelerator.is_main_process:
            print(f"step {history.records[-1]['step']} of {run.steps}; --resume --folder {folder} goes on from there")
        raise KeyboardInterrupt
    if not accelerator.is_main_process:
        return
    sheets = f", sample sheets {folder / 'samples'}" if callbacks else ""
    print(f"{history.seconds / 60:.1f} minutes; model {folder / 'model.safetensors'}{sheets}")


def check_labels(config: Any, data: Any) -> list[str]:
    """Raise ValueError, before anything is decoded, if photographs (`Photographs`) lack a label that is learned, or have too
    many classes.

    Returns a line for each label of which they have fewer classes than are learned.
    """
    wanted = dict(getattr(config, "attributes", ()))
    if hasattr(config, "label"):
        wanted[config.label] = config.n_classes
    remarks = []
    for name, n in wanted.items() if hasattr(data, "photos") else ():
        values = [photo.values.get(name) for photo in data.photos]
        if None in values:
            advice = ": put those of each class into a folder of their own, below images/" if data.name == "folder" else ""
            raise ValueError(f"{data.name} has no {name!r} of each picture, which is to be learned{advice}")
        if (found := max(values) + 1) > n:
            raise ValueError(f"{name}: {found} classes in {data.root}, {n} in the config")
        if found < n:
            remarks.append(f"{name}: {found} classes in {data.root}, the model has {n}")
    return remarks


@dataclass
class Plan:
    """Say what a run will take: parameters, FLOPs, memory, hours on this device and on a GPU that is not here.

    Makes a few training steps (a minute at the published sizes) and says what is counted, measured and extrapolated.
    """

    method: Annotated[Literal[tuple(PRESETS)], tyro.conf.Positional]
    """What would be trained."""
    preset: str = "paper"
    """With which of its presets."""
    gpu: str | None = None
    """A GPU to extrapolate to, such as H100; this device only if left out."""
    batch_size: int | None = None
    """Pictures in a batch; the preset's if left out."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def __call__(self) -> None:
        from tutorial_lib.training import plan

        found = plan.plan(self.method, self.preset, self.gpu, batch_size=self.batch_size)
        print(json.dumps(found) if self.json else plan.table(found))


@dataclass
class Evaluate:
    """Measure a checkpoint as the paper measures it and print the figures beside the paper's. Computed on the CPU."""

    method: MethodName
    """What the checkpoint holds."""
    checkpoint: str | None = None
    """Name of a shipped checkpoint or path of a .safetensors file; the method's own shipped one if left out."""
    json: bool = False
    """Print one JSON object and nothing else."""
    save: bool = False
    """Write the figures into the checkpoint's card too."""
    samples: int | None = None
    """Pictures for each figure of pictures, at least 100; as many as for the stored figures (thousands) if left out. Fewer are
    quicker and less exact. What is fitted is fitted all the same."""

    def __call__(self) -> None:
        if self.samples is not None and (self.save or self.samples < 100):
            raise ValueError(f"samples must be at least 100 and goes without --save, got {self.samples}")
        study = find_study(self.method)
        expected = getattr(study, "SHIPPED", self.method)
        name = self.checkpoint or expected
        about = checkpoints.card(name)
        if (on := about.get("data", {}).get("name")) in {kind.__name__ for kind in PHOTOS.values()}:
            raise ValueError(f"{name} was trained on {on}; figures are measured on rendered pictures only, by their oracle")
        method = checkpoints.load(name, expect=expected)
        samples = {} if self.samples is None else {"samples": self.samples}
        stored = checkpoints.card(expected).get("figures", {}) if expected in checkpoints.shipped() else {}
        if not samples and "seconds" in stored:
            took = f"The stored figures took {math.ceil(stored['seconds'] / 60)} minutes"
            print(f"{took}; --samples 500 is quicker and less exact", file=sys.stderr)
        started = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            figures = study.evaluate(method, about, **samples)
        figures["seconds"] = time.perf_counter() - started
        if self.save:
            checkpoints.update_card(name, figures)
        print(json.dumps(figures) if self.json else study.table(figures))


@dataclass
class Ablate:
    """Train a method's ablations at a small size and write figures and sheets; notebooks show them."""

    method: MethodName
    """Which method's."""
    folder: Path | None = None
    """Where to; data/results/METHOD_ablation if left out."""
    steps: int | None = None
    """Updates of each; as many as those that the course shows if left out."""
    seed: int = 0
    """Of weights, data and noise; the same for all."""

    def __call__(self) -> None:
        study = find_study(self.method)
        if not hasattr(study, "ablate"):
            raise ValueError(f"method: {self.method} has no ablations")
        folder = self.folder or checkpoints.results(self.method)
        steps = {} if self.steps is None else {"steps": self.steps}
        figures = study.ablate(folder, **steps, seed=self.seed)
        print(f"{', '.join(figures)} in {folder}")


@dataclass
class Sample:
    """Draw pictures from a checkpoint, codes untied, into one PNG."""

    method: MethodName
    """What the checkpoint holds."""
    n: int = 16
    """How many."""
    out: Path = Path("sheet.png")
    """Where to."""
    seed: int = 0
    """The same seed draws the same pictures."""
    checkpoint: str | None = None
    """Name of a shipped checkpoint or path of a .safetensors file; the method's own shipped one if left out."""

    def __call__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n must be at least 1, got {self.n}")
        method = checkpoints.load(self.checkpoint or self.method, expect=self.method)
        if not hasattr(method, "sample"):
            raise ValueError(f"method: {self.method} draws no pictures")
        images = sample(method, self.n, self.seed)
        if images.ndim != 4:
            raise ValueError(f"checkpoint: this {self.method} draws points, no pictures")
        save_sheet(images, self.out)
        print(f"{self.n} pictures in {self.out}")


@dataclass
class Check:
    """Say whether a copy of a data set is whole and right, and draw samples with their boxes; every file is read to its end."""

    layout: Annotated[Layout, tyro.conf.Positional]
    """Which data set; `folder` for pictures of your own."""
    path: Annotated[Path, tyro.conf.Positional]
    """The folder it lies in."""
    sheet: Path = Path("photos.png")
    """Where the samples go; not into the folder that is looked over."""
    partial: bool = False
    """Take what is there: pictures may be missing."""

    def __call__(self) -> None:
        if self.sheet.resolve().is_relative_to(self.path.expanduser().resolve()):
            raise ValueError(f"{self.sheet} would lie among the pictures of {self.path}: --sheet PATH puts it elsewhere")
        kind = PHOTOS[self.layout]
        options = {"partial": True} if self.partial else {}
        if self.partial and "partial" not in inspect.signature(kind).parameters:
            raise ValueError(f"partial: of {self.layout} nothing may be missing")
        sets = {split: kind(self.path, split=split, **options) for split in kind.splits}
        for split, data in sets.items():
            print(f"{split:9} {len(getattr(data, 'photos', data))} pictures")
        data = next(iter(sets.values()))
        if hasattr(data, "photos"):
            print(f"known     {', '.join(data.known()) or 'nothing but the pictures'}")
            if "box" not in data.known():
                print("          no boxes: the background is learned from what lies outside the middle of each picture")
            if left := data.left_out():
                endings = Counter(path.suffix.lower() or "without an ending" for path in left)
                print(f"left out  {', '.join(f'{n} {ending}' for ending, n in endings.items())}: of kinds that are not read")
            once = {photo.path: photo for part in sets.values() for photo in part.photos}  # splits may overlap
            problems = data.problems(list(once.values()))
        else:
            problems = []  # torchvision has compared the checksums
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise ValueError(f"{problems[0]}{more}")
        self.sheet.parent.mkdir(parents=True, exist_ok=True)
        to_pil_image(data.sheet()).save(self.sheet)
        print(f"right; samples in {self.sheet}")


@dataclass
class Get:
    """Download a data set that is offered to everybody; of the others say whom to ask. An interrupted download is resumed."""

    layout: Annotated[Layout, tyro.conf.Positional]
    """Which data set."""
    to: Path | None = None
    """Where to; data/NAME if left out."""

    def __call__(self) -> None:
        if self.layout not in download.ARCHIVES:
            print(PHOTOS[self.layout].about)
            return
        root = self.to or Path("data") / self.layout
        print(f"terms: {download.TERMS[self.layout]}")
        download.get(self.layout, root)
        print(f"in {root}; `python -m tutorial_lib data check {self.layout} {root}` looks it over")


@dataclass
class Data:
    """Photographs: is a copy of a data set right, and where to get one."""

    do: tyro.conf.OmitSubcommandPrefixes[
        Annotated[Check, tyro.conf.subcommand("check")] | Annotated[Get, tyro.conf.subcommand("get")]
    ]

    def __call__(self) -> None:
        self.do()


@dataclass
class Doctor:
    """Print the device, the versions, what is shipped and whether it is intact."""

    def __call__(self) -> None:
        from accelerate import Accelerator

        device = Accelerator().device
        about = checkpoints.machine()
        print(f"device      {device} ({about['gpu'] if device.type == 'cuda' else about['cpu']}, {about['cores']} cores)")
        print(f"precision   auto is {choose_precision('auto', device)} here")
        print(f"free disk   {shutil.disk_usage('.').free / 2**30:.1f} GiB")
        print("versions    " + ", ".join(f"{name} {version}" for name, version in checkpoints.versions().items()))
        print(f"shipped     in {checkpoints.folder()}")
        damaged = [name for name in checkpoints.shipped() if not report(name)]
        if not checkpoints.shipped():
            print("            nothing")
        if damaged:
            raise checkpoints.CheckpointError(f"damaged: {', '.join(damaged)}; `git checkout data/checkpoints` restores it")


def find_study(method: str) -> ModuleType:
    """The module that measures a method: `evaluate(method, card) -> figures` and `table(figures) -> str`."""
    name = f"tutorial_lib.studies.{method}"
    if importlib.util.find_spec(name) is None:
        raise ValueError(f"method: there is no study of {method!r} ({name})")
    return importlib.import_module(name)


def report(name: str) -> bool:
    """Print one line about a shipped checkpoint; False if it is damaged."""
    path = checkpoints.find(name)
    try:
        about = checkpoints.card(name)
        tensors, _ = checkpoints.read_tensors(path, sha256_expected=about.get("sha256"))
        if about["method"] in METHODS:
            checkpoints.load(name)
        state = f"intact, {about['method']}, {sum(t.numel() for t in tensors.values()) / 1e6:.2f} million numbers"
    except checkpoints.CheckpointError as error:
        print(f"            {name}: DAMAGED, {error}")
        return False
    print(f"            {name}: {path.stat().st_size / 2**20:.1f} MiB, {state}")
    return True


@torch.no_grad()
def sample(method: nn.Module, n: int, seed: int) -> Tensor:
    """Images (n, 3, H, W) in [-1, 1] of a method in eval mode."""
    torch.manual_seed(seed)
    return method.sample(n)[1]


def save_sheet(images: Tensor, path: Path, columns: int | None = None) -> None:
    """Write images in [-1, 1] as one PNG, about as wide as high unless told the number of columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(images, path, nrow=columns or math.ceil(math.sqrt(len(images))), normalize=True, value_range=(-1, 1))


def parse(arguments: Sequence[str]) -> Callable[[], None]:
    """The command that the arguments name, with its settings. Exits with status 2 and a message if they are wrong."""
    # The settings of `train` depend on the method, the preset and the data, so these are looked up before the rest is parsed.
    method = next((word for word in arguments if word in PRESETS), next(iter(PRESETS)))
    words = [part for word in arguments for part in word.split("=")]

    def after(option: str) -> list[str]:
        return words[words.index(option) + 1 :][:1] if option in words else []

    preset = next(name for name in (*after("--preset"), "laptop", *PRESETS[method]) if name in PRESETS[method])
    layout = None
    if "--photos" in words and "train" in words:
        layout = next(name for name in (*after("--layout"), "folder") if name in PHOTOS)
    commands = {
        "train": train_command(method, preset, layout),
        "plan": Plan,
        "evaluate": Evaluate,
        "ablate": Ablate,
        "sample": Sample,
        "data": Data,
        "doctor": Doctor,
    }
    prog = "python -m tutorial_lib"
    if arguments and arguments[0] in commands:
        return tyro.cli(commands[arguments[0]], args=arguments[1:], prog=f"{prog} {arguments[0]}")
    return tyro.extras.subcommand_cli_from_dict(commands, args=arguments, prog=prog, description=__doc__.splitlines()[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it went well, 2 (and one line on stderr) if what it was given was wrong, 130 if interrupted."""
    try:
        parse(sys.argv[1:] if arguments is None else list(arguments))()
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
