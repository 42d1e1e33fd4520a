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
    LabelPlane,
    write_coco,
    write_geojson_planes,
    write_ome_zarr,
    write_rois_planes,
    write_table,
)
from napari_medseg.io.tiff import write_labels
from napari_medseg.layer_data.label_stack import CLASSES, LabelStack
from napari_medseg.layer_data.tables import (
    class_name,
    in_units,
    measured,
)
from napari_medseg.measurements import place_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pandas as pd

OBJECT = "object"
"""What objects are called whose class nobody named."""


def write_stack(stack: LabelStack, path: str | Path, name: str) -> Path:
    """Write labels in one of the formats of `napari_medseg.io.exports`.

    Parameters
    ----------
    stack : LabelStack
        The labels, of an image or of a stack; each format holds both.
    path : str or Path
        The file. One that exists is replaced.
    name : str
        The format.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        There is no such format, the labels cannot be written in it, the name has
        another ending, or the disk refuses.
    """
    if name not in _WRITERS:
        raise InputError(
            f"{name!r} is not a format that can be written; choose from "
            f"{', '.join(FORMATS)}."
        )
    path = Path(path)
    _WRITERS[name](stack.read(), path)
    return path


def _write_tiff(stack: LabelStack, path: Path) -> None:
    write_labels(
        path, stack.labels, axes=stack.axes, scale=stack.scale, units=stack.units
    )


def _write_table(stack: LabelStack, path: Path) -> None:
    write_table(path, measured(stack))


def _write_geojson(stack: LabelStack, path: Path) -> None:
    write_geojson_planes(path, _planes(stack, in_units(measured(stack))))


def _write_rois(stack: LabelStack, path: Path) -> None:
    write_rois_planes(path, _planes(stack, None))


def _planes(stack: LabelStack, table: pd.DataFrame | None) -> Iterator[LabelPlane]:
    """Yield the slices with what is known of their labels."""
    for index, labels in stack.slices():
        ids = [int(label) for label in np.unique(labels) if label > 0]
        rows = table
        for column, place in place_columns(index).items():
            if rows is not None and column in rows:
                rows = rows[rows[column] == place]
        if rows is not None:
            rows = rows.drop(columns=[*place_columns(index)], errors="ignore")
        names = {}
        if stack.meaning == CLASSES:
            names = {label: class_name(stack, label) for label in ids}
        yield LabelPlane(labels, index, names, _kinds(stack, ids), rows)


def _kinds(stack: LabelStack, ids: list[int]) -> dict[int, tuple[str, str]]:
    """Return name and colour of the class of each label that has one."""
    kinds = {label: stack.kind_of(label) for label in ids}
    return {
        label: (stack.classes[kind].name, stack.classes[kind].colour)
        for label, kind in kinds.items()
        if 0 < kind < len(stack.classes)
    }


def _write_coco(stack: LabelStack, path: Path) -> None:
    write_coco(path, _images(stack), _categories(stack))


def _images(stack: LabelStack) -> Iterator[CocoImage]:
    """Yield the slices as COCO has them."""
    unknown = max(1, len(stack.classes))
    for index, labels in stack.slices():
        ids = [int(label) for label in np.unique(labels) if label > 0]
        kinds = {label: stack.kind_of(label) or unknown for label in ids}
        place = place_columns(index)
        yield CocoImage(stack.source or stack.name, labels, kinds, place)


def _categories(stack: LabelStack) -> dict[int, str]:
    """Return the names of COCO's categories by number."""
    if stack.meaning == CLASSES:
        highest = max(int(np.max(stack.labels, initial=1)), len(stack.classes) - 1)
        return {label: class_name(stack, label) for label in range(1, highest + 1)}
    names = {kind: each.name for kind, each in enumerate(stack.classes) if kind > 0}
    if len(names) == 1:
        return names
    return names | {max(1, len(stack.classes)): OBJECT}


def _write_ome_zarr(stack: LabelStack, path: Path) -> None:
    write_ome_zarr(
        path, stack.labels, axes=stack.axes, scale=stack.scale, units=stack.units
    )


_WRITERS: Mapping[str, Callable[[LabelStack, Path], None]] = MappingProxyType(
    {
        "tif": _write_tiff,
        "csv": _write_table,
        "parquet": _write_table,
        "geojson": _write_geojson,
        "roi": _write_rois,
        "coco": _write_coco,
        "ome-zarr": _write_ome_zarr,
    }
)
