"""Review: results worst first, to be corrected, accepted and learned from."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent
from qtpy.QtWidgets import (
    QFormLayout,
    QHBoxLayout,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_medseg._types import InputError, MedsegError
from napari_medseg.widgets._command import estimate_command
from napari_medseg.widgets._copy_button import CopyButton
from napari_medseg.widgets._folder_panel import REVIEWING, FolderPanel
from napari_medseg.widgets._jobs import engine_of
from napari_medseg.widgets._long_job import LongJob
from napari_medseg.widgets._preferences import preferences
from napari_medseg.widgets._reviewed_folder import ReviewedFolder
from napari_medseg.widgets._reviewed_run import (
    Result,
    ReviewedRun,
    first,
    judged,
    read_run,
    worst_first,
)
from napari_medseg.widgets._source import Folder
from napari_medseg.widgets._training_folder import TrainingFolder
from napari_medseg.widgets._words import Words
from napari_medseg.widgets.annotate import AnnotateWidget

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import napari.viewer

    from napari_medseg.engine import Engine

NEXT = 5
"""How many images are named that should be annotated next."""

LIST_STRETCH = 100
"""Share of free room that the list and the tools take."""


class ReviewWidget(QWidget):
    """Goes through the results of a folder run.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    engine : Engine, optional
        Where quality and SAM are computed; by default in the engine of the window.

    Attributes
    ----------
    annotate : AnnotateWidget
        The list, and the tools to correct with.
    """

    # napari gives its viewer to what is annotated in this very spelling
    def __init__(
        self, viewer: napari.viewer.Viewer, engine: Engine | None = None
    ) -> None:
        super().__init__()
        self._viewer = viewer
        self._engine = engine
        self._run: ReviewedRun | None = None
        self._shown: ReviewedFolder | None = None
        self._objects = False
        self._worst: list[Result] = []
        self._chosen: tuple[str, ...] = ()
        self._asked: dict[str, str] = {}
        self._wants_next = False
        self._results = Folder("results", "Folder of the results of a run of Folders")
        self._training = Folder(
            "training",
            "Folder with images and masks in it; what you accept is copied there",
        )
        for line in (self._results, self._training):
            line.settled.connect(self._on_settled)
        self._told = Words("review told")
        self._bar = QProgressBar()
        self._job = LongJob("predict quality", self._bar, self)
        self._job.shown.connect(lambda progress: self._tell(progress.message))
        self._job.told.connect(self._tell)
        self._job.cancelled.connect(lambda: self._tell("Cancelled."))
        self._job.done.connect(self._on_done)
        self._job.ended.connect(lambda: self._set_state(running=False))
        self._job.taken_over.connect(lambda: self._set_state(running=True))
        self._buttons = {
            name: _button(name, tip, slot)
            for name, tip, slot in (
                (
                    "Worst first",
                    "Sort by predicted quality; it is predicted first where needed",
                    self.show_worst,
                ),
                (
                    "Annotate this next",
                    f"The {NEXT} images that teach most: done badly, and unlike one "
                    "another and all that is annotated",
                    self.show_next,
                ),
                ("Cancel", "Predict no quality", self._on_cancel_clicked),
            )
        }
        self.annotate = AnnotateWidget(viewer, engine, FolderPanel(REVIEWING))
        self._lay_out()
        self._set_state(running=False)

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.addRow("results", self._results)
        form.addRow("training", self._training)
        row = QHBoxLayout()
        for button in self._buttons.values():
            row.addWidget(button)
        copy = CopyButton(
            "The line for the terminal that predicts quality, and what is next",
            self._line,
            text="Copy prediction as command",
        )
        copy.told.connect(self._tell)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addLayout(row)
        for part in (copy, self._bar, self._told):
            layout.addWidget(part)
        layout.addWidget(self.annotate, LIST_STRETCH)
        tools = self.annotate.layout()
        if tools is not None:
            tools.setContentsMargins(0, 0, 0, 0)
        layout.addStretch(1)

    def reset_choices(self, event: Any = None) -> None:
        """List the image layers; napari calls it when layers come and go."""
        self.annotate.reset_choices()

    def event(self, event: Any) -> bool:
        """Put the tools away with the form: what is drawn is saved."""
        if event.type() == QEvent.Type.ParentChange:
            self.annotate.take_clicks(self.parent() is not None)
            self.annotate.folder.save_drawn()
        return bool(super().event(event))

    # ------------------------------------------------------------------ the list

    def review(self, results: Path, training: Path) -> None:
        """Show the results of a run.

        Parameters
        ----------
        results : Path
            Output folder of the run.
        training : Path
            A folder with ``images`` and ``masks``, or one that becomes that.
        """
        self._results.set_path(results)
        self._training.set_path(training)
        self._read()

    def showEvent(self, event: Any) -> None:
        """Follow what is under way, though another form began it."""
        super().showEvent(event)
        self._job.take_over()

    def _on_settled(self) -> None:
        shown, training = self._shown, self._training.path
        if self._results.path is None or training is None:
            self._tell("Choose the folder of the results, and that of the training.")
            return
        same = shown is not None and shown.training.path == training.absolute()
        if not (same and self._run and self._run.out == self._results.path.absolute()):
            self._read()

    def _read(self) -> None:
        results = self._results.path
        if results is None:
            return
        self._job.cancel()
        self._run, self._chosen = None, ()
        try:
            run, self._objects = read_run(results.absolute())
            self._run = run
            self._worst = worst_first(run.results) if run.is_judged else []
            self._show(self._worst or list(run.results))
        except MedsegError as error:
            self._run = None
            self._tell(str(error))
            return
        if not run.is_judged:
            self._tell(
                "No quality is predicted yet, so the list is by name. Press Worst "
                "first: the images of the training folder are compared with."
            )

    def _show(self, results: list[Result]) -> None:
        run, training = self._run, self._training.path
        if run is None or training is None:
            return
        there = TrainingFolder(training.absolute())
        self._shown = ReviewedFolder(
            there.images,
            there.masks,
            self.annotate.keeper,
            there,
            tuple(results),
            run.kind(there, objects=self._objects),
            self._objects,
            run.values,
            run.model,
            self._chosen,
            run.seen,
        )
        self.annotate.folder.show(self._shown)
        judged_by = sum(each.quality is not None for each in run.results)
        self._tell(f"{len(results)} results, {judged_by} of them with predicted Dice.")

    def show_worst(self) -> None:
        """List the worst results first; where nothing is predicted, predict it."""
        run = self._run
        if run is None:
            self._tell("Choose the folder of the results, and that of the training.")
        elif self._worst:
            self._chosen = ()
            self._show(self._worst)
        else:
            self._predict(wants_next=False)

    def show_next(self) -> None:
        """List what to annotate next first, by all that is accepted by now."""
        if self._run is None:
            self._tell("Choose the folder of the results, and that of the training.")
        else:
            self._predict(wants_next=True)

    # ------------------------------------------------------------------- the job

    def _predict(self, *, wants_next: bool) -> None:
        try:
            arguments = self._arguments()
        except MedsegError as error:
            self._tell(str(error))
            return
        self._wants_next = wants_next
        self.annotate.folder.save_drawn()
        engine = self._engine or engine_of(self)
        self._job.start(engine, "estimate", arguments)
        self._set_state(running=True)

    def _arguments(self) -> dict[str, Any]:
        """Return what the job ``estimate`` takes: what is not accepted yet."""
        run, shown = self._the_run()
        record = shown.training.record()
        left = [each for each in run.results if str(each.source) not in record]
        if not left:
            raise InputError("All results are accepted; nothing is left to look at.")
        self._asked = {each.source.name: each.name for each in left}
        names = Counter(each.source.name for each in left)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise InputError(
                f"Several images are called {twice[0]}, so that what is predicted "
                "could not be told apart. Review each folder in a run of its own."
            )
        device = preferences().device
        return {
            "images": [str(each.source) for each in left],
            "model": run.model,
            "references": str(shown.training.path),
            "masks": None,
            "annotation": shown.meaning,
            "ignore": None,
            "settings": {"device": device},
            "next": NEXT,
            "base": None,
            "channels": list(run.channels),
        }

    def _the_run(self) -> tuple[ReviewedRun, ReviewedFolder]:
        """Return what is shown, where quality can be predicted of it."""
        run, shown = self._run, self._shown
        if run is None or shown is None:
            raise InputError("Choose the folder of the results first.")
        if not run.model:
            raise InputError(
                f"{run.out} does not say which model made its results. Run Folders "
                "again into a new folder."
            )
        if not shown.training.holds_masks:
            raise InputError(
                f"There are no annotated images in {shown.training.path} yet. Choose "
                "the folder whose images and masks the model was tuned on, or accept "
                "some results first."
            )
        return run, shown

    def _on_done(self, found: dict[str, Any]) -> None:
        run = self._run
        if run is None:
            self._tell("Quality was predicted for a form that is closed by now.")
            return
        names = self._asked
        quality = {names[file]: row["dice"] for file, row in found["per_image"].items()}
        run = self._run = replace(run, results=judged(run.results, quality))
        # results are ranked also where no Dice can be predicted
        self._worst = first(run.results, [names[file] for file in found["per_image"]])
        order, self._chosen = self._worst, ()
        if self._wants_next:
            self._chosen = tuple(names[file] for file in found["next"])
            order = first(order, self._chosen)
        try:
            self._show(order)
        except MedsegError as error:
            self._tell(str(error))
            return
        failed = len(found["failures"])
        told = f" {failed} could not be judged." if failed else ""
        self._tell(f"{found['basis']}{told}")

    def _on_cancel_clicked(self) -> None:
        self._tell("Cancelling…")
        self._job.cancel()

    def _set_state(self, *, running: bool) -> None:
        for name, button in self._buttons.items():
            button.setEnabled(running == (name == "Cancel"))
        self._bar.setVisible(running)
        self._bar.setRange(0, 0)

    def _line(self) -> Callable[[], str]:
        """Return what gives the command that predicts the same."""
        run, shown = self._the_run()
        folders = {each.source.parent for each in run.results}
        if len(folders) > 1:
            raise InputError(
                "The images are in several folders, and the command takes one. Run it "
                "for each of them."
            )
        line = estimate_command(
            folders.pop(),
            run.model,
            shown.training.path,
            annotation=shown.meaning,
            following=NEXT,
            channels=run.channels,
        )
        return lambda: line

    def _tell(self, sentence: str) -> None:
        self._told.setText(sentence)


def _button(name: str, tip: str, slot: Callable[[], None]) -> QPushButton:
    button = QPushButton(name)
    button.setObjectName(name)
    button.setToolTip(tip)
    # without the state that Qt sends along
    button.clicked.connect(lambda *_: slot())
    return button
