"""What images of labels must be to be scored or measured, and where objects lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

Array = np.ndarray[Any, np.dtype[Any]]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]
DoubleArray = np.ndarray[Any, np.dtype[np.float64]]

Box = tuple[slice, slice]
"""Rows and columns of a part of an image."""

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


def object_boxes(labels: Array) -> Iterator[tuple[int, Box]]:
    """Yield the smallest box around each object.

    Parameters
    ----------
    labels : ndarray of int
        ``(Y, X)``, id of the object at each pixel; 0 is background.

    Yields
    ------
    label : int
        The id; they come in order.
    box : tuple of slice
        Rows and columns.
    """
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
