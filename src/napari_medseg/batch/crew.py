"""Who segments the images of a run: threads, processes, or another executor."""

from __future__ import annotations

import os
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from multiprocessing import get_context
from threading import Event
from typing import TYPE_CHECKING, Protocol

from napari_medseg._types import JobError
from napari_medseg.batch.process import describe, prepare, segment_item

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from napari_medseg.batch.inputs import Work
    from napari_medseg.batch.ledger import LedgerRow
    from napari_medseg.batch.process import Task
    from napari_medseg.batch.worker import Described, ImageWorker

PARTING = 60.0
"""Seconds that a borrowed executor gets to end what it has begun."""

MOST = 61
"""Processes of a pool; Windows cannot wait for more."""

WIDTH = 3
"""Threads of one process: one reads ahead, one predicts, one writes."""


class Crew(Protocol):
    """Segments images, several at a time."""

    @property
    def places(self) -> int:
        """How many images it takes at a time; memory does not grow beyond them."""
        ...

    def describe(self) -> Future[Described]:
        """Open the segmenter and say what it is."""
        ...

    def submit(self, work: Work, identity: str) -> Future[LedgerRow]:
        """Segment an image, some time, by the segmenter of this identity.

        Raises
        ------
        BrokenExecutor
            A process has ended since; `renew` comes first.
        """
        ...

    def is_death(self, error: BaseException) -> bool:
        """Tell whether the error of a future means that its process ended."""
        ...

    def renew(self) -> None:
        """Replace processes that ended."""
        ...

    def close(self) -> None:
        """End everything; what is left half done is lost, nothing else."""
        ...


class Threads:
    """Threads of this process: reading and writing overlap with predicting.

    Parameters
    ----------
    worker : ImageWorker
        With the segmenter.
    """

    places = WIDTH

    def __init__(self, worker: ImageWorker) -> None:
        self._worker = worker
        self._stop = Event()
        self._pool = ThreadPoolExecutor(WIDTH, "segment")

    def describe(self) -> Future[Described]:
        """Say what the segmenter is."""
        future: Future[Described] = Future()
        future.set_result(self._worker.described)
        return future

    def submit(self, work: Work, identity: str) -> Future[LedgerRow]:
        """Segment an image, some time."""
        return self._pool.submit(self._worker.segment, work, self._stop.is_set)

    def is_death(self, error: BaseException) -> bool:
        """Tell that no thread ends alone."""
        return False

    def renew(self) -> None:
        """Do nothing: threads do not end."""

    def close(self) -> None:
        """Stop before the next slice; what is predicted is written."""
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)


class Processes:
    """A pool of processes of this computer, each with a segmenter of its own.

    Parameters
    ----------
    count : int
        Processes.
    task : Task
        What they must know.
    """

    def __init__(self, count: int, task: Task) -> None:
        self.places = 2 * count  # one in work and one in reserve, for each
        self._count = count
        self._task = task
        self._pool, self._leash = self._start()

    def _start(self) -> tuple[ProcessPoolExecutor, Connection]:
        # a process with threads or a graphics card cannot be forked
        context = get_context("spawn")
        held, leash = context.Pipe(duplex=False)
        threads = max(1, available_processors() // self._count)
        pool = ProcessPoolExecutor(
            min(self._count, MOST), context, prepare, (held, threads)
        )
        return pool, leash

    def describe(self) -> Future[Described]:
        """Open the segmenter in one of the processes."""
        return self._pool.submit(describe, self._task)

    def submit(self, work: Work, identity: str) -> Future[LedgerRow]:
        """Segment an image, some time."""
        return self._pool.submit(segment_item, work, self._task, identity)

    def is_death(self, error: BaseException) -> bool:
        """Tell whether a process has ended; the whole pool ends with it."""
        return isinstance(error, BrokenExecutor)

    def renew(self) -> None:
        """Start another pool."""
        self.close()
        self._pool, self._leash = self._start()

    def close(self) -> None:
        """End the processes at once."""
        self._leash.close()
        self._pool.shutdown(wait=True, cancel_futures=True)


class Borrowed:
    """An executor of somebody else, which they start and end.

    Parameters
    ----------
    executor : Executor
        Its workers must see the same folders under the same paths.
    places : callable
        Returns how many images it takes at a time.
    task : Task
        What the workers must know.
    deaths : tuple of type
        Errors of a future whose process ended.
    """

    def __init__(
        self,
        executor: Executor,
        places: Callable[[], int],
        task: Task,
        deaths: tuple[type[BaseException], ...] = (),
    ) -> None:
        self._places = places
        self._executor = executor
        self._task = task
        self._deaths: tuple[type[BaseException], ...] = (
            BrokenExecutor,
            CancelledError,
            *deaths,
        )
        self._flying: set[Future[LedgerRow]] = set()

    @property
    def places(self) -> int:
        """How many images it takes at a time."""
        return self._places()

    def describe(self) -> Future[Described]:
        """Open the segmenter in one of the workers."""
        return self._executor.submit(describe, self._task)

    def submit(self, work: Work, identity: str) -> Future[LedgerRow]:
        """Segment an image, some time."""
        try:
            future = self._executor.submit(segment_item, work, self._task, identity)
        except (RuntimeError, OSError) as error:
            raise BrokenExecutor(str(error)) from error
        self._flying.add(future)
        future.add_done_callback(self._flying.discard)
        return future

    def is_death(self, error: BaseException) -> bool:
        """Tell whether a worker has ended."""
        return isinstance(error, self._deaths)

    def renew(self) -> None:
        """Refuse, where the executor cannot go on.

        Raises
        ------
        JobError
            It takes no more work.
        """
        ends: tuple[type[BaseException], ...] = (*self._deaths, RuntimeError, OSError)
        try:
            self._executor.submit(int).result(PARTING)
        except ends as error:
            raise JobError(
                "The processes that segment have ended, most likely for want of "
                "memory. What was done is noted; the same command goes on."
            ) from error

    def close(self) -> None:
        """Wait a while for what was begun: it would write into a folder of others."""
        wait(set(self._flying), PARTING)


def available_processors() -> int:
    """Return how many processors this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1
