"""Results of a run that are corrected and accepted, as a folder that is annotated."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg._types import InputError
from napari_medseg.io.images import read_annotation, read_image
from napari_medseg.widgets import _autosave
from napari_medseg.widgets._annotated_folder import AnnotatedFolder, Found, State
from napari_medseg.widgets._annotation_files import (
    AnnotationFile,
    Entry,
    Opened,
    digest_of,
)
from napari_medseg.widgets._annotation_note import read_note
from napari_medseg.widgets._reviewed_run import Result, fitted
from napari_medseg.widgets._unsaved import unsaved

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_medseg._types import LabelArray
    from napari_medseg.io.images import ImageFile
    from napari_medseg.widgets._training_folder import TrainingFolder


class Draft(AnnotationFile):
    """A correction that is not accepted; it begins as what was predicted.

    Parameters
    ----------
    entry : Entry
        The image, and where the correction lies.
    image : ImageFile
        The image, read.
    predicted : ndarray
        ``int32 (..., Y, X)``. Unchanged, it is not written.
    """

    def __init__(self, entry: Entry, image: ImageFile, predicted: LabelArray) -> None:
        super().__init__(entry, image)
        if self.labels is None:
            self._check(predicted, "The result")
            self.labels = predicted
            self._digest = digest_of(predicted)


@dataclass(frozen=True, slots=True)
class ReviewedFolder(AnnotatedFolder):
    """Results of a run; what is accepted joins the training images.

    Attributes
    ----------
    training : TrainingFolder
        The training images: `images` and `annotations` are in it.
    results : tuple of Result
        In the order of the list.
    meaning : str
        What the values of masks mean: ``dense`` or ``instances``.
    objects : bool
        Whether results are objects, or else classes.
    values : tuple of int
        Mask value of each class, where it is not its place.
    model : str
        The model that Tune goes on from; empty for none.
    chosen : tuple of str
        Results to annotate next, by name.
    seen : tuple of int
        Channels of the images that the model sees; empty for all.
    """

    training: TrainingFolder
    results: tuple[Result, ...]
    meaning: str
    objects: bool = False
    values: tuple[int, ...] = ()
    model: str = ""
    chosen: tuple[str, ...] = ()
    seen: tuple[int, ...] = ()
    _accepted: dict[Path, AnnotationFile] = field(default_factory=dict)

    @property
    def kind(self) -> str | None:
        """What the values mean."""
        return self.meaning

    @property
    def start_from(self) -> str:
        """The model that Tune goes on from."""
        return self.model

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the images that Tune goes on with."""
        return self.seen

    def note_kind(self, kind: str) -> None:
        """Change nothing: accepted masks are as those that are there."""

    def listed(self) -> list[Found]:
        """List the results, without reading any.

        Raises
        ------
        InputError
            What was accepted cannot be told.
        """
        record = self.training.record()
        return [self._found(result, record) for result in self.results]

    def _found(self, result: Result, record: dict[str, str]) -> Found:
        draft = self.training.draft(result.name)
        mask = self._mask(result.source, record)
        there = draft if draft.is_file() else None
        place = self.results.index(result) if result.name in self.chosen else None
        remarks = (
            "" if result.quality is None else f"Dice {result.quality:.2f}?",
            "" if place is None else f"next {place + 1}",
            "" if there is None else "corrected",
        )
        remark = ", ".join(filter(None, remarks))
        trouble = ""
        if result.source.parent.resolve() == self.images.resolve():
            trouble = "It is one of the training images: correct it in Annotate."
        entry = Entry(result.source, result.name, mask or there, draft, trouble, remark)
        state = State.TO_DO if mask is None else State.DONE
        state = State.TROUBLE if trouble else state
        return Found(entry, mask is not None, state, trouble)

    def _mask(self, source: Path, record: dict[str, str]) -> Path | None:
        """Return the mask of an image that was accepted."""
        stem = record.get(str(source))
        mask = None if stem is None else self.training.mask(stem)
        return mask if mask is not None and mask.is_file() else None

    def looked_at(self, listed: Sequence[Found]) -> list[Found]:
        """Return what is known: also an empty mask was accepted."""
        return list(listed)

    def open(self, entry: Entry) -> Opened:
        """Read an image, with what was accepted, corrected or predicted of it.

        Raises
        ------
        InputError
            One of them cannot be used.
        """
        if entry.trouble:
            raise InputError(entry.trouble)
        result = next(each for each in self.results if each.name == entry.name)
        image = read_image(entry.path)
        mask = self._mask(entry.path, self.training.record())
        self._accepted.pop(entry.path, None)
        if mask is not None:
            now = replace(entry, mask=mask, target=mask)
            file = self._accepted[entry.path] = AnnotationFile(now, image)
            if file.labels is not None:
                file.labels = self._to_classes(file.labels)
            return Opened(now, image, file, unsaved(now, file))
        draft = entry.target
        now = replace(entry, mask=draft if draft.is_file() else None)
        found = read_annotation(result.labels).labels
        predicted = fitted(found, self.meaning, objects=self.objects)
        correction = Draft(now, image, predicted)
        return Opened(now, image, correction, unsaved(now, correction))

    def save(
        self,
        opened: Opened,
        labels: LabelArray,
        kind: str,
        *,
        done: bool = False,
        replacing: bool = False,
    ) -> bool:
        """Accept a correction, or keep it for the next time.

        Parameters
        ----------
        opened : Opened
            The image.
        labels : ndarray
            ``int (..., Y, X)``.
        kind : str
            Not needed here: `meaning` counts.
        done : bool
            Whether the user accepts it. What was accepted once stays so.
        replacing : bool
            Replace also what another program wrote meanwhile.

        Returns
        -------
        bool
            Whether the image is accepted.

        Raises
        ------
        InputError
            It cannot be saved.
        """
        path = opened.entry.path
        try:
            if path not in self._accepted and not done:
                opened.file.save(labels, keep_empty=True, replace=replacing)
                return False
            self._accept(opened, labels, replacing=replacing)
        except (InputError, OSError, MemoryError):
            self._keep(opened, labels)
            raise
        return True

    def _accept(self, opened: Opened, labels: LabelArray, *, replacing: bool) -> None:
        path = opened.entry.path
        written = self._to_values(labels)
        file = self._accepted.get(path)
        if file is None:
            mask = self.training.mask(self.training.add(path))
            now = replace(opened.entry, mask=None, target=mask)
            file = AnnotationFile(now, opened.image)
        file.save(written, keep_empty=True, replace=replacing)
        self._accepted[path] = file
        self.training.draft(opened.entry.name).unlink(missing_ok=True)
        if read_note(self.annotations).kind is None:
            self._note(kind=self.meaning)

    def _keep(self, opened: Opened, labels: LabelArray) -> None:
        identity = _autosave.file_identity(opened.entry.path)
        self.keeper.keep(identity, labels, self.meaning)

    def _to_values(self, labels: LabelArray) -> LabelArray:
        """Return classes as the masks of the model have them."""
        if self.meaning != "dense" or not self.values:
            return labels
        highest = int(labels.max(initial=0))
        if highest >= len(self.values):
            raise InputError(
                f"Label {highest} is no class of the model, which has classes up to "
                f"{len(self.values) - 1}. Paint with those, and accept it then."
            )
        return np.asarray(self.values, np.int32)[labels]

    def _to_classes(self, written: LabelArray) -> LabelArray:
        """Return what `_to_values` was given."""
        if self.meaning != "dense" or not self.values:
            return written
        classes = np.zeros_like(written)
        for place, value in enumerate(self.values):
            classes[written == value] = place
        return classes
