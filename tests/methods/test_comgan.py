import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn
from torch.autograd.functional import jacobian
from torch.utils.data import Dataset

from tutorial_lib.data.birds import PaperBirds
from tutorial_lib.methods.comgan import (
    FAMILIES,
    ComGAN,
    ComGANConfig,
    Composition,
    DSComGAN,
    DSComGANConfig,
    GlobalPhi,
    LayerCodes,
    discriminator,
    is_trivial,
    mask_watch,
)
from tutorial_lib.methods.finegan import CodePredictor, CodePredictorConfig
from tutorial_lib.training.checkpoints import CheckpointError, save, start_from
from tutorial_lib.training.loop import train
from tutorial_lib.training.presets import PRESETS, build

SMOKE = PRESETS["comgan"]["smoke"].method
DS = PRESETS["ds_comgan"]["smoke"].method
SEGMENTER = PRESETS["ds_comgan_segmenter"]["smoke"].method
METHODS = ("comgan", "ds_comgan", "ds_comgan_segmenter")
# Published losses, norms and rates; and the sizes of the smoke presets.
AS_PUBLISHED = {
    name: getattr(ComGANConfig(), name) for name in ("spectral_norm", "hinge", "real_penalty", "learning_rate", "betas")
}
PUBLISHED = replace(SMOKE, **AS_PUBLISHED)


def make(config: ComGANConfig = SMOKE, **changes) -> nn.Module:
    torch.manual_seed(0)
    return build(replace(config, **changes))


def weights(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def moved(before: list[torch.Tensor], module: nn.Module) -> bool:
    """Has every parameter changed? Raises if some have and some have not."""
    changed = {not torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True)}
    assert len(changed) == 1
    return changed.pop()


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    return {"image": PaperBirds(size=32, length=8).batch(range(8))["image"]}


# ---- the published sizes


def convolution(inputs: int, outputs: int, kernel: int = 3) -> int:
    return inputs * outputs * kernel**2


def same(inputs: int, outputs: int) -> int:
    """Parameters of an up or a same block: the GLU halves what the convolution and its BatchNorm make."""
    return convolution(inputs, 2 * outputs) + 4 * outputs


def residual(width: int) -> int:
    return same(width, width) + convolution(width, width) + 2 * width


PHI = 100 * 2 * 512 * 16 + 4 * 512 * 16 + sum(itertools.starmap(same, itertools.pairwise((512, 256, 128, 64, 32, 16))))


def test_published_parameter_counts_of_the_families():
    mask = same(16, 32) + same(32, 16) + convolution(16, 1)
    picture = same(16, 32) + 3 * residual(32) + same(32, 16) + convolution(16, 3)
    for family, n in (("comgan", 1), ("pi1", 2), ("pi2", 3)):
        with torch.device("meta"):
            assert count(ComGAN(ComGANConfig(family=family)).generator) == n * PHI + mask + 2 * picture, family


def test_published_ds_comgan_has_the_layers_of_the_public_code():
    with torch.device("meta"):
        model = DSComGAN(DSComGANConfig())
        drawn = model.generate(LayerCodes(*(torch.empty(2, n) for n in (100, 200, 200))))
        feature, seen = model.generator.phi["phi"](torch.empty(2, 100))
    trunk = same(16 + 16 + 32, 128), same(128, 16)
    mask = trunk[0] + residual(128) + trunk[1] + convolution(16, 1)
    picture = trunk[0] + convolution(200, 256) + 2 * residual(128) + trunk[1] + convolution(16, 3)
    phi = PHI + same(64, 32) + same(32, 16)
    assert count(model.generator) == phi + convolution(16, 3) + mask + 2 * picture
    assert feature.shape == drawn.feature.shape == (2, 16, 128, 128)
    assert seen.shape == (2, 64, 128, 128)
    assert drawn.image.shape == drawn.foreground.shape == drawn.background.shape == drawn.direct.shape == (2, 3, 128, 128)
    assert drawn.mask.shape == (2, 1, 128, 128)

    widths = (3, 32, 64, 128, 256, 256)
    judge = sum(convolution(*pair, 4) for pair in itertools.pairwise(widths)) + convolution(256, 256)
    judge += 2 * (64 + 128 + 256 + 256 + 256) + convolution(256, 1, 4) + 1
    assert count(model.discriminator) == judge


