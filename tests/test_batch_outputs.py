"""What a folder run writes opens elsewhere, says the truth, and is in its place."""

from __future__ import annotations

import json
import os
import random
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr

from napari_medseg import _labels
from napari_medseg._labels import StoredLabels
from napari_medseg._types import InputError, LabelClass, default_classes
from napari_medseg.batch import measuring
from napari_medseg.batch._parts import PARTS, THUMBNAIL, part_path
from napari_medseg.batch.outputs import (
    Written,
    finish_outputs,
    output_files,
    run_files,
    write_beside,
    write_outputs,
)
from napari_medseg.batch.settings import BatchSettings
from napari_medseg.instances import ObjectConfig
from napari_medseg.io.image_file import ImageFile
from napari_medseg.io.images import read_annotation, read_image
from napari_medseg.measurements import measure, measure_classes

TWO = default_classes(2)

THREE = (
    LabelClass("background", "#00000000"),
    LabelClass("tumour", "#e69f00"),
    LabelClass("immune cell", "#56b4e9"),
)

SCALE = {"Z": 2.0, "Y": 0.5, "X": 0.25}
UNITS = dict.fromkeys("ZYX", "µm")

ALL = ("csv", "geojson", "roi", "coco", "ome-zarr")

NAMES = ["a", "a_probabilities", "sub folder/größe 細胞", "<script>alert(1)</script>"]


def objects(*formats: str, probabilities: bool = False) -> BatchSettings:
    """Return settings that ask for objects."""
    return BatchSettings(
        "m", objects=ObjectConfig(), formats=formats, probabilities=probabilities
    )


def classes(*formats: str) -> BatchSettings:
    """Return settings that ask for classes."""
    return BatchSettings("m", formats=formats)


