import numpy as np
import pytest

from tutorial_lib.metrics.hopkins import hopkins, throw_among


# Over 20 seeds the mean of 50 draws stayed within 0.03 of 0.5 in 2 and 8 dimensions, within 0.06 in 32: there the 32nd
# power leaves a draw to its largest distance.
@pytest.mark.parametrize(("dimension", "tolerance"), [(2, 0.04), (8, 0.04), (32, 0.08)])
def test_uniform_data_has_no_cluster_tendency(dimension, tolerance):
    points = np.random.default_rng(0).random((3000, dimension))
    assert hopkins(points).mean == pytest.approx(0.5, abs=tolerance)


@pytest.mark.parametrize("dimension", [2, 8, 32])
def test_tight_clusters_are_seen(dimension):
    rng = np.random.default_rng(0)
    centres = rng.random((5, dimension))
    points = centres[rng.integers(5, size=500)] + 0.01 * rng.normal(size=(500, dimension))
    assert hopkins(points).mean > 0.9


def test_a_regular_lattice_scores_below_one_half():
    points = np.stack(np.meshgrid(np.arange(25.0), np.arange(25.0)), axis=-1).reshape(-1, 2)
    assert hopkins(points).mean < 0.3


def test_draws_follow_the_definition():
    """On a line of three points with m = N the data side is known: w = 1, 1, 4."""
    points = np.array([[0.0], [1.0], [5.0]])
    result = hopkins(points, m=3, draws=200)
    u_sum = 6 * result.draws / (1 - result.draws)
    assert result.std > 0
    assert u_sum.max() <= 3 * 2  # the farthest place in the box is 2 from a point
    # Mean distance of a uniform place on [0, 5]: triangles of half-base 1/2 and 2 give 2 (1/8 + 2) / 5, three times.
    assert u_sum.mean() == pytest.approx(3 * 2 * (1 / 8 + 2) / 5, rel=0.1)


def test_scale_and_constant_dimensions_do_not_matter():
    points = np.random.default_rng(0).random((200, 3))
    padded = np.concatenate([1e6 * points, np.ones((200, 2))], axis=1)
    assert hopkins(padded).mean == pytest.approx(hopkins(points).mean, abs=1e-6)


def disc(rng: np.random.Generator, n: int = 500) -> np.ndarray:
    angle = 2 * np.pi * rng.random(n)
    return np.sqrt(rng.random((n, 1))) * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def aslant(rng: np.random.Generator) -> np.ndarray:
    """An ellipse three times as long as wide, at 45 degrees."""
    return disc(rng) * [3, 1] @ np.array([[1, 1], [-1, 1]]) / 2**0.5


def bent(rng: np.random.Generator) -> np.ndarray:
    angle, radius = 1.2 * np.pi * rng.random(500), 1 + 0.4 * rng.random(500)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def two(rng: np.random.Generator) -> np.ndarray:
    return disc(rng) + np.where(np.arange(500) < 200, 5, 0)[:, None]


@pytest.mark.parametrize(("shape", "box"), [(disc, 0.7), (aslant, 0.95), (bent, 0.95), (two, 0.95)])
def test_an_even_cluster_of_any_shape_is_even_in_its_own_window_but_not_in_its_box(shape, box):
    points = shape(np.random.default_rng(0))
    parts = (points[i::5] for i in range(5))  # none keeps to a corner
    assert np.mean([hopkins(part, window=points).mean for part in parts]) == pytest.approx(0.5, abs=0.05)
    assert hopkins(points).mean > box


@pytest.mark.parametrize("shape", [disc, aslant, bent])
def test_parts_that_keep_to_a_corner_of_the_window_are_clustered_in_it(shape):
    points = shape(np.random.default_rng(0))
    points = points[np.arctan2(points[:, 1], points[:, 0]).argsort()]
    assert min(hopkins(part, window=points).mean for part in points.reshape(5, 100, 2)) > 0.8


def test_places_are_thrown_evenly_where_the_points_are():
    points = two(np.random.default_rng(0))
    places = throw_among(points, 3000, np.random.default_rng(1))
    near = np.linalg.norm(places[:, None] - [[0, 0], [5, 5]], axis=-1).min(axis=1)
    assert places.shape == (3000, 2) and near.max() < 1.3
    assert (places[:, 0] > 2.5).mean() == pytest.approx(0.5, abs=0.05)  # of equal size, though one has more points


