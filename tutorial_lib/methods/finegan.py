"""FineGAN: a picture in three stages, a code for each.

Singh, Ojha & Lee, "FineGAN: Unsupervised Hierarchical Disentanglement for Fine-Grained Object Generation and Discovery",
CVPR 2019.

    background stage  (z, b) -> B                                              judged on patches off the object, by D_b
    parent stage      (z, p) -> P_f, P_m     parent = P_f P_m + B (1 - P_m)    p must be readable off P_f P_m,  Q_p in D_p
    child stage       (., c) -> C_f, C_m     child = C_f C_m + parent (1 - C_m)  c off C_f C_m, Q_c in D_c; judged by D_c

The file follows the paper: config, generator, discriminators, losses, the training step, and the code predictor that is
fitted afterwards to compare clusterings. The defaults of the config are the published constants; the fields under "departures"
are off by default and are what the laptop preset switches on. The last section is a stage that is not in the paper: it sorts
real pictures into children and parents, from which the readers Q_p and Q_c may then learn.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as tvf

from tutorial_lib.checks import numbers
from tutorial_lib.codes import NAMES, Codes, one_hot
from tutorial_lib.data.papercut import rotation
from tutorial_lib.layers import (
    CodeConv,
    Conv,
    ResidualBlock,
    add_spectral_norm,
    conv3x3,
    frozen,
    in_full,
    leaky_relu,
    orthogonal_init,
    real_penalty,
    remaining,
    same_block,
    seeded,
    up_block,
    update,
)
from tutorial_lib.methods.clusters import ObjectClusters, families, in_order, k_means, segmentation_loss

# ---- config ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """How judges, which tell real from generated pictures, are kept from winning: BatchNorm, as published, or a departure."""

    spectral_norm: bool = False  # instead of BatchNorm; in MixNMatch not of the image-code discriminators, which have WGAN-GP
    hinge: bool = False  # adversarial loss instead of binary cross entropy
    # Weight of R1 (`layers.real_penalty`) on what judges pictures; it then has no normalisation, and binary cross entropy
    # whatever `hinge` says (MixNMatch's critic of features keeps both). R1 is computed once in so many steps, with as many
    # times the weight (Karras et al. 2020).
    real_penalty: float = 0.0
    real_penalty_every: int = 8  # steps from one computation of R1 to the next

    def __post_init__(self):
        numbers(self)

    @property
    def reader_norm(self) -> Literal["batch", "spectral"]:
        """The normalisation of what only reads a code."""
        return "spectral" if self.spectral_norm else "batch"

    @property
    def judge_norm(self) -> Literal["batch", "spectral", "none"]:
        """The normalisation of what tells real from generated."""
        return "none" if self.real_penalty else self.reader_norm

    @property
    def judge_hinge(self) -> bool:
        """Whether its loss is the hinge loss."""
        return self.hinge and not self.real_penalty

    def penalty_weight(self, step: Tensor) -> float:
        """The weight of R1 in a step: half of `real_penalty`, as many times as it is seldom computed, and 0 in between."""
        if not self.real_penalty or int(step) % self.real_penalty_every:  # without R1 no GPU is waited for
            return 0.0
        return self.real_penalty / 2 * self.real_penalty_every


@dataclass(frozen=True)
class FineGANConfig(JudgeConfig):
    """Constants of FineGAN; the defaults are the published ones for birds at 128 x 128."""

    image_size: int = 128
    z_dim: int = 100
    n_backgrounds: int = 200  # N_b
    n_parents: int = 20  # N_p
    n_children: int = 200  # N_c
    # Channels of the generator: at 4 x 4, after each up block, and of the child stage.
    width: int = 512
    background_widths: tuple[int, ...] = (256, 128, 64, 64, 32)
    parent_width: int = 512
    parent_widths: tuple[int, ...] = (256, 128, 64, 16, 16)
    child_width: int = 32
    parent_residuals: int = 3
    child_residuals: int = 2
    exact_planes: bool = True  # convolve a code as the nine values that its planes take: the same numbers, less work
    background_size: int = 126  # pixels a side of what D_b sees
    # Discriminators: (channels, stride) of D_b's 4x4 convolutions; channels of the stride-2 convolutions of D_p and D_c.
    background_critic: tuple[tuple[int, int], ...] = ((64, 2), (128, 2), (256, 1))
    object_widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    head_width: int = 512
    reader_widths: tuple[int, ...] | None = None  # of D_p, which only reads a code, if other than object_widths
    # Training.
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    background_weight: float = 10.0
    hard_negatives_from: int | None = None  # step from which every second batch holds `hardest_codes`

    # ---- departures, besides those of `JudgeConfig` -----------------------------------------------------------------------
    tie_background: bool = True  # b = c in training, as published; otherwise b is drawn on its own
    z_background: int | None = None  # how many of z's first components the background stage sees (all), the parent the rest
    background_first: int = 0  # steps in which only the background stage is trained
    parent_from_mask: bool = False  # Q_p reads p off the silhouette P_m, which colour cannot help, instead of P_f P_m
    parent_moved: bool = False  # Q_p reads p after a random turn, shift, scaling and mirroring: shape survives, pose does not
    child_inside: bool = False  # C_m is multiplied by P_m: the child repaints the parent and cannot draw the object itself
    child_untied: bool = False  # Q_c reads c off objects repainted in another's texture, whose shape does not tell it
    background_information: float = 0.0  # weight of the cross entropy of b read off B
    pose_information: float = 0.0  # weight of the squared error of the parent's part of z read off P_m
    pose_cells: int | None = None  # P_m is averaged to so many cells a side, and z read off them linearly: where the mass lies
    pose_noise: float = 0.0  # standard deviation of the noise on those cells, in which faint patterns drown
    mask_area: tuple[float, float] | None = None  # share of the picture that the parent mask may cover at no cost
    mask_area_weight: float = 0.0
    mask_match_weight: float = 0.0  # weight of |C_m - P_m|: the child repaints the parent, all of it and nothing else
    mask_entropy_weight: float = 0.0  # weight of the masks' binary entropy, which pushes them to 0 or 1
    segmenter_widths: tuple[int, ...] | None = None  # channels of the U-Net that cuts out real objects, so that they are sorted
    real_information: float = 0.0  # weight of the cross entropy of the parents and children that real pictures are sorted into
    child_judged: bool = False  # D_c tells whether a picture is a real one of its child, not just whether it is real
    child_from_real: bool = False  # Q_c learns from real pictures alone, with silhouettes that do not tell the child
    palette_weight: float = 0.0  # of how far colours of objects repainted as a real one's child are from that one's

    def __post_init__(self):
        super().__post_init__()
        grown = 4 * 2 ** len(self.background_widths)
        if not len(self.background_widths) == len(self.parent_widths) or grown != self.image_size:
            raise ValueError(
                f"background_widths and parent_widths need log2(image_size / 4) entries each: image_size {self.image_size}, "
                f"got {len(self.background_widths)} and {len(self.parent_widths)}"
            )
        for name in ("object_widths", "reader_widths"):
            widths = getattr(self, name) or ()
            if self.image_size >> len(widths) < 1:
                raise ValueError(f"{name} halves a picture of {self.image_size} pixels {len(widths)} times")
        if self.mask_area is not None and not 0 <= self.mask_area[0] < self.mask_area[1] <= 1:
            raise ValueError(f"mask_area must be (low, high) with 0 <= low < high <= 1, got {self.mask_area}")
        if self.tie_background and self.n_backgrounds != self.n_children:
            raise ValueError(f"b = c needs n_backgrounds = n_children, got {self.n_backgrounds} and {self.n_children}")
        if self.n_children < self.n_parents:
            raise ValueError(f"each parent needs a child: n_parents {self.n_parents}, n_children {self.n_children}")
        if self.z_background is not None and not 0 < self.z_background < self.z_dim:
            raise ValueError(f"z_background must lie between 1 and z_dim - 1 = {self.z_dim - 1}, got {self.z_background}")
        if self.palette_weight and not self.child_untied:
            raise ValueError(f"palette_weight needs child_untied, got {self.palette_weight}")
        if self.child_from_real and not self.real_information:
            raise ValueError("child_from_real needs real_information: otherwise Q_c learns from nothing")
        if (self.real_information or self.child_judged or self.palette_weight) and self.segmenter_widths is None:
            raise ValueError(
                "real_information, child_judged and palette_weight need segmenter_widths: real pictures are sorted by objects"
            )


# The fields that concern sorted real pictures.
SORTING = ("segmenter_widths", "real_information", "child_judged", "child_from_real", "palette_weight")


def child_to_parent(child: Tensor, n_parents: int, n_children: int) -> Tensor:
    """The parent of each child (B,) int64: floor(c / (N_c / N_p)), in integers, also where N_c / N_p is not whole."""
    return child * n_parents // n_children


# ---- generator ------------------------------------------------------------------------------------------------------------


@dataclass
class Stages:
    """What the generator draws on the way, each (B, C, H, W): pictures in [-1, 1], masks in [0, 1].

    `image` is the child picture, the result; `mask` is what the object covers in it, 1 - (1 - P_m)(1 - C_m).
    """

    background: Tensor
    parent_foreground: Tensor
    parent_mask: Tensor
    parent: Tensor
    child_foreground: Tensor
    child_mask: Tensor
    image: Tensor
    feature: Tensor  # phi(p, z), the parent feature

    @property
    def mask(self) -> Tensor:
        return 1 - (1 - self.parent_mask) * (1 - self.child_mask)


class Stem(nn.Module):
    """[z, code] -> linear to (width, 4, 4) with BatchNorm and GLU -> up blocks."""

    def __init__(self, in_dim: int, width: int, widths: tuple[int, ...]):
        super().__init__()
        hidden = 2 * width * 16
        self.linear = nn.Sequential(nn.Linear(in_dim, hidden, bias=False), nn.BatchNorm1d(hidden), nn.GLU(1))
        self.up = nn.Sequential(*(up_block(a, b) for a, b in zip((width, *widths[:-1]), widths, strict=True)))

    def forward(self, z: Tensor, code: Tensor) -> Tensor:
        x = self.linear(torch.cat([z, code], 1)).unflatten(1, (-1, 4, 4))
        return self.up(x)


class CodeBlock(nn.Module):
    """A same block over features and a code as planes: conv3x3, BatchNorm, GLU."""

    def __init__(self, channels: int, code_dim: int, out_channels: int, exact: bool):
        super().__init__()
        self.conv = CodeConv(channels, code_dim, 2 * out_channels, exact)
        self.norm = nn.BatchNorm2d(2 * out_channels)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        return self.conv.norm_glu(x, code, self.norm)


class ParentStage(nn.Module):
    """(z, p) -> the parent feature phi."""

    def __init__(self, config: FineGANConfig, z_dim: int):
        super().__init__()
        channels = config.parent_widths[-1]
        self.stem = Stem(z_dim + config.n_parents, config.parent_width, config.parent_widths)
        self.code = CodeBlock(channels, config.n_parents, channels, config.exact_planes)
        self.residual = nn.Sequential(*(ResidualBlock(channels) for _ in range(config.parent_residuals)))

    def forward(self, z: Tensor, p: Tensor) -> Tensor:
        return self.residual(self.code(self.stem(z, p), p))


class ChildStage(nn.Module):
    """(phi, c) -> the child feature."""

    def __init__(self, config: FineGANConfig):
        super().__init__()
        channels, width = config.parent_widths[-1], config.child_width
        self.code = CodeBlock(channels, config.n_children, width, config.exact_planes)
        self.residual = nn.Sequential(*(ResidualBlock(width) for _ in range(config.child_residuals)))
        self.same = same_block(width, channels)

    def forward(self, feature: Tensor, c: Tensor) -> Tensor:
        return self.same(self.residual(self.code(feature, c)))


class Painter(nn.Module):
    """Features -> a foreground in [-1, 1] and a mask in [0, 1]."""

    def __init__(self, channels: int):
        super().__init__()
        self.foreground = conv3x3(channels, 3)
        self.mask = conv3x3(channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return in_full(self.foreground(x)).tanh(), in_full(self.mask(x)).sigmoid()


class Generator(nn.Module):
    """The three stages."""

    def __init__(self, config: FineGANConfig):
        super().__init__()
        self.split, self.child_inside = config.z_background, config.child_inside
        z_background = config.z_background or config.z_dim
        z_parent = config.z_dim - (config.z_background or 0)
        channels = config.parent_widths[-1]
        self.background = Stem(z_background + config.n_backgrounds, config.width, config.background_widths)
        self.background_picture = conv3x3(config.background_widths[-1], 3)
        self.parent = ParentStage(config, z_parent)
        self.parent_painter = Painter(channels)
        self.child = ChildStage(config)
        self.child_painter = Painter(channels)
        orthogonal_init(self)

    def draw_background(self, codes: Codes) -> Tensor:
        """B, in [-1, 1]."""
        return in_full(self.background_picture(self.background(codes.z[:, : self.split], codes.b))).tanh()

    def parent_feature(self, codes: Codes) -> Tensor:
        """phi(p, z)."""
        return self.parent(codes.z[:, self.split :] if self.split else codes.z, codes.p)

    def draw_child(self, feature: Tensor, parent_mask: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """C_f and C_m: the object of a parent feature, and of its mask, painted in texture c."""
        foreground, mask = self.child_painter(self.child(feature, c))
        return foreground, mask * parent_mask if self.child_inside else mask

    def forward(self, codes: Codes, feature: Tensor | None = None) -> Stages:
        """All stages. `feature` takes the place of phi(p, z) if given; z then only feeds the background."""
        background = self.draw_background(codes)
        if feature is None:
            feature = self.parent_feature(codes)
        parent_foreground, parent_mask = self.parent_painter(feature)
        parent = parent_foreground * parent_mask + background * (1 - parent_mask)
        child_foreground, child_mask = self.draw_child(feature, parent_mask, codes.c)
        image = child_foreground * child_mask + parent * (1 - child_mask)
        return Stages(
            background, parent_foreground, parent_mask, parent, child_foreground, child_mask, image, feature
        )  # fmt: skip


# ---- discriminators -------------------------------------------------------------------------------------------------------


class BackgroundCritic(nn.Module):
    """D_b: is each patch real, and is it background? Two maps of logits (B, cells, cells)."""

    def __init__(self, config: FineGANConfig):
        super().__init__()
        layers, channels = [], 3
        self.receptive_field, self.stride = 1, 1
        for width, stride in config.background_critic:
            layers += [nn.Conv2d(channels, width, 4, stride), leaky_relu()]
            self.receptive_field += 3 * self.stride
            self.stride *= stride
            channels = width
        self.receptive_field += 3 * self.stride  # the heads
        self.trunk = nn.Sequential(*layers)
        self.real = nn.Conv2d(channels, 1, 4)
        self.background = nn.Conv2d(channels, 1, 4)
        orthogonal_init(self)
        if config.judge_norm == "spectral":
            add_spectral_norm(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(x)
        return self.real(features)[:, 0], self.background(features)[:, 0]


def patch_weights(box: Tensor, cells: int, receptive_field: int, stride: int) -> Tensor:
    """Which cells of D_b see background only: 1 where the receptive field does not touch the box, else 0.

    box (B, 4) is x1, y1, x2, y2 in pixels of the picture D_b sees; cell i of an axis sees the pixels
    [i stride, i stride + receptive_field). Returns (B, cells, cells), rows are y. An empty box touches nothing.
    """
    box = box.as_subclass(Tensor).float()
    start = torch.arange(cells, device=box.device) * stride
    low, high = box[:, :2, None], box[:, 2:, None]  # (B, 2, 1), x and y
    touches = (start < high) & (start + receptive_field > low) & (high > low)  # (B, 2, cells)
    return 1 - (touches[:, 1, :, None] & touches[:, 0, None, :]).float()


class ObjectDiscriminator(nn.Module):
    """D_p and D_c: stride-2 convolutions, a head for each code, and a real/fake head if it judges.

    `codes` are the lengths of what the code heads predict; `widths` the channels after each stride. `classes`: it judges
    whether a picture is a real one of its class, by a second head with a logit for each class, which is added (the projection
    of Miyato & Koyama 2018).

    norm: BatchNorm as published, spectral norm, or none.

    biased: the convolutions have biases, as they always do without a norm. Without biases and without BatchNorm, what the trunk
    sees grows in proportion to a picture's contrast: a generator whose pictures are found false can make them less so by making
    them grey.
    """

    def __init__(
        self,
        image_size: int,
        widths: tuple[int, ...],
        head_width: int,
        codes: tuple[int, ...],
        *,
        judges: bool,
        norm: Literal["batch", "spectral", "none"] = "batch",
        biased: bool = False,
        channels: int = 3,
        classes: int | None = None,
    ):
        super().__init__()
        biased = biased or norm == "none"

        def normalised(width: int) -> nn.Module:
            return nn.BatchNorm2d(width) if norm == "batch" else nn.Identity()

        layers = []
        for i, width in enumerate(widths):
            layers += [Conv(channels, width, 4, 2, 1, bias=biased)]
            layers += [normalised(width)] if i else []
            layers += [leaky_relu()]
            channels = width
        width, side = head_width, image_size >> len(widths)
        self.trunk = nn.Sequential(*layers, conv3x3(channels, width, bias=biased), normalised(width), leaky_relu())
        self.code_features = nn.Sequential(conv3x3(width, width, bias=biased), normalised(width), leaky_relu())
        self.code = nn.ModuleList(Conv(width, n, side) for n in codes)
        self.real = Conv(width, 1, side) if judges else None
        self.match = Conv(width, classes, side, bias=False) if classes else None
        orthogonal_init(self)
        if norm == "spectral":
            add_spectral_norm(self)

    def judge(self, x: Tensor, classes: Tensor | None = None) -> Tensor:
        """Real/fake logits (B,); if built with classes, of a real picture of its class, one-hot or soft (B, classes)."""
        features = self.trunk(x)
        logits = self.real(features).flatten()
        if self.match is None:
            return logits
        return logits + (self.match(features).flatten(1) * classes).sum(1)

    def read(self, x: Tensor) -> list[Tensor]:
        """What the code heads say, each (B, n): logits of a class, or values."""
        features = self.code_features(self.trunk(x))
        return [head(features).flatten(1) for head in self.code]


class CellReader(nn.Module):
    """Reads values linearly off a mask that is averaged to cells x cells, through noise."""

    def __init__(self, cells: int, n: int, noise: float):
        super().__init__()
        self.cells, self.noise = cells, noise
        self.values = nn.Linear(cells**2, n)

    def read(self, mask: Tensor) -> list[Tensor]:
        """One list entry, (B, n), as `ObjectDiscriminator.read`."""
        cells = F.adaptive_avg_pool2d(mask.float(), self.cells).flatten(1)
        return [self.values(cells + self.noise * torch.randn_like(cells))]


# ---- losses ---------------------------------------------------------------------------------------------------------------


def checked(image: Tensor, size: int) -> Tensor:
    """The pictures as they are; ValueError if they are not (B, 3, size, size)."""
    if image.ndim != 4 or image.shape[1:] != (3, size, size):
        raise ValueError(f"image must be (B, 3, {size}, {size}), got {tuple(image.shape)}")
    return image


def critic_loss(real: Tensor, fake: Tensor, hinge: bool, weights: Tensor | None = None) -> Tensor:
    """A discriminator's loss from logits. `weights` (like `real`) leave real cells out; the mean is over what remains."""
    lost_real = F.relu(1 - real) if hinge else F.softplus(-real)
    lost_fake = F.relu(1 + fake) if hinge else F.softplus(fake)
    if weights is None:
        return lost_real.mean() + lost_fake.mean()
    return (weights * lost_real).sum() / remaining(weights) + lost_fake.mean()


