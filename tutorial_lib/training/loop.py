"""One training loop for every method: devices, precision, averages, progress, snapshots, resume.

One process, on a GPU if there is one (Ctrl-C saves; `--resume` goes on from there, to the same numbers):

    python -m tutorial_lib train finegan --preset laptop

Several processes on one machine, one for each GPU (the batch is divided among them):

    accelerate launch --multi_gpu --num_processes 4 -m tutorial_lib train finegan --preset paper

A cluster, typed on each machine with its rank:

    accelerate launch --multi_gpu --num_machines 2 --num_processes 8 --machine_rank 0 --main_process_ip HOST \\
        --main_process_port 29500 -m tutorial_lib train finegan --preset paper

A batch that does not fit is computed in parts (`--run.accumulate 4`), see accumulation.py; what a run will take, plan.py says.

The loop is blind to the algorithm: a method owns its networks and optimisers and does one whole update in
`training_step(batch)`, which returns named losses. What remains to be done once, when the last step is made and the averaged
weights are in place, it does in `finish(batches)`, if it has that, in the first process: those are one pass through the data,
and figures that it returns are kept on the model's card.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from tutorial_lib.checks import at_least, numbers
from tutorial_lib.data.batched import BatchedDataset, InMemory
from tutorial_lib.layers import random_state_kept
from tutorial_lib.training import checkpoints
from tutorial_lib.training.accumulation import Accumulation
from tutorial_lib.training.distributed import average_gradients, broadcast, convert_batch_norm
from tutorial_lib.training.memory import memory_kept
from tutorial_lib.training.snapshots import lay_out_states, read_snapshot, restore, restore_rng, save_snapshot

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class RunSettings:
    """How long, how fast and how often: everything about a run that is not the method."""

    steps: int
    """Updates, one global batch each."""
    batch_size: int
    """Images in a batch, over all processes together."""
    accumulate: int = 1
    """Parts that a process computes its share of the batch in, for less memory; each update is still one of the whole batch."""
    seed: int = 0
    """Of the order of the data and of the noise."""
    ema_decay: float = 0.999
    """What the average of the weights keeps at each step."""
    decay_from: float = 1.0
    """Fraction of the steps after which the learning rates fall linearly to 0."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where the device computes in it natively, and on a processor is faster in it, which is tried; else fp32."""
    channels_last: bool | None = None
    """Memory format of images; None: channels last on a GPU only."""
    log_every: int = 50
    """Steps between two lines of metrics.jsonl."""
    snapshot_every: int = 500
    """Steps between two snapshots."""
    workers: int = 0
    """Processes that prepare batches beside the training; 0: none. Random crops are then others after a resume."""

    def __post_init__(self):
        numbers(self)
        at_least(1, self, "steps", "accumulate")
        for name in ("ema_decay", "decay_from"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise ValueError(f"precision must be 'auto', 'fp32' or 'bf16', got {self.precision!r}")


@dataclass(frozen=True)
class Progress:
    """What a callback sees: losses are means since the last line of the log."""

    step: int
    steps: int
    losses: dict[str, float]
    method: nn.Module
    averaged: dict[str, nn.Module]


@dataclass
class History:
    """What a run leaves: the lines of its log, the averaged networks, and whether it was interrupted before its end."""

    records: list[dict[str, float]] = field(default_factory=list)
    averaged: dict[str, nn.Module] = field(default_factory=dict)
    interrupted: bool = False
    seconds: float = 0.0
    """Training time, with that before a resume."""

    def whole(self) -> History:
        """This history, for those who measure what was trained. Raises KeyboardInterrupt if the run did not reach its end."""
        if self.interrupted:
            raise KeyboardInterrupt
        return self


def train(
    method: nn.Module,
    data: Dataset,
    run: RunSettings,
    folder: str | Path | None = None,
    *,
    resume: bool = False,
    callbacks: Sequence[Callable[[Progress], None]] = (),
    progress: bool = True,
    accelerator: Accelerator | None = None,
    about: Mapping[str, Any] | None = None,
) -> History:
    """Train `method` in place: on a GPU if there is one, and in the end it is back on the device where it was.

    data: a map-style data set; whole batches are fetched through its `__getitems__` and `collate` if it has them.
    folder: gets metrics.jsonl (a line every `log_every` steps), snapshot.safetensors (every `snapshot_every`) and in
        the end, after the method's `finish`, model.safetensors with its card, averaged weights in place. None: nothing is
        written.
    resume: go on from the folder's snapshot, to the numbers of a run that never stopped; starts anew if there is none.
    callbacks: called with a Progress at every line of the log, in the main process; what they draw is not the run's.
    about: more entries for the model's card. "start" is where the weights come from (`checkpoints.start_from`); a run that is
        resumed keeps the one it began with.

    Ctrl-C (or SIGTERM) finishes the step, writes a snapshot and returns with `history.interrupted`; a second Ctrl-C stops
    at once. Raises FloatingPointError (naming loss and step) if a loss is not finite, CheckpointError if the snapshot
    is of another method, config, run, data set or start, or of a later step than the last, or if not every process sees it,
    FileExistsError if the folder holds a run and `resume` is not set, or a model and no snapshot, OSError if the disk is
    full.
    """
    if accelerator is None:
        from accelerate import Accelerator

        accelerator = Accelerator()
    folder = Path(folder) if folder is not None else None
    home = next(method.parameters()).device
    try:
        with memory_kept(accelerator.device):
            history = _train(method, data, run, folder, resume, callbacks, progress, accelerator, about)
    finally:
        place(method, home)
    for network in history.averaged.values():
        network.to(home)
    return history


def _train(
    method: nn.Module,
    data: Dataset,
    run: RunSettings,
    folder: Path | None,
    resume: bool,
    callbacks: Sequence[Callable[[Progress], None]],
    progress: bool,
    accelerator: Accelerator,
    about: Mapping[str, Any] | None,
) -> History:
    """`train`, which ends with the method on the accelerator's device."""
    device = accelerator.device
    snapshot = folder / "snapshot.safetensors" if folder is not None else None
    _check(data, run, snapshot, resume, accelerator.num_processes)
    if isinstance(data, BatchedDataset):
        data.prepare()  # before signals are listened for, so that Ctrl-C ends it, and before workers each do it

    place(method, device)
    method.train()
    if accelerator.num_processes > 1:
        broadcast(method)
        convert_batch_norm(method, device)
    layout = memory_format(run, device)
    method.to(memory_format=layout)
    lay_out_states(method)
    fuse(method)
    averages = {name: _moving_average(getattr(method, name), run.ema_decay) for name in method.averaged}
    averaged = {name: average.module.eval().requires_grad_(False) for name, average in averages.items()}
    history = History(averaged=averaged)
    rates = {name: [group["lr"] for group in opt.param_groups] for name, opt in method.optimizers.items()}
    torch.manual_seed(_mix(run.seed, accelerator.process_index))

    done, updates, chosen = 0, 0, choose_precision(run.precision, device)
    about, described = {**(about or {})}, _describe(data)
    stored: dict[str, Any] | None = None  # what the card of a finished run says of how it was made
    if resume and snapshot is not None and snapshot.exists():
        tensors, state = read_snapshot(snapshot, method, run, described, about.get("start"))
        restore(snapshot, tensors, state, method, averages)
        done, history.seconds, rates, updates = state["step"], state["seconds"], state["rates"], state.get("updates", 0)
        about |= {"start": state["start"]} if state.get("start") else {}
        if done == run.steps == state["run"]["steps"]:  # nothing is trained any more: the card says how it was
            precision = next(iter(state.get("precision", {}).values()), chosen)
            stored = {"run": state["run"], "processes": state["processes"], "precision": precision}
        history.records = _records(folder / "metrics.jsonl", until=done)
        if run.precision == "auto" and device.type in state.get("precision", {}):
            chosen = state["precision"][device.type]
        if state["processes"] == accelerator.num_processes:
            restore_rng(tensors, accelerator)
        else:
            torch.manual_seed(_mix(run.seed, accelerator.process_index, done))
    if len(accelerator.gather(torch.tensor([done], device=device)).unique()) > 1:
        raise checkpoints.CheckpointError(
            f"the snapshot in {folder} is not seen by every process: the folder must be on a disk that all machines share"
        )
    accelerator.wait_for_everyone()
    if folder is not None and accelerator.is_main_process:
        checkpoints.remove_leftovers(folder)
        lines = "".join(json.dumps(record) + "\n" for record in history.records)
        checkpoints.write_text(lines, folder / "metrics.jsonl")

    if accelerator.reduce(torch.tensor(float(chosen == "bf16"), device=device), "sum") < accelerator.num_processes:
        chosen = "fp32"  # each process chooses for itself, and all compute alike
    precision = autocast(device, chosen)
    accumulation = Accumulation(method, run.accumulate, updates)
    hooks = [
        optimizer.register_step_pre_hook(average_gradients)
        for optimizer in method.optimizers.values()
        if accelerator.num_processes > 1
    ]
    batches = iter(_loader(data, run, done, accelerator))
    show = progress and accelerator.is_main_process
    bar = tqdm(total=run.steps, initial=done, disable=not show, desc=method.name, unit="step", dynamic_ncols=True)
    window: list[dict[str, Tensor]] = []  # losses since the last line, left on the device
    earlier, started, line_started = history.seconds, time.perf_counter(), time.perf_counter()
    try:
        with _interrupts(accelerator) as interrupted:
            for step in range(done + 1, run.steps + 1):
                _set_rates(method, rates, _rate(step - 1, run))
                batch = on_device(next(batches), device, layout)
                with precision:
                    window.append(method.training_step(batch) if run.accumulate == 1 else accumulation(batch))
                for name, average in averages.items():
                    average.update_parameters(getattr(method, name))
                bar.update()

                history.interrupted = interrupted(step) and step < run.steps
                save = history.interrupted or step % run.snapshot_every == 0 or step == run.steps
                if not (save or step % run.log_every == 0):
                    continue

                losses = _mean_losses(window, step, snapshot, accelerator)
                now = time.perf_counter()
                history.seconds = earlier + now - started
                speed = len(window) * run.batch_size / (now - line_started)
                window, line_started = [], now
                record = {"step": step, "images": step * run.batch_size, "seconds": history.seconds}
                record |= {"images_per_second": speed, **losses}
                history.records.append(record)
                bar.set_postfix({name: f"{value:.3g}" for name, value in losses.items()}, refresh=False)
                if folder is not None and accelerator.is_main_process:
                    with (folder / "metrics.jsonl").open("a") as file:
                        file.write(json.dumps(record) + "\n")
                if save and snapshot is not None:
                    state = {"step": step, "seconds": history.seconds, "rates": rates, "data": described}
                    state |= {"precision": {device.type: chosen}, "start": about.get("start"), "updates": accumulation.updates}
                    save_snapshot(snapshot, method, averages, run, accelerator, **state)
                if accelerator.is_main_process:
                    with random_state_kept(device):  # what a callback draws does not change the run
                        for callback in callbacks:
                            callback(Progress(step, run.steps, losses, method, averaged))
                accelerator.wait_for_everyone()
                if history.interrupted:
                    return history
    finally:
        bar.close()
        for hook in hooks:
            hook.remove()
        _set_rates(method, rates, 1.0)

    if hasattr(method, "finish"):
        started, an_epoch = time.perf_counter(), len(data) // run.batch_size
        batches = islice(_loader(data, run, -(-run.steps // an_epoch) * an_epoch, accelerator, whole=True), an_epoch)
        figures = _finish(method, averaged, (on_device(batch, device, layout) for batch in batches), accelerator)
        about |= {"finished": figures} if figures else {}
        history.seconds += time.perf_counter() - started
    if folder is not None and accelerator.is_main_process:
        with averaged_weights(method, averaged):
            made = {"run": dataclasses.asdict(run), "processes": accelerator.num_processes, "precision": chosen}
            card = {**about, "data": described} | (stored or made)
            card |= {"steps": run.steps, "images": run.steps * run.batch_size, "seconds": round(history.seconds, 1)}
            checkpoints.save(method, folder / "model.safetensors", card=card)
    accelerator.wait_for_everyone()
    return history


def _finish(
    method: nn.Module, averaged: dict[str, nn.Module], batches: Iterator[dict[str, Any]], accelerator: Accelerator
) -> dict[str, float] | None:
    """`method.finish` in the first process, with the averaged weights; what it makes of them is everyone's."""
    figures, problem = None, None
    if accelerator.is_main_process:
        try:
            with averaged_weights(method, averaged):
                figures = method.finish(batches)
        except Exception as error:  # the other processes must hear of it, or they would wait for ever
            problem = error
    if accelerator.reduce(torch.tensor(float(problem is not None), device=accelerator.device), "sum"):
        raise problem or RuntimeError("the first process could not finish: see what it says")
    if accelerator.num_processes > 1:
        for network in averaged.values():
            broadcast(network)
    return figures


@contextmanager
def averaged_weights(method: nn.Module, averaged: dict[str, nn.Module]) -> Iterator[nn.Module]:
    """`method` in eval mode with the averaged networks in place of the trained ones, for the length of a with block."""
    trained = {name: getattr(method, name) for name in averaged}
    training = method.training
    try:
        for name, network in averaged.items():
            setattr(method, name, network)
        yield method.eval()
    finally:
        for name, network in trained.items():
            setattr(method, name, network)
        method.train(training)


def _moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """torch's exponential moving average of weights and buffers, with a shorter memory in the beginning.

    Without the ramp the variances that BatchNorm starts from (1, where the true ones may be a hundredth) stay in the average
    for thousands of steps, and an averaged generator draws next to nothing.
    """

    average = AveragedModel(network, use_buffers=True)

    def update(averaged: list[Tensor], current: list[Tensor], n: Tensor) -> None:
        seen = int(average.n_averaged)  # on the CPU: its copy on the weights' device would make a GPU wait
        get_ema_multi_avg_fn(min(decay, (1 + seen) / (10 + seen)))(averaged, current, n)

    average.multi_avg_fn = update
    return average


def choose_precision(precision: str, device: torch.device) -> str:
    """bf16 or fp32; "auto" is bf16 only where the device computes in it natively, and a CPU is faster in it."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    if device.type == "cpu":
        abilities = torch.cpu.get_capabilities()
        native = abilities.get("avx512_bf16") or abilities.get("amx_bf16")
        return "bf16" if native and _faster_in_bf16() else "fp32"
    return "fp32"


@cache
def _faster_in_bf16(width: int = 512, repeats: int = 7) -> bool:
    """Whether this CPU multiplies matrices faster in bf16: some virtual machines have its instructions, but not the unit that
    makes them worth while, and take twice as long as in fp32."""
    matrices, seconds = [torch.ones(width, width, dtype=dtype) for dtype in (torch.bfloat16, torch.float32)], ([], [])
    for _ in range(repeats):
        for matrix, each in zip(matrices, seconds, strict=True):
            start = time.perf_counter()
            matrix @ matrix
            each.append(time.perf_counter() - start)
    return min(seconds[0]) < min(seconds[1])


def fuse(method: nn.Module) -> None:
    """Let Adam update a method's parameters in one pass over the memory instead of a dozen: the same formula."""
    for optimizer in method.optimizers.values():
        for group in optimizer.param_groups:
            if isinstance(optimizer, torch.optim.Adam) and all(p.device.type in ("cpu", "cuda") for p in group["params"]):
                group["fused"] = True


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a method computes in bf16, or, for fp32, one that changes nothing.

    Accelerate fixes one precision for the life of a process, a notebook wants several. And no cache: it would keep the bf16
    copies of weights that a training step has just updated.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)


class BatchOrder(Sampler[list[int]]):
    """Index lists of this process's slice of each global batch, without end, from any step.

    A pure function of (seed, step, process): each epoch is one permutation, and what does not fill a batch is left out.
    """

    def __init__(self, length: int, batch_size: int, seed: int, *, start: int = 0, process: int = 0, processes: int = 1):
        self.length, self.batch_size, self.seed, self.start = length, batch_size, seed, start
        share = batch_size // processes
        self.mine = slice(process * share, (process + 1) * share)

    def __iter__(self) -> Iterator[list[int]]:
        batches = self.length // self.batch_size
        epoch, first = divmod(self.start, batches)
        while True:
            generator = torch.Generator().manual_seed(_mix(self.seed, epoch))
            order = torch.randperm(self.length, generator=generator).tolist()
            for batch in range(first, batches):
                yield order[batch * self.batch_size : (batch + 1) * self.batch_size][self.mine]
            epoch, first = epoch + 1, 0


def _check(data: Dataset, run: RunSettings, snapshot: Path | None, resume: bool, processes: int) -> None:
    if len(data) < run.batch_size:
        raise ValueError(f"batch_size {run.batch_size} is larger than the data set, which has {len(data)} images")
    started = int(os.environ.get("WORLD_SIZE", processes))
    if started != processes:
        raise ValueError(
            f"{started} processes were started, but this one does not know of the others and would train by itself: "
            "without GPUs, set ACCELERATE_USE_CPU=yes"
        )
    if run.batch_size % processes:
        raise ValueError(f"batch_size {run.batch_size} cannot be divided among {processes} processes")
    if run.batch_size % (processes * run.accumulate):
        among = f" of each of {processes} processes" if processes > 1 else ""
        raise ValueError(f"batch_size {run.batch_size} cannot be divided among {run.accumulate} parts{among}")
    if resume and snapshot is None:
        raise ValueError("resume: there is no folder to resume from (folder is None)")
    if snapshot is None:
        return
    if snapshot.exists():
        if not resume:
            raise FileExistsError(f"{snapshot.parent} holds a run already: resume it, remove it, or choose another folder")
    elif snapshot.with_name("model.safetensors").exists():
        raise FileExistsError(
            f"{snapshot.parent} holds a finished model and no snapshot to go on from: remove it, or choose another folder"
        )


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _loader(data: Dataset, run: RunSettings, done: int, accelerator: Accelerator, whole: bool = False) -> DataLoader:
    """Batches from step `done` on: this process's slices, or whole ones."""
    share = {} if whole else {"process": accelerator.process_index, "processes": accelerator.num_processes}
    return DataLoader(
        data,
        batch_sampler=BatchOrder(len(data), run.batch_size, run.seed, start=done, **share),
        collate_fn=getattr(data, "collate", None),
        num_workers=run.workers,
        worker_init_fn=_ignore_interrupts,
        pin_memory=accelerator.device.type == "cuda",
        # The workers' random numbers come from here: others in each process and after each resume, and none of the global ones.
        generator=torch.Generator().manual_seed(_mix(run.seed, accelerator.process_index, done)),
    )


def _ignore_interrupts(worker: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # both reach every process: the workers outlive the last step
        signal.signal(number, signal.SIG_IGN)


def place(method: nn.Module, device: torch.device) -> None:
    """Put a method on a device, and with it what its optimisers remember."""
    if all(parameter.device == device for parameter in method.parameters()):
        return
    method.to(device)
    for optimizer in method.optimizers.values():
        optimizer.load_state_dict(optimizer.state_dict())  # which puts each state where its parameter is


def memory_format(run: RunSettings, device: torch.device) -> torch.memory_format:
    """The memory format in which a run trains on a device."""
    channels_last = device.type == "cuda" if run.channels_last is None else run.channels_last
    return torch.channels_last if channels_last else torch.contiguous_format


def on_device(batch: dict[str, Any], device: torch.device, layout: torch.memory_format) -> dict[str, Any]:
    """A batch on a device, its pictures in a memory format."""

    def move(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        value = value.to(device, non_blocking=True)
        return value.contiguous(memory_format=layout) if value.dim() == 4 else value

    return {key: move(value) for key, value in batch.items()}


def _rate(step: int, run: RunSettings) -> float:
    start = run.decay_from * run.steps
    return 1.0 if step < start else (run.steps - step) / (run.steps - start)


def _set_rates(method: nn.Module, rates: dict[str, list[float]], factor: float) -> None:
    for name, optimizer in method.optimizers.items():
        for group, rate in zip(optimizer.param_groups, rates[name], strict=True):
            group["lr"] = rate * factor


def _mean_losses(
    window: list[dict[str, Tensor]], step: int, snapshot: Path | None, accelerator: Accelerator
) -> dict[str, float]:
    """Means over the steps in which a loss was present, and over the processes; raises if one was not finite."""
    # One transfer for the whole window: a GPU is not stopped at every step to look at its losses.
    flat = torch.stack([loss.detach().float() for losses in window for loss in losses.values()])
    values = iter(accelerator.reduce(flat, "mean").tolist())
    by_name: dict[str, list[float]] = {}
    for at, losses in enumerate(window, start=step - len(window) + 1):
        for name in losses:
            value = next(values)
            if not math.isfinite(value):
                kept = f"; last good snapshot: {snapshot}" if snapshot is not None and snapshot.exists() else ""
                raise FloatingPointError(f"loss {name!r} is {value} at step {at}{kept}")
            by_name.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in by_name.items()}


@contextmanager
def _interrupts(accelerator: Accelerator) -> Iterator[Callable[[int], bool]]:
    """Turns the first SIGINT or SIGTERM into a flag; gives a function that asks whether any process has seen one."""
    seen: list[int] = []
    before: dict[int, Any] = {}

    def note(number: int, frame: Any) -> None:
        # A second Ctrl-C stops at once. Not a second SIGTERM: a cluster's scheduler sends one to every process, and the
        # launcher passes its own on, before this process has had the time to save.
        if number == signal.SIGINT and number in seen:
            raise KeyboardInterrupt
        seen.append(number)

    def interrupted(step: int) -> bool:
        if accelerator.num_processes == 1:
            return bool(seen)
        if step % 10:  # asking the others waits for the device: not at every step
            return False
        return bool(accelerator.reduce(torch.tensor(len(seen), device=accelerator.device), "sum"))

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _records(path: Path, until: int) -> list[dict[str, float]]:
    """Lines of the log up to a step; a killed run may have written some after its last snapshot, or half a one."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return [record for record in records if record["step"] <= until]


def _describe(data: Dataset) -> dict[str, Any]:
    """Name, length, the constructor's arguments where they are attributes of the same names, as in scikit-learn, and what
    the data set says of itself in `described`, if it does.

    Items that are kept in memory are described as the data set that they were made by.
    """
    data = data.source if isinstance(data, InMemory) else data
    names = inspect.signature(type(data).__init__).parameters
    arguments = {name: getattr(data, name) for name in names if hasattr(data, name)}
    kept = {name: value for name, value in arguments.items() if isinstance(value, bool | int | float | str | None)}
    return {"name": type(data).__name__, "length": len(data), **kept, **getattr(data, "described", {})}
