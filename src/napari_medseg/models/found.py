"""The masks that one look through a window offers, and what is thought of each.

SAM draws four, in the part of the window where the prompt is; colours draw some more
(`napari_medseg.models.parting`). Of each the part is kept that was meant, and a score
says how much speaks for it (`napari_medseg.models.judging`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from napari_medseg.models import parting
from napari_medseg.models.candidates import GRID, coarsened, whole_cells
from napari_medseg.models.clicks import ADD, TAKE_AWAY
from napari_medseg.models.judging import (
    filling,
    inside,
    meant,
    obeying,
    stability,
)
from napari_medseg.models.parts import Edges, Part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_medseg._types import FloatArray
    from napari_medseg.models.candidates import Sight
    from napari_medseg.models.clicks import Asked
    from napari_medseg.models.looks import Look
    from napari_medseg.models.parting import Parted

OFFSET = 1.0
"""How far the threshold moves to see whether an outline is sure."""

CUT = 0.1
"""What a mask that ends where its window ends counts, beside a whole one."""

COLOURS = 0.5
"""What colours count by the rule alone, beside what SAM draws."""


class Said(NamedTuple):
    """What SAM says of a mask.

    Attributes
    ----------
    coarse : Tensor
        ``float32 (GRID, GRID)``, its logits.
    expected : float
        The IoU that SAM expects.
    """

    coarse: Tensor
    expected: float


class Drawn(NamedTuple):
    """What SAM drew in a part of a window.

    Attributes
    ----------
    part : Part
        The part, in cells of the embedding.
    masks : Tensor
        ``float32 (4, 4 * side, 4 * side)`` logits, on the processor.
    iou : list of float
        What SAM expects of each.
    """

    part: Part
    masks: Tensor
    iou: list[float]

    def said(self, cells: int) -> list[Said]:
        """Take down what SAM says, of a window of so many cells a side."""
        finer = self.masks.shape[-1] // self.part.side
        whole = self.part.scaled(finer).placed(self.masks, finer * cells, -OFFSET)
        coarse = coarsened(whole, GRID)
        return [
            Said(*each)
            for each in zip(coarse, [max(0.0, iou) for iou in self.iou], strict=True)
        ]


class Found(NamedTuple):
    """A mask as it was seen in a window.

    Attributes
    ----------
    look : Look
        The window.
    logits : Tensor
        ``float32 (S, S)``, at the resolution of the network's input.
    mask : ndarray
        ``bool (S, S)``, the part of it that was meant.
    score : float
        The IoU that SAM expects, less what speaks against the mask.
    said : Said
        What SAM itself says of the mask; of colours, how clear they are.
    parted : bool
        Whether colours drew it.
    """

    look: Look
    logits: Tensor
    mask: NDArray[np.bool_]
    score: float
    said: Said
    parted: bool = False

    def in_image(self) -> NDArray[np.bool_]:
        """Return the mask in pixels of the image, ``bool`` of the look's box."""
        kept = torch.from_numpy(self.mask)
        # smooth between pixels where the mask was kept, and off where it was not
        logits = torch.where(
            kept, self.logits.clamp(min=1e-3), self.logits.clamp(max=-1e-3)
        )
        found = self.look.framing.unwindow(logits[None], self.look.box)[0]
        return (found > 0).numpy()


