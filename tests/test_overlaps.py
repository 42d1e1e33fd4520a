"""Masks that overlap become labels: which stay, who has the pixels, what is tidied."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medseg.models.overlaps import Piece, lay, tidy


def piece(top: int, left: int, height: int, width: int) -> Piece:
    place = slice(top, top + height), slice(left, left + width)
    return Piece(place, np.ones((height, width), bool))


def blobs(count: int, shape: tuple[int, int], seed: int) -> list[Piece]:
    """Return masks of any outline that overlap in every way."""
    rng = np.random.default_rng(seed)
    pieces = []
    for _ in range(count):
        height, width = rng.integers(2, 12, 2)
        top = rng.integers(0, shape[0] - height + 1)
        left = rng.integers(0, shape[1] - width + 1)
        mask = rng.random((height, width)) < 0.7
        mask[0, 0] = True
        place = slice(top, top + height), slice(left, left + width)
        pieces.append(Piece(place, mask))
    return pieces


def slowly_laid(
    pieces: list[Piece], shape: tuple[int, int], overlap: float
) -> tuple[np.ndarray, list[int]]:
    """Lay masks one after the other, comparing sets of pixels."""
    owned: list[set[tuple[int, int]]] = []
    kept = []
    for index, (place, mask) in enumerate(pieces):
        rows, columns = np.nonzero(mask)
        mine = {
            (int(row), int(column))
            for row, column in zip(
                rows + place[0].start, columns + place[1].start, strict=True
            )
        }
        free = mine.difference(*owned)
        same = any(len(mine & other) > overlap * len(other) for other in owned)
        if not free or same or len(mine) - len(free) > overlap * len(mine):
            continue
        owned.append(free)
        kept.append(index)
    labels = np.zeros(shape, np.int32)
    for name, pixels in enumerate(owned, start=1):
        for place in pixels:
            labels[place] = name
    return labels, kept


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize(("count", "seed"), [(0, 0), (1, 1), (150, 2), (150, 3)])
def test_which_masks_stay(count: int, seed: int, overlap: float) -> None:
    shape = (50, 70)
    pieces = blobs(count, shape, seed)
    labels, kept = lay(iter(pieces), shape, overlap)
    wanted, wanted_kept = slowly_laid(pieces, shape, overlap)
    assert kept == wanted_kept
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, wanted)


def test_of_the_whole_its_parts_and_several_together_the_best_stays() -> None:
    whole, part, other = piece(0, 0, 10, 10), piece(2, 2, 4, 4), piece(0, 10, 10, 10)
    both = piece(0, 0, 10, 20)
    shape = (12, 30)
    assert lay([whole, part, both, other], shape, 0.5)[1] == [0, 3]
    assert lay([part, whole, both, other], shape, 0.5)[1] == [0, 3]
    assert lay([both, whole, part, other], shape, 0.5)[1] == [0]


def test_the_better_one_has_the_pixels_that_two_share() -> None:
    first, second = piece(0, 0, 10, 10), piece(0, 7, 10, 10)
    labels, kept = lay([first, second], (10, 20), 0.5)
    assert kept == [0, 1]
    assert (labels[:, :10] == 1).all()
    assert (labels[:, 10:17] == 2).all()
    assert not labels[:, 17:].any()


def test_more_masks_than_were_reckoned_with() -> None:
    pieces = [
        piece(2 * row, 2 * column, 1, 1) for row in range(20) for column in range(20)
    ]
    labels, kept = lay(pieces, (40, 40), 0.5)
    assert kept == list(range(400))
    assert labels.max() == 400


def test_islands_and_holes() -> None:
    labels = np.zeros((30, 40), np.int32)
    labels[2:20, 2:20] = 2
    labels[8:10, 8:10] = 0  # a small hole
    labels[12:18, 12:18] = 0  # a large one
    labels[25:27, 5:8] = 2  # an island
    labels[26:28, 20:23] = 5  # a small object, whole
    labels[26:28, 30:32] = labels[29, 30] = 9  # a small object with a smaller island
    labels[2:20, 21:38] = 7
    labels[2:20, 20] = 7
    labels[5, 19:21] = 0  # a gap between two objects
    labels[2:4, 30] = 0  # a bay
    wanted = np.zeros_like(labels)
    for name, old in enumerate((2, 5, 7, 9), start=1):
        wanted[labels == old] = name
    wanted[8:10, 8:10] = 1
    wanted[25:27, 5:8] = wanted[29, 30] = 0
    found = tidy(labels, 16)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("size", [0, 2])
def test_nothing_and_everything_are_tidy(size: int) -> None:
    assert tidy(np.full((1, 1), 3, np.int32), size).tolist() == [[1]]
    assert not tidy(np.zeros((4, 5), np.int32), size).any()
    assert (tidy(np.full((4, 5), 8, np.int32), size) == 1).all()
