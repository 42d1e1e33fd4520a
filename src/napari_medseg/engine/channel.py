"""Messages between the viewer and the engine: plain values and arrays.

A message is JSON, so that nothing received can run code. Arrays travel beside it:
small ones as bytes, large ones in shared memory, where each side copies once.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import shared_memory
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from numpy.typing import NDArray

Message = dict[str, Any]
"""Strings, numbers, None, lists, dicts, bytes and arrays."""

INLINE_BYTES = 1 << 16
"""Larger arrays go through shared memory."""

SHARED_FOLDER = Path("/dev/shm")
"""Where Linux keeps shared memory; containers often give it 64 MB only."""

_ARRAY, _BYTES, _RELEASE = "$array", "$bytes", "$release"


class Channel:
    """One end of a connection. Any thread may send; one receives.

    Receiving never waits for sending: two sides that are both in the middle of a long
    message would wait for each other.

    Parameters
    ----------
    connection : multiprocessing.connection.Connection
        An open, authenticated connection.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = Lock()
        self._lent: dict[str, shared_memory.SharedMemory] = {}
        self._taken: SimpleQueue[list[str] | None] = SimpleQueue()
        Thread(target=self._give_back, name="channel", daemon=True).start()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message.

        Parameters
        ----------
        message : mapping
            Plain values and arrays; keys are strings without a leading ``$``.

        Raises
        ------
        TypeError
            A value is of another kind.
        OSError
            The other side is gone.
        """
        arrays: list[NDArray[Any]] = []
        body = _plain(message, arrays)
        with self._sending:
            described = [self._lend(array) for array in arrays]
            self._write({"body": body, "arrays": described})
            for array, entry in zip(arrays, described, strict=True):
                if entry["shared"] is None:
                    self._connection.send_bytes(_flat(array))

    def receive(self) -> Message:
        """Wait for the next message.

        Raises
        ------
        EOFError, OSError
            The other side is gone.
        """
        while True:
            head = json.loads(self._connection.recv_bytes())
            arrays = [self._take(entry) for entry in head["arrays"]]
            taken = [entry["shared"] for entry in head["arrays"] if entry["shared"]]
            if taken:
                self._taken.put(taken)
            if _RELEASE in head["body"]:
                self._release(head["body"][_RELEASE])
                continue
            message: Message = _whole(head["body"], arrays)
            return message

    def close(self) -> None:
        """Close the connection, and free what the other side never took."""
        self._taken.put(None)
        self._connection.close()
        with self._sending:
            self._release(list(self._lent))

    def _give_back(self) -> None:
        """Tell the other side which blocks are copied, as they are."""
        while (names := self._taken.get()) is not None:
            with suppress(OSError), self._sending:
                self._write({"body": {_RELEASE: names}, "arrays": []})

    def _write(self, head: Mapping[str, Any]) -> None:
        self._connection.send_bytes(json.dumps(head).encode())

    def _lend(self, array: NDArray[Any]) -> dict[str, Any]:
        """Put an array where the other side finds it, and say where."""
        shared = None
        if array.nbytes > INLINE_BYTES and _fits(array.nbytes):
            with suppress(OSError):  # none left: it goes as bytes
                block = shared_memory.SharedMemory(create=True, size=array.nbytes)
                np.ndarray(array.shape, array.dtype, block.buf)[...] = array
                self._lent[block.name] = block
                shared = block.name
        return {"dtype": array.dtype.str, "shape": array.shape, "shared": shared}

    def _take(self, entry: Mapping[str, Any]) -> NDArray[Any]:
        """Return an array that was sent."""
        dtype, shape, name = np.dtype(entry["dtype"]), entry["shape"], entry["shared"]
        if name is None:
            data = bytearray(self._connection.recv_bytes())
            return np.frombuffer(data, dtype).reshape(shape)
        block = _attached(name)
        try:
            return np.ndarray(shape, dtype, block.buf).copy()
        finally:
            block.close()

    def _release(self, names: list[str]) -> None:
        """Free blocks that the other side has copied."""
        for name in names:
            block = self._lent.pop(name, None)
            if block is not None:
                block.close()
                with suppress(FileNotFoundError):
                    block.unlink()


def _fits(count: int) -> bool:
    """Tell whether shared memory has room; a block too large would crash the writer."""
    if not SHARED_FOLDER.is_dir():
        return True
    return shutil.disk_usage(SHARED_FOLDER).free > 2 * count


def _attached(name: str) -> shared_memory.SharedMemory:
    """Open a block that the other side made, and will remove."""
    if sys.version_info >= (3, 13):
        return shared_memory.SharedMemory(name, track=False)
    block = shared_memory.SharedMemory(name)
    if sys.platform != "win32":
        # until Python 3.13 whoever opens a block is also taken for its owner
        from multiprocessing import resource_tracker

        resource_tracker.unregister(f"/{name.lstrip('/')}", "shared_memory")
    return block


def _flat(array: NDArray[Any]) -> memoryview:
    """Return the bytes of an array in C order."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _plain(value: Any, arrays: list[NDArray[Any]]) -> Any:
    """Return a value as JSON holds it, its arrays moved to a list."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biufc":
            raise TypeError(f"an array of {value.dtype} cannot be sent")
        arrays.append(value)
        return {_ARRAY: len(arrays) - 1}
    if isinstance(value, (bytes, bytearray)):
        arrays.append(np.frombuffer(value, np.uint8))
        return {_BYTES: len(arrays) - 1}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) and key[:1] != "$" for key in value):
            raise TypeError("keys must be strings without a leading $")
        return {key: _plain(item, arrays) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, arrays) for item in value]
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _whole(value: Any, arrays: list[NDArray[Any]]) -> Any:
    """Undo `_plain`."""
    if isinstance(value, list):
        return [_whole(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if _ARRAY in value:
        return arrays[value[_ARRAY]]
    if _BYTES in value:
        return arrays[value[_BYTES]].tobytes()
    return {key: _whole(item, arrays) for key, item in value.items()}
