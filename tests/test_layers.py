import copy
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutorial_lib import layers
from tutorial_lib.layers import (
    CodeConv,
    Conv,
    ResidualBlock,
    UpConv,
    add_spectral_norm,
    as_on_a_gpu,
    frozen,
    gradient_penalty,
    norm_glu,
    orthogonal_init,
    quick_to_draw,
    random_state_kept,
    real_penalty,
    same_block,
    stretch,
    up_block,
    update,
)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("size", [(2, 2), (3, 3), (2, 5), (4, 7), (16, 16)])
def test_code_conv_is_a_convolution_of_concatenated_planes(size, exact):
    torch.manual_seed(0)
    layer = CodeConv(3, 5, 4, exact).double()
    features, code = torch.randn(2, 3, *size, dtype=torch.float64), torch.randn(2, 5, dtype=torch.float64)
    inputs = [features, code, layer.weight.detach().clone()]
    toward = torch.randn(2, 4, *size, dtype=torch.float64)  # an arbitrary direction for the gradients

    mine = [tensor.clone().requires_grad_() for tensor in inputs[:2]]
    output = layer(*mine)
    gradients = torch.autograd.grad(output, [*mine, layer.weight], toward)

    plain = [tensor.clone().requires_grad_() for tensor in inputs]
    planes = plain[1][:, :, None, None].repeat(1, 1, *size)
    expected = F.conv2d(torch.cat([plain[0], planes], 1), plain[2], padding=1)
    torch.testing.assert_close(output, expected)
    for gradient, other in zip(gradients, torch.autograd.grad(expected, plain, toward), strict=True):
        torch.testing.assert_close(gradient, other)


@pytest.mark.parametrize(("layer", "expected"), [(layers.Sigmoid(), torch.sigmoid), (layers.Tanh(), torch.tanh)])
def test_squashing_is_never_in_bf16(layer, expected):
    logits = torch.tensor([-9.0, 4.0, 9.0])
    x = logits.bfloat16().requires_grad_()
    y = layer(x)
    assert y.dtype == torch.float32 and y.max() < 1
    torch.testing.assert_close(y, expected(logits))
    assert (torch.autograd.grad(y.sum(), x)[0] > 0).all(), "no slope is rounded to 0"
    assert layer(logits.double()).dtype == torch.float64


@pytest.mark.parametrize("size", [2, 32], ids=["product", "convolution"])
def test_spectral_norm_makes_one_step_of_its_iteration_a_pass(size):
    conv = add_spectral_norm(nn.Sequential(Conv(64, 64, 3, padding=1)))[0].train()
    (iteration,) = conv.parametrizations.weight
    expected, x = iteration._u.clone(), torch.randn(2, 64, size, size)
    again = copy.deepcopy(iteration)
    again._power_method(conv.parametrizations.weight.original.flatten(1), 1)
    assert conv.as_product(x) == (size == 2)
    conv(x)
    torch.testing.assert_close(iteration._u, again._u)
    assert not torch.equal(iteration._u, expected)


class Coded(nn.Module):
    """A block with a code, of one picture that brings none."""

    def __init__(self, exact: bool):
        super().__init__()
        self.conv, self.norm, self.code = CodeConv(6, 3, 10, exact), nn.BatchNorm2d(10), torch.eye(3)

    def forward(self, x):
        return self.conv.norm_glu(x, self.code[: len(x)], self.norm)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(
    ("make", "folds"),
    [(lambda: same_block(6, 5), 1), (lambda: ResidualBlock(6), 2), (lambda: up_block(6, 5), 0), (lambda: Coded(True), 1),
     (lambda: Coded(False), 0), (lambda: nn.Sequential(same_block(6, 5), ResidualBlock(5), Conv(5, 3, 3, padding=1)), 3)],
)  # fmt: skip
def test_what_is_drawn_is_what_is_computed_with_gradients(make, folds, n, dtype, monkeypatch):
    """folds: how many norms are taken into the weights."""
    torch.manual_seed(0)
    folded = mock.Mock(wraps=layers._folded)
    monkeypatch.setattr(layers, "_folded", folded)
    block, x = make(), torch.randn(n, 6, 64, 65)
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values, low, high in (
                (norm.weight, 0.5, 2),
                (norm.bias, -1, 1),
                (norm.running_mean, -2, 2),
                (norm.running_var, 0.2, 3),
            ):
                nn.init.uniform_(values, low, high)
    block.eval()
    with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
        expected = block(x)
        with torch.no_grad():
            drawn = block(x)
    assert expected.requires_grad and not drawn.requires_grad and folded.call_count == folds
    tolerance = {} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.05}
    torch.testing.assert_close(drawn, expected.detach(), **tolerance)


