"""A job of the engine that takes a while: how a form follows it to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_medseg.widgets._jobs import Activity, Relay
from napari_medseg.widgets._paced import PacedProgress

if TYPE_CHECKING:
    from qtpy.QtWidgets import QProgressBar

    from napari_medseg._types import MedsegError, Progress
    from napari_medseg.engine import Engine, Task


class LongJob(QObject):
    """Follows one job at a time, in a bar and in napari's activity dock.

    Parameters
    ----------
    title : str
        What the activity dock says.
    bar : QProgressBar
        The bar of the form.
    parent : QObject
        The form.

    Attributes
    ----------
    progressed : Signal
        With every `Progress`.
    shown : Signal
        With the latest one, a few times a second; the bar shows it already.
    told : Signal
        With a sentence, where the job failed.
    cancelled : Signal
        The job was cancelled.
    done : Signal
        With the result; the last progress was shown before.
    ended : Signal
        However the job ended, after all else.
    """

    progressed = Signal(object)
    shown = Signal(object)
    told = Signal(str)
    cancelled = Signal()
    done = Signal(object)
    ended = Signal()

    def __init__(self, title: str, bar: QProgressBar, parent: QObject) -> None:
        super().__init__(parent)
        self._title = title
        self._bar = bar
        self._task: Task | None = None
        self._activity: Activity | None = None
        self._is_finishing = False
        self._is_over = False
        self._paced = PacedProgress(self)
        self._paced.shown.connect(self._show)

    @property
    def task(self) -> Task | None:
        """The job that is running, if any."""
        return self._task

    def start(self, engine: Engine, name: str, arguments: dict[str, Any]) -> None:
        """Give a job to the engine.

        Parameters
        ----------
        engine : Engine
            The engine.
        name : str
            A job of `napari_medseg.engine.jobs`.
        arguments : dict
            What it takes.
        """
        relay = Relay(self)
        relay.progress.connect(self._on_progress)
        relay.done.connect(self._on_done)
        relay.failed.connect(self._on_failed)
        relay.cancelled.connect(self.cancelled)
        relay.ended.connect(self._on_ended)
        relay.ended.connect(relay.deleteLater)
        self._is_over = False
        self._activity = Activity(self._title)
        self._task = engine.submit(name, arguments, relay)

    def cancel(self) -> None:
        """Cancel the job, if there is one."""
        if self._task is not None:
            self._task.cancel()

    def _on_progress(self, progress: Progress) -> None:
        self.progressed.emit(progress)
        self._paced.take(progress)

    def _show(self, progress: Progress) -> None:
        self._bar.setRange(0, progress.total or 0)
        self._bar.setValue(progress.step)
        self.shown.emit(progress)
        if self._activity is not None:
            self._activity.show(progress)

    def _on_done(self, result: Any) -> None:
        # napari handles events while progress is shown: the end may come in there
        self._is_finishing = True
        self._paced.flush()
        self.done.emit(result)
        self._is_finishing = False
        if self._is_over:
            self._finish()

    def _on_failed(self, error: MedsegError) -> None:
        self.told.emit(str(error))

    def _on_ended(self) -> None:
        self._is_over = True
        if not self._is_finishing:
            self._finish()

    def _finish(self) -> None:
        self._task = None
        self._paced.stop()
        if self._activity is not None:
            self._activity.close()
            self._activity = None
        self.ended.emit()
