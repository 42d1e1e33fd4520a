"""A run that is killed again and again: what is there in the end.

Run by ``batch.py``. The command ``segment`` is killed (SIGKILL) at random moments and
given again, until it has been killed so many times; whenever it gets through, its
folder is compared with that of a run that nobody disturbed, and another folder is
begun. Nothing may be lost, half, done twice, or other than it should be.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import tifffile

from napari_medseg._types import InputError
from napari_medseg.batch import LEDGER, PROVENANCE, read_ledger

UNLIKE = (LEDGER, PROVENANCE, "report.html", ".medseg.lock")
"""Files that hold dates and times."""

OPTIONS = "--instances --export csv,coco,geojson --json"


@dataclass
class Killing:
    """Runs that are killed.

    Attributes
    ----------
    images : Path
        The folder of images.
    work : Path
        Where the results go.
    model : str
        The segmenter.
    kills : list of float
        After how many seconds a run was killed.
    caught : int
        Kills in which images were in work.
    halves : int
        Half files that were found after kills, all taken together.
    faults : list of str
        What was wrong; empty where all is well.
    """

    images: Path
    work: Path
    model: str
    kills: list[float] = field(default_factory=list)
    caught: int = 0
    halves: int = 0
    faults: list[str] = field(default_factory=list)

    def command(self, out: Path, workers: int) -> list[str]:
        """Return the command."""
        return [
            *(sys.executable, "-m", "napari_medseg", "segment", str(self.images)),
            *("--model", self.model, "--out", str(out), "--workers", str(workers)),
            *OPTIONS.split(),
        ]

    def undisturbed(self, out: Path, workers: int) -> tuple[float, float]:
        """Segment all; return the seconds in all, and those of the images."""
        started = time.monotonic()
        done = subprocess.run(
            self.command(out, workers), check=True, stdout=subprocess.PIPE, text=True
        )
        seconds = time.monotonic() - started
        return seconds, json.loads(done.stdout)["seconds"]

    def killed(
        self, out: Path, workers: int, seconds: float, *, begun: bool = False
    ) -> bool:
        """Run, and kill after some seconds; tell whether it was through before.

        The seconds count from the first image on, where it is to have ``begun``.
        """
        process = subprocess.Popen(
            self.command(out, workers), stdout=subprocess.DEVNULL
        )
        while begun and process.poll() is None and not in_work(out):
            time.sleep(0.01)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            helpers = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            # they end by themselves when nobody conducts them
            if psutil.wait_procs(helpers, timeout=60)[1]:
                self.faults.append(f"{out.name}: a process stayed")
            self.kills.append(round(seconds, 2))
            return False
        if code:
            self.faults.append(f"{out.name}: exit code {code}")
        return True

    def note(self, out: Path, done: dict[str, int]) -> None:
        """Look at a folder after a kill: what is noted as done must be whole."""
        with suppress(InputError), read_ledger(out) as ledger:
            self.caught += ledger.counts()["running"] > 0
            for row in ledger.rows("done"):
                for name in row.files:
                    if not (out / name).exists():
                        self.faults.append(f"{out.name}: {name} is noted, not there")
                labels = out / row.files[0]
                done.setdefault(row.name, labels.stat().st_mtime_ns)
        self.halves += sum(".part" in path.name for path in out.rglob(".*"))

    def compare(self, whole: Path, out: Path, done: dict[str, int]) -> None:
        """Compare a folder with the undisturbed one."""
        first, second = contents(whole), contents(out)
        for name in sorted(first.keys() | second.keys()):
            if first.get(name) != second.get(name):
                self.faults.append(f"{out.name}: {name} is not as undisturbed")
        for name, written in done.items():
            if (out / f"{name}.tif").stat().st_mtime_ns != written:
                self.faults.append(f"{out.name}: {name} was done twice")
        coco = json.loads((out / "coco.json").read_text())
        named = [image["file_name"] for image in coco["images"]]
        expected = len([*self.images.iterdir()])
        with read_ledger(out) as ledger:
            counts = ledger.counts()
        if not len(named) == len(set(named)) == counts["done"] == expected:
            self.faults.append(f"{out.name}: {len(named)} in COCO, {counts} noted")


def in_work(out: Path) -> int:
    """Return how many images are noted as being segmented."""
    try:
        with read_ledger(out) as ledger:
            return ledger.counts()["running"]
    except (InputError, sqlite3.Error):
        return 0  # it is just being made


def contents(out: Path) -> dict[str, str]:
    """Return a digest of each file, hidden ones too; of TIFFs, of their pixels."""
    found = {}
    for path in out.rglob("*"):
        if not path.is_file() or path.name.startswith(UNLIKE):
            continue
        # a TIFF holds a number that is another one each time
        is_image = path.suffix == ".tif" and not path.name.startswith(".")
        content = tifffile.imread(path).tobytes() if is_image else path.read_bytes()
        found[path.relative_to(out).as_posix()] = sha256(content).hexdigest()
    return found


def measure(
    images: Path, work: Path, model: str, count: int, seed: int
) -> dict[str, Any]:
    """Kill runs; return what was found.

    Parameters
    ----------
    images, work : Path
        The images, and a folder for results.
    model : str
        The segmenter.
    count : int
        How many times.
    seed : int
        Of the moments.

    Returns
    -------
    dict
        Kills, and faults.
    """
    killing, draw = Killing(images, work, model), random.Random(seed)
    whole = work / "whole"
    seconds, of_images = killing.undisturbed(whole, 1)
    folders = 0
    while len(killing.kills) < count:
        out, done = work / f"killed {folders}", dict[str, int]()
        workers = 1 + folders % 2
        through = False
        while not through:
            last = len(killing.kills) >= count
            # one in four at any moment, the others while images are in work
            begun = bool(len(killing.kills) % 4)
            moment = draw.uniform(0, 0.6 * of_images if begun else seconds)
            moment = 1e6 if last else moment
            through = killing.killed(out, workers, moment, begun=begun and not last)
            killing.note(out, done)
        killing.compare(whole, out, done)
        folders += 1
    return {
        "model": model,
        "images": len([*images.iterdir()]),
        "undisturbed_seconds": round(seconds, 1),
        "kills": killing.kills,
        "with_images_in_work": killing.caught,
        "half_files_found": killing.halves,
        "folders": folders,
        "faults": killing.faults,
    }
