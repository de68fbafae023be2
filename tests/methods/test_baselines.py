import math
from dataclasses import replace

import pytest
import torch
from torch.autograd.functional import jacobian

from tutorial_lib.data.birds import PaperBirds
from tutorial_lib.data.faces import PaperFaces
from tutorial_lib.methods.baselines import InfoGAN, StarGAN, StarGANConfig
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
    assert z.shape == (5, 10) and c.shape == (5, 24)
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


def test_pictures_of_another_size_are_refused(infogan):
    with pytest.raises(ValueError, match=r"image must be \(B, 3, 32, 32\)"):
        infogan.training_step({"image": torch.zeros(4, 3, 64, 64)})


def test_optimisers_share_no_parameter_and_miss_none(infogan):
    held = [p for optimizer in infogan.optimizers.values() for group in optimizer.param_groups for p in group["params"]]
    assert len({id(p) for p in held}) == len(held) == len(list(infogan.parameters()))


def test_judge_is_penalised_once_in_so_many_steps(batch):
    torch.manual_seed(0)
    infogan = InfoGAN(replace(SMOKE, real_penalty=0.3, real_penalty_every=2))
    for optimizer in infogan.optimizers.values():
        optimizer.param_groups[0]["lr"] = 0.0
    codes = infogan.sample_codes(4)
    judge, image = infogan.discriminator.judge, batch["image"].as_subclass(torch.Tensor)
    with_penalty, without, again = (float(infogan.training_step(batch, codes)["d"]) for _ in range(3))
    assert with_penalty == again
    squared = torch.stack([jacobian(lambda x: judge(x).sum(), x[None]).square().sum() for x in image]).mean()
    assert with_penalty - without == pytest.approx(2 * 0.3 / 2 * float(squared), rel=1e-3)


def test_wrong_widths_are_named():
    with pytest.raises(ValueError, match="image_size 64"):
        replace(SMOKE, image_size=64)


# ---- StarGAN


STARGAN = PRESETS["stargan"]["smoke"].method  # two updates of the critic for each of the generator


def make_stargan(**changes) -> StarGAN:
    torch.manual_seed(0)
    return StarGAN(replace(STARGAN, **changes))


@pytest.fixture(scope="module")
def faces() -> dict[str, torch.Tensor]:
    return PaperFaces(size=32, length=6).batch(range(6))


def weights(module: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def moved(before: list[torch.Tensor], module: torch.nn.Module) -> bool:
    return any(not torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))


def test_stargan_has_the_published_layers():
    with torch.device("meta"):
        model = StarGAN(StarGANConfig())
        fake, logits = (
            model.generator(torch.empty(2, 3, 128, 128), torch.empty(2, 4)),
            model.critic.read(torch.empty(2, 3, 128, 128)),
        )
    assert fake.shape == (2, 3, 128, 128) and logits["expression"].shape == (2, 4)
    ends = 49 * 64 * (3 + 4) + 49 * 64 * 3
    scaled = 2 * 16 * (64 * 128 + 128 * 256)
    norms = 2 * (64 + 128 + 256 + 12 * 256 + 128 + 64)
    assert sum(p.numel() for p in model.generator.parameters()) == ends + scaled + 12 * 9 * 256**2 + norms


def test_stargan_gives_each_picture_the_label_it_is_told(faces):
    model = make_stargan().eval()
    with torch.no_grad():
        one = model.translate(faces["image"], expression=2)
        each = model.translate(faces["image"], expression=torch.tensor([2, 2, 2, 0, 1, 3]))
    assert one.shape == (6, 3, 32, 32) and one.abs().max() <= 1
    torch.testing.assert_close(one[:3], each[:3])
    assert not torch.allclose(one[3:], each[3:])


def test_stargan_mixes_two_pictures_at_least_and_shows_all_its_classes(faces):
    model = make_stargan().eval()
    with pytest.raises(ValueError, match="mixing takes at least 2 pictures"):
        model.training_step({name: value[:1] for name, value in faces.items()})
    with torch.no_grad():
        pictures, *classes = model.sheet(faces["image"])
    assert torch.equal(pictures, faces["image"]) and len(classes) == 4
    assert torch.equal(classes[2], model.translate(faces["image"], expression=2))


def test_stargans_generator_learns_once_for_so_many_updates_of_the_critic(faces):
    model = make_stargan()
    generator, critic = weights(model.generator), weights(model.critic)
    losses = model.training_step(faces)
    assert losses.keys() == {"d", "penalty", "c"} and not moved(generator, model.generator) and moved(critic, model.critic)
    critic = weights(model.critic)
    losses = model.training_step(faces)
    assert losses.keys() == {"d", "penalty", "c", "adversarial", "cls_picture", "rec"} and moved(generator, model.generator)
    assert moved(critic, model.critic) and int(model.step) == 2
    assert all(math.isfinite(loss) and not loss.requires_grad for loss in losses.values())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_stargan_is_told_several_labels(faces):
    model = make_stargan(attributes=(("expression", 4), ("illumination", 5)), critic_updates=1)
    losses = model.training_step(faces)
    assert math.isfinite(losses["cls_picture"])
    assert model.translate(faces["image"], expression=1, illumination=faces["illumination"]).shape == (6, 3, 32, 32)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, "needs a label 'expression'"),
        ({"expression": 4}, "expression must be integers .*0 … 3"),
        ({"expression": 1, "colour": 2}, "no label colour; this model has expression"),
        ({"expression": torch.zeros(4, dtype=torch.int64)}, "expression: 4 labels do not go with 6 pictures"),
    ],
)
def test_wrong_label_for_stargan_is_named(faces, labels, message):
    with pytest.raises(ValueError, match=message):
        make_stargan().translate(faces["image"], **labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": (4,)}, "widths halves .*0 times"),
        ({"critic_widths": (4,) * 6}, "critic_widths halves a picture of 32 pixels 6 times"),
        ({"critic_updates": 0}, "critic_updates must be at least 1, got 0"),
    ],
)
def test_wrong_stargan_config_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(STARGAN, **changes)
