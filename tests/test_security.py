"""Files from strangers: nothing leads out of a folder, fills the memory or waits."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sqlite3
import struct
import sys
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import zarr
from bright import Bright, names, save_squares, segment
from folders import content

from napari_medseg._types import InputError, ModelFileError, OverwriteError
from napari_medseg.batch import read_ledger
from napari_medseg.batch.ledger import LEDGER
from napari_medseg.batch.ledger_file import LOCK
from napari_medseg.batch.names import leads_out
from napari_medseg.io import limits, zarr_guard
from napari_medseg.io.images import read_image
from napari_medseg.io.model_file import load, read_card
from napari_medseg.io.outlines import read_geojson, read_rois

if TYPE_CHECKING:
    from collections.abc import Callable

MEGA = 1_000_000

unix = pytest.mark.skipif(sys.platform == "win32", reason="as on Unix")


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where an array is made that nothing here needs."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


# --- absurd headers and bombs -----------------------------------------------------


def png(path: Path, width: int, height: int) -> None:
    """Write a PNG of a few bytes that says how large it is."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    packed = zlib.compress(bytes(1000))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def tiff(path: Path, width: int, height: int, **options: Any) -> None:
    """Write a TIFF whose header then speaks of another size."""
    tifffile.imwrite(path, np.ones((16, 16), np.uint8), **options)
    with tifffile.TiffFile(path, mode="r+b") as file:
        tags = file.pages[0].tags
        tags["ImageWidth"].overwrite(width)
        tags["ImageLength"].overwrite(height)
        if "RowsPerStrip" in tags:
            tags["RowsPerStrip"].overwrite(height)


def npy(path: Path, shape: tuple[int, ...], kind: str = "|u1") -> None:
    """Write a header of NumPy, and next to nothing after it."""
    with open(path, "wb") as file:
        header = {"descr": kind, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(100))


def zarr_folder(path: Path, shape: list[int], chunks: list[int], piece: bytes) -> None:
    """Write a zarr folder (version 2) with a single piece."""
    path.mkdir()
    described = {
        "zarr_format": 2,
        "shape": shape,
        "chunks": chunks,
        "dtype": "|u1",
        "compressor": {"id": "gzip", "level": 1},
        "fill_value": 0,
        "order": "C",
        "filters": None,
    }
    (path / ".zarray").write_text(json.dumps(described))
    (path / "0.0").write_bytes(piece)


