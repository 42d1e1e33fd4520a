"""Outlines of QuPath and ImageJ are read as they were drawn, or refused in words."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from drawn import objects
from roifile import ROI_TYPE, ImagejRoi

from napari_medseg._types import InputError
from napari_medseg.io.exports import write_geojson, write_rois
from napari_medseg.io.outlines import (
    AREA,
    LINE,
    POINTS,
    has_rois,
    read_geojson,
    read_rois,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_geojson_that_was_written_here(tmp_path: Path) -> None:
    path = tmp_path / "cells.geojson"
    classes = dict.fromkeys((1, 2, 7), ("nucleus", "#e69f00"))
    write_geojson(path, objects(), classes=classes)
    outlines = read_geojson(path)
    assert [each.name for each in outlines] == ["1", "2", "7"]
    assert {each.kind for each in outlines} == {"nucleus"}
    assert {each.colour for each in outlines} == {"#e69f00"}
    assert [len(each.parts) for each in outlines] == [1, 2, 2]
    first = outlines[0].parts[0]
    assert first.min(axis=0).tolist() == [3, 2]
    assert first.max(axis=0).tolist() == [9, 6]


def feature(kind: str, places: Any, **properties: Any) -> dict[str, Any]:
    geometry = {"type": kind, "coordinates": places}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


SQUARE = [[[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]]


def test_what_qupath_writes(tmp_path: Path) -> None:
    path = tmp_path / "qupath.geojson"
    older = {"name": "Tumor", "colorRGB": -3670016}
    measured = [{"name": "Area", "value": 16.0}, {"name": "Note", "value": "none"}]
    content = [
        feature("Polygon", SQUARE, classification=older, measurements=measured),
        feature("MultiPolygon", [SQUARE, SQUARE], name="two"),
        feature("LineString", [[0, 0, 5], [3, 3, 5]]),
        feature("MultiPoint", [[1, 2], [3, 4]]),
        feature("Point", [1, 2]),
        {"type": "Feature", "geometry": None, "properties": None},
    ]
    path.write_text(json.dumps(content), encoding="utf-8")
    found = read_geojson(path)
    assert [each.form for each in found] == [AREA, AREA, LINE, POINTS, POINTS]
    assert (found[0].kind, found[0].colour) == ("Tumor", "#c80000")
    assert found[0].measurements == {"Area": 16.0}
    assert len(found[1].parts) == 2
    assert found[2].parts[0].shape == (2, 2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "damaged"),
        ("3", "no objects"),
        ('{"type": "Topology"}', "no objects"),
        ('[{"geometry": {"type": "Circle", "coordinates": []}}]', "object 1"),
        ('[{"geometry": {"type": "Point", "coordinates": ["a", 1]}}]', "object 1"),
        ('[{"geometry": {"type": "Point", "coordinates": [NaN, 1]}}]', "object 1"),
        ("[3]", "object 1"),
    ],
)
def test_other_files_get_a_sentence(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "bad.geojson"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=told) as caught:
        read_geojson(path)
    assert str(path) in str(caught.value)
    with pytest.raises(InputError, match="does not exist"):
        read_geojson(tmp_path / "missing.geojson")


def test_rois_that_were_written_here(tmp_path: Path) -> None:
    path = tmp_path / "cells.zip"
    write_rois(path, objects())
    assert has_rois(path)
    found = read_rois(path)
    assert [each.name for each in found] == ["0001", "0002", "0007"]
    assert [len(each.parts) for each in found] == [1, 2, 2]
    assert {each.form for each in found} == {AREA}
    assert found[0].parts[0].min(axis=0).tolist() == [3, 2]
    assert found[0].parts[0].max(axis=0).tolist() == [9, 6]


def test_what_imagej_draws(tmp_path: Path) -> None:
    square = np.array([[1, 1], [5, 1], [5, 5]])
    kinds = {
        "line": ROI_TYPE.POLYLINE,
        "spots": ROI_TYPE.POINT,
        "hand": ROI_TYPE.FREEHAND,
        "nothing": ROI_TYPE.NOROI,
    }
    with zipfile.ZipFile(tmp_path / "drawn.zip", "w") as archive:
        for name, kind in kinds.items():
            roi = ImagejRoi.frompoints(square, name=name)
            roi.roitype = kind
            archive.writestr(f"{name}.roi", roi.tobytes())
        oval = ImagejRoi(roitype=ROI_TYPE.OVAL, left=2, top=3, right=12, bottom=9)
        archive.writestr("oval.roi", oval.tobytes())
        archive.writestr("readme.txt", "not a ROI")
    found = read_rois(tmp_path / "drawn.zip")
    assert [each.form for each in found] == [LINE, POINTS, AREA, AREA]
    assert found[1].parts[0].tolist() == [[1.5, 1.5], [5.5, 1.5], [5.5, 5.5]]
    assert found[3].parts[0].max(axis=0) == pytest.approx([12, 9])
    single = tmp_path / "one.roi"
    single.write_bytes(ImagejRoi.frompoints(square, name="one").tobytes())
    assert [each.name for each in read_rois(single)] == ["one"]


def test_files_without_rois(tmp_path: Path) -> None:
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("cells.tif", "")
    assert not has_rois(other)
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK")
    assert not has_rois(broken)
    bad = tmp_path / "bad.roi"
    bad.write_bytes(b"Iout")
    for path in (broken, bad):
        with pytest.raises(InputError, match="ROI manager"):
            read_rois(path)
    with pytest.raises(InputError, match="does not exist"):
        read_rois(tmp_path / "missing.roi")


@pytest.mark.parametrize("place", ["Infinity", "9" * 400])
def test_numbers_that_are_no_places_get_a_sentence(tmp_path: Path, place: str) -> None:
    path = tmp_path / "a.geojson"
    shape = '"type": "Polygon", "coordinates": [[[0, 0], [0, 5], [5, 5], [0, 0]]]'
    plane = '"plane": {"z": ' + place + "}"
    path.write_text(
        '{"type": "Feature", "geometry": {' + shape + ", " + plane + "}, "
        '"properties": {"measurements": {"a": ' + "9" * 400 + "}}}"
    )
    with pytest.raises(InputError, match="object 1 is not as GeoJSON has it"):
        read_geojson(path)
