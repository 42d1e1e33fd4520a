"""Images of every kind come in as the user sees them; bad files get a sentence."""

from __future__ import annotations

import pickle
import tracemalloc
import warnings
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
import zarr

from napari_medseg._types import InputError
from napari_medseg.io import raw, tiff, zarr_store
from napari_medseg.io.atomic import atomic_path
from napari_medseg.io.images import (
    ImageFile,
    LazyArray,
    image_files,
    image_stem,
    read_annotation,
    read_image,
    write_labels,
)

DATA = Path(__file__).parents[2] / "shared" / "data"


def noise(shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
    rng = np.random.default_rng(0)
    if dtype == "bool":
        return rng.random(shape) > 0.5
    return (rng.random(shape) * 200).astype(dtype)


@pytest.mark.parametrize("suffix", [".tif", ".npy", ".zarr"])
@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64", "bool"]
)
def test_values_and_type_survive(tmp_path: Path, suffix: str, dtype: str) -> None:
    image = noise((40, 48), dtype)
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, image)
    elif suffix == ".npy":
        np.save(path, image)
    else:
        zarr.create_array(path, data=image)
    found = read_image(path)
    assert found.axes == "YX"
    assert found.data.dtype == image.dtype
    np.testing.assert_array_equal(np.asarray(found.data), image)
    plane = found.plane()
    assert plane.dtype == np.float32
    assert plane.shape == (1, 40, 48)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg", ".tif"])
@pytest.mark.parametrize("samples", [1, 3])
def test_paint_formats(tmp_path: Path, suffix: str, samples: int) -> None:
    image = np.full((40, 48, samples), 90, np.uint8)
    image[:20, :, 0] = 200
    path = tmp_path / f"a{suffix}"
    iio.imwrite(path, image if samples == 3 else image[..., 0])
    found = read_image(path)
    assert found.rgb == (samples == 3)
    assert found.axes == ("CYX" if samples == 3 else "YX")
    expected = np.moveaxis(image, 2, 0).astype(np.float32)
    assert np.abs(found.plane() - expected)[:, 2:16].max() <= 3  # JPEG's loss


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_alpha_is_dropped(tmp_path: Path, suffix: str, dtype: str) -> None:
    image = noise((40, 48, 4), dtype)
    if dtype == "uint16":
        image *= 300  # values that 8 bits would cut
    path = tmp_path / f"a{suffix}"
    if suffix == ".png":
        from imagecodecs import png_encode

        path.write_bytes(png_encode(image))
    elif suffix == ".npy":
        np.save(path, image)
    else:
        tifffile.imwrite(path, image, photometric="rgb", extrasamples=["unassalpha"])
    found = read_image(path)
    assert found.rgb and found.channels == 3
    np.testing.assert_array_equal(found.data, np.moveaxis(image[..., :3], 2, 0))


def test_grey_with_alpha(tmp_path: Path) -> None:
    from imagecodecs import png_encode

    image = noise((40, 48, 2))
    path = tmp_path / "a.png"
    path.write_bytes(png_encode(image))
    found = read_image(path)
    assert (found.axes, found.channels, found.rgb) == ("YX", 1, False)
    np.testing.assert_array_equal(found.data, image[..., 0])


