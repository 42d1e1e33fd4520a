"""Folders in, folders out, with segmenters that take no time."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from folders import content

from napari_medseg._types import (
    FloatArray,
    InputError,
    JobError,
    LabelClass,
    Prediction,
    Progress,
    default_classes,
    finish,
)
from napari_medseg.batch import (
    PROVENANCE,
    BatchReport,
    labels_of,
    plan_work,
    segment_files,
)
from napari_medseg.instances import ObjectConfig
from napari_medseg.io.images import read_annotation

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class Bright:
    """Finds what is above a value; stumbles over images that begin with 99."""

    limit: float = 100
    error: Exception = field(default_factory=lambda: JobError("Memory ran out."))
    note: str = ""
    seen: int = 0

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        return default_classes(2)

    @property
    def identity(self) -> str:
        return f"bright {self.limit}"

    def predict(self, image: FloatArray) -> Prediction:
        self.seen += 1
        if image[0, 0, 0] == 99:
            raise self.error
        found = (image[0] > self.limit).astype(np.float32)
        return Prediction(np.stack([1 - found, found]), self.classes, self.note)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of three images with a square each."""
    folder = tmp_path / "images"
    folder.mkdir()
    for index, name in enumerate(("a", "b", "c")):
        save(folder / f"{name}.tif", square(4 * index))
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "labels"


def square(start: int) -> np.ndarray:
    image = np.full((20, 30), 10, np.uint8)
    image[5:15, start : start + 10] = 200
    return image


def save(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, image, photometric="minisblack")
    return path


def targets(inputs: Sequence[Path], out: Path) -> list[str]:
    return [work.target.relative_to(out).as_posix() for work in plan_work(inputs, out)]


def segment(images: Path, out: Path, model: Bright, **options: Any) -> BatchReport:
    return finish(segment_files([images], model, out, **options))


def names(paths: Sequence[str]) -> list[str]:
    return [Path(path).name for path in paths]


def provenance_of(out: Path) -> Any:
    return json.loads((out / PROVENANCE).read_text(encoding="utf-8"))


# --- where labels go --------------------------------------------------------------


def test_folders_keep_their_folders(images: Path, out: Path) -> None:
    save(images / "day 1" / "plate" / "a.tif", square(0))
    save(images / ".hidden" / "a.tif", square(0))
    (images / "notes.txt").write_text("no image")
    assert targets([images], out) == ["a.tif", "b.tif", "c.tif", "day 1/plate/a.tif"]


def test_files_and_folders_together(images: Path, out: Path) -> None:
    single = save(images.parent / "single.tif", square(0))
    assert targets([single, images], out) == ["single.tif", "a.tif", "b.tif", "c.tif"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("x.tif", "x.png"), ["x_png.tif", "x_tif.tif"]),
        (("x.tif", "x.ome.tif"), ["x_ome_tif.tif", "x_tif.tif"]),
        (("x.tif", "X.png"), ["X_png.tif", "x_tif.tif"]),
        (("x.y.tif", "x.z.tif"), ["x.y.tif", "x.z.tif"]),
        (("é.tif", "e\u0301.png"), ["e\u0301_png.tif", "é_tif.tif"]),
    ],
)
def test_images_of_one_name_get_labels_of_their_own(
    tmp_path: Path, out: Path, files: tuple[str, ...], expected: list[str]
) -> None:
    for name in files:
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"x")
    assert targets([tmp_path / "images"], out) == expected


def test_one_file_in_several_spellings_is_one_image(
    images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images)
    inputs = [images, images / "a.tif", Path("a.tif"), Path("..", "images", "b.tif")]
    assert targets(inputs, out) == ["a.tif", "b.tif", "c.tif"]


def test_two_images_that_cannot_be_told_apart_are_refused(
    images: Path, out: Path
) -> None:
    other = save(images.parent / "other" / "a.tif", square(0))
    job = segment_files([images / "a.tif", other], Bright(), out)
    with pytest.raises(InputError, match="both be written") as refused:
        finish(job)
    assert str(images / "a.tif") in str(refused.value)
    assert str(other) in str(refused.value)
    save(images / "a.b.tif", square(0))
    save(images / "a.b.png.tif", square(0))
    (images / "a.b.png").write_bytes(b"x")
    save(images / "a_b_tif.tif", square(0))
    with pytest.raises(InputError, match="both be written"):
        segment(images, out, Bright())
    assert not out.exists()


