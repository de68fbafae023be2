import itertools
import math
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from tutorial_lib.data.faces import TRAINING, PaperFaces
from tutorial_lib.data.moons import ThreeMoons
from tutorial_lib.methods.baselines import CVAEGAN
from tutorial_lib.methods.gmvae import (
    GMVAE,
    Discriminator,
    GMVAEConfig,
    Mixture,
    classification_loss,
    classifier_loss,
    decoder_loss,
    discriminator_loss,
    kl_loss,
    labelled_mean,
    likelihood_loss,
    log_normal,
    one_hot,
    reconstruction_loss,
    uniform_loss,
)
from tutorial_lib.training.presets import PRESETS

SMOKE = PRESETS["gmvae"]["smoke"].method
MOONS = PRESETS["gmvae"]["moons"].method
KINDS = ("vae", "cvae", "cvaegan", "cgan")


def make(config: GMVAEConfig = SMOKE, **changes) -> GMVAE:
    torch.manual_seed(0)
    return GMVAE(replace(config, **changes))


def make_baseline(kind: str, preset: str = "smoke") -> CVAEGAN:
    torch.manual_seed(0)
    return CVAEGAN(PRESETS[kind][preset].method)


def spread_mixture(n_classes: int, dim: int) -> Mixture:
    """A mixture with means and variances all over the place, in float64."""
    torch.manual_seed(0)
    mixture = Mixture(n_classes, dim).double()
    with torch.no_grad():
        mixture.means.normal_(0, 2)
        mixture.log_variances.uniform_(-2, 2)
    return mixture


def gaussians(mixture: Mixture) -> Independent:
    return Independent(Normal(mixture.means, mixture.log_variances.exp().sqrt()), 1)


