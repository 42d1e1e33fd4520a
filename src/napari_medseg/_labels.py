"""What images of labels must be to be scored or measured, and where objects lie."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from napari_medseg._types import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_medseg._types import LabelArray

Array = np.ndarray[Any, np.dtype[Any]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]
DoubleArray = np.ndarray[Any, np.dtype[np.float64]]

Box = tuple[slice, slice]
"""Rows and columns of a part of an image."""

WINDOW = 2048
"""Side of the parts in which large label images are looked at, in pixels."""

_BAND = 512
"""Rows of a large label image in which objects are looked for at a time."""

_USUAL_IDS = 4_000_000
"""Ids up to this are used as places in a list."""


def check_shapes(pred: Array, truth: Array) -> None:
    """Refuse a prediction and a truth of different shapes.

    Parameters
    ----------
    pred, truth : ndarray
        The images to compare.

    Raises
    ------
    InputError
        The shapes differ.
    """
    if pred.shape != truth.shape:
        sizes = [" × ".join(map(str, image.shape)) for image in (pred, truth)]
        raise InputError(
            f"The prediction is {sizes[0]} pixels and the truth {sizes[1]}; "
            "they must have the same size. Compare images of the same field of view."
        )


def check_labels(pred: Array, truth: Array) -> tuple[Array, Array]:
    """Return two label images of one shape, or refuse them.

    Parameters
    ----------
    pred, truth : ndarray
        The images to compare.

    Returns
    -------
    tuple of ndarray
        Both as arrays of integers.

    Raises
    ------
    InputError
        The shapes differ, or the images do not hold integers.
    """
    arrays = []
    for name, image in (("prediction", pred), ("truth", truth)):
        labels = np.asarray(image)
        if labels.dtype.kind not in "biu":
            raise InputError(
                f"The {name} holds {labels.dtype} values; a label image holds "
                "integers. Save it as 8-, 16- or 32-bit integers."
            )
        arrays.append(labels.astype(np.uint8) if labels.dtype.kind == "b" else labels)
    check_shapes(arrays[0], arrays[1])
    return arrays[0], arrays[1]


def as_masks(pred: Array, truth: Array) -> tuple[BoolArray, BoolArray]:
    """Return two images of one shape as masks, or refuse them.

    Parameters
    ----------
    pred, truth : ndarray
        The images to compare; what is not 0 is foreground.

    Returns
    -------
    tuple of ndarray
        Both as ``bool``.

    Raises
    ------
    InputError
        The shapes differ.
    """
    first, second = np.asarray(pred) != 0, np.asarray(truth) != 0
    check_shapes(first, second)
    return first, second


def check_2d(image: Array, name: str) -> Array:
    """Refuse what is not a 2D image.

    Parameters
    ----------
    image : ndarray
        The image.
    name : str
        What it is, to begin the sentence with.

    Returns
    -------
    ndarray
        The image.

    Raises
    ------
    InputError
        The image has more or fewer axes than Y and X.
    """
    values = np.asarray(image)
    if values.ndim != 2:
        raise InputError(
            f"{name} has the shape {values.shape}; it must be a 2D image (Y, X). "
            "Take stacks slice by slice."
        )
    return values


@dataclass(frozen=True, slots=True)
class StoredLabels:
    """Labels ``(Y, X)`` that do not lie in memory: parts of them are read on demand.

    Attributes
    ----------
    data : array
        Anything that reads a part when it is indexed, such as a zarr array of
        integers from 0 up; its last axes are Y and X.
    index : tuple of int
        Which slice, one number for each other axis.
    """

    data: Any
    index: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        height, width = self.data.shape[-2:]
        return int(height), int(width)

    def __getitem__(self, key: Box) -> Array:
        """Read a part."""
        return np.asarray(self.data[(*self.index, *key)])


AnyLabels: TypeAlias = Array | StoredLabels
"""Labels ``(Y, X)``, in memory or not."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a label image, and the objects that are looked at in it.

    Attributes
    ----------
    rows, columns : slice
        Which part; it holds each of the objects whole.
    labels : ndarray of int
        The part; other objects may reach into it.
    boxes : tuple of (int, tuple of slice)
        Id of each object and the smallest box around it, in the part.
    """

    rows: slice
    columns: slice
    labels: Array
    boxes: tuple[tuple[int, Box], ...]


def label_windows(labels: AnyLabels, side: int = WINDOW) -> Iterator[Window]:
    """Cut a label image into parts that fit into memory, without cutting objects.

    Parameters
    ----------
    labels : ndarray of int or StoredLabels
        ``(Y, X)``, id of the object at each pixel; 0 is background.
    side : int
        An image of at most ``side`` × ``side`` pixels is one part. Parts of a larger
        one are about as large, unless an object is larger.

    Yields
    ------
    Window
        Each object is in one of them, in the order of ids.
    """
    height, width = labels.shape
    everything = (slice(0, height), slice(0, width))
    if height * width <= side * side:
        part = np.asarray(labels[everything])
        yield Window(*everything, part, tuple(_boxes(part)))
        return
    groups: defaultdict[tuple[int, int], list[tuple[int, Box]]] = defaultdict(list)
    for label, box in _boxes_by_bands(labels):
        groups[box[0].start // side, box[1].start // side].append((label, box))
    for _, found in sorted(groups.items()):
        rows, columns = (
            slice(
                min(box[axis].start for _, box in found),
                max(box[axis].stop for _, box in found),
            )
            for axis in (0, 1)
        )
        inside = tuple(
            (label, (_moved(box[0], -rows.start), _moved(box[1], -columns.start)))
            for label, box in sorted(found, key=itemgetter(0))
        )
        yield Window(rows, columns, np.asarray(labels[rows, columns]), inside)


def _boxes_by_bands(labels: AnyLabels) -> Iterator[tuple[int, Box]]:
    """Yield the boxes of an image of which a band of rows is read at a time."""
    height, width = labels.shape
    known: dict[int, Box] = {}
    for top in range(0, height, _BAND):
        rows = slice(top, min(top + _BAND, height))
        for label, box in _boxes(np.asarray(labels[rows, slice(0, width)])):
            own = (_moved(box[0], top), box[1])
            known[label] = _around(known.get(label, own), own)
    yield from known.items()


def _moved(part: slice, by: int) -> slice:
    """Return a slice further on."""
    return slice(part.start + by, part.stop + by)


def _around(first: Box, second: Box) -> Box:
    """Return the box around two boxes."""
    rows, columns = (
        slice(min(one.start, other.start), max(one.stop, other.stop))
        for one, other in zip(first, second, strict=True)
    )
    return rows, columns


def _boxes(labels: Array) -> Iterator[tuple[int, Box]]:
    """Yield the id of each object, in order, and the smallest box around it."""
    from scipy import ndimage

    if labels.size == 0:
        return
    ids = None
    if labels.max() > _USUAL_IDS:
        # scipy makes a list as long as the largest id
        ids, places = np.unique(labels, return_inverse=True)
        labels = places.reshape(labels.shape).astype(np.int32) + int(ids[0] > 0)
        ids = ids[ids > 0]
    for rank, box in enumerate(ndimage.find_objects(labels)):
        if box is not None:
            yield rank + 1 if ids is None else int(ids[rank]), box


def number_on(labels: LabelArray, highest: int) -> LabelArray:
    """Continue the numbers of objects from the slices before to the next one.

    Parameters
    ----------
    labels : ndarray
        ``int32 (Y, X)``, objects numbered from 1.
    highest : int
        The highest number of the slices before.

    Returns
    -------
    ndarray
        ``int32 (Y, X)``; no number is one of another slice.
    """
    numbered: LabelArray = np.where(labels > 0, labels + highest, 0).astype(np.int32)
    return numbered
