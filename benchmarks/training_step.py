"""How fast the published networks train, which saving brings how much, and what memory a step takes.

    python benchmarks/training_step.py [--threads 2] [--quick]

Code mode of MixNMatch (all its updates) and DS-ComGAN, 128 x 128, batch 4. A step is timed as the library makes it, with each
of its savings taken away in turn, with all of them taken away, and in bf16: in rounds over all of these, each a few times in a
row, as training goes, after steps that are not timed; told is the median. (DS-ComGAN, whose steps are slow, has one round: what
its single savings bring is told roughly.) The mathematics is the same in every arrangement. Beside them stand the figures
recorded of the public code, on two cores of the same kind. Writes data/results/training_step.json.
"""

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib import layers
from tutorial_lib.layers import CodeConv, Conv, UpConv
from tutorial_lib.methods import comgan, finegan, mixnmatch
from tutorial_lib.training.checkpoints import machine
from tutorial_lib.training.loop import autocast, fuse
from tutorial_lib.training.memory import memory_kept
from tutorial_lib.training.plan import count, first_batch, plan, product_rate
from tutorial_lib.training.presets import PRESETS, build

RESULTS = Path(__file__).resolve().parent.parent / "data" / "results" / "training_step.json"
CPU = torch.device("cpu")
BATCH = 4
# The public code, all its updates, fp32, recorded once on two cores of the kind that the stored figures are from.
REFERENCE = {
    "mixnmatch_code": {"images_per_second": 0.87, "memory_gb": 3.9, "one_picture_ms": 86, "gflop": 421},
    "ds_comgan": {"images_per_second": 0.27},
}
TARGETS = {  # of the reference's pictures a second
    "mixnmatch_code": {"fp32": 1.6, "bf16": 2.7, "memory": 0.75, "one_picture_ms": 40},
    "ds_comgan": {"fp32": 1.3, "bf16": 2.5},
}

# ---- the savings, each taken away inside a `with` block -------------------------------------------------------------------


@contextmanager
def full_planes(model: nn.Module) -> Iterator[None]:
    """A code is convolved as constant planes of the picture's size."""
    planes = [layer for layer in model.modules() if isinstance(layer, CodeConv)]
    for layer in planes:
        layer.exact = False
    try:
        yield
    finally:
        for layer in planes:
            layer.exact = True


def plain_up_convolutions(model: nn.Module) -> AbstractContextManager:
    """Upsampling first, then a 3x3 convolution of four times as many pixels."""

    def forward(self: UpConv, x: Tensor) -> Tensor:
        return F.conv2d(F.interpolate(x, scale_factor=2), self.weight, padding=1)

    return mock.patch.object(UpConv, "forward", forward)


@contextmanager
def plain_adam(model: nn.Module) -> Iterator[None]:
    """Adam goes over the memory once for every operation of its formula."""
    groups = [group for optimizer in model.optimizers.values() for group in optimizer.param_groups]
    for group in groups:
        group["fused"] = None
    try:
        yield
    finally:
        for group in groups:
            group["fused"] = True


@contextmanager
def gradients_of_frozen_networks(model: nn.Module) -> Iterator[None]:
    """The generator's update computes the gradients of the discriminators too, and throws them away."""
    with ExitStack() as patches:
        for module in (finegan, mixnmatch, comgan):
            patches.enter_context(mock.patch.object(module, "frozen", return_value=nullcontext()))
        yield


@contextmanager
def plain_deep_convolutions(model: nn.Module) -> Iterator[None]:
    """Layers of many weights and few pixels are convolutions like all others."""

    def as_product(self: nn.Module, x: Tensor) -> bool:  # a Mock would keep every x
        return False

    with mock.patch.object(Conv, "as_product", as_product), mock.patch.object(UpConv, "as_product", as_product):
        yield


def encoders_twice(model: nn.Module) -> AbstractContextManager:
    """The encoders read real and generated pictures one after the other."""

    def of_each(self: mixnmatch.Encoder, *batches: Tensor) -> list[Tensor]:
        return [alone(self, batch)[0] for batch in batches]

    alone = mixnmatch.Encoder.of_each
    return mock.patch.object(mixnmatch.Encoder, "of_each", of_each)