def judge_loss(
    config: JudgeConfig,
    step: Tensor,
    discriminator: ObjectDiscriminator,
    real: Tensor,
    fakes: Sequence[Tensor],
    real_classes: Tensor | None = None,
    fake_classes: Tensor | None = None,
) -> Tensor:
    """What D minimises: real pictures (B, ...) -> 1, those of each of `fakes` -> 0; in some steps, with R1.

    A discriminator with classes also needs those of the real pictures and of each batch of fakes, (B, classes).
    """
    judged = discriminator.judge(real, real_classes)
    loss = sum(critic_loss(judged, discriminator.judge(fake.detach(), fake_classes), config.judge_hinge) for fake in fakes)
    if r1 := config.penalty_weight(step):
        loss = loss + r1 * real_penalty(lambda x: discriminator.judge(x, real_classes).sum(), real) / len(real)
    return loss


def generator_loss(fake: Tensor, hinge: bool) -> Tensor:
    """The generator's adversarial loss from logits: -D (hinge) or binary cross entropy against "real"."""
    return -fake.mean() if hinge else F.softplus(-fake).mean()


def area_loss(mask: Tensor, low: float, high: float) -> Tensor:
    """How far the share of the picture that each mask covers lies outside [low, high]; mean over the batch."""
    area = mask.mean((1, 2, 3))
    return (F.relu(low - area) + F.relu(area - high)).mean()


