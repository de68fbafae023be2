"""What the papers compare with, at the same size and budget.

InfoGAN: Chen et al., NeurIPS 2016, as FineGAN's paper uses it: one generator and one discriminator, whose code head must read
the class off the whole picture. No stages, no masks, no boxes.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.layers import conv3x3, orthogonal_init
from tutorial_lib.methods.finegan import ObjectDiscriminator, Stem, critic_loss, generator_loss


@dataclass(frozen=True)
class InfoGANConfig:
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
    spectral_norm: bool = False
    hinge: bool = False
    information_weight: float = 1.0

    def __post_init__(self):
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
            spectral=config.spectral_norm,
        )
        reader = [*self.discriminator.code_features.parameters(), *self.discriminator.code.parameters()]
        self._judge = [*self.discriminator.trunk.parameters(), *self.discriminator.real.parameters()]

        def adam(parameters) -> torch.optim.Adam:
            return torch.optim.Adam(parameters, lr=config.learning_rate, betas=config.betas)

        self.optimizers = {
            "discriminator": adam(self._judge),
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
        config, image = self.config, batch["image"]
        z, c = self.sample_codes(len(image)) if codes is None else codes
        fake = self.generator(z, c)
        d_loss = critic_loss(self.discriminator.judge(image), self.discriminator.judge(fake.detach()), config.hinge)
        self._update("discriminator", d_loss)
        for parameter in self._judge:
            parameter.requires_grad_(False)
        (logits,) = self.discriminator.read(fake)
        g_loss = generator_loss(self.discriminator.judge(fake), config.hinge)
        information = config.information_weight * F.cross_entropy(logits, c)
        self._update("generator", g_loss + information)
        for parameter in self._judge:
            parameter.requires_grad_(True)
        self.step += 1
        return {"d": d_loss.detach(), "g": g_loss.detach(), "information": information.detach()}

    def _update(self, name: str, loss: Tensor) -> None:
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[name].step()


class InfoGANGenerator(nn.Module):
    """[z, c] -> linear -> up blocks -> conv3x3 -> tanh: the layout of FineGAN's background stage, wider."""

    def __init__(self, config: InfoGANConfig):
        super().__init__()
        self.stem = Stem(config.z_dim + config.n_classes, config.width, config.widths)
        self.picture = conv3x3(config.widths[-1], 3)
        orthogonal_init(self)

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return self.picture(self.stem(z, c)).tanh()
