"""Masks made worse on purpose, to see what reverse scores say of bad ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from napari_medseg._types import LabelArray


def degrade(labels: LabelArray, way: str, strength: float, seed: int) -> LabelArray:
    """Make a mask worse.

    Parameters
    ----------
    labels : ndarray
        ``int32 (Y, X)``, class of each pixel; -1 stays where it is.
    way : str
        One of `WAYS`.
    strength : float
        From 0, which changes nothing, to 1, which leaves little that is right.
        Lengths are shares of the usual thickness of what is drawn.
    seed : int
        Of the random choices.

    Returns
    -------
    ndarray
        ``int32 (Y, X)``.
    """
    rng = np.random.default_rng(seed)
    known = np.maximum(labels, 0)
    if strength <= 0 or not known.any():
        return labels
    changed = _WAYS[way](known, strength, rng)
    result: LabelArray = np.where(labels < 0, labels, changed).astype(np.int32)
    return result


def thickness(labels: LabelArray) -> float:
    """Return how thick what is drawn is: half the width of most of its area."""
    inside = ndimage.distance_transform_edt(np.pad(labels > 0, 1))
    peaks = inside[inside > 0]
    return float(np.percentile(peaks, 90)) if len(peaks) else 0.0


def _erode(labels: LabelArray, strength: float, rng: np.random.Generator) -> LabelArray:
    """Take a rim off."""
    depth = ndimage.distance_transform_edt(labels > 0)
    return np.where(depth > strength * depth.max(), labels, 0)


def _dilate(
    labels: LabelArray, strength: float, rng: np.random.Generator
) -> LabelArray:
    """Add a rim, in the class of the nearest object."""
    distance, (rows, columns) = ndimage.distance_transform_edt(
        labels == 0, return_indices=True
    )
    near = distance <= 2 * strength * thickness(labels)
    return np.where(near, labels[rows, columns], labels)


def _drop(labels: LabelArray, strength: float, rng: np.random.Generator) -> LabelArray:
    """Leave pieces out; of a single one, a side."""
    pieces, count = ndimage.label(labels > 0)
    if count < 1 / max(1 - strength, 0.01):
        angle = rng.uniform(0, 2 * np.pi)
        rows, columns = np.indices(labels.shape)
        along = rows * np.sin(angle) + columns * np.cos(angle)
        inside = labels > 0
        return np.where(along < np.quantile(along[inside], strength), 0, labels)
    gone = rng.permutation(count)[: round(strength * count)] + 1
    return np.where(np.isin(pieces, gone), 0, labels)


def _shift(labels: LabelArray, strength: float, rng: np.random.Generator) -> LabelArray:
    """Move everything."""
    angle = rng.uniform(0, 2 * np.pi)
    length = 2 * strength * thickness(labels)
    offset = round(length * np.sin(angle)), round(length * np.cos(angle))
    return np.asarray(ndimage.shift(labels, offset, order=0), labels.dtype)


def _blobs(labels: LabelArray, strength: float, rng: np.random.Generator) -> LabelArray:
    """Draw anything anywhere, in pieces about as thick as the objects."""
    noise = rng.standard_normal(labels.shape)
    smooth = ndimage.gaussian_filter(noise, max(1.0, thickness(labels)))
    share = strength * 0.5
    wrong = smooth > np.quantile(smooth, 1 - share)
    classes = np.unique(labels[labels > 0])
    drawn = np.where(labels > 0, 0, rng.choice(classes))
    return np.where(wrong, drawn, labels)


_WAYS = {
    "erode": _erode,
    "dilate": _dilate,
    "drop": _drop,
    "shift": _shift,
    "blobs": _blobs,
}

WAYS = tuple(_WAYS)
"""Ways to make a mask worse."""
