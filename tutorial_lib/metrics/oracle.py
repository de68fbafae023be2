"""The oracle of PaperBirds: a small supervised network that reads every factor, the keypoints and the mask off a picture.

It is trained on *untied* renders, so that no factor helps to guess another, and is what generated pictures are measured with.
It obeys the contract of a method (config, optimisers, `training_step`), so the one loop trains it:

    python -m tutorial_lib train oracle --preset laptop
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.checks import numbers
from tutorial_lib.data.birds import BACKGROUNDS, KEYPOINTS, POSE, SHAPES, TEXTURES
from tutorial_lib.layers import update


@dataclass(frozen=True)
class OracleConfig:
    """Sizes of the oracle and its training constants."""

    image_size: int = 64
    widths: tuple[int, ...] = (8, 24, 48, 72, 128)  # channels at full size, 1/2, 1/4, 1/8, 1/16
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
    """What the oracle reads off B pictures of H x W.

    background (B, 10), shape (B, 6), texture (B, 24): logits; pose (B, 7) in the units of `birds.Scene`; keypoints (B, 10, 2)
    in pixels; mask (B, 1, H, W) in [0, 1]; features (B, 128): the layer below the class logits, for FID and KID.
    """

    background: Tensor
    shape: Tensor
    texture: Tensor
    pose: Tensor
    keypoints: Tensor
    mask: Tensor
    features: Tensor

    def labels(self) -> dict[str, Tensor]:
        """The most probable background, shape and texture, each (B,) int64."""
        return {name: getattr(self, name).argmax(1) for name in ("background", "shape", "texture")}


def _block(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    kernel = 4 if stride == 2 else 3
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()
    )


class Oracle(nn.Module):
    """A U-Net with class and pose heads at the bottom, keypoint heat maps at half size and a mask at full size."""

    name = "oracle"
    averaged = ("network",)

    def __init__(self, config: OracleConfig):
        super().__init__()
        self.config = config
        self.network = OracleNetwork(config)
        self.optimizers = {"oracle": torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)}
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def read(self, images: Tensor) -> Reading:
        """Read pictures (B, 3, H, W) in [-1, 1]."""
        size = self.config.image_size
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):
            raise ValueError(f"the oracle reads (B, 3, {size}, {size}), got {tuple(images.shape)}")
        return self.network(images)

    forward = read

    def training_step(self, batch: dict[str, Tensor], codes: None = None) -> dict[str, Tensor]:
        """One supervised update; returns the losses."""
        images = augment(batch["image"]) if self.config.augment else batch["image"]
        read = self.read(images)
        visible = batch["visible"][..., None]
        apart = (read.keypoints - batch["keypoints"]).abs() * visible
        losses = {name: F.cross_entropy(getattr(read, name), batch[name]) for name in ("background", "shape", "texture")}
        losses["keypoints"] = 0.3 * apart.sum() / visible.sum().clamp(min=1) * (64 / self.config.image_size)
        losses["pose"] = 5 * F.mse_loss(read.pose, batch["pose"])
        with torch.autocast(images.device.type, enabled=False):  # in which CUDA refuses this loss
            losses["mask"] = 2 * F.binary_cross_entropy(read.mask.float(), batch["mask"].clamp(0, 1))
        update(self.optimizers["oracle"], sum(losses.values()))
        self.step += 1
        return {name: loss.detach() for name, loss in losses.items()}


class OracleNetwork(nn.Module):
    """The oracle's layers."""

    def __init__(self, config: OracleConfig):
        super().__init__()
        w = config.widths
        self.stem = _block(3, w[0])
        self.down = nn.ModuleList(nn.Sequential(_block(a, b, 2), _block(b, b)) for a, b in pairwise(w))
        self.up = nn.ModuleList(_block(a + b, b) for a, b in ((w[4], w[3]), (w[3], w[2]), (w[2], w[1])))
        self.heat = nn.Conv2d(w[1], len(KEYPOINTS), 1)
        self.mask = nn.Sequential(_block(w[1] + w[0], w[0]), nn.Conv2d(w[0], 1, 1))
        cells = (config.image_size // 16) ** 2
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(cells * w[4], 128), nn.BatchNorm1d(128), nn.ReLU())
        self.background, self.shape, self.texture = (nn.Linear(128, len(n)) for n in (BACKGROUNDS, SHAPES, TEXTURES))
        self.pose = nn.Sequential(
            nn.Linear(128 + len(SHAPES) + 2 * len(KEYPOINTS), 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(),
            nn.Linear(128, len(POSE)),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Reading:
        levels = [self.stem(images)]
        for down in self.down:
            levels.append(down(levels[-1]))
        features = self.features(levels[-1])
        x = levels[-1]
        for up, skip in zip(self.up, reversed(levels[1:-1]), strict=True):
            x = up(torch.cat([F.interpolate(x, scale_factor=2), skip], 1))
        points = expected_position(self.heat(x))  # (B, K, 2) in [-1, 1]
        mask = self.mask(torch.cat([F.interpolate(x, scale_factor=2, mode="bilinear"), levels[0]], 1)).sigmoid()
        shape = self.shape(features)
        pose = self.pose(torch.cat([features, shape.softmax(1), points.flatten(1)], 1))
        keypoints = (points + 1) / 2 * images.shape[-1]
        return Reading(self.background(features), shape, self.texture(features), pose, keypoints, mask, features)


def expected_position(heat: Tensor) -> Tensor:
    """The mean position (x, y) in [-1, 1] under a softmax over each map (B, K, H, W); shape (B, K, 2)."""
    height, width = heat.shape[-2:]
    weights = heat.float().flatten(2).softmax(-1).unflatten(2, (height, width))
    x = (torch.arange(width, device=heat.device) + 0.5) / width * 2 - 1
    y = (torch.arange(height, device=heat.device) + 0.5) / height * 2 - 1
    return torch.stack([(weights.sum(2) * x).sum(-1), (weights.sum(3) * y).sum(-1)], -1)


def augment(images: Tensor) -> Tensor:
    """Noise, blur and small changes of colour, each picture its own: what a generator's imperfect pictures look like."""
    n, device = len(images), images.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(n, *shape, device=device)

    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    images = torch.lerp(images, blurred, uniform(1, 1, 1) * (uniform(1, 1, 1) < 0.5))
    images = images * (0.9 + 0.2 * uniform(3, 1, 1)) + 0.1 * (uniform(3, 1, 1) - 0.5)
    return (images + 0.1 * uniform(1, 1, 1) * torch.randn_like(images)).clamp(-1, 1)
