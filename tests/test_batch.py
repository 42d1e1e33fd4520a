"""Folders in, folders out, with segmenters that take no time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from bright import (
    STUMBLE,
    Bright,
    label_files,
    names,
    provenance_of,
    same_labels,
    save,
    save_squares,
    segment,
    square,
)
from folders import content

from napari_medseg._config import from_dict, to_dict
from napari_medseg._types import InputError, Progress, finish
from napari_medseg.batch import (
    LEDGER,
    PROVENANCE,
    BatchReport,
    BatchSettings,
    read_ledger,
    segment_batch,
    segment_files,
)
from napari_medseg.instances import ClassConfig, ObjectConfig
from napari_medseg.io.images import read_annotation
from napari_medseg.models.classical import Otsu

if TYPE_CHECKING:
    from napari_medseg._types import Job


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of three images with a square each."""
    return save_squares(tmp_path / "images")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "labels"


# --- a run ------------------------------------------------------------------------


def test_a_run_reports_each_image(images: Path, out: Path) -> None:
    job = segment_files([images], Bright(), out)
    reports: list[Progress] = []
    with pytest.raises(StopIteration) as done:
        while True:
            reports.append(next(job))
    steps = [report.step for report in reports]
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == (0, 3)
    assert {report.total for report in reports} == {3}
    assert any("c.tif" in report.message for report in reports)
    report: BatchReport = done.value.value
    assert names(report.done) == ["a.tif", "b.tif", "c.tif"]
    assert (report.skipped, report.failed, report.notes) == ((), {}, {})
    assert report.seconds > 0
    for index, name in enumerate(("a", "b", "c")):
        labels = read_annotation(out / f"{name}.tif").labels
        assert np.array_equal(labels, square(index) > 100)
    text = json.loads(json.dumps(report.to_dict()))
    assert text["done"] == list(report.done)
    for name in ("ledger", "report"):
        assert Path(text[name]).parent == out
        assert Path(text[name]).is_file()


def test_one_bad_file_is_listed_and_the_others_are_done(
    images: Path, out: Path
) -> None:
    (images / "b.tif").write_bytes(b"")
    (images / "bad.png").write_text("text")
    save(images / "d.tif", np.full((20, 30), STUMBLE, np.uint8))
    report = segment(images, out, Bright())
    assert names(report.done) == ["a.tif", "c.tif"]
    assert names(report.failed) == ["b.tif", "bad.png", "d.tif"]
    for path, reason in report.failed.items():
        assert path in reason
    assert "Memory ran out" in report.failed[str(images / "d.tif")]
    assert label_files(out) == ["a.tif", "c.tif"]
    with read_ledger(out) as ledger:
        rows = {row.name: row for row in ledger.rows()}
    assert [row.state for row in rows.values()] == [
        *("done", "failed", "failed", "done", "failed")
    ]
    assert rows["b"].error == report.failed[rows["b"].source]
    assert "b.tif" in Path(report.report).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("too small"),
        OSError(5, "Input/output error"),
        MemoryError("it ran out"),
        TypeError("a fault of the program"),
    ],
)
def test_surprises_in_one_image_do_not_stop_the_others(
    images: Path, out: Path, error: Exception
) -> None:
    save(images / "b.tif", np.full((20, 30), STUMBLE, np.uint8))
    report = segment(images, out, Bright(error=error))
    assert names(report.done) == ["a.tif", "c.tif"]
    ((name, reason),) = report.failed.items()
    assert name in reason
    assert str(error).split()[-1] in reason


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
    assert names(report.notes) == ["a.tif", "b.tif", "c.tif"]


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
    assert label_files(out) == ["a.tif", "c.tif"]


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
    with pytest.raises(InputError, match=r"by another model \(bright 100\).*--redo"):
        segment(images, out, Bright(50))
    with pytest.raises(InputError, match=r"by other settings.*--redo"):
        segment(images, out, Bright(), objects=ObjectConfig())
    assert {name: (out / name).read_bytes() for name in content(out)} == before


