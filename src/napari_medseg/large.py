"""Images too large for memory: segmented in bands and blocks, over the disk.

The segmenter sees the very windows that it would see of an image in memory, and gives
the same probabilities; they are kept on the disk, not in memory. Objects are found
block by block and joined (`napari_medseg.blocks`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._labels import StoredLabels
from napari_medseg._types import BandSegmenter, InputError, JobError, Progress
from napari_medseg.blocks import blocks_of, find_objects_in_blocks
from napari_medseg.instances import (
    ClassConfig,
    ObjectConfig,
    find_classes,
    number_on,
)
from napari_medseg.io.pixels import FilePixels
from napari_medseg.io.tiff import in_steps
from napari_medseg.io.tiles import write_label_tiles
from napari_medseg.scratch import Rows, new_array

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import zarr

    from napari_medseg._types import (
        AnySegmenter,
        FloatArray,
        Job,
        Pixels,
        Prediction,
    )
    from napari_medseg.io.image_file import ImageFile

LARGE_PIXELS = 2**26
"""Slices of more pixels than this (8192 × 8192) are not taken into memory."""

Keep = Callable[["Prediction"], None]
"""Takes the bands of a slice, from the top to the bottom."""


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


@dataclass(frozen=True)
class LargeFile:
    """What is known of a large image whose labels are written.

    Attributes
    ----------
    note : str
        What the user should know; mostly empty.
    highest : int
        The highest label.
    kinds : StoredLabels or None
        Class of each pixel, ``(*stack, Y, X)``, in the scratch folder.
    probabilities : zarr.Array or None
        ``uint16 (*stack, K, Y, X)``, in steps of `napari_medseg.io.tiff.STEPS`, in the
        scratch folder.
    """

    note: str
    highest: int
    kinds: StoredLabels | None = None
    probabilities: zarr.Array[Any] | None = None


def is_large(image: ImageFile) -> bool:
    """Tell whether the slices of an image are too large to be done in memory."""
    height, width = image.size
    return height * width > LARGE_PIXELS


def segment_large_file(
    image: ImageFile,
    segmenter: AnySegmenter,
    config: ObjectConfig | ClassConfig | None,
    target: Path,
    scratch: Path,
    *,
    probabilities: bool = False,
    kinds: bool = False,
) -> Job[LargeFile]:
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
    scratch : Path
        A folder of its own, such as `scratch_folder` gives: about 8 bytes a pixel
        before compression.
    probabilities, kinds : bool
        Keep the class probabilities, and the class of each pixel, there too: 2 bytes
        a pixel and class, and 1 byte a pixel, before compression.

    Yields
    ------
    Progress
        With every band of rows and every block.

    Returns
    -------
    LargeFile
        With what was to be kept.

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
    letters = [letter for letter in image.axes if letter in "TZ"]
    stack = [image.data.shape[image.axes.index(letter)] for letter in letters]
    shape = (*stack, *image.size)
    each = (*stack, len(segmenter.classes), *image.size)
    kept = _Kept(
        new_array(scratch / "values", each, np.uint16) if probabilities else None,
        new_array(scratch / "kinds", shape, np.uint8) if kinds else None,
    )
    done: list[LargeLabels] = []
    for number, index in enumerate(image.indices()):
        pixels = FilePixels(image, index)
        keep = kept.at(tuple(index.values()))
        place = scratch / str(number)
        done.append((yield from segment_large(pixels, segmenter, config, place, keep)))
    _write_labels(target, image, done, config, "".join(letters) + "YX", shape)
    return LargeFile(
        next((item.note for item in done if item.note), ""),
        max(item.highest for item in done),
        None if kept.kinds is None else StoredLabels(kept.kinds),
        kept.probabilities,
    )


class _Kept:
    """What is kept of every band beside what labels are made of.

    Parameters
    ----------
    probabilities, kinds : zarr.Array or None
        Where it goes, as `LargeFile` has it.
    """

    def __init__(
        self, probabilities: zarr.Array[Any] | None, kinds: zarr.Array[Any] | None
    ) -> None:
        self.probabilities = probabilities
        self.kinds = kinds

    def at(self, index: tuple[int, ...]) -> Keep:
        """Return what takes the bands of a slice."""
        kinds = None if self.kinds is None else Rows(self.kinds, index)
        values: list[Rows] = []
        if self.probabilities is not None:
            count = self.probabilities.shape[-3]
            values = [Rows(self.probabilities, (*index, each)) for each in range(count)]

        def keep(band: Prediction) -> None:
            if kinds is not None:
                kinds.append(band.labels.astype(np.uint8))
            for rows, each in zip(values, band.probabilities, strict=False):
                rows.append(in_steps(each).astype(np.uint16))

        return keep


def _write_labels(
    target: Path,
    image: ImageFile,
    done: Sequence[LargeLabels],
    config: ObjectConfig | ClassConfig | None,
    axes: str,
    shape: tuple[int, ...],
) -> None:
    """Write the labels of all slices into one file."""
    # objects are numbered on from slice to slice, classes are not
    counts = [item.highest for item in done]
    each = counts if isinstance(config, ObjectConfig) else [0] * len(counts)
    before = list(accumulate(each, initial=0))
    write_label_tiles(
        target,
        lambda number, rows: number_on(
            np.asarray(done[number].labels[rows]), before[number]
        ),
        shape,
        max(before[-1], *counts),
        axes=axes,
        scale=_of_axes(image.scale, axes),
        units=_of_axes(image.units, axes),
    )


def _of_axes(values: Mapping[str, Any], axes: str) -> dict[str, Any]:
    return {axis: value for axis, value in values.items() if axis in axes}


def segment_large(
    pixels: Pixels,
    segmenter: BandSegmenter,
    config: ObjectConfig | ClassConfig | None,
    scratch: Path,
    keep: Keep = lambda band: None,
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
    keep : callable
        Gets every band, too.

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
    _, height, width = pixels.shape
    bands = _kept(segmenter.bands(pixels), keep)
    try:
        labels = new_array(scratch / "labels", (height, width), np.int32)
        if isinstance(config, ObjectConfig):
            return (yield from _objects(bands, config, scratch, labels))
        config = config or ClassConfig()
        return (yield from _classes(bands, config, scratch, labels))
    except OSError as error:
        raise JobError(
            f"The disk of {scratch.parent} cannot hold what a large image needs for "
            f"a while: {error.strerror or error}. Make room, or choose another folder."
        ) from error


def _kept(bands: Iterator[Prediction], keep: Keep) -> Iterator[Prediction]:
    """Give bands, each to somebody else before."""
    for band in bands:
        keep(band)
        yield band


def _objects(
    bands: Iterator[Prediction],
    config: ObjectConfig,
    scratch: Path,
    labels: zarr.Array[Any],
) -> Job[LargeLabels]:
    """Find objects: probabilities to the disk, then block by block."""
    height, width = shape = labels.shape
    foreground = Rows(new_array(scratch / "foreground", shape, np.float32))
    interior: Rows | None = None
    note = ""
    for band in bands:
        yield Progress(foreground.done, height, "segmenting")
        foreground.append(1.0 - band.probabilities[0])
        note = note or band.note
        if band.interior is not None:
            if interior is None:
                interior = Rows(new_array(scratch / "interior", shape, np.float32))
            interior.append(band.interior)
    job = find_objects_in_blocks(
        foreground.array,
        config,
        labels,
        (height, width),
        interior=None if interior is None else interior.array,
    )
    count = yield from job
    return LargeLabels(labels, count, note)


def _classes(
    bands: Iterator[Prediction],
    config: ClassConfig,
    scratch: Path,
    labels: zarr.Array[Any],
) -> Job[LargeLabels]:
    """Find classes: with the bands where each pixel stands alone, else in blocks."""
    height, width = labels.shape
    local = not config.min_size and not config.smoothing
    rows = Rows(labels)
    kept: list[Rows] = []
    top, count, note = 0, 0, ""
    for band in bands:
        yield Progress(top, height, "segmenting")
        top += band.probabilities.shape[1]
        count, note = len(band.classes), note or band.note
        if local:
            rows.append(find_classes(band.probabilities, config))
            continue
        kept = kept or [
            Rows(new_array(scratch / f"class {index}", (height, width), np.float32))
            for index in range(count)
        ]
        for store, values in zip(kept, band.probabilities, strict=True):
            store.append(values)
    if not local:
        yield from _classes_in_blocks(kept, config, labels, (height, width))
    return LargeLabels(labels, count - 1, note)


def _classes_in_blocks(
    kept: list[Rows],
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
