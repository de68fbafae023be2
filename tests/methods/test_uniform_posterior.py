import math
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from tutorial_lib.data.faces import PaperFaces
from tutorial_lib.methods import uniform_posterior
from tutorial_lib.methods.uniform_posterior import (
    REST,
    AttributeConfig,
    Classifier,
    Critic,
    ShallowConfig,
    ShallowModel,
    UniformPosterior,
    UniformPosteriorConfig,
    augmented,
    classification_loss,
    disentanglement_loss,
    jittered,
    mixture,
    read_codes,
    shuffle,
    uniform_cross_entropy,
    wasserstein_loss,
)
from tutorial_lib.training.presets import PRESETS

SMOKE = PRESETS["uniform_posterior"]["smoke"].method
SHALLOW = PRESETS["uniform_posterior_shallow"]["smoke"].method
NAMES = ("identity", "expression", "illumination", "gaze")


def make(**changes) -> UniformPosterior:
    torch.manual_seed(0)
    return UniformPosterior(replace(SMOKE, **changes))


def weights(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def same(before: list[torch.Tensor], module: nn.Module) -> bool:
    return all(torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    return PaperFaces(size=32, length=8).batch(range(8))


@pytest.fixture(scope="module")
def model() -> UniformPosterior:
    return make().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pictures(batch) -> torch.Tensor:
    return batch["image"]


# ---- the published sizes


def test_published_parameter_counts_and_shapes():
    with torch.device("meta"):
        model = UniformPosterior(UniformPosteriorConfig())
        images = torch.empty(2, 3, 128, 128)
        codes = model._encode(images)
        drawn, scores = model.decode(codes), model.critic(images)
    assert {name: tuple(code.shape) for name, code in codes.items()} == dict.fromkeys(
        (REST, "identity", "expression", "illumination"), (2, 128, 32, 32)
    )
    assert drawn.shape == (2, 3, 128, 128) and scores.shape == (2, 2, 2)

    encoder = 3 * 32 * 49 + 32 * 64 * 9 + 64 * 128 * 9 + 2 * (32 + 64 + 128)  # scale and shift of each instance norm
    residual = 2 * 512 * 512 * 9 + 4 * 512  # 128 (M + 1) channels
    decoder = 6 * residual + 512 * 256 * 9 + 2 * 256 + 256 * 128 * 9 + 2 * 128 + 128 * 3 * 49 + 3
    trunk = 3 * 64 * 16 + 64 + 64 * 128 * 16 + 128
    critic = sum(16 * a * b + b for a, b in pairwise((3, 64, 128, 256, 512, 1024, 2048))) + 2048 * 9
    assert count(model.encoders) == 4 * encoder
    assert count(model.decoder) == decoder
    assert count(model.classifiers) == sum(trunk + (128 * 32 * 32 + 1) * n for n in (147, 4, 5))
    assert count(model.critic) == critic


@pytest.mark.slow
def test_published_step_runs_on_a_processor_and_trains_every_network():
    torch.manual_seed(0)
    model = UniformPosterior(PRESETS["uniform_posterior"]["paper"].method)
    first = {name: next(child.parameters()).detach().clone() for name, child in model.named_children()}
    losses = model.training_step(PaperFaces(size=128, length=2).batch(range(2)))
    assert all(math.isfinite(loss) for loss in losses.values())
    assert not any(torch.equal(first[name], next(child.parameters())) for name, child in model.named_children())


def test_residual_blocks_end_each_encoder_and_keep_the_codes_shape(batch):
    plain, deep = make(), make(encoder_residual_blocks=2)
    channels = SMOKE.encoder_widths[-1]
    block = 2 * 9 * channels**2 + 2 * 2 * channels  # two convolutions, and scale and shift of two norms
    assert count(deep.encoders) - count(plain.encoders) == len(deep.encoders) * 2 * block
    for encoder in deep.encoders.values():
        *layers, first, second = encoder
        code = nn.Sequential(*layers)(batch["image"])
        assert code.shape[1:] == first(code).shape[1:] == SMOKE.code_shape
        torch.testing.assert_close(encoder(batch["image"]), second(first(code)))


def test_instance_norm_takes_from_each_channel_how_much_of_it_there_is_and_layer_norm_does_not(batch):
    for layer in (False, True):
        convolution, norm, _ = make(layer_norm=layer).encoders["identity"][0]
        x = convolution(batch["image"])
        axes = (1, 2, 3) if layer else (2, 3)
        expected = (x - x.mean(axes, keepdim=True)) / (x.var(axes, unbiased=False, keepdim=True) + norm.eps).sqrt()
        torch.testing.assert_close(norm(x), expected, atol=1e-4, rtol=1e-4)
        assert bool((norm(x).mean((2, 3)).abs() < 1e-4).all()) != layer
    assert not any(isinstance(part, nn.InstanceNorm2d) for part in make(layer_norm=True).modules())


# ---- config, and the shape that codes and classifiers share


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_widths": (4, 4, 6)}, "entering a classifier at its last layer.*codes of 6 x 8 x 8.* takes 4 x 8 x 8"),
        ({"classifier_widths": (4, 4, 4)}, "codes of 4 x 8 x 8.* takes 4 x 4 x 4"),
        ({"decoder_widths": (4,)}, "decoder_widths .*got 1 and 3"),
        ({"critic_widths": (4,) * 6}, "critic_widths halves a picture of 32 pixels 6 times"),
        ({"image_size": 34}, "encoder_widths halves a picture of 34 pixels 2 times"),
        ({"encoder_widths": (4,), "decoder_widths": ()}, "encoder_widths halves .* 0 times"),
        ({"judge_rate": 0.0}, "judge_rate must be greater than 0, got 0.0"),
        ({"code_reconstruction_weight": -1.0}, "code_reconstruction_weight must not be negative, got -1.0"),
        ({"encoder_residual_blocks": -1}, "encoder_residual_blocks must not be negative, got -1"),
        ({"classifiers_first": -1}, "classifiers_first must not be negative, got -1"),
        ({"augmentation": 1.0}, r"augmentation must lie in \[0, 1\), got 1.0"),
        ({"partner_attributes": ("gaze", "age")}, "partner_attributes must be among the attributes, got age"),
        ({"classifier_dropout": 1.0}, r"classifier_dropout must lie in \[0, 1\), got 1.0"),
        ({"classifier_jitter": 1.0}, r"classifier_jitter must lie in \[0, 1\), got 1.0"),
        ({"classifier_jitter": -0.1}, "classifier_jitter must not be negative, got -0.1"),
        ({"attributes": ()}, "attributes is empty"),
        ({"attributes": (("gaze", 3), ("gaze", 4))}, "names of their own.*gaze, gaze"),
        ({"attributes": (("rest", 3),)}, "other than 'rest' and 'image'"),
        ({"attributes": (("gaze", 1),)}, "'gaze' needs at least 2 classes, got 1"),
        ({"attributes": (("type", 2), ("a.b", 2), ("", 2))}, "attributes cannot be called 'type', 'a.b', ''"),
        ({"attributes": (("training", 2),)}, "attributes cannot be called 'training'"),
    ],
)
def test_wrong_config_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMOKE, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attributes": (("gaze", 3),)}, "at least 2"),
        ({"hidden": 0}, "hidden .*0"),
        ({"code_dim": 0}, "code_dim .*0"),
        ({"code_gain": 0.0}, "code_gain .*0.0"),
    ],
)
def test_wrong_shallow_config_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SHALLOW, **changes)


