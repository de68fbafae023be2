"""Building blocks under the field's names. All work on (B, C, H, W). And what several papers train them with."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrizations import spectral_norm

_as_on_a_gpu = ContextVar("as_on_a_gpu", default=False)


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """In here layers compute on a CPU as they do on a GPU: for counting what a GPU will be asked to do."""
    token = _as_on_a_gpu.set(True)
    try:
        yield
    finally:
        _as_on_a_gpu.reset(token)


def _on_cpu(x: Tensor) -> bool:
    """Whether to compute as is best on a CPU."""
    return x.device.type == "cpu" and not _as_on_a_gpu.get()


def leaky_relu() -> nn.LeakyReLU:
    """LeakyReLU of slope 0.2, in the place of what goes in: neither a convolution nor BatchNorm needs what it gave again."""
    return nn.LeakyReLU(0.2, inplace=True)


def quick_to_draw(layer: nn.Module, x: Tensor) -> bool:
    """Whether a layer in eval mode meets few channels and many pixels, without gradients on a CPU.

    There a convolution takes two thirds of the time with the channels last, and what it makes is in that order again.
    """
    few = x.shape[1] <= 32 and x.shape[2] * x.shape[3] >= 4096
    return few and not layer.training and not torch.is_grad_enabled() and _on_cpu(x)


def _few(pixels: int, weights: int) -> bool:
    """Whether a value that a layer makes comes of many times as many weights as there are pixels: a hundred times, and in
    training, where the weights' gradients are as large once more, thirty."""
    return (30 if torch.is_grad_enabled() else 100) * pixels <= weights


def channels_last(x: Tensor) -> Tensor:
    """The same values in that order."""
    return x.contiguous(memory_format=torch.channels_last)


class Conv(nn.Conv2d):
    """A convolution, computed as one matrix product where it has many weights and meets few pixels.

    In the deepest layers the time goes into the weights, which a CPU's convolution rearranges for each pass; a product of the
    patches, (pixels, weights), takes them as they lie. The same values and gradients, from a half to a third of the time.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, h, w)."""
        if not self.as_product(x):
            return super().forward(channels_last(x) if quick_to_draw(self, x) else x)
        patches = F.unfold(x, self.kernel_size, padding=self.padding, stride=self.stride)  # (B, in k k, h w)
        y = self.weight.flatten(1) @ patches.transpose(0, 1).flatten(1)  # (out, B h w)
        y = y.unflatten(1, (len(x), *self._size(x))).transpose(0, 1).contiguous()
        return y if self.bias is None else y + self.bias[:, None, None]

    def as_product(self, x: Tensor) -> bool:
        """Whether there is one patch in a picture only, or there are few of them, and the convolution is a plain one."""
        if not _on_cpu(x) or (self.groups, self.dilation, self.padding_mode) != (1, (1, 1), "zeros"):
            return False
        # Counted, not looked up: spectral norm makes its weight anew, and a step of its iteration, whenever it is asked for it.
        pixels, weights = math.prod(self._size(x)), self.in_channels * math.prod(self.kernel_size)
        return pixels == 1 or _few(pixels * len(x), weights)

    def _size(self, x: Tensor) -> list[int]:
        """(h, w)."""
        return [
            (side + 2 * padding - kernel) // stride + 1
            for side, padding, kernel, stride in zip(x.shape[2:], self.padding, self.kernel_size, self.stride, strict=True)
        ]


def conv3x3(in_channels: int, out_channels: int, *, bias: bool = False) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return Conv(in_channels, out_channels, 3, padding=1, bias=bias)


class UpConv(nn.Conv2d):
    """Nearest-neighbour upsampling by 2, then conv3x3, computed as one transposed convolution.

    Over four equal pixels several weights of the 3x3 kernel meet the same value. Adding those up first gives the same values
    and gradients from 16 products a pixel of the input instead of 36, without the larger copy of the input; on a CPU the layer
    trains two to four times as fast. The parameter is the 3x3 kernel (out, in, 3, 3). Where it meets few pixels on a CPU the
    transposed convolution is one matrix product, as in `Conv`.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)
        # Of three weights in a row: the first, the first two, the last two, the last. In both directions, and turned round.
        row = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
        self.register_buffer("sums", torch.kron(row, row).T.flip(0).contiguous(), persistent=False)  # (9, 16)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, 2 H, 2 W)."""
        many = 16 * x[:, 0].numel() > 9 * self.out_channels  # pixels for the weights to be added up for
        if not (torch.is_grad_enabled() or many):
            return F.conv2d(F.interpolate(x, scale_factor=2), self.weight, padding=1)
        kernel = self.weight.transpose(0, 1).flatten(2) @ self.sums  # (in, out, 16)
        if not self.as_product(x):
            return F.conv_transpose2d(x, kernel.unflatten(2, (4, 4)), stride=2, padding=1)
        y = kernel.flatten(1).t() @ x.transpose(0, 1).flatten(1)  # (out 16, B H W), as in Conv
        y = y.unflatten(1, (len(x), x.shape[2] * x.shape[3])).transpose(0, 1)
        return F.fold(y, (2 * x.shape[2], 2 * x.shape[3]), kernel_size=4, stride=2, padding=1)

    def as_product(self, x: Tensor) -> bool:
        """Whether there are few pixels."""
        return _on_cpu(x) and _few(x[:, 0].numel(), 9 * self.in_channels)


