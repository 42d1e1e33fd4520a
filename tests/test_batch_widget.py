"""The form for folders as a user meets it: choose, start, watch, open a result."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from bright import same_results, save_squares
from fake_engine import FakeEngine
from folders import command
from napari.layers import Image, Labels
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import (
    QDesktopServices,
    QDragEnterEvent,
    QDragMoveEvent,
    QDropEvent,
)
from qtpy.QtWidgets import QApplication, QLabel, QLineEdit, QPushButton, QWidget

from napari_medseg._types import JobError, OverwriteError, Progress, RedoError, finish
from napari_medseg.batch import BatchSettings, LedgerRow, read_ledger, segment_batch
from napari_medseg.batch.ledger import Recipe
from napari_medseg.batch.ledger_file import open_ledger
from napari_medseg.instances import ObjectConfig
from napari_medseg.io import tiff
from napari_medseg.io.images import read_annotation
from napari_medseg.widgets import _batch_run
from napari_medseg.widgets._inputs import Inputs, PathLine
from napari_medseg.widgets._jobs import engine_of
from napari_medseg.widgets._ledger_look import COLUMNS, Wish, holds_others, look_at
from napari_medseg.widgets._pace import Pace, how_far, in_words
from napari_medseg.widgets.batch import BatchWidget, proposal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_medseg.widgets._ledger_table import LedgerTable

PATIENCE = 60_000
"""Milliseconds that a test waits for files or the engine at most."""

REPORT = {"done": 3, "skipped": 0, "failed": 0, "notes": [], "report": "report.html"}


class Form:
    """The widget, docked, with its controls by name."""

    def __init__(self, viewer: Any, qtbot: Any, engine: Any = None) -> None:
        self.viewer = viewer
        self.qtbot = qtbot
        self.engine = engine
        self.widget = BatchWidget(viewer, engine)
        self.dock = viewer.window.add_dock_widget(self.widget, name="Folders")

    def control(self, name: str) -> Any:
        found = self.widget.findChild(QWidget, name)
        assert found is not None, name
        return found

    def press(self, name: str) -> None:
        button = self.control(name)
        assert isinstance(button, QPushButton)
        assert button.isEnabled(), name
        button.click()

    def offers(self, name: str) -> bool:
        return not self.control(name).isHidden()

    def says(self, name: str) -> str:
        label = self.control(name)
        assert isinstance(label, QLabel)
        return str(label.text())

    @property
    def told(self) -> str:
        return self.says("told")

    @property
    def table(self) -> LedgerTable:
        found: LedgerTable = self.control("ledger")
        return found

    @property
    def rows(self) -> list[list[str]]:
        model = self.table.model()
        return [
            [model.index(row, column).data() for column in range(len(COLUMNS))]
            for row in range(model.rowCount())
        ]

    @property
    def states(self) -> dict[str, str]:
        return {row[0]: row[1].split(maxsplit=1)[1] for row in self.rows}

    @property
    def task(self) -> Any:
        name, _, task = self.engine.jobs[-1]
        assert name == "batch"
        return task

    @property
    def asked(self) -> dict[str, Any]:
        return dict(self.engine.jobs[-1][1])

    def progress(self, step: int, total: int | None, message: str) -> None:
        figures = {"done": float(step), "failed": 0.0}
        self.task.listener.on_progress(Progress(step, total, message, figures))

    def end(self, **report: Any) -> None:
        self.task.running = False
        self.task.listener.on_done(REPORT | report)

    def fail(self, error: Exception) -> None:
        self.task.running = False
        self.task.listener.on_failed(error)

    def wait(self, until: Callable[[], bool]) -> None:
        self.qtbot.waitUntil(until, timeout=PATIENCE)

    def open(self, name: str) -> None:
        """Double-click on an image."""
        place = [row[0] for row in self.rows].index(name)
        self.table.doubleClicked.emit(self.table.model().index(place, 0))


@pytest.fixture
def viewer(make_napari_viewer_proxy: Callable[[], Any]) -> Any:
    return make_napari_viewer_proxy()


@pytest.fixture
def form(viewer: Any, qtbot: Any) -> Form:
    return Form(viewer, qtbot, FakeEngine())


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of three images with a square each."""
    return save_squares(tmp_path / "images")


