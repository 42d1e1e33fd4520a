"""Where in its file lies what a layer shows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, combinations, product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg._types import InputError
from napari_medseg.io.images import read_image
from napari_medseg.widgets._layers import Plane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari.layers import Layer

    from napari_medseg._types import FloatArray
    from napari_medseg.io.images import ImageFile
    from napari_medseg.widgets._layers import Index

TILE = 4096
"""Pixels along the side of what is looked at in one go."""


@dataclass(frozen=True, slots=True)
class InFile:
    """A slice of an image file.

    Attributes
    ----------
    path : Path
        The file.
    index : tuple of int
        The slice; empty where the file is no stack.
    channel : int, optional
        The channel that the layer shows; None for all.
    """

    path: Path
    index: tuple[int, ...]
    channel: int | None


def path_of(layer: Layer) -> Path:
    """Return the file that a layer was opened from.

    Raises
    ------
    InputError
        There is none.
    """
    if not layer.source.path:
        raise InputError(
            f"{layer.name} is not opened from a file, and a command reads files. Save "
            "it first, and open the file."
        )
    return Path(layer.source.path)


def in_file(
    path: Path, name: str, pixels: FloatArray, index: Index, *, rgb: bool
) -> InFile:
    """Find a slice of a layer in its file; any thread may call.

    Axes are not always called the same by all that open a file, so the values decide.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        The layer.
    pixels : ndarray
        ``float32 (C, Y, X)``, the whole slice.
    index : tuple of int
        Which slice of the layer.
    rgb : bool
        Whether the channels are red, green and blue.

    Returns
    -------
    InFile
        The same pixels.

    Raises
    ------
    InputError
        The file cannot be read, or holds other values.
    """
    image = read_image(path)
    for place in _places(image, index):
        found = image.region(place)
        whole = tuple(place.values())
        if _same(found, pixels) and image.rgb == rgb:
            return InFile(path, whole, None)
        for channel in range(len(found)):
            if not rgb and _same(found[channel : channel + 1], pixels):
                return InFile(path, whole, channel)
    raise InputError(changed(name, path))


def shown_channel(
    path: Path,
    name: str,
    planes: Sequence[Plane],
    read: Callable[[Plane], FloatArray],
    *,
    rgb: bool,
) -> int | None:
    """Tell which channel of its file a layer shows; any thread may call.

    With that channel a command on the file sees just what the layer shows; other
    layers are refused, slice by slice.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        The layer.
    planes : sequence of Plane
        All slices of the layer.
    read : callable
        Reads part of one, ``float32 (C, y, x)``.
    rgb : bool
        Whether the channels are red, green and blue.

    Returns
    -------
    int or None
        None where it shows all that there is.

    Raises
    ------
    InputError
        The file cannot be read, or holds something else: other values, or axes of
        which others make a stack, or channels.
    """
    image = read_image(path)
    there = {tuple(place.values()): place for place in image.indices()}
    if set(there) != {plane.index for plane in planes}:
        raise InputError(changed(name, path))
    if {(plane.rows.stop, plane.columns.stop) for plane in planes} != {image.size}:
        raise InputError(changed(name, path))
    all_there = image.channels == 1 or (rgb and image.rgb)
    left: list[int | None] = [None] if all_there else [*range(image.channels)]
    for part in chain.from_iterable(map(_tiles, planes)):
        found = image.region(there[part.index], part.rows, part.columns)
        wanted = read(part)
        left = [each for each in left if _same(_channel(found, each), wanted)]
        if not left:
            raise InputError(changed(name, path))
    return left[0]


def _channel(pixels: FloatArray, channel: int | None) -> FloatArray:
    return pixels if channel is None else pixels[channel : channel + 1]


def _tiles(plane: Plane) -> Iterator[Plane]:
    """Give the parts of a slice that are looked at one by one: slides are large."""
    height, width = plane.rows.stop, plane.columns.stop
    for top, left in product(range(0, height, TILE), range(0, width, TILE)):
        rows = slice(top, min(height, top + TILE))
        yield Plane(plane.index, rows, slice(left, min(width, left + TILE)))


def changed(name: str, path: Path) -> str:
    """Return the sentence on a layer that is not what its file holds."""
    return (
        f"{name} is no longer what {path.name} holds, so a command would do something "
        "else. Save the layer, and open the file."
    )


def _places(image: ImageFile, index: Index) -> list[dict[str, int]]:
    """Return the slices that can be meant: axes of a layer may be channels."""
    there = list(image.indices())
    letters = list(there[0])
    wanted = [
        dict(zip(letters, some, strict=True))
        for some in combinations(index, len(letters))
    ]
    return [place for place in wanted if place in there]


def _same(found: FloatArray, pixels: FloatArray) -> bool:
    return np.array_equal(found, pixels, equal_nan=True)