def palette_loss(
    drawn: Tensor, mask: Tensor, real: Tensor, real_mask: Tensor, *, points: int = 256, directions: int = 16
) -> Tensor:
    """Sliced Wasserstein distance between the colours of objects (B, 3, H, W) and those of as many real ones, inside the masks
    (B, 1, H, W); mean over the batch, in which a mask that is empty counts as 0.

    So many points of each object are drawn at random, and their colours compared along so many random directions (Rabin et al.
    2011): the k-th smallest of the one with the k-th smallest of the other. Unlike histograms', its slope is there from any
    colour to any other.
    """
    both = mask.flatten(1).any(1) & real_mask.flatten(1).any(1)
    axes = F.normalize(torch.randn(directions, 3, device=drawn.device), dim=1)

    def projected(pictures: Tensor, mask: Tensor) -> Tensor:
        share = torch.where(both[:, None], mask.float().flatten(1), 1.0).nan_to_num(1.0)  # a run that diverges says so itself
        at = share.multinomial(points, replacement=True)[:, None].expand(-1, 3, -1)
        return (axes @ pictures.float().flatten(2).gather(2, at)).sort(2).values

    with torch.autocast(drawn.device.type, enabled=False):
        apart = (projected(drawn, mask) - projected(real, real_mask)).abs().mean((1, 2))
    return (apart * both).mean()


