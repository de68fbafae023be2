"""A batch in parts against the whole batch, for methods of one and of several updates a step."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torchvision import tv_tensors
from toy_method import Pictures, Plain, Toy, ToyConfig

from tutorial_lib.data.birds import PaperBirds
from tutorial_lib.training.accumulation import Accumulation, split
from tutorial_lib.training.loop import RunSettings, train
from tutorial_lib.training.presets import PRESETS, build

RUN = RunSettings(steps=3, batch_size=4, log_every=1, snapshot_every=3, precision="fp32", ema_decay=0.5)


class Alternating(Plain):
    """Every second step has one update more, made with a rate of its own, as GM-VAE's."""

    def training_step(self, batch, codes=None):
        losses = super().training_step(batch, codes)
        if int(self.step) % 2 == 0:
            optimizer = self.optimizers["generator"]
            loss = self.discriminator(self.generator(batch["codes"])).square().mean()
            optimizer.zero_grad()
            loss.backward()
            rate = optimizer.param_groups[0]["lr"]
            optimizer.param_groups[0]["lr"] = rate / 3
            optimizer.step()
            optimizer.param_groups[0]["lr"] = rate
            losses["more"] = loss.detach()
        return losses


def assert_close(one: nn.Module, other: nn.Module) -> None:
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5, msg=name)


