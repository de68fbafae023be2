"""How close generated pictures are to real ones, and how different from each other.

FID, KID and Inception Score with any feature network:

    real = extract(oracle.features, real_pictures)      # (N, D), once
    fake = extract(oracle.features, generated_pictures)
    fid(real, fake), kid(real, fake)

torchmetrics computes the scores. It is given features instead of pictures, so one pass of the network serves all of
them and no score depends on how torchmetrics scales pictures. MS-SSIM compares pictures pixel by pixel:

    diversity(pictures_of_each_class)   # (C, n, 3, H, W): 0 if every class has one picture
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from tutorial_lib.layers import seeded


class _Features(nn.Identity):
    """The "network" handed to torchmetrics: its inputs are features already."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features


@torch.inference_mode()
def extract(network: Callable[[Tensor], Tensor], pictures: Tensor | Iterable[Tensor], batch_size: int = 250) -> np.ndarray:
    """Features or logits (N, D), float32, of pictures (N, 3, H, W) in [-1, 1], or of an iterable of such batches.

    A module is run in eval mode on its own device and left in the mode it was in.
    """
    batches = pictures.split(batch_size) if isinstance(pictures, Tensor) else pictures
    is_module = isinstance(network, nn.Module)
    parameter = next(network.parameters(), None) if is_module else None
    modes = [(module, module.training) for module in network.modules()] if is_module else []
    if is_module:
        network.eval()
    try:
        outputs = []
        for batch in batches:
            features = network(batch if parameter is None else batch.to(parameter.device))
            if features.ndim != 2:
                raise ValueError(f"network must give features of shape (B, D), got {tuple(features.shape)}")
            outputs.append(features.float().cpu())
    finally:
        for module, training in modes:
            module.training = training
    if not outputs:
        raise ValueError("pictures is empty: no batch to extract features from")
    return torch.cat(outputs).numpy()


def fid(real: np.ndarray, fake: np.ndarray) -> float:
    """Fréchet distance between Gaussians fitted to two feature sets (N, D), (M, D) (Heusel et al. 2017). 0 is best.

    Biased upwards at small N: report it beside its floor, the FID of real pictures against other real pictures.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    real, fake = _pair(real, fake)
    metric = FrechetInceptionDistance(_Features(real.shape[1]))
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return float(metric.compute())


def kid(
    real: np.ndarray, fake: np.ndarray, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Squared MMD with the cubic kernel (Binkowski et al. 2018): mean and standard deviation over random subsets.

    Unbiased: about 0, on either side of it, for two samples of one distribution. Raises ValueError when a subset is
    larger than a sample.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    real, fake = _pair(real, fake)
    if not 2 <= subset_size <= min(len(real), len(fake)):
        raise ValueError(
            f"subset_size must lie between 2 and the number of samples, got {subset_size} "
            f"with {len(real)} real and {len(fake)} fake"
        )
    with _quiet_seeded(seed):
        metric = KernelInceptionDistance(_Features(real.shape[1]), subsets=subsets, subset_size=subset_size)
        metric.update(real, real=True)
        metric.update(fake, real=False)
        mean, std = metric.compute()
    return float(mean), float(std)


def inception_score(logits: np.ndarray, *, splits: int = 10, seed: int = 0) -> tuple[float, float]:
    """exp E[KL(p(y|x) || p(y))] of a classifier's logits (N, K): mean and standard deviation over splits of the sample.

    Between 1 (every picture gets the same posterior) and K (confident and evenly spread) (Salimans et al. 2016). Of few
    pictures it is too low: n in a split cannot score more than n, and 500 in a split, evenly spread over 40 classes, score
    about 38. Compare scores of equal N. The last N mod `splits` pictures are left out, so that all splits are equal.

    Raises ValueError unless each split has at least two pictures.
    """
    from torchmetrics.image.inception import InceptionScore

    logits = _features(logits, "logits")
    if not 1 <= splits <= len(logits) // 2:
        raise ValueError(f"splits must lie between 1 and half the number of samples ({len(logits)}), got {splits}")
    logits = logits[: len(logits) // splits * splits]
    # A class that underflows to probability 0 in a whole split would give 0 * log 0 = NaN.
    logits = (logits - logits.max(dim=1, keepdim=True).values).clamp(min=-500)
    with _quiet_seeded(seed):
        metric = InceptionScore(_Features(logits.shape[1]), splits=splits)
        metric.update(logits)
        mean, std = metric.compute()
    return float(mean), float(std) if splits > 1 else 0.0


# The finer of the five scales of Wang et al. 2003 and their weights, scaled to the same sum: a picture of 64 pixels a side is
# smaller than the coarser two need.
_SCALES = {1: (1.0,), 2: (0.1356, 0.8644), 3: (0.0710, 0.4530, 0.4760)}


def ms_ssim(one: Tensor, other: Tensor) -> Tensor:
    """Multi-scale structural similarity of pairs of pictures (N, 3, H, W) in [-1, 1], (N,) in [0, 1]; 1 for equal ones.

    Over three scales from 48 pixels a side on, over two from 24, else over one. Raises ValueError below 12.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as similarity

    if one.shape != other.shape or one.ndim != 4:
        raise ValueError(f"pairs must be two (N, 3, H, W), got {tuple(one.shape)} and {tuple(other.shape)}")
    side = min(one.shape[-2:])
    if side < 12:
        raise ValueError(f"pictures must be at least 12 pixels a side, got {tuple(one.shape[-2:])}")
    scales = 3 if side >= 48 else 2 if side >= 24 else 1
    pictures = ((x.as_subclass(Tensor).float() + 1) / 2 for x in (one, other))
    parts = zip(*(x.split(250) for x in pictures), strict=True)
    found = [similarity(*part, data_range=1.0, betas=_SCALES[scales], reduction="none", normalize="relu") for part in parts]
    return torch.cat(found)


