"""What was found in the slices of an image, as one array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari_medseg.io.images import ImageFile


class Slices:
    """Puts the slices of an image together, without holding them twice.

    Parameters
    ----------
    image : ImageFile
        The image that they are of.
    """

    def __init__(self, image: ImageFile) -> None:
        self._count = image.slice_count
        self._stack = [
            length
            for letter, length in zip(image.axes, image.data.shape, strict=True)
            if letter in "TZ"
        ]
        self._array: Any = None
        self._filled = 0

    def append(self, values: np.ndarray[Any, Any]) -> None:
        """Add the next slice."""
        if self._count == 1:
            self._array = values[np.newaxis]
            return
        if self._array is None:
            self._array = np.empty((self._count, *values.shape), values.dtype)
        self._array[self._filled] = values
        self._filled += 1

    def together(self) -> Any:
        """Return all slices, ``(*stack, ...)``."""
        return self._array.reshape(*self._stack, *self._array.shape[1:])