def by_sam(
    look: Look, drawn: Drawn, asked: Asked, shape: tuple[int, int], cells: int
) -> list[Found]:
    """Return what SAM drew through a window.

    Parameters
    ----------
    look : Look
        The window.
    drawn : Drawn
        What it drew.
    asked : Asked
        The prompt.
    shape : tuple of int
        Height and width of the image.
    cells : int
        Cells of the embedding along a side of the window.

    Returns
    -------
    list of Found
        Four masks, in SAM's order.
    """
    size = look.framing.size
    part = drawn.part.scaled(size // cells)
    near = functional.interpolate(
        drawn.masks[None], (part.side, part.side), mode="bilinear"
    )[0]
    # a copy, as what was made in inference mode may not be changed
    logits = _on_image(look, part.placed(near, size, -OFFSET))
    edges = Edges.of(look, part, shape)
    said = drawn.said(cells)
    expected = torch.tensor([each.expected for each in said])
    # beside the part, nothing is above either threshold
    scores = expected * stability(part.of(logits), OFFSET)
    return [
        _judged(look, *each, asked, edges)
        for each in zip(logits, scores.tolist(), said, strict=True)
    ]


def in_box(look: Look, sight: Sight, asked: Asked) -> list[Found]:
    """Return both sides of what is in a box, parted by colour.

    Parameters
    ----------
    look : Look
        The window.
    sight : Sight
        What is seen through it.
    asked : Asked
        The box, and clicks if there are any.

    Returns
    -------
    list of Found
        Two, or none where there is but one colour.
    """
    (left, top), (right, bottom) = cells_of(look, asked)[-2:]
    sides = parting.in_box(sight.soft, (top, left, bottom, right))
    return _by_colour(look, sides, asked, Edges((), ()))


def round_click(
    look: Look, sight: Sight, asked: Asked, shape: tuple[int, int], likely: Found
) -> list[Found]:
    """Return what is coloured as an object is where it was clicked.

    Parameters
    ----------
    look : Look
        The window.
    sight : Sight
        What is seen through it.
    asked : Asked
        A click on the object.
    shape : tuple of int
        Height and width of the image.
    likely : Found
        The likeliest of the masks that SAM drew through the window.

    Returns
    -------
    list of Found
        Two at most; fewer where there is but one colour.
    """
    column, row = cells_of(look, asked)[0]
    rows, columns = sight.soft.shape[1:]
    mask = coarsened(torch.from_numpy(likely.mask)[None], GRID)[0].numpy() > 0
    sides = parting.round_click(sight.soft, (row, column), mask[:rows, :columns])
    whole = Part(0, 0, look.framing.size)
    return _by_colour(look, sides, asked, Edges.of(look, whole, shape))


def redrawn(found: Found, logits: Tensor, asked: Asked) -> Found:
    """Return what was found with another outline.

    Parameters
    ----------
    found : Found
        A mask.
    logits : Tensor
        ``float32 (S, S)``, its new logits, which are changed.
    asked : Asked
        The prompt.

    Returns
    -------
    Found
        Of the same score; the part of the outline that was meant.
    """
    drawn = _on_image(found.look, logits[None])[0]
    again = _judged(found.look, drawn, 0.0, found.said, asked, Edges((), ()))
    return again._replace(score=found.score, parted=found.parted)


def _by_colour(
    look: Look, sides: Sequence[Parted], asked: Asked, edges: Edges
) -> list[Found]:
    """Judge what colours drew as if SAM had drawn it."""
    size, found = look.framing.size, []
    for side in sides:
        coarse = in_window(side.logits)
        fine = functional.interpolate(
            coarse[None, None], (size, size), mode="bilinear"
        )[0]
        said = Said(coarse, side.clearness)
        score = COLOURS * side.clearness
        each = _judged(look, _on_image(look, fine)[0], score, said, asked, edges)
        found.append(each._replace(parted=True))
    return found


def in_window(logits: FloatArray) -> Tensor:
    """Return logits of cells in the image as those of the window.

    Parameters
    ----------
    logits : ndarray
        ``float32 (Y, X)``, of the cells that lie in the image as a whole.

    Returns
    -------
    Tensor
        ``float32 (GRID, GRID)``; beyond them those at their edge.
    """
    missing = [(0, GRID - length) for length in logits.shape]
    return torch.from_numpy(np.pad(logits, missing, mode="edge"))


def _on_image(look: Look, logits: Tensor) -> Tensor:
    """Find nothing in the margin of a window, whose logits are changed for it."""
    height, width = look.framing.scaled(look.box.shape)
    logits[:, height:] = -OFFSET
    logits[:, :, width:] = -OFFSET
    return logits


def cells_of(look: Look, asked: Asked) -> list[tuple[int, int]]:
    """Return x and y of a prompt's points in cells of a window.

    Parameters
    ----------
    look : Look
        The window.
    asked : Asked
        The prompt.

    Returns
    -------
    list of tuple of int
        The cells of the image that are nearest.
    """
    cells = (look.to_window(asked.points) + 0.5) * (GRID / look.framing.size) - 0.5
    height, width = whole_cells(look)
    last = torch.tensor([width - 1, height - 1])
    whole = cells.round().int().clamp(torch.zeros(2), last).int()
    return [(x, y) for x, y in whole.tolist()]


def _judged(
    look: Look,
    logits: Tensor,
    score: float,
    said: Said,
    asked: Asked,
    edges: Edges,
) -> Found:
    """Keep the part of a mask that was meant, and say how good it is."""
    height, width = look.framing.scaled(look.box.shape)
    # in the window's margin, where nothing is found, lies no click
    last = torch.tensor([width - 1, height - 1])
    whole = look.to_window(asked.points).round().int().clamp(torch.zeros(2), last)
    places = whole.int().tolist()
    labels = asked.labels.tolist()
    on, off = (
        [(y, x) for (x, y), label in zip(places, labels, strict=True) if label == kind]
        for kind in (ADD, TAKE_AWAY)
    )
    mask = (logits > 0).numpy()
    if asked.boxed:
        (left, top), (right, bottom) = places[-2:]
        box = (top, left, bottom, right)
        mask = meant(inside(mask, box), on, off)
        score *= filling(mask, box)
    else:
        mask = meant(mask, on, off)
        score *= CUT if edges.cut(mask) else 1.0
    adds = [True] * len(on) + [False] * len(off)
    score *= obeying(mask, [*on, *off], adds)
    return Found(look, logits, mask, score, said)
