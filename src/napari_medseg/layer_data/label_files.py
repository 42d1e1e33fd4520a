"""Labels of a layer, written in any of the formats for other programs."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg._types import InputError
from napari_medseg.io.exports import (
    FORMATS,
    CocoImage,
    write_coco,
    write_geojson,
    write_ome_zarr,
    write_rois,
    write_table,
)
from napari_medseg.io.tiff import write_labels
from napari_medseg.layer_data.label_stack import CLASSES, LabelStack
from napari_medseg.measurements import measure, measure_classes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd

    from napari_medseg._labels import Array

OBJECT = "object"
"""What objects are called whose class nobody named."""


def write_stack(stack: LabelStack, path: str | Path, name: str) -> list[Path]:
    """Write labels in one of the formats of `napari_medseg.io.exports`.

    Parameters
    ----------
    stack : LabelStack
        The labels. Formats of outlines hold one image: of a stack each slice with
        objects becomes a file, its place in the stack added to the name.
    path : str or Path
        The file. One that exists is replaced, for whoever chose it was asked; files
        of single slices are not.
    name : str
        The format.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    InputError
        There is no such format, the labels cannot be written in it, the name has
        another ending, a file of a slice exists, or the disk refuses.
    """
    if name not in _WRITERS:
        raise InputError(
            f"{name!r} is not a format that can be written; choose from "
            f"{', '.join(FORMATS)}."
        )
    return _WRITERS[name](stack.read(), Path(path))


def measured(stack: LabelStack) -> pd.DataFrame:
    """Return the measurements of labels: the layer's own, or new ones.

    Parameters
    ----------
    stack : LabelStack
        The labels. Their own table is taken where it has the areas of these very
        labels; after more was painted it has not.

    Returns
    -------
    pandas.DataFrame
        One row a label, of a stack one a label and slice; the label in the first
        column.
    """
    if stack.table is not None and _is_of(stack.table, stack.labels):
        table = stack.table.copy()
        table.insert(0, "label", table.pop("index"))
        return table
    function = measure_classes if stack.meaning == CLASSES else measure
    unit = stack.units.get("X")
    tables = []
    for index, labels in stack.slices():
        table = function(labels, None, stack.scale, unit)
        if index:
            table.insert(1, "slice", " ".join(map(str, index.values())))
        tables.append(table)
    whole = _put_together(tables)
    if stack.meaning == CLASSES and stack.classes:
        names = [_class_name(stack, label) for label in whole["label"]]
        whole.insert(1, "class", names)
    return whole


def _put_together(tables: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    full = [table for table in tables if len(table)]
    return pd.concat(full, ignore_index=True) if full else tables[0]


def _is_of(table: pd.DataFrame, labels: Array) -> bool:
    """Tell whether a table has the areas of labels."""
    if not {"index", "area_px"} <= set(table.columns):
        return False
    ids, counts = np.unique(labels[labels > 0], return_counts=True)
    areas = table.groupby("index")["area_px"].sum()
    return len(areas) == len(ids) and bool(
        (areas.index == ids).all() and (areas == counts).all()
    )


def _class_name(stack: LabelStack, label: int) -> str:
    known = 0 < label < len(stack.classes)
    return stack.classes[label].name if known else f"class {label}"


def _write_tiff(stack: LabelStack, path: Path) -> list[Path]:
    write_labels(
        path, stack.labels, axes=stack.axes, scale=stack.scale, units=stack.units
    )
    return [path]


def _write_table(stack: LabelStack, path: Path) -> list[Path]:
    write_table(path, measured(stack))
    return [path]


def _write_geojson(stack: LabelStack, path: Path) -> list[Path]:
    table = measured(stack)

    def write(path: Path, labels: Array, place: str) -> None:
        ids = [int(label) for label in np.unique(labels) if label > 0]
        rows = table[table["slice"] == place] if "slice" in table else table
        write_geojson(
            path,
            labels,
            names=_names(stack, ids),
            classes=_kinds(stack, ids),
            measurements=rows,
        )

    return _slice_by_slice(stack, path, write)


def _names(stack: LabelStack, ids: list[int]) -> dict[int, str] | None:
    """Return names by label; objects go by their number."""
    if stack.meaning != CLASSES:
        return None
    return {label: _class_name(stack, label) for label in ids}


def _kinds(stack: LabelStack, ids: list[int]) -> dict[int, tuple[str, str]]:
    """Return name and colour of the class of each label that has one."""
    if stack.meaning == CLASSES:
        named = [label for label in ids if label < len(stack.classes)]
        return {
            label: (stack.classes[label].name, stack.classes[label].colour)
            for label in named
        }
    kind = stack.foreground
    return dict.fromkeys(ids, (kind.name, kind.colour)) if kind else {}


def _write_roi(stack: LabelStack, path: Path) -> list[Path]:
    return _slice_by_slice(
        stack, path, lambda path, labels, place: write_rois(path, labels)
    )


def _write_coco(stack: LabelStack, path: Path) -> list[Path]:
    named = Path(stack.source or stack.name)
    images = []
    for index, labels in stack.slices():
        own = {int(label): int(label) for label in np.unique(labels) if label > 0}
        images.append(
            CocoImage(
                _with_place(named, stack, index).name,
                labels,
                own if stack.meaning == CLASSES else None,
            )
        )
    write_coco(path, images, _categories(stack))
    return [path]


def _categories(stack: LabelStack) -> dict[int, str]:
    """Return the names of COCO's categories by number."""
    if stack.meaning == CLASSES:
        highest = max(int(np.max(stack.labels, initial=1)), len(stack.classes) - 1)
        return {label: _class_name(stack, label) for label in range(1, highest + 1)}
    return {1: stack.foreground.name if stack.foreground else OBJECT}


def _write_ome_zarr(stack: LabelStack, path: Path) -> list[Path]:
    write_ome_zarr(
        path, stack.labels, axes=stack.axes, scale=stack.scale, units=stack.units
    )
    return [path]


def _slice_by_slice(
    stack: LabelStack, path: Path, write: Callable[[Path, Array, str], None]
) -> list[Path]:
    """Write a file for each slice with objects; an image has one anyway."""
    if stack.labels.ndim == 2:
        write(path, stack.labels, "")
        return [path]
    full = [(index, labels) for index, labels in stack.slices() if labels.any()]
    if not full:
        raise InputError(
            f"{stack.name} has no objects on any slice, so there is nothing to write."
        )
    places = [_with_place(path, stack, index) for index, _ in full]
    for place in places:
        if place.exists():
            raise InputError(
                f"{place} exists already, and a file for each slice is to be written. "
                "Choose another name, or remove it first."
            )
    for place, (index, labels) in zip(places, full, strict=True):
        write(place, labels, " ".join(map(str, index.values())))
    return places


def _with_place(path: Path, stack: LabelStack, index: Mapping[str, int]) -> Path:
    """Add a slice to a file's name, such as ``cells_t00_z03.geojson``."""
    if not index:
        return path
    lengths = dict(zip(stack.axes, stack.labels.shape, strict=True))
    words = [
        f"{letter.lower()}{place:0{len(str(lengths[letter] - 1))}}"
        for letter, place in index.items()
    ]
    return path.with_name("_".join([path.stem, *words]) + path.suffix)


_WRITERS: MappingProxyType[str, Callable[[LabelStack, Path], list[Path]]] = (
    MappingProxyType(
        {
            "tif": _write_tiff,
            "csv": _write_table,
            "parquet": _write_table,
            "geojson": _write_geojson,
            "roi": _write_roi,
            "coco": _write_coco,
            "ome-zarr": _write_ome_zarr,
        }
    )
)
