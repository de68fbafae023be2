"""MixNMatch: the four codes of a real picture, and a new picture from the codes of several.

Li, Singh, Ojha & Lee, "MixNMatch: Multifactor Disentanglement and Encoding for Conditional Image Generation", CVPR 2020.

    code mode     four encoders E read z, b, p and c off a picture; FineGAN's generator G draws from them
    feature mode  S reads the parent feature phi(p, z) off a picture, pixel by pixel; G draws from S(x), b and c

The file follows the paper: config, encoders, image-code discriminators, losses and training step of code mode (sections 3.2
and 3.3), then the extractor S, its losses and its training step (section 3.4). `CodeMode` is a FineGAN with more networks and
losses, and learns from sorted pictures as FineGAN does, if the config says so; `MixNMatch` is a trained `CodeMode` with S.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tutorial_lib.codes import NAMES, Codes
from tutorial_lib.data.pictures import as_pictures
from tutorial_lib.layers import (
    Conv,
    ResidualBlock,
    add_spectral_norm,
    conv3x3,
    frozen,
    gradient_penalty,
    in_full,
    keeping_statistics,
    leaky_relu,
    orthogonal_init,
    same_block,
    update,
)
from tutorial_lib.methods.finegan import FineGAN, FineGANConfig, Stages, checked, critic_loss, generator_loss, moved

# ---- config ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CodeModeConfig(FineGANConfig):
    """Constants of code mode; the defaults are the published ones for birds at 128 x 128."""

    # Encoders: channels of the stride-2 convolutions, then of the 3x3 convolutions; z lies within ± z_range.
    encoder_widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    encoder_head: int = 512
    z_range: float = 4.0
    # Image-code discriminators: channels of the stride-2 convolutions; length of what an image and a code become.
    pair_widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    pair_head: int = 512
    code_noise: tuple[float, float, float] = (0.5, 0.3, 0.3)  # standard deviation before each linear layer of a code
    gradient_penalty: float = 10.0
    # Weights of predicting z, b, p and c back from generated pictures, and whether those have p = p(c) and b = b(c).
    reprediction_weights: tuple[float, float, float, float] = (5.0, 5.0, 10.0, 10.0)
    reprediction: Literal["untied", "tied", "none"] = "untied"
    # False: no image-code discriminators. The codes of a picture go straight into G, which should redraw it (L1).
    paired: bool = True
    reconstruction_weight: float = 10.0  # of that L1; the paper names none

    # ---- departure --------------------------------------------------------------------------------------------------------
    redraw_weight: float = 0.0  # of |x - G(E(x))| beside the paired loss; only the encoders learn from it
    silhouette_weight: float = 0.0  # of the Dice loss of P_m(E(x)) and the real object's mask; encoders and G learn from it
    # Of the Dice loss by which a silhouette of any shape moves as the real object does whose z it is drawn from.
    pose_weight: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        for name in ("encoder_widths", "pair_widths"):
            if self.image_size >> len(getattr(self, name)) < 1:
                raise ValueError(f"{name} halves a picture of {self.image_size} pixels {len(getattr(self, name))} times")
        if self.reprediction not in ("untied", "tied", "none"):
            raise ValueError(f"reprediction must be 'untied', 'tied' or 'none', got {self.reprediction!r}")
        if len(self.reprediction_weights) != 4:
            raise ValueError(f"reprediction_weights are those of z, b, p and c, got {self.reprediction_weights}")
        if (self.silhouette_weight or self.pose_weight) and self.segmenter_widths is None:
            raise ValueError("silhouette_weight and pose_weight need segmenter_widths: real objects are cut out")
        if self.hard_negatives_from is not None:
            raise ValueError("hard_negatives_from: the last steps of FineGAN's training, which code mode has none of")
        if not self.paired and self.reprediction == "none":
            raise ValueError("without paired discriminators and without reprediction nothing gives the codes a meaning")


@dataclass(frozen=True)
class MixNMatchConfig(CodeModeConfig):
    """Constants of both modes; the defaults are the published ones."""

    # S: channels at full size, after each stride-2 convolution, and after each transposed one but the last.
    extractor_same: tuple[int, int] = (32, 32)
    extractor_down: tuple[int, ...] = (32, 64, 128, 256, 512, 512)
    extractor_up: tuple[int, ...] = (256, 512, 256, 128, 64)
    feature_critic: tuple[tuple[int, int], ...] = ((32, 2), (64, 2), (128, 1))  # (channels, stride) of its 4x4 convolutions
    feature_size: int = 126  # features are resized to this for the critic
    soft_parent_every: int = 5  # one batch in so many has a random soft p
    feature_l1_weight: float = 1.0  # of |S(G(y)) - phi|
    feature_adversarial_weight: float = 1.0
    feature_critic_rate: float = 2e-5  # of its patch discriminator

    # ---- departure --------------------------------------------------------------------------------------------------------
    feature_redraw_weight: float = 0.0  # of |x - G(S(x), E(x))|, background and texture as E reads them; only S learns from it

    def __post_init__(self):
        super().__post_init__()
        if len(self.extractor_up) != len(self.extractor_down) - 1:
            raise ValueError(
                f"extractor_up needs one entry less than extractor_down: {len(self.extractor_up)}, {len(self.extractor_down)}"
            )
        if self.image_size >> len(self.extractor_down) < 1:
            raise ValueError(f"extractor_down halves a picture of {self.image_size} pixels {len(self.extractor_down)} times")
        if not self.feature_l1_weight and not self.feature_adversarial_weight:
            raise ValueError("S needs one of feature_l1_weight and feature_adversarial_weight")


# ---- encoders -------------------------------------------------------------------------------------------------------------


class Encoder(nn.Module):
    """A picture -> what one code is made of: logits of b, p or c, or z itself, which lies within ± `bound`."""

    def __init__(self, config: CodeModeConfig, code_dim: int, bound: float | None = None):
        super().__init__()
        self.bound = bound
        layers, channels = [], 3
        for i, width in enumerate(config.encoder_widths):
            layers += [Conv(channels, width, 4, 2, 1, bias=False)]
            layers += [nn.BatchNorm2d(width)] if i else []
            layers += [leaky_relu()]
            channels = width
        for _ in range(2):
            width = config.encoder_head
            layers += [conv3x3(channels, width), nn.BatchNorm2d(width), leaky_relu()]
            channels = width
        self.trunk = nn.Sequential(*layers)
        self.head = Conv(channels, code_dim, config.image_size >> len(config.encoder_widths))
        orthogonal_init(self)

    def features(self, images: Tensor) -> Tensor:
        """The penultimate features, flat: (B, n). What pictures are clustered by."""
        return self.trunk(images).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.of_each(images)[0]

    def of_each(self, *batches: Tensor) -> list[Tensor]:
        """What it reads off each of several batches, of the same size.

        All go through a layer together, which takes its many weights once; BatchNorm normalises each batch by itself.
        """
        n, x = len(batches), torch.cat(batches)
        for layer in (*self.trunk, self.head):
            normalises = isinstance(layer, _BatchNorm)  # of one process or, in any of two ways, of several
            x = torch.cat([layer(batch) for batch in x.chunk(n)]) if normalises else layer(x)
        code = x.flatten(1)
        return (code if self.bound is None else self.bound * in_full(code).tanh()).chunk(n)


# ---- image-code discriminators --------------------------------------------------------------------------------------------


class PairDiscriminator(nn.Module):
    """Is this pair (picture, code) one of (real x, E(x)), high, or of (G(y), y), low?

    The codes that are sampled are one-hot and those that are predicted are not; noise on the code hides that.
    """

    def __init__(self, config: CodeModeConfig, code_dim: int):
        super().__init__()
        layers, channels, width = [], 3, config.pair_head
        for out in config.pair_widths:
            layers += [Conv(channels, out, 4, 2, 1), leaky_relu()]
            channels = out
        layers += [Conv(channels, width, config.image_size >> len(config.pair_widths)), leaky_relu()]
        self.image = nn.Sequential(*layers, nn.Flatten())
        self.noise = config.code_noise
        self.code = nn.ModuleList(nn.Linear(code_dim if i == 0 else width, width) for i in range(len(self.noise)))
        self.joint = nn.Sequential(nn.Linear(2 * width, 2 * width), leaky_relu(), nn.Linear(2 * width, 1))
        orthogonal_init(self)

    def forward(self, images: Tensor, code: Tensor) -> Tensor:
        """Scores (B,)."""
        for std, linear in zip(self.noise, self.code, strict=True):
            code = F.leaky_relu(linear(code + std * torch.randn_like(code)), 0.2)
        return self.joint(torch.cat([self.image(images), code], 1)).flatten()

    def of_both(self, real: tuple[Tensor, Tensor], generated: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Scores (B,) of real and of generated pairs, judged together: what its weights cost, they cost once."""
        images, codes = (torch.cat(each) for each in zip(real, generated, strict=True))
        return self(images, codes).chunk(2)


