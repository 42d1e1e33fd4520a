"""All masks that one prompt is offered, with what is known of each.

Masks of several looks lie in windows of different magnification. Here all are brought
to grids of one size, so that they are described in one go, however many there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

from napari_medseg.models.framing import resize
from napari_medseg.models.parting import softened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_medseg._types import FloatArray
    from napari_medseg.models.looks import Look

GRID = 128
"""Cells along a side of a window."""

COARSE = 32
"""Cells along a side of a window, where embeddings are compared."""


class Sight(NamedTuple):
    """What is seen through a window.

    Attributes
    ----------
    embedding : Tensor
        ``float32 (1, 256, h, w)``, as the mask decoder takes it.
    picture : Tensor
        ``float32 (3, GRID, GRID)``, the window's pixels, standardised.
    gist : Tensor
        ``float32 (256, COARSE, COARSE)``, the embedding.
    soft : ndarray
        ``float32 (3, Y, X)``, what the picture shows of the image, with less grain;
        of its cells those that lie in the image as a whole.
    """

    embedding: Tensor
    picture: Tensor
    gist: Tensor
    soft: FloatArray

    @classmethod
    def of(cls, look: Look, window: Tensor, embedding: Tensor) -> Sight:
        """Return a window ``(3, S, S)`` and its embedding ``(1, 256, h, w)``."""
        picture = resize(window[None], (GRID, GRID))[0]
        gist = coarsened(embedding[0].cpu(), COARSE)
        rows, columns = whole_cells(look)
        soft = softened(picture[:, :rows, :columns].numpy())
        return cls(embedding, picture, gist, soft)


class Candidates(NamedTuple):
    """The M masks that one prompt is offered, of L looks.

    Attributes
    ----------
    logits : Tensor
        ``float32 (M, GRID, GRID)``, as SAM drew them, or colours did.
    masks : Tensor
        ``bool (M, GRID, GRID)``, the part of them that was meant.
    look : Tensor
        ``int64 (M,)``, the look of each.
    expected : Tensor
        ``float32 (M,)``, the IoU that SAM expects; of colours, how clear they are.
    parted : Tensor
        ``bool (M,)``, whether colours drew it.
    rule : Tensor
        ``float32 (M,)``, what is thought of them without any training.
    within, around : Tensor
        ``float32 (M, 256)``, mean embedding on the mask, and in a seam round it.
    pictures : Tensor
        ``float32 (L, 3, GRID, GRID)``, standardised pixels.
    frames : Tensor
        ``float32 (L, 3)``: row and column of the image where the window's first cell
        begins, and pixels of the image along a cell.
    shown : Tensor
        ``float32 (L, 2)``, rows and columns of cells that show the image.
    open : Tensor
        ``bool (L, 4)``, whether the image goes on beyond the top, the left, the
        bottom and the right of the window.
    pixels : Tensor
        ``float32 (L,)``, pixels of the network's input along a cell.
    points : Tensor
        ``float32 (P, 2)``, x and y in the image, as SAM lists them.
    labels : Tensor
        ``int64 (P,)``, what SAM calls them.
    """

    logits: Tensor
    masks: Tensor
    look: Tensor
    expected: Tensor
    parted: Tensor
    rule: Tensor
    within: Tensor
    around: Tensor
    pictures: Tensor
    frames: Tensor
    shown: Tensor
    open: Tensor
    pixels: Tensor
    points: Tensor
    labels: Tensor


def coarsened(maps: Tensor, size: int) -> Tensor:
    """Return means of maps ``(M, S, S)`` in cells, ``float32 (M, size, size)``.

    Of a mask that is the share of each cell that it covers. S is a multiple of the
    size, as that of all windows is, and at most 15 times as large.
    """
    factor = maps.shape[-1] // size
    # slices are several times quicker than pooling; bytes hold the cells of a mask
    parts = maps.view(torch.uint8) if maps.dtype == torch.bool else maps.float()
    parts = _folded(parts.unflatten(1, (size, factor)).unbind(2))
    parts = _folded([parts[..., place::factor] for place in range(factor)])
    return parts.float() / factor**2


def _folded(parts: Sequence[Tensor]) -> Tensor:
    """Return the sum of tensors of one shape and dtype, at least one."""
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total


def resampled(
    masks: Tensor, candidates: Candidates, source: int, target: int
) -> Tensor:
    """Bring masks ``(N, GRID, GRID)`` of one look to the cells of another.

    Parameters
    ----------
    masks : Tensor
        In cells of the source.
    candidates : Candidates
        Where the looks lie.
    source, target : int
        The looks.

    Returns
    -------
    Tensor
        ``(N, GRID, GRID)``; 0 beyond the source's window.
    """
    if source == target:
        return masks
    size = masks.shape[-1]
    ours, theirs = candidates.frames[target], candidates.frames[source]
    middles = (torch.arange(size) + 0.5) * ours[2]
    for axis in (0, 1):
        at = ((ours[axis] + middles - theirs[axis]) / theirs[2]).floor().long()
        there = ((at >= 0) & (at < size)).float()
        shape = (-1, 1) if axis == 0 else (1, -1)
        taken = masks.index_select(1 + axis, at.clamp(0, size - 1))
        masks = taken * there.view(shape)
    return masks


def means(gist: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean embedding on masks, and in a seam round each.

    Parameters
    ----------
    gist : Tensor
        ``(256, COARSE, COARSE)``.
    masks : Tensor
        ``float32 (M, COARSE, COARSE)``, shares of cells.

    Returns
    -------
    tuple of Tensor
        ``(M, 256)`` each; 0 where there is no cell.
    """
    flat = gist.flatten(1).T
    seam = functional.max_pool2d(masks[:, None], 5, 1, 2)[:, 0] - masks
    within, around = (
        part.flatten(1) @ flat / part.sum(dim=(1, 2)).clamp(min=1e-3)[:, None]
        for part in (masks, seam)
    )
    return within, around


def frame_of(look: Look) -> tuple[float, float, float]:
    """Return where a look's first cell begins, and pixels of the image a cell."""
    box, framing = look.box, look.framing
    return float(box.top), float(box.left), framing.tile / GRID


def open_sides(look: Look, shape: tuple[int, int]) -> tuple[bool, bool, bool, bool]:
    """Tell beyond which sides of a window the image goes on."""
    box = look.box
    return box.top > 0, box.left > 0, box.bottom < shape[0], box.right < shape[1]


def whole_cells(look: Look) -> tuple[int, int]:
    """Return how many rows and columns of cells lie in the image as a whole."""
    size = look.framing.size
    rows, columns = (
        max(1, length * GRID // size) for length in look.framing.scaled(look.box.shape)
    )
    return rows, columns


def shown_by(looks: Sequence[Look]) -> Tensor:
    """Return the cells of each look's window that show the image, ``(L, 2)``."""
    return torch.tensor(
        [
            [length * GRID / look.framing.size for length in look.framing.scaled(shape)]
            for look in looks
            for shape in (look.box.shape,)
        ]
    )