def weights(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def moved(before: dict[str, list[torch.Tensor]], model: nn.Module) -> set[str]:
    """The children in which a parameter is not what it was."""
    children = dict(model.named_children())
    return {
        name
        for name, old in before.items()
        if not all(torch.equal(a, b) for a, b in zip(old, children[name].parameters(), strict=True))
    }


def snapshot(model: nn.Module) -> dict[str, list[torch.Tensor]]:
    return {name: weights(child) for name, child in model.named_children()}


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    return PaperFaces(size=32, length=8).batch(range(8))


# ---- the mixture


def test_densities_are_those_of_torch():
    mixture = spread_mixture(4, 7)
    z = 3 * torch.randn(5, 7, dtype=torch.float64)
    torch.testing.assert_close(mixture.log_density(z), gaussians(mixture).log_prob(z[:, None]))


def test_likelihood_loss_is_the_density_under_the_own_class():
    mixture = spread_mixture(4, 7)
    z, label = torch.randn(5, 7, dtype=torch.float64), torch.tensor([3, 0, 0, 2, 1])
    expected = [-gaussians(mixture).log_prob(row)[c] for row, c in zip(z, label.tolist(), strict=True)]
    torch.testing.assert_close(likelihood_loss(mixture, z, label), torch.stack(expected))


def test_classification_loss_is_bayes_rule():
    mixture = spread_mixture(4, 3)
    z, label = torch.randn(6, 3, dtype=torch.float64), torch.tensor([3, 0, 0, 2, 1, 1])
    density = gaussians(mixture).log_prob(z[:, None]).exp() / 4  # N(z; μ_c, Σ_c) p(c)
    posterior = density / density.sum(1, keepdim=True)
    expected = -posterior[range(6), label].log()
    torch.testing.assert_close(classification_loss(mixture.log_density(z), label), expected)


def test_single_precision_agrees_with_double_in_many_dimensions():
    exact = spread_mixture(10, 512)
    single = Mixture(10, 512)
    single.load_state_dict(exact.state_dict())
    label = torch.arange(10)
    z = exact.place(torch.randn(10, 512, dtype=torch.float64), label)
    found = classification_loss(single.log_density(z.float()), label)
    posterior = exact.log_density(z).softmax(1)
    torch.testing.assert_close(found.double(), -posterior[range(10), label].log(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_losses_and_gradients_are_finite_far_away_in_512_dimensions(spread):
    torch.manual_seed(0)
    mixture = Mixture(10, 512)
    with torch.no_grad():
        mixture.log_variances.fill_(2 * math.log(spread))
    direction = F.normalize(torch.randn(6, 512), dim=1)
    z = (1e3 * direction).requires_grad_()
    label = torch.arange(6)
    losses = {
        "cls": classification_loss(mixture.log_density(z), label).mean(),
        "lkd": likelihood_loss(mixture, z, label).mean(),
        "total": likelihood_loss(mixture, z, torch.full((6,), -1)).mean(),
    }
    for name, loss in losses.items():
        gradients = torch.autograd.grad(loss, [z, mixture.means, mixture.log_variances], allow_unused=True)
        assert loss.isfinite(), name
        assert all(gradient.isfinite().all() for gradient in gradients), name
        assert gradients[0].abs().max() > 0, name


def test_gradients_are_those_of_a_double_precision_reference():
    mixture = spread_mixture(5, 6)
    parameters = [mixture.means, mixture.log_variances]
    z, label = torch.randn(4, 6, dtype=torch.float64, requires_grad=True), torch.tensor([0, 4, 2, 2])
    loss = (classification_loss(mixture.log_density(z), label) + 0.1 * likelihood_loss(mixture, z, label)).mean()
    found = torch.autograd.grad(loss, [z, *parameters])

    deviation = mixture.log_variances.exp().sqrt()
    log_probabilities = Independent(Normal(mixture.means, deviation), 1).log_prob(z[:, None])
    own = log_probabilities[range(4), label]
    reference = (torch.logsumexp(log_probabilities, 1) - own - 0.1 * own).mean()
    for one, other in zip(found, torch.autograd.grad(reference, [z, *parameters]), strict=True):
        torch.testing.assert_close(one, other)

    # The same graph in single precision, as it is trained.
    single = Mixture(5, 6)
    single.load_state_dict(mixture.state_dict())
    z = z.detach().float().requires_grad_()
    loss = (classification_loss(single.log_density(z), label) + 0.1 * likelihood_loss(single, z, label)).mean()
    for one, other in zip(torch.autograd.grad(loss, [z, *single.parameters()]), found, strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-5, rtol=1e-4)


def test_total_gaussian_has_the_moments_of_the_mixture():
    mixture = spread_mixture(4, 3)
    mean, log_variance = mixture.total()
    drawn = MixtureSameFamily(Categorical(torch.ones(4).double()), gaussians(mixture)).sample((200_000,))
    deviation = log_variance.exp().sqrt()
    torch.testing.assert_close(drawn.mean(0), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.std(0), deviation, atol=0, rtol=0.02)


def test_unknown_label_means_the_total_gaussian():
    mixture = spread_mixture(4, 3)
    label = torch.tensor([-1, 2, -1])
    mean, log_variance = mixture.component(label)
    assert torch.equal(mean[1], mixture.means[2])
    torch.testing.assert_close(mean[0], mixture.total()[0])
    torch.testing.assert_close(log_variance[2], mixture.total()[1])
    noise = torch.zeros(3, 3, dtype=torch.float64)
    torch.testing.assert_close(mixture.place(noise, label), mean)


def test_fitted_mixture_is_where_the_likelihood_loss_is_least():
    mixture = spread_mixture(4, 3)
    before = mixture.means.detach().clone(), mixture.log_variances.detach().clone()
    label = torch.tensor([0] * 9 + [1] * 5 + [2] + [-1] * 6)  # of class 2 a single code, of class 3 none, of six no label
    z = torch.randn(len(label), 3, dtype=torch.float64)
    mixture.fit(z, label)
    loss = likelihood_loss(mixture, z[:14], label[:14]).mean()
    gradients = torch.autograd.grad(loss, [mixture.means, mixture.log_variances])
    for gradient in gradients:
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-9, rtol=0)
    torch.testing.assert_close(mixture.log_variances[0].exp(), z[:9].var(0, correction=0))
    assert torch.equal(mixture.means[2:], before[0][2:])
    assert torch.equal(mixture.log_variances[2:], before[1][2:])


def test_a_class_of_equal_codes_keeps_a_finite_density():
    mixture = spread_mixture(3, 2)
    mixture.fit(torch.ones(4, 2, dtype=torch.float64), torch.zeros(4, dtype=torch.int64))
    assert mixture.log_density(torch.ones(1, 2)).isfinite().all()


def test_mixture_is_fitted_to_a_hundred_codes_of_each_class(batch):
    model = make(n_classes=TRAINING).eval()
    taken = []

    def batches():
        while True:
            taken.append(len(batch["identity"]))
            yield batch

    model.finish(batches())
    assert sum(taken) - taken[-1] < 100 * TRAINING <= sum(taken)
    label = batch["identity"].mode().values
    codes = model.label_encoder(batch["image"])[batch["identity"] == label]
    torch.testing.assert_close(model.mixture.means[label], codes.mean(0))


def test_normed_classifier_does_not_see_how_small_the_code_is():
    model = make(classifier_norm=True)
    z_u = torch.randn(64, SMOKE.z_u_dim)
    small, large = (model.adversarial_classifier(scale * z_u) for scale in (0.1, 10.0))
    torch.testing.assert_close(small, large, atol=1e-2, rtol=1e-2)
    plain = make().adversarial_classifier
    assert not torch.allclose(plain(0.1 * z_u), plain(10 * z_u), atol=0.1)


def test_placed_noise_follows_the_gaussian_of_its_class():
    mixture = spread_mixture(3, 2)
    label = torch.full((50_000,), 1)
    z = mixture.place(torch.randn(50_000, 2, dtype=torch.float64), label)
    torch.testing.assert_close(z.mean(0), mixture.means[1], atol=0.05, rtol=0)
    torch.testing.assert_close(z.var(0), mixture.log_variances[1].exp(), atol=0, rtol=0.03)


# ---- the other losses


def test_kl_is_that_of_torch():
    mu, sigma = torch.randn(4, 5), torch.rand(4, 5) + 0.1
    expected = kl_divergence(Normal(mu, sigma), Normal(torch.zeros(5), torch.ones(5)))
    torch.testing.assert_close(kl_loss(mu, sigma), expected)


def test_uniform_loss_is_least_where_the_posterior_is_uniform():
    torch.manual_seed(0)
    logits = torch.randn(3, 4, requires_grad=True)
    label = torch.arange(3)
    uniform = uniform_loss(torch.full((3, 4), 0.7, requires_grad=True), label)
    assert uniform.item() == pytest.approx(math.log(4))
    assert uniform_loss(logits, label) > uniform
    level = torch.full((3, 4), 0.7, requires_grad=True)
    (gradient,) = torch.autograd.grad(uniform_loss(level, label), level)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_classifier_loss_is_cross_entropy_over_the_labelled():
    logits, label = torch.randn(5, 3), torch.tensor([0, -1, 2, -1, 1])
    rows = label >= 0
    torch.testing.assert_close(classifier_loss(logits, label), F.cross_entropy(logits[rows], label[rows]))
    torch.testing.assert_close(uniform_loss(logits, label), uniform_loss(logits[rows], label[rows]))


def test_nothing_labelled_costs_nothing():
    label = torch.tensor([-1, -1])
    logits = torch.randn(2, 3, requires_grad=True)
    for loss in (classifier_loss(logits, label), labelled_mean(classification_loss(logits, label), label)):
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss == 0 and gradient.abs().max() == 0


def test_hinge_losses_by_hand():
    real, one, other = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0]), torch.tensor([1.0, -0.5])
    assert discriminator_loss(real, one, other).item() == pytest.approx(0.25 + 0.5 + (2 + 0.5) / 2)
    assert decoder_loss(one, other).item() == pytest.approx(1.5 - 0.25)


