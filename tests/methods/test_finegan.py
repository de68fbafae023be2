import itertools
import math
from contextlib import nullcontext
from dataclasses import fields, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn
from torch.autograd.functional import jacobian
from torch.nn.utils.parametrize import is_parametrized
from torch.utils.flop_counter import FlopCounterMode
from torchvision import tv_tensors

from tutorial_lib.codes import Codes
from tutorial_lib.data.birds import PaperBirds
from tutorial_lib.methods import finegan
from tutorial_lib.methods.finegan import (
    BackgroundCritic,
    CellReader,
    CodePredictor,
    CodePredictorConfig,
    FineGAN,
    FineGANConfig,
    Generator,
    area_loss,
    binary_entropy,
    child_to_parent,
    critic_loss,
    fit_predictor,
    generator_loss,
    moved,
    patch_weights,
)
from tutorial_lib.training.presets import PRESETS

SMOKE = PRESETS["finegan"]["smoke"].method
# The published losses and norms, small.
PUBLISHED = FineGANConfig(
    image_size=32, z_dim=8, n_backgrounds=12, n_parents=3, n_children=12, width=8, background_widths=(8, 8, 4),
    parent_width=8, parent_widths=(8, 8, 4), child_width=4, parent_residuals=1, child_residuals=1, background_size=30,
    background_critic=((4, 2), (8, 1)), object_widths=(4, 8, 8), head_width=8,
)  # fmt: skip


def make(config: FineGANConfig = SMOKE, **changes) -> FineGAN:
    torch.manual_seed(0)
    return FineGAN(replace(config, **changes))


def weights(*modules: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for module in modules for parameter in module.parameters()]


def same(before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def judge(model: FineGAN) -> nn.Module:
    return nn.ModuleList([model.child_discriminator.trunk, model.child_discriminator.real])


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    return PaperBirds(size=32, length=4).batch(range(4))


# ---- the published sizes


@pytest.fixture(scope="module")
def paper() -> FineGAN:
    """The published networks without memory: shapes and counts only."""
    with torch.device("meta"):
        return FineGAN(FineGANConfig())


def test_published_parameter_counts(paper):
    def conv(inputs, outputs, kernel, bias=0):
        return inputs * outputs * kernel**2 + bias * outputs

    def norms(*widths):
        return 2 * sum(widths)

    trunk = sum(conv(a, b, 4) for a, b in itertools.pairwise((3, 64, 128, 256, 512, 512))) + conv(512, 512, 3)
    trunk += norms(128, 256, 512, 512, 512)
    code_head = conv(512, 512, 3) + norms(512)
    expected = {
        "generator": 13_500_672,
        "background_critic": conv(3, 64, 4, 1) + conv(64, 128, 4, 1) + conv(128, 256, 4, 1) + 2 * conv(256, 1, 4, 1),
        "parent_reader": trunk + code_head + conv(512, 20, 4, 1),
        "child_discriminator": trunk + code_head + conv(512, 200, 4, 1) + conv(512, 1, 4, 1),
    }
    counts = {name: sum(p.numel() for p in child.parameters()) for name, child in paper.named_children()}
    assert counts == expected


def test_published_generator_has_the_layers_of_the_table(paper):
    generator, seen = paper.generator, {}
    rows = {
        "background": generator.background.up, "parent": generator.parent.stem.up,
        "parent residual": generator.parent.residual, "child residual": generator.child.residual,
    }  # fmt: skip
    hooks = [
        layer.register_forward_hook(lambda *call, name=name: seen.setdefault(name, []).append(tuple(call[2].shape[1:])))
        for name, layers in rows.items()
        for layer in layers
    ]
    with torch.device("meta"):
        stages = generator(Codes(*(torch.empty(2, n) for n in (100, 200, 20, 200))))
    for hook in hooks:
        hook.remove()
    assert seen == {
        "background": [(256, 8, 8), (128, 16, 16), (64, 32, 32), (64, 64, 64), (32, 128, 128)],
        "parent": [(256, 8, 8), (128, 16, 16), (64, 32, 32), (16, 64, 64), (16, 128, 128)],
        "parent residual": 3 * [(16, 128, 128)],
        "child residual": 2 * [(32, 128, 128)],
    }
    pictures = ("background", "parent_foreground", "parent", "child_foreground", "image")
    assert all(getattr(stages, name).shape == (2, 3, 128, 128) for name in pictures)
    assert stages.parent_mask.shape == stages.child_mask.shape == (2, 1, 128, 128)
    assert stages.feature.shape == (2, 16, 128, 128)


def test_published_background_critic_sees_34_pixels_every_4(paper):
    critic = paper.background_critic
    real, is_background = critic(torch.empty(2, 3, 126, 126, device="meta"))
    assert real.shape == is_background.shape == (2, 24, 24)
    assert (critic.receptive_field, critic.stride) == (34, 4)


@pytest.mark.slow
def test_published_step_runs_on_a_processor_and_trains_every_network():
    torch.manual_seed(0)
    model = FineGAN(FineGANConfig())
    before = {name: weights(child) for name, child in model.named_children()}
    losses = model.training_step(PaperBirds(size=128, length=2).batch(range(2)))
    assert all(math.isfinite(loss) for loss in losses.values())
    for name, child in model.named_children():
        assert not any(torch.equal(old, new) for old, new in zip(before[name], weights(child), strict=True)), name


# ---- config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"background_widths": (8, 8)}, "background_widths .*image_size 32.* 2 and 3"),
        ({"image_size": 64}, "image_size 64"),
        ({"n_backgrounds": 5, "tie_background": True}, "n_backgrounds .* 5 and 24"),
        ({"n_parents": 25}, "n_parents 25, n_children 24"),
        ({"z_background": 0}, "z_background .*got 0"),
        ({"z_background": 10}, "z_background .*got 10"),
        ({"real_penalty": -0.1}, "real_penalty must not be negative, got -0.1"),
        ({"real_penalty_every": 0}, "real_penalty_every must be at least 1, got 0"),
        ({"background_weight": -3.0}, "background_weight must not be negative, got -3.0"),
        ({"mask_entropy_weight": -1.0}, "mask_entropy_weight must not be negative, got -1.0"),
    ],
)
def test_wrong_config_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMOKE, **changes)


