"""Measure: the table of a labels layer says what is on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import roifile
from fake_engine import FakeEngine
from qtpy.QtWidgets import QLabel, QPushButton

from napari_medseg._types import MedsegError, finish
from napari_medseg.engine.exporting import export
from napari_medseg.engine.jobs import Context
from napari_medseg.engine.measuring import measure
from napari_medseg.instances import measure as measure_objects
from napari_medseg.io.images import read_annotation
from napari_medseg.widgets.measure import MeasureWidget

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Measuring(FakeEngine):
    """Measures and writes when the test says so."""

    def answer(self) -> None:
        name, arguments, task = self.jobs.pop(0)
        job = {"measure": measure, "export": export}[name](arguments, Context())
        task.running = False
        try:
            task.listener.on_done(finish(job))
        except MedsegError as error:
            task.listener.on_failed(error)


class Form:
    """The widget, docked, with its controls."""

    def __init__(self, viewer: Any) -> None:
        self.engine = Measuring()
        self.widget = MeasureWidget(viewer, self.engine)
        viewer.window.add_dock_widget(self.widget)
        self.widget.reset_choices()

    def press(self, name: str) -> None:
        button = self.widget.findChild(QPushButton, name)
        assert button is not None
        button.click()

    @property
    def told(self) -> str:
        label = self.widget.findChild(QLabel, "told")
        assert label is not None
        return str(label.text())


@pytest.fixture
def viewer(make_napari_viewer_proxy: Callable[[], Any]) -> Any:
    return make_napari_viewer_proxy()


def objects() -> np.ndarray:
    labels = np.zeros((20, 30), np.int32)
    labels[2:6, 3:9] = 4
    labels[10:15, 12:20] = 9
    return labels


def test_the_table_is_that_of_the_core(viewer: Any) -> None:
    image = np.random.default_rng(0).random((20, 30)).astype(np.float32)
    shown = viewer.add_image(image, scale=(0.5, 0.25), units=("um", "um"))
    layer = viewer.add_labels(objects(), scale=(0.5, 0.25), units=("um", "um"))
    form = Form(viewer)
    form.widget.choose(layer, shown)
    form.press("measure")
    form.engine.answer()
    wanted = measure_objects(
        objects(), image[None], {"y": 0.5, "x": 0.25}, "micrometer"
    ).rename(columns={"label": "index"})
    found = pd.DataFrame(layer.features)
    pd.testing.assert_frame_equal(found, wanted, check_dtype=False)
    assert "Measured 2 objects" in form.told


def test_a_stack_is_measured_slice_by_slice(viewer: Any) -> None:
    stack = np.stack([objects(), np.zeros_like(objects()), objects()])
    layer = viewer.add_labels(stack)
    form = Form(viewer)
    form.widget.choose(layer, None)
    form.press("measure")
    form.engine.answer()
    form.engine.answer()
    assert not form.engine.jobs
    assert list(layer.features["slice"]) == [0, 0, 2, 2]
    assert "mean_intensity_0" not in layer.features


def test_the_table_can_be_saved(viewer: Any, tmp_path: Path) -> None:
    image = viewer.add_image(np.ones((20, 30), np.float32))
    layer = viewer.add_labels(objects())
    form = Form(viewer)
    form.widget.choose(layer, image)
    form.widget.save_table(tmp_path / "objects.csv")
    assert "press Measure" in form.told
    form.press("measure")
    form.engine.answer()
    form.widget.save_table(tmp_path / "objects.csv")
    form.engine.answer()
    table = pd.read_csv(tmp_path / "objects.csv")
    assert list(table["label"]) == [4, 9]
    assert list(table["area_px"]) == [24, 40]
    assert list(table["mean_intensity_0"]) == [1, 1]
    (tmp_path / "file").write_text("")
    form.widget.save_table(tmp_path / "file" / "objects.csv")
    form.engine.answer()
    assert "cannot be written" in form.told


def test_labels_can_be_saved_and_exported(
    viewer: Any, tmp_path: Path, qtbot: Any
) -> None:
    layer = viewer.add_labels(
        da.from_array(objects()), scale=(0.5, 0.25), units=("um", "um")
    )
    form = Form(viewer)
    form.widget.choose(layer, None)
    form.widget.save(tmp_path / "cells.tif")
    qtbot.waitUntil(lambda: bool(form.engine.jobs))  # a lazy layer is read on a thread
    form.engine.answer()
    found = read_annotation(tmp_path / "cells.tif")
    np.testing.assert_array_equal(found.labels, objects())
    assert found.scale == {"Y": 0.5, "X": 0.25}
    form.widget.choose(viewer.add_labels(objects()), None)
    form.widget.export(tmp_path / "cells.zip", "roi")
    form.engine.answer()
    assert len(roifile.roiread(tmp_path / "cells.zip")) == 2
    assert "Saved cells.zip" in form.told


def test_pixels_without_a_unit_are_counted(viewer: Any) -> None:
    layer = viewer.add_labels(objects(), scale=(0.5, 0.25))
    form = Form(viewer)
    form.widget.choose(layer, None)
    form.press("measure")
    form.engine.answer()
    assert list(layer.features["area"]) == [24, 40]
    assert set(layer.features["unit"]) == {"px"}


def test_five_axes(viewer: Any) -> None:
    image = viewer.add_image(np.ones((1, 1, 2, 20, 30), np.float32))
    layer = viewer.add_labels(np.stack([objects(), 0 * objects()])[None, None])
    form = Form(viewer)
    form.widget.choose(layer, image)
    form.press("measure")
    form.engine.answer()
    assert list(layer.features["frame"]) == [0, 0]
    assert list(layer.features["mean_intensity_0"]) == [1, 1]
    many = viewer.add_labels(np.stack([objects()] * 8).reshape(2, 2, 2, 20, 30))
    form.widget.choose(many, None)
    form.press("measure")
    assert "5 axes" in form.told


def test_napari_shows_the_table(viewer: Any) -> None:
    layer = viewer.add_labels(objects())
    form = Form(viewer)
    form.widget.choose(layer, None)
    form.press("show")
    assert "press Measure" in form.told
    form.press("measure")
    form.engine.answer()
    form.press("show")
    assert any("Features table" in name for name in viewer.window.dock_widgets)


def test_nothing_to_measure(viewer: Any) -> None:
    form = Form(viewer)
    form.press("measure")
    assert "no labels layer" in form.told
    form.press("save")
    assert "no labels to save" in form.told
    layer = viewer.add_labels(np.zeros((5, 6), np.int32))
    form.widget.reset_choices()
    form.widget.choose(layer, None)
    form.press("measure")
    assert "Measured 0 objects" in form.told


def test_an_image_of_another_size_is_refused_in_words(viewer: Any) -> None:
    image = viewer.add_image(np.zeros((2, 8, 9), np.float32))
    layer = viewer.add_labels(objects())
    form = Form(viewer)
    form.widget.choose(layer, image)
    form.press("measure")
    assert "cannot be measured" in form.told