def test_reconstruction_is_the_mean_over_pixels():
    assert reconstruction_loss(torch.full((2, 3, 4, 4), 0.5), torch.zeros(2, 3, 4, 4)).item() == pytest.approx(0.25)


# ---- networks


def published(name: str, n_classes: int) -> GMVAE:
    with torch.device("meta"):
        return GMVAE(replace(PRESETS["gmvae"][name].method, n_classes=n_classes))


def shapes(network: nn.Module, kinds: tuple[type, ...]) -> list[tuple[int, ...]]:
    """Inputs and outputs of the layers of these kinds, in order."""
    found = []
    for layer in network.modules():
        if isinstance(layer, kinds):
            is_linear = isinstance(layer, nn.Linear)
            found.append((layer.in_features, layer.out_features) if is_linear else (layer.in_channels, layer.out_channels))
    return found


def test_published_layers_for_cifar():
    model = published("paper_cifar", 10)
    convolutions = [(3, 32), (32, 64), (64, 128), (128, 256)]
    assert shapes(model.label_encoder, (nn.Conv2d, nn.Linear)) == [*convolutions, (1024, 1024), (1024, 100)]
    assert shapes(model.rest_encoder, (nn.Conv2d, nn.Linear)) == [*convolutions, (1024, 1024), (1024, 200)]
    up = [(256, 256), (256, 256), (256, 128), (128, 64), (64, 32), (32, 3)]
    assert shapes(model.decoder, (nn.Conv2d, nn.Linear)) == [(200, 1024), *up]
    judge = [(3, 32), (32, 128), (128, 256), (256, 256), (4096, 512), (512, 1), (10, 512)]
    assert shapes(model.discriminator, (nn.Conv2d, nn.Linear)) == judge
    assert shapes(model.adversarial_classifier, (nn.Linear,)) == [(100, 256), (256, 10)]