# ---- codes


@pytest.mark.parametrize(("n_parents", "n_children"), [(20, 200), (12, 120), (20, 196), (6, 24)])
def test_parent_is_floor_of_child_over_ratio(n_parents, n_children):
    exact = [math.floor(Fraction(c) / Fraction(n_children, n_parents)) for c in range(n_children)]
    assert child_to_parent(torch.arange(n_children), n_parents, n_children).tolist() == exact
    assert set(exact) == set(range(n_parents))


def test_tied_codes_follow_the_child():
    codes = make(PUBLISHED).sample_codes(500)
    assert torch.equal(codes.index("p"), codes.index("c") // 4)
    assert torch.equal(codes.index("b"), codes.index("c"))


def test_background_drawn_on_its_own_is_independent_of_the_child():
    codes = make(PUBLISHED, tie_background=False).sample_codes(5000)
    assert stats.chi2_contingency((codes.b.T @ codes.c).numpy()).pvalue > 1e-4
    assert torch.equal(codes.index("p"), codes.index("c") // 4)


def test_untied_codes_are_independent():
    codes = make(PUBLISHED).sample_codes(5000, tied=False)
    for one, other in itertools.combinations((codes.b, codes.p, codes.c), 2):
        assert stats.chi2_contingency((one.T @ other).numpy()).pvalue > 1e-4


def test_codes_are_reproducible_from_a_generator():
    model = make()
    one, other = (model.sample_codes(5, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in "zbpc")


# ---- generator


@pytest.mark.parametrize("config", [SMOKE, PUBLISHED])
def test_stages_compose(config):
    model = make(config)
    with torch.no_grad():
        stages = model.generate(model.sample_codes(3))
    for name in ("background", "parent_foreground", "child_foreground"):
        assert getattr(stages, name).abs().max() <= 1, name
    p, c = stages.parent_mask, stages.child_mask
    assert all(mask.min() >= 0 and mask.max() <= 1 for mask in (p, c))
    torch.testing.assert_close(stages.parent, stages.parent_foreground * p + stages.background * (1 - p))
    torch.testing.assert_close(stages.image, stages.child_foreground * c + stages.parent * (1 - c))
    background_share = (1 - p) * (1 - c)  # what of B remains in the child picture
    torch.testing.assert_close(stages.mask, 1 - background_share)


@torch.no_grad()
def test_both_ways_of_feeding_codes_draw_the_same():
    generators = [Generator(replace(SMOKE, exact_planes=exact)).double().eval() for exact in (True, False)]
    generators[1].load_state_dict(generators[0].state_dict())
    codes = make().sample_codes(3)
    codes = Codes(*(getattr(codes, name).double() for name in "zbpc"))
    one, other = (generator(codes) for generator in generators)
    for field in fields(one):
        torch.testing.assert_close(getattr(one, field.name), getattr(other, field.name))


@torch.no_grad()
def test_each_code_enters_at_its_own_stage():
    model = make().eval()
    codes, others = model.sample_codes(4, tied=False), model.sample_codes(4, tied=False)
    others = Codes(others.z, *(getattr(codes, name).roll(1, 1) for name in "bpc"))  # certainly another class
    stages = model.generate(codes)
    downstream = {"background": 0, "shape": 1, "texture": 2}
    for factor, first in downstream.items():
        changed = model.generate(codes.mix(**{factor: others}))
        for stage, name in enumerate(("background", "parent_mask", "child_foreground")):
            kept = torch.equal(getattr(stages, name), getattr(changed, name))
            assert kept == (stage != first and not (factor == "shape" and stage == 2)), (factor, name)


@torch.no_grad()
def test_first_part_of_z_moves_the_background_alone_and_the_rest_the_object_alone():
    model = make().eval()
    codes = model.sample_codes(4)
    stages = model.generate(codes)
    z = torch.randn_like(codes.z)
    split = SMOKE.z_background
    for first, altered, kept in (
        (True, ["background"], ["parent_mask", "child_mask", "child_foreground"]),
        (False, ["parent_mask", "child_mask", "child_foreground"], ["background"]),
    ):
        mixed = torch.cat([z[:, :split], codes.z[:, split:]] if first else [codes.z[:, :split], z[:, split:]], 1)
        changed = model.generate(Codes(mixed, codes.b, codes.p, codes.c))
        assert all(torch.equal(getattr(stages, name), getattr(changed, name)) for name in kept)
        assert not any(torch.allclose(getattr(stages, name), getattr(changed, name)) for name in altered)


@torch.no_grad()
def test_given_feature_takes_the_place_of_the_parents_input():
    model = make().eval()
    codes, others = model.sample_codes(2), model.sample_codes(2)
    stages = model.generate(codes)
    again = model.generator(codes.mix(shape=others), feature=stages.feature)
    assert torch.equal(again.image, stages.image)


# ---- the box and the patches that count


def touches(box, cell, receptive_field, stride) -> bool:
    """Does a pixel of the cell's receptive field overlap the box? Pixel by pixel."""
    x1, y1, x2, y2 = box
    if x2 <= x1 or y2 <= y1:
        return False
    row, column = (range(i * stride, i * stride + receptive_field) for i in cell)
    return any(x < x2 and x + 1 > x1 for x in column) and any(y < y2 and y + 1 > y1 for y in row)


corner = st.floats(-40, 170, width=32) | st.integers(-10, 140).map(float)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(corner, corner, corner, corner), min_size=1, max_size=3), st.sampled_from([(24, 34, 4), (6, 10, 2)]))
def test_patch_weights_are_those_of_brute_force(boxes, geometry):
    cells, receptive_field, stride = geometry
    found = patch_weights(torch.tensor(boxes), cells, receptive_field, stride)
    for box, map_ in zip(boxes, found.tolist(), strict=True):
        for row, column in itertools.product(range(cells), repeat=2):
            assert map_[row][column] == (not touches(box, (row, column), receptive_field, stride)), (box, row, column)


def test_patch_weights_follow_the_receptive_field_measured_by_autograd():
    config = replace(PUBLISHED, background_critic=((4, 2), (8, 2), (8, 1)))
    torch.manual_seed(0)
    critic = BackgroundCritic(config).double()
    picture = torch.randn(1, 3, 62, 62, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[20, 9, 33, 27], [0, 40, 62, 41], [34, 34, 38, 38], [61, 61, 62, 62]])
    cells = critic(picture)[0][0]
    expected = torch.empty(len(boxes), *cells.shape)
    for row, column in itertools.product(range(len(cells)), repeat=2):
        (gradient,) = torch.autograd.grad(cells[row, column], picture, retain_graph=True)
        sees = gradient[0].abs().sum(0) > 0
        for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
            expected[i, row, column] = not sees[y1:y2, x1:x2].any()
    assert torch.equal(patch_weights(boxes, len(cells), critic.receptive_field, critic.stride), expected)
    assert 0 < expected.mean() < 1