def test_codes_enter_the_picture_classifier_at_its_last_layer(pictures):
    torch.manual_seed(0)
    classifier = Classifier(SMOKE, 5)
    assert {name for name, _ in classifier.named_parameters()} == {
        "features.0.weight", "features.0.bias", "features.2.weight", "features.2.bias", "logits.weight", "logits.bias",
    }  # fmt: skip
    features = classifier.features(pictures)
    assert features.shape[1:] == SMOKE.code_shape == make().encode(pictures)["gaze"].shape[1:]
    by_hand = features.flatten(1) @ classifier.logits.weight.T + classifier.logits.bias
    torch.testing.assert_close(classifier.read(features), by_hand)
    torch.testing.assert_close(classifier(pictures), by_hand)


def test_code_of_another_shape_is_explained():
    with pytest.raises(
        ValueError, match=r"enters the classifier at its last layer, which takes \(B, 4, 8, 8\), got \(2, 4, 4, 4\)"
    ):
        Classifier(SMOKE, 5).read(torch.zeros(2, 4, 4, 4))


# ---- losses


def test_classification_loss_by_hand():
    # −log of 3/4 and of 1/2 for the one attribute, of 1/4 twice for the other: the mean over the batch, then over attributes.
    logits = {"a": torch.tensor([[0.0, math.log(3)], [0.0, 0.0]]), "b": torch.zeros(2, 4)}
    labels = {"a": torch.tensor([1, 0]), "b": torch.tensor([2, 3])}
    expected = (-(math.log(3 / 4) + math.log(1 / 2)) / 2 + math.log(4)) / 2
    assert float(classification_loss(logits, labels)) == pytest.approx(expected)


