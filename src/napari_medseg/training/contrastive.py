"""What an encoder learns from images without labels: the losses of SuperCL.

After Xu et al. (IEEE TIP 35:1636, 2026; arXiv 2504.14737). Three losses, each a
supervised contrastive one (Khosla et al., NeurIPS 2020) with other positives:

* *instance*: two moved views of a window are alike, all other windows are not;
* *intra-image* (ILCP): places of one superpixel are alike, in both of the views that
  were not moved; all others of the same window are not;
* *inter-image* (IGCP): windows whose features, averaged over channels and superpixels,
  are nearest neighbours, and neighbours of these, are alike, too. Nothing of that
  grouping has a gradient.

What differs from the code that was published: superpixels are those of the unchanged
image, so that they can be kept; features of a finer stride can be compared, as an
object may be smaller than one of the coarsest; and the average over a superpixel is
divided by the superpixel's size, not by the image's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

BASE_TEMPERATURE = 0.07
"""Losses are scaled by the temperature as a share of this, as in the paper."""


def contrast(vectors: Tensor, positives: Tensor, temperature: float) -> Tensor:
    """Return the supervised contrastive loss with cosine similarity.

    For vector i with positives P(i), ``-(T / 0.07) / |P(i)|`` times the sum over P(i)
    of ``log(exp(s_ip / T) / sum of exp(s_ia / T) over all a but i)``; averaged over
    the vectors that have positives.

    Parameters
    ----------
    vectors : Tensor
        ``float32 (..., N, D)``.
    positives : Tensor
        ``bool (..., N, N)``; what is on the diagonal does not count.
    temperature : float
        T.

    Returns
    -------
    Tensor
        A single number.
    """
    unit = functional.normalize(vectors, dim=-1)
    similar = unit @ unit.mT / temperature
    itself = torch.eye(vectors.shape[-2], dtype=torch.bool, device=vectors.device)
    others = similar.masked_fill(itself, -torch.inf)
    shares = others - others.logsumexp(dim=-1, keepdim=True)
    positives = positives & ~itself
    counts = positives.sum(dim=-1)
    each = -shares.masked_fill(~positives, 0.0).sum(dim=-1) / counts.clamp(min=1)
    lonely = counts == 0
    mean = each.masked_fill(lonely, 0.0).sum() / (~lonely).sum().clamp(min=1)
    return temperature / BASE_TEMPERATURE * mean


def same_instance(positions: Tensor, share: float) -> Tensor:
    """Return which of 2B vectors are of one window, or of slices at one height.

    Parameters
    ----------
    positions : Tensor
        ``(B,)``, heights in stacks; NaN for what is no slice.
    share : float
        Heights that differ by less are the same; 0 for no such pairs.

    Returns
    -------
    Tensor
        ``bool (2B, 2B)``.
    """
    count = len(positions)
    one = torch.eye(count, dtype=torch.bool, device=positions.device)
    if share > 0:
        one = one | ((positions[:, None] - positions[None]).abs() < share)
    return one.repeat(2, 2)


def intra_image(
    grid: Tensor, labels: Tensor, points: int, temperature: float
) -> Tensor:
    """Return the loss that tells the superpixels of a window apart (ILCP).

    Parameters
    ----------
    grid : Tensor
        ``float32 (2B, D, h, w)``: features of the first views, then of the second.
    labels : Tensor
        ``int64 (B, h, w)``, superpixels.
    points : int
        Places that are compared, at most; drawn by torch's generator.
    temperature : float
        As in `contrast`.

    Returns
    -------
    Tensor
        A single number.
    """
    count, places = len(labels), labels[0].numel()
    chosen = torch.randperm(places)[:points].to(grid.device)
    flat = grid.flatten(2)[:, :, chosen].mT
    vectors = torch.cat([flat[:count], flat[count:]], dim=1)
    owners = labels.flatten(1)[:, chosen].repeat(1, 2)
    return contrast(vectors, owners[:, :, None] == owners[:, None], temperature)


def same_group(grid: Tensor, labels: Tensor) -> Tensor:
    """Return which of 2B views are alike by their superpixels (IGCP).

    Parameters
    ----------
    grid : Tensor
        ``float32 (2B, D, h, w)``: features of the first views, then of the second.
    labels : Tensor
        ``int64 (B, h, w)``, superpixels.

    Returns
    -------
    Tensor
        ``bool (2B, 2B)``: of one window, or of one connected component of the graph
        in which each view is linked to the one most similar.
    """
    maps = superpixel_means(grid.mean(dim=1), labels.repeat(2, 1, 1))
    groups = torch.from_numpy(linked(maps.flatten(1))).to(grid.device)
    alike = groups[:, None] == groups[None]
    nowhere = torch.full((len(labels),), torch.nan, device=grid.device)
    return alike | same_instance(nowhere, 0.0)


def joined_windows(alike: Tensor) -> Tensor:
    """Return how many other windows each is grouped with, on average.

    Parameters
    ----------
    alike : Tensor
        ``bool (2B, 2B)`` of `same_group`.

    Returns
    -------
    Tensor
        A single number, 0 where no windows are brought together.
    """
    return (alike.sum(dim=1) - 2).float().mean() / 2


def superpixel_means(values: Tensor, labels: Tensor) -> Tensor:
    """Replace each value by the mean over its superpixel (ASP).

    Parameters
    ----------
    values : Tensor
        ``float32 (N, h, w)``.
    labels : Tensor
        ``int64 (N, h, w)``, not negative.

    Returns
    -------
    Tensor
        ``float32 (N, h, w)``.
    """
    most = int(labels.max()) + 1
    apart = torch.arange(len(labels), device=labels.device).view(-1, 1, 1) * most
    owners = (labels + apart).flatten()
    sums = values.new_zeros(len(labels) * most).index_add(0, owners, values.flatten())
    sizes = torch.bincount(owners, minlength=len(sums))
    return (sums / sizes.clamp(min=1))[owners].view(values.shape)


def linked(vectors: Tensor) -> NDArray[np.int64]:
    """Group vectors: each is linked to its nearest other by cosine (CCL).

    Parameters
    ----------
    vectors : Tensor
        ``float32 (N, D)``, two or more.

    Returns
    -------
    ndarray
        ``int64 (N,)``, the connected component of each.
    """
    unit = functional.normalize(vectors, dim=1)
    similar = (unit @ unit.T).fill_diagonal_(-torch.inf)
    nearest = similar.argmax(dim=1).cpu().numpy()
    count = len(nearest)
    links = coo_array(
        (np.ones(count), (np.arange(count), nearest)), shape=(count, count)
    )
    _, groups = connected_components(links, directed=False)
    result: NDArray[np.int64] = groups.astype(np.int64)
    return result


def at_features(labels: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the superpixels at the centres of features.

    Parameters
    ----------
    labels : Tensor
        ``int64 (B, H, W)``.
    shape : tuple of int
        Rows and columns of the features.

    Returns
    -------
    Tensor
        ``int64 (B, h, w)``.
    """
    rows, columns = (
        ((torch.arange(small, device=labels.device) + 0.5) * large / small).long()
        for small, large in zip(shape, labels.shape[1:], strict=True)
    )
    return labels[:, rows[:, None], columns]


def fitting_stride(strides: Iterable[int], side: int) -> int:
    """Return the coarsest stride with two features across a superpixel.

    Parameters
    ----------
    strides : iterable of int
        Those that there are.
    side : int
        Side of a superpixel, in pixels.

    Returns
    -------
    int
        One of them; the finest where superpixels are smaller than any asks for.
    """
    there = sorted(strides)
    return max((each for each in there if 2 * each <= side), default=there[0])
