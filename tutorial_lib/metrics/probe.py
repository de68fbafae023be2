"""What can be read off features at all: the score of a linear probe on samples that it was not fitted to.

linear_probe(z_s, identity)      # accuracy, of labels (N,)
linear_probe(z_u, nuisance)      # R², of floats (N,) or (N, k)
"""

import numpy as np

MANY = 512  # features beyond which logistic regression is slow, and ridge regression onto the classes reads the labels


def linear_probe(features: np.ndarray, factor: np.ndarray, *, folds: int = 5, seed: int = 0) -> float:
    """How well a linear model reads a factor off features (N, D); the mean over `folds`.

    Labels (N,), integers or booleans: accuracy; guessing gets the commonest one's share. Floats (N,) or (N, k): R², mean over
    components; negative is worse than guessing the mean. Features are scaled to mean 0 and variance 1 first. Penalties: for
    labels scikit-learn's own, or in proportion to D where features are many; for floats the best of 0.01 … 10,000. Raises
    ValueError for features that are not finite or do not fit the factor, for a factor that is neither labels nor floats, if a
    label has fewer samples than there are folds, and for floats that are not finite, do not vary, or are fewer than two a fold.
    """
    from sklearn.linear_model import LogisticRegression, RidgeClassifier, RidgeCV
    from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, factor = np.asarray(features, dtype=np.float64), np.asarray(factor)
    if features.ndim != 2 or len(features) != len(factor) or not np.isfinite(features).all():
        raise ValueError(f"features must be finite and of shape ({len(factor)}, D), got shape {features.shape}")
    if factor.dtype.kind not in "iubf":
        raise ValueError(f"factor must be integers, booleans or floats, got {factor.dtype}")
    if factor.dtype.kind != "f":
        counts = np.unique(factor, return_counts=True)[1]
        if len(counts) < 2 or counts.min() < folds:
            raise ValueError(f"labels need at least 2 classes, each at least {folds} times, got {counts.tolist()}")
        many = features.shape[1] > MANY
        model = RidgeClassifier(alpha=features.shape[1]) if many else LogisticRegression(max_iter=1000)
        split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    else:
        if len(factor) < 2 * folds:
            raise ValueError(f"floats must be at least two a fold, here {2 * folds}, got {len(factor)}")
        if not (np.isfinite(factor).all() and np.ptp(factor, axis=0).all()):
            low, high = factor.min(axis=0), factor.max(axis=0)
            raise ValueError(f"floats must be finite and vary in each component, got values from {low} to {high}")
        model, split = RidgeCV(np.logspace(-2, 4, 7)), KFold(folds, shuffle=True, random_state=seed)
    return float(cross_val_score(make_pipeline(StandardScaler(), model), features, factor, cv=split).mean())
