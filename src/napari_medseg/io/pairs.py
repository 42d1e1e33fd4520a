"""Pairs of image and annotation: read, checked, and turned into class maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from napari_medseg._types import InputError, LabelArray
from napari_medseg.io.channel_choice import ALL, ChannelChoice
from napari_medseg.io.checks import (
    AnnotationKind,
    Examined,
    Finding,
    check_channels,
    check_labels,
)
from napari_medseg.io.examine import examine
from napari_medseg.io.images import image_stem
from napari_medseg.io.pair_set import Pair, Pairs, alike, class_values_of
from napari_medseg.io.stems import Matching, match, match_files

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = [
    "AnnotationKind",
    "Finding",
    "Pair",
    "Pairs",
    "as_annotation",
    "check_pairs",
    "gather",
    "match_files",
    "read_pairs",
]

Annotation = Literal["dense", "sparse", "instances", "auto"]


MOST_CLASSES = 20
"""With more different values than these, a mask holds objects, not classes."""

MOSTLY = 0.75
"""Share of labels in one piece, and of a label in its largest piece, of objects."""

NO_MASK = "has no mask and is left out"
"""What `Finding.problem` says of an image that is not annotated."""

MOST_SENTENCES = 20
"""Most errors that one message lists."""


def as_annotation(name: str) -> Annotation:
    """Return a kind of annotation that a user named.

    Parameters
    ----------
    name : str
        What was typed.

    Returns
    -------
    {"dense", "sparse", "instances", "auto"}
        The same.

    Raises
    ------
    InputError
        There is no such kind.
    """
    for kind in get_args(Annotation):
        if name == kind:
            known: Annotation = kind
            return known
    raise InputError(
        f"{name!r} is not a kind of annotation; choose one of "
        f"{', '.join(get_args(Annotation))}."
    )


def read_pairs(
    images: str | Path,
    masks: str | Path,
    *,
    annotation: Annotation = "auto",
    ignore: int | None = None,
    channels: ChannelChoice = ALL,
) -> Pairs:
    """Read annotated images; of stacks the slices that are annotated.

    ``auto`` takes masks for objects (``instances``) when they hold more than 20
    different values, or when they are stored in more than 8 bits, hold at least
    three labels and nearly every label is a single piece; or when each image counts
    its labels 1, 2, 3, … to an end of its own, again in single pieces. Otherwise they
    are classes (``dense``). Scribbles (``sparse``) cannot be told from classes: say so.

    Parameters
    ----------
    images, masks : str or Path
        Two folders, in which folders of one name belong together too; or one
        folder, where endings tell masks from images; or one file each.
    annotation : str
        What the masks' values mean. ``dense``: 0 background, each other value a
        class. ``sparse``: 0 unlabelled, 1 background, 2… classes. ``instances``:
        each value one object.
    ignore : int, optional
        The value of unlabelled pixels. With sparse annotations it takes the part
        of 0, which is then background.
    channels : ChannelChoice
        Which channels of the images are used; by default all.

    Returns
    -------
    Pairs
        With the warnings in `Pairs.findings`.

    Raises
    ------
    InputError
        Nothing matches, a match is ambiguous, or files cannot be used; each is
        named on a line of its own.
    """
    matching = match(Path(images), Path(masks))
    examined = [item for paths in matching.pairs for item in examine(*paths, channels)]
    kind, findings = _assess(matching, examined, annotation, ignore)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        lines = [str(finding) for finding in errors[:MOST_SENTENCES]]
        if len(errors) > MOST_SENTENCES:
            lines.append(f"… and {len(errors) - MOST_SENTENCES} more.")
        raise InputError("\n".join(lines))
    read = [_pair(item, Path(images)) for item in examined if item.image is not None]
    if not read:
        raise InputError("\n".join(str(finding) for finding in findings))
    pairs = _build(alike(read), kind, ignore, findings)
    return replace(pairs, shown=channels.chosen)


def check_pairs(
    images: str | Path,
    masks: str | Path,
    kind: Annotation = "auto",
    ignore: int | None = None,
    channels: ChannelChoice = ALL,
) -> list[Finding]:
    """Check images and masks without raising for a bad file.

    Parameters
    ----------
    images, masks : str or Path
        As for `read_pairs`.
    kind : str
        What the masks' values mean.
    ignore : int, optional
        The value of unlabelled pixels.
    channels : ChannelChoice
        Which channels of the images are used; by default all.

    Returns
    -------
    list of Finding
        Errors first; empty when all is well.
    """
    try:
        matching = match(Path(images), Path(masks))
    except InputError as error:
        problem, _, remedy = str(error).rstrip(".").rpartition(". ")
        return [Finding(str(masks), f"cannot be matched ({problem})", remedy, "error")]
    examined = [item for paths in matching.pairs for item in examine(*paths, channels)]
    findings = _assess(matching, examined, kind, ignore)[1]
    return sorted(findings, key=lambda finding: finding.severity)


def gather(
    pairs: Iterable[Pair], *, annotation: Annotation = "auto", ignore: int | None = None
) -> Pairs:
    """Make `Pairs` of images that are in memory, such as layers.

    Parameters
    ----------
    pairs : iterable of Pair
        The pairs; names and arrays suffice.
    annotation, ignore
        As for `read_pairs`.

    Returns
    -------
    Pairs
        With classes decided over all pairs.

    Raises
    ------
    InputError
        There is no pair, or shapes and channels do not fit.
    """
    listed = list(pairs)
    if not listed:
        raise InputError("There is no annotated image. Annotate at least one.")
    for pair in listed:
        if pair.image.ndim != 3 or pair.image.shape[1:] != pair.annotation.shape:
            raise InputError(
                f"{pair.name}: the image is {pair.image.shape}, the annotation "
                f"{pair.annotation.shape}. Annotate on a layer of the image's size."
            )
    listed = alike(listed)
    for pair in listed:
        if len(pair.image) != len(listed[0].image):
            raise InputError(
                f"{pair.name} has {len(pair.image)} channels, but {listed[0].name} has "
                f"{len(listed[0].image)}. Use images of one kind."
            )
    # Layers are often stored wide whatever they hold, so width says nothing here.
    labels = [pair.annotation for pair in listed]
    kind = _detect(labels, wide=False)[0] if annotation == "auto" else annotation
    return _build(listed, kind, ignore, [])


def _pair(item: Examined, root: Path) -> Pair:
    """Make a pair of files that were found good; the name tells a folder inside."""
    if item.image is None or item.annotation is None:
        raise InputError(f"{item.image_path} could not be read. Check the file.")
    parent = item.image_path.parent
    inside = parent.relative_to(root) if parent.is_relative_to(root) else Path()
    return Pair(
        " ".join([(inside / image_stem(item.image_path)).as_posix(), *item.place]),
        item.image,
        item.annotation,
        item.image_path,
        item.annotation_path,
        rgb=item.rgb,
        stack=str(item.image_path) if item.place else "",
    )


def _build(
    pairs: list[Pair],
    kind: AnnotationKind,
    ignore: int | None,
    findings: list[Finding],
) -> Pairs:
    """Decide the classes over all pairs."""
    values = class_values_of(
        [np.unique(pair.annotation).tolist() for pair in pairs], kind, ignore
    )
    done = tuple(replace(pair, class_values=values, ignore=ignore) for pair in pairs)
    return Pairs(done, kind, values, tuple(findings))


def _assess(
    matching: Matching,
    examined: list[Examined],
    annotation: Annotation,
    ignore: int | None,
) -> tuple[AnnotationKind, list[Finding]]:
    """Return the kind of annotation and everything that was found."""
    findings = [finding for item in examined for finding in item.findings]
    findings += check_channels(examined)
    usable = [item for item in examined if item.usable and item.image is not None]
    labels = [item.annotation for item in usable if item.annotation is not None]
    kind: AnnotationKind = "dense"
    if annotation != "auto":
        kind = annotation
    elif labels:
        kind, doubtful = _detect(labels, any(item.wide for item in usable))
        if doubtful:
            findings.append(
                Finding(
                    str(usable[0].annotation_path.parent),
                    "holds masks whose values are taken for objects, because nearly "
                    "each is one piece",
                    'choose "dense" if the values are classes',
                    "warning",
                )
            )
    findings += check_labels(examined, kind, ignore)
    lonely = ((matching.images, "mask"), (matching.masks, "image"))
    for paths, missing in lonely:
        findings += [
            Finding(
                str(path),
                NO_MASK if missing == "mask" else f"has no {missing} and is left out",
                f"give it a {missing} of the same name to use it"
                if missing == "mask"
                else "give it the name of its image to use it",
                "warning",
            )
            for path in paths
        ]
    return kind, findings


def _detect(labels: list[LabelArray], wide: bool) -> tuple[AnnotationKind, bool]:
    """Tell objects from classes; also whether the answer is in doubt."""
    values = [np.unique(item[item != 0]) for item in labels]
    together = np.unique(np.concatenate(values))
    if len(together) >= MOST_CLASSES:  # the background is the twenty-first
        return "instances", False
    if not (_numbered(values) or (wide and len(together) >= 3)):
        return "dense", False
    whole = [
        _one_piece(item == value)
        for item, own in zip(labels, values, strict=True)
        for value in own
    ]
    return ("instances", True) if np.mean(whole) >= MOSTLY else ("dense", False)


def _one_piece(region: NDArray[np.bool_]) -> bool:
    """Tell whether a label is one piece, but for crumbs and small cut-off parts."""
    from scipy.ndimage import label

    pieces = np.asarray(label(region, np.ones((3, 3)))[0])
    sizes = np.bincount(pieces.ravel())[1:]
    return bool(sizes.max() >= MOSTLY * sizes.sum())


def _numbered(values: list[NDArray[np.int32]]) -> bool:
    """Tell whether each image counts 1, 2, 3, … to an end of its own, as objects do."""
    ends = {len(own) for own in values if len(own)}
    whole = all(len(own) == 0 or own[-1] == len(own) for own in values)
    return whole and len(ends) >= 3 and max(ends) >= 4
