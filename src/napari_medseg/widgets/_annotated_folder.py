"""A folder of images that are annotated: how far each is, and work on one at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from napari_medseg._types import InputError
from napari_medseg.widgets import _autosave
from napari_medseg.widgets._annotation_files import (
    Entry,
    Opened,
    current_entry,
    is_annotated,
    list_entries,
    open_entry,
)
from napari_medseg.widgets._annotation_note import read_note, write_note
from napari_medseg.widgets._unsaved import is_unsaved

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_medseg._types import LabelArray
    from napari_medseg.widgets._autosave import Keeper


class State(Enum):
    """How far an image is: its mark, and in words."""

    TO_DO = ("○", "to do")
    IN_PROGRESS = ("…", "in progress")
    DONE = ("✓", "done")
    TROUBLE = ("⚠", "cannot be annotated")


@dataclass(frozen=True, slots=True)
class Found:
    """How far an image turned out to be.

    Attributes
    ----------
    entry : Entry
        The image.
    annotated : bool
        Whether there is an annotation with something on it, or somebody said that
        there is nothing.
    state : State
        The mark.
    told : str
        What is wrong, if anything.
    """

    entry: Entry
    annotated: bool
    state: State
    told: str = ""


@dataclass(frozen=True, slots=True)
class AnnotatedFolder:
    """A folder of images, and one for their annotations.

    Attributes
    ----------
    images, annotations : Path
        The folders; the second is made when the first annotation is saved.
    keeper : Keeper
        Keeps what cannot be saved.
    """

    images: Path
    annotations: Path
    keeper: Keeper

    @property
    def kind(self) -> str | None:
        """What the values mean, where it is noted beside the annotations."""
        return read_note(self.annotations).kind

    @property
    def start_from(self) -> str:
        """The model that Tune goes on from; here it begins afresh."""
        return ""

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the images that are trained on; here all."""
        return ()

    def note_kind(self, kind: str) -> None:
        """Note what the values mean, where there are annotations.

        Raises
        ------
        InputError
            The note cannot be written.
        """
        if self.annotations.is_dir():
            self._note(kind=kind)

    def listed(self) -> list[Found]:
        """List the images, without reading any: what has a mask passes for done.

        Raises
        ------
        InputError
            The folder cannot be listed, or there is no image in it.
        """
        entries = list_entries(self.images, self.annotations)
        if not entries:
            raise InputError(
                f"{self.images} holds no images (TIFF, PNG, JPEG, BMP, NumPy, "
                "OME-Zarr). Choose the folder that holds them."
            )
        kept, empty = _autosave.kept_names(), read_note(self.annotations).empty
        found = []
        for entry in entries:
            annotated = entry.mask is not None or entry.name in empty
            state = State.DONE if annotated else State.TO_DO
            identity = _autosave.file_identity(entry.path) if kept else ""
            if identity in kept and is_unsaved(entry):
                state = State.IN_PROGRESS
            if entry.trouble:
                annotated, state = False, State.TROUBLE
            found.append(Found(entry, annotated, state, entry.trouble))
        return found

    def looked_at(self, listed: Sequence[Found]) -> list[Found]:
        """Read the annotations of some images: those that are empty are not done."""
        empty = read_note(self.annotations).empty
        found = []
        for item in listed:
            try:
                annotated = is_annotated(item.entry) or item.entry.name in empty
            except InputError as error:
                found.append(Found(item.entry, False, State.TROUBLE, str(error)))
                continue
            if not annotated and item.state is State.DONE:
                item = replace(item, state=State.TO_DO)
            found.append(replace(item, annotated=annotated))
        return found

    def open(self, entry: Entry) -> Opened:
        """Read an image, its annotation as it is now, and what was kept of it.

        Raises
        ------
        InputError
            One of them cannot be used.
        """
        return open_entry(current_entry(self.images, self.annotations, entry))

    def save(
        self,
        opened: Opened,
        labels: LabelArray,
        kind: str,
        *,
        done: bool = False,
        replacing: bool = False,
    ) -> bool:
        """Save an annotation; what cannot be saved is kept for the next time.

        Parameters
        ----------
        opened : Opened
            The image.
        labels : ndarray
            ``int (..., Y, X)``.
        kind : str
            What the values mean.
        done : bool
            Whether the user says that it is done, even if nothing is on it. Scribbles
            without any stroke say nothing, and are never done.
        replacing : bool
            Replace also what another program wrote meanwhile.

        Returns
        -------
        bool
            Whether the image is done.

        Raises
        ------
        InputError
            It cannot be saved.
        """
        entry, file = opened.entry, opened.file
        done = done and kind != "sparse"
        try:
            file.save(labels, keep_empty=done, replace=replacing)
        except (InputError, OSError, MemoryError):
            identity = _autosave.file_identity(entry.path)
            self.keeper.keep(identity, labels, kind)
            raise
        empty = read_note(self.annotations).empty
        if file.has_objects:
            empty -= {entry.name}
        elif done:
            empty |= {entry.name}
        if file.is_there:
            self._note(kind=kind, empty=empty)
        return file.has_objects or entry.name in empty

    def _note(self, *, kind: str, empty: frozenset[str] | None = None) -> None:
        note = replace(read_note(self.annotations), kind=kind)
        if empty is not None:
            note = replace(note, empty=empty)
        try:
            write_note(self.annotations, note)
        except OSError as error:
            raise InputError(
                f"The note in {self.annotations} cannot be written "
                f"({error.strerror}). Check the rights of the folder."
            ) from error