def distance(one: nn.Module, other: nn.Module) -> float:
    return max(float((a - b).detach().abs().max()) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("kind", [Plain, Alternating])
@pytest.mark.parametrize("parts", [2, 4])
def test_parts_give_the_updates_of_the_whole_batch(make_toy, pictures, kind, parts):
    whole, accumulated = make_toy(kind), make_toy(kind)
    expected = train(whole, pictures, RUN, progress=False)
    found = train(accumulated, pictures, dataclasses.replace(RUN, accumulate=parts), progress=False)
    assert_close(whole, accumulated)
    assert_close(expected.averaged["generator"], found.averaged["generator"])
    for one, other in zip(expected.records, found.records, strict=True):
        last = "more" if "more" in one else "generator"  # the others are told with their own updates in them
        assert other.keys() == one.keys()
        assert other[last] == pytest.approx(one[last], rel=1e-2)
    assert set(accumulated.seen) == {4 // parts}
    assert whole.optimizers["generator"].param_groups[0]["lr"] == accumulated.optimizers["generator"].param_groups[0]["lr"]


def test_generator_learns_from_a_discriminator_that_has_moved(make_toy, pictures):
    """Adding up the gradients of whole steps, part after part, does not do."""
    batch = pictures.__getitems__([0, 1, 2, 3])
    whole, right, naive = (make_toy(Plain) for _ in range(3))
    whole.training_step(batch)
    Accumulation(right, 2)(batch)

    steps = {name: optimizer.step for name, optimizer in naive.optimizers.items()}
    sums: dict[nn.Parameter, torch.Tensor] = {}
    for optimizer in naive.optimizers.values():
        optimizer.step = lambda: None
    for part in split(batch, 2):
        naive.training_step(part)
        for parameter in naive.generator.parameters():
            sums[parameter] = sums.get(parameter, 0) + parameter.grad / 2
    for parameter, gradient in sums.items():
        parameter.grad = gradient
    steps["generator"]()
    assert distance(naive.generator, whole.generator) > 100 * distance(right.generator, whole.generator)


def test_a_part_draws_the_same_random_numbers_for_every_update_and_each_part_its_own():
    drawn = []

    class Drawing(Toy):
        def sample_codes(self, n):
            codes = super().sample_codes(n)
            drawn.append(codes)
            return codes

    torch.manual_seed(0)
    method = Drawing(ToyConfig())
    accumulation, batch = Accumulation(method, 2), Pictures().__getitems__([0, 1, 2, 3])
    accumulation(batch)
    accumulation(batch)
    first, second, *others = drawn[-4:]
    assert torch.equal(first, others[0]) and torch.equal(second, others[1]) and not torch.equal(first, second)
    assert not torch.equal(drawn[0], first)  # another step, other numbers


def test_updates_that_are_known_are_not_run_through_again(make_toy, pictures):
    method = make_toy(Plain)
    accumulation, batch = Accumulation(method, 2), pictures.__getitems__([0, 1, 2, 3])
    accumulation(batch)
    method.seen.clear()
    accumulation(batch)
    assert len(method.seen) == 2 * 2  # two updates of two parts


def test_optimisers_are_as_before_when_a_step_fails(make_toy, pictures):
    class Failing(Plain):
        def training_step(self, batch, codes=None):
            super().training_step(batch, codes)
            raise RuntimeError("no")

    method = make_toy(Failing)
    with pytest.raises(RuntimeError, match="no"):
        Accumulation(method, 2)(pictures.__getitems__([0, 1, 2, 3]))
    assert all("step" not in vars(optimizer) for optimizer in method.optimizers.values())


def test_resumed_run_in_parts_gives_the_weights_of_one_never_interrupted(make_toy, pictures, tmp_path):
    run = dataclasses.replace(RUN, steps=4, snapshot_every=2, accumulate=2)
    whole, parts = make_toy(), make_toy()
    train(whole, pictures, run, progress=False)
    train(parts, pictures, dataclasses.replace(run, steps=2), tmp_path, progress=False)
    train(parts, pictures, run, tmp_path, resume=True, progress=False)
    for (name, a), b in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_resumed_run_in_parts_gives_the_same_numbers_where_steps_have_more_updates_and_fewer(tmp_path):
    preset = PRESETS["gmvae"]["smoke"]
    run = dataclasses.replace(preset.run, steps=7, snapshot_every=3, log_every=1, accumulate=2)
    models = []
    for parts in ([7], [3, 7]):
        torch.manual_seed(0)
        models.append(build(dataclasses.replace(preset.method, stage_one_updates=3, classifier_updates=0)))
        for steps in parts:
            folder = tmp_path / str(len(parts))
            train(models[-1], preset.dataset(), dataclasses.replace(run, steps=steps), folder, resume=True, progress=False)
    for (name, a), b in zip(models[0].state_dict().items(), models[1].state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("name", ["finegan", "infogan", "mixnmatch_code", "comgan", "uniform_posterior", "stargan", "gmvae"])
def test_methods_train_in_parts_and_leave_nothing_frozen(name):
    preset = PRESETS[name]["smoke"]
    torch.manual_seed(0)
    method, learns = build(preset.method), []
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in trained]
    run = dataclasses.replace(preset.run, batch_size=4, accumulate=2, steps=4, log_every=2, snapshot_every=4, precision="fp32")
    history = train(method, preset.dataset(), run, progress=False)
    learns = [not torch.equal(a, b) for a, b in zip(before, trained, strict=True)]
    assert all(parameter.requires_grad for parameter in trained)
    assert sum(learns) > 0.95 * len(learns)
    assert history.records


def test_batch_that_cannot_be_divided_is_refused(make_toy, pictures):
    with pytest.raises(ValueError, match="batch_size 4 cannot be divided among 3 parts"):
        train(make_toy(), pictures, dataclasses.replace(RUN, accumulate=3), progress=False)
    with pytest.raises(ValueError, match=r"batch\['image'\] has 4 rows, which cannot be divided into 3 parts"):
        split({"image": torch.zeros(4, 3)}, 3)


def test_parts_keep_boxes_boxes():
    batch = PaperBirds(size=32, length=4).batch(range(4))
    halves = split(batch, 2)
    assert torch.equal(torch.cat([half["image"].as_subclass(torch.Tensor) for half in halves]), batch["image"])
    assert isinstance(halves[1]["box"], tv_tensors.BoundingBoxes)
    assert halves[1]["box"].canvas_size == batch["box"].canvas_size