def test_uniform_cross_entropy_is_the_divergence_from_uniform_above_its_entropy():
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).double()
    uniform, posterior = np.full(5, 0.2), logits.softmax(1).numpy()
    expected = np.mean([stats.entropy(uniform, row) for row in posterior]) + math.log(5)
    assert float(uniform_cross_entropy(logits)) == pytest.approx(expected)
    assert float(uniform_cross_entropy(torch.full((3, 7), 2.5))) == pytest.approx(math.log(7))


def test_disentanglement_loss_averages_over_other_attributes_and_then_over_encoders():
    # Uniform posteriors over n classes cost log n. The rest has three others, each attribute two: a flat mean would differ.
    zeros = {"a": torch.zeros(2, 2), "b": torch.zeros(2, 3), "c": torch.zeros(2, 5)}
    others = {name: {other: zeros[other] for other in zeros if other != name} for name in (REST, "a", "b", "c")}
    a, b, c = map(math.log, (2, 3, 5))
    expected = ((a + b + c) / 3 + (b + c) / 2 + (a + c) / 2 + (a + b) / 2) / 4
    assert float(disentanglement_loss(others)) == pytest.approx(expected)


def test_each_code_is_read_by_its_own_classifier_and_by_those_of_the_others(model, pictures):
    codes = model.encode(pictures)
    own, others = read_codes(model.classifiers, codes)
    assert set(own) == set(NAMES)
    assert {name: set(logits) for name, logits in others.items()} == {
        REST: set(NAMES), **{name: set(NAMES) - {name} for name in NAMES},
    }  # fmt: skip
    torch.testing.assert_close(own["gaze"], model.classifiers["gaze"].read(codes["gaze"]))
    torch.testing.assert_close(others["gaze"]["identity"], model.classifiers["identity"].read(codes["gaze"]))


class Plane(nn.Module):
    """D(x) = w · x, whose gradient is w everywhere."""

    def __init__(self, w: torch.Tensor):
        super().__init__()
        self.w = w

    def forward(self, x):
        return (x * self.w).flatten(1).sum(1)


def test_wasserstein_loss_by_hand():
    w = torch.zeros(3, 2, 2)
    w[0, 0, 0], w[1, 1, 1] = 3.0, 4.0  # |w| = 5
    real, fake = torch.ones(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    loss, penalty = wasserstein_loss(Plane(w), real, fake, 10.0)
    assert float(penalty) == pytest.approx((5 - 1) ** 2)
    assert float(loss) == pytest.approx(-(7 - 0) + 10 * 16)


def test_critic_scores_every_patch():
    torch.manual_seed(0)
    critic = Critic((4, 8))
    images = torch.randn(2, 3, 32, 32)
    changed = images.clone()
    changed[:, :, :4, :4] += 1.0
    differs = (critic(images) != critic(changed))[0]
    assert differs.shape == (8, 8) and differs[0, 0] and not differs[4:, 4:].any()


# ---- shuffling


def test_shuffled_codes_come_with_their_donors_labels():
    torch.manual_seed(0)
    labels = {name: torch.randperm(64) for name in NAMES}
    codes = {name: label[:, None, None, None].float() for name, label in labels.items()}  # each code says its label
    codes[REST] = torch.arange(64.0)[:, None, None, None]
    shuffled, expected = shuffle(codes, labels)
    assert torch.equal(shuffled[REST], codes[REST])
    for name in NAMES:
        assert torch.equal(shuffled[name].flatten().long(), expected[name])
        assert not torch.equal(expected[name], labels[name])
        assert torch.equal(expected[name].sort().values, torch.arange(64))  # a permutation: every code is used once
    came_from = [labels[name].argsort()[expected[name]] for name in NAMES]
    assert not any(torch.equal(a, b) for a, b in pairwise(came_from))  # an order of its own for each attribute


# ---- the training step


def test_step_returns_finite_losses_and_leaves_nothing_frozen(batch):
    model = make()
    losses = model.training_step(batch)
    assert losses.keys() == {"adversarial", "dis", "cls_code", "cls_picture", "rec", "d", "penalty", "c"}
    assert all(math.isfinite(loss) and not loss.requires_grad for loss in losses.values())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert int(model.step) == 1


def test_hinge_takes_the_place_of_the_wasserstein_loss_and_bounds_the_critic(batch):
    model, scores = make(hinge=True), []
    hook = model.critic.register_forward_hook(lambda critic, images, score: scores.append(score.detach()))
    losses = model.training_step(batch)
    hook.remove()
    assert losses.keys() == {"adversarial", "dis", "cls_code", "cls_picture", "rec", "d", "c"}
    real, mixed, _ = scores  # the third is the generator's
    torch.testing.assert_close(losses["d"], (1 - real).clamp(min=0).mean() + (1 + mixed).clamp(min=0).mean())
    for _ in range(20):  # each forward pass in train mode is a step of the power iteration
        model.critic(batch["image"])
    layers = [layer for layer in model.critic.modules() if isinstance(layer, nn.Conv2d)]
    norms = [float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) for layer in layers]
    assert len(norms) == 1 + len(SMOKE.critic_widths) and norms == pytest.approx([1.0] * len(norms), abs=0.05)


