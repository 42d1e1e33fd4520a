"""What Annotate shows of a folder of images: a list, and where annotations go."""

from __future__ import annotations

from dataclasses import dataclass
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
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class PanelWords:
    """What a panel says.

    Attributes
    ----------
    done : str
        What an image is that is done.
    last : str
        Once all are done.
    buttons : mapping of str to (str, str)
        What each button says, and does.
    chooses : bool
        Whether the folder of the annotations can be chosen.
    """

    done: str
    last: str
    buttons: Mapping[str, tuple[str, str]]
    chooses: bool = True


ANNOTATING = PanelWords(
    "annotated",
    "That was the last: all images are annotated.",
    {
        "save": ("Save  (S)", "Save the annotation of the image that is open"),
        "done_next": ("Done, next  (D)", "Save it, and open the next image to do"),
        "tune": ("Tune on this folder", "Tune a model on all that is annotated"),
    },
)

REVIEWING = PanelWords(
    "accepted",
    "That was the last: all results are accepted.",
    {
        "save": ("Save  (S)", "Keep the correction for later, without accepting it"),
        "done_next": (
            "Accept, next  (D)",
            "Copy image and mask to the training images, and open the next to do",
        ),
        "tune": (
            "Tune goes on",
            "Tune the model further on the training images, accepted ones included",
        ),
    },
    chooses=False,
)


class FolderPanel(QWidget):
    """The images of a folder, and what can be done with them.

    Parameters
    ----------
    words : PanelWords
        What it says.
    parent : QWidget, optional
        The parent.

    Attributes
    ----------
    words : PanelWords
        What it says.
    pressed : Signal
        With the name of a button.
    moved : Signal
        Another folder was chosen for the annotations.
    """

    pressed = Signal(str)
    moved = Signal()

    def __init__(
        self, words: PanelWords = ANNOTATING, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.words = words
        self._count = QLabel()
        self._count.setObjectName("count")
        self.list = ImageList()
        if words is not ANNOTATING:
            self.list.images.done = words.done
        self._saved_in = Folder(
            "annotations", "Folder of the annotations; one with masks may be chosen"
        )
        self._saved_in.settled.connect(self.moved)
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.addRow("saved in", self._saved_in)
        form.setRowVisible(self._saved_in, words.chooses)
        row = QHBoxLayout()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._count)
        layout.addWidget(self.list, 1)
        layout.addLayout(form)
        layout.addLayout(row)
        for name, (text, tip) in words.buttons.items():
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
        self._count.setText(f"{done} of {total} {self.words.done}")
