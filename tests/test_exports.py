"""Exported objects are exact, other libraries open them, and files are whole."""

from __future__ import annotations

import errno
import json
import os
import sys
import uuid
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from skimage.draw import polygon2mask

from napari_medseg._types import InputError
from napari_medseg.io.exports import (
    FORMATS,
    CocoImage,
    join_tables,
    outlines,
    write_coco,
    write_geojson,
    write_ome_zarr,
    write_rois,
    write_table,
)
from napari_medseg.io.images import read_annotation, read_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from napari_medseg.io.exports import Polygon


def drawn(*rows: str) -> np.ndarray:
    """Make labels of rows of digits; a dot is background."""
    return np.array([[int(c) for c in row.replace(".", "0")] for row in rows], np.int32)


def noise(seed: int) -> np.ndarray:
    """Make labels of ragged objects with many holes, pieces and meeting corners."""
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 4, (17, 23)) * (rng.random((17, 23)) > 0.3)).astype(
        np.int32
    )


IMAGES = {
    "nothing": drawn("...", "..."),
    "one pixel": drawn("...", ".1.", "..."),
    "pixel image": drawn("1"),
    "lines": drawn("1111", "....", ".2..", ".2..", ".2.."),
    "whole image": drawn("77", "77", "77"),
    "at the border": drawn("11.22", "1...2", ".....", "3...4", "33.44"),
    "hole": drawn("11111", "1...1", "1.1.1", "1...1", "11111"),
    "filled hole": drawn("111", "121", "111"),
    "corners": drawn("1.2", ".12", "22."),
    "holes at corners": drawn("11111", "1.111", "11.11", "111.1", "11111"),
    "hole at the outer corner": drawn("111", "1.1", "11."),
    "pieces": drawn("11.11", "11.11", ".....", "1...1"),
} | {f"noise {seed}": noise(seed) for seed in range(6)}


@pytest.fixture(params=IMAGES)
def labels(request: pytest.FixtureRequest) -> np.ndarray:
    return IMAGES[request.param]


def rings(polygons: Iterable[Polygon]) -> list[np.ndarray]:
    return [ring for each in polygons for ring in (each.exterior, *each.holes)]


def filled(shape: tuple[int, ...], closed: Iterable[np.ndarray]) -> np.ndarray:
    """Rasterise rings (x, y): inside is what an odd number of them surrounds."""
    mask = np.zeros(shape, bool)
    for ring in closed:
        mask ^= polygon2mask(shape, np.asarray(ring, float)[:, ::-1] - 0.5)
    return mask


def area(ring: np.ndarray) -> float:
    x, y = np.asarray(ring).T
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2


def test_outlines_give_the_very_mask(labels: np.ndarray) -> None:
    found = outlines(labels)
    assert list(found) == [label for label in np.unique(labels).tolist() if label]
    for label, polygons in found.items():
        mask = filled(labels.shape, rings(polygons))
        np.testing.assert_array_equal(mask, labels == label)


def test_rings_are_closed_simple_and_turn_as_geojson_says(labels: np.ndarray) -> None:
    for polygons in outlines(labels).values():
        for polygon in polygons:
            assert area(polygon.exterior) > 0
            assert all(area(hole) < 0 for hole in polygon.holes)
        for ring in rings(polygons):
            assert ring.dtype == np.float64
            np.testing.assert_array_equal(ring[0], ring[-1])
            assert len(np.unique(ring[:-1], axis=0)) == len(ring) - 1
            steps = np.diff(np.concatenate([ring, ring[1:2]]), axis=0)
            assert ((steps == 0).sum(axis=1) == 1).all()  # along an axis
            assert ((steps[1:] * steps[:-1]).sum(axis=1) == 0).all()  # and then turns


def test_polygons_are_valid_for_shapely(labels: np.ndarray) -> None:
    shapely = pytest.importorskip("shapely")
    y, x = np.indices(labels.shape) + 0.5
    for label, polygons in outlines(labels).items():
        shape = shapely.MultiPolygon([(each.exterior, each.holes) for each in polygons])
        assert shape.is_valid, shapely.is_valid_reason(shape)
        assert all(each.is_valid for each in shape.geoms)
        assert shape.area == (labels == label).sum()
        inside = shapely.contains_xy(shape, x, y)
        np.testing.assert_array_equal(inside, labels == label)