def test_published_layers_for_faces():
    model = published("paper_faces", 530)
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]  # VGG-16
    vgg = list(itertools.pairwise(widths))
    assert shapes(model.label_encoder, (nn.Conv2d, nn.Linear)) == [*vgg, (2048, 1024), (1024, 512)]
    assert shapes(model.rest_encoder, (nn.Conv2d, nn.Linear)) == [*vgg, (2048, 1024), (1024, 512)]
    inverse = [(b, a) for a, b in reversed(vgg)]
    assert shapes(model.decoder, (nn.Conv2d, nn.Linear)) == [(768, 1024), (1024, 2048), *inverse]
    judge = [3, 64, 128, 256, 256, 512, 512, 512, 1024, 1]
    assert shapes(model.discriminator, (nn.Conv2d, nn.Linear))[:-1] == list(itertools.pairwise(judge))
    assert shapes(model.adversarial_classifier, (nn.Linear,)) == [(256, 256), (256, 530)]


@pytest.mark.parametrize("name", ["paper_cifar", "paper_faces", "laptop", "digits"])
def test_pictures_come_out_as_large_as_they_went_in(name):
    config = PRESETS["gmvae"][name].method
    with torch.device("meta"):
        model, x = GMVAE(config), torch.empty(2, 3, config.image_size, config.image_size)
        codes = model.encode(x)
        assert codes.z_s.shape == (2, config.z_s_dim) and codes.sigma_u.shape == (2, config.z_u_dim)
        assert model.decode(codes.z_s, codes.mu_u).shape == x.shape
        assert model.discriminator(x, torch.zeros(2, dtype=torch.int64)).shape == (2,)


def test_discriminator_projects_the_label():
    torch.manual_seed(0)
    discriminator = Discriminator(SMOKE).eval()
    x = torch.randn(1, 3, 32, 32).expand(TRAINING + 1, -1, -1, -1)
    logits = discriminator(x, torch.arange(-1, TRAINING))
    features = discriminator.features(x[:1])[0]
    unknown = discriminator.real(features)
    torch.testing.assert_close(logits[:1], unknown)
    torch.testing.assert_close(logits[1:] - unknown, discriminator.label.weight.T @ features)
    assert len(set(logits.tolist())) == TRAINING + 1