def drawn(seed: int, shape: tuple[int, int] = (40, 50)) -> np.ndarray:
    """Make labels of rectangles, some of them cut by others, with a gap in the ids."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    for number in (1, 2, 4, 5):
        y, x = rng.integers(0, shape[0] - 12), rng.integers(0, shape[1] - 12)
        labels[y : y + 12, x : x + rng.integers(4, 12)] = number
    return labels


def image_of(
    labels: np.ndarray, axes: str = "YX", *, channels: int = 1, **more: Any
) -> ImageFile:
    """Make an image on which labels were found."""
    noise = np.random.default_rng(0).normal(100, 20, labels.shape)
    values = [noise + 300 * (labels > 0) + 50 * each for each in range(channels)]
    data = np.stack(values, axis=labels.ndim - 2) if channels > 1 else values[0]
    data = data.clip(0, 255 if more.get("rgb") else None)
    if channels > 1:
        axes = axes.replace("Y", "CY")
    kind = np.uint8 if more.get("rgb") else np.uint16
    defaults: dict[str, Any] = {"scale": SCALE, "units": UNITS}
    return ImageFile(
        Path("in", "image.tif"), data.astype(kind), axes, **(defaults | more)
    )


def write(
    out: Path,
    name: str,
    labels: np.ndarray,
    settings: BatchSettings,
    axes: str = "YX",
    kinds: tuple[LabelClass, ...] = TWO,
    **more: Any,
) -> Written:
    """Write the outputs of a made-up image."""
    image = more.pop("image", None) or image_of(labels, axes)
    return write_outputs(
        image, labels, None, kinds, out, PurePosixPath(name), settings, **more
    )


def finish(
    out: Path,
    names: list[str],
    settings: BatchSettings,
    kinds: tuple[LabelClass, ...] = TWO,
) -> tuple[str, ...]:
    return finish_outputs(out, map(PurePosixPath, names), settings, kinds)


def features(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["features"]
    return found


# --- labels and probabilities -------------------------------------------------------


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TZYX"])
def test_labels_come_back_with_axes_and_pixel_size(tmp_path: Path, axes: str) -> None:
    stack = {"YX": (), "ZYX": (3,), "TZYX": (2, 3)}[axes]
    labels = np.stack([drawn(each) for each in range(6)])[: int(np.prod(stack or 1))]
    labels = labels.reshape(*stack, 40, 50)
    scale, units = {**SCALE, "T": 30.0}, {**UNITS, "T": "s"}
    written = write(
        tmp_path,
        "sub/a",
        labels,
        objects(),
        image=image_of(labels, axes, scale=scale, units=units),
    )
    assert written == Written(("sub/a.tif",), 4 * labels.size // 2000)
    back = read_annotation(tmp_path / "sub" / "a.tif")
    np.testing.assert_array_equal(back.labels, labels)
    assert back.axes == axes
    assert back.scale == {axis: scale[axis] for axis in axes}
    assert back.units == {axis: units[axis] for axis in axes}
    assert read_image(tmp_path / "sub" / "a.tif").data.dtype == np.uint8


@pytest.mark.parametrize("axes", ["YX", "ZYX"])
def test_probabilities_come_back(tmp_path: Path, axes: str) -> None:
    rng = np.random.default_rng(1)
    stack = (2,) if axes == "ZYX" else ()
    given = rng.random((*stack, 3, 40, 50)).astype(np.float32)
    labels = given.argmax(axis=-3).astype(np.int32)
    settings = BatchSettings("m", probabilities=True)
    written = write_outputs(
        image_of(labels, axes),
        labels,
        given,
        THREE,
        tmp_path,
        PurePosixPath("a"),
        settings,
    )
    assert written.files == ("a.tif", "probabilities/a_probabilities.tiff")
    path = tmp_path / written.files[1]
    back = read_image(path)
    assert back.axes == axes.replace("Y", "CY")
    assert back.data.dtype == np.float32
    np.testing.assert_allclose(back.data, given, atol=1 / 8192)
    assert back.scale == {axis: SCALE[axis] for axis in axes}
    with tifffile.TiffFile(path) as file:
        assert 'Name="immune cell"' in (file.ome_metadata or "")
    assert path.stat().st_size < 0.7 * given.nbytes  # of noise, the worst there is


# --- tables -------------------------------------------------------------------------


def test_one_row_an_object_and_one_row_an_image(tmp_path: Path) -> None:
    settings = objects("csv")
    for seed, name in enumerate(NAMES):
        labels = drawn(seed)
        write(tmp_path, name, labels, settings, image=image_of(labels, channels=2))
    assert finish(tmp_path, NAMES, settings) == ("objects.csv", "images.csv")
    table = pd.read_csv(tmp_path / "objects.csv")
    assert list(table["image"].unique()) == sorted(NAMES)
    for seed, name in enumerate(NAMES):
        labels = drawn(seed)
        image = image_of(labels, channels=2).plane()
        expected = measure(labels, image, {"y": 0.5, "x": 0.25}, "micrometer")
        rows = table[table["image"] == name].reset_index(drop=True)
        assert set(rows["class"]) == {"object"}
        found = rows.drop(columns=["image", "class"])
        pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    images = pd.read_csv(tmp_path / "images.csv").set_index("image")
    row, mine = images.loc["a"], table[table["image"] == "a"]
    assert row["objects"] == len(mine) == 4
    assert row["area_share"] == mine["area_px"].sum() / 2000
    assert row["mean_area"] == pytest.approx(mine["area"].mean())
    assert (row["height_px"], row["width_px"]) == (40, 50)
    assert (row["pixel_size_y"], row["pixel_size_x"]) == (0.5, 0.25)
    assert row["unit"] == "micrometer"
    assert images.loc["sub folder/größe 細胞", "file"] == "sub folder/image.tif"


def test_rows_of_stacks_say_slice_and_frame(tmp_path: Path) -> None:
    settings = objects("csv")
    stack = np.stack([drawn(0), drawn(1), np.zeros((40, 50), np.int32)])
    film = np.stack([stack, stack[::-1]])
    write(tmp_path, "film", film, settings, "TZYX")
    write(tmp_path, "plain", drawn(2), settings)
    write(tmp_path, "stack", stack, settings, "ZYX")
    finish(tmp_path, ["film", "plain", "stack"], settings)
    table = pd.read_csv(tmp_path / "objects.csv")
    assert list(table.columns[:5]) == ["image", "frame", "slice", "label", "class"]
    counts = table.groupby(["image", "frame", "slice"], dropna=False).size()
    assert {key: int(count) for key, count in counts.items() if key[0] == "film"} == {
        ("film", 0, 0): 4,
        ("film", 0, 1): 4,
        ("film", 1, 1): 4,
        ("film", 1, 2): 4,
    }
    assert table[table["image"] == "plain"][["frame", "slice"]].isna().all(axis=None)
    images = pd.read_csv(tmp_path / "images.csv")
    assert list(images["objects"]) == [4, 4, 0, 0, 4, 4, 4, 4, 4, 0]
    assert list(images["slice"].fillna(-1)) == [0, 1, 2, 0, 1, 2, -1, 0, 1, 2]


@pytest.mark.parametrize(
    ("scale", "units"),
    [
        ({}, {}),
        ({"Y": 0.5, "X": 0.5}, {}),
        ({"Y": 0.5, "X": 0.5}, {"Y": "pixel", "X": "pixel"}),
        ({"Y": 0.5, "X": 500}, {"Y": "µm", "X": "nm"}),
        ({"X": 0.5}, {"X": "µm"}),
    ],
)
def test_without_a_pixel_size_areas_are_pixels(
    tmp_path: Path, scale: dict[str, float], units: dict[str, str]
) -> None:
    labels = drawn(0)
    image = image_of(labels, scale=scale, units=units)
    write(tmp_path, "a", labels, objects("csv"), image=image)
    finish(tmp_path, ["a"], objects("csv"))
    table = pd.read_csv(tmp_path / "objects.csv")
    assert set(table["unit"]) == {"px"}
    assert list(table["area"]) == list(table["area_px"])
    assert pd.read_csv(tmp_path / "images.csv")["pixel_size_y"].isna().all()


def test_colours_and_values_that_are_no_numbers(tmp_path: Path) -> None:
    labels, settings = drawn(0), objects("csv")
    write(
        tmp_path, "rgb", labels, settings, image=image_of(labels, channels=3, rgb=True)
    )
    values = image_of(labels).data.astype(np.float32)
    values[:20] = np.nan
    values[20:22] = np.inf
    broken = ImageFile(Path("nan.tif"), values, "YX")
    write(tmp_path, "holes", labels, settings, image=broken)
    finish(tmp_path, ["rgb", "holes"], settings)
    table = pd.read_csv(tmp_path / "objects.csv")
    assert table[table["image"] == "rgb"]["mean_intensity_2"].notna().all()
    assert len(table[table["image"] == "holes"]) == 4


def test_classes_are_measured_as_areas(tmp_path: Path) -> None:
    settings = classes("csv", "geojson", "roi")
    labels = np.minimum(drawn(0), 1)
    labels[30:, :10] = 2
    written = write(tmp_path, "a", labels, settings, kinds=THREE)
    write(tmp_path, "b", np.zeros_like(labels), settings, kinds=THREE)
    assert written.objects is None
    files = finish(tmp_path, ["b", "a"], settings, THREE)
    assert files == ("classes.csv", "images.csv")
    table = pd.read_csv(tmp_path / "classes.csv")
    names = ["background", "tumour", "immune cell"]
    assert list(table["class"]) == names * 2
    assert table.groupby("image")["share"].sum().tolist() == pytest.approx([1, 1])
    assert list(table["area_px"][:3]) == np.bincount(labels.ravel()).tolist()
    assert table["area"][2] == 100 * 0.5 * 0.25
    assert list(table["area_px"][3:]) == [2000, 0, 0]
    assert table["mean_intensity_0"].isna().tolist() == [False] * 4 + [True] * 2
    images = pd.read_csv(tmp_path / "images.csv")
    assert images["share_immune cell"].tolist() == [0.05, 0]
    assert "objects" not in images
    found = features(tmp_path / "a.geojson")
    assert [each["properties"]["name"] for each in found] == names[1:]
    assert "area [micrometer^2]" in found[0]["properties"]["measurements"]
    roifile = pytest.importorskip("roifile")
    assert [roi.name for roi in roifile.roiread(tmp_path / "a_rois.zip")] == names[1:]


def test_classes_are_measured_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.zeros((40, 50), np.int32)
    labels[3:9, 5:30], labels[20:31, 2:40] = 1, 2  # neither is in every band
    image = image_of(labels, channels=2)
    whole = measuring.measure_areas(image, {}, labels, 4)
    monkeypatch.setattr(measuring, "_PIXELS", 7 * 50)
    bands = measuring.measure_areas(image, {}, labels, 4)
    pd.testing.assert_frame_equal(bands, whole)
    expected = measure_classes(
        labels, image.plane(), {"y": 0.5, "x": 0.25}, "micrometer"
    )
    found = whole.iloc[1:3].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_objects_of_several_classes(tmp_path: Path) -> None:
    settings = objects("csv", "coco", "geojson")
    labels = drawn(3)
    kinds = np.where(labels == 4, 2, np.minimum(labels, 1))
    kinds[labels == 5] = 0  # its class is not known
    write(tmp_path, "a", labels, settings, kinds=THREE, class_labels=kinds)
    write(tmp_path, "b", labels, settings, kinds=THREE)
    finish(tmp_path, ["a", "b"], settings, THREE)
    table = pd.read_csv(tmp_path / "objects.csv", keep_default_na=False)
    mine = table[table["image"] == "a"].set_index("label")["class"]
    assert mine.to_dict() == {1: "tumour", 2: "tumour", 4: "immune cell", 5: ""}
    assert set(table[table["image"] == "b"]["class"]) == {""}
    images = pd.read_csv(tmp_path / "images.csv")
    assert images["objects"].tolist() == [4, 4]
    assert images["objects_tumour"].fillna(-1).tolist() == [2, -1]
    assert images["objects_immune cell"].fillna(-1).tolist() == [1, -1]
    coco = json.loads((tmp_path / "coco.json").read_text("utf-8"))
    names = {each["id"]: each["name"] for each in coco["categories"]}
    assert names == {1: "tumour", 2: "immune cell", 3: "object"}
    seen = [each["category_id"] for each in coco["annotations"]]
    assert seen == [1, 1, 2, 3, 3, 3, 3, 3]
    colours = [
        each["properties"].get("classification", {}).get("color")
        for each in features(tmp_path / "a.geojson")
    ]
    assert colours == [[230, 159, 0], [230, 159, 0], [86, 180, 233], None]


def test_parquet_has_the_same_rows(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    settings = objects("csv", "parquet")
    stack = np.stack([drawn(0), np.zeros((40, 50), np.int32)])
    write(tmp_path, "NA", drawn(1), settings)  # no missing value
    write(tmp_path, "line\nbreak", stack, settings, "ZYX")
    names = ["NA", "line\nbreak"]
    files = finish(tmp_path, names, settings)
    assert files == run_files(settings)
    assert files == ("objects.csv", "images.csv", "objects.parquet", "images.parquet")
    for name in ("objects", "images"):
        rows = pd.read_csv(tmp_path / f"{name}.csv", keep_default_na=False)
        table = pd.read_parquet(tmp_path / f"{name}.parquet")
        assert list(table.columns) == list(rows.columns)
        assert list(table["image"]) == list(rows["image"])
        assert set(table["image"]) == set(names)
    table = pd.read_parquet(tmp_path / "objects.parquet")
    assert table["area_px"].dtype == np.int64
    assert table["slice"].dropna().unique().tolist() == [0]


# --- outlines and masks -------------------------------------------------------------


def test_outlines_of_stacks_are_in_their_slices(tmp_path: Path) -> None:
    shapely = pytest.importorskip("shapely")
    roifile = pytest.importorskip("roifile")
    labels = np.stack([drawn(0), drawn(1)])
    write(tmp_path, "z", labels, objects("geojson", "roi"), "ZYX")
    film = labels[:, None].repeat(2, axis=1)
    write(tmp_path, "tz", film, objects("roi"), "TZYX")
    found = features(tmp_path / "z.geojson")
    assert len({each["id"] for each in found}) == len(found) == 8
    for each in found:
        plane = each["geometry"]["plane"]
        assert (plane["c"], plane["t"]) == (-1, 0)
        label = int(each["properties"]["name"])
        shape = shapely.geometry.shape(each["geometry"])
        assert shape.is_valid
        assert shape.area == (labels[plane["z"]] == label).sum()
        measured = each["properties"]["measurements"]
        assert measured["area [micrometer^2]"] == shape.area * 0.125
    rois = roifile.roiread(tmp_path / "z_rois.zip")
    assert [roi.name for roi in rois[3:5]] == ["z001-0005", "z002-0001"]
    assert [roi.position for roi in rois] == [1] * 4 + [2] * 4
    rois = roifile.roiread(tmp_path / "tz_rois.zip")
    places = [(roi.position, roi.z_position, roi.t_position) for roi in rois]
    assert places[::4] == [(0, 1, 1), (0, 2, 1), (0, 1, 2), (0, 2, 2)]


def test_rois_of_stacks_with_channels_leave_the_channel_open(tmp_path: Path) -> None:
    roifile = pytest.importorskip("roifile")
    labels = np.stack([drawn(0), drawn(1)])
    image = image_of(labels, "ZYX", channels=2)
    write(tmp_path, "a", labels, objects("roi"), image=image)
    roi = roifile.roiread(tmp_path / "a_rois.zip")[-1]
    assert (roi.position, roi.c_position) == (0, 0)
    assert (roi.z_position, roi.t_position) == (2, 1)


# of pycocotools' own making
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("settings", [objects("coco"), classes("coco")])
def test_coco_holds_the_objects_of_all_images(
    tmp_path: Path, settings: BatchSettings
) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    images = {name: np.minimum(drawn(seed), 2) for seed, name in enumerate(NAMES)}
    images["z"] = np.stack([drawn(7), np.zeros((40, 50), np.int32)]).clip(0, 2)
    for name, labels in images.items():
        axes = "ZYX" if labels.ndim == 3 else "YX"
        write(tmp_path, name, labels, settings, axes, THREE)
    assert finish(tmp_path, list(images), settings, THREE) == ("coco.json",)
    data = coco.COCO(str(tmp_path / "coco.json"))
    names = {key: entry["name"] for key, entry in data.cats.items()}
    expected = {1: "tumour", 2: "immune cell"}
    assert names == (expected | {3: "object"} if settings.objects else expected)
    assert len(data.imgs) == len(images) + 1
    assert len(data.anns) == len(set(data.anns)) > 5
    planes = [labels.reshape(-1, 40, 50) for _, labels in sorted(images.items())]
    for number, plane in enumerate(np.concatenate(planes), start=1):
        found = data.loadAnns(data.getAnnIds(imgIds=[number]))
        ids = [label for label in np.unique(plane).tolist() if label]
        assert len(found) == len(ids)
        for label, each in zip(ids, found, strict=True):
            np.testing.assert_array_equal(data.annToMask(each), plane == label)
            assert each["category_id"] == (3 if settings.objects else label)
    assert data.imgs[len(images) + 1]["slice"] == 1


def test_ome_zarr_opens_in_ome_zarr(tmp_path: Path) -> None:
    labels = np.stack([drawn(0), drawn(1)])
    write(tmp_path, "a b", labels, objects("ome-zarr"), "ZYX")
    path = tmp_path / "ome-zarr" / "a b.ome.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the reader's own making
        library = pytest.importorskip("ome_zarr.reader")
        parse_url = pytest.importorskip("ome_zarr.io").parse_url
        nodes = list(library.Reader(parse_url(path))())
        assert any(node.load(library.Label) for node in nodes)
        for node in (each for each in nodes if each.load(library.Multiscales)):
            np.testing.assert_array_equal(np.asarray(node.data[0]), labels)
    image = read_image(path)
    assert (image.scale, image.units) == (SCALE, UNITS)


# --- nothing found, nothing there, odd names ----------------------------------------


def test_images_without_objects(tmp_path: Path) -> None:
    roifile = pytest.importorskip("roifile")
    settings = objects(*ALL)
    write(tmp_path, "a", np.zeros((40, 50), np.int32), settings)
    write(tmp_path, "b", np.zeros((1, 1), np.int32), settings)
    finish(tmp_path, ["a", "b"], settings)
    table = pd.read_csv(tmp_path / "objects.csv")
    assert len(table) == 0
    assert {"image", "label", "area", "mean_intensity_0"} <= set(table.columns)
    images = pd.read_csv(tmp_path / "images.csv")
    assert images["objects"].tolist() == [0, 0]
    assert images["mean_area"].isna().all()
    assert features(tmp_path / "a.geojson") == []
    assert list(roifile.roiread(tmp_path / "a_rois.zip")) == []
    coco = json.loads((tmp_path / "coco.json").read_text("utf-8"))
    assert (len(coco["images"]), coco["annotations"]) == (2, [])
    assert coco["categories"] == [{"id": 1, "name": "object", "supercategory": ""}]


def test_classes_of_one_name_stay_apart(tmp_path: Path) -> None:
    kinds = (TWO[0], LabelClass("cell", "#e69f00"), LabelClass("cell", "#56b4e9"))
    labels = np.minimum(drawn(0), 2)
    write(tmp_path, "a", labels, classes("csv", "roi"), kinds=kinds)
    finish(tmp_path, ["a"], classes("csv"), kinds)
    table = pd.read_csv(tmp_path / "classes.csv")
    assert list(table["class"]) == ["background", "cell", "cell 2"]


def test_outputs_of_different_images_never_meet() -> None:
    settings = replace(objects(*ALL, probabilities=True), masks=True)
    endings = (
        "",
        "_probabilities",
        "_masks",
        "_rois",
        ".ome",
        ".geojson",
        ".tif",
        ".tiff",
    )
    folders = ("", "probabilities/", "masks/", "ome-zarr/", f"{PARTS}/")
    names = [f"{folder}a{ending}" for folder in folders for ending in endings]
    files = [
        file.casefold()
        for name in names
        for file in output_files(PurePosixPath(name), settings)
    ]
    assert len(files) == len(set(files))
    shared = {file.casefold() for file in run_files(settings)}
    assert not shared & set(files)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_what_was_said(tmp_path: Path, name: str) -> None:
    settings = replace(objects(*ALL, probabilities=True), masks=True)
    labels = drawn(0)
    given = np.random.default_rng(0).random((2, 40, 50), np.float32)
    path = PurePosixPath(name)
    written = write_outputs(
        image_of(labels),
        labels,
        given,
        TWO,
        tmp_path,
        path,
        settings,
        masks=given[1:] > 0.5,
    )
    assert written.files == output_files(path, settings)
    assert written.files[0] == f"{name}.tif"
    there = [file for file in tmp_path.rglob("*") if file.is_file()]
    said = {tmp_path / file for file in written.files}
    said.add(tmp_path / part_path(name, THUMBNAIL))
    for file in there:
        assert file in said or any(parent in said for parent in file.parents), file
    assert all(file.exists() for file in said)


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", ""])
def test_names_never_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="leads out of the output"):
        write(out, name, drawn(0), objects())
    assert not list(tmp_path.iterdir())


def test_a_disk_that_refuses_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("no folder")
    with pytest.raises(InputError, match=r"a\.tif cannot be written"):
        write(tmp_path / "out", "a", drawn(0), objects())


# --- one file for all images --------------------------------------------------------


def contents(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names}


def test_order_stale_parts_and_halves_do_not_matter(tmp_path: Path) -> None:
    settings = objects("csv", "coco")
    for seed, name in enumerate(NAMES):
        write(tmp_path, name, drawn(seed), settings)
    expected = contents(tmp_path, finish(tmp_path, NAMES, settings))
    write(tmp_path, "stale", drawn(9), settings)
    for file in output_files(PurePosixPath("a"), settings)[1:]:
        path = tmp_path / file
        half = path.with_name(f".{path.stem}.0123abcd.part{path.suffix}")
        half.write_bytes(path.read_bytes()[:-20])
    shuffled = NAMES.copy()
    for seed in range(3):
        random.Random(seed).shuffle(shuffled)
        assert contents(tmp_path, finish(tmp_path, shuffled, settings)) == expected
    fewer = finish(tmp_path, NAMES[1:], settings)
    table = pd.read_csv(tmp_path / fewer[0])
    assert set(table["image"]) == set(NAMES[1:])


def test_a_file_of_images_that_are_no_longer_done_goes(tmp_path: Path) -> None:
    settings = objects("csv", "coco")
    write(tmp_path, "a", drawn(0), settings)
    assert finish(tmp_path, ["a"], settings) == run_files(settings)
    # another run made "b", without tables
    assert finish(tmp_path, ["b"], settings) == ()
    assert not any((tmp_path / file).exists() for file in run_files(settings))


@pytest.mark.parametrize("ending", [".objects.csv", ".coco.jsonl"])
@pytest.mark.parametrize("damage", [b"", b"\xff\xfe{", b"[1, 2"])
def test_damaged_parts_are_named(tmp_path: Path, ending: str, damage: bytes) -> None:
    settings = objects("csv", "coco")
    write(tmp_path, "a", drawn(0), settings)
    part = tmp_path / part_path("a", ending)
    part.write_bytes(damage)
    with pytest.raises(InputError, match=r"missing or damaged\. Segment that image"):
        finish(tmp_path, ["a"], settings)


# --- large images -------------------------------------------------------------------


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at labels in parts so small that there are several in a small image."""
    monkeypatch.setattr(_labels, "_BAND", 9)
    cut = partial(_labels.label_windows, side=16)
    for module in ("io.exports._objects", "batch.measuring", "batch._image_outputs"):
        monkeypatch.setattr(f"napari_medseg.{module}.label_windows", cut)


