"""Images and annotations from files, with axes and pixel size."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import InputError, LabelArray
from napari_medseg.io.axes import guess_axes, settle
from napari_medseg.io.containers import (
    CONTAINER_SUFFIXES,
    file_of,
    read_container,
)
from napari_medseg.io.image_file import ImageFile, LabelImage, sample_step
from napari_medseg.io.limits import refuse_odd
from napari_medseg.io.raster import read_numpy, read_raster
from napari_medseg.io.raw import LazyArray, Raw
from napari_medseg.io.tiff import read_tiff, write_labels
from napari_medseg.io.zarr_store import is_zarr, read_zarr

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageFile",
    "LabelImage",
    "LazyArray",
    "guess_axes",
    "image_files",
    "image_stem",
    "read_annotation",
    "read_image",
    "sample_step",
    "write_labels",
]

_TIFF = (".tif", ".tiff")
_JPEG = (".jpg", ".jpeg")

IMAGE_SUFFIXES = (*_TIFF, ".png", *_JPEG, ".bmp", ".npy", ".zarr", *CONTAINER_SUFFIXES)
"""Endings of the files that can be read, in lower case."""

_IGNORED_FOLDERS = ("__MACOSX", "__pycache__")


def read_image(path: str | Path, axes: str | None = None) -> ImageFile:
    """Read an image file.

    TIFF, OME-TIFF, ImageJ TIFF, PNG, JPEG, BMP, NumPy and (OME-)Zarr are read, and
    CZI, ND2 and LIF where bioio is installed (the extra ``formats``). Of a file with
    several images it is the first; ``plate.czi/scene 2`` is the second of a CZI, ND2
    or LIF file. Metadata tells axes and pixel size; without
    it, `guess_axes` says how the axes are guessed.

    Parameters
    ----------
    path : str or Path
        The file, or the zarr folder.
    axes : str, optional
        Letters of ``TZCYX`` for the axes in the file; they win over metadata and
        guess.

    Returns
    -------
    ImageFile
        Arrays above 256 MiB stay on the disk where the format allows it.

    Raises
    ------
    InputError
        The file is missing, empty, damaged, of another kind, no image, or absurdly
        large.
    """
    path = Path(path)
    raw, rgb = settle(path, _read(path), axes)
    return ImageFile(path, raw.data, raw.axes or "YX", raw.scale, raw.units, rgb)


def _read(path: Path, *, indices: bool = False) -> Raw:
    """Choose the reader by the suffix, once the file is known to be one."""
    file = file_of(path)
    suffix = file.suffix.lower()
    refuse_odd(file)
    if file.is_dir():
        if suffix != ".zarr" and not is_zarr(path):
            raise InputError(f"{path} is a folder, not an image. Give a file in it.")
        return read_zarr(path)
    if suffix not in IMAGE_SUFFIXES:
        raise InputError(
            f"{path} is of a kind that is not read here. Use one of "
            f"{', '.join(IMAGE_SUFFIXES)}."
        )
    if file.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes). Copy it again from the original.")
    if suffix == ".zarr":
        return read_zarr(path)
    if suffix in CONTAINER_SUFFIXES:
        return read_container(path)
    if suffix in _TIFF:
        return read_tiff(path)
    return read_numpy(path) if suffix == ".npy" else read_raster(path, indices=indices)


def read_annotation(path: str | Path) -> LabelImage:
    """Read an annotation: an image of whole numbers.

    Colour images whose channels are equal are read as grey, as paint programs save
    them; PNG files with a palette give the indices. Values stay as they are: 0 and
    255 are not made 0 and 1 here.

    Parameters
    ----------
    path : str or Path
        The file, or the zarr folder.

    Returns
    -------
    LabelImage
        The labels.

    Raises
    ------
    InputError
        The file cannot be read, is a JPEG, has colours that differ, or holds
        values that are not whole numbers.
    """
    path = Path(path)
    if path.suffix.lower() in _JPEG:
        raise InputError(
            f"{path} is a JPEG, which changes the values of an annotation when it "
            "is saved. Save it anew from the annotation program as PNG or TIFF."
        )
    raw, rgb = settle(path, _read(path, indices=True), None)
    data, axes = np.asarray(raw.data), raw.axes or "YX"
    if "C" in axes:
        data, axes = _one_channel(path, data, axes, rgb)
    labels = _whole_numbers(path, data)
    wide = data.dtype.kind != "b" and data.dtype.itemsize > 1
    return LabelImage(labels, axes, wide, raw.scale, raw.units)


def _one_channel(
    path: Path, data: NDArray[Any], axes: str, rgb: bool
) -> tuple[NDArray[Any], str]:
    """Make grey of equal channels; a few slices without colour are a stack."""
    channel = axes.index("C")
    first = np.take(data, [0], axis=channel)
    if bool((data == first).all()):
        return np.squeeze(first, axis=channel), axes.replace("C", "")
    if rgb or "Z" in axes:
        raise InputError(
            f"{path} is a colour picture, but an annotation holds one whole number "
            "for each pixel. Export the labels themselves (a label or index image), "
            "not a coloured overlay."
        )
    return data, axes.replace("C", "Z")


def _whole_numbers(path: Path, data: NDArray[Any]) -> LabelArray:
    """Return ``int32``, refusing what would change on the way."""
    if data.dtype.kind == "f":
        if not bool(np.isfinite(data).all()) or bool((data != np.rint(data)).any()):
            raise InputError(
                f"{path} holds values that are not whole numbers, so it is an image "
                "or a probability map, not an annotation. Export the labels."
            )
    low, high = data.min(), data.max()
    bounds = np.iinfo(np.int32)
    if int(high) > bounds.max or int(low) < bounds.min:
        raise InputError(
            f"{path} holds labels up to {int(high)}; the largest that can be used is "
            f"{bounds.max}. Number the objects anew from 1."
        )
    return data.astype(np.int32)


def image_stem(path: str | Path) -> str:
    """Return the name of an image without its endings.

    Parameters
    ----------
    path : str or Path
        Such as ``folder/cell.ome.tif``.

    Returns
    -------
    str
        Such as ``cell``; ``scene 2`` for ``plate.czi/scene 2``. Accents are in one
        spelling (NFC), because file systems differ in it.
    """
    name = Path(path).stem
    if name.lower().endswith(".ome"):
        name = name[: -len(".ome")]
    return unicodedata.normalize("NFC", name)


def image_files(folder: str | Path, recursive: bool = False) -> list[Path]:
    """List the images of a folder.

    Hidden files and folders, half-written files and ``__MACOSX`` are left out; a
    zarr folder counts as one image.

    Parameters
    ----------
    folder : str or Path
        The folder.
    recursive : bool
        Whether to look into folders in the folder.

    Returns
    -------
    list of Path
        Sorted by path.

    Raises
    ------
    InputError
        The folder is missing or may not be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {problem}. Give the folder that holds the images.")
    found: list[Path] = []
    try:
        for parent, folders, files in os.walk(folder, onerror=_refuse):
            stores = [name for name in folders if name.lower().endswith(".zarr")]
            found += [Path(parent, name) for name in files + stores if _listed(name)]
            folders[:] = [
                name
                for name in folders
                if recursive
                and name not in stores
                and name not in _IGNORED_FOLDERS
                and not name.startswith(".")
            ]
    except OSError as error:
        raise InputError(
            f"{folder} cannot be listed ({error.strerror}). Check its rights."
        ) from error
    return sorted(found)


def inner_folders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder that may hold images, sorted."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.is_dir(follow_symlinks=False)
            and not entry.name.startswith(".")
            and not entry.name.lower().endswith(".zarr")
            and entry.name not in _IGNORED_FOLDERS
        )


def _listed(name: str) -> bool:
    """Tell whether a name is that of an image to list."""
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _refuse(error: OSError) -> None:
    """Let ``os.walk`` raise what it would pass over."""
    raise error
