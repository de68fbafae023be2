from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
from typing import ClassVar

import pytest
import torch
from accelerate import Accelerator
from toy_method import Pictures, Toy

from tutorial_lib.data.batched import InMemory
from tutorial_lib.data.birds import PaperBirds
from tutorial_lib.training import checkpoints, loop
from tutorial_lib.training.loop import BatchOrder, RunSettings, _loader, averaged_weights, choose_precision, train
from tutorial_lib.training.presets import PRESETS, build

RUN = RunSettings(steps=6, batch_size=4, log_every=2, snapshot_every=3, ema_decay=0.5, decay_from=0.5, precision="fp32")


class NanAt(Toy):
    bad_step = 4
    taken = 0

    def training_step(self, batch, codes=None):
        losses = super().training_step(batch, codes)
        self.taken += 1
        return {**losses, "generator": torch.tensor(float("nan"))} if self.taken == self.bad_step else losses


class CtrlCAt(Toy):
    """Sends the process the signal of a Ctrl-C in the middle of a step."""

    signals = (signal.SIGINT,)
    interrupt_step = 3
    taken = 0

    def training_step(self, batch, codes=None):
        self.taken += 1
        if self.taken == self.interrupt_step:
            for number in self.signals:
                os.kill(os.getpid(), number)
        return super().training_step(batch, codes)


class CtrlCTwiceAt(CtrlCAt):
    signals = (signal.SIGINT, signal.SIGINT)


class TermTwiceAt(CtrlCAt):
    """As under a cluster's scheduler: it sends SIGTERM to every process, and the launcher passes its own on."""

    signals = (signal.SIGTERM, signal.SIGTERM)


class Drawn(Pictures):
    """A random number in the place of each batch, as photographs' crops are drawn."""

    def __getitems__(self, indices):
        return {"number": torch.rand(())}


def assert_same_state(one: torch.nn.Module, other: torch.nn.Module) -> None:
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def log_lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_resumed_run_gives_the_weights_of_one_never_interrupted(make_toy, pictures, tmp_path):
    whole, interrupted, resumed = make_toy(), make_toy(CtrlCAt), make_toy()
    expected = train(whole, pictures, RUN, tmp_path / "whole", progress=False)
    history = train(interrupted, pictures, RUN, tmp_path / "parts", progress=False)
    assert history.interrupted
    assert history.records[-1]["step"] == 3
    torch.manual_seed(99)
    resumed.generator[0].weight.data.zero_()
    history = train(resumed, pictures, RUN, tmp_path / "parts", resume=True, progress=False)

    assert not history.interrupted
    assert_same_state(whole, resumed)
    assert_same_state(expected.averaged["generator"], history.averaged["generator"])
    for name, optimizer in whole.optimizers.items():
        ours = resumed.optimizers[name].state_dict()["state"]
        for index, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                assert torch.equal(value, ours[index][key]), (name, index, key)
    model = tmp_path / "parts" / "model.safetensors"
    assert model.read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert [line["step"] for line in log_lines(tmp_path / "parts")] == [2, 3, 4, 6]


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "finegan_clusters"])
def test_every_method_is_resumed_to_the_weights_of_a_run_never_interrupted(name, tmp_path):
    """The toy above has no penalty that comes every few steps, no head start, and one network that is averaged."""
    preset = PRESETS[name]["smoke"]
    run = dataclasses.replace(preset.run, steps=4, log_every=2, snapshot_every=2, decay_from=1.0)
    histories, methods = [], []
    for until in ((4,), (2, 4)):
        for steps in until:
            torch.manual_seed(0)
            methods.append(build(preset.method))
            folder, part = tmp_path / str(len(until)), dataclasses.replace(run, steps=steps)
            histories.append(train(methods[-1], preset.dataset(), part, folder, resume=True, progress=False))
    (whole, half, resumed), (expected, _, history) = methods, histories
    assert any(not torch.equal(a, b) for a, b in zip(half.parameters(), resumed.parameters(), strict=True))
    assert_same_state(whole, resumed)
    for network, averaged in expected.averaged.items():
        assert_same_state(averaged, history.averaged[network])


