"""Labels and probabilities too large for memory: tiled TIFFs, a tile at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_medseg.io.atomic import atomic_path, disk_errors
from napari_medseg.io.tiff import STEPS, ome_metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

TILE = 512
"""Side of a tile, in pixels."""


class Stored(Protocol):
    """An array that need not lie in memory."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of its axes."""
        ...

    def __getitem__(self, key: tuple[int | slice, ...], /) -> Any:
        """Read a part."""
        ...


def write_label_tiles(
    path: Path,
    read: Callable[[int, slice], NDArray[Any]],
    shape: tuple[int, ...],
    highest: int,
    *,
    axes: str = "YX",
    scale: Mapping[str, float] | None = None,
    units: Mapping[str, str] | None = None,
) -> None:
    """Write a label image that does not fit into memory, whole or not at all.

    It is a compressed, tiled OME-TIFF, of 64 bits where it is larger than 4 GB. A
    file that exists is replaced.

    Parameters
    ----------
    path : Path
        The file.
    read : callable
        Gives some rows of a slice, ``(y, X)``: the number of the slice, in the order
        of the file, and the rows.
    shape : tuple of int
        One length for each of ``axes``.
    highest : int
        The highest label; it decides the type.
    axes : str
        Letters of ``TZYX``, the last two ``YX``.
    scale, units : mapping, optional
        As for `napari_medseg.io.tiff.write_labels`.

    Raises
    ------
    InputError
        The disk refuses.
    """
    kind = next(
        kind
        for kind in (np.uint8, np.uint16, np.uint32)
        if highest <= np.iinfo(kind).max
    )
    _write(path, read, shape, kind, ome_metadata(axes, scale or {}, units or {}))


def write_probability_tiles(
    path: Path,
    steps: Stored,
    names: Sequence[str],
    *,
    axes: str = "CYX",
    scale: Mapping[str, float] | None = None,
    units: Mapping[str, str] | None = None,
) -> None:
    """Write class probabilities that do not fit into memory, whole or not at all.

    The file holds what `napari_medseg.io.tiff.write_probabilities` writes, in tiles,
    and of 64 bits where it is larger than 4 GB. A file that exists is replaced.

    Parameters
    ----------
    path : Path
        The file.
    steps : array
        Anything that reads a part when it is indexed, such as a zarr array: the
        probabilities in steps of one in `napari_medseg.io.tiff.STEPS`, with one axis
        for each of ``axes``.
    names : sequence of str
        Names of the classes, background first.
    axes : str
        Letters of ``TZCYX``, the last three ``CYX``.
    scale, units : mapping, optional
        As for `napari_medseg.io.tiff.write_labels`.

    Raises
    ------
    InputError
        The disk refuses.
    """
    planes = list(np.ndindex(*steps.shape[:-2]))

    def read(number: int, rows: slice) -> NDArray[Any]:
        return np.asarray(steps[(*planes[number], rows)], np.float32) / STEPS

    metadata = ome_metadata(axes, scale or {}, units or {})
    metadata["Channel"] = {"Name": list(names)}
    _write(path, read, steps.shape, np.float32, metadata)


def _write(
    path: Path,
    read: Callable[[int, slice], NDArray[Any]],
    shape: tuple[int, ...],
    kind: type[np.generic],
    metadata: dict[str, Any],
) -> None:
    """Write a compressed, tiled OME-TIFF."""
    import tifffile

    *stack, height, width = shape
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(kind).itemsize
    with disk_errors(path), atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            _tiles(read, int(np.prod(stack, dtype=int)), height, width, kind),
            shape=shape,
            dtype=kind,
            tile=(TILE, TILE),
            ome=True,
            bigtiff=size > 2**31,
            compression="zlib",
            photometric="minisblack",
            metadata=metadata,
        )


def _tiles(
    read: Callable[[int, slice], NDArray[Any]],
    count: int,
    height: int,
    width: int,
    kind: type[np.generic],
) -> Iterator[NDArray[Any]]:
    """Give the tiles in the order of the file, padded with 0 at the edges."""
    for index in range(count):
        for top in range(0, height, TILE):
            rows = read(index, slice(top, min(top + TILE, height)))
            padded = np.zeros((TILE, -(-width // TILE) * TILE), kind)
            padded[: len(rows), :width] = rows
            for left in range(0, width, TILE):
                yield np.ascontiguousarray(padded[:, left : left + TILE])
