"""Label images in formats that other programs open.

Each writer gives a whole file or none: what it writes appears under its name when it
is complete. A file that exists is replaced; whether that is wanted is the caller's
question.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from napari_medseg.io.exports._objects import LabelPlane
from napari_medseg.io.exports.coco import (
    CocoImage,
    join_coco,
    write_coco,
    write_coco_part,
)
from napari_medseg.io.exports.geojson import write_geojson, write_geojson_planes
from napari_medseg.io.exports.polygons import Polygon, outlines
from napari_medseg.io.exports.rois import write_rois, write_rois_planes
from napari_medseg.io.exports.tables import has_parquet, join_tables, write_table
from napari_medseg.io.exports.zarr_labels import write_ome_zarr

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "FORMATS",
    "CocoImage",
    "LabelPlane",
    "Polygon",
    "has_parquet",
    "join_coco",
    "join_tables",
    "outlines",
    "write_coco",
    "write_coco_part",
    "write_geojson",
    "write_geojson_planes",
    "write_ome_zarr",
    "write_rois",
    "write_rois_planes",
    "write_table",
]

FORMATS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "tif": (".tif", "label image, for ImageJ, napari and most other programs"),
        "csv": (".csv", "table of measurements, for spreadsheets, R and Python"),
        "parquet": (".parquet", "the same table for large studies, in Python and R"),
        "geojson": (".geojson", "outlines with measurements, for QuPath"),
        "roi": (".zip", "outlines for the ROI manager of ImageJ and Fiji"),
        "coco": (".json", "objects of many images, to train other networks on"),
        "ome-zarr": (".ome.zarr", "label image in a folder, for very large images"),
    }
)
"""Suffix and purpose of each format, by name."""
