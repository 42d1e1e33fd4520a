"""Objects of an image that does not fit into memory: block by block, then joined.

Each block is looked at with a margin of its neighbours (a halo), so that an object at
a border is seen from both sides. Where two blocks saw the same object, its two numbers
become one (union-find over the numbers of all blocks).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_medseg._types import Progress
from napari_medseg.instances import separate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_medseg._types import Job, LabelArray
    from napari_medseg.instances import ObjectConfig

BLOCK = 2048
"""Side of a block, in pixels."""

HALO = 256
"""Margin that a block sees of its neighbours, in pixels: more than an object's size."""

SAME = 0.5
"""Objects of two blocks are one where their IoU in what both saw is at least this."""


class Store(Protocol):
    """A 2D array that need not lie in memory, such as a zarr array."""

    def __getitem__(self, key: tuple[slice, slice], /) -> Any:
        """Read a part."""
        ...

    def __setitem__(self, key: tuple[slice, slice], value: Any, /) -> None:
        """Write a part."""
        ...


@dataclass(frozen=True, slots=True)
class Block:
    """A block: the rows and columns that are its own, and those that it sees.

    Attributes
    ----------
    row, column : int
        Which block, from the top left.
    core : tuple of slice
        Rows and columns of its own.
    outer : tuple of slice
        Those and the halo.
    """

    row: int
    column: int
    core: tuple[slice, slice]
    outer: tuple[slice, slice]

    @property
    def inner(self) -> tuple[slice, slice]:
        """The core as an index of what the block sees."""
        rows, columns = (
            slice(own.start - seen.start, own.stop - seen.start)
            for own, seen in zip(self.core, self.outer, strict=True)
        )
        return rows, columns


def blocks_of(
    shape: tuple[int, int], side: int = BLOCK, halo: int = HALO
) -> Iterator[Block]:
    """Cut an image into blocks.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the image.
    side, halo : int
        Side of a block and width of its margin, in pixels.

    Yields
    ------
    Block
        Row by row; their cores cover every pixel once.
    """
    height, width = shape
    for row, top in enumerate(range(0, height, side)):
        for column, left in enumerate(range(0, width, side)):
            bottom, right = min(top + side, height), min(left + side, width)
            outer = (
                slice(max(0, top - halo), min(height, bottom + halo)),
                slice(max(0, left - halo), min(width, right + halo)),
            )
            yield Block(row, column, (slice(top, bottom), slice(left, right)), outer)


def find_objects_in_blocks(
    probability: Store,
    config: ObjectConfig,
    target: Store,
    shape: tuple[int, int],
    *,
    interior: Store | None = None,
    side: int = BLOCK,
    halo: int = HALO,
) -> Job[int]:
    """Find the objects of an image that does not fit into memory.

    With ``split="components"`` the result is that of
    `napari_medseg.instances.find_objects` on the whole image, but for the order of
    the numbers, and for holes that are wider than the halo and lie across blocks:
    they stay open. With the watershed, objects at a border of blocks may be cut in
    another way where they reach farther than the halo.

    Parameters
    ----------
    probability : Store
        ``(Y, X)``, foreground probability from 0 to 1.
    config : ObjectConfig
        How objects are found.
    target : Store
        Gets the objects, ``int32 (Y, X)``: 0 for background, numbers from 1 without
        gaps.
    shape : tuple of int
        Y and X.
    interior : Store, optional
        As of `find_objects`.
    side, halo : int
        Side of a block and width of its margin, in pixels.

    Yields
    ------
    Progress
        Twice for each block.

    Returns
    -------
    int
        The number of objects.
    """
    blocks = list(blocks_of(shape, side, halo))
    joins = _Joins(touching=config.split == "components")
    seams = _Seams(joins)
    for done, block in enumerate(blocks):
        yield Progress(done, 2 * len(blocks), "finding objects")
        seen = np.asarray(probability[block.outer], np.float32)
        inside = None if interior is None else np.asarray(interior[block.outer])
        labels = joins.number(separate(seen, config, inside), block)
        seams.join(block, labels)
        target[block.core] = labels[block.inner]
    table, count = joins.resolve(config.min_size)
    for done, block in enumerate(blocks):
        yield Progress(len(blocks) + done, 2 * len(blocks), "joining objects")
        target[block.core] = table[np.asarray(target[block.core])]
    return count


