"""The compute process: jobs come back, whatever happens to them or to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from engine_process import COMMAND

from napari_medseg._types import InputError, JobError
from napari_medseg.engine import Engine, Lane, Task
from napari_medseg.engine.channel import INLINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_medseg._types import MedsegError, Progress

WAIT = 60.0
"""Seconds a machine that is busy elsewhere may need; nothing is timed by it."""


class Recorder:
    """A listener that remembers, and lets the test wait for the end."""

    def __init__(self) -> None:
        self.progress: list[Progress] = []
        self.end: str = ""
        self.result: Any = None
        self.error: MedsegError | None = None
        self.ends = 0
        self._ended = threading.Event()
        self._moved = threading.Event()

    def on_progress(self, progress: Progress) -> None:
        self.progress.append(progress)
        if progress.metrics:
            self._moved.set()

    def on_done(self, result: Any) -> None:
        self.result = result
        self._over("done")

    def on_failed(self, error: MedsegError) -> None:
        self.error = error
        self._over("failed")

    def on_cancelled(self) -> None:
        self._over("cancelled")

    def _over(self, how: str) -> None:
        self.end, self.ends = how, self.ends + 1
        self._ended.set()

    def wait(self) -> str:
        assert self._ended.wait(WAIT), "the job did not end"
        return self.end

    def wait_for_a_step(self) -> None:
        assert self._moved.wait(WAIT), "the job did not begin"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(COMMAND)
    yield engine
    engine.close()


def run(engine: Engine, name: str, **arguments: Any) -> Recorder:
    recorder = Recorder()
    engine.submit(name, arguments, recorder)
    recorder.wait()
    return recorder


def test_progress_and_result_come_back(engine: Engine) -> None:
    recorder = run(engine, "count", steps=5)
    assert recorder.end == "done"
    assert recorder.result == [0, 1, 2, 3, 4]
    steps = [item.step for item in recorder.progress if item.metrics]
    assert steps == [0, 1, 2, 3, 4]
    assert recorder.progress[-1].metrics == {"loss": 0.2}


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float32", "complex64"])
@pytest.mark.parametrize("shape", [(0, 3), (7, 5), (3, 200, 150)])
def test_arrays_cross_unchanged(
    engine: Engine, dtype: str, shape: tuple[int, ...]
) -> None:
    array = (np.arange(np.prod(shape)).reshape(shape) % 7).astype(dtype)
    result = run(engine, "double", array=array).result["array"]
    assert result.shape == shape
    np.testing.assert_array_equal(result, array * 2)


def test_an_array_with_gaps_crosses_shared_memory(engine: Engine) -> None:
    array = np.arange(400 * 400, dtype=np.float32).reshape(400, 400)[::2, ::-1]
    assert array.nbytes > INLINE_BYTES
    recorder = run(engine, "double", array=array, note="a", parts=[1, None, {"b": 0.5}])
    np.testing.assert_array_equal(recorder.result["array"], array * 2)
    recorder.result["array"][0] = 0  # the receiver may write on what is its own
    assert recorder.result["note"] == "a"
    assert recorder.result["parts"] == [1, None, {"b": 0.5}]
    assert recorder.progress[-1].preview is not None


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="looks where Linux keeps it")
def test_shared_memory_is_given_back(engine: Engine) -> None:
    before = set(os.listdir("/dev/shm"))
    for _ in range(5):
        run(engine, "double", array=np.ones((300, 300)))
    # each side says in its own time what it has copied
    until = time.monotonic() + WAIT
    while not set(os.listdir("/dev/shm")) <= before:
        assert time.monotonic() < until, "shared memory is left"
        time.sleep(0.02)


def test_two_sides_that_both_send_much_do_not_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shared memory has room for small arrays only, as in some containers."""
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from napari_medseg.engine import channel
channel._fits = lambda count: count < 1 << 20
from engine_process import JOBS, main
main(JOBS)
"""
    monkeypatch.setattr(
        "napari_medseg.engine.channel._fits", lambda count: count < 1 << 20
    )
    here = str(Path(__file__).parent)
    engine = Engine((sys.executable, "-c", code, here))
    sizes = [300_000, 8_000_000] * 10
    recorders = [Recorder() for _ in sizes]
    for size, recorder in zip(sizes, recorders, strict=True):
        engine.submit("double", {"array": np.zeros(size, np.uint8)}, recorder)
    assert {recorder.wait() for recorder in recorders} == {"done"}
    engine.close()


def test_files_where_napari_was_started_are_not_taken_for_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("uuid", "random", "pandas", "torch"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a script of the user')")
    monkeypatch.chdir(tmp_path)
    engine = Engine()
    image = np.zeros((1, 32, 32), np.float32)
    found = run(
        engine,
        "segment",
        key="a",
        image=image,
        model="otsu",
        device="cpu",
        mirrored=False,
        objects=None,
    )
    engine.close()
    assert found.end == "done", found.error


def test_bytes_cross(engine: Engine) -> None:
    assert (
        run(engine, "double", file=b"\0\xff medseg").result["file"] == b"\0\xff medseg"
    )


def test_what_cannot_be_sent_is_refused(engine: Engine) -> None:
    recorder = run(engine, "double", thing=object())
    assert isinstance(recorder.error, JobError)
    assert run(engine, "count", steps=1).end == "done"


def test_things_are_kept_between_jobs(engine: Engine) -> None:
    pid = engine.pid
    run(engine, "keep", thing="embedding")
    assert run(engine, "keep", thing="other").result == "embedding"
    assert engine.pid == pid


def test_an_error_of_the_users_input_comes_as_it_is(engine: Engine) -> None:
    recorder = run(engine, "refuse")
    assert isinstance(recorder.error, InputError)
    assert str(recorder.error) == "cells.tif is empty; choose another file."


def test_a_defect_is_told_in_a_sentence(engine: Engine) -> None:
    recorder = run(engine, "stumble")
    assert isinstance(recorder.error, JobError)
    assert "Please report it" in str(recorder.error)
    assert run(engine, "count", steps=1).end == "done"


def test_cancel_takes_effect_at_the_next_step(engine: Engine) -> None:
    pid = engine.pid
    recorder = Recorder()
    task = engine.submit("count", {"steps": 10**6, "seconds": 0.01}, recorder)
    recorder.wait_for_a_step()
    task.cancel()
    assert recorder.wait() == "cancelled"
    assert not task.running
    assert run(engine, "count", steps=1).end == "done"
    assert engine.pid == pid, "a job that listens needs no force"


def test_end_early_gives_what_there_is(engine: Engine) -> None:
    recorder = Recorder()
    task = engine.submit("count", {"steps": 10**6, "seconds": 0.01}, recorder)
    recorder.wait_for_a_step()
    task.end_early()
    assert recorder.wait() == "done"
    assert 0 < len(recorder.result) < 10**6


def test_pause_lets_others_go_on_and_resume_continues(engine: Engine) -> None:
    recorder = Recorder()
    task = engine.submit("count", {"steps": 300, "seconds": 0.01}, recorder)
    recorder.wait_for_a_step()
    task.pause()
    run(engine, "count", steps=1)
    reached = len(recorder.progress)
    run(engine, "count", steps=20, seconds=0.01)
    assert len(recorder.progress) == reached
    task.resume()
    assert recorder.wait() == "done"
    assert recorder.result == list(range(300))


def test_an_urgent_job_goes_between_the_steps_of_another(engine: Engine) -> None:
    slow, quick = Recorder(), Recorder()
    engine.submit("count", {"steps": 400, "seconds": 0.01}, slow)
    slow.wait_for_a_step()
    engine.submit("count", {"steps": 3}, quick, urgent=True)
    assert quick.wait() == "done"
    assert slow.end == ""
    assert slow.wait() == "done"


def test_a_job_beside_the_others_holds_none_up(engine: Engine, tmp_path: Path) -> None:
    """Others answer while it is in the middle of a step that ends only after them."""
    beside, flag = Recorder(), tmp_path / "flag"
    task = engine.submit("wait", {"flag": str(flag)}, beside)
    beside.wait_for_a_step()
    assert run(engine, "count", steps=200).end == "done"
    assert beside.end == ""
    task.pause()
    flag.touch()
    run(engine, "count", steps=1)
    task.resume()
    assert beside.wait() == "done"
    assert beside.result == "it came"


def test_of_a_lane_only_the_latest_counts(engine: Engine) -> None:
    lane, first, last = Lane(engine), Recorder(), Recorder()
    lane.submit("count", {"steps": 10**6, "seconds": 0.01}, first)
    first.wait_for_a_step()
    lane.submit("count", {"steps": 2}, last)
    told = len(first.progress)
    assert last.wait() == "done"
    run(engine, "count", steps=1)
    assert first.ends == 0
    assert len(first.progress) == told


@pytest.fixture
def own() -> Iterator[Engine]:
    """Return an engine that the test may break."""
    engine = Engine(COMMAND)
    yield engine
    engine.close()


def hang(engine: Engine, folder: Path) -> tuple[Task, Recorder]:
    """Submit a job that hangs, and wait until it does."""
    recorder, flag = Recorder(), folder / "hanging"
    task = engine.submit("hang", {"flag": str(flag)}, recorder)
    wait_for(flag)
    return task, recorder


def wait_for(flag: Path) -> None:
    """Wait until a job has left a file."""
    until = time.monotonic() + WAIT
    while not flag.exists():
        assert time.monotonic() < until, "the job did not begin"
        time.sleep(0.02)


def test_force_ends_a_job_that_hangs(
    own: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_medseg.engine.client.FORCE_SECONDS", 0.3)
    task, hanging = hang(own, tmp_path)
    beside = Recorder()
    own.submit("count", {"steps": 5}, beside)
    task.cancel()
    assert hanging.wait() == "cancelled"
    assert beside.wait() == "failed"
    assert "Start it again" in str(beside.error)
    assert run(own, "count", steps=2).result == [0, 1]


def linger(engine: Engine, folder: Path) -> tuple[Recorder, Path]:
    """Submit a job whose one step lasts until a file is there; wait till it begins."""
    recorder, begun, flag = Recorder(), folder / "begun", folder / "flag"
    engine.submit("linger", {"begun": str(begun), "flag": str(flag)}, recorder)
    wait_for(begun)
    return recorder, flag


def test_clicks_that_overtake_each_other_never_end_what_others_do(
    own: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait behind a step that takes longer than force would."""
    monkeypatch.setattr("napari_medseg.engine.client.FORCE_SECONDS", 0.1)
    slow, flag = linger(own, tmp_path)
    lane, last = Lane(own), Recorder()
    for _ in range(3):
        lane.submit("count", {"steps": 1}, Recorder(), urgent=True)
    lane.submit("count", {"steps": 2}, last, urgent=True)
    time.sleep(0.5)
    flag.touch()
    assert slow.wait() == "done"
    assert last.wait() == "done"


