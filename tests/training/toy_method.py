"""A GAN small enough for tests, with BatchNorm, spectral norm, two optimisers and noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus
from torch.nn.utils.parametrizations import spectral_norm


@dataclass(frozen=True)
class ToyConfig:
    width: int = 8
    betas: tuple[float, float] = (0.5, 0.999)


class Toy(nn.Module):
    name = "toy"
    averaged = ("generator",)

    def __init__(self, config: ToyConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.generator = nn.Sequential(
            nn.Linear(4, width * 16, bias=False),
            nn.BatchNorm1d(width * 16),
            nn.Unflatten(1, (width, 4, 4)),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 3, 3, padding=1),
            nn.Tanh(),
        )
        self.discriminator = nn.Sequential(
            spectral_norm(nn.Conv2d(3, width, 4)), nn.LeakyReLU(0.2), nn.Flatten(), spectral_norm(nn.Linear(width, 1))
        )
        self.optimizers = {
            "discriminator": torch.optim.Adam(self.discriminator.parameters(), 1e-3, betas=config.betas),
            "generator": torch.optim.SGD(self.generator.parameters(), 1e-2, momentum=0.9),
        }

    def sample_codes(self, n: int) -> Tensor:
        return torch.randn(n, 4, device=next(self.parameters()).device)

    def sample(self, n: int, *, tied: bool = False, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        codes = self.sample_codes(n)
        return codes, self.generator(codes)

    def training_step(self, batch: dict[str, Tensor], codes: Tensor | None = None) -> dict[str, Tensor]:
        real = batch["image"]
        codes = self.sample_codes(len(real)) if codes is None else codes
        fake = self.generator(codes)

        loss_d = relu(1 - self.discriminator(real)).mean() + relu(1 + self.discriminator(fake.detach())).mean()
        self.optimizers["discriminator"].zero_grad()
        loss_d.backward()
        self.optimizers["discriminator"].step()

        loss_g = softplus(-self.discriminator(fake)).mean()
        self.optimizers["generator"].zero_grad()
        loss_g.backward()
        self.optimizers["generator"].step()
        return {"discriminator": loss_d.detach(), "generator": loss_g.detach()}


class Pictures(torch.utils.data.Dataset):
    """Pictures of noise, with their index and the codes to use with them; `[i]`, or whole batches."""

    def __init__(self, length: int = 20, seed: int = 0):
        self.length, self.seed = length, seed
        generator = torch.Generator().manual_seed(seed)
        self.image = torch.rand(length, 3, 4, 4, generator=generator) * 2 - 1
        self.codes = torch.randn(length, 4, generator=generator)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"image": self.image[index], "codes": self.codes[index], "index": torch.tensor(index)}

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        return {"image": self.image[indices], "codes": self.codes[indices], "index": torch.tensor(indices)}

    @staticmethod
    def collate(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return batch


class GivenCodes(Toy):
    """A Toy that takes its codes from the batch, so that it does not matter how many processes draw noise."""

    def training_step(self, batch: dict[str, Tensor], codes: Tensor | None = None) -> dict[str, Tensor]:
        return super().training_step(batch, batch["codes"])


class Plain(GivenCodes):
    """Without BatchNorm and spectral norm, which know which pictures are computed together and how often. Counts its steps."""

    def __init__(self, config: ToyConfig):
        super().__init__(config)
        for name in ("1", "4"):
            self.generator.register_module(name, nn.Identity())
        width = config.width
        self.discriminator = nn.Sequential(nn.Conv2d(3, width, 4), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(width, 1))
        self.optimizers["discriminator"] = torch.optim.SGD(self.discriminator.parameters(), 0.1)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.seen: list[int] = []

    def training_step(self, batch: dict[str, Tensor], codes: Tensor | None = None) -> dict[str, Tensor]:
        self.seen.append(len(batch["image"]))
        losses = super().training_step(batch, codes)
        self.step += 1
        return losses