def diversity(pictures: Tensor) -> float:
    """Mean of 1 − MS-SSIM over all pairs of one class, mean over the classes; pictures (C, n, 3, H, W) in [-1, 1].

    0 if a class has one picture, towards 1 if its pictures have nothing in common. The mean negative MS-SSIM of Ben-Yosef and
    Weinshall 2018, moved by 1. Raises ValueError if there are no two pictures of a class.
    """
    if pictures.ndim != 5 or pictures.shape[1] < 2:
        raise ValueError(f"pictures must be (classes, at least 2, 3, H, W), got {tuple(pictures.shape)}")
    a, b = torch.triu_indices(pictures.shape[1], pictures.shape[1], offset=1)
    return float(1 - torch.stack([ms_ssim(of_class[a], of_class[b]).mean() for of_class in pictures]).mean())


def _features(values: np.ndarray, name: str) -> Tensor:
    features = torch.as_tensor(values).double()
    if features.ndim != 2:
        raise ValueError(f"{name} must have shape (N, D), got {tuple(features.shape)}")
    if len(features) < 2:
        raise ValueError(f"{name} needs at least 2 samples, got {len(features)}")
    bad = (~features.isfinite()).any(dim=1)
    if bad.any():
        raise ValueError(f"{name} has NaN or infinite values in {int(bad.sum())} of {len(features)} samples")
    return features


def _pair(real: np.ndarray, fake: np.ndarray) -> tuple[Tensor, Tensor]:
    real, fake = _features(real, "real"), _features(fake, "fake")
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"real and fake must come from one network, got {real.shape[1]} and {fake.shape[1]} features")
    return real, fake


@contextmanager
def _quiet_seeded(seed: int) -> Iterator[None]:
    """torchmetrics draws subsets from torch's global generator, and warns that it stores features."""
    with warnings.catch_warnings(), seeded(seed):
        warnings.simplefilter("ignore", UserWarning)
        yield