def norm_glu(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """BatchNorm, then GLU, which halves the channels: `F.glu(norm(x), 1)`, in training with less memory on a CPU."""
    if _on_cpu(x) and norm.training and type(norm) is nn.BatchNorm2d:
        norm.num_batches_tracked += 1
        return _NormGLU.apply(x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.momentum, norm.eps)
    return F.glu(norm(x), 1)


def conv_norm(conv: Conv, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """`norm(conv(x))`; for drawing the norm is taken into the weights, which are few."""
    return _folded_conv(conv, norm, x) if _folds(conv, norm, x) else norm(conv(x))


def conv_norm_glu(conv: Conv, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """`norm_glu(conv(x), norm)`, likewise."""
    return _glu_last(_folded_conv(conv, norm, x)) if _folds(conv, norm, x) else norm_glu(conv(x), norm)


def _folds(conv: nn.Module, norm: nn.BatchNorm2d, x: Tensor) -> bool:
    plain = type(conv) is Conv and conv.bias is None and conv.groups == 1 and conv.padding_mode == "zeros"
    return plain and not norm.training and quick_to_draw(conv, x)


def _folded_conv(conv: Conv, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    return F.conv2d(channels_last(x), *_folded(conv.weight, norm), conv.stride, conv.padding, conv.dilation)


def _folded(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weights and biases of a convolution without bias and what BatchNorm makes of it in eval mode."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return weight * scale[:, None, None, None], norm.bias - norm.running_mean * scale


def _glu_last(x: Tensor) -> Tensor:
    """GLU of what is in channels-last order: a third of the time of a CPU's own."""
    values, gates = x.permute(0, 2, 3, 1).chunk(2, 3)
    return (values * gates.contiguous().sigmoid_()).permute(0, 3, 1, 2)


class _NormGLU(torch.autograd.Function):
    """Keeps for the backward pass what goes in, and makes what lies between the two once more from it."""

    @staticmethod
    def forward(ctx, x, weight, bias, running_mean, running_var, momentum, eps):
        y, mean, inverse_std = torch.native_batch_norm(x, weight, bias, running_mean, running_var, True, momentum, eps)
        ctx.save_for_backward(x, weight, bias, mean, inverse_std)
        ctx.eps = eps
        return F.glu(y, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, weight, bias, mean, inverse_std = ctx.saved_tensors
        y = F.batch_norm(x, mean, inverse_std**-2 - ctx.eps, weight, bias, False, 0.0, ctx.eps)
        gradient = torch.ops.aten.glu_backward(gradient, y, 1)
        gradients = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, None, None, mean, inverse_std, True, ctx.eps, (True, True, True)
        )
        return *gradients, None, None, None, None


class Block(nn.Sequential):
    """A convolution, BatchNorm, GLU."""

    def forward(self, x: Tensor) -> Tensor:
        conv, norm, _ = self
        return conv_norm_glu(conv, norm, x)


def up_block(in_channels: int, out_channels: int) -> Block:
    """Nearest-neighbour upsampling by 2, conv3x3, BatchNorm, GLU (which halves the channels)."""
    return Block(UpConv(in_channels, 2 * out_channels), nn.BatchNorm2d(2 * out_channels), nn.GLU(1))


def same_block(in_channels: int, out_channels: int) -> Block:
    """conv3x3, BatchNorm, GLU."""
    return Block(conv3x3(in_channels, 2 * out_channels), nn.BatchNorm2d(2 * out_channels), nn.GLU(1))


def in_full(x: Tensor) -> Tensor:
    """At least fp32, for what a sigmoid or tanh is taken of: in bf16 these are exactly 1, and their slopes exactly 0, from
    about 6 and 3.5 on."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Sigmoid(nn.Sigmoid):
    """In full precision."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(in_full(x))


class Tanh(nn.Tanh):
    """In full precision."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(in_full(x))


class ResidualBlock(nn.Module):
    """x + BN(conv(GLU(BN(conv(x)))))."""

    def __init__(self, channels: int):
        super().__init__()
        self.block = nn.Sequential(*same_block(channels, channels), conv3x3(channels, channels), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        conv, norm, _, last, last_norm = self.block
        return x + conv_norm(last, last_norm, conv_norm_glu(conv, norm, x))


class CodeConv(nn.Module):
    """conv3x3 over features and a code that is repeated as constant planes: `conv(cat(features, planes))`.

    exact=False does just that. exact=True gives the same values and gradients without convolving the planes: the convolution
    is linear, and a constant plane with zero padding has only nine distinct results (four corners, four edges, the inside), so
    the code's share is computed on a 3x3 grid and stretched. The weights are the same, one tensor (out, features + code, 3, 3).
    """

    def __init__(self, channels: int, code_dim: int, out_channels: int, exact: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, channels + code_dim, 3, 3))
        nn.init.orthogonal_(self.weight)
        self.channels, self.exact = channels, exact

    def forward(self, features: Tensor, code: Tensor) -> Tensor:
        """features (B, channels, H, W), code (B, code_dim) -> (B, out_channels, H, W)."""
        height, width = features.shape[-2:]
        planes = code.to(features.dtype)[:, :, None, None]
        if not self.exact or min(height, width) < 3:
            return F.conv2d(torch.cat([features, planes.expand(-1, -1, height, width)], 1), self.weight, padding=1)
        share = self._share(planes, self.weight)
        return F.conv2d(features, self.weight[:, : self.channels], padding=1) + stretch(share, height, width)

    def _share(self, planes: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B, out_channels, 3, 3): what the code adds in the corners, along the edges and inside."""
        return F.conv2d(planes.expand(-1, -1, 3, 3), weight[:, self.channels :], bias, padding=1)

    def norm_glu(self, features: Tensor, code: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        """`norm_glu(self(features, code), norm)`."""
        if not (self.exact and min(features.shape[2:]) >= 3 and quick_to_draw(self, features)) or norm.training:
            return norm_glu(self(features, code), norm)
        weight, bias = _folded(self.weight, norm)
        share, own = self._share(code.to(features.dtype)[:, :, None, None], weight, bias), weight[:, : self.channels]
        features = channels_last(features)
        if (len(features), len(code)) != (1, 1):
            wide = stretch(share.permute(0, 2, 3, 1).contiguous(), *features.shape[-2:], first=1)
            return _glu_last(F.conv2d(features, own, padding=1) + wide.permute(0, 3, 1, 2))
        # Of one picture the share inside is a bias, and only the border differs from it.
        inside = share[0, :, 1, 1]
        y, border = F.conv2d(features, own, inside, padding=1), share[0] - inside[:, None, None]
        for row in (0, -1):
            y[0, :, row] += stretch(border, 3, y.shape[3], first=1)[:, row]
        for column in (0, -1):
            y[0, :, 1:-1, column] += border[:, 1, column, None]
        return _glu_last(y)


class UNet(nn.Module):
    """A picture (B, 3, H, W) -> a mask (B, 1, H, W) in [0, 1] (Ronneberger et al. 2015): `widths` at full size and halved."""

    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        self.down = nn.ModuleList(_two_convolutions(a, b) for a, b in pairwise((3, *widths)))
        steps = [*pairwise(reversed(widths))]
        self.up = nn.ModuleList(nn.Sequential(UpConv(a, b), nn.BatchNorm2d(b), nn.ReLU()) for a, b in steps)
        self.merge = nn.ModuleList(_two_convolutions(2 * b, b) for _, b in steps)
        self.mask = nn.Sequential(nn.Conv2d(widths[0], 1, 1), Sigmoid())
        orthogonal_init(self)

    def forward(self, images: Tensor) -> Tensor:
        first, *others = self.down
        levels = [first(images)]
        for down in others:
            levels.append(down(F.max_pool2d(levels[-1], 2)))
        x = levels.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([levels.pop(), up(x)], 1))
        return self.mask(x)


def _two_convolutions(in_channels: int, out_channels: int) -> nn.Sequential:
    first = conv3x3(in_channels, out_channels), nn.BatchNorm2d(out_channels), nn.ReLU()
    return nn.Sequential(*first, conv3x3(out_channels, out_channels), nn.BatchNorm2d(out_channels), nn.ReLU())


def stretch(x: Tensor, height: int, width: int, first: int = 2) -> Tensor:
    """(B, C, 3, 3) to (B, C, height, width): the border stays one pixel wide, the middle is repeated. first: the rows' axis."""
    for axis, size in ((first, height), (first + 1, width)):
        low, middle, high = x.split(1, axis)
        x = torch.cat([low, middle.expand(*x.shape[:axis], size - 2, *x.shape[axis + 1 :]), high], axis)
    return x


def orthogonal_init(module: nn.Module) -> None:
    """Orthogonal weights for convolutions and linear layers, zero biases, BatchNorm scales N(1, 0.02)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.orthogonal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)


def add_spectral_norm(module: nn.Module) -> nn.Module:
    """Spectral normalisation on every convolution and linear layer (Miyato et al. 2018)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            spectral_norm(layer)
    return module


def gradient_penalty(discriminator: nn.Module, real: tuple[Tensor, ...], fake: tuple[Tensor, ...]) -> Tensor:
    """Mean of (|dD/dx| - 1)² at points x between real and fake ones, each with a uniform weight of its own (WGAN-GP).

    Gulrajani et al. 2017. A discriminator of several inputs, D(x, y), has a term and weights for each, all from one backward
    pass. Of one that gives a map of scores the gradient is that of their sum.
    """
    mixed = []
    for a, b in zip(real, fake, strict=True):
        weight = torch.rand(len(a), *[1] * (a.ndim - 1), device=a.device)
        mixed.append(torch.lerp(b.detach().float(), a.detach().float(), weight).requires_grad_())
    with torch.autocast(mixed[0].device.type, enabled=False):  # second derivatives in full precision
        score = discriminator(*mixed).sum()
        gradients = torch.autograd.grad(score, mixed, create_graph=True)
    norms = [gradient.flatten(1).square().sum(1).add(1e-12).sqrt() for gradient in gradients]
    return sum((norm - 1).square().mean() for norm in norms)


def real_penalty(score: Callable[[Tensor], Tensor], real: Tensor) -> Tensor:
    """R1 (Mescheder et al. 2018): the squared gradient of a discriminator's score at real pictures (B, ...), summed over all.

    score: pictures -> one number, the sum of what the discriminator says about them.
    """
    with torch.autocast(real.device.type, enabled=False):  # second derivatives in full precision
        at = real.as_subclass(Tensor).detach().float().requires_grad_()
        (gradient,) = torch.autograd.grad(score(at), at, create_graph=True)
    return gradient.square().sum()


def remaining(weights: Tensor) -> Tensor:
    """How many the weights, 0 or 1, leave, at least 1; with several processes, each one's equal part of what they leave in all.

    Divided by that, sums over what each process has left have the mean over all that is left of the batch as their mean.
    """
    left, processes = weights.sum(), 1
    if dist.is_available() and dist.is_initialized():
        processes = dist.get_world_size()
        dist.all_reduce(left)
    return left.clamp(min=1) / processes


def backward(loss: Tensor, **options: Any) -> None:
    """`loss.backward(**options)`, outside of autocast: each layer's gradients have the type of its forward pass as it is, and
    second derivatives, which a backward pass computes with layers of its own, stay in full precision."""
    with torch.autocast(loss.device.type, enabled=False):
        loss.backward(**options)


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of `optimizer` on `loss` and on nothing else. No gradients are kept: they would take memory until the next."""
    optimizer.zero_grad(set_to_none=True)
    backward(loss)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@contextmanager
def random_state_kept(device: torch.device | None = None) -> Iterator[None]:
    """After the `with` block torch's random numbers go on as if it had not been: the CPU's, and those of `device`, or of every
    GPU if none is named."""
    if device is None:
        cuda, on_mps = list(range(torch.cuda.device_count())), torch.backends.mps.is_available()
    else:
        cuda, on_mps = [device] if device.type == "cuda" else [], device.type == "mps"
    of_mps = torch.mps.get_rng_state() if on_mps else None
    with torch.random.fork_rng(cuda):
        try:
            yield
        finally:
            if of_mps is not None:
                torch.mps.set_rng_state(of_mps)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's random numbers from a seed; after the `with` block they go on, on every device, as if it had not been."""
    with random_state_kept():
        torch.manual_seed(seed)
        yield


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """No gradients on the parameters of `networks`, through which others are trained: they would be thrown away.

    What counts is the forward pass: autograd decides there which gradients a backward pass will compute.
    """
    learning = [part for network in networks for part in network.parameters() if part.requires_grad]
    for part in learning:
        part.requires_grad_(False)
    try:
        yield
    finally:
        for part in learning:  # what was frozen before stays so
            part.requires_grad_(True)


@contextmanager
def keeping_statistics(*networks: nn.Module) -> Iterator[None]:
    """The running statistics of `networks`' BatchNorm stay as they are: what goes through in here is not what they are for."""
    norms = [part for network in networks for part in network.modules() if isinstance(part, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
