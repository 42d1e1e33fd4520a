"""From probabilities to objects or classes; `measure` is that of `measurements`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_medseg._labels import check_2d, number_on
from napari_medseg._types import InputError
from napari_medseg.measurements import measure
from napari_medseg.object_settings import OF_FOUND_OBJECTS, ClassConfig, ObjectConfig

if TYPE_CHECKING:
    from napari_medseg._labels import Array, BoolArray
    from napari_medseg._types import FloatArray, LabelArray, Prediction

__all__ = [
    "OF_FOUND_OBJECTS",
    "ClassConfig",
    "ObjectConfig",
    "find_classes",
    "find_objects",
    "keep_objects",
    "labels_of",
    "measure",
    "number_on",
]

_EIGHT = np.ones((3, 3), bool)
"""Pixels that touch by an edge or a corner belong to one object."""


def labels_of(
    prediction: Prediction, config: ObjectConfig | ClassConfig | None
) -> LabelArray:
    """Return the objects of a prediction, or its classes.

    Parameters
    ----------
    prediction : Prediction
        What a segmenter said.
    config : ObjectConfig, ClassConfig or None
        How objects are found, or how classes are; None is ``ClassConfig()``.

    Returns
    -------
    ndarray
        ``int32 (Y, X)``.
    """
    if isinstance(config, ObjectConfig):
        if prediction.objects is not None:
            return keep_objects(prediction.objects, config)
        foreground = 1.0 - prediction.probabilities[0]
        return find_objects(foreground.astype(np.float32), config, prediction.interior)
    return find_classes(prediction.probabilities, config or ClassConfig())


def keep_objects(objects: LabelArray, config: ObjectConfig) -> LabelArray:
    """Return objects that a segmenter has found itself, as far as settings apply.

    Parameters
    ----------
    objects : ndarray
        ``int32 (Y, X)``, ids from 1.
    config : ObjectConfig
        `OF_FOUND_OBJECTS` are used; the others are about finding objects in a
        probability.

    Returns
    -------
    ndarray
        ``int32 (Y, X)``, 0 for background, ids from 1 without gaps.
    """
    whole = _fill_each(objects) if config.fill_holes else objects
    return drop_small(whole, config.min_size)


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
    return drop_small(separate(probability, config, interior), config.min_size)


def separate(
    probability: FloatArray, config: ObjectConfig, interior: FloatArray | None = None
) -> LabelArray:
    """Find objects of any size: `find_objects` before small ones are removed.

    Parameters
    ----------
    probability, config, interior
        As of `find_objects`.

    Returns
    -------
    ndarray
        ``int32 (Y, X)``, 0 for background.

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
    return _fill_each(labels) if config.fill_holes else labels


def _grow(mask: BoolArray, interior: Array, config: ObjectConfig) -> LabelArray:
    """Grow each part of the interior to a whole object."""
    from skimage.segmentation import watershed

    inside = (interior > 0.5) & mask
    seeds, count = ndimage.label(inside)
    seeds = drop_small(seeds.astype(np.int32), max(1, config.min_size // 4))
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


def find_classes(probabilities: FloatArray, config: ClassConfig) -> LabelArray:
    """Find the class of each pixel.

    The likeliest class other than background wins where its probability is above
    ``threshold`` of the sum of its own and that of the background. With two classes
    this is a threshold on the probability of the second; at 0.5 it is the class of
    the highest probability, with any number of classes.

    Parameters
    ----------
    probabilities : ndarray
        ``float32 (K, Y, X)``; class 0 is background. ``nan`` counts as 0.
    config : ClassConfig
        Threshold, smoothing, smallest island.

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
            f"Class probabilities of shape {values.shape} give no classes; they must "
            "be (classes, Y, X) with at least two classes."
        )
    values = np.nan_to_num(values, nan=0.0)
    if config.smoothing > 0:
        blurred = [ndimage.gaussian_filter(each, config.smoothing) for each in values]
        values = np.stack(blurred)
    likeliest = np.argmax(values[1:], axis=0) + 1
    front = np.take_along_axis(values, likeliest[None], axis=0)[0]
    # no quotient, so that 0.5 is exactly the highest probability
    certain = front * (1 - config.threshold) > values[0] * config.threshold
    classes: LabelArray = np.where(certain, likeliest, 0).astype(np.int32)
    return _absorb_islands(classes, config.min_size)


def _absorb_islands(classes: LabelArray, size: int) -> LabelArray:
    """Give islands of fewer than ``size`` pixels the class of what is nearest."""
    islands = np.zeros(classes.shape, bool)
    for index in range(1, int(classes.max(initial=0)) + 1 if size > 1 else 0):
        parts = ndimage.label(classes == index, _EIGHT)[0]
        little = np.bincount(parts.ravel()) < size
        little[0] = False
        islands |= little[parts]
    if not islands.any():
        return classes
    if islands.all():
        return np.zeros_like(classes)
    nearest = ndimage.distance_transform_edt(
        islands, return_distances=False, return_indices=True
    )
    absorbed: LabelArray = classes[tuple(nearest)]
    return absorbed


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
    # these take long to import, and a form that lists folders imports this module
    from skimage.morphology import local_maxima, reconstruction
    from skimage.segmentation import watershed

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
    from scipy.spatial import KDTree

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


def drop_small(labels: LabelArray, size: int) -> LabelArray:
    """Remove small objects and close the gaps in the ids.

    Parameters
    ----------
    labels : ndarray
        ``int32``, of any shape; 0 is background.
    size : int
        Objects with fewer pixels are removed.

    Returns
    -------
    ndarray
        ``int32`` of the same shape.
    """
    area = np.bincount(labels.ravel())
    kept = area >= max(size, 1)
    kept[0] = False
    table = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    result: LabelArray = table[labels]
    return result