def test_global_features_are_the_last_three_scales_upsampled():
    torch.manual_seed(0)
    phi = GlobalPhi(DS).double().eval()
    z = torch.randn(2, DS.z_dim, dtype=torch.float64)
    feature, seen = phi(z)
    scales = [phi.linear(z).unflatten(1, (-1, 4, 4))]
    for up in phi.up:
        scales.append(up(scales[-1]))
    parts = [feature]
    for scale, block in ((scales[-2], phi.middle), (scales[-3], phi.coarse[1])):
        convolve, norm, glu = block
        large = F.interpolate(scale, size=(32, 32))
        parts.append(glu(norm(F.conv2d(large, convolve.weight, padding=1))))
    assert torch.equal(feature, scales[-1])
    torch.testing.assert_close(seen, torch.cat(parts, 1))


@pytest.mark.slow
def test_published_step_runs_on_a_processor_and_trains_every_network():
    torch.manual_seed(0)
    model = DSComGAN(DSComGANConfig())
    before = {name: weights(child) for name, child in model.named_children()}
    losses = model.training_step({"image": PaperBirds(size=128, length=2).batch(range(2))["image"]})
    assert all(math.isfinite(loss) for loss in losses.values())
    assert all(moved(before[name], child) for name, child in model.named_children())


@pytest.mark.parametrize("method", ["ds_comgan", "ds_comgan_segmenter"])
def test_laptop_preset_is_small_enough_to_ship(method):
    with torch.device("meta"):
        model = build(PRESETS[method]["laptop"].method)
    assert count(model.generator) < 1_000_000
    assert sum(value.numel() * value.element_size() for value in model.state_dict().values()) < 12e6