def bomb(size: int) -> bytes:
    """Return zeros packed by gzip, without ever holding them."""
    packer, parts = zlib.compressobj(9, wbits=31), []
    for _ in range(size // 2**24):
        parts.append(packer.compress(bytes(2**24)))
    return b"".join([*parts, packer.flush()])


ABSURD: dict[str, Callable[[Path], None]] = {
    "a.png": lambda path: png(path, MEGA, MEGA),
    "b.png": lambda path: png(path, 60_000, 60_000),
    "a.tif": lambda path: tiff(path, MEGA, MEGA),
    "b.tif": lambda path: tiff(path, 60_000, 60_000, compression="zlib"),
    "tiles.tif": lambda path: tiff(path, 10 * MEGA, 10 * MEGA, tile=(16, 16)),
    "a.npy": lambda path: npy(path, (MEGA, MEGA)),
    "b.npy": lambda path: npy(path, (60_000, 60_000)),
    "c.npy": lambda path: npy(path, (2**40, 2**40)),
    "pickle.npy": lambda path: np.save(path, np.array([print], object)),
    "a.zarr": lambda path: zarr_folder(path, [10 * MEGA] * 2, [64, 64], b""),
    "b.zarr": lambda path: zarr_folder(path, [MEGA // 4] * 2, [MEGA // 4] * 2, b"x"),
}


@unix
@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as on Linux")
@pytest.mark.parametrize("name", ABSURD)
def test_absurd_headers_are_refused_before_they_take_memory(
    tmp_path: Path, name: str, little_memory: None
) -> None:
    ABSURD[name](tmp_path / name)
    with pytest.raises(InputError, match=name) as caught:
        np.asarray(read_image(tmp_path / name).data)
    words = str(caught.value)
    assert "Export" in words or "Save" in words or "save it" in words, words


def test_real_images_that_pack_well_are_read(tmp_path: Path) -> None:
    black = np.zeros((12_000, 12_000), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", black, compression="zlib")
    assert read_image(tmp_path / "a.tif").size == black.shape


def test_pieces_of_zarr_that_would_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zarr_folder(tmp_path / "a.zarr", [64, 64], [64, 64], gzip.compress(bytes(4096)))
    assert read_image(tmp_path / "a.zarr").data.shape == (64, 64)
    zarr_folder(tmp_path / "b.zarr", [64, 64], [64, 64], bomb(2**28))
    monkeypatch.setattr(zarr_guard, "AT_ONCE", 2**27)
    with pytest.raises(InputError, match="would fill the memory"):
        read_image(tmp_path / "b.zarr")


@pytest.mark.parametrize("kind", ["zstd", "bz2", "lzma", "zlib"])
def test_bombs_of_every_kind_are_known(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numcodecs

    codec = numcodecs.get_codec({"id": kind})
    small = codec.encode(np.random.default_rng(0).bytes(2**16))
    zarr_guard.check_piece(bytes(small), "0.0")
    zarr_guard.check_piece(bytes(small)[:-9], "0.0")  # damaged: zarr says so
    monkeypatch.setattr(zarr_guard, "AT_ONCE", 2**20)
    zarr_guard.check_piece(bytes(small), "0.0")
    large = bytes(codec.encode(bytes(2**25)))
    with pytest.raises(ValueError, match=r"0\.0 would fill"):
        zarr_guard.check_piece(large, "0.0")


def test_rois_that_would_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for index in range(5):
            with archive.open(f"../{index}.roi", "w") as file:
                for _ in range(4):
                    file.write(bytes(2**24))
    with pytest.raises(InputError, match=r"unpacks to 0\.3 GB"):
        read_rois(path)


@pytest.mark.parametrize("depth", [1000, 100_000])
def test_deep_nests_are_refused(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "a.geojson"
    path.write_text("[" * depth)
    with pytest.raises(InputError, match="no GeoJSON"):
        read_geojson(path)


@pytest.mark.parametrize("length", [2**30, 2**63, 10**6 + 1])
def test_model_files_with_absurd_headers(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.medseg"
    path.write_bytes(struct.pack("<Q", length) + b"{" + bytes(100))
    for read in (load, read_card):
        with pytest.raises(ModelFileError, match="header says"):
            read(path)


def test_planes_that_only_a_header_has(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, np.ones((2, 16, 16), np.uint8), metadata={"axes": "ZYX"})
    text = tifffile.tiffcomment(path)
    tifffile.tiffcomment(path, text.replace('SizeZ="2"', 'SizeZ="2000000000"'))
    with pytest.raises(InputError, match="2,000,000,000 planes"):
        read_image(path)
    laughs = "".join(
        f'<!ENTITY l{index} "{f"&l{index - 1};" * 10}">' for index in range(1, 12)
    )
    doctype = f'<!DOCTYPE x [<!ENTITY l0 "lol">{laughs}]>'
    tifffile.tiffcomment(path, text.replace("<OME", f"{doctype}<OME", 1))
    try:
        read_image(path)
    except InputError as error:
        assert str(path) in str(error)


# --- files that lead elsewhere ----------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../secret.ome.tif", "/etc/passwd", "&#46;&#46;/x.tif", "a\\b.tif"]
)
def test_an_image_in_several_files_stays_in_its_folder(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "inside" / "a.ome.tif"
    path.parent.mkdir()
    for place in (path, tmp_path / "secret.ome.tif"):
        tifffile.imwrite(
            place, np.ones((2, 16, 16), np.uint8), metadata={"axes": "ZYX"}
        )
    other = f'<UUID FileName="{name}">urn:uuid:1</UUID>'
    text = tifffile.tiffcomment(path)
    start = text.index("<TiffData")
    stop = text.index(">", start) + 1
    data = f'<TiffData IFD="0" FirstZ="0" PlaneCount="2">{other}</TiffData>'
    tifffile.tiffcomment(
        path, text[:start] + data + text[stop:].replace("</TiffData>", "")
    )
    with pytest.raises(InputError, match="another file by its folder"):
        read_image(path)


@pytest.mark.parametrize("inner", ["../other.zarr", "/etc", "..", "0/../../other.zarr"])
def test_a_zarr_image_stays_in_its_folder(tmp_path: Path, inner: str) -> None:
    zarr.save(str(tmp_path / "other.zarr"), np.ones((8, 8), np.uint8))
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    axes = [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": inner}]}]
    with pytest.raises(InputError, match=r"a\.zarr"):
        read_image(tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("name", "out"),
    [
        ("a/b", False),
        ("..a", False),
        ("a..b/c", False),
        ("../a", True),
        ("a/../../b", True),
        ("a/..", True),
        ("/a", True),
        ("", True),
        ("a/", True),
        (".", True),
        ("a\0b", True),
    ],
)
def test_names_that_lead_out(name: str, out: bool) -> None:
    assert leads_out(name) is out


# --- pipes and devices ------------------------------------------------------------


@unix
def test_nothing_waits_for_a_pipe(tmp_path: Path) -> None:
    for name in ("a.tif", "a.medseg", "a.geojson", "a.roi", "a.zip", "a.nd2"):
        os.mkfifo(tmp_path / name)
    for name in ("a.tif", "a.nd2"):
        with pytest.raises(InputError, match="is a pipe, not a file"):
            read_image(tmp_path / name)
    with pytest.raises(ModelFileError, match="not a file"):
        load(tmp_path / "a.medseg")
    with pytest.raises(InputError, match="is a pipe"):
        read_geojson(tmp_path / "a.geojson")
    for name in ("a.roi", "a.zip"):
        with pytest.raises(InputError, match="is a pipe"):
            read_rois(tmp_path / name)


@unix
def test_nothing_waits_for_a_pipe_in_a_zarr_folder(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    zarr.save(str(images / "a.zarr"), np.ones((8, 8), np.uint8))
    pieces = [
        path
        for path in (images / "a.zarr").rglob("*")
        if path.is_file() and path.name != "zarr.json"
    ]
    pieces[0].unlink()
    os.mkfifo(pieces[0])
    (images / "a.zarr" / "loop").symlink_to(images / "a.zarr")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        read_image(images / "a.zarr")
    report = segment(images, tmp_path / "out", Bright())
    assert "is a pipe" in next(iter(report.failed.values()))


# --- output folders from strangers ------------------------------------------------


@pytest.fixture
def done(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of images, and one of their labels."""
    images, out = save_squares(tmp_path / "images"), tmp_path / "out"
    segment(images, out, Bright())
    return images, out


def change(out: Path, *statements: str) -> None:
    connection = sqlite3.connect(out / LEDGER)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    "change_it",
    [
        "UPDATE images SET name = '../../x' WHERE name = 'a'",
        "UPDATE images SET name = '/x', state = 'running' WHERE name = 'a'",
        "UPDATE images SET name = 'b/../../x', state = 'running' WHERE name = 'a'",
        "UPDATE images SET files = '[\"../../x.tif\"]' WHERE name = 'a'",
        "UPDATE images SET files = '{\"a\": 3}' WHERE name = 'a'",
        "UPDATE images SET files = 'no JSON' WHERE name = 'a'",
        "UPDATE images SET files = '[3]' WHERE name = 'a'",
        "UPDATE images SET seconds = 'long' WHERE name = 'a'",
        "UPDATE images SET source = x'00' WHERE name = 'a'",
        "CREATE TRIGGER t AFTER UPDATE ON images BEGIN DELETE FROM images; END",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TABLE more (a)",
    ],
)
def test_ledgers_are_data_and_stay_in_their_folder(
    done: tuple[Path, Path], change_it: str
) -> None:
    images, out = done
    # what a run would take for its own halves, outside of the folder
    half = out.parent / f".x.{'0' * 8}.part.tif"
    half.write_text("precious")
    (out.parent / ".scratch-1").mkdir()
    change(out, change_it)
    before = {name: (out / name).read_bytes() for name in content(out)}
    with pytest.raises(OverwriteError, match="--overwrite"):
        segment(images, out, Bright())
    with pytest.raises(OverwriteError), read_ledger(out) as ledger:
        list(ledger.rows())
    for name in before:
        if not name.startswith((LEDGER, LOCK)):
            assert (out / name).read_bytes() == before[name]
    assert half.exists() and (out.parent / ".scratch-1").exists()
    # and what the sentence proposes works
    report = segment(images, out, Bright(), overwrite=True)
    assert names(report.done) == ["a.tif", "b.tif", "c.tif"]
    assert half.exists()


def test_a_ledger_that_never_ends(done: tuple[Path, Path]) -> None:
    images, out = done
    change(
        out,
        "ALTER TABLE images RENAME TO other",
        "CREATE VIEW images AS WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL "
        "SELECT x + 1 FROM t) SELECT x AS name FROM t",
    )
    with pytest.raises(OverwriteError):
        segment(images, out, Bright())


@unix
@pytest.mark.parametrize("link", [LEDGER, LOCK])
def test_a_ledger_is_never_a_link(tmp_path: Path, link: str) -> None:
    images, out = save_squares(tmp_path / "images"), tmp_path / "out"
    out.mkdir()
    precious = tmp_path / "precious.sqlite"
    connection = sqlite3.connect(precious)
    with connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()
    before = precious.read_bytes()
    (out / link).symlink_to(precious)
    with pytest.raises(InputError, match="a link or something else"):
        segment(images, out, Bright())
    assert precious.read_bytes() == before


@unix
@pytest.mark.parametrize("link", ["day 1", ".medseg"])
def test_results_are_not_written_through_a_link(tmp_path: Path, link: str) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    save_squares(images / "day 1")
    elsewhere = tmp_path / "elsewhere"
    for folder in (out, elsewhere):
        folder.mkdir()
    (out / link).symlink_to(elsewhere)
    report = segment(images, out, Bright())
    assert len(report.failed) == 3
    for error in report.failed.values():
        assert "is a link to" in error and "Remove the link" in error
    assert list(elsewhere.iterdir()) == []


@unix
def test_an_output_folder_may_be_a_link_itself(tmp_path: Path) -> None:
    images, place = save_squares(tmp_path / "images"), tmp_path / "place"
    place.mkdir()
    (tmp_path / "out").symlink_to(place)
    assert len(segment(images, tmp_path / "out", Bright()).done) == 3


@unix
def test_a_label_that_is_a_link_is_replaced_not_followed(
    done: tuple[Path, Path],
) -> None:
    images, out = done
    precious = out.parent / "precious.tif"
    shutil.copy(images / "a.tif", precious)
    before = precious.read_bytes()
    (out / "a.tif").unlink()
    (out / "a.tif").symlink_to(precious)
    segment(images, out, Bright(50), redo=True)
    assert precious.read_bytes() == before
    assert not (out / "a.tif").is_symlink()


def test_names_of_parts_come_from_no_file() -> None:
    from napari_medseg.batch._parts import part_path

    for name in ("../../x", "/etc/passwd", "a" * 1000):
        place = PurePosixPath(part_path(name, ".csv"))
        assert place.parts[0] == ".medseg" and ".." not in place.parts


def test_limits_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(bytes(1000))
    limits.check_whole(path, (30_000, 30_000), 1)  # below 1 GiB
    with pytest.raises(InputError, match=r"3\.6 GB\) in 1,000 bytes"):
        limits.check_whole(path, (60_000, 60_000), 1)
    with pytest.raises(InputError, match="no real image has"):
        limits.check_shape(path, (MEGA, MEGA))
    limits.check_shape(path, (100, 4, 200_000, 200_000))


def test_blosc_is_not_given_a_damaged_header(tmp_path: Path) -> None:
    numcodecs = pytest.importorskip("numcodecs")
    image = np.random.default_rng(0).integers(1, 99, (32, 32)).astype(np.uint8)
    path = tmp_path / "a.zarr"
    options = {"chunks": (32, 32), "zarr_format": 2}
    zarr.create_array(str(path), data=image, compressors=numcodecs.Blosc(), **options)
    assert np.array_equal(read_image(path).data, image)
    whole = (path / "0.0").read_bytes()
    for place, value in ((4, -1), (4, 2**30), (8, 2**30), (8, 0), (12, 2**30)):
        part = struct.pack("<i", value)
        (path / "0.0").write_bytes(whole[:place] + part + whole[place + 4 :])
        with pytest.raises(InputError, match=r"piece 0\.0 is damaged"):
            read_image(path)


def test_pieces_that_a_filter_made_smaller_are_read(tmp_path: Path) -> None:
    numcodecs = pytest.importorskip("numcodecs")
    image = np.random.default_rng(0).random((32, 32)) > 0.5
    path = tmp_path / "a.zarr"
    packed = {"filters": [numcodecs.PackBits()], "compressors": numcodecs.Blosc()}
    zarr.create_array(str(path), data=image, chunks=(32, 32), zarr_format=2, **packed)
    assert np.array_equal(read_image(path).data, image)
    whole = (path / "0.0").read_bytes()
    for place, value in ((4, -1), (4, 2**31 - 1), (8, 2**30), (12, 2**30)):
        part = struct.pack("<i", value)
        (path / "0.0").write_bytes(whole[:place] + part + whole[place + 4 :])
        with pytest.raises(InputError, match=r"piece 0\.0 is damaged"):
            read_image(path)


def test_pages_that_lead_back(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((3, 9, 9), np.uint8), photometric="minisblack")
    with tifffile.TiffFile(path) as file:
        first, last = file.pages[0].offset, file.pages[len(file.pages) - 1].offset
    data = bytearray(path.read_bytes())
    (count,) = struct.unpack_from("<H", data, last)
    struct.pack_into("<I", data, last + 2 + 12 * count, first)
    path.write_bytes(data)
    with pytest.raises(InputError, match="cut short"):
        read_image(path)