def test_judges_may_have_a_rate_of_their_own():
    def rates(**changes) -> dict[str, float]:
        return {name: optimizer.param_groups[0]["lr"] for name, optimizer in make(**changes).optimizers.items()}

    assert rates(learning_rate=0.1) == {"critic": 0.1, "classifiers": 0.1, "generator": 0.1}
    assert rates(learning_rate=0.1, judge_rate=0.3) == {"critic": 0.3, "classifiers": 0.3, "generator": 0.1}


@pytest.mark.parametrize(
    ("optimizer", "networks"),
    [("critic", {"critic"}), ("classifiers", {"classifiers"}), ("generator", {"encoders", "decoder"})],
)
def test_each_update_moves_its_own_networks_and_no_others(batch, optimizer, networks):
    model = make()
    for name, other in model.optimizers.items():
        if name != optimizer:
            other.param_groups[0]["lr"] = 0.0
    before = {name: weights(child) for name, child in model.named_children()}
    model.training_step(batch)
    assert {name for name, child in model.named_children() if not same(before[name], child)} == networks


def test_classifiers_first_leaves_the_others_alone(batch):
    model, alone = make(classifiers_first=1), make()
    before = {name: weights(child) for name, child in model.named_children()}
    assert model.training_step(batch).keys() == {"c"} and int(model.step) == 1
    assert {name for name, child in model.named_children() if not same(before[name], child)} == {"classifiers"}
    alone.training_step(batch)
    assert same(weights(alone.classifiers), model.classifiers)  # the update that they get later, too
    assert model.training_step(batch).keys() > {"c", "d", "rec"}


def test_a_picture_is_drawn_again_from_its_partners_codes_where_these_are_asked_for(batch):
    model = make(partner_attributes=("identity", "gaze"))
    with pytest.raises(ValueError, match="partner_attributes need a batch with 'partner', got expression, gaze, identity, ill"):
        model.training_step(batch)
    partner = PaperFaces(size=32, length=8, seed=1).batch(range(8))["image"]
    with torch.no_grad():
        theirs = {name: code for name, code in model.encode(partner).items() if name in ("identity", "gaze")}
        again = model.decode(model.encode(batch["image"]) | theirs)
    losses = model.training_step(batch | {"partner": partner})
    assert float(losses["rec"]) == pytest.approx(10 * float((again - batch["image"]).abs().mean()), rel=1e-4)
    plain = make().training_step(batch)
    assert losses["cls_code"] == plain["cls_code"] and losses["dis"] == plain["dis"]  # codes are judged that are the picture's


