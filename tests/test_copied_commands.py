"""Copy as command in Annotate and Measure: the line does what the form did."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from fake_engine import Sam
from folders import command
from napari.layers._source import layer_source
from qtpy.QtWidgets import QApplication, QLabel, QPushButton
from test_measure_widget import Measuring

from napari_medseg._types import finish
from napari_medseg.engine.jobs import Context
from napari_medseg.engine.prompting import look, prompt
from napari_medseg.io.images import read_annotation, read_image, write_labels
from napari_medseg.widgets._canvas import SHAPES
from napari_medseg.widgets._file_layers import add_image_layers
from napari_medseg.widgets.annotate import AnnotateWidget
from napari_medseg.widgets.measure import MeasureWidget

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def viewer(make_napari_viewer_proxy: Callable[[], Any]) -> Any:
    return make_napari_viewer_proxy()


class Copied:
    """A docked form whose button is pressed."""

    def __init__(self, viewer: Any, qtbot: Any, widget: Any) -> None:
        self.widget, self.qtbot = widget, qtbot
        viewer.window.add_dock_widget(widget)
        widget.reset_choices()

    def press(self, name: str) -> None:
        button = self.widget.findChild(QPushButton, name)
        assert button is not None
        button.click()

    def told(self) -> str:
        label = self.widget.findChild(QLabel, "told")
        assert label is not None
        return str(label.text())

    def copy(self, begins: str = "Copied: ") -> list[str]:
        """Return the words of the line, or check for a sentence."""
        label = self.widget.findChild(QLabel, "told")
        assert label is not None
        label.setText("")  # what was said of the line before
        self.press("copy")
        self.qtbot.waitUntil(lambda: begins in self.told(), timeout=60_000)
        line = QApplication.clipboard().text()
        return shlex.split(line)[1:] if begins == "Copied: " else []


def options(words: list[str]) -> dict[str, str]:
    return dict(zip(words[2::2], words[3::2], strict=True))


def annotating(viewer: Any, qtbot: Any, *layers: Any) -> Copied:
    form = Copied(viewer, qtbot, AnnotateWidget(viewer, Sam()))
    form.widget.choose(layers[0])
    viewer.dims.set_current_step(0, 0)
    form.press("start")
    form.widget._engine.answer_all()
    return form


def click(form: Copied, layer: Any, place: tuple[float, ...], **how: bool) -> None:
    form.widget.click(layer.data_to_world(place), **how)
    form.widget._engine.answer_all()


def test_the_line_asks_what_was_clicked(
    viewer: Any, qtbot: Any, tmp_path: Path
) -> None:
    path = tmp_path / "my cells.tif"
    rng = np.random.default_rng(0)
    data = rng.integers(0, 255, (64, 80), np.uint8)
    tifffile.imwrite(path, data)
    (layer,) = add_image_layers(viewer, read_image(path))
    form = annotating(viewer, qtbot, layer)
    form.copy("nothing to copy")
    click(form, layer, (30.5, 41.25))
    click(form, layer, (12, 60), adds=False)
    form.widget.accept()
    words = form.copy()  # what was accepted last
    assert words[:2] == ["prompt", str(path)]
    assert options(words)["--points"] == "30.5,41.25"
    assert options(words)["--negative"] == "12.0,60.0"
    out = tmp_path / "my cells_object.tif"
    assert options(words)["--out"] == str(out)
    done = command(*words)
    assert done.exit_code == 0, done.output
    context = Context()
    asked: dict[str, Any] = {"key": "k", "image": data[None].astype(np.float32)}
    asked |= {"rgb": False, "sam": options(words)["--sam"], "device": "auto"}
    finish(look(asked, context))
    asked |= {"points": [(30.5, 41.25), (12, 60)], "adds": [True, False]}
    answer = finish(prompt(asked | {"box": None, "mask": None}, context))
    wanted = np.zeros(data.shape, bool)
    top, left, bottom, right = answer["region"]
    wanted[top:bottom, left:right] = answer["masks"][0]
    np.testing.assert_array_equal(read_annotation(out).labels, wanted)


def test_boxes_labels_slices_channels_and_ideas(
    viewer: Any, qtbot: Any, tmp_path: Path
) -> None:
    path = tmp_path / "stack.tif"
    data = np.random.default_rng(0).integers(0, 9999, (3, 2, 40, 50), np.uint16)
    tifffile.imwrite(path, data, ome=True, metadata={"axes": "ZCYX"})
    layers = add_image_layers(viewer, read_image(path))
    form = annotating(viewer, qtbot, layers[1])
    viewer.dims.set_current_step(0, 2)
    click(form, layers[1], (2, 12, 15))
    form.widget.next_mask()
    found = options(form.copy())
    assert found["--slice"] == "2"
    assert found["--channel"] == "1"
    assert found["--idea"] == "2"
    form.widget.clear()
    viewer.layers[SHAPES].add_rectangles([[4, 6], [4, 12], [10, 12], [10, 6]])
    form.widget._engine.answer_all()
    found = options(form.copy())
    assert found["--boxes"] == "4.0,6.0,10.0,12.0"
    assert "--points" not in found
    form.widget.clear()
    annotation = viewer.layers[f"{layers[1].name}: annotation"]
    annotation.data[2, 3:9, 3:9] = 2
    annotation.selected_label = 2
    form.press("use label")
    form.widget._engine.answer_all()
    assert options(form.copy())["--boxes"] == "3.0,3.0,8.0,8.0"


def test_an_image_that_is_no_file_or_another(
    viewer: Any, qtbot: Any, tmp_path: Path
) -> None:
    image = viewer.add_image(np.random.default_rng(0).random((40, 50)))
    form = annotating(viewer, qtbot, image)
    click(form, image, (12, 15))
    form.copy("not opened from a file")
    path = tmp_path / "other.npy"
    np.save(path, np.zeros((40, 50), np.float32))
    with layer_source(path=str(path)):
        other = viewer.add_image(np.ones((40, 50), np.float32))
    form.widget.choose(other)
    form.press("start")
    form.widget._engine.answer_all()
    click(form, other, (12, 15))
    form.copy("no longer what other.npy holds")


def test_the_line_measures_what_the_form_measures(
    viewer: Any, qtbot: Any, tmp_path: Path
) -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[2:6, 3:9] = 4
    labels[10:15, 12:20] = 9
    path, picture = tmp_path / "labels.tif", tmp_path / "image.tif"
    write_labels(path, labels, scale={"Y": 0.5, "X": 0.25})
    tifffile.imwrite(picture, np.arange(600, dtype=np.uint16).reshape(20, 30))
    (image,) = add_image_layers(viewer, read_image(picture))
    with layer_source(path=str(path)):
        # as napari's own reader does: the pixel size is left behind
        layer = viewer.add_labels(labels.copy())
    engine = Measuring()
    form = Copied(viewer, qtbot, MeasureWidget(viewer, engine))
    form.widget.choose(layer, image)
    form.press("measure")
    engine.answer()
    done = command(*form.copy())
    assert done.exit_code == 0, done.output
    form.widget.save_table(tmp_path / "form.csv")
    engine.answer()
    found = pd.read_csv(tmp_path / "labels.csv")
    pd.testing.assert_frame_equal(found, pd.read_csv(tmp_path / "form.csv"))
    assert set(found["unit"]) == {"px"}
    layer.data[0, 0] = 7
    form.copy("no longer what labels.tif holds")
    form.widget.choose(viewer.add_labels(labels), None)
    form.copy("not opened from a file")
