"""Starting the compute process, and saying in a sentence why one ended."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections import deque
from contextlib import suppress
from multiprocessing.connection import Client
from threading import Thread
from typing import TYPE_CHECKING

from napari_medseg._types import JobError
from napari_medseg.engine.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND = (sys.executable, "-P", "-m", "napari_medseg.engine")
"""Without the working folder, whose ``random.py`` would be taken for Python's own."""

LINES = 60
"""Lines of the engine's output that are kept, for the reason of its end."""

KILLED = 9
"""The signal that Linux sends when memory ran out; it cannot be caught."""


class Process:
    """A compute process and the connection to it.

    Parameters
    ----------
    command : sequence of str
        What to run.

    Raises
    ------
    JobError
        It does not start.
    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self.output: deque[str] = deque(maxlen=LINES)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise JobError(
                f"The computation cannot be started: {error.strerror or error}."
            ) from error
        self._reader = Thread(target=self._read_output, daemon=True)
        self._reader.start()
        try:
            self.channel = self._connect()
        except (OSError, EOFError, ValueError) as error:
            self.kill()
            raise JobError(f"The computation cannot be started. {self.last}") from error

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def last(self) -> str:
        """The last line that the process printed."""
        return next((line for line in reversed(self.output) if line.strip()), "")

    def _connect(self) -> Channel:
        """Give the process its key, and connect to the address it names."""
        process, key = self._process, secrets.token_bytes(32)
        if process.stdin is None or process.stdout is None:
            raise ValueError("a process has pipes")
        process.stdin.write(key.hex() + "\n")
        process.stdin.flush()
        address = json.loads(process.stdout.readline())["address"]
        # a pair of host and port comes as a list
        place = tuple(address) if isinstance(address, list) else address
        return Channel(Client(place, authkey=key))

    def _read_output(self) -> None:
        """Keep the last lines; a pipe that nobody reads would stop the process."""
        if self._process.stderr is not None:
            with suppress(ValueError):  # closed meanwhile
                self.output.extend(self._process.stderr)

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self.wait()

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the end, by force after some seconds, and close everything."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(1.0)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def reason(self) -> str:
        """Say why the process ended; `wait` comes first."""
        code = self._process.returncode
        if code == -KILLED:
            why = "The system ended the computation, which mostly means that memory ran"
            why += " out. Close other programs, or use fewer or smaller images."
        elif code is not None and code < 0 and os.name == "posix":
            why = f"The computation crashed ({signal.Signals(-code).name})."
        else:
            why = f"The computation ended unexpectedly (exit code {code})."
        told = f" It last said: {self.last.strip()}" if self.last else ""
        return f"{why} Your layers are as they were; the next job starts afresh.{told}"