def test_windows_hold_every_object_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_labels, "_BAND", 9)
    labels = drawn(5, (70, 90))
    labels[40:44, 3:88] = 9  # larger than a window
    labels[60, 60] = 5_000_000
    for given in (labels, StoredLabels(zarr.array(labels))):
        seen = np.zeros_like(labels)
        windows = list(_labels.label_windows(given, 16))
        assert len(windows) > 3
        for window in windows:
            part = labels[window.rows, window.columns]
            np.testing.assert_array_equal(window.labels, part)
            for label, box in window.boxes:
                view = seen[window.rows, window.columns][box]
                view[part[box] == label] = label
        np.testing.assert_array_equal(seen, labels)
        ids = [label for window in windows for label, _ in window.boxes]
        assert sorted(ids) == [1, 2, 4, 5, 9, 5_000_000]
    nothing = np.zeros((70, 90), np.int32)
    assert list(_labels.label_windows(nothing, 16)) == []


@pytest.mark.usefixtures("small_windows")
def test_parts_give_what_the_whole_gives(tmp_path: Path) -> None:
    labels = drawn(5)
    image = image_of(labels, channels=2)
    found = measuring.measure_objects(image, {}, labels)
    expected = measure(labels, image.plane(), {"y": 0.5, "x": 0.25}, "micrometer")
    pd.testing.assert_frame_equal(found, expected)
    empty = measuring.measure_objects(image, {}, np.zeros_like(labels))
    assert list(empty.columns) == list(expected.columns) and len(empty) == 0


