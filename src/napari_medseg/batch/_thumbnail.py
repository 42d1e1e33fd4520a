"""A small picture of an image with what was found in it."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg.io.image_file import sample_step
from napari_medseg.io.normalise import Normalisation, apply_limits, limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_medseg._labels import AnyLabels, Array, BoolArray, IntArray
    from napari_medseg._types import FloatArray, LabelClass
    from napari_medseg.io.image_file import ImageFile

SIDE = 200
"""Longest side of a picture, in pixels."""

_FINER = 2
"""Pictures are drawn so much larger and then reduced, for smooth lines."""

_CROWDED = 0.6
"""Where outlines take a larger share of the objects than this, areas are tinted."""

_TINT = 0.4
"""How much of the colour a tinted area has."""

_QUALITY = 80
"""Of the picture's compression, from 0 to 100: about 10 kB for a picture."""

_ON_STAINS = "#00c853"
"""Colour of objects in colour images: orange is lost on brown and pink stains."""


def thumbnail(
    image: ImageFile,
    index: Mapping[str, int],
    labels: AnyLabels,
    colours: Sequence[str],
) -> bytes:
    """Draw a slice of an image with the outlines of what was found.

    Parameters
    ----------
    image : ImageFile
        The image; of a large one, single pixels are read.
    index : mapping of str to int
        The slice, as `ImageFile.indices` gives it.
    labels : ndarray of int or StoredLabels
        ``(Y, X)``, objects or classes.
    colours : sequence of str
        ``#rrggbb`` of labels 1, 2, …; further labels have the last.

    Returns
    -------
    bytes
        A WebP picture, at most `SIDE` pixels high and wide.

    Raises
    ------
    InputError
        A part of the image's file is damaged.
    """
    import imagecodecs

    # the very pixels of `ImageFile.sample`
    found = _every_nth(labels, sample_step(*image.size))
    with np.errstate(invalid="ignore", over="ignore"):  # NaN, infinity, 1e38
        shown, found = _reduced(image.sample(index), found)
    normalisation = Normalisation.for_channels(len(shown), image.rgb)
    bounds = limits(shown[:, ::_FINER, ::_FINER], normalisation)
    scaled = apply_limits(shown, normalisation, bounds)
    picture = np.ascontiguousarray(np.moveaxis(scaled, 0, -1))
    colour = np.array([_rgb(each) for each in colours], np.float32)
    _draw(picture, found, colour)
    small = (_blocks(picture, _FINER) * 255).round().astype(np.uint8)
    encoded = imagecodecs.webp_encode(
        np.ascontiguousarray(small), level=_QUALITY, lossless=False, method=2
    )
    return bytes(encoded)


def outline_colours(
    classes: Sequence[LabelClass], *, objects: bool, rgb: bool
) -> list[str]:
    """Return the colours of labels from 1 on.

    Parameters
    ----------
    classes : sequence of LabelClass
        The classes, background first.
    objects : bool
        Whether labels are objects, which share one colour.
    rgb : bool
        Whether they are drawn on a colour image.

    Returns
    -------
    list of str
        ``#rrggbb``, at least one.
    """
    foreground = [entry.colour[:7] for entry in classes[1:]] or ["#e69f00"]
    if not objects:
        return foreground
    return [_ON_STAINS] if rgb else foreground[:1]


def _every_nth(labels: AnyLabels, step: int) -> Array:
    """Read every n-th row and column, a band of rows at a time."""
    height, width = labels.shape
    band = step * max(1, 512 // step)
    kept = []
    for top in range(0, height, band):
        rows = labels[slice(top, min(top + band, height)), slice(0, width)]
        kept.append(rows[::step, ::step].copy())  # a view would hold all of them
    return np.concatenate(kept)


def _reduced(image: FloatArray, labels: Array) -> tuple[FloatArray, Array]:
    """Bring image and labels to the size in which they are drawn."""
    longest = max(labels.shape)
    high, wide = (
        max(1, round(length * min(1.0, SIDE / longest))) * _FINER
        for length in labels.shape
    )
    # means of blocks show less noise than single pixels
    means = _blocks(np.moveaxis(image, 0, -1), max(1, longest // (SIDE * _FINER)))
    rows, columns = _nearest(means.shape[0], high), _nearest(means.shape[1], wide)
    small = np.moveaxis(means[rows[:, None], columns], -1, 0).astype(np.float32)
    rows, columns = _nearest(labels.shape[0], high), _nearest(labels.shape[1], wide)
    return small, labels[rows[:, None], columns]


def _nearest(length: int, count: int) -> IntArray:
    """Return which of so many pixels lies at the centre of each of so many others."""
    places: IntArray = ((np.arange(count) + 0.5) * length / count).astype(np.int64)
    return places


def _blocks(picture: FloatArray, by: int) -> FloatArray:
    """Return the means of blocks ``(Y, X, C)``; what does not fill one is left out."""
    down, right = (min(by, length) for length in picture.shape[:2])
    bottom, edge = (
        length // size * size
        for length, size in zip(picture.shape, (down, right), strict=False)
    )
    # sums of whole pictures: numpy is slow over an axis of two or three
    rows = reduce(np.add, [picture[first:bottom:down] for first in range(down)])
    total = reduce(np.add, [rows[:, first:edge:right] for first in range(right)])
    means: FloatArray = total / np.float32(down * right)
    return means


def _rgb(colour: str) -> list[float]:
    """Return red, green and blue from 0 to 1."""
    return [value / 255 for value in bytes.fromhex(colour.removeprefix("#"))]


def _draw(picture: FloatArray, labels: Array, colours: FloatArray) -> None:
    """Draw the outlines of labels, or tint them where they are small and many."""
    lines = _borders(labels)
    inside = labels > 0
    crowded = (lines & inside).sum() > _CROWDED * inside.sum()
    where, opacity = (inside, _TINT) if crowded else (lines, 1.0)
    # a line has the label on its one side or the other
    nearby = np.where(inside, labels, _neighbour(labels))[where]
    colour = colours[np.clip(nearby, 1, len(colours)) - 1]
    picture[where] = (1 - opacity) * picture[where] + opacity * colour


def _borders(labels: Array) -> BoolArray:
    """Return the pixels on either side of a border between labels."""
    borders = np.zeros(labels.shape, bool)
    for first, second in _pairs():
        apart = labels[first] != labels[second]
        borders[first] |= apart
        borders[second] |= apart
    return borders


def _neighbour(labels: Array) -> Array:
    """Return the highest label beside each pixel."""
    highest = labels.copy()
    for first, second in _pairs():
        before = labels[first], labels[second]
        highest[first] = np.maximum(highest[first], before[1])
        highest[second] = np.maximum(highest[second], before[0])
    return highest


def _pairs() -> tuple[tuple[tuple[slice, ...], tuple[slice, ...]], ...]:
    """Return which pixels lie below, and to the right of, which."""
    all_, front, back = slice(None), slice(None, -1), slice(1, None)
    return (((front, all_), (back, all_)), ((all_, front), (all_, back)))