@pytest.mark.parametrize(
    ("shape", "dtype", "axes", "channels", "rgb"),
    [
        ((5, 40, 48), "uint16", "CYX", 5, False),
        ((40, 48, 5), "uint16", "CYX", 5, False),
        ((2, 40, 48), "float32", "CYX", 2, False),
        ((40, 48, 3), "uint8", "CYX", 3, True),
        ((40, 48, 3), "float32", "CYX", 3, False),
        ((12, 40, 48), "uint8", "ZYX", 1, False),
        ((1, 40, 48), "uint8", "YX", 1, False),
        ((40, 48, 1), "uint8", "YX", 1, False),
        ((1, 1), "uint8", "YX", 1, False),
        ((1, 48), "uint8", "YX", 1, False),
        ((7, 2, 40, 48), "uint16", "ZCYX", 2, False),
        ((7, 40, 48, 3), "uint8", "ZCYX", 3, True),
        ((6, 7, 40, 48), "uint16", "TZYX", 1, False),
        ((6, 7, 2, 40, 48), "uint16", "TZCYX", 2, False),
    ],
)
def test_axes_are_guessed(
    tmp_path: Path,
    shape: tuple[int, ...],
    dtype: str,
    axes: str,
    channels: int,
    rgb: bool,
) -> None:
    path = tmp_path / "a.npy"
    np.save(path, noise(shape, dtype))
    found = read_image(path)
    assert (found.axes, found.channels, found.rgb) == (axes, channels, rgb)
    assert found.data.ndim == len(axes)


def test_axes_given_by_the_user_win(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    image = noise((4, 40, 48), "uint16")
    tifffile.imwrite(path, image, photometric="minisblack")
    assert read_image(path).axes == "CYX"
    assert read_image(path, "TYX").axes == "TYX"
    turned = read_image(path, "ZXY")
    np.testing.assert_array_equal(turned.data, image.transpose(0, 2, 1))
    for wrong in ("YX", "QYX", "YYX", "TZC"):
        with pytest.raises(InputError, match=r"axes .*a\.tif"):
            read_image(path, wrong)


def test_imagej_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    image = noise((3, 4, 2, 40, 48), "uint16")
    tifffile.imwrite(
        path,
        image,
        imagej=True,
        resolution=(1 / 0.25, 1 / 0.5),
        metadata={"axes": "TZCYX", "unit": "um", "spacing": 2.0, "finterval": 5.0},
    )
    found = read_image(path)
    assert found.axes == "TZCYX"
    assert found.scale == pytest.approx({"T": 5, "Z": 2, "Y": 0.5, "X": 0.25})
    assert found.units == {"T": "s", "Z": "µm", "Y": "µm", "X": "µm"}
    seen = [(tuple(where.items()), part) for where, part in found.slices()]
    assert len(seen) == found.slice_count == 12
    assert seen[5][0] == (("T", 1), ("Z", 1))
    np.testing.assert_array_equal(seen[5][1], image[1, 1].astype(np.float32))
    with pytest.raises(InputError, match="stack of 12 slices"):
        found.plane()


def test_imagej_says_when_time_is_not_in_seconds(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    about = {"axes": "TYX", "unit": "um", "finterval": 5.0, "tunit": "min"}
    tifffile.imwrite(path, noise((3, 40, 48)), imagej=True, metadata=about)
    found = read_image(path)
    assert (found.scale["T"], found.units["T"]) == (5, "min")


def test_a_note_may_name_a_file_of_another_folder(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, noise((40, 48)), metadata={"axes": "YX"})
    note = (
        '<StructuredAnnotations><XMLAnnotation ID="Annotation:0"><Value>'
        '<Source FileName="C:\\data\\exp.lif"/></Value></XMLAnnotation>'
        "</StructuredAnnotations></OME>"
    )
    text = tifffile.tiffcomment(path).replace("</OME>", note)
    tifffile.tiffcomment(path, text)
    assert read_image(path).data.shape == (40, 48)


def test_ome_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    metadata = {
        "axes": "CYX",
        "PhysicalSizeX": 650.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.65,
        "PhysicalSizeYUnit": "µm",
    }
    tifffile.imwrite(
        path, noise((2, 40, 48)), metadata=metadata, photometric="minisblack"
    )
    found = read_image(path)
    assert (found.axes, found.channels) == ("CYX", 2)
    assert found.scale == {"Y": 0.65, "X": 650.0}
    assert found.units == {"Y": "µm", "X": "nm"}


def test_resolution_tags(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    image = noise((40, 48))
    tifffile.imwrite(path, image, resolution=(20000, 10000), resolutionunit=3)
    found = read_image(path)
    assert found.scale == pytest.approx({"X": 0.5, "Y": 1.0})
    assert found.units == {"X": "µm", "Y": "µm"}
    tifffile.imwrite(path, image, resolution=(72, 72), resolutionunit=2)
    assert read_image(path).scale == {}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(tmp_path: Path, version: str) -> None:
    path = tmp_path / "a.ome.zarr"
    image = noise((1, 2, 3, 40, 48), "uint16")
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    group.create_array("0", data=image)
    group.create_array("1", data=image[..., ::2, ::2])
    space = {"type": "space", "unit": "micrometer"}
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": name} | space for name in "zyx"]
    levels = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [1, 1, 2.0, 0.5 * size, 0.5 * size]}
            ],
        }
        for level, size in enumerate((1, 2))
    ]
    multiscales = [{"axes": axes, "datasets": levels, "version": version}]
    group.attrs.update(
        {"multiscales": multiscales}
        if version == "0.4"
        else {"ome": {"version": version, "multiscales": multiscales}}
    )
    found = read_image(path)
    assert found.axes == "ZCYX"
    np.testing.assert_array_equal(found.data, image[0].transpose(1, 0, 2, 3))
    assert found.scale == {"Z": 2.0, "Y": 0.5, "X": 0.5}
    assert found.units == {"Z": "µm", "Y": "µm", "X": "µm"}
    assert image_files(tmp_path, recursive=True) == [path]
    assert image_stem(path) == "a"