# ---- losses


@pytest.fixture
def logits() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return 3 * torch.randn(4, 6, 6), 3 * torch.randn(4, 6, 6)


def bce(logits: torch.Tensor, target: float, reduction: str = "mean") -> torch.Tensor:
    return F.binary_cross_entropy(logits.sigmoid(), torch.full_like(logits, target), reduction=reduction)


def test_adversarial_losses_are_binary_cross_entropy(logits):
    real, fake = logits
    torch.testing.assert_close(critic_loss(real, fake, hinge=False), bce(real, 1) + bce(fake, 0))
    torch.testing.assert_close(generator_loss(fake, hinge=False), bce(fake, 1))


def test_weighted_critic_loss_is_rescaled_by_cells_over_valid_cells(logits):
    real, fake = logits
    valid = (torch.rand(real.shape) < 0.3).float()
    published = (bce(real, 1, "none") * valid).mean() * valid.numel() / valid.sum() + bce(fake, 0)
    torch.testing.assert_close(critic_loss(real, fake, False, valid), published)


def test_critic_loss_without_a_valid_cell_judges_the_fakes_only(logits):
    real, fake = logits
    torch.testing.assert_close(critic_loss(real, fake, False, torch.zeros_like(real)), bce(fake, 0))


def test_hinge_losses_by_hand():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 1.0])
    assert float(critic_loss(real, fake, hinge=True)) == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 1 + 2) / 3)
    assert float(critic_loss(real, fake, True, torch.tensor([0.0, 1, 1]))) == pytest.approx((0.5 + 2) / 2 + (0 + 1 + 2) / 3)
    assert float(generator_loss(fake, hinge=True)) == pytest.approx(2 / 3)


