"""The rows that an image adds to the tables of a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_medseg.batch.measuring import pixel_size
from napari_medseg.measurements import place_columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from napari_medseg._labels import AnyLabels
    from napari_medseg._types import LabelClass
    from napari_medseg.io.image_file import ImageFile

_COUNT = "objects_"
"""Begins the names of columns that count the objects of a class."""

_LENGTHS = (
    "position_y",
    "position_x",
    "axis_major_length",
    "axis_minor_length",
    "perimeter",
)
"""Columns in the unit that another column names."""

_KINDS = {
    "string": "image file class unit",
    "int64": "frame slice label height_px width_px objects area_px "
    "bbox_y0 bbox_x0 bbox_y1 bbox_x1",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """A slice of an image, with its labels and what was measured of them.

    Attributes
    ----------
    index : mapping of str to int
        Where in a stack it lies; empty for an image that is no stack.
    labels : ndarray of int or StoredLabels
        ``(Y, X)``, objects or classes.
    kinds : mapping of int to int
        Class of each label; 0 for an object whose class is not known.
    table : pandas.DataFrame or None
        A row an object or class; None where nothing was measured.
    classed : bool
        Whether the classes of objects are known, of which there may be none.
    """

    index: Mapping[str, int]
    labels: AnyLabels
    kinds: Mapping[int, int]
    table: pd.DataFrame | None
    classed: bool = False


def column_kinds(names: Sequence[str]) -> dict[str, str]:
    """Return what the columns hold that do not hold numbers with a fraction.

    Parameters
    ----------
    names : sequence of str
        Names of the classes.

    Returns
    -------
    dict of str to str
        ``string`` or ``int64`` by column, as `join_tables` takes it.
    """
    kinds = {column: kind for kind, some in _KINDS.items() for column in some.split()}
    return kinds | {f"{_COUNT}{name}": "int64" for name in names}


def class_names(classes: Sequence[LabelClass]) -> list[str]:
    """Return the names of classes, each on one line and unlike the others.

    Parameters
    ----------
    classes : sequence of LabelClass
        The classes, background first.

    Returns
    -------
    list of str
        A name that is there already gets its number.
    """
    names: list[str] = []
    for number, entry in enumerate(classes):
        name = " ".join(entry.name.split()) or f"class {number}"
        names.append(f"{name} {number}" if name in names else name)
    return names


def _table(each: Measured) -> pd.DataFrame:
    """Return what was measured of a slice."""
    if each.table is None:
        raise ValueError("Nothing was measured of this slice.")
    return each.table


def in_units(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose columns have their unit in their names.

    Parameters
    ----------
    table : pandas.DataFrame
        With a column ``unit``.

    Returns
    -------
    pandas.DataFrame
        Such as ``area [micrometer^2]``; for programs that take numbers alone.
    """
    unit = str(table["unit"].iloc[0]) if len(table) else "px"
    return table.rename(columns={"area": f"area [{unit}^2]"}).rename(
        columns={column: f"{column} [{unit}]" for column in _LENGTHS}
    )


def label_rows(
    slices: Sequence[Measured], name: str, names: Sequence[str]
) -> pd.DataFrame:
    """Return the rows of an image in the table of objects or classes.

    Parameters
    ----------
    slices : sequence of Measured
        Its slices.
    name : str
        Its name in the run.
    names : sequence of str
        Names of the classes, background first.

    Returns
    -------
    pandas.DataFrame
        The image, the place in a stack, the class, then what was measured.
    """
    import pandas as pd

    tables = []
    for each in slices:
        table = _table(each).copy()
        kinds = [names[each.kinds[label]] for label in table["label"]]
        table.insert(1, "class", pd.Series(kinds, dtype=object))
        front = {"image": name, **place_columns(each.index)}
        for place, (column, value) in enumerate(front.items()):
            table.insert(place, column, value)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def image_rows(
    slices: Sequence[Measured],
    image: ImageFile,
    name: str,
    file: str,
    names: Sequence[str],
    *,
    objects: bool,
) -> pd.DataFrame:
    """Return the rows of an image in the table of images, one a slice.

    Parameters
    ----------
    slices : sequence of Measured
        Its slices.
    image : ImageFile
        The image.
    name, file : str
        Its name in the run, and its file.
    names : sequence of str
        Names of the classes, background first.
    objects : bool
        Whether labels are objects, or else classes.

    Returns
    -------
    pandas.DataFrame
        Size and pixel size, and how much was found.
    """
    import pandas as pd

    height, width = image.size
    scale, unit = pixel_size(image)
    found = _count_objects if objects else _share_of_classes
    rows = [
        {
            "image": name,
            "file": file,
            **place_columns(each.index),
            "height_px": height,
            "width_px": width,
            "pixel_size_y": scale.get("y"),
            "pixel_size_x": scale.get("x"),
            "unit": unit or "px",
            **found(each, names, height * width),
        }
        for each in slices
    ]
    return pd.DataFrame(rows)


def _count_objects(each: Measured, names: Sequence[str], pixels: int) -> dict[str, Any]:
    """Return how many objects there are, and how large."""
    table = _table(each)
    row: dict[str, Any] = {"objects": len(table)}
    counts = Counter(each.kinds.values())
    if each.classed:
        for kind, name in enumerate(names[1:], start=1):
            row[f"{_COUNT}{name}"] = counts[kind]
    row["area_share"] = float(table["area_px"].sum()) / pixels
    for column in ("area_px", "area"):
        row[f"mean_{column}"] = table[column].mean() if len(table) else None
    return row


def _share_of_classes(each: Measured, names: Sequence[str], _: int) -> dict[str, Any]:
    """Return how much of the image each class takes, but for background."""
    shares = _table(each).set_index("label")["share"]
    return {
        f"share_{name}": float(shares[kind])
        for kind, name in enumerate(names)
        if kind > 0
    }
