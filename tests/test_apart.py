"""A file that ends its reader gets a sentence, and the next file is read."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bright import Bright, names, segment

from napari_medseg._types import InputError
from napari_medseg.io.apart import ReaderProcess

READER = """
import os, sys
import numpy as np
from napari_medseg._types import InputError
from napari_medseg.io.apart import serve

def look(file, scene):
    if file.name == "fatal.czi":
        os.abort()
    if file.name == "bad.czi":
        raise InputError(f"{file} is bad.")
    return {"scenes": 1, "process": os.getpid()}

def box(file, scene, key):
    return np.arange(12).reshape(3, 4)[key]

serve(sys.stdin, sys.stdout, look, box)
"""

needs_bioio = pytest.mark.skipif(
    importlib.util.find_spec("bioio") is None, reason="bioio is not installed"
)


@pytest.fixture
def reader() -> ReaderProcess:
    return ReaderProcess((sys.executable, "-c", READER))


def test_answers_and_arrays_arrive(reader: ReaderProcess) -> None:
    assert reader.look(Path("a.czi"), 0)["scenes"] == 1
    found = reader.box(Path("a.czi"), 0, (slice(1, 3), slice(0, 2)))
    np.testing.assert_array_equal(found, [[4, 5], [8, 9]])
    reader.close()


def test_a_file_that_ends_the_reader_gets_a_sentence(reader: ReaderProcess) -> None:
    first = reader.look(Path("a.czi"), 0)["process"]
    with pytest.raises(
        InputError, match=r"fatal\.czi cannot be read.*broke off.*again"
    ):
        reader.look(Path("fatal.czi"), 0)
    again = reader.look(Path("b.czi"), 0)["process"]
    assert again != first
    with pytest.raises(InputError, match=r"bad\.czi is bad"):
        reader.look(Path("bad.czi"), 0)
    # a refusal is no reason for another process
    assert reader.look(Path("b.czi"), 0)["process"] == again
    reader.close()


def test_it_ends_with_its_owner() -> None:
    owner = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, os; from pathlib import Path\n"
            "from napari_medseg.io.apart import ReaderProcess\n"
            f"reader = ReaderProcess((sys.executable, '-c', {READER!r}))\n"
            "print(reader.look(Path('a.czi'), 0)['process'], flush=True)\n"
            "os.kill(os.getpid(), 9)",
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    process = int(owner.stdout)
    end = time.monotonic() + 60
    while _is_alive(process) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _is_alive(process)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@needs_bioio
def test_the_run_outlives_a_file_that_ended_the_reader(tmp_path: Path) -> None:
    """The damage that `benchmarks/fuzz.py` found; the library may be mended since."""
    from fuzzing import Damage, damaged, seeds

    places = [tmp_path / name for name in ("seeds", "images", "out")]
    for place in places[:2]:
        place.mkdir()
    seed = seeds(places[0])["cells.czi"]
    broken = damaged(seed, [Damage(4, 36468, 42)])  # input 847
    (places[1] / "a.czi").write_bytes(broken)
    np.save(places[1] / "b.npy", np.full((40, 50), 200, np.uint8))
    report = segment(places[1], places[2], Bright())
    assert "b.npy" in names(report.done)
    assert len(report.failed) <= 2  # the file has two images
