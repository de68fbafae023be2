"""The control matrix: which code decides which factor of the picture.

Rows are codes, columns are factors read off the generated pictures, entries say how much the one determines the
other, from 0 (nothing) to 1 (completely). Codes are sampled untied. A disentangled generator has ones on the diagonal
and zeros off it.

| code       | factor     | entry                                                                        |
|------------|------------|------------------------------------------------------------------------------|
| label      | label      | normalised mutual information                                                |
| label      | continuous | R² of the class means, averaged over components                              |
| continuous | continuous | R² of kernel ridge regression, averaged over components                      |
| continuous | label      | normalised mutual information of the label and kernel ridge's guess of it    |

Whatever is fitted is fitted on one half of the samples and scored on the other, then the other way round.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tutorial_lib.metrics.clustering import nmi


@dataclass(frozen=True)
class ControlMatrix:
    """Entries (R, C) in [0, 1] with their names: `matrix["b", "background"]`."""

    values: np.ndarray
    rows: tuple[str, ...]
    columns: tuple[str, ...]

    def __getitem__(self, entry: tuple[str, str]) -> float:
        row, column = entry
        for name, names in ((row, self.rows), (column, self.columns)):
            if name not in names:
                raise KeyError(f"{name!r} is not one of {', '.join(names)}")
        return float(self.values[self.rows.index(row), self.columns.index(column)])

    @property
    def diagonal(self) -> np.ndarray:
        """Entries of the first row and column, the second, and so on: codes and factors must be given in one order."""
        return np.diagonal(self.values).copy()

    def leak(self, rows: Sequence[str] | None = None) -> float:
        """Largest entry off the diagonal, in all rows or in those named."""
        rows = self.rows if rows is None else rows
        return max(self[r, c] for r in rows for j, c in enumerate(self.columns) if j != self.rows.index(r))


def control_matrix(codes: Mapping[str, np.ndarray], factors: Mapping[str, np.ndarray], *, seed: int = 0) -> ControlMatrix:
    """How much every code determines every factor, from N samples of both.

    Codes and factors are integer labels (N,) or floats (N, d). A factor that never changes is controlled by nothing: 0.
    """
    codes = {name: _checked(name, values) for name, values in codes.items()}
    factors = {name: _checked(name, values) for name, values in factors.items()}
    lengths = {name: len(values) for name, values in (codes | factors).items()}
    if not codes or not factors:
        raise ValueError(f"needs at least one code and one factor, got {len(codes)} and {len(factors)}")
    if len(set(lengths.values())) > 1:
        raise ValueError(f"codes and factors must have one length, got {lengths}")
    if min(lengths.values()) < 4:
        raise ValueError(f"needs at least 4 samples to fit on one half and score on the other, got {lengths}")

    rows = []
    for code in codes.values():
        is_label = {name: factor.ndim == 1 for name, factor in factors.items()}
        targets = {name: _one_hot(factor) if is_label[name] else factor for name, factor in factors.items()}
        guesses = _cross_predict(code, targets, seed)
        row = []
        for name, factor in factors.items():
            if is_label[name]:
                row.append(nmi(code if code.ndim == 1 else guesses[name].argmax(axis=1), factor))
            else:
                row.append(max(0.0, _r2(factor, guesses[name]).mean()))
        rows.append(row)
    return ControlMatrix(np.array(rows), tuple(codes), tuple(factors))


def pose_scores(z: np.ndarray, pose: np.ndarray, names: Sequence[str], *, seed: int = 0) -> dict[str, float]:
    """How well z (N, d) explains each component of pose (N, k), on samples that were not fitted.

    R² (not clipped: negative is worse than guessing the mean); for a component of zeros and ones, accuracy:
    guessing gets the share of the commoner value.
    """
    z, pose = _checked("z", z), _checked("pose", pose)
    if z.ndim != 2 or pose.ndim != 2 or len(z) != len(pose):
        raise ValueError(f"z and pose must be float (N, d) and (N, k), got {z.shape} and {pose.shape}")
    if len(names) != pose.shape[1]:
        raise ValueError(f"names must name the {pose.shape[1]} components of pose, got {list(names)}")
    guess = _cross_predict(z, {"pose": pose}, seed)["pose"]
    scores = _r2(pose, guess)
    binary = np.isin(pose, (0, 1)).all(axis=0)
    accuracy = ((guess > 0.5) == (pose > 0.5)).mean(axis=0)
    return {name: float(accuracy[i] if binary[i] else scores[i]) for i, name in enumerate(names)}


def _cross_predict(code: np.ndarray, targets: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Held-out guesses of every target (N, k) from a code: class means of a label, kernel ridge of a vector."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.linear_model import LinearRegression
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if code.ndim == 1:
        inputs, model = _one_hot(code), LinearRegression()
    else:
        # On random two-layer networks of 16 to 64 inputs this explains more than an MLP does, in a third of the time.
        inputs = code
        model = make_pipeline(StandardScaler(), KernelRidge(kernel="rbf", gamma=0.25 / code.shape[1], alpha=0.1))
    together = np.concatenate(list(targets.values()), axis=1)
    centred = TransformedTargetRegressor(model, transformer=StandardScaler(with_std=False))
    halves = KFold(2, shuffle=True, random_state=seed)
    guesses = cross_val_predict(centred, inputs, together, cv=halves).reshape(together.shape)
    widths = [target.shape[1] for target in targets.values()]
    return dict(zip(targets, np.split(guesses, np.cumsum(widths)[:-1], axis=1), strict=True))


def _r2(truth: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """R² of each column; 0 for a column that does not vary."""
    spread = truth.var(axis=0)
    error = ((truth - guess) ** 2).mean(axis=0)
    varies = np.ptp(truth, axis=0) > 0
    return np.where(varies, 1 - error / np.where(varies, spread, 1), 0.0)


def _one_hot(labels: np.ndarray) -> np.ndarray:
    values, index = np.unique(labels, return_inverse=True)
    return np.eye(len(values))[index]


def _checked(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    kind = values.dtype.kind
    if (values.ndim, kind in "iub") != (1, True) and (values.ndim, kind) != (2, "f"):
        raise ValueError(f"{name!r} must be integer labels (N,) or floats (N, d), got {values.dtype} {values.shape}")
    if kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"{name!r} has NaN or infinite values")
    return values.astype(np.float64) if kind == "f" else values
