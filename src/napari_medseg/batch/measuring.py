"""Measuring one slice of an image, a part of it at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._labels import label_windows
from napari_medseg.io.axes import unit_word
from napari_medseg.measurements import measure, measure_classes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from napari_medseg._labels import AnyLabels, DoubleArray
    from napari_medseg.io.image_file import ImageFile, LabelImage

_PIXELS = 1 << 22
"""Pixels of an image of classes that are measured at a time, in whole rows."""

_NO_UNITS = ("", "px", "pixel", "pixels")


def pixel_size(image: ImageFile | LabelImage) -> tuple[dict[str, float], str | None]:
    """Return the size of a pixel in physical units, where the file tells both.

    Parameters
    ----------
    image : ImageFile or LabelImage
        The image, or its labels.

    Returns
    -------
    scale : dict
        Size along ``y`` and ``x``; empty where it is not known.
    unit : str or None
        Its unit, such as ``micrometer``; None where it is not known.
    """
    units = {image.units.get(axis, "") for axis in "YX"}
    unit = units.pop()
    if units or unit in _NO_UNITS or not all(axis in image.scale for axis in "YX"):
        return {}, None
    return {axis.lower(): image.scale[axis] for axis in "YX"}, unit_word(unit)


def measure_objects(
    image: ImageFile, index: Mapping[str, int], labels: AnyLabels
) -> pd.DataFrame:
    """Measure the objects of a slice.

    Parameters
    ----------
    image : ImageFile
        The image.
    index : mapping of str to int
        The slice, as `ImageFile.indices` gives it.
    labels : ndarray of int or StoredLabels
        ``(Y, X)``, id of the object at each pixel; 0 is background.

    Returns
    -------
    pandas.DataFrame
        As `napari_medseg.measurements.measure` gives it.

    Raises
    ------
    InputError
        A part of the image's file is damaged.
    """
    import pandas as pd

    scale, unit = pixel_size(image)
    tables = []
    for window in label_windows(labels):
        own = window.labels
        if own.shape != labels.shape:
            # others may reach into the window; they are measured in their own
            own = np.where(np.isin(own, [label for label, _ in window.boxes]), own, 0)
        pixels = image.region(index, window.rows, window.columns)
        table = measure(own, pixels, scale, unit)
        _move(table, "y", window.rows.start, scale)
        _move(table, "x", window.columns.start, scale)
        tables.append(table)
    if not tables:  # a large image with no object at all
        pixels = np.zeros((image.channels, 1, 1), np.float32)
        tables = [measure(np.zeros((1, 1), np.int32), pixels, scale, unit)]
    table = tables[0] if len(tables) == 1 else pd.concat(tables, ignore_index=True)
    return table.sort_values("label", ignore_index=True)


def _move(table: pd.DataFrame, axis: str, by: int, scale: Mapping[str, float]) -> None:
    """Turn positions in a part of an image into positions in the image."""
    for column in (f"centroid_{axis}", f"bbox_{axis}0", f"bbox_{axis}1"):
        table[column] += by
    table[f"position_{axis}"] += by * scale.get(axis, 1.0)


def measure_areas(
    image: ImageFile, index: Mapping[str, int], labels: AnyLabels, count: int
) -> pd.DataFrame:
    """Measure the classes of a slice.

    Parameters
    ----------
    image : ImageFile
        The image.
    index : mapping of str to int
        The slice, as `ImageFile.indices` gives it.
    labels : ndarray of int or StoredLabels
        ``(Y, X)``, class of each pixel.
    count : int
        Number of classes, background included.

    Returns
    -------
    pandas.DataFrame
        The columns of `napari_medseg.measurements.measure_classes`, with a row for
        each class: background, and what is not in this image, too.

    Raises
    ------
    InputError
        A part of the image's file is damaged.
    """
    scale, unit = pixel_size(image)
    height, width = labels.shape
    sums: _Sums | None = None
    band = max(1, _PIXELS // width)
    for top in range(0, height, band):
        rows, columns = slice(top, min(top + band, height)), slice(0, width)
        # counted from 1, so that background is measured, too
        numbers = np.asarray(labels[rows, columns], np.int32) + 1
        pixels = image.region(index, rows, columns)
        table = measure_classes(numbers, pixels, scale, unit)
        sums = sums or _Sums(table, count)
        sums.add(table)
    if sums is None:
        raise ValueError("There are no rows to measure.")
    return sums.table(scale, unit)


class _Sums:
    """What is measured of classes, summed up over the parts of an image.

    Parameters
    ----------
    like : pandas.DataFrame
        A table of `measure_classes`, for its columns.
    count : int
        Number of classes; they have the labels 1 to ``count``.
    """

    def __init__(self, like: pd.DataFrame, count: int) -> None:
        self._columns = list(like.columns)
        self._channels = sum(name.startswith("mean_intensity_") for name in like)
        shape = (count, self._channels)
        self._pixels = np.zeros((count, 1))
        self._mean, self._variance = np.zeros(shape), np.zeros(shape)
        self._min, self._max = np.full(shape, np.nan), np.full(shape, np.nan)

    def add(self, part: pd.DataFrame) -> None:
        """Add the table of a part."""
        rows = part["label"].to_numpy() - 1
        pixels = np.zeros_like(self._pixels)
        pixels[rows, 0] = part["area_px"]
        mean = self._of(part, "mean", 0.0)
        variance = self._of(part, "std", 0.0) ** 2
        new = pixels / np.maximum(self._pixels + pixels, 1)
        old = 1 - new
        with np.errstate(invalid="ignore"):  # an image may hold infinity
            apart = mean - self._mean
            self._mean += new * apart
            self._variance = old * self._variance + new * variance
            self._variance += old * new * apart**2
        self._min = np.fmin(self._min, self._of(part, "min", np.nan))
        self._max = np.fmax(self._max, self._of(part, "max", np.nan))
        self._pixels += pixels

    def _of(self, part: pd.DataFrame, kind: str, missing: float) -> DoubleArray:
        """Return one statistic of a part, ``(classes, channels)``."""
        values: DoubleArray = np.full(self._mean.shape, missing)
        for channel in range(self._channels):
            values[part["label"] - 1, channel] = part[f"{kind}_intensity_{channel}"]
        return values

    def table(self, scale: Mapping[str, float], unit: str | None) -> pd.DataFrame:
        """Return the sums as a table like those that were added."""
        import pandas as pd

        pixels = self._pixels[:, 0].astype(np.int64)
        columns: dict[str, Any] = {
            "label": np.arange(len(pixels)),
            "area_px": pixels,
            "area": pixels * (scale.get("y", 1.0) * scale.get("x", 1.0)),
            "share": pixels / pixels.sum(),
            "unit": unit or "px",
        }
        there = self._pixels > 0
        for kind, values in (
            ("mean", np.where(there, self._mean, np.nan)),
            ("min", self._min),
            ("max", self._max),
            ("std", np.where(there, np.sqrt(self._variance), np.nan)),
        ):
            for channel in range(self._channels):
                columns[f"{kind}_intensity_{channel}"] = values[:, channel]
        return pd.DataFrame(columns)[self._columns]


def object_kinds(labels: AnyLabels, classes: AnyLabels, count: int) -> dict[int, int]:
    """Return the class that most pixels of each object have.

    Parameters
    ----------
    labels : ndarray of int or StoredLabels
        ``(Y, X)``, objects.
    classes : ndarray of int or StoredLabels
        ``(Y, X)``, class of each pixel; 0, background, does not count.
    count : int
        Number of classes, background included.

    Returns
    -------
    dict of int to int
        The class of each object that has one.
    """
    kinds: dict[int, int] = {}
    for window in label_windows(labels):
        part = np.asarray(classes[window.rows, window.columns])
        for label, box in window.boxes:
            mine = part[box][window.labels[box] == label]
            votes = np.bincount(mine, minlength=count)[1:count]
            if votes.any():
                kinds[label] = int(votes.argmax()) + 1
    return kinds
