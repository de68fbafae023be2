"""Counts against closed forms and torch's own counter; extrapolation against the counts it stands for."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from toy_method import Pictures

from tutorial_lib.data.birds import PaperBirds
from tutorial_lib.layers import as_on_a_gpu
from tutorial_lib.training import plan
from tutorial_lib.training.loop import fuse
from tutorial_lib.training.plan import GPU, GPUS, Ledger, Work, bounds, count, table
from tutorial_lib.training.presets import METHODS, PRESETS, build


@pytest.fixture(scope="module", autouse=True)
def small_product():
    """A matrix product that takes no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "product_rate", partial(plan.product_rate, width=64))
        yield


@pytest.fixture(scope="module")
def planned(small_product):
    return plan.plan("finegan", "smoke", "H100", batch_size=8, device=torch.device("cpu"), repeats=1)


def test_flops_of_a_convolution_and_its_gradients_are_three_times_two_products_a_weight_and_pixel():
    layer, x = nn.Conv2d(3, 5, 3, padding=1, bias=False), torch.randn(2, 3, 8, 8, requires_grad=True)
    with Ledger() as ledger:
        layer(x).sum().backward()
    assert ledger.flops == 3 * 2 * (3 * 3 * 3 * 5) * (2 * 8 * 8)


def test_flops_of_a_training_step_are_those_of_torchs_counter():
    torch.manual_seed(0)
    model = build(PRESETS["finegan"]["smoke"].method)
    batch = PaperBirds(size=32, length=4, wander=1.0).batch(range(4))
    model.step.fill_(2)
    model.training_step(batch)
    with FlopCounterMode(display=False) as torchs:
        model.training_step(batch)
    assert count(model, batch, "fp32").flops == torchs.get_total_flops() > 0


def test_r1_counts_in_one_step_of_a_cycle():
    preset = PRESETS["finegan"]["smoke"]
    assert plan.step_cycle(preset) == preset.method.real_penalty_every == 8
    assert plan.step_cycle(replace(preset, method=replace(preset.method, real_penalty=0.0))) == 1
    torch.manual_seed(0)
    model = build(preset.method)
    batch = PaperBirds(size=32, length=4, wander=1.0).batch(range(4))
    model.step.fill_(preset.method.real_penalty_every)
    with_r1, *without = (count(model, batch, "fp32").flops for _ in range(8))
    assert with_r1 > max(without) == min(without)
    assert count(model, batch, "fp32", steps=8).flops == pytest.approx((with_r1 + 7 * without[0]) / 8)


def test_bytes_are_those_of_inputs_and_outputs_and_views_are_free():
    x = torch.zeros(1000)
    with Ledger() as ledger:
        y = x.view(10, 100).t() + 1
    assert (ledger.operations, ledger.moved) == (1, 2 * 4000)
    assert y.shape == (100, 10)


def test_fused_adam_reads_and_may_write_parameters_gradients_and_two_averages():
    parameter = nn.Parameter(torch.ones(1000))
    parameter.grad = torch.ones(1000)
    optimizer = torch.optim.Adam([parameter], fused=True)
    optimizer.step()
    with Ledger() as ledger:
        optimizer.step()
    assert ledger.moved == pytest.approx(8 * 4000, rel=0.01)


def test_peak_is_what_is_held_at_once():
    x = torch.zeros(1000)
    with Ledger([x]) as ledger:
        y = x + 1
        z = y + 1
        del y
        z = z + 1
    assert (ledger.peak, ledger.now) == (3 * 4000, 2 * 4000)


def test_peak_holds_what_autograd_keeps():
    x = torch.zeros(1000, requires_grad=True)
    with Ledger([x]) as ledger:
        y = x.exp().exp().sum()  # both results are kept for the gradient
    kept = ledger.now
    del y
    assert kept == 3 * 4000 + 4
    assert ledger.now == 4000


def test_bf16_moves_half_the_bytes():
    layer, x = nn.Conv2d(16, 16, 3), torch.randn(2, 16, 16, 16)
    moved = []
    for dtype in (torch.float32, torch.bfloat16):
        layer, x = layer.to(dtype), x.to(dtype)
        with Ledger() as ledger:
            layer(x)
        moved.append(ledger.moved)
    assert moved[1] == moved[0] / 2


