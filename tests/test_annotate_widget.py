"""The Annotate form as a user meets it: click, look, accept, undo; nothing is lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fake_engine import Sam
from qtpy.QtWidgets import QLabel, QPushButton

from napari_medseg.widgets import _autosave
from napari_medseg.widgets._canvas import SHAPES, SUGGESTION
from napari_medseg.widgets.annotate import KEYS, AnnotateWidget
from napari_medseg.widgets.tune import TuneWidget

if TYPE_CHECKING:
    from collections.abc import Callable


class Form:
    """The widget, docked, with an image that SAM has looked at."""

    def __init__(self, viewer: Any, **options: Any) -> None:
        self.viewer = viewer
        self.engine = Sam()
        self.widget = AnnotateWidget(viewer, self.engine)
        viewer.window.add_dock_widget(self.widget)
        self.image = viewer.add_image(
            np.random.default_rng(0).random((3, 30, 40)), name="cells", **options
        )
        self.widget.reset_choices()
        self.widget.choose(self.image)
        viewer.dims.set_current_step(0, 0)
        self.press("start")
        self.engine.answer_all()

    def press(self, name: str) -> None:
        button = self.widget.findChild(QPushButton, name)
        assert button is not None
        button.click()

    def click(self, row: float, column: float, *, adds: bool = True) -> None:
        place = self.image.data_to_world((0, row, column))
        self.widget.click(place, adds=adds)
        self.engine.answer_all()

    @property
    def annotation(self) -> Any:
        return self.viewer.layers["cells: annotation"]

    @property
    def suggestion(self) -> np.ndarray:
        return np.asarray(self.viewer.layers[SUGGESTION].data)

    @property
    def told(self) -> str:
        label = self.widget.findChild(QLabel, "told")
        assert label is not None
        return str(label.text())


@pytest.fixture
def viewer(make_napari_viewer_proxy: Callable[[], Any]) -> Any:
    return make_napari_viewer_proxy()


def square(row: int, column: int, size: int = 1) -> np.ndarray:
    mask = np.zeros((30, 40), bool)
    mask[row - size : row + size + 1, column - size : column + size + 1] = True
    return mask


def test_a_click_suggests_and_a_key_accepts(viewer: Any) -> None:
    form = Form(viewer, scale=(2, 0.5, 0.25), translate=(0, 10, 20))
    assert "Ready" in form.told
    form.click(12, 15)
    np.testing.assert_array_equal(form.suggestion > 0, square(12, 15))
    form.annotation.selected_label = 4
    form.widget.accept()
    np.testing.assert_array_equal(form.annotation.data[0], 4 * square(12, 15))
    assert not form.annotation.data[1:].any()
    assert not form.suggestion.any()
    np.testing.assert_allclose(form.annotation.scale, form.image.scale)


TURN = [[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]]

MOVED = [[2, 0, 0, 5], [0, 0.9, 0.2, 100], [0, -0.1, 1.1, 200], [0, 0, 0, 1]]


def test_everything_lies_where_the_image_lies(viewer: Any) -> None:
    placed = {"scale": (2, 0.5, 0.25), "translate": (1, 10, 20), "rotate": TURN}
    form = Form(viewer, **placed, shear=(0, 0, 0.3), affine=MOVED)
    form.click(12.2, 15.2)
    np.testing.assert_array_equal(form.suggestion > 0, square(12, 15))
    where = form.image.data_to_world((1, 5, 7))
    np.testing.assert_allclose(form.annotation.data_to_world((1, 5, 7)), where)
    for name in (SUGGESTION, SHAPES):
        found = viewer.layers[name].data_to_world((5, 7))
        np.testing.assert_allclose(found, where[-2:])


def test_undo_of_several_steps(viewer: Any) -> None:
    form = Form(viewer)
    for column in (5, 15, 25):
        form.click(12, column)
        form.widget.accept_new()
    assert form.annotation.data.max() == 3
    for left in (2, 1, 0):
        form.annotation.undo()
        assert form.annotation.data.max() == left
    form.annotation.redo()
    np.testing.assert_array_equal(form.annotation.data[0], square(12, 5))


def test_clicks_can_be_taken_back_and_taken_away(viewer: Any) -> None:
    form = Form(viewer)
    form.click(12, 15)
    form.widget.click(form.image.data_to_world((0, 20, 20)), adds=False)
    assert form.engine.jobs[-1][1]["adds"] == [True, False]
    form.engine.answer_all()
    form.widget.take_back()
    form.engine.answer_all()
    np.testing.assert_array_equal(form.suggestion > 0, square(12, 15))
    form.widget.take_back()
    assert not form.suggestion.any()


def test_the_next_idea(viewer: Any) -> None:
    form = Form(viewer)
    form.click(12, 15)
    form.widget.next_mask()
    np.testing.assert_array_equal(form.suggestion > 0, square(12, 15, 2))
    form.widget.next_mask()
    form.widget.next_mask()
    np.testing.assert_array_equal(form.suggestion > 0, square(12, 15, 1))


def test_a_click_before_sam_has_looked_is_answered_later(viewer: Any) -> None:
    form = Form(viewer)
    viewer.dims.set_current_step(0, 2)
    form.widget.click(form.image.data_to_world((2, 12, 15)))
    assert [job[0] for job in form.engine.jobs] == ["look"]
    form.engine.answer_all()
    np.testing.assert_array_equal(form.suggestion > 0, square(12, 15))
    form.widget.accept()
    assert form.annotation.data[2].any()


def test_sam_looks_again_after_the_engine_was_restarted(viewer: Any) -> None:
    form = Form(viewer)
    form.engine.pid = 8
    form.widget.click(form.image.data_to_world((0, 12, 15)))
    assert form.engine.jobs[0][0] == "look"
    form.engine.answer_all()
    np.testing.assert_array_equal(form.suggestion > 0, square(12, 15))


def test_boxes_and_outlines(viewer: Any) -> None:
    form = Form(viewer)
    shapes = viewer.layers[SHAPES]
    shapes.add_rectangles([[4, 6], [4, 12], [10, 12], [10, 6]])
    form.engine.answer_all()
    wanted = np.zeros((30, 40), bool)
    wanted[4:11, 6:13] = True
    np.testing.assert_array_equal(form.suggestion > 0, wanted)
    shapes.add_polygons([[2, 2], [2, 20], [25, 20], [25, 2]])
    form.engine.answer_all()
    assert form.suggestion[5:22, 5:17].all()
    form.widget.accept()
    assert form.annotation.data[0].any()
    assert not shapes.data


def test_a_label_as_prompt(viewer: Any) -> None:
    form = Form(viewer)
    form.annotation.data[0, 3:9, 3:9] = 2
    form.annotation.selected_label = 2
    form.press("use label")
    assert form.engine.jobs[0][1]["mask"].sum() == 36
    form.annotation.selected_label = 9
    form.press("use label")
    assert "not on this slice" in form.told
    viewer.dims.ndisplay = 3
    form.press("use label")
    assert "Switch to 2D" in form.told


def drag(form: Form, events: list[str], modifiers: tuple[str, ...] = ()) -> None:
    """Do with the mouse what napari tells its callbacks."""
    event = SimpleNamespace(
        type="mouse_press",
        button=1,
        modifiers=modifiers,
        position=form.image.data_to_world((0, 12, 15)),
    )
    steps = form.widget._on_mouse(viewer=None, event=event)
    for kind in ["mouse_press", *events]:
        event.type = kind
        next(steps, None)
    form.engine.answer_all()


def test_the_mouse_clicks_but_a_drag_moves_the_view(viewer: Any) -> None:
    form = Form(viewer)
    viewer.layers.selection.active = viewer.layers[SUGGESTION]
    drag(form, ["mouse_move", "mouse_release"])
    assert not form.suggestion.any()
    drag(form, ["mouse_release"])
    assert form.suggestion.any()
    viewer.layers.selection.active = form.annotation
    form.widget.clear()
    drag(form, ["mouse_release"])
    assert not form.suggestion.any(), "painting is not clicking"


def test_keys_do_not_clash_with_napari(viewer: Any) -> None:
    from napari.utils.shortcuts import default_shortcuts

    form = Form(viewer)
    labels = [name for name in default_shortcuts if "labels" in name]
    taken = {str(key) for name in labels for key in default_shortcuts[name]}
    assert not set(KEYS) & taken
    bound = {str(key) for key in viewer.layers[SUGGESTION].keymap}
    assert set(KEYS) <= bound
    assert form.widget is not None


def test_the_annotation_is_kept_and_offered_back(viewer: Any, qtbot: Any) -> None:
    form = Form(viewer)
    form.click(12, 15)
    form.widget.accept()
    name = _autosave.identity(form.image)
    qtbot.waitUntil(lambda: _autosave.kept(name) is not None, timeout=20_000)
    before = form.annotation.data.copy()
    for layer in list(viewer.layers):
        if layer.name != "cells":
            viewer.layers.remove(layer)
    form.press("start")
    assert form.widget.findChild(QPushButton, "restore").isVisibleTo(form.widget)
    assert not form.annotation.data.any()
    form.press("restore")
    np.testing.assert_array_equal(form.annotation.data, before)


def test_what_the_numbers_mean_is_kept_with_them(viewer: Any, qtbot: Any) -> None:
    form = Form(viewer)
    form.click(12, 15)
    form.widget.accept()
    kinds = form.widget.findChild(object, "kind")
    kinds.setCurrentIndex(2)
    assert form.annotation.metadata["annotation"] == "instances"
    name = _autosave.identity(form.image)

    def written() -> bool:
        found = _autosave.kept(name)
        return found is not None and found.kind == "instances"

    qtbot.waitUntil(written, timeout=20_000)


def test_a_layer_keeps_its_note_when_another_is_annotated(viewer: Any) -> None:
    form = Form(viewer)
    tune = TuneWidget(viewer, form.engine)
    viewer.window.add_dock_widget(tune)
    tune.reset_choices()
    kinds = form.widget.findChild(object, "kind")
    tune.source.choose_layers(form.image, form.annotation)
    kinds.setCurrentIndex(1)
    assert tune.source.kind == "sparse"
    first = form.annotation
    other = viewer.add_image(np.zeros((3, 30, 40)), name="other")
    form.widget.choose(other)
    form.press("start")
    kinds.setCurrentIndex(0)
    form.widget.choose(form.image)
    form.press("start")
    assert form.widget.kind == "sparse"
    assert first.metadata["annotation"] == "sparse"
    assert viewer.layers["other: annotation"].metadata["annotation"] == "dense"


def test_a_kept_file_that_is_damaged_is_none(tmp_path: Any) -> None:
    path = _autosave.keep("name", np.ones((4, 5), np.int32), "dense")
    assert _autosave.kept("name") is not None
    path.write_bytes(b"half a file")
    assert _autosave.kept("name") is None
    _autosave.forget("name")
    _autosave.forget("name")


def test_layers_deleted_meanwhile(viewer: Any) -> None:
    form = Form(viewer)
    form.widget.click(form.image.data_to_world((0, 12, 15)))
    viewer.layers.clear()
    form.engine.answer_all()
    form.widget.accept()
    form.widget.clear()
    form.press("start")
    assert "no image" in form.told


def test_starting_again_goes_on_with_the_same_layers(viewer: Any) -> None:
    form = Form(viewer)
    form.click(12, 15)
    form.widget.accept()
    form.press("start")
    names = [layer.name for layer in viewer.layers]
    assert sorted(names) == sorted(set(names))
    assert form.annotation.data.any()


def test_a_closed_form_takes_no_clicks(viewer: Any, qtbot: Any) -> None:
    form = Form(viewer)
    before = len(viewer.mouse_drag_callbacks)
    viewer.window.remove_dock_widget("all")
    form.widget.deleteLater()
    qtbot.waitUntil(lambda: len(viewer.mouse_drag_callbacks) < before)


def test_drawing_goes_on_after_the_form_is_closed(viewer: Any, qtbot: Any) -> None:
    form = Form(viewer)
    gone: list[int] = []
    form.widget.destroyed.connect(lambda: gone.append(1))
    viewer.window.remove_dock_widget("all")
    form.widget.deleteLater()
    qtbot.waitUntil(lambda: bool(gone))
    layer = form.annotation
    layer.paint((0, 12, 15), 1)
    layer.undo()
    viewer.layers.remove(layer)
