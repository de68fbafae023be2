import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tutorial_lib.data.papercut import (
    _hash,
    disc,
    grid,
    leaf,
    look_up,
    planes,
    polygon_distance,
    positions,
    rotation,
    sheets,
    smooth,
    strip,
    uniform,
    union,
)

SQUARE = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]


def points(n: int = 400) -> torch.Tensor:
    return torch.rand(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 5 - 2.5


def square_distance(at: torch.Tensor) -> torch.Tensor:
    beyond = at.abs() - 1
    return beyond.clamp(min=0).norm(dim=-1) + beyond.amax(-1).clamp(max=0)


# ---- random numbers


def test_hash_is_murmurhash3s_finaliser():
    # The published test vectors of MurmurHash3_x86_32 for an empty key: seeds 0, 1 and 2**32 - 1.
    assert _hash(torch.tensor([0, 1, 2**32 - 1])).tolist() == [0, 0x514E28B7, 0x81F16F39]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(0, 2**40), min_size=1, max_size=8), st.integers(1, 12))
def test_uniform_depends_on_seed_and_index_alone(seed, indices, n):
    together = uniform(seed, torch.tensor(indices), n)
    alone = torch.cat([uniform(seed, torch.tensor([index]), n + 3)[:, :n] for index in indices])
    assert torch.equal(together, alone)
    assert together.min() >= 0 and together.max() < 1


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31))
def test_uniform_is_uniform(seed):
    columns = uniform(seed, torch.arange(10_000), 3)
    assert (columns.mean(0) - 0.5).abs().max() < 6 * math.sqrt(1 / 12 / 10_000)
    assert all(stats.kstest(column.numpy(), "uniform").pvalue > 1e-6 for column in columns.T)


def test_uniform_neighbours_are_independent():
    rows = (uniform(0, torch.arange(10_000), 2) * 8).long()
    for one, other in ((rows[:-1, 0], rows[1:, 0]), (rows[:, 0], rows[:, 1])):  # next index; next column
        assert stats.chi2_contingency(torch.bincount(8 * one + other, minlength=64).view(8, 8)).pvalue > 1e-4


def test_uniform_of_neighbouring_indices_and_seeds_never_coincide():
    assert len(uniform(3, torch.arange(2000), 1).unique()) > 1998  # 2,000 of 2**24 values: 0.1 pairs expected
    assert (uniform(3, torch.arange(2000), 4) != uniform(4, torch.arange(2000), 4)).all()


# ---- outlines


def test_square_outline_has_the_distance_of_a_square():
    outline = torch.tensor(SQUARE, dtype=torch.float64)
    torch.testing.assert_close(polygon_distance(outline, points()), square_distance(points()))


def test_direction_of_an_outline_does_not_matter():
    outline = torch.tensor(SQUARE, dtype=torch.float64)
    torch.testing.assert_close(polygon_distance(outline.flip(0), points()), polygon_distance(outline, points()))


def test_many_sided_outline_has_the_distance_of_a_circle():
    angle = torch.arange(256, dtype=torch.float64) * 2 * math.pi / 256
    outline = torch.stack([angle.cos(), angle.sin()], -1)
    sagitta = 1 - math.cos(math.pi / 256)
    assert (polygon_distance(outline, points()) - (points().norm(dim=-1) - 1)).abs().max() <= sagitta


def test_smooth_passes_through_its_points():
    triangle = [(0.0, 0.0), (3.0, 0.5), (1.0, 2.0)]
    curve = smooth(triangle, per_segment=8)
    assert curve.shape == (24, 2)
    torch.testing.assert_close(curve[::8], torch.tensor(triangle, dtype=torch.float64))


def test_points_given_twice_are_corners_with_straight_sides():
    outline = smooth([point for point in SQUARE for _ in range(2)])
    torch.testing.assert_close(polygon_distance(outline, points()), square_distance(points()))


