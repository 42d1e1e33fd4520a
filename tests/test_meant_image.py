"""What is suggested and drawn belongs to the image and the slice that are meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from fake_engine import Sam
from qtpy.QtWidgets import QLabel, QPushButton

from napari_medseg._types import JobError
from napari_medseg.widgets._canvas import DRAWN_ON, SUGGESTION
from napari_medseg.widgets.annotate import AnnotateWidget

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHAPE = (30, 40)


class Form:
    """The widget, docked."""

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self.engine = Sam()
        self.widget = AnnotateWidget(viewer, self.engine)
        viewer.window.add_dock_widget(self.widget)

    def add(self, shape: tuple[int, ...], seed: int = 0, **options: Any) -> Any:
        pixels = np.random.default_rng(seed).random(shape)
        return self.viewer.add_image(pixels, **{"name": "img", **options})

    def annotate(self, image: Any) -> Any:
        """Begin with an image, and return its annotation."""
        self.widget.reset_choices()
        self.widget.choose(image)
        button = self.widget.findChild(QPushButton, "start")
        assert button is not None
        button.click()
        self.engine.answer_all()
        assert self.widget._canvas is not None
        return self.widget._canvas.annotation

    def accept(self, *place: float) -> None:
        self.widget.click(place)
        self.engine.answer_all()
        self.widget.accept()

    @property
    def suggests(self) -> bool:
        return bool(np.asarray(self.viewer.layers[SUGGESTION].data).any())

    @property
    def told(self) -> str:
        label = self.widget.findChild(QLabel, "told")
        assert label is not None
        return str(label.text())


@pytest.fixture
def form(make_napari_viewer_proxy: Callable[[], Any]) -> Form:
    return Form(make_napari_viewer_proxy())


@pytest.mark.parametrize("shape", [SHAPE, (60, 80), (20, 20)])
def test_another_image_of_the_same_name_gets_its_own_annotation(
    form: Form, shape: tuple[int, int]
) -> None:
    first = form.add(SHAPE)
    old = form.annotate(first)
    form.accept(12, 15)
    before = np.array(old.data)
    form.viewer.layers.remove(first)
    second = form.add(shape, seed=1)
    new = form.annotate(second)
    assert new.data.shape == shape
    assert not new.data.any()
    form.accept(shape[0] - 5, shape[1] - 5)
    assert new.data.any()
    np.testing.assert_array_equal(old.data, before)
    assert form.annotate(second) == new, "it is found again under whatever name"


def test_an_image_that_is_renamed_or_opened_again_keeps_its_annotation(
    form: Form, tmp_path: Path
) -> None:
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, np.random.default_rng(0).random(SHAPE, np.float32))
    (image,) = form.viewer.open(path, plugin="napari")
    layer = form.annotate(image)
    form.accept(12, 15)
    form.viewer.layers.remove(image)
    (again,) = form.viewer.open(path, plugin="napari")
    assert form.annotate(again) == layer
    again.name = "renamed"
    assert form.annotate(again) == layer


def test_an_annotation_from_elsewhere_is_taken_by_name_and_size(form: Form) -> None:
    image = form.add(SHAPE)
    form.viewer.add_labels(np.ones((9, 9), int), name="img: annotation")
    mine = form.viewer.add_labels(np.ones(SHAPE, int), name="other")
    assert form.annotate(image).data.shape == SHAPE
    form.viewer.layers.remove("img: annotation")
    form.viewer.layers.remove("img: annotation [1]")
    mine.name = "img: annotation"
    assert form.annotate(image) == mine
    assert DRAWN_ON in mine.metadata


def test_labels_that_are_preserved_stay(form: Form) -> None:
    layer = form.annotate(form.add(SHAPE))
    layer.data[:, :15] = 5
    layer.preserve_labels = True
    layer.selected_label = 7
    form.accept(12, 15)
    assert (layer.data[:, :15] == 5).all()
    assert (layer.data[11:14, 15:17] == 7).all()
    layer.undo()
    assert not (layer.data == 7).any()
    layer.preserve_labels = False
    form.accept(12, 15)
    assert (layer.data[11:14, 14:17] == 7).all()


def test_an_answer_for_the_slice_before_is_not_shown(form: Form) -> None:
    layer = form.annotate(form.add((5, *SHAPE)))
    form.viewer.dims.set_current_step(0, 0)
    form.widget.click((0, 12, 15))
    form.engine.answer_all()
    form.widget.click((0, 13, 15))
    _, _, late = form.engine.jobs[-1]
    form.viewer.dims.set_current_step(0, 3)
    assert not late.running
    form.engine.answer_all()
    assert not form.suggests
    form.widget.accept()
    assert not layer.data.any()


def test_a_shape_drawn_at_once_is_on_the_slice_in_view(form: Form) -> None:
    layer = form.annotate(form.add((5, *SHAPE)))
    form.viewer.dims.set_current_step(0, 3)
    assert form.widget._canvas is not None
    form.widget._canvas.shapes.add_rectangles([[4, 6], [4, 12], [10, 12], [10, 6]])
    form.engine.answer_all()
    form.widget.accept()
    assert np.unique(np.nonzero(layer.data)[0]).tolist() == [3]


def test_a_click_after_sam_could_not_look_has_it_look_again(form: Form) -> None:
    form.annotate(form.add(SHAPE))
    form.widget._look()
    name, _, task = form.engine.jobs.pop()
    assert name == "look"
    task.listener.on_failed(JobError("The memory ran out."))
    assert "memory" in form.told
    for _ in range(2):
        form.widget.click((12, 15))
        (name, _, task), *others = form.engine.jobs
        assert (name, others) == ("look", [])
        form.engine.jobs.clear()
        form.widget._tell("")
        task.listener.on_failed(JobError("The memory ran out."))
        assert "memory" in form.told
    form.widget.click((12, 15))
    form.engine.answer_all()
    assert form.suggests
