"""What the papers compare with, at the same size; the presets say with what budget.

InfoGAN: Chen et al., NeurIPS 2016, as FineGAN's paper uses it: one generator and one discriminator, whose code head must read
the class off the whole picture. No stages, no masks, no boxes.

StarGAN: Choi et al., CVPR 2018, as the uniform-posterior paper uses it: the label that a picture should get goes in beside the
picture. One label, one strength.

VAE, cVAE, cVAE-GAN and cGAN: what the label-relevant VAE (gmvae.py) is compared with, of the same layers and constants. The
label is a one-hot vector beside the code, not a code of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.checks import at_least
from tutorial_lib.data.pictures import as_pictures
from tutorial_lib.layers import Tanh, backward, conv3x3, frozen, in_full, orthogonal_init, update
from tutorial_lib.methods.finegan import JudgeConfig, ObjectDiscriminator, Stem, checked, generator_loss, judge_loss
from tutorial_lib.methods.gmvae import (
    Decoder,
    Discriminator,
    Encoder,
    NetworkConfig,
    check_image,
    check_labels,
    decoder_loss,
    discriminator_loss,
    draw_labels,
    draw_noise,
    fill,
    kl_loss,
    one_hot,
    reconstruction_loss,
    reparameterise,
)
from tutorial_lib.methods.gmvae import check_batch as check_labelled
from tutorial_lib.methods.uniform_posterior import (
    AttributeConfig,
    Attributes,
    Critic,
    NormedResidualBlock,
    check_batch,
    check_label,
    check_mixes,
    classification_loss,
    normed,
    wasserstein_loss,
)


@dataclass(frozen=True)
class InfoGANConfig(JudgeConfig):
    """Constants of InfoGAN; adversarial loss, normalisation and rates follow the FineGAN it is compared with."""

    image_size: int = 128
    z_dim: int = 100
    n_classes: int = 200
    width: int = 1024
    widths: tuple[int, ...] = (512, 256, 128, 64, 32)
    object_widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    head_width: int = 512
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    information_weight: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if 4 * 2 ** len(self.widths) != self.image_size:
            raise ValueError(f"widths needs log2(image_size / 4) entries: image_size {self.image_size}, got {self.widths}")


class InfoGAN(nn.Module):
    """A generator G(z, c) and a discriminator with a head that reads c."""

    name = "infogan"
    averaged = ("generator",)

    def __init__(self, config: InfoGANConfig):
        super().__init__()
        self.config = config
        self.generator = InfoGANGenerator(config)
        self.discriminator = ObjectDiscriminator(
            config.image_size,
            config.object_widths,
            config.head_width,
            (config.n_classes,),
            judges=True,
            norm=config.judge_norm,
        )
        reader = [*self.discriminator.code_features.parameters(), *self.discriminator.code.parameters()]
        judge = [*self.discriminator.trunk.parameters(), *self.discriminator.real.parameters()]

        def adam(parameters) -> torch.optim.Adam:
            return torch.optim.Adam(parameters, lr=config.learning_rate, betas=config.betas)

        self.optimizers = {
            "discriminator": adam(judge),
            "generator": adam([*self.generator.parameters(), *reader]),
        }
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def sample_codes(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """z (n, z_dim) from N(0, I) and one-hot classes (n, n_classes)."""
        device = self.step.device
        source = generator.device if generator is not None else device
        z = torch.randn(n, self.config.z_dim, generator=generator, device=source)
        c = torch.randint(self.config.n_classes, (n,), generator=generator, device=source)
        return z.to(device), F.one_hot(c, self.config.n_classes).to(z.dtype).to(device)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Random codes and their pictures (n, 3, H, W)."""
        codes = self.sample_codes(n, generator=generator)
        return codes, self.generator(*codes)

    def training_step(self, batch: dict[str, Tensor], codes: tuple[Tensor, Tensor] | None = None) -> dict[str, Tensor]:
        """One update of D, then one of G and the code head; returns the losses."""
        config, image = self.config, checked(batch["image"], self.config.image_size)
        z, c = self.sample_codes(len(image)) if codes is None else codes
        fake = self.generator(z, c)
        d_loss = judge_loss(config, self.step, self.discriminator, image, [fake])
        update(self.optimizers["discriminator"], d_loss)
        with frozen(self.discriminator.trunk, self.discriminator.real):
            (logits,) = self.discriminator.read(fake)
            g_loss = generator_loss(self.discriminator.judge(fake), config.judge_hinge)
        information = config.information_weight * F.cross_entropy(logits, c)
        update(self.optimizers["generator"], g_loss + information)
        self.step += 1
        return {"d": d_loss.detach(), "g": g_loss.detach(), "information": information.detach()}