# ---- config


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (SMOKE, {"family": "pi3"}, "family must be one of pi1, pi2, comgan, got 'pi3'"),
        (SMOKE, {"image_size": 64}, "widths .*image_size 64"),
        (SMOKE, {"critic_widths": (4,) * 6}, "critic_widths halves a picture of 32 pixels 6 times"),
        (SMOKE, {"binary_weight": -1.0}, "binary_weight .*got -1.0"),
        (DS, {"tie_background": True}, "n_foregrounds = n_backgrounds, got 24 and 10"),
        (DS, {"image_size": 16, "widths": (8, 8)}, "widths: .*at least 3 entries"),
        (DS, {"reader_widths": (4,) * 6}, "reader_widths halves a picture of 32 pixels 6 times"),
        (SEGMENTER, {"unet_widths": (4,) * 7}, "unet_widths halves a picture of 32 pixels 6 times"),
    ],
)
def test_wrong_config_is_named(config, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(config, **changes)


@pytest.mark.parametrize("method", METHODS)
def test_picture_of_a_wrong_size_is_named(method):
    with pytest.raises(ValueError, match="3, 32, 32.*64, 64"):
        make(PRESETS[method]["smoke"].method).training_step({"image": torch.zeros(2, 3, 64, 64)})


# ---- the families


@torch.no_grad()
@pytest.mark.parametrize("config", [SMOKE, DS])
def test_changing_phi_changes_what_stands_on_it_and_nothing_else(config):
    shared = {"pi1": {"mask", "foreground"}, "pi2": {"mask"}, "comgan": {"mask", "foreground", "background"}}
    for family, expected in shared.items():
        model = make(config, family=family).eval()
        codes = model.sample_codes(3)
        before = model.generate(codes)
        for parameter in model.generator.phi["phi"].parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        after = model.generate(codes)
        names = ("mask", "foreground", "background")
        assert {name for name in names if not torch.equal(getattr(before, name), getattr(after, name))} == expected, family


def test_families_differ_in_the_number_of_phi_only():
    models = {family: make(family=family) for family in FAMILIES}
    sizes = {name: {n: count(part) for n, part in model.generator.named_children()} for name, model in models.items()}
    one = sizes["comgan"].pop("phi")
    assert (sizes["pi1"].pop("phi"), sizes["pi2"].pop("phi")) == (2 * one, 3 * one)
    assert sizes["comgan"] == sizes["pi1"] == sizes["pi2"]
    for model in models.values():
        pointers = [parameter.data_ptr() for parameter in model.generator.parameters()]
        assert len(set(pointers)) == len(pointers)


@torch.no_grad()
@pytest.mark.parametrize("config", [SMOKE, DS])
def test_layers_compose(config):
    model = make(config)
    drawn = model.generate(model.sample_codes(3))
    assert drawn.foreground.abs().max() <= 1 and drawn.background.abs().max() <= 1
    assert drawn.mask.min() >= 0 and drawn.mask.max() <= 1
    torch.testing.assert_close(drawn.image, torch.lerp(drawn.background, drawn.foreground, drawn.mask.expand(-1, 3, -1, -1)))


# ---- Lemma 1


def saturate(model: ComGAN, logit: float) -> None:
    """Push the mask's logits so far that its sigmoid is flat."""
    model.generator.mask.register_forward_hook(lambda module, inputs, logits: logits + logit)


def watched(model: ComGAN, batch: dict[str, torch.Tensor]) -> dict[str, float]:
    torch.manual_seed(1)
    return {name: float(value) for name, value in model.training_step(batch).items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_on_the_mask_is_the_pictures_times_what_the_layers_differ_by(family):
    model = make(family=family).double()
    fake = model.generate(model.sample_codes(4).double())
    fake.mask.retain_grad()
    fake.image.retain_grad()
    model.discriminator.judge(fake.image).sum().backward()
    expected = (fake.image.grad * (fake.foreground - fake.background)).sum(1, keepdim=True)
    torch.testing.assert_close(fake.mask.grad, expected)
    assert expected.abs().max() > 0


@pytest.mark.parametrize("logit", [-60.0, 60.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_saturated_mask_learns_nothing(family, logit, batch):
    model = make(family=family, binary_weight=0.0)
    saturate(model, logit)
    seen = watched(model, batch)
    assert seen["grad_mask_head"] < 1e-12
    assert seen["slope"] < 1e-12 and seen["trivial"] == 1 and round(seen["mask_mean"], 6) == (logit > 0)
    assert seen["difference"] > 0.1  # it is the slope that vanishes, not F - B
    # phi still learns where the mask shares it with the layer that is left: this is the cure.
    alone = family == "pi2" or (family == "pi1" and logit < 0)
    assert (seen["grad_phi"] < 1e-12) == alone


def test_mask_between_equal_layers_learns_nothing(batch):
    model = make(binary_weight=0.0)
    model.generator.background.load_state_dict(model.generator.foreground.state_dict())
    seen = watched(model, batch)
    assert seen["difference"] == seen["grad_mask"] == seen["grad_mask_head"] == 0
    assert seen["slope"] > 0.1  # it is F - B that vanishes, not the slope
    assert seen["grad_phi"] > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_mask_learns_where_neither_vanishes(family, batch):
    seen = watched(make(family=family), batch)
    assert min(seen[name] for name in ("grad_mask", "grad_mask_head", "grad_phi", "difference", "slope")) > 1e-4


# ---- the watch


def test_masks_by_hand_are_trivial_or_not():
    plain = torch.full((1, 1, 10, 10), 0.5)
    part = plain.clone()
    part[..., :2, :] = 1.0  # mean 0.6, spread 0.2
    few = torch.zeros_like(plain)
    few[..., 0, 0] = 1.0  # mean 0.01, spread 0.0995
    masks = torch.cat([plain, part, few, 1 - few, torch.zeros_like(plain), torch.ones_like(plain)])
    assert is_trivial(masks).tolist() == [True, False, True, True, True, True]
    seen = mask_watch(Composition(torch.ones(6, 3, 10, 10), masks, -torch.ones(6, 3, 10, 10), masks))
    expected = {
        "mask_mean": (0.5 + 0.6 + 0.01 + 0.99 + 0 + 1) / 6,
        "mask_spread": (0.2 + 2 * math.sqrt(0.01 * 0.99)) / 6,
        "trivial": 5 / 6,
        "difference": 2.0,
        "slope": (0.25 + 0.8 * 0.25) / 6,
    }
    assert {name: float(value) for name, value in seen.items()} == pytest.approx(expected)


@pytest.mark.parametrize("beta", [0.0, 1.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_watched_norms_are_those_of_the_adversarial_loss_alone(family, beta, batch):
    model = make(PUBLISHED, family=family, binary_weight=beta).double()
    image, z = batch["image"].double(), model.sample_codes(8).double()
    before = copy.deepcopy(model)
    losses = model.training_step({"image": image}, z)

    model.generator.load_state_dict(before.generator.state_dict())  # the discriminator as it was when the generator learnt
    generator = model.generator
    fake = generator(z)
    loss = F.binary_cross_entropy_with_logits(model.discriminator.judge(fake.image), torch.ones(8, dtype=torch.float64))
    parts = [*generator.mask.parameters()], [*generator.phi["phi"].parameters()]
    of_mask, *others = torch.autograd.grad(loss, [fake.mask, *parts[0], *parts[1]])
    of_head, of_phi = others[: len(parts[0])], others[len(parts[0]) :]
    expected = {
        "g": loss.detach(),
        "grad_mask": torch.stack([8 * gradient.norm() for gradient in of_mask]).mean(),
        "grad_mask_head": torch.stack([gradient.square().sum() for gradient in of_head]).sum().sqrt(),
        "grad_phi": torch.stack([gradient.square().sum() for gradient in of_phi]).sum().sqrt(),
    }
    for name, value in expected.items():
        assert float(losses[name]) == pytest.approx(float(value), rel=1e-5), name


def test_watching_does_not_change_what_the_generator_learns_from(batch):
    model = make(PUBLISHED).double()
    z = model.sample_codes(8).double()
    before = copy.deepcopy(model)
    model.training_step({"image": batch["image"].double()}, z)
    learnt_from = [parameter.grad.clone() for parameter in model.generator.parameters()]

    model.generator.load_state_dict(before.generator.state_dict())
    fake = model.generator(z)
    mask = fake.mask
    entropy = -(mask * mask.log() + (1 - mask) * (1 - mask).log()).mean() / math.log(2)
    loss = F.softplus(-model.discriminator.judge(fake.image)).mean() + entropy
    for found, expected in zip(learnt_from, torch.autograd.grad(loss, [*model.generator.parameters()]), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-8)


def test_regulariser_is_optional(batch):
    with_it, without = (make(binary_weight=beta).training_step(batch) for beta in (0.5, 0.0))
    assert with_it.keys() - without.keys() == {"binary"}
    assert 0 < with_it["binary"] <= 0.5  # half a bit at most


# ---- DS-ComGAN


@torch.no_grad()
def test_each_code_moves_its_own_layer():
    model = make(DS).eval()
    codes, others = model.sample_codes(4, tied=False), model.sample_codes(4)
    others = LayerCodes(others.z, codes.f.roll(1, 1), codes.b.roll(1, 1))  # certainly another class
    before = model.generate(codes)
    expected = {"f": {"foreground"}, "b": {"background"}, "z": {"foreground", "background", "mask", "direct"}}
    for name, changes in expected.items():
        after = model.generate(replace(codes, **{name: getattr(others, name)}))
        layers = ("foreground", "background", "mask", "direct")
        assert {layer for layer in layers if not torch.equal(getattr(before, layer), getattr(after, layer))} == changes, name


def test_tied_codes_are_equal_and_untied_ones_independent():
    tied = make(DS, n_backgrounds=24, tie_background=True)
    codes = tied.sample_codes(200)
    assert torch.equal(codes.f, codes.b)
    for codes in (tied.sample_codes(5000, tied=False), make(DS).sample_codes(5000)):
        assert stats.chi2_contingency((codes.f.T @ codes.b).numpy()).pvalue > 1e-4


def test_codes_are_reproducible_sliced_and_checked():
    model = make(DS)
    one, other = (model.sample_codes(5, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in "zfb")
    assert len(one[1:3]) == 2 and torch.equal(one[1:3].index("f"), one.index("f")[1:3])
    with pytest.raises(ValueError, match="b must lie in 0 … 9, got 10 … 10"):
        LayerCodes.from_indices(one.z[:1], torch.tensor([0]), torch.tensor([10]), model.code_sizes)


def test_batch_norm_undoes_the_published_scale_of_z():
    # phi starts with a linear layer and BatchNorm: only BatchNorm's epsilon sees how long z is.
    one, other = (make(DS, z_scale=scale).double() for scale in (4.0, 1.0))
    for phi in (one.generator.phi["phi"], other.generator.phi["phi"]):
        phi.linear[1].eps = 1e-15
    codes = one.sample_codes(8)
    codes = LayerCodes(*(getattr(codes, name).double() for name in "zfb"))
    torch.testing.assert_close(one.generate(codes).image, other.generate(codes).image)


def test_codes_are_read_off_masked_layers():
    model = make(DS)
    codes, seen = model.sample_codes(4), {}
    fake = model.generate(codes)
    for name in ("foreground_reader", "background_reader"):
        getattr(model, name).trunk.register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: inputs[0]})
        )
    losses = model.information_losses(fake, codes)
    assert torch.equal(seen["foreground_reader"], fake.foreground * fake.mask)
    assert torch.equal(seen["background_reader"], fake.background * (1 - fake.mask))
    for name, n in (("f_information", 24), ("b_information", 10)):
        assert losses[name].item() == pytest.approx(math.log(n), rel=0.5)  # nothing is known before training


@pytest.mark.parametrize(
    ("changes", "gone"),
    [({}, set()), ({"binary_weight": 0.0}, {"binary"}), ({"direct_image": False}, {"g_direct"}), ({"family": "pi2"}, set())],
)
def test_ablations_leave_losses_out_and_train_the_rest(changes, gone, batch):
    model = make(DS, **AS_PUBLISHED, **changes)
    before = {name: weights(child) for name, child in model.named_children()}
    losses = model.training_step(batch)
    assert all(math.isfinite(loss) for loss in losses.values())
    terms = {"d", "g_image", "g_direct", "f_information", "b_information", "binary"}
    watch = {"mask_mean", "mask_spread", "trivial", "difference", "slope"}
    assert losses.keys() == (terms - gone) | watch
    assert all(moved(before[name], child) for name, child in model.named_children())


@pytest.mark.parametrize("family", FAMILIES)
def test_step_trains_generator_and_discriminator(family, batch):
    model = make(PUBLISHED, family=family)
    before = {name: weights(child) for name, child in model.named_children()}
    model.training_step(batch)
    assert all(moved(before[name], child) for name, child in model.named_children())


@pytest.mark.parametrize("method", METHODS)
def test_step_leaves_nothing_frozen_that_trains(method, batch):
    model = make(PRESETS[method]["smoke"].method)
    model.training_step(batch)
    still = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    expected = {f"generator.{name}" for name, _ in model.generator.named_parameters()}
    assert still == (expected if method == "ds_comgan_segmenter" else set())


def test_discriminator_learns_to_tell_pictures_apart(batch):
    model = make(replace(SMOKE, learning_rate=0.002))
    model.optimizers["generator"].param_groups[0]["lr"] = 0.0
    losses = [float(model.training_step(batch)["d"]) for _ in range(20)]
    assert losses[-1] < 0.7 * losses[0]


# ---- segmentation


def test_segmentation_trains_the_unet_and_its_discriminator_only(batch):
    model = make(SEGMENTER, **AS_PUBLISHED).train()
    state = copy.deepcopy(model.generator.state_dict())
    before = {name: weights(child) for name, child in model.named_children()}
    losses = model.training_step(batch)
    assert losses.keys() == {"d_mask", "s_fake", "s_real", "consistency"}
    changed = {name for name, child in model.named_children() if moved(before[name], child)}
    assert changed == {"unet", "mask_discriminator"} == set(model.optimizers)
    assert not model.generator.training
    assert all(torch.equal(value, state[name]) for name, value in model.generator.state_dict().items())  # BatchNorm too


def test_consistency_is_twice_the_distance_from_the_generators_mask(batch):
    model = make(SEGMENTER).eval()
    codes = model.sample_codes(8)
    with torch.no_grad():
        fake = model.generate(codes)
        expected = 2 * (model.unet(fake.image) - fake.mask).abs().mean()
    assert model.training_step(batch, codes)["consistency"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_masks_of_real_pictures(batch):
    model = make(SEGMENTER).eval()
    masks = model.segment(batch["image"])
    assert masks.shape == (8, 1, 32, 32) and masks.min() >= 0 and masks.max() <= 1
    pixels = ((batch["image"] + 1) * 127.5).round().byte()
    torch.testing.assert_close(model.segment([*pixels]), masks, atol=0.02, rtol=0)  # uploads are bytes
    torch.testing.assert_close(model.segment(batch["image"].flip(-1)), masks.flip(-1))
    once = model.segment(batch["image"], mirrored=False)
    torch.testing.assert_close(once, model.unet(batch["image"]).detach())
    assert not torch.equal(once.flip(-1), model.segment(batch["image"].flip(-1), mirrored=False))


def test_segmentation_starts_from_the_disentanglement_modules_generator(tmp_path):
    trained, model = make(DS), make(SEGMENTER)
    with torch.no_grad():
        for parameter in trained.generator.parameters():
            parameter.add_(1.0)
    start_from(model, save(trained, tmp_path / "ds.safetensors", card={}))
    assert all(torch.equal(a, b) for a, b in zip(trained.generator.parameters(), model.generator.parameters(), strict=True))
    predictor = save(CodePredictor(CodePredictorConfig(32, 6, 24, (4, 8, 8))), tmp_path / "other.safetensors", card={})
    with pytest.raises(CheckpointError, match="ds_comgan_segmenter needs its generator"):
        start_from(model, predictor)


# ---- no labels


class Unlabelled(Dataset):
    """Pictures and nothing else."""

    def __init__(self, pictures: torch.Tensor):
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {"image": self.pictures[i]}


@pytest.mark.parametrize("method", METHODS)
def test_trains_from_pictures_alone(method, batch, tmp_path):
    preset = PRESETS[method]["smoke"]
    torch.manual_seed(0)
    history = train(build(preset.method), Unlabelled(batch["image"]), preset.run, tmp_path, progress=False)
    assert [record["step"] for record in history.records][-1] == preset.run.steps
    assert not history.interrupted


class OnlyPictures(dict):
    def __missing__(self, name):
        raise AssertionError(f"read {name!r}")

    def get(self, name, default=None):
        return self[name]


@pytest.mark.parametrize("method", METHODS)
def test_reads_nothing_but_the_picture_of_a_labelled_batch(method):
    labelled = PaperBirds(size=32, length=8).batch(range(8))
    model = make(PRESETS[method]["smoke"].method)
    codes = model.sample_codes(8)
    other = copy.deepcopy(model)
    torch.manual_seed(1)
    with_labels = model.training_step(labelled, codes)
    torch.manual_seed(1)
    without = other.training_step(OnlyPictures(image=labelled["image"]), codes)
    assert {name: float(loss) for name, loss in with_labels.items()} == {name: float(loss) for name, loss in without.items()}


# ---- departures


@pytest.mark.parametrize(("config", "loss"), [(SMOKE, "d"), (DS, "d"), (SEGMENTER, "d_mask")])
def test_judge_is_penalised_once_in_so_many_steps(config, loss, batch):
    model = make(config, real_penalty=0.3, real_penalty_every=2)
    for optimizer in model.optimizers.values():
        optimizer.param_groups[0]["lr"] = 0.0
    codes = model.sample_codes(8)
    with_penalty, without, again = (float(model.training_step(batch, codes)[loss]) for _ in range(3))
    assert with_penalty == again
    if loss == "d":
        judge, real = model.discriminator.judge, batch["image"].as_subclass(torch.Tensor)
    else:
        with torch.no_grad():
            judge, real = model.mask_discriminator.judge, model.generate(codes).mask
    squared = torch.stack([jacobian(lambda x: judge(x).sum(), x[None]).square().sum() for x in real]).mean()
    assert with_penalty - without == pytest.approx(2 * 0.3 / 2 * float(squared), rel=1e-3)


@pytest.mark.parametrize("biased", [False, True])
def test_only_a_discriminator_with_biases_tells_a_false_picture_from_a_grey_one(biased, batch):
    judge = discriminator(replace(SMOKE, critic_bias=biased)).eval()
    offset = judge.real.bias.detach().clone()
    with torch.no_grad():
        for layer in judge.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None and layer is not judge.real:
                layer.bias.normal_(std=0.1)
        full, faint = judge.judge(batch["image"]) - offset, judge.judge(0.1 * batch["image"]) - offset
    in_proportion = torch.allclose(faint, 0.1 * full, atol=1e-5)
    assert in_proportion != biased


def test_second_stage_takes_all_but_the_discriminator(tmp_path):
    first, second = make(DS), make(DS, critic_bias=True)
    for parameter in first.parameters():
        torch.nn.init.normal_(parameter)
    before = weights(second.discriminator)
    save(first, tmp_path / "first.safetensors", card={})
    start_from(second, tmp_path / "first.safetensors", anew=PRESETS["ds_comgan"]["second"].anew)
    for name in ("generator", "foreground_reader", "background_reader"):
        for one, other in zip(getattr(first, name).parameters(), getattr(second, name).parameters(), strict=True):
            assert torch.equal(one, other)
    assert all(map(torch.equal, before, second.discriminator.parameters()))
