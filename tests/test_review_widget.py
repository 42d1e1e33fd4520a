"""Review: results worst first, corrected, accepted, and never lost or written over."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from fake_engine import Sam
from qtpy.QtWidgets import QApplication, QLabel, QPushButton

from napari_medseg._types import InputError
from napari_medseg.batch.ledger import LedgerRow, Recipe
from napari_medseg.batch.ledger_file import open_ledger
from napari_medseg.io.images import read_annotation, write_labels
from napari_medseg.io.pairs import read_pairs
from napari_medseg.io.result_names import PROVENANCE
from napari_medseg.widgets._autosave import Keeper
from napari_medseg.widgets._image_list import ImageList
from napari_medseg.widgets._reviewed_folder import ReviewedFolder
from napari_medseg.widgets._reviewed_run import Result, fitted
from napari_medseg.widgets._training_folder import RECORD, TrainingFolder
from napari_medseg.widgets.review import ReviewWidget
from napari_medseg.widgets.tune import TuneWidget

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHAPE = (30, 40)
PATIENCE = 60_000
MODEL = "outline-phase"


def write_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 60_000, SHAPE, np.uint16)
    tifffile.imwrite(path, pixels, photometric="minisblack")


def predicted(seed: int) -> np.ndarray:
    labels = np.zeros(SHAPE, np.int32)
    labels[5 : 10 + seed, 5:15] = 1
    return labels


def write_run(root: Path, quality: dict[str, float | None]) -> Path:
    """Write what a run of Folders leaves: images, labels, a ledger."""
    out = root / "results"
    out.mkdir(parents=True)
    with open_ledger(out) as ledger:
        number = ledger.number_of(Recipe(MODEL, "identity", "{}"))
        for seed, (name, value) in enumerate(quality.items()):
            source = root / "new" / f"{name}.tif"
            write_image(source, seed)
            write_labels(out / f"{name}.tif", predicted(seed))
            ledger.await_images([(name, str(source))])
            ledger.finish(
                LedgerRow(
                    name,
                    str(source),
                    "done",
                    quality=value,
                    files=(f"{name}.tif",),
                    recipe=number,
                )
            )
    made = {"model_name": MODEL, "settings": {"model": MODEL}}
    (out / PROVENANCE).write_text(json.dumps(made))
    return out


class Form:
    """The widget, docked, with a run."""

    def __init__(self, viewer: Any, qtbot: Any, out: Path, training: Path) -> None:
        self.viewer, self.qtbot, self.engine = viewer, qtbot, Sam()
        self.widget = ReviewWidget(viewer, self.engine)
        viewer.window.add_dock_widget(self.widget)
        self.widget.review(out, training)

    def press(self, name: str) -> None:
        button = self.widget.findChild(QPushButton, name)
        assert button is not None
        button.click()

    @property
    def list(self) -> ImageList:
        found = self.widget.findChild(ImageList)
        assert found is not None
        return found

    @property
    def lines(self) -> list[str]:
        images = self.list.images
        rows = range(images.rowCount())
        return [str(images.data(images.index(row))) for row in rows]

    @property
    def names(self) -> list[str]:
        return [line.split("\n")[0] for line in self.lines]

    def line(self, name: str) -> str:
        return self.lines[self.names.index(name)]

    def told(self, name: str = "review told") -> str:
        label = self.widget.findChild(QLabel, name)
        assert label is not None
        return str(label.text())

    def wait(self, until: Callable[[], bool]) -> None:
        self.qtbot.waitUntil(until, timeout=PATIENCE)

    def choose(self, name: str) -> Any:
        self.list.chosen.emit(self.names.index(name))
        self.wait(lambda: f"{name}: annotation" in self.viewer.layers)
        while self.engine.jobs and self.engine.jobs[0][0] != "estimate":
            self.engine.answer()
        return self.viewer.layers[f"{name}: annotation"]

    def accept(self, name: str) -> None:
        self.press("done_next")
        self.wait(lambda: "accepted" in self.line(name))


@pytest.fixture
def viewer(make_napari_viewer_proxy: Callable[[], Any]) -> Any:
    return make_napari_viewer_proxy()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return write_run(tmp_path, {"good": 0.93, "bad": 0.41, "empty": None})


def write_training(root: Path, names: tuple[str, ...] = ("old",)) -> Path:
    for seed, name in enumerate(names):
        write_image(root / "images" / f"{name}.tif", 50 + seed)
        write_labels(root / "masks" / f"{name}.tif", predicted(seed))
    return root


def test_the_worst_come_first_and_show_what_was_predicted(
    viewer: Any, qtbot: Any, out: Path, tmp_path: Path
) -> None:
    form = Form(viewer, qtbot, out, tmp_path / "training")
    assert form.names == ["empty", "bad", "good"]
    assert "Dice 0.41" in form.line("bad")
    layer = form.choose("bad")
    np.testing.assert_array_equal(layer.data, predicted(1))


def test_what_is_accepted_joins_the_training_pairs_and_survives(
    viewer: Any, qtbot: Any, out: Path, tmp_path: Path
) -> None:
    training = write_training(tmp_path / "training")
    form = Form(viewer, qtbot, out, training)
    layer = form.choose("bad")
    layer.paint((20, 30), 1)
    corrected = np.array(layer.data)
    form.accept("bad")
    assert "to do" in form.line("good")
    pairs = read_pairs(training / "images", training / "masks")
    assert [pair.name for pair in pairs] == ["bad", "old"]
    np.testing.assert_array_equal(pairs.pairs[0].annotation, corrected)
    # the results themselves stay as they were
    np.testing.assert_array_equal(read_annotation(out / "bad.tif").labels, predicted(1))
    # anew, as after a restart
    form.widget.review(out, training)
    assert "accepted" in form.line("bad")
    np.testing.assert_array_equal(form.choose("bad").data, corrected)


def test_a_correction_that_is_not_accepted_waits_beside_the_training_images(
    viewer: Any, qtbot: Any, out: Path, tmp_path: Path
) -> None:
    training = tmp_path / "training"
    form = Form(viewer, qtbot, out, training)
    form.choose("good")
    form.choose("bad").paint((20, 30), 1)
    form.choose("empty")
    form.wait(lambda: (training / "drafts" / "bad.tif").is_file())
    assert not (training / "drafts" / "good.tif").exists()
    assert not (training / "masks").exists()
    form.widget.review(out, training)
    assert "to do; Dice 0.41?, corrected" in form.line("bad")
    assert form.choose("bad").data[20, 30] == 1


def test_names_that_are_taken_are_never_written_over(tmp_path: Path) -> None:
    root = write_training(tmp_path / "training", ("cell", "other_mask"))
    training = TrainingFolder(root)
    before = (root / "images" / "cell.tif").read_bytes()
    for folder in ("a", "b"):
        write_image(tmp_path / folder / "Cell.tif", 3)
    write_image(tmp_path / "a" / "other.tif", 4)
    stems = [training.add(tmp_path / folder / "Cell.tif") for folder in ("a", "b")]
    assert stems == ["Cell 2", "Cell 3"]
    assert training.add(tmp_path / "a" / "Cell.tif") == "Cell 2"
    assert training.add(tmp_path / "a" / "other.tif") == "other 2"
    assert (root / "images" / "cell.tif").read_bytes() == before


@pytest.mark.parametrize("name", ["../outside", "a/b", "", 3])
def test_a_record_that_leads_elsewhere_is_refused(tmp_path: Path, name: Any) -> None:
    (tmp_path / RECORD).write_text(json.dumps({"accepted": {"x": name}}))
    with pytest.raises(InputError, match=RECORD):
        TrainingFolder(tmp_path).record()


def test_what_to_annotate_next_is_asked_of_the_engine(
    viewer: Any, qtbot: Any, out: Path, tmp_path: Path
) -> None:
    training = write_training(tmp_path / "training")
    form = Form(viewer, qtbot, out, training)
    form.press("Annotate this next")
    name, arguments, task = form.engine.jobs.pop()
    assert name == "estimate"
    assert arguments["references"] == str(training)
    assert len(arguments["images"]) == 3
    rows = {f"{name}.tif": {"dice": 0.5} for name in ("bad", "empty", "good")}
    answer = {"per_image": rows, "next": ["good.tif", "empty.tif"]}
    task.listener.on_done(answer | {"basis": "By 1 image.", "failures": {}})
    QApplication.processEvents()
    assert form.names == ["good", "empty", "bad"]
    assert "Dice 0.50?, next 1" in form.line("good")
    assert form.told() == "By 1 image."
    form.press("Worst first")
    assert form.names == ["bad", "empty", "good"]


def test_tune_goes_on_from_the_model_with_the_training_images(
    viewer: Any, qtbot: Any, out: Path, tmp_path: Path
) -> None:
    training = write_training(tmp_path / "training")
    form = Form(viewer, qtbot, out, training)
    form.choose("bad")
    form.accept("bad")
    form.press("tune")
    docks = viewer.window.dock_widgets.values()
    tune = next(each for each in docks if isinstance(each, TuneWidget))
    assert tune.source.folders() == (training / "images", training / "masks")
    assert tune.config()["start_from"] == MODEL
    assert tune.method == "ptsam"


def test_what_cannot_be_reviewed_gets_a_sentence(
    viewer: Any, qtbot: Any, out: Path, tmp_path: Path
) -> None:
    form = Form(viewer, qtbot, tmp_path / "nothing", tmp_path / "training")
    assert str(tmp_path / "nothing") in form.told()
    form.widget.review(out, tmp_path / "training")
    form.press("Annotate this next")
    assert "no annotated images" in form.told()
    assert not form.engine.jobs


def test_the_channels_of_the_run_are_judged_and_trained_on(
    viewer: Any, qtbot: Any, out: Path, tmp_path: Path
) -> None:
    made = {"model_name": MODEL, "settings": {"model": MODEL, "channels": [2]}}
    (out / PROVENANCE).write_text(json.dumps(made))
    form = Form(viewer, qtbot, out, write_training(tmp_path / "training"))
    form.press("Annotate this next")
    _, asked, task = form.engine.jobs.pop()
    assert asked["channels"] == [2]
    task.listener.on_failed(InputError("Enough."))
    form.choose("bad")
    form.accept("bad")
    form.press("tune")
    docks = viewer.window.dock_widgets.values()
    tune = next(each for each in docks if isinstance(each, TuneWidget))
    assert tune.source.channels == [2]
    tune.source.choose_folders(tmp_path / "others", tmp_path / "others")
    assert tune.source.channels == []


def test_masks_get_the_values_of_those_that_the_model_knows(tmp_path: Path) -> None:
    write_image(tmp_path / "new" / "a.tif", 1)
    write_labels(tmp_path / "results" / "a.tif", predicted(1))
    training = TrainingFolder(tmp_path / "training")
    result = Result(
        "a", tmp_path / "new" / "a.tif", tmp_path / "results" / "a.tif", 0.5
    )
    folder = ReviewedFolder(
        training.images,
        training.masks,
        Keeper(),
        training,
        (result,),
        "dense",
        values=(0, 255),
    )
    opened = folder.open(folder.listed()[0].entry)
    labels = np.array(opened.file.labels)
    with pytest.raises(InputError, match="Label 2 is no class"):
        folder.save(opened, labels * 2, "dense", done=True)
    assert folder.save(opened, labels, "dense", done=True)
    written = read_annotation(training.masks / "a.tif").labels
    np.testing.assert_array_equal(written, 255 * predicted(1))
    again = folder.open(folder.listed()[0].entry)
    np.testing.assert_array_equal(again.file.labels, predicted(1))


def test_a_mask_that_another_program_wrote_is_not_written_over(tmp_path: Path) -> None:
    write_image(tmp_path / "new" / "a.tif", 1)
    write_labels(tmp_path / "results" / "a.tif", predicted(1))
    training = TrainingFolder(tmp_path / "training")
    result = Result(
        "a", tmp_path / "new" / "a.tif", tmp_path / "results" / "a.tif", None
    )
    folder = ReviewedFolder(
        training.images, training.masks, Keeper(), training, (result,), "dense"
    )
    opened = folder.open(folder.listed()[0].entry)
    folder.save(opened, predicted(1), "dense", done=True)
    write_labels(training.masks / "a.tif", predicted(9))
    with pytest.raises(InputError, match="another program"):
        folder.save(opened, predicted(5), "dense", done=True)


def test_scribbles_are_not_joined(
    viewer: Any, qtbot: Any, out: Path, tmp_path: Path
) -> None:
    training = write_training(tmp_path / "training")
    (training / "masks" / "medseg.json").write_text('{"annotation": "sparse"}')
    form = Form(viewer, qtbot, out, training)
    assert "scribbles" in form.told()


def test_classes_become_objects_and_objects_classes() -> None:
    classes = np.array([[1, 0, 2], [1, 0, 0]])
    np.testing.assert_array_equal(fitted(classes, "instances", objects=False), classes)
    objects = np.array([[7, 0, 3]])
    np.testing.assert_array_equal(fitted(objects, "dense", objects=True), [[1, 0, 1]])
    np.testing.assert_array_equal(fitted(objects, "instances", objects=True), objects)