def test_strip_is_a_capsule():
    beyond = torch.stack([(points()[:, 0].abs() - 1).clamp(min=0), points()[:, 1]], -1)  # about the segment (-1, 0), (1, 0)
    torch.testing.assert_close(strip([(-1, 0), (1, 0)], width=0.4)(points()), beyond.norm(dim=-1) - 0.2)


def test_strip_with_a_bend_is_the_union_of_its_pieces():
    chain = [(-1.0, 0.3), (0.2, -0.5), (0.9, 0.8)]
    pieces = union(strip(chain[:2], 0.2), strip(chain[1:], 0.2))
    torch.testing.assert_close(strip(chain, 0.2)(points()), pieces(points()))


def test_leaf_is_what_two_discs_share():
    length, width = 2.0, 0.8
    radius = (1 + 0.4**2) / 0.8  # of circles through both tips (±1, 0) and one of (0, ±0.4)
    shared = torch.maximum(disc(0, radius - 0.4, radius)(points()), disc(0, 0.4 - radius, radius)(points()))
    torch.testing.assert_close(leaf(0, 0, 0.0, length, width)(points()), shared)


@pytest.mark.parametrize(("along", "across", "expected"), [(1, 0, 0), (-1, 0, 0), (0, 0.4, 0), (0, 0, -0.4)])
def test_leaf_turned_and_moved_keeps_its_tips(along, across, expected):
    angle = 0.7
    u = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    v = torch.tensor([-math.sin(angle), math.cos(angle)], dtype=torch.float64)
    at = torch.tensor([0.3, -0.2], dtype=torch.float64) + along * u + across * v
    assert float(leaf(0.3, -0.2, angle, 2.0, 0.8)(at)) == pytest.approx(expected, abs=1e-6)


# ---- fields


def test_looking_up_a_coordinate_gives_the_coordinate():
    field = grid(64, 1.0).float().permute(2, 0, 1)
    stack = torch.stack([torch.zeros_like(field), field])
    at = (torch.rand(1, 5, 7, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1) * (1 - 1 / 64)
    torch.testing.assert_close(look_up(stack, torch.tensor([1]), at), at.permute(0, 3, 1, 2), atol=1e-4, rtol=0)


def test_looking_up_never_blends_with_another_field():
    stack = torch.arange(4.0)[:, None, None, None].expand(-1, 1, 16, 16)
    which = torch.tensor([2, 0, 3])
    at = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-1.5, 1.5], [0.2, -2.0]])[None, None].expand(3, -1, -1, -1)
    expected = which[:, None, None, None].expand(-1, 1, 1, 4).float()
    torch.testing.assert_close(look_up(stack, which, at), expected, atol=1e-5, rtol=0)


def test_sheets_lie_in_memory_as_looking_up_needs_them():
    stack = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    laid, which, at = sheets(stack), torch.tensor([2, 0]), torch.zeros(2, 1, 1, 2)
    assert torch.equal(laid, stack) and torch.equal(look_up(laid, which, at), look_up(stack, which, at))
    assert laid.transpose(0, 1).is_contiguous() and not stack.transpose(0, 1).is_contiguous()


def test_planes_are_positions_x_first():
    x, y = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(planes(x, y), torch.stack([x, y], -1)) and planes(x, y)[..., 0].is_contiguous()


def test_positions_are_pixel_centres_moved_by_the_matrix():
    matrix, offset = rotation(torch.tensor([0.4])) * 1.7, torch.tensor([[0.1, -0.6]])
    at = positions(4, matrix, offset)
    centre = torch.tensor([2.5 / 4 * 2 - 1, 0.5 / 4 * 2 - 1])  # column 2, row 0
    torch.testing.assert_close(at[0, 0, 2], matrix[0] @ centre + offset[0])


def test_rotation_turns_right_to_down():
    torch.testing.assert_close(
        rotation(torch.tensor([math.pi / 2]))[0] @ torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), atol=1e-6, rtol=0
    )