def noted(out: Path, rows: Sequence[LedgerRow]) -> None:
    """Write a ledger."""
    with open_ledger(out) as ledger:
        number = ledger.number_of(Recipe("otsu", "otsu", "{}"))
        ledger.await_images((row.name, row.source) for row in rows)
        for row in rows:
            if row.state == "running":
                ledger.start(row.name)
            elif row.state != "waiting":
                ledger.finish(row)
        assert number


MIXED = (
    LedgerRow("img2", "/x/img2.tif", "done", seconds=1.25, objects=12, quality=0.5),
    LedgerRow("img10", "/x/img10.tif", "done", seconds=130.0, objects=1200),
    LedgerRow("img3", "/x/img3.tif", "failed", "/x/img3.tif is empty.", seconds=0.5),
    LedgerRow("img4", "/x/img4.tif", "waiting"),
    LedgerRow("img5", "/x/img5.tif", "running"),
)


# --- what is chosen -----------------------------------------------------------------


def test_a_folder_for_the_results_is_proposed(form: Form, images: Path) -> None:
    form.widget.choose(images)
    assert form.widget.out.path == images.parent / "segmented"
    form.widget.choose(images / "a.tif")
    assert form.widget.out.path == images / "segmented"
    mine = images.parent / "mine"
    form.widget.out.set_path(mine)
    form.widget.choose(images)
    assert form.widget.out.path == mine


def test_the_results_of_other_images_are_not_added_to(tmp_path: Path) -> None:
    for name in ("plate 1", "plate 2"):
        save_squares(tmp_path / name)
    rows = [LedgerRow("a", str(tmp_path / "plate 1" / "a.tif"), "done")]
    noted(tmp_path / "segmented", rows)
    one, two = tmp_path / "plate 1", tmp_path / "plate 2"
    assert proposal((one,)) == tmp_path / "segmented"
    assert proposal((two,)) == tmp_path / "plate 2 segmented"
    assert proposal((tmp_path / "plate*" / "*.tif",)) == tmp_path / "segmented"
    assert holds_others(tmp_path / "segmented", (two,))
    assert not holds_others(tmp_path / "nothing", (two,))


