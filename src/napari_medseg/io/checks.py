"""The data check: what is wrong with images and masks, in sentences."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_medseg._types import FloatArray, LabelArray

AnnotationKind = Literal["dense", "sparse", "instances"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a file.

    Attributes
    ----------
    file : str
        The file's path, or a folder's.
    problem : str
        What is wrong; a clause without a full stop.
    remedy : str
        What to do; a clause without a full stop.
    severity : str
        ``error``: the file cannot be used; ``warning``: it can.
    """

    file: str
    problem: str
    remedy: str
    severity: Literal["error", "warning"]

    def __str__(self) -> str:
        return f"{self.file} {self.problem}: {self.remedy}."


@dataclass(frozen=True, slots=True)
class Examined:
    """What one image and its mask, or a slice of them, turned out to be.

    Attributes
    ----------
    image_path, annotation_path : Path
        The files.
    findings : tuple of Finding
        What is wrong with them by themselves.
    image : ndarray or None
        ``float32 (C, Y, X)``, where it can be used.
    annotation : ndarray or None
        ``int32 (Y, X)``, where it can be used.
    values : tuple of int
        The different values of the annotation, in order.
    rgb : bool
        Whether the image is red, green and blue.
    wide : bool
        Whether the annotation's file stores more than 8 bits.
    place : tuple of str
        Where in a stack it lies, such as ``("t0", "z07")``; empty for a 2D file.
    """

    image_path: Path
    annotation_path: Path
    findings: tuple[Finding, ...]
    image: FloatArray | None = None
    annotation: LabelArray | None = None
    values: tuple[int, ...] = ()
    rgb: bool = False
    wide: bool = False
    place: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether nothing is wrong that keeps the pair from being used."""
        return all(finding.severity == "warning" for finding in self.findings)


def check_channels(examined: Sequence[Examined]) -> list[Finding]:
    """Find images whose number of channels is not that of most.

    Parameters
    ----------
    examined : sequence of Examined
        All pairs.

    Returns
    -------
    list of Finding
        An error for each image that differs; grey images among colour images are used
        as colours, and one warning says so.
    """
    usable = [item for item in examined if item.image is not None and item.usable]
    counts = Counter(_count(item) for item in usable)
    if len(counts) < 2:
        return []
    colours = any(item.rgb for item in usable)
    grey = [item for item in usable if _count(item) == 1] if colours else []
    if grey:
        del counts[1]  # they are seen as colours
    usual = max(counts, key=lambda count: (counts[count], -count))
    told = [
        Finding(
            str(item.image_path),
            f"has {_channels(_count(item))}, but most images have {usual}",
            "use images of one kind, such as all grey or all RGB",
            "error",
        )
        for item in usable
        if _count(item) not in ({usual, 1} if grey else {usual})
    ]
    if grey and not told:
        told = [_among_colours(grey)]
    return told


def _count(item: Examined) -> int:
    """Return the number of channels of an image that was read."""
    return 0 if item.image is None else len(item.image)


def _among_colours(grey: list[Examined]) -> Finding:
    """Say that some images are grey and the others are not."""
    more = len(grey) - 1
    others = f", like {more} other{'s' * (more != 1)}," if more else ""
    return Finding(
        str(grey[0].image_path),
        f"is grey{others} among colour images, and is seen as red, green and blue "
        "that are alike",
        "save all images in grey if colours do not matter",
        "warning",
    )


def _channels(count: int) -> str:
    """Return ``1 channel`` or ``3 channels``."""
    return f"{count} channel{'s' * (count != 1)}"


def check_labels(
    examined: Sequence[Examined], kind: AnnotationKind, ignore: int | None
) -> list[Finding]:
    """Find annotations that teach nothing, or not what they seem to.

    Parameters
    ----------
    examined : sequence of Examined
        All pairs.
    kind : str
        What the values of the annotations mean.
    ignore : int or None
        The value of unlabelled pixels.

    Returns
    -------
    list of Finding
        An annotation without objects is a warning while others have some, and an
        error when none has.
    """
    background = 0
    if kind == "sparse" and ignore is None:
        ignore, background = 0, 1
    usable = [item for item in examined if item.usable and item.values]
    empty = [
        (item, problem)
        for item in usable
        if (problem := _teaches_nothing(item.values, background, ignore))
    ]
    labelled = {value for item in usable for value in item.values if value != ignore}
    hopeless = len(labelled) < 2
    findings = [
        Finding(
            str(item.annotation_path),
            problem,
            "annotate objects and background in at least one image"
            if hopeless
            else "check that this is meant",
            "error" if hopeless else "warning",
        )
        for item, problem in empty
    ]
    if kind == "sparse" and not hopeless and background not in labelled:
        findings.append(_no_background(usable[0].annotation_path.parent, background))
    return findings + _check_values(usable, kind, ignore)


def _no_background(folder: Path, background: int) -> Finding:
    """Say that scribbles never mark the background."""
    return Finding(
        str(folder),
        "holds no scribble of the background in any mask",
        f"mark some background with the value {background}",
        "error",
    )


def _teaches_nothing(
    values: tuple[int, ...], background: int, ignore: int | None
) -> str:
    """Say why an annotation has not two classes; empty where it has."""
    labelled = [value for value in values if value != ignore]
    if not labelled:
        return f"has no labelled pixel (all are {ignore})"
    if labelled == [background]:
        return "is empty (all background)"
    if len(labelled) == 1:
        return f"is one class all over (every labelled pixel is {labelled[0]})"
    return ""


def _check_values(
    usable: Sequence[Examined], kind: AnnotationKind, ignore: int | None
) -> list[Finding]:
    """Look for values that mean something else than the kind says."""
    findings = []
    for item in usable:
        negative = [value for value in item.values if value < 0 and value != ignore]
        if negative:
            findings.append(
                Finding(
                    str(item.annotation_path),
                    f"holds the negative value {negative[0]}",
                    f"label from 0, or set ignore={negative[0]} if it means unlabelled",
                    "error",
                )
            )
    together = {value for item in usable for value in item.values}
    if kind == "dense" and ignore is None and 255 in together and len(together) > 3:
        owner = next(item for item in usable if 255 in item.values)
        findings.append(
            Finding(
                str(owner.annotation_path),
                "holds the value 255 beside the classes, which is taken for a class",
                "set ignore=255 if it means unlabelled",
                "warning",
            )
        )
    return findings
