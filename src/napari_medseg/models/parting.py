"""Masks drawn by the colours of the image itself, beside those that SAM draws.

A SAM outlines what is like the objects that it has learned from. An object of another
kind is often plainly lighter, darker or of another colour than what is round it, which
takes no learning: there the pixels of a region are parted in two by Otsu's threshold
(IEEE Trans. Syst. Man Cybern. 9, 1979), along the axis on which their colours differ
most. What is drawn so is offered as SAM's masks are, and judged with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from napari_medseg.models.judging import corners_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medseg._types import FloatArray
    from napari_medseg.models.judging import Corners

    Mask: TypeAlias = NDArray[np.bool_]

    Place: TypeAlias = tuple[int, int]

SOFT = 0.7
"""Grain is smoothed by so many cells, standard deviation, before colours are parted."""

REACH = 16
"""Cells round a click whose colours are parted."""

ROOM = 6
"""What is taken in round a mask along each side: one part of so many of the side."""

STEEPNESS = 4.0
"""Logit of a colour one standard deviation from the threshold."""

ALIKE = 1e-3
"""Colours that vary by less, in those of the window, are one colour."""


class Parted(NamedTuple):
    """One of the two sides of a threshold.

    Attributes
    ----------
    logits : ndarray
        ``float32 (Y, X)``, above 0 on this side.
    clearness : float
        The share of the variance of the region's colours that lies between the two
        sides, 0 to 1.
    """

    logits: FloatArray
    clearness: float

    @property
    def other(self) -> Parted:
        """The other side."""
        return Parted(-self.logits, self.clearness)


def softened(picture: FloatArray) -> FloatArray:
    """Return a picture ``(C, Y, X)`` with less grain."""
    soft: FloatArray = ndimage.gaussian_filter(
        picture, (0, SOFT, SOFT), mode="nearest"
    ).astype(np.float32)
    return soft


def parted(picture: FloatArray, region: Mask) -> Parted | None:
    """Part the colours of a region in two.

    Parameters
    ----------
    picture : ndarray
        ``float32 (C, Y, X)``.
    region : ndarray
        ``bool (Y, X)``: whose colours decide. The threshold is applied everywhere.

    Returns
    -------
    Parted or None
        One of the sides; none where there is but one colour.
    """
    colours = picture[:, region]
    if colours.shape[1] < 2:
        return None
    middle = colours.mean(axis=1)
    _, axes = np.linalg.eigh(np.cov(colours))
    values = _along(axes[:, -1], picture - middle[:, None, None])
    inside = values[region]
    if inside.std() < ALIKE:
        return None
    return _side(values, _otsu(inside), inside)


def _otsu(values: FloatArray) -> float:
    """Return the threshold between the two sides of values."""
    return float(threshold_otsu(values))  # type: ignore[no-untyped-call]


def _along(axis: FloatArray, picture: FloatArray) -> FloatArray:
    """Return where each colour lies along an axis."""
    values: FloatArray = np.tensordot(axis.astype(np.float32), picture, 1)
    return values


def _side(values: FloatArray, threshold: float, inside: FloatArray) -> Parted:
    """Return what is above a threshold, and how clear it is in a region."""
    above = inside > threshold
    share = float(above.mean())
    between = 0.0
    if 0 < share < 1:
        apart = float(inside[above].mean() - inside[~above].mean())
        between = share * (1 - share) * apart**2 / float(inside.var())
    logits = STEEPNESS * (values - threshold) / float(inside.std())
    return Parted(logits.astype(np.float32), min(1.0, between))


def in_box(picture: FloatArray, box: Corners) -> list[Parted]:
    """Return both sides of the colours in a box.

    Parameters
    ----------
    picture : ndarray
        ``float32 (C, Y, X)``.
    box : tuple of int
        Top, left, bottom and right, cells that are still inside.

    Returns
    -------
    list of Parted
        Two, or none.
    """
    side = parted(picture, _rectangle(picture, box))
    return [] if side is None else [side, side.other]


def round_click(picture: FloatArray, click: Place, likely: Mask) -> list[Parted]:
    """Return what is coloured as an object is where it was clicked.

    Parameters
    ----------
    picture : ndarray
        ``float32 (C, Y, X)``.
    click : tuple of int
        Row and column.
    likely : ndarray
        ``bool (Y, X)``: a mask of about the size of the object.

    Returns
    -------
    list of Parted
        Parted near the click; and parted near the likely mask, and nothing beyond.
        Less where there is but one colour.
    """
    found = [_clicked(picture, _disc(picture, click), click)]
    if likely.any():
        room = _round_mask(picture, likely)
        side = _clicked(picture, room, click)
        if side is not None:
            away = np.where(room, side.logits, np.minimum(side.logits, -STEEPNESS))
            found.append(side._replace(logits=away.astype(np.float32)))
    return [side for side in found if side is not None]


def _clicked(picture: FloatArray, region: Mask, click: Place) -> Parted | None:
    """Part the colours of a region, and return the side that was clicked."""
    side = parted(picture, region)
    if side is None or side.logits[click] > 0:
        return side
    return side.other


def _disc(picture: FloatArray, middle: Place) -> Mask:
    """Return the cells near a place."""
    rows, columns = np.ogrid[: picture.shape[1], : picture.shape[2]]
    far = np.hypot(rows - middle[0], columns - middle[1])
    disc: Mask = far < REACH
    return disc


def _round_mask(picture: FloatArray, mask: Mask) -> Mask:
    """Return the box round a mask, with some room."""
    top, left, bottom, right = corners_of(mask)
    down, across = (2 + length // ROOM for length in (bottom - top, right - left))
    box = top - down, left - across, bottom + down, right + across
    return _rectangle(picture, box)


def _rectangle(picture: FloatArray, box: Corners) -> Mask:
    """Return a box as a mask."""
    top, left, bottom, right = box
    region = np.zeros(picture.shape[1:], bool)
    region[max(0, top) : max(0, bottom + 1), max(0, left) : max(0, right + 1)] = True
    return region
