"""Sliders for what becomes a class or an object, which act at once."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QLabel, QWidget
from superqt import QLabeledDoubleSlider, QLabeledSlider

from napari_medseg._config import to_dict
from napari_medseg.object_settings import ClassConfig, ObjectConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

DELAY = 60
"""Milliseconds a slider rests before it acts."""

LARGEST_SMALLEST = 2000
"""Upper end of the slider for the smallest object, in pixels."""

STRONGEST = 10.0
"""Upper end of the slider for smoothing, in pixels."""

CONFIGS: dict[str, type[ClassConfig] | type[ObjectConfig]] = {
    "classes": ClassConfig,
    "objects": ObjectConfig,
}
"""What the sliders set, by what the labels mean."""

NAMES = {
    "threshold": "threshold",
    "smoothing": "smoothing",
    "min_size": "smallest",
    "split": "touching",
}
"""What stands before the slider of a setting."""


class LabelSliders(QWidget):
    """Threshold, smoothing, smallest object and splitting, of classes or of objects.

    What was set for the one is kept while the other is shown.

    Attributes
    ----------
    changed : Signal
        Some time after the last of several changes.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._kind = "classes"
        self._kept = {kind: to_dict(config()) for kind, config in CONFIGS.items()}
        self._threshold = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self._threshold.setRange(0.0, 1.0)
        self._threshold.setDecimals(2)
        self._smoothing = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
        self._smoothing.setRange(0.0, STRONGEST)
        self._smoothing.setDecimals(1)
        self._smallest = QLabeledSlider(Qt.Orientation.Horizontal)
        self._smallest.setRange(0, LARGEST_SMALLEST)
        self._split = QCheckBox("split at necks")
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY)
        self._timer.timeout.connect(self.changed)
        self._controls: dict[str, tuple[QLabel, QWidget]] = {}
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for name, control, signal in (
            ("threshold", self._threshold, self._threshold.valueChanged),
            ("smoothing", self._smoothing, self._smoothing.valueChanged),
            ("min_size", self._smallest, self._smallest.valueChanged),
            ("split", self._split, self._split.toggled),
        ):
            control.setObjectName(name)
            signal.connect(self._timer.start)
            label = QLabel(NAMES[name])
            layout.addRow(label, control)
            self._controls[name] = label, control
        self._show()

    @property
    def kind(self) -> str:
        """``classes`` or ``objects``."""
        return self._kind

    def choose(self, kind: str) -> None:
        """Show the sliders of classes or of objects; `changed` stays silent."""
        if kind != self._kind:
            self._kept[self._kind] |= self.values()
            self._kind = kind
            self._show()

    def _show(self) -> None:
        kept = self._kept[self._kind]
        self._threshold.setValue(kept["threshold"])
        self._smoothing.setValue(kept["smoothing"])
        self._smallest.setValue(kept["min_size"])
        self._split.setChecked(kept.get("split") == "watershed")
        self._timer.stop()
        helps = {item.name: item.metadata["help"] for item in fields(self._config)}
        every = {item.name: item.metadata["help"] for item in fields(ObjectConfig)}
        for name, parts in self._controls.items():
            for part in parts:
                part.setVisible(name in helps)
                part.setToolTip((every | helps)[name])

    @property
    def _config(self) -> type[ClassConfig] | type[ObjectConfig]:
        return CONFIGS[self._kind]

    def values(self) -> dict[str, Any]:
        """Return the settings of `ClassConfig` or `ObjectConfig`."""
        values: dict[str, Any] = {
            "threshold": round(float(self._threshold.value()), 2),
            "smoothing": round(float(self._smoothing.value()), 1),
            "min_size": int(self._smallest.value()),
        }
        if self._kind == "objects":
            split = "watershed" if self._split.isChecked() else "components"
            values["split"] = split
        return values

    def set_values(self, kind: str, values: Mapping[str, Any]) -> None:
        """Show settings of classes or of objects; `changed` stays silent."""
        self.choose(kind)
        known = self._kept[kind]
        known |= {name: value for name, value in values.items() if name in known}
        self._show()

    def changed_values(self) -> dict[str, Any]:
        """Return the settings that are not as by default."""
        usual = to_dict(self._config())
        return {
            name: value for name, value in self.values().items() if value != usual[name]
        }
