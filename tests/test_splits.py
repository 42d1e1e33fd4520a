"""Which images are held out: each once, never too many, no class as a whole."""

from __future__ import annotations

import pytest

from napari_medseg._types import InputError
from napari_medseg.training.splits import FOLDS, Split, split_images

BOTH = frozenset({0, 1})


def both(count: int) -> list[frozenset[int]]:
    return [BOTH] * count


def is_partition(split: Split, count: int) -> bool:
    return sorted(split.training + split.held_out) == list(range(count))


def test_single_image_is_trained_on() -> None:
    assert split_images(both(1), None, 0) == []


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_few_images_are_held_out_once_each(count: int, seed: int) -> None:
    splits = split_images(both(count), None, seed)
    assert len(splits) == min(count, FOLDS)
    assert sorted(image for split in splits for image in split.held_out) == list(
        range(count)
    )
    for split in splits:
        assert split.training
        assert is_partition(split, count)


@pytest.mark.parametrize(
    ("count", "held_out"),
    [(8, 2), (15, 3), (16, 4), (17, 4), (100, 25), (256, 64), (1000, 64)],
)
def test_a_quarter_is_held_out_of_more(count: int, held_out: int) -> None:
    (split,) = split_images(both(count), None, 0)
    assert len(split.held_out) == held_out
    assert is_partition(split, count)


@pytest.mark.parametrize(("count", "validate"), [(2, 1), (5, 2), (16, 1), (16, 15)])
def test_so_many_as_asked_for(count: int, validate: int) -> None:
    (split,) = split_images(both(count), validate, 0)
    assert len(split.held_out) == validate
    assert is_partition(split, count)


def test_nothing_is_held_out_where_that_is_asked_for() -> None:
    assert split_images(both(16), 0, 0) == []
    assert split_images(both(1), 0, 0) == []


@pytest.mark.parametrize(("count", "validate"), [(1, 1), (4, 4), (4, 5)])
def test_at_least_one_image_is_left_to_train_on(count: int, validate: int) -> None:
    with pytest.raises(InputError, match=rf"{validate} of {count} images"):
        split_images(both(count), validate, 0)


def test_the_seed_decides() -> None:
    assert split_images(both(16), None, 3) == split_images(both(16), None, 3)
    chosen = {split_images(both(16), None, seed)[0].held_out for seed in range(10)}
    assert len(chosen) > 5
    folds = {split_images(both(6), None, seed)[0].held_out for seed in range(10)}
    assert len(folds) > 3


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    ("rare", "validate"), [({5: 2}, None), ({1: 2, 7: 3, 11: 4}, None), ({5: 2}, 15)]
)
def test_class_of_one_image_is_trained_on(
    rare: dict[int, int], validate: int | None, seed: int
) -> None:
    classes = both(16)
    for image, index in rare.items():
        classes[image] = BOTH | {index}
    (split,) = split_images(classes, validate, seed)
    assert set(rare) <= set(split.training)
    assert len(split.held_out) == (validate or 4)


def test_class_that_cannot_be_kept_does_not_stop_the_split() -> None:
    classes = [BOTH | {index} for index in range(2, 10)]
    (split,) = split_images(classes, None, 0)
    assert len(split.held_out) == 2
    assert is_partition(split, 8)


STACKS = [*"aaaabbbbcccc", "", "", "", ""]
"""Of sixteen images: three stacks of four slices, and four images of their own."""


def stacks_of(images: tuple[int, ...]) -> set[str]:
    return {STACKS[image] or str(image) for image in images}


@pytest.mark.parametrize("validate", [None, 1, 2, 6])
@pytest.mark.parametrize("seed", range(5))
def test_no_stack_is_on_both_sides(validate: int | None, seed: int) -> None:
    (split,) = split_images(both(16), validate, seed, stacks=STACKS)
    assert is_partition(split, 16)
    assert not stacks_of(split.training) & stacks_of(split.held_out)
    assert len(split.held_out) <= (validate or 4)


@pytest.mark.parametrize("folds", [2, 3, 5, 20])
def test_folds_keep_stacks_together(folds: int) -> None:
    splits = split_images(both(16), None, 0, folds, STACKS)
    assert len(splits) == min(folds, 7)
    held = sorted(image for split in splits for image in split.held_out)
    assert held == list(range(16))
    for split in splits:
        assert not stacks_of(split.training) & stacks_of(split.held_out)


def test_two_stacks_are_one_for_each_side() -> None:
    (split,) = split_images(both(20), None, 0, stacks=["a"] * 8 + ["b"] * 12)
    assert split.held_out == tuple(range(8))


def test_of_a_single_stack_slices_beside_one_another_are_held_out() -> None:
    (split,) = split_images(both(16), None, 0, stacks=["a"] * 16)
    assert split.held_out == (12, 13, 14, 15)
    folds = split_images(both(6), None, 0, stacks=["a"] * 6)
    assert [each.held_out for each in folds] == [(0, 1), (2, 3), (4, 5)]


@pytest.mark.parametrize("seed", range(5))
def test_a_class_of_one_stack_is_trained_on(seed: int) -> None:
    classes = [frozenset({0, 2})] * 4 + [BOTH] * 12
    stacks = [*"aaaabbbbccccdddd"]
    (split,) = split_images(classes, None, seed, stacks=stacks)
    assert set(split.training) >= {0, 1, 2, 3}
