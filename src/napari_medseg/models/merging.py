"""From attention maps to segments: maps that are alike are merged.

DiffSeg (Tian et al., CVPR 2024, sections 3.3 and 3.4): a map of self-attention is a
distribution over the image. The maps at a grid of anchors, each averaged with all that
are near it, are proposals; proposals near each other become one; each pixel then
belongs to the proposal that is highest there. Near is a symmetric Kullback-Leibler
divergence below τ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from napari_medseg.models.attention_maps import TINY

if TYPE_CHECKING:
    from torch import Tensor

AT_ONCE = 16
"""Proposals that are brought to the size of the image at a time."""


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Return how far distributions are from each other.

    D(p, q) = ½ [KL(p‖q) + KL(q‖p)] = ½ Σ (p - q)(log p - log q), for all pairs at once
    by products of matrices: ½ [h(p) + h(q) - p·log q - q·log p] with h(p) = Σ p log p.

    Parameters
    ----------
    first, second : Tensor
        ``float32 (N, D)`` and ``(M, D)``; rows with a sum of 1.

    Returns
    -------
    Tensor
        ``float32 (N, M)``, not negative.
    """
    one, other = first + TINY, second + TINY
    log_one, log_other = one.log(), other.log()
    within = (one * log_one).sum(dim=1)[:, None] + (other * log_other).sum(dim=1)
    across = one @ log_other.T + log_one @ other.T
    return (within - across).mul_(0.5).clamp_min_(0)


def anchors(grid: int, side: int) -> Tensor:
    """Return the positions of a grid of anchors.

    Parameters
    ----------
    grid : int
        Positions along a side of the image.
    side : int
        Anchors along a side; all positions where there are not more.

    Returns
    -------
    Tensor
        ``int64 (M²,)``, indices into the ``grid²`` positions, row by row.
    """
    count = min(grid, side)
    line = ((torch.arange(count) + 0.5) * grid / count).long()
    return (line[:, None] * grid + line).flatten()


def proposed(maps: Tensor, near: Tensor, tau: float) -> Tensor:
    """Average, for each anchor, all maps that are near it.

    Parameters
    ----------
    maps : Tensor
        ``float32 (N, D)``.
    near : Tensor
        ``float32 (A, N)``, distances of the anchors' maps to all.
    tau : float
        How far is near.

    Returns
    -------
    Tensor
        ``float32 (A, D)``. An anchor is always near itself.
    """
    chosen = (near < tau).to(maps.dtype)
    return (chosen @ maps) / chosen.sum(dim=1, keepdim=True).clamp_min(1)


def merged(proposals: Tensor, tau: float) -> Tensor:
    """Merge proposals that are near each other: one round, the first ones first.

    Parameters
    ----------
    proposals : Tensor
        ``float32 (N, D)``.
    tau : float
        How far is near.

    Returns
    -------
    Tensor
        ``float32 (K, D)``: the mean of all that are near the first that is not merged
        yet, then near the next, and so on.
    """
    near = distances(proposals, proposals) < tau
    near.fill_diagonal_(True)  # also where τ is 0
    left = torch.ones(len(proposals), dtype=torch.bool, device=proposals.device)
    found = []
    while left.any():
        group = near[int(left.int().argmax())]
        left &= ~group
        found.append(proposals[group].mean(dim=0))
    return torch.stack(found)


def refined(maps: Tensor, proposals: Tensor, rounds: int = 10) -> Tensor:
    """Move proposals to the means of the maps nearest to them: k-means.

    Parameters
    ----------
    maps : Tensor
        ``float32 (N, D)``.
    proposals : Tensor
        ``float32 (K, D)``, where it begins.
    rounds : int
        At most; it ends where nothing changes.

    Returns
    -------
    Tensor
        ``float32 (K, D)``; a proposal that no map is nearest to stays as it is.
    """
    before: Tensor | None = None
    for _ in range(rounds):
        # of the squared distance, what differs between proposals
        far = proposals.square().sum(dim=1) - 2 * (maps @ proposals.T)
        nearest = far.argmin(dim=1)
        if before is not None and torch.equal(nearest, before):
            break
        before = nearest
        sums = torch.zeros_like(proposals).index_add_(0, nearest, maps)
        count = torch.bincount(nearest, minlength=len(proposals))[:, None]
        proposals = torch.where(count > 0, sums / count.clamp_min(1), proposals)
    return proposals


def segmented(proposals: Tensor, grid: int, shape: tuple[int, int]) -> Tensor:
    """Give each pixel to the proposal that is highest there.

    Parameters
    ----------
    proposals : Tensor
        ``float32 (K, grid²)``.
    grid : int
        Positions along a side.
    shape : tuple of int
        Rows and columns of the result, which shows the same as the grid.

    Returns
    -------
    Tensor
        ``int64`` of this shape, from 0; of equal proposals the first.
    """
    best = torch.full(shape, -1.0, device=proposals.device)
    number = torch.zeros(shape, dtype=torch.int64, device=proposals.device)
    for start in range(0, len(proposals), AT_ONCE):
        part = proposals[start : start + AT_ONCE].view(1, -1, grid, grid)
        finer = functional.interpolate(
            part, size=shape, mode="bilinear", align_corners=False
        )[0]
        value, place = finer.max(dim=0)
        higher = value > best
        best = torch.where(higher, value, best)
        number = torch.where(higher, place + start, number)
    return number
