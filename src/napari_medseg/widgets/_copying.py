"""The commands of Annotate, Segment and Measure, out of what their forms show."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg._types import InputError
from napari_medseg.batch.measuring import pixel_size
from napari_medseg.io.containers import file_of
from napari_medseg.io.images import image_stem, read_annotation, read_image
from napari_medseg.layer_data.label_stack import CLASSES, label_stack
from napari_medseg.layer_data.tables import physical_size
from napari_medseg.widgets._command import measure_command, prompt_command
from napari_medseg.widgets._in_file import changed, in_file, path_of, shown_channel
from napari_medseg.widgets._layers import (
    all_slices,
    as_image,
    image_of,
    stack_shape,
    whole,
)
from napari_medseg.widgets._preferences import preferences

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari.layers import Image, Labels

    from napari_medseg._types import FloatArray
    from napari_medseg.widgets._canvas import AnnotationCanvas
    from napari_medseg.widgets._layers import Plane

NO_SUGGESTION = (
    "There is nothing to copy yet: click on an object, or draw a box round it, first."
)

OBJECT = "_object.tif"
"""Ends the name of the labels that the copied command writes."""


def prompt_line(canvas: AnnotationCanvas | None) -> Callable[[], str]:
    """Return what finds the command of SAM's latest suggestion.

    Parameters
    ----------
    canvas : AnnotationCanvas or None
        What is annotated.

    Returns
    -------
    callable
        Looks at the image's file, in any thread, and returns the line.

    Raises
    ------
    InputError
        There is no suggestion, or the image is not from a file.
    """
    latest = canvas.latest if canvas is not None else None
    if canvas is None or latest is None:
        raise InputError(NO_SUGGESTION)
    suggestion, choice = latest
    layer, plane = canvas.image, suggestion.plane
    path = path_of(layer)
    pixels = image_of(layer, plane)
    name, rgb, device = layer.name, bool(layer.rgb), preferences().device

    def line() -> str:
        place = in_file(path, name, pixels, plane.index, rgb=rgb)
        return prompt_command(
            place,
            _beside(path, OBJECT),
            suggestion.question,
            sam=suggestion.sam,
            idea=choice + 1,
            device=device,
        )

    return line


def segment_line(
    images: Sequence[Image], line: Callable[[list[Path], list[int]], str]
) -> Callable[[], str]:
    """Return what finds the command that segments layers.

    Parameters
    ----------
    images : sequence of Image
        The layers.
    line : callable
        Gives the command for their files, and for channels of them, if not all.

    Returns
    -------
    callable
        Looks at the files, in any thread, and returns the line.

    Raises
    ------
    InputError
        A layer is not from a file.
    """
    paths = [path_of(image) for image in images]
    finds = [_shown(path, image) for path, image in zip(paths, images, strict=True)]

    def checked() -> str:
        channels = {find() for find in finds}
        if len(channels) > 1:
            raise InputError(
                "The layers show different channels of their files, and a command "
                "takes the same of all. Copy it for one layer after another."
            )
        return line(paths, [each for each in channels if each is not None])

    return checked


def _shown(path: Path, image: Image) -> Callable[[], int | None]:
    """Return what tells which channel a layer shows, or refuses it; in any thread."""
    name, rgb, planes = image.name, bool(image.rgb), all_slices(image)
    data = image.data[0] if image.multiscale else image.data

    def read(part: Plane) -> FloatArray:
        return as_image(part.of(data), name, rgb=rgb)

    return partial(shown_channel, path, name, planes, read, rgb=rgb)


def measure_line(labels: Labels | None, image: Image | None) -> Callable[[], str]:
    """Return what finds the command that measures layers.

    Parameters
    ----------
    labels : Labels or None
        The objects.
    image : Image or None
        For the intensities.

    Returns
    -------
    callable
        Looks at the files, in any thread, and returns the line.

    Raises
    ------
    InputError
        There are no labels, or a layer is not from a file.
    """
    if labels is None:
        raise InputError("There is no labels layer. Segment an image first.")
    path = path_of(labels)
    stack = label_stack(*labels.as_layer_data_tuple()[:2])
    pixels, source, rgb = None, None, False
    index: tuple[int, ...] = ()
    if image is not None:
        source, rgb = path_of(image), bool(image.rgb)
        index = (0,) * len(stack_shape(image))
        pixels = image_of(image, whole(image, index))

    def line() -> str:
        read = read_annotation(path)
        if not np.array_equal(read.labels, np.asarray(stack.labels)):
            raise InputError(changed(stack.name, path))
        channel, size = None, pixel_size(read)
        if source is not None and image is not None and pixels is not None:
            channel = in_file(source, image.name, pixels, index, rgb=rgb).channel
            size = size if size[1] else pixel_size(read_image(source))
        wanted = physical_size(stack)
        return measure_command(
            path,
            _beside(path, ".csv"),
            image=source,
            channel=channel,
            classes=stack.meaning == CLASSES,
            names=[each.name for each in stack.classes],
            # what the layers say wins over what the files say
            size=None if size == wanted else wanted,
        )

    return line


def _beside(path: Path, ending: str) -> Path:
    """Return a file beside another, with its name and an ending."""
    return file_of(path).parent / f"{image_stem(path)}{ending}"
