import math
from dataclasses import replace

import pytest
import torch

from tutorial_lib.data.birds import PaperBirds
from tutorial_lib.methods.baselines import InfoGAN
from tutorial_lib.training.presets import PRESETS

SMOKE = PRESETS["infogan"]["smoke"].method


@pytest.fixture
def infogan() -> InfoGAN:
    torch.manual_seed(0)
    return InfoGAN(SMOKE)


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    return PaperBirds(size=32, length=4).batch(range(4))


def test_samples_are_pictures_with_one_hot_classes(infogan):
    (z, c), images = infogan.sample(5, generator=torch.Generator().manual_seed(0))
    assert z.shape == (5, 8) and c.shape == (5, 24)
    assert torch.equal(c.sum(1), torch.ones(5)) and set(c.unique().tolist()) == {0, 1}
    assert images.shape == (5, 3, 32, 32) and images.abs().max() <= 1


def test_step_trains_generator_judge_and_reader(infogan, batch):
    discriminator = infogan.discriminator
    parts = {
        "generator": infogan.generator, "trunk": discriminator.trunk, "real": discriminator.real, "code": discriminator.code
    }  # fmt: skip
    before = {name: [p.clone() for p in part.parameters()] for name, part in parts.items()}
    losses = infogan.training_step(batch)
    assert losses.keys() == {"d", "g", "information"}
    assert all(math.isfinite(loss) and not loss.requires_grad for loss in losses.values())
    for name, part in parts.items():
        assert not all(torch.equal(old, new) for old, new in zip(before[name], part.parameters(), strict=True)), name
    assert all(parameter.requires_grad for parameter in infogan.parameters())
    assert int(infogan.step) == 1


def test_optimisers_share_no_parameter_and_miss_none(infogan):
    held = [p for optimizer in infogan.optimizers.values() for group in optimizer.param_groups for p in group["params"]]
    assert len({id(p) for p in held}) == len(held) == len(list(infogan.parameters()))


def test_wrong_widths_are_named():
    with pytest.raises(ValueError, match="image_size 64"):
        replace(SMOKE, image_size=64)
