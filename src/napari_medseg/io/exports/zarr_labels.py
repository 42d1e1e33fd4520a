"""Label images as OME-Zarr folders (OME-NGFF 0.4, on zarr 2)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._labels import StoredLabels
from napari_medseg._types import InputError
from napari_medseg.io.axes import unit_name, unit_word
from napari_medseg.io.exports._objects import label_values
from napari_medseg.io.exports._writing import check_suffix, whole_folder
from napari_medseg.io.zarr_store import is_zarr

if TYPE_CHECKING:
    from collections.abc import Mapping

    import zarr

    from napari_medseg._labels import AnyLabels

# Version 0.5 would shut out the programs that do not know it yet; those that do
# read 0.4 as well.
_VERSION = "0.4"

_AXES = ("YX", "ZYX", "TYX", "TZYX")

_CHUNK = 1024
"""Rows and columns (pixels) of a piece that is stored as one file."""

_COMPRESSOR: dict[str, Any] = {
    "id": "blosc",
    "cname": "lz4",
    "clevel": 5,
    "shuffle": 1,
}
"""The one that every reader of zarr 2 knows; zarr's own default is younger."""

_NO_UNITS = ("", "px", "pixel", "pixels")


def write_ome_zarr(
    path: str | Path,
    labels: AnyLabels,
    *,
    axes: str = "YX",
    scale: Mapping[str, float] | None = None,
    units: Mapping[str, str] | None = None,
) -> None:
    """Write a label image as an OME-Zarr folder, whole or not at all.

    The labels are stored twice, as OME-Zarr wants labels to belong to an image: as
    the image itself, for programs that know images only, and as its labels
    ``objects``. The smallest unsigned type that holds them is used. A zarr folder
    that exists is replaced with all that is in it.

    Parameters
    ----------
    path : str or Path
        The folder, ending ``.zarr``, by custom ``.ome.zarr``.
    labels : ndarray of int or StoredLabels
        One axis for each of ``axes``; ids of objects, 0 is background. Of labels that
        do not lie in memory all slices are written, in the type that they have.
    axes : str
        ``YX``, ``ZYX``, ``TYX`` or ``TZYX``.
    scale : mapping of str to float, optional
        Pixel size by axis letter; 1 where left out.
    units : mapping of str to str, optional
        Unit by axis letter, such as ``µm``; none where left out.

    Raises
    ------
    InputError
        The labels, axes or scale cannot be used, the name has another ending or is
        that of something that is no zarr folder, or the disk refuses.
    """
    path = Path(path)
    check_suffix(path, ".zarr")
    if path.exists() and not is_zarr(path):
        raise InputError(
            f"{path} exists and is no zarr folder, so it is not replaced. Choose "
            "another name, or remove it first."
        )
    data = _fitting(path, labels, axes)
    metadata = _multiscale(axes, _sizes(path, axes, scale or {}), units or {})
    with whole_folder(path) as temporary:
        _write(temporary, data, metadata)


def _fitting(path: Path, labels: AnyLabels, axes: str) -> Any:
    """Check the labels and bring them into the smallest type."""
    subject = f"The label image for {path}"
    values: Any = (
        labels.data
        if isinstance(labels, StoredLabels)
        else label_values(labels, subject)
    )
    if axes not in _AXES or len(axes) != values.ndim:
        raise InputError(
            f"{subject} has the shape {values.shape}, which does not fit the axes "
            f"{axes!r}. Give axes of {', '.join(_AXES)}, one letter for each axis."
        )
    if isinstance(labels, StoredLabels):
        return values
    return values.astype(np.min_scalar_type(int(values.max())))


def _sizes(path: Path, axes: str, scale: Mapping[str, float]) -> list[float]:
    """Return the pixel size along each axis."""
    sizes = [float(scale.get(axis, 1.0)) for axis in axes]
    if not all(math.isfinite(size) and size > 0 for size in sizes):
        raise InputError(
            f"{path} cannot be written: the pixel size along {axes} is {sizes}; it "
            "must be greater than 0. Give the size of a pixel, or leave it out."
        )
    return sizes


def _multiscale(
    axes: str, sizes: list[float], units: Mapping[str, str]
) -> dict[str, Any]:
    """Return axes and pixel size in the words of OME-NGFF."""
    described = []
    for axis in axes:
        entry = {"name": axis.lower(), "type": "time" if axis == "T" else "space"}
        unit = unit_name(units.get(axis) or "")
        if unit not in _NO_UNITS:
            entry["unit"] = unit_word(unit)
        described.append(entry)
    transformation = {"type": "scale", "scale": sizes}
    return {
        "version": _VERSION,
        "name": "objects",
        "axes": described,
        "datasets": [{"path": "0", "coordinateTransformations": [transformation]}],
    }


def _write(folder: Path, data: Any, multiscale: Mapping[str, Any]) -> None:
    """Fill a new folder."""
    import zarr

    image = zarr.open_group(str(folder), mode="w", zarr_format=2)
    _add_level(image, data)
    image.attrs["multiscales"] = [multiscale]
    container = image.create_group("labels")
    container.attrs["labels"] = ["objects"]
    objects = container.create_group("objects")
    _add_level(objects, data)
    objects.attrs["multiscales"] = [multiscale]
    objects.attrs["image-label"] = {
        "version": _VERSION,
        "source": {"image": "../../"},
    }


def _add_level(group: zarr.Group, data: Any) -> None:
    """Store the pixels as the one level of a group, some rows at a time."""
    *stack, height, width = data.shape
    level: Any = group.create_array(
        "0",
        shape=data.shape,
        dtype=np.dtype(data.dtype),
        fill_value=0,
        chunks=(*(1 for _ in stack), min(_CHUNK, height), min(_CHUNK, width)),
        compressors=_COMPRESSOR,
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )
    for index in np.ndindex(*stack):
        for top in range(0, height, _CHUNK):
            part = (*index, slice(top, min(top + _CHUNK, height)), slice(0, width))
            level[part] = data[part]
