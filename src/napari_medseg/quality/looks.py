"""Images as a pixel classifier sees them: what a frozen SAM says, and plain filters.

An image is cut into windows as SAM sees it. Each becomes a grid of cells of `CELL`
pixels of SAM's input, and each cell has SAM's embedding there, interpolated, and the
answers of a few filters. Nothing is learned here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

from napari_medseg.io.normalise import normalise
from napari_medseg.models.backbone import load_backbone
from napari_medseg.models.devices import resolve_device
from napari_medseg.models.framing import Framing, resize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_medseg._types import FloatArray, LabelArray
    from napari_medseg.io.normalise import Normalisation
    from napari_medseg.io.pairs import Pairs
    from napari_medseg.models.backbone import Backbone
    from napari_medseg.models.framing import Box
    from napari_medseg.quality.settings import QualitySettings

CELL = 4
"""Side of a cell, in pixels of SAM's input."""

SCALES = (1.0, 2.0, 4.0)
"""Widths of the filters, in cells."""

FILTER_WEIGHT = 4.0
"""Makes filters, of images in [0, 1], about as large as SAM's numbers."""


@dataclass(frozen=True, eq=False)
class Look:
    """A window of an image, as a pixel classifier sees it.

    Attributes
    ----------
    box : Box
        Where in the image it lies.
    embedding : ndarray
        ``float32 (E, h, w)``, what SAM says of its content.
    filters : ndarray
        ``float32 (F, gy, gx)``, answers of filters in each cell.
    span : float
        Side of a cell, in pixels of the image.
    """

    box: Box
    embedding: FloatArray
    filters: FloatArray
    span: float
    _rows: FloatArray = field(repr=False)
    _columns: FloatArray = field(repr=False)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        return self.filters.shape[1], self.filters.shape[2]

    @property
    def width(self) -> int:
        """Numbers that describe a cell, a constant among them."""
        return len(self.embedding) + len(self.filters) + 1

    def matrix(self) -> FloatArray:
        """Return what describes each cell, ``float32 (gy * gx, width)``."""
        upright = self._rows @ self.embedding @ self._columns.T
        whole = np.concatenate([upright, self.filters, np.ones((1, *self.grid))])
        flat: FloatArray = whole.reshape(self.width, -1).T.astype(np.float32)
        return flat

    def project(self, weights: FloatArray) -> FloatArray:
        """Return ``matrix() @ weights`` as maps, without making the matrix.

        Parameters
        ----------
        weights : ndarray
            ``float32 (width, K)``.

        Returns
        -------
        ndarray
            ``float32 (K, gy, gx)``.
        """
        count = len(self.embedding)
        # interpolation and sums over channels can change places
        small = np.tensordot(weights[:count].T, self.embedding, 1)
        maps = self._rows @ small @ self._columns.T
        maps += np.tensordot(weights[count:-1].T, self.filters, 1)
        result: FloatArray = (maps + weights[-1][:, None, None]).astype(np.float32)
        return result

    def against(self, maps: FloatArray) -> FloatArray:
        """Return ``matrix().T @ maps`` for maps ``(K, gy, gx)``: ``(width, K)``."""
        small = self._rows.T @ maps @ self._columns
        parts = [
            np.tensordot(self.embedding, small, ([1, 2], [1, 2])),
            np.tensordot(self.filters, maps, ([1, 2], [1, 2])),
            maps.sum(axis=(1, 2))[None],
        ]
        result: FloatArray = np.concatenate(parts).astype(np.float32)
        return result

    @cached_property
    def moments(self) -> FloatArray:
        """``matrix().T @ matrix()`` over all cells."""
        matrix = self.matrix()
        result: FloatArray = matrix.T @ matrix
        return result

    @cached_property
    def summary(self) -> FloatArray:
        """What the window is like on the whole: SAM's mean, of length 1."""
        mean = self.embedding.mean(axis=(1, 2))
        result: FloatArray = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return result

    def cells(self, labels: LabelArray) -> LabelArray:
        """Return the labels of the whole image at the middles of the cells.

        Parameters
        ----------
        labels : ndarray
            ``int32 (Y, X)`` of the image.

        Returns
        -------
        ndarray
            ``int32 (gy, gx)``.
        """
        rows, columns = (
            start + np.minimum((np.arange(count) + 0.5) * self.span, length - 1)
            for start, count, length in zip(
                self.box[:2], self.grid, self.box.shape, strict=True
            )
        )
        chosen: LabelArray = labels[np.ix_(rows.astype(int), columns.astype(int))]
        return chosen


