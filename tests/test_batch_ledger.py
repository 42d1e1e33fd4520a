"""What the ledger knows, and what a run makes of it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bright import Bright, label_files, names, save, save_squares, segment, square

from napari_medseg._types import InputError, JobError, finish
from napari_medseg.batch import LEDGER, LedgerRow, ledger, read_ledger, segment_files
from napari_medseg.batch.ledger import Recipe
from napari_medseg.batch.ledger_file import open_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = str(Path(__file__).parent)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of three images with a square each."""
    return save_squares(tmp_path / "images")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "labels"


def rows(out: Path) -> dict[str, LedgerRow]:
    with read_ledger(out) as reader:
        return {row.name: row for row in reader.rows()}


# --- what is noted ----------------------------------------------------------------


def test_an_image_is_noted_with_all_that_is_known(images: Path, out: Path) -> None:
    segment(images, out, Bright(note="Memory was short."))
    row = rows(out)["b"]
    found = (images / "b.tif").stat()
    assert (row.state, row.error, row.note) == ("done", "", "Memory was short.")
    assert row.source == str(images / "b.tif")
    assert (row.size, row.modified) == (found.st_size, found.st_mtime_ns)
    assert row.digest is not None and len(row.digest) == 64
    assert row.files[0] == "b.tif"
    assert row.seconds is not None and row.seconds > 0
    assert (row.objects, row.quality) == (None, None)