def test_discriminator_is_spectrally_normalised():
    torch.manual_seed(0)
    discriminator = Discriminator(MOONS)
    x, label = torch.randn(50, 2), torch.zeros(50, dtype=torch.int64)
    for _ in range(50):  # one power iteration each
        discriminator(x, label)
    layers = [layer for layer in discriminator.eval().modules() if isinstance(layer, nn.Linear)]
    largest = [torch.linalg.matrix_norm(layer.weight, 2).item() for layer in layers]
    assert largest == pytest.approx(len(layers) * [1], abs=1e-2)


def test_one_hot_of_an_unknown_label_is_empty():
    assert one_hot(torch.tensor([1, -1]), 3).tolist() == [[0, 1, 0], [0, 0, 0]]


# ---- what each stage trains


def test_stage_one_trains_the_label_encoder_and_the_mixture(batch):
    model = make()
    before = snapshot(model)
    losses = model.stage_one(batch["image"], batch["identity"])
    assert losses.keys() == {"cls", "lkd"}
    assert moved(before, model) == {"label_encoder", "mixture"}


def test_stage_two_trains_everything_but_the_mixture(batch):
    model = make()
    before = snapshot(model)
    losses = model.stage_two(batch["image"], batch["identity"])
    assert all(math.isfinite(loss) and not loss.requires_grad for loss in losses.values())
    others = {"label_encoder", "rest_encoder", "adversarial_classifier", "decoder", "discriminator"}
    assert moved(before, model) == others


def test_three_updates_of_stage_one_for_one_of_stage_two(batch, monkeypatch):
    model, calls = make(), []
    for stage in ("stage_one", "stage_two"):
        monkeypatch.setattr(model, stage, lambda *_, stage=stage: calls.append(stage) or {})
    for _ in range(7):
        model.training_step(batch)
    assert calls == 2 * (3 * ["stage_one"] + ["stage_two"]) + ["stage_one"]
    assert int(model.step) == 7


def test_classifier_pursues_on_every_batch_and_alone(batch):
    model = make(classifier_updates=4, classifier_rate=1e-2, stage_one_updates=10)
    published, before = make(classifier_updates=0, stage_one_updates=10), snapshot(model)
    for each in (model, published):
        each.training_step(batch)
    assert moved(before, model) == {"label_encoder", "mixture", "adversarial_classifier"}
    assert moved(before, published) == {"label_encoder", "mixture"}
    assert torch.equal(model.mixture.means, published.mixture.means)


def test_pursuing_classifier_reads_what_is_in_the_code(batch):
    model = make(classifier_updates=300, classifier_rate=1e-2)
    model.pursue(batch["image"], batch["identity"])
    with torch.no_grad():
        codes = model.encode(batch["image"])
        losses = [F.cross_entropy(model.adversarial_classifier(codes.sample_u()), label)
                  for label in (batch["identity"], (batch["identity"] + 1) % SMOKE.n_classes)]  # fmt: skip
    assert losses[0] < math.log(SMOKE.n_classes) < losses[1]


def gradients_of_the_encoders(batch, **changes) -> dict[str, torch.Tensor]:
    """The encoders' gradients in stage two, from the same weights and noise."""
    model = make(**changes)
    torch.manual_seed(1)
    model.stage_two(batch["image"], batch["identity"])
    encoders = {"label": model.label_encoder, "rest": model.rest_encoder}
    return {name: torch.cat([p.grad.flatten() for p in encoder.parameters()]) for name, encoder in encoders.items()}


@pytest.mark.parametrize(
    ("weight", "touched"),
    [("adversarial_weight", set()), ("kl_weight", {"rest"}), ("uniform_weight", {"rest"}), ("likelihood_weight", {"label"})],
)
def test_each_loss_reaches_its_own_encoder(batch, weight, touched):
    base = gradients_of_the_encoders(batch)
    changed = gradients_of_the_encoders(batch, **{weight: 3 * getattr(SMOKE, weight)})
    assert {name for name in base if not torch.equal(base[name], changed[name])} == touched


def test_adversarial_loss_reaches_the_decoder(batch):
    found = []
    for weight in (0.0, 1.0):
        model = make(adversarial_weight=weight)
        torch.manual_seed(1)
        model.stage_two(batch["image"], batch["identity"])
        found.append(model.decoder.layers[-2].weight.grad.clone())
    assert not torch.allclose(*found)


