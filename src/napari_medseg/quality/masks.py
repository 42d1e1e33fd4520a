"""Masks of known quality for annotated images, from bad to good.

Earlier states of the model give the most telling ones, as they are wrong in the ways
of the model. Where there are none, the true masks are made worse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_medseg._types import Progress
from napari_medseg.quality.degrading import WAYS, degrade

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_medseg._types import AnySegmenter, Job, LabelArray
    from napari_medseg.quality.references import Annotated

STRENGTHS = (0.1, 0.2, 0.35, 0.5, 0.7)
"""How much masks are made worse."""

SOME = 10
"""Masks of one image that the line of single images is fitted to, at most."""

Cells = tuple["LabelArray", ...]
"""The classes of the cells of each window of an image."""


@dataclass(frozen=True)
class MaskSet:
    """Masks of known quality.

    Attributes
    ----------
    rows : tuple of tuple
        For each state or way to make masks worse: for each annotated image, the
        classes of the cells of each window.
    """

    rows: tuple[tuple[Cells, ...], ...]

    def some(self, image: int) -> list[Cells]:
        """Return masks of one image: all of them, or `SOME` that differ by image."""
        count = len(self.rows)
        if count <= SOME:
            return [row[image] for row in self.rows]
        # evenly from one end to the other, beginning elsewhere with each image
        shift = image * 0.618 % 1.0
        places = {int((index + shift) * count / SOME) for index in range(SOME)}
        return [self.rows[place][image] for place in sorted(places)]


def known_masks(annotated: Annotated, states: Sequence[AnySegmenter]) -> Job[MaskSet]:
    """Make masks of known quality.

    Parameters
    ----------
    annotated : Annotated
        The images.
    states : sequence of AnySegmenter
        States of the model; without any, the true masks are made worse.

    Yields
    ------
    Progress
        One an image.

    Returns
    -------
    MaskSet
        The masks.
    """
    columns: list[list[Cells]] = []
    for index, windows in enumerate(annotated.windows):
        yield Progress(index, len(annotated.windows), "making masks of known quality")
        if states:
            image = annotated.pairs[index].image
            found = [state.predict(image).labels for state in states]
            columns.append(
                [tuple(w.look.cells(labels) for w in windows) for labels in found]
            )
        else:
            columns.append(
                [
                    tuple(degrade(w.labels, way, strength, index) for w in windows)
                    for strength in STRENGTHS
                    for way in WAYS
                ]
                + [tuple(w.labels for w in windows)]
            )
    return MaskSet(tuple(zip(*columns, strict=True)))
