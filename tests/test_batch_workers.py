"""Threads, processes and executors: the same results, whatever ends meanwhile."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from bright import (
    STUMBLE,
    Bright,
    halves_in,
    label_files,
    names,
    open_bright,
    open_deadly,
    open_halfway,
    open_nothing,
    same_results,
    save,
    save_noise,
    save_squares,
    segment,
    square,
    write_halves,
)

from napari_medseg._types import FloatArray, InputError, JobError, Prediction, finish
from napari_medseg.batch import BatchSettings, Work, read_ledger, segment_batch, worker
from napari_medseg.batch.halves import clear_halves
from napari_medseg.batch.process import Task, describe, segment_item
from napari_medseg.batch.resume import Folder
from napari_medseg.instances import ObjectConfig
from napari_medseg.io.atomic import temporary_beside

if TYPE_CHECKING:
    from collections.abc import Callable

OBJECTS = BatchSettings(
    "otsu", objects=ObjectConfig(min_size=4), formats=("csv", "coco", "geojson")
)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of three images with a square each."""
    return save_squares(tmp_path / "images")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "labels"


def states(out: Path) -> set[str]:
    with read_ledger(out) as ledger:
        return {row.state for row in ledger.rows()}


# --- in this process --------------------------------------------------------------


def test_the_next_image_is_read_while_one_is_segmented(
    images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = Event()
    read = worker.read_image

    def noted(path: Path) -> Any:
        if path.name == "b.tif":
            second.set()
        return read(path)

    class Waiting(Bright):
        def predict(self, image: FloatArray) -> Prediction:
            assert second.wait(30), "nothing was read meanwhile"
            return super().predict(image)

    monkeypatch.setattr(worker, "read_image", noted)
    assert len(segment(images, out, Waiting()).done) == 3


def test_an_image_is_written_while_the_next_is_segmented(
    images: Path, out: Path
) -> None:
    class Waiting(Bright):
        def predict(self, image: FloatArray) -> Prediction:
            until = time.monotonic() + 30
            while self.seen and not label_files(out):
                assert time.monotonic() < until, "nothing was written meanwhile"
                time.sleep(0.01)
            return super().predict(image)

    assert len(segment(images, out, Waiting()).done) == 3


def test_a_segmenter_is_never_used_twice_at_a_time(images: Path, out: Path) -> None:
    class Single(Bright):
        busy = False

        def predict(self, image: FloatArray) -> Prediction:
            assert not self.busy
            self.busy = True
            time.sleep(0.01)
            self.busy = False
            return super().predict(image)

    save_squares(images, 20)
    report = segment(images, out, Single())
    assert (len(report.done), report.failed) == (23, {})


class Counting(Executor):
    """Runs functions at once, and holds their results back."""

    def __init__(self) -> None:
        self.held: list[tuple[Future[Any], Any]] = []
        self.most = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        future: Future[Any] = Future()
        self.held.append((future, fn(*args, **options)))
        self.most = max(self.most, len(self.held))
        if fn is describe or len(self.held) == 4:
            for each, result in self.held:
                each.set_result(result)
            self.held.clear()
        return future


def test_a_few_images_are_in_work_at_a_time(images: Path, out: Path) -> None:
    save_squares(images, 21)
    executor = Counting()
    report = finish(segment_batch([images], out, OBJECTS, executor=executor, workers=2))
    assert len(report.done) == 24
    assert executor.most == 4


# --- in processes -----------------------------------------------------------------


def test_processes_give_the_same_as_this_process(tmp_path: Path) -> None:
    images = save_noise(tmp_path / "images", 8)
    (images / "bad.tif").write_bytes(b"")
    one, two = tmp_path / "one", tmp_path / "two"
    reports = [
        finish(segment_batch([images], out, OBJECTS, workers=workers))
        for out, workers in ((one, 1), (two, 2))
    ]
    assert same_results(one, two)
    assert reports[0].done == reports[1].done
    assert reports[0].failed == reports[1].failed
    assert names(reports[1].failed) == ["bad.tif"]
    # and each goes on where the other ended
    (two / "03.tif").unlink()
    assert names(finish(segment_batch([images], two, OBJECTS)).done) == ["03.tif"]
    assert same_results(one, two)


def test_the_same_model_gives_the_same_in_processes(tmp_path: Path) -> None:
    images = save_noise(tmp_path / "images", 1)  # so that one process is started
    one, two = tmp_path / "one", tmp_path / "two"
    settings = replace(OBJECTS, model="nano", device="cpu")
    for out, workers in ((one, 1), (two, 2)):
        finish(segment_batch([images], out, settings, workers=workers))
    assert same_results(one, two)


def test_a_model_that_is_not_there_is_said_once(images: Path, out: Path) -> None:
    settings = BatchSettings("otsoo")
    job = segment_batch([images], out, settings, workers=2, opener=open_nothing)
    with pytest.raises(InputError, match="otsoo is not there"):
        finish(job)
    assert not out.exists()


def test_an_image_that_ends_its_process_fails_and_the_others_are_done(
    images: Path, out: Path
) -> None:
    save_squares(images, 5)
    save(images / "002x.tif", np.full((20, 30), STUMBLE, np.uint8))
    settings = BatchSettings("deadly")
    job = segment_batch([images], out, settings, workers=2, opener=open_deadly)
    report = finish(job)
    assert len(report.done) == 8
    ((name, reason),) = report.failed.items()
    assert name.endswith("002x.tif")
    assert name in reason
    assert "ended, most likely for want of memory" in reason
    assert states(out) == {"done", "failed"}


def test_what_a_killed_process_left_half_done_is_cleared(
    images: Path, out: Path
) -> None:
    save(images / "b.tif", np.full((20, 30), STUMBLE, np.uint8))
    settings = BatchSettings(f"halfway {out}", formats=("csv", "geojson"))
    job = segment_batch([images], out, settings, workers=2, opener=open_halfway)
    report = finish(job)
    assert (out.parent / "died").exists()
    assert (len(report.done), report.failed) == (3, {})
    assert halves_in(out) == []


class CutOff(ThreadPoolExecutor):
    """Loses the worker that does ``b``, which goes on writing for a while."""

    def __init__(self) -> None:
        super().__init__(1)
        self.tries = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        if fn is segment_item and args[0].source.name == "b.tif":
            self.tries += 1
            write_halves(args[1].out)
            if self.tries == 1:
                lost: Future[Any] = Future()
                lost.set_exception(BrokenExecutor("cut off"))
                return lost
        return super().submit(fn, *args, **options)


def test_a_worker_that_was_cut_off_and_went_on_leaves_nothing(
    images: Path, out: Path
) -> None:
    foreign = out / ".b.note.part.tif"
    foreign.parent.mkdir()
    foreign.write_bytes(b"of somebody else")
    with CutOff() as executor:
        job = segment_batch([images], out, OBJECTS, executor=executor)
        report = finish(job)
        assert executor.tries == 2
    assert (len(report.done), report.failed) == (3, {})
    assert halves_in(out) == [foreign.name]


def test_what_is_being_written_is_never_cleared(images: Path, out: Path) -> None:
    save(images / "bb.tif", square(2))
    settings = BatchSettings("bright", formats=("csv",))
    folder = Folder(out, settings)
    kept = [temporary_beside(out / name) for name in ("bb.tif", "a.tif", "b.npy")]
    write_halves(out)
    for path in kept:
        path.touch()
    clear_halves(folder, ["b"])
    assert halves_in(out) == sorted(path.name for path in kept)


def test_a_run_of_deaths_is_given_up(
    images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_medseg.batch.loop.DEATHS", 1)
    for name in "abc":
        save(images / f"{name}.tif", np.full((20, 30), STUMBLE, np.uint8))
    settings = BatchSettings("deadly")
    job = segment_batch([images], out, settings, workers=2, opener=open_deadly)
    with pytest.raises(JobError, match="1 images one after the other"):
        finish(job)
    with read_ledger(out) as ledger:
        assert ledger.counts()["failed"] == 1
        assert ledger.counts()["waiting"] == 2


def test_an_executor_that_breaks_ends_the_run_with_a_sentence(
    images: Path, out: Path
) -> None:
    save(images / "b.tif", np.full((20, 30), STUMBLE, np.uint8))
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        job = segment_batch(
            [images],
            out,
            BatchSettings("deadly"),
            executor=executor,
            opener=open_deadly,
        )
        with pytest.raises(JobError, match="the same command goes on"):
            finish(job)
    assert finish(
        segment_batch([images], out, BatchSettings("deadly"), opener=open_bright)
    ).failed


def test_a_stopped_run_ends_its_processes(images: Path, out: Path) -> None:
    save_squares(images, 40)
    before = set(psutil.Process().children(recursive=True))
    settings = BatchSettings("bright 100 0.05")
    job = segment_batch([images], out, settings, workers=2, opener=open_bright)
    while next(job).step == 0:
        pass
    begun = set(psutil.Process().children(recursive=True)) - before
    assert len(begun) >= 2
    job.close()
    assert halves_in(out) == []
    _, alive = psutil.wait_procs(begun, timeout=10)
    # the tracker of shared resources stays as long as this process
    assert all("resource_tracker" in " ".join(each.cmdline()) for each in alive)
    found = label_files(out)
    assert 0 < len([name for name in found if ".part" not in name]) < 43
    job = segment_batch([images], out, settings, opener=open_bright)
    assert len(finish(job).done) > 0
    assert len(label_files(out)) == 43  # and no half file is left


def test_a_run_that_is_killed_at_any_moment_is_taken_up_again(tmp_path: Path) -> None:
    images = save_noise(tmp_path / "images", 60, 80)
    whole, out = tmp_path / "whole", tmp_path / "labels"
    finish(segment_batch([images], whole, OBJECTS))
    command = (
        f"{sys.executable} -m napari_medseg segment images --model otsu --instances "
        "--min-size 4 --export csv,coco,geojson --workers 2 --out labels"
    )
    process = subprocess.Popen(
        command.split(), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    until = time.monotonic() + 120
    while not label_files(out):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.3))
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    # nobody is left who would write into the folder
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive
    with read_ledger(out) as ledger:
        noted = {f"{row.name}.tif" for row in ledger.rows("done")}
    # no half file is taken for done
    for name in noted:
        assert (out / name).stat().st_size > 0
    report = finish(segment_batch([images], out, OBJECTS))
    assert {name.replace(".tif", "") for name in names(report.skipped)} == {
        name.replace(".tif", "") for name in noted
    }
    assert len(report.done) == 60 - len(noted)
    assert same_results(whole, out)


# --- what a worker looks at first -------------------------------------------------


@pytest.fixture
def task(images: Path, out: Path) -> Task:
    segment(images, out, Bright())
    return Task(BatchSettings("bright 100"), out, open_bright)


def tried(task: Task, images: Path, identity: str = "bright 100") -> str:
    work = Work(images / "a.tif", PurePosixPath("a"))
    return segment_item(work, task, identity).error


def test_a_worker_of_another_release_refuses(task: Task, images: Path) -> None:
    assert tried(task, images) == ""
    error = tried(replace(task, release="0.0.0.old"), images)
    assert "0.0.0.old" in error
    assert "same release" in error


def test_a_worker_that_does_not_see_the_folder_refuses(
    task: Task, images: Path, tmp_path: Path
) -> None:
    error = tried(replace(task, out=tmp_path / "elsewhere"), images)
    assert "cannot see" in error
    assert "elsewhere" in error
    assert not (tmp_path / "elsewhere").exists()


def test_a_worker_with_another_model_refuses(task: Task, images: Path) -> None:
    assert "was changed during the run" in tried(task, images, "bright 50")


def test_a_worker_opens_the_segmenter_once(task: Task, images: Path) -> None:
    opened = []

    def counted(settings: BatchSettings) -> Bright:
        opened.append(settings)
        return open_bright(settings)

    other = replace(task, opener=counted)
    assert describe(other).identity == "bright 100"
    for _ in range(3):
        assert tried(other, images) == ""
    assert len(opened) == 1
    # a model file that was replaced is another model
    model = images.parent / "bright"
    model.write_bytes(b"")
    named = replace(other, settings=replace(other.settings, model=str(model)))
    for date in (1, 2):
        os.utime(model, ns=(date, date))
        describe(named)
        describe(named)
    assert len(opened) == 3
