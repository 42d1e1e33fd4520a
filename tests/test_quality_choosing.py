"""Which images to annotate next."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medseg._types import InputError
from napari_medseg.quality.choosing import annotate_next

NAN = float("nan")


def directions(*degrees):
    """Return unit vectors of two numbers."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def test_the_worst_comes_first_and_then_what_is_unlike_it():
    images = directions(0, 2, 90, 92)
    assert annotate_next(images, [0.1, 0.15, 0.4, 0.5], 2) == [0, 2]


def test_images_like_annotated_ones_come_last():
    images = directions(0, 45, 90)
    chosen = annotate_next(images, [0.5, 0.5, 0.5], 3, annotated=directions(1, 44))
    assert chosen[0] == 2


def test_of_images_that_are_alike_the_worst_comes_first():
    images = directions(10, 10, 10)
    assert annotate_next(images, [0.9, 0.2, 0.5], 3) == [1, 2, 0]


def test_a_perfect_result_is_still_chosen_where_there_is_nothing_else():
    assert annotate_next(directions(0, 90), [1.0, 1.0], 5) == [0, 1]


def test_unknown_quality_counts_as_middling():
    images = directions(0, 90, 180)
    assert annotate_next(images, [0.95, NAN, 0.9], 1) == [1]


def test_it_agrees_with_a_search_over_all_pairs():
    rng = np.random.default_rng(0)
    images = rng.standard_normal((12, 5)).astype(np.float32)
    quality = rng.uniform(0, 0.9, 12)
    chosen = annotate_next(images, quality, 12)
    unit = images / np.linalg.norm(images, axis=1, keepdims=True)
    for place in range(1, 12):
        gains = {}
        for index in set(range(12)) - set(chosen[:place]):
            nearest = min(np.linalg.norm(unit[index] - unit[j]) for j in chosen[:place])
            gains[index] = (1 - quality[index]) * nearest
        assert max(gains, key=gains.get) == chosen[place]


@pytest.mark.parametrize(("quality", "count"), [([0.5], 1), ([0.5, 0.5], 0)])
def test_impossible_wishes_are_refused_in_a_sentence(quality, count):
    with pytest.raises(InputError, match=r"images|chosen"):
        annotate_next(directions(0, 90), quality, count)
