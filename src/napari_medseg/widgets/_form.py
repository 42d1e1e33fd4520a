"""A form out of the fields of a config."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QLineEdit,
    QSpinBox,
    QWidget,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed import DataclassInstance

MOST = 10**6
"""Upper bound of a number whose setting has none."""

AUTOMATIC = "automatic"
"""What a number shows that is left to the program."""


class ConfigForm(QWidget):
    """Shows the settings of a config and gives those that differ from the defaults.

    Parameters
    ----------
    kind : type
        A config class (`napari_medseg._config`).
    leave_out : iterable of str
        Fields that the widget around has controls of its own for.
    parent : QWidget, optional
        The parent.

    Attributes
    ----------
    changed : Signal
        A setting was changed.
    """

    changed = Signal()

    def __init__(
        self,
        kind: type[DataclassInstance],
        leave_out: Iterable[str] = (),
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        hints = get_type_hints(kind)
        self._editors: dict[str, _Editor] = {}
        for field in dataclasses.fields(kind):
            if field.name in leave_out or get_args(hints[field.name])[1:] == (...,):
                continue
            editor = _editor(field, hints[field.name])
            editor.widget.setToolTip(str(field.metadata.get("help", "")))
            editor.widget.setObjectName(field.name)
            editor.changed.connect(self.changed)
            layout.addRow(field.name.replace("_", " "), editor.widget)
            self._editors[field.name] = editor

    def values(self) -> dict[str, Any]:
        """Return the settings that are not as by default."""
        found = {name: editor.value() for name, editor in self._editors.items()}
        return {
            name: value
            for name, value in found.items()
            if value != self._editors[name].default
        }

    def set_values(self, values: dict[str, Any]) -> None:
        """Show these settings, and the default of all others."""
        for name, editor in self._editors.items():
            editor.set_value(values.get(name, editor.default))


class _Editor:
    """A control for one field."""

    def __init__(self, widget: QWidget, changed: Any, default: Any) -> None:
        self.widget = widget
        self.changed = changed
        self.default = default

    def value(self) -> Any:
        """Return what the control says."""
        raise NotImplementedError

    def set_value(self, value: Any) -> None:
        """Show a value."""
        raise NotImplementedError


class _Number(_Editor):
    """A whole or a broken number, which may be left to the program."""

    def __init__(self, field: dataclasses.Field[Any], hint: Any) -> None:
        kinds = get_args(hint) or (hint,)
        self._optional = type(None) in kinds
        whole = float not in kinds
        box: Any = QSpinBox() if whole else QDoubleSpinBox()
        low = field.metadata.get("ge")
        high = field.metadata.get("le")
        low = 0 if low is None else low
        high = MOST if high is None else min(high, 2**31 - 1)
        if not whole:
            box.setDecimals(4)
            box.setSingleStep(10 ** round(_exponent(field.default) - 1))
        # one step below the lowest stands for "automatic"
        self._none = low - (1 if whole else 0.0001)
        box.setRange(self._none if self._optional else low, high)
        if self._optional:
            box.setSpecialValueText(AUTOMATIC)
        super().__init__(box, box.valueChanged, field.default)
        self._box = box
        self.set_value(field.default)

    def value(self) -> Any:
        if self._optional and self._box.value() <= self._none:
            return None
        return self._box.value()

    def set_value(self, value: Any) -> None:
        self._box.setValue(self._none if value is None else value)


class _Choice(_Editor):
    """One of a few words."""

    def __init__(self, field: dataclasses.Field[Any]) -> None:
        box = QComboBox()
        box.addItems([str(choice) for choice in field.metadata["choices"]])
        super().__init__(box, box.currentTextChanged, field.default)
        self._box = box
        self.set_value(field.default)

    def value(self) -> Any:
        return self._box.currentText()

    def set_value(self, value: Any) -> None:
        self._box.setCurrentText(str(value))


class _Switch(_Editor):
    """Yes or no."""

    def __init__(self, field: dataclasses.Field[Any]) -> None:
        box = QCheckBox()
        super().__init__(box, box.toggled, field.default)
        self._box = box
        self.set_value(field.default)

    def value(self) -> Any:
        return self._box.isChecked()

    def set_value(self, value: Any) -> None:
        self._box.setChecked(bool(value))


class _Text(_Editor):
    """Any text."""

    def __init__(self, field: dataclasses.Field[Any]) -> None:
        line = QLineEdit()
        super().__init__(line, line.textChanged, field.default)
        self._line = line
        self.set_value(field.default)

    def value(self) -> Any:
        return self._line.text()

    def set_value(self, value: Any) -> None:
        self._line.setText(str(value))


def _editor(field: dataclasses.Field[Any], hint: Any) -> _Editor:
    """Return the control for a field of some type."""
    kinds = set(get_args(hint) or (hint,)) - {type(None)}
    if field.metadata.get("choices"):
        return _Choice(field)
    if kinds == {bool}:
        return _Switch(field)
    if kinds <= {int, float}:
        return _Number(field, hint)
    return _Text(field)


def _exponent(value: Any) -> float:
    """Return the power of ten of a number."""
    return math.floor(math.log10(abs(value))) if value else 0.0
