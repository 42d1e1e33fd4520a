"""What an image file and an annotation file are, once read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg._types import FloatArray, InputError, LabelArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from napari_medseg.io.raw import ImageArray

SAMPLE_PIXELS = 4_000_000
"""Most pixels that statistics of one image rest on."""


def sample_step(rows: int, columns: int) -> int:
    """Return the stride that thins an image to at most 4 million pixels.

    Parameters
    ----------
    rows, columns : int
        Size of the image.

    Returns
    -------
    int
        1 for all but huge images.
    """
    step = math.isqrt(max(rows * columns - 1, 0) // SAMPLE_PIXELS)
    while -(-rows // max(step, 1)) * -(-columns // max(step, 1)) > SAMPLE_PIXELS:
        step += 1
    return max(step, 1)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image as its file has it, with axes in the order ``TZCYX``.

    Attributes
    ----------
    path : Path
        The file or zarr folder.
    data : ndarray or LazyArray
        The values in the file's type. Axes of length 1 other than Y and X are left
        out, and so is opacity. NaN and infinity are kept.
    axes : str
        One letter of ``TZCYX`` for each axis of ``data``, in that order.
    scale : mapping of str to float
        Pixel size by axis letter; an axis without one is left out.
    units : mapping of str to str
        Unit by axis letter, such as ``µm``.
    rgb : bool
        Whether the three channels are red, green and blue.
    shown : tuple of int
        The channels of ``data`` that are read, in this order; empty for all.
    """

    path: Path
    data: ImageArray
    axes: str
    scale: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    rgb: bool = False
    shown: tuple[int, ...] = ()

    @property
    def channels(self) -> int:
        """Number of channels that are read; 1 where there is no channel axis."""
        if self.shown:
            return len(self.shown)
        return self.data.shape[self.axes.index("C")] if "C" in self.axes else 1

    def of_channels(self, channels: Sequence[int]) -> ImageFile:
        """Return the same file, of which some channels are read.

        Parameters
        ----------
        channels : sequence of int
            Which, from 0 and in the order that is wanted; at least one.

        Returns
        -------
        ImageFile
            Of no colours; ``data`` and ``axes`` are still those of the file.

        Raises
        ------
        InputError
            There is no such channel.
        """
        for channel in channels:
            if not 0 <= channel < self.channels:
                are = "is" if self.channels == 1 else "are"
                raise InputError(
                    f"{self.path} has no channel {channel} (there {are} "
                    f"{self.channels}, counted from 0). Choose another channel."
                )
        known = self.shown or range(self.channels)
        shown = tuple(known[channel] for channel in channels)
        return replace(self, shown=shown, rgb=False)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.data.shape[-2:]
        return rows, columns

    @property
    def slice_count(self) -> int:
        """Number of 2D slices; 1 where the file is no stack."""
        return math.prod(
            length
            for letter, length in zip(self.axes, self.data.shape, strict=True)
            if letter in "TZ"
        )

    def indices(self) -> Iterator[dict[str, int]]:
        """Give where each 2D slice lies, without reading it.

        Yields
        ------
        dict of str to int
            Such as ``{"T": 0, "Z": 3}``; empty for an image that is no stack.
        """
        stack = [letter for letter in self.axes if letter in "TZ"]
        lengths = [range(self.data.shape[self.axes.index(name)]) for name in stack]
        for position in product(*lengths):
            yield dict(zip(stack, position, strict=True))

    def slices(self) -> Iterator[tuple[dict[str, int], FloatArray]]:
        """Read the 2D slices one after another.

        Yields
        ------
        index : dict of str to int
            As `indices` gives it.
        image : ndarray
            ``float32 (C, Y, X)``.

        Raises
        ------
        InputError
            A part of the file is damaged.
        """
        for index in self.indices():
            yield index, self.region(index)

    def plane(self) -> FloatArray:
        """Read the only slice.

        Returns
        -------
        ndarray
            ``float32 (C, Y, X)``.

        Raises
        ------
        InputError
            The file is a stack, or damaged.
        """
        if self.slice_count > 1:
            raise InputError(
                f"{self.path} is a stack of {self.slice_count} slices; a single 2D "
                "image is needed here. Save the slices you want as files of their "
                "own."
            )
        return self.region(next(self.indices()))

    def region(
        self,
        index: Mapping[str, int] | None = None,
        rows: slice = slice(None),
        columns: slice = slice(None),
    ) -> FloatArray:
        """Read a part of one slice; of a large file, only this part.

        Parameters
        ----------
        index : mapping of str to int, optional
            The slice, as `indices` gives it.
        rows, columns : slice
            The part, in pixels.

        Returns
        -------
        ndarray
            ``float32 (C, y, x)``.

        Raises
        ------
        InputError
            A part of the file is damaged.
        """
        first = min(self.shown, default=0)
        band = slice(first, max(self.shown) + 1 if self.shown else None)
        where = {"C": band, "Y": rows, "X": columns} | dict(index or {})
        part = self.data[tuple(where.get(letter, 0) for letter in self.axes)]
        if "C" in self.axes and self.shown:
            part = part[[channel - first for channel in self.shown]]
        # float64 beyond float32 becomes infinite, which is kept as such here.
        with np.errstate(over="ignore"):
            image: FloatArray = np.ascontiguousarray(part, dtype=np.float32)
        return image if "C" in self.axes else image[np.newaxis]

    def sample(self, index: Mapping[str, int] | None = None) -> FloatArray:
        """Read every n-th pixel of one slice, at most about 4 million.

        The pixels are those that `napari_medseg.io.normalise.limits` would take
        from the whole slice, so that limits of the sample are limits of the slice.

        Parameters
        ----------
        index : mapping of str to int, optional
            The slice, as `indices` gives it.

        Returns
        -------
        ndarray
            ``float32 (C, y, x)``.

        Raises
        ------
        InputError
            A part of the file is damaged.
        """
        height, width = self.size
        step = sample_step(height, width)
        # A band at a time: a huge slice never lies in memory as a whole.
        band = step * max(1, 1024 // step)
        bands = [slice(top, top + band, step) for top in range(0, height, band)]
        thin = slice(None, None, step)
        return np.concatenate(
            [self.region(index, rows, thin) for rows in bands], axis=1
        )


@dataclass(frozen=True, slots=True)
class LabelImage:
    """An annotation as its file has it.

    Attributes
    ----------
    labels : ndarray
        ``int32``, with axes as named; ``(Y, X)`` where it is no stack.
    axes : str
        Letters of ``TZYX``, one for each axis.
    wide : bool
        Whether the file stores more than 8 bits, as masks of objects do.
    scale : mapping of str to float
        Pixel size by axis letter.
    units : mapping of str to str
        Unit by axis letter.
    """

    labels: LabelArray
    axes: str
    wide: bool = False
    scale: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