def test_log_lines_written_after_the_last_snapshot_are_dropped_on_resume(make_toy, pictures, tmp_path):
    train(make_toy(CtrlCAt), pictures, RUN, tmp_path, progress=False)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4}\n{"step": 5, "ima')
    history = train(make_toy(), pictures, RUN, tmp_path, resume=True, progress=False)
    assert [record["step"] for record in history.records] == [2, 3, 4, 6]
    assert all("images" in record for record in history.records)


def test_resume_without_a_snapshot_starts_anew(make_toy, pictures, tmp_path):
    assert len(train(make_toy(), pictures, RUN, tmp_path, resume=True, progress=False).records) == 4


def test_signal_handlers_are_put_back(make_toy, pictures):
    before = signal.getsignal(signal.SIGINT)
    train(make_toy(), pictures, RUN, progress=False)
    assert signal.getsignal(signal.SIGINT) is before


def test_second_sigterm_still_saves(make_toy, pictures, tmp_path):
    assert train(make_toy(TermTwiceAt), pictures, RUN, tmp_path, progress=False).interrupted
    resumed = make_toy()
    train(resumed, pictures, RUN, tmp_path, resume=True, progress=False)
    whole = make_toy()
    train(whole, pictures, RUN, progress=False)
    assert_same_state(resumed, whole)


def test_second_ctrl_c_stops_at_once(make_toy, pictures):
    with pytest.raises(KeyboardInterrupt):
        train(make_toy(CtrlCTwiceAt), pictures, RUN, progress=False)


def test_snapshot_of_other_data_or_a_later_step_is_refused(make_toy, pictures, tmp_path):
    train(make_toy(), pictures, RUN, tmp_path, progress=False)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for other, run, message in (
        (Pictures(seed=99), RUN, "made with data.seed = 0, this run has 99"),
        (pictures, dataclasses.replace(RUN, steps=2), "is of step 6, this run ends at step 2"),
    ):
        with pytest.raises(checkpoints.CheckpointError, match=message):
            train(make_toy(), other, run, tmp_path, resume=True, progress=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


class Cropped(Pictures):
    """Pictures with an argument that may be None."""

    def __init__(self, crop: float | None = None):
        super().__init__()
        self.crop = crop


@pytest.mark.parametrize(("then", "now"), [(1.0, None), (None, 1.0)])
def test_snapshot_of_data_with_another_optional_argument_is_refused(make_toy, tmp_path, then, now):
    train(make_toy(), Cropped(then), RUN, tmp_path, progress=False)
    with pytest.raises(checkpoints.CheckpointError, match=f"made with data.crop = {then}, this run has {now}"):
        train(make_toy(), Cropped(now), RUN, tmp_path, resume=True, progress=False)
    assert checkpoints.card(tmp_path / "model.safetensors")["data"]["crop"] == then


def test_snapshot_that_knows_less_of_its_data_is_resumed(make_toy, pictures, tmp_path, monkeypatch):
    train(make_toy(CtrlCAt), pictures, RUN, tmp_path, progress=False)
    monkeypatch.setattr(loop, "_describe", lambda data: {"name": "Pictures", "length": 20, "seed": 0, "crop": 1.0})
    assert not train(make_toy(), pictures, RUN, tmp_path, resume=True, progress=False).interrupted


@pytest.mark.parametrize(("added", "goes_on"), [(0.0, True), (1.0, False)])
def test_snapshot_that_does_not_know_a_newer_field_of_the_config_is_resumed_if_that_changes_nothing(
    make_toy, pictures, tmp_path, added, goes_on
):
    train(make_toy(CtrlCAt), pictures, RUN, tmp_path, progress=False)
    newer = make_toy()
    newer.config = dataclasses.make_dataclass(
        "Newer", [("width", int, 8), ("betas", tuple, (0.5, 0.999)), ("more", float, 0.0)]
    )()
    newer.config.more = added
    if goes_on:
        assert not train(newer, pictures, RUN, tmp_path, resume=True, progress=False).interrupted
    else:
        with pytest.raises(checkpoints.CheckpointError, match=r"made with config.more = 0.0, this run has 1.0"):
            train(newer, pictures, RUN, tmp_path, resume=True, progress=False)


@pytest.mark.parametrize("option", [{"tied": False}, {"correlation": 0.9}, {"n_birds": 3}, {"wander": 1.0}, {"size": 32}])
def test_every_option_of_the_birds_is_described(option):
    plain, other = (loop._describe(PaperBirds(length=2, **arguments)) for arguments in ({}, option))
    assert {name: value for name, value in other.items() if plain[name] != value} == option


def loaded(run: RunSettings, done: int = 0):
    """The batches of one worker, from step `done` on."""
    return iter(_loader(Drawn(), dataclasses.replace(run, workers=1), done, Accelerator()))


def test_kept_items_are_described_as_the_data_set_that_made_them():
    birds = PaperBirds(size=32, length=2, seed=7)
    assert loop._describe(InMemory(birds)) == loop._describe(birds)


def test_data_are_described_as_they_are_when_the_run_begins(make_toy, pictures, tmp_path, monkeypatch):
    described, describe = [], loop._describe
    monkeypatch.setattr(loop, "_describe", lambda data: described.append(data) or describe(data))
    train(make_toy(), pictures, RUN, tmp_path, progress=False)
    assert len(described) == 1  # snapshots and the card say what it was: pictures may have changed since


def test_a_data_set_may_say_more_of_itself():
    class Mine(PaperBirds):
        described: ClassVar[dict[str, str]] = {"files": "ab"}

    birds = Mine(length=2)
    assert loop._describe(birds) == loop._describe(PaperBirds(length=2)) | {"name": "Mine", "files": "ab"}


def test_workers_draw_other_numbers_with_another_seed_and_after_a_resume():
    first, again, of_another_seed, resumed = (
        float(next(loaded(run, done))["number"])
        for run, done in ((RUN, 0), (RUN, 0), (dataclasses.replace(RUN, seed=1), 0), (RUN, 5))
    )
    assert first == again
    assert len({first, of_another_seed, resumed}) == 3


def test_workers_outlive_a_sigterm_to_all():
    batches = loaded(RUN)
    next(batches)
    (worker,) = batches._workers
    os.kill(worker.pid, signal.SIGTERM)
    for _ in range(4):  # more than were fetched ahead
        next(batches)
    assert worker.is_alive()


def test_nan_names_the_loss_and_the_step_and_keeps_the_snapshot(make_toy, pictures, tmp_path):
    with pytest.raises(FloatingPointError, match=r"loss 'generator' is nan at step 4; last good snapshot: .*snapshot"):
        train(make_toy(NanAt), pictures, RUN, tmp_path, progress=False)
    resumed = train(make_toy(), pictures, RUN, tmp_path, resume=True, progress=False)
    assert [record["step"] for record in resumed.records] == [2, 3, 4, 6]


def test_a_weight_that_is_not_finite_is_never_saved(make_toy, pictures, tmp_path):
    def break_a_weight(progress):
        if progress.step == 4:
            progress.method.generator[0].weight.data[0, 0] = float("inf")
            progress.method.training_step = lambda batch: {"loss": torch.zeros(())}

    with pytest.raises(FloatingPointError, match=r"generator\.0\.weight is not finite after step 6"):
        train(make_toy(), pictures, RUN, tmp_path, progress=False, callbacks=[break_a_weight])
    assert log_lines(tmp_path)[-1]["step"] == 6
    resumed = train(make_toy(), pictures, RUN, tmp_path, resume=True, progress=False)
    assert resumed.records[1]["step"] == 3


class Finishing(Toy):
    """Writes down what it finds at the end of training."""

    finished = ()

    def finish(self, batches):
        weights = [parameter.clone() for parameter in self.generator.parameters()]
        self.finished = (*self.finished, (self.training, weights, [batch["image"] for batch in batches]))
        return {"seen": len(self.finished[-1][-1])}


def test_what_finishes_a_method_is_done_once_in_the_end_with_the_averages(make_toy, pictures, tmp_path):
    method = make_toy(Finishing)
    history = train(method, pictures, RUN, tmp_path, progress=False)
    ((training, weights, batches),) = method.finished
    assert not training
    assert {len(batch) for batch in batches} == {RUN.batch_size}
    card = json.loads((tmp_path / "model.json").read_text())
    assert card["finished"] == {"seen": len(batches)} and card["seconds"] == round(history.seconds, 1)
    for found, expected in zip(weights, history.averaged["generator"].parameters(), strict=True):
        assert torch.equal(found, expected)


def test_a_method_is_finished_on_one_pass_through_the_data(make_toy, pictures):
    method = make_toy(Finishing)
    train(method, pictures, RUN, progress=False)  # it ends amid an epoch
    seen = torch.cat(method.finished[0][-1]).flatten(1)
    assert RUN.steps % (len(pictures) // RUN.batch_size)
    assert len(seen) == len(seen.unique(dim=0)) == len(pictures) // RUN.batch_size * RUN.batch_size


def test_an_interrupted_run_is_not_finished(make_toy, pictures):
    class Both(Finishing, CtrlCAt):
        pass

    method = make_toy(Both)
    assert train(method, pictures, RUN, progress=False).interrupted
    assert not method.finished


def test_average_is_the_recursion_written_out(make_toy, pictures):
    toy, expected = make_toy(), None
    run = dataclasses.replace(RUN, log_every=1)

    def follow(progress):
        nonlocal expected
        state = {k: v.clone() for k, v in progress.method.generator.state_dict().items() if v.is_floating_point()}
        done = progress.step - 1
        decay = min(0.5, (1 + done) / (10 + done))  # short memory first: 2/11, 3/12, …
        expected = state if expected is None else {k: decay * expected[k] + (1 - decay) * v for k, v in state.items()}

    history = train(toy, pictures, run, progress=False, callbacks=[follow])
    averaged = history.averaged["generator"].state_dict()
    assert "1.running_mean" in expected
    for name, value in expected.items():
        torch.testing.assert_close(averaged[name], value)


def test_rates_are_constant_then_fall_linearly_and_come_back(make_toy, pictures):
    rates = []
    toy = make_toy()
    toy.optimizers["generator"].register_step_post_hook(lambda opt, *_: rates.append(opt.param_groups[0]["lr"]))
    train(toy, pictures, RUN, progress=False)
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.01, 0.01 * 2 / 3, 0.01 / 3])
    assert toy.optimizers["generator"].param_groups[0]["lr"] == 0.01


def test_adam_is_fused_and_gives_what_the_plain_one_gives(make_toy, pictures):
    fused, plain = make_toy(), make_toy()
    train(fused, pictures, RUN, progress=False)
    assert fused.optimizers["discriminator"].param_groups[0]["fused"]
    step = plain.training_step

    def unfused(batch):
        plain.optimizers["discriminator"].param_groups[0]["fused"] = None
        return step(batch)

    plain.training_step = unfused
    train(plain, pictures, RUN, progress=False)
    for (name, a), b in zip(fused.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4, msg=name)


def test_channels_last_run_is_resumed_to_the_same_weights(make_toy, pictures, tmp_path):
    run = dataclasses.replace(RUN, channels_last=True)
    whole, parts = make_toy(), make_toy()
    train(whole, pictures, run, progress=False)
    train(make_toy(), pictures, dataclasses.replace(run, steps=3, decay_from=1.0), tmp_path, progress=False)
    history = train(parts, pictures, run, tmp_path, resume=True, progress=False)
    assert history.records[0]["step"] == 2
    assert_same_state(whole, parts)
    for parameter, state in parts.optimizers["discriminator"].state.items():
        assert state["exp_avg"].stride() == parameter.stride()


def test_a_method_trained_on_in_another_memory_format_keeps_its_averages_of_gradients(make_toy, pictures):
    one, other = make_toy(), make_toy()
    for toy, formats in ((one, (False, False)), (other, (False, True))):
        for channels_last in formats:
            train(toy, pictures, dataclasses.replace(RUN, channels_last=channels_last), progress=False)
    for name, optimizer in one.optimizers.items():
        for mine, theirs in zip(optimizer.state.values(), other.optimizers[name].state.values(), strict=True):
            torch.testing.assert_close(mine, theirs)


def test_callbacks_may_draw_random_numbers_without_changing_the_run(make_toy, pictures):
    quiet, noisy = make_toy(), make_toy()
    train(quiet, pictures, RUN, progress=False)
    train(noisy, pictures, RUN, progress=False, callbacks=[lambda progress: torch.rand(100)])
    assert_same_state(quiet, noisy)


def test_workers_give_the_same_run(make_toy, pictures):
    alone, helped = make_toy(), make_toy()
    train(alone, pictures, RUN, progress=False)
    train(helped, pictures, dataclasses.replace(RUN, workers=1), progress=False)
    assert_same_state(alone, helped)


def test_losses_are_means_over_the_steps_since_the_last_line(make_toy, pictures):
    class Counting(Toy):
        taken = 0

        def training_step(self, batch, codes=None):
            self.taken += 1
            losses = {"always": torch.tensor(float(self.taken))}
            return losses | ({"late": torch.tensor(10.0)} if self.taken > 1 else {})

    run = dataclasses.replace(RUN, snapshot_every=4, log_every=4)
    records = train(make_toy(Counting), pictures, run, progress=False).records
    found = [(record["step"], record["always"], record["late"]) for record in records]
    assert found == [(4, 2.5, 10.0), (6, 5.5, 10.0)]


def test_bf16_keeps_weights_in_fp32_and_trains_with_fresh_casts(make_toy, pictures):
    seen = []

    class Looking(Toy):
        def training_step(self, batch, codes=None):
            layer, x = self.generator[0], batch["codes"]
            before = layer(x)
            with torch.no_grad():
                layer.weight.mul_(2)
            seen.append((before, layer(x)))
            return {"loss": torch.zeros(())}

    run = dataclasses.replace(RUN, steps=1, precision="bf16")
    toy = make_toy(Looking)
    train(toy, pictures, run, progress=False)
    before, after = seen[0]
    assert before.dtype == torch.bfloat16
    assert toy.generator[0].weight.dtype == torch.float32
    torch.testing.assert_close(after, 2 * before)


@pytest.mark.parametrize(
    ("abilities", "faster", "chosen"),
    [({"avx512_f": True}, True, "fp32"), ({"amx_bf16": True}, True, "bf16"), ({"avx512_bf16": True}, False, "fp32")],
)
def test_auto_precision_is_bf16_where_the_processor_has_it_and_is_faster_in_it(monkeypatch, abilities, faster, chosen):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities)
    monkeypatch.setattr(loop, "_faster_in_bf16", lambda: faster)
    assert choose_precision("auto", torch.device("cpu")) == chosen
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"


