"""Fetching and importing weights, against a server on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from napari_medseg._types import InputError, WeightsError, finish
from napari_medseg.models import importing
from napari_medseg.models import weights as subject
from napari_medseg.models.registry import SAMS, SamEntry
from napari_medseg.models.weights_file import WeightsFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTENT = bytes(range(256)) * 12_000
"""Three megabytes, more than one chunk."""


@dataclass
class Behaviour:
    """What the server does; tests change it between requests."""

    content: bytes = CONTENT
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    kind: str = "application/octet-stream"
    shift: int = 0
    delay: float = 0.0
    asked: list[str | None] = field(default_factory=list)


def _answer(handler: BaseHTTPRequestHandler, behaviour: Behaviour) -> None:
    span = handler.headers.get("Range")
    behaviour.asked.append(span)
    time.sleep(behaviour.delay)
    if behaviour.statuses:
        status = behaviour.statuses.pop(0)
        if status != 200:
            handler.send_error(status)
            return
    start = 0
    if span is not None and behaviour.ranges:
        start = int(span.removeprefix("bytes=").removesuffix("-"))
        if start >= len(behaviour.content):
            handler.send_error(416)
            return
        handler.send_response(206)
        last = len(behaviour.content) - 1
        handler.send_header(
            "Content-Range",
            f"bytes {start + behaviour.shift}-{last}/{len(behaviour.content)}",
        )
    else:
        handler.send_response(200)
    body = behaviour.content[start:]
    handler.send_header("Content-Type", behaviour.kind)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if behaviour.cuts:
        body = body[: behaviour.cuts.pop(0)]
    # a client that was cancelled has hung up
    with contextlib.suppress(ConnectionError):
        handler.wfile.write(body)


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour()


@pytest.fixture
def address(behaviour: Behaviour) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(self, behaviour)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/weights.pth"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAPARI_MEDSEG_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "weights"


def entry_for(url: str, content: bytes = CONTENT) -> SamEntry:
    weights = WeightsFile(
        name="weights.pth",
        url=url,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        licence="CC0-1.0",
        licence_note="Nobody's.",
    )
    return replace(SAMS["vit_b"], weights=weights)


@pytest.fixture
def entry(address: str) -> SamEntry:
    return entry_for(address)


def fetch(entry: SamEntry, attempts: int = 4) -> Path:
    return finish(subject.fetch(entry, attempts=attempts, pause=0.0))


def test_a_whole_download_reports_and_lands(
    entry: SamEntry, folder: Path, behaviour: Behaviour
) -> None:
    job = subject.fetch(entry, pause=0.0)
    reports = []
    while True:
        try:
            reports.append(next(job))
        except StopIteration as done:
            path = done.value
            break
    assert path == folder / "weights.pth"
    assert path.read_bytes() == CONTENT
    assert [item.name for item in folder.iterdir()] == ["weights.pth"]
    loading = [report for report in reports if "Downloading" in report.message]
    assert [report.step for report in loading] == sorted({r.step for r in loading})
    assert loading[-1].step == loading[-1].total == len(CONTENT)
    assert subject.locate(entry) == path == subject.verify(entry)
    assert fetch(entry) == path
    assert behaviour.asked == [None]


def test_a_cut_connection_is_continued(entry: SamEntry, behaviour: Behaviour) -> None:
    behaviour.cuts = [1_500_000, 1_200_000]
    assert fetch(entry).read_bytes() == CONTENT
    assert behaviour.asked[0] is None
    assert len(behaviour.asked) == 3
    starts = [int(re.findall(r"\d+", str(span))[0]) for span in behaviour.asked[1:]]
    assert 0 < starts[0] <= 1_500_000 < starts[1]


def test_a_cancelled_download_continues_next_time(
    entry: SamEntry, folder: Path, behaviour: Behaviour
) -> None:
    job = subject.fetch(entry)
    next(job)
    job.close()
    part = folder / "weights.pth.part"
    had = part.stat().st_size
    assert had and subject.locate(entry) is None
    assert fetch(entry).read_bytes() == CONTENT
    assert behaviour.asked == [None, f"bytes={had}-"]
    assert not part.exists()


def test_a_server_without_ranges_starts_again(
    entry: SamEntry, folder: Path, behaviour: Behaviour
) -> None:
    behaviour.ranges = False
    behaviour.cuts = [1_500_000]
    assert fetch(entry).read_bytes() == CONTENT
    assert len(behaviour.asked) == 2


def test_a_body_that_always_ends_early_is_given_up_and_kept(
    entry: SamEntry, folder: Path, behaviour: Behaviour
) -> None:
    behaviour.ranges = False
    behaviour.cuts = [1_100_000] * 10
    with pytest.raises(WeightsError, match="could not be downloaded") as refused:
        fetch(entry, attempts=3)
    assert "models import FILE" in str(refused.value)
    assert entry.weights.url is not None and entry.weights.url in str(refused.value)
    assert len(behaviour.asked) == 4
    assert [item.name for item in folder.iterdir()] == ["weights.pth.part"]
    assert subject.locate(entry) is None


def test_a_busy_server_is_asked_again(entry: SamEntry, behaviour: Behaviour) -> None:
    behaviour.statuses = [503, 429, 200]
    assert fetch(entry).read_bytes() == CONTENT
    assert len(behaviour.asked) == 3


def test_a_missing_page_is_not_asked_again(
    entry: SamEntry, folder: Path, behaviour: Behaviour
) -> None:
    behaviour.statuses = [404] * 5
    with pytest.raises(WeightsError, match="404"):
        fetch(entry)
    assert len(behaviour.asked) == 1
    assert not list(folder.iterdir())


def test_a_wrong_hash_leaves_no_file(
    entry: SamEntry, folder: Path, behaviour: Behaviour
) -> None:
    behaviour.content = CONTENT[:-1] + b"\0"
    with pytest.raises(WeightsError, match="does not match its published SHA-256"):
        fetch(entry)
    assert not list(folder.iterdir())


def test_a_part_that_was_spoilt_is_fetched_again(
    entry: SamEntry, folder: Path, behaviour: Behaviour
) -> None:
    folder.mkdir()
    (folder / "weights.pth.part").write_bytes(bytes(1000))
    assert fetch(entry).read_bytes() == CONTENT
    assert behaviour.asked == ["bytes=1000-", None]


def test_a_server_that_sends_another_part_is_refused(
    entry: SamEntry, folder: Path, behaviour: Behaviour
) -> None:
    folder.mkdir()
    (folder / "weights.pth.part").write_bytes(CONTENT[:1000])
    behaviour.shift = 7
    with pytest.raises(WeightsError, match="another part"):
        fetch(entry)


def test_a_file_that_became_shorter_is_fetched_from_the_start(
    entry: SamEntry, folder: Path, behaviour: Behaviour
) -> None:
    folder.mkdir()
    (folder / "weights.pth.part").write_bytes(CONTENT[:1000])
    behaviour.statuses = [416, 200]
    assert fetch(entry).read_bytes() == CONTENT
    assert behaviour.asked == ["bytes=1000-", None]


def test_a_silent_server_is_given_up(
    entry: SamEntry, behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_medseg.models import _download

    monkeypatch.setattr(_download, "_TIMEOUT", (1.0, 0.05))
    behaviour.delay = 0.3
    with pytest.raises(WeightsError, match="did not answer in time"):
        fetch(entry, attempts=1)


def test_waiting_between_tries_is_reported(
    entry: SamEntry, behaviour: Behaviour
) -> None:
    behaviour.statuses = [503, 200]
    messages = [report.message for report in subject.fetch(entry, pause=0.01)]
    assert sum("trying again" in message for message in messages) >= 2


def test_a_folder_that_cannot_be_used_is_named(entry: SamEntry, folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match="NAPARI_MEDSEG_WEIGHTS") as refused:
        fetch(entry)
    assert str(folder) in str(refused.value)


def test_a_part_that_cannot_be_written_is_named(entry: SamEntry, folder: Path) -> None:
    (folder / "weights.pth.part").mkdir(parents=True)
    with pytest.raises(WeightsError, match=r"weights\.pth\.part"):
        fetch(entry)


def test_another_process_may_be_first(
    entry: SamEntry, folder: Path, behaviour: Behaviour
) -> None:
    job = subject.fetch(entry)
    for report in job:
        if report.step == report.total and "Checking" in report.message:
            (folder / "weights.pth.part").rename(folder / "weights.pth")
    assert subject.verify(entry) == folder / "weights.pth"


@pytest.mark.parametrize("content", [CONTENT + b"more", CONTENT[:-5], b""])
def test_a_file_of_another_length_is_refused(
    content: bytes, entry: SamEntry, folder: Path, behaviour: Behaviour
) -> None:
    behaviour.content = content
    with pytest.raises(WeightsError, match="in place of 3,072,000"):
        fetch(entry)
    assert not list(folder.iterdir())


def test_a_log_in_page_does_not_destroy_what_is_there(
    entry: SamEntry, folder: Path, behaviour: Behaviour
) -> None:
    folder.mkdir()
    part = folder / "weights.pth.part"
    part.write_bytes(CONTENT[:1000])
    behaviour.kind, behaviour.ranges = "text/html; charset=utf-8", False
    with pytest.raises(WeightsError, match="a web page came"):
        fetch(entry)
    assert part.read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize("length", [len(CONTENT), len(CONTENT) + 5])
def test_a_part_that_is_long_enough_is_checked_or_replaced(
    length: int, entry: SamEntry, folder: Path, behaviour: Behaviour
) -> None:
    folder.mkdir()
    (folder / "weights.pth.part").write_bytes((CONTENT + b"extra")[:length])
    assert fetch(entry).read_bytes() == CONTENT
    assert len(behaviour.asked) == (length > len(CONTENT))


def test_without_a_server_the_sentence_shows_the_way_round(folder: Path) -> None:
    entry = entry_for("http://127.0.0.1:9/weights.pth")
    with pytest.raises(WeightsError, match="no connection to") as refused:
        fetch(entry, attempts=2)
    assert "on another computer from http://127.0.0.1:9/" in str(refused.value)
    assert not list(folder.iterdir())


def test_only_web_addresses_are_fetched(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    with pytest.raises(WeightsError, match="not an http or https address"):
        fetch(entry_for(secret.as_uri()))


def test_too_little_disk_is_said_in_advance(
    entry: SamEntry, behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr(subject.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(WeightsError, match="needs 3 MB, but only 1 MB are free"):
        fetch(entry)
    assert behaviour.asked == []


def test_a_damaged_file_is_found_and_fetched_again(
    entry: SamEntry, folder: Path
) -> None:
    path = fetch(entry)
    path.write_bytes(b"\1" + CONTENT[1:])
    assert subject.locate(entry) == path
    with pytest.raises(WeightsError, match="not the published checkpoint"):
        subject.verify(entry)
    assert fetch(entry).read_bytes() == CONTENT
    path.write_bytes(CONTENT[:9])
    assert subject.locate(entry) is None
    with pytest.raises(WeightsError, match="not the published checkpoint"):
        subject.verify(entry)


def test_absent_weights_say_how_to_get_them() -> None:
    with pytest.raises(WeightsError, match="models fetch vit_l"):
        subject.verify(SAMS["vit_l"])
    with pytest.raises(WeightsError, match="on another computer"):
        subject.find("vit_l")
    with pytest.raises(InputError, match="There is no SAM named"):
        subject.find("vit_x")


def test_bundled_weights_are_never_downloaded() -> None:
    gone = replace(SAMS["nano"].weights, name="none.safetensors")
    entry = replace(SAMS["nano"], weights=gone)
    assert subject.locate(entry) is None
    with pytest.raises(WeightsError, match="install napari-medseg again"):
        fetch(entry)


def test_the_folder_is_the_users_cache_unless_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert subject.weights_folder() == folder
    monkeypatch.delenv("NAPARI_MEDSEG_WEIGHTS")
    assert subject.weights_folder().name == "napari-medseg"
    assert subject.weights_folder().is_absolute()


# --- importing files -------------------------------------------------------------


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> SamEntry:
    """Stand in for ``vit_b`` with a file small enough for a test."""
    entry = entry_for("https://example.org/weights.pth")
    for module in (subject, importing):
        monkeypatch.setattr(module, "SAMS", {**SAMS, "vit_b": entry})
    return entry


def test_an_official_file_is_recognised_whatever_it_is_called(
    official: SamEntry, tmp_path: Path, folder: Path
) -> None:
    download = tmp_path / "download (1).bin"
    download.write_bytes(CONTENT)
    copy = importing.import_file(download)
    assert copy == folder / "weights.pth" == subject.verify(official)
    assert importing.import_file(copy, "vit_b") == copy
    with pytest.raises(WeightsError, match="is the checkpoint of vit_b, not of vit_l"):
        importing.import_file(download, "vit_l")


def test_a_file_that_is_not_the_official_one_is_refused(
    official: SamEntry, tmp_path: Path, folder: Path
) -> None:
    damaged = tmp_path / "sam_vit_b_01ec64.pth"
    damaged.write_bytes(b"\1" + CONTENT[1:])
    with pytest.raises(WeightsError, match="not the published checkpoint of vit_b"):
        importing.import_file(damaged, "vit_b")
    with pytest.raises(WeightsError, match="damaged"):
        importing.import_file(damaged)
    with pytest.raises(WeightsError, match="does not exist"):
        importing.import_file(tmp_path / "none.pth")
    assert not folder.exists()


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    torch = pytest.importorskip("torch")
    from napari_medseg.models.sam import build_sam

    with torch.device("meta"):
        shapes = build_sam("vit_b").state_dict()
    path: Path = tmp_path / "worms.pth"
    light = {k: torch.zeros(()).expand(v.shape) for k, v in shapes.items()}
    torch.save({"model": light}, path)
    return path


def test_a_tuned_checkpoint_is_imported_under_its_name(
    tuned: Path, folder: Path
) -> None:
    copy = importing.import_file(tuned)
    assert copy == folder / "imported" / "worms.pth"
    assert subject.imported() == {"worms": copy}
    assert subject.find("worms") == copy
    assert importing.import_file(tuned) == copy
    assert subject.here()[-1] == "worms"
    assert "vit_b" not in subject.here()
    other = tuned.with_name("other.pt")
    other.write_bytes(tuned.read_bytes() + b"\0")
    assert importing.import_file(other, "my-model.v2").name == "my-model.v2.pt"
    with pytest.raises(InputError, match="already"):
        importing.import_file(other, "worms")
    assert importing.import_file(other, "worms", replace=True).suffix == ".pt"
    assert list(subject.imported()) == ["my-model.v2", "worms"]


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "a\\b", "", ".hidden", "C:x", "x" * 200]
)
def test_names_never_become_paths(name: str, tuned: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="cannot be the name"):
        importing.import_file(tuned, name)
    assert not folder.exists()
