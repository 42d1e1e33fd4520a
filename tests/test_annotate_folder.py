"""Working through a folder of images in the Annotate form: nothing is lost."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from fake_engine import Sam
from napari.layers import Labels
from napari.utils.shortcuts import default_shortcuts
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QLabel, QLineEdit, QPushButton

from napari_medseg.io.images import read_annotation
from napari_medseg.io.pairs import check_pairs, read_pairs
from napari_medseg.widgets import _autosave, _thumbnails
from napari_medseg.widgets._annotation_note import Note, read_note
from napari_medseg.widgets._image_list import ImageList
from napari_medseg.widgets._thumbnails import SIDE, Thumbnails, thumbnail
from napari_medseg.widgets.annotate import FOLDER_KEYS, AnnotateWidget
from napari_medseg.widgets.tune import TuneWidget

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = (30, 40)

PATIENCE = 20_000
"""Milliseconds that a test waits for files at most."""


class Form:
    """The widget, docked, with a folder of images."""

    def __init__(self, viewer: Any, qtbot: Any, folder: Path, **options: Any) -> None:
        self.viewer = viewer
        self.qtbot = qtbot
        self.engine = Sam()
        self.widget = AnnotateWidget(viewer, self.engine)
        viewer.window.add_dock_widget(self.widget)
        self.widget.open_folder(folder, **options)

    def find(self, kind: Any, name: str) -> Any:
        found = self.widget.findChild(kind, name)
        assert found is not None
        return found

    def press(self, name: str) -> None:
        self.find(QPushButton, name).click()

    @property
    def list(self) -> ImageList:
        found: ImageList = self.find(ImageList, "images of the folder")
        return found

    @property
    def names(self) -> list[str]:
        images = self.list.images
        return [images.entry(row).name for row in range(images.rowCount())]

    @property
    def marks(self) -> dict[str, str]:
        images = self.list.images
        return {name: images.state(row).value[1] for row, name in enumerate(self.names)}

    @property
    def count(self) -> str:
        return str(self.find(QLabel, "count").text())

    @property
    def told(self) -> str:
        return str(self.find(QLabel, "told").text())

    @property
    def kinds(self) -> QComboBox:
        found: QComboBox = self.find(QComboBox, "kind")
        return found

    def wait(self, until: Callable[[], bool]) -> None:
        self.qtbot.waitUntil(until, timeout=PATIENCE)

    def wait_for(self, name: str) -> None:
        layer = f"{Path(name).stem}: annotation"
        self.wait(lambda: layer in self.viewer.layers)
        self.engine.answer_all()

    def choose(self, name: str) -> None:
        """Click on an image, and wait until it is there."""
        self.list.chosen.emit(self.names.index(name))
        self.wait_for(name)

    @property
    def annotation(self) -> Any:
        layer = self.widget.folder.annotation
        assert layer is not None
        return layer

    def draw(self, row: int, column: int, label: int = 1) -> None:
        """Click, and take SAM's square."""
        self.widget.click(self.annotation.data_to_world((row, column)))
        self.engine.answer_all()
        self.annotation.selected_label = label
        self.widget.accept()

    def save(self, name: str) -> None:
        self.press("save")
        self.wait(lambda: self.marks[name] == "done")