# ---- code mode ------------------------------------------------------------------------------------------------------------


# How far objects are moved (`finegan.moved`): about half as far as they differ.
_MOVES = {"turn": 0.3, "shift": 0.15, "zoom": 0.15}


class CodeMode(FineGAN):
    """The first stage: FineGAN, four encoders and four image-code discriminators, trained together.

    A batch is FineGAN's. In eval mode the model encodes, generates and mixes.
    """

    name = "mixnmatch_code"
    averaged = ("generator", "encoders")

    def __init__(self, config: CodeModeConfig):
        super().__init__(config)
        lengths = {"z": config.z_dim, "b": config.n_backgrounds, "p": config.n_parents, "c": config.n_children}
        self.encoders = nn.ModuleDict(
            {name: Encoder(config, n, config.z_range if name == "z" else None) for name, n in lengths.items()}
        )
        self.optimizers["generator"].add_param_group({"params": [*self.encoders.parameters()]})
        if config.paired:
            # One for each code: a single discriminator of all four would see by the ties between them which pair is real.
            self.pairs = nn.ModuleDict({name: PairDiscriminator(config, n) for name, n in lengths.items()})
            self.optimizers["pairs"] = torch.optim.Adam(self.pairs.parameters(), lr=config.learning_rate, betas=config.betas)

    # ---- codes and pictures

    def encode(self, pictures: Any) -> Codes:
        """The codes of real pictures: anything `data.pictures.as_pictures` takes."""
        return self._encode(as_pictures(pictures, self.config.image_size).to(self.step.device))

    def _encode(self, images: Tensor) -> Codes:
        return Codes(*(self._read(name, images) for name in "zbpc"))

    def _read(self, name: str, images: Tensor) -> Tensor:
        return self._code_of(name, self.encoders[name](images))

    @staticmethod
    def _code_of(name: str, read: Tensor) -> Tensor:
        return read.float() if name == "z" else read.float().softmax(1)

    def mix(
        self,
        *,
        background: Any,
        texture: Any,
        shape: Any,
        pose: Any = None,
        mode: Literal["code", "feature"] = "code",
    ) -> Stages:
        """A new picture: the background of one, the texture of another, and so on.

        Each factor comes from pictures (anything `data.pictures.as_pictures` takes), from `Codes`, or is the index of a code,
        or several in an array, tensor or list (pose has none). One picture, or index, goes with any number of others. In
        feature mode shape and pose come together, from the pictures given as `shape`. Raises ValueError if numbers of pictures
        differ, an index is out of range, codes are not this model's, or the mode asks for what the model does not have.
        """
        if mode not in ("code", "feature"):
            raise ValueError(f"mode must be 'code' or 'feature', got {mode!r}")
        sources = {"background": background, "texture": texture}
        if mode == "feature":
            if pose is not None:
                raise ValueError("in feature mode the pose comes with the shape: give shape only, or mode='code'")
            feature = self._feature(shape)
            # The feature takes the place of p and z; the background stage still has its share of z.
            codes = {"shape": feature.new_zeros(1, self.config.n_parents)}
            indexed = _indices(background) is not None
            codes["pose"] = feature.new_zeros(1, self.config.z_dim) if indexed else self._code("pose", background)
        else:
            if pose is None:
                raise ValueError("code mode needs a pose: a picture or Codes")
            feature, codes = None, {}
            sources |= {"shape": shape, "pose": pose}
        codes |= {factor: self._code(factor, source) for factor, source in sources.items()}

        n = max(len(part) for part in (*codes.values(), *([] if feature is None else [feature])))
        codes = Codes(**{NAMES[factor]: _repeated(factor, code, n) for factor, code in codes.items()})
        return self.generator(codes, None if feature is None else _repeated("shape", feature, n))

    def _code(self, factor: str, source: Any) -> Tensor:
        """What a source says about one factor: a code (B, n)."""
        name = NAMES[factor]
        if isinstance(source, Codes):
            return getattr(self.own(source, name), name)
        if (indices := _indices(source)) is None:
            return self._read(name, as_pictures(source, self.config.image_size, factor).to(self.step.device))
        if name == "z":
            raise ValueError("pose: z is continuous and has no index; give a picture or Codes")
        length = dict(zip("bpc", self.code_sizes, strict=True))[name]
        if wrong := [index for index in indices.tolist() if not 0 <= index < length]:
            raise ValueError(f"{factor}: {name} is an index from 0 to {length - 1}, got {wrong[0]}")
        return F.one_hot(indices, length).float().to(self.step.device)

    def _feature(self, source: Any) -> Tensor:
        raise ValueError(
            f"this model ({self.name}) was trained in code mode only: feature mode needs the second stage, load('mixnmatch')"
        )

    # ---- training

    def training_step(self, batch: dict[str, Tensor], codes: Codes | None = None) -> dict[str, Tensor]:
        """One update of D_b, of D_c, of the image-code discriminators, and of G with E, Q_p and Q_c; returns the losses."""
        config, image = self.config, checked(batch["image"], self.config.image_size)
        codes = self.sample_codes(len(image)) if codes is None else codes
        if config.background_first and int(self.step) < config.background_first:
            return self.background_step(batch, codes)
        # A backward pass goes the other way round: the encoders' gradients, the largest, come when G's activations are gone.
        pictures, terms = [image], {}
        if config.reprediction != "none":
            true_codes, drawn = self.draw_for_reprediction(len(image))
            pictures.append(drawn)
        read = {name: encoder.of_each(*pictures) for name, encoder in self.encoders.items()}
        encoded = Codes(*(self._code_of(name, read[name][0]) for name in "zbpc"))
        if config.reprediction != "none":
            terms |= self.reprediction_losses(true_codes, {name: of_each[1] for name, of_each in read.items()})
        fake = self.generator(codes)
        losses = self.update_background_critic(batch, fake.background.detach())
        real_mask, real_child = self.sort(image)
        losses |= self.update_child_discriminator(image, fake.image.detach(), real_child, codes.c)
        if config.paired:
            losses |= self.update_pairs(image, encoded, fake.image, codes)
        terms |= self.finegan_losses(fake, codes, image, real_mask, real_child)
        if config.real_information:
            terms |= self.sorted_losses({name: read[name][0] for name in "pc"}, real_child)
        if config.paired:
            with frozen(self.pairs):
                terms |= self.pair_losses(image, encoded, fake.image, codes)
        else:
            redrawn = self.generator(encoded).image
            terms["reconstruction"] = config.reconstruction_weight * F.l1_loss(redrawn, image)
        if config.redraw_weight:
            with frozen(self.generator):
                terms["redraw"] = config.redraw_weight * F.l1_loss(self.generator(encoded).image, image)
        if config.silhouette_weight:
            terms["silhouette"] = config.silhouette_weight * dice_loss(self.silhouette(encoded), real_mask)
        if config.pose_weight:
            loss = self.pose_loss(image, real_mask, encoded, codes, fake.background.detach())
            terms["pose"] = config.pose_weight * loss
        losses |= self.update_generator(terms)
        self.step += 1
        return losses

    def update_pairs(self, image: Tensor, encoded: Codes, fake: Tensor, codes: Codes) -> dict[str, Tensor]:
        """Eq. 2, the discriminators' side: D(x, E(x)) up, D(G(y), y) down, for each code y of z, b, p, c."""
        distance, penalty = 0.0, 0.0
        for name, discriminator in self.pairs.items():
            real = image, getattr(encoded, name).detach()
            generated = fake.detach(), getattr(codes, name)
            of_real, of_generated = discriminator.of_both(real, generated)
            distance = distance + of_generated.mean() - of_real.mean()
            penalty = penalty + gradient_penalty(discriminator, real, generated)
        update(self.optimizers["pairs"], distance + self.config.gradient_penalty * penalty)
        return {"d_pairs": distance.detach(), "d_pairs_penalty": penalty.detach()}

    def pair_losses(self, image: Tensor, encoded: Codes, fake: Tensor, codes: Codes) -> dict[str, Tensor]:
        """Eq. 2, the other side: E and G make the two kinds of pair indistinguishable."""
        losses = {}
        for name, discriminator in self.pairs.items():
            of_encoder, of_generator = discriminator.of_both((image, getattr(encoded, name)), (fake, getattr(codes, name)))
            losses[f"pair_{name}"] = of_encoder.mean() - of_generator.mean()
        return losses

    @torch.no_grad()
    def draw_for_reprediction(self, n: int) -> tuple[Codes, Tensor]:
        """Codes of combinations that need not exist, and their pictures, from which G does not learn."""
        codes = self.sample_codes(n, tied=self.config.reprediction == "tied")
        return codes, self.generator(codes).image

    def reprediction_losses(self, codes: Codes, read: dict[str, Tensor]) -> dict[str, Tensor]:
        """Eq. 3: what the encoders read off generated pictures should be the codes that these were drawn from."""
        losses = {"re_z": F.l1_loss(read["z"], codes.z)}
        losses |= {f"re_{name}": F.cross_entropy(read[name], getattr(codes, name)) for name in "bpc"}
        weights = dict(zip("zbpc", self.config.reprediction_weights, strict=True))
        return {name: weights[name[-1]] * loss for name, loss in losses.items()}

    def silhouette(self, codes: Codes) -> Tensor:
        """P_m (B, 1, H, W) in [0, 1] of p and the parent's share of z."""
        return self.generator.parent_painter(self.generator.parent_feature(codes))[1]

    def pose_loss(self, image: Tensor, mask: Tensor, encoded: Codes, codes: Codes, background: Tensor) -> Tensor:
        """Real objects, inside their masks, are moved before another background, and E_z reads them again: silhouettes of any
        shape, p of `codes`, should move as they did, or z may mean other poses for other shapes. A picture without an object
        moves nothing."""
        with keeping_statistics(self.generator.parent, self.encoders["z"]):
            with torch.no_grad():
                still = self.silhouette(codes.mix(pose=encoded)) * mask.flatten(1).any(1)[:, None, None, None]
            cut, mask, target = moved(torch.cat([image * mask, mask, still], 1), **_MOVES).split([3, 1, 1], 1)
            z = self._read("z", cut + (1 - mask) * background)
            return dice_loss(self.silhouette(Codes(z, codes.b, codes.p, codes.c)), target)

    def sorted_losses(self, read: dict[str, Tensor], c: Tensor) -> dict[str, Tensor]:
        """E_p and E_c should tell of real pictures what these are sorted into: c one-hot (B, N_c)."""
        config, sorted_into = self.config, {"p": self.parent_of(c), "c": c}
        weights = dict(zip("zbpc", config.reprediction_weights, strict=True))
        return {
            f"sorted_{name}": config.real_information * weights[name] * F.cross_entropy(read[name], code)
            for name, code in sorted_into.items()
        }


