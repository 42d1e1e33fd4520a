"""Measure: the table of a labels layer says what is on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from fake_engine import FakeEngine
from qtpy.QtWidgets import QLabel, QPushButton

from napari_medseg._types import finish
from napari_medseg.engine.jobs import Context
from napari_medseg.engine.measuring import measure
from napari_medseg.instances import measure as measure_objects
from napari_medseg.widgets.measure import MeasureWidget

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Measuring(FakeEngine):
    """Measures when the test says so."""

    def answer(self) -> None:
        name, arguments, task = self.jobs.pop(0)
        assert name == "measure"
        task.running = False
        task.listener.on_done(finish(measure(arguments, Context())))


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
        objects(), image[None], {"y": 0.5, "x": 0.25}, str(layer.units[-1])
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
    assert list(layer.features["slice"]) == ["0", "0", "2", "2"]
    assert "mean_intensity_0" not in layer.features


def test_the_table_can_be_saved(viewer: Any, tmp_path: Path) -> None:
    layer = viewer.add_labels(objects())
    form = Form(viewer)
    form.widget.choose(layer, None)
    form.widget.save(tmp_path / "objects.csv")
    assert "press Measure" in form.told
    form.press("measure")
    form.engine.answer()
    form.widget.save(tmp_path / "objects.csv")
    assert list(pd.read_csv(tmp_path / "objects.csv")["area_px"]) == [24, 40]
    (tmp_path / "file").write_text("")
    form.widget.save(tmp_path / "file" / "objects.csv")
    assert "cannot be written" in form.told


def test_nothing_to_measure(viewer: Any) -> None:
    form = Form(viewer)
    form.press("measure")
    assert "no labels layer" in form.told
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
