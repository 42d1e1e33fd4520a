"""Measurements of objects: size, shape and intensity."""

# scipy and scikit-image are imported where they are needed: forms import this module

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._labels import check_2d
from napari_medseg._types import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from napari_medseg._labels import Array
    from napari_medseg._types import LabelArray

_BOX = ("bbox_y0", "bbox_x0", "bbox_y1", "bbox_x1")
"""Columns of the bounding box; the ends are exclusive."""

_PLACES = {"T": "frame", "Z": "slice"}
"""Columns that say where in a stack something is, counted from 0."""


def place_columns(index: Mapping[str, int]) -> dict[str, int]:
    """Return the columns that say where in a stack a slice lies.

    Parameters
    ----------
    index : mapping of str to int
        Such as ``{"T": 0, "Z": 3}``.

    Returns
    -------
    dict
        Such as ``{"frame": 0, "slice": 3}``.
    """
    return {_PLACES[letter]: place for letter, place in index.items()}


def measure(
    labels: Array,
    image: Array | None = None,
    scale: Mapping[str, float] | None = None,
    unit: str | None = None,
) -> pd.DataFrame:
    """Measure each object of a label image.

    Parameters
    ----------
    labels : ndarray of int
        ``(Y, X)``, id of the object at each pixel; 0 is background.
    image : ndarray, optional
        ``(C, Y, X)`` or ``(Y, X)``, for the intensities.
    scale : mapping of str to float, optional
        Size of a pixel along ``y`` and ``x`` (either case), in ``unit``. Default: 1.
    unit : str, optional
        Unit of the scale, such as ``micrometer``. Default: ``px``.

    Returns
    -------
    pandas.DataFrame
        One row an object, in the order of ids. In pixels: ``area_px``,
        ``centroid_y``, ``centroid_x`` and the bounding box ``bbox_y0``, ``bbox_x0``,
        ``bbox_y1``, ``bbox_x1`` (end exclusive). In the unit of the column ``unit``:
        ``area`` (squared), ``position_y``, ``position_x`` (the centroid, from the
        centre of the first pixel), ``axis_major_length``, ``axis_minor_length`` (of the
        ellipse with the same second moments) and ``perimeter`` (Crofton's formula in
        four directions). Without unit:
        ``label``, ``eccentricity``, ``orientation`` (radians from the y axis to the
        major axis, -π/2 to π/2; 0 for a disc) and ``solidity``. For each channel
        ``mean_intensity_0``, ``min_…``, ``max_…``, ``std_…``.

    Raises
    ------
    InputError
        The labels are not a 2D image, the image has another size, or the scale is
        not positive.
    """
    import pandas as pd

    ids, ranks = _ranked(check_2d(labels, "The label image"))
    channels = _channels(image, ranks.shape)
    spacing = _spacing(scale)
    shape = _shape_columns(ranks, spacing)
    columns: dict[str, Any] = {"label": ids, **shape}
    columns["unit"] = pd.Series([unit or "px"] * len(ids), dtype=object)
    return pd.DataFrame(columns | _intensities(channels, ranks, len(ids)))


def measure_classes(
    labels: Array,
    image: Array | None = None,
    scale: Mapping[str, float] | None = None,
    unit: str | None = None,
) -> pd.DataFrame:
    """Measure how much of an image each class takes.

    Parameters
    ----------
    labels : ndarray of int
        ``(Y, X)``, class of each pixel; 0 is background.
    image, scale, unit
        As for `measure`.

    Returns
    -------
    pandas.DataFrame
        One row a class that is there, in the order of their numbers: ``label``,
        ``area_px``, ``area`` (in the squared unit of the column ``unit``), ``share``
        of all pixels, and the intensities of `measure`.

    Raises
    ------
    InputError
        As `measure`.
    """
    import pandas as pd

    ids, ranks = _ranked(check_2d(labels, "The image of classes"))
    channels = _channels(image, ranks.shape)
    high, wide = _spacing(scale)
    area = np.bincount(ranks.ravel(), minlength=len(ids) + 1)[1:].astype(np.int64)
    columns: dict[str, Any] = {"label": ids, "area_px": area}
    columns["area"] = area * (high * wide)
    columns["share"] = area / max(ranks.size, 1)
    columns["unit"] = pd.Series([unit or "px"] * len(ids), dtype=object)
    return pd.DataFrame(columns | _intensities(channels, ranks, len(ids)))


