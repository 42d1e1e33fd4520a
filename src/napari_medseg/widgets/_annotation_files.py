"""The images of a folder with their annotation files: found, read, saved."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg._types import InputError, LabelArray
from napari_medseg.io.images import (
    ImageFile,
    image_files,
    image_stem,
    read_annotation,
    read_image,
    write_labels,
)
from napari_medseg.io.stems import masks_of, several_masks, told_apart
from napari_medseg.widgets._annotation_note import ANNOTATIONS, FILE
from napari_medseg.widgets._unsaved import unsaved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_medseg.widgets._autosave import Kept

ORIGINALS = "originals"
"""Folder in that of the annotations for masks in formats that are not written here."""

Stamp = tuple[int, int]
"""When a file was written, in nanoseconds, and its size in bytes."""


class MaskChangedError(InputError):
    """A mask was written by another program since it was read."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An image of a folder.

    Attributes
    ----------
    path : Path
        The image.
    name : str
        What the list calls it: its place in the folder.
    mask : Path or None
        Its annotation, where there is one.
    target : Path
        Where its annotation is saved.
    trouble : str
        Why it cannot be annotated; empty where it can.
    remark : str
        What the list says of it besides; mostly empty.
    """

    path: Path
    name: str
    mask: Path | None
    target: Path
    trouble: str = ""
    remark: str = ""


def list_entries(images: Path, annotations: Path) -> list[Entry]:
    """List the images of a folder, those of folders in it included.

    Folders of annotations are passed over. Where images and annotations lie in one
    folder, endings such as ``_mask`` tell them apart, and folders in it are left out.

    Parameters
    ----------
    images, annotations : Path
        The folders; that of the annotations need not exist.

    Returns
    -------
    list of Entry
        ``img2`` before ``img10``, and what lies in folders at the end.

    Raises
    ------
    InputError
        A folder is missing or may not be read.
    """
    together = images.resolve() == annotations.resolve()
    by_folder: dict[Path, list[Path]] = {}
    for path in image_files(images, recursive=not together):
        by_folder.setdefault(path.parent, []).append(path)
    entries: list[Entry] = []
    for folder, paths in by_folder.items():
        inside = folder.relative_to(images)
        if together or not _holds_annotations(images, inside, annotations):
            entries += _entries_of(images, folder, paths, annotations / inside)
    return sorted(entries, key=lambda entry: _natural(Path(entry.name)))


def current_entry(images: Path, annotations: Path, entry: Entry) -> Entry:
    """Return an entry as it is now: a mask may have come or gone since."""
    folder = entry.path.parent
    inside = folder.relative_to(images)
    found = _entries_of(images, folder, image_files(folder), annotations / inside)
    return next((item for item in found if item.path == entry.path), entry)


def _holds_annotations(images: Path, inside: Path, annotations: Path) -> bool:
    """Tell whether a folder among the images is, or lies in, one of annotations."""
    parts = inside.parts
    above = [images.joinpath(*parts[: depth + 1]) for depth in range(len(parts))]
    return any(
        folder.name == ANNOTATIONS
        or (folder / FILE).is_file()
        or folder.resolve() == annotations.resolve()
        for folder in above
    )


def _entries_of(
    images: Path, folder: Path, paths: list[Path], masks: Path
) -> list[Entry]:
    """Return the images of one folder, with what belongs to each."""
    beside = masks.resolve() == folder.resolve()
    if beside:
        paths, found_masks = told_apart(paths)
    else:
        found_masks = image_files(masks) if masks.is_dir() else []
    by_stem = {image_stem(path): path for path in paths}
    masks_by_image, _ = masks_of(by_stem, found_masks)
    # some systems take names that differ in capitals for the same
    alike: dict[str, list[Path]] = {}
    for path in paths:
        alike.setdefault(image_stem(path).casefold(), []).append(path)
    entries = []
    for path in paths:
        stem = image_stem(path)
        own = masks_by_image.get(path, [])
        trouble = ""
        if len(alike[stem.casefold()]) > 1:
            trouble = _twins(alike[stem.casefold()])
        elif len(own) > 1:
            trouble = str(several_masks(path, own))
        mask = own[0] if own else None
        new = f"{stem}_mask.tif" if beside else f"{stem}.tif"
        target = masks / new if mask is None else _as_tiff(mask)
        name = path.relative_to(images).as_posix()
        entries.append(Entry(path, name, mask, target, trouble))
    return entries


def _twins(paths: Sequence[Path]) -> str:
    names = " and ".join(path.name for path in paths)
    return (
        f"{names} have the same name but for the ending, so their annotations could "
        "not be told apart. Rename or remove one."
    )


def _as_tiff(mask: Path) -> Path:
    """Return where an annotation that was read from some format is saved."""
    if mask.suffix.lower() in (".tif", ".tiff"):
        return mask
    return mask.with_name(f"{image_stem(mask)}.tif")


def _natural(path: Path) -> list[tuple[bool, list[str | int]]]:
    """Return by what paths are sorted so that 2 comes before 10."""
    last = len(path.parts) - 1
    return [
        (place < last, _in_parts(part.casefold()))
        for place, part in enumerate(path.parts)
    ]


def _in_parts(text: str) -> list[str | int]:
    """Return a text's words and numbers in turn."""
    return [
        int(part) if place % 2 else part
        for place, part in enumerate(re.split("([0-9]+)", text))
    ]


