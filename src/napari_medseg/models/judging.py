"""What a mask has to do with the prompt that asked for it.

Of the masks that a SAM offers, the better ones fill the box that was drawn (a box is
drawn tightly: Lempitsky et al., ICCV 2009), obey the clicks, have a sure outline and
do not end where the window ends.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    Mask: TypeAlias = NDArray[np.bool_]

Corners: TypeAlias = tuple[int, int, int, int]
"""Top, left, bottom and right of a box, pixels that are still inside."""

SLACK = 0.05
"""A mask may leave its box by so much of the box's sides."""


def stability(logits: Tensor, offset: float) -> Tensor:
    """Return how little masks change when the threshold moves.

    Parameters
    ----------
    logits : Tensor
        ``(N, h, w)``.
    offset : float
        How far the threshold, 0, moves up and down.

    Returns
    -------
    Tensor
        ``float32 (N,)``, IoU of the masks above ``offset`` and above ``-offset``; 0
        for empty ones.
    """
    flat = logits.flatten(1)
    inner = (flat > offset).count_nonzero(dim=1)
    outer = (flat > -offset).count_nonzero(dim=1)
    # the inner mask is part of the outer one
    return inner / outer.clamp(min=1)


def inside(mask: Mask, box: Corners) -> Mask:
    """Return a mask without what is outside a box.

    Parameters
    ----------
    mask : ndarray
        ``bool (Y, X)``.
    box : tuple of int
        The box; the mask may leave it by `SLACK` of its sides.

    Returns
    -------
    ndarray
        ``bool (Y, X)``.
    """
    top, left, bottom, right = box
    down = math.ceil(SLACK * (bottom - top + 1))
    across = math.ceil(SLACK * (right - left + 1))
    rows = slice(max(0, top - down), max(0, bottom + 1 + down))
    columns = slice(max(0, left - across), max(0, right + 1 + across))
    kept = np.zeros_like(mask)
    kept[rows, columns] = mask[rows, columns]
    return kept


def meant(
    mask: Mask,
    on: Sequence[tuple[int, int]] = (),
    off: Sequence[tuple[int, int]] = (),
) -> Mask:
    """Return the connected parts of a mask that were meant, without their holes.

    Parameters
    ----------
    mask : ndarray
        ``bool (Y, X)``.
    on, off : sequence of tuple of int
        Row and column of the clicks on the object, and of those beside it.

    Returns
    -------
    ndarray
        ``bool (Y, X)``: the parts that were clicked, or the largest if none was. A
        hole stays where somebody clicked that it does not belong to the object.
    """
    if not mask.any():
        return mask
    top, left, bottom, right = corners_of(mask)
    place = slice(top, bottom + 1), slice(left, right + 1)
    on, off = (
        [
            (row - top, column - left)
            for row, column in clicks
            if top <= row <= bottom and left <= column <= right
        ]
        for clicks in (on, off)
    )
    found = np.zeros_like(mask)
    found[place] = _without_holes(_parts_at(mask[place], on), off)
    return found


def _parts_at(mask: Mask, places: Sequence[tuple[int, int]]) -> Mask:
    """Return the connected parts of a mask at some places, or the largest."""
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    wanted = {int(parts[place]) for place in places} - {0}
    if not wanted:
        area = np.bincount(parts.ravel())
        area[0] = 0
        wanted = {int(area.argmax())}
    return _chosen(parts, count, wanted)


def _without_holes(mask: Mask, places: Sequence[tuple[int, int]]) -> Mask:
    """Fill the holes of a mask, but for those at some places."""
    # with a margin, all that is outside hangs together
    spaces, count = ndimage.label(np.pad(~mask, 1, constant_values=True))
    if count < 2:
        return mask
    outside = {int(spaces[0, 0])}
    kept = {int(spaces[row + 1, column + 1]) for row, column in places} - {0}
    return ~_chosen(spaces, count, outside | kept)[1:-1, 1:-1]


def _chosen(parts: NDArray[np.int32], count: int, numbers: set[int]) -> Mask:
    """Return where parts have one of some numbers."""
    table = np.zeros(count + 1, bool)
    table[list(numbers)] = True
    return table[parts]


def corners_of(mask: Mask) -> Corners:
    """Return the box round a mask that is not empty."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1]), int(columns[-1])


def filling(mask: Mask, box: Corners) -> float:
    """Return how well a mask fills a box.

    Parameters
    ----------
    mask : ndarray
        ``bool (Y, X)``.
    box : tuple of int
        What was drawn.

    Returns
    -------
    float
        IoU of the box and the box round the mask; 0 for an empty mask.
    """
    if not mask.any():
        return 0.0
    own = corners_of(mask)
    height = min(own[2], box[2]) - max(own[0], box[0]) + 1
    width = min(own[3], box[3]) - max(own[1], box[1]) + 1
    both = max(0, height) * max(0, width)
    return both / (_area(own) + _area(box) - both)


def _area(box: Corners) -> int:
    """Return the pixels in a box."""
    top, left, bottom, right = box
    return (bottom - top + 1) * (right - left + 1)


def obeying(
    mask: Mask, clicks: Sequence[tuple[int, int]], adds: Sequence[bool]
) -> float:
    """Return the share of clicks that a mask obeys; 1 where there are none.

    Parameters
    ----------
    mask : ndarray
        ``bool (Y, X)``.
    clicks : sequence of tuple of int
        Row and column of each.
    adds : sequence of bool
        Whether each is on the object.

    Returns
    -------
    float
    """
    if not clicks:
        return 1.0
    right = [
        bool(mask[place]) == wanted for place, wanted in zip(clicks, adds, strict=True)
    ]
    return sum(right) / len(right)


def likeness(first: Mask, second: Mask) -> float:
    """Return the IoU of two masks; 1 if both are empty."""
    either = int((first | second).sum())
    return int((first & second).sum()) / either if either else 1.0
