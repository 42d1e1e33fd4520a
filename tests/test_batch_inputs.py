"""Which images are meant, and what their outputs are called."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr
from bright import Bright, label_files, labels_in, names, save, save_squares, segment
from bright import square as image_of
from folders import content

from napari_medseg._types import InputError, finish
from napari_medseg.batch import BatchSettings, plan_work, segment_batch, segment_files
from napari_medseg.io.images import read_annotation

if TYPE_CHECKING:
    from collections.abc import Sequence


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of three images with a square each."""
    return save_squares(tmp_path / "images")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "labels"


def square() -> np.ndarray:
    return image_of(0)


def planned(inputs: Sequence[Path], out: Path) -> list[str]:
    return [str(work.name) for work in plan_work(inputs, out)]


def test_folders_keep_their_folders(images: Path, out: Path) -> None:
    save(images / "day 1" / "plate" / "a.tif", square())
    save(images / ".hidden" / "a.tif", square())
    (images / "notes.txt").write_text("no image")
    assert planned([images], out) == ["a", "b", "c", "day 1/plate/a"]


def test_files_and_folders_together(images: Path, out: Path) -> None:
    single = save(images.parent / "single.tif", square())
    assert planned([single, images], out) == ["single", "a", "b", "c"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("x.tif", "x.png"), ["x_png", "x_tif"]),
        (("x.tif", "x.ome.tif"), ["x_ome_tif", "x_tif"]),
        (("x.tif", "X.png"), ["X_png", "x_tif"]),
        (("x.y.tif", "x.z.tif"), ["x.y", "x.z"]),
        (("é.tif", "e\u0301.png"), ["e\u0301_png", "é_tif"]),
    ],
)
def test_images_of_one_name_get_labels_of_their_own(
    tmp_path: Path, out: Path, files: tuple[str, ...], expected: list[str]
) -> None:
    for name in files:
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"x")
    assert planned([tmp_path / "images"], out) == expected


def test_one_file_in_several_spellings_is_one_image(
    images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images)
    inputs = [
        *(images, images / "a.tif", Path("a.tif"), Path("..", "images", "b.tif")),
        Path("*.tif"),
    ]
    assert planned(inputs, out) == ["a", "b", "c"]


def test_folders_with_the_same_names_keep_apart(tmp_path: Path, out: Path) -> None:
    for place in ("plate 1/raw", "plate 2/raw"):
        save(tmp_path / place / "a.tif", square())
    save(tmp_path / "plate 2" / "raw" / "b.tif", square())
    other = save(tmp_path / "z.tif", square())
    plates = [tmp_path / f"plate {index}" / "raw" for index in (1, 2)]
    # all of a folder goes to one place, and what no other wants stays as it is
    expected = ["plate 1/raw/a", "plate 2/raw/a", "plate 2/raw/b", "z"]
    assert planned([*plates, other], out) == expected
    files = [path for plate in plates for path in sorted(plate.iterdir())]
    assert planned([*files, other], out) == expected


def test_names_that_look_alike_in_every_way_are_told_apart(
    images: Path, out: Path
) -> None:
    for name in ("a.b.tif", "a.b.png.tif", "a.b.png", "a_b_tif.tif"):
        (images / name).write_bytes(b"x")
    found = planned([images], out)
    assert len(found) == 7
    assert len({name.casefold() for name in found}) == 7
    assert planned([images], out) == found  # and always the same way


def test_patterns_mean_files_and_folders(images: Path, out: Path) -> None:
    root = images.parent
    save(root / "plate 1" / "raw" / "x.tif", square())
    save(root / "plate 2" / "raw" / "x.tif", square())
    (root / "plate 2" / "raw" / "notes.txt").write_text("no image")
    zarr.save(str(root / "plate 2" / "y.zarr"), square())
    plates = ["plate 1/raw/x", "plate 2/raw/x"]
    assert planned([root / "plate*" / "raw" / "*"], out) == plates
    assert planned([root / "plate*" / "raw"], out) == plates
    assert planned([root / "plate*" / "**"], out) == [*plates, "plate 2/y"]
    assert planned([root / "**" / "[ab].tif"], out) == ["images/a", "images/b"]
    with pytest.raises(InputError, match=r"No image matches .*plate\?\.gif"):
        planned([root / "plate?.gif"], out)
    # a name that looks like a pattern
    odd = save(root / "odd [1]" / "a.tif", square())
    assert planned([odd.parent], out) == ["a"]


def test_zarr_is_one_image(tmp_path: Path, out: Path) -> None:
    array = zarr.create_array(
        str(tmp_path / "images" / "well.zarr"), data=square(), chunks=(8, 8)
    )
    array[:] = square()
    assert planned([tmp_path / "images"], out) == ["well"]
    assert planned([tmp_path / "images" / "well.zarr"], out) == ["well"]
    model = Bright()
    assert names(segment(tmp_path / "images", out, model).done) == ["well.zarr"]
    assert read_annotation(out / "well.tif").labels.sum() == 100
    assert len(segment(tmp_path / "images", out, model).skipped) == 1
    array[0, 0] = 200
    assert len(segment(tmp_path / "images", out, model).done) == 1
    assert read_annotation(out / "well.tif").labels.sum() == 101