def test_the_rest_is_that_of_another_frame_and_what_is_its_own_is_read_from_a_changed_picture(batch, monkeypatch):
    model = make(partner_attributes=("identity", "gaze"), rest_of_frame=True, augmentation=0.4)
    partner, frame, changed = (PaperFaces(size=32, length=8, seed=seed).batch(range(8))["image"] for seed in (1, 2, 3))
    with pytest.raises(ValueError, match="rest_of_frame needs a batch with 'frame', got expression, .*, partner"):
        model.training_step(batch | {"partner": partner})
    monkeypatch.setattr(uniform_posterior, "augmented", lambda images, amount: changed if amount == 0.4 else None)
    sources = {"rest": frame, "identity": partner, "gaze": partner, "expression": changed, "illumination": changed}
    with torch.no_grad():
        again = model.decode({name: model.encode(source)[name] for name, source in sources.items()})
    losses = model.training_step(batch | {"partner": partner, "frame": frame})
    assert float(losses["rec"]) == pytest.approx(10 * float((again - batch["image"]).abs().mean()), rel=1e-4)
    plain = make().training_step(batch)
    assert losses["cls_code"] == plain["cls_code"] and losses["dis"] == plain["dis"]  # codes are judged that are the picture's


def test_changed_pictures_alone_take_the_place_of_all_but_the_rest(batch, monkeypatch):
    model = make(augmentation=0.2)
    changed = PaperFaces(size=32, length=8, seed=3).batch(range(8))["image"]
    monkeypatch.setattr(uniform_posterior, "augmented", lambda images, amount: changed)
    with torch.no_grad():
        again = model.decode(model.encode(changed) | {"rest": model.encode(batch["image"])["rest"]})
    losses = model.training_step(batch)
    assert float(losses["rec"]) == pytest.approx(10 * float((again - batch["image"]).abs().mean()), rel=1e-4)


def test_augmented_pictures_have_other_colours_and_lie_elsewhere():
    torch.manual_seed(0)
    grey = torch.full((400, 3, 32, 32), 0.5)
    changed = augmented(grey, 0.4)
    inside = changed[:, :, 14:18, 14:18]
    assert (inside - inside[:, :, :1, :1]).abs().max() < 1e-5  # of one colour still
    colour = inside[..., 0, 0]
    assert colour.min() < 0 and colour.max() > 1 and (colour.max(1).values - colour.min(1).values).min() > 0
    dot = torch.full((400, 3, 32, 32), 1.0)
    dot[:, :, 15:17, 9:11] = -1.0  # 6 pixels left of the middle
    lowest = augmented(dot, 0.4).mean(1).flatten(1).argmin(1)
    row, column = lowest // 32 - 15.5, lowest % 32 - 15.5
    assert row.abs().max() <= 4 and len(row.unique()) > 4  # moved, turned and scaled by a little
    assert ((column.abs() - 6).abs() <= 3).all() and 120 < int((column > 0).sum()) < 280  # and half of them mirrored
    assert torch.equal(augmented(grey[:1], 0.0), grey[:1])


def test_one_picture_alone_cannot_be_mixed(batch):
    with pytest.raises(ValueError, match="mixing takes at least 2 pictures on each process and in each part of a batch"):
        make(classifiers_first=1).training_step({name: value[:1] for name, value in batch.items()})


def test_sheet_has_the_pictures_drawn_again_and_with_each_attribute_of_a_neighbour(model, batch):
    pictures, again, *swaps = model.sheet(batch["image"][:3])
    assert torch.equal(pictures, batch["image"][:3]) and torch.equal(again, model.reconstruct(pictures))
    assert len(swaps) == len(NAMES)
    for name, rows in zip(NAMES, swaps, strict=True):
        torch.testing.assert_close(rows, model.swap(pictures, **{name: pictures.roll(1, 0)}))


def test_classifiers_learn_from_real_pictures_and_labels_only(batch):
    one, other = make(), make()
    for parameter in (*other.encoders.parameters(), *other.decoder.parameters(), *other.critic.parameters()):
        parameter.data.mul_(0.5)
    for model in (one, other):
        for _ in range(2):
            model.training_step(batch)
    assert same(weights(one.classifiers), other.classifiers)


def test_reconstruction_loss_is_ten_times_l1_of_the_unshuffled_codes(batch):
    model = make()
    with torch.no_grad():
        expected = 10 * (batch["image"] - model.reconstruct(batch["image"])).abs().mean()
    torch.testing.assert_close(model.training_step(batch)["rec"], expected)


