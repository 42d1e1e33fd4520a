"""Measure: size, shape and intensity of the objects of a labels layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_medseg.widgets._combo import layer_choice
from napari_medseg.widgets._copy_button import CopyButton
from napari_medseg.widgets._copying import measure_line
from napari_medseg.widgets._jobs import engine_of
from napari_medseg.widgets._measuring import Measurer
from napari_medseg.widgets._saving import SaveButtons
from napari_medseg.widgets._words import Words

if TYPE_CHECKING:
    from pathlib import Path

    import napari.viewer

    from napari_medseg.engine import Engine

TABLE = ("napari", "Features table widget")
"""Plugin and name of napari's own view of the table."""


class MeasureWidget(QWidget):
    """Measures objects, shows their table, and saves it and them.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    engine : Engine, optional
        Where it is computed; by default in the engine of the window.
    """

    # napari gives its viewer to what is annotated in this very spelling
    def __init__(
        self, viewer: napari.viewer.Viewer, engine: Engine | None = None
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self._engine = engine
        self._measurer: Measurer | None = None
        self._labels = layer_choice(Labels, "The objects to measure")
        self._image = layer_choice(Image | None, "Its intensity is measured, too")
        self._told = Words("told")
        self.files = SaveButtons(self._chosen, self._the_engine, self)
        self.files.told.connect(self._tell)
        measure = _button(
            "Measure", "measure", "Fill the features table of the labels layer"
        )
        measure.clicked.connect(self._on_measure_clicked)
        show = _button("Show table", "show", "Open napari's features table")
        show.clicked.connect(self._on_show_clicked)
        table = _button("Save table…", "save table", "Save the features table as CSV")
        table.clicked.connect(self._on_save_table_clicked)
        copy = CopyButton(
            "The line for the terminal that writes the same table",
            lambda: measure_line(self._labels.value, self._image.value),
        )
        copy.told.connect(self._tell)
        form = QFormLayout()
        form.addRow("objects", self._labels.native)
        form.addRow("intensity of", self._image.native)
        row = QHBoxLayout()
        row.addWidget(show)
        row.addWidget(table)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addWidget(measure)
        layout.addLayout(row)
        layout.addWidget(self.files)
        layout.addWidget(copy)
        layout.addWidget(self._told)
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

    def save_table(self, path: Path) -> None:
        """Save the features table of the chosen layer as CSV."""
        if self._has_table():
            self.files.export(path, "csv")

    def save(self, path: Path) -> None:
        """Save the chosen labels as label image; see `export`."""
        self.files.save(path)

    def export(self, path: Path, name: str) -> None:
        """Write the chosen labels in a format of `napari_medseg.io.exports.FORMATS`.

        The engine writes; ``files.written`` and the line below the buttons say when
        it has.
        """
        self.files.export(path, name)

    def _chosen(self) -> list[Labels]:
        return [self._labels.value] if self._labels.value is not None else []

    def _the_engine(self) -> Engine:
        return self._engine or engine_of(self)

    def _has_table(self) -> bool:
        labels = self._labels.value
        there = labels is not None and "area_px" in labels.features
        if not there:
            self._tell("There is no table yet; press Measure first.")
        return there

    def _on_measure_clicked(self) -> None:
        labels = self._labels.value
        if labels is None:
            self._tell("There is no labels layer. Segment an image first.")
            return
        if self._measurer is None:
            self._measurer = Measurer(self._the_engine(), self)
            self._measurer.ended.connect(self._tell)
        self._tell("Measuring…")
        self._measurer.start(labels, self._image.value)

    def _on_show_clicked(self) -> None:
        if self._has_table():
            self._viewer.layers.selection.active = self._labels.value
            self._viewer.window.add_plugin_dock_widget(*TABLE)

    def _on_save_table_clicked(self) -> None:
        if self._has_table():
            self.files.ask("csv")

    def _tell(self, sentence: str) -> None:
        self._told.setText(sentence)


def _button(text: str, name: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setObjectName(name)
    button.setToolTip(tip)
    return button