def test_area_loss_by_hand():
    mask = torch.tensor([0.5, 0.25, 0.0])[:, None, None, None].expand(-1, 1, 4, 4)
    assert float(area_loss(mask, 0.1, 0.3)) == pytest.approx((0.2 + 0 + 0.1) / 3)


@pytest.mark.parametrize(("value", "bits"), [(0.5, 1), (0.25, 2 - 0.75 * math.log2(3)), (0, 0), (1, 0)])
def test_binary_entropy_by_hand(value, bits):
    assert float(binary_entropy(torch.full((2, 1, 3, 3), float(value)))) == pytest.approx(bits, abs=1e-4)


def test_moved_by_nothing_is_the_same_or_mirrored():
    pictures = torch.rand(8, 1, 32, 32)
    torch.manual_seed(0)
    after = moved(pictures, turn=0, shift=0, zoom=0)
    mirrored = [torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(after, pictures, strict=True)]
    assert all(flipped or torch.allclose(a, b, atol=1e-5) for a, b, flipped in zip(after, pictures, mirrored, strict=True))
    assert 0 < sum(mirrored) < 8


def test_moved_turns_shifts_and_scales_within_its_limits():
    line = torch.linspace(-1, 1, 65)
    y, x = torch.meshgrid(line, line, indexing="ij")
    n = 200
    disc = ((x**2 + y**2) < 0.3**2).float().expand(n, 1, -1, -1)
    torch.manual_seed(0)
    after = moved(disc)
    size = (after.sum((1, 2, 3)) / disc.sum((1, 2, 3))).log() / 2  # of the radius
    assert -0.55 < size.min() < -0.4 and 0.4 < size.max() < 0.55
    torch.manual_seed(0)
    shifted = moved(disc, zoom=0)
    centre = torch.stack([(shifted * axis).sum((1, 2, 3)) / shifted.sum((1, 2, 3)) for axis in (x, y)], 1)
    assert centre.norm(dim=1).max() < math.sqrt(2) * 0.31 and centre.abs().amax() > 0.25
    bar = ((y.abs() < 0.05) & (x.abs() < 0.6)).float().expand(n, 1, -1, -1)
    torch.manual_seed(0)
    turned = moved(bar, shift=0, zoom=0)
    moments = [(turned * product).sum((1, 2, 3)) for product in (x * y, x * x, y * y)]
    angle = 0.5 * torch.atan2(2 * moments[0], moments[1] - moments[2])
    assert angle.min() < -0.5 and angle.max() > 0.5 and angle.abs().max() < 0.62