def dice_loss(mask: Tensor, true: Tensor) -> Tensor:
    """1 - Dice of masks (B, 1, H, W) in [0, 1], 2 |m t| / (|m| + |t|); mean over the batch."""
    mask, true = mask.float(), true.float()
    both = (mask * true).sum((1, 2, 3))
    return 1 - (2 * both / (mask.sum((1, 2, 3)) + true.sum((1, 2, 3))).clamp(min=1e-6)).mean()


def _indices(source: Any) -> Tensor | None:
    """Indices (B,) of codes, if that is what a source is: a whole number, a list of them, or an array or tensor (), (B,)."""
    several = source if isinstance(source, list | tuple) else [source]
    if several and all(isinstance(one, Integral) and not isinstance(one, bool) for one in several):
        return torch.tensor([int(one) for one in several])
    if isinstance(source, Tensor | np.ndarray) and source.ndim < 2:
        source = torch.as_tensor(source)
        if not source.is_floating_point() and source.dtype != torch.bool:
            return source.reshape(-1).long()
    return None


def _repeated(factor: str, part: Tensor, n: int) -> Tensor:
    if len(part) not in (1, n):
        raise ValueError(f"{factor}: {len(part)} pictures do not go with {n}; give one, or as many as of the others")
    return part.expand(n, *part.shape[1:])


