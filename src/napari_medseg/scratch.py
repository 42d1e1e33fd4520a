"""What does not fit into memory: arrays on the disk, for a while."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import InputError
from napari_medseg.io.atomic import temporary_beside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import zarr
    from numpy.typing import NDArray

CHUNK = 512
"""Side of the pieces that lie on the disk, in pixels."""

IMAGE = "image.zarr"
"""Name of an image ``(C, Y, X)`` that waits in such a folder to be segmented."""


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """Give a folder for what does not fit into memory, and remove it afterwards.

    Parameters
    ----------
    beside : Path
        The file that is being made; its disk is where there is room for results.

    Yields
    ------
    Path
        A hidden folder.

    Raises
    ------
    InputError
        The folder cannot be made.
    """
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        folder = temporary_beside(beside, "scratch")
        folder.mkdir()
    except OSError as error:
        raise InputError(
            f"{beside.parent} cannot be written to: {error.strerror or error}."
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Rows:
    """Writes rows from the top to the bottom, whole pieces at a time.

    Parameters
    ----------
    array : zarr.Array
        Where they go, ``(..., Y, X)``.
    index : tuple of int
        Which slice of it.

    Attributes
    ----------
    done : int
        Rows that are written.
    """

    def __init__(self, array: zarr.Array[Any], index: tuple[int, ...] = ()) -> None:
        self.array = array
        self.done = 0
        self._index = index
        self._waiting: list[NDArray[Any]] = []

    def append(self, rows: NDArray[Any]) -> None:
        """Add the next rows ``(y, X)``."""
        self._waiting.append(rows)
        held = sum(len(item) for item in self._waiting)
        last = self.done + held == self.array.shape[-2]
        ready = held if last else held // CHUNK * CHUNK
        if ready:
            together = np.concatenate(self._waiting)
            place: tuple[int | slice, ...] = (
                *self._index,
                slice(self.done, self.done + ready),
            )
            self.array[place] = together[:ready]
            self.done += ready
            self._waiting = [together[ready:].copy()]


def new_array(
    path: Path, shape: tuple[int, ...], kind: type[np.generic]
) -> zarr.Array[Any]:
    """Make an array of zeros on the disk.

    Parameters
    ----------
    path : Path
        A folder that is not there yet.
    shape : tuple of int
        ``(..., Y, X)``; pieces hold one slice.
    kind : type
        Type of the values.

    Returns
    -------
    zarr.Array
        To read and write.
    """
    import zarr

    pieces = (1,) * (len(shape) - 2) + tuple(
        min(CHUNK, length) for length in shape[-2:]
    )
    array: zarr.Array[Any] = zarr.create_array(
        str(path), shape=shape, chunks=pieces, dtype=np.dtype(kind), fill_value=0
    )
    return array
