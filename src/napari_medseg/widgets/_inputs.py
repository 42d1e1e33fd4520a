"""The line for the images of a run: chosen, typed, or dropped onto it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QMenu,
    QPushButton,
    QWidget,
)

from napari_medseg.io.images import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_NAMED = 20
"""Files that the tooltip names."""


class Inputs(QWidget):
    """Lets the user choose a folder, several files or a pattern.

    Parameters
    ----------
    parent : QWidget, optional
        The parent.

    Attributes
    ----------
    settled : Signal
        The user is done with the line, or something was chosen or dropped.
    """

    settled = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._several: tuple[Path, ...] = ()
        self._line = PathLine()
        self._line.setObjectName("inputs")
        self._line.setPlaceholderText("choose, or drop here")
        self._line.editingFinished.connect(self.settled)
        self._line.dropped.connect(self._on_chosen)
        self._line.textChanged.connect(self._on_text_changed)
        button = QPushButton("…")
        button.setToolTip("Choose a folder of images, or single files")
        menu = QMenu(button)
        menu.addAction("Folder…").triggered.connect(lambda *_: self._ask_folder())
        menu.addAction("Files…").triggered.connect(lambda *_: self._ask_files())
        button.setMenu(menu)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._line, 1)
        row.addWidget(button)
        self._on_text_changed()

    @property
    def paths(self) -> tuple[Path, ...]:
        """What is chosen; nothing where the line is empty."""
        text = self._line.text().strip()
        if self._several and text == _named(self._several):
            return self._several
        return (Path(text).expanduser(),) if text else ()

    def set_paths(self, paths: Iterable[Path]) -> None:
        """Show files or folders."""
        found = tuple(paths)
        self._several = found if len(found) > 1 else ()
        self._line.setText(_named(found))

    def _on_chosen(self, paths: list[Path]) -> None:
        self.set_paths(paths)
        self.settled.emit()

    def _on_text_changed(self) -> None:
        paths = self.paths
        shown = [str(path) for path in paths[:MOST_NAMED]]
        if len(paths) > MOST_NAMED:
            shown.append(f"and {len(paths) - MOST_NAMED} more")
        told = "A folder, files, or a pattern such as plate*/*.tif; folders in a "
        told += "folder are included"
        self._line.setToolTip("\n".join(shown) or told)

    def _ask_folder(self) -> None:
        found = QFileDialog.getExistingDirectory(self, "Choose a folder of images")
        if found:
            self._on_chosen([Path(found)])

    def _ask_files(self) -> None:
        endings = " ".join(f"*{suffix}" for suffix in IMAGE_SUFFIXES)
        found, _ = QFileDialog.getOpenFileNames(
            self, "Choose images", "", f"Images ({endings})"
        )
        if found:
            self._on_chosen([Path(name) for name in found])


class PathLine(QLineEdit):
    """A line onto which files and folders can be dropped.

    Attributes
    ----------
    dropped : Signal
        With a list of paths.
    """

    dropped = Signal(object)

    def dragEnterEvent(self, event: Any) -> None:
        """Take files; leave text to Qt."""
        if _files_of(event):
            event.acceptProposedAction()
        else:
            super().dragEnterEvent(event)

    def dragMoveEvent(self, event: Any) -> None:
        """Take files; leave text to Qt."""
        if _files_of(event):
            event.acceptProposedAction()
        else:
            super().dragMoveEvent(event)

    def dropEvent(self, event: Any) -> None:
        """Say which files were dropped."""
        files = _files_of(event)
        if files:
            event.acceptProposedAction()
            self.dropped.emit(files)
        else:
            super().dropEvent(event)


def _files_of(event: Any) -> list[Path]:
    """Return the files and folders of this computer that are dragged."""
    return [
        Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()
    ]


def _named(paths: tuple[Path, ...]) -> str:
    """Return what the line says of paths."""
    if len(paths) < 2:
        return "".join(map(str, paths))
    try:
        place = os.path.commonpath([path.parent for path in paths])
    except ValueError:  # several drives
        return f"{len(paths)} files"
    return f"{len(paths)} files in {place}"
