"""Reverse segmenters: learn what was predicted, and draw annotated images by it.

If what a model predicted on a new image is right, then something that learns from it
alone also draws the annotated references right (reverse classification accuracy:
Valindria et al. 2017, arXiv 1702.03407). Any `ReverseSegmenter` can do that; the one
here is linear, on the features of a frozen SAM, and has a closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from scipy import linalg

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_medseg._types import FloatArray, LabelArray
    from napari_medseg.quality.looks import Look

RIDGE = 1e-3
"""Penalty on the weights, as a share of the mean square of the features."""

FEWEST_CELLS = 4
"""A class in fewer cells than these cannot be learned."""


class Example(NamedTuple):
    """A window, and the class of each of its cells: ``int32 (gy, gx)``, -1 unknown."""

    look: Look
    labels: LabelArray


class Reversed(Protocol):
    """What a reverse segmenter has learned."""

    def draw(self, look: Look) -> LabelArray:
        """Return the class of each cell of a window, ``int32 (gy, gx)``."""
        ...


class ReverseSegmenter(Protocol):
    """Learns from what was predicted."""

    def learn(self, examples: Sequence[Example], classes: int) -> Reversed | None:
        """Learn from windows with the classes that were predicted there.

        Parameters
        ----------
        examples : sequence of Example
            The windows.
        classes : int
            Number of classes, background included.

        Returns
        -------
        Reversed or None
            None where no class is large enough to learn from.
        """
        ...


@dataclass(frozen=True)
class Ridge:
    """Ridge regression of each class on the features of a cell.

    For two classes this is Fisher's discriminant. The value from which a cell belongs
    to the class is the one by which the classifier repeats what it learned from best
    (by Dice).

    Attributes
    ----------
    penalty : float
        On the weights, as a share of the mean square of the features.
    """

    penalty: float = RIDGE

    def learn(self, examples: Sequence[Example], classes: int) -> Reversed | None:
        """Learn from windows; see `ReverseSegmenter.learn`."""
        counts = np.zeros(classes, int)
        for example in examples:
            known = example.labels[example.labels >= 0]
            counts += np.bincount(known, minlength=classes)[:classes]
        large = [k for k in range(1, classes) if counts[k] >= FEWEST_CELLS]
        if not large:
            return None
        gram, moments = _sums(examples, large)
        gram[np.diag_indices_from(gram)] += self.penalty * np.trace(gram) / len(gram)
        weights = linalg.solve(gram, moments, assume_a="pos").astype(np.float32)
        maps = [example.look.project(weights) for example in examples]
        cuts = [
            _best_cut(
                np.concatenate([each[place].ravel() for each in maps]),
                np.concatenate([each.labels.ravel() for each in examples]),
                k,
            )
            for place, k in enumerate(large)
        ]
        return _Linear(weights, np.asarray(cuts, np.float32), np.asarray(large))


def _sums(
    examples: Sequence[Example], large: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix and the right side of the normal equations."""
    width = examples[0].look.width
    gram = np.zeros((width, width))
    moments = np.zeros((width, len(large)))
    for look, labels in examples:
        known = labels >= 0
        truths = np.stack([labels == k for k in large]).astype(np.float32)
        moments += look.against(truths)
        if known.all():
            gram += look.moments
        else:
            matrix = look.matrix()[known.ravel()]
            gram += matrix.T @ matrix
    return gram, moments


@dataclass(frozen=True, eq=False)
class _Linear:
    """Weights of each class that was learned, and from which value a cell is of it."""

    weights: FloatArray
    cuts: FloatArray
    classes: np.ndarray

    def draw(self, look: Look) -> LabelArray:
        """Return the class that is most above its cut; background where none is."""
        above = look.project(self.weights) - self.cuts[:, None, None]
        best = above.argmax(axis=0)
        found = np.take_along_axis(above, best[None], 0)[0] > 0
        labels: LabelArray = np.where(found, self.classes[best], 0).astype(np.int32)
        return labels


def _best_cut(values: FloatArray, labels: LabelArray, k: int) -> float:
    """Return the value above which the cells are most like class ``k``, by Dice."""
    known = labels >= 0
    values, truth = values[known], labels[known] == k
    order = np.argsort(-values, kind="stable")
    hits = np.cumsum(truth[order])
    dice = 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1])
    best = int(dice.argmax())
    last = values[order[best]]
    after = values[order[min(best + 1, len(order) - 1)]]
    return float((last + after) / 2)