def dropped(line: PathLine, paths: Sequence[Path]) -> None:
    """Drop files onto a line, as a file manager does."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    place, how = QPoint(3, 3), (Qt.DropAction.CopyAction, data)
    held = (Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier)
    for handle, event in (
        (line.dragEnterEvent, QDragEnterEvent(place, *how, *held)),
        (line.dragMoveEvent, QDragMoveEvent(place, *how, *held)),
        (line.dropEvent, QDropEvent(QPointF(place), *how, *held)),
    ):
        event.ignore()
        handle(event)
        assert event.isAccepted()


def test_files_and_folders_are_dropped_onto_the_line(form: Form, images: Path) -> None:
    line = form.control("inputs")
    assert isinstance(line, PathLine)
    dropped(line, [images])
    assert form.widget.inputs.paths == (images,)
    assert form.widget.out.path == images.parent / "segmented"
    files = [images / "a.tif", images / "b.tif"]
    dropped(line, files)
    assert form.widget.inputs.paths == tuple(files)
    assert line.text() == f"2 files in {images}"
    assert "b.tif" in line.toolTip()


def test_what_is_typed_counts(qtbot: Any, images: Path) -> None:
    inputs = Inputs()
    qtbot.addWidget(inputs)
    assert inputs.paths == ()
    inputs.set_paths([images / "a.tif", images / "b.tif"])
    line = inputs.findChild(QLineEdit)
    assert line is not None
    line.setText("~/plate*/*.tif")
    assert inputs.paths == (Path("~/plate*/*.tif").expanduser(),)


def test_nothing_is_begun_before_images_are_chosen(form: Form, images: Path) -> None:
    form.press("start")
    assert form.told == "Choose the images first."
    form.widget.inputs.set_paths([images])
    form.press("start")
    assert form.told == "Choose a folder for the results first."
    assert not form.engine.jobs


def test_the_engine_gets_what_the_form_says(form: Form, images: Path) -> None:
    form.widget.choose(images)
    form.widget.choice.models.choose("otsu")
    form.control("result").setCurrentText("objects")
    form.control("min_size").setValue(40)
    form.control("csv").setChecked(False)
    form.control("geojson").setChecked(True)
    form.control("probabilities").setChecked(True)
    form.press("start")
    asked = form.asked
    settings = asked["settings"]
    assert asked["inputs"] == [str(images)]
    assert asked["out"] == str(images.parent / "segmented")
    assert (asked["workers"], asked["watch"]) == (1, False)
    assert (asked["redo"], asked["overwrite"]) == (False, False)
    assert (settings["model"], settings["formats"]) == ("otsu", ["geojson"])
    assert settings["objects"]["min_size"] == 40
    assert settings["classes"] is None
    assert settings["probabilities"] is True
    json.dumps(asked)


def test_the_copied_line_does_what_the_form_does(
    form: Form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = save_squares(tmp_path / "my images")
    out = tmp_path / "labels"
    form.widget.choose(images, out=out)
    form.widget.choice.models.choose("otsu")
    form.control("min_size").setValue(3)
    form.control("geojson").setChecked(True)
    form.control("workers").setRange(1, 4)
    form.control("workers").setValue(2)
    form.press("Copy as command")
    line = QApplication.clipboard().text()
    assert form.told == f"Copied: {line}"
    form.press("start")
    assert form.asked["command"] == line
    settings = dict(form.asked["settings"])
    captured: dict[str, Any] = {}

    def segment(inputs: Any, place: Any, chosen: Any, **how: Any) -> Any:
        captured.update(inputs=inputs, out=place, settings=chosen, **how)
        raise JobError("that is enough")

    monkeypatch.setattr("napari_medseg.batch.segment_batch", segment)
    words = [word.strip("'\"") for word in shlex.split(line, posix=False)]
    command(*words[1:])
    assert captured["inputs"] == [images]
    assert captured["out"] == out
    assert captured["workers"] == 2
    chosen = captured["settings"]
    wanted = BatchSettings(
        "otsu",
        objects=ObjectConfig(**settings["objects"]),
        formats=tuple(settings["formats"]),
    )
    assert Recipe.of(chosen, "") == Recipe.of(wanted, "")


def test_watching_is_in_the_line_too(form: Form, images: Path) -> None:
    form.widget.choose(images)
    form.control("watch").setChecked(True)
    form.control("probabilities").setChecked(True)
    form.press("Copy as command")
    line = QApplication.clipboard().text()
    assert "--watch" in line and "--probabilities" in line


@pytest.mark.parametrize("name", ["mirrored", "masks"])
def test_what_is_ticked_is_in_settings_and_line(
    form: Form, images: Path, name: str
) -> None:
    form.widget.choose(images)
    form.widget.choice.models.choose("nuclei-fluo")
    form.control(name).setChecked(True)
    form.press("start")
    assert form.asked["settings"][name] is True
    assert f"--{name}" in form.asked["command"]
    form.end()
    form.control(name).setChecked(False)
    form.press("start")
    assert form.asked["settings"][name] is False
    assert f"--{name}" not in form.asked["command"]


def test_channels_are_in_settings_and_line(form: Form, images: Path) -> None:
    form.widget.choose(images)
    form.press("start")
    assert form.asked["settings"]["channels"] == []
    assert "--channels" not in form.asked["command"]
    form.end()
    form.control("channels").setText("2, 0")
    form.press("start")
    assert form.asked["settings"]["channels"] == [2, 0]
    assert "--channels 2,0" in form.asked["command"]
    form.end()
    form.widget.choice.show_settings({"model": "otsu", "channels": [1]}, 1)
    assert form.widget.choice.settings()["channels"] == [1]


def test_a_cluster_takes_the_place_of_processes(form: Form, images: Path) -> None:
    form.widget.choose(images)
    form.control("workers").setRange(1, 4)
    form.control("workers").setValue(2)
    form.press("start")
    assert form.asked["cluster"] is None
    form.end()
    form.control("cluster").setText(" tcp://10.0.0.1:8786 ")
    form.press("start")
    assert form.asked["cluster"] == "tcp://10.0.0.1:8786"
    assert "--cluster tcp://10.0.0.1:8786 " in form.asked["command"]
    assert "--workers" not in form.asked["command"]


def test_every_format_is_offered(form: Form) -> None:
    from napari_medseg.io.exports import FORMATS, has_parquet

    for name in FORMATS:
        if name != "tif":
            box = form.control(name)
            assert FORMATS[name][1] in box.toolTip() or not box.isEnabled()
    assert form.control("parquet").isEnabled() == has_parquet()


# --- a run --------------------------------------------------------------------------


def test_the_run_says_how_far_it_is(
    form: Form, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form.widget.choose(images)
    form.press("start")
    assert not form.control("start").isEnabled()
    assert not form.control("inputs").isEnabled()
    form.task.listener.on_progress(Progress(0, 1000, "loading the model"))
    assert form.says("status") == "loading the model"
    now = [0.0]
    run = form.widget._run
    assert run is not None
    monkeypatch.setattr(run, "_pace", Pace(lambda: now[0]))
    form.progress(3, 1000, "segmenting a.tif")
    now[0] = 84.0
    form.progress(123, 1000, "segmenting b.tif")
    assert form.says("status") == "123 of 1,000, about 10 minutes left"
    form.end(done=990, skipped=3, failed=7, notes=[["Memory was short.", 2]])
    assert form.told == (
        "990 images segmented, 3 were there already, 7 failed. Memory was short. "
        "(2 images)"
    )
    assert form.control("start").isEnabled()
    assert form.control("inputs").isEnabled()


def test_pause_and_continue(form: Form, images: Path) -> None:
    form.widget.choose(images)
    form.press("start")
    form.progress(1, 3, "segmenting a.tif")
    form.press("pause")
    assert form.task.asked == ["pause"]
    assert form.says("status").startswith("Paused.")
    assert form.control("pause").text() == "Continue"
    form.press("pause")
    assert form.task.asked == ["pause", "resume"]
    assert form.control("pause").text() == "Pause"
    form.end()


def test_cancel_and_go_on(form: Form, images: Path) -> None:
    out = images.parent / "segmented"
    form.widget.choose(images)
    form.press("start")
    rows = [
        LedgerRow(name, str(images / f"{name}.tif"), state)
        for name, state in (("a", "done"), ("b", "running"), ("c", "waiting"))
    ]
    noted(out, rows)
    form.wait(lambda: form.states.get("b") == "in work")
    form.press("cancel")
    assert "What is done is kept" in form.told
    form.wait(lambda: form.states["b"] == "waiting")
    assert form.control("start").text() == "Go on"
    form.press("start")
    assert len(form.engine.jobs) == 2
    assert not form.asked["redo"]
    form.end()


def test_watching_ends_in_good_order_and_then_at_once(form: Form, images: Path) -> None:
    form.widget.choose(images)
    form.control("watch").setChecked(True)
    form.press("start")
    assert form.asked["watch"]
    form.progress(2, None, "waiting for images")
    assert form.says("status") == "2 images so far; waiting for images"
    form.press("cancel")
    assert form.task.asked == ["end early"]
    assert "Cancel again" in form.told
    form.press("cancel")
    assert "Cancelled" in form.told


def test_other_settings_are_never_mixed_in_unasked(form: Form, images: Path) -> None:
    form.widget.choose(images)
    form.press("start")
    form.fail(RedoError("x holds labels. Choose another folder, or ask (--redo)."))
    assert form.told == "x holds labels. Choose another folder, or ask."
    assert form.offers("redo") and not form.offers("overwrite")
    assert not form.offers("as before")  # nothing says what they were
    form.press("redo")
    assert form.asked["redo"] and not form.asked["overwrite"]
    assert not form.offers("redo")
    form.end()
    form.press("start")
    assert not form.asked["redo"]
    form.fail(OverwriteError("x/a.tif is there already."))
    assert form.offers("overwrite") and not form.offers("redo")
    form.press("overwrite")
    assert form.asked["overwrite"]
    form.end()


def test_a_run_goes_on_with_the_settings_of_its_folder(
    form: Form, images: Path
) -> None:
    """After a crash nobody remembers where the sliders were."""
    out = images.parent / "segmented"
    config = ObjectConfig(threshold=0.3, min_size=7, neck=0.6)
    settings = BatchSettings("otsu", objects=config, formats=("coco",))
    finish(segment_batch([images], out, settings))
    form.widget.choose(images)
    form.widget.choice.models.choose("nuclei-fluo")
    form.press("start")
    form.fail(RedoError("made by another model"))
    form.press("as before")
    asked = form.asked
    assert asked["settings"]["model"] == "otsu"
    assert asked["settings"]["objects"]["neck"] == 0.6
    assert not asked["redo"]
    assert form.widget.choice.models.model == "otsu"
    assert form.control("threshold").value() == pytest.approx(0.3)
    assert form.control("coco").isChecked() and not form.control("csv").isChecked()
    form.end()


def test_an_engine_that_died_is_told_with_the_way_on(form: Form, images: Path) -> None:
    form.widget.choose(images)
    form.press("start")
    form.fail(JobError("The system ended the computation."))
    assert form.told.startswith("The system ended the computation. What is done is")
    assert form.control("start").isEnabled()
    form.press("start")
    form.fail(JobError("No space. What was done is noted; the same command goes on."))
    assert form.told.count("What") == 1
    assert form.told.endswith("press the button again to go on.")


# --- the table ----------------------------------------------------------------------


def test_an_earlier_run_is_there_as_soon_as_its_folder_is_chosen(
    form: Form, tmp_path: Path
) -> None:
    noted(tmp_path, MIXED)
    assert form.widget.panel.isHidden()
    form.widget.out.set_path(tmp_path)
    form.wait(lambda: len(form.rows) == 5)
    assert not form.widget.panel.isHidden()
    assert [row[0] for row in form.rows] == ["img2", "img3", "img4", "img5", "img10"]
    assert form.rows[0] == ["img2", "✓ done", "12", "1.2", "0.50"]
    assert form.rows[-1][2:4] == ["1,200", "130"]
    # nothing runs, whatever a run that was killed has noted
    assert form.states["img5"] == "waiting"
    assert form.says("counts") == "2 done, 1 failed, 2 waiting"
    index = form.table.model().index(1, 0)
    assert index.data(Qt.ItemDataRole.ToolTipRole) == "/x/img3.tif is empty."
    assert form.control("start").text() == "Go on"
    form.widget.out.set_path(tmp_path / "elsewhere")
    assert form.rows == []
    assert form.control("start").text() == "Start"


def test_the_table_is_filtered_and_sorted(form: Form, tmp_path: Path) -> None:
    noted(tmp_path, MIXED)
    form.widget.out.set_path(tmp_path)
    form.wait(lambda: len(form.rows) == 5)
    box = form.control("shown")
    assert [box.itemText(place) for place in range(4)] == [
        "all (5)",
        "failed (1)",
        "waiting (2)",
        "done (2)",
    ]
    box.setCurrentIndex(1)
    form.wait(lambda: [row[0] for row in form.rows] == ["img3"])
    box.setCurrentIndex(0)
    form.table.sortByColumn(3, Qt.SortOrder.DescendingOrder)
    form.wait(lambda: [row[0] for row in form.rows][:3] == ["img10", "img2", "img3"])
    form.table.sortByColumn(1, Qt.SortOrder.AscendingOrder)
    form.wait(lambda: form.rows[0][0] == "img3")


def test_the_table_follows_the_ledger_and_keeps_the_choice(
    form: Form, tmp_path: Path
) -> None:
    noted(tmp_path, MIXED)
    form.widget.out.set_path(tmp_path)
    form.wait(lambda: len(form.rows) == 5)
    form.table.selectRow(4)
    with open_ledger(tmp_path) as ledger:
        ledger.finish(LedgerRow("img4", "/x/img4.tif", "done", seconds=2.0, objects=3))
        ledger.await_images([("img1", "/x/img1.tif")])
    form.wait(lambda: form.states.get("img4") == "done" and len(form.rows) == 6)
    assert form.rows[0][0] == "img1"
    (chosen,) = form.table.selectionModel().selectedRows()
    assert chosen.data() == "img10"
    with open_ledger(tmp_path) as ledger:
        ledger.forget(["img1", "img2"])
    form.wait(lambda: len(form.rows) == 4)
    (chosen,) = form.table.selectionModel().selectedRows()
    assert chosen.data() == "img10"


def test_columns_of_which_nothing_is_known_are_hidden(
    form: Form, tmp_path: Path
) -> None:
    noted(tmp_path, [LedgerRow("a", "/x/a.tif", "done", seconds=1.0)])
    form.widget.out.set_path(tmp_path)
    form.wait(lambda: len(form.rows) == 1)
    hidden = [name for n, name in enumerate(COLUMNS) if form.table.isColumnHidden(n)]
    assert hidden == ["objects", "quality"]


def test_a_ledger_is_read_again_only_where_it_has_changed(tmp_path: Path) -> None:
    noted(tmp_path, MIXED)
    wish = Wish(tmp_path)
    look = look_at(wish)
    assert look_at(wish, look) is look
    other = look_at(Wish(tmp_path, "done"), look)
    assert other.every is look.every and len(other.rows) == 2
    with open_ledger(tmp_path) as ledger:
        ledger.finish(LedgerRow("img5", "/x/img5.tif", "failed", "it is empty"))
    after = look_at(wish, look)
    assert after.counts["failed"] == 2 and after.open_images == 1


def test_a_ledger_that_cannot_be_read_is_told(form: Form, tmp_path: Path) -> None:
    (tmp_path / "medseg.sqlite").write_bytes(b"no ledger at all" * 100)
    form.widget.out.set_path(tmp_path)
    form.wait(lambda: "cannot be read" in form.says("counts"))
    assert form.rows == []


def test_report_and_folder_are_opened(
    form: Form, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(
        QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile())
    )
    noted(tmp_path, MIXED)
    form.widget.out.set_path(tmp_path)
    form.wait(lambda: form.control("Open folder").isEnabled())
    assert not form.control("Open report").isEnabled()
    (tmp_path / "report.html").write_text("all is well")
    form.wait(lambda: form.control("Open report").isEnabled())
    form.press("Open report")
    form.press("Open folder")
    assert opened == [str(tmp_path / "report.html"), str(tmp_path)]


# --- results as layers --------------------------------------------------------------


@pytest.fixture
def segmented(form: Form, images: Path) -> Path:
    """Choose a folder whose images were segmented, but for a broken one."""
    for name in ("a", "b"):
        image = tifffile.imread(images / f"{name}.tif")
        tifffile.imwrite(
            images / f"{name}.tif",
            image,
            imagej=True,
            resolution=(2, 2),
            metadata={"unit": "um"},
        )
    (images / "broken.tif").write_bytes(b"no image")
    out = images.parent / "segmented"
    settings = BatchSettings("otsu", objects=ObjectConfig(min_size=4))
    finish(segment_batch([images], out, settings))
    with open_ledger(out) as ledger:
        ledger.await_images([("later", str(images / "c.tif"))])
    form.widget.choose(images)
    form.wait(lambda: len(form.rows) == 5)
    return out


def test_a_double_click_opens_the_image_and_its_labels(
    form: Form, segmented: Path
) -> None:
    form.open("a")
    form.wait(lambda: len(form.viewer.layers) == 2)
    image, labels = form.viewer.layers
    assert isinstance(image, Image) and isinstance(labels, Labels)
    assert image.name == "a"
    assert labels.name == "a: otsu objects"
    np.testing.assert_allclose(image.scale, (0.5, 0.5))
    np.testing.assert_allclose(labels.scale, image.scale)
    assert labels.units == image.units
    wanted = read_annotation(segmented / "a.tif").labels
    np.testing.assert_array_equal(labels.data, wanted)
    assert Path(labels.source.path) == segmented / "a.tif"
    assert labels.metadata["result"] == "objects"
    form.open("b")
    form.wait(lambda: "b" in form.viewer.layers)
    assert [layer.name for layer in form.viewer.layers] == ["b", "b: otsu objects"]
    assert form.told == ""


def test_return_opens_a_row_too(form: Form, segmented: Path) -> None:
    form.table.selectRow(1)
    form.qtbot.keyClick(form.table, Qt.Key.Key_Return)
    form.wait(lambda: len(form.viewer.layers) == 2)
    assert form.viewer.layers[0].name == "b"


def test_what_was_drawn_on_is_not_taken_away(form: Form, segmented: Path) -> None:
    form.open("a")
    form.wait(lambda: len(form.viewer.layers) == 2)
    labels = form.viewer.layers[1]
    labels.paint((2, 2), 9)
    form.open("b")
    form.wait(lambda: "b: otsu objects" in form.viewer.layers)
    assert len(form.viewer.layers) == 4
    assert "a: otsu objects was drawn on" in form.told
    labels.paint((3, 3), 9)  # that one is no longer ours
    form.open("c")
    form.wait(lambda: "c: otsu objects" in form.viewer.layers)
    assert len(form.viewer.layers) == 4
    assert "b" not in form.viewer.layers


def test_a_row_that_failed_says_why(form: Form, segmented: Path) -> None:
    form.open("a")
    form.wait(lambda: len(form.viewer.layers) == 2)
    form.open("broken")
    form.wait(lambda: "broken.tif" in form.told)
    assert "Opening" not in form.told
    assert len(form.viewer.layers) == 0
    form.open("later")
    form.wait(lambda: form.told == "later is not segmented yet.")
    assert [layer.name for layer in form.viewer.layers] == ["c"]


def test_an_image_that_is_gone_leaves_its_labels(
    form: Form, segmented: Path, images: Path
) -> None:
    (images / "a.tif").unlink()
    form.open("a")
    form.wait(lambda: len(form.viewer.layers) == 1)
    assert isinstance(form.viewer.layers[0], Labels)
    np.testing.assert_allclose(form.viewer.layers[0].scale, (0.5, 0.5))
    assert "a.tif does not exist" in form.told


def test_classes_have_their_names_and_colours(
    form: Form, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "classes"
    finish(segment_batch([images], out, BatchSettings("otsu")))
    form.widget.choose(images, out=out)
    form.wait(lambda: len(form.rows) == 3)
    form.open("a")
    form.wait(lambda: len(form.viewer.layers) == 2)
    labels = form.viewer.layers[1]
    assert labels.name == "a: otsu"
    assert list(labels.features["class"]) == ["background", "object"]
    np.testing.assert_allclose(
        labels.get_color(1)[:3], np.array([0xE6, 0x9F, 0x00]) / 255, atol=0.01
    )


def test_large_images_stay_on_the_disk(
    form: Form, segmented: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = read_annotation(segmented / "a.tif").labels
    for path in (images / "a.tif", segmented / "a.tif"):
        tifffile.imwrite(path, tifffile.imread(path), rowsperstrip=1)
    monkeypatch.setattr(tiff, "LAZY_BYTES", 10)
    form.open("a")
    form.wait(lambda: len(form.viewer.layers) == 2)
    image, labels = form.viewer.layers
    assert not isinstance(image.data, np.ndarray)
    assert not isinstance(labels.data, np.ndarray)
    assert not labels.editable
    np.testing.assert_array_equal(np.asarray(labels.data[:, :]), wanted)


# --- the form goes, the run stays ---------------------------------------------------


def test_a_run_goes_on_though_the_form_is_closed(
    viewer: Any, qtbot: Any, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(_batch_run, "show_info", said.append)
    form = Form(viewer, qtbot, FakeEngine())
    form.widget.choose(images)
    form.control("min_size").setValue(77)
    form.press("start")
    form.progress(1, 3, "segmenting b.tif")
    viewer.window.remove_dock_widget(form.dock)
    form.widget.deleteLater()
    qtbot.wait(50)
    task = form.task
    assert task.running
    again = Form(viewer, qtbot, form.engine)
    again.widget.showEvent(None)
    assert again.widget.inputs.paths == (images,)
    assert again.control("min_size").value() == 77
    assert not again.control("start").isEnabled()
    assert again.says("status").startswith("1 of 3")
    again.press("pause")
    assert task.asked == ["pause"]
    viewer.window.remove_dock_widget(again.dock)
    again.widget.deleteLater()
    qtbot.wait(50)
    again.end(done=3)
    assert said == [f"{images.parent / 'segmented'}: 3 images segmented."]


def test_a_panel_that_floats_belongs_to_its_viewer(viewer: Any, qtbot: Any) -> None:
    form = Form(viewer, qtbot)
    docked = engine_of(form.widget)
    form.dock.setFloating(True)
    assert engine_of(form.widget) is docked


def test_the_viewer_is_closed_meanwhile(
    make_napari_viewer_proxy: Callable[[], Any], qtbot: Any, images: Path
) -> None:
    viewer = make_napari_viewer_proxy()
    form = Form(viewer, qtbot, FakeEngine())
    form.widget.choose(images)
    form.press("start")
    form.progress(1, 3, "segmenting b.tif")
    viewer.close()
    qtbot.wait(50)
    form.end()


# --- with the engine ----------------------------------------------------------------


def test_the_real_engine_fills_the_folder(
    viewer: Any, qtbot: Any, images: Path
) -> None:
    (images / "broken.tif").write_bytes(b"no image")
    form = Form(viewer, qtbot)
    form.widget.choose(images)
    form.widget.choice.models.choose("otsu")
    form.control("min_size").setValue(4)
    form.press("start")
    form.wait(lambda: form.told.startswith("3 images segmented"))
    assert form.told == "3 images segmented, 1 failed."
    form.wait(lambda: list(form.states.values()).count("done") == 3)
    assert form.states["broken"] == "failed"
    out = images.parent / "segmented"
    assert (out / "objects.csv").is_file()
    with read_ledger(out) as ledger:
        assert ledger.row("a") is not None
    form.wait(lambda: form.control("Open report").isEnabled())
    form.open("b")
    form.wait(lambda: len(viewer.layers) == 2)
    assert viewer.layers[1].data.max() == 1
    form.control("min_size").setValue(9)
    form.press("start")
    form.wait(lambda: form.offers("redo"))
    assert "other settings" in form.told
    form.press("as before")
    form.wait(lambda: form.told.startswith("0 images segmented"))
    assert form.told == "0 images segmented, 3 were there already, 1 failed."
    assert form.control("min_size").value() == 4


@pytest.mark.filterwarnings(
    # what Dask and tornado leave open is not ours
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::DeprecationWarning:distributed",
    "ignore::DeprecationWarning:tornado",
)
def test_a_real_cluster_fills_the_folder(
    viewer: Any, qtbot: Any, images: Path, tmp_path: Path
) -> None:
    distributed = pytest.importorskip("distributed")
    save_squares(images, 12)
    settings = BatchSettings("otsu", objects=ObjectConfig(), formats=("csv",))
    here = tmp_path / "here"
    finish(segment_batch([images], here, settings))
    form = Form(viewer, qtbot)
    form.widget.choose(images)
    form.widget.choice.models.choose("otsu")
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=50,
    ) as cluster:
        form.control("cluster").setText(cluster.scheduler_address)
        form.press("start")
        form.wait(lambda: "segmented" in form.told)
    assert form.told == "15 images segmented."
    assert same_results(here, images.parent / "segmented")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_engine_that_is_killed_loses_nothing(
    viewer: Any, qtbot: Any, images: Path
) -> None:
    save_squares(images, 24)
    form = Form(viewer, qtbot)
    form.widget.choose(images)
    form.widget.choice.models.choose("otsu")
    form.press("start")
    run = form.widget._run
    assert run is not None
    form.wait(lambda: run.progress.metrics.get("done", 0) >= 3)
    pid = engine_of(form.widget).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    form.wait(lambda: form.control("start").isEnabled())
    assert "ended the computation" in form.told
    assert form.told.endswith(_batch_run.KEPT)
    form.wait(lambda: form.control("start").text() == "Go on")
    with read_ledger(images.parent / "segmented") as ledger:
        kept = ledger.counts()["done"]
    assert kept >= 3
    form.press("start")
    form.wait(lambda: "were there already" in form.told)
    told = f"{27 - kept} images segmented, {kept} were there already."
    assert form.told == told


def test_the_viewer_gets_no_torch() -> None:
    code = "import sys, napari_medseg.widgets.batch; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


# --- time -----------------------------------------------------------------------------


def test_time_that_is_left() -> None:
    now = [100.0]
    pace = Pace(lambda: now[0])
    pace.take(50)  # these were there before
    assert pace.left(90) is None
    now[0] = 110.0
    pace.take(60)
    assert pace.left(90) == pytest.approx(30)
    pace.pause()
    now[0] = 1110.0
    pace.resume()
    now[0] = 1120.0
    pace.take(70)
    assert pace.left(90) == pytest.approx(20)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (20, "less than a minute"),
        (70, "about a minute"),
        (95, "about 2 minutes"),
        (3600, "about 60 minutes"),
        (3 * 3600, "about 3 hours"),
        (4 * 86400, "about 4 days"),
    ],
)
def test_time_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
    assert how_far(1, 2000, seconds) == f"1 of 2,000, {words} left"
