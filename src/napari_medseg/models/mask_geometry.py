"""Where masks lie and what is on them, all masks of a prompt at once.

Masks are ``(M, h, w)``, places are rows and columns, in cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def grown(masks: Tensor, cells: int) -> Tensor:
    """Return masks ``bool (M, h, w)`` with all cells that are so near to them."""
    for axis in (1, 2):
        reach = 0
        while reach < cells:
            # what has grown in both directions may jump as far as it is wide
            step = min(2 * reach + 1, cells - reach)
            wide, length = masks.clone(), masks.shape[axis]
            rest = max(0, length - step)
            ahead, behind = masks.narrow(axis, 0, rest), masks.narrow(axis, step, rest)
            wide.narrow(axis, step, rest).logical_or_(ahead)
            wide.narrow(axis, 0, rest).logical_or_(behind)
            masks, reach = wide, reach + step
    return masks


def means_of(values: Tensor, masks: Tensor) -> Tensor:
    """Return the mean of each of ``float (M, h, w)`` on its mask, ``(M,)``."""
    flat = masks.float().flatten(1)
    total = torch.bmm(values.flatten(1)[:, None], flat[:, :, None])[:, 0, 0]
    return total / flat.sum(dim=1).clamp(min=1)


def means_by_look(layers: Tensor, masks: Tensor, look: Tensor) -> Tensor:
    """Return means of layers ``(L, C, h, w)`` on the masks of each look, ``(M, C)``.

    ``look``, ``int64 (M,)``, says which is each mask's; masks are in their order.
    """
    flat = masks.float().flatten(1)
    counts = torch.bincount(look, minlength=len(layers)).tolist()
    parts = zip(flat.split(counts), layers.flatten(2), strict=True)
    total = torch.cat([part @ layer.T for part, layer in parts])
    return total / flat.sum(dim=1).clamp(min=1)[:, None]


def corners_of(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return first and last row and column of masks, ``float32 (M, 2)`` each.

    Of an empty mask the last ones lie before the first ones.
    """
    size = masks.shape[-1]
    lines = torch.stack([masks.amax(dim=2), masks.amax(dim=1)], dim=1)
    there = lines.amax(dim=2) > 0
    low = lines.argmax(dim=2).float()
    high = size - 1 - lines.flip(2).argmax(dim=2).float()
    return low, torch.where(there, high, low - 1)


def moments_of(masks: Tensor, area: Tensor) -> tuple[Tensor, Tensor]:
    """Return the middle of masks, ``(M, 2)``, and their spread, ``(M, 3)``.

    The spread is the variance of rows, that of columns, and their covariance.
    """
    index = torch.arange(masks.shape[-1], dtype=torch.float32)
    total = area.clamp(min=1)
    rows, columns = masks.sum(dim=2), masks.sum(dim=1)
    middle = torch.stack([rows @ index, columns @ index], dim=1) / total[:, None]
    squares = torch.stack([rows @ index**2, columns @ index**2], dim=1)
    product = torch.einsum("mij,i,j->m", masks, index, index) / total
    spread = squares / total[:, None] - middle**2
    covariance = product - middle.prod(dim=1)
    return middle, torch.cat([spread, covariance[:, None]], dim=1)


def values_at(masks: Tensor, places: Tensor) -> Tensor:
    """Return the values of masks at places ``(M, P, 2)``: ``(M, P)``."""
    near = places.round().long().clamp(0, masks.shape[-1] - 1)
    index = torch.arange(len(masks))[:, None]
    return masks[index, near[..., 0], near[..., 1]]


def distances(place: Tensor, cells: Tensor) -> Tensor:
    """Return how far places ``(M, 2)`` are from cells ``bool (M, h, w)``.

    The farthest that can be where there are none.
    """
    size = cells.shape[-1]
    index = torch.arange(size, dtype=torch.float32)
    rows, columns = ((index - place[:, axis, None]) ** 2 for axis in (0, 1))
    squares = rows[:, :, None] + columns[:, None]
    squares = squares.masked_fill(~cells, 2.0 * size**2)
    return squares.amin(dim=(1, 2)).sqrt()
