"""Zarr and OME-Zarr folders (versions 2 and 3; OME-NGFF 0.4 and 0.5)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import InputError
from napari_medseg.io.axes import unit_name
from napari_medseg.io.limits import AT_ONCE, RATIO, check_shape, check_whole
from napari_medseg.io.raw import (
    LAZY_BYTES,
    READER_ERRORS,
    Key,
    LazyArray,
    Raw,
    damaged,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import zarr
    from numpy.typing import NDArray

_MARKS = (".zarray", ".zgroup", "zarr.json")


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a zarr array or group.

    Parameters
    ----------
    path : Path
        A folder.

    Returns
    -------
    bool
        Whether zarr's own metadata lies in it.
    """
    return any((path / mark).is_file() for mark in _MARKS)


def read_zarr(path: Path) -> Raw:
    """Read a zarr array, or the finest level of an OME-Zarr image.

    Parameters
    ----------
    path : Path
        The folder.

    Returns
    -------
    Raw
        A large array stays in its folder.

    Raises
    ------
    InputError
        The folder is no zarr, is damaged or holds no image.
    """
    if not path.is_dir() or not is_zarr(path):
        raise InputError(
            f"{path} is not a zarr folder: it has none of {', '.join(_MARKS)} in it. "
            "Copy the whole folder again, or export the image anew."
        )
    try:
        return _read(path)
    except READER_ERRORS as error:
        raise damaged(path, error) from error


def _read(path: Path) -> Raw:
    """Read what is there; zarr's own errors pass."""
    import zarr

    node = _opened(path)
    if isinstance(node, zarr.Array):
        return _as_raw(path, node, "", dict(node.attrs), {}, {})
    attributes = dict(node.attrs)
    ome = attributes.get("ome", attributes)
    scales = ome.get("multiscales") if isinstance(ome, Mapping) else None
    if not scales:
        return _only_array(path, node)
    multiscale = scales[0]
    level = multiscale["datasets"][0]
    array = node[level["path"]]
    if not isinstance(array, zarr.Array):
        raise InputError(
            f"{path} names {level['path']!r} as its image, which is no array. "
            "Export it again."
        )
    scale, units = _pixel_size(multiscale, level)
    axes = _axes(multiscale.get("axes"))
    return _as_raw(path, array, level["path"], {"axes": axes}, scale, units)


def _opened(path: str | Path) -> Any:
    """Open an array or a group, in which nothing can fill the memory."""
    import zarr

    from napari_medseg.io.zarr_guard import CarefulStore

    return zarr.open(CarefulStore(path, read_only=True), mode="r")


