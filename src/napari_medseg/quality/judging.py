"""The quality of a single result, by what learns from it and what it agrees with.

Two signs are looked at. *Reverse*: something small learns the result and draws the
annotated images that are most like it (reverse classification accuracy, Valindria et
al. 2017, arXiv 1702.03407). *Forward*: the same learns all annotated images and draws
the new one, and the result is compared with that. Their mean is no Dice of the result
yet: the line from one to the other is fitted on the annotated images themselves, each
with masks of known quality, compared with the other annotated images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_medseg._types import Progress
from napari_medseg.quality.accuracy import (
    SCORES,
    best_of,
    cell_scores,
    mean_of,
    nearest,
    real_scores,
    reverse_scores,
)
from napari_medseg.quality.line import NOTHING, Line, Predicted, fit_line
from napari_medseg.quality.references import FEWEST_IMAGES, Annotated, fingerprint
from napari_medseg.quality.reverse import Example, Reversed, ReverseSegmenter, Ridge

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from napari_medseg._types import FloatArray, Job, LabelArray
    from napari_medseg.quality.masks import MaskSet
    from napari_medseg.quality.settings import QualitySettings

MOST = {"dice": 1.0, "iou": 1.0, "hd95": math.inf}
"""Largest value of each score."""

WINDOWS = 9
"""Windows of a new image, at most."""

EMPTY = "Nothing was found in this image, so its quality cannot be predicted."

BEYOND = (
    "This result is unlike all masks of known quality, so it is only ranked: no Dice "
    "is predicted."
)


@dataclass(frozen=True, eq=False)
class Judgement:
    """What is thought of one result.

    Attributes
    ----------
    reverse : mapping of str to float
        How well references are drawn by what learned the result; ``nan`` where
        nothing was found.
    forward : mapping of str to float
        How well the result agrees with what is drawn by what learned the references.
    predicted : mapping
        The predicted scores, `NOTHING` where none is predicted.
    quality : float
        What results are put in order by: the predicted Dice; that of the worst or
        best mask of known quality, where the result is beyond all of them; the mean
        of reverse and forward Dice, where no Dice can be predicted at all; ``nan``
        where nothing was found.
    summary : ndarray
        ``float32 (E,)``, what the image is like.
    note : str
        What should be known of it; mostly empty.
    """

    reverse: Mapping[str, float]
    forward: Mapping[str, float]
    predicted: Mapping[str, Predicted]
    quality: float
    summary: FloatArray
    note: str = ""


class Signs(NamedTuple):
    """What speaks for or against a result: reverse and forward scores."""

    reverse: dict[str, float]
    forward: dict[str, float]

    @property
    def together(self) -> dict[str, float]:
        """The mean of both, of those that have a value."""
        return mean_of([self.reverse, self.forward])


@dataclass(frozen=True, eq=False)
class Judge:
    """Judges results by annotated images.

    Attributes
    ----------
    annotated : Annotated
        The annotated images.
    settings : QualitySettings
        How many are compared, and which of the scores counts.
    lines : mapping of str to Line
        From reverse to real scores; of a score without one, results are ranked only.
    segmenter : ReverseSegmenter
        Learns a result and draws references.
    """

    annotated: Annotated
    settings: QualitySettings
    lines: Mapping[str, Line] = field(default_factory=dict)
    segmenter: ReverseSegmenter = field(default_factory=Ridge)

    def judge(self, image: FloatArray, labels: LabelArray) -> Judgement:
        """Judge one result.

        Parameters
        ----------
        image : ndarray
            ``float32 (C, Y, X)``, as it was read.
        labels : ndarray
            ``int32 (Y, X)``, the class of each pixel as it was predicted.

        Returns
        -------
        Judgement
            Reverse scores and predictions.

        Raises
        ------
        InputError
            The image lacks a channel that the references have.
        """
        return self.judged(self.examples(image, labels), fingerprint(image))

    def examples(self, image: FloatArray, labels: LabelArray) -> tuple[Example, ...]:
        """Return the windows of an image, and the classes of their cells.

        Parameters
        ----------
        image, labels : ndarray
            As of `judge`.

        Returns
        -------
        tuple of Example
            Of no more than `WINDOWS` windows.
        """
        looks = self.annotated.looker.looks(image, WINDOWS)
        return tuple(Example(look, look.cells(labels)) for look in looks)

    def judged(self, examples: Sequence[Example], owner: str) -> Judgement:
        """Judge windows of one image; see `judge` and `signs`."""
        looks = [example.look.summary for example in examples]
        summary: FloatArray = np.mean(looks, axis=0)
        signs = self.signs(examples, owner)
        if signs is None:
            nothing = dict.fromkeys(SCORES, NOTHING)
            unknown = dict.fromkeys(SCORES, math.nan)
            return Judgement(unknown, unknown, nothing, math.nan, summary, EMPTY)
        both = signs.together
        predicted = {
            name: self.lines[name].predict(both[name], self.settings.confidence)
            if name in self.lines
            else NOTHING
            for name in SCORES
        }
        line = self.lines.get("dice")
        quality = both["dice"] if line is None else line.at(both["dice"])
        beyond = line is not None and not line.covers(both["dice"])
        note = BEYOND if beyond else ""
        return Judgement(
            signs.reverse, signs.forward, predicted, quality, summary, note
        )

    def signs(self, examples: Sequence[Example], owner: str) -> Signs | None:
        """Return what speaks for or against a result.

        Parameters
        ----------
        examples : sequence of Example
            The windows of one image, with the classes that are to be judged.
        owner : str
            `fingerprint` of the image, which is not compared with itself.

        Returns
        -------
        Signs or None
            None where there is nothing to learn from.
        """
        others = [each for each in self.annotated.references if each.owner != owner]
        looks = [example.look for example in examples]
        chosen = nearest(looks, others, self.settings.compared)
        scores = reverse_scores(
            examples, chosen, self.segmenter, self.annotated.classes
        )
        if scores is None:
            return None
        forward = [
            cell_scores(example.labels, drawn, example.look.span)
            for example, drawn in self._drawn(examples, owner)
        ]
        agreement = mean_of(forward) or dict.fromkeys(SCORES, math.nan)
        return Signs(best_of(scores, self.settings.quantile), agreement)

    def _drawn(
        self, examples: Sequence[Example], owner: str
    ) -> Iterator[tuple[Example, LabelArray]]:
        """Give windows, and what is drawn there by what learned other images."""
        known = any(owner == windows[0].owner for windows in self.annotated.windows)
        learned = self._learned_without(owner) if known else self._learned
        if learned is not None:
            for example in examples:
                yield example, learned.draw(example.look)

    @cached_property
    def _learned(self) -> Reversed | None:
        """What learned all references."""
        return self._learned_without("")

    def _learned_without(self, owner: str) -> Reversed | None:
        every = [window for windows in self.annotated.windows for window in windows]
        others = [Example(w.look, w.labels) for w in every if w.owner != owner]
        return self.segmenter.learn(others, self.annotated.classes) if others else None


def fit_lines(judge: Judge, masks: MaskSet) -> Job[dict[str, Line]]:
    """Fit the lines from reverse to real scores of single images.

    Parameters
    ----------
    judge : Judge
        What makes reverse scores.
    masks : MaskSet
        Masks of known quality for the annotated images.

    Yields
    ------
    Progress
        One an annotated image.

    Returns
    -------
    dict
        A line for each score that has one; none with too few annotated images.
    """
    annotated = judge.annotated
    if len(annotated.pairs) < FEWEST_IMAGES or not annotated.whole:
        return {}
    points: list[tuple[dict[str, float], dict[str, float]]] = []
    for index, windows in enumerate(annotated.windows):
        yield Progress(index, len(annotated.windows), "fitting to known masks")
        for labels in masks.some(index):
            examples = [
                Example(window.look, each)
                for window, each in zip(windows, labels, strict=True)
            ]
            signs = judge.signs(examples, windows[0].owner)
            if signs is not None:
                points.append((signs.together, real_scores(windows, labels)))
    lines = {}
    for name in SCORES:
        line = fit_line(
            [reverse[name] for reverse, _ in points],
            [real[name] for _, real in points],
            MOST[name],
        )
        if line is not None:
            lines[name] = line
    return lines


def merged(slices: Sequence[Judgement]) -> Judgement:
    """Return what is thought of a stack: the mean over the slices that have a value.

    Parameters
    ----------
    slices : sequence of Judgement
        Of each slice.

    Returns
    -------
    Judgement
        Of the whole; with the note that all slices have, if they have the same.
    """
    if len(slices) == 1:
        return slices[0]
    predicted = {
        name: Predicted(
            *map(_mean, zip(*(each.predicted[name] for each in slices), strict=True))
        )
        for name in SCORES
    }
    reverse = {name: _mean([each.reverse[name] for each in slices]) for name in SCORES}
    forward = {name: _mean([each.forward[name] for each in slices]) for name in SCORES}
    notes = {each.note for each in slices}
    return Judgement(
        reverse,
        forward,
        predicted,
        _mean([each.quality for each in slices]),
        np.mean([each.summary for each in slices], axis=0),
        notes.pop() if len(notes) == 1 else "",
    )


def _mean(values: Sequence[float]) -> float:
    """Return the mean of the values that are known."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan
