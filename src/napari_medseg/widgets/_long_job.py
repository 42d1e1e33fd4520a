"""A job of the engine that takes a while: how a form follows it to its end.

The job belongs to the window. A form that is closed in the middle of it loses nothing:
the next one takes over where it was, or shows how it ended.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info
from qtpy.QtCore import QObject, Signal

from napari_medseg.widgets._jobs import Activity, Relay, main_window
from napari_medseg.widgets._paced import PacedProgress

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtWidgets import QProgressBar, QWidget

    from napari_medseg._types import MedsegError, Progress
    from napari_medseg.engine import Engine, Task

SIGNALS = ("progressed", "shown", "told", "cancelled", "done", "ended")
"""What a form hears of its job."""


class LongJob(QObject):
    """Follows one job at a time, in a bar and in napari's activity dock.

    Parameters
    ----------
    title : str
        What the activity dock says; a form takes over what has its title.
    bar : QProgressBar
        The bar of the form.
    form : QWidget
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
    taken_over : Signal
        There is a job under way that a form began which is closed by now.
    """

    progressed = Signal(object)
    shown = Signal(object)
    told = Signal(str)
    cancelled = Signal()
    done = Signal(object)
    ended = Signal()
    taken_over = Signal()

    def __init__(self, title: str, bar: QProgressBar, form: QWidget) -> None:
        super().__init__(form)
        self._title = title
        self._bar = bar
        self._form = form
        self.held: HeldJob | None = None
        self.shown.connect(self._show)

    @property
    def task(self) -> Task | None:
        """The job that is running, if any."""
        return self.held.task if self.held is not None else None

    @property
    def paused(self) -> bool:
        """Whether the job waits."""
        return self.held is not None and self.held.paused

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
        held = HeldJob(self._title, main_window(self._form))
        self._follow(held)
        held.start(engine, name, arguments)

    def cancel(self) -> None:
        """Cancel the job, if there is one."""
        if self.task is not None:
            self.task.cancel()

    def pause(self) -> None:
        """Let the job wait at its next step, or go on."""
        if self.held is not None:
            self.held.pause()

    def take_over(self) -> None:
        """Follow what a closed form began; forms call it when they are shown."""
        window = main_window(self._form)
        if self.held is not None and self.task is not None:
            self.held.setParent(window)  # the form was docked meanwhile
            return
        for held in window.findChildren(HeldJob, f"{HOLDER} {self._title}"):
            if not held.is_followed:
                self._follow(held)
                if held.task is not None:
                    self.taken_over.emit()
                held.tell_again()
                return

    def _follow(self, held: HeldJob) -> None:
        self.held = held
        for name in SIGNALS:
            getattr(held, name).connect(getattr(self, name))
        held.followed_by(self._leave)

    def _leave(self) -> None:
        """Hear no more: this form is closed, and another one follows the job."""
        held, self.held = self.held, None
        for name in SIGNALS:
            # the form may be deleted, and its connections with it
            with suppress(RuntimeError, TypeError):
                getattr(held, name).disconnect(getattr(self, name))

    def _show(self, progress: Progress) -> None:
        self._bar.setRange(0, progress.total or 0)
        self._bar.setValue(progress.step)


HOLDER = "medseg-job"
"""The name of a job's object in the window begins so."""


class HeldJob(QObject):
    """A job under way, and how it ended as long as nobody has seen that.

    Parameters
    ----------
    title : str
        What the activity dock says.
    window : QWidget
        The window, whose forms may follow it.

    Attributes
    ----------
    progressed, shown, told, cancelled, done, ended : Signal
        As of `LongJob`.
    task : Task or None
        The job that is running, if any.
    paused : bool
        Whether it waits.
    """

    progressed = Signal(object)
    shown = Signal(object)
    told = Signal(str)
    cancelled = Signal()
    done = Signal(object)
    ended = Signal()

    def __init__(self, title: str, window: QWidget) -> None:
        super().__init__(window)
        self.setObjectName(f"{HOLDER} {title}")
        self.task: Task | None = None
        self.paused = False
        self._title = title
        self._activity: Activity | None = None
        self._leave: weakref.WeakMethod[Callable[[], None]] | None = None
        self._unseen: list[Callable[[], None]] = []
        self._is_finishing = False
        self._is_over = False
        self._paced = PacedProgress(self)
        self._paced.shown.connect(self._show)

    @property
    def is_followed(self) -> bool:
        """Whether there is a form in the window that follows it."""
        window = self.parent()
        forms = window.findChildren(LongJob) if window is not None else []
        return any(each.held is self for each in forms)

    def followed_by(self, leave: Callable[[], None]) -> None:
        """Let one form follow, and the one before hear no more."""
        before = self._leave() if self._leave is not None else None
        if before is not None:
            before()
        self._leave = weakref.WeakMethod(leave)

    def start(self, engine: Engine, name: str, arguments: dict[str, Any]) -> None:
        """Give the job to the engine, as `LongJob.start`."""
        relay = Relay(self)
        relay.progress.connect(self._on_progress)
        relay.done.connect(self._on_done)
        relay.failed.connect(self._on_failed)
        relay.cancelled.connect(self.cancelled)
        relay.ended.connect(self._on_ended)
        relay.ended.connect(relay.deleteLater)
        self._activity = Activity(self._title)
        self.task = engine.submit(name, arguments, relay)

    def pause(self) -> None:
        """Wait at the next step, or go on."""
        if self.task is None:
            return
        if self.paused:
            self.task.resume()
        else:
            self.task.pause()
        self.paused = not self.paused

    def tell_again(self) -> None:
        """Tell how it ended, if it has: until now there was nobody to hear it."""
        if not self._is_over:
            return
        for tell in self._unseen:
            tell()
        self.ended.emit()
        self.deleteLater()

    def _on_progress(self, progress: Progress) -> None:
        self.progressed.emit(progress)
        self._paced.take(progress)

    def _show(self, progress: Progress) -> None:
        self.shown.emit(progress)
        if self._activity is not None:
            self._activity.show(progress)

    def _on_done(self, result: Any) -> None:
        # napari handles events while progress is shown: the end may come in there
        self._is_finishing = True
        self._paced.flush()
        self._tell(lambda: self.done.emit(result), "done; open its form to see how")
        self._is_finishing = False
        if self._is_over:
            self._finish()

    def _on_failed(self, error: MedsegError) -> None:
        self._tell(lambda: self.told.emit(str(error)), str(error))

    def _tell(self, tell: Callable[[], None], in_short: str) -> None:
        """Tell a form, or whoever looks at the window, and the next form later."""
        if self.is_followed:
            tell()
            return
        self._unseen.append(tell)
        show_info(f"{self._title}: {in_short}")

    def _on_ended(self) -> None:
        self._is_over = True
        if not self._is_finishing:
            self._finish()

    def _finish(self) -> None:
        self.task = None
        self._paced.stop()
        if self._activity is not None:
            self._activity.close()
            self._activity = None
        if not self._unseen:
            self.ended.emit()
            self.deleteLater()