def test_code_reconstruction_compares_codes_of_mixed_pictures_read_by_encoders_that_stay(batch, monkeypatch, learnt_from):
    quiet = {f"{name}_weight": 0.0 for name in ("adversarial", "disentanglement", "code_classification",
                                                "picture_classification", "reconstruction")}  # fmt: skip
    model = make(**quiet, code_reconstruction_weight=3.0)
    monkeypatch.setattr("tutorial_lib.methods.uniform_posterior.shuffle", lambda codes, labels: (codes, labels))
    reader = deepcopy(model).requires_grad_(False)
    codes = model.encode(batch["image"])
    again = reader._encode(model.decode(codes))  # unshuffled, a mixed picture is the reconstruction
    expected = 3 * sum((again[name] - codes[name].detach()).abs().mean() for name in codes) / len(codes)
    learners = [*model.encoders.parameters(), *model.decoder.parameters()]
    gradients = torch.autograd.grad(expected, learners)
    found = learnt_from(model.optimizers["generator"])
    torch.testing.assert_close(model.training_step(batch)["rec_code"], expected.detach())
    for parameter, gradient in zip(learners, gradients, strict=True):
        torch.testing.assert_close(found[parameter], gradient, atol=1e-6, rtol=1e-3)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_jitter_changes_contrast_and_brightness_of_each_picture(pictures):
    torch.manual_seed(0)
    found = jittered(pictures, 0.4)
    assert jittered(pictures, 0.0) is pictures
    lines = [np.polyfit(x.flatten().numpy(), y.flatten().numpy(), 1) for x, y in zip(pictures, found, strict=True)]
    scales, shifts = np.array(lines).T
    for x, y, scale, shift in zip(pictures, found, scales, shifts, strict=True):
        torch.testing.assert_close(y, float(scale) * x + float(shift), atol=1e-5, rtol=0)
    assert (abs(scales - 1) <= 0.4).all() and (abs(shifts) <= 0.4).all()
    assert len(set(scales.round(4))) == len(pictures) and scales.std() > 0.05 and shifts.std() > 0.05


def test_dropout_and_jitter_are_for_the_classifiers_own_lessons(batch, monkeypatch):
    """Of real pictures they see changed copies and half of the features; codes and mixed pictures are read in full."""
    seen, dropped = [], []
    dropout = F.dropout
    monkeypatch.setattr(F, "dropout", lambda x, p: (dropped.append(p), dropout(x, p))[1])
    model = make(classifier_dropout=0.5, classifier_jitter=0.4)
    for classifier in model.classifiers.values():
        classifier.features.register_forward_hook(lambda layer, given, found: seen.append(given[0]))
    model.training_step(batch)
    n = len(model.classifiers)
    assert dropped == [0.5] * n + [0.0] * n  # real pictures, then mixed ones
    assert all(x is seen[0] for x in seen[:n]) and not torch.equal(seen[0], batch["image"])


def test_encoder_of_one_attribute_learns_from_every_other_attributes_classifier(batch, learnt_from):
    model = make(code_classification_weight=0.0, picture_classification_weight=0.0, adversarial_weight=0.0,
                 reconstruction_weight=0.0)  # fmt: skip
    found = learnt_from(model.optimizers["generator"])
    model.training_step(batch)
    assert all(found[p].abs().sum() > 0 for p in model.encoders.parameters())
    assert all(p not in found or found[p].abs().sum() == 0 for p in model.decoder.parameters())


@pytest.mark.parametrize("attributes", [(("gaze", 3),), (("gaze", 3), ("expression", 4))])
def test_any_number_of_attributes(batch, attributes):
    model = make(attributes=attributes)
    losses = model.training_step(batch)
    assert all(math.isfinite(loss) for loss in losses.values())
    assert list(model.encode(batch["image"])) == [REST, *dict(attributes)]