class AnnotationFile:
    """The annotation of one image, as it was last read or written.

    Used by one thread at a time.

    Parameters
    ----------
    entry : Entry
        The image.
    image : ImageFile
        The image, read.

    Attributes
    ----------
    labels : ndarray or None
        ``int32 (..., Y, X)``: what the file held when it was read; to be drawn on.
    has_objects : bool
        Whether there is anything on it.

    Raises
    ------
    InputError
        There is an annotation that cannot be read, or that is of another size.
    """

    def __init__(self, entry: Entry, image: ImageFile) -> None:
        self._image = image
        self._target = entry.target
        self._mask = entry.mask
        self._stamp = None if entry.mask is None else _stamp(entry.mask)
        self._digest = b""
        self.labels: LabelArray | None = None
        if entry.mask is not None:
            self.labels = read_annotation(entry.mask).labels
            self._check(self.labels, str(entry.mask))
            self._digest = digest_of(self.labels)
        self.has_objects = self.labels is not None and bool(self.labels.any())

    @property
    def is_there(self) -> bool:
        """Whether there is a file."""
        return self._mask is not None

    @property
    def axes(self) -> str:
        """Letters of the annotation's axes: those of the image without channels."""
        return self._image.axes.replace("C", "")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the annotation."""
        lengths = zip(self._image.axes, self._image.data.shape, strict=True)
        return tuple(length for letter, length in lengths if letter != "C")

    def save(
        self, labels: LabelArray, *, keep_empty: bool = False, replace: bool = False
    ) -> None:
        """Write the annotation, where it is not what is there already.

        Parameters
        ----------
        labels : ndarray
            ``int (..., Y, X)``.
        keep_empty : bool
            Write it even if nothing is on it and there is no file yet.
        replace : bool
            Replace also what another program wrote meanwhile.

        Raises
        ------
        MaskChangedError
            Another program wrote the file meanwhile.
        InputError
            It cannot be written.
        """
        labels = np.asarray(labels)
        self._check(labels, "The annotation")
        digest, has_objects = digest_of(labels), bool(labels.any())
        is_nothing = self._mask is None and not (has_objects or keep_empty)
        if is_nothing or digest == self._digest:
            return
        self._refuse_changed(replace=replace)
        image = self._image
        write_labels(
            self._target, labels, axes=self.axes, scale=image.scale, units=image.units
        )
        if self._mask is not None and self._mask != self._target:
            _set_aside(self._mask)
        self._mask, self._stamp = self._target, _stamp(self._target)
        self._digest, self.has_objects = digest, has_objects

    def _check(self, labels: LabelArray, what: str) -> None:
        if labels.shape != self.shape:
            raise InputError(
                f"{what} has the shape {labels.shape}, but its image "
                f"{self._image.path} has {self.shape}. Use an annotation of the "
                "image's size, or choose another folder for the annotations."
            )

    def _refuse_changed(self, *, replace: bool) -> None:
        """Raise where the files are not as this program left them."""
        # a mask in a format that is not written here gets a new name beside it
        expected = {self._target: None, self._mask or self._target: self._stamp}
        for place, stamp in expected.items():
            found = _stamp(place)
            if found is not None and found != stamp and not replace:
                raise MaskChangedError(
                    f"{place} was written by another program while you drew. Press "
                    "Save to put yours in its place, or open the image again to see "
                    "the other."
                )


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """An image of a folder, read.

    Attributes
    ----------
    entry : Entry
        Which.
    image : ImageFile
        The image.
    file : AnnotationFile
        Its annotation.
    kept : Kept or None
        What was drawn on it, but not saved, before the viewer ended.
    """

    entry: Entry
    image: ImageFile
    file: AnnotationFile
    kept: Kept | None = None


def open_entry(entry: Entry) -> Opened:
    """Read an image and its annotation.

    Raises
    ------
    InputError
        One of them cannot be used.
    """
    if entry.trouble:
        raise InputError(entry.trouble)
    image = read_image(entry.path)
    file = AnnotationFile(entry, image)
    return Opened(entry, image, file, unsaved(entry, file))


def is_annotated(entry: Entry) -> bool:
    """Tell whether there is anything on the annotation of an image.

    Raises
    ------
    InputError
        It cannot be read.
    """
    if entry.mask is None:
        return False
    return bool(read_annotation(entry.mask).labels.any())


def _stamp(path: Path) -> Stamp | None:
    """Return when a file was written, and its size; None where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def digest_of(labels: LabelArray) -> bytes:
    """Return what tells labels from others of the same shape."""
    plain = np.ascontiguousarray(labels, np.int32)
    return hashlib.blake2b(plain.data, digest_size=16).digest()


def _set_aside(mask: Path) -> None:
    """Move a mask out of the way of the TIFF that takes its place."""
    folder = mask.parent / ORIGINALS
    place, number = folder / mask.name, 1
    try:
        folder.mkdir(exist_ok=True)
        while place.exists():
            number += 1
            place = folder / f"{mask.stem} {number}{mask.suffix}"
        mask.rename(place)
    except OSError as error:
        raise InputError(
            f"{mask} cannot be moved to {folder} ({error.strerror}), so that the image "
            "now has two masks. Move or remove it yourself."
        ) from error