def test_written_by_ome_zarr(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the writer's own making
        writer = pytest.importorskip("ome_zarr.writer")
        group = zarr.open_group(tmp_path / "a.zarr", mode="w")
        image = noise((2, 40, 48))
        writer.write_image(image, group, axes="cyx")
    found = read_image(tmp_path / "a.zarr")
    assert found.axes == "CYX"
    np.testing.assert_array_equal(found.data, image)


@pytest.mark.parametrize("kind", ["tif", "rgb", "zarr", "stack"])
def test_large_files_stay_on_the_disk(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"rgb": (160, 176, 4), "stack": (20, 32, 48)}.get(kind, (160, 176))
    image = noise(shape)
    path = tmp_path / ("a.zarr" if kind == "zarr" else "a.tif")
    if kind == "zarr":
        zarr.create_array(path, data=image, chunks=(64, 64))
    elif kind == "stack":
        tifffile.imwrite(path, image, compression="zlib")
    else:
        tifffile.imwrite(path, image, tile=(32, 32), compression="zlib")
    whole = read_image(path)
    for module in (tiff, zarr_store):
        monkeypatch.setattr(module, "LAZY_BYTES", 1000)
    lazy = read_image(path)
    assert isinstance(lazy.data, LazyArray)
    assert isinstance(whole.data, np.ndarray)
    assert (lazy.axes, lazy.data.shape, lazy.rgb) == (
        whole.axes,
        whole.data.shape,
        whole.rgb,
    )
    np.testing.assert_array_equal(np.asarray(lazy.data), whole.data)
    again: ImageFile = pickle.loads(pickle.dumps(lazy))  # noqa: S301  (to workers)
    index = {"Z": 7} if kind == "stack" else {}
    box = (index, slice(5, 31), slice(9, 40))
    np.testing.assert_array_equal(again.region(*box), whole.region(*box))
    np.testing.assert_array_equal(again.sample(index), whole.sample(index))
    path_gone = path / "c" / "0" / "0" if kind == "zarr" else path
    path_gone.write_bytes(b"damaged")
    with pytest.raises(InputError, match=path.name):
        lazy.region(index)


def test_a_sample_of_a_huge_image_needs_little_memory() -> None:
    image = ImageFile(Path("huge.tif"), noise((5000, 4800)), "YX")
    tracemalloc.start()
    sample = image.sample()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(sample[0], image.data[::3, ::3])
    assert peak < 3 * sample.nbytes  # the whole as float32 is nine times as large


def test_nan_and_infinity_are_kept(tmp_path: Path) -> None:
    image = np.array([[np.nan, np.inf], [-np.inf, 1e300]])
    np.save(tmp_path / "a.npy", image)
    plane = read_image(tmp_path / "a.npy").plane()
    assert np.isnan(plane[0, 0, 0]) and np.isposinf(plane[0, 0, 1])
    assert np.isneginf(plane[0, 1, 0]) and np.isposinf(plane[0, 1, 1])


def test_names_with_spaces_and_accents(tmp_path: Path) -> None:
    folder = tmp_path / "Größe 5 µm – 細胞"
    folder.mkdir()
    image = noise((40, 48))
    for suffix in (".tif", ".png", ".bmp", ".npy"):
        path = folder / f"image é {suffix}"
        np.save(path, image) if suffix == ".npy" else iio.imwrite(path, image)
        np.testing.assert_array_equal(read_image(path).data, image)
    zarr.create_array(folder / "ö ä.zarr", data=image)
    np.testing.assert_array_equal(read_image(folder / "ö ä.zarr").data, image)
    assert len(image_files(folder)) == 5


def write(path: Path, image: np.ndarray) -> None:
    if path.suffix == ".npy":
        np.save(path, image)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, image, compression="zlib", metadata=None)
    else:
        iio.imwrite(path, image)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".bmp", ".npy"])