class _Joins:
    """The objects of all blocks: which are the same, and how large they are.

    Parameters
    ----------
    touching : bool
        Whether sharing a pixel makes two objects one.
    """

    def __init__(self, *, touching: bool) -> None:
        self._touching = touching
        self._count = 0
        self._sizes: list[NDArray[np.int64]] = []
        self._pairs: list[NDArray[np.int64]] = []

    def number(self, labels: LabelArray, block: Block) -> LabelArray:
        """Give the objects of a block numbers that no other block has."""
        highest = int(labels.max(initial=0))
        own = np.bincount(labels[block.inner].ravel(), minlength=highest + 1)
        self._sizes.append(own[1:])
        numbered: LabelArray = np.where(labels > 0, labels + self._count, 0)
        self._count += highest
        return numbered.astype(np.int32, copy=False)

    def compare(self, one: LabelArray, other: LabelArray) -> None:
        """Note which objects of two blocks are the same, in a part that both saw."""
        both = (one > 0) & (other > 0)
        if not both.any():
            return
        stacked = np.stack([one[both], other[both]], axis=1).astype(np.int64)
        pairs, shared = np.unique(stacked, axis=0, return_counts=True)
        if not self._touching:
            first = _areas(one, pairs[:, 0])
            second = _areas(other, pairs[:, 1])
            pairs = pairs[shared / (first + second - shared) >= SAME]
        self._pairs.append(pairs)

    def resolve(self, min_size: int) -> tuple[LabelArray, int]:
        """Return the last number of each object, 0 for those too small, and how many.

        Returns
        -------
        table : ndarray
            ``int32``, indexed by the numbers that `number` gave.
        count : int
            Objects that are left.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        sizes = np.concatenate([[0], *self._sizes])
        pairs = np.concatenate([np.empty((0, 2), np.int64), *self._pairs])
        graph = coo_array(
            (np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])),
            shape=(len(sizes), len(sizes)),
        )
        _, group = connected_components(graph, directed=False)
        kept = np.bincount(group, weights=sizes) >= max(min_size, 1)
        kept[group[0]] = False  # the background
        table = np.where(kept, np.cumsum(kept), 0)[group].astype(np.int32)
        return table, int(kept.sum())


class _Seams:
    """What the blocks above and to the left saw, as far as the next ones see it too.

    Parameters
    ----------
    joins : _Joins
        Is told of the objects that are the same.
    """

    def __init__(self, joins: _Joins) -> None:
        self._joins = joins
        self._left: tuple[Block, LabelArray] | None = None
        self._above: dict[int, tuple[Block, LabelArray]] = {}

    def join(self, block: Block, labels: LabelArray) -> None:
        """Compare a block with those before it, and keep its lower and right part."""
        for before in (self._left, self._above.get(block.column)):
            if before is not None and block.row - before[0].row <= 1:
                self._compare(before, (block, labels))
        rows, columns = block.outer
        halo_below = rows.stop - block.core[0].stop
        halo_right = columns.stop - block.core[1].stop
        below = (slice(max(rows.start, rows.stop - 2 * halo_below), rows.stop), columns)
        right = (
            rows,
            slice(max(columns.start, columns.stop - 2 * halo_right), columns.stop),
        )
        self._left = _part(block, labels, right) if halo_right else None
        if halo_below:
            self._above[block.column] = _part(block, labels, below)

    def _compare(
        self, one: tuple[Block, LabelArray], other: tuple[Block, LabelArray]
    ) -> None:
        """Compare two blocks where both saw the image."""
        shared = tuple(
            slice(max(a.start, b.start), min(a.stop, b.stop))
            for a, b in zip(one[0].outer, other[0].outer, strict=True)
        )
        first, second = (
            labels[
                tuple(
                    slice(part.start - seen.start, part.stop - seen.start)
                    for part, seen in zip(shared, block.outer, strict=True)
                )
            ]
            for block, labels in (one, other)
        )
        self._joins.compare(first, second)


def _part(
    block: Block, labels: LabelArray, where: tuple[slice, slice]
) -> tuple[Block, LabelArray]:
    """Return a copy of a part of what a block saw."""
    rows, columns = block.outer
    cut = labels[
        where[0].start - rows.start : where[0].stop - rows.start,
        where[1].start - columns.start : where[1].stop - columns.start,
    ]
    return Block(block.row, block.column, block.core, where), cut.copy()


def _areas(labels: LabelArray, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the pixels of some objects."""
    values, counts = np.unique(labels, return_counts=True)
    areas: NDArray[np.int64] = counts[np.searchsorted(values, wanted)]
    return areas