def test_labels_in_the_folder_of_the_images_are_not_segmented(images: Path) -> None:
    out = images / "labels"
    assert len(segment(images, out, Bright()).done) == 3
    again = segment(images, out, Bright())
    assert (again.done, names(again.skipped)) == ((), ["a.tif", "b.tif", "c.tif"])
    assert content(out) == ["a.tif", "b.tif", "c.tif", PROVENANCE]


def test_labels_in_the_folder_above_the_images(images: Path) -> None:
    out = images.parent
    assert len(segment(images, out, Bright()).done) == 3
    assert read_annotation(out / "a.tif").labels.max() == 1
    assert len(segment(images, out, Bright()).skipped) == 3


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_image_is_never_replaced_by_its_labels(
    images: Path, overwrite: bool
) -> None:
    before = {name: (images / name).read_bytes() for name in content(images)}
    outs = [images]
    with suppress(OSError):  # not every Windows lets everybody make links
        (images.parent / "link").symlink_to(images)
        outs.append(images.parent / "link")
    for inputs in ([images], [images / "a.tif"], [images / "b.tif", images / "a.tif"]):
        for out in outs:
            job = segment_files(inputs, Bright(), out, overwrite=overwrite)
            with pytest.raises(InputError, match="choose another folder"):
                finish(job)
    assert {name: (images / name).read_bytes() for name in content(images)} == before


