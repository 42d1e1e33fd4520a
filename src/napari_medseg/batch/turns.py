"""Where an image waits for the segmenter, unless the run is stopped."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from threading import Lock

    from napari_medseg._types import Job

T = TypeVar("T")


class Stopped(Exception):
    """The run was stopped while an image was being segmented."""


class Queue:
    """Where an image waits for the segmenter, unless the run is stopped.

    Parameters
    ----------
    turn : Lock
        Held by the image whose turn it is.
    stopped : callable
        Whether the run is stopped.

    Attributes
    ----------
    waited : float
        Seconds.
    """

    def __init__(self, turn: Lock, stopped: Callable[[], bool]) -> None:
        self.waited = 0.0
        self._turn = turn
        self._stopped = stopped

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the turn, and hold it."""
        asked = time.perf_counter()
        with self._turn:
            self.waited += time.perf_counter() - asked
            if self._stopped():
                raise Stopped
            yield

    def finish(self, job: Job[T]) -> T:
        """Run a job to its end."""
        while not self._stopped():
            try:
                next(job)
            except StopIteration as done:
                result: T = done.value
                return result
        raise Stopped