def test_rows_are_read_some_at_a_time(
    images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_squares(images, 20)
    segment(images, out, Bright())
    monkeypatch.setattr(ledger, "PAGE", 7)
    with read_ledger(out) as reader:
        found = [row.name for row in reader.rows()]
        assert found == sorted(found)
        assert len(set(found)) == 23
        assert [row.name for row in reader.rows("failed")] == []
        assert reader.counts()["done"] == 23


def test_the_ledger_is_read_while_a_run_goes_on(images: Path, out: Path) -> None:
    save_squares(images, 30)
    job = segment_files([images], Bright(pause=0.01), out)
    with closing(job):
        while next(job).step < 5:
            pass
        with read_ledger(out) as reader:
            counts = reader.counts()
            assert sum(counts.values()) == 33
            assert counts["done"] >= 5
            assert counts["running"] > 0
            finish(job)
            assert reader.counts()["done"] == 33


def test_a_folder_without_a_ledger(out: Path) -> None:
    with pytest.raises(InputError, match="no run has written"), read_ledger(out):
        pass
    assert not out.exists()


def test_a_ledger_of_a_later_version(images: Path, out: Path) -> None:
    segment(images, out, Bright())
    with closing(sqlite3.connect(out / LEDGER)) as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.commit()
    with pytest.raises(InputError, match="later version"):
        segment(images, out, Bright())
    with pytest.raises(InputError, match="later version"), read_ledger(out):
        pass


def test_a_ledger_that_cannot_be_written(out: Path) -> None:
    with open_ledger(out) as book:
        book.await_images([("a", "/images/a.tif")])
        book._connection.execute("PRAGMA query_only = ON")
        with pytest.raises(JobError, match=r"medseg.sqlite.*cannot be written"):
            book.start("a")


def test_a_drive_that_knows_no_locks(
    images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lockless(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if "EXCLUSIVE" in sql:
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(sql, *values)

    connect = sqlite3.connect
    addresses = []

    def noted(address: Any, **options: Any) -> sqlite3.Connection:
        addresses.append(str(address))
        return connect(address, factory=Lockless, **options)

    monkeypatch.setattr(sqlite3, "connect", noted)
    assert len(segment(images, out, Bright()).done) == 3
    assert any("nolock" in address for address in addresses)
    monkeypatch.undo()
    assert len(segment(images, out, Bright()).skipped) == 3


def test_results_are_read_where_nothing_can_be_written(
    images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment(images, out, Bright())
    connect = sqlite3.connect

    def careful(address: Any, **options: Any) -> sqlite3.Connection:
        if "immutable" not in str(address):
            raise sqlite3.OperationalError("unable to open database file")
        return connect(address, **options)

    monkeypatch.setattr(sqlite3, "connect", careful)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with read_ledger(out) as ledger:
        assert len(list(ledger.rows())) == 3
    # what a run has left open is not all in the one file
    (out / "medseg.sqlite-wal").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be opened"), read_ledger(out):
        pass


def test_a_ledger_that_cannot_be_opened_is_not_replaced(
    images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment(images, out, Bright())
    before = (out / LEDGER).read_bytes()

    class Full(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if "journal_mode" in sql:
                raise sqlite3.OperationalError("database or disk is full")
            return super().execute(sql, *values)

    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *given, **more: connect(*given, factory=Full, **more)
    )
    with pytest.raises(InputError, match=r"cannot be opened .*disk is full"):
        segment(images, out, Bright(), overwrite=True)
    assert (out / LEDGER).read_bytes() == before


def test_what_failed_keeps_its_earlier_files(out: Path) -> None:
    with open_ledger(out) as book:
        number = book.number_of(Recipe("otsu", "otsu", "{}"))
        assert book.number_of(Recipe("a copy of otsu", "otsu", "{}")) == number
        book.await_images([("a", "/images/a.tif")])
        done = LedgerRow("a", "/images/a.tif", "done", files=("a.tif",), recipe=number)
        book.finish(done)
        book.await_images([("a", "/images/a.tif")])
        book.finish(LedgerRow("a", "/images/a.tif", "failed", "It is damaged."))
        row = book.row("a")
    assert row is not None
    assert (row.state, row.error) == ("failed", "It is damaged.")
    assert (row.files, row.recipe) == (("a.tif",), number)


# --- what is done again -----------------------------------------------------------


def test_what_changed_is_done_again_and_what_was_touched_is_not(
    images: Path, out: Path
) -> None:
    segment(images, out, Bright())
    before = {name: (out / name).stat().st_mtime_ns for name in label_files(out)}
    save(images / "b.tif", square(15))  # as many bytes as before
    for name in ("a.tif", "b.tif"):
        os.utime(images / name, ns=(10**18, 10**18))
    report = segment(images, out, Bright())
    assert names(report.done) == ["b.tif"]
    assert names(report.skipped) == ["a.tif", "c.tif"]
    assert (out / "a.tif").stat().st_mtime_ns == before["a.tif"]
    # the new date is noted, so that the content is not looked at again
    assert rows(out)["a"].modified == 10**18


def test_content_is_not_read_where_size_and_date_are_as_before(
    images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment(images, out, Bright())

    def read(path: Path) -> str:
        raise AssertionError(path)

    monkeypatch.setattr("napari_medseg.batch.resume.digest", read)
    assert len(segment(images, out, Bright()).skipped) == 3


def test_what_failed_is_tried_again(images: Path, out: Path) -> None:
    whole = (images / "b.tif").read_bytes()
    (images / "b.tif").write_bytes(whole[:50])
    assert names(segment(images, out, Bright()).failed) == ["b.tif"]
    assert names(segment(images, out, Bright()).failed) == ["b.tif"]
    (images / "b.tif").write_bytes(whole)
    report = segment(images, out, Bright())
    assert (names(report.done), report.failed) == (["b.tif"], {})
    assert rows(out)["b"].error == ""


def test_what_failed_and_is_gone_is_forgotten(images: Path, out: Path) -> None:
    (images / "b.tif").write_bytes(b"")
    segment(images, out, Bright())
    (images / "b.tif").unlink()
    (images / "c.tif").unlink()
    segment(images, out, Bright())
    # results whose image is gone are results still
    assert {name: row.state for name, row in rows(out).items()} == {
        "a": "done",
        "c": "done",
    }


def test_an_image_that_changes_while_it_is_read(images: Path, out: Path) -> None:
    class Careless(Bright):
        def predict(self, image):  # type: ignore[no-untyped-def]
            save(images / "a.tif", square(self.seen + 3))
            return super().predict(image)

    (images / "b.tif").unlink()
    (images / "c.tif").unlink()
    report = segment(images, out, Careless())
    ((name, reason),) = report.failed.items()
    assert name.endswith("a.tif")
    assert "changed while it was read" in reason
    assert names(segment(images, out, Bright()).done) == ["a.tif"]


def test_an_image_that_vanishes_before_its_turn(images: Path, out: Path) -> None:
    class Thief(Bright):
        def predict(self, image):  # type: ignore[no-untyped-def]
            with suppress(FileNotFoundError):
                (images / "z.tif").unlink()
            return super().predict(image)

    save_squares(images, 20)
    save(images / "z.tif", square(0))
    report = segment(images, out, Thief())
    ((name, reason),) = report.failed.items()
    assert name.endswith("z.tif")
    assert "no longer there" in reason
    assert len(report.done) == 23


# --- one run at a time ------------------------------------------------------------


@pytest.fixture
def other_run(out: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the ledger of the output folder open."""
    program = (
        "import pathlib, time\n"
        "from napari_medseg.batch.ledger_file import open_ledger\n"
        f"with open_ledger(pathlib.Path({str(out)!r})):\n"
        "    print('open', flush=True)\n"
        "    time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.kill()


def test_a_second_run_is_refused_until_the_first_has_ended(
    images: Path, out: Path, other_run: subprocess.Popen[str]
) -> None:
    for overwrite in (False, True):
        with pytest.raises(InputError, match=r"Another run is writing to .*labels"):
            segment(images, out, Bright(), overwrite=overwrite)
    assert label_files(out) == []
    # a crash leaves no lock behind
    other_run.kill()
    other_run.wait()
    assert len(segment(images, out, Bright()).done) == 3


def test_a_second_run_of_the_same_process_is_refused(images: Path, out: Path) -> None:
    save_squares(images, 30)
    job = segment_files([images], Bright(pause=0.01), out)
    with closing(job):
        while next(job).step == 0:
            pass
        with pytest.raises(InputError, match="Another run is writing"):
            segment(images, out, Bright())
    segment(images, out, Bright())