@torch.no_grad()
def test_child_paints_inside_the_parent():
    inside, free = make(child_inside=True).eval(), make(child_inside=False).eval()  # of the same weights
    codes = inside.sample_codes(4, tied=False)
    stages, other = inside.generate(codes), free.generate(codes)
    torch.testing.assert_close(stages.child_mask, other.child_mask * stages.parent_mask)
    assert not torch.equal(stages.image, other.image)


def test_texture_is_read_off_another_shape(batch, monkeypatch):
    """With child_untied the picture that Q_c reads has its own code's texture on the shape of another code's parent."""
    model = make()
    codes = model.sample_codes(8)
    fake = model.generator.train(False)(codes)
    seen = {}
    monkeypatch.setattr(
        model.child_discriminator, "read", lambda x: (seen.update(read=x), [torch.zeros(8, model.config.n_children)])[1]
    )
    monkeypatch.setattr(torch, "randperm", lambda n, device=None: torch.arange(n).roll(1))
    model.object_losses(fake, codes)
    other = model.generator(Codes(codes.z, codes.b, codes.p, codes.c.roll(1, 0)))
    torch.testing.assert_close(seen["read"], other.child_foreground * other.child_mask)


def test_cells_are_read_linearly_through_noise():
    reader = CellReader(4, 3, noise=0.0)
    mask = torch.rand(5, 1, 32, 32)
    cells = mask.unflatten(3, (4, 8)).unflatten(2, (4, 8)).mean((3, 5)).flatten(1)
    torch.testing.assert_close(reader.read(mask)[0], reader.values(cells))
    reader.noise = 0.5
    draws = torch.stack([reader.read(mask)[0] for _ in range(400)])
    expected = 0.5 * reader.values.weight.norm(dim=1)  # of a linear map of independent noise
    torch.testing.assert_close(draws.std(0).mean(0), expected, rtol=0.1, atol=0)


def test_background_critics_loss_is_the_published_formula(batch):
    model, fake = make(PUBLISHED), torch.rand(4, 3, 30, 30)
    scene, box = torch.rand(4, 3, 30, 30), torch.tensor([[2, 3, 9, 8], [20, 20, 30, 30], [0, 0, 5, 30], [9, 4, 21, 12]])
    with torch.no_grad():
        real, is_background = model.background_critic(scene)
        judged, _ = model.background_critic(fake)
    valid = patch_weights(box, real.shape[-1], 16, 2)
    assert 0 < valid.mean() < 1
    adversarial = (bce(real, 1, "none") * valid).mean() * valid.numel() / valid.sum() + bce(judged, 0)
    auxiliary = F.binary_cross_entropy(is_background.sigmoid(), valid)
    loss = model.update_background_critic({**batch, "scene": scene, "scene_box": box}, fake)["d_background"]
    torch.testing.assert_close(loss, 10 * adversarial + auxiliary)


def test_generators_losses_are_the_published_terms(batch):
    model = make(PUBLISHED)
    codes = model.sample_codes(4)
    fake = model.generate(codes)
    losses = model.background_losses(fake.background, codes) | model.object_losses(fake, codes)
    assert losses.keys() == {"g_background", "g_background_class", "g_child", "p_information", "c_information"}
    small = F.interpolate(fake.background, size=(30, 30), mode="bilinear", align_corners=False)
    real, is_background = model.background_critic(small)
    (p,) = model.parent_reader.read(fake.parent_foreground * fake.parent_mask)
    (c,) = model.child_discriminator.read(fake.child_foreground * fake.child_mask)
    torch.testing.assert_close(losses["g_background"], 10 * bce(real, 1))
    torch.testing.assert_close(losses["g_background_class"], bce(is_background, 1))
    torch.testing.assert_close(losses["g_child"], bce(model.child_discriminator.judge(fake.image), 1))
    torch.testing.assert_close(losses["p_information"], F.nll_loss(p.log_softmax(1), codes.index("p")))
    torch.testing.assert_close(losses["c_information"], F.nll_loss(c.log_softmax(1), codes.index("c")))


