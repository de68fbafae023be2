"""Uniform-posterior disentanglement: a code for each attribute, which tells its own label and none of the others'.

Oldfield, Panagakis & Nicolaou, "Adversarial Learning of Disentangled and Generalizable Representations of Visual Attributes",
IEEE Transactions on Neural Networks and Learning Systems, 2021.

    E_m(x) -> z_m         an encoder for each attribute m = 1 … M, and E_0 for the rest; a code is a map, not a vector
    D(z_0 … z_M) -> x̃     the decoder; in training each z_m comes from another picture of the batch
    C_m(x) -> y_m         a classifier of pictures; z_m, of the shape that its last layer takes, is classified by entering there

The file follows the paper: config, networks, losses, the full model with its training step, then the shallow model of its first
ablation (Fig. 4, Table III). The defaults are the published constants at 128 x 128.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.checks import class_labels, numbers
from tutorial_lib.data.pictures import as_pictures
from tutorial_lib.layers import Tanh, UpConv, add_spectral_norm, frozen, gradient_penalty, update
from tutorial_lib.methods.finegan import checked, critic_loss, moved

REST = "rest"  # the name of z_0 among the codes

# ---- config ---------------------------------------------------------------------------------------------------------------

Attributes = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class AttributeConfig:
    """What the method shares with what it is compared with: pictures, their labels, and rates.

    attributes: (name of the label in a batch, number of its classes) of each attribute, in any number.
    """

    image_size: int = 128
    attributes: Attributes = (("identity", 147), ("expression", 4), ("illumination", 5))  # MultiPIE, faces from the front
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.5, 0.999)

    def __post_init__(self):
        numbers(self)
        names = [name for name, _ in self.attributes]
        if not names:
            raise ValueError("attributes is empty: at least one is needed")
        if len(set(names)) < len(names) or {REST, "image"} & set(names):
            raise ValueError(f"attributes need names of their own, other than {REST!r} and 'image', got {', '.join(names)}")
        if taken := [name for name in names if not name or "." in name or hasattr(nn.ModuleDict(), name)]:
            raise ValueError(f"attributes cannot be called {', '.join(map(repr, taken))}: torch has other uses for such names")
        for name, n_classes in self.attributes:
            if n_classes < 2:
                raise ValueError(f"attribute {name!r} needs at least 2 classes, got {n_classes}")


@dataclass(frozen=True)
class UniformPosteriorConfig(AttributeConfig):
    """Constants of the full model; the defaults are the published ones."""

    # Channels of the encoders: of conv7, then of each stride-2 convolution; the last is the code's (Table I).
    encoder_widths: tuple[int, ...] = (32, 64, 128)
    # Of the decoder, all times M + 1: it starts with the codes' channels, and each of these doubles the size.
    residual_blocks: int = 6
    decoder_widths: tuple[int, ...] = (64, 32)
    classifier_widths: tuple[int, ...] = (64, 128)  # of stride-2 convolutions (Table II)
    critic_widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)  # likewise
    # The weights λ of the loss terms (Eq. 8); published: 10 for these two, 1 for the others.
    reconstruction_weight: float = 10.0
    gradient_penalty: float = 10.0
    adversarial_weight: float = 1.0
    disentanglement_weight: float = 1.0
    code_classification_weight: float = 1.0
    picture_classification_weight: float = 1.0

    # ---- departures -------------------------------------------------------------------------------------------------------
    hinge: bool = False  # hinge loss of a spectrally normalised critic (Miyato et al. 2018), in the place of Eq. 9
    judge_rate: float | None = None  # of the critic and the classifiers (Heusel et al. 2017); None: learning_rate
    # Residual blocks at the end of each encoder, which without them sees 13 pixels of a face at a time.
    encoder_residual_blocks: int = 0
    # Layer normalisation of encoders and decoder (over all channels of a picture at once) instead of instance normalisation,
    # which takes from each channel how much of it a picture has.
    layer_norm: bool = False
    # Attributes whose codes, when a picture is drawn again, are its partner's: another picture with the same labels of these.
    # An encoder that sees all of a face can hide in one code what two pictures of one label differ by, such as the strength of
    # an expression in that of identity, where no classifier reads it.
    partner_attributes: tuple[str, ...] = ()
    # Likewise for the rest: its code is that of another frame, a picture that differs by the expression alone ...
    rest_of_frame: bool = False
    # ... and codes of the attributes that no partner shares are read from the picture changed by this much (see `augmented`):
    # moved, perhaps mirrored, and in other colours. Where things are, and what colour they have, is then best read elsewhere.
    augmentation: float = 0.0
    code_reconstruction_weight: float = 0.0  # of L1 between a mixed picture's codes and those it was drawn from
    classifiers_first: int = 0  # steps in which only the classifiers are trained, which need no one else
    # What keeps classifiers from learning people by heart: the share of features that they do without in each update, and by
    # how much at most brightness and contrast of the pictures that they learn from are changed.
    classifier_dropout: float = 0.0
    classifier_jitter: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        for name, halvings in (
            ("encoder_widths", len(self.encoder_widths) - 1),
            ("classifier_widths", len(self.classifier_widths)),
            ("critic_widths", len(self.critic_widths)),
        ):
            if halvings < 1 or self.image_size % 2**halvings:
                raise ValueError(f"{name} halves a picture of {self.image_size} pixels {halvings} times")
        if len(self.decoder_widths) != len(self.encoder_widths) - 1:
            raise ValueError(
                f"decoder_widths needs one entry less than encoder_widths, to return to the size of the picture: "
                f"got {len(self.decoder_widths)} and {len(self.encoder_widths)}"
            )
        if self.judge_rate is not None and not self.judge_rate > 0:
            raise ValueError(f"judge_rate must be greater than 0, got {self.judge_rate}")
        if unknown := sorted(set(self.partner_attributes) - dict(self.attributes).keys()):
            raise ValueError(f"partner_attributes must be among the attributes, got {', '.join(unknown)}")
        for name in ("classifier_dropout", "classifier_jitter", "augmentation"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        entry = (self.classifier_widths[-1], *[self.image_size >> len(self.classifier_widths)] * 2)
        if self.code_shape != entry:
            raise ValueError(
                f"a code is classified by entering a classifier at its last layer, so both need one shape: encoder_widths "
                f"makes codes of {_by(self.code_shape)}, classifier_widths a last layer that takes {_by(entry)}"
            )

    @property
    def code_shape(self) -> tuple[int, int, int]:
        """Of one code z_m: (channels, height, width)."""
        return (self.encoder_widths[-1], *[self.image_size >> (len(self.encoder_widths) - 1)] * 2)


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


# ---- networks (section II-E) ------------------------------------------------------------------------------------------------


def norm(channels: int, layer: bool = False) -> nn.Module:
    """Instance normalisation, or layer normalisation, each with a scale and a shift for each channel."""
    return nn.GroupNorm(1, channels) if layer else nn.InstanceNorm2d(channels, affine=True)


def normed(convolution: nn.Module, channels: int, layer: bool = False) -> nn.Sequential:
    """A convolution, instance (or layer) normalisation, ReLU."""
    return nn.Sequential(convolution, norm(channels, layer), nn.ReLU())


class NormedResidualBlock(nn.Module):
    """x + norm(conv(ReLU(norm(conv(x)))))."""

    def __init__(self, channels: int, padding_mode: str = "reflect", layer: bool = False):
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 3, padding=1, padding_mode=padding_mode, bias=False) for _ in range(2))
        self.block = nn.Sequential(normed(first, channels, layer), second, norm(channels, layer))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class Encoder(nn.Sequential):
    """E_m: pictures (B, 3, H, W) -> codes (B, *code_shape). conv7, stride-2 conv3 (Johnson et al. 2016; Table I), then any
    residual blocks."""

    def __init__(self, config: UniformPosteriorConfig):
        layer, (first, *_, last) = config.layer_norm, config.encoder_widths
        layers = [normed(nn.Conv2d(3, first, 7, padding=3, padding_mode="reflect", bias=False), first, layer)]
        layers += [normed(nn.Conv2d(a, b, 3, 2, 1, bias=False), b, layer) for a, b in pairwise(config.encoder_widths)]
        layers += [NormedResidualBlock(last, layer=layer) for _ in range(config.encoder_residual_blocks)]
        super().__init__(*layers)


class Decoder(nn.Sequential):
    """D: the codes' channels one after the other, (B, (M + 1) C, h, w) -> pictures (B, 3, H, W) in [-1, 1] (Table I).

    Upsampling is nearest-neighbour by 2 and conv3x3, as in Odena et al. 2016. The public code enlarges by 4 and convolves with
    stride 2, so that every second pixel sees one cell only; and it reflects the border, which is 0 here.
    """

    def __init__(self, config: UniformPosteriorConfig):
        n_codes = len(config.attributes) + 1
        widths = [n_codes * width for width in (config.encoder_widths[-1], *config.decoder_widths)]
        layers = [NormedResidualBlock(widths[0], layer=config.layer_norm) for _ in range(config.residual_blocks)]
        layers += [normed(UpConv(a, b), b, config.layer_norm) for a, b in pairwise(widths)]
        layers += [nn.Conv2d(widths[-1], 3, 7, padding=3, padding_mode="reflect"), Tanh()]
        super().__init__(*layers)


class Classifier(nn.Module):
    """C_m: shallow, with one linear layer on the flattened features, where codes enter (Table II). Both give logits (B, n)."""

    def __init__(self, config: UniformPosteriorConfig, n_classes: int):
        super().__init__()
        layers = []
        for a, b in pairwise((3, *config.classifier_widths)):
            layers += [nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(0.01)]
        self.features = nn.Sequential(*layers)
        self.code_shape = config.code_shape
        self.logits = nn.Linear(prod(config.code_shape), n_classes)

    def forward(self, images: Tensor, *, dropout: float = 0.0) -> Tensor:
        """Logits of pictures. dropout: the share of the features that the last layer does without, at random."""
        return self.read(F.dropout(self.features(images), dropout))

    def read(self, code: Tensor) -> Tensor:
        """Logits of codes, which enter at the last layer: no parameters of their own."""
        if tuple(code.shape[1:]) != self.code_shape:
            raise ValueError(
                f"a code enters the classifier at its last layer, which takes (B, {', '.join(map(str, self.code_shape))}), "
                f"got {tuple(code.shape)}"
            )
        return self.logits(code.flatten(1)).float()


class Critic(nn.Module):
    """D: StarGAN's deep PatchGAN (Choi et al. 2018). Pictures -> a map of scores (B, h, w), each of a patch; high is real."""

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        layers = []
        for a, b in pairwise((3, *widths)):
            layers += [nn.Conv2d(a, b, 4, 2, 1), nn.LeakyReLU(0.01)]
        self.trunk = nn.Sequential(*layers)
        self.score = nn.Conv2d(widths[-1], 1, 3, padding=1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.score(self.trunk(images))[:, 0].float()


# ---- losses (sections II-B to II-D) -----------------------------------------------------------------------------------------

Codes = dict[str, Tensor]  # by name: REST, then the attributes; (B, C, h, w) each
Logits = Mapping[str, Tensor]  # by attribute, (B, n) each
Labels = Mapping[str, Tensor]  # by attribute, (B,) int64 each


def classification_loss(logits: Logits, labels: Labels) -> Tensor:
    """The mean over attributes of −log C_m(y_m | ·): of codes, of mixed pictures (their donors' labels), of real pictures."""
    # L_cls = E [ 1/M Σ_m −log C_m(y_m | ·) ]                                                            (Eq. 3 and 6, L_C)
    return sum(F.cross_entropy(logits[name], label) for name, label in labels.items()) / len(labels)


def uniform_cross_entropy(logits: Tensor) -> Tensor:
    """Between the uniform distribution and the posteriors of logits (B, n): log n where those are uniform, more elsewhere."""
    # −Σ_i 1/n log C(y | z)_i
    return -F.log_softmax(logits, 1).mean()


def disentanglement_loss(others: Mapping[str, Logits]) -> Tensor:
    """What the classifiers of the *other* attributes make of each code: others[m][m'] are the logits C_m'(z_m), m' ≠ m.

    The rest has M others, an attribute M − 1; a code with none is left out.
    """
    # L_dis^m = E [ −1/(M−1) Σ_{m'≠m} Σ_i 1/|m'| log C_m'(y_m' | E_m(x))_i ]                                (Eq. 4)
    each = [sum(map(uniform_cross_entropy, logits.values())) / len(logits) for logits in others.values() if logits]
    # L_dis = 1/(M+1) Σ_{m=0…M} L_dis^m
    return sum(each) / len(each)


def read_codes(classifiers: Mapping[str, nn.Module], codes: Codes) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """Logits C_m(z_m) of each attribute's own code, and C_m'(z_m), m' ≠ m, of each code for the other attributes."""
    own = {name: classifier.read(codes[name]) for name, classifier in classifiers.items()}
    others = {
        name: {other: classifier.read(code) for other, classifier in classifiers.items() if other != name}
        for name, code in codes.items()
    }
    return own, others


def shuffle(codes: Codes, labels: Labels) -> tuple[Codes, dict[str, Tensor]]:
    """Each attribute's codes in an order of their own, with the labels that a picture decoded from them should have.

    z_0 stays: row i of the result is picture i with every attribute taken from another. Of n pictures one in n keeps its own.
    """
    # z' = (z_0, z_1^(r_1), …, z_M^(r_M))                                                                  (Eq. 5)
    shuffled, expected = dict(codes), {}
    for name, label in labels.items():
        order = torch.randperm(len(label), device=label.device)
        shuffled[name], expected[name] = codes[name][order], label[order]
    return shuffled, expected


def check_mixes(values: Tensor) -> None:
    """Raise ValueError if a batch, or the part of one that is seen at a time, has one picture only."""
    if len(values) < 2:
        raise ValueError("mixing takes at least 2 pictures on each process and in each part of a batch, and 8 do better; got 1")


def jittered(images: Tensor, jitter: float, channels: int = 1) -> Tensor:
    """Each picture (B, 3, H, W) times 1 ± jitter, plus ± jitter: its contrast and brightness changed at random.

    channels: 3 changes those of each channel on their own, and so the colours.
    """
    if not jitter:
        return images
    scale, shift = (jitter * (2 * torch.rand(len(images), channels, 1, 1, device=images.device) - 1) for _ in range(2))
    return images * (1 + scale) + shift


def augmented(images: Tensor, amount: float) -> Tensor:
    """Pictures (B, 3, H, W) with other colours, moved and perhaps mirrored, at random.

    amount: 0.4 changes each channel as `jittered` does, turns by up to 11 degrees, shifts by up to a twentieth of a picture's
    width, and scales by up to 10 %. 0 changes nothing.
    """
    if not amount:
        return images
    return moved(jittered(images, amount, channels=3), turn=amount / 2, shift=amount / 4, zoom=amount / 4)


def wasserstein_loss(critic: nn.Module, real: Tensor, fake: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """−L_adv, which the critic minimises, and the penalty in it, of real and generated pictures."""
    # L_adv = E[D(x)] − E[D(x̃')] − λ_gp E[(|∇D(x̂)| − 1)²]                                                  (Eq. 9)
    distance = critic(real).mean() - critic(fake).mean()
    gradients = gradient_penalty(critic, (real,), (fake,))
    return -distance + penalty * gradients, gradients


def mixture(codes: Tensor, weights: Any) -> Tensor:
    """Convex combinations of N codes: (N, *code_shape) with weights (N,) gives (1, *code_shape), with (K, N) K of them.

    Raises ValueError if weights are negative, or do not sum to 1 in each row.
    """
    # z' = Σ_i α_i z^(i),  Σ_i α_i = 1,  α_i ≥ 0                                                          (Eq. 11)
    weights = torch.as_tensor(weights, dtype=codes.dtype, device=codes.device)
    weights = weights[None] if weights.ndim == 1 else weights
    if weights.ndim != 2 or weights.shape[1] != len(codes):
        raise ValueError(f"weights must be ({len(codes)},) or (K, {len(codes)}), one for each code, got {tuple(weights.shape)}")
    sums = weights.sum(1)
    if not (weights >= 0).all() or not torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        raise ValueError(f"weights must not be negative and must sum to 1, got {weights.tolist()}")
    return torch.tensordot(weights, codes, 1)


def check_batch(config: AttributeConfig, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Pictures (B, 3, H, W) and the labels (B,) of a batch. Raises ValueError if they do not fit the config."""
    return checked(batch["image"], config.image_size), {
        name: check_label(name, n_classes, batch.get(name)) for name, n_classes in config.attributes
    }


def check_label(name: str, n_classes: int, label: Tensor | None) -> Tensor:
    """The labels (B,) of one attribute, int64. Raises ValueError if there are none, or others than 0 … n_classes − 1."""
    if label is None:
        raise ValueError(f"the batch has no label {name!r}")
    return class_labels(name, label, n_classes)


# ---- the full model ---------------------------------------------------------------------------------------------------------


class UniformPosterior(nn.Module):
    """The method's networks, optimisers and training step.

    A batch needs `image` (B, 3, H, W) in [-1, 1] and a label (B,) under each attribute's name; and, like `image`, the partners
    as `partner` with `partner_attributes`, and the other frames as `frame` with `rest_of_frame`. After training no label is
    needed: codes come from pictures, also of people and attributes that were never seen.

    Where a method takes a *source* of a code, it may be pictures (anything `data.pictures.as_pictures` takes), what `encode`
    gives, or one attribute's codes (B, *code_shape): a mixture, a class mean. One picture goes with any number of others.
    """

    name = "uniform_posterior"
    averaged = ("encoders", "decoder", "classifiers")

    def __init__(self, config: UniformPosteriorConfig):
        super().__init__()
        self.config = config
        self.encoders = nn.ModuleDict({name: Encoder(config) for name in (REST, *dict(config.attributes))})
        self.decoder = Decoder(config)
        self.classifiers = nn.ModuleDict({name: Classifier(config, n_classes) for name, n_classes in config.attributes})
        self.critic = Critic(config.critic_widths)
        if config.hinge:
            add_spectral_norm(self.critic)

        def adam(rate: float, *networks: nn.Module) -> torch.optim.Adam:
            parameters = [parameter for network in networks for parameter in network.parameters()]
            return torch.optim.Adam(parameters, lr=rate, betas=config.betas)

        judges = config.learning_rate if config.judge_rate is None else config.judge_rate
        self.optimizers = {
            "critic": adam(judges, self.critic),
            "classifiers": adam(judges, self.classifiers),
            "generator": adam(config.learning_rate, self.encoders, self.decoder),
        }
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    # ---- codes and pictures

    def encode(self, pictures: Any) -> Codes:
        """The codes of pictures, by name: "rest" and the attributes."""
        return self._encode(as_pictures(pictures, self.config.image_size).to(self.step.device))

    def _encode(self, images: Tensor) -> Codes:
        return {name: encoder(images) for name, encoder in self.encoders.items()}

    def decode(self, codes: Codes) -> Tensor:
        """Pictures (B, 3, H, W) of codes by name, all of them: `a | {"expression": b["expression"]}` gives a that of b.

        Raises ValueError if one is missing, or unknown, or of another shape.
        """
        if codes.keys() != set(self.encoders):
            raise ValueError(f"codes must be those of {', '.join(self.encoders)}, got {', '.join(codes)}")
        n = max(map(len, codes.values()))
        for name, code in codes.items():
            if tuple(code.shape[1:]) != self.config.code_shape:
                raise ValueError(f"{name}: codes are (B, {_by(self.config.code_shape)}) here, got {tuple(code.shape)}")
            if len(code) not in (1, n):
                raise ValueError(f"{name}: {len(code)} codes do not go with {n}; give one, or as many as of the others")
        return self.decoder(torch.cat([codes[name].to(self.step.device).expand(n, -1, -1, -1) for name in self.encoders], 1))

    def reconstruct(self, pictures: Any) -> Tensor:
        """D(E(x)): the pictures again."""
        return self.decode(self.encode(pictures))

    def swap(self, target: Any, /, **donors: Any) -> Tensor:
        """The target with any set of attributes from any donors: `swap(x, expression=a, illumination=b)`.

        target: pictures or what `encode` gives; donors: sources, by attribute or "rest".
        """
        if not donors:
            raise ValueError(f"nothing to swap: name at least one of {', '.join(self.encoders)}")
        codes = dict(target) if isinstance(target, Mapping) else self.encode(target)
        return self.decode(codes | {name: self._code(name, source) for name, source in donors.items()})

    def sheet(self, pictures: Tensor) -> list[Tensor]:
        """Rows for a look at a run: pictures (n, 3, H, W), drawn again, and with each attribute of their neighbour."""
        codes = self.encode(pictures)
        swaps = (self.swap(codes, **{name: codes[name].roll(1, 0)}) for name in self.classifiers)
        return [pictures.to(self.step.device), self.decode(codes), *swaps]

    def mix(self, target: Any, attribute: str, donors: Any, weights: Any) -> Tensor:
        """The target with a convex mixture of the donors' codes of one attribute (Eq. 11): weights (N,) or (K, N).

        Mixing three donors' identities gives a new person. Raises ValueError if weights do not sum to 1, or are negative.
        """
        return self.swap(target, **{attribute: mixture(self._code(attribute, donors), weights)})

    def interpolate(self, target: Any, attribute: str, start: Any, end: Any, steps: int = 8) -> Tensor:
        """The target with codes of one attribute on the way from one source to another (Eq. 12): (steps, B, 3, H, W).

        Both sources may be of one label: within "scream", from a faint one to a loud one.
        """
        # Ẑ = { α z^(j) + (1 − α) z^(i) | 0 ≤ α ≤ 1 }                                                      (Eq. 12)
        if steps < 2:
            raise ValueError(f"steps must be at least 2, got {steps}")
        codes = dict(target) if isinstance(target, Mapping) else self.encode(target)
        first, last = self._code(attribute, start), self._code(attribute, end)
        alphas = torch.linspace(0, 1, steps).tolist()
        return torch.stack([self.decode(codes | {attribute: torch.lerp(first, last, alpha)}) for alpha in alphas])

    @torch.no_grad()
    def class_means(self, attribute: str, pictures: Tensor, labels: Tensor, batch_size: int = 100) -> Tensor:
        """A code like a label: the mean code E[z_m] of the pictures of each class, (n_classes, *code_shape) (section IV-C).

        Raises ValueError if a class has no picture.
        """
        encoder, n_classes = self._encoder(attribute), dict(self.config.attributes).get(attribute)
        if n_classes is None:
            raise ValueError(f"{attribute!r} has no classes; attributes are {', '.join(self.classifiers)}")
        labels = check_label(attribute, n_classes, labels).to(self.step.device)
        counts = labels.bincount(minlength=n_classes)
        if not counts.all():
            raise ValueError(f"{attribute}: no picture of class {', '.join(map(str, (counts == 0).nonzero()[:, 0].tolist()))}")
        sums = torch.zeros(n_classes, *self.config.code_shape, device=self.step.device)
        for images, label in zip(pictures.split(batch_size), labels.split(batch_size), strict=True):
            images = checked(images, self.config.image_size).to(self.step.device)
            sums.index_add_(0, label, encoder(images).float())
        return sums / counts[:, None, None, None]

    def posterior(self, attribute: str, source: Any, *, of: str | None = None) -> Tensor:
        """C_m's posterior (B, n_classes) of a source's codes: the attribute's own, or those `of` another, or of the rest."""
        if attribute not in self.classifiers:
            raise ValueError(f"no classifier of {attribute!r}; attributes are {', '.join(self.classifiers)}")
        return self.classifiers[attribute].read(self._code(of or attribute, source)).softmax(1)

    def _encoder(self, name: str) -> Encoder:
        if name not in self.encoders:
            raise ValueError(f"there is no code {name!r}; this model has {', '.join(self.encoders)}")
        return self.encoders[name]

    def _code(self, name: str, source: Any) -> Tensor:
        """One attribute's codes (B, *code_shape) of a source."""
        encoder = self._encoder(name)
        if isinstance(source, Mapping):
            if name not in source:
                raise ValueError(f"{name}: the source has codes of {', '.join(source)} only")
            return source[name].to(self.step.device)
        if isinstance(source, Tensor) and tuple(source.shape[1:]) == self.config.code_shape:
            return source.to(self.step.device)
        return encoder(as_pictures(source, self.config.image_size).to(self.step.device))

    # ---- training

    def training_step(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One update of the critic, one of the classifiers, and one of encoders and decoder; returns the losses.

        In the first `classifiers_first` steps only the classifiers' one.
        """
        config = self.config
        image, labels = check_batch(config, batch)
        check_mixes(image)
        if config.classifiers_first and int(self.step) < config.classifiers_first:  # reading the step makes a GPU wait
            self.step += 1
            return {"c": self._update_classifiers(image, labels)}
        codes = self._encode(image)
        shuffled, expected = shuffle(codes, labels)
        own = codes | self._codes_again(image, batch)
        both = {name: torch.cat([own[name], shuffled[name]]) for name in codes}
        again, mixed = self.decode(both).float().chunk(2)  # D(E(x)) and x̃'

        # D: −L_adv
        if config.hinge:
            judged = {"d": critic_loss(self.critic(image), self.critic(mixed.detach()), hinge=True)}
        else:
            d, penalty = wasserstein_loss(self.critic, image, mixed.detach(), config.gradient_penalty)
            judged = {"d": d, "penalty": penalty}
        update(self.optimizers["critic"], judged["d"])

        c = self._update_classifiers(image, labels)

        # G: L_adv + L_dis + L_cls of codes + L_cls of pictures + L_rec, each times its λ                       (Eq. 8)
        with frozen(self.critic), frozen(self.classifiers):
            read, others = read_codes(self.classifiers, codes)
            of_mixed = {name: classify(mixed) for name, classify in self.classifiers.items()}
            losses = {
                "adversarial": -config.adversarial_weight * self.critic(mixed).mean(),
                "dis": config.disentanglement_weight * disentanglement_loss(others),
                "cls_code": config.code_classification_weight * classification_loss(read, labels),
                "cls_picture": config.picture_classification_weight * classification_loss(of_mixed, expected),
                "rec": config.reconstruction_weight * F.l1_loss(again, image),  # E |x − D(E(x))|              (Eq. 2)
            }
            if config.code_reconstruction_weight:
                losses["rec_code"] = config.code_reconstruction_weight * self._code_reconstruction(mixed, shuffled)
            update(self.optimizers["generator"], sum(losses.values()))
        self.step += 1
        losses |= judged | {"c": c}
        return {name: loss.detach() for name, loss in losses.items()}

    def _codes_again(self, image: Tensor, batch: Mapping[str, Tensor]) -> Codes:
        """Those codes with which pictures are drawn again that are not simply their own."""
        config, codes = self.config, {}
        alone = [name for name in self.classifiers if name not in config.partner_attributes]
        if config.augmentation and alone:
            changed = augmented(image, config.augmentation)
            codes |= {name: self.encoders[name](changed) for name in alone}
        if config.partner_attributes:
            partner = self._other(batch, "partner", "partner_attributes need")
            codes |= {name: self.encoders[name](partner) for name in config.partner_attributes}
        if config.rest_of_frame:
            codes[REST] = self.encoders[REST](self._other(batch, "frame", "rest_of_frame needs"))
        return codes

    def _other(self, batch: Mapping[str, Tensor], name: str, asked: str) -> Tensor:
        """Pictures that come with the batch's own."""
        if name not in batch:
            raise ValueError(f"{asked} a batch with {name!r}, got {', '.join(sorted(batch))}")
        return checked(batch[name], self.config.image_size)

    def _update_classifiers(self, image: Tensor, labels: Labels) -> Tensor:
        """C: −log C_m(y_m | x) of real pictures with their true labels, and of nothing else; returns the loss."""
        seen, dropout = jittered(image, self.config.classifier_jitter), self.config.classifier_dropout
        logits = {name: classify(seen, dropout=dropout) for name, classify in self.classifiers.items()}
        loss = classification_loss(logits, labels)
        update(self.optimizers["classifiers"], loss)
        return loss.detach()

    def _code_reconstruction(self, mixed: Tensor, codes: Codes) -> Tensor:
        """E |E(x̃') − z'| (Huang et al. 2018, "latent reconstruction"). What reads x̃' is held still, and the goal z' too."""
        with frozen(self.encoders):
            found = self._encode(mixed)
        return sum(F.l1_loss(found[name], code.detach()) for name, code in codes.items()) / len(codes)


# ---- the shallow model (section IV-B1) -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShallowConfig(AttributeConfig):
    """Constants of the shallow model. The paper says that it is fully connected, and no more.

    At ten times the rate Adam's first steps, each on thousands of pixels at once, leave most hidden units silent.
    """

    image_size: int = 32
    attributes: Attributes = (("expression", 4), ("illumination", 5))
    hidden: int = 192
    code_dim: int = 16
    disentanglement_weight: float = 1.0  # λ_dis
    # What an encoder's last weights are multiplied with before training. A code begins as a random view of the picture; with 1
    # that view is so faint that what is learned soon outgrows it, and nothing is left for the loss to take out.
    code_gain: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if len(self.attributes) < 2:
            raise ValueError(f"attributes: disentangling needs at least 2, got {self.attributes}")
        if not self.code_gain > 0:
            raise ValueError(f"code_gain must be greater than 0, got {self.code_gain}")


class ShallowClassifier(nn.Module):
    """C_m: pixels -> features -> logits; codes are as long as the features and enter there."""

    def __init__(self, config: ShallowConfig, n_classes: int):
        super().__init__()
        self.features = fully_connected(config)
        self.logits = nn.Linear(config.code_dim, n_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.read(self.features(images))

    def read(self, code: Tensor) -> Tensor:
        return self.logits(code).float()


def fully_connected(config: ShallowConfig) -> nn.Sequential:
    """Pictures (B, 3, H, W) -> one hidden layer -> (B, code_dim)."""
    inputs = 3 * config.image_size**2
    first, second = nn.Linear(inputs, config.hidden), nn.Linear(config.hidden, config.code_dim)
    return nn.Sequential(nn.Flatten(), first, nn.LeakyReLU(0.01), second)


class ShallowModel(nn.Module):
    """The model of Fig. 4 and Table III: M encoders and M classifiers, no rest, no decoder. A batch is as the full model's."""

    name = "uniform_posterior_shallow"
    averaged = ("encoders", "classifiers")

    def __init__(self, config: ShallowConfig):
        super().__init__()
        self.config = config
        self.encoders = nn.ModuleDict({name: fully_connected(config) for name, _ in config.attributes})
        with torch.no_grad():
            for encoder in self.encoders.values():
                for parameter in encoder[-1].parameters():
                    parameter.mul_(config.code_gain)
        self.classifiers = nn.ModuleDict({name: ShallowClassifier(config, n) for name, n in config.attributes})
        self.optimizers = {
            name: torch.optim.Adam(getattr(self, name).parameters(), lr=config.learning_rate, betas=config.betas)
            for name in ("classifiers", "encoders")
        }
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def encode(self, pictures: Any) -> Codes:
        """The codes (B, code_dim) of pictures, by attribute."""
        images = as_pictures(pictures, self.config.image_size).to(self.step.device)
        return {name: encoder(images) for name, encoder in self.encoders.items()}

    def training_step(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One update of the classifiers and one of the encoders; returns the losses."""
        image, labels = check_batch(self.config, batch)
        c = classification_loss({name: classify(image) for name, classify in self.classifiers.items()}, labels)
        update(self.optimizers["classifiers"], c)
        with frozen(self.classifiers):
            own, others = read_codes(self.classifiers, {name: encoder(image) for name, encoder in self.encoders.items()})
            # L_abl = L_cls + λ_dis L_dis                                                                    (Eq. 10)
            cls, dis = classification_loss(own, labels), disentanglement_loss(others)
            update(self.optimizers["encoders"], cls + self.config.disentanglement_weight * dis)
        self.step += 1
        return {name: loss.detach() for name, loss in {"c": c, "cls_code": cls, "dis": dis}.items()}
