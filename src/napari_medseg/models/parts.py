"""The part of a window in which an object is looked for, and where it ends.

A click says where an object is. What lies far from it is seen by the encoder, but need
not be drawn: arithmetic grows with the cells that are drawn in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_medseg.models.looks import Look

CLOSE = 32
"""Cells of an embedding round a click, in which its object is drawn, a side.

A larger object is found at a smaller magnification, and arithmetic grows with cells.
"""


class Part(NamedTuple):
    """A square of a window, in cells of its embedding.

    Attributes
    ----------
    top, left : int
        Where it begins.
    side : int
        Cells along a side.
    """

    top: int
    left: int
    side: int

    @classmethod
    def near(cls, places: Tensor, grid: int) -> Part:
        """Return the part with the first click in its middle, as far as it can be.

        Parameters
        ----------
        places : Tensor
            ``(N, 2)``, x and y of the clicks in cells; the first one is not moved
            from by the others, so that the answers to more clicks are alike.
        grid : int
            Cells along a side of the window.

        Returns
        -------
        Part
            `CLOSE` cells a side, or the whole window where it has no more than
            those, or not all the clicks would lie in the part.
        """
        if grid > CLOSE and len(places):
            left, top = (
                max(0, min(round(place - CLOSE / 2), grid - CLOSE))
                for place in places[0].tolist()
            )
            inner = places - torch.tensor([left, top])
            if bool(((inner >= 0) & (inner <= CLOSE)).all()):
                return cls(top, left, CLOSE)
        return cls(0, 0, grid)

    def of(self, maps: Tensor) -> Tensor:
        """Return this part of maps ``(..., h, w)`` of the window, as a view."""
        rows = slice(self.top, self.top + self.side)
        columns = slice(self.left, self.left + self.side)
        return maps[..., rows, columns]

    def scaled(self, factor: int) -> Part:
        """Return the same part of a grid so many times finer."""
        return Part(self.top * factor, self.left * factor, self.side * factor)

    def placed(self, maps: Tensor, size: int, beyond: float) -> Tensor:
        """Return maps ``(..., size, size)`` of the window, given those of the part.

        Parameters
        ----------
        maps : Tensor
            ``(..., side, side)``.
        size : int
            Side of the window, in the cells that the part is counted in.
        beyond : float
            What stands outside of the part.
        """
        whole = maps.new_full((*maps.shape[:-2], size, size), beyond)
        self.of(whole).copy_(maps)
        return whole


class Edges(NamedTuple):
    """Rows and columns of a window beyond which an object may go on unseen.

    Attributes
    ----------
    rows, columns : tuple of int
        In pixels of the window; none where the image ends.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @classmethod
    def of(cls, look: Look, part: Part, shape: tuple[int, int]) -> Edges:
        """Return the edges of a part, in pixels, of a look at an image."""
        box, framing = look.box, look.framing
        ends = []
        for low, high, length, start in zip(
            (box.top, box.left), (box.bottom, box.right), shape, part[:2], strict=True
        ):
            last = framing.scaled((high - low, high - low))[0]
            stop = min(start + part.side, last)
            found = [start] if low > 0 or start > 0 else []
            ends.append(
                tuple([*found, stop - 1] if high < length or stop < last else found)
            )
        return cls(*ends)

    def cut(self, mask: NDArray[np.bool_]) -> bool:
        """Tell whether a mask of the window ends at one of them."""
        return bool(
            any(mask[row].any() for row in self.rows)
            or any(mask[:, column].any() for column in self.columns)
        )
