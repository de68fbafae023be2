"""ComGAN and DS-ComGAN: a picture as foreground, background and mask, without boxes and without labels.

Ding, Guo, Zhu, Wu & Wang, "ComGAN: Unsupervised Disentanglement and Segmentation via Image Composition", NeurIPS 2022.

    x = F M + B (1 - M)           Assumption 1: all that is known about a picture
    dL/dM = dL/dx (F - B)         what the mask learns from, through the slope of its sigmoid, M (1 - M)

Such models fall into two trivial solutions, a mask of ones or of zeros, where one network draws everything. Lemma 1: the
gradient on the mask vanishes there and only there. The cure is where features are shared, see `FAMILIES`.

    ComGAN      phi(z) -> F, M, B                     trained with its gradients watched, and two families to compare with
    DS-ComGAN   phi(z) -> X_z, M; with f -> F, with b -> B      f and b must be readable off F M and B (1 - M)
    Segmenter   S(x) -> M                             learns from DS-ComGAN's pictures and masks, then segments real pictures

The file follows the paper: config, families, losses and the watch, ComGAN; DS-ComGAN; the segmentation module. Defaults are the
published constants at 128 x 128; the fields under "departures" are off by default.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.codes import one_hot
from tutorial_lib.data.pictures import as_pictures
from tutorial_lib.layers import (
    ResidualBlock,
    Tanh,
    UNet,
    backward,
    channels_last,
    conv3x3,
    frozen,
    in_full,
    orthogonal_init,
    quick_to_draw,
    same_block,
    up_block,
    update,
)
from tutorial_lib.methods.finegan import (
    CodeBlock,
    JudgeConfig,
    ObjectDiscriminator,
    Stem,
    binary_entropy,
    checked,
    generator_loss,
    judge_loss,
)

# ---- config ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ComGANConfig(JudgeConfig):
    """Constants of ComGAN, and of the two families it is compared with; the defaults are the published ones."""

    family: Literal["pi1", "pi2", "comgan"] = "comgan"
    image_size: int = 128
    z_dim: int = 100
    # Channels of phi at 4 x 4 and after each up block; of the heads; residual blocks in them.
    width: int = 512
    widths: tuple[int, ...] = (256, 128, 64, 32, 16)
    head_width: int = 32
    mask_residuals: int = 0
    picture_residuals: int = 3
    # The discriminator: channels of its stride-2 convolutions, and of its head.
    critic_widths: tuple[int, ...] = (32, 64, 128, 256, 256)
    critic_head: int = 256
    # Training.
    learning_rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    binary_weight: float = 1.0  # beta, of the mask's binary entropy; 0: no regulariser

    # ---- departures, besides those of `JudgeConfig` -----------------------------------------------------------------------
    critic_bias: bool = False  # the discriminator's convolutions have biases, see `ObjectDiscriminator`

    def __post_init__(self):
        super().__post_init__()
        if self.family not in FAMILIES:
            raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {self.family!r}")
        if 4 * 2 ** len(self.widths) != self.image_size:
            raise ValueError(f"widths needs log2(image_size / 4) entries: image_size {self.image_size}, got {self.widths}")
        if self.image_size >> len(self.critic_widths) < 1:
            raise ValueError(f"critic_widths halves a picture of {self.image_size} pixels {len(self.critic_widths)} times")


# ---- the three families ---------------------------------------------------------------------------------------------------

# The features that each head stands on. This table is all that the families differ in.
FAMILIES = {
    #          mask, foreground, background
    "pi1": ("phi", "phi", "phi_b"),  # B(phi(z)) = B(z): FineGAN, Labels4Free
    "pi2": ("phi", "phi_f", "phi_b"),  # phi(z) = z: PerturbGAN, CGN
    "comgan": ("phi", "phi", "phi"),
}


@dataclass
class Composition:
    """Foreground F and background B (B, 3, H, W) in [-1, 1], mask M (B, 1, H, W) in [0, 1], and the `image` they make."""

    foreground: Tensor
    mask: Tensor
    background: Tensor
    feature: Tensor  # phi(z), as the mask sees it
    direct: Tensor | None = None  # X_z, DS-ComGAN's picture straight from phi
    image: Tensor = field(init=False)

    def __post_init__(self):
        # x = F M + B (1 - M)
        self.image = self.foreground * self.mask + self.background * (1 - self.mask)


class Phi(Stem):
    """phi(z): FineGAN's stem without a code. (B, z_dim) -> (B, widths[-1], H, W)."""

    def __init__(self, config: ComGANConfig):
        super().__init__(config.z_dim, config.width, config.widths)

    def forward(self, z: Tensor) -> Tensor:
        return self.up(self.linear(z).unflatten(1, (-1, 4, 4)))


