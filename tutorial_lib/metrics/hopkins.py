"""The Hopkins statistic: does a set of points have clusters at all?"""

from dataclasses import dataclass

import numpy as np

ROUNDS = 300  # of four places each for one that is wanted, before a window is said to fill next to nothing of its box


@dataclass(frozen=True)
class Hopkins:
    """Mean and standard deviation over repeated draws, and the draws."""

    mean: float
    std: float
    draws: np.ndarray

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.std:.2f}"


def hopkins(
    points: np.ndarray,
    *,
    draws: int = 50,
    m: int | None = None,
    seed: int = 0,
    window: np.ndarray | None = None,
    reference: np.ndarray | None = None,
) -> Hopkins:
    """Cluster tendency of points (N, d): H = Σu^d / (Σu^d + Σw^d) (Banerjee & Dave 2004), repeated `draws` times.

    u: distances from m points, uniform in the data's bounding box, to the nearest data point. w: distances from m
    data points to the nearest other one. m defaults to a tenth of the points, at most 100. About 0.5: spread as by chance;
    above 0.75: clustered at 90 %. Dimensions without extent are dropped, and do not count in d.

    window: points (M, d) of a larger set; the m points are thrown where that set is (`throw_among`), not into the box. With the
    whole of a cluster the question becomes whether these points keep together within it. For few dimensions.

    reference: points (M, d), at least m and none of them in `points`, of which the m are drawn instead of being thrown. With
    the rest of a cluster the question is the same as with a window, and the answer 0.5 in any number of dimensions if
    `points` lie as the rest does.

    The box says more than clusters do. 500 points strewn evenly over a disc score 0.8 in it, over an ellipse twice as long
    as wide, lying aslant, 0.95, and more points score more: corners are empty, and turning the plane changes the score. In
    a window of their own shape both score 0.5. In many dimensions almost all of a box is corners: a Gaussian is far from
    filling it, and scores near 1.

    Raises ValueError for points, a window or a reference that are not finite, do not fit, or are too few; for points that are
    all equal; and for a window of which next to nothing is filled.
    """
    from scipy.special import expit, logsumexp
    from sklearn.neighbors import NearestNeighbors

    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or not np.isfinite(points).all():
        raise ValueError(f"points must be finite and of shape (N, d), got shape {points.shape}")
    m = max(1, min(len(points) // 10, 100)) if m is None else m
    if len(points) < 2 or not 1 <= m <= len(points):
        raise ValueError(f"needs at least 2 points and 1 <= m <= N, got N = {len(points)} and m = {m}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    if window is not None and reference is not None:
        raise ValueError("give a window or a reference, not both")
    name, compared, least = ("reference", reference, m) if window is None else ("window", window, 1)
    compared = points if compared is None else np.asarray(compared, dtype=np.float64)
    fits = compared.ndim == 2 and compared.shape[1] == points.shape[1] and len(compared) >= least
    if not (fits and np.isfinite(compared).all()):
        needed = f"at least {least} finite points of {points.shape[1]} numbers"
        raise ValueError(f"{name} must be {needed}, got shape {compared.shape}")
    extended = np.ptp(np.concatenate([points, compared]), axis=0) > 0
    points, compared = points[:, extended], compared[:, extended]
    dimension = points.shape[1]
    if dimension == 0:
        raise ValueError("all points are equal: the statistic is undefined")

    # A spawned stream: default_rng(seed) would throw the very points that uniform data of the same seed consists of.
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
    neighbours = NearestNeighbors().fit(points)
    other = neighbours.kneighbors(points, n_neighbors=2)[0][:, 1]  # column 0 is the point itself, or its double
    if reference is not None:
        drawn = np.concatenate([rng.choice(len(compared), m, replace=False) for _ in range(draws)])
        thrown = compared[drawn]
    elif window is None:
        thrown = rng.uniform(points.min(axis=0), points.max(axis=0), size=(draws * m, dimension))
    else:
        thrown = throw_among(compared, draws * m, rng)
    u = neighbours.kneighbors(thrown, n_neighbors=1)[0].reshape(draws, m)
    w = np.stack([other[rng.choice(len(points), m, replace=False)] for _ in range(draws)])

    if not (u.any(axis=1) | w.any(axis=1)).all():
        raise ValueError("points lie on one another, and so do those compared with them: the statistic is undefined")
    # u^d overflows in many dimensions, so the ratio is taken between logarithms.
    with np.errstate(divide="ignore"):
        log_u, log_w = (logsumexp(dimension * np.log(x), axis=1) for x in (u, w))
    values = expit(log_u - log_w)
    return Hopkins(float(values.mean()), float(values.std()), values)


def throw_among(points: np.ndarray, n: int, rng: np.random.Generator, nearest: int = 3) -> np.ndarray:
    """n places (n, d), uniform where points (N, d) are: round or bent, in one piece or in several.

    A place counts if its third nearest point is no farther from it than 95 % of the points' own third nearest are from them.
    """
    from sklearn.neighbors import NearestNeighbors

    if len(points) <= nearest:
        raise ValueError(f"window needs more than {nearest} points, got {len(points)}")
    neighbours = NearestNeighbors(n_neighbors=nearest).fit(points)
    reach = np.quantile(neighbours.kneighbors()[0][:, -1], 0.95)  # without an argument no point is its own neighbour
    if reach == 0:
        raise ValueError(f"window: its points lie on one another, at {len(np.unique(points, axis=0))} places")
    places = np.empty((0, points.shape[1]))
    for _ in range(ROUNDS):
        thrown = rng.uniform(points.min(axis=0), points.max(axis=0), size=(4 * n, points.shape[1]))
        places = np.concatenate([places, thrown[neighbours.kneighbors(thrown)[0][:, -1] <= reach]])
        if len(places) >= n:
            return places[:n]
    raise ValueError(f"window: of its box next to nothing lies near its points ({len(places)} of {4 * n * ROUNDS:,} places)")