@pytest.mark.usefixtures("small_windows")
@pytest.mark.parametrize("axes", ["YX", "ZYX"])
def test_labels_on_the_disk_give_the_same_files(tmp_path: Path, axes: str) -> None:
    settings = objects(*ALL)
    labels = np.stack([drawn(0), drawn(1)]) if axes == "ZYX" else drawn(0)
    image = image_of(labels, axes)
    write(tmp_path / "memory", "a", labels, settings, axes)
    stored = StoredLabels(zarr.array(labels.astype(np.uint8)))
    written = write_beside(
        image, stored, TWO, tmp_path / "disk", PurePosixPath("a"), settings
    )
    assert written == Written(
        output_files(PurePosixPath("a"), settings), 4 * labels.size // 2000
    )
    for folder in ("memory", "disk"):
        finish(tmp_path / folder, ["a"], settings)
    for file in ("objects.csv", "images.csv", "coco.json", "a.geojson"):
        one, other = ((tmp_path / folder / file) for folder in ("memory", "disk"))
        assert one.read_bytes() == other.read_bytes(), file
    back = read_annotation(tmp_path / "disk" / "ome-zarr" / "a.ome.zarr")
    np.testing.assert_array_equal(back.labels, labels)


# --- pictures for the report --------------------------------------------------------


