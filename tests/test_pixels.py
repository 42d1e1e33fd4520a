"""Images that do not fit into memory: what is read, and that the result is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import zarr

from napari_medseg._types import BandSegmenter, InputError, JobError, Pixels
from napari_medseg.inference import open_segmenter
from napari_medseg.io.image_file import ImageFile
from napari_medseg.io.images import read_image
from napari_medseg.io.normalise import Normalisation
from napari_medseg.io.pixels import ArrayPixels, FilePixels
from napari_medseg.io.raw import Key, LazyArray
from napari_medseg.models.framing import Framing
from napari_medseg.windowed import Plan, predict_bands, predict_probabilities

GREY = Normalisation()
PLAN = Plan(Framing(tile=64, size=64), 3, torch.device("cpu"))


def picture(height: int, width: int, channels: int = 1) -> np.ndarray:
    draw = np.random.default_rng(0)
    return draw.normal(100, 30, (channels, height, width)).astype(np.float32)


def brightness(windows: torch.Tensor) -> torch.Tensor:
    grey = windows.mean(dim=1)
    return torch.stack([-grey, grey], dim=1)


class Counted:
    """Reads parts of an array and notes which."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.read: list[Key] = []

    def __call__(self, key: Key) -> np.ndarray:
        self.read.append(key)
        return self.array[key]


def lazy(image: np.ndarray, axes: str) -> tuple[ImageFile, Counted]:
    reader = Counted(image)
    data = LazyArray(Path("large.tif"), reader, image.shape, image.dtype)
    return ImageFile(Path("large.tif"), data, axes), reader


@pytest.mark.parametrize("shape", [(1, 1), (50, 300), (300, 50), (500, 131)])
def test_bands_together_are_the_whole_image(shape: tuple[int, int]) -> None:
    image = picture(*shape)
    whole, _ = predict_probabilities(image, brightness, GREY, PLAN)
    bands = [
        band for band, _ in predict_bands(ArrayPixels(image), brightness, GREY, PLAN)
    ]
    np.testing.assert_array_equal(np.concatenate(bands, axis=1), whole)
    # never more rows than the windows of one batch
    assert all(band.shape[1] <= PLAN.batch * 64 for band in bands)


@pytest.mark.parametrize("model", ["otsu", "otsu_dark", "nuclei-fluo"])
def test_segmenters_give_the_same_in_bands(model: str) -> None:
    segmenter = open_segmenter(model, "cpu")
    assert isinstance(segmenter, BandSegmenter)
    image = picture(1200, 300)
    image[0, 5, 5] = np.nan
    whole = segmenter.predict(image)
    bands = list(segmenter.bands(ArrayPixels(image)))
    assert len(bands) > 1
    together = np.concatenate([band.probabilities for band in bands], axis=1)
    np.testing.assert_array_equal(together, whole.probabilities)


def test_a_slice_of_a_file_is_read_a_strip_at_a_time() -> None:
    stack = picture(400, 90, 3)
    image, reader = lazy(stack, "ZYX")
    pixels: Pixels = FilePixels(image, {"Z": 1})
    assert pixels.shape == (1, 400, 90)
    np.testing.assert_array_equal(pixels.sample(), stack[1:2])
    reader.read.clear()
    bands = [band for band, _ in predict_bands(pixels, brightness, GREY, PLAN)]
    whole, _ = predict_probabilities(stack[1:2], brightness, GREY, PLAN)
    np.testing.assert_array_equal(np.concatenate(bands, axis=1), whole)
    strips = [key[1] for key in reader.read if key[1] != slice(0, 400)]
    tops = {box.top for box in PLAN.framing.boxes((400, 90))}
    assert len(strips) == len(set(map(str, strips))) == len(tops)


def test_channels_and_files(tmp_path: Path) -> None:
    image = picture(70, 60, 2).astype(np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif", image, metadata={"axes": "CYX"}, photometric="minisblack"
    )
    zarr.create_array(str(tmp_path / "b.zarr"), data=image, dimension_names="cyx")
    for name in ("a.tif", "b.zarr"):
        file = read_image(tmp_path / name)
        pixels = FilePixels(file, {})
        assert pixels.shape == (2, 70, 60)
        part = pixels.region(slice(10, 20), slice(5, 9))
        assert part.dtype == np.float32
        np.testing.assert_array_equal(part, image[:, 10:20, 5:9])


def test_a_channel_that_is_not_there() -> None:
    bands = predict_bands(
        ArrayPixels(picture(20, 20)), brightness, Normalisation((0, 1, 1)), PLAN
    )
    with pytest.raises(InputError, match="uses channel 2"):
        next(bands)


class Forgetful:
    """`brightness`, but memory runs out at one call."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.calls = 0

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.at:
            raise MemoryError
        return brightness(windows)


def test_memory_that_runs_out_at_once_leads_to_a_smaller_plan() -> None:
    image = picture(500, 64)
    found = list(predict_bands(ArrayPixels(image), Forgetful(1), GREY, PLAN))
    whole, _ = predict_probabilities(image, brightness, GREY, PLAN)
    np.testing.assert_array_equal(
        np.concatenate([band for band, _ in found], axis=1), whole
    )


def test_memory_that_runs_out_later_is_said() -> None:
    bands = predict_bands(ArrayPixels(picture(500, 64)), Forgetful(3), GREY, PLAN)
    next(bands)
    with pytest.raises(JobError, match="in the middle of the image"):
        list(bands)
