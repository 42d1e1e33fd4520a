"""The report of a run: one HTML page that needs no other file and no network."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from datetime import datetime
from html import escape
from importlib.resources import files
from statistics import median
from string import Template
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from napari_medseg.batch._parts import THUMBNAIL, read_part
from napari_medseg.batch.inputs import readable
from napari_medseg.batch.ledger import DONE, FAILED
from napari_medseg.io.atomic import atomic_path, disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from napari_medseg.batch.ledger import LedgerRow

REPORT = "report.html"
"""Name of the page in the output folder."""

MOST_PICTURES = 200
"""Images that are shown with a picture; the page has some megabytes then."""

_CONTROL = re.compile("[\x00-\x1f\x7f]+")

_WORDS = {
    "napari-medseg": "napari-medseg",
    "model_name": "model",
    "model": "identity of the model",
    "classes": "classes",
    "quality": "predicted quality",
    "started": "started",
    "finished": "finished",
    "settings": "settings",
    "python": "Python",
    "libraries": "library",
}
"""What is said of how results were made, and in which words."""


def write_report(out: Path, rows: Iterable[LedgerRow], made: Mapping[str, Any]) -> Path:
    """Write the report of a run.

    It says what failed and why, shows the images with the lowest predicted quality
    first, and how everything was made.

    Parameters
    ----------
    out : Path
        Output folder.
    rows : iterable of LedgerRow
        What became of each image.
    made : mapping
        The provenance of the run. Of its keys, ``command`` is how to run it again,
        ``files`` are the files for all images, ``settings`` those of the run.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    InputError
        The disk refuses.
    """
    images = sorted(rows, key=_order)
    states = Counter(row.state for row in images)
    done = [row for row in images if row.state == DONE]
    failed = [row for row in images if row.state == FAILED]
    script = _data("page.js")
    page = Template(_data("page.html")).substitute(
        policy=_text(_policy(script)),
        title=_text(f"Segmentation of {_images(len(images))} in {out.name}"),
        subtitle=_subtitle(made),
        style=_data("page.css"),
        script=script,
        figures="\n".join(_figures(images, states, made)),
        sections="\n".join(
            [
                *_failures(failed),
                *_pictures(out, done),
                *_table(done),
                *_files(made),
                *_origin(made),
            ]
        ),
    )
    path = out / REPORT
    with disk_errors(path), atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    return path


def _data(name: str) -> str:
    """Return a file that pages are made of."""
    return files("napari_medseg.batch").joinpath("_page", name).read_text("utf-8")


def _policy(script: str) -> str:
    """Return what a browser may do with the page: show it, and run its own script."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )


