"""What Annotate shows of a folder of images: a list, and where annotations go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_medseg.widgets._image_list import ImageList
from napari_medseg.widgets._source import Folder

if TYPE_CHECKING:
    from pathlib import Path

BUTTONS = {
    "save": ("Save  (S)", "Save the annotation of the image that is open"),
    "done_next": ("Done, next  (D)", "Save it, and open the next image to do"),
    "tune": ("Tune on this folder", "Tune a model on all that is annotated"),
}
"""The buttons: what they say and do."""


class FolderPanel(QWidget):
    """The images of a folder, and what can be done with them.

    Parameters
    ----------
    parent : QWidget, optional
        The parent.

    Attributes
    ----------
    pressed : Signal
        With the name of a button.
    moved : Signal
        Another folder was chosen for the annotations.
    """

    pressed = Signal(str)
    moved = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._count = QLabel()
        self._count.setObjectName("count")
        self.list = ImageList()
        self._saved_in = Folder(
            "annotations", "Folder of the annotations; one with masks may be chosen"
        )
        self._saved_in.settled.connect(self.moved)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("saved in", self._saved_in)
        row = QHBoxLayout()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._count)
        layout.addWidget(self.list, 1)
        layout.addLayout(form)
        layout.addLayout(row)
        for name, (text, tip) in BUTTONS.items():
            button = QPushButton(text)
            button.setObjectName(name)
            button.setToolTip(tip)
            button.clicked.connect(lambda *_, name=name: self.pressed.emit(name))
            (layout if name == "tune" else row).addWidget(button)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)

    @property
    def annotations(self) -> Path | None:
        """The folder of the annotations; None where the line is empty."""
        return self._saved_in.path

    def show_annotations(self, folder: Path) -> None:
        """Show where annotations are saved."""
        self._saved_in.set_path(folder)

    def show_count(self, done: int, total: int) -> None:
        """Say how many images are annotated."""
        self._count.setText(f"{done} of {total} annotated")