def stitch(stages: Stages, pictures: Any, keep: Literal["background", "object"]) -> Tensor:
    """The mix with a reference's own pixels outside (`keep="background"`) or inside (`"object"`) its mask.

    For mixes in which only texture, or only background, is another than in the pictures (anything `as_pictures` takes).
    """
    if keep not in ("background", "object"):
        raise ValueError(f"keep must be 'background' or 'object', got {keep!r}")
    drawn = stages.mask if keep == "background" else 1 - stages.mask
    pictures = as_pictures(pictures, stages.image.shape[-1], "pictures").to(stages.image.device)
    return stages.image * drawn + pictures * (1 - drawn)


# ---- feature mode ---------------------------------------------------------------------------------------------------------


class FeatureExtractor(nn.Module):
    """S: a U-Net from a picture to the parent feature phi, of phi's size.

    The public code's last step up has no skip; this one has, and one more convolution, which takes it in.
    """

    def __init__(self, config: MixNMatchConfig):
        super().__init__()
        out = config.parent_widths[-1]
        first, second = config.extractor_same
        self.same = nn.Sequential(same_block(3, first), same_block(first, second))
        widths = (second, *config.extractor_down)
        self.down = nn.ModuleList(_down(a, b) for a, b in pairwise(widths))
        self.up, channels = nn.ModuleList(), widths[-1]
        for width, skip in zip((*config.extractor_up, out), reversed(widths[:-1]), strict=True):
            self.up.append(_up(channels, width))
            channels = width + skip
        self.last = nn.Sequential(conv3x3(channels, out), ResidualBlock(out), ResidualBlock(out))
        orthogonal_init(self)

    def forward(self, images: Tensor) -> Tensor:
        levels = [self.same(images)]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels.pop()
        for up in self.up:
            x = torch.cat([up(x), levels.pop()], 1)
        return self.last(x)


