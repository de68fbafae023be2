"""A VAE with two codes: z_s carries the label and follows a mixture of Gaussians, z_u carries the rest and follows N(0, I).

Zheng & Sun, "Disentangling Latent Space for VAE by Label Relevant/Irrelevant Dimensions", CVPR 2019.

    x -> E_s -> z_s         one Gaussian N(μ_c, Σ_c) a class, learned with E_s                          (stage one)
    x -> E_u -> μ, σ -> z_u    close to N(0, I); an adversarial classifier C must not read the label off it
    [z_s, z_u] -> decoder -> x̂    close to x; a discriminator that knows the label judges reconstructions and samples

The file follows the paper: config, encoders, the label relevant branch, the label irrelevant branch, decoder and discriminator,
the method with its two-stage training. The same class serves pictures and points in the plane: `network` says what it is built
of. The defaults are the published constants for CIFAR-10.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.checks import at_least, class_labels, numbers
from tutorial_lib.layers import Tanh, UpConv, add_spectral_norm, backward, conv3x3, remaining, update

# ---- config ---------------------------------------------------------------------------------------------------------------

Network = Literal["conv", "vgg", "mlp"]
Layers = tuple[tuple[int, int], ...]  # (channels, stride) of each layer


@dataclass(frozen=True)
class NetworkConfig:
    """Networks and constants that this method shares with what it is compared with (baselines.py).

    network: "conv" halves a picture by strided convolutions, "vgg" by max pooling after 3x3 convolutions, "mlp" takes vectors.
    image_size: pixels a side; of vectors their length. encoder_head, discriminator_head: the fully connected layer after the
    convolutions. decoder_start: channels of the decoder's first map, whose size follows from the strides; decoder_head: a fully
    connected layer before it. label: the name of the label in a batch.
    """

    network: Network = "conv"
    image_size: int = 32
    n_classes: int = 10  # C
    encoder: Layers = ((32, 2), (64, 2), (128, 2), (256, 2))
    encoder_head: int = 1024
    decoder_head: int | None = None
    decoder_start: int = 256
    decoder: Layers = ((256, 2), (256, 1), (128, 2), (64, 2), (32, 2))
    discriminator: Layers = ((32, 1), (128, 2), (256, 2), (256, 2))
    discriminator_pool: bool = False  # global average pooling before the fully connected layers
    discriminator_head: int = 512
    label: str = "label"
    learning_rate: float = 5e-4
    betas: tuple[float, float] = (0.0, 0.9)
    # Weights of the mean over the pixels and of the mean over the dimensions, as in the public code: sums would need others
    # for each size of picture and code.
    reconstruction_weight: float = 10.0
    kl_weight: float = 1.0
    adversarial_weight: float = 1.0

    def __post_init__(self):
        numbers(self)
        if self.network not in get_args(Network):
            raise ValueError(f"network must be one of {get_args(Network)}, got {self.network!r}")
        at_least(2, self, "n_classes")
        for name in ("encoder", "decoder", "discriminator"):
            layers = getattr(self, name)
            strides = {stride for _, stride in layers}
            if not layers or not strides <= ({1} if self.network == "mlp" else {1, 2}):
                raise ValueError(f"{name} needs layers (channels, stride), stride 1 or, of pictures, 2; got {layers}")
            if self.image_size % shrinks(layers):
                raise ValueError(f"{name} divides image_size {self.image_size} by {shrinks(layers)}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input: (3, H, W), or (D,) for vectors."""
        return (self.image_size,) if self.network == "mlp" else (3, self.image_size, self.image_size)

    def cells(self, layers: Layers) -> int:
        """Cells of the smallest map of these layers; vectors have one."""
        return 1 if self.network == "mlp" else (self.image_size // shrinks(layers)) ** 2


@dataclass(frozen=True)
class GMVAEConfig(NetworkConfig):
    """Constants of the method; the defaults are the published ones for CIFAR-10 at 32 x 32."""

    z_s_dim: int = 100
    z_u_dim: int = 100
    classifier_width: int = 256  # of the adversarial classifier C
    likelihood_weight: float = 0.1  # λ_lkd
    uniform_weight: float = 1.0  # of L_E
    stage_one_updates: int = 3  # for each update of stage two
    # Updates of stage two before D joins (published: none). D pulls a decoder that still draws a blur away from the picture,
    # and what changes few pixels is found later.
    adversarial_from: int = 0
    classifier_rate: float = 5e-4  # of C
    # Updates of C on every batch, besides the one of stage two (published: none). Without them C ran so far behind E_u that it
    # was undecided where a linear probe was not: L_E was at its least, and the label in z_u.
    classifier_updates: int = 0
    # C sees each dimension of z_u at mean 0 and variance 1 over the batch (published: as it is). Without it E_u answers C by
    # making z_u small, not by leaving the label out: the decoder makes it large again, C lags behind, and codes drawn from
    # N(0, I) are nothing like those the decoder knows.
    classifier_norm: bool = False
    # The means' and variances' rate is multiplied by `mixture_decay` every so many steps (public code: every ten epochs, each
    # of 520 updates of stage two; the paper, B.4: by 0.01 after two epochs). Without it the variances keep falling, and the
    # codes the decoder knows move away.
    mixture_rate: float = 5e-4
    mixture_decay: float = 0.1
    mixture_decay_every: int = 15_600

    def __post_init__(self):
        super().__post_init__()
        at_least(1, self, "stage_one_updates")
        if not 0 <= self.mixture_decay <= 1:
            raise ValueError(f"mixture_decay must lie in [0, 1], got {self.mixture_decay}")


def shrinks(layers: Layers) -> int:
    """The factor by which layers reduce (or, in a decoder, enlarge) the side of a picture."""
    return math.prod(stride for _, stride in layers)


# ---- encoders -------------------------------------------------------------------------------------------------------------


def one_hot(label: Tensor, n_classes: int) -> Tensor:
    """Labels (B,) as (B, n_classes) float; all zeros where the label is -1, unknown."""
    return (label[:, None] == torch.arange(n_classes, device=label.device)).float()


def fully_connected(config: NetworkConfig, inputs: int, outputs: int) -> nn.Sequential:
    """Linear, BatchNorm (not in an MLP), ReLU."""
    norm = nn.Identity() if config.network == "mlp" else nn.BatchNorm1d(outputs)
    return nn.Sequential(nn.Linear(inputs, outputs), norm, nn.ReLU())


def encoder_layer(config: NetworkConfig, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Convolution, BatchNorm, ReLU, at half the size if the stride is 2; of vectors a fully connected layer."""
    if config.network == "mlp":
        return fully_connected(config, inputs, outputs)
    if config.network == "vgg":
        pool = nn.MaxPool2d(2) if stride == 2 else nn.Identity()
        return nn.Sequential(conv3x3(inputs, outputs), nn.BatchNorm2d(outputs), nn.ReLU(), pool)
    conv = nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False) if stride == 2 else conv3x3(inputs, outputs)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


class Encoder(nn.Module):
    """Layers, then [features, code] -> fully connected -> (B, outputs). code_dim: of the label, if one comes in as well."""

    def __init__(self, config: NetworkConfig, outputs: int, code_dim: int = 0):
        super().__init__()
        layers, width = [], config.shape[0]
        for channels, stride in config.encoder:
            layers += [encoder_layer(config, width, channels, stride)]
            width = channels
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = fully_connected(config, width * config.cells(config.encoder) + code_dim, config.encoder_head)
        self.out = nn.Linear(config.encoder_head, outputs)

    def forward(self, x: Tensor, *code: Tensor) -> Tensor:
        # Densities and divergences of codes are computed in full precision, whatever the convolutions ran in.
        return self.out(self.head(torch.cat([self.features(x), *code], 1))).float()


# ---- the label relevant branch: z_s and its Gaussian mixture (section 3.3) ---------------------------------------------------


def log_normal(z: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log N(z; μ, diag σ²) over the last axis."""
    # log N(z; μ, Σ) = −½ Σ_i [ (z_i − μ_i)² / σ_i² + log σ_i² + log 2π ]
    squares = (z - mean).square() * torch.exp(-log_variance)
    return -0.5 * (squares + log_variance + math.log(2 * math.pi)).sum(-1)


class Mixture(nn.Module):
    """p(z_s) = Σ_c N(z_s; μ_c, Σ_c) p(c), p(c) = 1/C, Σ_c diagonal and learned as log variances (Eq. 6)."""

    def __init__(self, n_classes: int, dim: int):
        super().__init__()
        self.means = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_classes, dim)))
        self.log_variances = nn.Parameter(torch.zeros(n_classes, dim))

    def log_density(self, z_s: Tensor) -> Tensor:
        """log N(z_s; μ_c, Σ_c) of codes (B, d) under every class, (B, C)."""
        return log_normal(z_s[:, None], self.means, self.log_variances)

    def total(self) -> tuple[Tensor, Tensor]:
        """Mean and log variances (d,) of the whole mixture: the Gaussian of unseen classes (Eq. 11)."""
        # μ = 1/C Σ_c μ_c        Σ = diag( 1/C Σ_c σ_c² + Var_c(μ_c) )
        variance = self.log_variances.exp().mean(0) + self.means.var(0, correction=0)
        return self.means.mean(0), variance.log()

    def component(self, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variances (B, d) of each label's Gaussian; label -1, unknown, has the total one."""
        mean, log_variance = self.total()  # appended: index -1 finds it
        return torch.cat([self.means, mean[None]])[label], torch.cat([self.log_variances, log_variance[None]])[label]

    @torch.no_grad()
    def fit(self, z_s: Tensor, label: Tensor) -> None:
        """Move the Gaussian of each class with two codes or more to where L_lkd of codes (B, d) with labels (B,) is least."""
        # argmin L_lkd: μ_c the mean and σ_c² the variance of the class's codes
        smallest = 1e-6 * self.means.var(0, correction=0)  # of a class whose codes are all but one
        for c in label[label >= 0].unique():
            own = z_s[label == c].to(self.means.dtype)
            if len(own) > 1:
                self.means[c] = own.mean(0)
                self.log_variances[c] = own.var(0, correction=0).maximum(smallest).log()

    def place(self, noise: Tensor, label: Tensor) -> Tensor:
        """z_s = μ_y + Σ_y^½ ε: standard noise (B, d) moved into the Gaussians of labels (B,)."""
        mean, log_variance = self.component(label)
        return mean + torch.exp(0.5 * log_variance) * noise


def likelihood_loss(mixture: Mixture, z_s: Tensor, label: Tensor) -> Tensor:
    """L_lkd of each code, (B,)."""
    # L_lkd = −log N(z_s; μ_y, Σ_y)                                                                       (Eq. 7)
    return -log_normal(z_s, *mixture.component(label))


def classification_loss(log_density: Tensor, label: Tensor) -> Tensor:
    """L_cls of each row of log densities (B, C), (B,); 0 where the label is -1."""
    # L_cls = −log [ N(z_s; μ_y, Σ_y) p(y) / Σ_k N(z_s; μ_k, Σ_k) p(k) ]       p(y) = p(k) = 1/C: a softmax   (Eq. 8)
    return F.cross_entropy(log_density, label, ignore_index=-1, reduction="none")


def labelled_mean(losses: Tensor, label: Tensor) -> Tensor:
    """The mean of losses (B,) over the rows with a label, of all processes; 0 if there are none."""
    labelled = (label >= 0).to(losses.dtype)
    return (labelled * losses).sum() / remaining(labelled)


# ---- the label irrelevant branch: z_u (section 3.2) --------------------------------------------------------------------------


def reparameterise(mu: Tensor, sigma: Tensor) -> Tensor:
    """z_u = μ + σ ε, ε ~ N(0, I): the reparameterisation, through which gradients reach μ and σ."""
    return mu + sigma * torch.randn_like(mu)


@dataclass
class LatentCodes:
    """The codes of B inputs: z_s (B, d_s), and q(z_u|x) = N(μ, diag σ²) as mu_u and sigma_u, both (B, d_u)."""

    z_s: Tensor
    mu_u: Tensor
    sigma_u: Tensor

    def sample_u(self) -> Tensor:
        """z_u drawn from q(z_u|x)."""
        return reparameterise(self.mu_u, self.sigma_u)


def kl_loss(mu: Tensor, sigma: Tensor) -> Tensor:
    """L_KL in nats for each dimension, (B, d)."""
    # L_KL = KL( N(μ, diag σ²) ‖ N(0, I) ) = ½ Σ (σ² + μ² − 1 − log σ²)                                      (Eq. 3)
    return 0.5 * (sigma.square() + mu.square() - 1 - 2 * sigma.log())


def adversarial_classifier(config: GMVAEConfig) -> nn.Sequential:
    """C: z_u -> logits of the label (B, C)."""
    width = config.classifier_width
    norm = [nn.BatchNorm1d(config.z_u_dim, affine=False)] if config.classifier_norm else []
    return nn.Sequential(*norm, nn.Linear(config.z_u_dim, width), nn.ReLU(), nn.Linear(width, config.n_classes))


def classifier_loss(logits: Tensor, label: Tensor) -> Tensor:
    """What C minimises, over the labelled rows."""
    # L_C = −Σ_c 1[y = c] log q(c | z_u)                                                                     (Eq. 4)
    return labelled_mean(F.cross_entropy(logits, label, ignore_index=-1, reduction="none"), label)


def uniform_loss(logits: Tensor, label: Tensor) -> Tensor:
    """What E_u minimises against C, over the labelled rows; at least log C, reached where C's posterior is uniform."""
    # L_E = −1/C Σ_c log q(c | z_u)                                                                          (Eq. 5)
    return labelled_mean(-F.log_softmax(logits, 1).mean(1), label)


# ---- decoder and discriminator (section 3.4) -------------------------------------------------------------------------------


class Decoder(nn.Module):
    """Codes (B, code_dim) -> fully connected -> layers, stride 2 doubling the size -> a picture in [-1, 1], or a vector."""

    def __init__(self, config: NetworkConfig, code_dim: int):
        super().__init__()
        vectors, width, cells = config.network == "mlp", config.decoder_start, config.cells(config.decoder)
        layers = []
        if config.decoder_head:
            layers += [fully_connected(config, code_dim, config.decoder_head)]
        layers += [fully_connected(config, config.decoder_head or code_dim, width * cells)]
        if not vectors:
            side = math.isqrt(cells)
            layers += [nn.Unflatten(1, (width, side, side))]
        for channels, stride in config.decoder:
            layers += [self._layer(config, width, channels, stride)]
            width = channels
        layers += [nn.Linear(width, config.image_size)] if vectors else [conv3x3(width, 3), Tanh()]
        self.layers = nn.Sequential(*layers)

    @staticmethod
    def _layer(config: NetworkConfig, inputs: int, outputs: int, stride: int) -> nn.Sequential:
        if config.network == "mlp":
            return fully_connected(config, inputs, outputs)
        conv = UpConv(inputs, outputs) if stride == 2 else conv3x3(inputs, outputs)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, *codes: Tensor) -> Tensor:
        return self.layers(torch.cat(codes, 1))


