"""What became of the images of a folder: a table that follows the ledger."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_medseg.batch.ledger import DONE, FAILED, WAITING
from napari_medseg.widgets._background import Background
from napari_medseg.widgets._combo import combo
from napari_medseg.widgets._ledger_look import FILTERS, Look, Wish, look_at
from napari_medseg.widgets._ledger_table import LedgerTable
from napari_medseg.widgets._words import Words

if TYPE_CHECKING:
    from pathlib import Path

PERIOD = 1000
"""Milliseconds between two looks at the ledger."""

SHARE = 10
"""A look that takes long is followed by the next after so many times as long."""


class LedgerPanel(QWidget):
    """Follows the ledger of a folder, and shows its rows.

    The ledger is read and sorted on another thread; a table of any length never
    makes the window wait.

    Parameters
    ----------
    parent : QWidget, optional
        The parent.

    Attributes
    ----------
    looked : Signal
        With a `Look` that is news.
    chosen : Signal
        With the row that shall be opened.
    """

    looked = Signal(object)
    chosen = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._out: Path | None = None
        self._look: Look | None = None
        self._asked: Wish | None = None
        self._order = ("name", False)
        self._is_running = False
        self._is_asleep = False
        self._files = Background("medseg-ledger", drop=True, parent=self)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self.refresh)
        self._filter = combo("shown", FILTERS, "Which images the table shows")
        for place, word in enumerate(FILTERS):
            self._filter.setItemData(place, word)
        self._filter.currentIndexChanged.connect(self.refresh)
        self._counts = Words("counts")
        self.table = LedgerTable()
        self.table.chosen.connect(self.chosen)
        self.table.rows.sorting.connect(self._on_sorting)
        row = QHBoxLayout()
        row.addWidget(QLabel("show"))
        row.addWidget(self._filter, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._counts)
        layout.addLayout(row)
        layout.addWidget(self.table, 1)
        self.setVisible(False)

    @property
    def look(self) -> Look | None:
        """The latest look at the folder."""
        return self._look

    def follow(self, out: Path | None) -> None:
        """Show what became of the images of an output folder, from now on."""
        if out == self._out:
            self.refresh()
            return
        self._out = out
        self._show(None)
        self._timer.stop()
        if out is not None:
            self.refresh()
            self._timer.start(PERIOD)

    def set_running(self, is_running: bool) -> None:
        """Say whether a run goes on in the folder."""
        if is_running == self._is_running:
            return
        self._is_running = is_running
        if self._look is not None:
            self._show(self._look)
        self.refresh()

    def refresh(self, *_: Any) -> None:
        """Look at the ledger soon; of several requests, the latest counts."""
        wish = self._wish()
        if wish is None or wish == self._asked or self._is_asleep:
            return
        busy, self._asked = self._asked is not None, wish
        if not busy:
            self._submit(wish)

    def _wish(self) -> Wish | None:
        if self._out is None:
            return None
        return Wish(self._out, str(self._filter.currentData()), *self._order)

    def _submit(self, wish: Wish) -> None:
        began = time.monotonic()
        self._files.submit(
            partial(look_at, wish, self._look),
            partial(self._on_looked, wish, began),
            partial(self._on_failed, wish),
        )

    def _on_looked(self, wish: Wish, began: float, look: Look) -> None:
        taken = round((time.monotonic() - began) * 1000)
        self._timer.setInterval(max(PERIOD, SHARE * taken))
        if look is not self._look and wish.out == self._out:
            self._show(look)
            self.looked.emit(look)
        self._next(wish)

    def _on_failed(self, wish: Wish, error: Exception) -> None:
        self._on_looked(wish, time.monotonic(), Look(wish, trouble=str(error)))

    def _next(self, wish: Wish) -> None:
        """Look again where something else was asked for meanwhile."""
        asked, self._asked = self._asked, None
        if asked is not None and asked != wish:
            self.refresh()

    def _show(self, look: Look | None) -> None:
        self._look = look
        if look is None or not look.there:
            self.setVisible(bool(look and look.trouble))
            self._counts.setText(look.trouble if look else "")
            self.table.rows.show_rows((), is_running=False)
            return
        self.table.show_columns(look.known)
        self.table.rows.show_rows(look.rows, is_running=self._is_running)
        counts = {
            word: sum(look.counts.get(state, 0) for state in states)
            for word, states in FILTERS.items()
        }
        for place, (word, count) in enumerate(counts.items()):
            self._filter.setItemText(place, f"{word} ({count:,})")
        told = (f"{counts[word]:,} {word}" for word in (DONE, FAILED, WAITING))
        self._counts.setText(", ".join(told))
        self.setVisible(True)

    def _on_sorting(self, column: str, descending: bool) -> None:
        self._order = column, descending
        self.refresh()

    def sleep(self, is_asleep: bool) -> None:
        """Look no more while nobody sees it."""
        self._is_asleep = is_asleep
        self.refresh()