def test_other_settings_are_done_again_where_asked_for(images: Path, out: Path) -> None:
    segment(images, out, Bright(250))
    save(images / "d.tif", square(3))
    model = Bright()
    assert len(segment(images, out, model, redo=True).done) == 4
    assert all(read_annotation(out / f"{name}.tif").labels.any() for name in "abcd")
    # what this model made is not made again
    report = segment(images, out, model, redo=True)
    assert (len(report.skipped), model.seen) == (4, 4)
    assert provenance_of(out)["model"] == model.identity
    assert provenance_of(out)["mixed"] is False


def test_what_another_model_wrote_does_not_stay_beside_new_labels(
    images: Path, out: Path
) -> None:
    asked = BatchSettings(
        "otsu",
        objects=ObjectConfig(),
        formats=("csv", "geojson", "coco", "ome-zarr"),
        probabilities=True,
    )
    finish(segment_batch([images], out, asked))
    own = out / "my notes.csv"
    own.write_text("mine")
    plain = BatchSettings("otsu")
    report = finish(segment_batch([images], out, plain, redo=True))
    assert report.files == ()
    left = [path.name for path in out.rglob("*") if path.is_file()]
    ends = (".csv", ".json", ".geojson", "_probabilities.tiff")
    assert sorted(name for name in left if name.endswith(ends)) == [
        "medseg.json",
        "my notes.csv",
    ]
    assert not list(out.rglob("*.ome.zarr"))


def test_labels_of_others_are_not_taken_for_results(images: Path, out: Path) -> None:
    drawn = save(out / "b.tif", square(9))
    before = drawn.read_bytes()
    for redo in (False, True):
        with pytest.raises(InputError, match=r"b\.tif is there already"):
            segment(images, out, Bright(), redo=redo)
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


@pytest.mark.parametrize("text", [b"no database", b"SQLite format 3\0 and no more"])
def test_a_damaged_ledger_is_not_taken_for_an_empty_one(
    images: Path, out: Path, text: bytes
) -> None:
    segment(images, out, Bright())
    (out / LEDGER).write_bytes(text)
    with pytest.raises(InputError, match=r"medseg.sqlite.*cannot be read.*--overwrite"):
        segment(images, out, Bright())
    assert (out / LEDGER).read_bytes() == text
    assert len(segment(images, out, Bright(), overwrite=True).done) == 3
    assert len(segment(images, out, Bright()).skipped) == 3


def test_labels_without_their_ledger_are_those_of_others(
    images: Path, out: Path
) -> None:
    segment(images, out, Bright())
    (out / LEDGER).unlink()
    with pytest.raises(InputError, match=r"a\.tif is there already"):
        segment(images, out, Bright())


def test_a_damaged_note_is_written_anew(images: Path, out: Path) -> None:
    segment(images, out, Bright())
    (out / PROVENANCE).write_text("{", encoding="utf-8")
    assert len(segment(images, out, Bright()).skipped) == 3
    assert provenance_of(out)["model"] == "bright 100"


@pytest.mark.parametrize("how", ["redo", "overwrite"])
def test_a_stopped_run_that_replaces_is_not_taken_for_a_whole_one(
    images: Path, out: Path, how: str
) -> None:
    save_squares(images, 30)
    segment(images, out, Bright(250))
    stop_after_first(segment_files([images], Bright(pause=0.02), out, **{how: True}))
    # some are of the old model still
    assert provenance_of(out)["mixed"] is True
    for model in (Bright(), Bright(250)):
        with pytest.raises(InputError, match="--redo"):
            segment(images, out, model)
    done = len(segment(images, out, Bright(), redo=True).done)
    assert 0 < done < 33
    assert len(segment(images, out, Bright()).skipped) == 33
    assert all(read_annotation(out / name).labels.any() for name in label_files(out))