def head(channels: int, width: int, residuals: int, out_channels: int, image_channels: int) -> nn.Sequential:
    """Features -> what a sigmoid makes a mask (one image channel) and a tanh a picture (three)."""
    residual = (ResidualBlock(width) for _ in range(residuals))
    last = conv3x3(out_channels, image_channels)
    return nn.Sequential(same_block(channels, width), *residual, same_block(width, out_channels), last)


class Generator(nn.Module):
    """Three heads, on as many phi as the family has."""

    def __init__(self, config: ComGANConfig):
        super().__init__()
        channels, width = config.widths[-1], config.head_width
        self.stands_on = FAMILIES[config.family]
        self.phi = nn.ModuleDict({name: Phi(config) for name in dict.fromkeys(self.stands_on)})
        self.mask = head(channels, width, config.mask_residuals, channels, 1)
        self.foreground = head(channels, width, config.picture_residuals, channels, 3)
        self.background = head(channels, width, config.picture_residuals, channels, 3)
        orthogonal_init(self)

    def forward(self, z: Tensor) -> Composition:
        features = {name: phi(z) for name, phi in self.phi.items()}
        for_mask, for_foreground, for_background = (features[name] for name in self.stands_on)
        return Composition(
            foreground=in_full(self.foreground(for_foreground)).tanh(),
            mask=in_full(self.mask(for_mask)).sigmoid(),
            background=in_full(self.background(for_background)).tanh(),
            feature=for_mask,
        )


def discriminator(config: ComGANConfig, channels: int = 3) -> ObjectDiscriminator:
    """D: FineGAN's D_c, half as wide. It only judges, so the layers that would read a code are taken out."""
    network = ObjectDiscriminator(
        config.image_size, config.critic_widths, config.critic_head, (), judges=True,
        norm=config.judge_norm, biased=config.critic_bias, channels=channels,
    )  # fmt: skip
    del network.code_features
    return network


# ---- the watch ------------------------------------------------------------------------------------------------------------

TRIVIAL = 0.02  # masks whose mean is closer than this to 0 or 1, or whose spread over the image is smaller


def is_trivial(mask: Tensor) -> Tensor:
    """Which masks (B, 1, H, W) are trivial: next to nothing, next to everything, or nothing that varies. (B,) bool."""
    mean, spread = mask.float().mean((1, 2, 3)), mask.float().flatten(1).std(1, correction=0)
    return (mean < TRIVIAL) | (mean > 1 - TRIVIAL) | (spread < TRIVIAL)


@torch.no_grad()
def mask_watch(drawn: Composition) -> dict[str, Tensor]:
    """What the masks look like, and the two factors that make their gradient small; means over the batch.

    mask_mean and mask_spread (standard deviation over the image), trivial (share of `is_trivial`), difference (mean |F - B|,
    0 to 2) and slope (mean of the sigmoid's slope M (1 - M), 0 to 1/4).
    """
    mask = drawn.mask.float()
    return {
        "mask_mean": mask.mean(),
        "mask_spread": mask.flatten(1).std(1, correction=0).mean(),
        "trivial": is_trivial(mask).float().mean(),
        "difference": (drawn.foreground.float() - drawn.background.float()).abs().mean(),
        "slope": (mask * (1 - mask)).mean(),
    }