def _careful(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """Let the store of an array know what its pieces are packed with."""
    from napari_medseg.io.zarr_guard import ANY_SIZE, CarefulStore

    last = array.compressors[-1:]
    store = array.store
    if last and "Blosc" in type(last[0]).__name__ and isinstance(store, CarefulStore):
        # parts of a shard are read one by one, and their list with them
        size = 0 if array.shards else math.prod(array.chunks) * array.dtype.itemsize
        # a filter makes a piece of another size
        store.blosc = ANY_SIZE if array.filters and size else size
    return array


def _only_array(path: Path, group: zarr.Group) -> Raw:
    """Read a group without OME metadata that holds a single array."""
    arrays = list(group.arrays())
    if len(arrays) != 1:
        names = ", ".join(sorted(name for name, _ in arrays)[:5]) or "none"
        raise InputError(
            f"{path} is a zarr group without OME metadata; its arrays are: {names}. "
            "Give the folder of one array, or export the image as OME-Zarr."
        )
    name, array = arrays[0]
    return _as_raw(path, array, name, dict(array.attrs), {}, {})


def _as_raw(
    path: Path,
    array: zarr.Array[Any],
    inner: str,
    attributes: Mapping[str, Any],
    scale: dict[str, float],
    units: dict[str, str],
) -> Raw:
    """Load a small array, or wrap a large one."""
    check_shape(path, array.shape)
    _check_pieces(path, array, path / inner)
    array = _careful(array)
    # ``_ARRAY_DIMENSIONS`` is how xarray names the axes of a zarr 2 array.
    metadata = getattr(array.metadata, "dimension_names", None)
    named = (
        attributes.get("axes") or metadata or attributes.get("_ARRAY_DIMENSIONS") or ""
    )
    axes = "".join(str(name)[:1].upper() for name in named)
    data: NDArray[Any] | LazyArray
    if array.nbytes > LAZY_BYTES:
        reader = _BoxReader(str(path), inner)
        data = LazyArray(path, reader, array.shape, np.dtype(array.dtype))
    else:
        data = np.asarray(array[...])
    known = len(axes) == data.ndim and {"Y", "X"} <= set(axes) <= set("TZCYX")
    return Raw(data, axes if known else None, scale, units)


def files_in(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """Give all files in a folder and its folders.

    Parameters
    ----------
    folder : str or Path
        Such as a zarr folder. A link to a folder is followed once.

    Yields
    ------
    os.DirEntry
        What is no folder; links and pipes, too.

    Raises
    ------
    OSError
        A folder may not be read.
    """
    todo, seen = [os.fspath(folder)], set()
    while todo:
        place = todo.pop()
        identity = os.path.realpath(place)
        if identity in seen:
            continue  # a link to a folder above, say
        seen.add(identity)
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.is_dir():
                    todo.append(entry.path)
                else:
                    yield entry


def refuse_hollow(folder: Path) -> None:
    """Refuse a zarr folder in which no piece of an image lies.

    zarr takes a piece that is not there for zeros, and so a folder that was copied
    without its pieces for a black image.

    Parameters
    ----------
    folder : Path
        The folder.

    Raises
    ------
    InputError
        There is none.
    """
    if not any(map(_is_piece, files_in(folder))):
        raise InputError(
            f"{folder} holds no pixels: its description is there, but none of the "
            "pieces of the image (or all of it is 0). Copy the whole folder again."
        )


def _is_piece(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".z") and entry.name != "zarr.json"


def _check_pieces(path: Path, array: Any, folder: Path) -> None:
    """Refuse pieces that would fill the memory, and have next to nothing in them."""
    pieces, itemsize = array.shards or array.chunks, array.dtype.itemsize
    size, largest = math.prod(pieces) * itemsize, 0
    if size <= AT_ONCE:
        return
    for entry in filter(_is_piece, files_in(folder)):
        largest = max(largest, entry.stat().st_size)
        if size <= RATIO * largest:
            break
    check_whole(path, pieces, itemsize, largest)


@dataclass(frozen=True, slots=True)
class _BoxReader:
    """Reads a box of a zarr array; a plain object, so that it can be pickled."""

    path: str
    inner: str

    def __call__(self, key: Key) -> NDArray[Any]:
        node = _opened(self.path)
        array = _careful(node[self.inner] if self.inner else node)
        return np.asarray(array[key])


def _axes(axes: Any) -> str:
    """Return the letters of OME-NGFF axes (objects since 0.4, names before)."""
    names = [axis["name"] if isinstance(axis, Mapping) else axis for axis in axes or ()]
    return "".join(str(name)[:1].upper() for name in names)


def _pixel_size(
    multiscale: Mapping[str, Any], level: Mapping[str, Any]
) -> tuple[dict[str, float], dict[str, str]]:
    """Multiply the scales of the level and of the whole, as OME-NGFF asks."""
    letters = _axes(multiscale.get("axes"))
    units = {
        letter: unit_name(str(axis["unit"]))
        for letter, axis in zip(letters, multiscale.get("axes") or (), strict=False)
        if isinstance(axis, Mapping) and axis.get("unit")
    }
    factors: NDArray[np.float64] = np.ones(len(letters))
    found = False
    for owner in (level, multiscale):
        for step in owner.get("coordinateTransformations") or ():
            if step.get("type") == "scale" and len(step["scale"]) == len(letters):
                factors, found = factors * np.asarray(step["scale"], float), True
    scale = dict(zip(letters, factors.tolist(), strict=True)) if found else {}
    scale.pop("C", None)
    return scale, units
