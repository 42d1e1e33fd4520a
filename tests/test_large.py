"""Large images: the same labels as in memory, from a file that is never read whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pytest
import tifffile
import zarr
from scipy import ndimage

from napari_medseg import blocks, large
from napari_medseg._types import (
    InputError,
    LabelClass,
    Prediction,
    default_classes,
    finish,
)
from napari_medseg.inference import open_segmenter
from napari_medseg.instances import ClassConfig, ObjectConfig, labels_of, number_on
from napari_medseg.io.images import read_image
from napari_medseg.large import segment_large_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Config: TypeAlias = ObjectConfig | ClassConfig | None

SCALE = {"Y": 0.5, "X": 0.25}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and pieces that a small image has several of."""
    monkeypatch.setattr(large, "CHUNK", 64)
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


def on_disk(
    path: Path, model: str, config: ObjectConfig | ClassConfig | None
) -> np.ndarray:
    target = path.parent / "out" / "labels.tif"
    segmenter = open_segmenter(model, "cpu")
    finish(segment_large_file(read_image(path), segmenter, config, target))
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
    made = finish(segment_large_file(read_image(path), Parts(), ObjectConfig(), target))
    assert made.highest == np.max(read_image(target).data) == 6


def test_a_segmenter_that_needs_the_whole_image(tmp_path: Path) -> None:
    class Whole:
        identity = "whole"
        classes: tuple[LabelClass, ...] = default_classes(2)

        def predict(self, image: np.ndarray) -> Prediction:
            raise NotImplementedError

    np.save(tmp_path / "a.npy", np.zeros((30, 40), np.uint8))
    job = segment_large_file(
        read_image(tmp_path / "a.npy"), Whole(), None, tmp_path / "b.tif"
    )
    with pytest.raises(InputError, match=r"a\.npy has 30 × 40 pixels"):
        finish(job)


def test_a_job_that_is_cancelled_leaves_nothing(image: Path) -> None:
    target = image.parent / "out" / "labels.tif"
    job = segment_large_file(read_image(image), open_segmenter("otsu"), None, target)
    next(job)
    job.close()
    assert list(target.parent.iterdir()) == []
