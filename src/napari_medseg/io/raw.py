"""What the readers of the file formats share: raw arrays, lazy arrays, errors."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from napari_medseg._types import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

READER_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
    AttributeError,
    EOFError,
    MemoryError,
    SyntaxError,
    SystemError,
    struct.error,
    zlib.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
)
"""What the readers raise on damaged files.

The list is wide because it was measured: thousands of files with bytes cut off or
changed made tifffile, imagecodecs, Pillow, NumPy and zarr raise each of these
(``AssertionError`` and ``ZeroDivisionError`` for a bad TIFF header,
``SyntaxError`` for a bad PNG, ``TokenError`` and ``BadZipFile`` for a bad .npy,
``MemoryError`` for a size that no file has, ``SystemError`` for one below 0). Only
calls into those readers are guarded by it.
"""

LAZY_BYTES = 2**28
"""Arrays above this size (256 MiB) stay on the disk where the format allows it."""

Key: TypeAlias = tuple[slice, ...]


_MAGIC = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "TIFF": (".tif", ".tiff"),
    "CZI": (".czi",),
}
"""Endings of files that are known by their first bytes."""

_STARTS = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"ZISRAWFILE": "CZI",
}


def _kind_of(path: Path) -> str:
    """Return what a file is by its first bytes; empty where they are not known."""
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError:
        return ""
    return next(
        (kind for magic, kind in _STARTS.items() if start.startswith(magic)), ""
    )


def damaged(path: Path, error: BaseException) -> InputError:
    """Return the error for a file that its reader could not decode.

    Parameters
    ----------
    path : Path
        The file.
    error : BaseException
        What the reader said.

    Returns
    -------
    InputError
        A sentence; the reader's own words are kept in it, on one line.
    """
    if isinstance(error, MemoryError):
        return InputError(
            f"{path} is damaged or does not fit into memory. Open it in the program "
            "that made it; if it opens there, save it as a tiled TIFF or OME-Zarr."
        )
    ending = "".join(path.suffixes[-1:]) or "image"
    kind = _kind_of(path)
    if kind and ending.lower() not in _MAGIC[kind]:
        return InputError(
            f"{path} is a {kind} file, whatever its name says, and is not read as a "
            f"{ending} file. Give it the ending {_MAGIC[kind][0]}; if it still cannot "
            "be read, it is damaged too, so copy it again from the original."
        )
    words = " ".join(str(error).split())[:120] or type(error).__name__
    return InputError(
        f"{path} cannot be read: it is damaged, cut short or not a "
        f"{ending} file ({words}). Save or copy it "
        "again from the original."
    )


class LazyArray:
    """An array that stays in its file; indexing reads the part asked for.

    It holds no open file, so that it can be sent to other processes and never
    keeps a file locked.

    Parameters
    ----------
    path : Path
        The file, for error messages.
    read : callable
        Reads a box: one slice with start and stop for each axis of the file.
    shape : sequence of int
        The array's shape in the file.
    dtype : numpy.dtype
        The array's type.
    order : sequence of int, optional
        The file's axes in the order that this array shows them. Axes that are
        left out must be of length 1.
    limits : mapping of int to int, optional
        Cut an axis of the file to this length (alpha is dropped so).
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[Key], NDArray[Any]],
        shape: Sequence[int],
        dtype: np.dtype[Any],
        order: Sequence[int] | None = None,
        limits: Mapping[int, int] | None = None,
    ) -> None:
        self._path = path
        self._read = read
        self._source = tuple(int(length) for length in shape)
        self._order = tuple(range(len(shape)) if order is None else order)
        self._limits = dict(limits or {})
        self.dtype = np.dtype(dtype)
        self.shape = tuple(
            self._limits.get(axis, self._source[axis]) for axis in self._order
        )

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of the whole array in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def arranged(self, order: Sequence[int], limits: Mapping[int, int]) -> LazyArray:
        """Return the same array with its axes in another order.

        Parameters
        ----------
        order : sequence of int
            This array's axes in their new order.
        limits : mapping of int to int
            Lengths to cut this array's axes to.

        Returns
        -------
        LazyArray
            Nothing is read.
        """
        cuts = {self._order[axis]: length for axis, length in limits.items()}
        return LazyArray(
            self._path,
            self._read,
            self._source,
            self.dtype,
            [self._order[axis] for axis in order],
            self._limits | cuts,
        )

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read one part; ints and slices with a positive step are understood."""
        keys = list(key) if isinstance(key, tuple) else [key]
        keys += [slice(None)] * (self.ndim - len(keys))
        box = [slice(0, 1)] * len(self._source)
        after: list[int | slice] = []
        for axis, part, length in zip(self._order, keys, self.shape, strict=True):
            if isinstance(part, slice):
                start, stop, step = part.indices(length)
                box[axis] = slice(start, max(start, stop))
                after.append(slice(None, None, step))
            else:
                start = range(length)[part]
                box[axis] = slice(start, start + 1)
                after.append(0)
        try:
            block = np.asarray(self._read(tuple(box)))
        except READER_ERRORS as error:
            raise damaged(self._path, error) from error
        gone = tuple(axis for axis in range(block.ndim) if axis not in self._order)
        kept = [axis for axis in range(block.ndim) if axis in self._order]
        block = np.squeeze(block, axis=gone)
        block = np.transpose(block, [kept.index(axis) for axis in self._order])
        result: NDArray[Any] = block[tuple(after)]
        return result

    def __array__(
        self, dtype: np.dtype[Any] | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        """Read everything."""
        whole = self[(slice(None),) * self.ndim]
        return whole if dtype is None else whole.astype(dtype)


ImageArray: TypeAlias = NDArray[Any] | LazyArray
"""An array in memory, or one that stays in its file."""


@dataclass(frozen=True, slots=True)
class Raw:
    """An image as its file has it, before the axes are settled.

    Attributes
    ----------
    data : ndarray or LazyArray
        The values, in the file's own order.
    axes : str or None
        Letters, one for each axis: ``TZCYX``, ``S`` for colour samples, ``Q`` for
        an axis the file does not name, ``I`` for a plain sequence of pages. None
        where the file says nothing.
    scale : mapping of str to float
        Pixel size by axis letter, where known.
    units : mapping of str to str
        Unit by axis letter, where known.
    colour : bool or None
        Whether the samples are colours; None where the file does not say.
    alpha : bool
        Whether the last sample is opacity.
    """

    data: ImageArray
    axes: str | None = None
    scale: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    colour: bool | None = None
    alpha: bool = False
