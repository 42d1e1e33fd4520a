"""Scores of objects: which predicted object is which true one.

Objects are matched one to one by a maximum-weight assignment on a sparse table of
overlaps, so that an image with thousands of objects takes one pass over its pixels.
The conventions for empty images and ``ignore`` are those of `napari_medseg.metrics`,
which offers all of this too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_medseg._labels import check_labels

if TYPE_CHECKING:
    from napari_medseg._labels import Array, BoolArray, DoubleArray, IntArray

PANOPTIC_THRESHOLD = 0.5
"""IoU above which a match is a true positive of the panoptic quality."""


@dataclass(frozen=True, slots=True)
class ObjectOverlap:
    """Which objects of two label images overlap, as a sparse table of E pairs.

    Attributes
    ----------
    rows, columns : ndarray
        ``int64 (E,)``, ranks (by id, from 0) of a predicted and a true object that
        share pixels.
    iou : ndarray
        ``float64 (E,)``, their intersection over union.
    predicted, true : int
        Numbers of objects.
    void : ndarray
        ``bool (predicted,)``, objects of which more than half is ignored: where
        unmatched, these are no false positives (Kirillov et al. 2019, section 4.2).
    """

    rows: IntArray
    columns: IntArray
    iou: DoubleArray
    predicted: int
    true: int
    void: BoolArray


@dataclass(frozen=True, slots=True)
class PanopticQuality:
    """Panoptic quality and its factors, PQ = SQ × RQ.

    Attributes
    ----------
    pq, sq, rq : float
        Panoptic, segmentation (mean IoU of the matches; ``nan`` where nothing
        matches) and recognition quality, from 0 to 1.
    """

    pq: float
    sq: float
    rq: float


def object_overlap(
    pred: Array, truth: Array, *, ignore: int | None = None
) -> ObjectOverlap:
    """Return which predicted and true objects overlap, and their IoU.

    Parameters
    ----------
    pred, truth : ndarray of int
        Id of the object at each pixel, in one shape; 0 and below is background.
    ignore : int, optional
        Value of the truth whose pixels are left out of both images.

    Returns
    -------
    ObjectOverlap
        The pairs that share at least one pixel.

    Raises
    ------
    InputError
        The shapes differ, or the images do not hold integers.
    """
    predicted, true = check_labels(pred, truth)
    first, count = _ranks(predicted)
    full = np.bincount(first, minlength=count + 1)[1:]
    if ignore is not None:
        valid = true.ravel() != ignore
        first, true = first[valid], true.ravel()[valid]
    second, true_count = _ranks(true)
    area = np.bincount(first, minlength=count + 1)[1:]
    true_area = np.bincount(second, minlength=true_count + 1)[1:]
    both = (first > 0) & (second > 0)
    pairs = (first[both] - 1, second[both] - 1)
    table = coo_array(
        (np.ones(len(pairs[0]), np.int64), pairs), shape=(count, true_count)
    )
    table.sum_duplicates()
    rows, columns = table.row.astype(np.int64), table.col.astype(np.int64)
    shared = table.data
    union = area[rows] + true_area[columns] - shared
    return ObjectOverlap(
        rows, columns, shared / union, count, true_count, 2 * area < full
    )


def match_objects(
    overlap: ObjectOverlap, threshold: float, *, strict: bool = False
) -> tuple[IntArray, IntArray, DoubleArray]:
    """Match objects one to one: as many as possible, then by the greatest IoU.

    The assignment that StarDist (Schmidt et al. 2018) and Cellpose (Stringer et
    al. 2021) make on the full matrix. Here the pairs above the threshold fall apart
    into small groups that have no pair in common, solved one at a time.

    Parameters
    ----------
    overlap : ObjectOverlap
        The table of `object_overlap`.
    threshold : float
        Smallest IoU of a match, from 0 to 1.
    strict : bool, default: False
        Whether the IoU must be above the threshold rather than at least that.

    Returns
    -------
    tuple of ndarray
        Ranks of the predicted objects, of the true ones, and the IoU of the matches.
    """
    keep = overlap.iou > threshold if strict else overlap.iou >= threshold
    rows, columns, iou = overlap.rows[keep], overlap.columns[keep], overlap.iou[keep]
    nodes = overlap.predicted + overlap.true
    graph = coo_array(
        (np.ones(len(rows), bool), (rows, columns + overlap.predicted)),
        shape=(nodes, nodes),
    )
    group = connected_components(graph, directed=False)[1][rows]
    sizes = np.bincount(group, minlength=nodes)
    chosen = sizes[group] == 1
    order = np.argsort(group, kind="stable")
    order = order[~chosen[order]]
    for members in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        if len(members):
            chosen[members[_assign(rows[members], columns[members], iou[members])]] = (
                True
            )
    return rows[chosen], columns[chosen], iou[chosen]


def average_precision(
    pred: Array, truth: Array, threshold: float = 0.5, *, ignore: int | None = None
) -> float:
    """Return the average precision at an IoU, TP / (TP + FP + FN).

    As StarDist (Schmidt et al. 2018, MICCAI) and Cellpose (Stringer et al. 2021,
    Nature Methods) define it; a match is a true positive at IoU ≥ threshold.

    Parameters
    ----------
    pred, truth : ndarray of int
        Id of the object at each pixel, in one shape.
    threshold : float, default: 0.5
        Smallest IoU of a true positive.
    ignore : int, optional
        Value of the truth whose pixels are left out.

    Returns
    -------
    float
        From 0 to 1; 1 when there is no object in either.

    Raises
    ------
    InputError
        The shapes differ, or the images do not hold integers.
    """
    return _precision(object_overlap(pred, truth, ignore=ignore), threshold)


def panoptic_quality(
    pred: Array, truth: Array, *, ignore: int | None = None
) -> PanopticQuality:
    """Return the panoptic quality of one class of objects.

    PQ = Σ IoU / (TP + FP/2 + FN/2) over the matches with IoU > 0.5 (Kirillov et al.
    2019, CVPR, equations 1 and 2).

    Parameters
    ----------
    pred, truth : ndarray of int
        Id of the object at each pixel, in one shape.
    ignore : int, optional
        Value of the truth whose pixels are left out.

    Returns
    -------
    PanopticQuality
        PQ, SQ and RQ; all 1 when there is no object in either.

    Raises
    ------
    InputError
        The shapes differ, or the images do not hold integers.
    """
    return _panoptic(object_overlap(pred, truth, ignore=ignore))


def object_scores(
    pred: Array, truth: Array, *, ignore: int | None = None
) -> dict[str, float]:
    """Score a segmentation of objects.

    Parameters
    ----------
    pred, truth : ndarray of int
        Id of the object at each pixel, in one shape; 0 and below is background.
    ignore : int, optional
        Value of the truth whose pixels are left out.

    Returns
    -------
    dict
        ``ap50`` and ``ap75`` (`average_precision` at 0.5 and 0.75), ``pq``, ``sq``
        and ``rq`` (`panoptic_quality`).

    Raises
    ------
    InputError
        The shapes differ, or the images do not hold integers.
    """
    overlap = object_overlap(pred, truth, ignore=ignore)
    quality = _panoptic(overlap)
    return {
        "ap50": _precision(overlap, 0.5),
        "ap75": _precision(overlap, 0.75),
        "pq": quality.pq,
        "sq": quality.sq,
        "rq": quality.rq,
    }


def _ranks(labels: Array) -> tuple[IntArray, int]:
    """Renumber the ids from 1 in order, flat, 0 for background; and count them."""
    flat = np.maximum(labels.ravel(), 0)
    if not flat.size:
        return flat.astype(np.int64), 0
    top = int(flat.max())
    if top <= 4 * flat.size + 1024:
        # A lookup table is many times faster than sorting the pixels, and ids are
        # rarely larger than the image.
        used = np.zeros(top + 1, bool)
        used[flat] = True
        used[0] = False
        ranks = np.cumsum(used)
        return (ranks * used)[flat], int(ranks[-1])
    ids, inverse = np.unique(flat, return_inverse=True)
    first = 0 if ids[0] == 0 else 1
    return inverse.astype(np.int64) + first, len(ids) - 1 + first


def _assign(rows: IntArray, columns: IntArray, iou: DoubleArray) -> IntArray:
    """Return which pairs of one group are matched."""
    first, second = (
        np.unique(ranks, return_inverse=True)[1] for ranks in (rows, columns)
    )
    shape = (first.max() + 1, second.max() + 1)
    # One more match outweighs any gain in IoU, as the sum of these stays below 1.
    weight = np.zeros(shape)
    weight[first, second] = 1.0 + iou / (2 * min(shape))
    matched = np.zeros(shape, bool)
    matched[linear_sum_assignment(weight, maximize=True)] = True
    return np.flatnonzero(matched[first, second])


def _errors(overlap: ObjectOverlap, matched: IntArray) -> tuple[int, int]:
    """Return the false positives and false negatives that a matching leaves."""
    lone = ~overlap.void
    lone[matched] = False
    return int(np.count_nonzero(lone)), overlap.true - len(matched)


def _precision(overlap: ObjectOverlap, threshold: float) -> float:
    """Return the average precision of a table of overlaps."""
    matched = match_objects(overlap, threshold)[0]
    total = len(matched) + sum(_errors(overlap, matched))
    return len(matched) / total if total else 1.0


def _panoptic(overlap: ObjectOverlap) -> PanopticQuality:
    """Return the panoptic quality of a table of overlaps."""
    matched, _, iou = match_objects(overlap, PANOPTIC_THRESHOLD, strict=True)
    total = len(matched) + sum(_errors(overlap, matched)) / 2
    if not total:
        return PanopticQuality(1.0, 1.0, 1.0)
    quality = float(iou.mean()) if len(iou) else math.nan
    return PanopticQuality(float(iou.sum()) / total, quality, len(iou) / total)
