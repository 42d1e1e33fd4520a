"""Clicks, boxes and tables from the command line: those of the forms."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from folders import assert_refused, command, content
from networks import save_nano

from napari_medseg._types import finish
from napari_medseg.engine.jobs import Context
from napari_medseg.engine.measuring import measure
from napari_medseg.engine.prompting import look, prompt
from napari_medseg.io.images import read_annotation, read_image, write_labels
from napari_medseg.samples import make_two_kinds

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 96
CLICKS = [(30.25, 41.5), (60.0, 20.0)]
BOXES = [(10.0, 12.0, 40.0, 50.5), (50.0, 50.0, 90.0, 90.0)]


@pytest.fixture(scope="module")
def random_sam(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a SAM whose random answers depend on every click."""
    return str(save_nano(tmp_path_factory.mktemp("sam") / "nano.pth"))


def picture(seed: int = 3) -> np.ndarray:
    scene = make_two_kinds(1, seed, SIZE)[0]
    return np.asarray(scene.image[0], np.float32)


def write(path: Path, data: np.ndarray, axes: str) -> Path:
    metadata: dict[str, Any] = {"axes": axes}
    for axis, size in (("Y", 0.5), ("X", 0.25)):
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    tifffile.imwrite(path, data, ome=True, photometric="minisblack", metadata=metadata)
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write(tmp_path / "cells.ome.tif", picture(), "YX")


def told(places: Any) -> str:
    return ";".join(",".join(map(str, place)) for place in places)


def of_engine(pixels: np.ndarray, sam: str, *, rgb: bool = False) -> Any:
    """Return what asks the engine's own job, as the form does."""
    context = Context()
    asked = {"key": "k", "image": pixels, "rgb": rgb, "sam": sam, "device": "auto"}
    finish(look(asked, context))

    def ask(points: Any = (), adds: Any = (), box: Any = None) -> np.ndarray:
        question = {"points": points, "adds": adds, "box": box, "mask": None}
        answer = finish(prompt({"key": "k", **question}, context))
        top, left, bottom, right = answer["region"]
        found = np.zeros((3, *pixels.shape[1:]), bool)
        count = len(answer["masks"])
        found[:count, top:bottom, left:right] = answer["masks"]
        return found

    return ask


# --- prompt -----------------------------------------------------------------------


def test_a_click_gives_the_labels_of_the_form(image: Path, tmp_path: Path) -> None:
    ask = of_engine(picture()[None], "nano")
    masks = ask([CLICKS[0]], [True])
    out = tmp_path / "out.tif"
    done = command(
        "prompt", image, "--points", told(CLICKS[:1]), "--out", out, "--json"
    )
    assert done.exit_code == 0, done.output
    found = read_annotation(out)
    np.testing.assert_array_equal(found.labels, masks[0])
    assert found.axes == "YX"
    assert found.scale == {"Y": 0.5, "X": 0.25}
    assert set(found.units.values()) == {"µm"}
    report = json.loads(done.stdout)
    assert report["labels"] == str(out)
    (row,) = report["objects"]
    assert row["label"] == 1
    assert row["area_px"] == int(masks[0].sum())
    if masks[1].any():
        call = ("prompt", image, "--points", told(CLICKS[:1]), "--idea", 2)
        assert command(*call, "--out", out, "--overwrite").exit_code == 0
        np.testing.assert_array_equal(read_annotation(out).labels, masks[1])


def test_clicks_that_take_away_come_in_any_order(
    image: Path, tmp_path: Path, random_sam: str
) -> None:
    ask = of_engine(picture()[None], random_sam)
    places = [CLICKS[0], (35.0, 70.0), CLICKS[1]]
    mask = ask(places, [True, False, True])[0]
    np.testing.assert_array_equal(
        mask, ask([places[0], places[2], places[1]], [True, True, False])[0]
    )
    out = tmp_path / "out.tif"
    call = ["prompt", image, "--sam", random_sam, "--out", out]
    clicks = ["--points", told(CLICKS), "--negative", told([places[1]])]
    assert command(*call, *clicks).exit_code == 0
    np.testing.assert_array_equal(read_annotation(out).labels, mask)
    framed = [*clicks, "--boxes", told(BOXES[:1]), "--overwrite"]
    assert command(*call, *framed).exit_code == 0
    both = ask(places, [True, False, True], BOXES[0])[0]
    np.testing.assert_array_equal(read_annotation(out).labels, both)


