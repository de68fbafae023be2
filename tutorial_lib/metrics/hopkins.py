"""The Hopkins statistic: does a set of points have clusters at all?"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Hopkins:
    """Mean and standard deviation over repeated draws, and the draws."""

    mean: float
    std: float
    draws: np.ndarray

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.std:.2f}"


def hopkins(
    points: np.ndarray, *, draws: int = 50, m: int | None = None, seed: int = 0, box: np.ndarray | None = None
) -> Hopkins:
    """Cluster tendency of points (N, d): H = Σu^d / (Σu^d + Σw^d) (Banerjee & Dave 2004), repeated `draws` times.

    u: distances from m points, uniform in the data's bounding box, to the nearest data point. w: distances from m
    data points to the nearest other one. m defaults to a tenth of the points, at most 100. About 0.5: no clusters;
    above 0.75: clustered at 90 %. Dimensions without extent are dropped, and do not count in d.

    box: the lowest and highest corner (2, d) of another box than the data's own. With that of a larger set the question becomes
    whether these points keep together within the set.

    In many dimensions the box says more than clusters do: a Gaussian is far from filling it, and scores near 1.
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
    box = np.stack([points.min(axis=0), points.max(axis=0)]) if box is None else np.asarray(box, dtype=np.float64)
    if box.shape != (2, points.shape[1]) or not (box[0] <= points).all() or not (points <= box[1]).all():
        raise ValueError(
            f"box must be (2, {points.shape[1]}), its lowest and highest corner, with the points inside, got {box}"
        )
    extended = np.ptp(points, axis=0) > 0
    points, box = points[:, extended], box[:, extended]
    dimension = points.shape[1]
    if dimension == 0:
        raise ValueError("all points are equal: the statistic is undefined")

    # A spawned stream: default_rng(seed) would throw the very points that uniform data of the same seed consists of.
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
    neighbours = NearestNeighbors().fit(points)
    other = neighbours.kneighbors(points, n_neighbors=2)[0][:, 1]  # column 0 is the point itself, or its double
    thrown = rng.uniform(*box, size=(draws, m, dimension))
    u = neighbours.kneighbors(thrown.reshape(-1, dimension), n_neighbors=1)[0].reshape(draws, m)
    w = np.stack([other[rng.choice(len(points), m, replace=False)] for _ in range(draws)])

    # u^d overflows in many dimensions, so the ratio is taken between logarithms.
    with np.errstate(divide="ignore"):
        log_u, log_w = (logsumexp(dimension * np.log(x), axis=1) for x in (u, w))
    values = expit(log_u - log_w)
    return Hopkins(float(values.mean()), float(values.std()), values)