def test_discriminator_joins_after_so_many_updates_of_the_decoder(batch):
    model = make(adversarial_from=2, stage_one_updates=2)
    joined = []
    for _ in range(8):
        before = snapshot(model)
        losses = model.training_step(batch)
        if "rec" in losses:  # a step of stage two
            joined.append("d" in losses)
            assert ("adversarial" in losses) == ("discriminator" in moved(before, model)) == joined[-1]
            assert "decoder" in moved(before, model)
    assert joined == [False, False, True, True]


def test_mixture_learns_slower_after_each_decay(batch):
    model = make(mixture_decay_every=2, mixture_decay=0.1)
    sizes = []
    for step in (0, 1, 2, 4):
        model.step.fill_(step)
        model.optimizers["mixture"] = type(model.optimizers["mixture"])(
            [dict(group) for group in model.optimizers["mixture"].param_groups]
        )
        before = model.mixture.means.detach().clone()
        model.stage_one(batch["image"], batch["identity"])
        sizes.append((model.mixture.means - before).abs().max().item())  # Adam's first step is as long as its rate
    rate = SMOKE.mixture_rate
    assert sizes == pytest.approx([rate, rate, rate / 10, rate / 100], rel=0.02)
    assert [group["lr"] for group in model.optimizers["mixture"].param_groups] == [SMOKE.learning_rate, rate]


def test_decoder_sees_no_scale_of_the_label_code():
    model = make().eval()
    with torch.no_grad():
        model.mixture.means.normal_()
        z_s, z_u = model.sample_codes(torch.arange(6))
        expected = model.decode(z_s, z_u)
        model.mixture.means.mul_(1e-2).add_(5.0)
        model.mixture.log_variances.sub_(2 * math.log(100))
        found = model.decode(1e-2 * z_s + 5.0, z_u)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert not torch.allclose(model.decode(z_s, z_u), expected, atol=1e-2)  # far from the mixture is far for the decoder too


def test_every_parameter_has_an_optimiser():
    model = make()
    held = {id(p) for opt in model.optimizers.values() for group in opt.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}


# ---- unlabelled pictures


def test_unlabelled_pictures_train_no_classifier_and_no_gaussian(batch):
    model = make()
    before = snapshot(model)
    unlabelled = batch | {"identity": torch.full((8,), -1)}
    losses = {}
    for _ in range(3):
        losses |= model.training_step(unlabelled)
    assert moved(before, model) == {"label_encoder", "rest_encoder", "decoder", "discriminator"}
    assert losses["cls"] == losses["lkd"] == losses["c"] == losses["e"] == 0
    assert losses["lkd_two"] > 0 and losses["kl"] > 0


def test_unlabelled_rows_change_no_gaussian_of_the_labelled(batch, learnt_from):
    found = []
    for other in (0, 1):  # the unlabelled half: two different sets of pictures
        model = make().eval()  # BatchNorm would let the rows see each other
        image = batch["image"].clone()
        image[4:] = PaperFaces(size=32, length=4, seed=other).batch(range(4))["image"]
        label = torch.where(torch.arange(8) < 4, batch["identity"], -1)
        gradients = learnt_from(model.optimizers["mixture"])
        model.stage_one(image, label)
        found.append(gradients[model.mixture.means])
    torch.testing.assert_close(*found)


# ---- codes and pictures