@pytest.mark.parametrize("config", [SMOKE, PUBLISHED])
@pytest.mark.parametrize("name", ["p_information", "c_information"])
def test_information_losses_do_not_reach_the_background(config, name):
    model = make(config)
    codes = model.sample_codes(3)
    loss = model.object_losses(model.generate(codes), codes)[name]
    background = [*model.generator.background.parameters(), *model.generator.background_picture.parameters()]
    assert all(gradient is None for gradient in torch.autograd.grad(loss, background, allow_unused=True, retain_graph=True))
    reached = torch.autograd.grad(loss, [*model.generator.parent.parameters()], allow_unused=True)
    assert any(gradient is not None and gradient.any() for gradient in reached)


# ---- the training step


@pytest.mark.parametrize("config", [SMOKE, PUBLISHED])
def test_steps_have_finite_named_losses(config, batch):
    model = make(config)
    for _ in range(4):
        losses = model.training_step(batch)
        assert all(math.isfinite(loss) and not loss.requires_grad for loss in losses.values())
    assert int(model.step) == 4
    assert {"d_background", "d_child", "g_background", "g_child", "p_information", "c_information"} <= losses.keys()


def test_step_trains_every_network(batch):
    model = make(background_first=0)
    before = {name: weights(child) for name, child in model.named_children()}
    model.training_step(batch)
    assert not any(same(before[name], weights(child)) for name, child in model.named_children())


def test_step_with_the_same_codes_is_the_same_step(batch):
    models = [make(), make()]
    codes = models[0].sample_codes(4)
    one, other = (model.training_step(batch, codes) for model in models)
    assert one == other
    assert same(weights(models[0]), weights(models[1]))


def test_background_first_leaves_the_other_stages_alone(batch):
    model = make(background_first=1)
    generator = model.generator
    others = (
        generator.parent, generator.parent_painter, generator.child, generator.child_painter, model.parent_reader,
        model.child_discriminator,
    )  # fmt: skip
    before, background = weights(*others), weights(generator.background)
    losses = model.training_step(batch)
    assert losses.keys() == {"d_background", "g_background", "g_background_class", "b_information"}
    assert same(before, weights(*others)) and not same(background, weights(generator.background))
    model.training_step(batch)
    assert not same(before, weights(*others))


def test_generators_update_leaves_the_judges_alone(batch):
    model = make(background_first=0)
    judges = (model.background_critic, judge(model))
    before, generator = weights(*judges), weights(model.generator)
    codes = model.sample_codes(4)
    fake = model.generate(codes)
    model.update_generator(model.background_losses(fake.background, codes) | model.object_losses(fake, codes))
    assert same(before, weights(*judges)) and not same(generator, weights(model.generator))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_generators_update_computes_no_gradients_of_the_judges(batch, monkeypatch):
    def flops(compute) -> int:
        with FlopCounterMode(display=False) as counter:
            compute()
        return counter.get_total_flops()

    def step() -> None:
        make(background_first=0, real_penalty=0.0).training_step(batch)  # which would not be counted

    spared = -flops(step)
    monkeypatch.setattr(finegan, "frozen", lambda *networks: nullcontext())
    spared += flops(step)
    model, picture = make(real_penalty=0.0), torch.zeros(4, 3, 32, 32)
    passes = (model.background_critic, model.child_discriminator.judge, model.child_discriminator.trunk)
    # The gradient of a convolution's weights takes as many as its forward pass.
    assert spared == sum(flops(lambda run=run: run(picture)) for run in passes)


