"""Tables of measurements of a labels layer, with the columns that folders have."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg.io.axes import unit_word
from napari_medseg.layer_data.label_stack import CLASSES, PIXEL, LabelStack
from napari_medseg.measurements import measure, measure_all_classes, place_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from napari_medseg._labels import Array

_LENGTHS = (
    "position_y",
    "position_x",
    "axis_major_length",
    "axis_minor_length",
    "perimeter",
)
"""Columns in the unit that another column names."""


def physical_size(stack: LabelStack) -> tuple[dict[str, float], str | None]:
    """Return the size of a pixel in physical units, where both are known.

    Parameters
    ----------
    stack : LabelStack
        The labels.

    Returns
    -------
    scale : dict
        Size along ``y`` and ``x``; empty where it is not known.
    unit : str or None
        Its unit, such as ``micrometer``.
    """
    units = {stack.units.get(axis, PIXEL) for axis in "YX"}
    unit = units.pop()
    if units or unit == PIXEL:
        return {}, None
    return {axis.lower(): stack.scale[axis] for axis in "YX"}, unit_word(unit)


def described(
    table: pd.DataFrame, stack: LabelStack, index: Mapping[str, int]
) -> pd.DataFrame:
    """Add to the measurements of a slice where it lies, and the names of classes.

    Parameters
    ----------
    table : pandas.DataFrame
        From `measure` or `measure_all_classes`.
    stack : LabelStack
        The labels.
    index : mapping of str to int
        The slice.

    Returns
    -------
    pandas.DataFrame
        Place, label, class where it is known, then what was measured.
    """
    import pandas as pd

    table = table.copy()
    if stack.meaning == CLASSES or stack.classes:
        names = [class_name(stack, label) for label in table["label"]]
        table.insert(1, "class", pd.Series(names, dtype=object))
    for place, (column, value) in enumerate(place_columns(index).items()):
        table.insert(place, column, value)
    return table


def class_name(stack: LabelStack, label: int) -> str:
    """Return the name of the class of a label; empty where it is not known."""
    kind = stack.kind_of(label)
    if kind == 0 and stack.meaning != CLASSES:
        return ""
    known = 0 <= kind < len(stack.classes)
    return stack.classes[kind].name if known else f"class {kind}"


def measured(stack: LabelStack) -> pd.DataFrame:
    """Return the measurements of labels: the layer's own, or new ones.

    Parameters
    ----------
    stack : LabelStack
        The labels. Their own table is taken where it has the areas and places of
        these very labels, in the layer's unit; after more was painted, or the size of
        a pixel was set, it has not.

    Returns
    -------
    pandas.DataFrame
        One row a label, of a stack one a label and slice; as of `described`.
    """
    size = physical_size(stack)
    if stack.table is not None and _is_of(stack.table, stack, size):
        return stack.table.rename(columns={"index": "label"})
    return put_together(
        [
            measured_slice(stack, index, labels, None, size)
            for index, labels in stack.slices()
        ]
    )


def measured_slice(
    stack: LabelStack,
    index: Mapping[str, int],
    labels: Array,
    image: Array | None,
    size: tuple[Mapping[str, float], str | None],
) -> pd.DataFrame:
    """Return the measurements of one slice.

    Parameters
    ----------
    stack : LabelStack
        Says what the labels mean.
    index : mapping of str to int
        The slice.
    labels : ndarray of int
        ``(Y, X)``, its labels.
    image : ndarray, optional
        ``(C, Y, X)``, for the intensities.
    size : tuple
        Size of a pixel and its unit, as of `physical_size`.

    Returns
    -------
    pandas.DataFrame
        As of `described`.

    Raises
    ------
    InputError
        As `measure`.
    """
    if stack.meaning == CLASSES:
        table = measure_all_classes(labels, len(stack.classes), image, *size)
    else:
        table = measure(labels, image, *size)
    return described(table, stack, index)


def put_together(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the tables of slices as one; of one without rows only the columns."""
    import pandas as pd

    full = [table for table in tables if len(table)]
    if full:
        return pd.concat(full, ignore_index=True)
    return tables[0] if tables else pd.DataFrame()


def in_units(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose columns have their unit in their names.

    Parameters
    ----------
    table : pandas.DataFrame
        May have a column ``unit``.

    Returns
    -------
    pandas.DataFrame
        Such as ``area [micrometer^2]``; for programs that take numbers alone.
    """
    unit = str(table["unit"].iloc[0]) if "unit" in table and len(table) else "px"
    return table.rename(columns={"area": f"area [{unit}^2]"}).rename(
        columns={column: f"{column} [{unit}]" for column in _LENGTHS}
    )


def _is_of(
    table: pd.DataFrame,
    stack: LabelStack,
    size: tuple[Mapping[str, float], str | None],
) -> bool:
    """Tell whether a table has the sizes and places of labels, but for background."""
    if not {"index", "area_px", "area", "unit"} <= set(table.columns):
        return False
    scale, unit = size
    there = table[(table["index"] > 0) & (table["area_px"] > 0)]
    areas = there["area_px"] * math.prod(scale.values())
    if not np.allclose(there["area"], areas, rtol=1e-6, atol=0):
        return False
    if not (there["unit"] == (unit or "px")).all():
        return False
    rows = 0
    for index, labels in stack.slices():
        part = there
        for column, place in place_columns(index).items():
            if column not in part:
                return False
            part = part[part[column] == place]
        if not _is_of_slice(part, labels):
            return False
        rows += len(part)
    return rows == len(there)


def _is_of_slice(table: pd.DataFrame, labels: Array) -> bool:
    """Tell whether rows have the areas of the labels of a slice, and their middles."""
    inside = labels > 0
    ids, ranks = np.unique(labels[inside], return_inverse=True)
    area = np.bincount(ranks, minlength=len(ids))
    rows = table.sort_values("index")
    if len(rows) != len(ids):
        return False
    if not ((rows["index"] == ids) & (rows["area_px"] == area)).all():
        return False
    for axis, places in zip("yx", np.nonzero(inside), strict=True):
        middle = np.bincount(ranks, places, minlength=len(ids)) / area
        column = f"centroid_{axis}"
        if column in rows and not np.allclose(rows[column], middle, atol=1e-3):
            return False
    return True