@pytest.mark.parametrize("kind", ["boxes", "points"])
def test_several_boxes_or_clicks_are_objects_of_their_own(
    image: Path, tmp_path: Path, random_sam: str, kind: str
) -> None:
    ask = of_engine(picture()[None], random_sam)
    wanted = np.zeros((SIZE, SIZE), np.int32)
    for number in (1, 2):
        if kind == "boxes":
            mask = ask(box=BOXES[number - 1])[0]
        else:
            mask = ask([CLICKS[number - 1]], [True])[0]
        wanted[mask] = number
    options = {
        "boxes": ["--boxes", told(BOXES)],
        "points": ["--points", told(CLICKS), "--each"],
    }
    out = tmp_path / "out.tif"
    call = ["prompt", image, "--sam", random_sam, "--out", out, *options[kind]]
    done = command(*call)
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(read_annotation(out).labels, wanted)
    assert "Object 2" in done.stdout


def test_a_slice_of_a_stack(tmp_path: Path, random_sam: str) -> None:
    planes = np.stack([picture(seed) for seed in (3, 4, 5, 6)])
    path = write(tmp_path / "stack.ome.tif", planes.reshape(2, 2, SIZE, SIZE), "TZYX")
    out = tmp_path / "out.tif"
    call = ["prompt", path, "--sam", random_sam, "--boxes", told(BOXES[:1])]
    done = command(*call, "--out", out, "--slice", "1,0")
    assert done.exit_code == 0, done.output
    found = read_annotation(out)
    assert found.axes == "TZYX"
    wanted = of_engine(planes[2][None], random_sam)(box=BOXES[0])[0]
    np.testing.assert_array_equal(found.labels[1, 0], wanted)
    assert not found.labels[0].any()
    assert not found.labels[1, 1].any()
    for slices in ([], ["--slice", "2,0"], ["--slice", "one"], ["--slice", "1"]):
        result = command(*call, *slices, "--out", tmp_path / "no.tif")
        assert result.exit_code == 2
        assert_refused(result, "--slice", "time 0 to 1, depth 0 to 1")


def test_colours_and_single_channels(tmp_path: Path, random_sam: str) -> None:
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8)
    path = tmp_path / "colours.tif"
    tifffile.imwrite(path, colours, photometric="rgb")
    out = tmp_path / "out.tif"
    call = ["prompt", path, "--sam", random_sam, "--boxes", told(BOXES[:1])]
    assert command(*call, "--out", out).exit_code == 0
    pixels = read_image(path).plane()
    wanted = of_engine(pixels, random_sam, rgb=True)(box=BOXES[0])[0]
    np.testing.assert_array_equal(read_annotation(out).labels, wanted)
    one = [*call, "--channel", "1", "--out", out, "--overwrite"]
    assert command(*one).exit_code == 0
    wanted = of_engine(pixels[1:2], random_sam)(box=BOXES[0])[0]
    np.testing.assert_array_equal(read_annotation(out).labels, wanted)
    wrong = command(*call, "--channel", "3", "--out", tmp_path / "no.tif")
    assert_refused(wrong, "no channel 3")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["--points or --boxes"]),
        (["--points", "a,b"], ["--points", "row,column"]),
        (["--points", "1,2,3"], ["--points"]),
        (["--points", "nan,2"], ["--points"]),
        (["--boxes", "1,2,3"], ["--boxes", "top,left,bottom,right"]),
        (["--points", "20,96"], ["20,96", "columns 0 to 95"]),
        (["--negative", "-1,3", "--points", "1,1"], ["-1,3", "outside"]),
        (["--boxes", "30,30,10,40"], ["ends before it begins"]),
        (["--boxes", "200,200,300,300"], ["outside"]),
        (["--points", "3,4", "--boxes", "1,1,5,5;6,6,9,9"], ["object of its own"]),
        (["--points", "3,4", "--each", "--negative", "5,5"], ["--each"]),
        (["--points", "3,4", "--slice", "0"], ["no stack"]),
        (["--points", "3,4;5,6", "--idea", "9"], ["no idea 9"]),
    ],
)
def test_what_cannot_be_asked_gets_a_sentence(
    image: Path, tmp_path: Path, random_sam: str, options: list[str], words: list[str]
) -> None:
    result = command(
        "prompt", image, *options, "--sam", random_sam, "--out", tmp_path / "out.tif"
    )
    assert result.exit_code == 2, result.output
    assert_refused(result, *words)
    assert not (tmp_path / "out.tif").exists()


def test_files_and_names_that_cannot_be_used(image: Path, tmp_path: Path) -> None:
    call = ["prompt", image, "--points", "3,4"]
    there = tmp_path / "there.tif"
    there.write_bytes(b"mine")
    before = content(tmp_path)
    for options, code, word in (
        (["--out", there], 2, "--overwrite"),
        (["--out", image, "--overwrite"], 2, "what is read here"),
        (["--out", tmp_path / "a.png"], 2, ".tif"),
        (["--out", tmp_path / "none" / "a.tif"], 2, "does not exist"),
        (["--out", tmp_path / "a.tif", "--sam", "nan0"], 2, "nan0"),
        (["--out", tmp_path / "a.tif", "--sam", "vit_b"], 1, "models fetch"),
    ):
        result = command(*call, *options)
        assert result.exit_code == code, (options, result.output)
        assert_refused(result, word)
    gone = command(
        "prompt", tmp_path / "gone.tif", "--points", "3,4", "--out", tmp_path / "a.tif"
    )
    assert_refused(gone, "gone.tif")
    assert content(tmp_path) == before
    assert there.read_bytes() == b"mine"


