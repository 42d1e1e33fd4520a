"""Sliders for what becomes an object, which act at once."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QWidget
from superqt import QLabeledDoubleSlider, QLabeledSlider

from napari_medseg.instances import ObjectConfig

DELAY = 60
"""Milliseconds a slider rests before it acts."""

LARGEST_SMALLEST = 2000
"""Upper end of the slider for the smallest object, in pixels."""

STRONGEST = 10.0
"""Upper end of the slider for smoothing, in pixels."""


class ObjectSliders(QWidget):
    """Threshold, smallest object, splitting and smoothing.

    Attributes
    ----------
    changed : Signal
        Some time after the last of several changes.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        usual = ObjectConfig()
        self._threshold = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self._threshold.setRange(0.0, 1.0)
        self._threshold.setDecimals(2)
        self._threshold.setValue(usual.threshold)
        self._smallest = QLabeledSlider(Qt.Orientation.Horizontal)
        self._smallest.setRange(0, LARGEST_SMALLEST)
        self._smallest.setValue(usual.min_size)
        self._split = QCheckBox("split at necks")
        self._split.setChecked(usual.split == "watershed")
        self._smoothing = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self._smoothing.setRange(0.0, STRONGEST)
        self._smoothing.setDecimals(1)
        self._smoothing.setValue(usual.smoothing)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY)
        self._timer.timeout.connect(self.changed)
        helps = {field.name: field.metadata["help"] for field in fields(ObjectConfig)}
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for name, label, control, signal in (
            ("threshold", "threshold", self._threshold, self._threshold.valueChanged),
            ("min_size", "smallest", self._smallest, self._smallest.valueChanged),
            ("split", "touching", self._split, self._split.toggled),
            ("smoothing", "smoothing", self._smoothing, self._smoothing.valueChanged),
        ):
            control.setObjectName(name)
            control.setToolTip(helps[name])
            signal.connect(self._timer.start)
            layout.addRow(label, control)

    def values(self) -> dict[str, Any]:
        """Return the settings of `napari_medseg.instances.ObjectConfig`."""
        return {
            "threshold": float(self._threshold.value()),
            "min_size": int(self._smallest.value()),
            "split": "watershed" if self._split.isChecked() else "components",
            "smoothing": float(self._smoothing.value()),
        }