@pytest.mark.parametrize("method", ["finegan", "mixnmatch_code"])
def test_what_learns_from_sorted_pictures_can_be_planned_before_any_are_sorted(method):
    preset, cpu = PRESETS[method]["laptop"], torch.device("cpu")
    model, batch = plan.prepared(preset, cpu), plan.first_batch(preset.dataset(), 2, cpu)
    with pytest.raises(ValueError, match="no pictures were sorted yet"):
        build(preset.method).training_step(batch)
    plan.steps_of(model, batch, "fp32", 1)
    assert int(model.step) == 1


def test_work_of_a_batch_lies_on_the_line_through_two_others_and_operations_do_not_grow():
    few, more = Work(10, 100, 9, 50), Work(20, 180, 7, 70)
    assert few.at(2, more, 4, 12) == Work(60, 500, 7, 150)


def test_extrapolated_counts_are_those_of_the_batch_itself(planned):
    preset = PRESETS["finegan"]["smoke"]
    torch.manual_seed(0)
    model = build(preset.method)
    model.step.fill_(2)
    fuse(model)
    batch = plan.first_batch(preset.dataset(), 8, torch.device("cpu"))
    with torch.autocast("cpu", torch.bfloat16):
        model.training_step(batch)
    on_a_cpu = count(model, batch, "bf16", plan.step_cycle(preset))
    with as_on_a_gpu():
        work = count(model, batch, "bf16", plan.step_cycle(preset))
    assert work.operations != on_a_cpu.operations
    assert planned["counted"]["flops"] == work.flops
    assert planned["counted"]["operations"] == work.operations
    assert planned["counted"]["peak"] == pytest.approx(work.peak, rel=0.1)
    assert planned["counted"]["moved"] == pytest.approx(work.moved, rel=0.01)


def test_parameters_are_counted_for_each_network(planned):
    model = build(PRESETS["finegan"]["smoke"].method)
    counts = planned["counted"]["parameters"]
    assert counts["generator"] == sum(p.numel() for p in model.generator.parameters())
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters())


def test_bounds_are_divisions_of_work_by_published_figures():
    gpu = GPU(memory=10, bandwidth=100, fp32=10, bf16=20)
    work = Work(flops=1e12, moved=5e9, operations=1000, peak=9.5e9)
    found = bounds(work, gpu, "bf16", share=0.5)
    assert found["limits"] == pytest.approx({"arithmetic": 0.1, "traffic": 0.05, "launches": 0.01})
    assert (found["limited_by"], found["step_seconds"], found["fits"]) == ("arithmetic", pytest.approx(0.1), False)
    assert bounds(work, gpu, "fp32", share=0.5)["limits"]["arithmetic"] == pytest.approx(0.2)


def test_share_of_further_pictures_leaves_out_what_a_step_takes_in_any_case():
    seconds, per_picture, product = 0.3, 0.02, 1e12
    flops = 0.4 * product * per_picture
    few, many = seconds + 4 * per_picture, seconds + 16 * per_picture
    assert plan.share_of_more(12 * flops, many - few, product) == pytest.approx(0.4)
    assert plan.share_of_more(12 * flops, 0.0, product) == plan.share_of_more(12 * flops, -1e-5, product) == 1
    assert plan.share_of_more(1e20, 1e-9, product) == 1


def test_arithmetic_is_limited_by_the_share_of_further_pictures(monkeypatch):
    """Steps of 1 s and 1.5 s for 2 and 4 pictures, in turns with a matrix product."""
    seconds, cycle = {2: 1.0, 4: 1.5}, plan.step_cycle(PRESETS["finegan"]["smoke"])
    monkeypatch.setattr(plan, "product_rate", lambda device, precision: 1e9)
    monkeypatch.setattr(plan, "_seconds", lambda compute, device: cycle * seconds[len(compute.args[1]["image"])])
    found = plan.plan("finegan", "smoke", "H100", batch_size=8, device=torch.device("cpu"), repeats=1)
    counted, measured = found["counted"], found["measured"]
    per_picture = (counted["flops"] - 4 * measured["step_flops"] * 1.5 / 4) / 4  # FLOPs lie on a line
    share = 2 * per_picture / 0.5 / 1e9
    assert 0 < share < 1 and measured["share_of_more"] == pytest.approx(share)
    assert found["extrapolated"]["limits"]["arithmetic"] == pytest.approx(counted["flops"] / (share * 989e12))
    seconds[4] = 0.9  # noise: on a CPU further pictures do take time
    measured = plan.plan("finegan", "smoke", "H100", batch_size=8, device=torch.device("cpu"), repeats=1)["measured"]
    assert measured["share_of_more"] == measured["utilisation"]