def moved(pictures: Tensor, turn: float = 0.6, shift: float = 0.3, zoom: float = 0.5) -> Tensor:
    """Each picture (B, C, H, W) turned, shifted, scaled and perhaps mirrored at random; empty (0) where nothing was.

    turn: at most this angle in radians either way; shift: at most this share of half a picture, before it is scaled; zoom:
    scales by exp(± zoom).
    """
    n, device = len(pictures), pictures.device

    def uniform(limit: float) -> Tensor:
        return (2 * torch.rand(n, device=device) - 1) * limit

    angle, size, mirror = uniform(turn), uniform(zoom).exp(), uniform(1).sign()
    across, down = (rotation(angle) / size[:, None, None]).unbind(2)
    matrix = torch.stack([across * mirror[:, None], down, torch.stack([uniform(shift), uniform(shift)], 1)], 2)
    with torch.autocast(device.type, enabled=False):  # positions in bf16 are off by up to a fifth of a pixel
        where = F.affine_grid(matrix, list(pictures.shape), align_corners=False)
        return F.grid_sample(pictures.float(), where, align_corners=False)


def binary_entropy(mask: Tensor) -> Tensor:
    """Mean binary entropy of a mask in bits, 0 where it is 0 or 1, 1 where it is one half."""
    mask = mask.float().clamp(1e-6, 1 - 1e-6)
    return -(mask * mask.log2() + (1 - mask) * (1 - mask).log2()).mean()


# ---- the method -----------------------------------------------------------------------------------------------------------


