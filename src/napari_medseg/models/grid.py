"""How an image is looked at for all of its objects: windows, and a grid of points."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from napari_medseg.models.framing import Box, Framing

if TYPE_CHECKING:
    from torch import Tensor

EDGE = 20 / 1024
"""A mask that ends so near to where a window ends, in shares of it, may be cut."""


class View(NamedTuple):
    """A part of an image, looked at for objects of some length.

    Attributes
    ----------
    framing : Framing
        How much of the image becomes the network's input.
    box : Box
        Which part.
    shape : tuple of int
        Height and width of the image.
    above : float
        Shorter objects, in pixels, are seen better in another view.
    """

    framing: Framing
    box: Box
    shape: tuple[int, int]
    above: float = 0.0

    def points(self, per_side: int) -> Tensor:
        """Return a grid of points.

        Parameters
        ----------
        per_side : int
            Points along each side, if there are as many pixels.

        Returns
        -------
        Tensor
            ``float32 (N, 2)``, x and y in pixels of the network's input.
        """
        down, across = (
            (torch.arange(count) + 0.5) * (length * self.framing.scale / count) - 0.5
            for length in self.box.shape
            for count in [min(per_side, length)]
        )
        return torch.cartesian_prod(down, across).flip(-1)

    def content(self, side: int) -> tuple[slice, slice]:
        """Return which rows and columns of a mask ``side`` wide show the image."""
        share = side / self.framing.size
        rows, columns = self.framing.scaled(self.box.shape)
        return slice(math.ceil(rows * share)), slice(math.ceil(columns * share))

    def fits(self, boxes: Tensor) -> Tensor:
        """Tell which objects are seen whole, and nowhere better than here.

        Parameters
        ----------
        boxes : Tensor
            ``float32 (N, 4)``: left, top, right and bottom in pixels of the image, the
            last two just behind the object.

        Returns
        -------
        Tensor
            ``bool (N,)``.
        """
        top, left, bottom, right = self.box
        low, high = boxes.new_tensor([left, top]), boxes.new_tensor([right, bottom])
        end = boxes.new_tensor(self.shape[::-1])
        starts, ends = boxes[:, :2], boxes[:, 2:]
        margin = EDGE * self.framing.tile
        # where the image itself ends nothing is cut
        cut = ((low > 0) & (starts < low + margin)) | (
            (high < end) & (ends > high - margin)
        )
        return ~cut.any(dim=1) & ((ends - starts).amax(dim=1) > self.above)


def views_of(shape: tuple[int, int], size: int) -> list[View]:
    """Choose how an image is looked at: windows, then all of it if they are several.

    Parameters
    ----------
    shape : tuple of int
        Height and width of the image.
    size : int
        Side of the network's input, in pixels.

    Returns
    -------
    list of View
        The windows are those of `Framing.for_images`.
    """
    near = Framing.for_images([shape], size)
    views = [View(near, box, shape) for box in near.boxes(shape)]
    if len(views) == 1:
        return views
    whole = Framing(tile=max(shape), size=size)
    # what two windows share, without the edges of both: smaller objects are whole there
    above = (near.overlap - 2 * EDGE) * near.tile
    return [*views, View(whole, whole.boxes(shape)[0], shape, above)]
