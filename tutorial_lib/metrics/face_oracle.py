"""The oracle of PaperFaces: a small supervised network that reads identity, expression and its strength, illumination and gaze.

It is trained on renders whose factors are independent, so that none helps to guess another, and is what generated faces are
measured with. It knows the held-out people too. It obeys the contract of a method, so the one loop trains it:

    python -m tutorial_lib train face_oracle --preset laptop
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.checks import numbers
from tutorial_lib.data.faces import EXPRESSIONS, GAZES, HELD_OUT, ILLUMINATIONS, TRAINING
from tutorial_lib.layers import update
from tutorial_lib.metrics.oracle import augment

LABELS = {
    "identity": TRAINING + HELD_OUT,
    "expression": len(EXPRESSIONS),
    "illumination": len(ILLUMINATIONS),
    "gaze": len(GAZES),
}


@dataclass(frozen=True)
class FaceOracleConfig:
    """Sizes of the oracle and its training constants."""

    image_size: int = 64
    widths: tuple[int, ...] = (12, 24, 48, 72, 80)  # channels at full size, 1/2, 1/4, 1/8, 1/16
    n_features: int = 96
    learning_rate: float = 2e-3
    augment: bool = True

    def __post_init__(self):
        numbers(self)
        if self.image_size % 16:
            raise ValueError(f"image_size must be a multiple of 16, got {self.image_size}")
        if len(self.widths) != 5:
            raise ValueError(f"widths needs 5 entries, got {self.widths}")


@dataclass
class Reading:
    """What the oracle reads off B pictures.

    identity (B, 48), expression (B, 4), illumination (B, 5), gaze (B, 3): logits; strength (B,): of the expression, about 0 for
    a neutral face and 1 at most; features (B, n_features), of length 1: who it is, for the nearest face by cosine; activations
    (B, 2 * n_features): everything that is read, before the class logits, for FID and KID.
    """

    identity: Tensor
    expression: Tensor
    illumination: Tensor
    gaze: Tensor
    strength: Tensor
    features: Tensor
    activations: Tensor

    def labels(self) -> dict[str, Tensor]:
        """The most probable class of each label, (B,) int64."""
        return {name: getattr(self, name).argmax(1) for name in LABELS}


class FaceOracle(nn.Module):
    """A convolutional network with one branch for who it is and one for what the face does and how it is lit."""

    name = "face_oracle"
    averaged = ("network",)

    def __init__(self, config: FaceOracleConfig):
        super().__init__()
        self.config = config
        self.network = FaceOracleNetwork(config)
        self.optimizers = {"oracle": torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)}
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def read(self, images: Tensor) -> Reading:
        """Read pictures (B, 3, H, W) in [-1, 1]; raises ValueError for another size than the config's."""
        size = self.config.image_size
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):
            raise ValueError(f"the face oracle reads (B, 3, {size}, {size}), got {tuple(images.shape)}")
        return self.network(images)

    forward = read

    def training_step(self, batch: dict[str, Tensor], codes: None = None) -> dict[str, Tensor]:
        """One supervised update; returns the losses."""
        read = self.read(augment(batch["image"]) if self.config.augment else batch["image"])
        losses = {name: F.cross_entropy(getattr(read, name), batch[name]) for name in LABELS}
        seen = batch["strength"] * (batch["expression"] != EXPRESSIONS.index("neutral"))
        losses["strength"] = 10 * F.mse_loss(read.strength, seen)
        update(self.optimizers["oracle"], sum(losses.values()))
        self.step += 1
        return {name: loss.detach() for name, loss in losses.items()}


class FaceOracleNetwork(nn.Module):
    """The oracle's layers."""

    scale = 16.0  # of a cosine, so that the softmax over identities can become certain

    def __init__(self, config: FaceOracleConfig):
        super().__init__()
        w, n = config.widths, config.n_features
        layers = [_block(3, w[0])]
        for a, b in pairwise(w):
            layers += [_block(a, b, 2), _block(b, b)]
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        cells = (config.image_size // 16) ** 2
        self.who = nn.Sequential(nn.Linear(cells * w[4], n, bias=False), nn.BatchNorm1d(n))
        self.how = nn.Sequential(nn.Linear(cells * w[4], n, bias=False), nn.BatchNorm1d(n), nn.ReLU())
        self.people = nn.Parameter(torch.randn(LABELS["identity"], n))
        self.heads = nn.ModuleDict({name: nn.Linear(n, classes) for name, classes in LABELS.items() if name != "identity"})
        self.strength = nn.Sequential(nn.Linear(n, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, images: Tensor) -> Reading:
        trunk = self.trunk(images)
        who, how = self.who(trunk), self.how(trunk)
        features = F.normalize(who)
        identity = self.scale * features @ F.normalize(self.people).T
        logits = {name: head(how) for name, head in self.heads.items()}
        return Reading(
            identity=identity,
            **logits,
            strength=self.strength(how)[:, 0],
            features=features,
            activations=torch.cat([who, how], 1),
        )


def _block(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    kernel = 4 if stride == 2 else 3
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()
    )
