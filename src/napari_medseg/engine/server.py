"""The compute process: runs jobs, a step at a time, and says how they go.

A job is a generator, so that many can be under way in one thread: after each step the
most urgent one goes on. A click is answered between two steps of a training; a job
that is paused is simply not continued, and one that rests is not for a while.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Listener
from queue import Empty, SimpleQueue
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING, Any

from napari_medseg._types import Job, JobError, MedsegError, Progress
from napari_medseg.engine.channel import Channel, Message
from napari_medseg.engine.jobs import JOBS, Context, Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

REPORT_SECONDS = 0.04
"""Progress without a preview or figures is not told more often than this."""

GRACE_SECONDS = 2.0
"""So long a step may take to end once the viewer is gone."""

NICENESS = 5
"""The viewer's process comes first, so that its window never waits."""


@dataclass(eq=False)
class _Running:
    """A job under way."""

    number: int
    job: Job[Any]
    context: Context
    urgent: bool
    told: float = 0.0
    due: float = 0.0


@dataclass
class Server:
    """Runs jobs for one viewer.

    Attributes
    ----------
    channel : Channel
        The connection to the viewer.
    jobs : mapping
        Module and function of each job by name.
    """

    channel: Channel
    jobs: Mapping[str, tuple[str, str]]
    _inbox: SimpleQueue[Message | None] = field(default_factory=SimpleQueue)
    _running: list[_Running] = field(default_factory=list)
    _shelf: Shelf = field(default_factory=Shelf)
    _open: bool = True
    _turn: int | None = None

    def run(self) -> None:
        """Run what the viewer asks for, until it goes or says so."""
        Thread(target=self._receive, daemon=True).start()
        while self._open:
            self._obey()
            entry = self._next()
            if entry is not None:
                self._advance(entry)
        for entry in self._running:
            entry.job.close()
        self.channel.close()

    def _receive(self) -> None:
        """Pass messages on to the thread that runs the jobs."""
        while True:
            try:
                self._inbox.put(self.channel.receive())
            except (EOFError, OSError):
                self._inbox.put(None)
                return

    def _obey(self) -> None:
        """Do what messages say; wait for one where no job can go on."""
        while self._open:
            try:
                message = self._inbox.get(timeout=self._leisure())
            except Empty:
                return
            if message is None or message["do"] == "exit":
                self._open = False
            elif message["do"] == "start":
                self._start(message)
            else:
                self._steer(message["do"], message["job"])

    def _start(self, message: Message) -> None:
        context = Context(self._shelf)
        module, function = self.jobs[message["name"]]
        # the module is imported by the job's first step, where errors are told
        job = _begin(module, function, message["arguments"], context)
        self._running.append(_Running(message["job"], job, context, message["urgent"]))

    def _steer(self, action: str, number: int) -> None:
        """Cancel, end early, pause or continue a job; one that has ended is no more."""
        for entry in [item for item in self._running if item.number == number]:
            if action == "cancel":
                self._running.remove(entry)
                self._take_turn(entry)
                entry.job.close()
                self._tell(entry, "cancelled")
            elif action == "end":
                entry.context.end_early = True
                entry.context.paused = False
            else:
                entry.context.paused = action == "pause"

    def _leisure(self) -> float | None:
        """Return the seconds until a job can go on; None where none waits to."""
        due = [entry.due for entry in self._running if not entry.context.paused]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _next(self) -> _Running | None:
        """Return the job to go on with: an urgent one, or whose turn it is."""
        now = time.monotonic()
        ready = [
            entry
            for entry in self._running
            if not entry.context.paused and entry.due <= now
        ]
        return min(ready, key=lambda entry: not entry.urgent, default=None)

    def _advance(self, entry: _Running) -> None:
        """Do one step of a job and say what came of it."""
        self._running.remove(entry)
        self._take_turn(entry)
        entry.context.rest = 0.0
        try:
            progress = next(entry.job)
        except StopIteration as ended:
            self._tell(entry, "done", result=ended.value)
        except MedsegError as error:
            self._tell(entry, "failed", error=type(error).__name__, message=str(error))
        except Exception as error:  # one place for what nobody foresaw
            told = _unforeseen(error)
            self._tell(entry, "failed", error="JobError", message=told)
        else:
            # behind the others, so that jobs of one urgency take turns
            self._running.append(entry)
            entry.due = time.monotonic() + entry.context.rest
            self._report(entry, progress)

    def _take_turn(self, entry: _Running) -> None:
        """Say whose step comes, so that another job is not taken for one that hangs."""
        if entry.number != self._turn:
            self._turn = entry.number
            self._tell(entry, "turn")

    def _report(self, entry: _Running, progress: Progress) -> None:
        now = time.monotonic()
        small = progress.preview is None and not progress.metrics
        if small and now - entry.told < REPORT_SECONDS:
            return
        entry.told = now
        self._tell(
            entry,
            "progress",
            step=progress.step,
            total=progress.total,
            message=progress.message,
            metrics=dict(progress.metrics),
            preview=progress.preview,
        )

    def _tell(self, entry: _Running, what: str, **facts: Any) -> None:
        try:
            self.channel.send({"is": what, "job": entry.number, **facts})
        except OSError:
            self._open = False


def _begin(
    module: str, function: str, arguments: Message, context: Context
) -> Job[Any]:
    """Return a job whose code is imported by its first step."""
    yield Progress(0, None, "starting")
    job: Callable[..., Job[Any]] = getattr(import_module(module), function)
    return (yield from job(arguments, context))


def _unforeseen(error: Exception) -> str:
    """Say what went wrong, in a sentence for the user and for a report."""
    if "torch" in sys.modules:
        devices = import_module("napari_medseg.models.devices")
        if devices.is_out_of_memory(error):
            return (
                "Memory ran out. Close other programs, use fewer or smaller images, "
                "or choose the processor in place of the graphics card."
            )
    # the whole of it goes to whoever reads the engine's output
    traceback.print_exception(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"Something went wrong that should not ({type(error).__name__}: {error}; "
        f"{where.name}, line {where.lineno}). Your layers are as they were. Please "
        "report it, with this line."
    )


def main(jobs: Mapping[str, tuple[str, str]] = JOBS) -> int:
    """Serve the viewer that started this process, by its pipe, with these jobs."""
    # Ctrl-C is for the viewer, which ends this process as it ends
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    key = bytes.fromhex(sys.stdin.readline().strip())
    if not key:
        raise JobError("The engine is started by the viewer, not by hand.")
    Thread(target=_end_with_viewer, daemon=True).start()
    with _listener(key) as listener:
        sys.stdout.write(json.dumps({"address": listener.address}) + "\n")
        sys.stdout.flush()
        # whatever libraries print must not fill the pipe that nobody reads
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        connection = listener.accept()
    Server(Channel(connection), jobs).run()
    return 0


@contextmanager
def _listener(key: bytes) -> Iterator[Listener]:
    """Listen where only this user can come in; nothing is left of it afterwards."""
    with TemporaryDirectory(prefix="medseg-") as folder:
        address = None if sys.platform == "win32" else os.path.join(folder, "engine")
        with Listener(address, authkey=key) as listener:
            yield listener


def _end_with_viewer() -> None:
    """End this process when the viewer's end of the pipe closes, however it ended."""
    while sys.stdin.read(1):
        continue
    time.sleep(GRACE_SECONDS)
    os._exit(0)
