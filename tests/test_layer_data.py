"""Labels layers become files, and files of outlines become layers."""

from __future__ import annotations

import json
import zipfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import roifile
from drawn import objects
from napari.layers import Labels, Layer
from napari.utils.colormaps import DirectLabelColormap

from napari_medseg._types import InputError, default_classes, finish
from napari_medseg.batch import BatchSettings
from napari_medseg.batch.outputs import write_outputs
from napari_medseg.engine.exporting import export
from napari_medseg.engine.jobs import Context
from napari_medseg.engine.measuring import measure as measure_job
from napari_medseg.instances import ObjectConfig
from napari_medseg.io.exports import FORMATS, write_geojson, write_rois
from napari_medseg.io.images import read_annotation, read_image
from napari_medseg.io.tiff import write_labels
from napari_medseg.io.zarr_store import read_zarr
from napari_medseg.layer_data.label_files import write_stack
from napari_medseg.layer_data.label_stack import LabelStack, label_stack, to_plain
from napari_medseg.layer_data.readers import geojson_reader, roi_reader
from napari_medseg.layer_data.tables import described, measured, physical_size
from napari_medseg.layer_data.writers import (
    with_ending,
    write_label_geojson,
    write_label_table,
    write_label_tiff,
)
from napari_medseg.measurements import measure

if TYPE_CHECKING:
    from pathlib import Path


def stack_of(layer: Labels) -> LabelStack:
    return label_stack(*layer.as_layer_data_tuple()[:2])


CLASSES = {
    "metadata": {"result": "classes", "classes": ["background", "nucleus", "rod"]},
    "colormap": DirectLabelColormap(
        color_dict={0: "transparent", 1: "#112233", 2: "#445566", None: "transparent"}
    ),
}


def test_a_layer_says_what_its_labels_are() -> None:
    layer = Labels(
        np.zeros((3, 4, 5, 6), int), scale=(9, 2, 0.5, 0.5), units=["s"] + ["um"] * 3
    )
    stack = stack_of(layer)
    assert stack.axes == "TZYX"
    assert stack.scale == {"T": 9, "Z": 2, "Y": 0.5, "X": 0.5}
    assert stack.units == {"T": "s", "Z": "µm", "Y": "µm", "X": "µm"}
    assert stack.meaning == "objects"
    time = Labels(np.zeros((3, 5, 6), int), axis_labels=("t", "y", "x"))
    assert stack_of(time).axes == "TYX"
    assert stack_of(time).scale == {}
    unknown = Labels(np.zeros((5, 6), int), scale=(-0.5, 0.5))
    assert stack_of(unknown).scale == {"Y": 0.5, "X": 0.5}
    assert stack_of(unknown).units == {"Y": "pixel", "X": "pixel"}
    classes = stack_of(Labels(objects(), **CLASSES))
    assert classes.meaning == "classes"
    assert [each.colour for each in classes.classes[1:]] == ["#112233", "#445566"]
    painted = Labels(objects(), metadata={"annotation": "dense"})
    assert stack_of(painted).meaning == "classes"


