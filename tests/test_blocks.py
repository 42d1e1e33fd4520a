"""Objects block by block: the same as in one piece."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_medseg._types import finish
from napari_medseg.blocks import blocks_of, find_objects_in_blocks
from napari_medseg.instances import ObjectConfig, find_objects


def blobs(shape: tuple[int, int], size: float, seed: int = 0) -> np.ndarray:
    """Return smooth noise from 0 to 1: blobs of every shape, many of them large."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, size)
    return (0.5 + smooth / (4 * smooth.std())).astype(np.float32)


def discs(shape: tuple[int, int], radius: int, gap: int) -> np.ndarray:
    """Return a grid of touching discs."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    step = 2 * radius + gap
    centre = (np.round((y - radius) / step), np.round((x - radius) / step))
    distance = np.hypot(y - radius - centre[0] * step, x - radius - centre[1] * step)
    return np.clip(0.5 + (radius + 0.5 - distance) / 4, 0, 1).astype(np.float32)


def in_blocks(
    probability: np.ndarray,
    config: ObjectConfig,
    side: int,
    halo: int,
    interior: np.ndarray | None = None,
) -> tuple[np.ndarray, int]:
    target = np.zeros(probability.shape, np.int32)
    job = find_objects_in_blocks(
        probability,
        config,
        target,
        probability.shape,
        interior=interior,
        side=side,
        halo=halo,
    )
    return target, finish(job)


def same_objects(one: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether two label images hold the same objects under other numbers."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1).T
    return bool(
        len(pairs) == len(np.unique(one)) == len(np.unique(other))
        and ((pairs == 0).sum(axis=1) != 1).all()
    )


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (65, 64), (130, 257)])
def test_blocks_cover_every_pixel_once(shape: tuple[int, int]) -> None:
    count = np.zeros(shape, int)
    for block in blocks_of(shape, 64, 16):
        count[block.core] += 1
        seen = np.zeros(shape, bool)
        seen[block.outer] = True
        assert seen[block.core].all()
        whole = np.arange(count.size).reshape(shape)
        np.testing.assert_array_equal(
            whole[block.outer][block.inner], whole[block.core]
        )
    assert (count == 1).all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [1.0, 3.0, 12.0])
@pytest.mark.parametrize("halo", [1, 8])
def test_components_are_those_of_the_whole_image(
    seed: int, size: float, halo: int
) -> None:
    probability = blobs((190, 230), size, seed)
    config = ObjectConfig(split="components", min_size=9, fill_holes=False)
    found, count = in_blocks(probability, config, 64, halo)
    whole = find_objects(probability, config)
    assert same_objects(found, whole)
    np.testing.assert_array_equal(np.unique(found), np.arange(count + 1))


def test_an_object_through_all_blocks_is_one() -> None:
    probability = np.zeros((200, 200), np.float32)
    probability[3, :] = probability[:, 100] = probability[197, :] = 1
    # a spiral would meet each block more than once, and so does this
    config = ObjectConfig(split="components", min_size=1, fill_holes=False)
    found, count = in_blocks(probability, config, 32, 4)
    assert count == 1
    np.testing.assert_array_equal(found, probability)


@pytest.mark.parametrize("side", [50, 64, 100])
def test_touching_cells_are_cut_as_in_the_whole_image(side: int) -> None:
    probability = discs((300, 300), 12, -2)
    config = ObjectConfig()
    found, count = in_blocks(probability, config, side, 40)
    whole = find_objects(probability, config)
    assert count == whole.max() > 50
    # each cell has one partner, and nearly all its pixels
    agree = 0
    for label in range(1, count + 1):
        partner = np.bincount(whole[found == label]).argmax()
        both = ((found == label) & (whole == partner)).sum()
        either = ((found == label) | (whole == partner)).sum()
        agree += bool(both / either > 0.9)
    assert agree >= 0.98 * count


def test_the_interior_tells_objects_apart() -> None:
    probability = discs((200, 200), 12, -1)
    interior = np.clip(2 * probability - 0.9, 0, 1).astype(np.float32)
    config = ObjectConfig()
    found, count = in_blocks(probability, config, 64, 32, interior)
    assert count == find_objects(probability, config, interior).max()
    assert (found > 0).sum() == (find_objects(probability, config, interior) > 0).sum()


def test_small_objects_are_dropped_by_their_whole_size() -> None:
    probability = np.zeros((40, 80), np.float32)
    probability[10:20, 28:36] = 1  # 80 pixels across the border at 32
    probability[30:33, 40:43] = 1  # 9 pixels
    config = ObjectConfig(split="components", min_size=50)
    found, count = in_blocks(probability, config, 32, 4)
    assert count == 1 and (found > 0).sum() == 80


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_an_image_with_nothing_or_nothing_else(value: float) -> None:
    probability = np.full((100, 90), value, np.float32)
    found, count = in_blocks(probability, ObjectConfig(), 32, 8)
    assert count == (value == 1.0)
    assert (found == count).all()
