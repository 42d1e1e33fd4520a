"""Copied lines: the terminal gets what the form says, and the very same images."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Image, Labels
from typer.testing import CliRunner

from napari_medseg.cli.app import app
from napari_medseg.inference import open_segmenter
from napari_medseg.instances import ClassConfig, ObjectConfig, labels_of
from napari_medseg.io.images import read_annotation, read_image
from napari_medseg.io.pairs import Pair, gather, read_pairs
from napari_medseg.widgets._annotated import pairs_of_layers
from napari_medseg.widgets._command import (
    save_annotated,
    segment_command,
    train_command,
)

if TYPE_CHECKING:
    from pathlib import Path


def layers(dtype: str, *, rgb: bool = False) -> tuple[Image, Labels]:
    rng = np.random.default_rng(0)
    shape = (12, 20, 30, 3) if rgb else (12, 20, 30)
    data = (200 * rng.random(shape)).astype(dtype)
    drawn = np.zeros((12, 20, 30), np.int32)
    drawn[[0, 2, 10], 4:9, 5:12] = 3
    return Image(data, name="cells ö", rgb=rgb), Labels(drawn)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int64", "float32", "float64"])
def test_saved_slices_are_the_pairs_that_the_form_trains_on(
    dtype: str, tmp_path: Path
) -> None:
    image, labels = layers(dtype)
    given = [Pair(**pair) for pair in pairs_of_layers(image, labels)]
    read = read_pairs(*save_annotated(image, labels, tmp_path), annotation="dense")
    assert read.digest == gather(given, annotation="dense").digest


def test_colours_too(tmp_path: Path) -> None:
    image, labels = layers("uint8", rgb=True)
    given = [Pair(**pair) for pair in pairs_of_layers(image, labels)]
    read = read_pairs(*save_annotated(image, labels, tmp_path), annotation="dense")
    assert read.digest == gather(given, annotation="dense").digest
    assert read.rgb


def test_a_data_set_keeps_its_own_images(tmp_path: Path) -> None:
    """Its own folder is as good as any, and layers are called what they like."""
    for place in ("images", "masks"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "cell.tif").write_bytes(b"mine")
    image, labels = Image(np.ones((9, 9), np.uint8)), Labels(np.ones((9, 9), np.int32))
    for name in ("cell", "cell", "../cell", "/tmp/cell", "cell: channel 1"):
        image.name = name
        images, masks = save_annotated(image, labels, tmp_path)
        assert len(list(images.iterdir())) == len(list(masks.iterdir())) == 1
    for place in ("images", "masks"):
        (only,) = (tmp_path / place).iterdir()
        assert only.read_bytes() == b"mine"
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.tif")}
    assert made == {f"{place}/cell.tif" for place in ("images", "masks")} | {
        f"{name}/{place}/{file}.tif"
        for place in ("images", "masks")
        for name, file in (
            ("cell training", "cell"),
            ("cell training 2", "cell"),
            ("cell training 3", "cell"),
            ("tmp_cell training", "tmp_cell"),
            ("cell channel 1 training", "cell channel 1"),
        )
    }


def run(line: str) -> Any:
    program, *words = shlex.split(line)
    assert program == "napari-medseg"
    return CliRunner().invoke(app, words)


def test_the_line_trains(tmp_path: Path, sam: str) -> None:
    image, labels = layers("uint8")
    places = save_annotated(image, labels, tmp_path / "my files")
    config = {"sam": sam, "steps": 2, "views": 0, "working_size": 64}
    out = tmp_path / "model.medseg"
    line = train_command(
        *places, out, method="ptsam", annotation="dense", config=config
    )
    done = run(line)
    assert done.exit_code == 0, done.output
    assert out.exists()


def test_the_line_segments(tmp_path: Path) -> None:
    image, labels = layers("uint8")
    images, _ = save_annotated(image, labels, tmp_path)
    objects = {"threshold": 0.4, "min_size": 3, "split": "components", "smoothing": 2.0}
    out = tmp_path / "out"
    done = run(segment_command([images], out, model="otsu", objects=objects))
    assert done.exit_code == 0, done.output
    assert len(list(out.glob("*.tif"))) == 3
    plain = segment_command([images], tmp_path / "classes", model="otsu", objects=None)
    assert run(plain).exit_code == 0


@pytest.mark.parametrize("kind", ["objects", "classes"])
def test_the_line_makes_the_labels_that_the_form_makes(
    kind: str, tmp_path: Path
) -> None:
    image, labels = layers("uint8")
    images, _ = save_annotated(image, labels, tmp_path)
    settings = {"threshold": 0.4, "min_size": 12, "smoothing": 1.5}
    config = (ObjectConfig if kind == "objects" else ClassConfig)(**settings)
    given = {"objects": None, "classes": None} | {kind: settings}
    out = tmp_path / "out"
    done = run(segment_command([images], out, model="otsu", **given))
    assert done.exit_code == 0, done.output
    segmenter = open_segmenter("otsu")
    for path in images.glob("*.tif"):
        found = read_annotation(out / path.name).labels
        prediction = segmenter.predict(read_image(path).plane())
        np.testing.assert_array_equal(found, labels_of(prediction, config))