class InfoGANGenerator(nn.Module):
    """[z, c] -> linear -> up blocks -> conv3x3 -> tanh: the layout of FineGAN's background stage, wider."""

    def __init__(self, config: InfoGANConfig):
        super().__init__()
        self.stem = Stem(config.z_dim + config.n_classes, config.width, config.widths)
        self.picture = conv3x3(config.widths[-1], 3)
        orthogonal_init(self)

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return in_full(self.picture(self.stem(z, c))).tanh()


# ---- StarGAN ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StarGANConfig(AttributeConfig):
    """Constants of StarGAN; the defaults are the published ones."""

    attributes: Attributes = (("expression", 4),)
    widths: tuple[int, ...] = (64, 128, 256)  # of the generator: conv7, then a stride-2 convolution each, and back
    residual_blocks: int = 6
    critic_widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    critic_updates: int = 5  # for each of the generator
    gradient_penalty: float = 10.0
    classification_weight: float = 1.0
    reconstruction_weight: float = 10.0

    def __post_init__(self):
        super().__post_init__()
        for name, halvings in (("widths", len(self.widths) - 1), ("critic_widths", len(self.critic_widths))):
            if halvings < 1 or self.image_size % 2**halvings:
                raise ValueError(f"{name} halves a picture of {self.image_size} pixels {halvings} times")
        at_least(1, self, "critic_updates")


class StarGANGenerator(nn.Sequential):
    """G(x, c): the picture and the target labels, one-hot as constant planes -> the picture with those labels."""

    def __init__(self, config: StarGANConfig):
        n_labels, widths = sum(n for _, n in config.attributes), config.widths
        layers = [normed(nn.Conv2d(3 + n_labels, widths[0], 7, padding=3, bias=False), widths[0])]
        layers += [normed(nn.Conv2d(a, b, 4, 2, 1, bias=False), b) for a, b in pairwise(widths)]
        layers += [NormedResidualBlock(widths[-1], "zeros") for _ in range(config.residual_blocks)]
        layers += [normed(nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), b) for a, b in pairwise(widths[::-1])]
        super().__init__(*layers, nn.Conv2d(widths[0], 3, 7, padding=3, bias=False), Tanh())

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """images (B, 3, H, W), labels (B, n_labels), the attributes' one-hot vectors one after the other."""
        planes = labels.to(images.dtype)[:, :, None, None].expand(-1, -1, *images.shape[-2:])
        return super().forward(torch.cat([images, planes], 1))


