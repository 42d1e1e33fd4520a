"""A button that copies a command, once files were looked at in the background."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QApplication, QPushButton, QWidget

from napari_medseg._types import MedsegError
from napari_medseg.widgets._background import Background

if TYPE_CHECKING:
    from collections.abc import Callable


class CopyButton(QPushButton):
    """Copies the line for the terminal that does what a form shows.

    Parameters
    ----------
    tip : str
        What the line does.
    prepare : callable
        Reads the form, in the window's thread, and returns a function that looks at
        the files and returns the line, in another thread. Either may raise a
        `MedsegError` where there is no such line.
    parent : QWidget, optional
        The parent.
    text : str
        What stands on it, where a form has several.

    Attributes
    ----------
    told : Signal
        With a sentence: the line, or why there is none.
    """

    told = Signal(str)

    def __init__(
        self,
        tip: str,
        prepare: Callable[[], Callable[[], str]],
        parent: QWidget | None = None,
        text: str = "Copy as command",
    ) -> None:
        super().__init__(text, parent)
        self.setObjectName("copy")
        self.setToolTip(tip)
        self._prepare = prepare
        self._background = Background("medseg-copy", drop=True, parent=self)
        self.clicked.connect(self._on_clicked)

    def _on_clicked(self) -> None:
        try:
            line = self._prepare()
        except MedsegError as error:
            self.told.emit(str(error))
            return
        self._background.submit(
            line, self._copy, lambda error: self.told.emit(str(error))
        )

    def _copy(self, line: str) -> None:
        QApplication.clipboard().setText(line)
        self.told.emit(f"Copied: {line}")
