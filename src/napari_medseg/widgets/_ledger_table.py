"""The table of a ledger: a row for each image, thousands of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from napari_medseg.batch.ledger import DONE, FAILED, RUNNING, WAITING, Summary
from napari_medseg.widgets._ledger_look import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from qtpy.QtCore import QObject
    from qtpy.QtWidgets import QWidget

    from napari_medseg.widgets._ledger_look import Row

HEADERS = {
    "name": ("image", "Name of the results in the folder"),
    "state": ("state", "What became of it"),
    "objects": ("objects", "Objects found, all slices together"),
    "seconds": ("s", "Time it took, in seconds"),
    "quality": ("quality", "Predicted quality"),
}
"""What stands above each column, and what it means."""

STATES = {
    WAITING: "○ waiting",
    RUNNING: "… in work",
    DONE: "✓ done",
    FAILED: "✗ failed",
}
"""What is said of each state."""

OPTIONAL = ("objects", "quality")
"""Columns that are shown only where something is known."""

ROWS = 5
"""Rows that are in view at least."""


class LedgerModel(QAbstractTableModel):
    """Rows that were read and sorted elsewhere.

    Parameters
    ----------
    parent : QObject, optional
        The parent.

    Attributes
    ----------
    sorting : Signal
        With a field and whether the largest shall come first.
    """

    sorting = Signal(str, bool)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._rows: list[Row] = []
        self._is_running = False

    def show_rows(self, rows: Sequence[Row], *, is_running: bool) -> None:
        """Show rows; what is chosen stays chosen, wherever it now is.

        Parameters
        ----------
        rows : sequence of tuple
            In order; each is what `Summary._make` takes.
        is_running : bool
            Whether a run goes on; otherwise nothing is in work, whatever a run that
            was killed has noted.
        """
        self._is_running = is_running
        there, wanted = len(self._rows), len(rows)
        if wanted > there:
            self.beginInsertRows(QModelIndex(), there, wanted - 1)
            self._rows += rows[there:]
            self.endInsertRows()
        self.layoutAboutToBeChanged.emit()
        chosen = self.persistentIndexList()
        names = [self.row(index.row()).name for index in chosen]
        places = {
            row[0]: place
            for place, row in enumerate(rows if names else ())
            if row[0] in names
        }
        moved = [
            self._moved(index, places.get(name))
            for index, name in zip(chosen, names, strict=True)
        ]
        self._rows[:wanted] = rows
        self.changePersistentIndexList(chosen, moved)
        self.layoutChanged.emit()
        if wanted < there:
            self.beginRemoveRows(QModelIndex(), wanted, there - 1)
            del self._rows[wanted:]
            self.endRemoveRows()

    def _moved(self, index: QModelIndex, place: int | None) -> QModelIndex:
        """Return an index in another row; an invalid one where the row is gone."""
        return QModelIndex() if place is None else self.index(place, index.column())

    def row(self, place: int) -> Summary:
        """Return what a row shows."""
        return Summary._make(self._rows[place])

    def text(self, row: Summary, column: str) -> str:
        """Return what a cell says."""
        value = getattr(row, column)
        if column == "state":
            between = value == RUNNING and not self._is_running
            return STATES[WAITING if between else value]
        if value is None:
            return ""
        if column == "objects":
            return f"{value:,}"
        if column == "seconds":
            return f"{value:.1f}" if value < 100 else f"{value:,.0f}"
        return f"{value:.2f}" if column == "quality" else str(value)

    # --------------------------------------------------------------- what Qt asks

    def rowCount(self, parent: Any = None) -> int:
        """Return the number of images."""
        return 0 if parent is not None and parent.isValid() else len(self._rows)

    def columnCount(self, parent: Any = None) -> int:
        """Return the number of columns."""
        return 0 if parent is not None and parent.isValid() else len(COLUMNS)

    def data(self, index: Any, role: int = 0) -> Any:
        """Return what a view asks of a cell."""
        if not 0 <= index.row() < len(self._rows):
            return None
        row, column = self.row(index.row()), COLUMNS[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return self.text(row, column)
        if role == Qt.ItemDataRole.ToolTipRole:
            return row.error or "\n".join(filter(None, (row.source, row.note)))
        return _alignment(column) if role == Qt.ItemDataRole.TextAlignmentRole else None

    def headerData(self, section: int, orientation: Any, role: int = 0) -> Any:
        """Return what a view asks of a header."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        title, tip = HEADERS[COLUMNS[section]]
        if role == Qt.ItemDataRole.DisplayRole:
            return title
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _alignment(COLUMNS[section])
        return tip if role == Qt.ItemDataRole.ToolTipRole else None

    def sort(self, column: int, order: Any = Qt.SortOrder.AscendingOrder) -> None:
        """Ask for the rows in another order."""
        self.sorting.emit(COLUMNS[column], order == Qt.SortOrder.DescendingOrder)


def _alignment(column: str) -> Any:
    """Return where the words or the numbers of a column stand."""
    side = Qt.AlignmentFlag.AlignLeft
    if column not in ("name", "state"):
        side = Qt.AlignmentFlag.AlignRight
    return side | Qt.AlignmentFlag.AlignVCenter


class LedgerTable(QTableView):
    """Shows the rows of a ledger.

    Parameters
    ----------
    parent : QWidget, optional
        The parent.

    Attributes
    ----------
    chosen : Signal
        With the row that was double-clicked, or on which Return was pressed.
    """

    chosen = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("ledger")
        self.rows = LedgerModel(self)
        self.setModel(self.rows)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWordWrap(False)
        self.setShowGrid(False)
        self.setToolTip("A double click opens an image and its labels")
        self._arrange()
        self.doubleClicked.connect(self._choose)

    def _arrange(self) -> None:
        """Give the columns their widths, and all rows one height."""
        height = self.fontMetrics().height() + 6
        down = self.verticalHeader()
        down.setVisible(False)
        down.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        down.setMinimumSectionSize(height)
        down.setDefaultSectionSize(height)
        across = self.horizontalHeader()
        across.setMinimumSectionSize(30)
        across.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        words = {"state": STATES[WAITING], "seconds": "1,000"}
        for place, column in enumerate(COLUMNS[1:], start=1):
            word = words.get(column, HEADERS[column][0])
            self.setColumnWidth(place, self.fontMetrics().horizontalAdvance(word) + 12)
        self.setMinimumHeight((ROWS + 1) * height + 12)
        self.setSortingEnabled(True)
        self.sortByColumn(0, Qt.SortOrder.AscendingOrder)

    def show_columns(self, known: Collection[str]) -> None:
        """Hide what nothing is known of."""
        for column in OPTIONAL:
            self.setColumnHidden(COLUMNS.index(column), column not in known)

    def keyPressEvent(self, event: Any) -> None:
        """Open the image on Return; on every system, unlike the signal of Qt."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self._choose(self.currentIndex())
            return
        super().keyPressEvent(event)

    def _choose(self, index: QModelIndex) -> None:
        if index.isValid():
            self.chosen.emit(self.rows.row(index.row()))
