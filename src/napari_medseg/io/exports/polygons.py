"""Objects as polygons along the edges of their pixels."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg.io.exports._objects import crops, label_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_medseg._labels import (
        AnyLabels,
        Array,
        BoolArray,
        DoubleArray,
        IntArray,
    )

# The steps of the headings 0 to 3: along x, along y, against x, against y.
_STEPS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])


@dataclass(frozen=True, slots=True)
class Polygon:
    """An area with holes.

    The rings are closed (the last vertex is the first again) and simple: none meets
    itself, though two may touch at a vertex.

    Attributes
    ----------
    exterior : ndarray
        ``float64 (N, 2)``, vertices (x, y) in pixels; pixel (0, 0) reaches from
        (0, 0) to (1, 1). Counter-clockwise as RFC 7946 counts, with y upwards; on a
        screen, where y points down, it runs clockwise.
    holes : tuple of ndarray
        The same for each hole, in the other direction.
    """

    exterior: DoubleArray
    holes: tuple[DoubleArray, ...] = ()


def outlines(labels: Array) -> dict[int, list[Polygon]]:
    """Return the exact outlines of all objects.

    Parameters
    ----------
    labels : ndarray of int
        ``(Y, X)``, id of the object at each pixel; 0 is background.

    Returns
    -------
    dict of int to list of Polygon
        The pieces of each object, by id. Pixels that touch at a corner only are of
        different pieces, unless others connect them.

    Raises
    ------
    InputError
        The labels are not a 2D image of integers from 0 up.
    """
    return dict(each_outline(label_image(labels, "The label image")))


def each_outline(labels: AnyLabels) -> Iterator[tuple[int, list[Polygon]]]:
    """Yield the exact outlines of all objects, one object at a time.

    Parameters
    ----------
    labels : ndarray of int or StoredLabels
        ``(Y, X)``; checked.

    Yields
    ------
    label : int
        Id of an object.
    polygons : list of Polygon
        Its pieces.
    """
    for crop in crops(labels):
        origin = np.array([crop.x, crop.y], np.float64)
        yield crop.label, _polygons(crop.mask, origin)


def _polygons(mask: BoolArray, origin: DoubleArray) -> list[Polygon]:
    """Return the polygons of a mask whose first corner lies at ``origin`` (x, y)."""
    from scipy import ndimage  # long to import, and forms import this module

    pieces, _ = ndimage.label(mask)
    exteriors: dict[int, DoubleArray] = {}
    holes: defaultdict[int, list[DoubleArray]] = defaultdict(list)
    for piece, ring in _rings(pieces):
        if _signed_area(ring) > 0:
            exteriors[piece] = ring + origin
        else:
            holes[piece].append(ring + origin)
    return [Polygon(exteriors[key], tuple(holes[key])) for key in sorted(exteriors)]


def _signed_area(ring: DoubleArray) -> float:
    """Return the area of a closed ring, positive where it runs counter-clockwise."""
    x, y = ring.T
    return float(x[:-1] @ y[1:] - x[1:] @ y[:-1]) / 2


@dataclass(frozen=True, slots=True)
class _Edges:
    """Edges of pixels with the object on one side, which is their left.

    They are sorted by heading, y, x.
    """

    heading: IntArray
    start: IntArray  # (N, 2): x, y
    piece: IntArray

    @property
    def end(self) -> IntArray:
        """The vertices that the edges lead to."""
        ends: IntArray = self.start + _STEPS[self.heading]
        return ends


def _edges(pieces: Array) -> _Edges:
    """Find the edges between the pieces and the background."""
    padded = np.pad(pieces, 1)
    above, below = padded[:-1, 1:-1], padded[1:, 1:-1]
    left, right = padded[1:-1, :-1], padded[1:-1, 1:]
    # inside and outside by heading, and where in its square an edge starts
    sides = (
        (below, above, (0, 0)),
        (left, right, (0, 0)),
        (above, below, (1, 0)),
        (right, left, (0, 1)),
    )
    headings, starts, owners = [], [], []
    for heading, (inside, outside, shift) in enumerate(sides):
        y, x = np.nonzero((inside > 0) & (outside == 0))
        headings.append(np.full(len(x), heading))
        starts.append(np.stack([x, y], axis=1) + shift)
        owners.append(inside[y, x])
    return _Edges(
        np.concatenate(headings), np.concatenate(starts), np.concatenate(owners)
    )


def _linked(edges: _Edges, shape: tuple[int, ...]) -> tuple[IntArray, BoolArray]:
    """Return which edge follows each, and whether there is a corner between them."""

    def codes(heading: IntArray, vertex: IntArray) -> IntArray:
        x, y = vertex.T
        code: IntArray = (heading * (shape[0] + 1) + y) * (shape[1] + 1) + x
        return code

    known, end = codes(edges.heading, edges.start), edges.end
    following = np.zeros_like(known)
    corner = np.zeros(len(known), dtype=bool)
    # Four edges meet where pixels touch at a corner. If one piece holds both pixels,
    # the turn to the right, tried last, keeps its rings from meeting themselves; if
    # not, the turn to the left stays at the pixel.
    for turn in (1, 0, -1):
        wanted = codes((edges.heading + turn) % 4, end)
        place = np.searchsorted(known, wanted).clip(max=len(known) - 1)
        fits = (known[place] == wanted) & (edges.piece[place] == edges.piece)
        following[fits] = place[fits]
        corner[fits] = turn != 0
    return following, corner


def _rings(pieces: Array) -> Iterator[tuple[int, DoubleArray]]:
    """Yield the closed outlines of numbered pieces, and whose they are."""
    edges = _edges(pieces)
    following, corner = _linked(edges, pieces.shape)
    vertices = edges.end.astype(np.float64)
    for cycle in _cycles(following.tolist()):
        members = np.array(cycle)
        ring = vertices[members[corner[members]]]
        yield int(edges.piece[cycle[0]]), np.concatenate([ring, ring[:1]])


def _cycles(following: list[Any]) -> Iterator[list[int]]:
    """Yield the cycles of a permutation."""
    fresh = bytearray(b"\1") * len(following)
    for first in range(len(following)):
        cycle, current = [], first
        while fresh[current]:
            fresh[current] = 0
            cycle.append(current)
            current = following[current]
        if cycle:
            yield cycle