def _down(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, 2 * out_channels, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * out_channels), nn.GLU(1)
    )


def _up(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(in_channels, 2 * out_channels, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * out_channels), nn.GLU(1)
    )


class FeatureCritic(nn.Module):
    """Does each patch of features come from phi? phi may not cover all real birds, but it covers their parts."""

    def __init__(self, config: MixNMatchConfig):
        super().__init__()
        self.size = config.feature_size
        layers, channels = [], config.parent_widths[-1]
        for width, stride in config.feature_critic:
            layers += [nn.Conv2d(channels, width, 4, stride), nn.LeakyReLU(0.2)]
            channels = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 4))
        orthogonal_init(self)
        if config.spectral_norm:
            add_spectral_norm(self)

    def forward(self, features: Tensor) -> Tensor:
        """A map of logits (B, cells, cells)."""
        if features.shape[-1] != self.size:
            features = F.interpolate(features, size=(self.size, self.size), mode="bilinear", align_corners=False)
        return self.layers(features)[:, 0]


class MixNMatch(CodeMode):
    """The second stage, and the whole model: generator and encoders of a trained `CodeMode`, frozen, and the extractor S.

    A batch needs `image` only.
    """

    name = "mixnmatch"
    averaged = ("extractor",)
    needs = ("generator", "encoders")  # of the checkpoint that a run starts from

    def __init__(self, config: MixNMatchConfig):
        super().__init__(config)
        for name, module in list(self.named_children()):
            if name not in ("generator", "encoders"):
                delattr(self, name)  # discriminators and readers: only the first stage trains
            module.requires_grad_(False)
        self.extractor, self.feature_critic = FeatureExtractor(config), FeatureCritic(config)
        self.optimizers = {
            name: torch.optim.Adam(getattr(self, name).parameters(), lr=rate, betas=config.betas)
            for name, rate in (("feature_critic", config.feature_critic_rate), ("extractor", config.learning_rate))
        }
        self.train()

    def train(self, mode: bool = True) -> MixNMatch:
        """Generator and encoders are finished: they stay in eval mode."""
        super().train(mode)
        self.generator.eval()
        self.encoders.eval()
        return self

    def _feature(self, source: Any) -> Tensor:
        if _indices(source) is not None:
            raise ValueError("shape: feature mode reads shape and pose off one picture; an index has no pose")
        if isinstance(source, Codes):
            return self.generator.parent_feature(self.own(source, "zp"))
        return self.extractor(as_pictures(source, self.config.image_size, "shape").to(self.step.device))

    def training_step(self, batch: dict[str, Tensor], codes: Codes | None = None) -> dict[str, Tensor]:
        """One update of the patch critic and one of S; returns the losses. Codes are drawn without ties."""
        config, image = self.config, checked(batch["image"], self.config.image_size)
        if codes is None:
            codes = self.sample_codes(len(image), tied=False)
            if int(self.step) % config.soft_parent_every == 0:
                codes.p = torch.randn_like(codes.p).softmax(1)
        with torch.no_grad():
            fake = self.generator(codes)
        read = self.extractor(image)
        losses, terms = {}, {}
        if config.feature_adversarial_weight:
            judged = self.feature_critic(fake.feature), self.feature_critic(read.detach())
            loss = critic_loss(*judged, config.hinge)
            update(self.optimizers["feature_critic"], loss)
            losses["d_feature"] = loss.detach()
            with frozen(self.feature_critic):
                terms["g_feature"] = config.feature_adversarial_weight * generator_loss(self.feature_critic(read), config.hinge)
        if config.feature_l1_weight:
            again = self.extractor(fake.image)
            terms["feature_l1"] = config.feature_l1_weight * F.l1_loss(again, fake.feature)
        if config.feature_redraw_weight:
            redrawn = self.generator(self._encode(image), read).image
            terms["feature_redraw"] = config.feature_redraw_weight * F.l1_loss(redrawn, image)
        update(self.optimizers["extractor"], sum(terms.values()))
        self.step += 1
        return losses | {name: loss.detach() for name, loss in terms.items()}
