"""Outlines that other programs drew: GeoJSON of QuPath, ROIs of ImageJ."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import InputError
from napari_medseg.io.limits import refuse_odd
from napari_medseg.io.raw import READER_ERRORS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from roifile import ImagejRoi

    from napari_medseg._labels import DoubleArray

AREA, LINE, POINTS = "area", "line", "points"
"""What is drawn: an area with its holes, one or more lines, one or more points."""

LARGEST = 1 << 28
"""Most bytes that the ROIs of a file may unpack to."""


@dataclass(frozen=True, slots=True)
class Outline:
    """Something that was drawn on an image.

    Attributes
    ----------
    form : str
        `AREA`, `LINE` or `POINTS`.
    parts : tuple of ndarray
        ``float64 (N, 2)``, vertices (x, y) in pixels; pixel (0, 0) reaches from
        (0, 0) to (1, 1). Of an area the closed rings, in which a place lies that an
        odd number of them encloses.
    name : str
        Its name; may be empty.
    kind : str
        Name of its class; may be empty.
    colour : str
        ``#rrggbb`` of its class; may be empty.
    measurements : mapping of str to float
        What was measured.
    place : mapping of str to int
        The slice of a stack that it is on, from 0, such as ``{"T": 0, "Z": 3}``; empty
        where nothing is said.
    """

    form: str
    parts: tuple[DoubleArray, ...]
    name: str = ""
    kind: str = ""
    colour: str = ""
    measurements: Mapping[str, float] = field(default_factory=dict)
    place: Mapping[str, int] = field(default_factory=dict)


# --------------------------------------------------------------------------- GeoJSON


def read_geojson(path: str | Path) -> list[Outline]:
    """Read the objects of a GeoJSON file, as QuPath and this package write them.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    list of Outline
        In their order; features without a place are left out.

    Raises
    ------
    InputError
        The file cannot be read or is no GeoJSON.
    """
    path = Path(path)
    refuse_odd(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged or no GeoJSON ({error}). Export it again."
        ) from error
    outlines: list[Outline] = []
    for number, feature in enumerate(_features(path, content), 1):
        try:
            outlines += _drawn(feature)
        except (
            *(TypeError, ValueError, KeyError, AttributeError),
            ArithmeticError,  # a number that no place or measurement can be
        ) as error:
            raise InputError(
                f"{path}: object {number} is not as GeoJSON has it ({error}). Export "
                "the file again."
            ) from error
    return outlines


def _features(path: Path, content: Any) -> list[Any]:
    """Return the features of a collection, of a list, or the only one."""
    if isinstance(content, list):
        return content
    if isinstance(content, dict) and isinstance(content.get("features"), list):
        return list(content["features"])
    if isinstance(content, dict) and "geometry" in content:
        return [content]
    raise InputError(
        f"{path} holds no objects of GeoJSON. Export the annotations or detections "
        "themselves, as a FeatureCollection."
    )


def _drawn(feature: Mapping[str, Any]) -> Iterator[Outline]:
    """Yield what a feature shows: one thing, or several of a collection."""
    about = feature.get("properties") or {}
    kind = about.get("classification") or {}
    described: dict[str, Any] = {
        "name": str(about.get("name") or ""),
        "kind": str(kind.get("name") or " ".join(kind.get("names") or ())),
        "colour": _colour(kind),
        "measurements": _measurements(about.get("measurements") or {}),
    }
    shape = feature["geometry"]
    plane = (shape or {}).get("plane") or {}
    place = {axis: int(plane.get(axis.lower(), 0)) for axis in "TZ"} if plane else {}
    for form, parts in _geometries(shape):
        yield Outline(form, tuple(parts), **described, place=place)


def _geometries(shape: Mapping[str, Any] | None) -> Iterator[tuple[str, list[Any]]]:
    """Yield form and parts of a geometry."""
    if not shape:
        return
    kind = shape["type"]
    if kind == "GeometryCollection":
        for each in shape["geometries"]:
            yield from _geometries(each)
        return
    places = shape["coordinates"]
    if kind == "Polygon":
        yield AREA, [_vertices(ring) for ring in places]
    elif kind == "MultiPolygon":
        yield AREA, [_vertices(ring) for each in places for ring in each]
    elif kind == "LineString":
        yield LINE, [_vertices(places)]
    elif kind == "MultiLineString":
        yield LINE, [_vertices(each) for each in places]
    elif kind in ("Point", "MultiPoint"):
        yield POINTS, [_vertices([places] if kind == "Point" else places)]
    else:
        raise ValueError(f"the geometry {kind} is not known")


def _vertices(places: Any) -> DoubleArray:
    """Return places as (x, y); a third coordinate is left out."""
    vertices = np.array([place[:2] for place in places], np.float64).reshape(-1, 2)
    if not np.isfinite(vertices).all():
        raise ValueError("a coordinate is no number")
    return vertices


def _colour(kind: Mapping[str, Any]) -> str:
    """Return the colour of a class: a list, or one number as QuPath had it once."""
    colour = kind.get("color", kind.get("colorRGB"))
    if isinstance(colour, int):
        return f"#{colour & 0xFFFFFF:06x}"
    return "#" + bytes(colour[:3]).hex() if colour else ""


def _measurements(found: Any) -> dict[str, float]:
    """Return measurements by name, from a mapping or from a list of pairs."""
    if isinstance(found, list):
        found = {each["name"]: each["value"] for each in found}
    return {
        str(name): float(value)
        for name, value in found.items()
        if isinstance(value, int | float)
    }


# ------------------------------------------------------------------------------ ROIs


def has_rois(path: str | Path) -> bool:
    """Tell whether a file is a ROI of ImageJ, or a zip of them."""
    path = Path(path)
    if path.suffix.lower() == ".roi":
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.lower().endswith(".roi") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def read_rois(path: str | Path) -> list[Outline]:
    """Read a ROI of ImageJ, or the zip that its ROI manager saves.

    Parameters
    ----------
    path : str or Path
        The file, ending ``.roi`` or ``.zip``.

    Returns
    -------
    list of Outline
        In their order.

    Raises
    ------
    InputError
        The file cannot be read or holds no ROIs.
    """
    from roifile import ImagejRoi

    path = Path(path)
    refuse_odd(path)
    try:
        rois = [ImagejRoi.frombytes(content) for content in _contents(path)]
        return [outline for roi in rois for outline in _outlines(roi)]
    except FileNotFoundError as error:
        raise _unreadable(path, error) from error
    except (*READER_ERRORS, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is damaged or holds no ROIs of ImageJ ({error}). Save it again "
            "from the ROI manager."
        ) from error


def _contents(path: Path) -> Iterator[bytes]:
    """Yield the bytes of each ROI."""
    if path.suffix.lower() != ".zip":
        yield path.read_bytes()
        return
    with zipfile.ZipFile(path) as archive:
        entries = [
            entry
            for entry in archive.infolist()
            if entry.filename.lower().endswith(".roi")
        ]
        size = sum(entry.file_size for entry in entries)
        if size > LARGEST:
            raise InputError(
                f"{path} unpacks to {size / 1e9:,.1f} GB, more than any list of ROIs: "
                "it is damaged, or made to fill the memory. Save it again from the ROI "
                "manager."
            )
        for entry in entries:
            with archive.open(entry) as file:
                yield file.read(entry.file_size)


def _outlines(roi: ImagejRoi) -> Iterator[Outline]:
    """Yield a ROI; one without a place, such as an empty selection, is left out."""
    from roifile import ROI_TYPE

    if roi.roitype == ROI_TYPE.NOROI:
        return
    parts = [np.asarray(each, np.float64) for each in roi.coordinates(multi=True)]
    parts = [each for each in parts if len(each)]
    if not parts:
        return
    form = AREA
    if roi.roitype == ROI_TYPE.POINT:
        form = POINTS
        if roi.subpixel_coordinates is None:
            parts = [each + 0.5 for each in parts]  # they mean the pixel
    elif roi.roitype in (
        ROI_TYPE.LINE,
        ROI_TYPE.FREELINE,
        ROI_TYPE.POLYLINE,
        ROI_TYPE.ANGLE,
    ):
        form = LINE
    colour = roi.hexcolor(roi.stroke_color, "") or ""
    yield Outline(
        form, tuple(parts), name=roi.name, colour=colour, place=_roi_place(roi)
    )


def _roi_place(roi: ImagejRoi) -> dict[str, int]:
    """Return the slice of a ROI; ImageJ counts from 1, and 0 is all slices."""
    if roi.z_position > 0 or roi.t_position > 0:
        return {
            "T": max(0, roi.t_position - 1),
            "Z": max(0, roi.z_position - 1),
        }
    # a single number, of a stack with one axis
    return {"Z": roi.position - 1} if roi.position > 0 else {}


def _unreadable(path: Path, error: OSError) -> InputError:
    reason = error.strerror or str(error)
    return InputError(f"{path} cannot be read ({reason}). Check the name and rights.")