def test_gpu_without_bf16_is_planned_in_fp32():
    found = plan.plan("finegan", "smoke", "T4", device=torch.device("cpu"), repeats=1)
    assert found["counted"]["precision"] == "fp32"


def test_table_says_what_is_counted_measured_and_extrapolated(planned):
    text = table(planned)
    starts = [line.split(":")[0].split(" to ")[0] for line in text.splitlines() if not line.startswith(" ")]
    assert starts[1:] == ["counted", "measured here", "extrapolated"]
    assert "assumed" in text and "published 989 TFLOP/s" in text


def test_unknown_gpu_lists_the_known_ones_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(plan, "build", lambda config: pytest.fail("built"))
    with pytest.raises(ValueError, match=r"gpu: 'H1000' is not known; known are .*A100.*T4") as error:
        plan.plan("finegan", "smoke", "H1000")
    assert "\n" not in str(error.value)
    assert all(name in str(error.value) for name in GPUS)


def test_unknown_preset_lists_the_methods_own():
    with pytest.raises(ValueError, match="preset: gmvae has no 'paper'; it has smoke, moons"):
        plan.plan("gmvae", "paper")


def test_steps_that_train_a_part_only_are_named():
    said = plan.table(plan.plan("finegan", "smoke", "A100", device=torch.device("cpu"), repeats=1))
    assert said.count("; the first 2 steps train a part of it only and take less") == 2
    assert "train a part" not in plan.table(plan.plan("comgan", "smoke", "A100", device=torch.device("cpu"), repeats=1))


def test_plan_on_the_command_line(monkeypatch, capsys):
    from tutorial_lib.__main__ import main

    assert main(["plan", "finegan", "--preset", "smoke", "--gpu", "A100", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["extrapolated"]["gpu"] == "A100"
    assert main(["plan", "finegan", "--gpu", "Z80"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: gpu: 'Z80' is not known; known are H200, H100") and message.count("\n") == 1


@pytest.mark.parametrize(
    ("seconds", "n", "expected"),
    [
        ({2: 3.0, 4: 5.0}, 16, 17.0),  # one second in any case, and one a picture
        ({4: 5.0, 2: 3.0}, 2, 3.0),
        ({2: 5.0, 4: 5.0}, 64, 5.0),
        ({2: 5.2, 4: 5.0}, 64, 5.0),  # noise: no step gets shorter by more pictures
    ],
)
def test_a_larger_batch_takes_what_a_step_takes_in_any_case_only_once(seconds, n, expected):
    assert plan.at_batch(seconds, n) == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize("method", [method for method in METHODS if method in PRESETS])
def test_every_method_can_be_planned(method):
    found = plan.plan(method, "smoke", device=torch.device("cpu"), repeats=1)
    assert found["counted"]["flops"] > 0
    assert found["measured"]["hours"] > 0
    assert "the run" in table(found)


def test_first_batch_has_the_first_pictures():
    pictures = Pictures()
    batch = plan.first_batch(pictures, 3, torch.device("cpu"))
    assert torch.equal(batch["image"], pictures.image[:3])


def test_figures_of_three_digits_take_the_next_unit_where_they_round_to_it():
    assert [plan._time(value) for value in (0.977, 0.9999, 1.28, 119.0, 120.0)] == [
        "977 ms",
        "1 s",
        "1.28 s",
        "119 s",
        "2 minutes",
    ]
    assert [plan._number(value) for value in (4.21e11, 9.997e8, 13.5e6, 12)] == ["421 G", "1 G", "13.5 M", "12 "]
