"""From probabilities to objects; `measure` is that of `napari_medseg.measurements`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from napari_medseg._config import check, setting
from napari_medseg._labels import check_2d
from napari_medseg._types import InputError
from napari_medseg.measurements import measure

if TYPE_CHECKING:
    from napari_medseg._labels import Array, BoolArray
    from napari_medseg._types import FloatArray, LabelArray

__all__ = ["ObjectConfig", "clean_labels", "find_objects", "measure"]

_EIGHT = np.ones((3, 3), bool)
"""Pixels that touch by an edge or a corner belong to one object."""


@dataclass(frozen=True)
class ObjectConfig:
    """How objects are found in a foreground probability.

    Attributes
    ----------
    threshold, min_size, split, smoothing, seed_distance, neck, fill_holes
        See the help text of each field.
    """

    threshold: float = setting(
        0.5, "Probability above which a pixel is foreground", ge=0, le=1
    )
    min_size: int = setting(16, "Objects with fewer pixels than this are removed", ge=0)
    split: str = setting(
        "watershed",
        "Touching objects: keep them as one (components) or cut them at their necks "
        "(watershed)",
        choices=("components", "watershed"),
    )
    smoothing: float = setting(
        1.5,
        "Blur, in pixels, of what the cut follows; more gives fewer cuts",
        ge=0,
        le=50,
    )
    seed_distance: float = setting(
        5.0,
        "Centres nearer to each other than this, in pixels, are one object",
        ge=0,
        le=1000,
    )
    neck: float = setting(
        0.75,
        "Cut where the neck is narrower than this share of the smaller part",
        ge=0.05,
        le=0.99,
    )
    fill_holes: bool = setting(True, "Fill the holes that one object encloses")

    def __post_init__(self) -> None:
        check(self)


def find_objects(
    probability: FloatArray, config: ObjectConfig, interior: FloatArray | None = None
) -> LabelArray:
    """Find the objects in a foreground probability.

    Pixels above the threshold are foreground. With ``split="components"`` each
    group of touching pixels (8 neighbours) is an object. With ``"watershed"`` the
    groups are cut: the landscape is the distance to the background times the
    probability, smoothed; two of its peaks are two objects where the saddle between
    them is lower than ``neck`` times the lower peak (h-maxima of the logarithm, so
    that the rule is the same for small and large objects) and they are at least
    ``seed_distance`` apart. The watershed of the landscape floods from these peaks.

    Where ``interior`` is given, it says where objects are apart: each of its parts
    above one half is one object, and grows downhill until it meets another.

    Parameters
    ----------
    probability : ndarray
        ``float32 (Y, X)``, from 0 to 1. ``nan`` is background.
    config : ObjectConfig
        Threshold, smallest size, how to split.
    interior : ndarray, optional
        ``float32 (Y, X)``, probability that a pixel lies inside an object and away
        from its border, from segmenters that were trained to tell objects apart.

    Returns
    -------
    ndarray
        ``int32 (Y, X)``, 0 for background, ids from 1 without gaps. The same input
        gives the same ids.

    Raises
    ------
    InputError
        The probability is not a 2D image.
    """
    values = np.nan_to_num(check_2d(probability, "The probability"), nan=0.0)
    mask: BoolArray = values > config.threshold
    if config.fill_holes:
        # Speckles would give the distance transform false valleys. Larger holes
        # may be background that several objects enclose: see `_fill_each`.
        mask |= _small_holes(mask, config.min_size)
    if config.split == "components":
        labels = ndimage.label(mask, _EIGHT)[0].astype(np.int32)
    elif interior is None:
        labels = _cut(mask, values, config)
    else:
        labels = _grow(mask, np.nan_to_num(check_2d(interior, "The interior")), config)
    if config.fill_holes:
        labels = _fill_each(labels)
    return _drop_small(labels, config.min_size)


def _grow(mask: BoolArray, interior: Array, config: ObjectConfig) -> LabelArray:
    """Grow each part of the interior to a whole object."""
    inside = (interior > 0.5) & mask
    seeds, count = ndimage.label(inside)
    seeds = _drop_small(seeds.astype(np.int32), max(1, config.min_size // 4))
    # a group of pixels too thin to have an interior is one object
    groups, _ = ndimage.label(mask, _EIGHT)
    seeded = np.unique(groups[seeds > 0])
    bare = mask & ~np.isin(groups, seeded)
    seeds = np.where(bare, groups + count, seeds)
    smooth = ndimage.gaussian_filter(interior, 1.0)
    labels: LabelArray = watershed(  # type: ignore[no-untyped-call]
        -smooth, seeds, connectivity=2, mask=mask
    ).astype(np.int32)
    return labels


def clean_labels(probabilities: FloatArray, config: ObjectConfig) -> LabelArray:
    """Turn class probabilities into a tidy image of classes.

    Parameters
    ----------
    probabilities : ndarray
        ``float32 (K, Y, X)``; class 0 is background. With two classes the pixels
        where class 1 is above the threshold are foreground; with more, the most
        probable class wins and the threshold is not used.
    config : ObjectConfig
        ``threshold``, ``min_size`` and ``fill_holes`` are used: parts of a class
        with fewer pixels become background, holes take the class around them.

    Returns
    -------
    ndarray
        ``int32 (Y, X)``, the class of each pixel.

    Raises
    ------
    InputError
        There are not at least two classes over a 2D image.
    """
    values = np.asarray(probabilities)
    if values.ndim != 3 or len(values) < 2:
        raise InputError(
            f"Class probabilities of shape {values.shape} cannot be cleaned; they "
            "must be (classes, Y, X) with at least two classes."
        )
    classes = np.asarray(
        values[1] > config.threshold if len(values) == 2 else np.argmax(values, axis=0)
    )
    result: LabelArray = np.zeros(classes.shape, np.int32)
    for index in range(1, len(values)):
        parts = ndimage.label(classes == index, _EIGHT)[0].astype(np.int32)
        kept = _drop_small(parts, config.min_size)
        result[kept > 0] = index
        if config.fill_holes:
            holes = (_fill_each(kept) > 0) & (kept == 0) & (classes == 0)
            result[holes] = index
    return result


def _small_holes(mask: BoolArray, size: int) -> BoolArray:
    """Return the background parts that foreground encloses, up to ``size`` pixels."""
    parts, count = ndimage.label(~mask)
    area = np.bincount(parts.ravel(), minlength=count + 1)
    small = area <= size
    small[0] = False
    for edge in (parts[0], parts[-1], parts[:, 0], parts[:, -1]):
        small[edge] = False
    holes: BoolArray = small[parts]
    return holes


def _cut(mask: BoolArray, probability: Array, config: ObjectConfig) -> LabelArray:
    """Cut touching objects apart by watershed."""
    if not mask.any():
        return np.zeros(mask.shape, np.int32)
    # The frame gives an image that is all foreground a distance to measure, and a
    # peak something to rise from.
    framed, values = np.pad(mask, 1), np.pad(probability, 1)
    distance = ndimage.distance_transform_edt(framed)
    landscape = ndimage.gaussian_filter(distance * values, config.smoothing)
    # Filled holes may have a probability of 0, whose logarithm is -inf.
    height = np.log(np.maximum(landscape, 1e-6))
    depth = -math.log(config.neck)
    # A moat deeper than any peak is high: each group of pixels has its own peak.
    height[~framed] = height.min() - 2 * depth - 1
    # The maxima of the flooded landscape, not scikit-image's `h_maxima`: that keeps
    # the tops alone, and a ring or a rod may have several of one height.
    flooded = reconstruction(  # type: ignore[no-untyped-call]
        height - depth, height, footprint=_EIGHT
    )
    peaks = local_maxima(flooded, connectivity=2)  # type: ignore[no-untyped-call]
    seeds = ndimage.label(peaks, _EIGHT)[0]
    groups = ndimage.label(framed, _EIGHT)[0]
    seeds = _drop_near(seeds, groups, landscape, config.seed_distance)
    labels = watershed(  # type: ignore[no-untyped-call]
        -landscape, seeds, connectivity=2, mask=framed
    )
    result: LabelArray = labels[1:-1, 1:-1].astype(np.int32)
    return result


def _drop_near(
    seeds: Array, groups: Array, landscape: Array, distance: float
) -> LabelArray:
    """Drop seeds that are nearer than ``distance`` to a higher one of their group."""
    index = np.arange(1, int(seeds.max()) + 1)
    centres = np.array(ndimage.center_of_mass(seeds > 0, seeds, index))
    heights = ndimage.maximum(landscape, seeds, index)
    group = ndimage.maximum(groups, seeds, index)
    order = np.argsort(-heights, kind="stable")
    kept = np.ones(len(index), bool)
    near = KDTree(centres).query_ball_point(centres, distance)
    for seed in order:
        if kept[seed]:
            rivals = [item for item in near[seed] if group[item] == group[seed]]
            kept[rivals] = False
            kept[seed] = True
    table = np.concatenate([[0], np.where(kept, index, 0)]).astype(np.int32)
    result: LabelArray = table[seeds]
    return result


def _fill_each(labels: LabelArray) -> LabelArray:
    """Fill the background that a single object encloses."""
    result = labels.copy()
    for index, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        inside = ndimage.binary_fill_holes(labels[box] == index)
        view = result[box]
        view[inside & (view == 0)] = index
    return result


def _drop_small(labels: LabelArray, size: int) -> LabelArray:
    """Remove objects of fewer than ``size`` pixels and close the gaps in the ids."""
    area = np.bincount(labels.ravel())
    kept = area >= max(size, 1)
    kept[0] = False
    table = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    result: LabelArray = table[labels]
    return result
