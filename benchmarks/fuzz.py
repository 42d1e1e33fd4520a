"""Try damaged files of every format for as long as you like.

    python benchmarks/fuzz.py --seconds 600

Each input is read as a folder run reads it, in a process of its own whose memory is
limited. It must be read or refused with a sentence: anything else, a process that ends
and one that takes more than a minute are listed, with the number that makes the same
input again. With --atheris, where it is installed, coverage leads the inputs of the
model-file parser and of the outlines. The outcome is in ``results/fuzz.json``.
"""

from __future__ import annotations

import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

if "--atheris" in sys.argv:
    import atheris

    # before anything else imports them
    with atheris.instrument_imports(include=["napari_medseg", "roifile"]):
        from fuzzing import KINDS, Damage, read, seeds
else:
    from fuzzing import KINDS, Damage, read, seeds

RESULT = HERE / "results" / "fuzz.json"

MEMORY = 3 * 2**30
"""Bytes that a process may have above what it has when it starts."""

PATIENCE = 60
"""Seconds that one input may take."""

ROUND = 200
"""Inputs of one format in a process."""


def damages_of(name: str, number: int) -> list[Damage]:
    """Return what is done to a file; the same number does the same."""
    draw = random.Random(f"{name} {number}")
    return [
        Damage(
            draw.randrange(KINDS),
            draw.randrange(200) if draw.random() < 0.5 else draw.randrange(100_000),
            draw.randrange(256),
        )
        for _ in range(1 + draw.randrange(4))
    ]


def child(name: str, first: int, count: int, note: Path) -> None:
    """Read some inputs of one format; note which one, and how it went."""
    import resource

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "seeds").mkdir()
        seed = seeds(place / "seeds")[name]
        read(name, seed, [], place)  # loads the libraries
        used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, -1))
        told: dict[str, Any] = {"read": 0, "refused": 0, "errors": {}, "slowest": 0.0}
        for number in range(first, first + count):
            note.write_text(json.dumps(told | {"at": number}))
            started = time.perf_counter()
            try:
                answer = read(name, seed, damages_of(name, number), place)
            except BaseException as error:
                answer = ""
                told["errors"][f"{type(error).__name__}: {error}"[:200]] = number
            seconds = time.perf_counter() - started
            told["slowest"] = max(told["slowest"], seconds)
            if answer:
                told["read" if answer == "read" else "refused"] += 1
        told["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        note.write_text(json.dumps(told))


def one_round(name: str, first: int) -> dict[str, Any]:
    """Run a child; return what it noted, also where it ended."""
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder, "note.json")
        command = [sys.executable, __file__, "--child", name, str(first), str(note)]
        ended = ""
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            seen, since = -1, time.monotonic()
            while process.poll() is None:
                time.sleep(0.2)
                at = _noted(note).get("at", -1)
                if at != seen:
                    seen, since = at, time.monotonic()
                elif time.monotonic() - since > PATIENCE + 60 * (seen < 0):
                    ended = f"took more than {PATIENCE} s"
                    process.kill()
        told = _noted(note)
        if process.returncode and not ended:
            ended = f"the process ended ({process.returncode})"
        if ended and "at" in told:
            told["errors"][ended] = told["at"]
        return told


def _noted(note: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(note.read_text()))
    except (OSError, ValueError):
        return {}


def with_atheris(seconds: int) -> None:
    """Let coverage lead the inputs; ends with an error at the first finding."""
    folder = tempfile.mkdtemp()
    place = Path(folder)
    (place / "seeds").mkdir()
    names = ("model.medseg", "cells.geojson", "POLYGON.roi")
    found = seeds(place / "seeds")
    corpus = place / "corpus"
    corpus.mkdir()
    for index, name in enumerate(names):
        (corpus / name).write_bytes(bytes([index]) + found[name])

    def try_one(data: bytes) -> None:
        if data:
            read(names[data[0] % len(names)], data[1:], [], place)

    limits = [
        f"-max_total_time={seconds}",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], try_one)
    atheris.Fuzz()


def main(
    seconds: Annotated[int, typer.Option(help="How long.")] = 600,
    only: Annotated[str, typer.Option(help="Part of the name of a format.")] = "",
    led: Annotated[bool, typer.Option("--atheris", help="Use atheris.")] = False,
) -> None:
    """Try inputs of all formats in turn, and write what came of them."""
    if led:
        with_atheris(seconds)
        return
    with tempfile.TemporaryDirectory() as folder:
        names = [name for name in seeds(Path(folder)) if only in name]
    totals: dict[str, dict[str, Any]] = {
        name: {"tried": 0, "read": 0, "refused": 0, "errors": {}, "slowest": 0.0}
        for name in names
    }
    started, step = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        name = names[step % len(names)]
        first = ROUND * (step // len(names))
        step += 1
        told, total = one_round(name, first), totals[name]
        total["errors"] |= told.get("errors", {})
        for key in ("read", "refused"):
            total[key] += told.get(key, 0)
        total["tried"] += sum(told.get(key, 0) for key in ("read", "refused"))
        total["tried"] += len(told.get("errors", {}))
        total["slowest"] = max(total["slowest"], round(told.get("slowest", 0.0), 2))
        peak = told.get("peak_mb", 0.0)
        total["peak_mb"] = max(total.get("peak_mb", 0.0), round(peak))
        print(name, total, flush=True)
        if not only:
            _write(totals, time.monotonic() - started)


def _write(totals: dict[str, dict[str, Any]], seconds: float) -> None:
    versions = {
        name: metadata.version(name)
        for name in ("tifffile", "imagecodecs", "pillow", "numpy", "zarr", "roifile")
    }
    outcome = {
        "inputs": sum(total["tried"] for total in totals.values()),
        "read": sum(total["read"] for total in totals.values()),
        "refused_with_a_sentence": sum(total["refused"] for total in totals.values()),
        "errors": sum(len(total["errors"]) for total in totals.values()),
        "seconds": round(seconds),
        "python": platform.python_version(),
        "versions": versions,
        "formats": totals,
    }
    RESULT.write_text(json.dumps(outcome, indent=1) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], int(sys.argv[3]), ROUND, Path(sys.argv[4]))
    else:
        typer.run(main)
