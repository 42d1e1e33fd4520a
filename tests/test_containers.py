"""CZI, ND2 and LIF: images of a file one by one, read through bioio."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bright import Bright, labels_in, names, segment
from folders import content

from napari_medseg._types import InputError
from napari_medseg.batch import plan_work, read_ledger
from napari_medseg.io import containers
from napari_medseg.io.containers import file_of, scene_name, scenes_of
from napari_medseg.io.images import image_files, read_image
from napari_medseg.io.raw import LazyArray

if TYPE_CHECKING:
    from pathlib import Path

HERE = importlib.util.find_spec("bioio") is not None
needs_bioio = pytest.mark.skipif(not HERE, reason="bioio is not installed")


def shot(*shape: int, kind: Any = np.uint16, seed: int = 0) -> np.ndarray:
    """Return noise, and a square of ten by ten that is brighter than 100."""
    image = np.random.default_rng(seed).integers(0, 50, shape).astype(kind)
    image[..., 5:15, 5 + seed : 15 + seed] = 200
    return image


def write(kind: str, path: Path, count: int) -> dict[Path, np.ndarray]:
    """Write a file of images; return what each is to look like, ``(Z, C, Y, X)``."""
    from microscope_files import write_czi, write_lif, write_nd2

    file = path / f"plate.{kind}"
    if kind == "nd2":
        images = [shot(2, 40, 50, seed=seed) for seed in range(count)]
        write_nd2(file, images)
        expected = images
    elif kind == "lif":
        images = [shot(2, 3, 40, 50, kind=np.uint8, seed=seed) for seed in range(count)]
        write_lif(file, {f"../{number}": each for number, each in enumerate(images)})
        expected = [each.swapaxes(0, 1) for each in images]
    else:
        images = [shot(2, 3, 40, 50, seed=seed) for seed in range(count)]
        write_czi(file, images)
        expected = [each.swapaxes(0, 1) for each in images]
    one = count == 1
    return {
        file if one else file / f"scene {number}": each
        for number, each in enumerate(expected, 1)
    }


@needs_bioio
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", containers.CONTAINER_SUFFIXES)
def test_images_have_axes_channels_and_pixel_size(
    tmp_path: Path, kind: str, count: int
) -> None:
    expected = write(kind[1:], tmp_path, count)
    file = tmp_path / f"plate{kind}"
    assert scenes_of(file) == list(expected)
    for path, values in expected.items():
        image = read_image(path)
        stack = kind != ".nd2"
        assert (image.axes, image.channels) == ("ZCYX" if stack else "CYX", 2)
        assert image.data.dtype == values.dtype
        assert np.array_equal(image.data, values)
        assert dict(image.scale) == pytest.approx(
            {"Z": 1.5, "Y": 0.2, "X": 0.2} if stack else {"Y": 0.2, "X": 0.2}
        )
        assert set(image.units.values()) == {"µm"}
        assert not image.rgb
    # the file alone is its first image, and lists name it once
    first = next(iter(expected.values()))
    assert np.array_equal(read_image(file).data, first)
    assert image_files(tmp_path) == [file]


@needs_bioio
def test_colours_of_a_camera(tmp_path: Path) -> None:
    from pylibCZIrw import czi

    colours = np.zeros((40, 50, 3), np.uint8)
    colours[..., 1], colours[..., 2] = 30, 200  # blue, green, red
    with czi.create_czi(str(tmp_path / "a.czi")) as document:
        document.write(data=colours)
        document.write_metadata(document_name="")
    image = read_image(tmp_path / "a.czi")
    assert (image.axes, image.rgb) == ("CYX", True)
    assert image.data[:, 0, 0].tolist() == [200, 30, 0]


@needs_bioio
@pytest.mark.parametrize("kind", containers.CONTAINER_SUFFIXES)
def test_large_images_stay_in_their_file(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "LAZY_BYTES", 1000)
    expected = write(kind[1:], tmp_path, 2)
    for path, values in expected.items():
        image = read_image(path)
        assert isinstance(image.data, LazyArray)
        copy = pickle.loads(pickle.dumps(image.data))  # noqa: S301
        part = (0,) * (values.ndim - 2) + (slice(3, 20, 2), slice(7, 9))
        assert np.array_equal(copy[part], values[part])
        assert np.array_equal(np.asarray(copy), values)


@needs_bioio
def test_a_folder_run_does_every_scene_once(tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    for folder, kind, count in (
        ("day 1", "czi", 2),
        ("day 2", "czi", 1),
        ("day 1", "nd2", 3),
    ):
        (images / folder).mkdir(parents=True, exist_ok=True)
        write(kind, images / folder, count)
    (images / "day 2" / "bad.lif").write_bytes(b"no Leica" * 100)
    report = segment(images, out, Bright())
    expected = [
        # all of a file stay together, also where another has more of them
        *(f"day 1/plate_czi/scene {number}" for number in (1, 2)),
        *(f"day 1/plate_nd2/scene {number}" for number in (1, 2, 3)),
        "day 2/plate",
    ]
    assert len(report.done) == 6
    assert sorted(labels_in(out)) == [f"{name}.tif" for name in sorted(expected)]
    for name, labels in labels_in(out).items():
        seed = int(name.split()[-1][0]) - 1 if "scene" in name else 0
        assert np.array_equal(np.argwhere(labels)[0][-2:], [5, 5 + seed]), name
    assert names(report.failed) == ["bad.lif"]
    with read_ledger(out) as ledger:
        row = ledger.row("day 1/plate_czi/scene 2")
    assert row is not None and row.source.endswith("scene 2")
    # nothing twice, also where a single one is asked for
    assert len(segment(images, out, Bright()).skipped) == 6
    second = images / "day 1" / "plate.czi" / "scene 2"
    assert [str(work.name) for work in plan_work([second], out)] == ["plate/scene 2"]


@needs_bioio
def test_a_file_that_changes_is_done_again(tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    write("nd2", images, 2)
    assert len(segment(images, out, Bright()).done) == 2
    write("nd2", images, 3)
    assert len(segment(images, out, Bright()).done) == 3
    assert sorted(labels_in(out)) == [
        f"plate/scene {number}.tif" for number in (1, 2, 3)
    ]
    write("nd2", images, 2)
    with pytest.raises(InputError, match="has no scene 3: it has 2"):
        read_image(images / "plate.nd2" / "scene 3")


@needs_bioio
@pytest.mark.parametrize("kind", containers.CONTAINER_SUFFIXES)
@pytest.mark.parametrize("size", [100, 5000, -10])
def test_damaged_files_get_a_sentence(tmp_path: Path, kind: str, size: int) -> None:
    write(kind[1:], tmp_path, 1)
    file = tmp_path / f"plate{kind}"
    file.write_bytes(file.read_bytes()[:size])
    assert scenes_of(file) == [file] or size != 100
    try:
        read_image(file)
    except InputError as error:
        assert "cannot be read" in str(error) and "again" in str(error)
    else:
        assert size != 100  # what was cut off may be what nobody needs


def test_without_bioio_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bioio", None)
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    np.save(images / "a.npy", shot(40, 50))
    for kind in containers.CONTAINER_SUFFIXES:
        (images / f"b{kind}").write_bytes(b"something")
    report = segment(images, out, Bright())
    assert names(report.done) == ["a.npy"]
    assert len(report.failed) == 3
    for kind, error in zip(
        (".czi", ".lif", ".nd2"), report.failed.values(), strict=True
    ):
        assert f"b{kind}" in error
        assert 'pip install "napari-medseg[formats]"' in error
    assert "out/a.tif" in content(tmp_path)


def test_scenes_are_told_by_their_path(tmp_path: Path) -> None:
    scene = tmp_path / "a.CZI" / "scene 12"
    assert (file_of(scene), scene_name(scene)) == (tmp_path / "a.CZI", "scene 12")
    for name in ("a.tif/scene 1", "a.czi/scene 0", "a.czi/scene 1.tif", "a.czi"):
        path = tmp_path / name
        assert (file_of(path), scene_name(path)) == (path, "")
