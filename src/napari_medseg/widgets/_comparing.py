"""Which method suits the annotated images: all are tried, and one is taken."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QHeaderView,
    QProgressBar,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_medseg.widgets._long_job import LongJob
from napari_medseg.widgets._models import tuned_folder
from napari_medseg.widgets._words import Words

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_medseg.engine import Engine

HEADINGS = ("", "Dice", "PQ", "time")
"""Of the table."""

LONGEST = 600.0
"""Minutes that a comparison may take, at most."""

HEIGHT = 180
"""Pixels of the table."""


class Comparing(QWidget):
    """Tries several ways to segment on the annotated images of a form.

    Parameters
    ----------
    chosen : callable
        Gives what the job ``train`` takes of the annotated images (``pairs``,
        ``images``, ``masks``, ``annotation``), or None where the form says why not.
    settings : callable
        Gives the SAM, and the device if one was chosen.
    engine : callable
        Gives the engine.

    Attributes
    ----------
    taken : Signal
        With a model file, or the name of a segmenter that needs no training.
    """

    taken = Signal(str)

    def __init__(
        self,
        chosen: Callable[[], dict[str, Any] | None],
        settings: Callable[[], dict[str, Any]],
        engine: Callable[[], Engine],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._chosen = chosen
        self._settings = settings
        self._engine = engine
        self._result: dict[str, Any] = {}
        self._minutes = QDoubleSpinBox()
        self._minutes.setObjectName("minutes")
        self._minutes.setDecimals(0)
        self._minutes.setRange(1.0, LONGEST)
        self._minutes.setValue(15.0)
        self._minutes.setToolTip("About how long it may take")
        self._compare = _button(
            "Compare", "Try all methods on the annotated images", self._on_compare
        )
        self._cancel = _button("End", "End, and compare what was tried", self._on_end)
        self._take = _button("Take it", "Go on with the chosen one", self._on_take)
        self._table = QTableWidget(0, len(HEADINGS))
        self._bar = QProgressBar()
        self._told = Words("advice")
        self._job = LongJob("compare", self._bar, self)
        self._job.shown.connect(lambda progress: self._told.setText(progress.message))
        self._job.told.connect(self._told.setText)
        self._job.cancelled.connect(lambda: self._told.setText("Cancelled."))
        self._job.done.connect(self._on_done)
        self._job.ended.connect(lambda: self._set_state(running=False))
        self._job.taken_over.connect(lambda: self._set_state(running=True))
        self._prepare_table()
        self._lay_out()
        self._set_state(running=False)

    def _prepare_table(self) -> None:
        table = self._table
        table.setObjectName("compared")
        table.setToolTip("Scores on images that were not trained on, best first")
        table.setHorizontalHeaderLabels(list(HEADINGS))
        table.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
        table.setSelectionMode(QTableWidget.SelectionMode.SingleSelection)
        table.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        table.setMinimumHeight(HEIGHT)
        header, numbers = table.horizontalHeader(), table.verticalHeader()
        if header is not None and numbers is not None:
            header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
            header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
            numbers.setVisible(False)
        table.setVisible(False)

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("minutes", self._minutes)
        row = QHBoxLayout()
        for button in (self._compare, self._cancel, self._take):
            row.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        layout.addLayout(row)
        for part in (self._bar, self._table, self._told):
            layout.addWidget(part)

    # ----------------------------------------------------------------------- job

    def take_over(self) -> None:
        """Follow a comparison that a form began which is closed by now."""
        self._job.take_over()

    def _on_compare(self) -> None:
        pairs = self._chosen()
        if pairs is None:
            return
        now = datetime.datetime.now()
        arguments = pairs | {
            "settings": {**self._settings(), "minutes": self._minutes.value()},
            "out": str(tuned_folder() / f"compared {now:%Y-%m-%d %H.%M.%S}"),
            "date": now.date().isoformat(),
        }
        self._job.start(self._engine(), "compare", arguments)
        self._set_state(running=True)

    def _on_done(self, result: dict[str, Any]) -> None:
        self._result = result
        self.show_result(result)

    def _on_end(self) -> None:
        if self._job.task is not None:
            self._told.setText("Ending; what was tried is compared…")
            self._job.task.end_early()

    # -------------------------------------------------------------------- result

    def show_result(self, result: dict[str, Any]) -> None:
        """Show how all did, with the advised one chosen.

        Parameters
        ----------
        result : dict
            From the job ``compare``.
        """
        tried = result["tried"]
        self._table.setRowCount(len(tried))
        for row, item in enumerate(tried):
            texts = (
                item["title"],
                *(_figure(item[name]) for name in ("dice", "pq")),
                f"{item['seconds']:.0f} s",
            )
            for column, text in enumerate(texts):
                cell = QTableWidgetItem(text)
                cell.setToolTip(item["problem"] or item["title"])
                self._table.setItem(row, column, cell)
        names = [item["name"] for item in tried]
        self._table.selectRow(names.index(result["chosen"]))
        self._table.setColumnHidden(2, all(item["pq"] is None for item in tried))
        self._table.setVisible(True)
        self._told.setText(result["advice"])

    def _on_take(self) -> None:
        row = self._table.currentRow()
        if row < 0 or not self._result:
            return
        item = self._result["tried"][row]
        if item["problem"]:
            self._told.setText(f"{item['title']} could not be tried: {item['problem']}")
            return
        trained = self._result["models"].get(item["name"])
        if trained is None:
            self.taken.emit(item["name"])
            return
        kept = Path(trained)
        # beside the other tuned models, where Segment lists it
        place = tuned_folder() / f"{kept.stem} {kept.parent.name}{kept.suffix}"
        try:
            shutil.copyfile(kept, place)
        except OSError as error:
            self._told.setText(f"{place} cannot be written: {error.strerror or error}.")
            return
        self.taken.emit(str(place))

    def _set_state(self, *, running: bool) -> None:
        self._compare.setEnabled(not running)
        self._cancel.setEnabled(running)
        self._take.setEnabled(not running and bool(self._result))
        self._bar.setVisible(running)
        self._bar.setRange(0, 0)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _button(name: str, tip: str, slot: Callable[[], None]) -> QPushButton:
    button = QPushButton(name)
    button.setObjectName(f"{name} recipes")
    button.setToolTip(tip)
    button.clicked.connect(slot)
    return button
