"""Unsupervised grouping against true classes: k-means, normalised mutual information, Hungarian accuracy."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Clustering:
    """Clusters (N,) found in features, and how they agree with true classes: both scores in [0, 1], 1 is best."""

    labels: np.ndarray
    nmi: float
    accuracy: float


def score_clusters(features: np.ndarray, classes: np.ndarray, n_clusters: int | None = None, seed: int = 0) -> Clustering:
    """k-means on features (N, D), as many clusters as there are classes unless told, scored against classes (N,)."""
    classes = checked_labels(classes, "classes")
    labels = kmeans(features, n_clusters or len(np.unique(classes)), seed)
    return Clustering(labels, nmi(labels, classes), hungarian_accuracy(labels, classes))


def kmeans(features: np.ndarray, n_clusters: int, seed: int = 0) -> np.ndarray:
    """Cluster index (N,) of features (N, D) scaled to unit length, best of ten k-means runs."""
    from sklearn.cluster import KMeans
    from sklearn.preprocessing import normalize

    features = np.asarray(features)
    if features.ndim != 2 or not np.isfinite(features).all():
        raise ValueError(f"features must be finite and of shape (N, D), got shape {features.shape}")
    if not 1 <= n_clusters <= len(features):
        raise ValueError(f"n_clusters must lie between 1 and the {len(features)} samples, got {n_clusters}")
    return KMeans(n_clusters, n_init=10, random_state=seed).fit_predict(normalize(features))


def nmi(labels: np.ndarray, classes: np.ndarray) -> float:
    """Normalised mutual information (arithmetic mean of the entropies), in [0, 1]; 0 if either side is constant.

    Independent labels with R and C values score about (R - 1)(C - 1) / 2N nats over the mean entropy instead of 0:
    less than 0.01 for 10 x 24 values in 5,000 samples.
    """
    from sklearn.metrics import normalized_mutual_info_score

    labels, classes = _same_length(labels, classes)
    if len(np.unique(labels)) == 1 or len(np.unique(classes)) == 1:
        return 0.0
    return float(normalized_mutual_info_score(classes, labels))


def hungarian_accuracy(labels: np.ndarray, classes: np.ndarray) -> float:
    """Share of samples in the right class when every cluster is given at most one class, as well as possible."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics.cluster import contingency_matrix

    counts = contingency_matrix(*_same_length(labels, classes))
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum() / counts.sum())


def checked_labels(values: np.ndarray, name: str) -> np.ndarray:
    """Labels (N,) as they are. Raises ValueError if they are not integers, or none."""
    values = np.asarray(values)
    if values.ndim != 1 or len(values) == 0 or values.dtype.kind not in "iub":
        raise ValueError(f"{name} must be integer labels of shape (N,), got {values.dtype} {values.shape}")
    return values


def _same_length(labels: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, classes = checked_labels(labels, "labels"), checked_labels(classes, "classes")
    if len(labels) != len(classes):
        raise ValueError(f"labels and classes must have one length, got {len(labels)} and {len(classes)}")
    return labels, classes
