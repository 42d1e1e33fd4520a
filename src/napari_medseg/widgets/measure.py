"""Measure: size, shape and intensity of the objects of a labels layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from magicgui.widgets import create_widget
from napari.layers import Image, Labels
from qtpy.QtWidgets import (
    QFileDialog,
    QFormLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_medseg.io.atomic import atomic_path
from napari_medseg.widgets._jobs import engine_of
from napari_medseg.widgets._measuring import Measurer

if TYPE_CHECKING:
    import napari
    from magicgui.widgets import ComboBox

    from napari_medseg.engine import Engine


class MeasureWidget(QWidget):
    """Measures objects, and shows or saves the table.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    engine : Engine, optional
        Where it is computed; by default in the engine of the window.
    """

    def __init__(self, viewer: napari.Viewer, engine: Engine | None = None) -> None:
        super().__init__()
        self._viewer = viewer
        self._engine = engine
        self._measurer: Measurer | None = None
        self._labels = cast("ComboBox", create_widget(annotation=Labels))
        self._image = cast("ComboBox", create_widget(annotation=Image | None))
        self._told = QLabel()
        self._told.setObjectName("told")
        self._told.setWordWrap(True)
        measure = QPushButton("Measure")
        measure.setObjectName("measure")
        measure.setToolTip("Fill the features table of the labels layer")
        measure.clicked.connect(self._on_measure_clicked)
        save = QPushButton("Save table…")
        save.setObjectName("save")
        save.setToolTip("Save the features table as CSV")
        save.clicked.connect(self._on_save_clicked)
        form = QFormLayout()
        form.addRow("objects", self._labels.native)
        form.addRow("intensity of", self._image.native)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        for part in (measure, save, self._told):
            layout.addWidget(part)
        layout.addStretch(1)

    def reset_choices(self, event: Any = None) -> None:
        """List the layers; napari calls it when layers come and go."""
        self._labels.reset_choices()
        self._image.reset_choices()

    def showEvent(self, event: Any) -> None:
        """List the layers: those of the viewer that the widget is now in."""
        super().showEvent(event)
        self.reset_choices()

    def choose(self, labels: Labels, image: Image | None) -> None:
        """Choose layers."""
        self._labels.value = labels
        self._image.value = image

    def save(self, path: Path) -> None:
        """Save the features table of the chosen layer as CSV."""
        labels = self._labels.value
        if labels is None or not len(labels.features):
            self._tell("There is no table yet; press Measure first.")
            return
        try:
            with atomic_path(path) as part:
                labels.features.to_csv(part, index=False)
        except OSError as error:
            self._tell(f"{path} cannot be written: {error.strerror or error}.")
            return
        self._tell(f"Saved as {path}.")

    def _on_measure_clicked(self) -> None:
        labels = self._labels.value
        if labels is None:
            self._tell("There is no labels layer. Segment an image first.")
            return
        if self._measurer is None:
            self._measurer = Measurer(self._engine or engine_of(self), self)
            self._measurer.ended.connect(self._tell)
        self._tell("Measuring…")
        self._measurer.start(labels, self._image.value)

    def _on_save_clicked(self) -> None:
        name, _ = QFileDialog.getSaveFileName(
            self, "Save the table", "objects.csv", "Tables (*.csv)"
        )
        if name:
            self.save(Path(name))

    def _tell(self, sentence: str) -> None:
        self._told.setText(sentence)
