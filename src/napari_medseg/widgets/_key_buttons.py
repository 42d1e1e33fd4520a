"""The buttons of Annotate, which keys press as well."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QGridLayout, QPushButton

KEYS = {
    "G": ("accept", "Put the suggestion into the annotation, with its label"),
    "N": ("accept_new", "The same as a new object: the next free label"),
    "T": ("next_mask", "Try SAM's next idea: a part, the whole, or something else"),
    "U": ("take_back", "Undo the last click"),
    "Q": ("clear", "Forget the clicks"),
}
"""Keys while the suggestion's layer is chosen; napari has none of them there."""


def key_buttons(form: Any, use_label: Any) -> QGridLayout:
    """Return a button for each key, and one for the label that is chosen.

    Parameters
    ----------
    form : object
        Has a method of the name of each key.
    use_label : callable
        Called by the last button.

    Returns
    -------
    QGridLayout
        Two columns of buttons.
    """
    grid = QGridLayout()
    for row, (key, (name, tip)) in enumerate(KEYS.items()):
        button = QPushButton(f"{name.replace('_', ' ')}  ({key})")
        button.setObjectName(name)
        button.setToolTip(tip)
        button.clicked.connect(getattr(form, name))
        grid.addWidget(button, row // 2, row % 2)
    use = QPushButton("use label")
    use.setObjectName("use label")
    use.setToolTip("Have SAM redraw the object of the annotation's chosen label")
    use.clicked.connect(use_label)
    grid.addWidget(use, len(KEYS) // 2, len(KEYS) % 2)
    return grid