def gradient_watch(drawn: Composition, generator: nn.Module) -> dict[str, Tensor]:
    """Norms of the gradients that a backward pass has left on M (with `retain_grad`), the mask head and the mask's phi.

    grad_mask: the norm of dL_i/dM_i, L_i the loss of picture i alone (L is the mean over the batch), averaged over pictures;
    grad_mask_head and grad_phi: of dL/d(parameters). What phi learns through F and B, where they share it, counts in.
    Of several processes each watches its own share of the batch.
    """
    each = drawn.mask.grad.float().flatten(1).norm(dim=1)  # (B,)
    parts = {"grad_mask_head": generator.mask, "grad_phi": generator.phi["phi"]}
    norms = {name: nn.utils.get_total_norm([p.grad for p in part.parameters()]) for name, part in parts.items()}
    return {"grad_mask": len(each) * each.mean(), **norms}


# ---- ComGAN ---------------------------------------------------------------------------------------------------------------


class ComGAN(nn.Module):
    """One of the three families, its discriminator and its training step. A batch needs `image` and nothing else."""

    name = "comgan"
    averaged = ("generator",)

    def __init__(self, config: ComGANConfig):
        super().__init__()
        self.config = config
        self.generator, self.discriminator = Generator(config), discriminator(config)
        self.optimizers = {
            name: torch.optim.Adam(getattr(self, name).parameters(), lr=config.learning_rate, betas=config.betas)
            for name in ("discriminator", "generator")
        }
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def sample_codes(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """z (n, z_dim) from N(0, I)."""
        return _normal(n, self.config.z_dim, generator, self.step.device)

    def generate(self, z: Tensor) -> Composition:
        """The pictures that z (B, z_dim) describes, with their layers."""
        return self.generator(z)

    def sample(self, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Random z and their pictures (n, 3, H, W)."""
        z = self.sample_codes(n, generator=generator)
        return z, self.generate(z).image

    def training_step(self, batch: dict[str, Tensor], z: Tensor | None = None) -> dict[str, Tensor]:
        """One update of D and one of the generator; returns the losses, `mask_watch` and `gradient_watch`.

        z: the codes to use instead of drawing them. Raises ValueError for pictures of another size than the config's.
        """
        config, image = self.config, checked(batch["image"], self.config.image_size)
        fake = self.generator(self.sample_codes(len(image)) if z is None else z)

        # max over D: the real picture -> 1, the composed one -> 0
        d_loss = judge_loss(config, self.step, self.discriminator, image, [fake.image])
        update(self.optimizers["discriminator"], d_loss)

        # min over phi, F, B, M: the composed picture -> 1. Its gradients are watched before the regulariser adds its own,
        # which would hide them.
        self.optimizers["generator"].zero_grad(set_to_none=True)
        fake.mask.retain_grad()
        with frozen(self.discriminator):
            g_loss = generator_loss(self.discriminator.judge(fake.image), config.judge_hinge)
            backward(g_loss, retain_graph=config.binary_weight > 0)
        losses = {"d": d_loss.detach(), "g": g_loss.detach(), **gradient_watch(fake, self.generator), **mask_watch(fake)}

        # min over phi, M: beta L_binary
        if config.binary_weight:
            binary = config.binary_weight * binary_entropy(fake.mask)
            backward(binary)
            losses["binary"] = binary.detach()
        self.optimizers["generator"].step()
        self.step += 1
        return losses


def _normal(n: int, length: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    source = generator.device if generator is not None else device
    return torch.randn(n, length, generator=generator, device=source).to(device)


# ---- DS-ComGAN ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DSComGANConfig(ComGANConfig):
    """Constants of DS-ComGAN. Ablations: direct_image False; family "pi2", which shares no phi; and where it has one, without
    the binary regulariser."""

    head_width: int = 128
    mask_residuals: int = 1
    picture_residuals: int = 2
    n_foregrounds: int = 200  # values of f
    n_backgrounds: int = 200  # values of b
    passed_widths: tuple[int, int] = (32, 16)  # channels that the two scales of phi before the last are passed on with
    exact_planes: bool = True
    z_scale: float = 4.0  # as published; a linear layer and BatchNorm come next, which undo it
    direct_image: bool = True  # X_z
    # D_f and D_b, which only read a code: channels of their stride-2 convolutions, and of their heads.
    reader_widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    reader_head: int = 512
    information_weight: float = 1.0

    # ---- departures -------------------------------------------------------------------------------------------------------
    tie_background: bool = True  # b = f in training, as published; otherwise b is drawn on its own
    # ComGAN's regulariser of the mask. Neither the slides' loss of DS-ComGAN nor its public code has it.
    binary_weight: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if len(self.widths) < 3:
            raise ValueError(f"widths: phi passes two scales before the last on, needs at least 3 entries, got {self.widths}")
        if self.image_size >> len(self.reader_widths) < 1:
            raise ValueError(f"reader_widths halves a picture of {self.image_size} pixels {len(self.reader_widths)} times")
        if self.tie_background and self.n_foregrounds != self.n_backgrounds:
            raise ValueError(f"b = f needs n_foregrounds = n_backgrounds, got {self.n_foregrounds} and {self.n_backgrounds}")


@dataclass
class LayerCodes:
    """Codes of B pictures: z (B, z_dim) moves the mask, f (B, N_f) the foreground, b (B, N_b) the background.

    f and b are one-hot or soft (rows sum to 1). `dataclasses.replace(codes, b=other.b)` mixes.
    """

    z: Tensor
    f: Tensor
    b: Tensor

    @classmethod
    def from_indices(cls, z: Tensor, f: Tensor, b: Tensor, sizes: tuple[int, int]) -> LayerCodes:
        """Codes from class indices (B,); sizes are (N_f, N_b). Raises ValueError for an index out of range."""
        for name, index, n in zip("fb", (f, b), sizes, strict=True):
            if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < n:
                raise ValueError(f"{name} must lie in 0 … {n - 1}, got {int(index.min())} … {int(index.max())}")
        return cls(z, *one_hot(z, (f, b), sizes))

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows) -> LayerCodes:
        return LayerCodes(self.z[rows], self.f[rows], self.b[rows])

    def to(self, device) -> LayerCodes:
        return LayerCodes(self.z.to(device), self.f.to(device), self.b.to(device))

    def index(self, name: str) -> Tensor:
        """The most probable class (B,) of f or b."""
        return getattr(self, name).argmax(1)


class GlobalPhi(Phi):
    """phi(z), and the global features: its last three scales, side by side at the picture's size."""

    def __init__(self, config: DSComGANConfig):
        super().__init__(config)
        (coarse, middle), (a, b) = config.widths[-3:-1], config.passed_widths
        self.coarse = nn.Sequential(nn.Upsample(scale_factor=2), up_block(coarse, a))
        self.middle = up_block(middle, b)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        scales = [self.linear(z).unflatten(1, (-1, 4, 4))]
        for up in self.up:
            scales.append(up(scales[-1]))
        *_, coarse, middle, feature = scales
        joined = torch.cat([feature, self.middle(middle), self.coarse(coarse)], 1)  # (B, 16 + 16 + 32, H, W)
        return feature, channels_last(joined) if quick_to_draw(self, joined) else joined  # three heads stand on them


class CodedHead(nn.Module):
    """Global features and a code, as planes -> a picture in [-1, 1]."""

    def __init__(self, channels: int, code_dim: int, config: DSComGANConfig):
        super().__init__()
        width, out = config.head_width, config.widths[-1]
        self.code = CodeBlock(channels, code_dim, width, config.exact_planes)
        self.residual = nn.Sequential(*(ResidualBlock(width) for _ in range(config.picture_residuals)))
        self.picture = nn.Sequential(same_block(width, out), conv3x3(out, 3), Tanh())

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        return self.picture(self.residual(self.code(features, code)))


class DSGenerator(nn.Module):
    """Four heads: X_z and the mask see z only, the foreground f as well, the background b as well."""

    def __init__(self, config: DSComGANConfig):
        super().__init__()
        own = config.widths[-1]
        channels = own + sum(config.passed_widths)
        self.stands_on, self.z_scale = FAMILIES[config.family], config.z_scale
        self.phi = nn.ModuleDict({name: GlobalPhi(config) for name in dict.fromkeys(self.stands_on)})
        self.direct = nn.Sequential(conv3x3(own, 3), Tanh()) if config.direct_image else None
        self.mask = head(channels, config.head_width, config.mask_residuals, own, 1)
        self.foreground = CodedHead(channels, config.n_foregrounds, config)
        self.background = CodedHead(channels, config.n_backgrounds, config)
        orthogonal_init(self)

    def forward(self, codes: LayerCodes) -> Composition:
        features = {name: phi(self.z_scale * codes.z) for name, phi in self.phi.items()}
        (own, for_mask), (_, for_foreground), (_, for_background) = (features[name] for name in self.stands_on)
        return Composition(
            foreground=self.foreground(for_foreground, codes.f),
            mask=in_full(self.mask(for_mask)).sigmoid(),
            background=self.background(for_background, codes.b),
            feature=own,
            direct=None if self.direct is None else self.direct(own),
        )


class DSComGAN(nn.Module):
    """DS-ComGAN's disentanglement module. A batch needs `image` and nothing else."""

    name = "ds_comgan"
    averaged = ("generator",)

    def __init__(self, config: DSComGANConfig):
        super().__init__()
        self.config = config

        def reader(n: int) -> ObjectDiscriminator:
            sizes = config.image_size, config.reader_widths, config.reader_head
            return ObjectDiscriminator(*sizes, (n,), judges=False, norm=config.reader_norm)

        self.generator, self.discriminator = DSGenerator(config), discriminator(config)
        self.foreground_reader, self.background_reader = reader(config.n_foregrounds), reader(config.n_backgrounds)  # D_f, D_b
        together = nn.ModuleList([self.generator, self.foreground_reader, self.background_reader]).parameters()
        self.optimizers = {
            name: torch.optim.Adam(parameters, lr=config.learning_rate, betas=config.betas)
            for name, parameters in (("discriminator", self.discriminator.parameters()), ("generator", together))
        }
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @property
    def code_sizes(self) -> tuple[int, int]:
        """(N_f, N_b)."""
        return self.config.n_foregrounds, self.config.n_backgrounds

    def sample_codes(self, n: int, *, tied: bool = True, generator: torch.Generator | None = None) -> LayerCodes:
        """Draw codes: z from N(0, I), f and b uniformly; tied: b = f if the config says so, as in training."""
        device = self.step.device
        source = generator.device if generator is not None else device
        z = _normal(n, self.config.z_dim, generator, device)
        f, b = (torch.randint(size, (n,), generator=generator, device=source).to(device) for size in self.code_sizes)
        b = f if tied and self.config.tie_background else b
        return LayerCodes(z, *one_hot(z, (f, b), self.code_sizes))

    def generate(self, codes: LayerCodes) -> Composition:
        """The pictures that the codes describe, with their layers."""
        return self.generator(codes)

    def sample(self, n: int, *, tied: bool = False, generator: torch.Generator | None = None) -> tuple[LayerCodes, Tensor]:
        """Random codes and their pictures (n, 3, H, W)."""
        codes = self.sample_codes(n, tied=tied, generator=generator)
        return codes, self.generate(codes).image

    def training_step(self, batch: dict[str, Tensor], codes: LayerCodes | None = None) -> dict[str, Tensor]:
        """One update of D, and one of the generator with D_f and D_b; returns the losses and `mask_watch`.

        codes: those to use instead of drawing them. Raises ValueError for pictures of another size than the config's.
        """
        config, image = self.config, checked(batch["image"], self.config.image_size)
        codes = self.sample_codes(len(image)) if codes is None else codes
        fake = self.generator(codes)
        pictures = {"image": fake.image} | ({} if fake.direct is None else {"direct": fake.direct})

        # max over D: the real picture -> 1, the composed one and X_z -> 0
        d_loss = judge_loss(config, self.step, self.discriminator, image, [*pictures.values()])
        update(self.optimizers["discriminator"], d_loss)

        with frozen(self.discriminator):
            # min over G: the composed picture and X_z -> 1
            judged = {name: self.discriminator.judge(picture) for name, picture in pictures.items()}
            losses = {f"g_{name}": generator_loss(logits, config.judge_hinge) for name, logits in judged.items()}
            losses |= self.information_losses(fake, codes)
            if config.binary_weight:
                losses["binary"] = config.binary_weight * binary_entropy(fake.mask)
            update(self.optimizers["generator"], sum(losses.values()))
        self.step += 1
        return {"d": d_loss.detach()} | {name: loss.detach() for name, loss in losses.items()} | mask_watch(fake)

    def information_losses(self, fake: Composition, codes: LayerCodes) -> dict[str, Tensor]:
        """L_info: f must be readable off F M, by D_f, and b off B (1 - M), by D_b."""
        (f,) = self.foreground_reader.read(fake.foreground * fake.mask)
        (b,) = self.background_reader.read(fake.background * (1 - fake.mask))
        weight = self.config.information_weight
        return {
            "f_information": weight * F.cross_entropy(f, codes.f),
            "b_information": weight * F.cross_entropy(b, codes.b),
        }


# ---- segmentation ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SegmenterConfig(DSComGANConfig):
    """Constants of the segmentation module, after those of the generator it learns from."""

    unet_widths: tuple[int, ...] = (64, 128, 256, 512, 1024)  # channels of S at full size and after each halving
    consistency_weight: float = 2.0  # lambda

    def __post_init__(self):
        super().__post_init__()
        if self.image_size % 2 ** (len(self.unet_widths) - 1):
            raise ValueError(f"unet_widths halves a picture of {self.image_size} pixels {len(self.unet_widths) - 1} times")


class Segmenter(DSComGAN):
    """DS-ComGAN's segmentation module: a trained generator, frozen, the U-Net S and a discriminator of masks.

    A batch needs `image` and nothing else. Which side of a mask is the object is not known, to S no more than to G.
    """

    name = "ds_comgan_segmenter"
    averaged = ("unet",)
    needs = ("generator",)  # of the checkpoint that a run starts from

    def __init__(self, config: SegmenterConfig):
        super().__init__(config)
        self.generator.requires_grad_(False)
        del self.discriminator, self.foreground_reader, self.background_reader  # only the disentanglement module trains
        self.unet, self.mask_discriminator = UNet(config.unet_widths), discriminator(config, channels=1)  # S, D_m
        self.optimizers = {
            name: torch.optim.Adam(getattr(self, name).parameters(), lr=config.learning_rate, betas=config.betas)
            for name in ("mask_discriminator", "unet")
        }

    def train(self, mode: bool = True) -> Segmenter:
        """The generator is finished: it stays in eval mode."""
        super().train(mode)
        self.generator.eval()
        return self

    @torch.no_grad()
    def segment(self, pictures: Any, *, mirrored: bool = True) -> Tensor:
        """Masks (B, 1, H, W) in [0, 1] of real pictures: anything `data.pictures.as_pictures` takes.

        mirrored: the mean of what S finds in a picture and in its mirror image. False: S once, as published.
        """
        images = as_pictures(pictures, self.config.image_size).to(self.step.device)
        masks = self.unet(images)
        return (masks + self.unet(images.flip(-1)).flip(-1)) / 2 if mirrored else masks

    def training_step(self, batch: dict[str, Tensor], codes: LayerCodes | None = None) -> dict[str, Tensor]:
        """One update of D_m and one of S; returns the losses. Arguments as for the disentanglement module."""
        config, image = self.config, checked(batch["image"], self.config.image_size)
        with torch.no_grad():
            fake = self.generator(self.sample_codes(len(image)) if codes is None else codes)
        of_fake, of_real = self.unet(fake.image), self.unet(image)

        # max over D_m: the generator's mask M -> 1, S(x fake) and S(x real) -> 0
        d_loss = judge_loss(config, self.step, self.mask_discriminator, fake.mask, [of_fake, of_real])
        update(self.optimizers["mask_discriminator"], d_loss)

        with frozen(self.mask_discriminator):
            # min over S: S(x fake) and S(x real) -> 1, and lambda L_cons = lambda |S(x fake) - M|
            losses = {
                "s_fake": generator_loss(self.mask_discriminator.judge(of_fake), config.judge_hinge),
                "s_real": generator_loss(self.mask_discriminator.judge(of_real), config.judge_hinge),
                "consistency": config.consistency_weight * F.l1_loss(of_fake, fake.mask),
            }
            update(self.optimizers["unet"], sum(losses.values()))
        self.step += 1
        return {"d_mask": d_loss.detach()} | {name: loss.detach() for name, loss in losses.items()}
