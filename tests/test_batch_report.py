"""The report of a run: right, safe whatever images are called, and by itself."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from napari_medseg._types import InputError
from napari_medseg.batch import report
from napari_medseg.batch._parts import THUMBNAIL, part_path
from napari_medseg.batch.ledger import DONE, FAILED, WAITING, LedgerRow
from napari_medseg.batch.report import REPORT, write_report

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MADE: dict[str, Any] = {
    "napari-medseg": "1.2.3",
    "model": "sha256:abcdef",
    "model_name": "nuclei.medseg",
    "classes": ["background", "nucleus"],
    "objects": {"threshold": 0.5},
    "settings": {"objects": {"threshold": 0.5}, "formats": ["csv"], "base": None},
    "command": "napari-medseg segment images --model nuclei.medseg --out labels",
    "started": "2026-01-31T10:00:00+01:00",
    "finished": "2026-01-31T10:12:00+01:00",
    "python": "3.12.1",
    "libraries": {"numpy": "2.1.0"},
    "images": {"done": 1},
    "files": ["objects.csv", "images.csv"],
    "mixed": False,
}

EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "a&lt;b&amp;c",
    "--><b>bold",
    "$title ${script} $",
    "größe 細胞 \u202egnp.exe",
    "line\nbreak\x00",
    "\udcff",
]

VOID = {"meta", "img", "br", "input"}


class Page(HTMLParser):
    """A page that is read: its tags and texts; unbalanced tags are an error."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text("utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[list[str]] = []
        self.cards: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(self.source)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.cells.append([])
        elif tag in ("td", "th"):
            self.cells[-1].append("")
        elif tag == "li":
            self.cards.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" in self._open:
            self.scripts.append(data)
        elif "style" not in self._open:
            self.text += data
        if "td" in self._open or "th" in self._open:
            self.cells[-1][-1] += data
        if "li" in self._open:
            self.cards[-1] += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def done(name: str, quality: float | None = None, **more: Any) -> LedgerRow:
    values: dict[str, Any] = {"seconds": 1.5, "objects": 3, "files": (f"{name}.tif",)}
    return LedgerRow(name, f"/in/{name}", DONE, quality=quality, **(values | more))


def failed(name: str, error: str) -> LedgerRow:
    return LedgerRow(name, f"/in/{name}", FAILED, error)


def page_of(out: Path, rows: Iterable[LedgerRow], **made: Any) -> Page:
    path = write_report(out, iter(list(rows)), MADE | made)
    assert path == out / REPORT
    return Page(path)


def first_column(page: Page) -> list[str]:
    return [row[0] for row in page.cells if row[0] != "Image"]


def test_failures_first_then_the_worst(tmp_path: Path) -> None:
    rows = [
        done("good", 0.95),
        done("unknown"),
        failed("broken", "/in/broken is cut short. Copy it again."),
        done("bad", 0.25, note="Memory ran out."),
        LedgerRow("later", "/in/later", WAITING),
    ]
    page = page_of(tmp_path, rows)
    assert first_column(page) == ["broken", "bad", "good", "unknown"]
    assert page.cells[1] == ["broken", "/in/broken is cut short. Copy it again."]
    assert page.cells[3] == ["bad", "0.25", "3", "1.5", "Memory ran out."]
    assert [card.split("no picture")[1][:3] for card in page.cards] == [
        "bad",
        "goo",
        "unk",
    ]
    figures = re.findall(
        r"(Done|Failed|Not done yet|Objects|Time)(\d[\d.a-z ]*)", page.text
    )
    assert dict(figures) == {
        "Done": "3",
        "Failed": "1",
        "Not done yet": "1",
        "Objects": "9",
        "Time": "12 min",
    }
    assert "lowest predicted quality come first" in page.text


def test_the_median_of_two_lies_between_them(tmp_path: Path) -> None:
    page = page_of(tmp_path, [done("a", 0.2), done("b", 0.9)])
    assert "Median quality0.55" in page.text


def test_without_quality_names_give_the_order(tmp_path: Path) -> None:
    rows = [done(name, objects=None) for name in ("b 10", "b 2", "A 3", "c")]
    page = page_of(tmp_path, rows)
    assert first_column(page) == ["A 3", "b 2", "b 10", "c"]
    assert page.cells[0] == ["Image", "Seconds"]  # and no empty column
    assert "was not estimated" in page.text


def test_how_it_was_made_is_said(tmp_path: Path) -> None:
    page = page_of(tmp_path, [done("a")])
    for words in (
        "nuclei.medseg",
        "sha256:abcdef",
        "napari-medseg 1.2.3",
        "background, nucleus",
        "settings: objects: threshold",
        "library: numpy",
        "2026-01-31 10:12:00",
        "napari-medseg segment images --model nuclei.medseg --out labels",
    ):
        assert words in page.text, words
    links = [each["href"] for each in page.named("a")]
    assert links == ["./a.tif", "./objects.csv", "./images.csv"]
    assert "This folder also holds results" not in page.text
    mixed = page_of(tmp_path, [done("a")], mixed=True)
    assert "This folder also holds results" in mixed.text


def test_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    def called(name: str) -> Page:
        rows = [done(name, 0.5, note=name), failed(name, f"{name} is wrong")]
        made = dict.fromkeys(("command", "model_name", "napari-medseg"), name)
        return page_of(tmp_path, rows, **made, files=[name])

    plain = called("a")
    for evil in EVIL:
        page = called(evil)
        assert [name for name, _ in page.tags] == [name for name, _ in plain.tags]
        assert page.scripts == plain.scripts
        for _, attributes in page.tags:
            assert not [key for key in attributes if key.startswith("on")]
        assert all((each["href"] or "").startswith("./") for each in page.named("a"))
        shown = evil.encode("utf-8", "backslashreplace").decode()
        shown = re.sub("[\x00-\x1f]", "\N{REPLACEMENT CHARACTER}", shown)
        assert first_column(page) == [shown, shown]
        assert page.text.count(shown) >= 6


def test_the_page_needs_nothing_else_and_may_do_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / part_path("a", THUMBNAIL)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"RIFF")
    page = page_of(tmp_path, [done("a", 0.5)])
    policies = [each for each in page.named("meta") if "http-equiv" in each]
    (policy,) = [each["content"] or "" for each in policies]
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert "http:" not in page.source and "https:" not in page.source
    assert not page.named("link") and "url(" not in page.source
    (image,) = page.named("img")
    assert (
        image["src"] == "data:image/webp;base64," + base64.b64encode(b"RIFF").decode()
    )
    assert "prefers-color-scheme: dark" in page.source


def test_ten_thousand_images_make_a_page_of_some_megabytes(tmp_path: Path) -> None:
    rows = [done(f"plate/{number:05d}", number / 10_000) for number in range(10_000)]
    for row in rows[:250]:
        path = tmp_path / part_path(row.name, THUMBNAIL)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    path = write_report(tmp_path, rows, MADE)
    source = path.read_text("utf-8")
    assert source.count("<img") == report.MOST_PICTURES == 200
    assert source.count("<tr>") == 10_001
    assert "The first 200 of 10,000 have a picture." in source
    assert path.stat().st_size < 4_000_000


def test_reports_of_nothing(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path, [], {}))
    assert "0 images" in page.text
    page = page_of(tmp_path, [failed("a", "wrong")])
    assert first_column(page) == ["a"]
    assert not page.cards


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("no folder")
    with pytest.raises(InputError, match=r"report\.html cannot be written"):
        write_report(tmp_path / "out", [], MADE)
