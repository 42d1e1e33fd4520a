"""The objects of a label image, checked and one at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg._labels import StoredLabels, check_2d, label_windows
from napari_medseg._types import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pandas as pd

    from napari_medseg._labels import AnyLabels, Array, BoolArray


@dataclass(frozen=True, slots=True)
class LabelPlane:
    """The labels of a 2D image, or of one slice of a stack, and what is known of them.

    Attributes
    ----------
    labels : ndarray of int or StoredLabels
        ``(Y, X)``, id of the object at each pixel; 0 is background.
    index : mapping of str to int
        Where in a stack the slice lies, from 0, such as ``{"T": 0, "Z": 3}``; empty
        for an image that is no stack.
    names : mapping of int to str
        Names by id; default: the number.
    classes : mapping of int to tuple of str
        Name and colour (``#rrggbb``) of the class, by id; default: no class.
    measurements : pandas.DataFrame or None
        The id in the column ``label``, and numbers.
    """

    labels: AnyLabels
    index: Mapping[str, int] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    classes: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    measurements: pd.DataFrame | None = None


@dataclass(frozen=True, slots=True)
class Crop:
    """One object, in the smallest box that holds it.

    Attributes
    ----------
    label : int
        Its id.
    mask : ndarray
        ``bool (H, W)``, where it is in the box.
    x, y : int
        The box's first column and row in the image.
    """

    label: int
    mask: BoolArray
    x: int
    y: int


def crops(labels: AnyLabels) -> Iterator[Crop]:
    """Yield the objects of a label image.

    Parameters
    ----------
    labels : ndarray of int or StoredLabels
        ``(Y, X)``, 0 for background; checked by `label_image`.

    Yields
    ------
    Crop
        One object; in the order of their ids, but for very large images.
    """
    for window in label_windows(labels):
        for label, box in window.boxes:
            x, y = (part.start for part in reversed(box))
            mask = window.labels[box] == label
            yield Crop(label, mask, window.columns.start + x, window.rows.start + y)


def label_image(labels: AnyLabels, subject: str) -> AnyLabels:
    """Refuse what is not a 2D image of labels.

    Parameters
    ----------
    labels : ndarray or StoredLabels
        The labels; those that do not lie in memory are not looked at.
    subject : str
        What they are, to begin the sentence with.

    Returns
    -------
    ndarray of int or StoredLabels
        The labels ``(Y, X)``.

    Raises
    ------
    InputError
        The image is not 2D, is empty, or holds other than integers from 0 up.
    """
    if isinstance(labels, StoredLabels):
        return labels
    return label_values(check_2d(labels, subject), subject)


def label_values(labels: Array, subject: str) -> Array:
    """Refuse what does not hold labels, whatever its axes.

    Parameters
    ----------
    labels : ndarray
        The labels.
    subject : str
        What they are, to begin the sentence with.

    Returns
    -------
    ndarray of int
        The labels; ``uint8`` of booleans.

    Raises
    ------
    InputError
        The image is empty, or holds other than integers from 0 up.
    """
    values = np.asarray(labels)
    if values.dtype.kind not in "bui":
        raise InputError(
            f"{subject} holds {values.dtype} values, but labels are whole numbers. "
            "Convert them first."
        )
    if values.size == 0:
        raise InputError(
            f"{subject} has no pixels (shape {values.shape}). Check what it was made "
            "from."
        )
    if values.min() < 0:
        raise InputError(
            f"{subject} holds the label {values.min()}, but labels are 0 (background) "
            "or greater. Number the objects anew from 1."
        )
    return values.astype(np.uint8) if values.dtype.kind == "b" else values
