"""What one run over a folder writes, opened by the libraries that others use."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from bright import Bright
from roifile import roiread

from napari_medseg._types import finish
from napari_medseg.batch import BatchSettings, segment_batch
from napari_medseg.instances import ObjectConfig

FORMATS = ("csv", "parquet", "geojson", "roi", "coco", "ome-zarr")

OBJECTS = {"plate 1/a": 2, "plate 1/b": 1, "plate 2/a": 3}
"""Squares in each image."""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run with every format."""
    for library in ("pyarrow", "shapely", "pycocotools", "ome_zarr"):
        pytest.importorskip(library)
    root = tmp_path_factory.mktemp("run")
    for name, count in OBJECTS.items():
        image = np.zeros((60, 80), np.uint8)
        for index in range(count):
            image[10:20, 5 + 20 * index : 15 + 20 * index] = 200
        path = root / "images" / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        tifffile.imwrite(path, image, ome=True, metadata={"axes": "YX", **size})
    settings = BatchSettings(
        "m", objects=ObjectConfig(), formats=FORMATS, probabilities=True
    )
    model = Bright()
    job = segment_batch(
        [root / "images"], root / "out", settings, opener=lambda _: model
    )
    assert not finish(job).failed
    return root / "out"


def test_tifffile_opens_labels_and_probabilities(out: Path) -> None:
    for name, count in OBJECTS.items():
        with tifffile.TiffFile(out / f"{name}.tif") as file:
            labels = file.asarray()
            assert 'PhysicalSizeX="0.5"' in str(file.ome_metadata)
        assert np.unique(labels).tolist() == list(range(count + 1))
        place = out / "probabilities" / f"{name}_probabilities.tiff"
        probabilities = tifffile.imread(place)
        assert probabilities.shape == (2, 60, 80)
        assert np.array_equal(probabilities[1] > 0.5, labels > 0)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_pandas_opens_the_tables(out: Path, ending: str) -> None:
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet}[ending]
    objects, images = read(out / f"objects.{ending}"), read(out / f"images.{ending}")
    assert objects.groupby("image").size().to_dict() == OBJECTS
    assert sorted(images["image"]) == sorted(OBJECTS)
    assert objects["area_px"].tolist() == [100] * 6
    assert objects["area"].tolist() == pytest.approx([25.0] * 6)  # µm²


def test_roifile_opens_the_rois(out: Path) -> None:
    for name, count in OBJECTS.items():
        rois = roiread(out / f"{name}_rois.zip")
        assert len(rois) == count
        for index, roi in enumerate(rois):
            place = np.asarray(roi.coordinates())
            assert place.min(axis=0).tolist() == [5 + 20 * index, 10]
            assert place.max(axis=0).tolist() == [15 + 20 * index, 20]


def test_shapely_opens_the_outlines(out: Path) -> None:
    import json

    from shapely.geometry import shape

    for name, count in OBJECTS.items():
        text = (out / f"{name}.geojson").read_text(encoding="utf-8")
        content = json.loads(text)
        found = content["features"] if isinstance(content, dict) else content
        shapes = [shape(each["geometry"]) for each in found]
        assert [each.area for each in shapes] == [100.0] * count
        assert all(each.is_valid for each in shapes)


def test_pycocotools_opens_the_objects(out: Path) -> None:
    from pycocotools.coco import COCO

    with warnings.catch_warnings():
        # of pycocotools' own making
        warnings.simplefilter("ignore")
        coco = COCO(str(out / "coco.json"))
        assert len(coco.getImgIds()) == len(OBJECTS)
        for number in coco.getImgIds():
            found = coco.loadAnns(coco.getAnnIds(number))
            name = coco.loadImgs(number)[0]["file_name"]
            assert ".." not in Path(name).parts and not Path(name).is_absolute()
            count = next(OBJECTS[each] for each in OBJECTS if each in name)
            assert len(found) == count
            assert all(coco.annToMask(each).sum() == 100 for each in found)


def test_ome_zarr_opens_the_labels(out: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ome_zarr.io import parse_url
        from ome_zarr.reader import Reader

        for name, count in OBJECTS.items():
            place = out / "ome-zarr" / f"{name}.ome.zarr"
            nodes = list(Reader(parse_url(str(place)))())
            levels = [np.asarray(node.data[0]) for node in nodes if node.data]
            assert any(
                level.shape == (60, 80) and level.max() == count for level in levels
            )