def test_codes_are_reproducible_from_a_generator():
    model = make().eval()
    one, other = (model.sample(5, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert one[1].shape == (5, 3, 32, 32) and one[1].abs().max() <= 1
    label = torch.tensor([2, 2, 5])
    assert torch.equal(model.sample(label)[0], label)


@torch.no_grad()
def test_swap_takes_one_code_from_each_side(batch):
    model = make().eval()
    a, b = batch["image"][:4], batch["image"][4:]
    torch.testing.assert_close(model.swap(a, a), model.reconstruct(a))
    codes = model.encode(a), model.encode(b)
    torch.testing.assert_close(model.swap(a, b), model.decode(codes[0].z_s, codes[1].mu_u))
    assert not torch.allclose(model.swap(a, b), model.swap(b, a))


@torch.no_grad()
def test_walks_move_one_code_and_keep_the_other(monkeypatch):
    model = make().eval()
    for along, still in (("label", "z_u"), ("rest", "z_s")):
        seen = {}
        monkeypatch.setattr(model, "decode", lambda z_s, z_u, seen=seen: seen.update(z_s=z_s, z_u=z_u) or z_s)
        model.walk(torch.tensor([0, 3]), steps=5, along=along)
        codes = {name: value.unflatten(0, (2, 5)) for name, value in seen.items()}
        moving = "z_s" if along == "label" else "z_u"
        assert (codes[still] == codes[still][:, :1]).all()
        steps = codes[moving].diff(dim=1)
        assert steps.abs().min() > 0
        torch.testing.assert_close(steps, steps[:, :1].expand_as(steps))  # a straight line
        means, log_variances = model.mixture.component(torch.tensor([0, 3]))
        standard = (codes["z_s"] - means[:, None]) / torch.exp(0.5 * log_variances)[:, None]
        torch.testing.assert_close(standard[0], standard[1])  # the same noise in both classes


def test_walk_gives_pictures():
    assert make().eval().walk(torch.tensor([0, 3]), steps=5).shape == (2, 5, 3, 32, 32)


@torch.no_grad()
def test_inpainting_keeps_known_pixels_and_ignores_the_hole(batch):
    model = make().eval()
    x = batch["image"]
    hole = torch.zeros(1, 1, 32, 32)
    hole[..., 16:] = 1
    painted = model.inpaint(x, hole)
    assert torch.equal(painted[..., :16], x[..., :16])
    spoiled = x.clone()
    spoiled[..., 16:] = float("nan")
    assert torch.equal(model.inpaint(spoiled, hole), painted)
    assert not torch.allclose(painted[..., 16:], x[..., 16:])


@torch.no_grad()
def test_classification_is_the_mixtures(batch):
    model = make().eval()
    density = model.log_density(batch["image"])
    assert density.shape == (8, TRAINING)
    torch.testing.assert_close(density, model.mixture.log_density(model.encode(batch["image"]).z_s))
    assert torch.equal(model.classify(batch["image"]), density.argmax(1))


@torch.no_grad()
def test_reparameterisation_has_the_moments_of_the_posterior():
    codes = make().eval().encode(torch.randn(1, 3, 32, 32).expand(4000, -1, -1, -1))
    z = codes.sample_u()
    torch.testing.assert_close(z.mean(0), codes.mu_u[0], atol=0.1, rtol=0)
    torch.testing.assert_close(z.std(0), codes.sigma_u[0], atol=0, rtol=0.08)


# ---- what goes wrong


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "resnet"}, "network must be .*'resnet'"),
        ({"n_classes": 1}, "n_classes must be at least 2, got 1"),
        ({"classifier_updates": -1}, "classifier_updates must not be negative, got -1"),
        ({"adversarial_from": -1}, "adversarial_from must not be negative, got -1"),
        ({"z_u_dim": 0}, "z_u_dim must be at least 1, got 0"),
        ({"mixture_decay": 2.0}, "mixture_decay .*got 2.0"),
        ({"encoder": ((4, 3),)}, r"encoder needs layers .*\(\(4, 3\),\)"),
        ({"network": "mlp"}, "encoder needs layers"),
        ({"decoder": 6 * ((4, 2),)}, "decoder divides image_size 32 by 64"),
    ],
)
def test_wrong_config_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(SMOKE, **changes)


