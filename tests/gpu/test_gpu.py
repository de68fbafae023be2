"""What only a GPU can show: that every method trains there in bf16 and channels last, and that it draws what a CPU draws."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tutorial_lib.data.birds import PaperBirds
from tutorial_lib.training import checkpoints
from tutorial_lib.training.checkpoints import load_tensors
from tutorial_lib.training.loop import autocast, choose_precision, train
from tutorial_lib.training.plan import first_batch, plan
from tutorial_lib.training.presets import METHODS, PRESETS, build
from tutorial_lib.widgets.mixnmatch import mixnmatch_panel

TRAINED = [method for method in METHODS if method in PRESETS]
DRAWING = [method for method in TRAINED if hasattr(METHODS[method][1], "sample_codes")]


def smoke(name: str, **changes):
    preset = PRESETS[name]["smoke"]
    torch.manual_seed(0)
    return build(preset.method), preset.dataset(), dataclasses.replace(preset.run, **changes)


@pytest.mark.parametrize("name", TRAINED)
def test_smoke_preset_trains_in_bf16_and_channels_last(name, device):
    method, data, run = smoke(name, precision="bf16", channels_last=True)
    learning = {id(p) for each in method.optimizers.values() for group in each.param_groups for p in group["params"]}
    before = {key: value.detach().clone() for key, value in method.named_parameters() if id(value) in learning}
    devices = set()

    def look(progress):
        devices.update(parameter.device.type for parameter in progress.method.parameters())

    history = train(method, data, run, progress=False, callbacks=[look])
    assert len(history.records) >= 1  # losses are finite, or it would have raised
    assert devices == {device.type}
    after = dict(method.named_parameters())
    assert all(value.dtype == torch.float32 for value in after.values())
    assert sum(not torch.equal(value, after[key]) for key, value in before.items()) > 0.9 * len(before)
    images = [value for value in after.values() if value.dim() == 4 and value.shape[1] > 1 and value.shape[2] > 1]
    assert all(value.is_contiguous(memory_format=torch.channels_last) for value in images)


@pytest.mark.parametrize("name", ["finegan", "uniform_posterior", "gmvae"])
def test_method_is_back_where_it_was_and_can_be_trained_on(name, device):
    method, data, run = smoke(name)
    for _ in range(2):
        history = train(method, data, run, progress=False)
        networks = (method, *history.averaged.values())
        assert {value.device.type for network in networks for value in network.state_dict().values()} == {"cpu"}
        optimizers = method.optimizers.values()
        assert all(value.device.type == "cpu" for each in optimizers for of in each.state.values() for value in of.values())


@pytest.mark.parametrize("name", TRAINED)
def test_bf16_starts_at_the_losses_of_fp32(name, device):
    first = []
    for precision in ("fp32", "bf16"):
        method, data, run = smoke(name)
        batch = first_batch(data, run.batch_size, device)
        method.to(device).train()
        torch.manual_seed(1)
        with autocast(device, precision):
            first.append({key: float(value) for key, value in method.training_step(batch).items()})
    assert first[0].keys() == first[1].keys()
    for key, value in first[0].items():
        assert first[1][key] == pytest.approx(value, rel=0.1, abs=0.1), key


@pytest.mark.parametrize("name", DRAWING)
def test_draws_in_fp32_what_the_cpu_draws(name, device, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    method, _, _ = smoke(name)
    method.eval()
    with torch.no_grad():
        pictures = []
        for place in ("cpu", device):
            drawn = method.to(place).sample(4, generator=torch.Generator().manual_seed(0))[1]
            pictures.append(drawn.cpu())
    torch.testing.assert_close(*pictures, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", checkpoints.shipped())
def test_shipped_checkpoint_works_there(name, device):
    method = checkpoints.load(name)
    state = {key: value.clone() for key, value in method.state_dict().items()}
    method.to(device)
    load_tensors(method, {key: value.cpu() for key, value in method.state_dict().items()}, Path(name))
    assert all(torch.equal(value, method.state_dict()[key].cpu()) for key, value in state.items())


@pytest.mark.parametrize("name", ["uniform_posterior", "stargan"])
def test_sheet_of_a_run_is_drawn_there(name, device):
    method, data, _ = smoke(name)
    with torch.no_grad():
        rows = torch.stack(method.to(device).eval().sheet(data.batch(range(4))["image"]))
    assert rows.device.type == device.type and rows.isfinite().all()


@pytest.mark.parametrize("mode", ["code", "feature"])
def test_panel_of_real_pictures_draws_there(mode, device):
    pictures = PaperBirds(size=32, length=3).batch(range(3))["image"]
    torch.manual_seed(0)
    model = build(PRESETS["mixnmatch"]["smoke"].method).to(device).eval()
    panel = mixnmatch_panel(model, pictures, mode=mode)
    before = panel.png
    panel.shuffle()
    assert not panel.error and panel.png != before


def test_compiled_generator_draws_the_same(device, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    method, _, _ = smoke("finegan")
    generator = method.to(device).eval().generator
    codes = method.sample_codes(4)
    with torch.no_grad():
        plain, compiled = generator(codes), torch.compile(generator)(codes)
    for field in dataclasses.fields(plain):
        torch.testing.assert_close(getattr(compiled, field.name), getattr(plain, field.name), atol=1e-4, rtol=1e-3)


def test_resumed_run_gives_the_weights_of_one_never_interrupted(device, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    runs = {}
    for part, lengths in (("whole", (6,)), ("parts", (3, 6))):
        for steps in lengths:
            # FineGAN's silhouettes, moved at random, come back in an order of sums that no setting fixes.
            method, data, run = smoke("comgan", steps=steps, precision="fp32")
            train(method, data, run, tmp_path / part, resume=True, progress=False)
        runs[part] = method.state_dict()
    for key, value in runs["whole"].items():
        torch.testing.assert_close(runs["parts"][key], value, atol=1e-5, rtol=1e-4, msg=key)


def test_precision_is_chosen_by_the_device(device):
    if device.type != "cuda":
        pytest.skip("the CPU's choice is tested with the loop")
    native = torch.cuda.get_device_capability(device) >= (8, 0)
    assert choose_precision("auto", device) == ("bf16" if native else "fp32")


def test_plan_measures_the_device(device):
    found = plan("finegan", "smoke", device=device, repeats=1)
    assert found["measured"]["batch_size"] == (found["batch_size"] if device.type == "cuda" else 4)
    if device.type == "cuda":
        assert found["measured"]["device"] == torch.cuda.get_device_name()


def test_accumulated_parts_are_the_step_of_the_whole_batch(device):
    weights = []
    for parts in (1, 2):
        method, data, run = smoke("comgan", precision="fp32", accumulate=parts, steps=2, snapshot_every=2, log_every=1)
        train(method, data, run, progress=False)
        weights.append(method.state_dict())
    # BatchNorm and the noise of the parts differ: the same sizes of change, not the same changes.
    assert weights[0].keys() == weights[1].keys()
    assert all(value.isfinite().all() for value in weights[1].values())


def test_two_processes_train_on_two_gpus(device, tmp_path):
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("one GPU here: two processes were not tested on two")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    command += ["--rdzv-endpoint=localhost:0", "-m", "tutorial_lib", "train", "finegan", "--preset", "smoke"]
    command += ["--folder", str(tmp_path / "run")]
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    card = checkpoints.card(tmp_path / "run" / "model.safetensors")
    assert (card["processes"], card["steps"]) == (2, PRESETS["finegan"]["smoke"].run.steps)
