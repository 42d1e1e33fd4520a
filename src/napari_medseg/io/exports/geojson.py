"""Outlines as GeoJSON, in the words of QuPath."""

from __future__ import annotations

import json
import math
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import InputError
from napari_medseg.io.exports._objects import LabelPlane, label_image
from napari_medseg.io.exports._writing import check_suffix, whole_file
from napari_medseg.io.exports.polygons import Polygon, each_outline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pandas as pd

    from napari_medseg._labels import Array

_NAMESPACE = uuid.uuid5(
    uuid.NAMESPACE_URL, "https://github.com/napari-medseg/napari-medseg"
)


def write_geojson(
    path: str | Path,
    labels: Array,
    *,
    names: Mapping[int, str] | None = None,
    classes: Mapping[int, tuple[str, str]] | None = None,
    measurements: pd.DataFrame | None = None,
) -> None:
    """Write the outlines of objects as annotations for QuPath (0.5 or later).

    Coordinates are in pixels, from the corner of the first pixel. The ``id`` of an
    object follows from its label.

    Parameters
    ----------
    path : str or Path
        The file, ending ``.geojson`` or ``.json``.
    labels : ndarray of int
        ``(Y, X)``, id of the object at each pixel; 0 is background.
    names : mapping of int to str, optional
        Names by id; default: its number.
    classes : mapping of int to tuple of str, optional
        Name and colour (``#rrggbb``) of the class, by id; default: no class.
    measurements : pandas.DataFrame, optional
        The id in the column ``label``; other finite numbers are written.

    Raises
    ------
    InputError
        The labels, the name's ending, a colour or the table cannot be used, or the
        disk refuses.
    """
    plane = LabelPlane(labels, {}, names or {}, classes or {}, measurements)
    write_geojson_planes(path, [plane])


def write_geojson_planes(path: str | Path, planes: Iterable[LabelPlane]) -> None:
    """Write the outlines of objects in the slices of a stack, in one file.

    Each object says in QuPath's words in which slice and frame it is.

    Parameters
    ----------
    path : str or Path
        The file, ending ``.geojson`` or ``.json``.
    planes : iterable of LabelPlane
        The slices; each is asked for once, when those before it are written.

    Raises
    ------
    InputError
        As for `write_geojson`.
    """
    path = Path(path)
    check_suffix(path, ".geojson", ".json")
    with (
        whole_file(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.write('{"type":"FeatureCollection","features":[')
        between = ""
        for plane in planes:
            for feature in _features(path, plane):
                file.write(between + json.dumps(feature, separators=(",", ":")))
                between = ","
        file.write("]}")


def _features(path: Path, plane: LabelPlane) -> Iterator[dict[str, Any]]:
    """Yield the objects of a slice as GeoJSON's Features."""
    image = label_image(plane.labels, f"The label image for {path}")
    table = plane.measurements
    values = {} if table is None else _by_label(path, table)
    kinds = {key: _class(path, *kind) for key, kind in plane.classes.items()}
    for label, polygons in each_outline(image):
        properties: dict[str, Any] = {
            "objectType": "annotation",
            "name": plane.names.get(label, str(label)),
        }
        if label in kinds:
            properties["classification"] = kinds[label]
        if values.get(label):
            properties["measurements"] = values[label]
        geometry = _geometry(polygons)
        if plane.index:
            # -1: all channels
            z, t = plane.index.get("Z", 0), plane.index.get("T", 0)
            geometry["plane"] = {"c": -1, "z": z, "t": t}
        yield {
            "type": "Feature",
            "id": _id(label, plane.index),
            "geometry": geometry,
            "properties": properties,
        }


def _id(label: int, index: Mapping[str, int]) -> str:
    """Return an id that is the same whenever the object is written."""
    place = "".join(f"{axis}{number}/" for axis, number in index.items())
    return str(uuid.uuid5(_NAMESPACE, f"{place}{label}"))


def _geometry(polygons: Sequence[Polygon]) -> dict[str, Any]:
    """Return a Polygon, or a MultiPolygon for several pieces."""
    parts = [
        [ring.astype(np.int64).tolist() for ring in (each.exterior, *each.holes)]
        for each in polygons
    ]
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}


def _class(path: Path, name: str, colour: str) -> dict[str, Any]:
    """Return a class in QuPath's words."""
    try:
        red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    except ValueError as error:
        raise InputError(
            f"{path}: the colour {colour!r} of the class {name!r} cannot be read. "
            "Write it as #rrggbb, such as #e69f00."
        ) from error
    return {"name": name, "color": [red, green, blue]}


def _by_label(path: Path, table: pd.DataFrame) -> dict[int, dict[str, float]]:
    """Return the finite numbers of a table by label and column."""
    if "label" not in table.columns:
        raise InputError(
            f"{path}: the table of measurements has no column named label, so it "
            "cannot be told which object a row is of. Add the column."
        )
    numbers = table.drop(columns="label").select_dtypes("number")
    rows = numbers.to_numpy(np.float64, na_value=np.nan).tolist()
    return {
        int(label): {
            str(column): value
            for column, value in zip(numbers.columns, row, strict=True)
            if math.isfinite(value)  # JSON has no word for the others
        }
        for label, row in zip(table["label"], rows, strict=True)
    }
