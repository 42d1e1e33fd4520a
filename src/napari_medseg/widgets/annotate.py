"""Annotate: paint, or let SAM find objects by clicks, boxes and shapes."""

from __future__ import annotations

import datetime
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from magicgui.widgets import create_widget
from napari.layers import Image, Labels, Shapes
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QGridLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_medseg._types import MedsegError
from napari_medseg.models.registry import SAMS
from napari_medseg.models.weights import imported
from napari_medseg.widgets import _autosave
from napari_medseg.widgets._annotated import KINDS
from napari_medseg.widgets._jobs import engine_of
from napari_medseg.widgets._layers import (
    empty_labels,
    flat_placement,
    is_there,
    placement,
    plane_shape,
    slice_in_view,
)
from napari_medseg.widgets._suggesting import Suggester, Suggestion

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    import napari
    from magicgui.widgets import ComboBox

    from napari_medseg.engine import Engine

SUGGESTION = "SAM's suggestion"
SHAPES = "boxes and shapes for SAM"

SETTLE = 250
"""Milliseconds a slice is in view before SAM looks at it."""

AUTOSAVE = 3000
"""Milliseconds after the last change that an annotation is kept."""

KEYS = {
    "G": ("accept", "Put the suggestion into the annotation, with its label"),
    "N": ("accept_new", "The same as a new object: the next free label"),
    "T": ("next_mask", "Try SAM's next idea: a part, or the whole"),
    "U": ("take_back", "Undo the last click"),
    "Q": ("clear", "Forget the clicks"),
}
"""Keys while the suggestion's layer is chosen; napari has none of them there."""


