import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score

from tutorial_lib.metrics.control import ControlMatrix, control_matrix, pose_scores

N = 800


@pytest.fixture(scope="module")
def perfect() -> ControlMatrix:
    """Every factor is its code: labels renamed, pose a smooth bend of z."""
    rng = np.random.default_rng(0)
    b, p, z = rng.integers(5, size=N), rng.integers(3, size=N), rng.normal(size=(N, 4)).astype(np.float32)
    pose = np.tanh(z[:, :2] + z[:, 2:])
    return control_matrix({"b": b, "p": p, "z": z}, {"background": (b + 2) % 5, "shape": 2 - p, "pose": pose})


def test_a_disentangled_generator_has_ones_on_the_diagonal(perfect):
    assert perfect.diagonal[:2] == pytest.approx([1, 1])
    assert perfect["z", "pose"] > 0.95


def test_a_disentangled_generator_has_zeros_off_the_diagonal(perfect):
    assert perfect.leak() < 0.05


def test_leak_counts_only_the_rows_named():
    matrix = ControlMatrix(np.array([[1.0, 0.2, 0.1], [0.3, 1.0, 0.9]]), ("b", "p"), ("background", "shape", "flip"))
    assert (matrix.leak(["b"]), matrix.leak()) == (0.2, 0.9)


def test_an_entry_is_named_by_row_and_column():
    matrix = ControlMatrix(np.array([[1.0, 0.25]]), ("b",), ("background", "shape"))
    assert matrix["b", "shape"] == 0.25
    with pytest.raises(KeyError, match="'hue' is not one of background, shape"):
        matrix["b", "hue"]


def test_label_by_label_is_normalised_mutual_information():
    rng = np.random.default_rng(0)
    code, factor = rng.integers(4, size=N), rng.integers(4, size=N)
    factor = np.where(rng.random(N) < 0.6, code, factor)
    entry = control_matrix({"b": code}, {"background": factor})["b", "background"]
    assert entry == pytest.approx(normalized_mutual_info_score(code, factor))


def test_label_by_continuous_is_the_share_of_variance_between_classes():
    """Class means 0 and 2 under unit noise: 1 of 2 parts of the variance; a second component is noise: 0."""
    rng = np.random.default_rng(0)
    code = rng.integers(2, size=4000)
    pose = np.stack([2.0 * code, 0.0 * code], axis=1) + rng.normal(size=(4000, 2))
    assert control_matrix({"p": code}, {"pose": pose})["p", "pose"] == pytest.approx(0.25, abs=0.02)


def test_a_vector_that_decides_a_label_controls_it():
    z = np.random.default_rng(0).normal(size=(N, 3))
    flip = (z[:, 0] > 0).astype(int)
    assert control_matrix({"z": z}, {"flip": flip})["z", "flip"] > 0.7


@pytest.mark.parametrize("constant", [np.zeros(N, dtype=int), np.ones((N, 2))], ids=["label", "continuous"])
def test_a_factor_that_never_changes_is_controlled_by_nothing(constant):
    rng = np.random.default_rng(0)
    matrix = control_matrix({"b": rng.integers(3, size=N), "z": rng.normal(size=(N, 2))}, {"factor": constant})
    assert (matrix.values == 0).all()


def test_pose_scores_are_r2_by_name_with_accuracy_for_a_flip():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2000, 3))
    half_noise = z[:, 1] + rng.normal(size=2000)
    pose = np.stack([z[:, 0] > 0, z[:, 2], half_noise, rng.normal(size=2000)], axis=1)
    scores = pose_scores(z, pose, ["flip", "x", "y", "head"])
    assert scores["flip"] > 0.93
    assert scores["x"] > 0.97
    assert scores["y"] == pytest.approx(0.5, abs=0.08)
    assert scores["head"] < 0.02


def test_codes_and_factors_of_different_length_are_refused():
    with pytest.raises(ValueError, match="one length, got {'b': 5, 'shape': 6}"):
        control_matrix({"b": np.zeros(5, int)}, {"shape": np.zeros(6, int)})


def test_a_float_vector_without_components_is_refused():
    with pytest.raises(ValueError, match=r"'pose' must be integer labels \(N,\) or floats \(N, d\), got float64 \(9,\)"):
        control_matrix({"b": np.zeros(9, int)}, {"pose": np.zeros(9)})


def test_nan_in_a_factor_is_named():
    with pytest.raises(ValueError, match="'pose' has NaN"):
        control_matrix({"b": np.zeros(9, int)}, {"pose": np.full((9, 2), np.nan)})


def test_pose_needs_a_name_for_each_component():
    with pytest.raises(ValueError, match=r"name the 2 components of pose, got \['x'\]"):
        pose_scores(np.zeros((9, 2)), np.zeros((9, 2)), ["x"])
