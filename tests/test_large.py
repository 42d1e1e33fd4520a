"""Large images: the same labels as in memory, from a file that is never read whole."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr
from bright import halves_in, same_results
from scipy import ndimage

from napari_medseg import blocks, large, scratch
from napari_medseg._types import (
    AnySegmenter,
    InputError,
    LabelClass,
    Pixels,
    Prediction,
    default_classes,
    finish,
)
from napari_medseg.batch import BatchSettings, segment_batch
from napari_medseg.inference import open_segmenter
from napari_medseg.instances import ClassConfig, ObjectConfig, labels_of, number_on
from napari_medseg.io.images import read_image
from napari_medseg.large import LargeFile, segment_large_file
from napari_medseg.scratch import scratch_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Config: TypeAlias = ObjectConfig | ClassConfig | None

SCALE = {"Y": 0.5, "X": 0.25}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and pieces that a small image has several of."""
    monkeypatch.setattr(scratch, "CHUNK", 64)
    monkeypatch.setattr(
        large,
        "find_objects_in_blocks",
        lambda *given, **more: blocks.find_objects_in_blocks(
            *given, **more, side=128, halo=48
        ),
    )
    monkeypatch.setattr(
        large, "blocks_of", lambda shape: blocks.blocks_of(shape, 128, 48)
    )


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A stack of two slices with round cells, some of which touch."""
    draw = np.random.default_rng(0)
    slices = []
    for _ in range(2):
        seeds = np.zeros((500, 300), bool)
        seeds[tuple(draw.integers(0, limit, 90) for limit in seeds.shape)] = True
        near = ndimage.distance_transform_edt(~seeds) < 9
        slices.append(1000 + 3000 * near + draw.normal(0, 50, near.shape))
    path = tmp_path / "stack.ome.tif"
    tifffile.imwrite(
        path,
        np.stack(slices).astype(np.uint16),
        ome=True,
        photometric="minisblack",
        metadata={
            "axes": "ZYX",
            "PhysicalSizeX": 0.25,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": 0.5,
            "PhysicalSizeYUnit": "µm",
        },
    )
    return path


def in_memory(
    path: Path, model: str, config: ObjectConfig | ClassConfig | None
) -> np.ndarray:
    segmenter = open_segmenter(model, "cpu")
    slices: list[np.ndarray] = []
    highest = 0
    for _, plane in read_image(path).slices():
        found = labels_of(segmenter.predict(plane), config)
        if isinstance(config, ObjectConfig):
            found = number_on(found, highest)
            highest = int(found.max())
        slices.append(found)
    return np.stack(slices)


def segmented(
    path: Path, segmenter: AnySegmenter, config: Config, target: Path
) -> LargeFile:
    with scratch_folder(target) as folder:
        return finish(
            segment_large_file(read_image(path), segmenter, config, target, folder)
        )


def on_disk(
    path: Path, model: str, config: ObjectConfig | ClassConfig | None
) -> np.ndarray:
    target = path.parent / "out" / "labels.tif"
    segmented(path, open_segmenter(model, "cpu"), config, target)
    file = read_image(target)
    assert file.axes == "ZYX"
    assert {axis: file.scale[axis] for axis in "YX"} == SCALE and file.units[
        "X"
    ] == "µm"
    assert [item.name for item in target.parent.iterdir()] == ["labels.tif"]
    return np.asarray(file.data)


def renumbered(labels: np.ndarray) -> np.ndarray:
    """Number objects by where they begin, as numbers mean nothing."""
    values, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    first = np.where(values == 0, -1, first)
    return np.argsort(np.argsort(first))[inverse].reshape(labels.shape)


@pytest.mark.parametrize("model", ["otsu", "nuclei-fluo"])
def test_classes_are_those_in_memory(image: Path, model: str) -> None:
    np.testing.assert_array_equal(
        on_disk(image, model, None), in_memory(image, model, None)
    )


def test_tidied_classes_are_those_in_memory(image: Path) -> None:
    config = ClassConfig(smoothing=2.0, min_size=200, threshold=0.4)
    np.testing.assert_array_equal(
        on_disk(image, "otsu", config), in_memory(image, "otsu", config)
    )


@pytest.mark.parametrize("split", ["components", "watershed"])
def test_objects_are_those_in_memory(image: Path, split: str) -> None:
    config = ObjectConfig(split=split)
    found, whole = on_disk(image, "otsu", config), in_memory(image, "otsu", config)
    for one, other in zip(found, whole, strict=True):
        assert one.max() == other.max()
        # a cut between two touching cells may lie a pixel off at a border of blocks
        unlike = (renumbered(one) != renumbered(other)).mean()
        assert unlike <= (1e-4 if split == "watershed" else 0)


def test_the_interior_goes_along(tmp_path: Path) -> None:
    class Parts:
        identity = "parts"
        classes: tuple[LabelClass, ...] = default_classes(2)

        def predict(self, image: np.ndarray) -> Prediction:
            raise NotImplementedError

        def bands(self, pixels: object) -> Iterator[Prediction]:
            for _ in range(3):
                found = np.zeros((2, 100, 300), np.float32)
                found[1, 20:60, 20:90] = 1
                interior = found[1].copy()
                interior[:, 50:60] = 0  # one object to the eye, two by the interior
                found[0] = 1 - found[1]
                yield Prediction(found, self.classes, "", interior)

    path = tmp_path / "a.zarr"
    zarr.create_array(str(path), data=np.zeros((300, 300), np.uint8))
    target = tmp_path / "a.tif"
    made = segmented(path, Parts(), ObjectConfig(), target)
    assert made.highest == np.max(read_image(target).data) == 6


def test_a_segmenter_that_needs_the_whole_image(tmp_path: Path) -> None:
    class Whole:
        identity = "whole"
        classes: tuple[LabelClass, ...] = default_classes(2)

        def predict(self, image: np.ndarray) -> Prediction:
            raise NotImplementedError

    np.save(tmp_path / "a.npy", np.zeros((30, 40), np.uint8))
    with pytest.raises(InputError, match=r"a\.npy has 30 × 40 pixels"):
        segmented(tmp_path / "a.npy", Whole(), None, tmp_path / "b.tif")


def test_a_job_that_is_cancelled_leaves_nothing(image: Path) -> None:
    target = image.parent / "out" / "labels.tif"
    file, segmenter = read_image(image), open_segmenter("otsu")
    with scratch_folder(target) as folder:
        job = segment_large_file(file, segmenter, None, target, folder)
        next(job)
        job.close()
    assert list(target.parent.iterdir()) == []


# --- probabilities, and classes of objects, in folders ------------------------------


class ThreeKinds:
    """Tells apart dark, grey and bright, a few rows at a time."""

    identity = "three kinds"
    classes: tuple[LabelClass, ...] = default_classes(3)

    def predict(self, image: np.ndarray) -> Prediction:
        shown = image[0] / 255
        bright = np.clip(2 * shown - 1, 0, 1)
        grey = np.clip(1 - np.abs(2 * shown - 1), 0, 1)
        values = np.stack([1 - bright - grey, grey, bright]).astype(np.float32)
        return Prediction(values, self.classes)

    def bands(self, pixels: Pixels) -> Iterator[Prediction]:
        _, height, width = pixels.shape
        for top in range(0, height, 48):
            rows = slice(top, min(top + 48, height))
            yield self.predict(pixels.region(rows, slice(0, width)))


def open_three_kinds(settings: BatchSettings) -> ThreeKinds:
    return ThreeKinds()


def save_kinds(path: Path, shape: tuple[int, ...]) -> None:
    """Write rectangles, grey ones and bright ones."""
    draw = np.random.default_rng(0)
    image = np.full(shape, 20, np.uint8)
    for plane in image.reshape(-1, *shape[-2:]):
        for top in range(10, shape[-2] - 20, 40):
            for left in range(10, shape[-1] - 20, 40):
                end = draw.integers(8, 20, 2)
                part = plane[top : top + end[0], left : left + end[1]]
                part[...] = draw.choice([128, 240])
    path.parent.mkdir(exist_ok=True)
    axes = "ZYX"[-image.ndim :]
    tifffile.imwrite(
        path, image, ome=True, photometric="minisblack", metadata={"axes": axes}
    )


ALL = BatchSettings(
    "kinds",
    objects=ObjectConfig(split="components"),
    # outlines for ImageJ are numbered with more digits in large images
    formats=("csv", "coco", "geojson", "ome-zarr"),
    probabilities=True,
)


@pytest.mark.parametrize("shape", [(100, 100), (2, 100, 100), (300, 200)])
@pytest.mark.parametrize(
    "settings", [ALL, replace(ALL, objects=None)], ids=["objects", "classes"]
)
def test_large_images_give_the_files_of_small_ones(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    settings: BatchSettings,
) -> None:
    images, small, big = (tmp_path / name for name in ("images", "small", "large"))
    save_kinds(images / "a.tif", shape)
    monkeypatch.setattr(large, "LARGE_PIXELS", 10**6)
    finish(segment_batch([images], small, settings, opener=open_three_kinds))
    monkeypatch.setattr(large, "LARGE_PIXELS", 100)
    report = finish(segment_batch([images], big, settings, opener=open_three_kinds))
    assert (report.failed, report.notes) == ({}, {})
    values = [
        read_image(out / "probabilities" / "a_probabilities.tiff")
        for out in (small, big)
    ]
    assert values[0].axes == values[1].axes == ("ZCYX" if len(shape) == 3 else "CYX")
    np.testing.assert_array_equal(np.asarray(values[1].data), values[0].data)
    assert halves_in(big) == []
    if settings.objects is not None:
        kinds = pd.read_csv(big / "objects.csv")["class"]
        assert set(kinds) == {"class 1", "class 2"}
    if shape == (100, 100):  # one block: the very numbers
        assert same_results(small, big)
        return
    columns = ["slice", "class", "area_px", "centroid_y", "centroid_x"]
    tables = [
        pd.read_csv(next(out.glob("[oc]*s.csv"))).filter(columns)
        for out in (small, big)
    ]
    first, second = (
        table.sort_values([*table.columns], ignore_index=True) for table in tables
    )
    pd.testing.assert_frame_equal(first, second)


def peak_of(images: Path, out: Path, settings: BatchSettings) -> int:
    """Segment a folder; return the most bytes that arrays and objects took."""
    job = segment_batch([images], out, settings, opener=open_three_kinds)
    next(job)
    tracemalloc.start()
    try:
        report = finish(job)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(report.done), report.failed) == (1, {})
    return peak


def test_probabilities_and_classes_never_lie_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "LARGE_PIXELS", 100)
    images, shape = tmp_path / "images", (1000, 1500)
    stored = zarr.create_array(
        str(images / "a.zarr"), shape=shape, dtype=np.uint8, chunks=(64, 64)
    )
    stored[:64, :64] = 0  # without any piece it would pass for damaged
    stored[0, 0] = 1
    plain = replace(ALL, formats=(), objects=None, probabilities=False)
    without = peak_of(images, tmp_path / "without", plain)
    settings = replace(ALL, formats=())
    peak = peak_of(images, tmp_path / "with", settings)
    assert peak - without < 4 * 3 * shape[0] * shape[1] / 3
