"""Which images are kept from training, to measure on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg._types import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

HOLD_OUT_FROM = 8
"""With so many images a quarter is held out; with fewer, folds are made."""

MOST_HELD_OUT = 64
"""Images that are held out, at most: enough to tell the best step."""

FOLDS = 3
"""Folds, where there are as many images."""

_TRIES = 50


@dataclass(frozen=True, slots=True)
class Split:
    """Which images are trained on, and which are measured on.

    Attributes
    ----------
    training, held_out : tuple of int
        Indices of images; no image is in both.
    """

    training: tuple[int, ...]
    held_out: tuple[int, ...]


def split_images(
    classes: Sequence[frozenset[int]],
    validate: int | None,
    seed: int,
    folds: int | None = None,
    stacks: Sequence[str] = (),
) -> list[Split]:
    """Split images for the held-out score.

    Slices of one stack are nearly the same image, so a stack is trained on or measured
    on as a whole: of several stacks as many are held out as make up the number, or the
    smallest. Of a single stack slices beside one another are held out.

    Parameters
    ----------
    classes : sequence of frozenset of int
        The classes that are annotated on each image.
    validate : int or None
        Images to hold out; None holds out a quarter of 8 or more images, 64 at most,
        and makes three folds of fewer (each image is held out once).
    seed : int
        Of the choice. Where it can be, no class is held out whole.
    folds : int, optional
        Hold out each image once, in so many parts or as many as there are images,
        whatever ``validate`` says.
    stacks : sequence of str
        The stack of each image; empty for an image of its own, or for all of them.

    Returns
    -------
    list of Split
        One, several folds, or none for a single image.

    Raises
    ------
    InputError
        ``validate`` leaves no image to train on.
    """
    count = len(classes)
    groups = _groups(stacks, count)
    if folds is not None and count > 1:
        return _folds(groups, folds, seed)
    if validate is not None and validate >= count:
        raise InputError(
            f"{validate} of {count} images cannot be held out: at least one is needed "
            "to train on. Hold out fewer, or annotate more."
        )
    if validate is None and 1 < count < HOLD_OUT_FROM:
        return _folds(groups, FOLDS, seed)
    quarter = min(count // 4, MOST_HELD_OUT)
    held_out = quarter if validate is None else validate
    if held_out == 0:
        return []
    if len(groups) < count:
        return [_hold_out_stacks(classes, groups, held_out, seed)]
    for attempt in range(_TRIES):
        order = np.random.default_rng((seed, attempt)).permutation(count).tolist()
        chosen = _spare(classes, order, held_out)
        if len(chosen) == held_out:
            return [_split(count, chosen)]
    order = np.random.default_rng((seed, 0)).permutation(count).tolist()
    return [_split(count, order[:held_out])]


def _groups(stacks: Sequence[str], count: int) -> list[list[int]]:
    """Return the images of each stack, and each image that is of none."""
    groups: dict[object, list[int]] = {}
    for image in range(count):
        stack = stacks[image] if stacks else ""
        groups.setdefault(stack or image, []).append(image)
    return list(groups.values())


def _folds(groups: Sequence[Sequence[int]], folds: int, seed: int) -> list[Split]:
    """Hold out each of the images once."""
    count = sum(map(len, groups))
    if len(groups) == 1:  # slices beside one another
        parts = np.array_split(np.arange(count), min(folds, count))
        return [_split(count, part.tolist()) for part in parts]
    order = np.random.default_rng(seed).permutation(len(groups))
    chosen = np.array_split(order, min(folds, len(groups)))
    return [
        _split(count, [image for group in part for image in groups[group]])
        for part in chosen
    ]


def _hold_out_stacks(
    classes: Sequence[frozenset[int]],
    groups: Sequence[Sequence[int]],
    most: int,
    seed: int,
) -> Split:
    """Hold out whole stacks, if possible such that each class is trained on."""
    count = len(classes)
    if len(groups) == 1:
        return _split(count, range(count - most, count))
    wanted = frozenset().union(*classes)
    found: list[Split] = []
    for attempt in range(_TRIES):
        order = np.random.default_rng((seed, attempt)).permutation(len(groups))
        held: list[int] = []
        for group in (groups[index] for index in order[1:]):
            if len(held) + len(group) <= most:
                held += group
        split = _split(count, held or min(groups, key=len))
        if wanted <= frozenset().union(*(classes[index] for index in split.training)):
            return split
        found.append(split)
    return found[0]


def _spare(
    classes: Sequence[frozenset[int]], order: Sequence[int], most: int
) -> list[int]:
    """Return the first images of ``order`` whose classes others show as well."""
    showing = Counter(index for some in classes for index in some)
    chosen: list[int] = []
    for image in order:
        if len(chosen) < most and all(showing[index] > 1 for index in classes[image]):
            chosen.append(image)
            showing.subtract(classes[image])
    return chosen


def _split(count: int, held_out: Sequence[int]) -> Split:
    """Return the split that holds these images out."""
    outside = {int(index) for index in held_out}
    training = tuple(index for index in range(count) if index not in outside)
    return Split(training, tuple(sorted(outside)))
