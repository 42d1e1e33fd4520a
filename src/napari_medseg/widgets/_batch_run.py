"""A run over folders: it goes on in the engine though its form is closed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QWidget

from napari_medseg._types import (
    JobError,
    MedsegError,
    OverwriteError,
    Progress,
    RedoError,
)
from napari_medseg.widgets._jobs import Activity, Relay, main_window
from napari_medseg.widgets._pace import Pace, how_far

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_medseg.engine import Engine, Task

HOLDER = "medseg-batch-run"
"""Name of the object in a viewer's window that is its run."""

FORM = "medseg-folders"
"""Name of the forms that show it."""

REDO, OVERWRITE = "redo", "overwrite"

REMEDIES: Mapping[type[MedsegError], str] = {
    RedoError: REDO,
    OverwriteError: OVERWRITE,
}
"""What the user can ask for after an error."""

IN_WORK = "segmenting"
"""What the message of a run begins with as long as there is nothing else to say."""

KEPT = "What is done is kept; press the button again to go on."
"""Said where a run ends before its time."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be segmented, and how.

    Attributes
    ----------
    inputs : tuple of Path
        Files, folders and patterns.
    out : Path
        Folder of the results.
    settings : mapping
        Those of `napari_medseg.batch.BatchSettings`, as plain values.
    workers : int
        Processes.
    watch : bool
        Whether to go on as files come.
    command : str
        The line for the terminal that does the same.
    remedy : str
        `REDO` or `OVERWRITE` where the user asked for it; else empty.
    cluster : str
        Address of a Dask scheduler in place of processes; empty for none.
    """

    inputs: tuple[Path, ...]
    out: Path
    settings: Mapping[str, Any]
    workers: int = 1
    watch: bool = False
    command: str = ""
    remedy: str = ""
    cluster: str = ""

    def arguments(self) -> dict[str, Any]:
        """Return what the engine's job ``batch`` takes."""
        return {
            "inputs": [str(path) for path in self.inputs],
            "out": str(self.out),
            "settings": dict(self.settings),
            "workers": self.workers,
            "cluster": self.cluster or None,
            "watch": self.watch,
            "redo": self.remedy == REDO,
            "overwrite": self.remedy == OVERWRITE,
            "command": self.command,
        }


