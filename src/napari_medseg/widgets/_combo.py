"""Choices that leave a docked panel as narrow as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from magicgui.widgets import create_widget
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QWidget

if TYPE_CHECKING:
    from collections.abc import Iterable

    from magicgui.widgets import ComboBox

LETTERS = 12
"""So many letters of a choice are shown in the narrowest panel."""


def combo(name: str, choices: Iterable[str], tip: str) -> QComboBox:
    """Return a choice among words.

    Parameters
    ----------
    name : str
        Name of the control.
    choices : iterable of str
        The words.
    tip : str
        What is chosen.

    Returns
    -------
    QComboBox
        The control.
    """
    box = QComboBox()
    box.setObjectName(name)
    box.addItems(list(choices))
    box.setToolTip(tip)
    narrow(box)
    return box


def layer_choice(kind: Any, tip: str) -> ComboBox:
    """Return a choice among the layers of the viewer that it is docked in.

    Parameters
    ----------
    kind : type
        Class of the layers; ``Image | None`` offers none, too.
    tip : str
        What is chosen.

    Returns
    -------
    ComboBox
        The control.
    """
    choice = cast("ComboBox", create_widget(annotation=kind))
    choice.native.setToolTip(tip)
    narrow(choice.native)
    return choice


def narrow(control: QWidget) -> QWidget:
    """Let a choice be narrower than the longest of its words.

    Parameters
    ----------
    control : QWidget
        A combo box, or what holds one.

    Returns
    -------
    QWidget
        The control.
    """
    boxes = [control] if isinstance(control, QComboBox) else []
    for box in (*boxes, *control.findChildren(QComboBox)):
        box.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        box.setMinimumContentsLength(LETTERS)
        # results of one image begin alike
        view = box.view()
        if view is not None:
            view.setTextElideMode(Qt.TextElideMode.ElideMiddle)
    return control
