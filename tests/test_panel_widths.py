"""Nothing is wider than a docked panel, in whatever state and theme a form is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fake_engine import FakeEngine
from qtpy.QtWidgets import QApplication, QLabel, QWidget

from napari_medseg.widgets._words import USUAL, Words
from napari_medseg.widgets.annotate import AnnotateWidget
from napari_medseg.widgets.batch import BatchWidget
from napari_medseg.widgets.measure import MeasureWidget
from napari_medseg.widgets.review import ReviewWidget
from napari_medseg.widgets.segment import SegmentWidget
from napari_medseg.widgets.tune import TuneWidget

if TYPE_CHECKING:
    from collections.abc import Callable

WIDEST = 420
"""Pixels; napari's own panels take about 300."""

LONG = "cells_of_the_second_experiment_without_any_space_in_their_name.ome"
PATH = f"/home/somebody/{LONG}/{LONG}/model 2026-11-28 12.00.00.medseg"

REPORT = {
    "parameters": 2048,
    "seconds": 49.2,
    "images": 16,
    "held_out_scores": {"dice": 0.91, "iou": 0.84, "dice_sd": 0.03, "images": 4},
    "untuned_scores": {"dice": 0.95, "iou": 0.9, "dice_sd": 0.1, "images": 4},
    "warnings": [
        "It is no better than SAM untuned on the images held out: annotate more of "
        "them, or use SAM untuned.",
        "Only 3 images were annotated; with fewer than 8 the score says little.",
    ],
}


@pytest.fixture(params=["dark", "light"])
def viewer(make_napari_viewer_proxy: Callable[[], Any], request: Any) -> Any:
    viewer = make_napari_viewer_proxy()
    viewer.theme = request.param
    viewer.add_image(np.random.default_rng(0).random((4, 64, 64)), name=LONG)
    labels = np.zeros((4, 64, 64), np.int32)
    labels[:, 10:20, 10:20] = 1
    viewer.add_labels(labels, name=f"{LONG}: annotation")
    return viewer


def docked(viewer: Any, form: QWidget) -> Any:
    viewer.window.add_dock_widget(form)
    if hasattr(form, "reset_choices"):  # napari calls it of those that list layers
        form.reset_choices()
    return form


def assert_narrow(form: QWidget, state: str) -> None:
    QApplication.processEvents()
    for width in (form.minimumSizeHint().width(), form.sizeHint().width()):
        assert width <= WIDEST, f"{state}: asks for {width} pixels"


@pytest.mark.parametrize(
    "kind",
    [
        AnnotateWidget,
        TuneWidget,
        SegmentWidget,
        BatchWidget,
        MeasureWidget,
        ReviewWidget,
    ],
)
def test_a_form_is_narrow_and_so_it_stays_when_it_speaks(
    viewer: Any, kind: Any
) -> None:
    form = docked(viewer, kind(viewer, FakeEngine()))
    assert_narrow(form, "at first")
    for label in form.findChildren(Words):
        label.setText(
            f"{PATH} cannot be written: there is no room left. Try elsewhere."
        )
        label.setVisible(True)
    assert_narrow(form, "with long sentences")


def test_tune_is_narrow_from_the_list_to_the_card(viewer: Any) -> None:
    form = docked(viewer, TuneWidget(viewer, FakeEngine()))
    image, labels = viewer.layers[0], viewer.layers[1]
    form.source.choose_layers(image, labels)
    for button in ("Check", "Tune"):
        form.findChild(object, button).click()
        assert_narrow(form, button)
    form.findChild(object, "Pause").click()
    assert_narrow(form, "paused")
    listener = form._engine.jobs[-1][2].listener
    listener.on_done({"model": PATH, "report": REPORT, "suspects": []})
    assert form.card.isVisibleTo(form)
    assert_narrow(form, "with the card")
    form._choice.folded.expand(animate=False)
    assert_narrow(form, "with the settings")
    form.source.choose_folders(Path(PATH), Path(PATH))
    assert_narrow(form, "from folders")


def test_segment_tells_the_whole_name_of_a_model(viewer: Any) -> None:
    form = docked(viewer, SegmentWidget(viewer, FakeEngine()))
    about = form.findChild(QLabel, "about the model")
    box = form.findChild(object, "model")
    for index in range(box.count()):
        box.setCurrentIndex(index)
        assert box.itemText(index) in about.text()
        assert_narrow(form, box.itemText(index))


def test_long_words_are_broken(qtbot: Any) -> None:
    label = Words("told")
    qtbot.addWidget(label)
    label.setText("a_" * 400)
    assert label.sizeHint().width() == USUAL
    assert label.sizeHint().height() > 5 * label.fontMetrics().height()
    label.setText("<b>1 & 2</b>")
    assert label.text() == "<b>1 & 2</b>"
