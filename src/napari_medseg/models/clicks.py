"""Clicks and boxes: what a person says of an object, and how SAM lists it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import torch
from scipy import ndimage

from napari_medseg._types import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

ADD, TAKE_AWAY, CORNER, OTHER_CORNER, PADDING = 1, 0, 2, 3, -1
"""What SAM calls the points that it is given."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is known of an object: clicks, a box, or both.

    Attributes
    ----------
    points : tuple of tuple of float
        Row and column of each click, in pixels; pixel centres are whole numbers.
    adds : tuple of bool
        Whether each click is on the object, or on what does not belong to it.
    box : tuple of float, optional
        Top, left, bottom and right of a box round the object, centres of pixels that
        are still inside.
    """

    points: tuple[tuple[float, float], ...] = ()
    adds: tuple[bool, ...] = ()
    box: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        if len(self.points) != len(self.adds):
            raise ValueError("each click is on the object, or is not")
        if not self.points and self.box is None:
            raise InputError("Click on an object, or draw a box round it, first.")

    @classmethod
    def of_clicks(
        cls,
        points: Sequence[Sequence[float]],
        adds: Sequence[bool],
        box: Sequence[float] | None = None,
    ) -> Self:
        """Return a prompt whose clicks on the object come first.

        The order of clicks means nothing, but another one rounds differently: here
        the same clicks give the same mask to the bit.

        Parameters
        ----------
        points : sequence of row and column
            The clicks, in pixels.
        adds : sequence of bool
            Whether each is on the object.
        box : sequence of float, optional
            Top, left, bottom and right.

        Raises
        ------
        InputError
            There is neither a click nor a box.
        """
        if len(points) != len(adds):
            raise ValueError("each click is on the object, or is not")
        order = sorted(range(len(points)), key=lambda place: not adds[place])
        return cls(
            tuple((float(points[i][0]), float(points[i][1])) for i in order),
            tuple(bool(adds[i]) for i in order),
            None if box is None else (box[0], box[1], box[2], box[3]),
        )

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_]) -> Self:
        """Return the box round a mask and a click where it is deepest.

        Parameters
        ----------
        mask : ndarray
            ``bool (Y, X)``: a label, or what was drawn round an object.

        Returns
        -------
        Prompt
            The object that fills the mask.

        Raises
        ------
        InputError
            The mask is empty.
        """
        if not mask.any():
            raise InputError("The shape covers no pixel; draw it on the image.")
        rows, columns = np.nonzero(mask)
        top, left = float(rows.min()), float(columns.min())
        box = (top, left, float(rows.max()), float(columns.max()))
        return cls((deepest(mask),), (True,), box)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Top, left, bottom and right of all clicks and the box."""
        corners = [*self.points]
        if self.box is not None:
            corners += [self.box[:2], self.box[2:]]
        rows, columns = zip(*corners, strict=True)
        return min(rows), min(columns), max(rows), max(columns)


class Asked(NamedTuple):
    """A prompt as SAM lists it, in pixels of the image.

    Attributes
    ----------
    points : Tensor
        ``float32 (N, 2)``, x and y; the last two are the corners of the box, if there
        is one, else the last one is SAM's padding.
    labels : Tensor
        ``int64 (N,)``, as for `napari_medseg.models.sam.point_tokens`.
    boxed : bool
        Whether there is a box.
    """

    points: Tensor
    labels: Tensor
    boxed: bool

    @property
    def single(self) -> bool:
        """Whether one click on an object is all that is known of it."""
        return self.labels.tolist() == [ADD, PADDING]


def as_asked(prompt: Prompt) -> Asked:
    """Return a prompt as SAM lists it."""
    places = [(column, row) for row, column in prompt.points]
    labels = [ADD if adds else TAKE_AWAY for adds in prompt.adds]
    if prompt.box is None:
        places.append((0.0, 0.0))
        labels.append(PADDING)
    else:
        top, left, bottom, right = prompt.box
        places += [(left, top), (right, bottom)]
        labels += [CORNER, OTHER_CORNER]
    points = torch.tensor(places, dtype=torch.float32)
    return Asked(points, torch.tensor(labels), prompt.box is not None)


def deepest(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Return row and column of the pixel of a mask that is farthest from its edge.

    Parameters
    ----------
    mask : ndarray
        ``bool (Y, X)``, not empty. Beyond the image nothing belongs to it.

    Returns
    -------
    tuple of float
    """
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), mask.shape)
    return float(row), float(column)


def corrected(
    prompt: Prompt, found: NDArray[np.bool_], wanted: NDArray[np.bool_]
) -> Prompt:
    """Add the click that somebody would set to correct a mask.

    Parameters
    ----------
    prompt : Prompt
        The clicks so far.
    found, wanted : ndarray
        ``bool (Y, X)``, what SAM found and what it should have.

    Returns
    -------
    Prompt
        With one more click, in the middle of the larger wrong region; the same where
        nothing is wrong.
    """
    missed, extra = wanted & ~found, found & ~wanted
    adds = bool(missed.sum() >= extra.sum())
    wrong = missed if adds else extra
    if not wrong.any():
        return prompt
    points: Sequence[tuple[float, float]] = (*prompt.points, deepest(wrong))
    return Prompt(tuple(points), (*prompt.adds, adds), prompt.box)