class BatchRun(QObject):
    """The run of a viewer: one at a time.

    Parameters
    ----------
    parent : QObject, optional
        What it lives as long as: the window of the viewer.

    Attributes
    ----------
    changed : Signal
        It got somewhere, was paused, or went on.
    ended : Signal
        However it ended; `told` and `remedy` say how.
    order : Order or None
        The latest order.
    progress : Progress
        How far it is.
    paused : bool
        Whether it waits.
    told : str
        How it ended, in words for the user.
    remedy : str
        What may be asked for after an error: `REDO`, `OVERWRITE`, or nothing.
    """

    changed = Signal()
    ended = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.setObjectName(HOLDER)
        self.order: Order | None = None
        self.progress = Progress(0, None, "")
        self.paused = False
        self.told = self.remedy = ""
        self._is_ending = False
        self._task: Task | None = None
        self._pace = Pace()
        self._activity: Activity | None = None

    @property
    def running(self) -> bool:
        """Whether an order is under way."""
        return self._task is not None

    @property
    def is_watching(self) -> bool:
        """Whether it waits for files, and was not asked to end."""
        watches = self.order is not None and self.order.watch
        return self.running and watches and not self._is_ending

    @property
    def status(self) -> str:
        """How far it is, in words."""
        step, total = self.progress.step, self.progress.total
        message = self.progress.message
        if "done" not in self.progress.metrics:
            return message
        told = how_far(step, total, self._pace.left(total) if total else None)
        if self.paused:
            return f"Paused. {told}"
        # the table shows which image is in work
        return told if message.startswith(IN_WORK) else f"{told}; {message}"

    def start(self, engine: Engine, order: Order) -> None:
        """Begin an order; one at a time."""
        if self.running:
            raise RuntimeError("an order is under way")
        self.order, self.told, self.remedy = order, "", ""
        self.progress = Progress(0, None, "starting")
        self.paused = self._is_ending = False
        self._pace = Pace()
        self._activity = Activity("segment folders")
        relay = Relay(self)
        relay.progress.connect(self._on_progress)
        relay.done.connect(self._on_done)
        relay.failed.connect(self._on_failed)
        relay.cancelled.connect(lambda: self._end(f"Cancelled. {KEPT}"))
        relay.ended.connect(relay.deleteLater)
        self._task = engine.submit("batch", order.arguments(), relay)
        self.changed.emit()

    def pause(self) -> None:
        """Wait once the images in work are done."""
        if self._task is not None and not self.paused:
            self._task.pause()
            self._pace.pause()
            self.paused = True
            self.changed.emit()

    def resume(self) -> None:
        """Go on after a pause."""
        if self._task is not None and self.paused:
            self._task.resume()
            self._pace.resume()
            self.paused = False
            self.changed.emit()

    def cancel(self) -> None:
        """End now; where files are waited for, in good order at the first time."""
        if self._task is None:
            return
        if self.is_watching:
            self._is_ending = True
            self.paused = False
            self._task.end_early()
        else:
            self._task.cancel()

    def _on_progress(self, progress: Progress) -> None:
        self.progress = progress
        if "done" in progress.metrics:
            self._pace.take(progress.step)
        if self._activity is not None:
            self._activity.show(progress)
        self.changed.emit()

    def _on_done(self, result: Mapping[str, Any]) -> None:
        self._end(summary(result))

    def _on_failed(self, error: MedsegError) -> None:
        self.remedy = REMEDIES.get(type(error), "")
        told = in_a_form(str(error))
        if isinstance(error, JobError) and "press the button" not in told:
            told = f"{told} {KEPT}"
        self._end(told)

    def _end(self, told: str) -> None:
        self._task = None
        self.told = told
        self.paused = False
        if self._activity is not None:
            self._activity.close()
            self._activity = None
        if self.order is not None and not self._is_in_sight():
            show_info(f"{self.order.out}: {told}")
        self.ended.emit()

    def _is_in_sight(self) -> bool:
        """Tell whether there is a form that says how it ends."""
        window = self.parent()
        forms = window.findChildren(QWidget, FORM) if window is not None else []
        return any(form.isVisible() for form in forms)


def run_of(widget: QWidget) -> BatchRun:
    """Return the run of the window that a widget is in: one a viewer.

    Parameters
    ----------
    widget : QWidget
        Docked, floating, or a window by itself.

    Returns
    -------
    BatchRun
        It lives as long as the window.
    """
    window = main_window(widget)
    found: BatchRun | None = window.findChild(BatchRun, HOLDER)
    return found or BatchRun(window)


def in_a_form(message: str) -> str:
    """Return an error's message without what is said for the terminal alone."""
    plain = re.sub(r" \(--[a-z-]+\)", "", message)
    return plain.replace("the same command goes on", "press the button again to go on")


def summary(result: Mapping[str, Any]) -> str:
    """Say how a run went.

    Parameters
    ----------
    result : mapping
        What the engine's job ``batch`` returns.

    Returns
    -------
    str
        Numbers of images, and what the user should know of some.
    """
    parts = [f"{_images(result['done'])} segmented"]
    if result["skipped"]:
        parts.append(f"{result['skipped']:,} were there already")
    if result["failed"]:
        parts.append(f"{result['failed']:,} failed")
    told = [", ".join(parts) + "."]
    told += [f"{note} ({_images(count)})" for note, count in result["notes"]]
    return " ".join(told)


def _images(count: int) -> str:
    return f"{count:,} image" if count == 1 else f"{count:,} images"