# --- measure ----------------------------------------------------------------------


def labels_of(count: int = 1) -> np.ndarray:
    labels = np.zeros((count, SIZE, SIZE), np.int32)
    labels[0, 5:20, 8:30] = 3
    labels[0, 40:60, 50:90] = 7
    labels[-1, 70:80, 5:15] = 2
    return labels if count > 1 else labels[0]


def test_the_table_is_that_of_the_form(image: Path, tmp_path: Path) -> None:
    labels = labels_of()
    path, out = tmp_path / "labels.tif", tmp_path / "table.csv"
    write_labels(path, labels, scale={"Y": 0.5, "X": 0.25})
    done = command("measure", path, "--image", image, "--out", out, "--json")
    assert done.exit_code == 0, done.output
    asked = {"labels": labels, "image": picture()[None]}
    asked |= {"scale": {"y": 0.5, "x": 0.25}, "unit": "micrometer"}
    wanted = pd.DataFrame(finish(measure(asked, Context())))
    pd.testing.assert_frame_equal(pd.read_csv(out), wanted, check_dtype=False)
    report = json.loads(done.stdout)
    assert report["objects"] == 3
    assert report["unit"] == "micrometer"
    assert report["columns"] == list(wanted.columns)


def test_the_table_is_that_of_folders(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "cells.tif", picture(), "YX")
    call = ["segment", tmp_path / "in", "--model", "otsu", "--instances"]
    run = command(*call, "--export", "csv", "--out", tmp_path / "run")
    assert run.exit_code == 0, run.output
    out = tmp_path / "table.csv"
    done = command(
        *("measure", tmp_path / "run" / "cells.tif"),
        *("--image", tmp_path / "in" / "cells.tif", "--out", out),
    )
    assert done.exit_code == 0, done.output
    wanted = pd.read_csv(tmp_path / "run" / "objects.csv")
    assert len(wanted) > 0
    wanted = wanted.drop(columns=["image", "class"])
    pd.testing.assert_frame_equal(pd.read_csv(out), wanted)


def test_stacks_classes_and_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path, out = tmp_path / "labels.tif", tmp_path / "table.parquet"
    write_labels(path, labels_of(3), axes="ZYX")
    assert command("measure", path, "--out", out).exit_code == 0
    table = pd.read_parquet(out)
    assert list(table["slice"]) == [0, 0, 2]
    assert list(table["label"]) == [3, 7, 2]
    assert set(table["unit"]) == {"px"}
    kinds = tmp_path / "kinds.tif"
    write_labels(kinds, (labels_of() > 0).astype(np.uint8))
    named = ["--classes", "--names", "background,cell", "--pixel-size", "2,3"]
    call = ["measure", kinds, "--out", out, *named, "--overwrite"]
    assert command(*call).exit_code == 0
    table = pd.read_parquet(out)
    assert list(table["class"]) == ["background", "cell"]
    np.testing.assert_allclose(table["area"], 6 * table["area_px"])
    assert set(table["unit"]) == {"micrometer"}


def test_no_objects_are_a_table_without_rows(tmp_path: Path) -> None:
    path, out = tmp_path / "labels.tif", tmp_path / "table.csv"
    write_labels(path, np.zeros((8, 9), np.int32))
    done = command("measure", path, "--out", out)
    assert done.exit_code == 0
    assert "Measured 0 objects" in done.stdout
    assert len(pd.read_csv(out)) == 0


def test_tables_that_cannot_be_made(image: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.tif"
    write_labels(path, np.ones((8, 9), np.int32))
    out = tmp_path / "table.csv"
    for options, word in (
        (["--image", image, "--out", out], "not of one shape"),
        (["--out", tmp_path / "table.txt"], ".parquet"),
        (["--channel", "0", "--out", out], "--image"),
        (["--names", "cell", "--out", out], "--names"),
        (["--pixel-size", "0,1", "--out", out], "--pixel-size"),
        (["--pixel-size", "a,1", "--out", out], "--pixel-size"),
    ):
        result = command("measure", path, *options)
        assert result.exit_code == 2, result.output
        assert_refused(result, word)
    out.write_text("mine")
    assert_refused(command("measure", path, "--out", out), "--overwrite")
    halves = write(tmp_path / "halves.ome.tif", picture() + 0.5, "YX")
    assert_refused(command("measure", halves, "--out", tmp_path / "b.csv"), "whole")
    assert out.read_text() == "mine"
