"""How far apart the boundaries of two masks are.

What a surface is, and what holds for empty masks, is said in
`napari_medseg.metrics`, which offers all of this too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from napari_medseg._labels import as_masks
from napari_medseg._types import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_medseg._labels import Array, BoolArray, DoubleArray

BOUNDARY_TOLERANCE = 2.0
"""Distance in pixels within which two boundaries agree."""


def surface(mask: Array, valid: BoolArray | None = None) -> BoolArray:
    """Return the surface of a mask, as the module defines it.

    Parameters
    ----------
    mask : ndarray
        What is not 0 is foreground.
    valid : ndarray of bool, optional
        False where pixels are ignored. Default: all pixels count.

    Returns
    -------
    ndarray of bool
        True on the surface, in the shape of ``mask``.
    """
    inside: BoolArray = np.asarray(mask) != 0
    known: BoolArray = np.ones_like(inside) if valid is None else valid
    edge: BoolArray = inside & known & ~ndimage.binary_erosion(inside | ~known)
    return edge


def surface_distances(
    pred: Array,
    truth: Array,
    *,
    spacing: Sequence[float] | None = None,
    valid: BoolArray | None = None,
) -> tuple[DoubleArray, DoubleArray]:
    """Return the distances from each surface to the nearest point of the other.

    Parameters
    ----------
    pred, truth : ndarray
        Masks of one shape; what is not 0 is foreground.
    spacing : sequence of float, optional
        Size of a pixel along each axis, for distances in physical units. Default:
        distances in pixels.
    valid : ndarray of bool, optional
        False where pixels are ignored.

    Returns
    -------
    tuple of ndarray
        ``float64 (N,)`` from the N surface pixels of ``pred`` to ``truth`` and
        ``float64 (M,)`` back; infinite where the other surface is empty.

    Raises
    ------
    InputError
        The shapes differ, or ``spacing`` is not one positive number an axis.
    """
    first, second = as_masks(pred, truth)
    size = np.ones(first.ndim) if spacing is None else np.asarray(spacing, float)
    if size.shape != (first.ndim,) or not (size > 0).all():
        raise InputError(
            f"The spacing is {spacing}; it must be {first.ndim} positive numbers, "
            "one for each axis of the image."
        )
    # Trees of surface points are exact and, unlike a distance transform, take
    # memory for the surface alone, whatever the size of the image.
    points = [np.argwhere(surface(mask, valid)) * size for mask in (first, second)]
    return _nearest(points[0], points[1]), _nearest(points[1], points[0])


def hd95(
    pred: Array,
    truth: Array,
    *,
    spacing: Sequence[float] | None = None,
    valid: BoolArray | None = None,
) -> float:
    """Return the 95th percentile of the symmetric Hausdorff distance.

    The greater of the two directed 95th percentiles (interpolated linearly) of the
    distances between surfaces, as MONAI and the BraTS challenge compute it
    (Huttenlocher et al. 1993 for the ranked Hausdorff distance).

    Parameters
    ----------
    pred, truth : ndarray
        Masks of one shape; what is not 0 is foreground.
    spacing : sequence of float, optional
        Size of a pixel along each axis. Default: the result is in pixels.
    valid : ndarray of bool, optional
        False where pixels are ignored.

    Returns
    -------
    float
        0 when both surfaces are empty, ``nan`` when one is.

    Raises
    ------
    InputError
        The shapes differ, or the spacing does not fit.
    """
    return percentile_95(surface_distances(pred, truth, spacing=spacing, valid=valid))


def boundary_f(
    pred: Array,
    truth: Array,
    *,
    tolerance: float = BOUNDARY_TOLERANCE,
    valid: BoolArray | None = None,
) -> float:
    """Return the boundary F score, 2PR / (P + R).

    P is the share of the predicted surface within ``tolerance`` of the true one, R
    the share of the true surface within ``tolerance`` of the predicted one
    (Csurka et al. 2013, BMVC; the F of Perazzi et al. 2016, CVPR).

    Parameters
    ----------
    pred, truth : ndarray
        Masks of one shape; what is not 0 is foreground.
    tolerance : float, default: 2
        Distance in pixels at which boundaries still agree.
    valid : ndarray of bool, optional
        False where pixels are ignored.

    Returns
    -------
    float
        From 0 to 1; 1 when both surfaces are empty, 0 when one is.

    Raises
    ------
    InputError
        The shapes differ.
    """
    return agreement(surface_distances(pred, truth, valid=valid), tolerance)


def percentile_95(distances: tuple[DoubleArray, DoubleArray]) -> float:
    """Return the HD95 of the distances that `surface_distances` gives.

    Parameters
    ----------
    distances : tuple of ndarray
        Distances from each surface to the other.

    Returns
    -------
    float
        The greater of both 95th percentiles; 0 for no surfaces, ``nan`` for one.
    """
    if not all(len(side) for side in distances):
        return math.nan if any(len(side) for side in distances) else 0.0
    return max(float(np.percentile(side, 95)) for side in distances)


def agreement(distances: tuple[DoubleArray, DoubleArray], tolerance: float) -> float:
    """Return the boundary F score of the distances that `surface_distances` gives.

    Parameters
    ----------
    distances : tuple of ndarray
        Distances from each surface to the other.
    tolerance : float
        Distance at which boundaries still agree.

    Returns
    -------
    float
        From 0 to 1; 1 for no surfaces, 0 for one.
    """
    if not all(len(side) for side in distances):
        return 0.0 if any(len(side) for side in distances) else 1.0
    precision, recall = (float(np.mean(side <= tolerance)) for side in distances)
    total = precision + recall
    return 2.0 * precision * recall / total if total else 0.0


def _nearest(points: DoubleArray, others: DoubleArray) -> DoubleArray:
    """Return the distance from each point to the nearest of the others."""
    if not len(points) or not len(others):
        return np.full(len(points), np.inf)
    distances: DoubleArray = KDTree(others).query(points)[0]
    return distances
