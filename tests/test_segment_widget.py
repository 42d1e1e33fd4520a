"""The Segment form as a user meets it: click, wait, look at the layers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import tifffile
from fake_engine import FakeEngine
from napari.utils import progress
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QFileDialog,
    QLabel,
    QMessageBox,
    QPushButton,
    QWidget,
)
from scipy import ndimage

from napari_medseg._types import InputError, JobError, default_classes, finish
from napari_medseg.engine.exporting import export
from napari_medseg.engine.jobs import Context
from napari_medseg.engine.measuring import measure
from napari_medseg.inference import open_segmenter
from napari_medseg.instances import ClassConfig, ObjectConfig, labels_of
from napari_medseg.io.images import read_annotation, read_image
from napari_medseg.widgets import _in_file
from napari_medseg.widgets._file_layers import add_image_layers
from napari_medseg.widgets.segment import SegmentWidget

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class BrokenStoreError(Exception):
    """What no reader of ours raises."""


class Form:
    """The widget with its controls by name."""

    def __init__(self, widget: SegmentWidget, engine: Any) -> None:
        self.widget = widget
        self.engine = engine

    def press(self, name: str) -> None:
        button = self.widget.findChild(QPushButton, name)
        assert button is not None
        button.click()

    def choose(self, name: str, text: str) -> None:
        box = self.widget.findChild(QComboBox, name)
        assert box is not None
        assert box.findText(text) >= 0
        box.setCurrentText(text)

    def control(self, name: str) -> Any:
        found = self.widget.findChild(QWidget, name)
        assert found is not None
        return found

    def copied(self, qtbot: Any) -> str:
        """Return the line for the terminal, once it is there."""
        QApplication.clipboard().clear()
        self.press("copy")
        qtbot.waitUntil(lambda: bool(QApplication.clipboard().text()))
        return str(QApplication.clipboard().text())

    def measure(self) -> None:
        """Answer the oldest job, which asks for measurements."""
        name, arguments, task = self.engine.jobs.pop(0)
        assert name == "measure"
        task.running = False
        task.listener.on_done(finish(measure(arguments, Context())))

    @property
    def told(self) -> str:
        label = self.widget.findChild(QLabel, "told")
        assert label is not None
        return str(label.text())


@pytest.fixture
def viewer(make_napari_viewer_proxy: Callable[[], Any]) -> Any:
    return make_napari_viewer_proxy()


def docked(viewer: Any, engine: Any = None) -> Form:
    engine = engine or FakeEngine()
    widget = SegmentWidget(viewer, engine)
    viewer.window.add_dock_widget(widget)
    widget.reset_choices()
    return Form(widget, engine)


def squares(*stack: int) -> np.ndarray:
    image = np.zeros((*stack, 8, 9), np.float32)
    image[..., 2:5, 3:7] = 1
    return image


def test_a_slice_becomes_labels_over_the_image(viewer: Any) -> None:
    image = viewer.add_image(
        squares(4),
        scale=(2, 0.5, 0.5),
        translate=(1, 2, 3),
        units=("um",) * 3,
        axis_labels=("z", "y", "x"),
    )
    form = docked(viewer)
    viewer.dims.set_current_step(0, 2)
    form.press("segment")
    form.engine.answer()
    labels = viewer.layers[-1]
    assert labels.data.shape == (4, 8, 9)
    np.testing.assert_array_equal(labels.data[2], squares())
    assert not labels.data[[0, 1, 3]].any()
    np.testing.assert_allclose(labels.scale, image.scale)
    np.testing.assert_allclose(labels.translate, image.translate)
    assert labels.units == image.units
    assert labels.axis_labels == image.axis_labels == ("z", "y", "x")
    assert labels.metadata["classes"] == ["background", "object"]
    assert form.told == "Done."


def test_labels_lie_where_an_image_was_moved_to(viewer: Any) -> None:
    image = viewer.add_image(squares(), scale=(0.5, 0.25), rotate=30, shear=[0.3])
    image.affine = [[0.9, 0.2, 100], [-0.1, 1.1, 200], [0, 0, 1]]
    form = docked(viewer)
    form.press("segment")
    form.engine.answer()
    where = image.data_to_world((5, 7))
    np.testing.assert_allclose(viewer.layers[-1].data_to_world((5, 7)), where)


def test_all_slices(viewer: Any) -> None:
    viewer.add_image(squares(2, 3))
    form = docked(viewer)
    form.choose("scope", "all slices")
    form.press("segment")
    for _ in range(6):
        form.engine.answer()
    np.testing.assert_array_equal(viewer.layers[-1].data, squares(2, 3))
    assert len(viewer.layers) == 2


def test_only_the_region_in_view(viewer: Any) -> None:
    image = viewer.add_image(squares(2))
    form = docked(viewer)
    viewer.dims.set_current_step(0, 1)
    # napari says so of what the canvas shows
    image.corner_pixels = np.array([[1, 2, 4], [1, 6, 8]])
    form.choose("scope", "the region in view")
    form.press("segment")
    _, arguments, _ = form.engine.jobs[-1]
    np.testing.assert_array_equal(arguments["image"], squares()[None, 2:7, 4:9])
    form.engine.answer()
    found = viewer.layers[-1].data
    assert not found[0].any()
    np.testing.assert_array_equal(found[1, 2:7, 4:9], squares()[2:7, 4:9])
    assert found[1].sum() == squares()[2:7, 4:9].sum()


def test_long_work_is_in_the_activity_dock(viewer: Any) -> None:
    before = set(progress._all_instances)
    viewer.add_image(squares())
    form = docked(viewer)
    form.press("segment")
    assert len(progress._all_instances - before) == 1
    form.engine.answer()
    assert not progress._all_instances - before


def test_colours_and_integers_arrive_as_floats(viewer: Any) -> None:
    viewer.add_image(np.full((8, 9, 4), 200, np.uint8), rgb=True)
    form = docked(viewer)
    form.press("segment")
    _, arguments, _ = form.engine.jobs[0]
    assert arguments["image"].shape == (3, 8, 9)
    assert arguments["image"].dtype == np.float32
    assert (arguments["image"] == 200).all()


def test_selected_layers_one_labels_layer_each(viewer: Any) -> None:
    first = viewer.add_image(squares(2), name="first")
    viewer.add_image(squares(), name="other")
    last = viewer.add_image(squares(), name="last", scale=(2, 2))
    viewer.add_labels(np.zeros((8, 9), int), name="drawn")
    form = docked(viewer)
    form.choose("scope", "selected layers")
    viewer.layers.selection = {viewer.layers["drawn"]}
    form.press("segment")
    assert "Select image layers" in form.told
    viewer.layers.selection = {last, first, viewer.layers["drawn"]}
    form.press("segment")
    for _ in range(3):
        form.engine.answer()
    assert form.told == "Done."
    made = [layer for layer in viewer.layers if ": " in layer.name]
    assert [layer.name.split(":")[0] for layer in made] == ["first", "last"]
    np.testing.assert_array_equal(made[0].data, squares(2))
    np.testing.assert_array_equal(made[1].data, squares())
    np.testing.assert_allclose(made[1].scale[-2:], (2, 2))


def test_a_bad_layer_does_not_stop_the_others(viewer: Any, qtbot: Any) -> None:
    disk = {"there": True}

    def read(block: np.ndarray) -> np.ndarray:
        if not disk["there"]:
            raise BrokenStoreError("the disk is gone")
        return block

    good = viewer.add_image(squares(), name="good")
    lost = da.map_blocks(read, da.from_array(squares()), meta=squares())
    viewer.add_image(lost, name="lost", contrast_limits=(0, 1), visible=False)
    wrong = viewer.add_image(squares(2), name="wrong")
    fine = viewer.add_image(squares(), name="fine")
    form = docked(viewer)
    form.choose("scope", "selected layers")
    viewer.layers.selection = set(viewer.layers)
    disk["there"] = False
    form.press("segment")
    form.engine.answer()
    qtbot.waitUntil(lambda: bool(form.engine.jobs))  # it is read in a thread
    task = form.engine.jobs.pop(0)[2]
    task.listener.on_failed(InputError("It has too few channels."))
    form.engine.answer()
    assert not form.engine.jobs
    assert "2 of 4 layers failed" in form.told
    assert "lost cannot be read: the disk is gone" in form.told
    assert "wrong: It has too few channels." in form.told
    made = [layer.name.split(":")[0] for layer in viewer.layers if ": " in layer.name]
    assert made == [good.name, fine.name]
    # what went wrong is still there when the others are measured
    qtbot.waitUntil(lambda: bool(form.engine.jobs), timeout=20_000)
    while form.engine.jobs:
        form.measure()
    assert "2 of 4 layers failed" in form.told
    assert "Measured" in form.told
    assert wrong in viewer.layers


def slow_layer(viewer: Any) -> threading.Event:
    """Add an image that cannot be read before the event is set."""
    going_on = threading.Event()

    def wait(block: np.ndarray) -> np.ndarray:
        assert going_on.wait(20)
        return block

    lazy = da.map_blocks(wait, da.from_array(squares()), meta=squares())
    viewer.add_image(lazy, contrast_limits=(0, 1), visible=False)
    return going_on


def test_nothing_waits_for_an_image_that_is_read(viewer: Any, qtbot: Any) -> None:
    going_on = slow_layer(viewer)
    form = docked(viewer)
    form.press("segment")
    assert not form.engine.jobs
    going_on.set()
    qtbot.waitUntil(lambda: bool(form.engine.jobs))
    form.engine.answer()
    np.testing.assert_array_equal(viewer.layers[-1].data, squares())


def test_cancel_while_an_image_is_read(viewer: Any, qtbot: Any) -> None:
    going_on = slow_layer(viewer)
    form = docked(viewer)
    form.press("segment")
    form.press("cancel")
    assert form.told == "Cancelled."
    going_on.set()
    qtbot.wait(100)
    assert not form.engine.jobs
    form.press("segment")
    qtbot.waitUntil(lambda: bool(form.engine.jobs))


def test_sliders_of_classes(viewer: Any, qtbot: Any) -> None:
    viewer.add_image(squares())
    form = docked(viewer)
    assert not form.control("split").isVisibleTo(form.widget)
    form.press("segment")
    usual = {"threshold": 0.5, "smoothing": 0.0, "min_size": 0}
    assert form.engine.jobs[0][1]["classes"] == usual
    assert form.engine.jobs[0][1]["objects"] is None
    form.engine.answer()
    form.control("min_size").setValue(30)
    qtbot.waitUntil(lambda: bool(form.engine.jobs))
    name, arguments, _ = form.engine.jobs[0]
    assert name == "relabel"
    assert arguments["classes"] == {**usual, "min_size": 30}
    form.engine.answer()
    assert (viewer.layers[-1].data == 7).all()
    # objects have settings of their own, and their own layer
    form.choose("result", "objects")
    assert form.control("split").isVisibleTo(form.widget)
    assert form.control("min_size").value() == 16
    assert form.engine.jobs[-1][1]["objects"]["min_size"] == 16
    form.engine.answer()
    assert len(viewer.layers) == 3
    assert viewer.layers[-1].metadata["result"] == "objects"
    form.choose("result", "classes")
    assert form.control("min_size").value() == 30


def test_a_slider_leaves_what_was_drawn_by_hand(viewer: Any, qtbot: Any) -> None:
    viewer.add_image(squares(2))
    form = docked(viewer)
    form.choose("scope", "all slices")
    form.press("segment")
    form.engine.answer()
    form.engine.answer()
    drawn = viewer.layers[-1]
    drawn.brush_size = 1
    drawn.paint((1, 7, 8), 3)
    before = drawn.data.copy()
    for value in (0.6, 0.7):
        form.control("threshold").setValue(value)
        qtbot.waitUntil(lambda: bool(form.engine.jobs))
        form.engine.answer()
        form.engine.answer()
        assert len(viewer.layers) == 3, "one more, which the next slider changes"
    np.testing.assert_array_equal(drawn.data, before)
    assert (viewer.layers[-1].data == 7).all()


def test_a_slider_moved_meanwhile_counts(viewer: Any, qtbot: Any) -> None:
    viewer.add_image(squares())
    form = docked(viewer)
    form.press("segment")
    form.control("threshold").setValue(0.8)
    qtbot.wait(100)
    form.engine.answer()
    name, arguments, _ = form.engine.jobs[0]
    assert name == "relabel"
    assert arguments["classes"]["threshold"] == 0.8


def test_probabilities_that_are_gone_are_made_again(viewer: Any, qtbot: Any) -> None:
    viewer.add_image(squares(2))
    form = docked(viewer)
    form.choose("scope", "all slices")
    form.press("segment")
    form.engine.answer()
    form.engine.answer()
    form.control("threshold").setValue(0.6)
    qtbot.waitUntil(lambda: bool(form.engine.jobs))
    task = form.engine.jobs.pop(0)[2]
    task.listener.on_failed(JobError("The probabilities are no longer there."))
    name, arguments, _ = form.engine.jobs[0]
    assert name == "segment"
    assert arguments["classes"]["threshold"] == 0.6
    viewer.layers[-1].data[...] = 0
    form.engine.answer()
    np.testing.assert_array_equal(viewer.layers[-1].data[0], squares())
    assert form.engine.jobs[0][0] == "relabel"


def test_a_late_answer_of_an_older_slider_is_dropped(viewer: Any, qtbot: Any) -> None:
    viewer.add_image(squares())
    form = docked(viewer)
    form.press("segment")
    form.engine.answer()
    form.control("threshold").setValue(0.6)
    qtbot.waitUntil(lambda: bool(form.engine.jobs))
    form.engine.jobs.pop(0)[2].listener.on_failed(JobError("gone"))
    late = form.engine.jobs.pop(0)
    form.control("threshold").setValue(0.7)
    qtbot.waitUntil(lambda: bool(form.engine.jobs))
    form.engine.answer()
    assert (viewer.layers[-1].data == 7).all()
    form.engine.jobs.insert(0, late)
    form.engine.answer()
    assert (viewer.layers[-1].data == 7).all()


def test_sliders_relabel_what_is_there(viewer: Any, qtbot: Any) -> None:
    viewer.add_image(squares())
    form = docked(viewer)
    form.choose("result", "objects")
    form.press("segment")
    assert form.engine.jobs[0][1]["objects"]["split"] == "watershed"
    form.engine.answer()
    sliders = form.widget.findChild(object, "threshold")
    sliders.setValue(0.7)
    qtbot.waitUntil(lambda: bool(form.engine.jobs))
    name, arguments, _ = form.engine.jobs[0]
    assert name == "relabel"
    assert arguments["objects"]["threshold"] == pytest.approx(0.7)
    form.engine.answer()
    assert (viewer.layers[-1].data == 7).all()
    assert len(viewer.layers) == 2


def test_without_an_image(viewer: Any) -> None:
    form = docked(viewer)
    form.press("segment")
    assert "no image" in form.told
    assert not form.engine.jobs


def test_the_image_is_deleted_meanwhile(viewer: Any) -> None:
    viewer.add_image(squares())
    form = docked(viewer)
    form.press("segment")
    viewer.layers.clear()
    form.engine.answer()
    assert not len(viewer.layers)
    form.press("segment")
    assert "no image" in form.told


def test_the_result_is_deleted_meanwhile(viewer: Any) -> None:
    viewer.add_image(squares(2))
    form = docked(viewer)
    form.choose("scope", "all slices")
    form.press("segment")
    form.engine.answer()
    viewer.layers.pop()
    form.engine.answer()
    assert form.told == "Done."


def test_cancel(viewer: Any) -> None:
    viewer.add_image(squares())
    form = docked(viewer)
    form.press("segment")
    form.press("cancel")
    assert form.told == "Cancelled."
    assert len(viewer.layers) == 1
    form.press("segment")
    form.engine.jobs.pop(0)
    form.engine.answer()
    assert len(viewer.layers) == 2


def test_an_error_is_shown_and_the_form_works_again(viewer: Any) -> None:
    viewer.add_image(squares())
    form = docked(viewer)
    form.press("segment")
    form.engine.jobs.pop(0)[2].listener.on_failed(InputError("cells.tif is empty."))
    assert form.told == "cells.tif is empty."
    form.press("segment")
    form.engine.answer()
    assert form.told == "Done."


def test_a_file_that_is_no_model(viewer: Any, tmp_path: Any) -> None:
    bad = tmp_path / "bad.medseg"
    bad.write_bytes(b"nothing")
    form = docked(viewer)
    form.widget.models.open(bad)
    assert "bad.medseg" in form.told


def test_every_segmenter_has_a_line(viewer: Any) -> None:
    form = docked(viewer)
    box = form.widget.findChild(QComboBox, "model")
    titles = [box.itemText(index) for index in range(box.count())]
    assert "Fluorescence nuclei" in titles
    assert "Otsu threshold, bright objects" in titles
    assert "SAM everything: nano" in titles
    assert "SAM everything: vit_b" not in titles
    assert all(box.itemData(index, 3) for index in range(box.count()))


def test_the_real_engine_gives_what_the_core_gives(viewer: Any, qtbot: Any) -> None:
    image = np.random.default_rng(0).random((40, 50)).astype(np.float32)
    viewer.add_image(image)
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.reset_choices()
    widget.models.choose("otsu")
    form = Form(widget, None)
    form.press("segment")
    qtbot.waitUntil(lambda: form.told == "Done.", timeout=120_000)
    wanted = open_segmenter("otsu").predict(image[None]).labels
    np.testing.assert_array_equal(viewer.layers[-1].data, wanted)


def test_no_torch_in_the_process_of_the_viewer() -> None:
    code = "import sys, napari_medseg.widgets.segment; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_the_form_is_closed_meanwhile(viewer: Any, qtbot: Any) -> None:
    viewer.add_image(squares())
    form = docked(viewer)
    form.press("segment")
    viewer.window.remove_dock_widget("all")
    form.widget.deleteLater()
    qtbot.wait(50)
    form.engine.answer()
    qtbot.wait(50)
    assert len(viewer.layers) == 1


def test_objects_are_numbered_through_and_measured(viewer: Any, qtbot: Any) -> None:
    viewer.add_image(squares(3))
    form = docked(viewer)
    form.choose("scope", "all slices")
    form.choose("result", "objects")
    form.press("segment")
    for _ in range(3):
        form.engine.answer()
    labels = viewer.layers[-1]
    assert [labels.data[index].max() for index in range(3)] == [1, 2, 3]
    qtbot.waitUntil(lambda: bool(form.engine.jobs), timeout=20_000)
    for number in range(3):
        assert form.engine.jobs[0][1]["labels"].max() == number + 1
        form.measure()
    assert list(labels.features["index"]) == [1, 2, 3]
    assert list(labels.features["area_px"]) == [12, 12, 12]
    assert list(labels.features["mean_intensity_0"]) == [1, 1, 1]
    assert set(labels.features["class"]) == {"object"}


def test_objects_of_several_classes(viewer: Any, qtbot: Any, tmp_path: Path) -> None:
    viewer.add_image(squares(2), name="cells")
    form = docked(viewer)
    form.choose("scope", "all slices")
    form.choose("result", "objects")
    form.press("segment")
    labels = np.zeros((8, 9), np.int32)
    labels[1:3, 1:3], labels[5:7, 5:7] = 1, 2
    classes = [asdict(each) for each in default_classes(3)]
    for kinds in ([2, 1], [1, 0]):
        task = form.engine.jobs.pop(0)[2]
        task.running = False
        answer = {"labels": labels, "kinds": kinds, "classes": classes, "note": ""}
        task.listener.on_done(answer)
    qtbot.waitUntil(lambda: bool(form.engine.jobs), timeout=20_000)
    form.measure()
    form.measure()
    layer = viewer.layers[-1]
    assert list(layer.features["index"]) == [1, 2, 3, 4]
    assert list(layer.features["class"]) == ["class 2", "class 1", "class 1", ""]
    form.widget.export(tmp_path / "cells.geojson", "geojson")
    written(form)
    found = json.loads((tmp_path / "cells.geojson").read_text())["features"]
    told = [each["properties"].get("classification", {}) for each in found]
    assert [each.get("name") for each in told] == [
        "class 2",
        "class 1",
        "class 1",
        None,
    ]
    assert told[1]["color"] == [0xE6, 0x9F, 0x00]


def test_classes_are_measured_under_their_names(viewer: Any, qtbot: Any) -> None:
    viewer.add_image(squares(), scale=(0.5, 0.5), units=("um", "um"))
    form = docked(viewer)
    form.press("segment")
    form.engine.answer()
    labels = viewer.layers[-1]
    assert list(labels.features["class"]) == ["background", "object"]
    qtbot.waitUntil(lambda: bool(form.engine.jobs), timeout=20_000)
    form.measure()
    back, row = labels.features.to_dict("records")
    assert (back["index"], back["class"], back["area_px"]) == (0, "background", 60)
    assert (row["index"], row["class"], row["unit"]) == (1, "object", "micrometer")
    assert row["area"] == 3
    assert row["share"] == pytest.approx(12 / 72)
    assert form.told == "Measured 1 class; see the layer's features table."


def written(form: Form) -> None:
    """Answer the oldest job, which asks for a file."""
    name, arguments, task = form.engine.jobs.pop(0)
    assert name == "export"
    task.running = False
    try:
        task.listener.on_done(finish(export(arguments, Context())))
    except InputError as error:
        task.listener.on_failed(error)


def segmented(viewer: Any, *stack: int) -> Form:
    axes = len(stack) + 2
    viewer.add_image(
        squares(*stack), name="cells", scale=(0.5,) * axes, units=("um",) * axes
    )
    form = docked(viewer)
    form.choose("scope", "all slices")
    form.press("segment")
    while form.engine.jobs:
        form.engine.answer()
    return form


def test_the_result_is_saved_and_read_back(viewer: Any, tmp_path: Path) -> None:
    form = segmented(viewer, 3)
    path = tmp_path / "cells labels.tif"
    form.widget.save(path)
    viewer.layers[-1].data[...] = 9  # the file has a copy
    written(form)
    assert form.told == f"Saved cells labels.tif in {tmp_path}."
    found = read_annotation(path)
    np.testing.assert_array_equal(found.labels, squares(3))
    assert found.scale == {"Z": 0.5, "Y": 0.5, "X": 0.5}
    assert set(found.units.values()) == {"µm"}


def test_nothing_to_save(viewer: Any, tmp_path: Path) -> None:
    form = docked(viewer)
    form.widget.save(tmp_path / "a.tif")
    assert "no labels" in form.told
    form.press("save")
    assert "no labels" in form.told
    assert not form.engine.jobs


def test_a_file_that_cannot_be_written_is_told(viewer: Any, tmp_path: Path) -> None:
    form = segmented(viewer)
    (tmp_path / "file").write_text("")
    form.widget.export(tmp_path / "file" / "cells.csv", "csv")
    written(form)
    assert "cannot be written" in form.told
    form.widget.export(tmp_path / "cells.txt", "csv")
    written(form)
    assert "must end in" in form.told


def test_the_dialog_suggests_a_name_and_asks_before_replacing(
    viewer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = segmented(viewer)
    asked: list[str] = []
    answers = [QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes]

    def choose(parent: Any, title: str, suggested: str, *_: Any, **__: Any) -> Any:
        asked.append(suggested)
        return str(tmp_path / "cells"), ""

    def question(parent: Any, title: str, text: str) -> Any:
        asked.append(text)
        return answers.pop(0)

    monkeypatch.setattr(QFileDialog, "getSaveFileName", choose)
    monkeypatch.setattr(QMessageBox, "question", question)
    form.press("save")
    title = form.widget.models.title
    assert asked == [f"cells {title}.tif"]
    written(form)
    assert (tmp_path / "cells.tif").exists()
    form.press("save")
    assert "cells.tif exists" in asked[-1]
    assert not form.engine.jobs
    form.press("save")
    assert [name for name, *_ in form.engine.jobs] == ["export"]


def test_export_offers_every_format_in_words(
    viewer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = segmented(viewer)
    menu = form.control("export").menu()
    actions = {action.objectName(): action for action in menu.actions()}
    assert {"csv", "geojson", "roi", "coco", "ome-zarr"} <= set(actions)
    assert "for QuPath" in actions["geojson"].text()
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *_, **__: (str(tmp_path / "out"), "")
    )
    actions["geojson"].trigger()
    written(form)
    assert (tmp_path / "out.geojson").exists()
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: ("", ""))
    actions["csv"].trigger()
    assert not form.engine.jobs


def test_several_results_go_into_a_folder(
    viewer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/b", "a?b", "c"):
        viewer.add_image(squares(), name=name)
    form = docked(viewer)
    form.choose("scope", "selected layers")
    viewer.layers.selection = set(viewer.layers)
    form.press("segment")
    while form.engine.jobs:
        form.engine.answer()
    title = form.widget.models.title
    (tmp_path / f"c {title}.tif").write_text("mine")
    asked: list[str] = []

    def question(parent: Any, heading: str, text: str) -> Any:
        asked.append(text)
        return QMessageBox.StandardButton.Yes

    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    monkeypatch.setattr(QMessageBox, "question", question)
    form.press("save")
    assert len(asked) == 1
    for _ in range(3):
        written(form)
    assert {path.name for path in tmp_path.glob("*.tif")} == {
        f"a_b {title}.tif",
        f"a_b {title} 2.tif",
        f"c {title}.tif",
    }


def test_the_copied_line_has_the_settings(
    viewer: Any, qtbot: Any, tmp_path: Path
) -> None:
    paths = [tmp_path / "a.tif", tmp_path / "b.tif"]
    form = docked(viewer)
    viewer.add_image(squares(), name="no file")
    for path in paths:
        tifffile.imwrite(path, squares())
        viewer.open(path, plugin="napari")
    form.choose("scope", "selected layers")
    viewer.layers.selection = set(viewer.layers)
    form.press("copy")
    assert "not opened from a file" in form.told
    viewer.layers.selection = set(viewer.layers[1:])
    line = form.copied(qtbot)
    assert line.count(".tif") == 2
    assert "--threshold" not in line
    form.control("threshold").setValue(0.7)
    line = form.copied(qtbot)
    assert "--threshold 0.7" in line
    assert "--instances" not in line


def test_a_line_that_would_give_other_labels_is_refused(
    viewer: Any, qtbot: Any, tmp_path: Path
) -> None:
    """Another image, pages that the command takes for channels, two of these."""
    path = tmp_path / "changed.tif"
    tifffile.imwrite(path, squares())
    (changed,) = viewer.open(path, plugin="napari")
    changed.data = 1 - changed.data
    path = tmp_path / "channels.tif"
    data = np.stack([squares(), 1 - squares()])
    tifffile.imwrite(path, data, ome=True, metadata={"axes": "CYX"})
    both = add_image_layers(viewer, read_image(path))
    path = tmp_path / "pages.tif"
    shown = np.random.default_rng(0).integers(0, 255, (3, 40, 50), np.uint8)
    tifffile.imwrite(path, shown, photometric="minisblack")
    assert read_image(path).axes == "CYX"
    (pages,) = viewer.open(path, plugin="napari")
    form = docked(viewer)
    form.choose("scope", "selected layers")
    for layers, told in (
        ({changed}, "no longer what changed.tif holds"),
        ({pages}, "no longer what pages.tif holds"),
        (set(both), "different channels"),
    ):
        viewer.layers.selection = layers
        form.press("copy")
        qtbot.waitUntil(lambda told=told: told in form.told)


def test_a_channel_of_its_file_can_be_copied(
    viewer: Any, qtbot: Any, tmp_path: Path
) -> None:
    data = np.stack([squares(), 1 - squares()])
    path = tmp_path / "channels.tif"
    tifffile.imwrite(path, data, ome=True, metadata={"axes": "CYX"})
    _, second = add_image_layers(viewer, read_image(path))
    assert second.name == "channels: channel 1"
    form = docked(viewer)
    form.choose("scope", "selected layers")
    viewer.layers.selection = {second}
    assert "--channels 1" in form.copied(qtbot)


def test_a_stack_and_colours_can_be_copied(
    viewer: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_in_file, "TILE", 5)  # as of a slide
    tifffile.imwrite(tmp_path / "a.tif", squares(5), ome=True, metadata={"axes": "ZYX"})
    colours = np.random.default_rng(0).integers(0, 255, (8, 9, 3), np.uint8)
    tifffile.imwrite(tmp_path / "b.tif", colours, photometric="rgb")
    viewer.open(tmp_path / "a.tif", plugin="napari")
    add_image_layers(viewer, read_image(tmp_path / "b.tif"))
    form = docked(viewer)
    form.choose("scope", "selected layers")
    viewer.layers.selection = set(viewer.layers)
    assert form.copied(qtbot).count(".tif") == 2
    viewer.layers[0].data[4, 7, 8] = 9
    form.press("copy")
    qtbot.waitUntil(lambda: "no longer what a.tif holds" in form.told)


def test_mirrored_views_are_for_models(viewer: Any, qtbot: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, squares())
    viewer.open(path, plugin="napari")
    form = docked(viewer)
    box = form.control("mirrored")
    form.widget.models.choose("nuclei-fluo")
    assert box.isEnabled() and not box.isChecked()
    box.setChecked(True)
    assert " --mirrored " in form.copied(qtbot)
    # it stays chosen, but a threshold has nothing of it
    form.widget.models.choose("otsu")
    assert not box.isEnabled()
    assert "--mirrored" not in form.copied(qtbot)
    form.widget.models.choose("nuclei-fluo")
    form.press("segment")
    assert form.engine.jobs.pop(0)[1]["mirrored"] is True


def test_notes_stay_to_be_read(viewer: Any) -> None:
    viewer.add_image(squares(2))
    form = docked(viewer)
    form.choose("scope", "all slices")
    form.press("segment")
    classes = [asdict(each) for each in default_classes(2)]
    for _ in range(2):
        task = form.engine.jobs.pop(0)[2]
        task.running = False
        labels = np.zeros((8, 9), np.int32)
        note = "Memory ran out, so windows are smaller."
        answer = {"labels": labels, "kinds": [], "classes": classes, "note": note}
        task.listener.on_done(answer)
    assert form.told == "Memory ran out, so windows are smaller."


@pytest.mark.parametrize("result", ["classes", "objects"])
def test_the_real_engine_gives_what_settings_give_in_the_core(
    viewer: Any, qtbot: Any, tmp_path: Path, result: str
) -> None:
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.random((2, 60, 70)), (0, 2, 2))
    image = image.astype(np.float32)
    viewer.add_image(image, scale=(2, 0.5, 0.5), units=("um",) * 3)
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget)
    widget.reset_choices()
    widget.models.choose("otsu")
    form = Form(widget, None)
    form.choose("scope", "all slices")
    form.choose("result", result)
    form.control("min_size").setValue(40)
    form.control("smoothing").setValue(1.0)
    form.press("segment")
    qtbot.waitUntil(lambda: form.told.startswith("Measured"), timeout=120_000)
    layer = viewer.layers[-1]
    config = (ClassConfig if result == "classes" else ObjectConfig)(
        min_size=40, smoothing=1.0
    )
    segmenter = open_segmenter("otsu")
    wanted = [labels_of(segmenter.predict(plane[None]), config) for plane in image]
    for found, expected in zip(layer.data, wanted, strict=True):
        np.testing.assert_array_equal(found > 0, expected > 0)
        assert len(np.unique(found)) == len(np.unique(expected))
    path = tmp_path / "labels.tif"
    with qtbot.waitSignal(widget.files.written, timeout=60_000):
        widget.save(path)
    found = read_annotation(path)
    np.testing.assert_array_equal(found.labels, layer.data)
    assert found.scale == {"Z": 2, "Y": 0.5, "X": 0.5}
    with qtbot.waitSignal(widget.files.written, timeout=60_000):
        widget.export(tmp_path / "labels.csv", "csv")
    table = pd.read_csv(tmp_path / "labels.csv")
    assert list(table["area_px"]) == list(layer.features["area_px"])
    assert "mean_intensity_0" in table