def test_one_picture_is_drawn_with_each_of_several_codes():
    torch.manual_seed(0)
    block, x = Coded(True).eval(), torch.randn(1, 6, 64, 64)
    block.norm.running_mean.normal_()
    expected = block.conv.norm_glu(x, block.code, block.norm)
    with torch.no_grad():
        torch.testing.assert_close(block.conv.norm_glu(x, block.code, block.norm), expected.detach())


@pytest.mark.parametrize("make", [lambda: same_block(6, 5), lambda: ResidualBlock(6), lambda: Coded(True)])
def test_norm_that_learns_its_statistics_in_an_eval_model_is_not_folded(make):
    block, x = make().eval(), 2 + torch.randn(1, 6, 64, 64)
    norms = [part.train() for part in block.modules() if isinstance(part, nn.BatchNorm2d)]
    with torch.no_grad():
        block(x)
    assert norms and all(norm.running_mean.abs().max() > 0 for norm in norms)


def test_drawing_is_for_few_channels_and_many_pixels_in_eval_mode_without_gradients():
    layer, x = Conv(6, 5, 3, padding=1).eval(), torch.randn(1, 6, 64, 64)
    with torch.no_grad():
        assert quick_to_draw(layer, x) and layer(x).is_contiguous(memory_format=torch.channels_last)
        assert not quick_to_draw(layer, torch.randn(1, 33, 64, 64)) and not quick_to_draw(layer, torch.randn(1, 6, 64, 63))
        with as_on_a_gpu():
            assert not quick_to_draw(layer, x)
        assert not quick_to_draw(layer.train(), x)
    assert not quick_to_draw(layer.eval(), x)


def test_stretch_repeats_the_middle():
    x = torch.arange(9.0).view(1, 1, 3, 3)
    expected = [[0, 1, 1, 2], [3, 4, 4, 5], [3, 4, 4, 5], [3, 4, 4, 5], [6, 7, 7, 8]]
    assert stretch(x, 5, 4)[0, 0].tolist() == expected


@pytest.mark.parametrize(("block", "shape"), [(up_block, (2, 5, 16, 12)), (same_block, (2, 5, 8, 6))])
def test_block_shapes(block, shape):
    assert block(3, 5)(torch.randn(2, 3, 8, 6)).shape == shape


