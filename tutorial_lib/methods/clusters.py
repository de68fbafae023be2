"""What real pictures say about an object's codes, without a label: they are sorted by colour into children, those into parents.

    m = S(x)                 the object cut out, by a U-Net that learns from generated pictures and their masks
    h = colours of x m       a histogram; k-means on the square roots of its shares finds the children
    m -> child               learnt and not learnable beyond the species: children whose silhouettes are taken for each
                             other's have one parent

FineGAN's readers Q_p and Q_c may then learn from real pictures which codes there are to tell apart (Ojha et al. 2020,
"Elastic-InfoGAN", learn theirs from real pictures too, in another way; Liu et al. 2020, "Diverse Image Generation via
Self-Conditioned GANs", sort real pictures into classes for a GAN).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.layers import UNet

SURE = 0.7  # a mask above it is object


class ObjectClusters(nn.Module):
    """Cuts objects out of pictures (B, 3, H, W) in [-1, 1] and sorts them into children.

    `centres` (N_c, bins³) are the children's square roots of colour shares; zeros until they are found.
    """

    def __init__(self, n_children: int, widths: tuple[int, ...], bins: int = 5):
        super().__init__()
        self.bins = bins
        self.segmenter = UNet(widths)
        self.register_buffer("centres", torch.zeros(n_children, bins**3))

    @torch.no_grad()
    def cut_out(self, images: Tensor) -> Tensor:
        """Masks (B, 1, H, W) in [0, 1] of the objects."""
        return self.segmenter(images).float()

    def colours(self, images: Tensor, masks: Tensor) -> Tensor:
        """Square roots of the shares of the object's pixels (mask above `SURE`) in each of bins³ colours, (B, bins³).

        Their Euclidean distance is Hellinger's; an empty mask has no colours: zeros.
        """
        cell = ((images.float() + 1) / 2 * self.bins).long().clamp(0, self.bins - 1)
        cell = (cell[:, 0] * self.bins + cell[:, 1]) * self.bins + cell[:, 2]
        counts = torch.zeros(len(images), self.bins**3, device=images.device)
        counts.scatter_add_(1, cell.flatten(1), (masks > SURE).float().flatten(1))
        return (counts / counts.sum(1, keepdim=True).clamp(min=1)).sqrt()

    def finds(self, masks: Tensor) -> Tensor:
        """Whether there is an object in each mask, (B,)."""
        return (masks > SURE).flatten(1).any(1)

    def child(self, images: Tensor, masks: Tensor) -> Tensor:
        """The child (B,) int64 of each object: that with the nearest centre. ValueError if no centres were found yet."""
        if not self.centres.any():
            raise ValueError(
                "no pictures were sorted yet: train finegan_clusters to its end, and start from the model that it saves"
            )
        return torch.cdist(self.colours(images, masks), self.centres).argmin(1)


def segmentation_loss(segmenter: nn.Module, images: Tensor, masks: Tensor) -> Tensor:
    """Binary cross entropy of generated masks read off generated pictures, whose colours and contrast are changed at random.

    With its own colours a generator's pictures are told by their style, and the longer S learns the less it finds real objects.
    """
    n, device = len(images), images.device
    images = images[:, torch.randperm(3, device=device)]
    images = images * (0.6 + 0.8 * torch.rand(n, 1, 1, 1, device=device)) + 0.4 * (torch.rand(n, 3, 1, 1, device=device) - 0.5)
    found = segmenter(images + 0.05 * torch.randn_like(images))
    with torch.autocast(images.device.type, enabled=False):
        return F.binary_cross_entropy(found.float(), (masks > 0.5).float())


def k_means(colours: Tensor, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """n centres (n, d) of colours (N, d), and each one's cluster (N,)."""
    from sklearn.cluster import KMeans

    fitted = KMeans(n, n_init=20, random_state=seed).fit(colours.cpu().numpy())
    return torch.from_numpy(fitted.cluster_centers_).float(), torch.from_numpy(fitted.labels_).long()


def families(confusion: np.ndarray, sizes: list[int], seed: int = 0) -> np.ndarray:
    """Which of len(sizes) groups each of n classes belongs to, (n,); group g gets sizes[g] of them.

    confusion (n, n): row i is how the objects of class i are read, shares that sum to 1. Spectral clustering finds groups of
    classes that are read alike; an assignment then gives each group as many as it has room for.
    """
    from sklearn.cluster import SpectralClustering

    if sum(sizes) != len(confusion):
        raise ValueError(f"sizes must sum to the number of classes, {len(confusion)}, got {sizes}")
    alike = confusion @ confusion.T + 1e-6  # the graph stays connected where nothing is confused
    group = SpectralClustering(len(sizes), affinity="precomputed", random_state=seed).fit_predict(alike)
    # A group takes the place of a family that has its rank in size.
    rank = np.empty(len(sizes), dtype=int)
    rank[np.argsort(np.bincount(group, minlength=len(sizes)), kind="stable")] = np.argsort(sizes, kind="stable")
    group = rank[group]
    # Nothing is close to a group that came out empty.
    closeness = np.stack([alike[:, group == g].sum(1) / max(1, (group == g).sum()) for g in range(len(sizes))], 1)
    room = np.repeat(np.arange(len(sizes)), sizes)
    return room[in_order(closeness[:, room])]


def in_order(agreement: np.ndarray) -> np.ndarray:
    """For each row the column (a permutation) that agrees best, over all rows together; agreement is (n, n)."""
    from scipy.optimize import linear_sum_assignment

    return linear_sum_assignment(agreement, maximize=True)[1]
