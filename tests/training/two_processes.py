"""What each of the two processes of test_distributed does; a module that a new process can import."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from toy_method import GivenCodes, Pictures, Plain, Toy, ToyConfig

from tutorial_lib.methods.finegan import critic_loss
from tutorial_lib.training.checkpoints import CheckpointError
from tutorial_lib.training.distributed import convert_batch_norm
from tutorial_lib.training.loop import RunSettings, train

RUN = RunSettings(steps=5, batch_size=4, log_every=2, snapshot_every=3, precision="fp32", ema_decay=0.5)


def process(rank: int, folder: str, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "yes"}
    for part in ("training", "resume", "parts", "apart", "norms", "cells", "finish"):
        (Path(folder) / part).mkdir(exist_ok=True)
    run_training(Path(folder) / "training")
    run_resume(Path(folder) / "resume")
    run_other_number(Path(folder))
    run_parts(Path(folder) / "parts")
    run_apart(Path(folder) / "apart")
    run_batch_norm(Path(folder) / "norms")
    run_cells(Path(folder) / "cells")
    run_finish(Path(folder) / "finish")
    torch.distributed.destroy_process_group()


def run_training(folder: Path) -> None:
    """Train from initial weights that differ between the processes, write the final state."""
    rank = int(os.environ["RANK"])
    torch.manual_seed(rank)
    method = GivenCodes(ToyConfig())
    history = train(method, Pictures(), RUN, folder / "run", progress=False)
    state = {f"method.{k}": v for k, v in method.state_dict().items()}
    state |= {f"average.{k}": v for k, v in history.averaged["generator"].state_dict().items()}
    save_file({k: v.contiguous() for k, v in state.items()}, folder / f"state{rank}.safetensors")


def run_resume(folder: Path) -> None:
    """Train once in one go and once in two parts, write both final states."""
    rank = int(os.environ["RANK"])
    torch.manual_seed(rank)
    whole, parts = Toy(ToyConfig()), Toy(ToyConfig())
    parts.load_state_dict(whole.state_dict())
    train(whole, Pictures(), RUN, folder / "whole", progress=False)
    train(parts, Pictures(), dataclasses.replace(RUN, steps=3), folder / "parts", progress=False)
    train(parts, Pictures(), RUN, folder / "parts", resume=True, progress=False)
    for name, method in (("whole", whole), ("parts", parts)):
        save_file(method.state_dict(), folder / f"{name}{rank}.safetensors")


def run_other_number(folder: Path) -> None:
    """Go on, as two, from the snapshot that one process has left in `one`, if it has."""
    if not (folder / "one").exists():
        return
    method = GivenCodes(ToyConfig())
    train(method, Pictures(), RUN, folder / "one", resume=True, progress=False)


def run_parts(folder: Path) -> None:
    """Each process computes its two pictures one after the other."""
    torch.manual_seed(0)
    method = Plain(ToyConfig())
    train(method, Pictures(), dataclasses.replace(RUN, accumulate=2), progress=False)
    save_file(method.state_dict(), folder / f"state{os.environ['RANK']}.safetensors")


def run_apart(folder: Path) -> None:
    """Resume a run, each process in a folder of its own, and write what is said; only the main process finds its snapshot."""
    rank = os.environ["RANK"]
    train(GivenCodes(ToyConfig()), Pictures(), dataclasses.replace(RUN, steps=3), folder / rank, progress=False)
    try:
        train(GivenCodes(ToyConfig()), Pictures(), RUN, folder / rank, resume=True, progress=False)
    except CheckpointError as error:
        (folder / f"said{rank}").write_text(str(error))


class Finishing(GivenCodes):
    """Ends with the number of pictures that it is given as its weights."""

    def finish(self, batches) -> None:
        seen = sum(len(batch["image"]) for batch in batches)
        for parameter in self.generator.parameters():
            parameter.data.fill_(seen)


class Refusing(GivenCodes):
    def finish(self, batches) -> None:
        raise RuntimeError("nothing to sort")


def run_finish(folder: Path) -> None:
    """Train what is finished in the end, write the averages; then what cannot be finished, write what is said."""
    rank = os.environ["RANK"]
    history = train(Finishing(ToyConfig()), Pictures(), RUN, progress=False)
    save_file(history.averaged["generator"].state_dict(), folder / f"state{rank}.safetensors")
    try:
        train(Refusing(ToyConfig()), Pictures(), RUN, progress=False)
    except RuntimeError as error:
        (folder / f"said{rank}").write_text(str(error))


def run_batch_norm(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    for shape in ((8, 3), (8, 3, 5, 2)):
        torch.manual_seed(0)
        layer = convert_batch_norm(nn.Sequential(batch_norm(shape)), torch.device("cpu"))[0]
        x, weight = inputs(shape)
        mine = x[rank * 4 : (rank + 1) * 4].clone().requires_grad_()
        y = layer(mine)
        (y * weight[rank * 4 : (rank + 1) * 4]).sum().backward()
        found = {"y": y, "x.grad": mine.grad, "mean": layer.running_mean, "var": layer.running_var}
        found |= {"gamma.grad": layer.weight.grad, "batches": layer.num_batches_tracked}
        save_file({k: v.detach().contiguous() for k, v in found.items()}, folder / f"bn{len(shape)}_{rank}")


def batch_norm(shape: tuple[int, ...]) -> nn.Module:
    layer = nn.BatchNorm1d(shape[1]) if len(shape) == 2 else nn.BatchNorm2d(shape[1])
    nn.init.normal_(layer.weight)
    return layer


def inputs(shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape, generator=generator) * 3 + 100, torch.randn(shape, generator=generator)


def run_cells(folder: Path) -> None:
    """The background critic's loss of half a batch, and its gradient."""
    rank = int(os.environ["RANK"])
    for name, (real, fake, weights) in cells().items():
        mine = real.chunk(2)[rank].clone().requires_grad_()
        loss = critic_loss(mine, fake.chunk(2)[rank], True, weights.chunk(2)[rank])
        loss.backward()
        save_file({"loss": loss.detach(), "gradient": mine.grad}, folder / f"{name}{rank}")


def cells() -> dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Logits of real and of fake pictures, and weights: few cells remain for the first process; one, of the second's; none."""
    generator = torch.Generator().manual_seed(2)
    real, fake = torch.randn(2, 4, 3, 3, generator=generator)
    few, one = torch.ones(4, 3, 3), torch.zeros(4, 3, 3)
    few[:2, 1:], one[3, 2, 2] = 0, 1
    return {"few": (real, fake, few), "one": (real, fake, one), "none": (real, fake, torch.zeros(4, 3, 3))}
