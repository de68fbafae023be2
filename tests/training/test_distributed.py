"""Two gloo processes on the CPU against one process with the same global batch."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch import nn
from toy_method import GivenCodes, Pictures, Plain, Toy, ToyConfig
from two_processes import RUN, batch_norm, cells, inputs, process

from tutorial_lib.methods.finegan import critic_loss
from tutorial_lib.training import checkpoints
from tutorial_lib.training.distributed import CrossProcessBatchNorm, convert_batch_norm
from tutorial_lib.training.loop import train


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """The folder in which two processes have left their results."""
    folder = tmp_path_factory.mktemp("two")
    torch.manual_seed(0)
    train(GivenCodes(ToyConfig()), Pictures(), dataclasses.replace(RUN, steps=3), folder / "one", progress=False)
    mp.start_processes(process, (str(folder), free_port()), nprocs=2, start_method="spawn")
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_processes_give_the_update_of_one_with_the_same_global_batch(two):
    torch.manual_seed(0)
    method = GivenCodes(ToyConfig())
    history = train(method, Pictures(), RUN, progress=False)
    found = load_file(two / "training" / "state0.safetensors")
    expected = {f"method.{k}": v for k, v in method.state_dict().items()}
    expected |= {f"average.{k}": v for k, v in history.averaged["generator"].state_dict().items()}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5, msg=name)


def test_processes_stay_equal_to_the_last_bit_spectral_norm_included(two):
    one, other = (load_file(two / "training" / f"state{rank}.safetensors") for rank in (0, 1))
    assert any(name.endswith("_u") for name in one)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_what_the_first_process_finishes_is_everyones(two):
    one, other = (load_file(two / "finish" / f"state{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    whole_batches = len(Pictures()) // RUN.batch_size * RUN.batch_size
    assert any((value == whole_batches).all() for value in one.values())  # it has seen all, not its slices


def test_no_process_waits_for_what_the_first_cannot_finish(two):
    assert (two / "finish" / "said0").read_text() == "nothing to sort"
    assert "the first process could not finish" in (two / "finish" / "said1").read_text()


def test_only_one_process_writes(two):
    names = sorted(path.name for path in (two / "training" / "run").iterdir())
    assert names == ["metrics.jsonl", "model.json", "model.safetensors", "snapshot.safetensors"]
    assert len((two / "training" / "run" / "metrics.jsonl").read_text().splitlines()) == 4


def test_each_process_keeps_its_own_random_state(two):
    rng = load_file(two / "training" / "run" / "snapshot.safetensors")["rng.cpu"]
    assert len(rng) == 2
    assert not torch.equal(rng[0], rng[1])


def test_resumed_run_of_two_processes_gives_the_weights_of_one_never_interrupted(two):
    for rank in (0, 1):
        whole, parts = (load_file(two / "resume" / f"{name}{rank}.safetensors") for name in ("whole", "parts"))
        for name, value in whole.items():
            assert torch.equal(parts[name], value), name


def test_processes_that_do_not_see_the_same_snapshot_all_stop(two):
    for rank in (0, 1):
        said = (two / "apart" / f"said{rank}").read_text()
        assert f"the snapshot in {two / 'apart' / str(rank)} is not seen by every process" in said
    assert checkpoints.card(two / "apart" / "0" / "model.safetensors")["steps"] == 3


def test_logged_losses_are_means_over_the_processes(two):
    torch.manual_seed(0)
    history = train(GivenCodes(ToyConfig()), Pictures(), RUN, progress=False)
    lines = [json.loads(line) for line in (two / "training" / "run" / "metrics.jsonl").read_text().splitlines()]
    for line, record in zip(lines, history.records, strict=True):
        assert {name: line[name] for name in ("step", "images")} == {name: record[name] for name in ("step", "images")}
        for name in ("discriminator", "generator"):
            assert line[name] == pytest.approx(record[name], rel=1e-4)


def test_two_processes_go_on_from_the_snapshot_of_one(two):
    found = load_file(two / "one" / "model.safetensors")
    expected = load_file(two / "training" / "run" / "model.safetensors")
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5, msg=name)
    lines = (two / "one" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 3, 4, 5]


def test_one_process_goes_on_from_the_snapshot_of_two(two, tmp_path):
    shutil.copytree(two / "training" / "run", tmp_path / "run")
    longer = dataclasses.replace(RUN, steps=7)
    whole, resumed = GivenCodes(ToyConfig()), GivenCodes(ToyConfig())
    torch.manual_seed(0)
    whole.load_state_dict(GivenCodes(ToyConfig()).state_dict())
    train(whole, Pictures(), longer, progress=False)
    history = train(resumed, Pictures(), longer, tmp_path / "run", resume=True, progress=False)
    for (name, value), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(other, value, atol=1e-4, rtol=1e-4, msg=name)
    assert history.records[-1]["step"] == 7


def test_resumed_on_another_number_of_processes_noise_starts_anew(two, tmp_path):
    """The states of two random generators do not make one; what is drawn is told by seed and step."""
    weights = []
    for attempt in ("a", "b"):
        shutil.copytree(two / "resume" / "whole", tmp_path / attempt)
        method = Toy(ToyConfig())
        train(method, Pictures(), dataclasses.replace(RUN, steps=7), tmp_path / attempt, resume=True, progress=False)
        weights.append(method.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_two_processes_with_two_parts_each_give_the_update_of_one(two):
    torch.manual_seed(0)
    method = Plain(ToyConfig())
    train(method, Pictures(), RUN, progress=False)
    found = load_file(two / "parts" / "state0.safetensors")
    for name, value in method.state_dict().items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5, msg=name)


def test_processes_of_a_notebook_give_the_same_model(two, tmp_path):
    program = [sys.executable, str(Path(__file__).with_name("launched.py")), str(tmp_path), str(free_port())]
    environment = os.environ | {"ACCELERATE_USE_CPU": "yes", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert checkpoints.card(tmp_path / "run" / "model.safetensors")["processes"] == 2
    found, expected = (load_file(folder / "run" / "model.safetensors") for folder in (tmp_path, two / "training"))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("shape", [(8, 3), (8, 3, 5, 2)])
def test_batch_norm_across_processes_is_torch_batch_norm_of_the_whole_batch(two, shape):
    torch.manual_seed(0)
    layer = batch_norm(shape).double()
    x, weight = (t.double() for t in inputs(shape))
    x.requires_grad_()
    y = layer(x)
    (y * weight).sum().backward()

    parts = [load_file(two / "norms" / f"bn{len(shape)}_{rank}") for rank in (0, 1)]
    close = {"atol": 1e-4, "rtol": 1e-4, "check_dtype": False}
    torch.testing.assert_close(torch.cat([p["y"] for p in parts]), y.detach(), **close)
    torch.testing.assert_close(torch.cat([p["x.grad"] for p in parts]), x.grad, **close)
    torch.testing.assert_close(parts[0]["gamma.grad"] + parts[1]["gamma.grad"], layer.weight.grad, **close)
    for part in parts:
        torch.testing.assert_close(part["mean"], layer.running_mean, **close)
        torch.testing.assert_close(part["var"], layer.running_var, **close)
        assert part["batches"] == 1


@pytest.mark.parametrize("name", ["few", "one", "none"])
def test_cells_left_to_processes_unevenly_count_as_in_one_batch(two, name):
    real, fake, weights = cells()[name]
    real.requires_grad_()
    loss = critic_loss(real, fake, True, weights)
    loss.backward()
    parts = [load_file(two / "cells" / f"{name}{rank}") for rank in (0, 1)]
    torch.testing.assert_close(sum(part["loss"] for part in parts) / 2, loss.detach())
    torch.testing.assert_close(torch.cat([part["gradient"] for part in parts]) / 2, real.grad)


def test_converting_keeps_the_parameters_and_the_names():
    module = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.BatchNorm1d(3)))
    before, names = list(module.parameters()), list(module.state_dict())
    convert_batch_norm(module, torch.device("cpu"))
    assert isinstance(module[1][0], CrossProcessBatchNorm)
    assert all(a is b for a, b in zip(before, module.parameters(), strict=True))
    assert list(module.state_dict()) == names


def test_converted_batch_norm_is_the_ordinary_one_in_one_process():
    x = torch.randn(6, 3, 2, 2)
    plain = nn.BatchNorm2d(3)
    converted = convert_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), torch.device("cpu"))
    assert torch.equal(converted(x), plain(x))
    assert torch.equal(converted.eval()(x), plain.eval()(x))


@pytest.mark.slow
def test_two_processes_from_the_command_line_and_on_with_one(tmp_path):
    """The README's command, which leaves one run behind; a single process goes on from it."""
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "yes"}

    def run(*launcher: str, steps: int) -> dict:
        command = [sys.executable, *launcher, "-m", "tutorial_lib", "train", "finegan", "--preset", "smoke", "--resume"]
        command += ["--folder", "run", "--run.steps", str(steps), "--run.snapshot-every", "2", "--run.log-every", "1"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("model run/model.safetensors") == 1  # one of them says where things are
        card = checkpoints.card(tmp_path / "run" / "model.safetensors")
        lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == list(range(1, steps + 1))
        return card

    two = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0")
    card = run(*two, steps=4)
    assert (card["processes"], card["steps"], card["images"]) == (2, 4, 16)  # a batch of 4 is divided between them
    card = run(steps=6)
    assert (card["processes"], card["steps"], card["images"]) == (1, 6, 24)
