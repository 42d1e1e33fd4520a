"""Jobs of the engine as Qt sees them: signals, in the thread of the window."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from napari.utils import progress as activity
from qtpy.QtCore import QObject, Signal

from napari_medseg.engine import Engine

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from napari_medseg._types import MedsegError, Progress

HOLDER = "medseg-engine"
"""Name of the object in a viewer's window that holds its engine."""


class Relay(QObject):
    """A `Listener` whose signals arrive in the thread it was made in.

    Attributes
    ----------
    progress, done, failed, cancelled : Signal
        As the methods of `napari_medseg.engine.Listener`.
    ended : Signal
        However the job ended.
    """

    progress = Signal(object)
    done = Signal(object)
    failed = Signal(object)
    cancelled = Signal()
    ended = Signal()

    def on_progress(self, progress: Progress) -> None:
        """Pass a report on. Runs on a thread of the engine's client."""
        with _while_there_is_a_window():
            self.progress.emit(progress)

    def on_done(self, result: Any) -> None:
        """Pass the result on. Runs on a thread of the engine's client."""
        with _while_there_is_a_window():
            self.done.emit(result)
            self.ended.emit()

    def on_failed(self, error: MedsegError) -> None:
        """Pass the error on. Runs on a thread of the engine's client."""
        with _while_there_is_a_window():
            self.failed.emit(error)
            self.ended.emit()

    def on_cancelled(self) -> None:
        """Pass on that there is no result. Runs on a thread of the client."""
        with _while_there_is_a_window():
            self.cancelled.emit()
            self.ended.emit()


def _while_there_is_a_window() -> suppress:
    """Drop what comes after the form was closed: Qt has deleted its objects by then."""
    return suppress(RuntimeError)


class _Holder(QObject):
    """Keeps the engine of a window, and closes it with the window."""

    def __init__(self, window: QWidget, engine: Engine) -> None:
        super().__init__(window)
        self.setObjectName(HOLDER)
        self.engine = engine
        # not a method of this object, which is gone by then
        window.destroyed.connect(engine.close)


def main_window(widget: QWidget) -> QWidget:
    """Return the window of the viewer that a widget belongs to.

    Parameters
    ----------
    widget : QWidget
        Docked, floating, or a window by itself.

    Returns
    -------
    QWidget
        A floating panel belongs to a viewer, too, though Qt calls it a window.
    """
    above = widget.parentWidget()
    while above is not None:
        widget, above = above, above.parentWidget()
    return widget


def engine_of(widget: QWidget) -> Engine:
    """Return the engine of the window that a widget is in: one a viewer.

    Parameters
    ----------
    widget : QWidget
        Docked, floating, or a window by itself.

    Returns
    -------
    Engine
        Not started before its first job.
    """
    window = main_window(widget)
    holder = window.findChild(_Holder, HOLDER)
    if holder is None:
        holder = _Holder(window, Engine())
    engine: Engine = holder.engine
    return engine


class Activity:
    """A bar in napari's activity dock for one job.

    Parameters
    ----------
    title : str
        What the job is.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar = activity(total=0, desc=title)
        self._is_closed = False

    def show(self, progress: Progress) -> None:
        """Show how far the job is."""
        if progress.total and self._bar.total != progress.total:
            self._bar.total = progress.total
        self._bar.set_description(f"{self._title}: {progress.message}")
        # napari handles events while it shows that: the job may have ended
        if not self._is_closed:
            self._bar.update(progress.step - self._bar.n)

    def close(self) -> None:
        """Take the bar away."""
        self._is_closed = True
        self._bar.close()