class AnnotateWidget(QWidget):
    """Makes annotations of an image layer.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    engine : Engine, optional
        Where SAM is computed; by default in the engine of the window.
    """

    def __init__(self, viewer: napari.Viewer, engine: Engine | None = None) -> None:
        super().__init__()
        self._viewer = viewer
        self._engine = engine
        self._suggester: Suggester | None = None
        self._image: Image | None = None
        self._annotation: Labels | None = None
        self._suggestion: Labels | None = None
        self._shapes: Shapes | None = None
        self._found: Suggestion | None = None
        self._choice = 0
        self._writer = ThreadPoolExecutor(1, "medseg-autosave")
        self._writing: Future[Path] | None = None
        self._layers = cast("ComboBox", create_widget(annotation=Image))
        self._kind = QComboBox()
        self._kind.setObjectName("kind")
        self._kind.addItems(list(KINDS))
        self._kind.setToolTip("What the numbers you paint mean")
        self._kind.currentTextChanged.connect(self._on_kind_changed)
        self._sam = QComboBox()
        self._sam.setObjectName("sam")
        for name in (*SAMS, *imported()):
            self._sam.addItem(SAMS[name].title if name in SAMS else name, name)
        self._sam.currentIndexChanged.connect(self._on_sam_changed)
        self._start = QPushButton("Annotate this image")
        self._start.setObjectName("start")
        self._start.clicked.connect(self._on_start_clicked)
        self._restore = QPushButton("Bring back")
        self._restore.setObjectName("restore")
        self._restore.setVisible(False)
        self._restore.clicked.connect(self._on_restore_clicked)
        self._told = QLabel()
        self._told.setObjectName("told")
        self._told.setWordWrap(True)
        self._settle = _timer(self, SETTLE, self._look)
        self._autosave = _timer(self, AUTOSAVE, self._keep)
        self._lay_out()
        viewer.mouse_drag_callbacks.append(self._on_mouse)
        viewer.dims.events.current_step.connect(self._on_slice_changed)

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("image", self._layers.native)
        form.addRow("annotation", self._kind)
        form.addRow("SAM", self._sam)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addWidget(self._start)
        layout.addWidget(self._restore)
        help_text = QLabel(
            "Click on an object; Shift+click on what does not belong to it. Draw boxes "
            "or outlines on the shapes layer. Paint as always on the annotation layer."
        )
        help_text.setWordWrap(True)
        layout.addWidget(help_text)
        grid = QGridLayout()
        for row, (key, (name, tip)) in enumerate(KEYS.items()):
            button = QPushButton(f"{name.replace('_', ' ')}  ({key})")
            button.setObjectName(name)
            button.setToolTip(tip)
            button.clicked.connect(getattr(self, name))
            grid.addWidget(button, row // 2, row % 2)
        use = QPushButton("use label")
        use.setObjectName("use label")
        use.setToolTip("Have SAM redraw the object of the annotation's chosen label")
        use.clicked.connect(self._on_use_label_clicked)
        grid.addWidget(use, len(KEYS) // 2, len(KEYS) % 2)
        layout.addLayout(grid)
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
        return KINDS[self._kind.currentText()]

    def choose(self, layer: Image) -> None:
        """Choose an image layer."""
        self._layers.value = layer

    # -------------------------------------------------------------------- layers

    def _on_start_clicked(self) -> None:
        layer = self._layers.value
        if layer is None:
            self._tell("There is no image. Open one, or File > Open Sample > medseg.")
            return
        self._image = layer
        self._annotation = self._annotation_of(layer)
        self._shapes = self._viewer.add_shapes(
            None, ndim=2, name=SHAPES, **flat_placement(layer)
        )
        self._shapes.events.data.connect(self._on_shapes_changed)
        self._suggestion = self._viewer.add_labels(
            np.zeros(plane_shape(layer), np.int32),
            name=SUGGESTION,
            opacity=0.6,
            **flat_placement(layer),
        )
        for key, (name, _) in KEYS.items():
            self._suggestion.bind_key(key, lambda _, name=name: getattr(self, name)())
        self._offer_back(layer)
        self._look()

    def _annotation_of(self, layer: Image) -> Labels:
        """Return the annotation layer of an image, made where there is none."""
        name = f"{layer.name}: annotation"
        for item in self._viewer.layers:
            if isinstance(item, Labels) and item.name == name:
                found: Labels = item
                break
        else:
            found = self._viewer.add_labels(
                empty_labels(layer), name=name, **placement(layer)
            )
        found.metadata = {**found.metadata, "annotation": self.kind}
        for event in (found.events.paint, found.events.data):
            event.connect(lambda _: self._autosave.start())
        return found

    def _on_kind_changed(self) -> None:
        if self._annotation is not None:
            note = {"annotation": self.kind}
            self._annotation.metadata = {**self._annotation.metadata, **note}
            self._autosave.start()

    def _on_sam_changed(self) -> None:
        if self._image is not None:
            self._look()

    # ----------------------------------------------------------------------- SAM

    def _on_slice_changed(self, event: Any = None) -> None:
        if self._image is not None:
            self._show_suggestion(None)
            self._settle.start()

    def _look(self) -> None:
        if self._image is None or not is_there(self._image, self._viewer):
            return
        try:
            plane = slice_in_view(self._image, self._viewer)
        except MedsegError as error:
            self._tell(str(error))
            return
        if self._suggester is None:
            self._suggester = Suggester(self._engine or engine_of(self), self)
            self._suggester.suggested.connect(self._show_suggestion)
            self._suggester.told.connect(self._tell)
            self._suggester.ready.connect(
                lambda: self._tell("Ready: click on an object.")
            )
        self._suggester.look(self._image, plane, str(self._sam.currentData()))

    def _on_mouse(self, viewer: Any, event: Any) -> Any:
        """Take a click on the canvas; a drag moves the view, as always."""
        if self._suggester is None or self._suggestion is None or event.button != 1:
            return
        if self._viewer.layers.selection.active != self._suggestion:
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
        if self._suggester is None or self._image is None:
            return
        if self._settle.isActive():
            # the slice has just changed: the click is on the new one
            self._settle.stop()
            self._look()
        ndim = self._image.ndim
        row, column = self._image.world_to_data(position[-ndim:])[-2:]
        height, width = plane_shape(self._image)
        if -0.5 <= row < height - 0.5 and -0.5 <= column < width - 0.5:
            self._suggester.click((float(row), float(column)), adds=adds)

    def _on_shapes_changed(self, event: Any) -> None:
        """Ask for the object in the shape that was drawn last."""
        if getattr(event, "action", "") not in ("added", "changed"):
            return
        if self._shapes is None or self._suggester is None or not self._shapes.data:
            return
        corners = np.asarray(self._shapes.data[-1])[:, -2:]
        if self._shapes.shape_type[-1] == "rectangle":
            far = np.asarray(plane_shape(cast("Image", self._image))) - 1
            top, left = np.clip(corners.min(axis=0), 0, far).tolist()
            bottom, right = np.clip(corners.max(axis=0), 0, far).tolist()
            self._suggester.box((top, left, bottom, right))
            return
        masks = self._shapes.to_masks(plane_shape(cast("Image", self._image)))
        self._suggester.mask(np.asarray(masks[-1]).reshape(masks.shape[-2:]))

    def _on_use_label_clicked(self) -> None:
        if self._annotation is None or self._suggester is None or self._image is None:
            return
        plane = slice_in_view(self._image, self._viewer)
        wanted = self._annotation.selected_label
        mask = np.asarray(plane.of(self._annotation.data)) == wanted
        if mask.any():
            self._suggester.mask(mask)
        else:
            self._tell(f"Label {wanted} is not on this slice.")

    def _show_suggestion(self, found: Suggestion | None) -> None:
        self._found, self._choice = found, 0
        self._draw()

    def _draw(self) -> None:
        if self._suggestion is None or not is_there(self._suggestion, self._viewer):
            return
        self._suggestion.data[...] = 0
        if self._found is not None:
            mask = self._found.masks[self._choice]
            self._suggestion.data[self._found.rows, self._found.columns] = mask
        self._suggestion.refresh()

    # ------------------------------------------------------------------- the keys

    def accept(self) -> None:
        """Put the suggestion into the annotation, with the label that is chosen."""
        if self._annotation is not None:
            self._paint(int(self._annotation.selected_label))

    def accept_new(self) -> None:
        """Put the suggestion into the annotation as a new object."""
        if self._annotation is not None:
            label = int(np.asarray(self._annotation.data).max()) + 1
            self._annotation.selected_label = label
            self._paint(label)

    def next_mask(self) -> None:
        """Show SAM's next idea."""
        if self._found is not None:
            self._choice = (self._choice + 1) % len(self._found.masks)
            self._draw()

    def take_back(self) -> None:
        """Undo the last click."""
        if self._suggester is not None:
            self._suggester.take_back()

    def clear(self) -> None:
        """Forget the clicks and the suggestion."""
        if self._suggester is not None:
            self._suggester.clear()
        self._show_suggestion(None)
        if self._shapes is not None and self._shapes.data:
            self._shapes.data = []

    def _paint(self, label: int) -> None:
        """Write the suggestion; napari's own undo takes it back."""
        found, target = self._found, self._annotation
        if found is None or target is None or not is_there(target, self._viewer):
            return
        rows, columns = np.nonzero(found.masks[self._choice])
        places = (rows + found.rows.start, columns + found.columns.start)
        index = tuple(np.full(len(rows), place) for place in found.plane.index)
        target.data_setitem((*index, *places), label)
        self._autosave.start()
        self.clear()

    # ------------------------------------------------------------------- autosave

    def _keep(self) -> None:
        """Write the annotation on another thread; a stack takes a second to pack."""
        if self._annotation is None or self._image is None:
            return
        error = self._writing.exception() if self._writing else None
        if error is not None:
            self._tell(f"The annotation cannot be kept: {error}.")
        name = _autosave.identity(self._image)
        labels = np.array(self._annotation.data)
        self._writing = self._writer.submit(_autosave.keep, name, labels, self.kind)

    def _offer_back(self, layer: Image) -> None:
        """Offer an annotation that was kept, where the layer is still empty."""
        found = _autosave.kept(_autosave.identity(layer))
        target = self._annotation
        offer = found is not None and target is not None and not target.data.any()
        self._restore.setVisible(offer)
        if offer and found is not None:
            when = datetime.datetime.fromtimestamp(found.time)
            self._restore.setText(f"Bring back the annotation of {when:%d %B, %H:%M}")

    def _on_restore_clicked(self) -> None:
        self._restore.setVisible(False)
        if self._image is None or self._annotation is None:
            return
        found = _autosave.kept(_autosave.identity(self._image))
        if found is None:
            return
        labels = found.read().reshape(self._annotation.data.shape)
        self._annotation.data = labels
        words = {value: text for text, value in KINDS.items()}
        self._kind.setCurrentText(words.get(found.kind, next(iter(KINDS))))

    def _tell(self, sentence: str) -> None:
        self._told.setText(sentence)


def _timer(parent: QWidget, milliseconds: int, slot: Any) -> QTimer:
    """Return a timer that fires once, some time after it was last started."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(slot)
    return timer
