"""The controls of a run over folders: start, pause, cancel, and how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QHBoxLayout,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_medseg.widgets._batch_run import OVERWRITE, REDO
from napari_medseg.widgets._words import Words

if TYPE_CHECKING:
    from collections.abc import Collection

    from napari_medseg.widgets._batch_run import BatchRun

START, PAUSE, CANCEL, AS_BEFORE = "start", "pause", "cancel", "as before"

GO_ON = "Go on"

BUTTONS = {
    START: ("Start", "Segment what is missing, was changed, or failed"),
    PAUSE: ("Pause", "Wait once the images in work are done"),
    CANCEL: ("Cancel", "End now; what is done is kept"),
    REDO: ("Do again with these settings", "The results that are there are replaced"),
    AS_BEFORE: (
        "Go on with the folder's settings",
        "Those that its results were made with, and its model",
    ),
    OVERWRITE: ("Do all again, replace what is there", "All files are made anew"),
}
"""What the buttons say and do."""

OFFERS = (REDO, AS_BEFORE, OVERWRITE)
"""Buttons that are there only where they are a way on."""

ENDING = "Ending once the images in work are done. Cancel again to end at once."


class RunControls(QWidget):
    """Shows how far a run is, and lets the user start, pause and cancel.

    Parameters
    ----------
    parent : QWidget, optional
        The parent.

    Attributes
    ----------
    asked : Signal
        With `START`, or one of `OFFERS`: the user wants a run.
    """

    asked = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._run: BatchRun | None = None
        self._is_open = False
        self._buttons = {name: _button(name, *texts) for name, texts in BUTTONS.items()}
        for name in (START, *OFFERS):
            self._buttons[name].clicked.connect(
                lambda *_, name=name: self.asked.emit(name)
            )
        self._buttons[PAUSE].clicked.connect(self._on_pause_clicked)
        self._buttons[CANCEL].clicked.connect(self._on_cancel_clicked)
        self._bar = QProgressBar()
        self._status, self._told = Words("status"), Words("told")
        row = QHBoxLayout()
        for name in (START, PAUSE, CANCEL):
            row.addWidget(self._buttons[name])
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row)
        for part in (self._bar, self._status, self._told):
            layout.addWidget(part)
        for name in OFFERS:
            layout.addWidget(self._buttons[name])
        self.offer(())
        self.show_run()

    def follow(self, run: BatchRun) -> None:
        """Show a run from now on."""
        if self._run is not None:
            self._run.changed.disconnect(self.show_run)
        self._run = run
        run.changed.connect(self.show_run)
        self.show_run()

    def show_run(self) -> None:
        """Show how far the run is."""
        run = self._run
        running = run is not None and run.running
        for name in (PAUSE, CANCEL):
            self._buttons[name].setEnabled(running)
        start, pause = self._buttons[START], self._buttons[PAUSE]
        start.setEnabled(not running)
        start.setText(GO_ON if self._is_open and not running else BUTTONS[START][0])
        paused = run is not None and run.paused
        pause.setText("Continue" if paused else BUTTONS[PAUSE][0])
        self._bar.setVisible(running)
        self._status.setVisible(running)
        if run is not None and running:
            self._bar.setRange(0, run.progress.total or 0)
            self._bar.setValue(run.progress.step)
            self._status.setText(run.status)

    def show_open(self, is_open: bool) -> None:
        """Say whether an earlier run has left images open."""
        self._is_open = is_open
        self.show_run()

    def offer(self, names: Collection[str]) -> None:
        """Show the buttons for what the user may ask for after an error."""
        for name in OFFERS:
            self._buttons[name].setVisible(name in names)

    def tell(self, sentence: str) -> None:
        """Say something."""
        self._told.setText(sentence)
        self._told.setVisible(bool(sentence))

    def _on_pause_clicked(self) -> None:
        if self._run is not None:
            (self._run.resume if self._run.paused else self._run.pause)()

    def _on_cancel_clicked(self) -> None:
        if self._run is not None:
            self.tell(ENDING if self._run.is_watching else "Cancelling…")
            self._run.cancel()


def _button(name: str, text: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setObjectName(name)
    button.setToolTip(tip)
    return button