def picture(out: Path, name: str) -> np.ndarray:
    code = (out / part_path(name, THUMBNAIL)).read_bytes()
    return np.asarray(imagecodecs.webp_decode(code))[..., :3].astype(int)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((40, 50), (40, 50)), ((300, 1200), (50, 200)), ((2500, 12), (200, 1))],
)
def test_pictures_are_small(
    tmp_path: Path, shape: tuple[int, int], expected: tuple[int, int]
) -> None:
    write(tmp_path, "a", np.zeros(shape, np.int32), objects())
    found = picture(tmp_path, "a")
    assert found.shape == (*expected, 3)
    assert np.ptp(found, axis=-1).max() < 12  # grey, but for rounding


def test_pictures_show_outlines_in_the_colour_of_the_class(tmp_path: Path) -> None:
    labels = np.zeros((100, 100), np.int32)
    labels[20:80, 20:80] = 1
    labels[50:80, 20:80] = 2
    for name, settings in (("objects", objects()), ("classes", classes())):
        write(tmp_path, name, labels, settings, kinds=THREE)
        found = picture(tmp_path, name)
        red, _, blue = np.moveaxis(found, -1, 0)
        orange, sky = red - blue > 25, blue - red > 25
        assert orange[19:22, 30:70].any() and not orange[30:45, 30:70].any()
        assert sky[78:82, 30:70].any() == (name == "classes")
        assert not (orange | sky)[:15].any()