def measure_all_classes(
    labels: Array,
    count: int,
    image: Array | None = None,
    scale: Mapping[str, float] | None = None,
    unit: str | None = None,
) -> pd.DataFrame:
    """Measure how much of an image each class takes, background and absent ones too.

    Parameters
    ----------
    labels : ndarray of int
        ``(Y, X)``, class of each pixel.
    count : int
        Number of classes, background included; a higher label adds to them.
    image, scale, unit
        As for `measure`.

    Returns
    -------
    pandas.DataFrame
        The columns of `measure_classes`, with a row for each class from 0.

    Raises
    ------
    InputError
        As `measure`.
    """
    # counted from 1, so that background is measured, too
    numbers = check_2d(labels, "The image of classes").astype(np.int64) + 1
    table = measure_classes(numbers, image, scale, unit)
    table["label"] -= 1
    count = max(count, int(numbers.max(initial=0)))
    whole = table.set_index("label").reindex(range(count)).reset_index()
    sizes = ["area_px", "area", "share"]
    whole[sizes] = whole[sizes].fillna(0).astype(table[sizes].dtypes)
    whole["unit"] = whole["unit"].fillna(unit or "px")
    return whole


def _intensities(channels: Array, ranks: LabelArray, count: int) -> dict[str, Array]:
    """Return the columns that sum up the intensities, channel by channel."""
    places = np.flatnonzero(ranks)
    owners = ranks.ravel()[places] - 1
    # the pixels of an object one after another; small integers are sorted fast
    order = np.argsort(owners.astype(np.min_scalar_type(count)), kind="stable")
    places = places[order]
    area = np.bincount(owners, minlength=count)
    starts = np.cumsum(area) - area
    columns: dict[str, Array] = {}
    for number, channel in enumerate(channels):
        values = channel.ravel()[places].astype(np.float64)
        with np.errstate(invalid="ignore"):  # an image may hold NaN and infinity
            mean = np.add.reduceat(values, starts) / area
            apart = values - np.repeat(mean, area)
            variance = np.add.reduceat(apart * apart, starts) / area
        columns |= {
            f"mean_intensity_{number}": mean,
            f"min_intensity_{number}": np.minimum.reduceat(values, starts),
            f"max_intensity_{number}": np.maximum.reduceat(values, starts),
            f"std_intensity_{number}": np.sqrt(variance),
        }
    return columns


def _ranked(labels: Array) -> tuple[Array, LabelArray]:
    """Return the ids of a label image, and the image renumbered from 1."""
    # Ids may be huge, and scikit-image makes lists as long as the largest.
    ids = np.unique(labels)
    ids = ids[ids > 0]
    ranks = np.searchsorted(ids, labels).astype(np.int32) + 1
    return ids.astype(np.int64), np.where(labels > 0, ranks, 0).astype(np.int32)


