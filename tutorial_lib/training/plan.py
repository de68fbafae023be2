"""What a run will take before it is started: parameters, FLOPs, memory, hours here and on a GPU that is not here.

    python -m tutorial_lib plan mixnmatch --preset paper --gpu H100

Three kinds of figures, kept apart. *Counted*: every operation of a training step, as torch dispatches it, with its FLOPs, the
bytes it reads and writes, and what is held at that moment. *Measured*: how long such steps, and a matrix product, take on the
device at hand. *Extrapolated*: hours, from those two and from what the GPU's maker publishes.
"""

from __future__ import annotations

import math
import statistics
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import flop_registry

from tutorial_lib.layers import as_on_a_gpu
from tutorial_lib.training.checkpoints import machine
from tutorial_lib.training.loop import autocast, choose_precision, fuse, memory_format, on_device
from tutorial_lib.training.memory import memory_kept
from tutorial_lib.training.presets import PRESETS, Preset, build, head_start

aten = torch.ops.aten


@dataclass(frozen=True)
class GPU:
    """What its maker publishes, without sparsity: memory in GB, bandwidth in GB/s, 10¹² FLOP/s in fp32 and in bf16."""

    memory: float
    bandwidth: float
    fp32: float
    bf16: float | None
    """On tensor cores, with sums in fp32; None: the device does not compute in bf16."""


GPUS = {
    "H200": GPU(141, 4800, 67, 989),
    "H100": GPU(80, 3350, 67, 989),
    "H100-PCIe": GPU(80, 2000, 51, 756),
    "A100": GPU(80, 2039, 19.5, 312),
    "A100-40GB": GPU(40, 1555, 19.5, 312),
    "L40S": GPU(48, 864, 91.6, 362),
    "L4": GPU(24, 300, 30.3, 121),
    "A10": GPU(24, 600, 31.2, 125),
    "A6000": GPU(48, 768, 38.7, 155),
    "RTX-4090": GPU(24, 1008, 82.6, 165),
    "RTX-3090": GPU(24, 936, 35.6, 71),
    "V100": GPU(32, 900, 15.7, None),
    "T4": GPU(16, 320, 8.1, None),
}

LAUNCH = 10e-6  # assumed seconds from one operation to the next when PyTorch, not the GPU, is the slower one

# ---- counted --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What a training step is made of."""

    flops: float
    """Of matrix products and convolutions; a multiplication and an addition are two."""
    moved: float
    """Bytes that all operations read and write, were nothing left in a cache between two of them."""
    operations: float
    """Those that compute something: views are free."""
    peak: float
    """Bytes of tensors held at once at most, parameters and the optimisers' states included."""

    def at(self, images: int, other: Work, others: int, batch: int) -> Work:
        """The same step with `batch` pictures, on the line through this one (`images` pictures) and another.

        The number of operations is the other's: it does not grow with the batch, and what changes it (layers that choose how to
        compute by the number of pictures) does so in leaps.
        """
        slope = (batch - images) / (others - images)
        mine, theirs = asdict(self), asdict(other)
        line = {name: mine[name] + slope * (theirs[name] - mine[name]) for name in mine}
        return Work(**line | {"operations": other.operations})


class Ledger(TorchDispatchMode):
    """Writes down every operation inside a `with` block; `work` is the sum. `held` are tensors that are there before it."""

    _FREE = (aten._unsafe_view, aten.empty, aten.empty_like, aten.empty_strided, aten.lift_fresh)

    def __init__(self, held: Iterable[Tensor] = ()):
        super().__init__()
        self.flops = self.moved = self.operations = self.now = self.peak = 0
        self._known: dict[int, weakref.ref] = {}
        for tensor in held:
            self._hold(tensor)

    @property
    def work(self) -> Work:
        return Work(self.flops, self.moved, self.operations, self.peak)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func.overloadpacket
        if packet in flop_registry:
            self.flops += flop_registry[packet](*args, **kwargs, out_val=out)
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if not func.is_view and packet not in self._FREE:
            inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            written = results or _written(func, args)
            self.moved += sum(_size(tensor) for tensor in (*inputs, *written))
            self.operations += 1
        for tensor in results:
            self._hold(tensor)
        return out

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return

        def gone(_: weakref.ref) -> None:
            del self._known[key]
            self.now -= size

        self._known[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def _written(func: torch._ops.OpOverload, args: tuple) -> list[Tensor]:
    """The arguments that an operation without results changes in place, as a fused optimiser does."""
    changed = [arg for arg, of in zip(args, func._schema.arguments, strict=False) if of.alias_info and of.alias_info.is_write]
    return [leaf for leaf in tree_leaves(changed) if isinstance(leaf, Tensor)]


def _size(tensor: Tensor) -> int:
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())  # expanded tensors are read once


