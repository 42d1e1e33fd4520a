"""Outlines as GeoJSON, in the words of QuPath."""

from __future__ import annotations

import json
import math
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import InputError
from napari_medseg.io.exports._objects import label_image
from napari_medseg.io.exports._writing import check_suffix, whole_file
from napari_medseg.io.exports.polygons import Polygon, outlines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    path = Path(path)
    check_suffix(path, ".geojson", ".json")
    image = label_image(labels, f"The label image for {path}")
    values = {} if measurements is None else _by_label(path, measurements)
    kinds = {key: _class(path, *kind) for key, kind in (classes or {}).items()}
    features = [
        _feature(label, polygons, (names or {}).get(label), kinds.get(label), values)
        for label, polygons in outlines(image).items()
    ]
    content = {"type": "FeatureCollection", "features": features}
    text = json.dumps(content, separators=(",", ":"))
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _feature(
    label: int,
    polygons: Sequence[Polygon],
    name: str | None,
    kind: Mapping[str, Any] | None,
    values: Mapping[int, Mapping[str, float]],
) -> dict[str, Any]:
    """Return one object as GeoJSON's Feature."""
    properties: dict[str, Any] = {
        "objectType": "annotation",
        "name": str(label) if name is None else name,
    }
    if kind is not None:
        properties["classification"] = kind
    if values.get(label):
        properties["measurements"] = values[label]
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMESPACE, str(label))),
        "geometry": _geometry(polygons),
        "properties": properties,
    }


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