def _order(row: LedgerRow) -> tuple[bool, float, list[tuple[int, str]], str]:
    """Return what images are sorted by: quality where known, then name."""
    quality = 0.0 if row.quality is None else row.quality
    return row.quality is None, quality, _natural(row.name), row.name


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that puts ``a2`` before ``a10``."""
    pieces = re.split(r"([0-9]+)", name.casefold())
    return [(int(each), "") if each.isdecimal() else (-1, each) for each in pieces]


def _text(value: object) -> str:
    """Return text that HTML shows as it is, whatever it holds."""
    return escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", readable(str(value))))


def _images(count: int) -> str:
    """Return a number of images in words."""
    return "1 image" if count == 1 else f"{count:,} images"


def _name(name: str) -> str:
    """Return a name for HTML; its direction of writing stays its own."""
    return f"<bdi>{_text(name)}</bdi>"


def _link(file: str, words: str) -> str:
    """Return a link to a file beside the page."""
    return f'<a href="{_text("./" + quote(readable(file)))}">{words}</a>'


def _subtitle(made: Mapping[str, Any]) -> str:
    """Return by what the images were segmented, and when."""
    said = [f"Model {_name(str(made['model_name']))}"] if "model_name" in made else []
    said.append(f"napari-medseg {_text(made.get('napari-medseg', ''))}".strip())
    if "finished" in made:
        said.append(_text(_readable_time(str(made["finished"]))))
    return ", ".join(said)


def _figures(
    images: Sequence[LedgerRow], states: Mapping[str, int], made: Mapping[str, Any]
) -> Iterator[str]:
    """Give the figures at the top."""
    yield _figure("Done", f"{states[DONE]:,}")
    yield _figure("Failed", f"{states[FAILED]:,}", bad=states[FAILED] > 0)
    left = len(images) - states[DONE] - states[FAILED]
    if left:
        yield _figure("Not done yet", f"{left:,}")
    done = [row for row in images if row.state == DONE]
    counts = [row.objects for row in done if row.objects is not None]
    if counts:
        yield _figure("Objects", f"{sum(counts):,}")
    qualities = [row.quality for row in done if row.quality is not None]
    if qualities:
        yield _figure("Lowest quality", f"{min(qualities):.2f}")
        yield _figure("Median quality", f"{median(qualities):.2f}")
    wall = _seconds(made)
    if wall is not None:
        yield _figure("Time", _duration(wall))
    seconds = [row.seconds for row in done if row.seconds is not None]
    if seconds:
        yield _figure("Time per image", _duration(sum(seconds) / len(seconds)))


def _figure(words: str, value: str, *, bad: bool = False) -> str:
    """Return one figure."""
    mark = ' class="bad"' if bad else ""
    return f"<div><dt>{words}</dt><dd{mark}>{value}</dd></div>"


def _seconds(made: Mapping[str, Any]) -> float | None:
    """Return how long the run took."""
    try:
        start, end = (
            datetime.fromisoformat(str(made[key])) for key in ("started", "finished")
        )
        return (end - start).total_seconds()
    except (KeyError, ValueError, TypeError):
        return None


def _duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _failures(failed: Sequence[LedgerRow]) -> Iterator[str]:
    """Give the images that could not be segmented, with the reasons."""
    if not failed:
        return
    yield f"<section><h2>{_images(len(failed))} failed</h2>"
    yield "<p>The others are not affected. Run the same command again once these are "
    yield "mended: what is done is kept.</p>"
    yield '<div class="wide"><table><thead><tr><th>Image</th><th>What is wrong</th>'
    yield "</tr></thead><tbody>"
    for row in failed:
        yield f"<tr><td>{_name(row.name)}</td><td>{_text(row.error)}</td></tr>"
    yield "</tbody></table></div></section>"


def _pictures(out: Path, done: Sequence[LedgerRow]) -> Iterator[str]:
    """Give the first images with a picture each."""
    if not done:
        return
    shown = done[:MOST_PICTURES]
    if done[0].quality is None:
        words = "The images"
        order = (
            "The quality of these results was not estimated, so the images are in the "
            "order of their names."
        )
    else:
        words = "To look at first"
        order = "The images with the lowest predicted quality come first."
    if len(done) > len(shown):
        order += f" The first {len(shown):,} of {len(done):,} have a picture."
    yield f'<section><h2>{words}</h2><p class="quiet">{order}</p><ul class="cards">'
    for row in shown:
        yield f'<li><div class="picture">{_picture(out, row)}</div>{_caption(row)}</li>'
    yield "</ul></section>"


def _picture(out: Path, row: LedgerRow) -> str:
    """Return the picture of an image."""
    picture = read_part(out, row.name, THUMBNAIL)
    if picture is None:
        return "no picture"
    code = base64.b64encode(picture).decode()
    return f'<img alt="" src="data:image/webp;base64,{code}">'


def _caption(row: LedgerRow) -> str:
    """Return what is said below a picture."""
    said = []
    if row.quality is not None:
        said.append(f"quality {row.quality:.2f}")
    if row.objects is not None:
        said.append("1 object" if row.objects == 1 else f"{row.objects:,} objects")
    if row.note:
        said.append(_text(row.note))
    more = f'<br><span class="quiet">{", ".join(said)}</span>' if said else ""
    return f"{_name(row.name)}{more}"


def _table(done: Sequence[LedgerRow]) -> Iterator[str]:
    """Give all images in a table; columns that would be empty are left out."""
    if not done:
        return
    columns = [
        column
        for column in ("quality", "objects", "seconds", "note")
        if any(getattr(row, column) not in (None, "") for row in done)
    ]
    yield "<section><h2>All results</h2>"
    yield '<div class="wide"><table class="sortable"><thead><tr><th>Image</th>'
    for column in columns:
        mark = "" if column == "note" else ' class="number"'
        yield f"<th{mark}>{column.capitalize()}</th>"
    yield "</tr></thead><tbody>"
    for row in done:
        name = _name(row.name)
        words = _link(row.files[0], name) if row.files else name
        cells = "".join(_cell(row, column) for column in columns)
        yield f"<tr><td>{words}</td>{cells}</tr>"
    yield "</tbody></table></div></section>"


def _cell(row: LedgerRow, column: str) -> str:
    """Return one cell of the table."""
    value = getattr(row, column)
    if column == "note":
        return f"<td>{_text(value)}</td>"
    if value is None:
        return '<td class="number" data-value=""></td>'
    shown = {"quality": "{:.2f}", "objects": "{:,}", "seconds": "{:.1f}"}[column]
    words = shown.format(value)
    if column == "quality":
        width = round(100 * min(max(value, 0.0), 1.0))
        bar = f'<span class="meter"><span style="width:{width}%"></span></span>'
        words = bar + words
    return f'<td class="number" data-value="{value:.6g}">{words}</td>'


def _files(made: Mapping[str, Any]) -> Iterator[str]:
    """Give the files for all images together."""
    names = [str(name) for name in made.get("files", ())]
    if names:
        links = ", ".join(_link(name, _text(name)) for name in names)
        yield f"<section><h2>Tables and other files</h2><p>{links}</p></section>"


def _origin(made: Mapping[str, Any]) -> Iterator[str]:
    """Give how the results were made, and how to make them again."""
    yield "<section><h2>How this was made</h2>"
    if made.get("mixed"):
        yield '<p class="bad">This folder also holds results that were made by another '
        yield "model or other settings.</p>"
    facts = {words: made[key] for key, words in _WORDS.items() if key in made}
    yield '<dl class="made">'
    for words, value in _flat(facts):
        yield f"<dt>{_text(words)}</dt><dd>{_text(value)}</dd>"
    yield "</dl>"
    yield "<h2>Run it again</h2>"
    yield "<p>The same run goes on where it ended: what is done is kept, and what "
    yield "failed, is new or was changed is done.</p>"
    if made.get("command"):
        yield f"<pre>{_text(made['command'])}</pre>"
    yield "</section>"


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Give names and values of nested settings, one below the other."""
    for key, value in values.items():
        words = f"{before}{key}".replace("_", " ")
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{words}: ")
        elif isinstance(value, (list, tuple)):
            yield words, ", ".join(map(str, value)) or "none"
        elif isinstance(value, bool):
            yield words, "yes" if value else "no"
        else:
            shown = "none" if value in (None, "", {}) else str(value)
            yield words, _readable_time(shown)


def _readable_time(text: str) -> str:
    """Return a date and time with a blank between them; other text as it is."""
    return re.sub(r"^(\d{4}-\d\d-\d\d)T(\d\d:)", r"\1 \2", text)
