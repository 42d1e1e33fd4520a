"""How the images of a folder are segmented and what is written: the choice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_medseg.io.exports import FORMATS, has_parquet
from napari_medseg.widgets._channels import Channels
from napari_medseg.widgets._combo import combo
from napari_medseg.widgets._folded import Folded
from napari_medseg.widgets._mirrored import is_mirrored, mirrored_box
from napari_medseg.widgets._models import ModelChoice
from napari_medseg.widgets._preferences import preferences
from napari_medseg.widgets._sliders import CONFIGS, LabelSliders

if TYPE_CHECKING:
    from collections.abc import Mapping

ALWAYS = "tif"
"""The format that is written in any case."""

USUAL = ("csv",)
"""Formats that are chosen at first."""

WORDS = {
    "csv": "table of measurements (CSV)",
    "parquet": "table as Parquet",
    "geojson": "outlines for QuPath",
    "roi": "outlines for ImageJ",
    "coco": "objects as COCO",
    "ome-zarr": "labels as OME-Zarr",
}
"""What a narrow panel says of formats; the rest is in their tooltips."""


class BatchChoice(QWidget):
    """Lets the user choose the segmenter, its settings and what is written.

    Parameters
    ----------
    parent : QWidget, optional
        The parent.

    Attributes
    ----------
    refused : Signal
        With a sentence: a file that was opened is no model.
    """

    refused = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.models = ModelChoice()
        self.models.refused.connect(self.refused)
        self._result = combo(
            "result", CONFIGS, "One value for each class, or for each object"
        )
        self._sliders = LabelSliders()
        self._result.currentTextChanged.connect(self._sliders.choose)
        self._result.setCurrentText("objects")
        self._formats = {name: _format(name) for name in FORMATS if name != ALWAYS}
        self._probabilities = QCheckBox("probabilities of the classes")
        self._probabilities.setObjectName("probabilities")
        self._probabilities.setToolTip("Images of 32 bits: they take much room")
        self._masks = QCheckBox("a mask of each class")
        self._masks.setObjectName("masks")
        self._masks.setToolTip("Of models whose classes may overlap, such as lesions")
        self._mirrored = mirrored_box(self.models)
        self._channels = Channels(
            "as the model learned",
            "Of images with several stains: the channels that the model sees.",
        )
        self._workers = QSpinBox()
        self._workers.setObjectName("workers")
        self._workers.setRange(1, max(1, os.cpu_count() or 1))
        self._workers.setToolTip("Each has the model in its own memory")
        self._cluster = QLineEdit()
        self._cluster.setObjectName("cluster")
        self._cluster.setPlaceholderText("none")
        self._cluster.setToolTip(
            "Address of a Dask scheduler, such as tcp://10.0.0.1:8786, or its file: "
            "its workers segment, in place of processes of this computer"
        )
        self._lay_out()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("model", self.models)
        form.addRow("result", self._result)
        settings, rows = QWidget(), QFormLayout()
        rows.addRow("channels", self._channels)
        rows.addRow("processes", self._workers)
        rows.addRow("cluster", self._cluster)
        inside = QVBoxLayout(settings)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.addWidget(self._sliders)
        inside.addWidget(self._mirrored)
        inside.addLayout(rows)
        written = QWidget()
        inside = QVBoxLayout(written)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.addWidget(QLabel("label images (TIFF) always, and"))
        for box in (*self._formats.values(), self._probabilities, self._masks):
            inside.addWidget(box)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        layout.addWidget(Folded("settings", settings))
        layout.addWidget(Folded("what is written", written))

    @property
    def workers(self) -> int:
        """Processes that segment."""
        return int(self._workers.value())

    @property
    def cluster(self) -> str:
        """Address of a Dask scheduler; empty for none."""
        return str(self._cluster.text()).strip()

    @property
    def formats(self) -> list[str]:
        """What is written beside the labels."""
        return [name for name, box in self._formats.items() if box.isChecked()]

    def settings(self) -> dict[str, Any]:
        """Return what `napari_medseg.batch.BatchSettings` takes, as plain values."""
        labels = {"objects": None, "classes": None}
        return {
            "model": self.models.model,
            "device": preferences().device,
            "channels": self._channels.numbers,
            "mirrored": is_mirrored(self._mirrored),
            **labels,
            self._sliders.kind: self._sliders.values(),
            "formats": self.formats,
            "probabilities": self._probabilities.isChecked(),
            "masks": self._masks.isChecked(),
        }

    def for_command(self) -> dict[str, Any]:
        """Return what `segment_command` takes; classes without the usual values."""
        found = self.settings() | {"workers": self.workers, "cluster": self.cluster}
        if found["classes"] is not None:
            found["classes"] = self._sliders.changed_values()
        return found

    def show_settings(
        self, settings: Mapping[str, Any], workers: int, cluster: str = ""
    ) -> None:
        """Show settings of a run, as far as there are controls for them."""
        model = str(settings.get("model", ""))
        if Path(model).is_file():
            self.models.open(Path(model))
        self.models.choose(model)
        for kind in CONFIGS:
            if settings.get(kind) is not None:
                self._result.setCurrentText(kind)
                self._sliders.set_values(kind, settings[kind])
        for name, box in self._formats.items():
            box.setChecked(name in settings.get("formats", ()))
        self._probabilities.setChecked(bool(settings.get("probabilities", False)))
        self._masks.setChecked(bool(settings.get("masks", False)))
        self._mirrored.setChecked(bool(settings.get("mirrored", False)))
        self._channels.show_numbers(settings.get("channels") or ())
        self._workers.setValue(workers)
        self._cluster.setText(cluster)


def _format(name: str) -> QCheckBox:
    """Return the check box of a format."""
    ending, purpose = FORMATS[name]
    box = QCheckBox(WORDS.get(name, name))
    box.setObjectName(name)
    box.setToolTip(f"{ending}: {purpose}")
    box.setChecked(name in USUAL)
    if name == "parquet" and not has_parquet():
        box.setEnabled(False)
        box.setToolTip("Needs the package pyarrow: pip install pyarrow")
    return box
