"""The random walk: its equation, edges, clicks and what was thought before."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medseg.models import walking
from napari_medseg.models.walking import Hold, walk


def dense(
    picture: np.ndarray, prior: np.ndarray, trust: float, holds: list[Hold]
) -> np.ndarray:
    """Solve (L + γI) x = γp pixel by pixel, with a matrix of all pairs."""
    _, height, width = picture.shape
    pairs = [
        ((row, column), (row + down, column + across))
        for row in range(height)
        for column in range(width)
        for down, across in ((1, 0), (0, 1))
        if row + down < height and column + across < width
    ]
    contrasts = [
        float(((picture[:, *one] - picture[:, *other]) ** 2).sum())
        for one, other in pairs
    ]
    matrix = np.zeros((height * width, height * width))
    for (one, other), contrast in zip(pairs, contrasts, strict=True):
        weight = np.exp(-walking.STEEPNESS * contrast / np.mean(contrasts))
        weight += walking.PASSING
        i, j = (row * width + column for row, column in (one, other))
        matrix[i, i] += weight
        matrix[j, j] += weight
        matrix[i, j] = matrix[j, i] = -weight
    weights = np.full((height, width), trust)
    wanted = trust * prior
    for row, column, belongs in holds:
        weights[row, column] = walking.HELD
        wanted[row, column] = walking.HELD * belongs
    matrix += np.diag(weights.ravel())
    return np.linalg.solve(matrix, wanted.ravel()).reshape(height, width)


@pytest.mark.parametrize("trust", [1.0, 0.1, 0.01])
def test_the_system_is_that_of_the_paper(trust: float) -> None:
    rng = np.random.default_rng(0)
    picture = rng.normal(size=(3, 7, 9)).astype(np.float32)
    prior = rng.uniform(size=(7, 9)).astype(np.float32)
    holds = [(2, 3, True), (6, 0, False)]
    found = walk(picture, prior, trust, holds)
    wanted = dense(picture, prior, trust, holds)
    np.testing.assert_allclose(found, wanted, atol=0.05)
    assert np.abs(found - wanted).mean() < walking.EXACT


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (2, 1), (2, 2)])
def test_images_of_a_row_or_a_column_are_walked_too(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    picture = rng.normal(size=(3, *shape)).astype(np.float32)
    prior = rng.uniform(size=shape).astype(np.float32)
    holds = [(0, 0, True)]
    wanted = [[1.0]] if shape == (1, 1) else dense(picture, prior, 1.0, holds)
    np.testing.assert_allclose(walk(picture, prior, 1.0, holds), wanted, atol=0.05)


def scene() -> np.ndarray:
    """Return two bright squares on dark, with a little noise."""
    picture = np.random.default_rng(1).normal(0, 0.02, (3, 40, 60)).astype(np.float32)
    picture[:, 10:30, 5:25] += 1
    picture[:, 10:30, 35:55] += 1
    return picture


def test_a_click_takes_in_what_hangs_together_with_it_and_nothing_else() -> None:
    prior = np.full((40, 60), 0.3, np.float32)
    found = walk(scene(), prior, 0.002, [(20, 15, True)]) > 0.5
    truth = np.zeros((40, 60), bool)
    truth[10:30, 5:25] = True
    assert (found & truth).sum() > 0.9 * truth.sum()
    assert not found[~truth].any()


@pytest.mark.parametrize("belongs", [True, False])
def test_clicks_are_obeyed_whatever_was_thought(belongs: bool) -> None:
    prior = np.full((40, 60), float(not belongs), np.float32)
    found = walk(scene(), prior, 1.0, [(20, 15, belongs), (0, 59, belongs)])
    assert (found[[20, 0], [15, 59]] > 0.5).tolist() == [belongs, belongs]


def test_without_clicks_and_edges_all_stays_as_it_was() -> None:
    flat = np.zeros((3, 12, 10), np.float32)
    for level in (0.0, 0.4, 1.0):
        prior = np.full((12, 10), level, np.float32)
        np.testing.assert_allclose(walk(flat, prior, 0.1, []), prior, atol=1e-3)


def test_a_single_row_is_walked_too() -> None:
    picture = np.array([[[0, 0, 0, 1, 1, 1]]], np.float32)
    prior = np.full((1, 6), 0.5, np.float32)
    found = walk(picture, prior, 0.01, [(0, 0, False), (0, 5, True)])
    assert (found[0] > 0.5).tolist() == [False, False, False, True, True, True]
