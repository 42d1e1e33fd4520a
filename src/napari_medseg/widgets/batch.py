"""Folders: a folder of images in, a folder of results out, watched as it fills."""

from __future__ import annotations

from dataclasses import replace
from glob import has_magic
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QFormLayout,
    QGridLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_medseg.batch.report import REPORT
from napari_medseg.widgets._batch_choice import BatchChoice
from napari_medseg.widgets._batch_run import FORM, REDO, BatchRun, Order, run_of
from napari_medseg.widgets._command import segment_command
from napari_medseg.widgets._inputs import Inputs
from napari_medseg.widgets._jobs import engine_of
from napari_medseg.widgets._ledger_look import holds_others
from napari_medseg.widgets._ledger_panel import LedgerPanel
from napari_medseg.widgets._open_result import OpenResult
from napari_medseg.widgets._preferences import preferences
from napari_medseg.widgets._result_files import read_made
from napari_medseg.widgets._run_controls import AS_BEFORE, START, RunControls
from napari_medseg.widgets._scrolled import Scrolled
from napari_medseg.widgets._source import Folder

if TYPE_CHECKING:
    import napari.viewer

    from napari_medseg.batch.ledger import Summary
    from napari_medseg.engine import Engine
    from napari_medseg.widgets._ledger_look import Look

RESULTS = "segmented"
"""Name of the folder that is proposed for the results."""