@pytest.fixture
def viewer(make_napari_viewer_proxy: Callable[[], Any]) -> Any:
    return make_napari_viewer_proxy()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with three images."""
    images = tmp_path / "cells of mine"
    images.mkdir()
    for number in (10, 2, 1):
        write_image(images / f"img{number}.tif", number)
    return images


def write_image(path: Path, seed: int, shape: tuple[int, ...] = SHAPE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 60_000, shape, np.uint16)
    tifffile.imwrite(path, pixels, photometric="minisblack")


def square(row: int, column: int, label: int = 1) -> np.ndarray:
    mask = np.zeros(SHAPE, np.int32)
    mask[row - 1 : row + 2, column - 1 : column + 2] = label
    return mask


def test_the_images_are_listed_in_the_order_of_their_numbers(
    viewer: Any, qtbot: Any, folder: Path
) -> None:
    write_image(folder / "day 2" / "a.tif", 4)
    write_image(folder / "annotations" / "img2.tif", 5)
    (folder / "notes.txt").write_text("no image")
    form = Form(viewer, qtbot, folder)
    assert form.names == ["img1.tif", "img2.tif", "img10.tif", "day 2/a.tif"]
    assert form.marks["img2.tif"] == "done"
    assert form.marks["img10.tif"] == "to do"
    assert form.count == "1 of 4 annotated"
    assert not viewer.layers


def test_two_images_are_annotated_and_saved(
    viewer: Any, qtbot: Any, folder: Path
) -> None:
    form = Form(viewer, qtbot, folder)
    form.choose("img2.tif")
    assert "Ready" in form.told
    form.draw(12, 15, label=7)
    assert form.marks["img2.tif"] == "in progress"
    form.choose("img10.tif")
    names = [layer.name for layer in viewer.layers]
    assert not [name for name in names if name.startswith("img2")]
    form.wait(lambda: form.marks["img2.tif"] == "done")
    form.draw(20, 9, label=300)
    form.press("save")
    form.wait(lambda: form.count == "2 of 3 annotated")
    for name, wanted, dtype in (
        ("img2.tif", square(12, 15, 7), np.uint8),
        ("img10.tif", square(20, 9, 300), np.uint16),
    ):
        saved = tifffile.imread(folder / "annotations" / name)
        assert saved.dtype == dtype
        np.testing.assert_array_equal(saved, wanted)
    assert not (folder / "annotations" / "img1.tif").exists()
    pairs = read_pairs(folder, folder / "annotations", annotation="dense")
    assert sorted(pair.name for pair in pairs) == ["img10", "img2"]
    findings = check_pairs(folder, folder / "annotations", "dense")
    assert [finding.severity for finding in findings] == ["warning"]


def test_done_goes_on_to_the_next(viewer: Any, qtbot: Any, folder: Path) -> None:
    form = Form(viewer, qtbot, folder)
    form.choose("img1.tif")
    form.draw(12, 15)
    form.press("done_next")
    form.wait_for("img2.tif")
    form.press("done_next")  # with nothing on it
    form.wait_for("img10.tif")
    form.wait(lambda: form.count == "2 of 3 annotated")
    empty = read_annotation(folder / "annotations" / "img2.tif").labels
    assert empty.shape == SHAPE and not empty.any()
    form.press("done_next")
    assert "all images are annotated" in form.told
    form.wait(lambda: form.count == "3 of 3 annotated")
    again = Form(viewer, qtbot, folder)
    again.wait(lambda: set(again.marks.values()) == {"done"})
    assert again.count == "3 of 3 annotated"


def test_an_image_that_was_only_looked_at_leaves_no_file(
    viewer: Any, qtbot: Any, folder: Path
) -> None:
    form = Form(viewer, qtbot, folder)
    form.choose("img1.tif")
    form.choose("img2.tif")
    form.choose("img1.tif")
    assert form.marks["img1.tif"] == form.marks["img2.tif"] == "to do"
    assert not (folder / "annotations").exists()


def test_work_goes_on_where_it_was_left(viewer: Any, qtbot: Any, folder: Path) -> None:
    form = Form(viewer, qtbot, folder)
    form.choose("img1.tif")
    form.draw(12, 15, label=2)
    form.annotation.brush_size = 23
    form.choose("img2.tif")
    assert form.annotation.brush_size == 23
    form.choose("img1.tif")
    np.testing.assert_array_equal(form.annotation.data, square(12, 15, 2))
    before = (folder / "annotations" / "img1.tif").stat().st_mtime_ns
    form.draw(20, 30, label=3)
    form.annotation.undo()
    form.choose("img2.tif")
    form.choose("img1.tif")
    assert (folder / "annotations" / "img1.tif").stat().st_mtime_ns == before
    form.annotation.data = np.zeros(SHAPE, np.int32)
    form.press("save")
    form.wait(lambda: form.marks["img1.tif"] == "to do")


def test_what_the_numbers_mean_is_noted_with_them(
    viewer: Any, qtbot: Any, folder: Path
) -> None:
    form = Form(viewer, qtbot, folder)
    form.kinds.setCurrentIndex(2)
    form.choose("img1.tif")
    form.draw(12, 15)
    form.save("img1.tif")
    noted = json.loads((folder / "annotations" / "medseg.json").read_text())
    assert noted["annotation"] == "instances"
    again = Form(viewer, qtbot, folder)
    assert again.widget.kind == "instances"
    tune = TuneWidget(viewer, Sam())
    tune.source.choose_folders(folder, folder / "annotations")
    assert tune.source.kind == "instances"


def test_masks_made_elsewhere(viewer: Any, qtbot: Any, folder: Path) -> None:
    masks = folder.parent / "masks"
    masks.mkdir()
    iio.imwrite(masks / "img1_mask.png", 255 * square(12, 15).astype(np.uint8))
    tifffile.imwrite(masks / "img2_label.tif", np.zeros(SHAPE, np.uint8))
    form = Form(viewer, qtbot, folder)
    assert set(form.marks.values()) == {"to do"}
    line = form.find(QLineEdit, "annotations")
    line.setText(str(masks))
    line.editingFinished.emit()
    assert form.marks["img1.tif"] == "done"
    form.wait(lambda: form.marks["img2.tif"] == "to do")
    form.choose("img1.tif")
    np.testing.assert_array_equal(form.annotation.data, square(12, 15, 255))
    form.draw(20, 30, label=255)
    form.save("img1.tif")
    saved = read_annotation(masks / "img1_mask.tif").labels
    np.testing.assert_array_equal(saved, square(12, 15, 255) + square(20, 30, 255))
    assert [path.name for path in (masks / "originals").iterdir()] == ["img1_mask.png"]
    form.choose("img2.tif")
    form.draw(20, 30)
    form.save("img2.tif")
    assert read_annotation(masks / "img2_label.tif").labels.any()
    again = Form(viewer, qtbot, folder)
    assert again.find(QLineEdit, "annotations").text() == str(masks)
    assert again.count == "2 of 3 annotated"
    assert not (folder / "annotations").exists()


def test_masks_beside_the_images(folder: Path, viewer: Any, qtbot: Any) -> None:
    tifffile.imwrite(folder / "img1_mask.tif", square(12, 15).astype(np.uint8))
    form = Form(viewer, qtbot, folder, annotations=folder)
    assert form.names == ["img1.tif", "img2.tif", "img10.tif"]
    before = (folder / "img2.tif").read_bytes()
    form.choose("img2.tif")
    form.draw(20, 30)
    form.save("img2.tif")
    assert (folder / "img2.tif").read_bytes() == before
    assert len(read_pairs(folder, folder)) == 2


def test_images_of_one_name_in_two_folders(
    viewer: Any, qtbot: Any, folder: Path
) -> None:
    write_image(folder / "day 2" / "img1.tif", 4)
    form = Form(viewer, qtbot, folder)
    for name, label in (("img1.tif", 1), ("day 2/img1.tif", 2)):
        form.choose("img2.tif")
        form.choose(name)
        form.draw(12, 15, label=label)
        form.save(name)
    for name, label in (("img1.tif", 1), ("day 2/img1.tif", 2)):
        saved = read_annotation(folder / "annotations" / name).labels
        np.testing.assert_array_equal(saved, square(12, 15, label))
    assert len(read_pairs(folder, folder / "annotations")) == 2


def test_what_cannot_be_annotated_stays_in_the_list(
    viewer: Any, qtbot: Any, folder: Path
) -> None:
    (folder / "img3.tif").write_bytes(b"II*\0 half a file")
    write_image(folder / "img4.tif", 1)
    write_image(folder / "img4.png.tif", 1)
    tifffile.imwrite(folder / "img4.ome.tif", np.zeros(SHAPE, np.uint8))
    tifffile.imwrite(folder / "img5.tif", np.zeros(SHAPE, np.uint8))
    write_image(folder / "annotations" / "img5.tif", 1, (8, 9))
    write_image(folder / "annotations" / "img2.tif", 1)
    write_image(folder / "annotations" / "img2_mask.tif", 1)
    form = Form(viewer, qtbot, folder)
    assert "same name" in tip(form, "img4.tif")
    assert "several masks" in tip(form, "img2.tif")
    form.choose("img1.tif")
    for name, words in (
        ("img3.tif", "img3.tif"),
        ("img4.tif", "same name"),
        ("img2.tif", "several masks"),
        ("img5.tif", "(8, 9)"),
    ):
        form.list.chosen.emit(form.names.index(name))
        form.wait(lambda: "Opening" not in form.told)
        assert form.marks[name] == "cannot be annotated"
        assert words in form.told and words in tip(form, name)
        assert "img1: annotation" in viewer.layers, "the image before stays open"
    form.choose("img10.tif")


def tip(form: Form, name: str) -> str:
    index = form.list.images.index(form.names.index(name))
    return str(index.data(Qt.ItemDataRole.ToolTipRole))


def test_a_folder_without_images_is_refused(
    viewer: Any, qtbot: Any, folder: Path, tmp_path: Path
) -> None:
    form = Form(viewer, qtbot, folder)
    (tmp_path / "empty").mkdir()
    for name, words in (("empty", "holds no images"), ("nowhere", "does not exist")):
        form.widget.open_folder(tmp_path / name)
        assert words in form.told
        assert form.count == "0 of 3 annotated"


def test_a_mask_that_another_program_wrote_is_not_replaced(
    viewer: Any, qtbot: Any, folder: Path
) -> None:
    form = Form(viewer, qtbot, folder)
    form.choose("img1.tif")
    form.draw(12, 15)
    form.save("img1.tif")
    path = folder / "annotations" / "img1.tif"
    other = square(5, 5, 9).astype(np.uint8)
    tifffile.imwrite(path, other)
    form.draw(20, 30)
    form.press("save")
    form.wait(lambda: "another program" in form.told)
    np.testing.assert_array_equal(tifffile.imread(path), other)
    assert form.marks["img1.tif"] == "in progress"
    form.choose("img2.tif")
    np.testing.assert_array_equal(tifffile.imread(path), other)
    form.choose("img1.tif")
    np.testing.assert_array_equal(form.annotation.data, other)
    form.wait(lambda: form.find(QPushButton, "restore").isVisibleTo(form.widget))
    form.press("restore")
    form.save("img1.tif")
    mine = square(12, 15) + square(20, 30)
    np.testing.assert_array_equal(tifffile.imread(path), mine)
    tifffile.imwrite(path, other)
    form.draw(5, 35)
    form.press("save")
    form.wait(lambda: "another program" in form.told)
    form.save("img1.tif")
    np.testing.assert_array_equal(tifffile.imread(path), mine + square(5, 35))


def test_what_was_not_saved_is_offered_back(
    viewer: Any, qtbot: Any, folder: Path
) -> None:
    path = folder / "img2.tif"
    _autosave.keep(_autosave.file_identity(path), square(12, 15), "instances")
    form = Form(viewer, qtbot, folder)
    assert form.marks["img2.tif"] == "in progress"
    form.choose("img2.tif")
    assert form.find(QPushButton, "restore").isVisibleTo(form.widget)
    form.choose("img1.tif")
    assert not form.find(QPushButton, "restore").isVisibleTo(form.widget)
    assert form.marks["img2.tif"] == "in progress", "it is still there"
    form.choose("img2.tif")
    form.press("restore")
    np.testing.assert_array_equal(form.annotation.data, square(12, 15))
    assert form.widget.kind == "instances"
    form.save("img2.tif")
    form.wait(lambda: not _autosave.kept_names())


def test_drawing_is_kept_while_it_is_not_saved(
    viewer: Any, qtbot: Any, folder: Path
) -> None:
    form = Form(viewer, qtbot, folder)
    form.choose("img2.tif")
    form.draw(12, 15)
    name = _autosave.file_identity(folder / "img2.tif")
    form.wait(lambda: name in _autosave.kept_names())
    form.save("img2.tif")
    form.wait(lambda: name not in _autosave.kept_names())


def test_what_cannot_be_saved_is_kept(viewer: Any, qtbot: Any, folder: Path) -> None:
    form = Form(viewer, qtbot, folder)
    (folder / "annotations").write_text("a file where the folder should be")
    form.choose("img2.tif")
    form.draw(12, 15)
    form.choose("img1.tif")
    form.wait(lambda: "cannot be written" in tip(form, "img2.tif"))
    assert form.marks["img2.tif"] == "in progress"
    name = _autosave.file_identity(folder / "img2.tif")
    form.wait(lambda: name in _autosave.kept_names())
    (folder / "annotations").unlink()
    form.choose("img2.tif")
    form.press("restore")
    form.save("img2.tif")


def test_what_was_undone_is_saved_so(viewer: Any, qtbot: Any, folder: Path) -> None:
    form = Form(viewer, qtbot, folder)
    form.choose("img2.tif")
    form.draw(12, 15)
    form.save("img2.tif")
    form.draw(20, 25)
    form.save("img2.tif")
    path = folder / "annotations" / "img2.tif"
    for step, wanted in (
        (form.annotation.undo, square(12, 15)),
        (form.annotation.redo, square(12, 15) + square(20, 25)),
    ):
        step()
        form.wait(lambda: form.marks["img2.tif"] == "in progress")
        form.widget.folder.save_drawn()
        form.wait(lambda: form.marks["img2.tif"] == "done")
        np.testing.assert_array_equal(tifffile.imread(path), wanted)
    form.annotation.undo()
    form.widget.folder.save_drawn()  # before anything could be looked at
    form.wait(lambda: not (tifffile.imread(path) - square(12, 15)).any())
    form.wait(lambda: form.marks["img2.tif"] == "done")
    form.annotation.undo()
    name = _autosave.file_identity(folder / "img2.tif")
    form.wait(lambda: form.marks["img2.tif"] == "in progress")
    form.annotation.redo()
    form.wait(lambda: name in _autosave.kept_names())


def test_another_look_or_slice_is_no_drawing(
    viewer: Any, qtbot: Any, tmp_path: Path
) -> None:
    stack = np.random.default_rng(0).random((6, *SHAPE), np.float32)
    (tmp_path / "stack").mkdir()
    path = tmp_path / "stack" / "one.ome.tif"
    tifffile.imwrite(path, stack, metadata={"axes": "ZYX"})
    form = Form(viewer, qtbot, tmp_path / "stack")
    form.list.chosen.emit(0)
    form.wait(lambda: form.widget.folder.annotation is not None)
    form.annotation.visible = False
    form.annotation.visible = True
    viewer.dims.set_current_step(0, 2)
    form.annotation.refresh()
    assert not form.widget.folder.is_drawn
    assert list(form.marks.values()) == ["to do"]


def test_putting_the_form_away_saves(viewer: Any, qtbot: Any, folder: Path) -> None:
    form = Form(viewer, qtbot, folder)
    form.choose("img2.tif")
    form.draw(12, 15)
    viewer.window.remove_dock_widget("all")
    form.wait((folder / "annotations" / "img2.tif").exists)


def test_deleting_the_layers_loses_nothing(
    viewer: Any, qtbot: Any, folder: Path
) -> None:
    form = Form(viewer, qtbot, folder)
    form.choose("img2.tif")
    form.draw(12, 15)
    viewer.layers.clear()
    form.choose("img2.tif")
    np.testing.assert_array_equal(form.annotation.data, square(12, 15))


def test_a_stack_with_its_pixel_size(viewer: Any, qtbot: Any, folder: Path) -> None:
    stack = np.random.default_rng(0).random((6, *SHAPE), np.float32)
    size = {f"PhysicalSize{axis}": 0.5 for axis in "XY"} | {"PhysicalSizeZ": 2}
    units = {f"PhysicalSize{axis}Unit": "µm" for axis in "XYZ"}
    metadata = {"axes": "ZYX"} | size | units
    tifffile.imwrite(folder / "stack.ome.tif", stack, metadata=metadata)
    form = Form(viewer, qtbot, folder)
    form.list.chosen.emit(form.names.index("stack.ome.tif"))
    form.wait_for("stack.tif")
    layer = viewer.layers["stack"]
    assert layer.data.shape == stack.shape
    np.testing.assert_allclose(layer.scale, (2, 0.5, 0.5))
    assert str(layer.units[-1]) == "micrometer"
    assert layer.source.path == str(folder / "stack.ome.tif")
    form.annotation.data_setitem(tuple(np.array([[4], [5], [6]])), 1)
    form.save("stack.ome.tif")
    saved = read_annotation(folder / "annotations" / "stack.tif")
    assert saved.axes == "ZYX"
    assert saved.scale == {"Z": 2, "Y": 0.5, "X": 0.5}
    assert saved.labels.sum() == saved.labels[4, 5, 6] == 1


def test_channels_and_colours(viewer: Any, qtbot: Any, folder: Path) -> None:
    rng = np.random.default_rng(0)
    two = rng.integers(0, 255, (2, *SHAPE), np.uint8)
    tifffile.imwrite(folder / "two.ome.tif", two, metadata={"axes": "CYX"})
    rgb = rng.integers(0, 255, (*SHAPE, 3), np.uint8)
    tifffile.imwrite(folder / "rgb.tif", rgb, photometric="rgb")
    form = Form(viewer, qtbot, folder)
    form.list.chosen.emit(form.names.index("two.ome.tif"))
    form.wait(lambda: "two: channel 1" in viewer.layers)
    form.engine.answer_all()
    annotation = form.annotation
    assert annotation.data.shape == SHAPE
    form.widget.choose(viewer.layers["two: channel 1"])
    form.press("start")
    assert form.annotation is annotation, "the channels have one annotation"
    np.testing.assert_array_equal(form.engine.jobs[-1][1]["image"][0], two[1])
    form.engine.answer_all()
    form.choose("rgb.tif")
    assert viewer.layers["rgb"].rgb
    assert "two: channel 1" not in viewer.layers


def test_every_image_is_another_one_for_sam(
    viewer: Any, qtbot: Any, folder: Path
) -> None:
    form = Form(viewer, qtbot, folder)
    keys = set()
    for name in ("img1.tif", "img2.tif", "img1.tif"):
        form.list.chosen.emit(form.names.index(name))
        form.wait(lambda: bool(form.engine.jobs))
        keys.add(form.engine.jobs[-1][1]["key"])
        form.engine.answer_all()
    assert len(keys) == 3


def test_keys_for_a_folder_do_not_clash(viewer: Any, qtbot: Any, folder: Path) -> None:
    form = Form(viewer, qtbot, folder)
    form.choose("img1.tif")
    of_the_viewer = ("toggle", "reset", "increment", "hold", "roll", "transpose")
    taken = {str(key) for key in Labels.class_keymap}
    for name, keys in default_shortcuts.items():
        if name.removeprefix("napari:").startswith(of_the_viewer):
            taken |= {str(key) for key in keys}
    assert {"M", "V"} <= taken
    assert not set(FOLDER_KEYS) & taken
    form.draw(12, 15)
    bound = {str(key): function for key, function in form.annotation.keymap.items()}
    bound["D"](form.annotation)
    form.wait_for("img2.tif")
    form.wait(lambda: form.marks["img1.tif"] == "done")


def test_return_opens_an_image(viewer: Any, qtbot: Any, folder: Path) -> None:
    form = Form(viewer, qtbot, folder)
    form.list.show_row(1)
    qtbot.keyClick(form.list, Qt.Key.Key_Return)
    form.wait_for("img2.tif")


@pytest.mark.parametrize("name", ["Annotate", "Tune", "Segment", "Measure", "Review"])
def test_napari_opens_the_forms_by_their_names(viewer: Any, name: str) -> None:
    _, widget = viewer.window.add_plugin_dock_widget("napari-medseg", name)
    assert widget._viewer is not None


def test_tune_on_the_folder(viewer: Any, qtbot: Any, folder: Path) -> None:
    form = Form(viewer, qtbot, folder)
    form.kinds.setCurrentIndex(2)
    form.press("tune")
    assert "No image is annotated" in form.told
    form.choose("img1.tif")
    form.draw(12, 15)
    form.save("img1.tif")
    form.press("tune")
    docked = viewer.window.dock_widgets.values()
    (tune,) = (each for each in docked if isinstance(each, TuneWidget))
    assert tune.source.from_folders
    assert tune.source.folders() == (folder, folder / "annotations")
    assert tune.source.kind == "instances"


def test_thumbnails_are_made_for_rows_in_view(
    viewer: Any, qtbot: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "many"
    write_image(folder / "0.tif", 0)
    content = (folder / "0.tif").read_bytes()
    for number in range(1, 300):
        (folder / f"{number}.tif").write_bytes(content)
    (folder / "2.tif").write_bytes(b"")
    form = Form(viewer, qtbot, folder)
    images = form.list.images
    made: list[Path] = []
    images._thumbnails.made.connect(made.append)
    form.list.setMinimumHeight(300)
    form.list.grab()
    form.wait(lambda: folder / "1.tif" in made)
    form.wait(lambda: form.marks["2.tif"] == "cannot be annotated")
    assert "empty" in tip(form, "2.tif")
    assert len(made) < 30
    icon = images.index(1).data(Qt.ItemDataRole.DecorationRole)
    assert not icon.pixmap(SIDE, SIDE).isNull()


def test_thumbnails_of_all_kinds_of_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hot = rng.integers(100, 200, (60, 80), np.uint16)
    hot[3, 4] = 65535
    for name, pixels in {
        "hot": hot,
        "nan": np.full((20, 30), np.nan, np.float32),
        "one": np.ones((1, 1), np.uint8),
        "stack": rng.random((9, 50, 70), np.float32),
        "five": rng.integers(0, 255, (5, 50, 70), np.uint8),
        "wide": rng.integers(0, 255, (3, 5000), np.uint8),
    }.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric="minisblack")
        picture = thumbnail(tmp_path / f"{name}.tif")
        assert picture.dtype == np.uint8 and picture.shape[2] == 3
        if name == "hot":
            assert np.median(picture) > 80, "one hot pixel shall not darken the rest"


def test_a_form_closed_meanwhile(
    viewer: Any, qtbot: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, ended = (threading.Event() for _ in range(3))

    def slow(path: Path) -> np.ndarray:
        begun.set()
        go_on.wait(PATIENCE / 1000)
        ended.set()
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(_thumbnails, "thumbnail", slow)
    thumbnails = Thumbnails()
    for number in range(10):
        thumbnails.of(folder / str(number))
    form = Form(viewer, qtbot, folder)
    form.list.images.index(0).data(Qt.ItemDataRole.DecorationRole)
    assert begun.wait(PATIENCE / 1000)
    viewer.window.remove_dock_widget("all")
    gone: list[int] = []
    form.widget.destroyed.connect(lambda: gone.append(1))
    for each in (form.widget, thumbnails):
        each.deleteLater()
    qtbot.waitUntil(lambda: bool(gone), timeout=PATIENCE)
    go_on.set()
    assert ended.wait(PATIENCE / 1000)
    qtbot.wait(50)


def test_a_note_that_is_damaged_is_none(folder: Path) -> None:
    assert read_note(folder) == Note()
    for text in ("half a fi", '["no object"]', '{"annotation": "odd", "empty": 3}'):
        (folder / "medseg.json").write_text(text)
        assert read_note(folder) == Note()


def test_annotations_that_are_empty_are_to_do(
    viewer: Any, qtbot: Any, folder: Path
) -> None:
    masks = folder / "annotations"
    masks.mkdir()
    tifffile.imwrite(masks / "img1.tif", np.zeros(SHAPE, np.uint8))
    tifffile.imwrite(masks / "img2.tif", square(3, 3).astype(np.uint8))
    (masks / "img10.tif").write_bytes(b"")
    form = Form(viewer, qtbot, folder)
    form.wait(lambda: form.marks["img10.tif"] == "cannot be annotated")
    assert form.marks["img1.tif"] == "to do"
    assert form.count == "1 of 3 annotated"