def test_judges_updates_leave_generator_and_readers_alone(batch):
    model = make()
    child = model.child_discriminator
    others = (model.generator, model.parent_reader, model.background_reader, child.code_features, child.code)
    before, judges = weights(*others), weights(model.background_critic, judge(model))
    fake = model.generate(model.sample_codes(4))
    model.update_background_critic(batch, fake.background.detach())
    model.update_child_discriminator(batch["image"], fake.image.detach())
    assert same(before, weights(*others))
    assert not same(judges, weights(model.background_critic, judge(model)))


def test_penalised_judges_have_no_normalisation():
    model = make(real_penalty=1.0)
    judges = nn.ModuleList([model.background_critic, model.child_discriminator])
    assert not any(isinstance(layer, nn.BatchNorm2d) or is_parametrized(layer) for layer in judges.modules())
    assert all(layer.bias is not None for layer in judges.modules() if isinstance(layer, nn.Conv2d))
    assert any(is_parametrized(layer) for layer in model.parent_reader.modules())


@pytest.mark.parametrize("batch_norm", [True, False])
def test_judges_are_penalised_once_in_so_many_steps(batch, batch_norm):
    """Binary cross entropy; in each third step, the squared gradients too, here picture by picture from the Jacobian."""
    model = make(PUBLISHED if batch_norm else SMOKE, real_penalty=0.3, real_penalty_every=3)
    config, critic, judge = model.config, model.background_critic, model.child_discriminator.judge
    for optimizer in model.optimizers.values():
        optimizer.param_groups[0]["lr"] = 0.0
    size = config.background_size
    scene = F.interpolate(torch.rand(4, 3, 8, 8), size=(size, size)) * 2 - 1
    batch = {**batch, "scene": scene, "scene_box": torch.tensor([[0, 0, 9, 9], [5, 5, 20, 20], [0, 0, 0, 0], [0, 0, 20, 4]])}
    fake, background = torch.rand(4, 3, 32, 32), torch.rand(4, 3, size, size)
    child, ground = [], []
    for _ in range(4):
        ground.append(float(model.update_background_critic(batch, background)["d_background"]))
        child.append(float(model.update_child_discriminator(batch["image"], fake)["d_child"]))
        model.step += 1
    assert child[0] == child[3] != child[1] == child[2] and ground[0] == ground[3] != ground[1] == ground[2]
    image = batch["image"].as_subclass(torch.Tensor)
    with torch.no_grad():
        assert child[1] == pytest.approx(float(bce(judge(image), 1) + bce(judge(fake), 0)), rel=1e-5)

    def squared(score, pictures) -> list[float]:
        return [jacobian(score, picture[None]).square().sum().item() for picture in pictures]

    assert child[0] - child[1] == pytest.approx(3 * 0.3 / 2 * np.mean(squared(lambda x: judge(x).sum(), image)), rel=1e-3)
    cells = critic(scene)[0].shape[-1]
    valid = patch_weights(batch["scene_box"], cells, critic.receptive_field, critic.stride)
    total = sum(sum(squared(lambda x, w=w: (w * critic(x)[0]).sum(), x[None])) for x, w in zip(scene, valid, strict=True))
    expected = config.background_weight * 3 * 0.3 / 2 * total / valid.sum().item()
    assert ground[0] - ground[1] == pytest.approx(expected, rel=1e-3)


def test_box_is_warped_with_the_scene(batch):
    torch.manual_seed(0)
    large, fake = torch.rand(4, 3, 60, 60), torch.zeros(4, 3, 32, 32)
    box = torch.tensor([[4.0, 6, 18, 16], [40, 40, 60, 60], [0, 0, 9, 60], [18, 8, 42, 23]])
    halved = F.interpolate(large, size=(30, 30), mode="bilinear", antialias=True)
    losses = []
    for scene, scene_box, size in ((large, box, 60), (halved, box / 2, 30)):
        scene_box = tv_tensors.BoundingBoxes(scene_box, format="XYXY", canvas_size=(size, size))
        views = {"scene": scene, "scene_box": scene_box}
        losses.append(make(PUBLISHED).update_background_critic(batch | views, fake)["d_background"])
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("shape", [(4, 3, 64, 64), (4, 1, 32, 32)])
def test_picture_of_a_wrong_shape_is_named(batch, shape):
    with pytest.raises(ValueError, match=f"3, 32, 32.*{shape[1]}, {shape[2]}"):
        make().training_step({**batch, "image": torch.zeros(shape)})


