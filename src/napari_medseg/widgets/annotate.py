"""Annotate: paint, or let SAM find objects by clicks, boxes and shapes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QEvent
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_medseg._types import MedsegError
from napari_medseg.models.registry import SAMS
from napari_medseg.models.weights import imported
from napari_medseg.widgets._autosave import Keeper
from napari_medseg.widgets._canvas import AnnotationCanvas
from napari_medseg.widgets._combo import layer_choice, narrow
from napari_medseg.widgets._copy_button import CopyButton
from napari_medseg.widgets._copying import prompt_line
from napari_medseg.widgets._drawn import Drawn
from napari_medseg.widgets._folder import FolderSession
from napari_medseg.widgets._jobs import engine_of
from napari_medseg.widgets._keeping import BringBack
from napari_medseg.widgets._key_buttons import KEYS, key_buttons
from napari_medseg.widgets._kind import KindChoice, note_kind, noted_kind
from napari_medseg.widgets._layers import slice_in_view
from napari_medseg.widgets._preferences import choose_sam
from napari_medseg.widgets._suggesting import Suggester, Suggestion
from napari_medseg.widgets._timers import timer_once
from napari_medseg.widgets._words import Words

if TYPE_CHECKING:
    import napari.viewer
    from napari.layers import Labels

    from napari_medseg.engine import Engine
    from napari_medseg.widgets._folder_panel import FolderPanel

SETTLE = 250
"""Milliseconds a slice is in view before SAM looks at it."""

LIST_STRETCH = 100
"""Share of free room that the images of a folder take: nearly all."""

FOLDER_KEYS = {"S": "save", "D": "done_next"}
"""Keys for images of a folder, while it or the annotation is chosen."""


class AnnotateWidget(QWidget):
    """Makes annotations of an image layer.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    engine : Engine, optional
        Where SAM is computed; by default in the engine of the window.
    panel : FolderPanel, optional
        Shows images that were chosen elsewhere; by default they are chosen here.

    Attributes
    ----------
    folder : FolderSession
        The folder that the user works through, if any.
    keeper : Keeper
        Keeps what is not saved.
    """

    # napari gives its viewer to what is annotated in this very spelling
    def __init__(
        self,
        viewer: napari.viewer.Viewer,
        engine: Engine | None = None,
        panel: FolderPanel | None = None,
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self._engine = engine
        self._suggester: Suggester | None = None
        self._canvas: AnnotationCanvas | None = None
        self._layers = layer_choice(Image, "The image or stack to annotate")
        self._kind = KindChoice()
        self._kind.changed.connect(self._on_kind_changed)
        self._sam = QComboBox()
        self._sam.setObjectName("sam")
        self._sam.setToolTip("The SAM that suggests outlines; nano comes along")
        for name in (*SAMS, *imported()):
            self._sam.addItem(SAMS[name].title if name in SAMS else name, name)
        choose_sam(self._sam)
        self._sam.currentIndexChanged.connect(self._on_sam_changed)
        narrow(self._sam)
        self._start = QPushButton("Annotate this image")
        self._start.setObjectName("start")
        self._start.setToolTip("Have SAM look at the image, and open its annotation")
        self._start.clicked.connect(self._on_start_clicked)
        self._told = Words("told")
        keeper = self.keeper = Keeper()
        self.folder = FolderSession(viewer, keeper, self.kind, self, panel)
        self.folder.opened.connect(self._on_opened)
        self.folder.closing.connect(self._on_closing)
        self.folder.kind_found.connect(self._on_kind_found)
        self.folder.told.connect(self._tell)
        self._settle = timer_once(self, SETTLE, self._look)
        self._restore = BringBack(self.folder, keeper, self)
        self._restore.brought_back.connect(self._kind.choose)
        self._restore.told.connect(self._tell)
        self._drawn = Drawn(viewer, self)
        for signal in (self._drawn.drawn, self._drawn.perhaps):
            signal.connect(self._restore.on_drawn)
        self._lay_out(chooses=panel is None)
        viewer.dims.events.current_step.connect(self._on_slice_changed)
        viewer.layers.events.removed.connect(self._on_layer_removed)
        self.take_clicks(True)
        callbacks, callback = viewer.mouse_drag_callbacks, self._on_mouse
        removed, on_removed = viewer.layers.events.removed, self._on_layer_removed

        def forget() -> None:
            removed.disconnect(on_removed)
            with suppress(ValueError):
                callbacks.remove(callback)

        # the viewer outlives this form, and must not call it then
        self.destroyed.connect(forget)

    def _lay_out(self, *, chooses: bool) -> None:
        form = QFormLayout()
        form.addRow("image", self._layers.native)
        form.addRow("annotation", self._kind)
        form.addRow("SAM", self._sam)
        for row in (0, 1):
            form.setRowVisible(row, chooses)
        folder = QPushButton("Open a folder…")
        folder.setObjectName("open folder")
        folder.setToolTip("Annotate the images of a folder one after another")
        folder.clicked.connect(self._on_folder_clicked)
        layout = QVBoxLayout(self)
        layout.addWidget(folder)
        layout.addWidget(self.folder.panel, LIST_STRETCH)
        layout.addLayout(form)
        layout.addWidget(self._start)
        for part in (folder, self._start):
            part.setVisible(chooses)
        layout.addWidget(self._restore)
        help_text = Words()
        help_text.setText(
            "Click on an object; Shift+click on what does not belong to it. Draw boxes "
            "or outlines on the shapes layer. Paint as always on the annotation layer."
        )
        layout.addWidget(help_text)
        layout.addLayout(key_buttons(self, self._on_use_label_clicked))
        copy = CopyButton(
            "The line for the terminal that finds the object of the last suggestion",
            lambda: prompt_line(self._canvas),
        )
        copy.told.connect(self._tell)
        layout.addWidget(copy)
        layout.addWidget(self._told)
        layout.addStretch(1)

    def reset_choices(self, event: Any = None) -> None:
        """List the image layers; napari calls it when layers come and go."""
        self._layers.reset_choices()

    def showEvent(self, event: Any) -> None:
        """List the layers: those of the viewer that the widget is now in."""
        super().showEvent(event)
        self.reset_choices()

    @property
    def kind(self) -> str:
        """``dense``, ``sparse`` or ``instances``."""
        return self._kind.kind

    def choose(self, layer: Image) -> None:
        """Choose an image layer."""
        self._layers.value = layer

    # -------------------------------------------------------------------- layers

    def _on_start_clicked(self) -> None:
        layer = self._layers.value
        if layer is None:
            self._tell("There is no image. Open one, or File > Open Sample > medseg.")
            return
        self._annotate(layer, self.folder.annotation_for(layer))

    def _annotate(self, layer: Image, annotation: Labels | None) -> None:
        """Begin with an image layer, or go on with it."""
        canvas = self._canvas = AnnotationCanvas(self._viewer, layer, annotation)
        canvas.shapes.events.data.connect(self._on_shapes_changed)
        self._drawn.watch(canvas.annotation)
        self._bind_keys(canvas)
        noted = noted_kind(canvas.annotation)
        if noted is None:
            note_kind(canvas.annotation, self.kind)
        else:
            self._kind.show_kind(noted)
        self._restore.watch(canvas)
        self._look()

    def _bind_keys(self, canvas: AnnotationCanvas) -> None:
        for key, (name, _) in KEYS.items():
            canvas.suggestion.bind_key(key, lambda _, name=name: getattr(self, name)())
        if not self.folder.is_open(canvas.annotation):
            return
        for key, name in FOLDER_KEYS.items():
            for layer in (canvas.annotation, canvas.suggestion):
                layer.bind_key(
                    key,
                    lambda _, name=name: getattr(self.folder, name)(),
                    overwrite=True,
                )

    # -------------------------------------------------------------------- folder

    def open_folder(self, path: str | Path, annotations: Path | None = None) -> None:
        """Show the images of a folder, to be annotated one after another.

        Parameters
        ----------
        path : str or Path
            The images.
        annotations : Path, optional
            Where their annotations are; by default the folder chosen for them last,
            or ``annotations`` among them.
        """
        self.folder.open_folder(Path(path).expanduser().absolute(), annotations)

    def _on_folder_clicked(self) -> None:
        found = QFileDialog.getExistingDirectory(self, "Choose a folder of images")
        if found:
            self.open_folder(found)

    def _on_opened(self, image: Image, annotation: Labels) -> None:
        self.reset_choices()
        self.choose(image)
        note_kind(annotation, self.folder.kind)
        self._annotate(image, annotation)

    def _on_closing(self, annotation: Labels) -> None:
        """Let go of the layers that are about to be removed."""
        canvas = self._canvas
        if canvas is None or canvas.annotation is not annotation:
            return
        self._restore.let_go()
        self._settle.stop()
        self.clear()
        self._canvas = None
        canvas.remove_helpers()

    def event(self, event: Any) -> bool:
        """Save what is drawn when the form is put away, and take no clicks then."""
        if event.type() == QEvent.Type.ParentChange:
            self.take_clicks(self.parent() is not None)
        if event.type() in (QEvent.Type.ParentChange, QEvent.Type.Hide):
            self.folder.save_drawn()
            self._restore.flush()
        return bool(super().event(event))

    def _on_layer_removed(self, event: Any) -> None:
        """Keep what was drawn on it; so all layers go when napari is closed."""
        canvas = self._canvas
        if canvas is not None and not canvas.has(canvas.annotation):
            self._restore.flush()

    def take_clicks(self, whether: bool) -> None:
        """Take clicks on the canvas, or no more."""
        callbacks, callback = self._viewer.mouse_drag_callbacks, self._on_mouse
        if whether and callback not in callbacks:
            callbacks.append(callback)
        elif not whether and callback in callbacks:
            callbacks.remove(callback)

    def _on_kind_changed(self) -> None:
        self.folder.set_kind(self.kind)
        if self._canvas is not None:
            note_kind(self._canvas.annotation, self.kind)
            self._restore.on_drawn()

    def _on_kind_found(self, kind: str) -> None:
        """Take that of a folder; the layer that is open keeps its own."""
        self._kind.show_kind(kind)
        self.folder.set_kind(kind)

    def _on_sam_changed(self) -> None:
        if self._canvas is not None:
            self._look()

    # ----------------------------------------------------------------------- SAM

    def _on_slice_changed(self, event: Any = None) -> None:
        """Forget what is asked and suggested: it is of the slice before."""
        if self._canvas is not None:
            if self._suggester is not None:
                self._suggester.clear()
            self._canvas.show(None)
            self._settle.start()

    def _look(self) -> None:
        canvas = self._canvas
        if canvas is None or not canvas.has(canvas.image):
            return
        try:
            plane = slice_in_view(canvas.image, self._viewer)
        except MedsegError as error:
            self._tell(str(error))
            return
        if self._suggester is None:
            self._suggester = Suggester(self._engine or engine_of(self), self)
            self._suggester.suggested.connect(self._on_suggested)
            self._suggester.told.connect(self._tell)
            self._suggester.ready.connect(self._on_ready)
        self._suggester.look(canvas.image, plane, str(self._sam.currentData()))

    def _on_ready(self) -> None:
        self._tell("Ready: click on an object.")

    def _on_suggested(self, suggestion: Suggestion | None) -> None:
        if self._canvas is not None:
            self._canvas.show(suggestion)

    def _on_mouse(self, viewer: Any, event: Any) -> Any:
        """Take a click on the canvas; a drag moves the view, as always."""
        canvas = self._canvas
        if canvas is None or event.button != 1:
            return
        if self._viewer.layers.selection.active != canvas.suggestion:
            return
        adds = "Shift" not in event.modifiers
        yield
        moved = False
        while event.type == "mouse_move":
            moved = True
            yield
        if not moved:
            self.click(event.position, adds=adds)

    def click(self, position: Any, *, adds: bool = True) -> None:
        """Take a click at a place of the world, in the slice in view."""
        if self._suggester is None or self._canvas is None:
            return
        self._look_if_due()
        place = self._canvas.place_of(position)
        if place is not None:
            self._suggester.click(place, adds=adds)

    def _look_if_due(self) -> None:
        """Turn to a slice that has just come into view: it is the one that is meant."""
        if self._settle.isActive():
            self._settle.stop()
            self._look()

    def _on_shapes_changed(self, event: Any) -> None:
        """Ask for the object in the shape that was drawn last."""
        if getattr(event, "action", "") not in ("added", "changed"):
            return
        question = self._canvas.shape_question() if self._canvas else None
        if question is not None and self._suggester is not None:
            self._look_if_due()
            self._suggester.ask(question)

    def _on_use_label_clicked(self) -> None:
        if self._canvas is None or self._suggester is None:
            return
        try:
            plane = slice_in_view(self._canvas.image, self._viewer)
        except MedsegError as error:
            self._tell(str(error))
            return
        question = self._canvas.label_question(plane)
        if question is None:
            label = self._canvas.annotation.selected_label
            self._tell(f"Label {label} is not on this slice.")
        else:
            self._look_if_due()
            self._suggester.ask(question)

    # ------------------------------------------------------------------- the keys

    def accept(self) -> None:
        """Put the suggestion into the annotation, with the label that is chosen."""
        canvas = self._canvas
        if canvas is not None and canvas.paint(int(canvas.annotation.selected_label)):
            self._restore.on_drawn()
            self.clear()

    def accept_new(self) -> None:
        """Put the suggestion into the annotation as a new object."""
        if self._canvas is not None:
            self._canvas.annotation.selected_label = self._canvas.next_label()
            self.accept()

    def next_mask(self) -> None:
        """Show SAM's next idea."""
        if self._canvas is not None:
            self._canvas.show_next()

    def take_back(self) -> None:
        """Undo the last click."""
        if self._suggester is not None:
            self._suggester.take_back()

    def clear(self) -> None:
        """Forget the clicks and the suggestion."""
        if self._suggester is not None:
            self._suggester.clear()
        if self._canvas is not None:
            self._canvas.show(None)
            self._canvas.clear_shapes()

    def _tell(self, sentence: str) -> None:
        self._told.setText(sentence)