class Looker:
    """Describes images by a SAM.

    Parameters
    ----------
    backbone : Backbone
        The SAM.
    normalisation : Normalisation
        How images are prepared.
    framing : Framing
        How they are cut.
    device : torch.device
        Where SAM computes.
    """

    def __init__(
        self,
        backbone: Backbone,
        normalisation: Normalisation,
        framing: Framing,
        device: torch.device,
    ) -> None:
        self._backbone = backbone
        self._normalisation = normalisation
        self._framing = framing
        self._device = device

    @classmethod
    def for_pairs(cls, pairs: Pairs, settings: QualitySettings) -> Looker:
        """Return what describes images like these.

        Parameters
        ----------
        pairs : Pairs
            Annotated images.
        settings : QualitySettings
            Which SAM, and where.

        Returns
        -------
        Looker
            Its windows suit the sizes of the images.

        Raises
        ------
        InputError, WeightsError
            The SAM is not known, or not there.
        """
        backbone = load_backbone(settings.sam)
        shapes = [pair.annotation.shape for pair in pairs]
        framing = Framing.for_images(
            shapes, settings.working_size or backbone.working_size
        )
        device = resolve_device(settings.device)
        return cls(backbone, pairs.normalisation(), framing, device)

    def looks(self, image: FloatArray, most: int) -> list[Look]:
        """Describe an image.

        Parameters
        ----------
        image : ndarray
            ``float32 (C, Y, X)``, as it was read.
        most : int
            Windows, at most; of more, some are taken evenly.

        Returns
        -------
        list of Look
            One for each window.

        Raises
        ------
        InputError
            The image lacks a channel.
        """
        prepared = normalise(image, self._normalisation)
        boxes = self._framing.boxes((prepared.shape[1], prepared.shape[2]))
        return [self._look(prepared, box) for box in _some(boxes, most)]

    def _look(self, image: FloatArray, box: Box) -> Look:
        framing = self._framing
        inputs = framing.window(image, box)
        embedding = self._backbone.embed(inputs, self._device).float().numpy()
        stride = framing.size // embedding.shape[-1]
        grid = [-(-length // CELL) for length in framing.scaled(box.shape)]
        sides = [-(-length // stride) for length in framing.scaled(box.shape)]
        kept = np.ascontiguousarray(embedding[:, : sides[0], : sides[1]])
        picture = _pooled(image[(slice(None), *box.slices)], (grid[0], grid[1]))
        rows, columns = (
            _interpolation(cells, side, CELL / stride)
            for cells, side in zip(grid, sides, strict=True)
        )
        return Look(box, kept, _filtered(picture), CELL / framing.scale, rows, columns)


def _some(boxes: Sequence[Box], most: int) -> list[Box]:
    """Take some windows evenly."""
    if len(boxes) <= most:
        return list(boxes)
    return [boxes[int((index + 0.5) * len(boxes) / most)] for index in range(most)]


def _pooled(image: FloatArray, grid: tuple[int, int]) -> FloatArray:
    """Return the mean of an image in each cell."""
    whole = torch.from_numpy(np.ascontiguousarray(image))[None]
    pooled: FloatArray = resize(whole, grid)[0].numpy()
    return pooled


def _interpolation(cells: int, places: int, step: float) -> FloatArray:
    """Return the matrix ``(cells, places)`` that interpolates linearly.

    Cell ``i`` has its middle at ``(i + 0.5) * step - 0.5`` in places.
    """
    where = np.clip((np.arange(cells) + 0.5) * step - 0.5, 0, places - 1)
    left = np.floor(where).astype(int)
    right = np.minimum(left + 1, places - 1)
    matrix = np.zeros((cells, places), np.float32)
    index = np.arange(cells)
    matrix[index, left] += 1 - (where - left)
    matrix[index, right] += where - left
    return matrix


def _filtered(picture: FloatArray) -> FloatArray:
    """Return channels, and blurs, slopes and curvatures of their mean."""
    grey = picture.mean(axis=0)
    answers = [*picture, grey**2]
    for scale in SCALES:
        answers += [
            ndimage.gaussian_filter(grey, scale),
            scale * ndimage.gaussian_gradient_magnitude(grey, scale),
            scale**2 * ndimage.gaussian_laplace(grey, scale),
        ]
    result: FloatArray = FILTER_WEIGHT * np.stack(answers).astype(np.float32)
    return result