@pytest.mark.parametrize("damage", ["empty", "text", "header", "half", "end"])
def test_damaged_files_get_a_sentence(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"my image{suffix}"
    write(path, noise((64, 80)))
    content = path.read_bytes()
    cut = {
        "empty": b"",
        "text": b"slide 1: nothing to see\n" * 20,
        "header": content[:12],
        "half": content[: len(content) // 2],
        "end": content[: -len(content) // 10],
    }[damage]
    path.write_bytes(cut)
    with pytest.raises(InputError, match=f"my image{suffix}") as caught:
        read_image(path)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".png", ".jpg", ".bmp", ".npy"])
def test_random_damage_never_raises_anything_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write(path, noise((32, 40)))
    content = path.read_bytes()
    rng = np.random.default_rng(1)
    for turn in range(60):
        wrong = bytearray(content)
        end = min(len(wrong), 300) if turn % 2 else len(wrong)
        for place in rng.integers(0, end, 6):
            wrong[place] = rng.integers(0, 256)
        if turn % 3 == 0:
            del wrong[rng.integers(1, len(wrong)) :]
        path.write_bytes(wrong)
        try:
            read_image(path).sample({"T": 0, "Z": 0, "C": slice(None)})
        except InputError as error:
            assert path.name in str(error)


@pytest.mark.parametrize("kind", ["imagej", "ome", "plain"])
def test_missing_pages_are_not_zeros(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        noise((12, 40, 48), "uint16"),
        **{
            "imagej": {"imagej": True},
            "ome": {"ome": True, "compression": "zlib", "metadata": {"axes": "ZYX"}},
            "plain": {"compression": "zlib"},
        }[kind],
    )
    content = path.read_bytes()
    for part in (0.4, 0.7, 0.95):
        path.write_bytes(content[: int(part * len(content))])
        with pytest.raises(InputError, match=r"a\.tif"):
            read_image(path)


def test_what_is_no_image(tmp_path: Path) -> None:
    np.save(tmp_path / "line.npy", np.arange(9))
    np.save(tmp_path / "complex.npy", np.ones((9, 9), complex))
    np.save(tmp_path / "text.npy", np.full((9, 9), "a"))
    np.save(tmp_path / "none.npy", np.ones((0, 9)))
    np.save(tmp_path / "six.npy", np.ones((2,) * 6))
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    tifffile.imwrite(tmp_path / "complex.tif", np.ones((9, 9), complex))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.zarr").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    words = {
        "line.npy": "1 axes",
        "complex.npy": "complex",
        "complex.tif": "complex",
        "text.npy": "U1",
        "none.npy": "no pixels",
        "six.npy": "cannot be told",
        "object.npy": "objects",
        "folder": "is a folder",
        "folder.zarr": "not a zarr folder",
        "notes.txt": "kind",
        "missing.tif": "does not exist",
    }
    for name, word in words.items():
        with pytest.raises(InputError, match=word) as caught:
            read_image(tmp_path / name)
        assert name in str(caught.value)


