"""What can be read off features at all: the accuracy of a linear probe on samples that it was not fitted to."""

import numpy as np

from tutorial_lib.metrics.clustering import checked_labels


def linear_probe(features: np.ndarray, labels: np.ndarray, *, alpha: float = 1.0, seed: int = 0) -> float:
    """Accuracy in [0, 1] of a linear classifier of labels (N,) from features (N, D); guessing gets the commonest one's share.

    One half of the samples is fitted, the other scored, then the other way round. A ridge regression onto the classes: solved
    in closed form, also where features are many more than samples. Features are scaled to mean 0 and variance 1 first; alpha is
    the penalty, per feature.
    """
    from sklearn.linear_model import RidgeClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = np.asarray(features), checked_labels(labels, "labels")
    if features.ndim != 2 or len(features) != len(labels) or not np.isfinite(features).all():
        raise ValueError(f"features must be finite and of shape ({len(labels)}, D), got shape {features.shape}")
    if len(np.unique(labels)) < 2 or np.unique(labels, return_counts=True)[1].min() < 2:
        raise ValueError("labels needs at least 2 classes, and each at least twice")
    probe = make_pipeline(StandardScaler(), RidgeClassifier(alpha=alpha * features.shape[1]))
    halves = StratifiedKFold(2, shuffle=True, random_state=seed)
    return float(cross_val_score(probe, features, labels, cv=halves).mean())
