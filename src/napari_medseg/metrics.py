"""How well a segmentation agrees with the truth: areas, surfaces, objects.

Conventions, which hold throughout the module:

- Labels are integer images; 0 and below is background. In masks every value that
  is not 0 is foreground.
- The *surface* of a mask is its pixels that touch, by an edge, the background or
  the border of the image (the mask minus its erosion by the 4-neighbour cross).
  MONAI's ``get_mask_edges`` without spacing is the same set.
- Both masks empty is perfect agreement: Dice, IoU, boundary F, AP and PQ are 1 and
  HD95 is 0. One of them empty: Dice, IoU, boundary F, AP and PQ are 0, and HD95 is
  ``nan``, as no distance exists; `summarise` leaves it out of the mean and
  `count_finite` says on how many images the mean rests.
- Pixels where the truth is ``ignore`` count neither as background nor as foreground.
  A surface pixel is never one only because its neighbour is ignored.

Surfaces are compared in `napari_medseg.surfaces` and objects matched in
`napari_medseg.matching`; this module offers their functions as its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg._labels import as_masks, check_labels
from napari_medseg.matching import (
    PanopticQuality,
    average_precision,
    match_objects,
    object_overlap,
    object_scores,
    panoptic_quality,
)
from napari_medseg.surfaces import (
    BOUNDARY_TOLERANCE,
    agreement,
    boundary_f,
    hd95,
    percentile_95,
    surface,
    surface_distances,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_medseg._labels import Array, BoolArray

__all__ = [
    "BOUNDARY_TOLERANCE",
    "PanopticQuality",
    "average_precision",
    "boundary_f",
    "class_scores",
    "class_table",
    "count_finite",
    "dice",
    "flatten_classes",
    "hd95",
    "iou",
    "match_objects",
    "object_overlap",
    "object_scores",
    "panoptic_quality",
    "summarise",
    "surface",
    "surface_distances",
]

_BOTH_EMPTY = {"dice": 1.0, "iou": 1.0, "hd95": 0.0, "boundary_f": 1.0}


def dice(pred: Array, truth: Array) -> float:
    """Return the Dice coefficient, 2|P∩T| / (|P| + |T|) (Dice 1945).

    Parameters
    ----------
    pred, truth : ndarray
        Masks of one shape; what is not 0 is foreground.

    Returns
    -------
    float
        From 0 to 1; 1 when both are empty.

    Raises
    ------
    InputError
        The shapes differ.
    """
    first, second = as_masks(pred, truth)
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 2.0 * np.count_nonzero(first & second) / total if total else 1.0


def iou(pred: Array, truth: Array) -> float:
    """Return the intersection over union, |P∩T| / |P∪T| (Jaccard 1912).

    Parameters
    ----------
    pred, truth : ndarray
        Masks of one shape; what is not 0 is foreground.

    Returns
    -------
    float
        From 0 to 1; 1 when both are empty.

    Raises
    ------
    InputError
        The shapes differ.
    """
    first, second = as_masks(pred, truth)
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


def class_table(
    pred: Array,
    truth: Array,
    classes: Sequence[int] | None = None,
    *,
    spacing: Sequence[float] | None = None,
    tolerance: float = BOUNDARY_TOLERANCE,
    ignore: int | None = None,
) -> dict[int, dict[str, float]]:
    """Score each foreground class that is present in either label image.

    Parameters
    ----------
    pred, truth : ndarray of int
        Class of each pixel, in one shape.
    classes : sequence of int, optional
        The foreground classes to score. Default: all that are present.
    spacing : sequence of float, optional
        Size of a pixel along each axis, for HD95. Default: pixels.
    tolerance : float, default: 2
        Tolerance of the boundary F score, in pixels.
    ignore : int, optional
        Value of the truth whose pixels are left out.

    Returns
    -------
    dict
        For each class ``dice``, ``iou``, ``hd95`` and ``boundary_f``; a class that
        is in neither image has no entry.

    Raises
    ------
    InputError
        The shapes differ, or the images do not hold integers.
    """
    predicted, true = check_labels(pred, truth)
    valid = None if ignore is None else true != ignore
    seen = set(_present(predicted, valid)) | set(_present(true, valid))
    wanted = seen if classes is None else seen.intersection(classes)
    table = {}
    for index in sorted(wanted):
        first, second = predicted == index, true == index
        if valid is not None:
            first, second = first & valid, second & valid
        pixels = surface_distances(first, second, valid=valid)
        physical = (
            pixels
            if spacing is None
            else surface_distances(first, second, spacing=spacing, valid=valid)
        )
        table[index] = {
            "dice": dice(first, second),
            "iou": iou(first, second),
            "hd95": percentile_95(physical),
            "boundary_f": agreement(pixels, tolerance),
        }
    return table


def class_scores(
    pred: Array,
    truth: Array,
    classes: Sequence[int] | None = None,
    *,
    spacing: Sequence[float] | None = None,
    tolerance: float = BOUNDARY_TOLERANCE,
    ignore: int | None = None,
) -> dict[str, float]:
    """Score a semantic segmentation: the mean over classes, and each class.

    Parameters
    ----------
    pred, truth : ndarray of int
        Class of each pixel, in one shape; 0 is background and is not scored.
    classes : sequence of int, optional
        The foreground classes to score. Default: all that are present in either.
    spacing : sequence of float, optional
        Size of a pixel along each axis, for HD95. Default: pixels.
    tolerance : float, default: 2
        Tolerance of the boundary F score, in pixels.
    ignore : int, optional
        Value of the truth whose pixels are left out.

    Returns
    -------
    dict
        ``dice``, ``iou``, ``hd95`` and ``boundary_f``, each the mean over the
        foreground classes present in either image (``nan`` left out). With more
        than one class in play also ``dice_1``, ``iou_1``, … of those present.

    Raises
    ------
    InputError
        The shapes differ, or the images do not hold integers.
    """
    table = class_table(
        pred, truth, classes, spacing=spacing, tolerance=tolerance, ignore=ignore
    )
    return flatten_classes(table, many=len(table if classes is None else classes) > 1)


def flatten_classes(
    table: Mapping[int, Mapping[str, float]] | Mapping[str, Mapping[str, float]],
    *,
    many: bool,
) -> dict[str, float]:
    """Turn the table of `class_table` into the scores of `class_scores`.

    Parameters
    ----------
    table : mapping
        Scores of each class that is present, by its number or its name.
    many : bool
        Whether to give the scores of each class besides their mean.

    Returns
    -------
    dict
        Mean scores, then ``dice_1``, ``iou_1``, … where ``many``.
    """
    scores = summarise({str(index): row for index, row in table.items()})
    result = dict(scores) or dict(_BOTH_EMPTY)
    if many:
        for index, row in table.items():
            result.update({f"{name}_{index}": value for name, value in row.items()})
    return result


def summarise(per_image: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each score over the images that have it.

    Parameters
    ----------
    per_image : mapping
        Scores by name, for each image. A score may be absent or ``nan``.

    Returns
    -------
    dict
        The means, in the order in which the scores first appear; ``nan`` where no
        image has a value.
    """
    return {
        name: math.fsum(values) / len(values) if values else math.nan
        for name, values in _columns(per_image).items()
    }


def count_finite(per_image: Mapping[str, Mapping[str, float]]) -> dict[str, int]:
    """Return on how many images each mean of `summarise` rests.

    Parameters
    ----------
    per_image : mapping
        Scores by name, for each image. A score may be absent or ``nan``.

    Returns
    -------
    dict
        Number of images with a value, for each score.
    """
    return {name: len(values) for name, values in _columns(per_image).items()}


def _columns(per_image: Mapping[str, Mapping[str, float]]) -> dict[str, list[float]]:
    """Gather the values of each score that are not nan."""
    columns: dict[str, list[float]] = {}
    for row in per_image.values():
        for name, value in row.items():
            column = columns.setdefault(name, [])
            if not math.isnan(value):
                column.append(value)
    return columns


def _present(labels: Array, valid: BoolArray | None) -> list[int]:
    """Return the foreground classes of an image, ignored pixels left out."""
    values = np.unique(labels if valid is None else labels[valid])
    return [int(value) for value in values if value > 0]
