"""A phrase in the Segment form: typed, τ moved, segments clicked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fake_engine import FakeEngine
from qtpy.QtWidgets import QComboBox, QLineEdit, QPushButton, QWidget

from napari_medseg.models.diffusion_store import NOTE, place
from napari_medseg.widgets.segment import SegmentWidget

if TYPE_CHECKING:
    from collections.abc import Callable

SEGMENTS = np.repeat(np.array([[1] * 4 + [2] * 3 + [3] * 2], np.int32), 8, axis=0)
"""Three upright stripes."""


class Stripes(FakeEngine):
    """Takes the middle stripe for what the phrase means, and follows clicks."""

    def answer(self) -> None:
        _, arguments, task = self.jobs.pop(0)
        task.running = False
        chosen = {2}
        for row, column, adds in arguments["phrase"]["clicks"].get(
            arguments["key"], []
        ):
            segment = int(SEGMENTS[int(row), int(column)])
            chosen = chosen | {segment} if adds else chosen - {segment}
        labels = np.isin(SEGMENTS, list(chosen)).astype(np.int32)
        classes = [
            {"name": "background", "colour": "#00000000"},
            {"name": "wound", "colour": "#e69f00"},
        ]
        answer = {"labels": labels, "kinds": [], "segments": SEGMENTS.copy()}
        task.listener.on_done(answer | {"classes": classes, "note": ""})


@pytest.fixture
def viewer(make_napari_viewer_proxy: Callable[[], Any]) -> Any:
    folder = place("mine")
    folder.mkdir(parents=True)
    (folder / NOTE).write_text(json.dumps({"title": "mine"}))
    return make_napari_viewer_proxy()


@pytest.fixture
def form(viewer: Any) -> SegmentWidget:
    viewer.add_image(np.zeros((8, 9), np.float32), name="photo", scale=(2, 2))
    widget = SegmentWidget(viewer, Stripes())
    viewer.window.add_dock_widget(widget)
    widget.reset_choices()
    box = control(widget, "model", QComboBox)
    assert not widget.phrase.isVisibleTo(widget)
    box.setCurrentText("A phrase: mine")
    assert widget.phrase.isVisibleTo(widget)
    control(widget, "phrase", QLineEdit).setText("infected wound")
    return widget


def control(widget: QWidget, name: str, kind: Any = QWidget) -> Any:
    found = widget.findChild(kind, name)
    assert found is not None
    return found


def engine_of(widget: SegmentWidget) -> Stripes:
    engine = widget._engine
    assert isinstance(engine, Stripes)
    return engine


def asked(widget: SegmentWidget) -> tuple[str, dict[str, Any]]:
    jobs = [job for job in engine_of(widget).jobs if job[0] != "measure"]
    (name, arguments, _) = jobs[-1]
    return name, arguments


def test_a_phrase_gives_labels_and_all_segments(
    form: SegmentWidget, viewer: Any
) -> None:
    control(form, "segment", QPushButton).click()
    name, arguments = asked(form)
    assert name == "segment"
    assert arguments["model"] == "phrase:infected wound; model=mine"
    assert arguments["phrase"] == {"tau": 0.9, "clicks": {}}
    engine_of(form).answer()
    labels, segments = (
        viewer.layers[name] for name in ("photo: infected wound", "photo: segments")
    )
    np.testing.assert_array_equal(labels.data, SEGMENTS == 2)
    np.testing.assert_array_equal(segments.data, SEGMENTS)
    np.testing.assert_allclose(segments.scale, (2, 2))
    assert segments.contour == 1


def test_tau_acts_on_what_is_kept(form: SegmentWidget, qtbot: Any) -> None:
    control(form, "segment", QPushButton).click()
    engine_of(form).answer()
    with qtbot.waitSignal(form.phrase.changed, timeout=20_000):
        control(form, "tau").setValue(0.4)
    name, arguments = asked(form)
    assert name == "relabel"
    assert arguments["phrase"]["tau"] == pytest.approx(0.4)


def test_clicks_add_segments_and_take_them_away(
    form: SegmentWidget, viewer: Any
) -> None:
    control(form, "segment", QPushButton).click()
    engine_of(form).answer()
    labels = viewer.layers["photo: infected wound"]
    for column, wanted in ((1, {1, 2}), (5, {1}), (1, set())):
        form.phrase.click((2 * 3.0, 2 * column))  # the scale is 2
        name, arguments = asked(form)
        assert name == "relabel"
        engine_of(form).jobs = [engine_of(form).jobs[-1]]
        engine_of(form).answer()
        np.testing.assert_array_equal(labels.data, np.isin(SEGMENTS, list(wanted)))
    assert len(next(iter(arguments["phrase"]["clicks"].values()))) == 3
    before = len(engine_of(form).jobs)
    form.phrase.click((100.0, 100.0))  # beside the image
    assert len(engine_of(form).jobs) == before
    control(form, "forget clicks", QPushButton).click()
    engine_of(form).answer()
    np.testing.assert_array_equal(labels.data, SEGMENTS == 2)


def test_the_mouse_counts_while_the_button_is_pressed(
    form: SegmentWidget, viewer: Any
) -> None:
    class Event:
        button = 1
        position = (2 * 3.0, 2 * 1.0)

    control(form, "segment", QPushButton).click()
    engine_of(form).answer()
    form.phrase._on_mouse(viewer, Event())
    assert form.phrase.values() == {"tau": 0.9, "clicks": {}}
    control(form, "click segments", QPushButton).setChecked(True)
    form.phrase._on_mouse(viewer, Event())
    (clicks,) = form.phrase.values()["clicks"].values()
    assert clicks == [[3.0, 1.0, True]]


def test_enter_segments_and_the_command_says_tau(
    form: SegmentWidget, qtbot: Any
) -> None:
    control(form, "tau").setValue(0.5)
    with qtbot.waitSignal(form.phrase.asked, timeout=20_000):
        control(form, "phrase", QLineEdit).returnPressed.emit()
    assert asked(form)[0] == "segment"
    whole = form.phrase.model(form.models.model, whole=True)
    assert whole == "phrase:infected wound; model=mine; tau=0.5"
