"""Two gloo processes on the CPU against one process with the same global batch."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch import nn
from toy_method import GivenCodes, Pictures, ToyConfig
from two_processes import RUN, batch_norm, inputs, process

from tutorial_lib.training.distributed import CrossProcessBatchNorm, convert_batch_norm
from tutorial_lib.training.loop import train


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """The folder in which two processes have left their results."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.start_processes(process, (str(folder), port), nprocs=2, start_method="spawn")
    return folder


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