def test_a_step_that_was_overtaken_is_let_end(
    own: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_medseg.engine.client.FORCE_SECONDS", 0.1)
    lane, last = Lane(own), Recorder()
    begun, flag = tmp_path / "begun", tmp_path / "flag"
    lane.submit("linger", {"begun": str(begun), "flag": str(flag)}, Recorder())
    wait_for(begun)
    pid = own.pid
    lane.submit("count", {"steps": 2}, last)
    time.sleep(0.5)
    flag.touch()
    assert last.wait() == "done"
    assert own.pid == pid


def test_a_job_that_waits_is_cancelled_at_once_and_without_force(
    own: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_medseg.engine.client.FORCE_SECONDS", 0.1)
    slow, flag = linger(own, tmp_path)
    waiting, left = Recorder(), tmp_path / "never"
    task = own.submit("hang", {"flag": str(left)}, waiting)
    task.cancel()
    assert waiting.wait() == "cancelled"
    assert slow.end == ""
    time.sleep(0.5)
    flag.touch()
    assert slow.wait() == "done"
    assert run(own, "count", steps=1).end == "done"
    assert not left.exists(), "what was cancelled is never begun"
    assert waiting.ends == 1


def test_a_job_between_two_steps_is_cancelled_without_force(
    own: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_medseg.engine.client.FORCE_SECONDS", 0.1)
    counting = Recorder()
    task = own.submit("count", {"steps": 10**6, "seconds": 0.01}, counting)
    counting.wait_for_a_step()
    slow, flag = linger(own, tmp_path)
    task.cancel()
    time.sleep(0.5)
    flag.touch()
    assert slow.wait() == "done"
    assert counting.wait() == "cancelled"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_killed_engine_is_told_and_the_next_job_works(
    own: Engine, tmp_path: Path
) -> None:
    _, recorder = hang(own, tmp_path)
    pid = own.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert recorder.wait() == "failed"
    assert isinstance(recorder.error, JobError)
    assert "memory ran out" in str(recorder.error)
    assert run(own, "count", steps=2).result == [0, 1]
    assert own.pid != pid


def test_a_crash_is_told_with_the_last_words(own: Engine) -> None:
    recorder = run(own, "die")
    assert recorder.end == "failed"
    assert "exit code 3" in str(recorder.error)
    assert "the driver fell over" in str(recorder.error)


def test_closing_cancels_and_leaves_no_process(own: Engine, tmp_path: Path) -> None:
    _, recorder = hang(own, tmp_path)
    pid = own.pid
    assert pid is not None
    own.close()
    assert recorder.wait() == "cancelled"
    assert not psutil.pid_exists(pid)
    assert recorder.ends == 1


def test_two_viewers_have_two_engines(engine: Engine, own: Engine) -> None:
    run(engine, "count", steps=1)
    run(own, "count", steps=1)
    assert engine.pid != own.pid


def test_an_engine_that_cannot_start_is_told() -> None:
    for command in (("no-such-program-of-medseg",), (sys.executable, "-c", "1 / 0")):
        engine = Engine(command)
        recorder = run(engine, "count", steps=1)
        assert isinstance(recorder.error, JobError)
        assert "cannot be started" in str(recorder.error)
        engine.close()


def test_it_ends_when_its_viewer_crashes(tmp_path: Path) -> None:
    """The viewer is killed in the middle of a step that takes a minute."""
    code = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from engine_process import COMMAND
from napari_medseg.engine import Engine
from test_engine import hang
engine = Engine(COMMAND)
hang(engine, Path(sys.argv[2]))
print(engine.pid, flush=True)
time.sleep(100)
"""
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as viewer:
        assert viewer.stdout is not None
        pid = int(viewer.stdout.readline())
        assert psutil.pid_exists(pid)
        viewer.kill()
    until = time.monotonic() + WAIT
    while psutil.pid_exists(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid)


def test_the_viewers_side_needs_neither_torch_nor_qt() -> None:
    code = "import sys, napari_medseg.engine; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"torch", "qtpy", "napari"} & set(done.stdout.split())