class BatchWidget(QWidget):
    """Segments folders of images, and shows what became of each.

    A run goes on though the form is closed; a form that is opened then shows it.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    engine : Engine, optional
        Where it is computed; by default in the engine of the window.
    """

    # napari gives its viewer to what is annotated in this very spelling
    def __init__(
        self, viewer: napari.viewer.Viewer, engine: Engine | None = None
    ) -> None:
        super().__init__()
        self.setObjectName(FORM)
        self._engine = engine
        self._run: BatchRun | None = None
        self._order: Order | None = None  # the one that the controls show
        self._proposed: Path | None = None
        self.inputs = Inputs()
        self.inputs.settled.connect(self._on_inputs_settled)
        self.out = Folder("out", "Folder for the results; made if need be")
        self.out.changed.connect(self._on_out_changed)
        self.choice = BatchChoice()
        self.choice.refused.connect(self._tell)
        self._watch = QCheckBox("go on as new files come")
        self._watch.setObjectName("watch")
        self._watch.setToolTip("Wait for files that a microscope writes, until Cancel")
        self._controls = RunControls()
        self._controls.asked.connect(self._on_asked)
        self.panel = LedgerPanel()
        self.panel.looked.connect(self._on_looked)
        self.panel.chosen.connect(self._on_chosen)
        self.results = OpenResult(viewer, self)
        self.results.told.connect(self._tell)
        self._buttons = {
            name: _button(name, tip, slot)
            for name, tip, slot in (
                ("Open report", "The page that shows the results", self._open_report),
                ("Open folder", "The folder of the results", self._open_folder),
                ("Copy as command", "The line that does the same", self._copy),
            )
        }
        self._lay_out()
        self._show_state()

    def _lay_out(self) -> None:
        self._orders = QWidget()
        orders = QVBoxLayout(self._orders)
        orders.setContentsMargins(0, 0, 0, 0)
        form = QFormLayout()
        form.addRow("images", self.inputs)
        form.addRow("results", self.out)
        orders.addLayout(form)
        orders.addWidget(self.choice)
        orders.addWidget(self._watch)
        buttons = QGridLayout()
        buttons.addWidget(self._buttons["Open report"], 0, 0)
        buttons.addWidget(self._buttons["Open folder"], 0, 1)
        buttons.addWidget(self._buttons["Copy as command"], 1, 0, 1, 2)
        everything = QWidget()
        layout = QVBoxLayout(everything)
        layout.addWidget(self._orders)
        layout.addWidget(self._controls)
        layout.addWidget(self.panel, 1)
        layout.addLayout(buttons)
        layout.addStretch(0)
        around = QVBoxLayout(self)
        around.setContentsMargins(0, 0, 0, 0)
        around.addWidget(Scrolled(everything))

    def showEvent(self, event: Any) -> None:
        """Show the run of the viewer that the form is now in."""
        super().showEvent(event)
        self.panel.sleep(False)
        self._the_run()

    def hideEvent(self, event: Any) -> None:
        """Read no ledger that nobody looks at."""
        super().hideEvent(event)
        self.panel.sleep(True)

    # ------------------------------------------------------------------- folders

    def choose(self, *inputs: Path, out: Path | None = None) -> None:
        """Choose images, and where the results go: beside them where it is not said."""
        self.inputs.set_paths(inputs)
        if out is not None:
            self.out.set_path(out)
        self._on_inputs_settled()

    def _on_inputs_settled(self) -> None:
        """Propose a folder, unless the user has chosen one."""
        if self.inputs.paths and self.out.path in (None, self._proposed):
            self._proposed = proposal(self.inputs.paths)
            self.out.set_path(self._proposed)

    def _on_out_changed(self) -> None:
        self._controls.offer(())
        self.panel.follow(self.out.path)
        self._show_state()

    def _on_looked(self, look: Look) -> None:
        self._show_state()

    # ----------------------------------------------------------------------- run

    def start(self, remedy: str = "", settings: dict[str, Any] | None = None) -> None:
        """Segment what is missing, was changed, or failed.

        Parameters
        ----------
        remedy : str
            ``redo`` or ``overwrite``: what is there may be replaced.
        settings : dict, optional
            Those of `napari_medseg.batch.BatchSettings` in place of the form's.
        """
        run = self._the_run()
        order = self._ordered()
        if run.running or order is None:
            return
        self._controls.offer(())
        self._tell("")
        chosen = order.settings if settings is None else settings
        self._order = replace(order, settings=chosen, remedy=remedy)
        run.start(self._engine or engine_of(self), self._order)

    def _on_asked(self, what: str) -> None:
        if what != AS_BEFORE:
            self.start("" if what == START else what)
            return
        out = self.out.path
        settings = read_made(out).get("settings") if out else None
        if isinstance(settings, dict):
            choice = self.choice
            choice.show_settings(settings, choice.workers, choice.cluster)
            self.start(settings=settings | {"device": preferences().device})

    def _ordered(self) -> Order | None:
        """Return what the form says; None where it says what is missing."""
        inputs, out = self.inputs.paths, self.out.path
        if not inputs or out is None:
            what = "a folder for the results" if inputs else "the images"
            self._tell(f"Choose {what} first.")
            return None
        choice, watch = self.choice, self._watch.isChecked()
        line = segment_command(inputs, out, watch=watch, **choice.for_command())
        return Order(
            inputs,
            out,
            choice.settings(),
            choice.workers,
            watch,
            line,
            cluster=choice.cluster,
        )

    def _the_run(self) -> BatchRun:
        """Return the run of the window that the form is now in."""
        run = run_of(self)
        if run is not self._run:
            if self._run is not None:
                self._run.changed.disconnect(self._on_run_changed)
                self._run.ended.disconnect(self._on_run_ended)
            self._run = run
            run.changed.connect(self._on_run_changed)
            run.ended.connect(self._on_run_ended)
            self._controls.follow(run)
            self._on_run_changed()
        return run

    def _on_run_changed(self) -> None:
        """Show the run, also one that another form has begun."""
        order = self._run.order if self._run and self._run.running else None
        if order is not None and order is not self._order:
            self._order = order
            self.inputs.set_paths(order.inputs)
            self.out.set_path(order.out)
            self.choice.show_settings(order.settings, order.workers, order.cluster)
            self._watch.setChecked(order.watch)
        self._show_state()

    def _on_run_ended(self) -> None:
        run = self._run
        if run is None or run.order is not self._order:
            return
        self._tell(run.told)
        self._show_state()
        offered = [run.remedy] if run.remedy else []
        if run.remedy == REDO and self.out.path and read_made(self.out.path):
            offered.append(AS_BEFORE)
        self._controls.offer(offered)

    def _show_state(self) -> None:
        """Let the controls say what can be done now."""
        look, running = self.panel.look, self._run is not None and self._run.running
        self._orders.setEnabled(not running)
        self._controls.show_open(look is not None and look.open_images > 0)
        self._buttons["Open report"].setEnabled(look is not None and look.report)
        self._buttons["Open folder"].setEnabled(look is not None and look.there)
        self.panel.set_running(running)

    # ------------------------------------------------------------------- results

    def _on_chosen(self, row: Summary) -> None:
        if self.out.path is not None:
            self.results.open(self.out.path, row.name)

    def _open_report(self) -> None:
        if self.out.path is not None:
            _open(self.out.path / REPORT)

    def _open_folder(self) -> None:
        if self.out.path is not None:
            _open(self.out.path)

    def _copy(self) -> None:
        order = self._ordered()
        if order is not None:
            QApplication.clipboard().setText(order.command)
            self._tell(f"Copied: {order.command}")

    def _tell(self, sentence: str) -> None:
        self._controls.tell(sentence)


def proposal(inputs: tuple[Path, ...]) -> Path:
    """Return a folder for the results: beside the images, and not that of others.

    Parameters
    ----------
    inputs : tuple of Path
        Folders, files or patterns, at least one.

    Returns
    -------
    Path
        It need not exist.
    """
    first, mine = inputs[0], inputs
    place, name = first.parent, first.stem
    if has_magic(str(first)) and not first.exists():
        place = Path(*takewhile(lambda part: not has_magic(part), first.parts))
        name, mine = place.name, (place,)
    usual = place / RESULTS
    return place / f"{name} {RESULTS}" if holds_others(usual, mine) else usual


def _open(path: Path) -> None:
    """Open a file or a folder as the system does."""
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(path)))


def _button(name: str, tip: str, slot: Any) -> QPushButton:
    button = QPushButton(name)
    button.setObjectName(name)
    button.setToolTip(tip)
    # a click brings a state along, which the slots have no use for
    button.clicked.connect(lambda *_: slot())
    return button
