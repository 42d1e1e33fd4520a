"""Work on files in threads of its own; results arrive in the window's thread."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_medseg._types import MedsegError
from napari_medseg.io.raw import READER_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable


class Background(QObject):
    """Runs functions in the order they come, for as long as this object lives.

    Parameters
    ----------
    name : str
        Name of the threads.
    threads : int
        How many functions may run at once.
    drop : bool
        Whether what has not begun is dropped when this object is deleted. Otherwise
        it is still done, and Python waits for it; nobody is told.
    parent : QObject, optional
        The parent.
    """

    _arrived = Signal(object, object)

    def __init__(
        self,
        name: str,
        threads: int = 1,
        *,
        drop: bool = False,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        pool = self._pool = _Pool(ThreadPoolExecutor(threads, name), drop=drop)
        self._arrived.connect(self._deliver)
        # not a method of this object, which is gone by then
        self.destroyed.connect(lambda: pool.close())

    def submit(
        self,
        function: Callable[[], Any],
        then: Callable[[Any], None],
        otherwise: Callable[[Exception], None],
    ) -> None:
        """Call a function soon, in another thread.

        Parameters
        ----------
        function : callable
            Touches no widget.
        then : callable
            Gets the result, in the window's thread.
        otherwise : callable
            Gets the error, in the window's thread: a `MedsegError`, or what readers
            and disks raise.
        """
        self._pool.submit(self._run, function, then, otherwise)

    def _run(
        self,
        function: Callable[[], Any],
        then: Callable[[Any], None],
        otherwise: Callable[[Exception], None],
    ) -> None:
        try:
            result = function()
        except (MedsegError, *READER_ERRORS) as error:
            self._pool.emit(self._arrived, otherwise, error)
        else:
            self._pool.emit(self._arrived, then, result)

    def _deliver(self, receiver: Callable[[Any], None], value: Any) -> None:
        receiver(value)


class _Pool:
    """The threads, and whether anybody still listens to them."""

    def __init__(self, executor: ThreadPoolExecutor, *, drop: bool) -> None:
        self._executor = executor
        self._drop = drop
        self._lock = threading.Lock()
        self._is_closed = False

    def submit(self, function: Callable[..., None], *arguments: object) -> None:
        if self._is_closed:
            return
        try:
            self._executor.submit(function, *arguments)
        except RuntimeError:
            # Python is ending and starts no thread any more: what is drawn is saved yet
            if not self._drop:
                function(*arguments)

    def emit(self, signal: Any, *values: object) -> None:
        """Emit a signal of an object that must not be deleted meanwhile."""
        with self._lock, suppress(RuntimeError):
            if not self._is_closed:
                signal.emit(*values)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
        self._executor.shutdown(wait=False, cancel_futures=self._drop)