def test_holes_and_pieces_belong_together() -> None:
    (outer, inner) = outlines(IMAGES["hole"])[1]
    assert len(outer.holes) == 1 and not inner.holes
    np.testing.assert_array_equal(outer.exterior.max(axis=0), [5, 5])
    assert area(outer.holes[0]) == -9
    assert len(outlines(IMAGES["corners"])[1]) == 2  # they touch at a corner only
    (ring,) = outlines(IMAGES["hole at the outer corner"])[1]
    assert [area(hole) for hole in ring.holes] == [-1]
    (sieve,) = outlines(IMAGES["holes at corners"])[1]
    assert [area(hole) for hole in sieve.holes] == [-1, -1, -1]


def test_ids_may_be_huge_and_of_any_integer_type() -> None:
    labels = np.zeros((4, 4), np.uint32)
    labels[1:3, 1:3] = 4_000_000_000
    labels[0, 0] = 5
    assert list(outlines(labels)) == [5, 4_000_000_000]
    assert list(outlines(labels > 0)) == [1]


def read_geojson(path: Path) -> list[dict[str, Any]]:
    content = json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert content["type"] == "FeatureCollection"
    features: list[dict[str, Any]] = content["features"]
    return features


def test_geojson(tmp_path: Path, labels: np.ndarray) -> None:
    path = tmp_path / "a.geojson"
    write_geojson(path, labels)
    features = read_geojson(path)
    seen = np.zeros_like(labels)
    for feature in features:
        label = int(feature["properties"]["name"])
        geometry = feature["geometry"]
        several = geometry["type"] == "MultiPolygon"
        parts = geometry["coordinates"] if several else [geometry["coordinates"]]
        assert several == (len(outlines(labels)[label]) > 1)
        seen[filled(labels.shape, [ring for part in parts for ring in part])] = label
        assert feature["type"] == "Feature"
        assert feature["properties"]["objectType"] == "annotation"
        assert str(uuid.UUID(feature["id"])) == feature["id"]
    np.testing.assert_array_equal(seen, labels)
    assert len({feature["id"] for feature in features}) == len(features)


def test_geojson_opens_in_shapely(tmp_path: Path) -> None:
    geometry = pytest.importorskip("shapely.geometry")
    path = tmp_path / "a.geojson"
    write_geojson(path, noise(1))
    for feature in read_geojson(path):
        shape = geometry.shape(feature["geometry"])
        assert shape.is_valid
        label = int(feature["properties"]["name"])
        assert shape.area == (noise(1) == label).sum()
        assert all(part.exterior.is_ccw for part in getattr(shape, "geoms", [shape]))


def test_geojson_tells_names_classes_and_measurements(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "label": [1, 2],
            "area": [4, 1],
            "mean µ": [0.5, np.nan],
            "unit": ["µm", "µm"],
            "count": pd.array([3, None], dtype="Int64"),
        }
    )
    labels = drawn("11.2", "11.3")
    first, second, third = _features_of(
        tmp_path,
        labels,
        names={1: "häm"},
        classes={1: ("Tumour", "#e69f00"), 3: ("Stroma", "#0072B2")},
        measurements=table,
    )
    assert first["properties"] == {
        "objectType": "annotation",
        "name": "häm",
        "classification": {"name": "Tumour", "color": [230, 159, 0]},
        "measurements": {"area": 4, "mean µ": 0.5, "count": 3},
    }
    assert second["properties"]["name"] == "2"
    assert second["properties"]["measurements"] == {"area": 1}
    assert "classification" not in second["properties"]
    assert third["properties"]["classification"]["color"] == [0, 114, 178]
    assert "measurements" not in third["properties"]
    assert first["id"] == _features_of(tmp_path, labels)[0]["id"]


def _features_of(folder: Path, labels: np.ndarray, **more: Any) -> list[dict[str, Any]]:
    write_geojson(folder / "a.geojson", labels, **more)
    return read_geojson(folder / "a.geojson")


def test_geojson_refuses_what_qupath_could_not_show(tmp_path: Path) -> None:
    labels = drawn("1")
    for colour in ("red", "#e69f", "#e69f00ff", ""):
        with pytest.raises(InputError, match=r"a\.geojson.*#rrggbb"):
            write_geojson(
                tmp_path / "a.geojson", labels, classes={1: ("Tumour", colour)}
            )
    with pytest.raises(InputError, match="no column named label"):
        write_geojson(
            tmp_path / "a.geojson", labels, measurements=pd.DataFrame({"area": [1]})
        )
    assert not list(tmp_path.iterdir())


