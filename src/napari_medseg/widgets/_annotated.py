"""Annotated images: the slices of two layers, and what is wrong with each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg.widgets._layers import (
    all_slices,
    image_of,
    plane_shape,
    stack_shape,
)

if TYPE_CHECKING:
    from napari.layers import Image, Labels


@dataclass(frozen=True, slots=True)
class Kind:
    """What the numbers of an annotation can mean.

    Attributes
    ----------
    title, about : str
        In two words, and in a sentence.
    """

    title: str
    about: str


KINDS = {
    "dense": Kind(
        "every pixel", "0 is background, 1 (or 1, 2, 3 …) is what you look for."
    ),
    "sparse": Kind(
        "scribbles", "0 is not annotated, 1 is background, 2 and up are classes."
    ),
    "instances": Kind("numbered objects", "Each object has a number of its own."),
}
"""What the values of an annotation mean, as the core calls it and in words."""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the list of annotated images.

    Attributes
    ----------
    name : str
        The image.
    told : str
        What is there, or what is wrong and what to do.
    severity : str
        ``good``, ``warning`` or ``error``.
    """

    name: str
    told: str
    severity: str = "good"


def rows_of_layers(image: Image, labels: Labels, kind: str) -> list[Row]:
    """Say of each annotated slice what is on it.

    Parameters
    ----------
    image, labels : layer
        Images and their annotation.
    kind : str
        ``dense``, ``sparse`` or ``instances``.

    Returns
    -------
    list of Row
        One for each slice with an annotation; one that is an error where the layers
        do not fit, or nothing is annotated.
    """
    wanted = (*stack_shape(image), *plane_shape(image))
    if tuple(labels.data.shape) != wanted:
        told = (
            f"has the shape {tuple(labels.data.shape)}, the image {wanted}: annotate "
            "on a labels layer made for this image"
        )
        return [Row(labels.name, told, "error")]
    rows = []
    for plane in all_slices(image):
        values = np.unique(np.asarray(plane.of(labels.data)))
        if not values.any():
            continue
        rows.append(_row_of_slice(slice_name(image, plane.index), values, kind))
    if not rows:
        told = "nothing is annotated: paint on at least one slice"
        return [Row(labels.name, told, "error")]
    return rows


def _row_of_slice(name: str, values: np.ndarray[Any, Any], kind: str) -> Row:
    present = [int(value) for value in values if value]
    if kind == "instances":
        return Row(name, f"{len(present)} objects")
    if kind == "sparse" and present == [1]:
        return Row(
            name, "scribbles on the background only: paint objects too", "warning"
        )
    if kind == "sparse" and 1 not in present:
        return Row(name, "no scribble on the background (1): paint some", "warning")
    told = ", ".join(str(value) for value in present[:8])
    return Row(name, f"values {told}" + (" …" if len(present) > 8 else ""))


def slice_name(image: Image, index: tuple[int, ...]) -> str:
    """Return the name of a slice of a layer; names sort as the slices lie."""
    return " ".join([image.name, *slice_digits(image, index)])


def slice_digits(image: Image, index: tuple[int, ...]) -> list[str]:
    """Return the numbers of a slice, all of one length."""
    lengths = stack_shape(image)
    return [
        f"{place:0{len(str(length - 1))}}"
        for place, length in zip(index, lengths, strict=True)
    ]


def pairs_of_layers(image: Image, labels: Labels) -> list[dict[str, Any]]:
    """Return the annotated slices as the engine's job ``train`` takes them."""
    pairs = []
    for plane in all_slices(image):
        annotation = np.array(plane.of(labels.data), np.int32)
        if annotation.any():
            pairs.append(
                {
                    "name": slice_name(image, plane.index),
                    "image": image_of(image, plane),
                    "annotation": annotation,
                    "rgb": bool(image.rgb),
                }
            )
    return pairs
