"""What is drawn is kept on disk at once, and what is offered back stays there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fake_engine import Sam
from qtpy.QtWidgets import QPushButton

from napari_medseg.widgets import _autosave, _keeping
from napari_medseg.widgets._autosave import file_identity, identity
from napari_medseg.widgets.annotate import AnnotateWidget

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHAPE = (30, 40)

OLD = np.zeros(SHAPE, np.int32)
OLD[5:15, 5:15] = 3
"""What was drawn before napari crashed."""

EMPTY = np.zeros(SHAPE, np.int32)

SPOT = (np.array([2]), np.array([3]))
"""Where a stroke is drawn."""

PATIENCE = 20_000
"""Milliseconds that a test waits at most."""

NEVER = 3_600_000
"""Milliseconds after which no test is still there."""


class Form:
    """The widget, docked, with two images."""

    def __init__(self, viewer: Any, qtbot: Any) -> None:
        self.viewer = viewer
        self.qtbot = qtbot
        self.engine = Sam()
        self.widget = AnnotateWidget(viewer, self.engine)
        viewer.window.add_dock_widget(self.widget)
        rng = np.random.default_rng(0)
        self.a = viewer.add_image(rng.random(SHAPE), name="a")
        self.b = viewer.add_image(rng.random(SHAPE), name="b")
        self.widget.reset_choices()

    def annotate(self, image: Any) -> None:
        self.widget.choose(image)
        self.press("start")
        self.engine.answer_all()

    def annotation(self, image: Any) -> Any:
        return self.viewer.layers[f"{image.name}: annotation"]

    def button(self, name: str) -> QPushButton:
        found = self.widget.findChild(QPushButton, name)
        assert found is not None
        return found

    def press(self, name: str) -> None:
        self.button(name).click()

    @property
    def offers(self) -> bool:
        return self.button("restore").isVisibleTo(self.widget)

    def wait(self, until: Callable[[], bool]) -> None:
        self.qtbot.waitUntil(until, timeout=PATIENCE)

    def written(self, image: Any) -> np.ndarray | None:
        self.widget.keeper.finish()
        found = _autosave.kept(identity(image))
        return None if found is None else found.read()


@pytest.fixture
def form(
    make_napari_viewer_proxy: Callable[[], Any],
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Form:
    """Return the form; nothing is kept in it by the time that passes."""
    monkeypatch.setattr(_keeping, "DELAY", NEVER)
    return Form(make_napari_viewer_proxy(), qtbot)


def drawn(labels: Any, row: int, column: int, label: int = 1) -> np.ndarray:
    found = np.array(labels)
    found[row, column] = label
    return found


def test_strokes_drawn_first_do_not_replace_what_is_offered(form: Form) -> None:
    _autosave.keep(identity(form.a), OLD, "instances")
    form.annotate(form.a)
    assert form.offers
    layer = form.annotation(form.a)
    layer.data_setitem(SPOT, 1)
    form.widget._restore.flush()
    np.testing.assert_array_equal(form.written(form.a), drawn(EMPTY, 2, 3))
    form.press("restore")
    np.testing.assert_array_equal(layer.data, OLD)
    assert form.widget.kind == "instances"
    assert form.offers, "the stroke is offered in turn"
    form.press("restore")
    np.testing.assert_array_equal(layer.data, drawn(EMPTY, 2, 3))


def test_what_is_not_taken_is_offered_after_the_next_crash_too(form: Form) -> None:
    _autosave.keep(identity(form.a), OLD, "dense")
    form.annotate(form.a)
    form.annotation(form.a).data_setitem(SPOT, 1)
    form.widget._restore.flush()
    form.viewer.layers.remove(form.annotation(form.a))
    form.annotate(form.a)
    layer = form.annotation(form.a)
    form.press("restore")
    np.testing.assert_array_equal(layer.data, drawn(EMPTY, 2, 3))
    form.press("restore")
    np.testing.assert_array_equal(layer.data, OLD)


def test_what_is_brought_back_is_kept_again_and_offered_once(form: Form) -> None:
    name = identity(form.a)
    _autosave.keep(name, OLD, "dense")
    form.annotate(form.a)
    form.press("restore")
    assert not form.offers
    np.testing.assert_array_equal(form.written(form.a), OLD)
    form.wait(lambda: not _autosave.kept_aside(name))


def test_what_is_offered_can_be_forgotten(form: Form) -> None:
    name = identity(form.a)
    _autosave.keep(name, OLD, "dense")
    form.annotate(form.a)
    form.press("forget")
    assert not form.offers
    form.wait(lambda: name not in _autosave.kept_names())


def test_another_kind_alone_replaces_nothing(form: Form) -> None:
    _autosave.keep(identity(form.a), OLD, "dense")
    form.annotate(form.a)
    form.widget._kind.choose("instances")
    form.widget._restore.flush()
    assert form.written(form.a) is None, "nothing is drawn"
    form.press("restore")
    np.testing.assert_array_equal(form.annotation(form.a).data, OLD)


def test_turning_to_another_image_keeps_the_one_before(form: Form) -> None:
    _autosave.keep(identity(form.b), OLD, "dense")
    form.annotate(form.a)
    form.annotation(form.a).data_setitem(SPOT, 1)
    form.annotate(form.b)
    np.testing.assert_array_equal(form.written(form.a), drawn(EMPTY, 2, 3))
    form.press("restore")
    np.testing.assert_array_equal(form.annotation(form.b).data, OLD)


def test_an_annotation_of_which_there_is_much_waits_for_the_one_before(
    form: Form,
) -> None:
    form.annotate(form.a)
    for column in range(_autosave.SET_ASIDE + 2):
        _autosave.keep_aside(identity(form.a), drawn(EMPTY, 1, column), "dense")
    _autosave.keep(identity(form.a), OLD, "dense")
    _autosave.set_aside(identity(form.a))
    found = _autosave.kept_aside(identity(form.a))
    assert len(found) == _autosave.SET_ASIDE
    np.testing.assert_array_equal(found[0].read(), OLD)


@pytest.mark.parametrize("way", ["hidden", "put away", "all layers gone"])
def test_the_last_strokes_are_kept_when_it_ends(form: Form, way: str) -> None:
    form.annotate(form.a)
    form.annotation(form.a).data_setitem(SPOT, 1)
    assert form.written(form.a) is None
    if way == "hidden":
        form.widget.show()
        form.widget.hide()
    elif way == "put away":
        form.viewer.window.remove_dock_widget("all")
    else:
        form.viewer.layers.remove(form.annotation(form.a))
    np.testing.assert_array_equal(form.written(form.a), drawn(EMPTY, 2, 3))


def test_it_is_kept_while_somebody_goes_on_drawing(
    make_napari_viewer_proxy: Callable[[], Any],
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_keeping, "DELAY", 200)
    form = Form(make_napari_viewer_proxy(), qtbot)
    form.annotate(form.a)
    layer = form.annotation(form.a)
    strokes = iter(range(1, 100_000))

    def kept_meanwhile() -> bool:
        layer.data_setitem(SPOT, next(strokes))  # no rest is as long as the delay
        return _autosave.kept(identity(form.a)) is not None

    form.wait(kept_meanwhile)


def test_what_is_undone_is_kept_so(form: Form) -> None:
    form.annotate(form.a)
    layer = form.annotation(form.a)
    layer.data_setitem(SPOT, 1)
    layer.data_setitem((SPOT[0] + 4, SPOT[1]), 2)
    form.widget._restore.flush()
    layer.undo()
    form.widget._restore.flush()
    np.testing.assert_array_equal(form.written(form.a), drawn(EMPTY, 2, 3))
    layer.undo()
    form.widget._restore.flush()
    form.wait(lambda: form.written(form.a) is None)


def test_a_damaged_file_is_told_and_stops_nothing(form: Form) -> None:
    path = _autosave.keep(identity(form.a), OLD, "dense")
    path.write_bytes(path.read_bytes()[:-4])
    os.utime(path)
    form.annotate(form.a)
    if form.offers:
        form.press("restore")
    layer = form.annotation(form.a)
    layer.data_setitem(SPOT, 1)
    form.widget._restore.flush()
    np.testing.assert_array_equal(form.written(form.a), layer.data)


def test_in_a_folder_strokes_first_do_not_replace_what_is_offered(
    form: Form, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    np.save(images / "one.npy", np.random.default_rng(1).random(SHAPE))
    np.save(images / "two.npy", np.random.default_rng(2).random(SHAPE))
    one = file_identity(images / "one.npy")
    _autosave.keep(one, OLD, "instances")
    folder = form.widget.folder
    form.widget.open_folder(images)
    folder.open_row(0)
    form.wait(lambda: "one: annotation" in form.viewer.layers)
    form.viewer.layers["one: annotation"].data_setitem(SPOT, 1)
    folder.open_row(1)  # saves the stroke
    form.wait(lambda: "two: annotation" in form.viewer.layers)
    form.wait((images / "annotations" / "one.tif").exists)
    folder.open_row(0)
    form.wait(lambda: "one: annotation" in form.viewer.layers)
    assert form.offers
    form.press("restore")
    layer = form.viewer.layers["one: annotation"]
    np.testing.assert_array_equal(layer.data, OLD)
    folder.save()
    form.wait(lambda: not _autosave.kept_names())