@pytest.mark.parametrize("version", [2, 3])
def test_damaged_zarr(tmp_path: Path, version: int) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_array(path, data=noise((40, 48)), zarr_format=version)
    chunk = path / ("0.0" if version == 2 else "c/0/0")
    chunk.write_bytes(b"garbage")
    with pytest.raises(InputError, match=r"a\.zarr"):
        read_image(path)
    (path / (".zarray" if version == 2 else "zarr.json")).write_text('{"shape": [')
    with pytest.raises(InputError, match=r"a\.zarr"):
        read_image(path)


# annotations


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "bool"])
def test_annotation_values_stay(tmp_path: Path, dtype: str) -> None:
    labels = np.zeros((40, 48), dtype)
    labels[5:9, 5:9] = 1 if dtype == "bool" else 200
    tifffile.imwrite(tmp_path / "a.tif", labels)
    found = read_annotation(tmp_path / "a.tif")
    assert found.labels.dtype == np.int32
    np.testing.assert_array_equal(found.labels, labels.astype(np.int32))
    assert found.wide == (dtype not in ("uint8", "bool"))


def test_annotation_of_a_paint_program(tmp_path: Path) -> None:
    from PIL import Image

    grey = np.zeros((40, 48), np.uint8)
    grey[5:9] = 255
    iio.imwrite(tmp_path / "rgb.png", np.stack([grey] * 3, -1))
    opaque = np.full_like(grey, 255)
    iio.imwrite(tmp_path / "rgba.png", np.stack([grey, grey, grey, opaque], -1))
    for name in ("rgb.png", "rgba.png"):
        found = read_annotation(tmp_path / name)
        np.testing.assert_array_equal(found.labels, grey)
    palette = Image.fromarray(grey // 85, mode=None).convert("L")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(tmp_path / "palette.png")
    found = read_annotation(tmp_path / "palette.png")
    np.testing.assert_array_equal(found.labels, grey // 85)
    assert read_image(tmp_path / "palette.png").rgb


def test_what_is_no_annotation(tmp_path: Path) -> None:
    colour = np.zeros((40, 48, 3), np.uint8)
    colour[5:9, :, 0] = 255
    iio.imwrite(tmp_path / "overlay.png", colour)
    iio.imwrite(tmp_path / "lossy.jpg", colour[..., 0])
    np.save(tmp_path / "probability.npy", np.full((9, 9), 0.5))
    np.save(tmp_path / "nan.npy", np.full((9, 9), np.nan))
    np.save(tmp_path / "huge.npy", np.full((9, 9), 2**40))
    words = {
        "overlay.png": "colour",
        "lossy.jpg": "JPEG",
        "probability.npy": "whole numbers",
        "nan.npy": "whole numbers",
        "huge.npy": "largest",
    }
    for name, word in words.items():
        with pytest.raises(InputError, match=word) as caught:
            read_annotation(tmp_path / name)
        assert name in str(caught.value)


def test_annotated_stack_is_a_stack(tmp_path: Path) -> None:
    labels = noise((3, 40, 48), "uint16")
    tifffile.imwrite(tmp_path / "a.tif", labels, photometric="minisblack")
    found = read_annotation(tmp_path / "a.tif")
    assert found.axes == "ZYX"
    np.testing.assert_array_equal(found.labels, labels)


# folders


def test_folder_lists_images_alone(tmp_path: Path) -> None:
    for name in ("b.tif", "a.PNG", ".hidden.png", "notes.txt", "c.ome.tif"):
        (tmp_path / name).touch()
    for name in ("__MACOSX", ".trash", "sub", "z.zarr"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").touch()
    names = [path.name for path in image_files(tmp_path)]
    assert names == ["a.PNG", "b.tif", "c.ome.tif", "z.zarr"]
    deep = [path.relative_to(tmp_path) for path in image_files(tmp_path, True)]
    assert Path("sub", "x.png") in deep and len(deep) == 5
    with pytest.raises(InputError, match="does not exist"):
        image_files(tmp_path / "missing")
    with pytest.raises(InputError, match="not a folder"):
        image_files(tmp_path / "b.tif")


# writing


@pytest.mark.parametrize(
    ("top", "dtype"), [(255, "uint8"), (256, "uint16"), (65536, "uint32")]
)
def test_labels_survive(tmp_path: Path, top: int, dtype: str) -> None:
    labels = np.zeros((3, 40, 48), np.int64)
    labels[1, 4:8, 4:8] = top
    path = tmp_path / "new folder" / "a é.tif"
    scale = {"Z": 2.0, "Y": 0.5, "X": 0.25}
    units = {"Z": "µm", "Y": "µm", "X": "nm"}
    write_labels(path, labels, axes="ZYX", scale=scale, units=units)
    found = read_image(path)
    assert (found.axes, found.data.dtype) == ("ZYX", np.dtype(dtype))
    assert (found.scale, found.units) == (scale, units)
    np.testing.assert_array_equal(found.data, labels)
    assert path.stat().st_size < labels.nbytes / 10
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_small_stacks_of_labels_stay_stacks(tmp_path: Path) -> None:
    labels = np.ones((3, 40, 48), np.uint8)
    write_labels(tmp_path / "a.tif", labels, axes="TYX", scale={"T": 4.0})
    found = read_image(tmp_path / "a.tif")
    assert (found.axes, found.scale, found.units) == ("TYX", {"T": 4.0}, {"T": "s"})


def test_labels_that_no_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for labels, axes in (
        (np.full((9, 9), -1), "YX"),
        (np.full((9, 9), 2**32), "YX"),
        (np.full((9, 9), 0.5), "YX"),
        (np.ones((9, 9), int), "ZYX"),
    ):
        with pytest.raises(InputError, match=r"a\.tif"):
            write_labels(path, labels, axes=axes)
    with pytest.raises(InputError, match="must end in"):
        write_labels(tmp_path / "a.png", np.ones((9, 9), int))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.tif"
    write_labels(path, np.ones((9, 9), int))
    before = path.read_bytes()

    def full_disk(target: Path, *_: object, **__: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full_disk)
    with pytest.raises(InputError, match="No space left"):
        write_labels(path, np.full((9, 9), 2))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_path_cleans_up_on_any_exception(tmp_path: Path) -> None:
    target = tmp_path / ("long" * 60 + ".csv")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        assert temporary.suffix == ".csv" and temporary.name.startswith(".")
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with atomic_path(target) as temporary:
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"


@pytest.mark.parametrize(
    ("folder", "channels", "rgb"),
    [
        ("dsb2018_nuclei", (1, 3), None),
        ("usiigaci_phase_contrast", (1,), False),
        ("bbbc010_worms_bf_gfp", (2,), False),
        ("acdc_cardiac_mri_scribbles", (1,), False),
        ("foot_ulcer", (3,), True),
    ],
)
def test_real_images(folder: str, channels: tuple[int, ...], rgb: bool | None) -> None:
    if not (DATA / folder).is_dir():
        pytest.skip(f"the real images of {folder} are not here")
    for path in image_files(DATA / folder / "images")[:2]:
        found = read_image(path)
        assert found.channels in channels
        assert rgb is None or found.rgb == rgb
        mask = read_annotation(DATA / folder / "masks" / f"{path.stem}.png")
        assert mask.labels.shape == found.plane().shape[1:] == found.size


def test_reader_errors_hold_no_blanket() -> None:
    assert not {Exception, BaseException, Warning} & set(raw.READER_ERRORS)