def test_steps_learn_to_reconstruct_and_to_classify(batch):
    model = make(learning_rate=2e-3)
    first = model.training_step(batch)
    for _ in range(60):
        last = model.training_step(batch)
    assert last["rec"] < 0.8 * first["rec"]
    assert last["c"] < 0.8 * first["c"] and last["cls_code"] < 0.8 * first["cls_code"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gaze": None}, "no label 'gaze'"),
        ({"gaze": torch.full((8,), 3)}, "gaze must be integers .*0 … 2"),
        ({"identity": torch.full((8,), -1)}, "identity must be integers .*0 … 39"),
        ({"expression": torch.zeros(8)}, "expression must be integers .*float32"),
        ({"image": torch.zeros(8, 3, 64, 64)}, "3, 32, 32.*64, 64"),
    ],
)
def test_wrong_batch_is_named(batch, changes, message):
    wrong = {name: value for name, value in (batch | changes).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        make().training_step(wrong)


# ---- codes and pictures


def test_codes_are_maps_by_name_and_decode_to_pictures(model, pictures):
    codes = model.encode(pictures)
    assert {name: tuple(code.shape) for name, code in codes.items()} == dict.fromkeys((REST, *NAMES), (8, 4, 8, 8))
    drawn = model.decode(codes)
    assert drawn.shape == (8, 3, 32, 32) and drawn.abs().max() <= 1
    torch.testing.assert_close(drawn, model.reconstruct(pictures))


def test_swapping_everything_is_the_donor(model, pictures):
    a, b = pictures[:3], pictures[3:6]
    torch.testing.assert_close(model.swap(a, **dict.fromkeys((REST, *NAMES), b)), model.reconstruct(b))
    torch.testing.assert_close(model.swap(a, gaze=a), model.reconstruct(a))


def test_swapping_a_set_takes_each_attribute_from_its_donor(model, pictures):
    a, b, c = (model.encode(pictures[rows]) for rows in ([0, 1], [2, 3], [4, 5]))
    expected = model.decode(a | {"expression": b["expression"], "illumination": c["illumination"]})
    torch.testing.assert_close(model.swap(pictures[:2], expression=pictures[2:4], illumination=c), expected)
    torch.testing.assert_close(model.swap(a, expression=b["expression"], illumination=pictures[4:6]), expected)
    assert not torch.allclose(expected, model.decode(a))


def test_one_donor_goes_with_many(model, pictures):
    one = model.swap(pictures[:3], expression=pictures[5])
    torch.testing.assert_close(one, model.swap(pictures[:3], expression=pictures[[5, 5, 5]]))


def test_mixture_by_hand():
    codes = torch.tensor([1.0, 2.0, 4.0])[:, None, None, None].expand(3, 2, 1, 1)
    assert mixture(codes, (0.5, 0.25, 0.25))[:, 0, 0, 0].tolist() == [2.0]
    assert mixture(codes, torch.eye(3))[:, 1, 0, 0].tolist() == [1.0, 2.0, 4.0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((0.5, 0.6, 0.0), "sum to 1, got"),
        ((1.2, -0.2, 0.0), "must not be negative"),
        ((float("nan"), 0.5, 0.5), "sum to 1"),
        ((0.5, 0.5), r"must be \(3,\) or \(K, 3\).*got \(1, 2\)"),
        (torch.ones(1, 1, 3) / 3, "one for each code"),
    ],
)
def test_wrong_weights_are_named(weights, message):
    with pytest.raises(ValueError, match=message):
        mixture(torch.zeros(3, 4, 8, 8), weights)


def test_mixed_identities_are_decoded(model, pictures):
    codes = model.encode(pictures[:3])
    expected = codes["identity"][:1] * 0.2 + codes["identity"][1:2] * 0.3 + codes["identity"][2:] * 0.5
    target = model.encode(pictures[4])
    torch.testing.assert_close(
        model.mix(pictures[4], "identity", pictures[:3], (0.2, 0.3, 0.5)), model.decode(target | {"identity": expected})
    )


def test_interpolation_ends_at_its_donors_and_passes_their_mean(model, pictures):
    target, start, end = pictures[:2], pictures[3], pictures[4]
    film = model.interpolate(target, "expression", start, end, steps=3)
    assert film.shape == (3, 2, 3, 32, 32)
    torch.testing.assert_close(film[0], model.swap(target, expression=start))
    torch.testing.assert_close(film[2], model.swap(target, expression=end))
    torch.testing.assert_close(film[1], model.mix(target, "expression", pictures[3:5], (0.5, 0.5)))
    with pytest.raises(ValueError, match="steps must be at least 2, got 1"):
        model.interpolate(target, "expression", start, end, steps=1)


def test_class_means_are_means_over_each_class(model):
    faces = PaperFaces(size=32, length=40).batch(range(40))
    means = model.class_means("gaze", faces["image"], faces["gaze"], batch_size=7)
    codes = model.encode(faces["image"])["gaze"]
    for gaze in range(3):
        torch.testing.assert_close(means[gaze], codes[faces["gaze"] == gaze].mean(0), atol=1e-5, rtol=1e-4)
    assert model.swap(faces["image"][:3], gaze=means).shape == (3, 3, 32, 32)


def test_class_without_pictures_is_named(model, pictures):
    with pytest.raises(ValueError, match="gaze: no picture of class 0, 2"):
        model.class_means("gaze", pictures, torch.ones(8, dtype=torch.int64))


