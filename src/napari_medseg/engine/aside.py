"""Jobs that run beside the others, each in a thread of its own.

The jobs of the engine take turns in one thread. One that waits for files, or for
processes and threads of its own, would make a click wait along with it.
"""

from __future__ import annotations

from contextlib import closing
from threading import Event, Thread
from typing import TYPE_CHECKING, Generic, TypeVar

from napari_medseg._types import Progress

if TYPE_CHECKING:
    from napari_medseg._types import Job
    from napari_medseg.engine.jobs import Context

T = TypeVar("T")

REST = 0.1
"""Seconds between two looks at how far such a job is."""


def aside(job: Job[T], context: Context) -> Job[T]:
    """Run a job in a thread of its own, as a job that hardly takes a turn.

    Parameters
    ----------
    job : generator
        The job; the thread closes it, too.
    context : Context
        Tells when the job is paused.

    Yields
    ------
    Progress
        The latest.

    Returns
    -------
    object
        What the job returns; its errors are raised here.
    """
    beside = _Beside(job, context)
    try:
        while beside.is_going:
            context.rest = REST
            yield beside.latest
    finally:
        beside.stop()
    return beside.result()


class _Beside(Generic[T]):
    """A job in a thread."""

    def __init__(self, job: Job[T], context: Context) -> None:
        self.latest = Progress(0, None, "starting")
        self._job = job
        self._context = context
        self._stopped = Event()
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="aside", daemon=True)
        self._thread.start()

    @property
    def is_going(self) -> bool:
        """Whether the job has not come to its end."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End the job at its next step, and wait for it."""
        self._stopped.set()
        self._thread.join()

    def result(self) -> T:
        """Return what the job returned, or raise what it raised."""
        if self._error is not None:
            raise self._error
        return self._results[0]

    def _run(self) -> None:
        try:
            with closing(self._job):
                self._steps()
        except BaseException as error:  # raised where the job is waited for
            self._error = error

    def _steps(self) -> None:
        """Do one step after the other, none while the job is paused."""
        while not self._stopped.is_set():
            if self._context.paused:
                self._stopped.wait(REST)
                continue
            try:
                self.latest = next(self._job)
            except StopIteration as ended:
                self._results.append(ended.value)
                return
