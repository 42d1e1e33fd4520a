"""Reverse scores: how well annotated images are drawn by what learned a prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg.metrics import class_scores, summarise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_medseg._types import LabelArray
    from napari_medseg.quality.looks import Look
    from napari_medseg.quality.reverse import Example, ReverseSegmenter

SCORES = ("dice", "iou", "hd95")
"""The scores that are predicted."""

HIGHER_IS_BETTER = {"dice": True, "iou": True, "hd95": False}

UNKNOWN = -1
"""Cells whose class nobody said."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A window of an annotated image.

    Attributes
    ----------
    owner : str
        What tells its image from every other.
    look : Look
        The window.
    labels : ndarray
        ``int32 (gy, gx)``, the class of each cell; -1 unknown.
    """

    owner: str
    look: Look
    labels: LabelArray


def cell_scores(pred: LabelArray, truth: LabelArray, span: float) -> dict[str, float]:
    """Score classes on the grid of cells: the mean over those in either.

    Parameters
    ----------
    pred, truth : ndarray
        ``int32 (gy, gx)``; where ``truth`` is -1, nothing is scored.
    span : float
        Side of a cell in pixels, for HD95.

    Returns
    -------
    dict
        `SCORES`; HD95 in pixels, ``nan`` where one of both is empty, or where parts
        of the truth are unknown and so surfaces are.
    """
    found = class_scores(pred, truth, ignore=UNKNOWN)
    whole = bool((truth >= 0).all())
    distance = found["hd95"] * span if whole else math.nan
    return {"dice": found["dice"], "iou": found["iou"], "hd95": distance}


def real_scores(
    windows: Sequence[Reference], cells: Sequence[LabelArray]
) -> dict[str, float]:
    """Return the true scores of labels on the windows of an annotated image.

    Parameters
    ----------
    windows : sequence of Reference
        The windows.
    cells : sequence of ndarray
        The classes that were predicted in each.

    Returns
    -------
    dict
        `SCORES`, each the mean over the windows.
    """
    return mean_of(
        [
            cell_scores(labels, window.labels, window.look.span)
            for window, labels in zip(windows, cells, strict=True)
        ]
    )


def nearest(
    looks: Sequence[Look], references: Sequence[Reference], count: int
) -> list[Reference]:
    """Return the references that are most like some windows, the most alike first.

    Parameters
    ----------
    looks : sequence of Look
        The windows.
    references : sequence of Reference
        To choose from.
    count : int
        How many.

    Returns
    -------
    list of Reference
        By the cosine between what SAM says of them on the whole.
    """
    mean = np.mean([look.summary for look in looks], axis=0)
    like = np.asarray([float(each.look.summary @ mean) for each in references])
    order = np.argsort(-like, kind="stable")[:count]
    return [references[index] for index in order]


def reverse_scores(
    examples: Sequence[Example],
    references: Sequence[Reference],
    segmenter: ReverseSegmenter,
    classes: int,
) -> list[dict[str, float]] | None:
    """Learn what was predicted, and score what that draws on references.

    Parameters
    ----------
    examples : sequence of Example
        Windows with what was predicted there.
    references : sequence of Reference
        Annotated windows, of other images.
    segmenter : ReverseSegmenter
        Learns and draws.
    classes : int
        Number of classes, background included.

    Returns
    -------
    list of dict or None
        The scores on each reference; None where there is nothing to learn from.
    """
    learned = segmenter.learn(examples, classes)
    if learned is None:
        return None
    return [
        cell_scores(learned.draw(each.look), each.labels, each.look.span)
        for each in references
    ]


def best_of(scores: Sequence[Mapping[str, float]], quantile: float) -> dict[str, float]:
    """Return the best of the scores on references, or a quantile of them.

    Parameters
    ----------
    scores : sequence of mapping
        Scores on each reference.
    quantile : float
        1 for the best, 0.5 for the median.

    Returns
    -------
    dict
        `SCORES`; ``nan`` where no reference has a value.
    """
    result = {}
    for name in SCORES:
        values = [row[name] for row in scores if not math.isnan(row[name])]
        part = quantile if HIGHER_IS_BETTER[name] else 1 - quantile
        result[name] = float(np.quantile(values, part)) if values else math.nan
    return result


def mean_of(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of the scores on references; ``nan`` is left out."""
    return summarise({str(index): row for index, row in enumerate(scores)})
