"""Segment on lazy layers that do not fit into memory: nobody ever reads them whole."""

from __future__ import annotations

import gc
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from fake_engine import FakeEngine
from qtpy.QtWidgets import QComboBox, QLabel, QPushButton, QWidget
from test_large import ThreeKinds

from napari_medseg import large
from napari_medseg._types import InputError, finish
from napari_medseg.engine import large_layers
from napari_medseg.engine.jobs import Context
from napari_medseg.engine.large_layers import segment_stored
from napari_medseg.inference import open_segmenter
from napari_medseg.instances import ObjectConfig, labels_of
from napari_medseg.scratch import IMAGE
from napari_medseg.widgets import _large
from napari_medseg.widgets._large import NOT_AGAIN, LargeLabels
from napari_medseg.widgets.segment import SegmentWidget

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHAPE = (600, 500)

BAND = 64


class Counted:
    """A lazy array that notes how much of it is read at a time."""

    dtype = np.dtype(np.uint8)

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape, self.ndim = array.shape, array.ndim
        self.read: list[int] = []

    def __getitem__(self, key: Any) -> Any:
        keys = key if isinstance(key, tuple) else (key,)
        return Part(self, keys)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self.read.append(self.array.size)
        return self.array


class Part:
    """A part of it, which is not read before it is asked for its values."""

    dtype = Counted.dtype

    def __init__(self, whole: Counted, key: tuple[Any, ...]) -> None:
        self._whole = whole
        self._view = whole.array[key]
        self.shape, self.ndim = self._view.shape, self._view.ndim

    def __getitem__(self, key: Any) -> np.ndarray:
        found = self._view[key]
        self._whole.read.append(found.size)
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self._whole.read.append(self._view.size)
        return self._view


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What is large, and where it goes; a small image has several bands and levels."""
    monkeypatch.setattr(large, "LARGE_PIXELS", 10_000)
    monkeypatch.setattr(_large, "BAND", BAND)
    monkeypatch.setattr(large_layers, "SMALLEST", 200)
    monkeypatch.setattr(large_layers, "_BAND", 128)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def viewer(make_napari_viewer_proxy: Callable[[], Any]) -> Any:
    return make_napari_viewer_proxy()


class Engine(FakeEngine):
    """Does in this process what is asked for on the disk."""

    def answer(self) -> None:
        name, arguments, task = self.jobs.pop(0)
        assert name == "segment_stored"
        task.running = False
        task.listener.on_done(finish(segment_stored(arguments, Context())))


@pytest.fixture
def form(viewer: Any) -> SegmentWidget:
    widget = SegmentWidget(viewer, Engine())
    viewer.window.add_dock_widget(widget)
    widget.models.choose("otsu")
    return widget


def squares(*stack: int) -> np.ndarray:
    image = np.full((*stack, *SHAPE), 10, np.uint8)
    image[..., 40:300, 60:90] = 200
    image[..., 400:420, 200:480] = 200
    return image


def lazy_layer(viewer: Any, form: SegmentWidget, *stack: int) -> Counted:
    counted = Counted(squares(*stack))
    viewer.add_image(counted, name="slide", contrast_limits=(0, 255), visible=False)
    form.reset_choices()
    counted.read.clear()
    return counted


def press(form: SegmentWidget, name: str) -> None:
    form.findChild(QPushButton, name).click()


def told(form: SegmentWidget) -> str:
    return str(form.findChild(QLabel, "told").text())


def segmented(form: SegmentWidget, qtbot: Any) -> None:
    engine = form._engine
    press(form, "segment")
    qtbot.waitUntil(lambda: bool(engine.jobs), timeout=60_000)
    engine.answer()


@pytest.mark.parametrize("result", ["classes", "objects"])
def test_a_lazy_layer_is_never_read_whole(
    viewer: Any, form: SegmentWidget, qtbot: Any, small: Path, result: str
) -> None:
    counted = lazy_layer(viewer, form)
    form.findChild(QComboBox, "result").setCurrentText(result)
    segmented(form, qtbot)
    assert max(counted.read) <= BAND * SHAPE[1]
    assert sum(counted.read) == counted.array.size  # and every pixel once
    layer = viewer.layers[-1]
    assert layer.multiscale and not layer.editable
    config = ObjectConfig() if result == "objects" else None
    prediction = open_segmenter("otsu").predict(squares()[None].astype(np.float32))
    expected = labels_of(prediction, config)
    np.testing.assert_array_equal(np.asarray(layer.data[0]), expected)
    np.testing.assert_array_equal(np.asarray(layer.data[1]), expected[::4, ::4])
    if result == "objects":
        assert layer.metadata["kinds"] == {1: 1, 2: 1}
    form.save(small / "saved.tif")
    qtbot.waitUntil(lambda: bool(form._engine.jobs), timeout=60_000)
    name, arguments, _ = form._engine.jobs.pop()
    assert name == "export"
    np.testing.assert_array_equal(arguments["stack"]["labels"], expected)


def test_a_slice_of_a_lazy_stack(viewer: Any, form: SegmentWidget, qtbot: Any) -> None:
    counted = lazy_layer(viewer, form, 3)
    viewer.dims.set_point(0, 2)
    counted.read.clear()
    segmented(form, qtbot)
    assert sum(counted.read) == SHAPE[0] * SHAPE[1]
    layer = viewer.layers[-1]
    assert layer.name.endswith("[2]")
    assert layer.data[0].shape == SHAPE


def test_sliders_do_not_begin_minutes_of_work(
    viewer: Any, form: SegmentWidget, qtbot: Any
) -> None:
    lazy_layer(viewer, form)
    segmented(form, qtbot)
    form.findChild(QWidget, "min_size").setValue(30)
    qtbot.waitUntil(lambda: NOT_AGAIN in told(form))
    assert not form._engine.jobs


def test_what_failed_leaves_nothing_on_the_disk(
    viewer: Any, form: SegmentWidget, qtbot: Any, small: Path
) -> None:
    lazy_layer(viewer, form)
    press(form, "segment")
    engine = form._engine
    qtbot.waitUntil(lambda: bool(engine.jobs), timeout=60_000)
    assert len([*small.glob("medseg-*")]) == 1
    engine.jobs.pop(0)[2].listener.on_failed(InputError("No."))
    assert "No." in told(form)
    assert not [*small.glob("medseg-*")]


def test_labels_of_a_layer_that_was_deleted_leave_nothing_on_the_disk(
    viewer: Any, form: SegmentWidget, qtbot: Any, tmp_path: Path
) -> None:
    lazy_layer(viewer, form)
    press(form, "segment")
    qtbot.waitUntil(lambda: bool(form._engine.jobs), timeout=60_000)
    viewer.layers.clear()
    form._engine.answer()
    qtbot.waitUntil(lambda: form.findChild(QPushButton, "segment").isEnabled())
    assert len(viewer.layers) == 0
    assert not list(tmp_path.iterdir())


def test_a_folder_is_there_as_long_as_its_layer(tmp_path: Path) -> None:
    class Layer:
        pass

    folder = tmp_path / "labels"
    folder.mkdir()
    layer: Any = Layer()
    LargeLabels([], folder).remove_with(layer)
    assert folder.exists()
    del layer
    gc.collect()
    assert not folder.exists()


def save_kinds(folder: Path) -> None:
    image = np.zeros((1, 300, 200), np.float32)
    image[0, 20:60, 20:60], image[0, 150:250, 100:180] = 128, 255
    zarr.create_array(str(folder / IMAGE), data=image)


def test_objects_of_several_classes(tmp_path: Path) -> None:
    save_kinds(tmp_path)
    context = Context()
    context.shelf.put("segmenter", "cpu kinds", ThreeKinds())
    found = finish(segment_stored(asked(tmp_path, "kinds"), context))
    assert found["kinds"] == [1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels", "labels 1"]


def test_a_segmenter_that_needs_the_whole_image(tmp_path: Path) -> None:
    save_kinds(tmp_path)
    context = Context()
    context.shelf.put("segmenter", "cpu whole", object())
    with pytest.raises(InputError, match="300 × 200 pixels"):
        finish(segment_stored(asked(tmp_path, "whole"), context))


def asked(folder: Path, model: str) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "model": model,
        "device": "cpu",
        "objects": asdict(ObjectConfig()),
        "classes": None,
    }