def pairs_apart(model: nn.Module) -> AbstractContextManager:
    """The image-code discriminators judge real and generated pairs one after the other."""

    def of_both(self: mixnmatch.PairDiscriminator, *pairs: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        return tuple(self(*pair) for pair in pairs)

    return mock.patch.object(mixnmatch.PairDiscriminator, "of_both", of_both)


def memory_given_back(model: nn.Module) -> AbstractContextManager:
    """Large blocks go back to the system when they are free. (What `without` does with this name missing is to keep them.)"""
    return nullcontext()


def norm_then_glu(model: nn.Module) -> AbstractContextManager:
    """What lies between BatchNorm and GLU is kept for the backward pass. A saving of memory, not of time."""
    return mock.patch.object(layers, "norm_glu", lambda x, norm: F.glu(norm(x), 1))


def fakes_for_each_update(model: nn.Module) -> AbstractContextManager:
    """Each discriminator's update draws fakes of its own."""
    step = model.training_step

    def training_step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        for _ in range(len(model.optimizers) - 1):
            model.generator(model.sample_codes(len(batch["image"])))
        return step(batch)

    return mock.patch.object(model, "training_step", training_step)


def loops_over_the_batch(model: nn.Module) -> AbstractContextManager:
    """Which cells see background only is found picture by picture and cell by cell, in Python."""

    def patch_weights(box: Tensor, cells: int, receptive_field: int, stride: int) -> Tensor:
        weights = torch.ones(len(box), cells, cells)
        for picture, (x1, y1, x2, y2) in enumerate(box.as_subclass(Tensor).tolist()):
            for row in range(cells):
                for column in range(cells):
                    x, y = column * stride, row * stride
                    if x < x2 and x + receptive_field > x1 and y < y2 and y + receptive_field > y1 and x2 > x1 and y2 > y1:
                        weights[picture, row, column] = 0
        return weights

    return mock.patch.object(finegan, "patch_weights", patch_weights)


SAVINGS: dict[str, Callable[[nn.Module], AbstractContextManager]] = {
    "exact code planes": full_planes,
    "merged up-convolutions": plain_up_convolutions,
    "deep convolutions as products": plain_deep_convolutions,
    "encoders read both batches at once": encoders_twice,
    "real and generated pairs judged at once": pairs_apart,
    "BatchNorm and GLU in one": norm_then_glu,
    "skipped gradients of frozen networks": gradients_of_frozen_networks,
    "fused Adam": plain_adam,
    "memory kept between steps": memory_given_back,
    "one set of fakes": fakes_for_each_update,
    "patch weights without loops": loops_over_the_batch,
}


def savings_of(method: str) -> list[str]:
    of_mixnmatch = (
        "patch weights without loops", "encoders read both batches at once", "real and generated pairs judged at once",
    )  # fmt: skip
    return [name for name in SAVINGS if method != "ds_comgan" or name not in of_mixnmatch]


@contextmanager
def without(model: nn.Module, names: list[str]) -> Iterator[None]:
    """The model's training step without these savings."""
    with ExitStack() as stack:
        if "memory kept between steps" not in names:
            stack.enter_context(memory_kept(CPU))  # as the loop does
        for name in names:
            stack.enter_context(SAVINGS[name](model))
        yield


# ---- measurements ---------------------------------------------------------------------------------------------------------


def fresh(method: str, preset: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A method with weights that cost no time, as any weights do here, and a batch for it."""
    torch.manual_seed(0)
    with mock.patch.object(nn.init, "orthogonal_", lambda weight: nn.init.normal_(weight, std=0.02)):
        model = build(PRESETS[method][preset].method).train()
    fuse(model)  # as the loop does
    return model, first_batch(PRESETS[method][preset].dataset(), BATCH, CPU)


def one_step(model: nn.Module, batch: dict[str, Tensor], precision: str) -> float:
    """Seconds of a training step."""
    start = time.perf_counter()
    with autocast(CPU, precision):
        model.training_step(batch)
    return time.perf_counter() - start


def training(method: str, preset: str, rounds: int, repeats: int) -> dict:
    """Pictures a second of every arrangement of a method's training step, and its share of what the processor can do.

    Rounds, because other work on the same machine comes and goes in minutes.
    """
    model, batch = fresh(method, preset)
    savings = savings_of(method)
    arrangements = {"fp32": ("fp32", []), "bf16": ("bf16", []), "fp32, no savings": ("fp32", savings)}
    arrangements |= {f"fp32 without: {name}": ("fp32", [name]) for name in savings}
    work = {}
    one_step(model, batch, "fp32")  # optimisers make their states
    for name in ("fp32", "bf16", "fp32, no savings"):
        precision, missing = arrangements[name]
        with without(model, missing):
            work[name] = count(model, batch, precision)
    times: dict[str, list[float]] = {name: [] for name in arrangements}
    products: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for _ in range(rounds):
        for name, (precision, missing) in arrangements.items():
            for of, rates in products.items():
                rates.append(product_rate(CPU, of))
            with without(model, missing):
                for _ in range(repeats + 1):  # find the memory as other steps left it, and lay it out as their own leave it
                    one_step(model, batch, precision)
                times[name] += [one_step(model, batch, precision) for _ in range(repeats)]
    product = {precision: statistics.median(rates) for precision, rates in products.items()}
    found = {name: {"images_per_second": round(BATCH / statistics.median(each), 3)} for name, each in times.items()}
    for name, of in work.items():
        rate = of.flops * found[name]["images_per_second"] / BATCH
        found[name] |= {"gflop": round(of.flops / 1e9, 1), "tensors_gb": round(of.peak / 1e9, 2)}
        found[name] |= {"of_a_matrix_product": round(rate / product[arrangements[name][0]], 3)}
    return {"product_gflop_per_second": {name: round(rate / 1e9) for name, rate in product.items()}, "steps": found}


def memory(method: str, preset: str, precision: str) -> float:
    """GB that a whole process takes at most, from its start through three training steps; in a process of its own."""
    program = [sys.executable, __file__, "--memory-of", method, preset, precision, "--threads", str(torch.get_num_threads())]
    return round(float(subprocess.run(program, check=True, capture_output=True, text=True).stdout) / 1e6, 2)


def memory_here(method: str, preset: str, precision: str) -> None:
    model, batch = fresh(method, preset)
    with without(model, []):
        for _ in range(3):
            one_step(model, batch, precision)
    print(own_peak())


def own_peak() -> int:
    """kB of this process at most so far. (`ru_maxrss` of a process that was started by a larger one is the larger one's.)"""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
    return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])


def one_picture(method: str, preset: str, repeats: int) -> float:
    """Milliseconds, median, from codes to one picture; by `generator`, in the precision in which it is faster."""
    model, _ = fresh(method, preset)
    model.eval()
    times = {"fp32": [], "bf16": []}
    with torch.inference_mode():
        for _ in range(repeats + 2):
            for precision, each in times.items():
                with autocast(CPU, precision):
                    start = time.perf_counter()
                    model.sample(1)
                    each.append(1e3 * (time.perf_counter() - start))
    return round(min(statistics.median(each[2:]) for each in times.values()), 1)


DRAWN = ("finegan", "infogan", "mixnmatch_code", "comgan", "ds_comgan", "gmvae")  # those that sample on their own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="tiny networks: only to see that it works; writes nothing")
    parser.add_argument("--memory-of", nargs=3, metavar=("METHOD", "PRESET", "PRECISION"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        memory_here(*arguments.memory_of)
        return
    preset = "smoke" if arguments.quick else "paper"
    result = {"machine": machine(), "threads": arguments.threads, "batch": BATCH, "preset": preset, "methods": {}}
    for method, rounds, repeats in (("mixnmatch_code", 2, 2), ("ds_comgan", 1, 2)):
        found = training(method, preset, *((1, 1) if arguments.quick else (rounds, repeats)))
        found |= {"reference": REFERENCE[method], "targets": TARGETS[method]}
        found["memory_gb"] = {precision: memory(method, preset, precision) for precision in ("fp32", "bf16")}
        found["one_picture_ms"] = one_picture(method, preset, 2 if arguments.quick else 15)
        result["methods"][method] = found
        report(method, found)
    small, pictures = ("smoke", 2) if arguments.quick else ("laptop", 50)
    result["one_picture_ms"] = {method: one_picture(method, small, pictures) for method in DRAWN}
    print("one picture, laptop presets, ms (at most 8):", result["one_picture_ms"])
    result["of_a_matrix_product"] = {}
    for method, presets in PRESETS.items():
        if "laptop" in presets and not (arguments.quick and method != "finegan"):
            measured = plan(method, small, device=CPU)["measured"]
            result["of_a_matrix_product"][method] = round(measured["utilisation"], 3)
    print("FLOP/s of a step over a matrix product's, laptop presets:", result["of_a_matrix_product"])
    if not arguments.quick:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")


def report(method: str, found: dict) -> None:
    reference, targets = found["reference"]["images_per_second"], found["targets"]
    products = ", ".join(f"{rate} in {name}" for name, rate in found["product_gflop_per_second"].items())
    print(f"{method}: a matrix product reaches {products} GFLOP/s")
    for name, step in found["steps"].items():
        ratio = f"{step['images_per_second'] / reference:4.2f} x the reference's"
        target = f" (at least {targets[name]})" if name in targets else ""
        work = f"   {step['gflop']:.0f} GFLOP, {step['of_a_matrix_product']:.0%} of possible" if "gflop" in step else ""
        print(f"  {name:<48} {step['images_per_second']:6.3f} images/s  {ratio}{target}{work}")
    print(f"  memory: {found['memory_gb']} GB, one picture {found['one_picture_ms']} ms", flush=True)


if __name__ == "__main__":
    main()