def test_posterior_is_of_a_classifier_on_any_code(model, pictures):
    codes = model.encode(pictures)
    for of in (None, "identity", REST):
        posterior = model.posterior("expression", pictures, of=of)
        expected = F.softmax(model.classifiers["expression"].logits(codes[of or "expression"].flatten(1)), 1)
        torch.testing.assert_close(posterior, expected)


def test_wrong_sources_are_named(model, pictures):
    codes = model.encode(pictures)
    for call, message in (
        (lambda: model.swap(pictures), "nothing to swap.*rest, identity"),
        (lambda: model.swap(pictures, colour=pictures), "no code 'colour'.*rest, identity, expression"),
        (lambda: model.swap(pictures, gaze=pictures[:3]), "gaze: 3 codes do not go with 8"),
        (lambda: model.swap(pictures, gaze={"identity": codes["identity"]}), "gaze: the source has codes of identity only"),
        (lambda: model.decode({"gaze": codes["gaze"]}), "codes must be those of rest, identity.*got gaze"),
        (lambda: model.decode(codes | {"gaze": codes["gaze"][..., :4]}), r"gaze: codes are \(B, 4 x 8 x 8\)"),
        (lambda: model.class_means(REST, pictures, codes), "'rest' has no classes"),
        (lambda: model.posterior("colour", pictures), "no classifier of 'colour'"),
        (lambda: model.encode(torch.full((3, 32, 32), 2.0)), r"expected \[-1, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_codes_may_lie_on_another_device():
    """The meta device stands for it: nothing on it can be computed together with the CPU's."""
    model = make().eval().to("meta")
    codes = {name: torch.zeros(2, *model.config.code_shape) for name in model.encoders}
    assert model.swap(codes, gaze=codes).device.type == "meta"
    assert model.interpolate(codes, "gaze", codes, codes, steps=2).device.type == "meta"
    assert model.posterior("gaze", codes).device.type == "meta"


# ---- the shallow model


def test_shallow_codes_are_vectors_that_enter_the_classifiers(pictures):
    torch.manual_seed(0)
    model = ShallowModel(SHALLOW)
    codes = model.encode(pictures)
    assert {name: tuple(code.shape) for name, code in codes.items()} == {"expression": (8, 4), "illumination": (8, 4)}
    classifier = model.classifiers["illumination"]
    torch.testing.assert_close(classifier(pictures), classifier.read(classifier.features(pictures)))
    assert not any(isinstance(layer, nn.Conv2d) for layer in model.modules())


def test_code_gain_makes_the_first_codes_larger_and_changes_nothing_else(pictures):
    models = []
    for gain in (1.0, 8.0):
        torch.manual_seed(0)
        models.append(ShallowModel(replace(SHALLOW, code_gain=gain)))
    first, second = (model.encode(pictures) for model in models)
    for name in first:
        torch.testing.assert_close(second[name], 8 * first[name])
    assert same(weights(models[0].classifiers), models[1].classifiers)


def test_shallow_step_moves_encoders_by_eq_10_and_classifiers_by_real_pictures(batch):
    models = []
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        model = ShallowModel(replace(SHALLOW, disentanglement_weight=weight))
        losses = model.training_step(batch)
        assert losses.keys() == {"c", "cls_code", "dis"}
        models.append(model)
    assert same(weights(models[0].classifiers), models[1].classifiers)
    assert not same(weights(models[0].encoders), models[1].encoders)


def test_disentanglement_loss_makes_the_other_posterior_uniform():
    faces = PaperFaces(size=32, length=256).batch(range(256))
    dis = {}
    for weight in (1.0, 0.0):
        torch.manual_seed(0)
        model = ShallowModel(ShallowConfig(hidden=32, code_dim=8, learning_rate=1e-3, disentanglement_weight=weight))
        for _ in range(150):
            losses = model.training_step(faces)
        dis[weight] = float(losses["dis"])
        assert losses["cls_code"] < 0.7
    uniform = (math.log(5) + math.log(4)) / 2
    assert uniform <= dis[1.0] < uniform + 0.1 < dis[0.0]


def test_published_constants():
    config = UniformPosteriorConfig()
    assert (config.learning_rate, config.betas, config.reconstruction_weight, config.gradient_penalty) == (
        1e-4, (0.5, 0.999), 10.0, 10.0,
    )  # fmt: skip
    assert isinstance(config, AttributeConfig) and config.residual_blocks == 6