def test_many_axes() -> None:
    assert stack_of(Labels(np.zeros((1, 1, 2, 3, 4, 5), int))).axes == "TZYX"
    with pytest.raises(InputError, match="5 axes"):
        stack_of(Labels(np.zeros((2, 2, 3, 4, 5), int)))
    with pytest.raises(InputError, match="1 axes"):
        label_stack(np.zeros(3, int), {})
    pyramid = Labels([objects(), objects()[::2, ::2]], multiscale=True)
    np.testing.assert_array_equal(stack_of(pyramid).labels, objects())


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_written(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"cells{FORMATS[name][0]}"
    assert write_stack(stack_of(Labels(objects())), path, name) == path
    assert path.exists()
    assert write_stack(stack_of(Labels(objects(), **CLASSES)), path, name) == path
    with pytest.raises(InputError, match="must end in"):
        write_stack(stack_of(Labels(objects())), tmp_path / "cells.xyz", name)


def test_no_such_format(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'png' is not a format"):
        write_stack(stack_of(Labels(objects())), tmp_path / "cells.png", "png")


def test_a_stack_is_read_back_with_its_scale(tmp_path: Path) -> None:
    labels = np.stack([objects(), 0 * objects(), 300 * objects()])
    units = ("um", "um", "um")
    layer = Labels(da.from_array(labels), scale=(2, 0.5, 0.25), units=units)
    path = tmp_path / "cells.tif"
    assert write_label_tiff(str(path), *layer.as_layer_data_tuple()[:2]) == [str(path)]
    found = read_annotation(path)
    np.testing.assert_array_equal(found.labels, labels)
    assert found.axes == "ZYX"
    assert found.scale == {"Z": 2, "Y": 0.5, "X": 0.25}
    assert set(found.units.values()) == {"µm"}
    write_stack(stack_of(layer), tmp_path / "cells.ome.zarr", "ome-zarr")
    raw = read_zarr(tmp_path / "cells.ome.zarr")
    np.testing.assert_array_equal(np.asarray(raw.data), labels)
    assert raw.scale == found.scale


@pytest.mark.parametrize("ending", [".geojson", ".zip"])
def test_outlines_of_a_stack_come_back_on_their_slices(
    ending: str, tmp_path: Path
) -> None:
    stack = np.stack([objects(), 0 * objects(), 3 * objects()])
    path = tmp_path / f"cells{ending}"
    write_stack(stack_of(Labels(stack)), path, "roi" if ending == ".zip" else "geojson")
    (shapes,) = opened(roi_reader if ending == ".zip" else geojson_reader, path)
    assert shapes.ndim == 3
    assert shapes.nshapes == 6
    drawn = shapes.to_labels(stack.shape)
    for index in range(3):
        np.testing.assert_array_equal(drawn[index] > 0, stack[index] > 0)
        assert len(np.unique(drawn[index])) == len(np.unique(stack[index]))
    if ending == ".geojson":
        areas = list(shapes.features["area_px"])
        assert areas == [24, 45, 36, 24, 45, 36]


def test_times_and_depths(tmp_path: Path) -> None:
    stack = np.zeros((3, 2, 20, 30), np.int32)
    stack[2, 1] = objects()
    for name, ending, reader in (
        ("geojson", ".geojson", geojson_reader),
        ("roi", ".zip", roi_reader),
    ):
        path = write_stack(stack_of(Labels(stack)), tmp_path / f"a{ending}", name)
        (shapes,) = opened(reader, path)
        np.testing.assert_array_equal(shapes.to_labels(stack.shape) > 0, stack > 0)


def test_coco_names_images_and_categories(tmp_path: Path) -> None:
    about = {"classes": ["background", "nucleus"], "source": "cells.tif"}
    layer = Labels(objects(), metadata={**about, "result": "objects"})
    write_stack(stack_of(layer), tmp_path / "a.json", "coco")
    content = json.loads((tmp_path / "a.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["cells.tif"]
    assert [each["name"] for each in content["categories"]] == ["nucleus"]
    assert len(content["annotations"]) == 3
    classes = Labels(np.stack([objects() % 3] * 2), **CLASSES, name="cells")
    write_stack(stack_of(classes), tmp_path / "b.json", "coco")
    content = json.loads((tmp_path / "b.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["cells", "cells"]
    assert [image["slice"] for image in content["images"]] == [0, 1]
    assert [each["name"] for each in content["categories"]] == ["nucleus", "rod"]
    kinds = [each["category_id"] for each in content["annotations"]]
    assert kinds == [1, 2, 1, 2]


def test_classes_have_their_names_and_colours_in_geojson(tmp_path: Path) -> None:
    path = tmp_path / "kinds.geojson"
    layer = Labels(objects(), **CLASSES)
    write_label_geojson(str(path), *layer.as_layer_data_tuple()[:2])
    found = [each["properties"] for each in json.loads(path.read_text())["features"]]
    assert [each["name"] for each in found] == ["nucleus", "rod", "class 7"]
    assert found[0]["classification"] == {"name": "nucleus", "color": [17, 34, 51]}
    assert "classification" not in found[2]
    assert found[1]["measurements"]["share"] == pytest.approx(45 / 600)


def test_the_table_is_that_of_the_layer_while_it_is_true(tmp_path: Path) -> None:
    own = measure(objects()).rename(columns={"label": "index"})
    own["mean_intensity_0"] = [5.0, 6.0, 7.0]
    layer = Labels(objects(), features=own)
    path = tmp_path / "cells.csv"
    write_label_table(str(path), *layer.as_layer_data_tuple()[:2])
    table = pd.read_csv(path)
    assert next(iter(table.columns)) == "label"
    assert list(table["mean_intensity_0"]) == [5, 6, 7]
    layer.data[19, 29] = 7
    again = measured(stack_of(layer))
    assert "mean_intensity_0" not in again
    assert list(again["area_px"]) == [24, 45, 37]
    scaled = Labels(objects(), scale=(0.5, 0.5), units=("um", "um"))
    fresh = measured(stack_of(scaled))
    assert list(fresh["area"]) == [6, 11.25, 9]
    assert set(fresh["unit"]) == {"micrometer"}


def test_the_table_of_classes_and_of_stacks() -> None:
    layer = Labels(np.stack([objects() % 3, 0 * objects()]), **CLASSES)
    table = measured(stack_of(layer))
    assert list(table.columns)[:4] == ["slice", "label", "class", "area_px"]
    assert list(table["class"]) == ["background", "nucleus", "rod"] * 2
    assert list(table["slice"]) == [0, 0, 0, 1, 1, 1]
    assert list(table["area_px"]) == [495, 60, 45, 600, 0, 0]
    about = {"classes": ["background", "nucleus"], "result": "objects"}
    found = measured(stack_of(Labels(objects(), metadata=about)))
    assert list(found["class"]) == ["nucleus"] * 3
    empty = measured(stack_of(Labels(0 * objects())))
    assert len(empty) == 0
    assert "area_px" in empty


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("result", ["objects", "classes"])
def test_a_form_writes_what_the_command_writes(
    result: str, count: int, tmp_path: Path
) -> None:
    """The same names, classes, measurements and places."""
    labels = np.stack([objects(), np.where(objects() > 0, objects() + 10, 0)])
    kinds = np.where(labels % 10 == 2, min(2, count - 1), np.minimum(labels, 1))
    kinds[labels == 17] = 0  # its class is not known
    if result == "classes":
        labels = kinds
    pixels = np.random.default_rng(0).integers(0, 200, labels.shape, np.uint8)
    path = tmp_path / "cells.tif"
    sizes = {"Z": 2.0, "Y": 0.5, "X": 0.25}
    units = dict.fromkeys("ZYX", "µm")
    write_labels(path, pixels, axes="ZYX", scale=sizes, units=units)
    settings = BatchSettings(
        objects=ObjectConfig() if result == "objects" else None,
        formats=("geojson", "roi", "coco", "csv"),
    )
    classes = default_classes(count)
    image, name = read_image(path), PurePosixPath("out")
    write_outputs(
        image, labels, None, classes, tmp_path, name, settings, class_labels=kinds
    )
    layer = Labels(
        labels,
        name="cells",
        scale=tuple(sizes.values()),
        units=("um",) * 3,
        metadata={
            "classes": [each.name for each in classes],
            "colours": [each.colour for each in classes],
            "result": result,
            "source": "cells.tif",
            "kinds": {
                int(label): int(kind)
                for label, kind in zip(labels.ravel(), kinds.ravel(), strict=True)
            },
        },
        colormap=DirectLabelColormap(
            color_dict={
                **{index: each.colour for index, each in enumerate(classes) if index},
                None: "transparent",
            }
        ),
    )
    stack = stack_of(layer)
    tables = []
    for index in range(2):
        asked = {"labels": labels[index], "image": pixels[index][None]}
        scale, unit = physical_size(stack)
        asked |= {"scale": scale, "unit": unit}
        asked["classes"] = count if result == "classes" else None
        columns = finish(measure_job(asked, Context()))
        tables.append(described(pd.DataFrame(columns), stack, {"Z": index}))
    layer.features = pd.concat(tables).rename(columns={"label": "index"})
    stack = stack_of(layer)
    write_stack(stack, tmp_path / "here.geojson", "geojson")
    there = json.loads((tmp_path / "out.geojson").read_text())
    assert json.loads((tmp_path / "here.geojson").read_text()) == there
    write_stack(stack, tmp_path / "here.zip", "roi")
    mine = roifile.roiread(tmp_path / "here.zip")
    assert mine == roifile.roiread(tmp_path / "out_rois.zip")
    (rows,) = [each for each in tmp_path.rglob("*.csv") if "objects" in each.name] or [
        each for each in tmp_path.rglob("*.csv") if "classes" in each.name
    ]
    theirs = pd.read_csv(rows).drop(columns="image")
    write_stack(stack, tmp_path / "here.csv", "csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "here.csv"), theirs)
    write_stack(stack, tmp_path / "here.json", "coco")
    (part,) = tmp_path.rglob("*.jsonl")
    lines = [json.loads(line) for line in part.read_text().splitlines()]
    wanted = [each["category_id"] for each in lines if "category_id" in each]
    content = json.loads((tmp_path / "here.json").read_text())
    assert [each["category_id"] for each in content["annotations"]] == wanted
    assert [each["file_name"] for each in content["images"]] == ["cells.tif"] * 2


def test_the_engine_writes_the_same(tmp_path: Path) -> None:
    own = measure(objects()).rename(columns={"label": "index"})
    units = ("um", "um")
    layer = Labels(objects(), features=own, scale=(0.5, 0.25), units=units, **CLASSES)
    stack = stack_of(layer)
    for name, (ending, _) in FORMATS.items():
        if name in ("ome-zarr", "parquet"):
            continue
        here, there = tmp_path / f"here{ending}", tmp_path / f"there{ending}"
        write_stack(stack, here, name)
        asked = {"stack": to_plain(stack), "path": str(there), "format": name}
        json.dumps({**asked["stack"], "labels": None})
        assert finish(export(asked, Context())) == str(there)
        if name == "tif":
            assert read_annotation(here).scale == read_annotation(there).scale
        elif name != "roi":
            assert here.read_bytes() == there.read_bytes()


def test_endings(tmp_path: Path) -> None:
    assert with_ending(tmp_path / "cells.v2", "csv").name == "cells.v2.csv"
    assert with_ending(tmp_path / "cells.TIFF", "tif").name == "cells.TIFF"
    assert with_ending(tmp_path / "cells.zarr", "ome-zarr").name == "cells.zarr"
    (tmp_path / "cells.csv").write_text("mine")
    given = Labels(objects()).as_layer_data_tuple()[:2]
    with pytest.raises(InputError, match="exists"):
        write_label_table(str(tmp_path / "cells"), *given)
    assert (tmp_path / "cells.csv").read_text() == "mine"


def test_labels_that_are_none(tmp_path: Path) -> None:
    stack = label_stack(np.zeros((3, 4)), {"name": "picture"})
    with pytest.raises(InputError, match="picture holds float64"):
        write_stack(stack, tmp_path / "a.tif", "tif")


def opened(reader: Any, path: Path) -> list[Layer]:
    function = reader(str(path))
    assert function is not None
    return [Layer.create(*each) for each in function(str(path))]


@pytest.mark.parametrize("ending", [".geojson", ".zip"])
def test_outlines_come_back_as_the_very_objects(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"cells{ending}"
    if ending == ".zip":
        write_rois(path, objects())
        (shapes,) = opened(roi_reader, path)
    else:
        classes = dict.fromkeys((1, 2, 7), ("nucleus", "#112233"))
        table = measure(objects())
        write_geojson(path, objects(), classes=classes, measurements=table)
        (shapes,) = opened(geojson_reader, path)
        assert list(shapes.features["class"]) == ["nucleus"] * 3
        assert list(shapes.features["area_px"]) == [24, 45, 36]
    assert shapes.name == "cells"
    assert shapes.nshapes == 3
    drawn = shapes.to_labels(objects().shape)
    ranks = np.searchsorted([0, 1, 2, 7], objects())
    np.testing.assert_array_equal(drawn, ranks)


def test_lines_and_points_become_layers_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "drawn.geojson"
    geometries = [
        {"type": "MultiLineString", "coordinates": [[[0, 0], [3, 3]], [[1, 1]]]},
        {"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]},
    ]
    content = [{"type": "Feature", "geometry": each} for each in geometries]
    path.write_text(json.dumps(content))
    shapes, points = opened(geojson_reader, path)
    assert shapes.shape_type == ["path"]
    assert points.data.tolist() == [[1.5, 0.5], [3.5, 2.5]]
    path.write_text("[]")
    with pytest.raises(InputError, match="no outlines"):
        opened(geojson_reader, path)


def test_readers_leave_other_files_alone(tmp_path: Path) -> None:
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("cells.tif", "")
    assert roi_reader(str(other)) is None
    assert roi_reader([str(other)]) is None
    assert geojson_reader(["a.geojson", "b.geojson"]) is None


def test_a_table_of_another_pixel_size_or_of_moved_objects_is_not_taken() -> None:
    own = measure(objects()).rename(columns={"label": "index"})
    own["mean_intensity_0"] = [5.0, 6.0, 7.0]
    scaled = Labels(objects(), features=own, scale=(0.5, 0.5), units=("um", "um"))
    fresh = measured(stack_of(scaled))
    assert list(fresh["area"]) == [6, 11.25, 9]
    assert set(fresh["unit"]) == {"micrometer"}
    moved = Labels(np.roll(objects(), 1, axis=1), features=own)
    again = measured(stack_of(moved))
    assert "mean_intensity_0" not in again
    assert list(again["centroid_x"]) == [each + 1 for each in own["centroid_x"]]


def test_the_table_of_a_stack_is_taken_unless_objects_changed_slices() -> None:
    stack = np.stack([objects(), 0 * objects()])
    own = measured(stack_of(Labels(stack))).rename(columns={"label": "index"})
    own["remark"] = [1.0, 2.0, 3.0]
    assert "remark" in measured(stack_of(Labels(stack, features=own)))
    assert "remark" not in measured(stack_of(Labels(stack[::-1], features=own)))


def test_a_file_is_replaced_however_its_path_is_spelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    layer = Labels(objects())
    for _ in range(2):
        write_label_table("./cells.csv", *layer.as_layer_data_tuple()[:2])
    assert [path.name for path in tmp_path.iterdir()] == ["cells.csv"]
    with pytest.raises(InputError, match=r"cells\.csv exists"):
        write_label_table("./cells", *layer.as_layer_data_tuple()[:2])
