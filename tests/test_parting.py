"""Colours draw masks: of what is lighter, darker, or of another colour."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medseg.models.judging import likeness
from napari_medseg.models.parting import (
    Parted,
    in_box,
    parted,
    round_click,
    softened,
)

SHAPE = (96, 128)

SQUARE = np.zeros(SHAPE, bool)
SQUARE[30:60, 40:80] = True

EVERYWHERE = np.ones(SHAPE, bool)


def picture(
    mask: np.ndarray,
    inside: tuple[float, float, float],
    outside: tuple[float, float, float],
    noise: float = 0.1,
) -> np.ndarray:
    """Return a picture of two colours, with some grain."""
    rng = np.random.default_rng(0)
    colours = np.where(
        mask, *(np.reshape(each, (3, 1, 1)) for each in (inside, outside))
    )
    return (colours + noise * rng.standard_normal(colours.shape)).astype(np.float32)


def above(side: Parted | None) -> np.ndarray:
    assert side is not None
    found: np.ndarray = side.logits > 0
    return found


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        # as light as what is round it, of another colour
        ((1.0, 0.0, 0.5), (0.0, 1.0, 0.5)),
        ((0.0, 0.0, 1.0), (0.0, 0.0, 0.0)),
    ],
)
def test_one_of_both_sides_is_what_differs(
    inside: tuple[float, float, float], outside: tuple[float, float, float]
) -> None:
    side = parted(picture(SQUARE, inside, outside), EVERYWHERE)
    found = above(side)
    assert max(likeness(found, SQUARE), likeness(~found, SQUARE)) > 0.99
    assert side is not None
    assert side.clearness > 0.85
    np.testing.assert_array_equal(side.other.logits, -side.logits)


def test_the_less_clear_the_more_noise() -> None:
    clear = []
    for noise in (0.0, 0.3, 1.0):
        image = picture(SQUARE, (1.0,) * 3, (0.0,) * 3, noise)
        side = parted(image, EVERYWHERE)
        assert side is not None
        clear.append(side.clearness)
    assert clear[0] == pytest.approx(1)
    assert clear == sorted(clear, reverse=True)


def test_colours_of_the_region_alone_decide() -> None:
    image = picture(SQUARE, (0.2,) * 3, (0.0,) * 3, 0.01)
    image[:, :10] = 50.0
    found = {side.clearness > 0.9 for side in in_box(image, (25, 35, 65, 85))}
    assert found == {True}
    masks = [above(side)[11:] for side in in_box(image, (25, 35, 65, 85))]
    assert max(likeness(mask, SQUARE[11:]) for mask in masks) > 0.99


def test_where_there_is_one_colour_nothing_is_parted() -> None:
    plain = np.full((3, *SHAPE), 0.5, np.float32)
    assert in_box(plain, (25, 35, 65, 85)) == []
    assert round_click(plain, (40, 50), SQUARE) == []


@pytest.mark.parametrize("box", [(200, 35, 220, 85), (25, 35, 25, 35)])
def test_a_box_without_pixels_to_part_gives_nothing(
    box: tuple[int, int, int, int],
) -> None:
    image = picture(SQUARE, (1.0,) * 3, (0.0,) * 3)
    assert in_box(image, box) == []


def test_a_click_says_which_side_is_meant() -> None:
    image = picture(SQUARE, (1.0,) * 3, (0.0,) * 3)
    empty = np.zeros(SHAPE, bool)
    (on,) = round_click(image, (32, 42), empty)
    (beside,) = round_click(image, (28, 42), empty)
    assert likeness(above(on), SQUARE) > 0.99
    assert likeness(above(beside), ~SQUARE) > 0.99


def test_near_a_likely_mask_nothing_beyond_is_drawn() -> None:
    twice = SQUARE | np.roll(SQUARE, 48, axis=1)
    image = picture(twice, (1.0,) * 3, (0.0,) * 3)
    likely = np.zeros(SHAPE, bool)
    likely[28:66, 38:80] = True
    first, second = round_click(image, (32, 42), likely)
    assert likeness(above(first), twice) > 0.99
    assert likeness(above(second), SQUARE) > 0.9


def test_softening_keeps_the_size_and_the_mean() -> None:
    image = picture(SQUARE, (1.0,) * 3, (0.0,) * 3, 0.5)
    soft = softened(image)
    assert soft.shape == image.shape
    assert soft.dtype == np.float32
    assert soft.mean() == pytest.approx(image.mean(), abs=0.01)
    assert soft[:, :20, :20].std() < 0.7 * image[:, :20, :20].std()
