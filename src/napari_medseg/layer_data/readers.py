"""What napari calls to open files of outlines; ``napari.yaml`` names these functions.

A reader of napari is a function that looks at a path and returns the function that
reads it, or None where it is not meant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import InputError
from napari_medseg.io.outlines import (
    AREA,
    LINE,
    POINTS,
    Outline,
    has_rois,
    read_geojson,
    read_rois,
)

if TYPE_CHECKING:
    from napari_medseg._labels import DoubleArray

LayerData = tuple[Any, dict[str, Any], str]
"""Data, keyword arguments and type of a layer."""

Reader = Callable[[str], list[LayerData]]

COLOUR = "#e69f00"
"""Of outlines that have none of their own."""

WIDTH = 1 / 500
"""Width of a line, as a part of the extent of all outlines."""

PIXEL_CENTRE = 0.5
"""In files a pixel begins at a whole number; in napari its middle is there."""


def geojson_reader(path: str | list[str]) -> Reader | None:
    """Return what reads GeoJSON of QuPath, for one file."""
    return None if isinstance(path, list) else _read_geojson


def roi_reader(path: str | list[str]) -> Reader | None:
    """Return what reads ROIs of ImageJ, for one file that holds some."""
    return _read_rois if isinstance(path, str) and has_rois(path) else None


def _read_geojson(path: str) -> list[LayerData]:
    return outline_layers(Path(path), read_geojson(path))


def _read_rois(path: str) -> list[LayerData]:
    return outline_layers(Path(path), read_rois(path))


def outline_layers(path: Path, outlines: Sequence[Outline]) -> list[LayerData]:
    """Return outlines as a layer of shapes, and points as one of points.

    Parameters
    ----------
    path : Path
        The file, for the names.
    outlines : sequence of Outline
        What was drawn.

    Returns
    -------
    list of tuple
        One or two layers, with axes for time and depth where outlines are on several
        slices. An area is one polygon whatever its holes and pieces are; names,
        classes and measurements are in the table of features.

    Raises
    ------
    InputError
        Nothing is drawn.
    """
    axes = [axis for axis in "TZ" if any(each.place.get(axis) for each in outlines)]
    drawn = [
        (form, _placed(vertices, outline, axes), outline)
        for outline in outlines
        for form, vertices in _shapes(outline)
    ]
    spots = [
        (spot, outline)
        for outline in outlines
        if outline.form == POINTS
        for places in outline.parts
        for spot in _placed(_to_napari(places), outline, axes)
    ]
    if not drawn and not spots:
        raise InputError(f"{path} holds no outlines. Check what was exported.")
    layers: list[LayerData] = []
    if drawn:
        shapes = [vertices for _, vertices, _ in drawn]
        options = _described(path.stem, [outline for *_, outline in drawn])
        options |= {
            "shape_type": [form for form, *_ in drawn],
            "edge_color": [outline.colour or COLOUR for *_, outline in drawn],
            "face_color": "transparent",
            "edge_width": max(1.0, WIDTH * float(np.concatenate(shapes)[:, -2:].max())),
        }
        layers.append((shapes, options, "shapes"))
    if spots:
        options = _described(f"{path.stem}: points", [outline for _, outline in spots])
        options["face_color"] = [outline.colour or COLOUR for _, outline in spots]
        layers.append((np.array([place for place, _ in spots]), options, "points"))
    return layers


def _shapes(outline: Outline) -> list[tuple[str, DoubleArray]]:
    """Return type and vertices of the shapes that an outline becomes."""
    if outline.form == LINE:
        return [("path", _to_napari(part)) for part in outline.parts if len(part) > 1]
    rings = [part for part in outline.parts if len(part) > 2]
    if outline.form != AREA or not rings:
        return []
    # One path through all rings, back to its start after each: the bridges have no
    # width, so that the polygon is the area without its holes.
    start = rings[0][:1]
    path = [part for ring in rings for part in (ring, ring[:1], start)]
    return [("polygon", _to_napari(np.concatenate(path)))]


def _to_napari(vertices: DoubleArray) -> DoubleArray:
    """Return (row, column), with the middle of the first pixel at 0."""
    return vertices[:, ::-1] - PIXEL_CENTRE


def _placed(
    vertices: DoubleArray, outline: Outline, axes: Sequence[str]
) -> DoubleArray:
    """Put the slice of an outline before its places."""
    index = [float(outline.place.get(axis, 0)) for axis in axes]
    front = np.tile(np.array(index, np.float64), (len(vertices), 1))
    return np.hstack([front.reshape(len(vertices), len(axes)), vertices])


def _described(name: str, outlines: Sequence[Outline]) -> dict[str, Any]:
    """Return name and features of a layer."""
    columns = dict.fromkeys(key for each in outlines for key in each.measurements)
    features: dict[str, list[Any]] = {
        "name": [outline.name for outline in outlines],
        "class": [outline.kind for outline in outlines],
    }
    for column in columns:
        # a measurement may have the name of one of the two
        features[column if column not in features else f"{column} (measured)"] = [
            outline.measurements.get(column, np.nan) for outline in outlines
        ]
    return {"name": name, "features": features}
