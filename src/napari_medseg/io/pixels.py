"""The pixels of one 2D image, whether they lie in memory or in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_medseg.io.image_file import sample_step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_medseg._types import FloatArray
    from napari_medseg.io.image_file import ImageFile


class ArrayPixels:
    """The pixels of an array.

    Parameters
    ----------
    image : ndarray
        ``float32 (C, Y, X)``.

    Attributes
    ----------
    shape : tuple of int
        Channels, rows and columns.
    """

    def __init__(self, image: FloatArray) -> None:
        self._image = image
        self.shape = image.shape

    def region(self, rows: slice, columns: slice) -> FloatArray:
        """Return a part, ``float32 (C, y, x)``; nothing is copied."""
        return self._image[..., rows, columns]

    def sample(self) -> FloatArray:
        """Return every n-th row and column, about 4 million pixels at most."""
        step = sample_step(*self.shape[-2:])
        return self._image[..., ::step, ::step]


class FilePixels:
    """The pixels of one slice of a file, read when they are asked for.

    The rows read last are kept: windows that follow each other along a row read the
    file once.

    Parameters
    ----------
    image : ImageFile
        The file.
    index : mapping of str to int
        The slice, as `ImageFile.indices` gives it.

    Attributes
    ----------
    shape : tuple of int
        Channels, rows and columns.
    """

    def __init__(self, image: ImageFile, index: Mapping[str, int]) -> None:
        self._image = image
        self._index = index
        self._rows: slice | None = None
        self._strip: FloatArray | None = None
        self.shape = (image.channels, *image.size)

    def region(self, rows: slice, columns: slice) -> FloatArray:
        """Read a part.

        Parameters
        ----------
        rows, columns : slice
            Which; with start and stop.

        Returns
        -------
        ndarray
            ``float32 (C, y, x)``.

        Raises
        ------
        InputError
            This part of the file is damaged.
        """
        if self._strip is None or rows != self._rows:
            self._strip = None  # both would not always fit
            self._strip = self._image.region(self._index, rows)
            self._rows = rows
        return self._strip[..., columns]

    def sample(self) -> FloatArray:
        """Read every n-th row and column, about 4 million pixels at most.

        Raises
        ------
        InputError
            A part of the file is damaged.
        """
        return self._image.sample(self._index)
