"""Shapes as lists of pixels with their depth, made within their bounding box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medseg._types import FloatArray

MARGIN = 3.0
"""Pixels kept outside a shape, for its soft edge."""


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """The pixels of a shape and of a thin margin round it.

    Attributes
    ----------
    index : ndarray
        ``int64 (P,)``, places in the flattened image; none comes twice.
    depth : ndarray
        ``float32 (P,)``, distance in pixels to the outline, negative outside it.
    radius : float
        Depth at the middle.
    """

    index: NDArray[np.int64]
    depth: FloatArray
    radius: float


def _box(
    centre: tuple[float, float], reach: float, size: int
) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
    """Return offsets from the centre, and places, of the pixels of a box."""
    (top, bottom), (left, right) = (
        (max(0, int(at - reach)), min(size, int(at + reach) + 2)) for at in centre
    )
    rows = np.arange(top, max(top, bottom))
    columns = np.arange(left, max(left, right))
    down = (rows - centre[0]).astype(np.float32)[:, None]
    across = (columns - centre[1]).astype(np.float32)[None, :]
    return down, across, rows[:, None] * size + columns[None, :]


def _cut(index: NDArray[np.int64], depth: FloatArray, radius: float) -> Shape:
    """Return the shape of the pixels that are inside or nearly so."""
    near = depth > -MARGIN
    return Shape(index[near], depth[near].astype(np.float32), radius)


def blob(
    rng: np.random.Generator,
    centre: tuple[float, float],
    radius: float,
    stretch: float,
    wobble: float,
    size: int,
) -> Shape:
    """Return an ellipse with an uneven outline, turned at random.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all chance.
    centre : tuple of float
        Row and column; may lie outside the image.
    radius : float
        Mean radius in pixels.
    stretch : float
        Long axis over short axis.
    wobble : float
        Unevenness of the outline relative to the radius; 0 is an ellipse.
    size : int
        Side of the image.

    Returns
    -------
    Shape
    """
    root = float(np.sqrt(stretch))
    reach = radius * root * (1 + 2 * wobble) + MARGIN
    down, across, index = _box(centre, reach, size)
    turn = np.exp(1j * rng.uniform(0, 2 * np.pi))
    place = (across + 1j * down) * np.complex64(turn)
    place = place.real / root + 1j * (place.imag * root)
    distance = np.abs(place)
    outline: FloatArray = np.full(distance.shape, radius, np.float32)
    if wobble:
        way = place / (distance + 1e-3)
        power = way
        for waves in range(2, 7):
            power = power * way
            # many waves round the outline are shallow, or the blob is a star
            swing = wobble * radius * rng.standard_normal(2) * 1.6 / waves
            outline += (np.complex64(complex(*swing)) * power).real
        outline = np.clip(outline, radius * 0.5, radius * (1 + 2 * wobble))
    # along the short axis a pixel is stretched to ``root`` units
    return _cut(index, (outline - distance) / root, radius / root)


def rod(
    angle: float,
    centre: tuple[float, float],
    length: float,
    width: float,
    bend: float,
    waist: float,
    size: int,
) -> Shape:
    """Return a rod with round ends.

    Parameters
    ----------
    angle : float
        Direction of the long axis in radians.
    centre : tuple of float
        Row and column.
    length, width : float
        In pixels, ends included.
    bend : float
        How far the middle leaves the line between the ends, over the length.
    waist : float
        Narrowing of the middle, 0 to 1, as of a dividing bacterium.
    size : int
        Side of the image.

    Returns
    -------
    Shape
    """
    half = max(length - width, 0) / 2
    reach = length / 2 + width + abs(bend) * length + MARGIN
    down, across, index = _box(centre, reach, size)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along = across * cosine + down * sine
    aside = down * cosine - across * sine
    if bend and half:
        run = np.clip(along / half, -1.3, 1.3)
        aside = aside - bend * length * (1 - run**2)
    beyond = np.maximum(np.abs(along) - half, 0)
    depth = width / 2 - np.hypot(beyond, aside)
    if waist:
        depth = depth - waist * width / 2 * np.exp(-((along / width) ** 2) * 4)
    return _cut(index, depth.astype(np.float32), width / 2)


def curve(
    rng: np.random.Generator, start: tuple[float, float], length: float, curl: float
) -> FloatArray:
    """Return the points of a smooth random curve, less than a pixel apart.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all chance.
    start : tuple of float
        Row and column of the first point.
    length : float
        In pixels.
    curl : float
        Turning in radians over about 40 points; 0 is straight.

    Returns
    -------
    ndarray
        ``float32 (N, 2)``, rows and columns.
    """
    count = max(int(length / 0.7), 4)
    knots = rng.standard_normal(count // 40 + 3) * curl / 40
    turning = np.interp(np.arange(count) / 40, np.arange(len(knots)), knots)
    angle = rng.uniform(0, 2 * np.pi) + np.cumsum(turning)
    steps = 0.7 * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    points: FloatArray = (np.cumsum(steps, axis=0) + start).astype(np.float32)
    return points


def stroke(points: FloatArray, width: float, taper: float, size: int) -> Shape:
    """Return a line drawn along points.

    Parameters
    ----------
    points : ndarray
        ``float32 (N, 2)``, less than a pixel apart.
    width : float
        In pixels.
    taper : float
        0 to 1: how much thinner the ends are.
    size : int
        Side of the image.

    Returns
    -------
    Shape
    """
    reach = int(width / 2 + MARGIN)
    down, across = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    distance = np.hypot(down, across)
    # far offsets first: where two meet, the last written, the nearest, stays
    order = np.argsort(-distance, kind="stable")
    order = order[distance[order] <= width / 2 + MARGIN]
    run = np.linspace(-1, 1, len(points), dtype=np.float32)
    half = width / 2 * (1 - taper * run**4)
    rows = np.rint(points[:, 0]).astype(np.int64) + down[order, None]
    columns = np.rint(points[:, 1]).astype(np.int64) + across[order, None]
    depth = half[None, :] - distance[order, None].astype(np.float32)
    inside = (rows >= 0) & (columns >= 0) & (rows < size) & (columns < size)
    inside &= depth > -MARGIN
    places = (rows * size + columns)[inside]
    sheet = np.empty(size * size, np.float32)
    sheet[places] = depth[inside]
    touched = np.zeros(size * size, np.bool_)
    touched[places] = True
    index = np.flatnonzero(touched)
    return Shape(index, sheet[index], width / 2)