class StarGANCritic(Critic):
    """The PatchGAN with a second head, which reads the labels off the whole picture."""

    def __init__(self, config: StarGANConfig):
        super().__init__(config.critic_widths)
        cells = config.image_size >> len(config.critic_widths)
        width = config.critic_widths[-1]
        self.labels = nn.ModuleDict({name: nn.Conv2d(width, n, cells, bias=False) for name, n in config.attributes})

    def read(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (B, n_classes) of each attribute."""
        features = self.trunk(images)
        return {name: head(features).flatten(1).float() for name, head in self.labels.items()}


class StarGAN(nn.Module):
    """A generator that gives pictures new labels and, from the old labels, back; a critic that reads labels.

    A batch is as UniformPosterior's.
    """

    name = "stargan"
    averaged = ("generator",)

    def __init__(self, config: StarGANConfig):
        super().__init__()
        self.config = config
        self.generator, self.critic = StarGANGenerator(config), StarGANCritic(config)
        self.optimizers = {
            name: torch.optim.Adam(getattr(self, name).parameters(), lr=config.learning_rate, betas=config.betas)
            for name in ("critic", "generator")
        }
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def translate(self, pictures: Any, **labels: int | Tensor) -> Tensor:
        """Pictures (B, 3, H, W), of anything `data.pictures.as_pictures` takes, with a label for every attribute: (B,) or one.

        Raises ValueError for a label that is missing, unknown or out of range.
        """
        images = as_pictures(pictures, self.config.image_size).to(self.step.device)
        if unknown := sorted(labels.keys() - dict(self.config.attributes).keys()):
            known = ", ".join(name for name, _ in self.config.attributes)
            raise ValueError(f"no label {', '.join(unknown)}; this model has {known}")
        target = {}
        for name, n_classes in self.config.attributes:
            if name not in labels:
                raise ValueError(f"translate needs a label {name!r}")
            label = check_label(name, n_classes, torch.as_tensor(labels[name]).reshape(-1)).to(images.device)
            if len(label) not in (1, len(images)):
                raise ValueError(f"{name}: {len(label)} labels do not go with {len(images)} pictures")
            target[name] = label.expand(len(images))
        return self._generate(images, target)

    def sheet(self, pictures: Tensor) -> list[Tensor]:
        """Rows for a look at a run: pictures (n, 3, H, W), then each with every class of the first attribute (others at 0)."""
        (first, n_classes), *others = self.config.attributes
        rest = {name: 0 for name, _ in others}
        return [
            pictures.to(self.step.device),
            *(self.translate(pictures, **{first: label}, **rest) for label in range(n_classes)),
        ]

    def _generate(self, images: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
        codes = [one_hot(labels[name], n_classes) for name, n_classes in self.config.attributes]
        return self.generator(images, torch.cat(codes, 1))

    def training_step(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One update of the critic and, every `critic_updates` steps, one of the generator; returns the losses."""
        config = self.config
        image, labels = check_batch(config, batch)
        check_mixes(image)
        order = torch.randperm(len(image), device=image.device)  # target labels are those of another picture
        target = {name: label[order] for name, label in labels.items()}
        self.step += 1
        trains_generator = int(self.step) % config.critic_updates == 0
        with torch.set_grad_enabled(trains_generator):
            fake = self._generate(image, target).float()

        d, penalty = wasserstein_loss(self.critic, image, fake.detach(), config.gradient_penalty)
        c = classification_loss(self.critic.read(image), labels)
        update(self.optimizers["critic"], d + config.classification_weight * c)
        losses = {"d": d, "penalty": penalty, "c": c}
        if trains_generator:
            with frozen(self.critic):
                terms = {
                    "adversarial": -self.critic(fake).mean(),
                    "cls_picture": config.classification_weight * classification_loss(self.critic.read(fake), target),
                    "rec": config.reconstruction_weight * F.l1_loss(self._generate(fake, labels).float(), image),
                }
                update(self.optimizers["generator"], sum(terms.values()))
            losses |= terms
        return {name: loss.detach() for name, loss in losses.items()}


# ---- cVAE-GAN, and what remains of it without a part ------------------------------------------------------------------------

Kind = Literal["vae", "cvae", "cvaegan", "cgan"]


@dataclass(frozen=True)
class CVAEGANConfig(NetworkConfig):
    """Constants of the four; networks, weights and rates are those of the method they are compared with."""

    kind: Kind = "cvaegan"
    z_dim: int = 100

    def __post_init__(self):
        super().__post_init__()
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {get_args(Kind)}, got {self.kind!r}")


class CVAEGAN(nn.Module):
    """A code z near N(0, I) and a label y: E(x, y) -> z, decoder(z, y) -> x̂, D(x, y).

    | kind    |                                            | E   | y   | D   |
    |---------|--------------------------------------------|-----|-----|-----|
    | vae     | Kingma & Welling, ICLR 2014                | yes | no  | no  |
    | cvae    | Sohn, Lee & Yan, NeurIPS 2015              | yes | yes | no  |
    | cvaegan | Bao et al., ICCV 2017, with a hinge loss   | yes | yes | yes |
    | cgan    | Miyato & Koyama, ICLR 2018                 | no  | yes | yes |

    A batch is as GMVAE's. A label of -1 is unknown: no class is set in the one-hot vector.
    """

    def __init__(self, config: CVAEGANConfig):
        super().__init__()
        self.config, self.name = config, config.kind
        encodes, self.judged = config.kind != "cgan", config.kind in ("cvaegan", "cgan")
        self.averaged = ("encoder", "decoder") if encodes else ("decoder",)
        code = 0 if config.kind == "vae" else config.n_classes
        self.encoder = Encoder(config, 2 * config.z_dim, code) if encodes else None
        self.decoder = Decoder(config, config.z_dim + code)
        self.discriminator = Discriminator(config) if self.judged else None
        autoencoder = [*(self.encoder.parameters() if encodes else ()), *self.decoder.parameters()]
        parts = {"autoencoder": autoencoder} | ({"discriminator": self.discriminator.parameters()} if self.judged else {})
        self.optimizers = {
            name: torch.optim.Adam(parameters, lr=config.learning_rate, betas=config.betas)
            for name, parameters in parts.items()
        }
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    # ---- codes and pictures

    def encode(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """μ and σ (B, z_dim) of q(z|x, y); of a plain VAE q(z|x)."""
        if self.encoder is None:
            raise ValueError("a cgan has no encoder")
        x = check_image(self.config, x).to(self.step.device)
        mu, log_variance = self.encoder(x, *self._code(label)).chunk(2, 1)
        return mu, torch.exp(0.5 * log_variance)

    def decode(self, z: Tensor, label: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) from codes (B, z_dim) and labels (B,), which a plain VAE does not look at."""
        return self.decoder(z, *self._code(label))

    def sample(self, n: int | Tensor, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Labels (n,) and pictures of them. n: how many, of labels drawn uniformly; or the labels."""
        device = self.step.device
        label = draw_labels(n, self.config.n_classes, generator, device)
        return label, self.decode(draw_noise(len(label), self.config.z_dim, generator=generator, device=device), label)

    def inpaint(self, x: Tensor, hole: Tensor, label: Tensor) -> Tensor:
        """As GMVAE's, with the label given."""
        return fill(x, hole, lambda seen: self.decode(self.encode(seen, label)[0], label))

    def _code(self, label: Tensor) -> tuple[Tensor, ...]:
        if self.config.kind == "vae":
            return ()
        return (one_hot(check_labels(self.config, label).to(self.step.device), self.config.n_classes),)

    # ---- training

    def training_step(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """One update of D, if there is one, and one of the encoder with the decoder; returns the losses."""
        config = self.config
        image, label = check_labelled(config, batch)
        losses, codes, labels = {}, [], []
        if self.encoder is not None:
            mu, sigma = self.encode(image, label)
            codes, labels = [reparameterise(mu, sigma)], [label]
        if self.judged:
            drawn = draw_labels(len(label), config.n_classes, None, label.device)
            codes += [draw_noise(len(label), config.z_dim, generator=None, device=label.device)]
            labels += [torch.where(label < 0, label, drawn)]
        pictures, labels = self.decode(torch.cat(codes), torch.cat(labels)), torch.cat(labels)

        decoder = list(self.decoder.parameters())
        self.optimizers["autoencoder"].zero_grad(set_to_none=True)
        if self.judged:
            fakes = self.discriminator(pictures.detach(), labels).chunk(len(codes))
            losses["d"] = config.adversarial_weight * discriminator_loss(self.discriminator(image, label), *fakes)
            update(self.optimizers["discriminator"], losses["d"])
            losses["adversarial"] = decoder_loss(*self.discriminator(pictures, labels).chunk(len(codes)))
            weighted = config.adversarial_weight * losses["adversarial"]
            backward(weighted, inputs=decoder, retain_graph=True)  # moves no encoder
        if self.encoder is not None:
            losses["rec"] = reconstruction_loss(pictures[: len(image)], image)
            losses["kl"] = kl_loss(mu, sigma).mean()
            loss = config.reconstruction_weight * losses["rec"] + config.kl_weight * losses["kl"]
            backward(loss, inputs=[*self.encoder.parameters(), *decoder])
        self.optimizers["autoencoder"].step()
        self.step += 1
        return {name: value.detach() for name, value in losses.items()}