class FineGAN(nn.Module):
    """FineGAN's networks, optimisers and training step.

    A batch needs `image` (B, 3, H, W): the object (published: the box crop), and `scene` with `scene_box`: the whole picture
    for the background critic. Without `scene`, `image` and `box` serve for both.
    """

    name = "finegan"
    averaged = ("generator",)
    optional = ("child_discriminator.match",)  # of a checkpoint that a run starts from

    def __init__(self, config: FineGANConfig):
        super().__init__()
        self.config = config
        z_parent = config.z_dim - (config.z_background or 0)
        self.generator = Generator(config)
        self.background_critic = BackgroundCritic(config)  # D_b
        size, reads = config.image_size, {"judges": False, "norm": config.reader_norm}
        widths = config.reader_widths or config.object_widths
        width = widths[-1] if config.reader_widths else config.head_width
        channels = 1 if config.parent_from_mask else 3
        self.parent_reader = ObjectDiscriminator(  # D_p: Q_p
            size, widths, width, (config.n_parents,), channels=channels, **reads
        )
        self.child_discriminator = ObjectDiscriminator(  # D_c and Q_c
            size,
            config.object_widths,
            config.head_width,
            (config.n_children,),
            judges=True,
            norm=config.judge_norm,
            classes=config.n_children if config.child_judged else None,
        )
        readers = [*self.parent_reader.parameters(), *self.child_discriminator.code_features.parameters()]
        readers += self.child_discriminator.code.parameters()
        if config.pose_information:
            self.pose_reader = (
                ObjectDiscriminator(size, widths, width, (z_parent,), channels=1, **reads)
                if config.pose_cells is None
                else CellReader(config.pose_cells, z_parent, config.pose_noise)
            )
            readers += self.pose_reader.parameters()
        if config.background_information:
            self.background_reader = ObjectDiscriminator(size, widths, width, (config.n_backgrounds,), **reads)
            readers += self.background_reader.parameters()
        if config.segmenter_widths is not None:
            self.clusters = ObjectClusters(config.n_children, config.segmenter_widths).requires_grad_(False)
        judges = [p for network in self.judges()[1:] for p in network.parameters()]  # D_c without Q_c

        def adam(parameters) -> torch.optim.Adam:
            return torch.optim.Adam(parameters, lr=config.learning_rate, betas=config.betas)

        self.optimizers = {
            "background_critic": adam(self.background_critic.parameters()),
            "child_discriminator": adam(judges),
            "generator": adam([*self.generator.parameters(), *readers]),
        }
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @property
    def needs(self) -> tuple[str, ...]:
        """The networks that a checkpoint must have for a run to start from it."""
        return ("generator",) if self.config.segmenter_widths is None else ("generator", "clusters")

    # ---- codes and pictures

    def sample_codes(self, n: int, *, tied: bool = True, generator: torch.Generator | None = None) -> Codes:
        """Draw codes from their priors: z from N(0, I), classes uniformly.

        tied: p follows from c, and b = c if the config says so, as in training. Otherwise all four are independent.
        """
        config, device = self.config, self.step.device
        source = generator.device if generator is not None else device

        def draw(classes: int) -> Tensor:
            return torch.randint(classes, (n,), generator=generator, device=source).to(device)

        z = torch.randn(n, config.z_dim, generator=generator, device=source).to(device)
        b, p, c = (draw(classes) for classes in self.code_sizes)
        if tied:
            p = child_to_parent(c, config.n_parents, config.n_children)
            b = c if config.tie_background else b
        return Codes(z, *one_hot(z, (b, p, c), self.code_sizes))

    @property
    def code_sizes(self) -> tuple[int, int, int]:
        """(N_b, N_p, N_c)."""
        return self.config.n_backgrounds, self.config.n_parents, self.config.n_children

    def own(self, codes: Codes, names: Iterable[str] = "zbpc") -> Codes:
        """The codes, on the model's device. ValueError if one of those named is longer or shorter than this model's."""
        lengths = dict(zip("zbpc", (self.config.z_dim, *self.code_sizes), strict=True))
        for factor, name in NAMES.items():
            found = getattr(codes, name).shape[1]
            if name in names and found != lengths[name]:
                raise ValueError(f"{factor}: this model's {name} has {lengths[name]} entries, got {found}")
        return codes.to(self.step.device)

    def generate(self, codes: Codes) -> Stages:
        """All stages of the pictures that the codes describe. ValueError for codes of other lengths than this model's."""
        return self.generator(self.own(codes))

    def sample(self, n: int, *, tied: bool = False, generator: torch.Generator | None = None) -> tuple[Codes, Tensor]:
        """Random codes and their pictures (n, 3, H, W)."""
        codes = self.sample_codes(n, tied=tied, generator=generator)
        return codes, self.generate(codes).image

    # ---- training

    def train(self, mode: bool = True) -> "FineGAN":
        """What cuts out real objects is finished: it stays in eval mode."""
        super().train(mode)
        if hasattr(self, "clusters"):
            self.clusters.eval()
        return self

    def judges(self) -> list[nn.Module]:
        """What the generator's update goes through and does not change: D_b, and D_c but for the layers of Q_c."""
        judge = self.child_discriminator
        return [self.background_critic, judge.trunk, judge.real] + ([judge.match] if judge.match is not None else [])

    def training_step(self, batch: dict[str, Tensor], codes: Codes | None = None) -> dict[str, Tensor]:
        """One update of D_b, of D_c, and of the generator with the readers Q_p and Q_c; returns the losses.

        codes: those to use instead of drawing them.
        """
        image = checked(batch["image"], self.config.image_size)
        start, first = self.config.hard_negatives_from, self.config.background_first
        step = int(self.step) if first or start is not None else 0  # reading it makes a GPU wait
        if codes is None:
            hard = start is not None and step >= start and step % 2
            codes = self.hardest_codes(len(image)) if hard else self.sample_codes(len(image))
        if step < first:
            return self.background_step(batch, codes)
        fake = self.generator(codes)
        losses = self.update_background_critic(batch, fake.background.detach())
        real_mask, real_child = self.sort(image)
        losses |= self.update_child_discriminator(image, fake.image.detach(), real_child, codes.c)
        losses |= self.update_generator(self.finegan_losses(fake, codes, image, real_mask, real_child))
        self.step += 1
        return losses

    def background_step(self, batch: dict[str, Tensor], codes: Codes) -> dict[str, Tensor]:
        """One of the first `background_first` steps: an update of D_b and one of the background stage; returns the losses."""
        background = self.generator.draw_background(codes)
        losses = self.update_background_critic(batch, background.detach())
        with frozen(*self.judges()):
            terms = self.background_losses(background, codes)
        losses |= self.update_generator(terms)
        self.step += 1
        return losses

    def update_background_critic(self, batch: dict[str, Tensor], fake: Tensor) -> dict[str, Tensor]:
        """D_b: real cells that see background only -> 1, fake cells -> 0; and which real cells see background only."""
        config, size = self.config, self.config.background_size
        scene, box = (batch[name] for name in (("scene", "scene_box") if "scene" in batch else ("image", "box")))
        if scene.shape[-2] != scene.shape[-1]:
            raise ValueError(f"scene must be square, got {tuple(scene.shape[-2:])} pixels")
        if scene.shape[-1] != size:
            scene, box = (
                tvf.resize(scene, [size, size], antialias=True),
                box.as_subclass(Tensor) * (size / scene.shape[-1]),
            )
        real, is_background = self.background_critic(scene)
        weights = patch_weights(box, real.shape[-1], self.background_critic.receptive_field, self.background_critic.stride)
        judged, _ = self.background_critic(self._for_background_critic(fake))
        loss = critic_loss(real, judged, config.judge_hinge, weights)
        if r1 := config.penalty_weight(self.step):
            penalty = real_penalty(lambda x: (weights * self.background_critic(x)[0]).sum(), scene)
            loss = loss + r1 * penalty / remaining(weights)
        loss = config.background_weight * loss + F.binary_cross_entropy_with_logits(is_background, weights)
        update(self.optimizers["background_critic"], loss)
        return {"d_background": loss.detach()}

    def sort(self, image: Tensor) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Masks of real pictures, and their children, one-hot (B, N_c), as far as the config asks for them.

        A picture in which no object is found has neither: zeros, which tell nothing.
        """
        if self.config.segmenter_widths is None:
            return None, None
        mask = self.clusters.cut_out(image)
        child = F.one_hot(self.clusters.child(image, mask), self.config.n_children)
        found = self.clusters.finds(mask).to(mask.dtype)
        return mask * found[:, None, None, None], child * found[:, None]

    @property
    def parents(self) -> Tensor:
        """The parent of each child, (N_c,) int64."""
        config = self.config
        children = torch.arange(config.n_children, device=self.step.device)
        return child_to_parent(children, config.n_parents, config.n_children)

    def parent_of(self, c: Tensor) -> Tensor:
        """The parents, one-hot (B, N_p), of children, one-hot (B, N_c); zeros have none."""
        return c.new_zeros(len(c), self.config.n_parents).index_add_(1, self.parents, c)

    def update_child_discriminator(
        self, image: Tensor, fake: Tensor, real_c: Tensor | None = None, fake_c: Tensor | None = None
    ) -> dict[str, Tensor]:
        """D_c: real objects -> 1, generated children -> 0; if it judges by child, it needs their codes (B, N_c)."""
        loss = judge_loss(self.config, self.step, self.child_discriminator, image, [fake], real_c, fake_c)
        update(self.optimizers["child_discriminator"], loss)
        return {"d_child": loss.detach()}

    def finegan_losses(
        self, fake: Stages, codes: Codes, image: Tensor, real_mask: Tensor | None, real_c: Tensor | None
    ) -> dict[str, Tensor]:
        """What the generator and the readers minimise: the losses of background, object and sorted real pictures."""
        with frozen(*self.judges()):
            losses = self.background_losses(fake.background, codes)
            losses |= self.object_losses(fake, codes, image, real_mask, real_c)
            if self.config.real_information:
                losses |= self.real_losses(image * real_mask, real_mask, real_c)
        return losses

    def background_losses(self, background: Tensor, codes: Codes) -> dict[str, Tensor]:
        """Every cell of B should look real and like background; if asked for, b should be readable off B."""
        config = self.config
        real, is_background = self.background_critic(self._for_background_critic(background))
        losses = {
            "g_background": config.background_weight * generator_loss(real, config.judge_hinge),
            "g_background_class": F.softplus(-is_background).mean(),
        }
        if config.background_information:
            (logits,) = self.background_reader.read(background)
            losses["b_information"] = config.background_information * F.cross_entropy(logits, codes.b)
        return losses

    def object_losses(
        self,
        fake: Stages,
        codes: Codes,
        image: Tensor | None = None,
        real_mask: Tensor | None = None,
        real_c: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The child should look real, p be readable off the parent's foreground and c off the child's.

        With `palette_weight` it needs as many real pictures, with their masks and children, one-hot (B, N_c).
        """
        config = self.config
        parent = fake.parent_mask if config.parent_from_mask else fake.parent_foreground * fake.parent_mask
        foreground, mask, c = fake.child_foreground, fake.child_mask, codes.c
        if config.child_untied:
            c = real_c.to(c.dtype) if config.palette_weight else c[torch.randperm(len(c), device=c.device)]
            foreground, mask = self.generator.draw_child(fake.feature, fake.parent_mask, c)
        parent_logits, reader = self.read_parent(parent), self.child_discriminator
        with frozen(*([reader.code_features, reader.code] if config.child_from_real else [])):
            (child_logits,) = reader.read(foreground * mask)
        losses = {
            "g_child": generator_loss(self.child_discriminator.judge(fake.image, codes.c), config.judge_hinge),
            "p_information": F.cross_entropy(parent_logits, codes.p),
            "c_information": F.cross_entropy(child_logits, c),
        }
        if config.palette_weight:
            losses["palette"] = config.palette_weight * palette_loss(foreground, mask, image, real_mask)
        if config.pose_information:
            (pose,) = self.pose_reader.read(fake.parent_mask)
            target = codes.z[:, config.z_background or 0 :]
            losses["z_information"] = config.pose_information * F.mse_loss(pose, target)
        if config.mask_area is not None:
            losses["mask_area"] = config.mask_area_weight * area_loss(fake.parent_mask, *config.mask_area)
        if config.mask_match_weight:
            losses["mask_match"] = config.mask_match_weight * (fake.child_mask - fake.parent_mask).abs().mean()
        if config.mask_entropy_weight:
            entropy = binary_entropy(fake.parent_mask) + binary_entropy(fake.child_mask)
            losses["mask_entropy"] = config.mask_entropy_weight * entropy
        return losses

    def read_parent(self, parent: Tensor) -> Tensor:
        """Q_p's logits (B, N_p) of what it is given of parents."""
        return self.parent_reader.read(moved(parent) if self.config.parent_moved else parent)[0]

    def real_losses(self, cut: Tensor, mask: Tensor, c: Tensor) -> dict[str, Tensor]:
        """Q_p and Q_c should tell of real objects, on black (B, 3, H, W), what they are sorted into: c one-hot (B, N_c)."""
        config = self.config
        parent_logits = self.read_parent(mask if config.parent_from_mask else cut)
        if config.child_from_real:  # half of the objects are cut out once more, along another's outline
            other = moved(mask.roll(1, 0), shift=0.15, zoom=0.3)
            cut = torch.where(torch.rand_like(mask[:, :, :1, :1]) < 0.5, cut, cut * other)
        (child_logits,) = self.child_discriminator.read(cut)
        return {
            "p_real": config.real_information * F.cross_entropy(parent_logits, self.parent_of(c)),
            "c_real": config.real_information * F.cross_entropy(child_logits, c),
        }

    def update_generator(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """One update of the generator, Q_p and Q_c (and the other readers) on the sum of the losses."""
        update(self.optimizers["generator"], sum(losses.values()))
        return {name: loss.detach() for name, loss in losses.items()}

    @torch.no_grad()
    def hardest_codes(self, n: int, candidates: int = 10) -> Codes:
        """Of candidates * n tied codes, the n whose c Q_c believes least when it sees the child's foreground."""
        drawn, posteriors = [self.sample_codes(n) for _ in range(candidates)], []
        for codes in drawn:
            fake = self.generator(codes)
            (logits,) = self.child_discriminator.read(fake.child_foreground * fake.child_mask)
            posteriors.append((logits.softmax(1) * codes.c).sum(1))
        return Codes.cat(drawn)[torch.cat(posteriors).argsort()[:n]]

    def _for_background_critic(self, picture: Tensor) -> Tensor:
        size = self.config.background_size
        if picture.shape[-1] == size:
            return picture
        return F.interpolate(picture, size=(size, size), mode="bilinear", align_corners=False)


# ---- the code predictor ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CodePredictorConfig:
    """Sizes of the code predictor."""

    image_size: int = 128
    n_parents: int = 20
    n_children: int = 200
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    learning_rate: float = 1e-3

    def __post_init__(self):
        numbers(self)


class CodePredictor(nn.Module):
    """Reads p and c off a picture, though FineGAN has no encoder: fitted on generated pictures, after the training.

    Its features, clustered, are what FineGAN's rows in the paper's table of clustering stand for.
    """

    name = "finegan_predictor"
    averaged = ()

    def __init__(self, config: CodePredictorConfig):
        super().__init__()
        self.config = config
        layers, channels = [], 3
        for width in config.widths:
            layers += [Conv(channels, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), leaky_relu()]
            channels = width
        cells = (config.image_size >> len(config.widths)) ** 2
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Linear(cells * channels, 2 * 64), leaky_relu())
        self.parent, self.child = nn.Linear(64, config.n_parents), nn.Linear(64, config.n_children)
        self.optimizers = {"predictor": torch.optim.Adam(self.parameters(), lr=config.learning_rate)}

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits of p (B, N_p) and c (B, N_c), and the features below each, (B, 64)."""
        for_parent, for_child = self.features(images).chunk(2, 1)
        return self.parent(for_parent), self.child(for_child), for_parent, for_child

    def training_step(self, batch: dict[str, Tensor], codes: Codes) -> dict[str, Tensor]:
        """One update on generated pictures `batch["image"]` and the codes they were made from."""
        parent, child, _, _ = self(batch["image"])
        losses = {"p": F.cross_entropy(parent, codes.p), "c": F.cross_entropy(child, codes.c)}
        update(self.optimizers["predictor"], sum(losses.values()))
        return {name: loss.detach() for name, loss in losses.items()}


def fit_predictor(model: FineGAN, steps: int = 1000, batch_size: int = 32, seed: int = 0) -> CodePredictor:
    """Fit a code predictor on pictures that `model` generates from untied codes; the model stays as it is."""
    config = model.config
    with seeded(seed):
        predictor = CodePredictor(
            CodePredictorConfig(config.image_size, config.n_parents, config.n_children, config.object_widths)
        ).to(model.step.device)
        training = model.generator.training
        model.generator.eval()
        for step in range(steps):
            for group in predictor.optimizers["predictor"].param_groups:
                group["lr"] = predictor.config.learning_rate * (1 - step / steps)
            with torch.no_grad():
                codes, images = model.sample(batch_size, tied=False)
            predictor.training_step({"image": images}, codes)
        model.generator.train(training)
    return predictor.eval()


# ---- real pictures, sorted ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClustersConfig(FineGANConfig):
    """FineGAN's config, and how real pictures are sorted."""

    segmenter_widths: tuple[int, ...] | None = (16, 32, 48, 64)
    n_sorted: int = 8000  # pictures that are sorted
    confusion_steps: int = 400  # of what learns to tell children by their silhouettes
    confusion_batch: int = 128

    def __post_init__(self):
        super().__post_init__()
        if self.segmenter_widths is None:
            raise ValueError("segmenter_widths must be given: pictures are sorted by their objects")
        if self.n_sorted < 2 * self.n_children:
            raise ValueError(f"n_sorted must be at least 2 n_children = {2 * self.n_children}, got {self.n_sorted}")


