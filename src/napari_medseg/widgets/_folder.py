"""Working through a folder of images: opened one by one, what is drawn is saved."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_medseg._types import InputError
from napari_medseg.widgets._annotated_folder import AnnotatedFolder, Found, State
from napari_medseg.widgets._annotation_files import MaskChangedError
from napari_medseg.widgets._annotation_note import (
    annotations_of,
    remember_annotations,
)
from napari_medseg.widgets._background import Background
from napari_medseg.widgets._folder_panel import FolderPanel
from napari_medseg.widgets._layers import is_there
from napari_medseg.widgets._open_image import OpenImage, at_once, fingerprint
from napari_medseg.widgets._plugin_form import plugin_form
from napari_medseg.widgets._undone import Unsaved

if TYPE_CHECKING:
    from pathlib import Path

    import napari
    from napari.layers import Image, Labels

    from napari_medseg.widgets._annotation_files import Entry, Opened
    from napari_medseg.widgets._autosave import Keeper, Kept

LOOKED_AT = 20
"""Annotations that are looked at between two updates of the list."""


class FolderSession(QObject):
    """Opens the images of a folder in a viewer, and saves what is drawn on them.

    Files are read and written on one thread, in the order that was asked for: an
    image that is opened again is read after it was written.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    keeper : Keeper
        Keeps what cannot be saved.
    kind : str
        What the values of annotations mean.
    parent : QObject, optional
        The parent.
    panel : FolderPanel, optional
        Shows the images.

    Attributes
    ----------
    opened : Signal
        With the image layer to annotate and its annotation layer.
    closing : Signal
        With the annotation layer that is about to be removed.
    kind_found : Signal
        With what is noted beside the annotations: what their values mean.
    told : Signal
        With a sentence for the user.
    """

    opened = Signal(object, object)
    closing = Signal(object)
    kind_found = Signal(str)
    told = Signal(str)

    def __init__(
        self,
        viewer: napari.Viewer,
        keeper: Keeper,
        kind: str,
        parent: QObject | None = None,
        panel: FolderPanel | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._keeper = keeper
        self._kind = kind
        self._folder: AnnotatedFolder | None = None
        self._open: OpenImage | None = None
        self._asked: Path | None = None
        self._annotated: set[Path] = set()
        self._seen: set[Path] = set()
        self._unsaved = Unsaved(viewer, self)
        self._unsaved.drawn.connect(self._on_drawn)
        self._files = Background("medseg-folder", parent=self)
        self._looking = Background("medseg-marks", drop=True, parent=self)
        self.panel = panel or FolderPanel()
        self.panel.setVisible(False)
        self.panel.pressed.connect(lambda name: getattr(self, name)())
        self.panel.moved.connect(self._on_moved)
        self.panel.list.chosen.connect(self.open_row)
        self._images = self.panel.list.images

    # ---------------------------------------------------------------- the folder

    @property
    def kind(self) -> str:
        """What the values of its annotations mean."""
        return self._kind

    def open_folder(self, path: Path, annotations: Path | None = None) -> None:
        """Show the images of a folder; what is open is saved and closed first.

        Parameters
        ----------
        path : Path
            The images.
        annotations : Path, optional
            Their annotations; by default the folder that was chosen last, or
            ``annotations`` among the images.
        """
        masks = annotations or annotations_of(path)
        self.show(AnnotatedFolder(path, masks, self._keeper))

    def show(self, folder: AnnotatedFolder) -> None:
        """Show images that are worked through; see `open_folder`."""
        try:
            found = folder.listed()
        except InputError as error:
            self._tell(str(error))
            return
        self.close()
        self._folder = folder
        self._annotated = {item.entry.path for item in found if item.annotated}
        self._seen = set()
        self._images.show_entries(
            [item.entry for item in found], [item.state for item in found]
        )
        self.panel.show_annotations(folder.annotations)
        self.panel.setVisible(True)
        self._count()
        self._look_at([item for item in found if item.entry.mask is not None])
        if folder.kind is not None:
            self.kind_found.emit(folder.kind)
        self._tell("Click on an image of the list to annotate it.")

    def set_annotations(self, path: Path) -> None:
        """Choose another folder for the annotations, for the next time too."""
        folder = self._folder
        if folder is None or path == folder.annotations:
            return
        opened = self._open
        try:
            remember_annotations(folder.images, path)
        except OSError as error:
            self._tell(f"The choice cannot be remembered: {error.strerror}.")
        self.open_folder(folder.images, path)
        row = self._images.row_of(opened.path) if opened else None
        if row is not None:
            self.open_row(row)

    def _on_moved(self) -> None:
        chosen = self.panel.annotations
        if chosen is not None:
            self.set_annotations(chosen)
        elif self._folder is not None:
            self.panel.show_annotations(self._folder.annotations)

    def set_kind(self, kind: str) -> None:
        """Say what the values of annotations mean, and note it beside them."""
        self._kind = kind
        folder = self._folder
        if folder is not None and folder.kind != kind:
            self._files.submit(
                partial(folder.note_kind, kind), lambda _: None, self._tell_error
            )

    def _look_at(self, found: list[Found]) -> None:
        """Look at annotations in the background: what is empty is not done."""
        folder = self._folder
        if folder is None:
            return
        for start in range(0, len(found), LOOKED_AT):
            some = found[start : start + LOOKED_AT]
            self._looking.submit(
                partial(folder.looked_at, some),
                partial(self._on_looked_at, folder),
                self._tell_error,
            )

    def _on_looked_at(self, folder: AnnotatedFolder, found: list[Found]) -> None:
        if folder is not self._folder:
            return
        for item in found:
            row = self._images.row_of(item.entry.path)
            if row is None or item.entry.path in self._seen:
                continue  # what was opened meanwhile is known better
            if not item.annotated:
                self._annotated.discard(item.entry.path)
            if self._images.state(row) not in (item.state, State.TROUBLE):
                self._images.set_state(row, item.state, item.told)
        self._count()

    def _count(self) -> None:
        self.panel.show_count(len(self._annotated), self._images.rowCount())

    # ----------------------------------------------------------------- one image

    @property
    def annotation(self) -> Labels | None:
        """The annotation layer of the image that is open."""
        return self._open.annotation if self._open else None

    @property
    def identity(self) -> str:
        """What the image that is open is kept by."""
        return self._open.identity if self._open else ""

    @property
    def kept(self) -> Kept | None:
        """What was drawn on it, but not saved, before the viewer ended."""
        return self._open.opened.kept if self._open else None

    @property
    def is_drawn(self) -> bool:
        """Whether something was drawn that is not saved."""
        self._unsaved.look()
        return self._open is not None and self._open.is_drawn

    def is_open(self, annotation: Labels) -> bool:
        """Tell whether a layer is the annotation of the image that is open."""
        return self._open is not None and self._open.annotation is annotation

    def annotation_for(self, image: Image) -> Labels | None:
        """Return the annotation layer, if an image layer is of the image that is open.

        The channels of an image have one annotation.
        """
        found = self._open
        if found is None or not is_there(found.annotation, self._viewer):
            return None
        mine = any(layer is image for layer in found.images)
        return found.annotation if mine else None

    def open_row(self, row: int) -> None:
        """Open an image of the list; what is open is saved first."""
        folder, entry = self._folder, self._images.entry(row)
        path = entry.path
        if folder is None or path == self._asked:
            return
        if self._open is not None and self._open.path == path:
            if self._open.is_whole:
                self._asked = None
                return
            self.close()  # it is written before it is read again
        self._asked = path
        self._tell(f"Opening {entry.name}…")

        def read() -> tuple[Opened, bytes] | None:
            if self._asked != path:
                return None  # the user may have chosen another one by now
            opened = folder.open(entry)
            return opened, fingerprint(opened.file.labels)

        self._files.submit(
            read, partial(self._on_read, row), partial(self._on_unreadable, entry)
        )

    def _on_read(self, row: int, read: tuple[Opened, bytes] | None) -> None:
        if read is None or read[0].entry.path != self._asked:
            return
        self._asked = None
        with at_once(self._viewer):
            self._replace(row, *read)
        self._viewer.reset_view()

    def _replace(self, row: int, opened: Opened, saved_as: bytes) -> None:
        """Put the layers of an image in the place of those of the one before."""
        tools = self._open.tools() if self._open and self._open.is_whole else None
        self.close()
        try:
            found = self._open = OpenImage(self._viewer, opened, saved_as)
        except (ValueError, TypeError) as error:
            self._on_unreadable(opened.entry, error)
            return
        self._seen.add(found.path)
        self._unsaved.watch(found)
        self._images.set_open(row)
        self.panel.list.show_row(row)
        self.opened.emit(found.images[0], found.annotation)
        found.take_tools(tools, self._kind)

    def _on_unreadable(self, entry: Entry, error: Exception) -> None:
        if self._asked == entry.path:
            self._asked = None
        row = self._images.row_of(entry.path)
        if row is not None:
            self._images.set_state(row, State.TROUBLE, str(error))
        self._tell(str(error))

    def _on_drawn(self) -> None:
        found = self._open
        if found is None:
            return
        found.changes += 1
        row = self._images.row_of(found.path)
        if row is not None and self._images.state(row) is not State.IN_PROGRESS:
            self._images.set_state(row, State.IN_PROGRESS)

    def close(self) -> None:
        """Save the image that is open, and remove its layers."""
        found, self._open = self._open, None
        self._asked = None
        self._unsaved.stop()  # it is saved whatever is on it
        if found is None:
            return
        self._save(found, np.asarray(found.annotation.data))
        self.closing.emit(found.annotation)
        found.remove()
        self._images.set_open(-1)

    # -------------------------------------------------------------------- saving

    def save(self) -> None:
        """Save the annotation of the image that is open.

        The second time it replaces also what another program wrote meanwhile.
        """
        found = self._open
        if found is None:
            self._tell("Open an image of the list first.")
        else:
            self._save_copy(found, replacing=found.may_replace)

    def save_drawn(self) -> None:
        """Save it, if something was drawn: the form is put away."""
        if self._open is not None and self.is_drawn:
            self._save_copy(self._open)

    def done_next(self) -> None:
        """Save it, whatever is on it, and open the next image that is not done."""
        after = -1
        if self._open is not None:
            self._save_copy(self._open, done=True)
            after = self._images.row_of(self._open.path) or 0
        row = self._images.next_to_do(after)
        if row is not None:
            self.open_row(row)
        else:
            self._tell(self.panel.words.last)

    def tune(self) -> None:
        """Open the form Tune with these two folders."""
        folder = self._folder
        if folder is None:
            return
        self.save_drawn()
        if not self._annotated and not self.is_drawn:
            self._tell("No image is annotated yet. Annotate at least one.")
            return
        widget = plugin_form(self._viewer, "Tune")
        widget.source.choose_folders(folder.images, folder.annotations, folder.channels)
        widget.source.choose_kind(self._kind)
        if folder.start_from:
            widget.go_on_from(folder.start_from)

    def _save_copy(self, found: OpenImage, **how: bool) -> None:
        """Save while the user may go on drawing."""
        self._unsaved.stop()
        self._save(found, np.array(found.annotation.data), **how)

    def _save(self, found: OpenImage, labels: Any, **how: bool) -> None:
        """Save labels that nobody draws on, as `AnnotatedFolder.save` is told."""
        folder = self._folder
        if folder is None:
            return
        kind = self._kind

        def save() -> tuple[bool, bytes]:
            done = folder.save(found.opened, labels, kind, **how)
            return done, fingerprint(labels)

        self._files.submit(
            save,
            partial(self._on_saved, found, (found.changes, found.shown)),
            partial(self._on_refused, found),
        )

    def _on_saved(
        self, found: OpenImage, at: tuple[int, int], saved: tuple[bool, bytes]
    ) -> None:
        """Mark an image as saved; what was drawn since then is not."""
        (changes, shown), (done, found.saved_as) = at, saved
        self._unsaved.on_saved(found, shown)
        found.may_replace = False
        path = found.path
        row = self._images.row_of(path)
        if row is None:
            return
        (self._annotated.add if done else self._annotated.discard)(path)
        self._count()
        if found.changes != changes:
            return
        if found.saved != changes:
            self._keeper.forget(found.identity)
        found.saved = changes
        is_kept = found.opened.kept is not None and not changes
        state = State.DONE if done else State.TO_DO
        self._images.set_state(row, State.IN_PROGRESS if is_kept else state)

    def _on_refused(self, found: OpenImage, error: Exception) -> None:
        found.may_replace = isinstance(error, MaskChangedError)
        row = self._images.row_of(found.path)
        if row is not None:
            self._images.set_state(row, State.IN_PROGRESS, str(error))
        self._tell(f"{error} What you drew is kept until then.")

    def _tell_error(self, error: Exception) -> None:
        self._tell(str(error))

    def _tell(self, sentence: str) -> None:
        self.told.emit(sentence)
