"""A compute process with jobs for tests: ``python engine_process.py``."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import InputError, Job, Progress
from napari_medseg.engine.aside import aside
from napari_medseg.engine.server import main

if TYPE_CHECKING:
    from napari_medseg.engine.jobs import Context

COMMAND = (sys.executable, str(Path(__file__)))


def count(arguments: dict[str, Any], context: Context) -> Job[list[int]]:
    """Count, and hold up for some seconds at each step."""
    done = []
    for step in range(arguments["steps"]):
        if context.end_early:
            break
        time.sleep(arguments.get("seconds", 0.0))
        done.append(step)
        metrics = {"loss": 1.0 / (1 + step)}
        yield Progress(step, arguments["steps"], "counting", metrics)
    return done


def double(arguments: dict[str, Any], context: Context) -> Job[dict[str, Any]]:
    """Return arrays times two, and whatever else came as it was."""
    yield Progress(0, 1, "doubling", preview=np.zeros((3, 4), np.float32))
    return {
        key: value * 2 if isinstance(value, np.ndarray) else value
        for key, value in arguments.items()
    }


def keep(arguments: dict[str, Any], context: Context) -> Job[Any]:
    """Return what the call before left, and leave something."""
    yield Progress(0, 1, "keeping")
    before = context.shelf.get("thing", "one")
    context.shelf.put("thing", "one", arguments["thing"])
    return before


def refuse(arguments: dict[str, Any], context: Context) -> Job[None]:
    """Fail with a sentence."""
    yield Progress(0, 1, "refusing")
    raise InputError("cells.tif is empty; choose another file.")


def stumble(arguments: dict[str, Any], context: Context) -> Job[None]:
    """Fail as only a defect can."""
    yield Progress(0, 1, "stumbling")
    raise KeyError("nobody foresaw this")


def hang(arguments: dict[str, Any], context: Context) -> Job[None]:
    """Do one step that takes minutes, and leave a file when it begins."""
    yield Progress(0, 1, "hanging")
    Path(arguments["flag"]).touch()
    time.sleep(200)
    yield Progress(1, 1, "awake")


def linger(arguments: dict[str, Any], context: Context) -> Job[str]:
    """Do one step that takes until there is a file, and leave one when it begins."""
    yield Progress(0, 1, "lingering")
    Path(arguments["begun"]).touch()
    until = time.monotonic() + 60.0
    while not Path(arguments["flag"]).exists() and time.monotonic() < until:
        time.sleep(0.01)
    return "it ended by itself"


def wait(arguments: dict[str, Any], context: Context) -> Job[str]:
    """Wait for a file within a single step, beside the other jobs."""
    return aside(_until(Path(arguments["flag"])), context)


def _until(flag: Path) -> Job[str]:
    yield Progress(0, 1, "waiting", {"now": 1.0})
    for _ in range(6000):
        if flag.exists():
            return "it came"
        time.sleep(0.01)
    return "it did not come"


def die(arguments: dict[str, Any], context: Context) -> Job[None]:
    """End the process as a crash does."""
    yield Progress(0, 1, "dying", {"now": 1.0})
    sys.stderr.write("the driver fell over\n")
    sys.stderr.flush()
    os._exit(3)


JOBS = {
    job.__name__: ("engine_process", job.__name__)
    for job in (count, double, keep, refuse, stumble, hang, linger, wait, die)
}

if __name__ == "__main__":
    sys.exit(main(JOBS))
