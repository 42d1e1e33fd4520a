"""What is kept of an image that a diffusion model looked at, to cut it by any τ."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from napari_medseg.models.merging import merged, proposed, refined, segmented
from napari_medseg.models.partition import Partition, joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_medseg._types import FloatArray, LabelArray
    from napari_medseg.models.framing import Box
    from napari_medseg.models.phrase_settings import PhraseConfig

Slices = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is kept of one window.

    Attributes
    ----------
    box : Box
        Where it is in the image.
    tile : int
        Side of the square that was looked at, in pixels of the image; what is beyond
        the box is a mirror image.
    maps : Tensor
        ``float32 (grid², grid²)``, aggregated self-attention.
    near : Tensor
        ``float32 (A, grid²)``, distances of the anchors' maps to all.
    lean : Tensor
        ``float32 (h, w)`` of the box, on the processor: the phrase's map minus the
        background's.
    """

    box: Box
    tile: int
    maps: Tensor
    near: Tensor
    lean: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return sum(each.nbytes for each in (self.maps, self.near, self.lean))

    def cut(self, config: PhraseConfig) -> tuple[LabelArray, FloatArray]:
        """Cut the window into segments by ``tau``, ``rounds`` and ``refine``.

        Returns
        -------
        tuple of ndarray
            ``int32 (h, w)`` of the box, from 1; and the score of each segment.
        """
        found = proposed(self.maps, self.near, config.tau)
        for _ in range(config.rounds - 1):
            found = merged(found, config.tau)
        if config.refine:
            found = refined(self.maps, found)
        grid = round(len(self.maps) ** 0.5)
        height, width = self.box.shape
        whole = segmented(found, grid, (self.tile, self.tile))
        numbers = whole[:height, :width].cpu()
        flat = numbers.flatten()
        area = torch.bincount(flat, minlength=len(found))
        sums = torch.zeros(len(found), dtype=torch.float64)
        sums.index_add_(0, flat, self.lean.flatten().double())
        scores = (sums / area.clamp_min(1)).float()
        return (numbers + 1).to(torch.int32).numpy(), scores.numpy()


@dataclass(frozen=True, slots=True)
class Look:
    """An image that was looked at: all that another τ needs.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns.
    windows : tuple of Seen
        Row by row; together they cover the image.
    config : PhraseConfig
        How it was looked at.
    """

    shape: tuple[int, int]
    windows: tuple[Seen, ...]
    config: PhraseConfig

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return sum(window.nbytes for window in self.windows)

    def partition(self, tau: float | None = None) -> Partition:
        """Cut the image into segments.

        Parameters
        ----------
        tau : float, optional
            How alike the parts of a segment are; by default as it was looked at.

        Returns
        -------
        Partition
            With the scores of the phrase.
        """
        config = self.config if tau is None else replace(self.config, tau=tau)
        boxes = [window.box for window in self.windows]
        parts = []
        with torch.inference_mode():
            for window, place in zip(self.windows, owned(boxes), strict=True):
                parts.append(owned_part(window, place, config))
        return joined(self.shape, parts)


def owned_part(
    window: Seen, place: Slices, config: PhraseConfig
) -> tuple[Slices, LabelArray, FloatArray]:
    """Cut a window, and keep what no other window is nearer to.

    Parameters
    ----------
    window : Seen
        The window.
    place : tuple of slice
        Which rows and columns of the image are its own; see `owned`.
    config : PhraseConfig
        How it is cut.

    Returns
    -------
    tuple
        The place, its segments and the scores, as `joined` takes them.
    """
    numbers, scores = window.cut(config)
    rows, columns = place
    top, left = window.box.top, window.box.left
    inside = (
        slice(rows.start - top, rows.stop - top),
        slice(columns.start - left, columns.stop - left),
    )
    return place, numbers[inside], scores


def owned(boxes: Sequence[Box]) -> list[Slices]:
    """Share an image among overlapping windows: each overlap is cut in its middle.

    Parameters
    ----------
    boxes : sequence of Box
        Windows of `Framing.boxes`: rows of windows, all with the same columns.

    Returns
    -------
    list of tuple of slice
        For each window the rows and columns that are its own.
    """
    rows = _shares([(box.top, box.bottom) for box in boxes])
    columns = _shares([(box.left, box.right) for box in boxes])
    return [(rows[box.top], columns[box.left]) for box in boxes]


def _shares(spans: list[tuple[int, int]]) -> dict[int, slice]:
    """Return, by the start of each span, what is its own."""
    ordered = sorted(set(spans))
    cuts = [(before[1] + after[0]) // 2 for before, after in pairwise(ordered)]
    edges = [ordered[0][0], *cuts, ordered[-1][1]]
    return {
        start: slice(edges[index], edges[index + 1])
        for index, (start, _) in enumerate(ordered)
    }