def test_a_window_needs_points_enough_to_have_a_shape():
    with pytest.raises(ValueError, match="more than 3 points, got 3"):
        hopkins(np.eye(2), window=np.eye(3)[:, :2])
    with pytest.raises(ValueError, match="lie on one another, at 2 places"):
        hopkins(np.eye(2), window=np.repeat(np.eye(2), 4, axis=0))


@pytest.mark.parametrize("dimension", [2, 7, 32])
def test_beside_the_rest_of_their_cluster_points_like_it_score_one_half_and_those_of_a_corner_more(dimension):
    """In seven dimensions a Gaussian scores near 1 in its box."""
    points = np.random.default_rng(0).normal(size=(1000, dimension))
    where = {"mixed": np.arange(1000) % 5, "corner": np.argsort(np.argsort(points[:, 0])) // 200}
    found = {name: [hopkins(points[of == i], reference=points[of != i]).mean for i in range(5)] for name, of in where.items()}
    assert np.mean(found["mixed"]) == pytest.approx(0.5, abs=0.05)
    assert np.mean(found["corner"]) > np.mean(found["mixed"]) + 0.05


def test_a_reference_is_drawn_from_by_the_definition():
    """u = 3 and w = 1 and 1, whichever of the points are drawn: 9 / (9 + 1) in the plane."""
    points, reference = np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[4.0, 0.0], [0.5, 8.75**0.5]])
    assert hopkins(points, m=1, draws=9, reference=reference).draws == pytest.approx(0.9)


def test_a_dimension_that_tells_points_from_their_reference_counts():
    points = np.random.default_rng(0).random((100, 1))
    apart, beside = (np.concatenate([points, np.full((100, 1), z)], axis=1) for z in (0.0, 9.0))
    assert hopkins(apart, reference=beside).mean > 0.99


def test_a_dimension_in_which_points_are_equal_but_their_window_extends_counts():
    rng = np.random.default_rng(0)
    points, square = np.stack([np.full(100, 0.5), rng.random(100)], axis=1), rng.random((1000, 2))
    assert hopkins(points, window=square).mean > 0.99


def test_a_window_must_fit():
    points = np.random.default_rng(0).random((40, 2))
    for wrong in (points[:, :1], points[0].tolist(), np.full_like(points, np.nan), points[:0]):
        with pytest.raises(ValueError, match=r"window must be at least 1 finite points of 2 numbers, got shape"):
            hopkins(points, window=wrong)


def test_a_window_that_is_almost_all_empty_is_refused_not_searched_for_ever():
    points = np.random.default_rng(0).normal(size=(100, 2))
    with pytest.raises(ValueError, match=r"window: of its box next to nothing lies near its points \(\d+ of 60,000 places\)"):
        hopkins(points, m=1, window=np.concatenate([points, [[1e5, 1e5]]]))


def test_a_reference_must_fit():
    points = np.random.default_rng(0).random((40, 2))
    for wrong in (points[:3], points[:, :1], points[0].tolist(), np.full_like(points, np.nan)):
        with pytest.raises(ValueError, match=r"reference must be at least 4 finite points of 2 numbers, got shape"):
            hopkins(points, reference=wrong)
    with pytest.raises(ValueError, match="a window or a reference, not both"):
        hopkins(points, window=points, reference=points)


def test_repeatable_and_printed_with_its_spread():
    points = np.random.default_rng(0).random((200, 2))
    result = hopkins(points, seed=1)
    assert (result.draws == hopkins(points, seed=1).draws).all()
    assert str(result) == f"{result.mean:.2f} ± {result.std:.2f}"


def test_equal_points_are_refused():
    with pytest.raises(ValueError, match="all points are equal"):
        hopkins(np.ones((50, 4)))


def test_points_that_lie_on_those_they_are_compared_with_are_refused():
    places = np.repeat(np.random.default_rng(0).random((5, 2)), 20, axis=0)
    with pytest.raises(ValueError, match="points lie on one another, and so do those compared with them"):
        hopkins(places, reference=places)


@pytest.mark.parametrize("m", [0, 51])
def test_m_must_fit_the_data(m):
    with pytest.raises(ValueError, match=f"N = 50 and m = {m}"):
        hopkins(np.random.default_rng(0).random((50, 2)), m=m)


def test_nan_is_refused():
    with pytest.raises(ValueError, match=r"points must be finite and of shape \(N, d\), got shape \(9, 2\)"):
        hopkins(np.full((9, 2), np.nan))
