"""How an image is cut into windows of a network's working size, and put together.

Training and inference share this geometry, so that a held-out score is that of the
very pixels a user will see. The magnification is the same for every window: ``tile``
pixels of the image become ``size`` pixels of the network's input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from napari_medseg._config import check, setting
from napari_medseg._types import InputError
from napari_medseg.models.sam import standardise

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from napari_medseg._types import FloatArray

PATCH = 16
"""Every SAM cuts its input into patches of so many pixels a side."""

SMALLEST_TILE = 64
"""Smaller images are shown with a margin rather than magnified further."""


class Box(NamedTuple):
    """A rectangle of an image, in pixels: rows ``top`` to ``bottom``, and columns."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """The rectangle as an index of the last two axes."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True, slots=True)
class Framing:
    """Windows of an image: how large, how far magnified, how far they overlap."""

    tile: int = setting(512, "Side of a window, in pixels of the image.", ge=8)
    size: int = setting(512, "Side of the network's input, in pixels.", ge=32)
    overlap: float = setting(
        0.25, "Share of a window that the next one covers too.", ge=0.0, le=0.9
    )

    def __post_init__(self) -> None:
        check(self)
        if self.size % PATCH:
            near = round(self.size / PATCH) * PATCH
            raise InputError(
                f"The working size is {self.size} pixels; it must be a multiple of "
                f"{PATCH}, such as {near}."
            )

    @classmethod
    def for_images(cls, shapes: Iterable[tuple[int, int]], size: int) -> Framing:
        """Choose the windows for images of these shapes.

        Images up to twice the working size are seen whole, by the median of their
        longer sides; larger ones in windows at their own resolution.

        Parameters
        ----------
        shapes : iterable of tuple of int
            Height and width of the images.
        size : int
            Working size.

        Returns
        -------
        Framing
            The same for all images.
        """
        longest = int(np.median([max(shape) for shape in shapes]))
        tile = longest if longest <= 2 * size else size
        return cls(tile=max(tile, SMALLEST_TILE), size=size)

    @property
    def scale(self) -> float:
        """Pixels of the network's input per pixel of the image."""
        return self.size / self.tile

    def scaled(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the shape of a window's content in the network's input."""
        height, width = (
            min(self.size, max(1, round(length * self.scale))) for length in shape
        )
        return height, width

    def boxes(self, shape: tuple[int, int]) -> list[Box]:
        """Return windows that cover an image.

        Parameters
        ----------
        shape : tuple of int
            Height and width of the image.

        Returns
        -------
        list of Box
            One window for an image that fits into it; else evenly spaced ones that
            overlap by at least ``overlap``, row by row.
        """
        rows = self._starts(shape[0])
        columns = self._starts(shape[1])
        return [
            Box(y, x, min(y + self.tile, shape[0]), min(x + self.tile, shape[1]))
            for y in rows
            for x in columns
        ]

    def _starts(self, length: int) -> list[int]:
        """Return where windows begin along an axis."""
        rest = length - self.tile
        if rest <= 0:
            return [0]
        step = max(1, math.floor(self.tile * (1.0 - self.overlap)))
        count = math.ceil(rest / step) + 1
        return [round(index * rest / (count - 1)) for index in range(count)]

    def window(self, image: FloatArray, box: Box) -> Tensor:
        """Cut a window out of a normalised image.

        Parameters
        ----------
        image : ndarray
            ``float32 (3, Y, X)`` in [0, 1].
        box : Box
            Which window.

        Returns
        -------
        Tensor
            ``float32 (3, size, size)``, standardised; the margin below and to the
            right of the content is 0, as in SAM's own preprocessing.
        """
        rows, columns = box.slices
        content = torch.from_numpy(np.ascontiguousarray(image[:, rows, columns]))
        return self.pad(standardise(resize(content[None], self.scaled(box.shape))))[0]

    def pad(self, content: Tensor) -> Tensor:
        """Pad ``(..., h, w)`` with zeros at the bottom and right to ``size``."""
        height, width = content.shape[-2:]
        return functional.pad(content, (0, self.size - width, 0, self.size - height))

    def unwindow(self, logits: Tensor, box: Box) -> Tensor:
        """Bring the logits of windows back to the image's resolution.

        Parameters
        ----------
        logits : Tensor
            ``(K, h, w)``, at any resolution of the whole window.
        box : Box
            Which window.

        Returns
        -------
        Tensor
            ``float32 (K, height, width)`` of the box.
        """
        whole = resize(logits[None].float(), (self.size, self.size))
        height, width = self.scaled(box.shape)
        return resize(whole[..., :height, :width], box.shape)[0]


def resize(images: Tensor, shape: tuple[int, int]) -> Tensor:
    """Resize ``(B, C, H, W)`` bilinearly, averaging where it becomes smaller."""
    if tuple(images.shape[-2:]) == shape:
        return images
    return functional.interpolate(
        images, size=shape, mode="bilinear", align_corners=False, antialias=True
    )


class Blender:
    """Puts the probabilities of overlapping windows together.

    Each window weighs most in its middle and little at its edges, so that no seam
    shows. Rows that no window touches any more can be taken out while windows below
    them are still to come, so that an image of any size passes through.

    Parameters
    ----------
    classes : int
        Number of classes K.
    width : int
        Width of the image.

    Attributes
    ----------
    top : int
        The first row that has not been taken yet.
    """

    def __init__(self, classes: int, width: int) -> None:
        self.top = 0
        self._sum = np.zeros((classes, 0, width), np.float32)
        self._weight = np.zeros((0, width), np.float32)

    def add(self, probabilities: FloatArray, box: Box) -> None:
        """Add ``float32 (K, h, w)`` of one window, none of whose rows were taken."""
        self._grow(box.bottom - self.top)
        height, width = box.shape
        weight = np.outer(_ramp(height), _ramp(width)).astype(np.float32)
        rows = slice(box.top - self.top, box.bottom - self.top)
        columns = box.slices[1]
        self._sum[:, rows, columns] += probabilities * weight
        self._weight[rows, columns] += weight

    def take(self, bottom: int) -> FloatArray:
        """Return the rows from `top` to ``bottom``, and forget them.

        Parameters
        ----------
        bottom : int
            The first row that is left; windows cover every row above it.

        Returns
        -------
        ndarray
            ``float32 (K, bottom - top, X)``.
        """
        count = bottom - self.top
        if not count:
            return self._sum[:, :0].copy()
        taken: FloatArray = self._sum[:, :count] / self._weight[:count]
        self._sum = self._sum[:, count:].copy()
        self._weight = self._weight[count:].copy()
        self.top = bottom
        return taken

    def _grow(self, count: int) -> None:
        """Have room for at least so many rows."""
        more = count - len(self._weight)
        if more > 0:
            self._sum = np.pad(self._sum, ((0, 0), (0, more), (0, 0)))
            self._weight = np.pad(self._weight, ((0, more), (0, 0)))


def _ramp(length: int) -> FloatArray:
    """Return weights that rise from near 0 at both ends to 1 in the middle."""
    place = (np.arange(length, dtype=np.float32) + 0.5) / length
    ramp: FloatArray = np.minimum(1.0, 4.0 * np.minimum(place, 1.0 - place))
    return ramp
