"""The viewer's side of the engine. Neither Qt nor torch is known here.

Nothing here waits: jobs are sent by a thread of their own, and a `Listener` is told
by another one how they go.
"""

from __future__ import annotations

import atexit
import itertools
from queue import SimpleQueue
from threading import Lock, Thread, Timer
from typing import TYPE_CHECKING, Any, Protocol

from napari_medseg import _types
from napari_medseg._types import JobError, MedsegError, Progress
from napari_medseg.engine.process import COMMAND, Process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_medseg.engine.channel import Message

FORCE_SECONDS = 4.5
"""A step that goes on for so long after its job was cancelled is ended by force."""

EXIT_SECONDS = 1.5
"""So long an engine may take to end by itself when the viewer closes."""

FORCED = (
    "This computation was ended together with another one that could not be cancelled "
    "in any other way. Start it again."
)


class Listener(Protocol):
    """Is told how a job goes, from a thread that is not the viewer's."""

    def on_progress(self, progress: Progress) -> None:
        """Take a report."""
        ...

    def on_done(self, result: Any) -> None:
        """Take the result, which comes last."""
        ...

    def on_failed(self, error: MedsegError) -> None:
        """Take the error, which comes last; its text is for the user."""
        ...

    def on_cancelled(self) -> None:
        """Note that there will be no result."""
        ...


class Task:
    """A job that was given to the engine."""

    def __init__(self, number: int, session: _Session, listener: Listener) -> None:
        self.number = number
        self._session = session
        self._listener = listener
        self._lock = Lock()
        self._open = True

    @property
    def running(self) -> bool:
        """Whether the end has not been told yet."""
        return self._open

    def cancel(self) -> None:
        """End the job without a result: at its next step, or soon by force.

        One that waits behind others ends at once. Force is for a step of its own that
        does not end: the engine, and all that it does, ends with that step.
        """
        self.drop()
        if self._open:
            self._session.cancelled(self)

    def drop(self) -> None:
        """End the job without a result at its next step, however long that takes."""
        self._steer("cancel")

    def end_early(self) -> None:
        """Ask for what there is so far: the best of a training."""
        self._steer("end")

    def pause(self) -> None:
        """Stop at the next step, and wait."""
        self._steer("pause")

    def resume(self) -> None:
        """Go on after a pause."""
        self._steer("resume")

    def _steer(self, action: str) -> None:
        if self._open:
            self._session.send({"do": action, "job": self.number})

    def progressed(self, progress: Progress) -> None:
        """Tell the listener of progress."""
        if self._open:
            self._listener.on_progress(progress)

    def finished(self, result: Any) -> None:
        """Tell the listener of the result."""
        if self._close():
            self._listener.on_done(result)

    def failed(self, error: MedsegError) -> None:
        """Tell the listener of an error."""
        if self._close():
            self._listener.on_failed(error)

    def cancelled(self) -> None:
        """Tell the listener that the job was cancelled."""
        if self._close():
            self._listener.on_cancelled()

    def _close(self) -> bool:
        """Tell whether this is the end; there is only one."""
        with self._lock:
            was, self._open = self._open, False
            return was


