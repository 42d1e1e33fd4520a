"""How good a model is on a folder: the Segmentation Performance Evaluator.

Reverse segmentation over a set of results, scored on annotated images, and a line
from that to the real score (arXiv 2504.15667). The line is fitted on annotated images
alone: half of them play the new images, the other half is drawn, and the other way
round. There is one point for each state of the model, or each way to make true masks
worse.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_medseg._types import Progress
from napari_medseg.quality.accuracy import (
    SCORES,
    mean_of,
    real_scores,
    reverse_scores,
)
from napari_medseg.quality.judging import MOST
from napari_medseg.quality.line import NOTHING, Line, Predicted, fit_line
from napari_medseg.quality.references import FEWEST_IMAGES
from napari_medseg.quality.reverse import Example

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_medseg._types import Job
    from napari_medseg.quality.judging import Judge
    from napari_medseg.quality.masks import Cells, MaskSet

REPEATS = 4
"""Draws of new images, each as many as there were when the line was fitted."""


class FolderLine(NamedTuple):
    """The lines of a folder's scores, and how many images they were fitted with."""

    lines: dict[str, Line]
    images: int


def fit_folder(judge: Judge, masks: MaskSet) -> Job[FolderLine]:
    """Fit the lines from reverse to real scores of sets of images.

    Parameters
    ----------
    judge : Judge
        Annotated images and reverse segmenter.
    masks : MaskSet
        Masks of known quality for the annotated images.

    Yields
    ------
    Progress
        One for each row of masks.

    Returns
    -------
    FolderLine
        Without lines where there are too few annotated images.
    """
    annotated = judge.annotated
    count = len(annotated.pairs)
    half = count // 2
    if count < FEWEST_IMAGES or not annotated.whole:
        return FolderLine({}, half)
    order = np.random.default_rng(0).permutation(count)
    halves = [order[:half].tolist(), order[half:].tolist()]
    points: list[tuple[_Point, _Point]] = []
    for number, row in enumerate(masks.rows):
        yield Progress(number, len(masks.rows), "fitting to sets of known masks")
        point = [
            _point(judge, row, new, other) for new, other in (halves, halves[::-1])
        ]
        # where nothing is found there is no reverse score, and so no point
        if point[0] is not None and point[1] is not None:
            points.append((point[0], point[1]))
    lines = {name: _line(points, name) for name in SCORES}
    return FolderLine({k: line for k, line in lines.items() if line is not None}, half)


class _Point(NamedTuple):
    """Reverse and real scores of a set of images."""

    reverse: dict[str, float]
    real: dict[str, float]


def _point(
    judge: Judge, row: Sequence[Cells], new: Sequence[int], other: Sequence[int]
) -> _Point | None:
    """Let some annotated images play new ones, and draw the others."""
    reverse = _reverse(judge, _examples(judge, row, new), other)
    if reverse is None:
        return None
    windows = judge.annotated.windows
    return _Point(reverse, mean_of([real_scores(windows[i], row[i]) for i in new]))


def _line(points: Sequence[tuple[_Point, _Point]], name: str) -> Line | None:
    """Fit one score to the means of both halves.

    Means lie nearer to a line than any single set of images does. How far the halves
    are apart from one another is therefore added to the scatter around the line.
    """
    reverse = np.asarray([[half.reverse[name] for half in both] for both in points])
    real = np.asarray([[half.real[name] for half in both] for both in points])
    if not len(points):
        return None
    line = fit_line(reverse.mean(axis=1), real.mean(axis=1), MOST[name])
    if line is None:
        return None
    off = real - line.slope * reverse - line.intercept
    apart = float(np.nanmean((off[:, 0] - off[:, 1]) ** 2)) / 2
    return replace(line, residual=math.sqrt(line.residual**2 + apart))


def predict_folder(
    judge: Judge, line: FolderLine, results: Sequence[tuple[Example, ...]]
) -> tuple[dict[str, Predicted], dict[str, float]]:
    """Predict the mean scores of results.

    Parameters
    ----------
    judge : Judge
        Annotated images and reverse segmenter.
    line : FolderLine
        Of `fit_folder`.
    results : sequence of tuple of Example
        The windows of each new image, with what was predicted there.

    Returns
    -------
    predicted : dict
        The predicted means, `NOTHING` where none is predicted.
    reverse : dict
        The reverse scores; empty where there are none.
    """
    rng = np.random.default_rng(0)
    everything = list(range(len(judge.annotated.windows)))
    draws = 1 if len(results) <= line.images else REPEATS
    found = []
    for _ in range(draws):
        chosen = rng.permutation(len(results))[: line.images]
        examples = [example for index in chosen for example in results[index]]
        reverse = _reverse(judge, examples, everything)
        if reverse is not None:
            found.append(reverse)
    if not found:
        return dict.fromkeys(SCORES, NOTHING), {}
    mean = mean_of(found)
    predicted = {
        name: line.lines[name].predict(mean[name], judge.settings.confidence)
        if name in line.lines
        else NOTHING
        for name in SCORES
    }
    return predicted, mean


def _examples(
    judge: Judge, row: Sequence[Cells], images: Sequence[int]
) -> list[Example]:
    """Return the windows of annotated images with masks of known quality."""
    return [
        Example(window.look, labels)
        for image in images
        for window, labels in zip(
            judge.annotated.windows[image], row[image], strict=True
        )
    ]


def _reverse(
    judge: Judge, examples: Sequence[Example], images: Sequence[int]
) -> dict[str, float] | None:
    """Learn from a set of results; return mean scores on annotated images."""
    windows = judge.annotated.windows
    references = [
        window
        for image in images
        for window in windows[image]
        if (window.labels > 0).any()
    ]
    classes = judge.annotated.classes
    # results without anything found teach nothing, as in the paper
    told = [example for example in examples if (example.labels > 0).any()]
    if not told:
        return None
    scores = reverse_scores(told, references, judge.segmenter, classes)
    return None if scores is None else mean_of(scores)