@pytest.mark.parametrize(("bf16", "fp32"), [(1.0, 2.0), (2.0, 1.0)])
def test_faster_precision_is_that_of_the_quicker_product(monkeypatch, bf16, fp32):
    now, products = [0.0], []

    def product(one, other):
        products.append(one.dtype)
        now[0] += {torch.bfloat16: bf16, torch.float32: fp32}[one.dtype]
        return one

    monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(torch.Tensor, "__matmul__", product)
    assert loop._faster_in_bf16.__wrapped__() is (bf16 < fp32)
    assert products.count(torch.bfloat16) == products.count(torch.float32) > 1


@pytest.mark.parametrize("found", ["bf16", "fp32"])
def test_resumed_run_keeps_the_precision_that_was_chosen(make_toy, pictures, tmp_path, monkeypatch, found):
    run = dataclasses.replace(RUN, precision="auto", steps=4, snapshot_every=2)
    monkeypatch.setattr(loop, "choose_precision", lambda precision, device: found)
    train(make_toy(), pictures, dataclasses.replace(run, steps=2), tmp_path, progress=False)
    used, autocast = [], loop.autocast
    monkeypatch.setattr(loop, "choose_precision", lambda precision, device: "fp32" if found == "bf16" else "bf16")
    monkeypatch.setattr(loop, "autocast", lambda device, precision: (used.append(precision), autocast(device, precision))[1])
    train(make_toy(), pictures, run, tmp_path, resume=True, progress=False)
    assert used == [found]
    assert checkpoints.card(tmp_path / "model.safetensors")["precision"] == found


