"""Following a folder that a microscope writes to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from threading import Event
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from bright import (
    Bright,
    label_files,
    names,
    open_bright,
    save,
    save_squares,
    segment,
    square,
)

from napari_medseg._types import InputError
from napari_medseg.batch import BatchReport, BatchSettings, read_ledger, watch_batch
from napari_medseg.io.images import read_annotation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_medseg._types import Job

SETTINGS = BatchSettings("bright")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "labels"


class Watch:
    """A run that watches, driven as a form or the command line drives it."""

    def __init__(self, images: Path, out: Path, **options: Any) -> None:
        self._stop = Event()
        options = {"settle": 0.6, "poll": 0.05, "opener": open_bright} | options
        settings = options.pop("settings", SETTINGS)
        self._job: Job[BatchReport] = watch_batch(
            [images], out, settings, self._stop.is_set, **options
        )

    def until(self, happened: Callable[[], bool]) -> None:
        """Go on until something has happened."""
        end = time.monotonic() + 60
        while not happened():
            assert time.monotonic() < end, "it did not happen"
            next(self._job)

    def for_seconds(self, seconds: float) -> None:
        """Go on for a while."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end)

    def for_steps(self, count: int) -> None:
        """Go on for some steps."""
        for _ in range(count):
            next(self._job)

    def end(self) -> BatchReport:
        """Stop it and return its report."""
        self._stop.set()
        while True:
            try:
                next(self._job)
            except StopIteration as done:
                report: BatchReport = done.value
                return report


def written(out: Path, *expected: str) -> Callable[[], bool]:
    """Return whether these labels are there, and noted."""

    def all_there() -> bool:
        if label_files(out) != sorted(expected):
            return False
        with read_ledger(out) as ledger:
            return all(row.state == "done" for row in ledger.rows())

    return all_there


def test_images_are_segmented_as_they_come(images: Path, out: Path) -> None:
    save(images / "a.tif", square(0))
    watch = Watch(images, out)
    watch.until(written(out, "a.tif"))
    save(images / "day" / "b.tif", square(1))
    (images / "notes.txt").write_text("no image")
    watch.until(written(out, "a.tif", "day/b.tif"))
    # tables and report are there while it waits
    watch.until(lambda: "b.tif" in (out / "report.html").read_text(encoding="utf-8"))
    save(images / "c.tif", square(2))
    watch.until(written(out, "a.tif", "c.tif", "day/b.tif"))
    report = watch.end()
    assert names(report.done) == ["a.tif", "c.tif", "b.tif"]
    assert report.failed == {}


def test_a_file_is_taken_once_it_is_complete(
    images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(
        "napari_medseg.batch.watch.time", SimpleNamespace(monotonic=lambda: now)
    )
    monkeypatch.setattr("napari_medseg.batch.loop.HEARTBEAT", 0.01)
    whole = save(images.parent / "whole.tif", square(4)).read_bytes()
    watch = Watch(images, out, settle=5.0, poll=1.0)
    part = len(whole) // 4
    with open(images / "a.tif", "wb", buffering=0) as file:
        for start in range(0, len(whole), part):
            file.write(whole[start : start + part])
            for _ in range(4):  # seconds without a change, and that is too few
                watch.for_steps(4)
                now += 1.1
            with read_ledger(out) as ledger:
                assert not any(ledger.counts().values())
    for _ in range(3):
        watch.for_steps(4)
        now += 1.1
    watch.until(written(out, "a.tif"))
    report = watch.end()
    assert (names(report.done), report.failed) == (["a.tif"], {})
    assert (read_annotation(out / "a.tif").labels == (square(4) > 100)).all()


def test_a_file_that_changes_later_is_segmented_again(images: Path, out: Path) -> None:
    path = save(images / "a.tif", square(0))
    whole = path.read_bytes()
    path.write_bytes(whole[:60])  # a writer that makes a long pause
    watch = Watch(images, out)

    def state() -> str | None:
        if not (out / "medseg.sqlite").exists():
            return None
        with read_ledger(out) as ledger:
            row = ledger.row("a")
        return row.state if row else None

    watch.until(lambda: state() == "failed")
    path.write_bytes(whole)
    watch.until(lambda: state() == "done")
    save(path, square(9))
    watch.until(
        lambda: bool((read_annotation(out / "a.tif").labels == (square(9) > 100)).all())
    )
    report = watch.end()
    assert report.failed == {}


def test_a_file_of_others_stops_no_other_image(images: Path, out: Path) -> None:
    foreign = save(out / "b.tif", square(9)).read_bytes()
    watch = Watch(images, out)
    for name in ("a", "b", "c"):
        save(images / f"{name}.tif", square(1))

    def others_are_there() -> bool:
        return {"a.tif", "c.tif"} <= set(label_files(out))

    watch.until(others_are_there)
    report = watch.end()
    assert names(report.done) == ["a.tif", "c.tif"]
    assert "is there already" in report.failed[str(images / "b.tif")]
    assert (out / "b.tif").read_bytes() == foreign


def test_an_image_that_breaks_later_is_no_longer_done(images: Path, out: Path) -> None:
    path = save(images / "a.tif", square(0))
    watch = Watch(images, out)
    watch.until(written(out, "a.tif"))
    path.write_bytes(path.read_bytes()[:60])

    def has_failed() -> bool:
        with read_ledger(out) as ledger:
            row = ledger.row("a")
        return row is not None and row.state == "failed"

    watch.until(has_failed)
    report = watch.end()
    assert (report.done, list(report.failed)) == ((), [str(path)])


def test_watching_goes_on_where_another_run_ended(images: Path, out: Path) -> None:
    save_squares(images)
    segment(images, out, Bright())
    before = {name: (out / name).stat().st_mtime_ns for name in label_files(out)}
    watch = Watch(images, out)
    save(images / "d.tif", square(3))
    watch.until(written(out, "a.tif", "b.tif", "c.tif", "d.tif"))
    report = watch.end()
    assert names(report.done) == ["d.tif"]
    assert names(report.skipped) == ["a.tif", "b.tif", "c.tif"]
    assert all((out / name).stat().st_mtime_ns == date for name, date in before.items())
    other = Watch(images, out, settings=BatchSettings("bright 50"))
    with pytest.raises(InputError, match="another model"):
        other.for_seconds(5)


def test_what_is_in_work_is_finished_when_watching_ends(
    images: Path, out: Path
) -> None:
    save_squares(images, 20)
    settings = BatchSettings("bright 100 0.05")
    watch = Watch(images, out, settings=settings, settle=0.0)
    watch.until(lambda: len(label_files(out)) > 2)
    report = watch.end()
    assert 2 < len(report.done) < 20
    assert len([name for name in label_files(out) if ".part" not in name]) == len(
        report.done
    )
    with read_ledger(out) as ledger:
        assert ledger.counts()["running"] == 0


def test_a_folder_that_is_not_there(images: Path, out: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        Watch(images / "nowhere", out).for_seconds(1)
    assert not out.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to whole consoles")
def test_ctrl_c_ends_the_command_in_good_order(images: Path, out: Path) -> None:
    save_squares(images)
    command = [sys.executable, "-m", "napari_medseg", "segment", "--model", "otsu"]
    process = subprocess.Popen(
        [*command, str(images), "--out", str(out), "--watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 120
    while not (out / "report.html").exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    told, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "3 segmented" in told
    assert "Traceback" not in errors