# ---- hard negatives


def test_hardest_codes_are_those_whose_c_is_read_least(monkeypatch):
    """As in the public code: by Q_c's posterior of the c that a child was drawn with, on its masked foreground."""
    model, drawn, seen = make(), [], []
    draw, n_children = model.sample_codes, model.config.n_children
    logits = torch.randn(12, n_children, generator=torch.Generator().manual_seed(0))
    given_out = iter(logits.split(3))
    monkeypatch.setattr(model, "sample_codes", lambda n: drawn.append(draw(n)) or drawn[-1])
    monkeypatch.setattr(model.child_discriminator, "read", lambda images: seen.append(images) or (next(given_out),))
    model.eval()
    hardest = model.hardest_codes(3, candidates=4)
    candidates = Codes.cat(drawn)
    with torch.no_grad():
        fake = model.generator(drawn[1])
    assert torch.allclose(seen[1], fake.child_foreground * fake.child_mask)
    c = candidates.c.argmax(1).tolist()
    losses = [torch.nn.functional.cross_entropy(row, torch.tensor(own)).item() for row, own in zip(logits, c, strict=True)]
    expected = sorted(range(12), key=lambda i: -losses[i])[:3]
    for name in "zbpc":
        assert torch.equal(getattr(hardest, name), getattr(candidates, name)[expected]), name


def test_codes_that_are_given_are_used_in_every_step(monkeypatch, batch):
    model = make(hard_negatives_from=0)
    model.step.fill_(1)
    monkeypatch.setattr(model, "hardest_codes", lambda n: pytest.fail("drew others"))
    model.training_step(batch, model.sample_codes(len(batch["image"])))


def test_the_background_critic_sees_the_scene_and_its_box_or_else_the_picture_and_its_own(batch):
    model = make()
    with torch.no_grad():
        fake = model.generator(model.sample_codes(len(batch["image"]))).background
    scene = {"image": batch["image"], "scene": batch["image"], "scene_box": batch["box"]}
    losses = [make().update_background_critic(of, fake)["d_background"] for of in (batch, scene)]
    assert losses[0] == losses[1]
    with pytest.raises(ValueError, match=r"scene must be square, got \(32, 48\) pixels"):
        model.update_background_critic(scene | {"scene": F.pad(batch["image"], (0, 16))}, fake)


def test_every_second_step_holds_hard_negatives(monkeypatch, batch):
    model, steps = make(hard_negatives_from=3), []
    hardest = model.hardest_codes
    monkeypatch.setattr(model, "hardest_codes", lambda n: steps.append(int(model.step)) or hardest(n))
    for _ in range(8):
        model.training_step(batch)
    assert steps == [3, 5, 7]


# ---- the code predictor


def test_predictor_reads_generated_pictures_and_leaves_the_model_as_it_was():
    model = make(child_inside=False).train()  # untrained, two masks upon each other would leave little of c to read
    with torch.no_grad():
        for _ in range(20):  # let BatchNorm see what the stages draw
            model.sample(16, tied=False)
    state, random = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    predictor = fit_predictor(model, steps=150, batch_size=32)
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training and model.generator.training
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert not predictor.training
    model.eval()
    torch.manual_seed(1)
    with torch.no_grad():
        codes, images = model.sample(400, tied=False)
        parent, child, for_parent, for_child = predictor(images)
    assert for_parent.shape == for_child.shape == (400, 64)
    for logits, name, chance in ((parent, "p", 1 / 6), (child, "c", 1 / 24)):
        assert (logits.argmax(1) == codes.index(name)).double().mean() > 2 * chance, name


def test_predictors_losses_fall_on_one_batch():
    torch.manual_seed(0)
    predictor, model = CodePredictor(CodePredictorConfig(32, 6, 24, (4, 8, 8))), make()
    codes = model.sample_codes(8, tied=False)
    losses = [predictor.training_step({"image": torch.randn(8, 3, 32, 32)}, codes)] + [
        predictor.training_step({"image": torch.ones(8, 3, 32, 32) * codes.p.argmax(1).view(-1, 1, 1, 1) / 6}, codes)
        for _ in range(60)
    ]
    assert losses[-1]["p"] < 0.5 * losses[0]["p"]
