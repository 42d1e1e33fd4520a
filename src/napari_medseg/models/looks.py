"""Where to look, and how closely, for the object that a click or a box means.

A small SAM knows objects of a limited range of sizes. The piece of an image that it
is given is therefore chosen so that an object becomes as large as those it knows: by
the sides of a box, or, as a click does not say how large the object is, at several
magnifications at once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch

from napari_medseg.models.framing import Box, Framing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from napari_medseg.models.registry import KnownSizes

Extent: TypeAlias = tuple[float, float, float, float]
"""Top, left, bottom and right of something, centres of pixels that are inside it."""

FILLED = 0.9
"""What an object covers of a window along a side, at most."""

SMALLEST_TILE = 16
"""A window shows no fewer pixels of the image along a side."""

WIDEST = 1.5
"""Nor more than so many times those of the image."""


class Look(NamedTuple):
    """A piece of an image, magnified.

    Attributes
    ----------
    framing : Framing
        How far.
    box : Box
        Which piece; smaller than a window where the image is.
    """

    framing: Framing
    box: Box

    @classmethod
    def at(
        cls,
        extent: Extent,
        tile: int,
        window: int,
        shape: tuple[int, int],
        step: int = 1,
    ) -> Look:
        """Return a window with something in its middle, as far as the image lets.

        Parameters
        ----------
        extent : tuple of float
            What shall be in the middle.
        tile : int
            Side of the window, in pixels of the image.
        window : int
            Side of the network's input.
        shape : tuple of int
            Height and width of the image.
        step : int
            Windows begin at multiples of so many pixels, or end where the image does.

        Returns
        -------
        Look
        """
        starts = []
        for low, high, length in zip(extent[:2], extent[2:], shape, strict=True):
            start = step * round((low + high + 1 - tile) / 2 / step)
            starts.append(max(0, min(start, length - tile)))
        top, left = starts
        bottom, right = min(top + tile, shape[0]), min(left + tile, shape[1])
        return cls(Framing(tile=tile, size=window), Box(top, left, bottom, right))

    def to_window(self, points: Tensor) -> Tensor:
        """Bring points ``(N, 2)``, x and y, from the image to the window."""
        corner = torch.tensor([self.box.left, self.box.top], dtype=torch.float32)
        # from centres of the image's pixels to those of the window
        return (points - corner + 0.5) * self.framing.scale - 0.5

    def shows(self, extent: Extent) -> bool:
        """Tell whether something lies in the window."""
        top, left, bottom, right = extent
        return (
            self.box.top - 0.5 <= top
            and self.box.left - 0.5 <= left
            and bottom <= self.box.bottom - 0.5
            and right <= self.box.right - 0.5
        )


def looks_at(
    extent: Extent, shape: tuple[int, int], sizes: KnownSizes
) -> tuple[Look, ...]:
    """Choose how to look at an object of which a box is known.

    Parameters
    ----------
    extent : tuple of float
        The box, and all clicks on it.
    shape : tuple of int
        Height and width of the image.
    sizes : KnownSizes
        To what sides the box is magnified.

    Returns
    -------
    tuple of Look
        At least one; elongated objects, which a window would not hold at a large
        magnification, have fewer.
    """
    height, width = (
        high - low + 1 for low, high in zip(extent[:2], extent[2:], strict=True)
    )
    least = math.ceil(max(height, width) / FILLED)
    side = math.sqrt(height * width)
    most = round(WIDEST * max(shape))
    tiles = (sizes.window * side / wanted for wanted in sizes.sides)
    return _different(
        Look.at(
            extent,
            max(min(round(tile), most), least, SMALLEST_TILE),
            sizes.window,
            shape,
        )
        for tile in tiles
    )


def looks_round(
    click: tuple[float, float],
    extent: Extent,
    shape: tuple[int, int],
    working: int,
    sizes: KnownSizes,
) -> tuple[Look, ...]:
    """Choose how to look at an object of unknown size round a click.

    Parameters
    ----------
    click : tuple of float
        Row and column of the first click. Further clicks do not move the windows, so
        that nothing is embedded anew.
    extent : tuple of float
        All clicks; a window that does not show them all is left out.
    shape : tuple of int
        Height and width of the image.
    working : int
        Working size of the SAM.
    sizes : KnownSizes
        How far to magnify, beyond what the SAM usually does.

    Returns
    -------
    tuple of Look
        At least one.
    """
    usual = Framing.for_images([shape], working).scale
    most = max(SMALLEST_TILE, math.ceil(WIDEST * max(shape)))
    # neighbours share windows, which are embedded once
    looks = _different(
        Look.at((*click, *click), tile, window, shape, step=max(1, tile // 4))
        for tile, window in (
            (round(window / (zoom * usual)), window) for zoom, window in sizes.zooms
        )
        if SMALLEST_TILE <= tile <= most
    )
    shown = tuple(look for look in looks if look.shows(extent))
    whole = Look.at(extent, max(*shape, SMALLEST_TILE), working, shape)
    return shown or (whole,)


def looks_ahead(
    place: tuple[float, float],
    shape: tuple[int, int],
    working: int,
    sizes: KnownSizes,
    most: int,
) -> tuple[Look, ...]:
    """List the looks at clicks that may come, as `looks_round` has them.

    Parameters
    ----------
    place : tuple of float
        Row and column.
    shape : tuple of int
        Height and width of the image.
    working : int
        Working size of the SAM.
    sizes : KnownSizes
        How far to magnify, beyond what the SAM usually does.
    most : int
        So many looks at most.

    Returns
    -------
    tuple of Look
        Those at clicks nearest to the place first.
    """
    usual = Framing.for_images([shape], working).scale
    tiles = [window / (zoom * usual) for zoom, window in sizes.zooms]
    # as far as the windows of neighbours are apart
    step = max(1, round(min(tiles)) // 4)
    clicks = [
        (float(row), float(column))
        for row in range(0, shape[0], step)
        for column in range(0, shape[1], step)
    ]
    clicks.sort(key=lambda click: math.dist(click, place))
    looks: dict[Look, None] = {}
    for click in clicks:
        found = looks_round(click, (*click, *click), shape, working, sizes)
        looks.update(dict.fromkeys(found))
        if len(looks) >= most:
            break
    return tuple(looks)[:most]


def _different(looks: Iterable[Look]) -> tuple[Look, ...]:
    """Return each look once, in their order."""
    return tuple(dict.fromkeys(looks))