def test_wrong_batch_is_named(batch):
    model = make()
    with pytest.raises(ValueError, match=r"needs 'identity' \(-1 where it is unknown\), got image"):
        model.training_step({"image": batch["image"]})
    with pytest.raises(ValueError, match=r"image must be \(B, 3, 32, 32\), got \(8, 3, 16, 16\)"):
        model.training_step(batch | {"image": batch["image"][..., :16, :16]})
    for label in (torch.full((8,), TRAINING), torch.full((8,), -2), torch.zeros(8), torch.zeros(8, 1, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"identity must be integers \(B,\) in -1 … 39"):
            model.training_step(batch | {"identity": label})
    with pytest.raises(ValueError, match="image must be"):
        model.encode(batch["image"][:, :1])


@pytest.mark.parametrize("label", [[TRAINING], [-2], [0.5], [math.nan], [True]])
def test_a_label_that_is_no_class_is_never_drawn(label):
    model, label = make().eval(), torch.tensor(label)
    message = rf"identity must be integers \(B,\) in -1 … 39, got .*, {re.escape(str(label.tolist()))}"
    for draw in (model.sample, model.sample_codes, model.walk, make_baseline("cvaegan").eval().sample):
        with pytest.raises(ValueError, match=message):
            draw(label)


def test_a_walk_is_along_one_of_the_two_codes():
    with pytest.raises(ValueError, match="along must be 'label' or 'rest', got 'labels'"):
        make().eval().walk(torch.zeros(1, dtype=torch.int64), along="labels")


# ---- training


def test_short_run_on_the_moons_learns_to_classify():
    model, moons = make(MOONS), ThreeMoons(length=1000)
    test = ThreeMoons(length=500, seed=1).batch(range(500))
    before = (model.eval().classify(test["image"]) == test["label"]).float().mean()
    model.train()
    for step in range(150):
        model.training_step(moons.batch([(96 * step + i) % 1000 for i in range(96)]))
    after = (model.eval().classify(test["image"]) == test["label"]).float().mean()
    assert before < 0.8 and after > 0.95


# ---- what it is compared with


@pytest.mark.parametrize("kind", KINDS)
def test_baseline_trains_all_it_has(kind, batch):
    model = make_baseline(kind)
    before = snapshot(model)
    losses = model.training_step(batch)
    expected = {"rec", "kl"} if kind != "cgan" else set()
    assert losses.keys() == expected | ({"d", "adversarial"} if kind in ("cvaegan", "cgan") else set())
    assert moved(before, model) == set(before)
    assert all(math.isfinite(loss) and not loss.requires_grad for loss in losses.values())
    assert model.name == kind and int(model.step) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_baseline_has_the_networks_of_the_method(kind):
    config, base = PRESETS[kind]["laptop"].method, PRESETS["gmvae"]["compared"].method
    names = ("encoder", "encoder_head", "decoder", "discriminator", "reconstruction_weight", "learning_rate", "betas")
    assert all(getattr(config, name) == getattr(base, name) for name in names)
    assert PRESETS[kind]["laptop"].run.steps * base.stage_one_updates == PRESETS["gmvae"]["compared"].run.steps


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_baseline_draws_the_label_it_is_given(kind):
    model = make_baseline(kind).eval()
    samples = [model.sample(torch.full((3,), c), generator=torch.Generator().manual_seed(0))[1] for c in range(2)]
    assert samples[0].shape == (3, 3, 32, 32)
    assert torch.equal(*samples) == (kind == "vae")


@torch.no_grad()
def test_baseline_inpaints_with_the_label_given(batch):
    model = make_baseline("cvaegan").eval()
    hole = torch.zeros(8, 1, 32, 32, dtype=torch.bool)
    hole[:, :, :16] = True
    one, other = (model.inpaint(batch["image"], hole, torch.full((8,), c)) for c in range(2))
    assert torch.equal(one[..., 16:, :], batch["image"][..., 16:, :])
    assert not torch.allclose(one, other)


def test_baselines_wrong_use_is_named(batch):
    with pytest.raises(ValueError, match="a cgan has no encoder"):
        make_baseline("cgan").encode(batch["image"], batch["identity"])
    with pytest.raises(ValueError, match="kind must be .*'gan'"):
        replace(PRESETS["cgan"]["smoke"].method, kind="gan")


def test_log_normal_by_hand():
    found = log_normal(torch.tensor([1.0]), torch.tensor([3.0]), torch.tensor([math.log(4.0)]))
    assert found.item() == pytest.approx(-0.5 * (4 / 4 + math.log(4) + math.log(2 * math.pi)))