def test_replacing_a_part_leaves_a_mixture_that_is_known(
    images: Path, out: Path
) -> None:
    segment(images, out, Bright(250))
    segment(images / "a.tif", out, Bright(), overwrite=True)
    with pytest.raises(InputError, match="--redo"):
        segment(images, out, Bright())
    save(images / "b.tif", np.full((20, 30), STUMBLE, np.uint8))
    assert names(segment(images, out, Bright(), redo=True).failed) == ["b.tif"]
    # the labels of b are of the old model still
    with pytest.raises(InputError, match="--redo"):
        segment(images, out, Bright())
    save(images / "b.tif", square(3))
    assert names(segment(images, out, Bright(), redo=True).done) == ["b.tif"]
    assert len(segment(images, out, Bright()).skipped) == 3


def test_a_run_that_is_stopped_is_taken_up_again(images: Path, out: Path) -> None:
    save_squares(images, 30)
    stop_after_first(segment_files([images], Bright(pause=0.02), out))
    found = label_files(out)
    assert 0 < len(found) < 33
    with read_ledger(out) as ledger:
        counts = ledger.counts()
    assert counts == {
        "waiting": 33 - len(found),
        "running": 0,
        "done": len(found),
        "failed": 0,
    }
    report = segment(images, out, Bright())
    assert sorted(names(report.skipped)) == found
    assert len(report.done) == 33 - len(found)


def stop_after_first(job: Job[BatchReport]) -> None:
    """Close a job once it says that an image is done."""
    while next(job).step == 0:
        pass
    job.close()


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


def test_what_is_asked_for_is_written(images: Path, out: Path) -> None:
    settings = BatchSettings(
        "otsu", objects=ObjectConfig(), formats=("csv", "roi"), probabilities=True
    )
    report = finish(segment_batch([images], out, settings))
    assert "objects.csv" in report.files
    with read_ledger(out) as ledger:
        rows = list(ledger.rows())
    assert [row.objects for row in rows] == [1, 1, 1]
    for row in rows:
        assert row.files[0] == f"{row.name}.tif"
        assert all((out / file).exists() for file in row.files)
    (out / "probabilities" / "b_probabilities.tiff").unlink()
    again = finish(segment_batch([images], out, settings))
    assert names(again.done) == ["b.tif"]


@pytest.mark.parametrize("objects", [None, ObjectConfig(min_size=4)])
def test_large_images_are_done_over_the_disk(
    images: Path, tmp_path: Path, objects: ObjectConfig | None
) -> None:
    settings = BatchSettings("otsu", objects=objects, formats=("csv",))
    small, large = tmp_path / "small", tmp_path / "large"
    finish(segment_batch([images], small, settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_medseg.large.LARGE_PIXELS", 100)
        report = finish(segment_batch([images], large, settings))
    assert (len(report.done), report.notes) == (3, {})
    assert same_labels(small, large)
    with read_ledger(small) as first, read_ledger(large) as second:
        assert [row.objects for row in first.rows()] == [
            row.objects for row in second.rows()
        ]
    for name in report.files:
        assert (small / name).read_bytes() == (large / name).read_bytes()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"formats": ("cvs",)}, "'cvs'.*csv"),
        ({"objects": ObjectConfig(), "classes": ClassConfig()}, "Either objects or"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        BatchSettings("otsu", **settings)


def test_settings_are_plain_values() -> None:
    for objects in (None, ObjectConfig(min_size=3)):
        settings = BatchSettings("otsu", objects=objects, formats=("csv",))
        values = json.loads(json.dumps(to_dict(settings)))
        assert from_dict(BatchSettings, values, "a test") == settings


def test_objects_of_a_stack_are_numbered_through_its_slices(tmp_path: Path) -> None:
    image = np.zeros((2, 40, 60), np.uint8)
    image[:, 5:15, 5:15] = image[:, 25:35, 30:45] = 200
    tifffile.imwrite(
        tmp_path / "stack.ome.tif", image, ome=True, metadata={"axes": "ZYX"}
    )
    out = tmp_path / "out"
    job = segment_files(
        [tmp_path / "stack.ome.tif"], Otsu(), out, objects=ObjectConfig()
    )
    assert finish(job).failed == {}
    labels = np.asarray(read_annotation(out / "stack.tif").labels)
    assert [sorted(set(np.unique(each)) - {0}) for each in labels] == [[1, 2], [3, 4]]
