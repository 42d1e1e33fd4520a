"""From masks that overlap to labels, of which each pixel has one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage
from skimage.measure import label

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from napari_medseg._types import LabelArray


class Piece(NamedTuple):
    """A mask ``bool (height, width)``, and the rows and columns that it lies in."""

    place: tuple[slice, slice]
    mask: NDArray[np.bool_]


def lay(
    pieces: Iterable[Piece], shape: tuple[int, int], overlap: float
) -> tuple[LabelArray, list[int]]:
    """Lay masks beside each other, the best first.

    A mask is left out where it shares more than ``overlap`` of its pixels with better
    ones, or more than that of a smaller, better one's: it is the same object, a part
    of one, or several together. Of those that stay, the better one has the pixels.

    Parameters
    ----------
    pieces : iterable of Piece
        The masks, the best first.
    shape : tuple of int
        Height and width of the labels.
    overlap : float
        From 0, none may touch the pixels of another, to 1, all stay that add a pixel.

    Returns
    -------
    labels : ndarray
        ``int32 (Y, X)``, 0 for background, ids from 1 in the order of the masks.
    kept : list of int
        Which masks stay.
    """
    labels: LabelArray = np.zeros(shape, np.int32)
    kept: list[int] = []
    sizes = np.zeros(64, np.int64)
    for index, (place, mask) in enumerate(pieces):
        under = labels[place]
        shared = np.bincount(under[mask])
        shared[:1] = 0  # the background
        size, taken = int(mask.sum()), int(shared.sum())
        several = shared > overlap * sizes[: len(shared)]
        if taken == size or taken > overlap * size or several[shared > 0].any():
            continue
        kept.append(index)
        if len(kept) == len(sizes):
            sizes = np.pad(sizes, (0, len(sizes)))
        under[mask & (under == 0)] = len(kept)
        sizes[len(kept)] = size - taken
    return labels, kept


def tidy(labels: LabelArray, size: int) -> LabelArray:
    """Remove islands, then holes, of fewer than ``size`` pixels; close gaps in ids.

    Parameters
    ----------
    labels : ndarray
        ``int32 (Y, X)``.
    size : int
        Pixels. The largest part of an object is no island, and a gap between two
        objects is no hole.

    Returns
    -------
    ndarray
        ``int32 (Y, X)``, ids from 1 without gaps.
    """
    # the frame joins all background at the image's edge, which is no hole
    framed = np.pad(labels, 1)
    framed[_islands(framed, size)] = 0
    holes, count = ndimage.label(framed == 0)
    lowest, highest = _around(framed)
    each = np.arange(1, count + 1)
    low = ndimage.minimum(lowest, holes, each)
    high = ndimage.maximum(highest, holes, each)
    small = np.bincount(holes.ravel(), minlength=count + 1)[1:] < size
    fill = np.where(small & (low == high), high, 0)
    fill[holes[0, 0] - 1] = 0
    framed += np.append(0, fill).astype(np.int32)[holes]
    there = np.bincount(framed.ravel()) > 0
    ids = np.cumsum(there) - 1
    result: LabelArray = ids[framed[1:-1, 1:-1]].astype(np.int32)
    return result


def _islands(labels: LabelArray, size: int) -> NDArray[np.bool_]:
    """Tell which pixels belong to a small part of an object that has a larger one."""
    parts = label(labels, connectivity=2)  # type: ignore[no-untyped-call]
    area = np.bincount(parts.ravel())
    owner = np.zeros(len(area), np.int32)
    owner[parts.ravel()] = labels.ravel()
    rising = np.argsort(area, kind="stable")
    largest = np.zeros(int(owner.max()) + 1, np.int64)
    largest[owner[rising]] = rising  # the last of several stays
    small = (area < size) & (largest[owner] != np.arange(len(area)))
    small[0] = False
    islands: NDArray[np.bool_] = small[parts]
    return islands


def _around(labels: LabelArray) -> tuple[LabelArray, LabelArray]:
    """Return the lowest and highest id of each pixel and its 8 neighbours."""
    objects = np.where(labels == 0, np.iinfo(np.int32).max, labels)
    return ndimage.minimum_filter(objects, 3), ndimage.maximum_filter(labels, 3)
