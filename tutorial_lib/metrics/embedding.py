"""Features in the plane, by t-SNE or UMAP."""

import numpy as np


def embed(features: np.ndarray, method: str = "tsne", seed: int = 0) -> np.ndarray:
    """Points (N, 2) of features (N, D) by "tsne" or "umap". Distances between far groups mean nothing in either."""
    features = np.asarray(features, dtype=np.float32)
    if features.ndim != 2 or len(features) < 5 or not np.isfinite(features).all():
        raise ValueError(f"features must be finite, (N, D) with N at least 5, got shape {features.shape}")
    if not np.ptp(features, axis=0).any():  # scikit-learn's t-SNE would end the process
        raise ValueError("all features are equal: there is nothing to lay out")
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(features) - 1) / 3)
        return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(features)
    if method == "umap":
        from umap import UMAP

        # One job is what makes UMAP repeatable; said here, it does not warn.
        return UMAP(n_neighbors=min(15, len(features) - 1), random_state=seed, n_jobs=1).fit_transform(features)
    raise ValueError(f'method must be "tsne" or "umap", got {method!r}')