class Discriminator(nn.Module):
    """D(x, y): real or fake, knowing the label, which is projected in (Miyato & Koyama 2018); spectrally normalised."""

    def __init__(self, config: NetworkConfig):
        super().__init__()
        layers, width, cells = [], config.shape[0], config.cells(config.discriminator)
        for channels, stride in config.discriminator:
            kernel = 4 if stride == 2 else 3
            vectors = config.network == "mlp"
            layers += [nn.Linear(width, channels) if vectors else nn.Conv2d(width, channels, kernel, stride, 1)]
            layers += [nn.LeakyReLU(0.1)]
            width = channels
        if config.discriminator_pool:
            layers, cells = [*layers, nn.AdaptiveAvgPool2d(1)], 1
        layers += [nn.Flatten(), nn.Linear(width * cells, config.discriminator_head), nn.LeakyReLU(0.1)]
        self.features = nn.Sequential(*layers)
        self.real = nn.Linear(config.discriminator_head, 1)
        self.label = nn.Linear(config.n_classes, config.discriminator_head, bias=False)  # the embedding e_y
        self.n_classes = config.n_classes
        add_spectral_norm(self)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Logits (B,). Where the label is -1, unknown, the picture alone is judged."""
        # D(x, y) = ψ(φ(x)) + e_yᵀ φ(x)
        features = self.features(x)
        projection = (self.label(one_hot(label, self.n_classes)) * features).sum(1)
        return (self.real(features)[:, 0] + projection).float()


def reconstruction_loss(reconstruction: Tensor, x: Tensor) -> Tensor:
    """L_rec: the squared error, mean over pixels and batch."""
    return F.mse_loss(reconstruction.float(), x.float())


def discriminator_loss(real: Tensor, *fakes: Tensor) -> Tensor:
    """The hinge loss of D from logits of real pictures and of each kind of fakes: reconstructions, samples."""
    # L_D = E[max(0, 1 − D(x, y))] + E[max(0, 1 + D(x̂, y))] + E[max(0, 1 + D(x_new, y_new))]                 (Eq. 10)
    return F.relu(1 - real).mean() + sum(F.relu(1 + fake).mean() for fake in fakes)


def decoder_loss(*fakes: Tensor) -> Tensor:
    """The decoder's side of it."""
    # L_dec = −E[D(x̂, y)] − E[D(x_new, y_new)]
    return -sum(fake.mean() for fake in fakes)