def test_many_small_objects_are_tinted(tmp_path: Path) -> None:
    labels = np.zeros((400, 400), np.int32)
    labels[::4, ::4] = np.arange(1, 10_001).reshape(100, 100)
    image = ImageFile(Path("a.tif"), (labels > 0).astype(np.uint8), "YX")
    write(tmp_path, "a", labels, objects(), image=image)
    found = picture(tmp_path, "a")
    assert found[..., 0].std() > 5  # the image is still to be seen


@pytest.mark.parametrize(
    "values", [[0], [7], [np.nan], [np.inf], [np.inf, -np.inf], [3e38, -3e38, np.nan]]
)
def test_pictures_of_images_that_show_nothing(
    tmp_path: Path, values: list[float]
) -> None:
    labels = np.repeat(np.repeat(drawn(0), 20, axis=0), 20, axis=1)
    data = np.resize(np.array(values, np.float32), labels.shape)
    write(tmp_path, "a", labels, objects(), image=ImageFile(Path("a.npy"), data, "YX"))
    assert picture(tmp_path, "a").shape == (160, 200, 3)


def test_large_images_are_not_read_whole_for_a_picture(tmp_path: Path) -> None:
    class Watched:
        """An array that notes how much is read of it at once."""

        shape, ndim, dtype = (6000, 5000), 2, np.dtype(np.uint8)
        most = 0

        def __getitem__(self, key: Any) -> np.ndarray:
            rows, columns = (
                range(*part.indices(length))
                for part, length in zip(key, self.shape, strict=True)
            )
            type(self).most = max(self.most, len(rows) * len(columns))
            return np.zeros((len(rows), len(columns)), np.uint8)

    image = ImageFile(Path("a.tif"), Watched(), "YX")  # type: ignore[arg-type]
    labels = StoredLabels(Watched())
    write_beside(image, labels, TWO, tmp_path, PurePosixPath("a"), classes())
    assert picture(tmp_path, "a").shape == (200, 167, 3)
    assert Watched.most <= 1024 * 5000
    assert os.listdir(tmp_path) == [PARTS]
