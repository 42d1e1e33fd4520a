"""Windows: every pixel is seen, at one magnification, and no seam shows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from napari_medseg._config import from_dict, to_dict
from napari_medseg._types import InputError
from napari_medseg.models.framing import Blender, Box, Framing, resize
from napari_medseg.models.sam import standardise


def smooth(height: int, width: int) -> np.ndarray:
    """Return a smooth image ``float32 (3, Y, X)`` in [0, 1]."""
    y, x = np.mgrid[:height, :width].astype(np.float32) / 100
    waves = [np.sin(3 * y + x), np.cos(2 * x - y), np.sin(x + y)]
    return (0.5 + 0.4 * np.stack(waves)).astype(np.float32)


def unstandardise(window: torch.Tensor) -> torch.Tensor:
    """Return what `standardise` was given."""
    zero = standardise(torch.zeros(1, 3, 1, 1))[0]
    one = standardise(torch.ones(1, 3, 1, 1))[0]
    return (window - zero) / (one - zero)


# --- where the windows are


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("tile", [8, 17, 64])
def test_windows_cover_every_pixel_and_overlap_as_asked(
    tile: int, overlap: float
) -> None:
    framing = Framing(tile=tile, size=64, overlap=overlap)
    lengths = [1, tile - 1, tile, tile + 1, 2 * tile - 1, 2 * tile, 101, 199]
    # neighbours must move by a whole pixel at least
    needed = min(overlap * tile, tile - 1) - 1e-9
    for length in lengths:
        boxes = framing.boxes((length, tile))
        assert boxes[0].top == 0 and boxes[-1].bottom == length
        for box in boxes:
            assert box.shape == (min(tile, length), tile)
        for one, following in itertools.pairwise(boxes):
            assert 0 < following.top - one.top
            assert one.bottom - following.top >= needed
        turned = framing.boxes((tile, length))
        assert [(box.left, box.right) for box in turned] == [
            (box.top, box.bottom) for box in boxes
        ]


def test_windows_form_a_grid_without_holes() -> None:
    seen = np.zeros((150, 231), int)
    boxes = Framing(tile=64, size=64).boxes(seen.shape)
    for box in boxes:
        assert box.shape == (64, 64)
        seen[box.slices] += 1
    assert seen.min() == 1 and len(set(boxes)) == len(boxes) == 3 * 5
    assert boxes == sorted(boxes)


def test_no_more_windows_than_needed() -> None:
    framing = Framing(tile=100, size=64, overlap=0.25)
    counts = [len(framing.boxes((50, n))) for n in (100, 101, 175, 176, 250, 251)]
    assert counts == [1, 2, 2, 3, 3, 4]


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (64, 3), (20, 50)])
def test_a_small_image_is_one_window(shape: tuple[int, int]) -> None:
    assert Framing(tile=64, size=128).boxes(shape) == [Box(0, 0, *shape)]


# --- how far they are magnified


@pytest.mark.parametrize(
    ("shapes", "tile"),
    [
        ([(512, 512)], 512),
        ([(300, 400)] * 3, 400),  # seen whole, magnified
        ([(1024, 700)], 1024),  # seen whole, made smaller
        ([(1025, 700)], 512),  # at their own resolution
        ([(5000, 5000)], 512),
        ([(20, 30)], 64),  # with a margin
        ([(1, 1)], 64),
        ([(100, 90), (300, 20), (9000, 9000)], 300),  # the median of longer sides
        ([(100, 100), (201, 200)], 150),
    ],
)
def test_windows_are_chosen_by_the_size_of_the_images(
    shapes: list[tuple[int, int]], tile: int
) -> None:
    framing = Framing.for_images(shapes, 512)
    assert (framing.tile, framing.size) == (tile, 512)
    assert framing.scale == 512 / tile
    assert from_dict(Framing, to_dict(framing), "card") == framing


@pytest.mark.parametrize("size", [100, 33, 513])
def test_a_working_size_that_no_sam_can_take_is_refused(size: int) -> None:
    with pytest.raises(InputError, match="multiple of 16, such as"):
        Framing.for_images([(200, 200)], size)


@pytest.mark.parametrize("values", [{"tile": 0}, {"size": 16}, {"overlap": 1.0}])
def test_settings_out_of_bounds_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(InputError, match="must be at"):
        from_dict(Framing, values, "the model's framing")


def test_all_windows_have_one_magnification() -> None:
    framing = Framing(tile=200, size=64)
    assert framing.scaled((200, 200)) == (64, 64)
    assert framing.scaled((100, 50)) == (32, 16)
    assert framing.scaled((1, 1)) == (1, 1)


# --- to the network and back


@pytest.mark.parametrize(("tile", "size"), [(64, 64), (100, 64), (50, 128), (61, 96)])
@pytest.mark.parametrize("shape", [(150, 130), (40, 30)])
def test_a_window_comes_back_to_where_it_was(
    tile: int, size: int, shape: tuple[int, int]
) -> None:
    image = smooth(*shape)
    framing = Framing(tile=tile, size=size)
    for box in framing.boxes(shape):
        window = framing.window(image, box)
        assert window.shape == (3, size, size) and window.dtype == torch.float32
        back = framing.unwindow(unstandardise(window), box)
        assert back.shape == (3, *box.shape)
        expected = image[:, *box.slices]
        # bilinear: its error is the curvature within a pixel
        np.testing.assert_allclose(back.numpy(), expected, atol=0.02)
        if tile == size:
            np.testing.assert_allclose(back.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(64, 64), (40, 30)])
def test_coarse_logits_come_back_to_where_they_were(shape: tuple[int, int]) -> None:
    image = smooth(*shape)
    framing = Framing(tile=64, size=128)
    box = framing.boxes(shape)[0]
    window = framing.window(image, box)
    logits = resize(unstandardise(window)[None], (32, 32))[0]
    back = framing.unwindow(logits.half(), box)
    assert back.dtype == torch.float32
    inside = (slice(None), slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(back.numpy()[inside], image[inside], atol=0.02)


def test_a_single_pixel_comes_back() -> None:
    framing = Framing(tile=64, size=128)
    image = np.full((3, 1, 1), 0.25, np.float32)
    (box,) = framing.boxes((1, 1))
    back = framing.unwindow(unstandardise(framing.window(image, box)), box)
    np.testing.assert_allclose(back.numpy(), image, atol=1e-6)


def test_the_margin_is_0_below_and_to_the_right_as_in_sam() -> None:
    framing = Framing(tile=100, size=64)
    image = np.ones((3, 50, 25), np.float32)
    window = framing.window(image, framing.boxes((50, 25))[0])
    content = window[:, :32, :16]
    torch.testing.assert_close(
        content, standardise(torch.ones(1, 3, 1, 1))[0].expand_as(content)
    )
    assert not window[:, 32:].any() and not window[:, :, 16:].any()


def test_cutting_a_window_leaves_the_image_as_it_is() -> None:
    image = smooth(70, 70)
    before = image.copy()
    framing = Framing(tile=64, size=64)
    framing.window(image, framing.boxes((70, 70))[0]).fill_(9)
    np.testing.assert_array_equal(image, before)


# --- blending


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (37, 53), (200, 130)])
def test_constant_windows_blend_to_a_constant(
    shape: tuple[int, int], overlap: float
) -> None:
    blender = Blender(2, shape[1])
    for box in Framing(tile=64, size=64, overlap=overlap).boxes(shape):
        values = np.empty((2, *box.shape), np.float32)
        values[0], values[1] = 0.3, 0.7
        blender.add(values, box)
    result = blender.take(shape[0])
    assert result.shape == (2, *shape) and result.dtype == np.float32
    np.testing.assert_allclose(result[0], 0.3, atol=1e-6)
    np.testing.assert_allclose(result.sum(axis=0), 1, atol=1e-6)


def test_windows_that_agree_leave_no_seam() -> None:
    image = smooth(150, 131)
    blender = Blender(3, 131)
    for box in Framing(tile=64, size=64).boxes((150, 131)):
        blender.add(image[:, *box.slices], box)
    np.testing.assert_allclose(blender.take(150), image, atol=1e-6)


def test_windows_that_disagree_pass_gradually_into_each_other() -> None:
    blender = Blender(1, 112)
    first, second = Framing(tile=64, size=64, overlap=0.25).boxes((64, 112))
    blender.add(np.zeros((1, 64, 64), np.float32), first)
    blender.add(np.ones((1, 64, 64), np.float32), second)
    line = blender.take(64)[0, 32]
    assert not line[:48].any() and (line[64:] == 1).all()
    steps = np.diff(line)
    assert (steps >= 0).all() and steps.max() < 2 / 16


def test_the_edge_of_a_window_counts_less_than_its_middle() -> None:
    blender = Blender(1, 64)
    whole = Box(0, 0, 64, 64)
    blender.add(np.zeros((1, 64, 64), np.float32), whole)
    blender.add(np.ones((1, 32, 64), np.float32), Box(0, 0, 32, 64))
    column = blender.take(64)[0, :, 32]
    # the second window ends at row 32: there the first, in its middle, wins
    assert column[31] < 0.1 < 0.4 < column[16] and not column[32:].any()


def test_rows_taken_early_are_those_taken_at_the_end() -> None:
    shape = (200, 90)
    boxes = Framing(tile=64, size=64).boxes(shape)
    values = [
        np.random.default_rng(n).random((2, *b.shape), np.float32)
        for n, b in enumerate(boxes)
    ]
    whole, rolling = Blender(2, shape[1]), Blender(2, shape[1])
    bands = []
    for index, (box, each) in enumerate(zip(boxes, values, strict=True)):
        whole.add(each, box)
        rolling.add(each, box)
        below = boxes[index + 1].top if index + 1 < len(boxes) else shape[0]
        if below > rolling.top:
            bands.append(rolling.take(below))
    assert len(bands) > 3
    np.testing.assert_array_equal(np.concatenate(bands, axis=1), whole.take(shape[0]))
