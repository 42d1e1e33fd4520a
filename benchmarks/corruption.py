"""Labels made worse in known ways: whole contours, missing objects, added ones.

Contours as in the paper on label noise (arXiv 2504.14795): of a share ``alpha`` of the
images the mask is dilated, eroded, or turned by up to 30 degrees and shifted, each as
often, until the changed area is ``beta`` of the foreground.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from napari_medseg._types import LabelArray

CONTOURS = {"low": (0.3, 0.5), "middle": (0.5, 0.7), "high": (0.7, 0.7)}
"""``alpha`` and ``beta`` of the paper's three levels."""

OBJECTS = {"low": (0.1, 0.05), "middle": (0.3, 0.15), "high": (0.5, 0.25)}
"""Chance of an object to be left out, and of a false one to be added for it."""

MOST_TURN = np.pi / 6

FIRST_TRIES = 40
"""Places that are tried for a false object."""


def corrupt_contour(
    mask: LabelArray, level: tuple[float, float], rng: np.random.Generator
) -> LabelArray:
    """Return a mask ``int32 (Y, X)`` of 0 and 1, changed with chance ``alpha``."""
    alpha, beta = level
    kind = str(rng.choice(["dilate", "erode", "affine"]))
    turn, heading = (
        rng.uniform(0.3, 1.0) * rng.choice([-1, 1]),
        rng.uniform(0, 2 * np.pi),
    )
    if rng.uniform() >= alpha:
        return mask
    inside = mask > 0
    wanted = beta * inside.sum()
    changed = inside
    # a little more at a time, until enough is changed
    for step in range(1, 200):
        if kind == "affine":
            changed = _moved(inside, turn, heading, step)
        else:
            distance = ndimage.distance_transform_edt(
                ~inside if kind == "dilate" else inside
            )
            changed = distance <= step if kind == "dilate" else distance > step
        if (changed != inside).sum() >= wanted:
            break
    result: LabelArray = changed.astype(np.int32)
    return result


def _moved(inside: np.ndarray, turn: float, heading: float, step: int) -> np.ndarray:
    """Turn a mask about its centre of mass and shift it, further at each step."""
    angle = turn * min(MOST_TURN, 0.02 * step)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array(ndimage.center_of_mass(inside))
    shift = step * np.array([np.sin(heading), np.cos(heading)])
    moved: np.ndarray = ndimage.affine_transform(
        inside.astype(np.uint8), matrix, middle - matrix @ (middle + shift), order=0
    )
    return moved > 0


def corrupt_objects(
    ids: LabelArray, level: tuple[float, float], rng: np.random.Generator
) -> LabelArray:
    """Return objects ``int32 (Y, X)`` of which some are missing and some are false.

    A false object has the shape of a true one, and lies where there is none.
    """
    left_out, added = level
    result = ids.copy()
    boxes = ndimage.find_objects(ids)
    following = int(ids.max(initial=0)) + 1
    for number, box in enumerate(boxes, start=1):
        if box is None:
            continue
        shape = ids[box] == number
        if rng.uniform() < added:
            for _ in range(FIRST_TRIES):
                y, x = (
                    int(rng.integers(whole - side + 1))
                    for whole, side in zip(ids.shape, shape.shape, strict=True)
                )
                place = slice(y, y + shape.shape[0]), slice(x, x + shape.shape[1])
                if not ((ids[place] > 0) | (result[place] > 0))[shape].any():
                    result[place][shape] = following
                    following += 1
                    break
        if rng.uniform() < left_out:
            result[box][shape] = 0
    return result
