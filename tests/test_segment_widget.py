"""The Segment form as a user meets it: click, wait, look at the layers."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fake_engine import FakeEngine
from qtpy.QtWidgets import QComboBox, QLabel, QPushButton

from napari_medseg._types import InputError
from napari_medseg.inference import open_segmenter
from napari_medseg.widgets.segment import SegmentWidget

if TYPE_CHECKING:
    from collections.abc import Callable


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
        squares(4), scale=(2, 0.5, 0.5), translate=(1, 2, 3), units=("um",) * 3
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
    assert labels.metadata["classes"] == ["background", "object"]
    assert form.told == "Done."


def test_all_slices(viewer: Any) -> None:
    viewer.add_image(squares(2, 3))
    form = docked(viewer)
    form.choose("scope", "all slices")
    form.press("segment")
    for _ in range(6):
        form.engine.answer()
    np.testing.assert_array_equal(viewer.layers[-1].data, squares(2, 3))
    assert len(viewer.layers) == 2


def test_colours_and_integers_arrive_as_floats(viewer: Any) -> None:
    viewer.add_image(np.full((8, 9, 4), 200, np.uint8), rgb=True)
    form = docked(viewer)
    form.press("segment")
    _, arguments, _ = form.engine.jobs[0]
    assert arguments["image"].shape == (3, 8, 9)
    assert arguments["image"].dtype == np.float32
    assert (arguments["image"] == 200).all()


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
        name, arguments, task = form.engine.jobs.pop(0)
        assert name == "measure"
        assert arguments["labels"].max() == number + 1
        task.running = False
        task.listener.on_done({"label": [number + 1], "area_px": [12]})
    assert list(labels.features["index"]) == [1, 2, 3]
