"""What napari calls to save a labels layer; ``napari.yaml`` names these functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medseg._types import InputError
from napari_medseg.io.exports import FORMATS
from napari_medseg.layer_data.label_files import write_stack
from napari_medseg.layer_data.label_stack import label_stack

if TYPE_CHECKING:
    from collections.abc import Mapping

ENDINGS = {"tif": (".tif", ".tiff"), "ome-zarr": (".zarr",)}
"""Endings of a format, where there are others than that of `FORMATS`."""


def write_label_tiff(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write a label image with pixel size and units."""
    return _write(path, data, meta, "tif")


def write_label_table(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write the measurements as CSV."""
    return _write(path, data, meta, "csv")


def write_label_geojson(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write the outlines for QuPath."""
    return _write(path, data, meta, "geojson")


def write_label_rois(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write the outlines for ImageJ."""
    return _write(path, data, meta, "roi")


def write_label_coco(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write the objects as COCO."""
    return _write(path, data, meta, "coco")


def write_label_zarr(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write an OME-Zarr folder."""
    return _write(path, data, meta, "ome-zarr")


def _write(path: str, data: Any, meta: Mapping[str, Any], name: str) -> list[str]:
    given = Path(path)
    place = with_ending(given, name)
    if place != given and place.exists():
        # napari asked about the name without the ending
        raise InputError(
            f"{place} exists. Give the whole name to replace it, or choose another."
        )
    return [str(write_stack(label_stack(data, meta), place, name))]


def with_ending(path: Path, name: str) -> Path:
    """Return a path with the ending of a format, added where it has none of them.

    Parameters
    ----------
    path : Path
        As somebody typed it.
    name : str
        The format.

    Returns
    -------
    Path
        The file to write.
    """
    usual = FORMATS[name][0]
    endings = ENDINGS.get(name, (usual,))
    if path.name.lower().endswith(endings):
        return path
    return path.with_name(path.name + usual)