@pytest.mark.parametrize(("channels", "size"), [(3, (4, 6)), (3, (1, 1)), (3, (1, 3)), (50, (2, 3)), (50, (1, 1))])
def test_up_conv_is_upsampling_then_convolution_in_values_and_gradients(channels, size):
    layer = UpConv(channels, 5).double()
    x = torch.randn(2, channels, *size, dtype=torch.float64, requires_grad=True)
    assert layer.as_product(x) == (channels == 50)
    repeated = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected = F.conv2d(repeated, layer.weight, padding=1)
    torch.testing.assert_close(layer(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)
    weight = torch.randn_like(expected)
    inputs = (x, layer.weight)
    got = torch.autograd.grad((layer(x) * weight).sum(), inputs)
    for gradient, other in zip(got, torch.autograd.grad((expected * weight).sum(), inputs), strict=True):
        torch.testing.assert_close(gradient, other)


def test_up_conv_of_no_picture_is_none():
    assert UpConv(64, 5)(torch.randn(0, 64, 4, 3)).shape == (0, 5, 8, 6)


# Few pixels for the weights, one pixel, and many.
@pytest.mark.parametrize(
    ("shape", "size", "kernel", "stride", "padding"),
    [
        ((2, 90, 5, 7), (1, 2), 4, 2, 0),
        ((2, 90, 4, 4), (2, 2), 4, 2, 1),
        ((3, 2, 4, 6), (1, 1), (4, 6), 1, 0),
        ((2, 3, 9, 8), (9, 8), 3, 1, 1),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_conv_is_a_convolution_in_values_and_first_and_second_gradients(shape, size, kernel, stride, padding, bias):
    torch.manual_seed(0)
    layer = Conv(shape[1], 4, kernel, stride, padding, bias=bias).double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert layer.as_product(x) == (size != (9, 8))
    plain = F.conv2d(x, layer.weight, layer.bias, stride, padding)
    found = []
    for y in (layer(x), plain):
        assert y.shape[2:] == size
        first = torch.autograd.grad(y.square().sum(), [x, *layer.parameters()], create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), [x, layer.weight])
        found.append([y, *first, *second])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_convolution_is_a_product_sooner_in_training():
    layer, x = Conv(90, 4, 4, stride=2, padding=1), torch.randn(1, 90, 8, 8)  # 1440 values of a patch, 16 patches: 90 times
    assert layer.as_product(x) and not layer.as_product(x.expand(4, -1, -1, -1))
    with torch.no_grad():
        assert not layer.as_product(x) and layer.as_product(x[..., :6, :6])


@pytest.mark.parametrize("option", [{"dilation": 2}, {"groups": 2}, {"padding_mode": "reflect"}])
def test_a_convolution_that_is_not_plain_is_no_product(option):
    torch.manual_seed(0)
    layer = Conv(64, 64, 3, padding=2, **option)
    plain = nn.Conv2d(64, 64, 3, padding=2, **option)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(1, 64, 3, 3)
    torch.testing.assert_close(layer(x), plain(x))


@pytest.mark.parametrize("device", [None, torch.device("mps")])
def test_random_numbers_of_a_mac_go_on_too(device, monkeypatch):
    """A generator stands in for the one of a GPU that is not here; `torch.manual_seed` seeds it there."""
    of_mps = torch.Generator()
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "get_rng_state", of_mps.get_state)
    monkeypatch.setattr(torch.mps, "set_rng_state", of_mps.set_state)
    before = torch.get_rng_state(), of_mps.get_state()
    with random_state_kept(device):
        torch.manual_seed(1)
        of_mps.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before[0]) and torch.equal(of_mps.get_state(), before[1])


def test_what_was_frozen_before_stays_so():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[0].requires_grad_(False)
    with frozen(network):
        with frozen(network):
            assert not any(part.requires_grad for part in network.parameters())
        assert not any(part.requires_grad for part in network.parameters())
    assert [part.requires_grad for part in network.parameters()] == [False, False, True, True]


