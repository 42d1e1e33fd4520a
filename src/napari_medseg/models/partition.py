"""An image cut into segments with scores, of which some are chosen. numpy only.

Which segments a phrase means: their scores fall into two groups (2-means), and the
higher group is meant. Clicks on segments add others, or take them away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg._types import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_medseg._types import FloatArray, LabelArray

Click = tuple[float, float]
"""Row and column in pixels."""


@dataclass(frozen=True, slots=True)
class Partition:
    """An image cut into segments.

    Attributes
    ----------
    segments : ndarray
        ``int32 (Y, X)``, ids from 1 without gaps; every pixel has one.
    scores : ndarray
        ``float32 (S,)``, how much more of the phrase than of the background each
        segment is, from id 1 on.
    """

    segments: LabelArray
    scores: FloatArray

    @property
    def areas(self) -> NDArray[np.int64]:
        """Pixels of each segment, from id 1 on."""
        return np.bincount(self.segments.ravel(), minlength=len(self.scores) + 1)[1:]

    def likely(self) -> FloatArray:
        """Return how surely each segment is meant, ``float32 (S,)`` in [0, 1].

        Returns
        -------
        ndarray
            0 at the mean of the lower scores, 1 at that of the higher, straight in
            between, so that more than ½ is more than their midpoint.
        """
        low, high = two_means(self.scores)
        if high <= low:
            return np.zeros(len(self.scores), np.float32)
        share: FloatArray = (self.scores - low) / (high - low)
        return np.clip(share, 0, 1).astype(np.float32)

    def chosen(
        self, points: Sequence[Click] = (), adds: Sequence[bool] = ()
    ) -> FloatArray:
        """Return how surely each segment is meant, after clicks.

        Parameters
        ----------
        points : sequence of tuple of float
            Rows and columns of clicks.
        adds : sequence of bool
            Whether each adds its segment or takes it away; of several on one segment
            the last counts.

        Returns
        -------
        ndarray
            ``float32 (S,)`` as of `likely`; 1 or 0 where somebody clicked.

        Raises
        ------
        InputError
            A click is outside the image.
        """
        found = self.likely()
        for point, add in zip(points, adds, strict=True):
            found[self.at(point) - 1] = float(add)
        return found

    def at(self, point: Click) -> int:
        """Return the id of the segment at a row and a column.

        Raises
        ------
        InputError
            They are outside the image.
        """
        row, column = (int(np.floor(value + 0.5)) for value in point)
        height, width = self.segments.shape
        if not (0 <= row < height and 0 <= column < width):
            raise InputError(
                f"The click {point[0]:g},{point[1]:g} is outside the image, which has "
                f"rows 0 to {height - 1} and columns 0 to {width - 1}."
            )
        return int(self.segments[row, column])

    def probabilities(
        self, points: Sequence[Click] = (), adds: Sequence[bool] = ()
    ) -> FloatArray:
        """Return `chosen` as probabilities, ``float32 (2, Y, X)``, background first."""
        front = self.chosen(points, adds)[self.segments - 1]
        return np.stack([1 - front, front])


def two_means(scores: FloatArray) -> tuple[float, float]:
    """Return the means of the two groups that numbers fall into.

    Parameters
    ----------
    scores : ndarray
        ``float32 (S,)``.

    Returns
    -------
    tuple of float
        The lower and the higher mean, of the split with the smallest sum of squared
        distances to them (2-means in one dimension, solved exactly); of equal numbers
        that number twice.
    """
    ordered = np.sort(scores.astype(np.float64))
    count = len(ordered)
    if count < 2:
        only = float(ordered[0]) if count else 0.0
        return only, only
    sums = np.cumsum(ordered)
    below = np.arange(1, count)
    low = sums[:-1] / below
    high = (sums[-1] - sums[:-1]) / (count - below)
    # the squares within are least where those between are most
    between = below * (count - below) * (high - low) ** 2
    best = int(np.argmax(between))
    return float(low[best]), float(high[best])


def joined(
    shape: tuple[int, int],
    parts: Sequence[tuple[tuple[slice, slice], LabelArray, FloatArray]],
) -> Partition:
    """Put the partitions of parts of an image together.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the image.
    parts : sequence of tuple
        Where each part is; its segments ``int32 (h, w)`` from 1; their scores. Together
        they cover the image.

    Returns
    -------
    Partition
        A segment does not go beyond its part; ids of which no pixel is left are gone.
    """
    segments = np.zeros(shape, np.int32)
    scores = []
    count = 0
    for place, own, rated in parts:
        used = np.unique(own)
        table = np.zeros(len(rated) + 1, np.int32)
        table[used] = np.arange(count + 1, count + 1 + len(used))
        segments[place] = table[own]
        scores.append(rated[used - 1])
        count += len(used)
    return Partition(segments, np.concatenate(scores).astype(np.float32))
