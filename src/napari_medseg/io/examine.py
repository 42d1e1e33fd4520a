"""Reading an image with its annotation, and saying what is wrong with them.

Stacks are taken slice by slice. A slice without any value but 0 is not annotated yet,
and is left out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg._types import FloatArray, InputError, LabelArray
from napari_medseg.io.channel_choice import ALL, ChannelChoice
from napari_medseg.io.checks import Examined, Finding
from napari_medseg.io.images import ImageFile, LabelImage, read_annotation, read_image
from napari_medseg.io.raster import is_turned

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SMALLEST_SIDE = 8
"""Images with fewer rows or columns (pixels) hold nothing to learn from."""


def examine(
    image_path: Path, annotation_path: Path, choice: ChannelChoice = ALL
) -> list[Examined]:
    """Read an image and its annotation once, and say what is wrong.

    Parameters
    ----------
    image_path, annotation_path : Path
        The files.
    choice : ChannelChoice
        Which channels of the image are used.

    Returns
    -------
    list of Examined
        One, or of two stacks one for each annotated slice; findings instead of
        exceptions. At least one, without an image where nothing can be used.
    """
    findings: list[Finding] = []
    picture = _read_image(image_path, choice, findings)
    mask = _read_mask(annotation_path, findings)
    if picture is None or mask is None or not _fit(picture, mask, findings):
        return [Examined(image_path, annotation_path, tuple(findings))]
    found = [
        _slice(picture, annotation_path, mask, labels, index)
        for index, labels in _annotated(picture, mask)
    ]
    if is_turned(image_path):
        turned = Finding(
            str(image_path),
            "is a photograph with a note (EXIF) to show it turned, which is not "
            "followed; many programs do",
            "if its mask was drawn on the turned one, save the photograph upright, as "
            "PNG or TIFF",
            "warning",
        )
        found[:1] = [
            replace(each, findings=(turned, *each.findings)) for each in found[:1]
        ]
    if not found:
        findings.append(
            Finding(
                str(annotation_path),
                "is a stack without an annotated slice and is left out",
                "paint on at least one slice to use it",
                "warning",
            )
        )
    return found or [Examined(image_path, annotation_path, tuple(findings))]


def _fit(picture: ImageFile, mask: LabelImage, findings: list[Finding]) -> bool:
    """Tell whether two files have the same slices; a finding says if not."""
    own, other = _lengths(picture.axes, picture.data.shape), mask.labels.shape[:-2]
    if own == other:
        return True
    findings.append(
        Finding(
            str(picture.path),
            f"is {_stack(own)}, but its mask is {_stack(other)}",
            "save the mask with a slice for each slice of the image, empty where it "
            "is not annotated, or both as 2D files",
            "error",
        )
    )
    return False


def _lengths(axes: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    sizes = zip(axes, shape, strict=True)
    return tuple(length for letter, length in sizes if letter in "TZ")


def _stack(lengths: tuple[int, ...]) -> str:
    """Return ``a 2D image`` or ``a stack of 12 slices``."""
    count = int(np.prod(lengths))
    return f"a stack of {count} slices" if lengths else "a 2D image"


def _annotated(
    picture: ImageFile, mask: LabelImage
) -> Iterator[tuple[Mapping[str, int], LabelArray]]:
    """Give the annotated slices; the only one, whatever is on it, of a 2D image."""
    for index in picture.indices():
        labels = mask.labels[tuple(index.values())]
        if not index or labels.any():
            yield index, labels


def _slice(
    picture: ImageFile,
    annotation_path: Path,
    mask: LabelImage,
    labels: LabelArray,
    index: Mapping[str, int],
) -> Examined:
    """Examine one slice, or the only one."""
    findings: list[Finding] = []
    image: FloatArray | None = None
    try:
        image = picture.region(index)
    except InputError as error:
        findings.append(_as_finding(picture.path, error))
    place = tuple(
        f"{letter.lower()}{number:0{len(str(_length(picture, letter) - 1))}}"
        for letter, number in index.items()
    )
    if image is not None:
        file = " ".join([str(picture.path), *place])
        _check_image(file, image, findings)
        _check_sizes(picture.path, image, annotation_path, labels, findings)
    return Examined(
        picture.path,
        annotation_path,
        tuple(findings),
        image,
        labels,
        tuple(np.unique(labels).tolist()),
        rgb=picture.rgb,
        wide=mask.wide,
        place=place,
    )


def _length(picture: ImageFile, letter: str) -> int:
    return int(picture.data.shape[picture.axes.index(letter)])


def _read_image(
    path: Path, choice: ChannelChoice, findings: list[Finding]
) -> ImageFile | None:
    """Read an image; a failure becomes a finding."""
    try:
        return choice.of(read_image(path))
    except InputError as error:
        findings.append(_as_finding(path, error))
        return None


def _read_mask(path: Path, findings: list[Finding]) -> LabelImage | None:
    """Read an annotation; a failure becomes a finding."""
    try:
        return read_annotation(path)
    except InputError as error:
        findings.append(_as_finding(path, error))
        return None


def _as_finding(path: Path, error: InputError) -> Finding:
    """Take the reader's sentences apart: file, problem, remedy."""
    text = str(error).removeprefix(str(path)).strip().rstrip(".")
    problem, _, remedy = text.rpartition(". ")
    return Finding(str(path), problem or "cannot be used", remedy, "error")


def _check_image(file: str, image: FloatArray, findings: list[Finding]) -> None:
    """Look for images without content."""
    rows, columns = image.shape[1:]
    if min(rows, columns) < SMALLEST_SIDE:
        findings.append(
            Finding(
                file,
                f"is only {columns} × {rows} pixels",
                f"use images of at least {SMALLEST_SIDE} × {SMALLEST_SIDE} pixels",
                "error",
            )
        )
        return
    finite = np.isfinite(image)
    if not finite.any():
        findings.append(
            Finding(file, "has no finite value (NaN)", "export it again", "error")
        )
        return
    values = image[finite]
    if values.min() == values.max():
        findings.append(
            Finding(
                file,
                f"is constant (every pixel is {values[0]:g})",
                "leave it out, or export it again",
                "warning",
            )
        )


def _check_sizes(
    image_path: Path,
    image: FloatArray,
    annotation_path: Path,
    labels: LabelArray,
    findings: list[Finding],
) -> None:
    """Compare the sizes of image and mask."""
    own, other = image.shape[1:], labels.shape
    if own == other:
        return
    turned = " (rows and columns are swapped)" if own == other[::-1] else ""
    findings.append(
        Finding(
            str(annotation_path),
            f"is {other[1]} × {other[0]} pixels, but its image {image_path.name} is "
            f"{own[1]} × {own[0]}{turned}",
            "export image and mask at the same size",
            "error",
        )
    )