def test_inputs_that_are_not_there(tmp_path: Path, out: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        plan_work([tmp_path / "nowhere"], out)
    with pytest.raises(InputError, match="no image"):
        plan_work([tmp_path], out)
    with pytest.raises(InputError, match="no image"):
        plan_work([], out)


# --- names stay -------------------------------------------------------------------


def test_a_folder_that_is_added_later_gets_names_of_its_own(
    images: Path, out: Path
) -> None:
    segment(images, out, Bright())
    other = save_squares(images.parent / "more")
    save(images / "a.png", square())
    model = Bright()
    assert names(segment(other, out, model).done) == ["a.tif", "b.tif", "c.tif"]
    assert label_files(out) == [
        *("a.tif", "b.tif", "c.tif"),
        *("more/a.tif", "more/b.tif", "more/c.tif"),
    ]
    # whatever is given beside them, and in which order, their names stay
    for inputs in ([images, other], [other, images]):
        report = finish(segment_files(inputs, model, out))
        assert len(report.skipped) == 6 + (inputs[0] == other)
    assert label_files(out)[0] == "a.tif"
    assert len(label_files(out)) == 7


def test_an_image_of_another_ending_that_comes_later(images: Path, out: Path) -> None:
    segment(images, out, Bright())
    np.save(images / "a.npy", square())
    assert names(segment(images, out, Bright()).done) == ["a.npy"]
    assert label_files(out) == ["a.tif", "a_npy.tif", "b.tif", "c.tif"]


def test_a_folder_that_was_moved_is_not_done_again(images: Path, out: Path) -> None:
    segment(images, out, Bright())
    moved = images.rename(images.with_name("moved"))
    model = Bright()
    assert len(segment(moved, out, model).skipped) == 3
    save(moved / "b.tif", image_of(9))
    assert names(segment(moved, out, model).done) == ["b.tif"]
    assert label_files(out) == ["a.tif", "b.tif", "c.tif"]


def test_a_folder_by_another_path_is_not_done_again(images: Path, out: Path) -> None:
    segment(images, out, Bright())
    link = images.with_name("link")
    try:
        link.symlink_to(images)
    except OSError:
        pytest.skip("links cannot be made here")
    for path in (link, images):
        assert len(segment(path, out, Bright()).skipped) == 3
    assert label_files(out) == ["a.tif", "b.tif", "c.tif"]


@pytest.mark.skipif(sys.platform != "linux", reason="names are text here")
def test_names_that_are_no_text(images: Path, out: Path) -> None:
    name = b"m\xb5.tif".decode("utf-8", "surrogateescape")
    try:
        (images / "a.tif").rename(images / name)
    except OSError:
        pytest.skip("this file system has names in Unicode alone")
    (images / name.replace("m", "n")).write_bytes(b"")
    model = Bright()
    settings = BatchSettings("otsu", formats=("csv",))
    report = finish(segment_batch([images], out, settings, opener=lambda _: model))
    assert "m\\udcb5.tif" in names(report.done)
    ((bad, reason),) = report.failed.items()
    assert bad.encode() and reason.encode()
    assert label_files(out) == ["b.tif", "c.tif", "m_.tif"]
    assert len(segment_again(images, out, settings, model)) == 3


def segment_again(
    images: Path, out: Path, settings: BatchSettings, model: Bright
) -> tuple[str, ...]:
    job = segment_batch([images], out, settings, opener=lambda _: model)
    return finish(job).skipped


# --- outputs among inputs ---------------------------------------------------------


def test_labels_in_the_folder_of_the_images_are_not_segmented(images: Path) -> None:
    out = images / "labels"
    assert len(segment(images, out, Bright()).done) == 3
    again = segment(images, out, Bright())
    assert (again.done, names(again.skipped)) == ((), ["a.tif", "b.tif", "c.tif"])
    assert label_files(out) == ["a.tif", "b.tif", "c.tif"]


def test_labels_of_another_run_in_the_folder_of_the_images(images: Path) -> None:
    segment(images, images / "first", Bright())
    other = images / "second"
    assert names(segment(images, other, Bright(50)).done) == ["a.tif", "b.tif", "c.tif"]
    # unless they are what is meant
    assert len(segment(images / "first", images.parent / "third", Bright()).done) == 3


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
    for inputs in (
        [images],
        [images / "a.tif"],
        [images / "b.tif", images / "a.tif"],
        [images / "*.tif"],
    ):
        for out in outs:
            job = segment_files(inputs, Bright(), out, overwrite=overwrite)
            with pytest.raises(InputError, match="choose another folder"):
                finish(job)
    assert {name: (images / name).read_bytes() for name in content(images)} == before


def test_same_names_are_segmented_apart(tmp_path: Path, out: Path) -> None:
    first = save_squares(tmp_path / "first")
    second = tmp_path / "second"
    for index, name in enumerate("abc"):
        save(second / f"{name}.tif", image_of(index + 10))
    report = finish(segment_files([first, second], Bright(), out))
    assert len(report.done) == 6
    for name, labels in labels_in(out).items():
        folder, file = name.split("/")
        shift = "abc".index(file[0]) + (10 if folder == "second" else 0)
        assert np.array_equal(labels, image_of(shift) > 100)
