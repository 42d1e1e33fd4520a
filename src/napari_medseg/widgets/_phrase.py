"""A phrase, its τ and clicks on segments: what the Segment form shows for a phrase."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QFormLayout, QLineEdit, QPushButton, QWidget
from superqt import QLabeledDoubleSlider

from napari_medseg.models.phrase_settings import PhraseConfig, is_phrase, phrase_of
from napari_medseg.widgets._layers import flat_placement, is_there, plane_shape
from napari_medseg.widgets._sliders import DELAY

if TYPE_CHECKING:
    import napari
    from napari.layers import Labels

    from napari_medseg.widgets._segmenting import Labelled, Order, Part

LOWEST, HIGHEST = 0.01, 2.0
"""Ends of the slider for τ."""

SEGMENTS = "segments"
"""What the layer with all segments is called, behind the name of the image."""

Click = tuple[float, float, bool]
"""Row and column in what was segmented, and whether the click adds."""


class PhrasePanel(QWidget):
    """Lets the user type a phrase, move τ and click on segments.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose canvas is clicked on.
    parent : QWidget, optional
        The parent.

    Attributes
    ----------
    changed : Signal
        τ was moved or a segment clicked: other labels of what is there.
    asked : Signal
        Enter was pressed in the phrase: look anew.
    """

    changed = Signal()
    asked = Signal()

    def __init__(self, viewer: napari.Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._model = ""
        self._order: Order | None = None
        self._labels: dict[str, Any] = {}  # of each part what is labelled now
        self._clicks: dict[str, list[Click]] = {}
        self._layer: Labels | None = None
        self._text = QLineEdit()
        self._text.setObjectName("phrase")
        self._text.setToolTip("What to look for, such as: infected wound")
        self._text.returnPressed.connect(self.asked)
        self._tau = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self._tau.setObjectName("tau")
        self._tau.setRange(LOWEST, HIGHEST)
        self._tau.setDecimals(2)
        self._tau.setValue(PhraseConfig().tau)
        self._tau.setToolTip(
            "How alike the parts of a segment are; lower gives more segments"
        )
        self._button = QPushButton("Click on segments")
        self._button.setObjectName("click segments")
        self._button.setCheckable(True)
        self._button.setToolTip(
            "While pressed, a click on the image adds its segment, or takes it away"
        )
        self._forget = QPushButton("Forget clicks")
        self._forget.setObjectName("forget clicks")
        self._forget.setToolTip("Take what the phrase chose, without any click")
        self._forget.clicked.connect(lambda *_: self._forget_clicks())
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY)
        self._timer.timeout.connect(self.changed)
        self._tau.valueChanged.connect(self._timer.start)
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("phrase", self._text)
        form.addRow("tau", self._tau)
        form.addRow(self._button, self._forget)
        self.setVisible(False)
        self._listen()

    def _listen(self) -> None:
        callbacks, callback = self._viewer.mouse_drag_callbacks, self._on_mouse
        callbacks.append(callback)

        def forget() -> None:
            with suppress(ValueError):
                callbacks.remove(callback)

        # the viewer outlives this form, and must not call it then
        self.destroyed.connect(forget)

    @property
    def text(self) -> str:
        """The phrase."""
        # a semicolon would begin a setting
        return str(self._text.text()).replace(";", ",").strip()

    def choose(self, model: str) -> None:
        """Show the panel for a phrase, and hide it for any other segmenter."""
        self._model = model
        self.setVisible(is_phrase(model))

    def model(self, chosen: str, *, whole: bool = False) -> str:
        """Return the segmenter that is meant by what was chosen.

        Parameters
        ----------
        chosen : str
            Of the list of segmenters.
        whole : bool
            Whether τ is part of it; the engine is told of τ apart.

        Returns
        -------
        str
            The phrase is added to that of a phrase.
        """
        if not is_phrase(chosen):
            return chosen
        config = replace(phrase_of(chosen), text=self.text)
        return replace(config, tau=self._value()).name if whole else config.name

    def title(self, chosen: str, title: str) -> str:
        """Return what results of the segmenter are called."""
        return self.text or title if is_phrase(chosen) else title

    def values(self) -> dict[str, Any] | None:
        """Return ``phrase`` as the engine takes it; None for other segmenters."""
        if not is_phrase(self._model):
            return None
        clicks = {
            key: [list(each) for each in own] for key, own in self._clicks.items()
        }
        return {"tau": self._value(), "clicks": clicks}

    def begin(self, order: Order) -> None:
        """Take clicks on the parts of a new order."""
        self._order = order
        self._labels = {}

    def clear(self) -> None:
        """Forget all clicks; `changed` stays silent."""
        self._clicks = {}

    def take(self, part: Part, made: Labelled) -> None:
        """Show all segments of a part, and know what is labelled there."""
        if made.segments is None or made.labels is None:
            return
        self._labels[part.key] = made.labels
        if not is_there(part.layer, self._viewer):
            return
        shown = np.zeros(plane_shape(part.layer), np.int32)
        shown[part.plane.rows, part.plane.columns] = made.segments
        name = f"{part.layer.name}: {SEGMENTS}"
        if self._layer is None or not is_there(self._layer, self._viewer):
            place = flat_placement(part.layer)
            self._layer = self._viewer.add_labels(shown, name=name, **place)
            self._layer.contour = 1  # what is chosen lies below
            self._layer.editable = False
        elif self._layer.data.shape == shown.shape and self._layer.name == name:
            self._layer.data = shown
        else:
            self._viewer.layers.remove(self._layer)
            self.take(part, made)

    def _value(self) -> float:
        return round(float(self._tau.value()), 2)

    def _forget_clicks(self) -> None:
        if self._clicks:
            self.clear()
            self.changed.emit()

    def _on_mouse(self, viewer: Any, event: Any) -> None:
        """Take a click with the left button, while that is asked for."""
        if self._button.isChecked() and is_phrase(self._model) and event.button == 1:
            self.click(event.position)

    def click(self, position: Any) -> None:
        """Add the segment at a place of the world, or take it away.

        Parameters
        ----------
        position : sequence of float
            Where, in coordinates of the world.
        """
        for part in self._order.parts if self._order is not None else ():
            found = self._inside(part, position)
            labels = self._labels.get(part.key)
            if found is None or labels is None:
                continue
            row, column = found
            adds = not labels[row, column]
            clicks = self._clicks.setdefault(part.key, [])
            clicks.append((float(row), float(column), bool(adds)))
            self.changed.emit()
            return

    def _inside(self, part: Part, position: Any) -> tuple[int, int] | None:
        """Return row and column in a part, or None beside it or on another slice."""
        if not is_there(part.layer, self._viewer):
            return None
        place = part.layer.world_to_data(position[-part.layer.ndim :])
        *index, row, column = (int(np.floor(float(each) + 0.5)) for each in place)
        rows, columns = part.plane.rows, part.plane.columns
        if tuple(index) != tuple(part.plane.index):
            return None
        if not (
            rows.start <= row < rows.stop and columns.start <= column < columns.stop
        ):
            return None
        return row - rows.start, column - columns.start