class _Session:
    """The life of one compute process."""

    def __init__(self, command: Sequence[str]) -> None:
        self.alive = True
        self._command = command
        self._tasks: dict[int, Task] | None = {}
        self._lock = Lock()
        self._outbox: SimpleQueue[Mapping[str, Any] | None] = SimpleQueue()
        self._process: Process | None = None
        self._closing = False
        self._forced: Task | None = None
        self._turn: int | None = None
        self._begun: set[int] = set()
        self._cancelled: set[int] = set()
        self._thread = Thread(target=self._live, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Number of the process, None before it is there."""
        return self._process.pid if self._process else None

    def add(self, task: Task, message: Mapping[str, Any]) -> bool:
        """Take a task over, unless the process has ended."""
        with self._lock:
            if self._tasks is None:
                return False
            self._tasks[task.number] = task
        self.send(message)
        return True

    def _take(self, number: int) -> Task | None:
        """Return a task, and forget it."""
        with self._lock:
            self._begun.discard(number)
            self._cancelled.discard(number)
            return self._tasks.pop(number, None) if self._tasks is not None else None

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message as soon as the process is there; this does not wait."""
        self._outbox.put(message)

    def cancelled(self, task: Task) -> None:
        """Note that the user cancelled a task, which the engine is told already."""
        with self._lock:
            if self._tasks is None or task.number not in self._tasks:
                return
            self._cancelled.add(task.number)
            has_begun, in_step = task.number in self._begun, task.number == self._turn
        if in_step:
            self._force_later(task)
        elif not has_begun:
            # there is nothing to wait for, though the engine gets to it only later
            Thread(target=task.cancelled, daemon=True).start()

    def _take_turn(self, number: int) -> None:
        """Note that the engine is at the steps of a task from now on."""
        with self._lock:
            self._turn = number
            self._begun.add(number)
            task = self._tasks.get(number) if self._tasks else None
            is_cancelled = number in self._cancelled
        if task is not None and is_cancelled:
            self._force_later(task)

    def _force_later(self, task: Task) -> None:
        timer = Timer(FORCE_SECONDS, self._force, [task])
        timer.daemon = True
        timer.start()

    def _force(self, task: Task) -> None:
        """End the process where it is still at a task that was cancelled."""
        with self._lock:
            is_stuck = self._turn == task.number and task.number in self._cancelled
        if is_stuck and self._process is not None:
            self._forced = task
            self.alive = False
            self._process.kill()

    def close(self) -> None:
        """End the process; its tasks count as cancelled."""
        self._closing = True
        self.alive = False
        self.send({"do": "exit"})
        self._thread.join(EXIT_SECONDS)
        if self._thread.is_alive() and self._process is not None:
            # in the middle of a step, which nobody waits for any more
            self._process.kill()
        self._thread.join(EXIT_SECONDS)

    def _live(self) -> None:
        """Start the process, pass on what it says, and note its end."""
        try:
            process = self._process = Process(self._command)
        except JobError as error:
            self._end(error)
            return
        Thread(target=self._write, daemon=True).start()
        try:
            while not self._closing:
                self._dispatch(process.channel.receive())
        except (EOFError, OSError):
            self.alive = False
        self._outbox.put(None)
        process.channel.close()
        process.wait(EXIT_SECONDS)
        self._end(JobError(process.reason()))

    def _write(self) -> None:
        """Send what is to be sent; the process may be slow to take it."""
        while (message := self._outbox.get()) is not None:
            if self._process is None:
                return
            try:
                self._process.channel.send(message)
            except OSError:
                return  # the thread that receives knows, too
            except TypeError as error:
                self._refuse(message, error)

    def _refuse(self, message: Mapping[str, Any], error: TypeError) -> None:
        task = self._take(message["job"])
        if task is not None:
            task.failed(JobError(f"The computation cannot take this: {error}."))

    def _dispatch(self, message: Message) -> None:
        """Tell a task what the engine said of it."""
        if message["is"] == "turn":
            self._take_turn(message["job"])
            return
        if message["is"] == "progress":
            with self._lock:
                task = self._tasks.get(message["job"]) if self._tasks else None
            if task is not None:
                names = ("step", "total", "message", "metrics", "preview")
                task.progressed(Progress(*(message[name] for name in names)))
            return
        task = self._take(message["job"])
        if task is None:
            return
        if message["is"] == "done":
            task.finished(message["result"])
        elif message["is"] == "cancelled":
            task.cancelled()
        else:
            kind = getattr(_types, message["error"], JobError)
            task.failed(kind(message["message"]))

    def _end(self, error: MedsegError) -> None:
        """Tell all tasks that are left of the end."""
        self.alive = False
        with self._lock:
            tasks, self._tasks = self._tasks or {}, None
        for task in tasks.values():
            if self._closing or task is self._forced:
                task.cancelled()
            else:
                task.failed(JobError(FORCED) if self._forced else error)


class Engine:
    """The compute process, started with the first job and kept for the next ones.

    When it dies, its jobs are told so, and the next job starts another.

    Parameters
    ----------
    command : sequence of str
        What to run.
    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command = command
        self._numbers = itertools.count()
        self._session: _Session | None = None
        self._lock = Lock()
        atexit.register(self.close)

    @property
    def pid(self) -> int | None:
        """Number of the process; None where there is none yet."""
        session = self._session
        return session.pid if session and session.alive else None

    def submit(
        self,
        name: str,
        arguments: Mapping[str, Any],
        listener: Listener,
        *,
        urgent: bool = False,
    ) -> Task:
        """Give a job to the engine; this does not wait.

        Parameters
        ----------
        name : str
            A name of `napari_medseg.engine.jobs.JOBS`.
        arguments : mapping
            Plain values and arrays. Arrays are read soon after: give copies of what
            will be drawn on.
        listener : Listener
            Is told how it goes, from another thread.
        urgent : bool
            Goes before jobs that are not, between two of their steps.

        Returns
        -------
        Task
            To cancel, pause, or end it early.
        """
        number = next(self._numbers)
        message = {
            "do": "start",
            "job": number,
            "name": name,
            "arguments": arguments,
            "urgent": urgent,
        }
        while True:
            session = self._living()
            task = Task(number, session, listener)
            if session.add(task, message):
                return task

    def _living(self) -> _Session:
        """Return the session, a new one where the process has ended."""
        with self._lock:
            if self._session is None or not self._session.alive:
                self._session = _Session(self._command)
            return self._session

    def close(self) -> None:
        """End the process; jobs under way are cancelled."""
        atexit.unregister(self.close)
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()