def _channels(image: Array | None, shape: tuple[int, ...]) -> Array:
    """Return an image as ``(C, Y, X)``, or refuse one of another size."""
    if image is None:
        return np.zeros((0, *shape), np.float32)
    values = np.asarray(image)
    values = values[None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[1:] != shape:
        raise InputError(
            f"The image has the shape {values.shape} and the label image {shape}; "
            "the image must be (C, Y, X) with the same Y and X. Measure objects on "
            "the image in which they were found."
        )
    return values


def _spacing(scale: Mapping[str, float] | None) -> tuple[float, float]:
    """Return the size of a pixel along y and x."""
    sizes = {axis.lower(): float(size) for axis, size in (scale or {}).items()}
    spacing = (sizes.get("y", 1.0), sizes.get("x", 1.0))
    if not all(np.isfinite(size) and size > 0 for size in spacing):
        raise InputError(f"The pixel size is {spacing}; it must be greater than 0.")
    return spacing


def _shape_columns(ranks: LabelArray, spacing: tuple[float, float]) -> dict[str, Array]:
    """Return the columns that describe position, size and shape."""
    from scipy import ndimage

    boxes = np.array(
        [
            [rows.start, columns.start, rows.stop, columns.stop]
            for rows, columns in ndimage.find_objects(ranks)
        ],
        np.int64,
    ).reshape(-1, 4)
    # all objects at once: scikit-image's regionprops takes a millisecond for each
    y, x = np.nonzero(ranks)
    places = ranks[y, x] - 1
    area = np.bincount(places, minlength=len(boxes)).astype(np.int64)

    def mean(values: Array) -> Array:
        return np.bincount(places, values, minlength=len(boxes)) / area

    centre_y, centre_x = mean(y), mean(x)
    columns = {"area_px": area, "area": area * (spacing[0] * spacing[1])}
    columns |= {"centroid_y": centre_y, "centroid_x": centre_x}
    columns |= dict(zip(_BOX, boxes.T, strict=True))
    columns["position_y"] = centre_y * spacing[0]
    columns["position_x"] = centre_x * spacing[1]
    down = (y - centre_y[places]) * spacing[0]
    right = (x - centre_x[places]) * spacing[1]
    columns |= _ellipses(mean(down * down), mean(right * right), mean(down * right))
    columns["solidity"] = area / _convex_areas(ranks, boxes)
    columns["perimeter"] = _perimeters(ranks, len(area), spacing)
    return columns


def _ellipses(yy: Array, xx: Array, yx: Array) -> dict[str, Array]:
    """Return what describes the ellipses of these second moments."""
    middle, half = (yy + xx) / 2, np.hypot((yy - xx) / 2, yx)
    major, minor = middle + half, np.maximum(middle - half, 0)
    # a disc has no direction: rounding shall not give it one
    round_ = half <= 1e-9 * middle
    share = np.divide(minor, major, out=np.ones_like(major), where=~round_)
    return {
        "axis_major_length": 4 * np.sqrt(major),
        "axis_minor_length": 4 * np.sqrt(minor),
        "eccentricity": np.sqrt(1 - share),
        "orientation": np.where(round_, 0.0, np.arctan2(2 * yx, yy - xx) / 2),
    }


def _convex_areas(ranks: LabelArray, boxes: Array) -> Array:
    """Return the pixels in the convex hull of each object."""
    from skimage.morphology import convex_hull_image

    areas = np.ones(len(boxes))
    for place, (top, left, bottom, right) in enumerate(boxes):
        mask = ranks[top:bottom, left:right] == place + 1
        # a filled rectangle is its own hull
        hull = (
            mask if mask.all() else convex_hull_image(mask)  # type: ignore[no-untyped-call]
        )
        areas[place] = hull.sum()
    return areas


def _perimeters(ranks: LabelArray, count: int, spacing: tuple[float, float]) -> Array:
    """Return perimeters by the Cauchy-Crofton formula in four directions.

    L = 1/2 Σ Δθ δ N, with N crossings of the outline by lines of one direction,
    their spacing δ and the angle Δθ that the direction stands for. For square
    pixels it is scikit-image's ``perimeter_crofton``, which knows no others.
    """
    high, wide = spacing
    angle = math.atan2(high, wide)
    diagonal = high * wide / math.hypot(high, wide)
    padded = np.pad(ranks, 1)
    middle = padded[1:-1, 1:-1]
    directions = (
        ((0, 1), angle * high),
        ((1, 0), (math.pi / 2 - angle) * wide),
        ((1, 1), math.pi / 4 * diagonal),
        ((1, -1), math.pi / 4 * diagonal),
    )
    length = np.zeros(count + 1)
    for (down, right), weight in directions:
        for sign in (1, -1):
            other = np.roll(padded, (sign * down, sign * right), (0, 1))[1:-1, 1:-1]
            crossings = np.bincount(middle[middle != other], minlength=count + 1)
            length += weight / 2 * crossings
    return length[1:]
