"""Quality without labels from the command line, in folders and in the engine."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tifffile
from folders import SIZE, assert_refused, command, write_pairs

from napari_medseg._types import finish
from napari_medseg.batch import BatchSettings, read_ledger, segment_batch
from napari_medseg.engine.estimating import estimate
from napari_medseg.engine.jobs import Context


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("references") / "known", 3)


@pytest.fixture
def images(tmp_path):
    """Return a folder of two images, one without anything on it."""
    folder = write_pairs(tmp_path / "new", 1, seed=8) / "images"
    tifffile.imwrite(folder / "blank.tif", np.zeros((SIZE, SIZE), np.uint8))
    return folder


def test_estimate_gives_json(images, references):
    result = command(
        *("estimate", "--images", images, "--model", "otsu"),
        *("--references", references, "--next", 1, "--device", "cpu", "--json"),
    )
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert set(values["per_image"]) == {"blank.tif", "cell 0.tif"}
    row = values["per_image"]["cell 0.tif"]
    assert row["dice"] is None
    assert 0 < row["reverse_dice"] <= 1
    assert "3 annotated images" in values["basis"]
    assert len(values["next"]) == 1


def test_estimate_looks_into_folders(images, references):
    (images / "day 1").mkdir()
    (images / "cell 0.tif").rename(images / "day 1" / "cell [0].tif")
    result = command(
        *("estimate", "--images", images, "--model", "otsu"),
        *("--references", references, "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    # in a file no figure is cut, and brackets are no colours
    row = next(line for line in result.stdout.splitlines() if "cell [0].tif" in line)
    assert "day 1/cell [0].tif" in row and "…" not in result.stdout


def test_estimate_prints_a_table_and_what_it_rests_on(images, references):
    result = command(
        *("estimate", "--images", images, "--model", "otsu", "--device", "cpu"),
        *("--references", references / "images"),
        *("--reference-masks", references / "masks"),
    )
    assert result.exit_code == 0, result.output
    assert "cell 0.tif" in result.stdout
    assert "only ranked" in result.stdout


def test_estimate_refuses_in_sentences(images, references, tmp_path):
    given = ("estimate", "--images", images, "--model", "otsu", "--references")
    assert_refused(command(*given, tmp_path / "nowhere"), "nowhere")
    assert_refused(command(*given, references, "--annotation", "neat"), "neat")
    empty = tmp_path / "empty"
    empty.mkdir()
    nothing = ("estimate", "--images", empty, "--model", "otsu", "--references")
    assert_refused(command(*nothing, references), "empty")
    unknown = ("estimate", "--images", images, "--model", "ots", "--references")
    assert_refused(command(*unknown, references), "ots")


def test_folders_keep_the_quality_of_each_image(images, references, tmp_path):
    out = tmp_path / "out"
    plain = BatchSettings("otsu", device="cpu")
    finish(segment_batch([images], out, plain))
    with read_ledger(out) as ledger:
        assert {row.quality for row in ledger.rows()} == {None}
    settings = BatchSettings("otsu", device="cpu", references=str(references))
    # labels are there, but nobody has judged them
    first = finish(segment_batch([images], out, settings))
    assert len(first.done) == 2
    with read_ledger(out) as ledger:
        rows = {row.name: row for row in ledger.rows()}
    assert 0 < rows["cell 0"].quality <= 1
    assert rows["blank"].quality is None
    assert "Nothing was found" in rows["blank"].note
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "lowest predicted quality come first" in page
    assert "3 annotated images" in page
    again = finish(segment_batch([images], out, settings))
    assert len(again.skipped) == 2
    # a run that judges nothing leaves what was judged, and on what it rests
    finish(segment_batch([images], out, plain))
    made = json.loads((out / "medseg.json").read_text(encoding="utf-8"))
    assert "3 annotated images" in made["quality"]
    # with other annotated images all are judged anew
    others = write_pairs(tmp_path / "others", 4, seed=5)
    settings = BatchSettings("otsu", device="cpu", references=str(others))
    anew = finish(segment_batch([images], out, settings))
    assert [Path(name).stem for name in anew.done] == ["cell 0"]
    made = json.loads((out / "medseg.json").read_text(encoding="utf-8"))
    assert "4 annotated images" in made["quality"]


def test_the_engine_estimates(images, references):
    arguments = {
        "images": str(images),
        "model": "otsu",
        "references": str(references),
        "masks": None,
        "annotation": "auto",
        "ignore": None,
        "settings": {"device": "cpu", "working_size": 128},
        "next": 2,
        "base": None,
    }
    values = finish(estimate(arguments, Context()))
    json.dumps(values, allow_nan=False)
    assert set(values["next"]) == {"blank.tif", "cell 0.tif"}
    assert not math.isnan(values["per_image"]["cell 0.tif"]["reverse_dice"])