def test_rois_open_in_roifile(tmp_path: Path, labels: np.ndarray) -> None:
    roifile = pytest.importorskip("roifile")
    path = tmp_path / "a.zip"
    write_rois(path, labels)
    rois = roifile.roiread(path)
    seen = np.zeros_like(labels)
    for roi in rois:
        polygons = outlines(labels)[int(roi.name)]
        simple = len(polygons) == 1 and not polygons[0].holes
        assert roi.roitype == (
            roifile.ROI_TYPE.TRACED if simple else roifile.ROI_TYPE.RECT
        )
        assert roi.composite != simple
        parts = roi.coordinates(multi=True)
        vertices = np.concatenate(parts)
        assert vertices.min(axis=0).tolist() == [roi.left, roi.top]
        assert len(roi.name) == 4
        seen[filled(labels.shape, parts)] = int(roi.name)
    np.testing.assert_array_equal(seen, labels)


def test_rois_of_large_labels_and_far_places(tmp_path: Path) -> None:
    roifile = pytest.importorskip("roifile")
    labels = np.zeros((1, 70_010), np.int32)
    labels[0, 40_000:40_003] = 123_456
    labels[0, 70_000:70_004] = 7
    write_rois(tmp_path / "a.zip", labels)
    near, far = roifile.roiread(tmp_path / "a.zip")
    assert (near.name, far.name) == ("000007", "123456")
    assert np.ptp(near.coordinates(), axis=0).tolist() == [4, 1]
    assert near.coordinates().min(axis=0).tolist() == [70_000, 0]
    assert far.coordinates().min(axis=0).tolist() == [40_000, 0]


def unfolded(segmentation: dict[str, Any]) -> np.ndarray:
    """Decode COCO's run lengths, as its definition says."""
    high, wide = segmentation["size"]
    counts = segmentation["counts"]
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return values.reshape(wide, high).T


def test_coco(tmp_path: Path, labels: np.ndarray) -> None:
    path = tmp_path / "a.json"
    images = [CocoImage("a.tif", labels), CocoImage("b.tif", drawn("..1"))]
    write_coco(path, images, {3: "nucleus"})
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["images"][0] == {
        "id": 1,
        "file_name": "a.tif",
        "width": labels.shape[1],
        "height": labels.shape[0],
    }
    assert content["categories"] == [{"id": 3, "name": "nucleus", "supercategory": ""}]
    found = content["annotations"]
    assert [each["id"] for each in found] == list(range(1, len(found) + 1))
    assert found[-1]["image_id"] == 2
    ids = [label for label in np.unique(labels).tolist() if label]
    for label, each in zip(ids, found[:-1], strict=True):
        mask = unfolded(each["segmentation"])
        np.testing.assert_array_equal(mask, labels == label)
        assert all(each["segmentation"]["counts"][1:])  # no run of no length
        assert (each["image_id"], each["category_id"], each["iscrowd"]) == (1, 3, 0)
        assert each["area"] == mask.sum()
        y, x = np.nonzero(mask)
        size = [int(np.ptp(x)) + 1, int(np.ptp(y)) + 1]
        assert each["bbox"] == [x.min(), y.min(), *size]


