"""Label images in formats that other programs open.

Each writer gives a whole file or none: what it writes appears under its name when it
is complete. A file that exists is replaced; whether that is wanted is the caller's
question.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from napari_medseg.io.exports.coco import CocoImage, write_coco
from napari_medseg.io.exports.geojson import write_geojson
from napari_medseg.io.exports.polygons import Polygon, outlines
from napari_medseg.io.exports.rois import write_rois
from napari_medseg.io.exports.tables import write_table
from napari_medseg.io.exports.zarr_labels import write_ome_zarr

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "FORMATS",
    "CocoImage",
    "Polygon",
    "outlines",
    "write_coco",
    "write_geojson",
    "write_ome_zarr",
    "write_rois",
    "write_table",
]

FORMATS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "tif": (".tif", "label image, for ImageJ, napari and most other programs"),
        "csv": (".csv", "table of measurements, for spreadsheets, R and Python"),
        "geojson": (".geojson", "outlines with measurements, for QuPath"),
        "roi": (".zip", "outlines for the ROI manager of ImageJ and Fiji"),
        "coco": (".json", "objects of many images, to train other networks on"),
        "ome-zarr": (".ome.zarr", "label image in a folder, for very large images"),
    }
)
"""Suffix and purpose of each format, by name."""
