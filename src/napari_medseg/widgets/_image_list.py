"""The images of a folder as a list with thumbnails and marks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractListModel, QSize, Qt, Signal
from qtpy.QtGui import QFont, QIcon, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QListView

from napari_medseg.widgets._annotated_folder import State
from napari_medseg.widgets._thumbnails import Thumbnails

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from qtpy.QtCore import QObject
    from qtpy.QtWidgets import QWidget

    from napari_medseg.widgets._annotation_files import Entry

ICON = 44
"""Side of a thumbnail in the list, in pixels; the list has little room."""


class ImageModel(QAbstractListModel):
    """Images of a folder, how far each is, and which is open.

    Parameters
    ----------
    parent : QObject, optional
        The parent.

    Attributes
    ----------
    done : str
        What the list says of an image that is done.
    """

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.done = State.DONE.value[1]
        self._entries: list[Entry] = []
        self._states: list[State] = []
        self._told: dict[int, str] = {}
        self._rows: dict[Path, int] = {}
        self._open = -1
        self._thumbnails = Thumbnails(self)
        self._thumbnails.made.connect(self._on_thumbnail)
        self._thumbnails.failed.connect(self._on_unreadable)
        blank = QPixmap(ICON, ICON)
        blank.fill(Qt.GlobalColor.transparent)
        self._blank = QIcon(blank)

    def show_entries(self, entries: Sequence[Entry], states: Sequence[State]) -> None:
        """Show the images of another folder."""
        self.beginResetModel()
        self._entries, self._states = list(entries), list(states)
        self._rows = {entry.path: row for row, entry in enumerate(entries)}
        self._told = {
            row: entry.trouble for row, entry in enumerate(entries) if entry.trouble
        }
        self._open = -1
        self._thumbnails.forget()
        self.endResetModel()

    def entry(self, row: int) -> Entry:
        """Return the image of a row."""
        return self._entries[row]

    def row_of(self, path: Path) -> int | None:
        """Return the row of an image; None where it is not in the list."""
        return self._rows.get(path)

    def state(self, row: int) -> State:
        """Return how far an image is."""
        return self._states[row]

    def set_state(self, row: int, state: State, told: str = "") -> None:
        """Say how far an image is, and what there is to say of it."""
        self._states[row] = state
        self._told[row] = told
        self._changed(row)

    def set_open(self, row: int) -> None:
        """Say which image is open."""
        before, self._open = self._open, row
        for each in (before, row):
            if 0 <= each < len(self._entries):
                self._changed(each)

    def next_to_do(self, after: int) -> int | None:
        """Return the first row that is not done, after a row and then from the top."""
        rows = [*range(after + 1, len(self._states)), *range(max(after, 0))]
        left = (State.TO_DO, State.IN_PROGRESS)
        return next((row for row in rows if self._states[row] in left), None)

    def _changed(self, row: int) -> None:
        index = self.index(row)
        self.dataChanged.emit(index, index)

    def _on_thumbnail(self, path: Path) -> None:
        if path in self._rows:
            self._changed(self._rows[path])

    def _on_unreadable(self, path: Path, told: str) -> None:
        if path in self._rows:
            self.set_state(self._rows[path], State.TROUBLE, told)

    # --------------------------------------------------------------- what Qt asks

    def rowCount(self, parent: Any = None) -> int:
        """Return the number of images."""
        return 0 if parent is not None and parent.isValid() else len(self._entries)

    def data(self, index: Any, role: int = 0) -> Any:
        """Return what a view asks of a row."""
        row = index.row()
        if not 0 <= row < len(self._entries):
            return None
        entry, state = self._entries[row], self._states[row]
        if role == Qt.ItemDataRole.DisplayRole:
            mark, words = state.value
            words = self.done if state is State.DONE else words
            told = f"{entry.name}\n{mark} {words}"
            return f"{told}; {entry.remark}" if entry.remark else told
        if role == Qt.ItemDataRole.DecorationRole:
            return self._thumbnails.of(entry.path) or self._blank
        if role == Qt.ItemDataRole.ToolTipRole:
            return self._told.get(row) or f"{entry.path}: {state.value[1]}"
        if role == Qt.ItemDataRole.SizeHintRole:
            return QSize(ICON, ICON + 6)
        if role == Qt.ItemDataRole.FontRole and row == self._open:
            font = QFont()
            font.setBold(True)
            return font
        return None


class ImageList(QListView):
    """Shows the images; only those in view are looked at.

    Parameters
    ----------
    parent : QWidget, optional
        The parent.

    Attributes
    ----------
    chosen : Signal
        With the row that was clicked, or on which Return was pressed.
    """

    chosen = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("images of the folder")
        self.setToolTip("The images of the folder; click on one to open it")
        self.images = ImageModel(self)
        self.setModel(self.images)
        self.setUniformItemSizes(True)
        self.setIconSize(QSize(ICON, ICON))
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setMinimumHeight(2 * (ICON + 6))
        self.clicked.connect(lambda index: self.chosen.emit(index.row()))

    def show_row(self, row: int) -> None:
        """Bring a row into view, and make it the one that keys go from."""
        index = self.images.index(row)
        self.setCurrentIndex(index)
        self.scrollTo(index)

    def sizeHint(self) -> QSize:
        """Return a size with room for five images."""
        return QSize(200, 5 * (ICON + 6))

    def keyPressEvent(self, event: Any) -> None:
        """Open the image on Return; on every system, unlike the signal of Qt."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            if self.currentIndex().isValid():
                self.chosen.emit(self.currentIndex().row())
            return
        super().keyPressEvent(event)