def test_averaged_weights_are_in_place_within_the_block_only(make_toy, pictures):
    toy = make_toy()
    history = train(toy, pictures, RUN, progress=False)
    trained = toy.generator
    with averaged_weights(toy, history.averaged) as averaged:
        assert averaged.generator is history.averaged["generator"]
        assert not averaged.training
    assert toy.generator is trained
    assert toy.training


def test_saved_model_holds_the_averaged_weights_and_its_card_the_run(make_toy, pictures, tmp_path):
    history = train(make_toy(), pictures, RUN, tmp_path, progress=False)
    tensors = checkpoints.read_tensors(tmp_path / "model.safetensors")[0]
    for name, value in history.averaged["generator"].state_dict().items():
        assert torch.equal(tensors[f"generator.{name}"], value)
    card = checkpoints.card(tmp_path / "model.safetensors")
    assert card["data"] == {"name": "Pictures", "length": 20, "seed": 0}
    assert (card["steps"], card["images"], card["run"]["batch_size"]) == (6, 24, 4)


@pytest.mark.parametrize("processes", [1, 2])
def test_each_epoch_shows_every_picture_once(processes):
    orders = [iter(BatchOrder(12, 4, seed=1, process=i, processes=processes)) for i in range(processes)]
    epochs = [[i for _ in range(3) for order in orders for i in next(order)] for _ in range(2)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_processes_share_the_batches_of_one():
    one = iter(BatchOrder(10, 4, seed=3))
    two = [iter(BatchOrder(10, 4, seed=3, process=i, processes=2)) for i in range(2)]
    for _ in range(5):
        assert next(one) == next(two[0]) + next(two[1])


def test_order_from_a_later_step_is_the_rest_of_the_order():
    whole, rest = iter(BatchOrder(10, 4, seed=3)), iter(BatchOrder(10, 4, seed=3, start=3))
    for _ in range(3):
        next(whole)
    assert [next(whole) for _ in range(4)] == [next(rest) for _ in range(4)]


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("batch_size", -1), ("seed", -1), ("ema_decay", 1.5), ("decay_from", -0.1), ("precision", "fp16")],
)
def test_bad_settings_are_named_with_their_value(field, value):
    with pytest.raises(ValueError, match=rf"{field} .*{value}"):
        dataclasses.replace(RUN, **{field: value})


