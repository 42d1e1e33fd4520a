"""The engine's job for folders: what the core does, beside the other jobs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bright import label_files, save_squares

from napari_medseg._types import InputError, OverwriteError, RedoError, finish
from napari_medseg._types import Progress as Report
from napari_medseg.batch import BatchSettings, read_ledger, segment_batch
from napari_medseg.engine.aside import REST, aside
from napari_medseg.engine.batching import batch
from napari_medseg.engine.jobs import Context
from napari_medseg.instances import ObjectConfig
from napari_medseg.io.images import read_annotation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from napari_medseg._types import Job


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of three images, and a file that is none."""
    folder = save_squares(tmp_path / "images")
    (folder / "broken.tif").write_bytes(b"no image")
    return folder


def asked(images: Path, out: Path, **changes: Any) -> dict[str, Any]:
    plain = {
        "inputs": [str(images)],
        "out": str(out),
        "settings": {"model": "otsu", "objects": {"min_size": 4}, "formats": ["csv"]},
        "workers": 1,
        "redo": False,
        "overwrite": False,
        "watch": False,
        "command": "napari-medseg segment",
    }
    return plain | changes


def states(out: Path) -> dict[str, str]:
    with read_ledger(out) as ledger:
        return {row.name: row.state for row in ledger.rows()}


def test_a_folder_is_segmented_as_the_core_does(images: Path, tmp_path: Path) -> None:
    out, wanted = tmp_path / "out", tmp_path / "wanted"
    result = finish(batch(asked(images, out), Context()))
    assert (result["done"], result["skipped"], result["failed"]) == (3, 0, 1)
    assert result["report"] == str(out / "report.html")
    settings = BatchSettings("otsu", objects=ObjectConfig(min_size=4), formats=("csv",))
    finish(segment_batch([images], wanted, settings))
    assert label_files(out) == label_files(wanted) == ["a.tif", "b.tif", "c.tif"]
    for name in label_files(out):
        np.testing.assert_array_equal(
            read_annotation(out / name).labels, read_annotation(wanted / name).labels
        )
    assert (out / "objects.csv").is_file()
    again = finish(batch(asked(images, out), Context()))
    assert (again["done"], again["skipped"], again["failed"]) == (0, 3, 1)


def test_other_settings_are_refused_until_asked_for(
    images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    finish(batch(asked(images, out), Context()))
    other = {"model": "otsu", "classes": {"smoothing": 1.0}}
    with pytest.raises(RedoError, match="other settings"):
        finish(batch(asked(images, out, settings=other), Context()))
    done = finish(batch(asked(images, out, settings=other, redo=True), Context()))
    assert (done["done"], done["failed"]) == (3, 1)


def test_files_of_others_are_refused_until_asked_for(
    images: Path, tmp_path: Path
) -> None:
    out = save_squares(tmp_path / "out")
    with pytest.raises(OverwriteError, match="no run of napari-medseg wrote it"):
        finish(batch(asked(images, out), Context()))
    assert finish(batch(asked(images, out, overwrite=True), Context()))["done"] == 3


def test_settings_are_checked(images: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="colour"):
        settings = {"model": "otsu", "colour": 1}
        finish(batch(asked(images, tmp_path / "out", settings=settings), Context()))


def test_cancelled_it_keeps_what_is_done(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    save_squares(images, 40)
    job = batch(asked(images, out), Context())
    for progress in job:
        if progress.metrics.get("done", 0) >= 2:
            break
        time.sleep(REST / 10)
    job.close()
    before = states(out)
    assert set(before.values()) <= {"done", "failed", "waiting"}
    kept = list(before.values()).count("done")
    assert kept >= 2
    again = finish(batch(asked(images, out), Context()))
    assert again["skipped"] == kept
    assert again["skipped"] + again["done"] == 43


def test_watching_ends_when_asked(images: Path, tmp_path: Path) -> None:
    context = Context(end_early=True)
    result = finish(batch(asked(images, tmp_path / "out", watch=True), context))
    assert (result["done"], result["failed"]) == (0, 0)


# --- jobs beside the others -------------------------------------------------------


def counting(steps: int, done: list[int], closed: list[bool]) -> Job[str]:
    """Count into a list."""
    try:
        for step in range(steps):
            done.append(step)
            yield Report(step, steps, "counting")
        return "counted"
    finally:
        closed.append(True)


def stumbling() -> Iterator[Report]:
    yield Report(0, 1, "stumbling")
    raise InputError("cells.tif is empty.")


def test_beside_it_gives_its_result_and_rests() -> None:
    done: list[int] = []
    context = Context(paused=True)
    job = aside(counting(30, done, []), context)
    next(job)
    assert context.rest > 0
    context.paused = False
    assert finish(job) == "counted"
    assert done == list(range(30))


def test_beside_it_does_no_step_while_paused() -> None:
    done: list[int] = []
    context = Context(paused=True)
    job = aside(counting(3, done, []), context)
    for _ in range(10):
        next(job)
        time.sleep(REST / 10)
    assert not done
    context.paused = False
    assert finish(job) == "counted"


def test_beside_its_error_is_raised() -> None:
    with pytest.raises(InputError, match="is empty"):
        finish(aside(stumbling(), Context()))


@pytest.mark.parametrize("paused", [False, True])
def test_beside_it_is_closed_with_the_job(paused: bool) -> None:
    done: list[int] = []
    closed: list[bool] = []
    context = Context()
    job = aside(counting(10**9, done, closed), context)
    while len(done) < 3:
        next(job)
    context.paused = paused
    job.close()
    assert closed == [True]