class FineGANClusters(FineGAN):
    """A stage between two of FineGAN's: a finished generator teaches a U-Net to cut out objects, then real ones are sorted.

    A batch needs `image`. Afterwards `clusters` tells the child of a real picture, in the order of the generator's own codes as
    far as they agree.
    """

    name = "finegan_clusters"
    averaged = ("clusters",)
    needs = ("generator",)  # of the checkpoint that a run starts from

    def __init__(self, config: ClustersConfig):
        super().__init__(config)
        self.generator.requires_grad_(False)
        self.clusters.requires_grad_(True)
        self.optimizers = {"clusters": torch.optim.Adam(self.clusters.parameters(), lr=config.learning_rate)}

    def train(self, mode: bool = True) -> "FineGANClusters":
        """The generator is finished: it stays in eval mode."""
        super().train(mode)
        self.generator.eval()
        self.clusters.train(mode)
        return self

    def training_step(self, batch: dict[str, Tensor], codes: Codes | None = None) -> dict[str, Tensor]:
        """One update of the U-Net, on as many generated pictures as the batch has real ones; returns the loss."""
        image = checked(batch["image"], self.config.image_size)
        with torch.no_grad():
            fake = self.generator(self.sample_codes(len(image)) if codes is None else codes)
        loss = segmentation_loss(self.clusters.segmenter, fake.image, fake.mask)
        update(self.optimizers["clusters"], loss)
        self.step += 1
        return {"segmentation": loss.detach()}

    @torch.no_grad()
    def finish(self, batches: Iterable[dict[str, Tensor]]) -> dict[str, float]:
        """Sort real pictures: `clusters.centres`, ordered so that a parent's children follow each other.

        Batches of pictures, which should be different ones, are taken until there are `n_sorted`, or all. Returns `sorted`, how
        many have an object; `empty`, the share that has none; `smallest` and `largest`, shares of them in one child; and, as a
        mean probability, that a silhouette is read as its own child, `told`, and as one of the same parent, `siblings`.
        Raises ValueError if a fifth of the pictures are empty, or too few are left to sort.
        """
        config, clusters = self.config, self.clusters
        colours, masks, found = [], [], 0
        for batch in batches:
            image = batch["image"]
            mask = clusters.cut_out(image)
            colours.append(clusters.colours(image, mask))
            masks.append((mask * 255).byte())  # a quarter of the memory
            found += len(image)
            if found >= config.n_sorted:
                break
        colours, masks = torch.cat(colours), torch.cat(masks)
        filled = colours.any(1)
        colours, masks, n = colours[filled], masks[filled], int(filled.sum())
        if n <= 0.8 * found or n < 2 * config.n_children:
            raise ValueError(
                f"an object was found in {n} of {found} pictures, which is too few to sort into {config.n_children} children: "
                "look at the masks that the generator draws, and train this stage for longer"
            )
        centres, child = k_means(colours, config.n_children)
        centres, child = centres.to(colours.device), child.to(colours.device)
        confusion = self.confusion(masks, child)
        order = self.ordered(confusion, centres)
        clusters.centres.copy_(centres[order])
        parent = self.parents
        sizes, confusion = child.bincount(minlength=config.n_children) / n, confusion[order][:, order]
        return {
            "sorted": n,
            "empty": 1 - n / found,
            "smallest": float(sizes.min()),
            "largest": float(sizes.max()),
            "told": float(confusion.diagonal().mean()),
            "siblings": float((confusion * (parent[:, None] == parent)).sum(1).mean()),
        }

    @torch.enable_grad()
    def confusion(self, masks: Tensor, child: Tensor) -> Tensor:
        """How the silhouettes (N, 1, H, W) uint8 of each child are read by what learnt to tell children by silhouettes.

        (N_c, N_c); half of the pictures are learnt from and the other half read. Each row sums to 1, or is 0 if the second
        half has no picture of that child.
        """
        config, half = self.config, len(masks) // 2
        widths = config.reader_widths or config.object_widths
        reader = ObjectDiscriminator(
            config.image_size, widths, widths[-1], (config.n_children,), channels=1, judges=False, norm="batch"
        ).to(masks.device)
        optimizer = torch.optim.Adam(reader.parameters(), lr=2e-3, betas=config.betas)
        for _ in range(config.confusion_steps):
            chosen = torch.randint(half, (config.confusion_batch,), device=masks.device)
            (logits,) = reader.read(moved(masks[chosen].float() / 255))
            update(optimizer, F.cross_entropy(logits, child[chosen]))
        reader.eval()
        read = torch.zeros(config.n_children, config.n_children, device=masks.device)
        with torch.no_grad():
            for start in range(half, len(masks), config.confusion_batch):
                part = slice(start, start + config.confusion_batch)
                (logits,) = reader.read(masks[part].float() / 255)
                read.index_add_(0, child[part], logits.float().softmax(1))
        return read / read.sum(1, keepdim=True).clamp(min=1e-6)

    def ordered(self, confusion: Tensor, centres: Tensor, n: int = 1000) -> Tensor:
        """Which cluster is which child (N_c,): children of one parent are confused with each other, and parents and children
        are called what the generator calls them in as many of n generated pictures as can be."""
        config = self.config
        parent_of = self.parents.cpu()
        sizes = parent_of.bincount(minlength=config.n_parents)
        family = torch.from_numpy(families(confusion.cpu().double().numpy(), sizes.tolist()))

        agreement = torch.zeros(config.n_children, config.n_children)  # child by cluster, in generated pictures
        for _ in range(0, n, 100):
            codes = self.sample_codes(100)
            image = self.generator(codes).image
            nearest = torch.cdist(self.clusters.colours(image, self.clusters.cut_out(image)), centres).argmin(1)
            agreement.index_put_((codes.index("c").cpu(), nearest.cpu()), torch.ones(100), accumulate=True)
        by_parent = torch.zeros(config.n_parents, config.n_children).index_add_(0, parent_of, agreement)
        by_family = torch.zeros(config.n_parents, config.n_parents).index_add_(1, family, by_parent)
        by_family[sizes[:, None] != sizes] = -1  # a parent takes a family of its size
        order = torch.empty(config.n_children, dtype=torch.int64)
        for parent, taken in enumerate(in_order(by_family.numpy())):
            own, clusters = (parent_of == parent).nonzero()[:, 0], (family == int(taken)).nonzero()[:, 0]
            order[own] = clusters[in_order(agreement[own][:, clusters].numpy())]
        return order
