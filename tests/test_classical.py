"""Otsu's threshold on images of every kind."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medseg.inference import open_segmenter
from napari_medseg.models.classical import Otsu, otsu_threshold


@pytest.fixture
def cell() -> tuple[np.ndarray, np.ndarray]:
    """A bright disc on a dark ground with noise, and the truth."""
    rows, columns = np.mgrid[:60, :80]
    truth = (rows - 30) ** 2 + (columns - 40) ** 2 < 15**2
    noise = np.random.default_rng(0).normal(0, 3, truth.shape)
    image = (np.where(truth, 150, 50) + noise).astype(np.float32)
    return image[np.newaxis], truth


def found(otsu: Otsu, image: np.ndarray) -> np.ndarray:
    prediction = otsu.predict(image.astype(np.float32))
    assert prediction.probabilities.dtype == np.float32
    assert prediction.probabilities.shape == (2, *image.shape[1:])
    assert np.array_equal(
        prediction.probabilities.sum(axis=0), np.ones(image.shape[1:])
    )
    return prediction.labels == 1


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether all but a few noisy pixels are the same."""
    return bool((one != other).mean() < 0.005)


def test_bright_and_dark_objects(cell: tuple[np.ndarray, np.ndarray]) -> None:
    image, truth = cell
    assert alike(found(Otsu(), image), truth)
    assert alike(found(Otsu(dark=True), image), ~truth)
    assert alike(found(Otsu(dark=True), 255 - image), truth)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("value", [0, 7, -3, 65535, np.nan, np.inf])
@pytest.mark.parametrize("shape", [(1, 8, 9), (3, 8, 9), (1, 1, 1)])
def test_nothing_is_found_where_there_is_nothing(
    dark: bool, value: float, shape: tuple[int, ...]
) -> None:
    assert not found(Otsu(dark=dark), np.full(shape, value)).any()


@pytest.mark.parametrize("channels", [2, 3, 4, 5])
def test_channels(cell: tuple[np.ndarray, np.ndarray], channels: int) -> None:
    image, truth = cell
    several = np.concatenate([image * (index + 1) for index in range(channels)])
    assert alike(found(Otsu(), several), truth)


def test_colours(cell: tuple[np.ndarray, np.ndarray]) -> None:
    image, truth = cell
    # purple nuclei on a light pink ground
    ground, nucleus = np.array([240, 220, 230]), np.array([90, 60, 150])
    colours = np.where(truth, nucleus[:, None, None], ground[:, None, None])
    assert alike(found(Otsu(dark=True), colours + image % 3), truth)


@pytest.mark.parametrize("dark", [False, True])
def test_missing_pixels_are_background(
    cell: tuple[np.ndarray, np.ndarray], dark: bool
) -> None:
    image, truth = cell
    image = 255 - image if dark else image
    image[:, :25] = np.nan
    result = found(Otsu(dark=dark), image)
    assert alike(result[25:], truth[25:])
    assert not result[:25].any()


def test_a_hot_pixel_changes_nothing_else(cell: tuple[np.ndarray, np.ndarray]) -> None:
    image, truth = cell
    image[0, 2, 2] = 65535
    result = found(Otsu(), image)
    assert result[2, 2]
    assert alike(result, truth)


def test_threshold() -> None:
    values = np.array([0.1, 0.12, 0.8, 0.82], np.float32)
    assert 0.12 <= otsu_threshold(values) < 0.8
    assert otsu_threshold(np.full(4, 0.3, np.float32)) == 0.5


def test_by_name() -> None:
    bright, dark = open_segmenter("otsu"), open_segmenter("otsu_dark")
    assert (bright, dark) == (Otsu(), Otsu(dark=True))
    assert [bright.identity, dark.identity] == ["otsu", "otsu_dark"]
    assert [entry.name for entry in bright.classes] == ["background", "object"]