def test_batch_larger_than_the_data_set_is_refused(make_toy):
    with pytest.raises(ValueError, match="batch_size 4 is larger than the data set, which has 3 images"):
        train(make_toy(), Pictures(3), RUN, progress=False)


def test_processes_that_do_not_know_of_each_other_are_refused(make_toy, pictures, monkeypatch, tmp_path):
    accelerator = Accelerator()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"2 processes were started, but this one .* set ACCELERATE_USE_CPU=yes"):
        train(make_toy(), pictures, RUN, tmp_path / "run", progress=False, accelerator=accelerator)
    assert not (tmp_path / "run").exists()


def test_a_folder_with_a_run_is_not_overwritten(make_toy, pictures, tmp_path):
    train(make_toy(), pictures, RUN, tmp_path, progress=False)
    with pytest.raises(FileExistsError, match="holds a run already"):
        train(make_toy(), pictures, RUN, tmp_path, progress=False)


@pytest.mark.parametrize("resume", [False, True])
def test_a_model_whose_snapshot_is_gone_is_not_overwritten(make_toy, pictures, tmp_path, resume):
    train(make_toy(), pictures, RUN, tmp_path, progress=False)
    (tmp_path / "snapshot.safetensors").unlink()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match="holds a finished model and no snapshot to go on from: remove it, or choose"):
        train(make_toy(), pictures, dataclasses.replace(RUN, seed=1), tmp_path, resume=resume, progress=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_finished_run_that_is_resumed_keeps_its_card_and_a_longer_one_gets_another(make_toy, pictures, tmp_path, monkeypatch):
    model = tmp_path / "model.safetensors"
    here = {"machine": {"cpu": "old"}, "versions": {"torch": "1"}, "commit": "a" * 40}
    there = {"machine": {"cpu": "new"}, "versions": {"torch": "2"}, "commit": "b" * 40}

    def made() -> dict:
        return {name: checkpoints.card(model)[name] for name in here}

    for name, value in here.items():
        monkeypatch.setattr(checkpoints, name, lambda value=value: value)
    train(make_toy(), pictures, RUN, tmp_path, progress=False)
    checkpoints.update_card(model, {"fid": 1.0})
    before, card = model.read_bytes(), checkpoints.card(model)
    assert made() == here
    for name, value in there.items():
        monkeypatch.setattr(checkpoints, name, lambda value=value: value)
    train(make_toy(), pictures, RUN, tmp_path, resume=True, progress=False)
    assert model.read_bytes() == before and checkpoints.card(model) == card
    train(make_toy(), pictures, dataclasses.replace(RUN, steps=8), tmp_path, resume=True, progress=False)
    assert checkpoints.card(model)["figures"] == {} and made() == there


def test_snapshot_of_another_config_says_both(make_toy, pictures, tmp_path):
    train(make_toy(), pictures, RUN, tmp_path, progress=False)
    with pytest.raises(checkpoints.CheckpointError, match=r"config.width = 8, this run has 6"):
        train(make_toy(width=6), pictures, RUN, tmp_path, resume=True, progress=False)


def test_snapshot_of_another_run_says_both(make_toy, pictures, tmp_path):
    train(make_toy(), pictures, RUN, tmp_path, progress=False)
    with pytest.raises(checkpoints.CheckpointError, match=r"run.seed = 0, this run has 1"):
        train(make_toy(), pictures, dataclasses.replace(RUN, seed=1), tmp_path, resume=True, progress=False)


def test_a_run_keeps_the_start_it_had(make_toy, pictures, tmp_path):
    model = tmp_path / "model.safetensors"
    one, other = ({"method": "toy", "sha256": letter * 64} for letter in "ab")
    train(make_toy(CtrlCAt), pictures, RUN, tmp_path, progress=False, about={"start": one})
    with pytest.raises(checkpoints.CheckpointError, match=r"started from .* a{64}, this one starts from b{64}: choose another"):
        train(make_toy(), pictures, RUN, tmp_path, resume=True, progress=False, about={"start": other})
    for about in ({}, {"start": one}, {"start": one | {"seconds": 2.0}}):  # the checkpoint itself may be gone
        train(make_toy(), pictures, RUN, tmp_path, resume=True, progress=False, about=about)
        assert checkpoints.card(model)["start"] == one
    train(make_toy(), pictures, RUN, tmp_path / "fresh", progress=False)
    with pytest.raises(checkpoints.CheckpointError, match="started from fresh weights"):
        train(make_toy(), pictures, RUN, tmp_path / "fresh", resume=True, progress=False, about={"start": one})


def test_a_finished_run_keeps_the_settings_it_was_made_with(make_toy, pictures, tmp_path):
    train(make_toy(), pictures, RUN, tmp_path, progress=False)
    before = checkpoints.card(tmp_path / "model.safetensors")
    other = dataclasses.replace(RUN, decay_from=0.1, accumulate=2, precision="bf16")
    train(make_toy(), pictures, other, tmp_path, resume=True, progress=False)
    assert checkpoints.card(tmp_path / "model.safetensors") == before


def test_a_run_that_is_ended_where_it_was_interrupted_says_so(make_toy, pictures, tmp_path):
    train(make_toy(CtrlCAt), pictures, RUN, tmp_path, progress=False)
    train(make_toy(), pictures, dataclasses.replace(RUN, steps=3), tmp_path, resume=True, progress=False)
    card = checkpoints.card(tmp_path / "model.safetensors")
    assert card["steps"] == card["run"]["steps"] == 3


def test_damaged_snapshot_is_named(make_toy, pictures, tmp_path):
    train(make_toy(), pictures, RUN, tmp_path, progress=False)
    snapshot = tmp_path / "snapshot.safetensors"
    snapshot.write_bytes(snapshot.read_bytes()[:-100])
    with pytest.raises(checkpoints.CheckpointError, match=r"snapshot\.safetensors is damaged"):
        train(make_toy(), pictures, RUN, tmp_path, resume=True, progress=False)


def test_full_disk_stops_the_run_and_leaves_the_old_snapshot(make_toy, pictures, tmp_path, monkeypatch):
    train(make_toy(CtrlCAt), pictures, RUN, tmp_path, progress=False)
    before = (tmp_path / "snapshot.safetensors").read_bytes()
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(OSError, match=r"no disk space for snapshot\.safetensors") as error:
        train(make_toy(), pictures, RUN, tmp_path, resume=True, progress=False)
    assert error.value.errno == errno.ENOSPC
    assert (tmp_path / "snapshot.safetensors").read_bytes() == before
