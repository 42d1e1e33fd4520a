"""Images too large for memory: segmented in bands and blocks, over the disk.

The segmenter sees the very windows that it would see of an image in memory, and gives
the same probabilities; they are kept on the disk, not in memory. Objects are found
block by block and joined (`napari_medseg.blocks`).
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import BandSegmenter, InputError, JobError, Progress
from napari_medseg.blocks import blocks_of, find_objects_in_blocks
from napari_medseg.instances import (
    ClassConfig,
    ObjectConfig,
    find_classes,
    number_on,
)
from napari_medseg.io.atomic import temporary_beside
from napari_medseg.io.pixels import FilePixels
from napari_medseg.io.tiles import write_label_tiles

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import zarr
    from numpy.typing import NDArray

    from napari_medseg._types import (
        AnySegmenter,
        FloatArray,
        Job,
        LabelArray,
        Pixels,
    )
    from napari_medseg.io.image_file import ImageFile

LARGE_PIXELS = 2**26
"""Slices of more pixels than this (8192 × 8192) are not taken into memory."""

CHUNK = 512
"""Side of the pieces that lie on the disk, in pixels."""


@dataclass(frozen=True)
class LargeLabels:
    """The labels of a large slice, on the disk.

    Attributes
    ----------
    labels : zarr.Array
        ``int32 (Y, X)``.
    highest : int
        The highest label.
    note : str
        What the user should know; mostly empty.
    """

    labels: zarr.Array[Any]
    highest: int
    note: str


def is_large(image: ImageFile) -> bool:
    """Tell whether the slices of an image are too large to be done in memory."""
    height, width = image.size
    return height * width > LARGE_PIXELS


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """Give a folder for what does not fit into memory, and remove it afterwards.

    Parameters
    ----------
    beside : Path
        The file that is being made; its disk is where there is room for results.

    Yields
    ------
    Path
        A hidden folder.

    Raises
    ------
    InputError
        The folder cannot be made.
    """
    try:
        beside.parent.mkdir(parents=True, exist_ok=True)
        folder = temporary_beside(beside, "scratch")
        folder.mkdir()
    except OSError as error:
        raise InputError(
            f"{beside.parent} cannot be written to: {error.strerror or error}."
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def segment_large_file(
    image: ImageFile,
    segmenter: AnySegmenter,
    config: ObjectConfig | ClassConfig | None,
    target: Path,
) -> Job[LargeLabels]:
    """Segment an image that does not fit into memory and write its labels.

    Parameters
    ----------
    image : ImageFile
        The image; one that stays in its file.
    segmenter : AnySegmenter
        What to apply; it must be a `BandSegmenter`.
    config : ObjectConfig, ClassConfig or None
        How objects are found, or classes.
    target : Path
        The label image, a tiled TIFF; replaced if it is there.

    Yields
    ------
    Progress
        With every band of rows and every block.

    Returns
    -------
    LargeLabels
        Of the last slice; its array is gone with the scratch folder.

    Raises
    ------
    InputError
        The segmenter cannot do images of this size, or a file cannot be read or
        written.
    JobError
        Memory or the disk ran out.
    """
    if not isinstance(segmenter, BandSegmenter):
        height, width = image.size
        raise InputError(
            f"{image.path} has {height} × {width} pixels, and this segmenter takes "
            "only images that fit into memory. Choose another one, or cut the image."
        )
    done: list[LargeLabels] = []
    with scratch_folder(target) as folder:
        for number, index in enumerate(image.indices()):
            pixels = FilePixels(image, index)
            place = folder / str(number)
            done.append((yield from segment_large(pixels, segmenter, config, place)))
        letters = [letter for letter in image.axes if letter in "TZ"]
        axes = "".join(letters) + "YX"
        lengths = [image.data.shape[image.axes.index(letter)] for letter in letters]
        # objects are numbered on from slice to slice, classes are not
        counts = [item.highest for item in done]
        each = counts if isinstance(config, ObjectConfig) else [0] * len(counts)
        before = list(accumulate(each, initial=0))
        write_label_tiles(
            target,
            lambda number, rows: number_on(
                np.asarray(done[number].labels[rows]), before[number]
            ),
            (*lengths, *image.size),
            max(before[-1], *counts),
            axes=axes,
            scale=_of_axes(image.scale, axes),
            units=_of_axes(image.units, axes),
        )
    return done[-1]


def _of_axes(values: Mapping[str, Any], axes: str) -> dict[str, Any]:
    return {axis: value for axis, value in values.items() if axis in axes}


def segment_large(
    pixels: Pixels,
    segmenter: BandSegmenter,
    config: ObjectConfig | ClassConfig | None,
    scratch: Path,
) -> Job[LargeLabels]:
    """Segment a slice that does not fit into memory.

    Parameters
    ----------
    pixels : Pixels
        The slice.
    segmenter : BandSegmenter
        What to apply.
    config : ObjectConfig, ClassConfig or None
        How objects are found, or classes; None is ``ClassConfig()``.
    scratch : Path
        A folder of its own, for probabilities and labels: about 8 bytes a pixel
        before compression.

    Yields
    ------
    Progress
        With every band of rows and every block.

    Returns
    -------
    LargeLabels
        The labels, in ``scratch``. Classes are those of `find_classes` on the whole
        image where islands smaller than ``min_size`` are not wider than the margin
        that blocks see of each other; on objects see `find_objects_in_blocks`.

    Raises
    ------
    InputError
        A part of the file is damaged.
    JobError
        Memory or the disk ran out.
    """
    shape = pixels.shape[1:]
    try:
        labels = _array(scratch / "labels", shape, np.int32)
        if isinstance(config, ObjectConfig):
            return (yield from _objects(pixels, segmenter, config, scratch, labels))
        config = config or ClassConfig()
        return (yield from _classes(pixels, segmenter, config, scratch, labels))
    except OSError as error:
        raise JobError(
            f"The disk of {scratch.parent} cannot hold what a large image needs for "
            f"a while: {error.strerror or error}. Make room, or choose another folder."
        ) from error


def _objects(
    pixels: Pixels,
    segmenter: BandSegmenter,
    config: ObjectConfig,
    scratch: Path,
    labels: zarr.Array[Any],
) -> Job[LargeLabels]:
    """Find objects: probabilities to the disk, then block by block."""
    shape = pixels.shape[1:]
    foreground = _Rows(_array(scratch / "foreground", shape, np.float32))
    interior: _Rows | None = None
    note = ""
    for band in segmenter.bands(pixels):
        yield Progress(foreground.done, shape[0], "segmenting")
        foreground.append(1.0 - band.probabilities[0])
        note = note or band.note
        if band.interior is not None:
            if interior is None:
                interior = _Rows(_array(scratch / "interior", shape, np.float32))
            interior.append(band.interior)
    job = find_objects_in_blocks(
        foreground.array,
        config,
        labels,
        (shape[0], shape[1]),
        interior=None if interior is None else interior.array,
    )
    count = yield from job
    return LargeLabels(labels, count, note)


def _classes(
    pixels: Pixels,
    segmenter: BandSegmenter,
    config: ClassConfig,
    scratch: Path,
    labels: zarr.Array[Any],
) -> Job[LargeLabels]:
    """Find classes: with the bands where each pixel stands alone, else in blocks."""
    height, width = pixels.shape[1:]
    local = not config.min_size and not config.smoothing
    count = len(segmenter.classes)
    rows = _Rows(labels)
    kept = [
        _Rows(_array(scratch / f"class {index}", (height, width), np.float32))
        for index in range(0 if local else count)
    ]
    top, note = 0, ""
    for band in segmenter.bands(pixels):
        yield Progress(top, height, "segmenting")
        top += band.probabilities.shape[1]
        note = note or band.note
        if local:
            rows.append(find_classes(band.probabilities, config))
        for store, values in zip(kept, band.probabilities, strict=False):
            store.append(values)
    if not local:
        yield from _classes_in_blocks(kept, config, labels, (height, width))
    return LargeLabels(labels, count - 1, note)


def _classes_in_blocks(
    kept: list[_Rows],
    config: ClassConfig,
    labels: zarr.Array[Any],
    shape: tuple[int, int],
) -> Job[None]:
    """Find classes where neighbours matter."""
    blocks = list(blocks_of(shape))
    for done, block in enumerate(blocks):
        yield Progress(done, len(blocks), "finding classes")
        seen: FloatArray = np.stack(
            [np.asarray(item.array[block.outer], np.float32) for item in kept]
        )
        labels[block.core] = find_classes(seen, config)[block.inner]


class _Rows:
    """Writes rows from the top to the bottom, whole pieces at a time.

    Parameters
    ----------
    array : zarr.Array
        Where they go.
    """

    def __init__(self, array: zarr.Array[Any]) -> None:
        self.array = array
        self.done = 0
        self._waiting: list[NDArray[Any]] = []

    def append(self, rows: FloatArray | LabelArray) -> None:
        """Add the next rows ``(y, X)``."""
        self._waiting.append(rows)
        held = sum(len(item) for item in self._waiting)
        last = self.done + held == self.array.shape[0]
        ready = held if last else held // CHUNK * CHUNK
        if ready:
            together = np.concatenate(self._waiting)
            self.array[self.done : self.done + ready] = together[:ready]
            self.done += ready
            self._waiting = [together[ready:].copy()]


def _array(
    path: Path, shape: tuple[int, ...], kind: type[np.generic]
) -> zarr.Array[Any]:
    """Make an array on the disk."""
    import zarr

    chunks = tuple(min(CHUNK, length) for length in shape)
    array: zarr.Array[Any] = zarr.create_array(
        str(path), shape=shape, chunks=chunks, dtype=np.dtype(kind), fill_value=0
    )
    return array