# ---- the method -----------------------------------------------------------------------------------------------------------


def check_batch(config: NetworkConfig, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The inputs (B, ...) and labels (B,) of a batch. Raises ValueError if they do not fit the config."""
    if config.label not in batch:
        raise ValueError(
            f"a batch needs {config.label!r} (-1 where it is unknown), got {', '.join(sorted(batch))}; photographs have one if "
            f"those of each class lie in a folder of their own"
        )
    label = check_labels(config, batch[config.label])
    return check_image(config, batch["image"]), label


def check_labels(config: NetworkConfig, label: Tensor) -> Tensor:
    """The labels (B,), int64. Raises ValueError if they are not integers, a class each or -1, unknown."""
    return class_labels(config.label, label, config.n_classes, lowest=-1)


def check_image(config: NetworkConfig, image: Tensor) -> Tensor:
    """The inputs as they are. Raises ValueError if they are not of the config's size."""
    if image.shape[1:] != config.shape:
        raise ValueError(f"image must be (B, {', '.join(map(str, config.shape))}), got {tuple(image.shape)}")
    return image


def draw_labels(n: int | Tensor, n_classes: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """n labels drawn uniformly, int64 (n,); labels that are given stay as they are."""
    if isinstance(n, Tensor):
        return n.to(device)
    return torch.randint(n_classes, (n,), generator=generator, device=generator.device if generator else device).to(device)


def draw_noise(*shape: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Standard Gaussian numbers."""
    return torch.randn(shape, generator=generator, device=generator.device if generator else device).to(device)


def fill(x: Tensor, hole: Tensor, reconstruct) -> Tensor:
    """M x̂ + (1 − M) x, where x̂ = reconstruct(x with mid grey, 0, in the hole); hole: M, bool or 0 and 1, broadcast to x."""
    hole = hole.bool().to(x.device).expand_as(x)
    return torch.where(hole, reconstruct(x.masked_fill(hole, 0)).to(x.device), x)


class GMVAE(nn.Module):
    """The method's networks, optimisers and training step.

    A batch needs `image` (B, 3, H, W) in [-1, 1] (vectors: (B, D)) and labels (B,) under the name `config.label`. A label of -1
    says that it is of a class never seen (section 3.6): such rows train no classifier and no Gaussian, their z_s is held to the
    mixture's total Gaussian (Eq. 11), and D judges them without a label. Both kinds may stand in one batch. The paper's other
    case, unlabelled pictures of known classes, held to the mixture itself (Eq. 6), is left out: theirs would be drawn off them.
    """

    name = "gmvae"
    averaged = ("label_encoder", "mixture", "rest_encoder", "decoder")

    def __init__(self, config: GMVAEConfig):
        super().__init__()
        self.config = config
        self.label_encoder = Encoder(config, config.z_s_dim)  # E_s
        self.mixture = Mixture(config.n_classes, config.z_s_dim)  # μ_c, Σ_c
        self.rest_encoder = Encoder(config, 2 * config.z_u_dim)  # E_u
        self.adversarial_classifier = adversarial_classifier(config)  # C
        self.decoder = Decoder(config, config.z_s_dim + config.z_u_dim)
        self.discriminator = Discriminator(config)  # D

        rates = {self.mixture: config.mixture_rate, self.adversarial_classifier: config.classifier_rate}

        def adam(*modules: nn.Module) -> torch.optim.Adam:
            groups = [{"params": list(m.parameters()), "lr": rates.get(m, config.learning_rate)} for m in modules]
            return torch.optim.Adam(groups, betas=config.betas)

        self.optimizers = {
            "mixture": adam(self.label_encoder, self.mixture),
            "classifier": adam(self.adversarial_classifier),
            "discriminator": adam(self.discriminator),
            "autoencoder": adam(self.label_encoder, self.rest_encoder, self.decoder),
        }
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    # ---- codes and pictures

    def encode(self, x: Tensor) -> LatentCodes:
        """The codes of pictures (B, 3, H, W)."""
        x = check_image(self.config, x).to(self.step.device)
        return LatentCodes(self.label_encoder(x), *self.posterior(x))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviations of q(z_u|x), both (B, d_u)."""
        mu, log_variance = self.rest_encoder(x).chunk(2, 1)
        return mu, torch.exp(0.5 * log_variance)

    def decode(self, z_s: Tensor, z_u: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) from codes (B, d_s) and (B, d_u)."""
        # L_lkd has no lower bound: codes, means and deviations that shrink together lower it for ever and leave L_cls as it is.
        # The decoder sees z_s at the scale of the means, so that it does not matter to it how far they have shrunk.
        means = self.mixture.means.detach()
        return self.decoder((z_s - means.mean(0)) / means.std(0, correction=0), z_u)

    def sample_codes(self, label: Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """z_s from the Gaussians of labels (B,), of -1 from the total one, and z_u from N(0, I).

        Raises ValueError for a label that is no class.
        """
        config, device = self.config, self.step.device
        label = check_labels(config, label)
        noise = draw_noise(len(label), config.z_s_dim + config.z_u_dim, generator=generator, device=device)
        return self.mixture.place(noise[:, : config.z_s_dim], label), noise[:, config.z_s_dim :]

    def sample(self, n: int | Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Labels (n,) and pictures of them. n: how many, of labels drawn uniformly; or the labels."""
        label = draw_labels(n, self.config.n_classes, generator, self.step.device)
        return label, self.decode(*self.sample_codes(label, generator=generator))

    def reconstruct(self, x: Tensor) -> Tensor:
        """x̂ from z_s and the mean of z_u."""
        codes = self.encode(x)
        return self.decode(codes.z_s, codes.mu_u)

    def swap(self, label_from: Tensor, rest_from: Tensor) -> Tensor:
        """The label code of one picture with the rest of another, row by row (Fig. 6)."""
        return self.decode(self.encode(label_from).z_s, self.encode(rest_from).mu_u)

    def walk(
        self,
        label: Tensor,
        steps: int = 8,
        *,
        along: Literal["label", "rest"] = "label",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Walks in one code while the other stands still, a row for each label: (rows, steps, 3, H, W) (Fig. 4).

        along "label": between two random points of the class, the same two in every row; along "rest": from one z_u to another.
        Raises ValueError for a label that is no class, and for another code.
        """
        if along not in ("label", "rest"):
            raise ValueError(f"along must be 'label' or 'rest', got {along!r}")
        config, label = self.config, check_labels(self.config, label)
        start, end = (
            draw_noise(1, config.z_s_dim + config.z_u_dim, generator=generator, device=self.step.device) for _ in range(2)
        )
        noise = torch.lerp(start, end, torch.linspace(0, 1, steps, device=start.device)[:, None]).repeat(len(label), 1)
        noise_s, z_u = noise.split([config.z_s_dim, config.z_u_dim], 1)  # (rows * steps, d)
        if along == "label":
            z_u = start[:, config.z_s_dim :].expand_as(z_u)
        else:
            noise_s = start[:, : config.z_s_dim].expand_as(noise_s)
        z_s = self.mixture.place(noise_s, label.to(start.device).repeat_interleave(steps))
        return self.decode(z_s, z_u).unflatten(0, (len(label), steps))

    def inpaint(self, x: Tensor, hole: Tensor) -> Tensor:
        """Pictures with what the codes make of a hole, without a label: M x̂ + (1 − M) x (section 4.5).

        hole: M, (B or 1, 1, H, W), bool or 0 and 1, 1 where pixels are missing; what stands there in x is not looked at.
        """
        return fill(x, hole, self.reconstruct)

    def log_density(self, x: Tensor) -> Tensor:
        """log N(E_s(x); μ_c, Σ_c) of pictures under every class, (B, C)."""
        return self.mixture.log_density(self.label_encoder(check_image(self.config, x).to(self.step.device)))

    def classify(self, x: Tensor) -> Tensor:
        """The most probable class of each picture, (B,) int64. The posterior is the softmax of `log_density`."""
        return self.log_density(x).argmax(1)

    # ---- training: Algorithm 1

    def training_step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """One update of stage one, and C's own; on the last of every `stage_one_updates` batches one of stage two as well."""
        image, label = check_batch(self.config, batch)
        losses = self.stage_one(image, label)
        self.pursue(image, label)
        self.step += 1
        if int(self.step) % self.config.stage_one_updates == 0:
            losses |= self.stage_two(image, label)
        return losses

    @torch.no_grad()
    def finish(self, batches: Iterable[dict[str, Tensor]]) -> None:
        """After training: fit the mixture to the codes of about a hundred pictures of each class.

        Gradient steps bring the deviations down from 1 so slowly that codes drawn from a class end among other classes' codes.
        """
        codes, labels = [], []
        for batch in batches:
            image, label = check_batch(self.config, batch)
            codes.append(self.label_encoder(image))
            labels.append(label)
            if sum(map(len, labels)) >= 100 * self.config.n_classes:
                break
        self.mixture.fit(torch.cat(codes), torch.cat(labels))

    def stage_one(self, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        """E_s and the mixture learn each other: one update on L_GM."""
        config, optimizer = self.config, self.optimizers["mixture"]
        z_s = self.label_encoder(image)
        cls = labelled_mean(classification_loss(self.mixture.log_density(z_s), label), label)
        lkd = labelled_mean(likelihood_loss(self.mixture, z_s, label), label)
        # L_GM = L_cls + λ_lkd L_lkd                                                                         (Eq. 9)
        loss = cls + config.likelihood_weight * lkd
        mixture = optimizer.param_groups[1]
        rate = mixture["lr"]
        mixture["lr"] = rate * config.mixture_decay ** (int(self.step) // config.mixture_decay_every)
        update(optimizer, loss)
        mixture["lr"] = rate  # the loop's rate stays its own
        return {"cls": cls.detach(), "lkd": lkd.detach()}

    def pursue(self, image: Tensor, label: Tensor) -> None:
        """`classifier_updates` updates of C, each on a z_u drawn anew; nothing else moves."""
        if self.config.classifier_updates:
            with torch.no_grad():
                posterior = self.posterior(image)
        for _ in range(self.config.classifier_updates):
            z_u = reparameterise(*posterior)
            update(self.optimizers["classifier"], classifier_loss(self.adversarial_classifier(z_u), label))

    def stage_two(self, image: Tensor, label: Tensor) -> dict[str, Tensor]:
        """One update each of C, of D, and of the encoders with the decoder."""
        config = self.config
        earlier = max(0, int(self.step) - 1) // config.stage_one_updates  # updates of stage two
        judged = earlier >= config.adversarial_from
        codes = self.encode(image)
        z_u = codes.sample_u()
        z_s, z, labels = codes.z_s, z_u, label
        if judged:
            drawn = draw_labels(len(label), config.n_classes, None, label.device)
            label_new = torch.where(label < 0, label, drawn)
            with torch.no_grad():
                z_s_new, z_u_new = self.sample_codes(label_new)
            z_s, z, labels = torch.cat([z_s, z_s_new]), torch.cat([z, z_u_new]), torch.cat([label, label_new])
        pictures = self.decode(z_s, z)

        c = classifier_loss(self.adversarial_classifier(z_u.detach()), label)
        update(self.optimizers["classifier"], c)
        losses = {"c": c}

        rec = reconstruction_loss(pictures[: len(image)], image)
        lkd = likelihood_loss(self.mixture, codes.z_s, label).mean()  # of an unknown label under the total Gaussian
        kl = kl_loss(codes.mu_u, codes.sigma_u).mean()
        e = uniform_loss(self.adversarial_classifier(z_u).float(), label)
        # E_s: L_rec + λ_lkd L_lkd        E_u: L_rec + L_KL + L_E        decoder: L_rec + L_dec
        codes_loss = config.reconstruction_weight * rec + config.likelihood_weight * lkd
        codes_loss = codes_loss + config.kl_weight * kl + config.uniform_weight * e
        self.optimizers["autoencoder"].zero_grad(set_to_none=True)
        decoder = list(self.decoder.parameters())
        encoders = [*self.label_encoder.parameters(), *self.rest_encoder.parameters()]
        if judged:
            fakes = self.discriminator(pictures.detach(), labels).chunk(2)
            d = config.adversarial_weight * discriminator_loss(self.discriminator(image, label), *fakes)
            update(self.optimizers["discriminator"], d)
            adversarial = decoder_loss(*self.discriminator(pictures, labels).chunk(2))
            backward(config.adversarial_weight * adversarial, inputs=decoder, retain_graph=True)  # moves no encoder
            losses |= {"d": d, "adversarial": adversarial}
        backward(codes_loss, inputs=[*encoders, *decoder])
        self.optimizers["autoencoder"].step()
        losses |= {"rec": rec, "kl": kl, "e": e, "lkd_two": lkd}
        return {name: loss.detach() for name, loss in losses.items()}
