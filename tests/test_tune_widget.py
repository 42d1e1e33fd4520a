"""The Tune form as a user meets it: choose, tune, watch, save, apply."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph
import pytest
from fake_engine import FakeEngine
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QComboBox, QLabel, QLineEdit, QListWidget, QPushButton

from napari_medseg._types import JobError, Progress
from napari_medseg.engine import Engine
from napari_medseg.inference import load
from napari_medseg.io.images import write_labels
from napari_medseg.widgets import _models
from napari_medseg.widgets._card import card_text
from napari_medseg.widgets._models import ModelEntry
from napari_medseg.widgets.segment import SegmentWidget
from napari_medseg.widgets.tune import TuneWidget

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SCORE = {"dice": 0.91, "iou": 0.84, "dice_sd": 0.03, "images": 4}
UNTUNED = {"dice": 0.35, "iou": 0.22, "dice_sd": 0.1, "images": 4}
REPORT = {
    "parameters": 2048,
    "seconds": 49.2,
    "images": 16,
    "held_out_scores": SCORE,
    "untuned_scores": UNTUNED,
    "warnings": ["No image that was trained on shows class 2; annotate some."],
}


class Form:
    """The widget with its controls by name."""

    def __init__(self, widget: TuneWidget, engine: Any) -> None:
        self.widget = widget
        self.engine = engine

    def button(self, name: str) -> Any:
        found = self.widget.findChild(QPushButton, name)
        assert found is not None
        return found

    def press(self, name: str) -> None:
        assert self.button(name).isEnabled(), f"{name} cannot be pressed"
        self.button(name).click()

    @property
    def told(self) -> str:
        label = self.widget.findChild(QLabel, "told")
        assert label is not None
        return str(label.text())

    @property
    def rows(self) -> list[str]:
        found = self.widget.findChild(QListWidget, "images found")
        assert found is not None
        return [found.item(index).text() for index in range(found.count())]


@pytest.fixture
def viewer(make_napari_viewer_proxy: Callable[[], Any]) -> Any:
    return make_napari_viewer_proxy()


def docked(viewer: Any, engine: Any) -> Form:
    widget = TuneWidget(viewer, engine)
    viewer.window.add_dock_widget(widget)
    widget.reset_choices()
    return Form(widget, engine)


def blobs(count: int, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return images with a bright square each, and the squares."""
    rng = np.random.default_rng(0)
    masks = np.zeros((count, size, size), np.int32)
    for mask in masks:
        row, column = rng.integers(4, size // 2, 2)
        mask[row : row + size // 4, column : column + size // 4] = 1
    images = 0.2 + 0.6 * masks + rng.normal(0, 0.05, masks.shape)
    return images.astype(np.float32), masks


def with_layers(viewer: Any, engine: Any, annotated: int = 4) -> Form:
    images, masks = blobs(6)
    masks[annotated:] = 0
    form = docked(viewer, engine)
    image = viewer.add_image(images, name="cells", scale=(1, 0.5, 0.5))
    labels = viewer.add_labels(masks, scale=(1, 0.5, 0.5))
    form.widget.reset_choices()
    form.widget.source.choose_layers(image, labels)
    return form


def test_annotated_slices_are_what_is_trained_on(viewer: Any) -> None:
    form = with_layers(viewer, FakeEngine(), annotated=4)
    viewer.dims.set_current_step(0, 5)
    form.press("Tune")
    name, arguments, _ = form.engine.jobs[0]
    assert name == "train"
    assert [pair["name"] for pair in arguments["pairs"]] == [
        f"cells {index}" for index in range(4)
    ]
    assert arguments["pairs"][0]["image"].shape == (1, 64, 64)
    assert arguments["annotation"] == "dense"
    assert arguments["method"] == "ptsam"
    assert arguments["config"] == {"sam": "nano"}
    images, _ = blobs(6)
    np.testing.assert_array_equal(arguments["watch"][0], images[5])
    assert arguments["out"].endswith(".medseg")


@pytest.mark.parametrize("folders", [False, True])
def test_a_viewer_in_3d_has_no_preview_but_tunes(
    viewer: Any, tmp_path: Path, qtbot: Any, folders: bool
) -> None:
    form = with_layers(viewer, FakeEngine())
    if folders:
        form.widget.source.choose_folders(tmp_path, tmp_path)
    viewer.dims.ndisplay = 3
    before = len(viewer.layers)
    form.press("Tune")
    assert form.engine.jobs[0][1]["watch"] is None
    assert len(viewer.layers) == before
    listener = form.engine.jobs[0][2].listener
    listener.on_progress(Progress(1, 4, "training", {"loss": 1.0}))
    qtbot.waitUntil(lambda: form.told.startswith("training"))
    assert "No preview" in form.told


def test_folders_get_a_layer_with_their_first_preview(
    viewer: Any, tmp_path: Path, qtbot: Any
) -> None:
    form = with_layers(viewer, FakeEngine())
    form.widget.source.choose_folders(tmp_path, tmp_path)
    before = len(viewer.layers)
    form.press("Tune")
    assert len(viewer.layers) == before
    seen = np.ones((64, 64), np.int32)
    listener = form.engine.jobs[0][2].listener
    listener.on_progress(Progress(1, 4, "training", {"loss": 1.0}, seen))
    qtbot.waitUntil(lambda: "cells: preview" in viewer.layers)


def test_what_is_drawn_meanwhile_is_not_trained_on(viewer: Any) -> None:
    form = with_layers(viewer, FakeEngine())
    form.press("Tune")
    sent = form.engine.jobs[0][1]["pairs"][0]["annotation"]
    before = sent.copy()
    viewer.layers[-1].data[...] = 3
    np.testing.assert_array_equal(sent, before)


def test_progress_is_drawn_and_previewed(viewer: Any, qtbot: Any) -> None:
    form = with_layers(viewer, FakeEngine())
    viewer.dims.set_current_step(0, 2)
    form.press("Tune")
    listener = form.engine.jobs[0][2].listener
    preview = np.ones((64, 64), np.int32)
    for step in range(1, 5):
        metrics = {"loss": 1.0 / step}
        if step == 4:
            metrics["held_out_dice"] = 0.8
        seen = preview if step == 4 else None
        listener.on_progress(Progress(step, 4, "training", metrics, seen))
    assert [step for step, _ in form.widget.curve.losses] == [1, 2, 3, 4]
    assert form.widget.curve.dices == [(4, 0.8)]
    layer = viewer.layers["cells: preview"]
    qtbot.waitUntil(lambda: bool((layer.data[2] == 1).all()))
    assert not layer.data[3].any()
    np.testing.assert_allclose(layer.scale, (1, 0.5, 0.5))


def test_folds_are_drawn_one_after_another(viewer: Any) -> None:
    form = with_layers(viewer, FakeEngine())
    form.press("Tune")
    listener = form.engine.jobs[0][2].listener
    for step in (1, 2, 1, 2):
        listener.on_progress(Progress(step, 2, "training", {"loss": 1.0}))
    assert [step for step, _ in form.widget.curve.losses] == [1, 2, 3, 4]


def test_pause_continue_stop(viewer: Any) -> None:
    form = with_layers(viewer, FakeEngine())
    form.press("Tune")
    task = form.engine.jobs[0][2]
    form.press("Pause")
    assert form.button("Pause").text() == "Continue"
    form.press("Pause")
    form.press("Stop")
    assert task.asked == ["pause", "resume", "end early"]
    assert not form.button("Tune").isEnabled()


def test_cancel_and_failure_leave_a_form_that_works(viewer: Any) -> None:
    form = with_layers(viewer, FakeEngine())
    form.press("Tune")
    form.press("Cancel")
    assert "Cancelled" in form.told
    form.press("Tune")
    form.engine.jobs[-1][2].listener.on_failed(JobError("Memory ran out."))
    assert form.told == "Memory ran out."
    form.press("Tune")
    assert len(form.engine.jobs) == 3


def result_of(model: Path, suspects: Sequence[np.ndarray] = ()) -> dict[str, Any]:
    """Return what the job ``train`` gives."""
    return {
        "model": str(model),
        "report": REPORT,
        "history": [],
        "config": {},
        "suspects": list(suspects),
    }


def test_images_without_annotation_are_a_setting(viewer: Any, tmp_path: Path) -> None:
    form = with_layers(viewer, FakeEngine())
    form.widget.set_config({"unlabelled": str(tmp_path)})
    form.press("Tune")
    assert form.engine.jobs[0][1]["config"]["unlabelled"] == str(tmp_path)
    assert f"--unlabelled {tmp_path}" in form.widget.copy_command(tmp_path, tmp_path)


def test_suspect_labels_are_shown_over_their_slices(
    viewer: Any, tmp_path: Path
) -> None:
    """As they were annotated when the training began; a second time in its place."""
    form = with_layers(viewer, FakeEngine())
    form.widget.set_config({"label_noise": "spatial"})
    form.press("Tune")
    assert form.engine.jobs[0][1]["config"]["label_noise"] == "spatial"
    viewer.layers["masks"].data[5] = 1  # drawn meanwhile
    found = [np.full((64, 64), 0.1 * index, np.float32) for index in range(4)]
    form.engine.jobs[0][2].listener.on_done(result_of(tmp_path / "a.medseg", found))
    layer = viewer.layers["cells: suspect labels"]
    for index, slice_ in enumerate(found):
        np.testing.assert_array_equal(layer.data[index], slice_)
    assert not layer.data[4:].any()
    assert tuple(layer.contrast_limits) == (0, 1)
    np.testing.assert_allclose(layer.scale, (1, 0.5, 0.5))
    form.press("Tune")
    again = [found[3]] * 5
    form.engine.jobs[-1][2].listener.on_done(result_of(tmp_path / "a.medseg", again))
    shown = [item for item in viewer.layers if "suspect" in item.name]
    assert [item.name for item in shown] == [layer.name]
    np.testing.assert_array_equal(layer.data[5], found[3])


def test_without_doubts_no_layer_is_added(viewer: Any, tmp_path: Path) -> None:
    form = with_layers(viewer, FakeEngine())
    form.press("Tune")
    count = len(viewer.layers)
    form.engine.jobs[0][2].listener.on_done(result_of(tmp_path / "a.medseg"))
    assert len(viewer.layers) == count


def test_the_card_says_how_good_it_is(viewer: Any, tmp_path: Path) -> None:
    form = with_layers(viewer, FakeEngine())
    form.press("Tune")
    model = tmp_path / "cells.medseg"
    model.write_bytes(b"a model")
    form.engine.jobs[0][2].listener.on_done(result_of(model))
    text = form.widget.card.text()
    assert "0.91 ± 0.03" in text
    assert "4 images held out" in text
    assert "untuned: 0.35" in text
    assert "class 2" in text
    form.widget.save(tmp_path / "copy.medseg")
    assert (tmp_path / "copy.medseg").read_bytes() == b"a model"
    form.widget.save(tmp_path / "no" / "folder.medseg")
    assert "cannot be written" in form.told


def test_a_segment_form_that_is_open_lists_the_new_model(
    viewer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    segment = SegmentWidget(viewer, FakeEngine())
    viewer.window.add_dock_widget(segment)
    form = with_layers(viewer, FakeEngine())
    segment.models.choose("otsu")
    entry = ModelEntry(str(tmp_path / "a.medseg"), "the new one", "")
    monkeypatch.setattr(_models, "_own", lambda: [entry])
    form.press("Tune")
    form.engine.jobs[0][2].listener.on_done(result_of(tmp_path / "a.medseg"))
    box = segment.findChild(QComboBox, "model")
    assert box.findText("the new one") >= 0
    assert segment.models.model == "otsu"


def test_a_card_without_a_score() -> None:
    text = card_text(REPORT | {"held_out_scores": None, "untuned_scores": None})
    assert "No held-out score" in text


def test_layers_that_do_not_fit_are_refused_in_words(viewer: Any) -> None:
    form = with_layers(viewer, FakeEngine())
    other = viewer.add_labels(np.ones((3, 64, 64), np.int32))
    form.widget.reset_choices()
    form.widget.source.choose_layers(viewer.layers["cells"], other)
    form.press("Tune")
    assert not form.engine.jobs
    assert "labels layer made for this image" in form.told


def test_layers_that_do_not_fit_are_not_saved_for_a_command(
    viewer: Any, tmp_path: Path
) -> None:
    form = with_layers(viewer, FakeEngine(), annotated=0)
    assert form.widget.save_annotated(tmp_path) is None
    assert "paint on at least one slice" in form.told
    assert not list(tmp_path.iterdir())


def test_nothing_annotated(viewer: Any) -> None:
    form = with_layers(viewer, FakeEngine(), annotated=0)
    form.press("Tune")
    assert not form.engine.jobs
    assert "paint on at least one slice" in form.told


def test_scribbles_without_background_are_noticed(viewer: Any) -> None:
    form = with_layers(viewer, FakeEngine())
    viewer.layers[-1].data[viewer.layers[-1].data == 1] = 2
    form.widget.source.choose_kind("sparse")
    form.press("Check")
    assert all("no scribble on the background" in row for row in form.rows)


def test_what_the_numbers_mean_is_taken_from_the_layer(viewer: Any) -> None:
    form = with_layers(viewer, FakeEngine())
    image, plain = viewer.layers
    noted = viewer.add_labels(plain.data.copy(), metadata={"annotation": "sparse"})
    form.widget.reset_choices()
    form.widget.source.choose_layers(image, noted)
    kinds = form.widget.findChild(object, "kind")
    assert kinds.currentText() == "scribbles"
    form.press("Tune")
    assert form.engine.jobs[-1][1]["annotation"] == "sparse"
    form.press("Cancel")
    form.widget.source.choose_kind("dense")
    form.widget.reset_choices()
    form.press("Tune")
    assert form.engine.jobs[-1][1]["annotation"] == "dense", (
        "the user has the last word"
    )
    form.press("Cancel")
    noted.metadata = {"annotation": "instances"}
    assert form.widget.source.kind == "instances"
    form.widget.source.choose_layers(image, plain)
    noted.metadata = {"annotation": "sparse"}
    assert form.widget.source.kind == "instances", "this layer is not chosen any more"
    plain.metadata = {"annotation": "what no version of this plugin notes"}
    assert form.widget.source.kind == "instances"


def test_settings_of_the_form_reach_the_training(viewer: Any) -> None:
    form = with_layers(viewer, FakeEngine())
    form.widget.set_config({"steps": 7, "views": 0, "initial": "click"})
    form.press("Tune")
    config = form.engine.jobs[0][1]["config"]
    assert config == {"sam": "nano", "steps": 7, "views": 0, "initial": "click"}


def test_channels_of_folders_reach_the_training(viewer: Any, tmp_path: Path) -> None:
    form = docked(viewer, FakeEngine())
    form.widget.source.choose_folders(tmp_path / "images", tmp_path / "masks")
    line = form.widget.source.findChild(QLineEdit, "channels")
    line.insert("x2,")  # keys that are no number do nothing
    assert line.text() == ""
    line.insert("2")
    form.press("Tune")
    assert form.engine.jobs[-1][1]["channels"] == [2]
    told = form.widget.copy_command(tmp_path / "images", tmp_path / "masks")
    assert "--channels 2" in told
    form = with_layers(viewer, FakeEngine())
    form.widget.source.findChild(QLineEdit, "channels").insert("2")
    assert form.widget.source.channels == []


def save_folder(folder: Path, count: int) -> Path:
    images, masks = blobs(count)
    for place in ("images", "masks"):
        (folder / place).mkdir()
    for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
        write_labels(
            folder / "images" / f"im{index}.tif", (255 * image).astype(np.int32)
        )
        write_labels(folder / "masks" / f"im{index}.tif", mask)
    return folder


@pytest.mark.slow
def test_the_real_engine_tunes_from_folders_and_layers(
    viewer: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice in one session, and the file gives what the preview showed."""
    monkeypatch.setenv("NAPARI_MEDSEG_WEIGHTS", str(tmp_path / "weights"))
    folder = save_folder(tmp_path, 4)
    (folder / "masks" / "im3.tif").write_bytes(b"")
    form = docked(viewer, None)
    form.widget.source.choose_folders(folder / "images", folder / "masks")
    form.press("Check")
    qtbot.waitUntil(lambda: bool(form.rows), timeout=120_000)
    assert "im3.tif" in form.rows[0]
    assert form.rows[0].startswith("✗")
    (folder / "masks" / "im3.tif").unlink()
    (folder / "images" / "im3.tif").unlink()
    settings = {"steps": 4, "views": 0, "working_size": 64}
    form.widget.set_config(settings)
    with qtbot.waitSignal(form.widget.tuned, timeout=240_000) as first:
        form.press("Tune")
    assert load(first.args[0], "cpu").classes
    images, masks = blobs(4)
    image = viewer.add_image(images, name="cells")
    labels = viewer.add_labels(masks)
    form.widget.reset_choices()
    form.widget.source.choose_layers(image, labels)
    with qtbot.waitSignal(form.widget.tuned, timeout=240_000) as second:
        form.press("Tune")
    model = load(second.args[0], "cpu")
    shown = viewer.layers["cells: preview"].data
    assert shown.shape == images.shape
    assert model.predict(images[:1]).labels.shape == (64, 64)


def test_another_method_has_another_form(viewer: Any) -> None:
    form = with_layers(viewer, FakeEngine())
    assert form.widget.findChild(object, "border") is None
    methods = form.widget.findChild(object, "method")
    methods.setCurrentIndex(methods.findData("ptsam-objects"))
    assert form.widget.findChild(object, "border") is not None
    form.widget.set_config({"border": 3.0})
    form.press("Tune")
    arguments = form.engine.jobs[0][1]
    assert arguments["method"] == "ptsam-objects"
    assert arguments["config"] == {"sam": "nano", "border": 3.0}


def test_a_network_from_scratch_has_no_sam(viewer: Any) -> None:
    form = with_layers(viewer, FakeEngine())
    form.widget.show()
    methods = form.widget.findChild(object, "method")
    base = form.widget.findChild(object, "sam")
    assert not base.isHidden()
    methods.setCurrentIndex(methods.findData("med2d"))
    assert base.isHidden()
    about = form.widget.findChild(QLabel, "about the method")
    assert "from scratch" in about.text()
    form.widget.set_config({"window": 128})
    form.press("Tune")
    arguments = form.engine.jobs[0][1]
    assert arguments["method"] == "med2d"
    assert arguments["config"] == {"window": 128}


def test_the_report_of_an_added_channel() -> None:
    """It names the model before, and what either channel is worth alone."""
    own = {"untuned_name": "the old model", "old_alone": 0.8, "new_alone": 0.61}
    text = card_text(REPORT | own)
    assert "The old model: " in text and "SAM" not in text
    assert "With the old channel alone: 0.80" in text
    assert "With the new channel alone: 0.61" in text


def test_the_card_of_a_network_names_a_threshold_and_no_sam() -> None:
    text = card_text(REPORT | {"untuned_scores": None, "otsu": 0.712})
    assert "Otsu's threshold: 0.71" in text
    assert "SAM" not in text


def test_the_plot_follows_the_theme(viewer: Any) -> None:
    form = with_layers(viewer, FakeEngine())
    form.widget.show()
    form.press("Tune")
    for theme in ("light", "dark"):
        viewer.theme = theme
        plot = form.widget.curve.findChild(pyqtgraph.PlotWidget)
        paper = plot.backgroundBrush().color()
        assert (paper.lightness() > 128) == (theme == "light")


def test_the_layer_that_is_drawn_on_stays_chosen(viewer: Any) -> None:
    form = with_layers(viewer, FakeEngine())
    drawn_on = viewer.layers[1]
    viewer.layers.selection = {drawn_on}
    form.press("Tune")
    assert [item.name for item in viewer.layers.selection] == [drawn_on.name]


def test_layers_deleted_and_slices_changed_meanwhile(viewer: Any, qtbot: Any) -> None:
    form = with_layers(viewer, FakeEngine())
    viewer.dims.set_current_step(0, 2)
    form.press("Tune")
    listener = form.engine.jobs[0][2].listener
    viewer.dims.set_current_step(0, 4)
    seen = np.ones((64, 64), np.int32)
    listener.on_progress(Progress(1, 4, "training", {"loss": 1.0}, seen))
    preview = viewer.layers["cells: preview"]
    qtbot.waitUntil(lambda: bool(preview.data[2].all()))
    assert not preview.data[4].any()
    viewer.layers.remove(preview)
    listener.on_progress(Progress(2, 4, "training", {"loss": 1.0}, seen))
    qtbot.waitUntil(lambda: "cells: preview" in viewer.layers)
    viewer.layers.clear()
    listener.on_progress(Progress(3, 4, "training", {"loss": 1.0}, seen))
    listener.on_done(result_of(Path("model.medseg")))
    assert len(viewer.layers) == 0
    assert form.told == "Kept as model.medseg."
    assert form.button("Apply").isEnabled()


def test_the_form_is_closed_meanwhile(viewer: Any, qtbot: Any) -> None:
    form = with_layers(viewer, FakeEngine())
    form.press("Tune")
    listener = form.engine.jobs[0][2].listener
    viewer.window.remove_dock_widget(form.widget)
    form.widget.deleteLater()
    qtbot.wait(50)
    listener.on_progress(Progress(1, 4, "training", {"loss": 1.0}))
    listener.on_done(result_of(Path("model.medseg")))


def closed(viewer: Any, form: Form, qtbot: Any) -> Any:
    """Close a form in the middle of a training, and return the training."""
    form.press("Tune")
    task = form.engine.jobs[0][2]
    viewer.window.remove_dock_widget(form.widget)
    form.widget.deleteLater()
    qtbot.wait(50)
    return task


def shown_again(viewer: Any, engine: Any, qtbot: Any) -> Form:
    form = docked(viewer, engine)
    form.widget.show()
    form.widget.showEvent(QShowEvent())
    return form


def test_the_next_form_takes_a_training_over(viewer: Any, qtbot: Any) -> None:
    first = with_layers(viewer, FakeEngine())
    task = closed(viewer, first, qtbot)
    form = shown_again(viewer, first.engine, qtbot)
    assert not form.button("Tune").isEnabled()
    form.press("Pause")
    assert form.button("Pause").text() == "Continue"
    task.listener.on_progress(Progress(1, 4, "training", {"loss": 1.0}))
    assert form.widget.curve.losses
    assert form.told == "training"
    form.press("Stop")
    assert task.asked == ["pause", "end early"]
    task.listener.on_done(result_of(Path("model.medseg")))
    assert form.told == "Kept as model.medseg."
    assert form.button("Tune").isEnabled()
    assert form.button("Apply").isEnabled()


def test_a_training_that_is_taken_over_can_be_cancelled(
    viewer: Any, qtbot: Any
) -> None:
    first = with_layers(viewer, FakeEngine())
    task = closed(viewer, first, qtbot)
    form = shown_again(viewer, first.engine, qtbot)
    form.press("Cancel")
    assert not task.running
    assert form.told == "Cancelled; nothing is kept."
    assert form.button("Tune").isEnabled()


def test_a_training_that_ends_without_a_form_is_shown_by_the_next(
    viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("napari_medseg.widgets._long_job.show_info", said.append)
    first = with_layers(viewer, FakeEngine())
    closed(viewer, first, qtbot).listener.on_done(result_of(Path("model.medseg")))
    form = shown_again(viewer, first.engine, qtbot)
    assert form.told == "Kept as model.medseg."
    assert form.button("Tune").isEnabled()
    assert form.button("Apply").isEnabled()
    assert len(said) == 1


def test_a_training_that_fails_without_a_form_says_so(
    viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("napari_medseg.widgets._long_job.show_info", said.append)
    first = with_layers(viewer, FakeEngine())
    task = closed(viewer, first, qtbot)
    task.listener.on_failed(JobError("Memory ran out."))
    assert said == ["tune: Memory ran out."]
    form = shown_again(viewer, first.engine, qtbot)
    assert form.told == "Memory ran out."
    assert form.button("Tune").isEnabled()


@pytest.mark.slow
def test_an_engine_killed_in_mid_training_is_told(
    viewer: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_MEDSEG_WEIGHTS", str(tmp_path))
    engine = Engine()
    try:
        form = with_layers(viewer, engine)
        form.widget.set_config({"steps": 100_000, "views": 0, "working_size": 64})
        before = [layer.name for layer in viewer.layers]
        form.press("Tune")
        qtbot.waitUntil(lambda: bool(form.widget.curve.losses), timeout=300_000)
        os.kill(engine.pid or 0, signal.SIGKILL)
        qtbot.waitUntil(lambda: form.button("Tune").isEnabled(), timeout=60_000)
        assert "next job starts afresh" in form.told
        assert set(before) <= {layer.name for layer in viewer.layers}
        form.widget.set_config({"steps": 2, "views": 0, "working_size": 64})
        with qtbot.waitSignal(form.widget.tuned, timeout=300_000):
            form.press("Tune")
    finally:
        engine.close()