def test_as_on_a_gpu_neither_product_nor_joined_layers():
    layer, x = Conv(90, 4, 4), torch.randn(1, 90, 5, 7, requires_grad=True)
    joined = [norm_glu(x, nn.BatchNorm2d(90)).grad_fn.name()]
    assert layer.as_product(x)
    with as_on_a_gpu():
        assert not layer.as_product(x)
        joined.append(norm_glu(x, nn.BatchNorm2d(90)).grad_fn.name())
    assert layer.as_product(x) and joined == ["_NormGLUBackward", "GluBackward0"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_norm_glu_is_batch_norm_then_glu_in_values_gradients_and_statistics(dtype):
    torch.manual_seed(0)
    x, toward = 3 + 2 * torch.randn(4, 6, 5, 7, dtype=dtype), torch.randn(4, 3, 5, 7, dtype=dtype)
    found = []
    for compute in (norm_glu, lambda x, norm: F.glu(norm(x), 1)):
        norm = nn.BatchNorm2d(6, dtype=torch.float64 if dtype == torch.float64 else None)
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(0.5, 2, 6))
            norm.bias.copy_(torch.linspace(-1, 1, 6))
        mine = x.clone().requires_grad_()
        y = compute(mine, norm)
        gradients = torch.autograd.grad(y, [mine, *norm.parameters()], toward)
        found.append([y, *gradients, *norm.buffers(), compute(x, norm.eval())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_norm_glu_keeps_less_for_the_backward_pass():
    kept = []
    for compute in (norm_glu, lambda x, norm: F.glu(norm(x), 1)):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x):
            compute(torch.randn(2, 4, 8, 8, requires_grad=True), nn.BatchNorm2d(4))
        kept.append(sum(size for size in sizes if size >= 2 * 4 * 8 * 8))
    assert kept == [512, 1024]


def test_gradient_penalty_is_the_same_through_a_product_and_through_a_convolution(monkeypatch):
    layer = Conv(2, 3, 4)
    critic = nn.Sequential(layer, nn.LeakyReLU(0.2, inplace=True), nn.Flatten(), nn.Linear(3, 1))
    pictures, gradients = [torch.randn(5, 2, 4, 4) for _ in range(2)], []
    for product in (True, False):
        monkeypatch.setattr(Conv, "as_product", lambda self, x, product=product: product)
        torch.manual_seed(1)
        gradients.append(torch.autograd.grad(gradient_penalty(critic, pictures[:1], pictures[1:]), critic[3].weight)[0])
    torch.testing.assert_close(*gradients)


def test_residual_block_adds_to_its_input():
    block, x = ResidualBlock(4).eval(), torch.randn(2, 4, 5, 5)
    nn.init.zeros_(block.block[-1].weight)
    assert torch.equal(block(x), x)


def test_orthogonal_init():
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(40, 6))
    orthogonal_init(module)
    for layer in (module[0], module[3]):
        rows = layer.weight.detach().flatten(1)
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)
        assert not layer.bias.any()
    assert (module[1].weight - 1).abs().max() < 0.1 and not module[1].bias.any()


def test_spectral_norm_bounds_every_layer():
    torch.manual_seed(0)
    module = add_spectral_norm(nn.Sequential(nn.Conv2d(2, 6, 3), nn.Linear(5, 7)))
    for layer in module:
        for _ in range(50):
            layer.weight  # noqa: B018  in training mode each access is a power iteration
        largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)
        assert float(largest) == pytest.approx(1, abs=1e-3)


def test_real_penalty_by_hand():
    w, x = torch.randn(3, 4, 4), torch.randn(5, 3, 4, 4, requires_grad=True)
    torch.testing.assert_close(real_penalty(lambda x: (w * x).sum(), x), 5 * w.square().sum())
    torch.testing.assert_close(real_penalty(lambda x: x.pow(3).sum() / 3, x), x.detach().pow(4).sum())


def test_real_penalty_trains_the_score_in_full_precision_and_leaves_the_pictures_alone():
    layer, x = nn.Conv2d(3, 2, 3), torch.randn(2, 3, 8, 8, requires_grad=True)
    seen = []
    with torch.autocast("cpu", torch.bfloat16):
        penalty = real_penalty(lambda x: seen.append(layer(x)) or seen[-1].sum(), x)
    penalty.backward()
    assert seen[0].dtype == penalty.dtype == torch.float32
    assert layer.weight.grad.any() and x.grad is None


def test_an_update_learns_from_its_loss_alone_and_keeps_no_gradients():
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    (weight * 100).sum().backward()  # left from a loss of someone else
    update(torch.optim.SGD([weight], lr=0.1), (weight**2).sum())
    torch.testing.assert_close(weight.detach(), torch.tensor([0.8, -1.6]))
    assert weight.grad is None


def test_an_update_goes_back_in_full_precision():
    """Inside of autocast a double backward pass would compute its products in bf16."""
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 64), torch.randn(8, 64, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        (slope,) = torch.autograd.grad(layer(x.bfloat16()).float().square().sum(), x, create_graph=True)
        seen = []
        layer.weight.register_hook(lambda gradient: seen.append(torch.is_autocast_enabled("cpu")))
        update(torch.optim.SGD(layer.parameters(), lr=0.1), slope.square().sum())
    assert seen == [False]