def test_inputs_that_are_not_there(tmp_path: Path, out: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        plan_work([tmp_path / "nowhere"], out)
    with pytest.raises(InputError, match="no image"):
        plan_work([tmp_path], out)
    with pytest.raises(InputError, match="no image"):
        plan_work([], out)


# --- a run ------------------------------------------------------------------------


def test_a_run_reports_each_image(images: Path, out: Path) -> None:
    job = segment_files([images], Bright(), out)
    reports: list[Progress] = []
    with pytest.raises(StopIteration) as done:
        while True:
            reports.append(next(job))
    assert [report.step for report in reports] == [0, 1, 2, 3]
    assert {report.total for report in reports} == {3}
    assert "a.tif" in reports[0].message
    report: BatchReport = done.value.value
    assert names(report.done) == ["a.tif", "b.tif", "c.tif"]
    assert (report.skipped, report.failed, report.notes) == ((), {}, {})
    assert report.seconds > 0
    for index, name in enumerate(("a", "b", "c")):
        labels = read_annotation(out / f"{name}.tif").labels
        assert np.array_equal(labels, square(4 * index) > 100)
    text = json.dumps(report.to_dict())
    assert json.loads(text)["done"] == list(report.done)


def test_one_bad_file_is_listed_and_the_others_are_done(
    images: Path, out: Path
) -> None:
    (images / "b.tif").write_bytes(b"")
    (images / "bad.png").write_text("text")
    save(images / "d.tif", np.full((20, 30), 99, np.uint8))
    report = segment(images, out, Bright())
    assert names(report.done) == ["a.tif", "c.tif"]
    assert names(list(report.failed)) == ["b.tif", "bad.png", "d.tif"]
    for path, reason in report.failed.items():
        assert path in reason
    assert "Memory ran out" in report.failed[str(images / "d.tif")]
    assert content(out) == ["a.tif", "c.tif", PROVENANCE]


@pytest.mark.parametrize(
    "error", [ValueError("too small"), OSError(5, "Input/output error")]
)
def test_surprises_in_one_image_do_not_stop_the_others(
    images: Path, out: Path, error: Exception
) -> None:
    save(images / "b.tif", np.full((20, 30), 99, np.uint8))
    report = segment(images, out, Bright(error=error))
    assert names(report.done) == ["a.tif", "c.tif"]
    ((name, reason),) = report.failed.items()
    assert name in reason
    assert str(error) in reason


def test_what_is_there_is_left_alone(images: Path, out: Path) -> None:
    segment(images, out, Bright())
    (out / "b.tif").unlink()
    before = (out / "a.tif").stat().st_mtime_ns
    model = Bright()
    report = segment(images, out, model)
    assert names(report.done) == ["b.tif"]
    assert names(report.skipped) == ["a.tif", "c.tif"]
    assert model.seen == 1
    assert (out / "a.tif").stat().st_mtime_ns == before
    report = segment(images, out, model, overwrite=True)
    assert len(report.done) == 3
    assert (out / "a.tif").stat().st_mtime_ns > before


def test_notes_of_images(images: Path, out: Path) -> None:
    report = segment(images, out, Bright(note="Memory was short."))
    assert set(report.notes.values()) == {"Memory was short."}
    assert names(list(report.notes)) == ["a.tif", "b.tif", "c.tif"]


def test_a_disk_that_refuses_leaves_no_half_file(
    images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = tifffile.imwrite

    def half(path: Path, *args: Any, **options: Any) -> None:
        write(path, *args, **options)
        if ".b." in str(path):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", half)
    report = segment(images, out, Bright())
    assert names(report.done) == ["a.tif", "c.tif"]
    ((name, reason),) = report.failed.items()
    assert name.endswith("b.tif")
    assert "No space left" in reason
    assert content(out) == ["a.tif", "c.tif", PROVENANCE]


# --- whose labels they are --------------------------------------------------------


def test_the_folder_says_how_its_labels_were_made(images: Path, out: Path) -> None:
    segment(images, out, Bright(), objects=ObjectConfig(min_size=3))
    made = provenance_of(out)
    assert made["model"] == "bright 100"
    assert made["classes"] == ["background", "object"]
    assert made["objects"]["min_size"] == 3
    assert "napari-medseg" in made


def test_other_settings_are_refused(images: Path, out: Path) -> None:
    segment(images, out, Bright())
    (out / "b.tif").unlink()
    before = {name: (out / name).read_bytes() for name in content(out)}
    for model, objects in ((Bright(50), None), (Bright(), ObjectConfig())):
        with pytest.raises(InputError, match="another model or other settings"):
            segment(images, out, model, objects=objects)
    assert {name: (out / name).read_bytes() for name in content(out)} == before


def test_labels_of_others_are_not_taken_for_results(images: Path, out: Path) -> None:
    drawn = save(out / "b.tif", square(9))
    before = drawn.read_bytes()
    with pytest.raises(InputError, match=r"b\.tif is there already"):
        segment(images, out, Bright())
    assert content(out) == ["b.tif"]
    assert drawn.read_bytes() == before
    assert len(segment(images, out, Bright(), overwrite=True).done) == 3
    assert len(segment(images, out, Bright()).skipped) == 3


def test_other_files_in_the_folder_are_nobodys_business(
    images: Path, out: Path
) -> None:
    save(out / "drawing.tif", square(9))
    assert len(segment(images, out, Bright()).done) == 3
    assert len(segment(images, out, Bright()).skipped) == 3


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": "bright 100"}', "null"])
def test_a_damaged_note_is_taken_for_that_of_another_model(
    images: Path, out: Path, text: str
) -> None:
    segment(images, out, Bright())
    (out / PROVENANCE).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="--overwrite"):
        segment(images, out, Bright())
    segment(images, out, Bright(), overwrite=True)
    assert len(segment(images, out, Bright()).skipped) == 3


def test_a_stopped_overwriting_is_not_taken_for_a_whole_run(
    images: Path, out: Path
) -> None:
    segment(images, out, Bright(250))
    job = segment_files([images], Bright(), out, overwrite=True)
    next(job)
    next(job)  # the first is done
    job.close()
    # two are of the old model still
    for model in (Bright(), Bright(250)):
        with pytest.raises(InputError, match="--overwrite"):
            segment(images, out, model)
    segment(images, out, Bright(), overwrite=True)
    assert len(segment(images, out, Bright()).skipped) == 3
    assert all(read_annotation(out / f"{name}.tif").labels.any() for name in "abc")


def test_overwriting_a_part_leaves_a_mixture_that_is_known(
    images: Path, out: Path
) -> None:
    segment(images, out, Bright(250))
    segment(images / "a.tif", out, Bright(), overwrite=True)
    with pytest.raises(InputError, match="--overwrite"):
        segment(images, out, Bright())
    save(images / "b.tif", np.full((20, 30), 99, np.uint8))
    assert names(list(segment(images, out, Bright(), overwrite=True).failed)) == [
        "b.tif"
    ]
    with pytest.raises(InputError, match="--overwrite"):
        segment(images, out, Bright())


def test_a_run_that_is_stopped_is_taken_up_again(images: Path, out: Path) -> None:
    job = segment_files([images], Bright(), out)
    next(job)
    next(job)
    with suppress(GeneratorExit):
        job.throw(GeneratorExit)
    assert content(out) == ["a.tif", PROVENANCE]
    report = segment(images, out, Bright())
    assert (names(report.skipped), names(report.done)) == (
        ["a.tif"],
        ["b.tif", "c.tif"],
    )


def test_an_output_folder_that_is_a_file(images: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "labels"):
        with pytest.raises(InputError, match="cannot be written to"):
            segment(images, out, Bright())
    assert file.read_text() == "mine"


def test_a_folder_of_an_output_that_is_a_file(images: Path, out: Path) -> None:
    save(images / "day" / "a.tif", square(0))
    out.mkdir()
    (out / "day").write_text("mine")
    report = segment(images, out, Bright())
    assert names(report.done) == ["a.tif", "b.tif", "c.tif"]
    assert list(report.failed) == [str(images / "day" / "a.tif")]


# --- what is written --------------------------------------------------------------


@pytest.mark.parametrize(
    ("axes", "stack"), [("TYX", (3,)), ("ZYX", (3,)), ("TZYX", (2, 3))]
)
def test_stacks_keep_axes_scale_and_units(
    tmp_path: Path, out: Path, axes: str, stack: tuple[int, ...]
) -> None:
    image = np.stack([square(index) for index in range(int(np.prod(stack)))])
    path = tmp_path / "stack.ome.tif"
    scale = {"T": 5.0, "Z": 2.0, "Y": 0.5, "X": 0.25}
    metadata: dict[str, Any] = {"axes": axes}
    for axis in axes:
        if axis == "T":
            metadata |= {"TimeIncrement": 5.0, "TimeIncrementUnit": "s"}
        else:
            metadata |= {
                f"PhysicalSize{axis}": scale[axis],
                f"PhysicalSize{axis}Unit": "nm",
            }
    tifffile.imwrite(
        path,
        image.reshape(*stack, 20, 30),
        ome=True,
        photometric="minisblack",
        metadata=metadata,
    )
    model = Bright()
    segment(path, out, model)
    assert model.seen == len(image)
    labels = read_annotation(out / "stack.tif")
    assert labels.axes == axes
    assert labels.scale == {axis: scale[axis] for axis in axes}
    assert labels.units == {axis: "s" if axis == "T" else "nm" for axis in axes}
    assert np.array_equal(labels.labels.reshape(image.shape), image > 100)


def test_channels_are_no_slices(tmp_path: Path, out: Path) -> None:
    both = np.stack([square(0), square(9)])
    path = tmp_path / "two.ome.tif"
    tifffile.imwrite(
        path, both, ome=True, photometric="minisblack", metadata={"axes": "CYX"}
    )
    model = Bright()
    segment(path, out, model)
    assert model.seen == 1
    labels = read_annotation(out / "two.tif")
    assert (labels.axes, labels.labels.shape) == ("YX", (20, 30))


def test_more_than_255_objects(tmp_path: Path, out: Path) -> None:
    grid = np.zeros((100, 100), np.uint8)
    grid[::5, ::5] = 200
    path = save(tmp_path / "grid.tif", grid)
    segment(path, out, Bright(), objects=ObjectConfig(min_size=0, smoothing=0))
    labels = read_annotation(out / "grid.tif").labels
    assert labels.max() == 400
    assert len(np.unique(labels)) == 401


def test_labels_of_classes_and_of_objects() -> None:
    probabilities = np.zeros((3, 12, 20), np.float32)
    probabilities[0] = 1
    probabilities[:, 2:8, 2:8] = np.array([0.2, 0.7, 0.1])[:, None, None]
    probabilities[:, 2:8, 12:18] = np.array([0.4, 0.2, 0.4])[:, None, None]
    prediction = Prediction(probabilities, default_classes(3))
    classes = labels_of(prediction, None)
    assert classes.dtype == np.int32
    assert (classes[4, 4], classes[4, 14], classes[0, 0]) == (1, 0, 0)
    # objects are of any class: not background with more than a half
    objects = labels_of(prediction, ObjectConfig(min_size=1))
    assert objects[4, 4] != objects[4, 14]
    assert sorted(np.unique(objects)) == [0, 1, 2]
    strict = labels_of(prediction, ObjectConfig(min_size=1, threshold=0.7))
    assert sorted(np.unique(strict)) == [0, 1]
    assert not labels_of(prediction, ObjectConfig(min_size=100)).any()