# of pycocotools' own making
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_coco_opens_in_pycocotools(tmp_path: Path, labels: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    codec = pytest.importorskip("pycocotools.mask")
    path = tmp_path / "a.json"
    write_coco(path, [CocoImage("a.tif", labels)], {1: "cell"})
    data = coco.COCO(str(path))
    ids = [label for label in np.unique(labels).tolist() if label]
    for label, each in zip(ids, data.loadAnns(data.getAnnIds(imgIds=[1])), strict=True):
        np.testing.assert_array_equal(data.annToMask(each), labels == label)
        runs = data.annToRLE(each)
        assert codec.area(runs) == each["area"]
        assert codec.toBbox(runs).tolist() == each["bbox"]
        assert codec.encode(np.asfortranarray(labels == label, np.uint8)) == runs


def test_coco_categories(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    labels = drawn("12")
    names = {1: "cell", 4: "debris"}
    write_coco(path, [CocoImage("a.tif", labels, {1: 4, 2: 1})], names)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert [each["category_id"] for each in content["annotations"]] == [4, 1]
    for categories in ({1: 4}, {1: 4, 2: 9}):
        with pytest.raises(InputError, match=r"a\.json.*object 2 of b\.tif.*1, 4"):
            write_coco(path, [CocoImage("b.tif", labels, categories)], names)
    with pytest.raises(InputError, match=r"a\.json needs at least one category"):
        write_coco(path, [], {})


TABLE = pd.DataFrame({"label": [1, 2], "area": [4.25, 1e-9], "unit": ["µm", 'a,"b"']})


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_come_back(tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"a{suffix}"
    write_table(path, TABLE.set_index(np.array([7, 8])))
    read = pd.read_csv if suffix == ".csv" else pd.read_parquet
    pd.testing.assert_frame_equal(read(path), TABLE)
    assert os.listdir(tmp_path) == [path.name]


def test_parquet_without_its_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"a\.parquet.*pip install pyarrow.*\.csv"):
        write_table(tmp_path / "a.parquet", TABLE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("inner", ["", "labels/objects"])
def test_ome_zarr_comes_back(tmp_path: Path, labels: np.ndarray, inner: str) -> None:
    path = tmp_path / "a.ome.zarr"
    write_ome_zarr(path, labels)
    np.testing.assert_array_equal(read_annotation(path / inner).labels, labels)
    image = read_image(path / inner)
    assert image.axes == "YX"
    assert image.data.dtype == np.uint8
    np.testing.assert_array_equal(image.data, labels)


@pytest.mark.parametrize("axes", ["ZYX", "TYX", "TZYX"])
def test_ome_zarr_of_stacks_with_pixel_size(tmp_path: Path, axes: str) -> None:
    path = tmp_path / "a.zarr"
    labels = np.arange(2 * 3 * 4 * 5, dtype=np.int32).reshape(2, 3, 4, 5) * 1000
    labels = labels if len(axes) == 4 else labels[0]
    write_ome_zarr(
        path,
        labels,
        axes=axes,
        scale={"T": 30, "Z": 2, "Y": 0.25, "X": 0.5, "C": 3},
        units={"T": "s", "Y": "um", "X": "micron", "Z": "pixel"},
    )
    image = read_image(path)
    assert image.axes == axes
    np.testing.assert_array_equal(image.data, labels)
    scale = {"T": 30, "Z": 2, "Y": 0.25, "X": 0.5}
    assert image.scale == {axis: scale[axis] for axis in axes}
    units = {"T": "s", "Y": "µm", "X": "µm"}
    assert image.units == {axis: units[axis] for axis in axes if axis != "Z"}
    np.testing.assert_array_equal(read_annotation(path).labels, labels)


def test_ome_zarr_opens_in_ome_zarr(tmp_path: Path) -> None:
    labels = noise(3) * 100
    path = tmp_path / "a.ome.zarr"
    write_ome_zarr(path, labels, scale={"Y": 0.5, "X": 0.25}, units={"Y": "µm"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the reader's own making
        library = pytest.importorskip("ome_zarr.reader")
        parse_url = pytest.importorskip("ome_zarr.io").parse_url
        nodes = list(library.Reader(parse_url(path))())
        multiscales = [node.load(library.Multiscales) for node in nodes]
        images = [node for node, found in zip(nodes, multiscales, strict=True) if found]
        assert len(images) == 2  # the image, and its labels
        assert any(node.load(library.Label) for node in images)
        for node in images:
            np.testing.assert_array_equal(np.asarray(node.data[0]), labels)
            y, x = node.metadata["axes"]
            assert (y["unit"], x["type"]) == ("micrometer", "space")
            ((scale,),) = node.metadata["coordinateTransformations"]
            assert scale == {"type": "scale", "scale": [0.5, 0.25]}


def test_ome_zarr_keeps_the_specification(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    write_ome_zarr(path, noise(3), scale={"Y": 0.5, "X": 0.25}, units={"Y": "µm"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library's own making
        models = pytest.importorskip("ome_zarr_models.v04")
        import zarr

        group = zarr.open_group(path, mode="r")
        models.Image.from_zarr(group)
        models.ImageLabel.from_zarr(group["labels/objects"])


def test_ome_zarr_replaces_zarr_folders_only(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.zarr"
    write_ome_zarr(path, drawn("11", "11"))
    write_ome_zarr(path, drawn("2"))
    np.testing.assert_array_equal(read_annotation(path).labels, drawn("2"))
    assert os.listdir(tmp_path) == [path.name]
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"mine\.zarr exists and is no zarr folder"):
        write_ome_zarr(tmp_path / "mine.zarr", drawn("1"))
    assert (tmp_path / "mine.zarr" / "thesis.txt").exists()


def test_ome_zarr_refuses_what_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    for axes in ("ZYX", "XY", "YXC", ""):
        with pytest.raises(InputError, match=r"a\.zarr has the shape.*YX"):
            write_ome_zarr(path, drawn("1"), axes=axes)
    for size in (0, -1, np.nan, np.inf):
        with pytest.raises(InputError, match=r"a\.zarr.*greater than 0"):
            write_ome_zarr(path, drawn("1"), scale={"Y": size})
    assert not list(tmp_path.iterdir())


WRITERS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "geojson": write_geojson,
    "roi": write_rois,
    "coco": lambda path, labels: write_coco(
        path, [CocoImage(path.name, labels)], {1: "cell"}
    ),
    "ome-zarr": write_ome_zarr,
    "csv": lambda path, labels: write_table(path, TABLE),
}

LABEL_WRITERS = [name for name in WRITERS if name != "csv"]


def target(folder: Path, name: str) -> Path:
    if name == "roi":
        pytest.importorskip("roifile")
    return folder / f"a{FORMATS[name][0]}"


def test_formats_are_a_fixed_table() -> None:
    tables = ["csv", "parquet"]
    assert list(FORMATS) == ["tif", *tables, "geojson", "roi", "coco", "ome-zarr"]
    with pytest.raises(TypeError):
        FORMATS["doc"] = ("", "")  # type: ignore[index]


@pytest.mark.parametrize("name", LABEL_WRITERS)
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (np.ones((3, 4), np.float32), "float32"),
        (np.array([[0, -3]]), "label -3"),
        (np.zeros((0, 4), np.int32), "no pixels"),
        (np.zeros((2, 3, 4), np.int32), "shape"),
    ],
)
def test_what_is_no_label_image(
    tmp_path: Path, name: str, wrong: np.ndarray, words: str
) -> None:
    path = target(tmp_path, name)
    with pytest.raises(InputError, match=rf"(?s){path.name}.*{words}.*\."):
        WRITERS[name](path, wrong)
    with pytest.raises(InputError, match=f"The label image .*{words}"):
        outlines(wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", WRITERS)
def test_other_endings(tmp_path: Path, name: str) -> None:
    target(tmp_path, name)
    with pytest.raises(InputError, match=r"a\.doc must end in \..*"):
        WRITERS[name](tmp_path / "a.doc", drawn("1"))


@pytest.mark.parametrize("name", WRITERS)
def test_missing_folders_are_made(tmp_path: Path, name: str) -> None:
    path = target(tmp_path / "new" / "ö", name)
    WRITERS[name](path, drawn("1"))
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("name", WRITERS)
def test_where_nothing_can_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("no folder")
    path = target(tmp_path / "file", name)
    with pytest.raises(InputError, match=rf"{path.name} cannot be written .*folder"):
        WRITERS[name](path, drawn("1"))


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, function: str
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = target(tmp_path, name)
    for old in (None, drawn("1")):
        if old is not None:
            WRITERS[name](path, old)
        before = contents(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(os, function, refuse)
            with pytest.raises(InputError, match=rf"{path.name}.*No space left"):
                WRITERS[name](path, drawn("22", "22"))
        assert contents(tmp_path) == before


@pytest.mark.parametrize("name", WRITERS)
def test_a_write_that_is_stopped_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    path = target(tmp_path, name)
    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        WRITERS[name](path, drawn("1"))
    assert not list(tmp_path.iterdir())


def test_a_folder_comes_back_if_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zarr"
    write_ome_zarr(path, drawn("1"))
    before, real = contents(tmp_path), os.replace

    def busy(source: Path, destination: Path) -> None:
        if ".part" in source.name:
            raise PermissionError(errno.EACCES, "Permission denied")
        real(source, destination)

    monkeypatch.setattr(os, "replace", busy)
    with pytest.raises(InputError, match=r"a\.zarr.*Permission denied"):
        write_ome_zarr(path, drawn("2"))
    assert contents(tmp_path) == before


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, by its path."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_damaged_part_of_a_table_is_named(tmp_path: Path) -> None:
    part = tmp_path / "b.csv"
    part.write_text("image,label,area\nb,1\n")
    pytest.importorskip("pyarrow")
    with pytest.raises(InputError, match=r"b\.csv.*damaged"):
        join_tables(tmp_path / "all.parquet", [part], {"image": "string"})
    assert not (tmp_path / "all.parquet").exists()