def parameters(method: nn.Module) -> dict[str, int]:
    """How many parameters each network of a method has."""
    counts = {name: sum(p.numel() for p in network.parameters()) for name, network in method.named_children()}
    return {name: count for name, count in counts.items() if count}


def count(method: nn.Module, batch: dict[str, Tensor], precision: str, steps: int = 1) -> Work:
    """The work of a training step on this batch, the mean of `steps` in a row. The method must have made a step before."""
    device = next(method.parameters()).device
    states = [
        value for optimizer in method.optimizers.values() for state in optimizer.state.values() for value in state.values()
    ]
    held = [*method.parameters(), *method.buffers(), *batch.values(), *states]
    with Ledger(tensor for tensor in held if isinstance(tensor, Tensor)) as ledger, autocast(device, precision):
        for _ in range(steps):
            method.training_step(batch)
    for optimizer in method.optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    work = ledger.work
    return replace(work, flops=work.flops / steps, moved=work.moved / steps, operations=work.operations / steps)


# ---- measured -------------------------------------------------------------------------------------------------------------


def product_rate(device: torch.device, precision: str, width: int | None = None) -> float:
    """FLOP/s of a matrix product of `width` x `width`, the best that can be had of a device."""
    width = width or (8192 if device.type == "cuda" else 3072)
    a = torch.randn(width, width, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    a @ a  # the first one is slower
    return 2 * width**3 / _seconds(lambda: a @ a, device)


def _seconds(compute: Callable[[], Any], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    compute()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def first_batch(
    data: Dataset, n: int, device: torch.device, layout: torch.memory_format = torch.contiguous_format
) -> dict[str, Tensor]:
    """The first n pictures of a data set as one batch."""
    loader = DataLoader(data, batch_sampler=[range(n)], collate_fn=getattr(data, "collate", None))
    return on_device({key: value for key, value in next(iter(loader)).items() if isinstance(value, Tensor)}, device, layout)


def prepared(preset: Preset, device: torch.device) -> nn.Module:
    """A preset's method with fresh weights, in the state that most of its run consists of."""
    torch.manual_seed(preset.run.seed)
    model = build(preset.method).to(device, memory_format=memory_format(preset.run, device)).train()
    fuse(model)
    if hasattr(model, "step"):
        model.step.fill_(head_start(preset.method))
    if hasattr(model, "clusters"):
        model.clusters.centres.uniform_()  # as if pictures had been sorted: into what takes no time
    return model


def step_cycle(preset: Preset) -> int:
    """After how many steps a method's updates come round again: some make an update less often than others."""
    config = preset.method
    cycles = [getattr(config, name, 1) for name in ("stage_one_updates", "critic_updates")]
    if getattr(config, "real_penalty", 0):
        cycles.append(config.real_penalty_every)
    return math.lcm(*cycles)


def steps_of(model: nn.Module, batch: dict[str, Tensor], precision: str, n: int) -> None:
    """n training steps on one batch."""
    with autocast(next(model.parameters()).device, precision):
        for _ in range(n):
            model.training_step(batch)


# ---- the plan -------------------------------------------------------------------------------------------------------------


def plan(
    method: str,
    preset: str | Preset,
    gpu: str | None = None,
    *,
    batch_size: int | None = None,
    device: torch.device | None = None,
    repeats: int = 3,
) -> dict[str, Any]:
    """Counts and measures a few training steps of a preset, and extrapolates its run; for JSON and for `table`.

    gpu: a name of `GPUS`, for which operations are counted as a GPU makes them; batch_size: over the preset's. On a CPU the
    steps have 2 and 4 pictures and are extrapolated to the preset's batch; on a GPU they are timed at its own size and at half
    of it (below 4: with 2 and 3). Raises ValueError for a name that is not known.
    """
    if gpu is not None and gpu not in GPUS:
        raise ValueError(f"gpu: {gpu!r} is not known; known are {', '.join(GPUS)}")
    name = preset if isinstance(preset, str) else "own"
    if isinstance(preset, str):
        if preset not in PRESETS[method]:
            raise ValueError(f"preset: {method} has no {preset!r}; it has {', '.join(PRESETS[method])}")
        preset = PRESETS[method][preset]
    batch_size = preset.run.batch_size if batch_size is None else batch_size
    if batch_size < 2:
        raise ValueError(f"batch_size must be at least 2, got {batch_size}")
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    here = choose_precision(preset.run.precision, device)
    there = here if gpu is None else ("fp32" if preset.run.precision == "fp32" or GPUS[gpu].bf16 is None else "bf16")

    model, data, cycle = prepared(preset, device), preset.dataset(), step_cycle(preset)
    few, more = (2, 4) if batch_size >= 4 else (2, 3)
    half, timed = (few, more) if device.type == "cpu" or batch_size < 4 else (batch_size // 2, batch_size)
    batches = {n: first_batch(data, n, device, memory_format(preset.run, device)) for n in {few, more, half, timed}}
    steps_of(model, batches[few], here, cycle)  # optimisers make their states
    with as_on_a_gpu() if gpu is not None else nullcontext():
        counted = {n: count(model, batches[n], there, cycle) for n in (few, more)}
    work = counted[few].at(few, counted[more], more, batch_size)
    # As many FLOPs in any precision.
    flops = {n: counted[few].at(few, counted[more], more, n).flops for n in (half, timed)}

    products, steps = [], {half: [], timed: []}
    with memory_kept(device):  # as the loop does
        for _ in range(repeats):  # by turns: what else the machine does meets all
            products.append(product_rate(device, here))
            for n, each in steps.items():
                each.append(_seconds(partial(steps_of, model, batches[n], here, cycle), device) / cycle)
    product, seconds = statistics.median(products), {n: statistics.median(each) for n, each in steps.items()}
    utilisation = flops[timed] / seconds[timed] / product
    otherwise = utilisation if device.type == "cpu" else 1.0  # on a CPU further pictures do take time
    share = share_of_more(flops[timed] - flops[half], seconds[timed] - seconds[half], product, otherwise)

    about, threads = machine(), torch.get_num_threads()
    found: dict[str, Any] = {
        "method": method,
        "preset": name,
        "steps": preset.run.steps,
        "head_start": head_start(preset.method),
        "batch_size": batch_size,
        "counted": {
            "parameters": parameters(model),
            "precision": there,
            **asdict(work),
            "peak_a_picture": (counted[more].peak - counted[few].peak) / (more - few),
        },
        "measured": {
            "device": about["gpu"] if device.type == "cuda" else f"{about['cpu']}, {threads} thread{'s' * (threads > 1)}",
            "precision": here,
            "batch_size": timed,
            "product_flops": product,
            "step_seconds": seconds[timed],
            "step_flops": flops[timed] / seconds[timed],
            "utilisation": utilisation,
            "share_of_more": share,
            "hours": preset.run.steps * at_batch(seconds, batch_size) / 3600,
        },
    }
    if gpu is not None:
        found["extrapolated"] = {"gpu": gpu, **asdict(GPUS[gpu]), **bounds(work, GPUS[gpu], there, share)}
        found["extrapolated"]["hours"] = preset.run.steps * found["extrapolated"]["step_seconds"] / 3600
    return found


def at_batch(seconds: dict[int, float], n: int) -> float:
    """Seconds of a step of n pictures, on the line through those of two batches: some of it a step takes in any case."""
    (few, at_few), (more, at_more) = sorted(seconds.items())
    return at_more + max(0.0, (at_more - at_few) / (more - few)) * (n - more)


def share_of_more(flops: float, seconds: float, product: float, otherwise: float = 1.0) -> float:
    """Which share of a matrix product's FLOP/s further pictures reach, at most 1: what a step takes in any case is left out.

    otherwise: the share where no time is measured for them. On a GPU that waits for its operations to be launched it is 1, for
    arithmetic is no limit there.
    """
    return min(1.0, flops / seconds / product) if seconds > 0 else otherwise


def bounds(work: Work, gpu: GPU, precision: str, share: float) -> dict[str, Any]:
    """Seconds that a step takes at least: for its arithmetic, for its memory traffic, for its operations; and the largest."""
    peak = gpu.bf16 if precision == "bf16" else gpu.fp32
    limits = {
        "arithmetic": work.flops / (share * peak * 1e12),
        "traffic": work.moved / (gpu.bandwidth * 1e9),
        "launches": work.operations * LAUNCH,
    }
    slowest = max(limits, key=limits.get)
    return {"limits": limits, "limited_by": slowest, "step_seconds": limits[slowest], "fits": work.peak < 0.9e9 * gpu.memory}


def table(found: dict[str, Any]) -> str:
    """A plan to be read."""
    counted, measured, batch = found["counted"], found["measured"], found["batch_size"]
    total = sum(counted["parameters"].values())
    largest = sorted(counted["parameters"].items(), key=lambda item: -item[1])
    by_network = ", ".join(f"{name} {_number(n)}" for name, n in largest)
    each = counted["peak_a_picture"]
    first = found["head_start"]
    less = f"; the first {first:,} steps train a part of it only and take less" if first else ""
    rows = [
        (f"{found['method']}, preset {found['preset']}: {found['steps']:,} steps of {batch} pictures", None),
        ("counted", None),
        ("parameters", f"{_number(total)}: {by_network}"),
        ("a step", f"{_number(counted['flops'])}FLOP; {_number(counted['moved'])}B read and written in "
                   f"{counted['operations']:,.0f} operations; {counted['precision']}"),
        ("memory", f"{_number(counted['peak'])}B of tensors at most, {_number(each)}B of it a picture (extrapolated from "
                   f"{'2 and 4' if batch >= 4 else '2 and 3'} pictures)"),
        (f"measured here: {measured['device']}, {measured['precision']}", None),
        ("matrix product", f"{_number(measured['product_flops'])}FLOP/s"),
        ("a step", f"{_time(measured['step_seconds'])} for {measured['batch_size']} pictures: "
                   f"{_number(measured['step_flops'])}FLOP/s, {measured['utilisation']:.0%} of the matrix product's"),
        ("further pictures", f"{measured['share_of_more']:.0%} of the matrix product's FLOP/s"
                             if measured["share_of_more"] < 1 else "no time that can be measured"),
        ("the run", f"{_time(3600 * measured['hours'])} on this device (extrapolated{less})"),
    ]  # fmt: skip
    if "extrapolated" in found:
        there = found["extrapolated"]
        peak, limits = there[counted["precision"]], there["limits"]
        published = f"published {peak:g} TFLOP/s, {there['bandwidth']:,g} GB/s, {there['memory']:g} GB"
        share = f"{measured['share_of_more']:.0%} of the published rate, as further pictures here (assumed)"
        rows += [
            (f"extrapolated to {there['gpu']}, {counted['precision']}: {published}", None),
            ("arithmetic", f"{_time(limits['arithmetic'])} a step at {share}"),
            ("traffic", f"{_time(limits['traffic'])} a step at the published bandwidth"),
            ("operations", f"{_time(limits['launches'])} a step at {1e6 * LAUNCH:.0f} µs each (assumed)"),
            ("the run", f"at least {_time(3600 * there['hours'])}, limited by the {_LIMITS[there['limited_by']]}{less}"),
            ("memory", "fits" if there["fits"] else "does not fit: train with --run.accumulate, or a smaller batch"),
        ]
    width = max(len(name) for name, text in rows if text is not None)
    return "\n".join(name if text is None else f"  {name:<{width}}  {text}" for name, text in rows)


_LIMITS = {"arithmetic": "arithmetic", "traffic": "memory traffic", "launches": "number of operations"}


def _number(value: float) -> str:
    """With three digits and a prefix: 421 G."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * factor:  # or three digits would be 1e+03 of the smaller
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g} "


def _time(seconds: float) -> str:
    for factor, unit in ((86400, "days"), (3600, "hours"), (60, "minutes"), (1, "s")):
        if seconds >= 2 * factor or unit == "s":
            return f"{1e3 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds / factor:.3g} {unit}"
