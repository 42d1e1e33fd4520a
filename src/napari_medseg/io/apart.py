"""Reading in a process of its own, which a damaged file may end.

The library that CZI files are read with is written in C++, and some damaged files make
it break off the whole program: no error can be caught. So such files are read by a
process beside this one. If it dies, the file gets a sentence, and the next file another
process. Requests and answers are lines of JSON; pixels travel as NumPy files.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_medseg.io.raw import Key

Answer = dict[str, Any]
"""What a reader says: plain values, with an array under ``data`` at most."""


COMMAND = (sys.executable, "-P", "-m", "napari_medseg.io.apart")
"""Starts a process that answers as `serve` does; the working folder has no say."""


class ReaderProcess:
    """A process that reads, started when it is first asked.

    Parameters
    ----------
    command : sequence of str
        Starts it.
    """

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._command = command
        self._lock = Lock()
        self._process: subprocess.Popen[str] | None = None

    def look(self, file: Path, scene: int) -> Answer:
        """Return what is known of a scene; see `containers.look`.

        Raises
        ------
        InputError
            The file cannot be read, or ended the process.
        """
        return self._ask({"file": str(file), "scene": scene})

    def box(self, file: Path, scene: int, key: Key) -> NDArray[Any]:
        """Read a box of a scene; see `containers.box`.

        Raises
        ------
        InputError
            The file cannot be read, or ended the process.
        """
        with tempfile.TemporaryDirectory(prefix="medseg-") as folder:
            place = Path(folder, "box.npy")
            edges = [[each.start, each.stop] for each in key]
            request = {"file": str(file), "scene": scene, "key": edges}
            self._ask(request | {"out": str(place)})
            found: NDArray[Any] = np.load(place, allow_pickle=False)
        return found

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _ask(self, request: Answer) -> Answer:
        with self._lock:
            line = self._exchange(json.dumps(request))
            if not line:
                self._end()
                raise InputError(
                    f"{request['file']} cannot be read: it is so damaged that the "
                    "program that reads such files broke off. Save or copy it again "
                    "from the original."
                )
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise InputError(answer["error"])
        return answer

    def _exchange(self, line: str) -> str:
        """Send a line and return the answer; nothing where the process died."""
        process = self._process or self._start()
        if process.stdin is None or process.stdout is None:
            raise ValueError("the process has pipes")
        try:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            return process.stdout.readline()
        except OSError:
            return ""

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with process:  # closes the pipes, and waits for the end
                process.kill()


@lru_cache(maxsize=1)
def reader_process() -> ReaderProcess:
    """Return the one that this process has; it ends with this process."""
    reader = ReaderProcess()
    atexit.register(reader.close)
    return reader


def serve(
    requests: IO[str],
    answers: IO[str],
    look: Callable[[Path, int], Answer],
    box: Callable[[Path, int, Key], NDArray[Any]],
) -> None:
    """Answer requests until there are no more.

    Parameters
    ----------
    requests, answers : file
        Lines of JSON.
    look, box : callable
        As of `napari_medseg.io.containers`.
    """
    for line in requests:
        asked = json.loads(line)
        file, scene = Path(asked["file"]), asked["scene"]
        try:
            if "key" in asked:
                key = tuple(slice(start, stop) for start, stop in asked["key"])
                np.save(asked["out"], box(file, scene, key), allow_pickle=False)
                answer: Answer = {}
            else:
                answer = look(file, scene)
        except InputError as error:
            answer = {"error": str(error)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Serve the process that started this one, until it ends."""
    from napari_medseg.io import containers

    # what libraries print must not get among the answers
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        serve(sys.stdin, answers, containers.look, containers.box)


if __name__ == "__main__":
    main()
