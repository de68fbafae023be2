"""Linear probes: what a linear model reads off a code.

probe(z_s, identity)      # accuracy, of labels (N,)
probe(z_u, nuisance)      # R², of floats (N,) or (N, k)
"""

import numpy as np


def probe(code: np.ndarray, factor: np.ndarray, *, folds: int = 5, seed: int = 0) -> float:
    """How well a linear model reads a factor off codes (N, d), on samples it was not fitted on.

    Integer labels (N,): accuracy of logistic regression. Floats (N,) or (N, k): R² of ridge regression, mean over components;
    negative is worse than guessing the mean. Both with scikit-learn's own penalty, on codes scaled to variance 1, and mean over
    `folds`. Raises ValueError for codes that do not fit the factor, and if a label has fewer samples than there are folds.
    """
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    code, factor = np.asarray(code, dtype=np.float64), np.asarray(factor)
    if code.ndim != 2 or len(code) != len(factor):
        raise ValueError(f"codes must be (N, d) and the factor have as many rows, got {code.shape} and {factor.shape}")
    is_label = np.issubdtype(factor.dtype, np.integer)
    if is_label and (rarest := np.unique(factor, return_counts=True)[1].min()) < folds:
        raise ValueError(f"every label needs at least {folds} samples, one has {rarest}")
    split = (StratifiedKFold if is_label else KFold)(folds, shuffle=True, random_state=seed)
    model = LogisticRegression(max_iter=1000) if is_label else RidgeCV(np.logspace(-2, 4, 7))
    scores = cross_val_score(make_pipeline(StandardScaler(), model), code, factor, cv=split)
    return float(scores.mean())
