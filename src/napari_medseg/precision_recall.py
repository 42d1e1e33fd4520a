"""How well probabilities rank the pixels of a rare class: AUPR, F1, lesions found.

A class that covers one pixel in a thousand is found with 99.9 % of the pixels right by
whoever finds nothing; what is here does not count what is rightly left out. Pixels are
counted in steps of the logit, 0.001 wide, so that many images fit into little memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medseg._labels import BoolArray
    from napari_medseg._types import FloatArray

REACH = 12.0
"""Logits beyond this, to either side, are counted as this."""

STEPS = 24_000
"""Steps in which probabilities are counted."""

EDGES = (1.0 / (1.0 + np.exp(-np.linspace(-REACH, REACH, STEPS + 1)))).astype(
    np.float32
)
"""Probabilities between two steps; those above an edge are in the steps behind it."""

UNKNOWN_THRESHOLD = 0.5
"""The threshold of a class of which nothing was held out."""


def _none() -> NDArray[np.int64]:
    return np.zeros(len(EDGES) + 1, np.int64)


@dataclass
class Ranking:
    """The pixels of one class in some images, counted by their probability.

    Attributes
    ----------
    positives, negatives : ndarray
        ``int64``, pixels of the class and others in each step.
    lesions : list of float
        The highest probability in each annotated lesion.
    images : int
        Images counted.
    """

    positives: NDArray[np.int64] = field(default_factory=_none)
    negatives: NDArray[np.int64] = field(default_factory=_none)
    lesions: list[float] = field(default_factory=list)
    images: int = 0

    def add(
        self, probability: FloatArray, truth: BoolArray, known: BoolArray | None = None
    ) -> None:
        """Count an image.

        Parameters
        ----------
        probability : ndarray
            ``float32 (Y, X)``.
        truth : ndarray
            ``bool (Y, X)``, where the class is. A lesion is what touches, at corners
            too.
        known : ndarray, optional
            ``bool (Y, X)``, pixels that count.
        """
        truth = truth if known is None else truth & known
        other = ~truth if known is None else ~truth & known
        step = np.searchsorted(EDGES, probability)
        self.positives += np.bincount(step[truth], minlength=len(EDGES) + 1)
        self.negatives += np.bincount(step[other], minlength=len(EDGES) + 1)
        lesions, count = ndimage.label(truth, np.ones((3, 3)))
        found = ndimage.maximum(probability, lesions, np.arange(1, count + 1))
        self.lesions += np.atleast_1d(found).tolist() if count else []
        self.images += 1

    def join(self, other: Ranking) -> None:
        """Count the images that another ranking counted.

        Parameters
        ----------
        other : Ranking
            Of the same class.
        """
        self.positives += other.positives
        self.negatives += other.negatives
        self.lesions += other.lesions
        self.images += other.images

    @property
    def aupr(self) -> float:
        """Average precision: the sum of precision times the recall that it adds.

        That is the area under the curve in steps, without straight lines between
        them, which would promise too much (Davis and Goadrich, ICML 2006). Nan where
        the class is nowhere.
        """
        hits, wrong = self._above()
        total = hits[-1]
        if not total:
            return float("nan")
        precision = hits / np.maximum(hits + wrong, 1)
        return float((np.diff(hits, prepend=0) * precision).sum() / total)

    @property
    def threshold(self) -> float:
        """The probability above which F1 is highest, nearest to a half of several."""
        if not self.positives.sum():
            return UNKNOWN_THRESHOLD
        hits, wrong = self._above()
        scores = 2.0 * hits / (hits + wrong + hits[-1])
        # the steps behind each edge, from the last edge on
        scores = scores[: len(EDGES)][::-1]
        best = np.flatnonzero(scores == scores.max())
        nearest = best[np.abs(EDGES[best] - 0.5).argmin()]
        return float(EDGES[nearest])

    def dice(self, threshold: float) -> float:
        """Return Dice, which is F1, over all pixels counted.

        Parameters
        ----------
        threshold : float
            Pixels above it are found; one of `EDGES`, else the next one is taken.

        Returns
        -------
        float
            1 where nothing is there and nothing found.
        """
        behind = int(np.searchsorted(EDGES, np.float32(threshold))) + 1
        hits = int(self.positives[behind:].sum())
        found = hits + int(self.negatives[behind:].sum())
        size = found + int(self.positives.sum())
        return 2.0 * hits / size if size else 1.0

    def lesion_recall(self, threshold: float) -> float:
        """Return the share of annotated lesions of which some pixel is found.

        Parameters
        ----------
        threshold : float
            Pixels above it are found.

        Returns
        -------
        float
            Nan where there is no lesion.
        """
        if not self.lesions:
            return float("nan")
        return float(
            np.mean(np.array(self.lesions, np.float32) > np.float32(threshold))
        )

    def scores(self, threshold: float) -> dict[str, float | None]:
        """Return Dice, AUPR and lesion recall; None where there is no such score."""
        figures = {
            "dice": self.dice(threshold),
            "aupr": self.aupr,
            "lesion_recall": self.lesion_recall(threshold),
        }
        return {
            name: None if np.isnan(value) else round(value, 4)
            for name, value in figures.items()
        }

    def _above(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the pixels, right and wrong, from each step on, from the top."""
        return self.positives[::-1].cumsum(), self.negatives[::-1].cumsum()


class Rankings:
    """Rankings of several classes over the same images.

    Attributes
    ----------
    whole : dict
        The `Ranking` of each class over all images, by the class's name or number.
    """

    def __init__(self) -> None:
        self.whole: dict[int | str, Ranking] = {}

    def add(
        self,
        name: int | str,
        probability: FloatArray,
        truth: BoolArray,
        known: BoolArray | None = None,
    ) -> float:
        """Count an image for one class.

        Parameters
        ----------
        name : int or str
            The class.
        probability, truth, known
            As for `Ranking.add`.

        Returns
        -------
        float
            AUPR of this image alone; nan where the class is not in it.
        """
        one = Ranking()
        one.add(probability, truth, known)
        self.whole.setdefault(name, Ranking()).join(one)
        return one.aupr

    def scores(self) -> dict[str, float]:
        """Return AUPR over the pixels of all images together.

        Returns
        -------
        dict
            ``aupr``, the mean over the classes that are somewhere, and with more than
            one class ``aupr_NAME`` of each; empty where nothing was counted.
        """
        each = {name: ranking.aupr for name, ranking in self.whole.items()}
        if not each:
            return {}
        there = [value for value in each.values() if not np.isnan(value)]
        scores = {"aupr": float(np.mean(there)) if there else float("nan")}
        if len(each) > 1:
            scores |= {f"aupr_{name}": value for name, value in each.items()}
        return scores
