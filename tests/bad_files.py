# ruff: noqa: E501
"""A folder with every kind of bad file, and some odd ones that can be used.

    python tests/bad_files.py > docs/bad_files.md

segments such a folder and prints what each file gets.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from PIL import Image

from napari_medseg.batch.inputs import readable

SIZE = 32

Maker = Callable[[Path], object]


def cell(kind: Any = np.uint8, *front: int) -> np.ndarray:
    """Return a bright square on a dark, noisy ground."""
    noise = np.random.default_rng(0).integers(0, 40, (*front, SIZE, SIZE))
    noise[..., 8:20, 8:20] += 60
    return noise.astype(kind)


def _cut(make: Maker, keep: float) -> Maker:
    """Return what makes a file and cuts it off."""

    def cut(path: Path) -> None:
        make(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * keep)])

    return cut


def _tiff(data: np.ndarray, **options: Any) -> Maker:
    options.setdefault("photometric", "minisblack")
    return lambda path: tifffile.imwrite(path, data, **options)


def _saved(data: np.ndarray, mode: str | None = None, kind: str | None = None) -> Maker:
    def save(path: Path) -> None:
        picture = Image.fromarray(data)
        (picture.convert(mode) if mode else picture).save(path, kind)

    return save


def _bytes(data: bytes) -> Maker:
    return lambda path: path.write_bytes(data)


def _with_value(value: float) -> np.ndarray:
    image = cell(np.float32)
    image[0, :5] = value
    return image


def _archive(path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, cell())


def _absurd_png(path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10**6, 10**6, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b""))


def _absurd_tiff(path: Path) -> None:
    tifffile.imwrite(path, cell())
    with tifffile.TiffFile(path, mode="r+b") as file:
        for tag in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages[0].tags[tag].overwrite(10**6)


def _broken_ome(path: Path) -> None:
    tifffile.imwrite(path, cell(np.uint8, 6), metadata={"axes": "ZYX"})
    text = tifffile.tiffcomment(path)
    tifffile.tiffcomment(path, text.replace("</Pixels>", "<Pixels"))


def _leading_elsewhere(path: Path) -> None:
    tifffile.imwrite(path, cell(np.uint8, 6), metadata={"axes": "ZYX"})
    text = tifffile.tiffcomment(path)
    start, stop = text.index("<TiffData"), text.index("</Pixels>")
    other = '<TiffData><UUID FileName="../other.tif">urn:uuid:1</UUID></TiffData>'
    tifffile.tiffcomment(path, text[:start] + other + text[stop:])


def _zarr(path: Path, lost: str = "") -> None:
    array = zarr.create_array(str(path), data=cell(), chunks=(16, 16), zarr_format=2)
    assert array.shape == (SIZE, SIZE)
    for name in os.listdir(path):
        if lost == "pieces" and not name.startswith("."):
            (path / name).unlink()
    if lost == "description":
        (path / ".zarray").unlink()
    if lost == "half":
        (path / "0.0").write_bytes((path / "0.0").read_bytes()[:20])


def _closed(path: Path) -> None:
    tifffile.imwrite(path, cell())
    path.chmod(0)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        # such names may have 100 characters only
        before = os.getcwd()
        os.chdir(path.parent)
        try:
            server.bind(path.name)
        finally:
            os.chdir(before)


ODD = cell(np.uint8, 5)

KINDS: dict[str, tuple[str, Maker, bool]] = {
    "empty file": ("empty.tif", _bytes(b""), False),
    "text named .tif": ("text.tif", _bytes(b"This is not an image.\n" * 9), False),
    "TIFF cut off": ("cut.tif", _cut(_tiff(cell()), 0.7), False),
    "TIFF stack cut off": ("cut stack.tif", _cut(_tiff(cell(np.uint8, 9)), 0.6), False),
    "PNG cut off": ("cut.png", _cut(_saved(cell()), 0.6), False),
    "JPEG cut off": ("cut.jpg", _cut(_saved(cell(np.uint8)), 0.6), False),
    "folder named .tif": ("folder.tif", lambda path: path.mkdir(), False),
    "JPEG named .png": ("jpeg.png", _saved(cell(), kind="JPEG"), True),
    "PNG named .tif": ("png.tif", _saved(cell(), kind="PNG"), False),
    "PNG named .tif, cut off": (
        "png cut.tif",
        _cut(_saved(cell(), kind="PNG"), 0.6),
        False,
    ),
    "GIF named .png": ("gif.png", _saved(cell(), kind="GIF"), True),
    "GIF": ("picture.gif", _saved(cell()), False),
    "spreadsheet": ("table.csv", _bytes(b"a,b\n1,2\n"), False),
    "1 × 1 pixel": ("one pixel.tif", _tiff(np.ones((1, 1), np.uint8)), True),
    "1 × 500 pixels": ("one row.tif", _tiff(np.arange(500)[None] % 250 + 0.0), True),
    "the same value everywhere": (
        "flat.tif",
        _tiff(np.full((9, 9), 7, np.uint8)),
        True,
    ),
    "nothing but NaN": ("nan.tif", _tiff(np.full((9, 9), np.nan, np.float32)), False),
    "some NaN": ("some nan.tif", _tiff(_with_value(np.nan)), True),
    "some infinite values": ("infinite.tif", _tiff(_with_value(np.inf)), True),
    "complex numbers": ("complex.tif", _tiff(cell(np.complex64)), False),
    "text in NumPy": ("words.npy", lambda path: np.save(path, [["a", "b"]]), False),
    "axis of length 0": (
        "no pixels.npy",
        lambda path: np.save(path, np.zeros((0, 9), np.uint8)),
        False,
    ),
    "one number": ("number.npy", lambda path: np.save(path, np.float32(3)), False),
    "7 axes": (
        "axes.npy",
        lambda path: np.save(path, np.ones((2, 3) * 3 + (9,))),
        False,
    ),
    "objects (pickle) in NumPy": (
        "pickle.npy",
        lambda path: np.save(path, np.array([{}, []], object)),
        False,
    ),
    "archive (.npz) named .npy": ("archive.npy", _archive, False),
    "5 channels": ("channels.tif", _tiff(ODD), True),
    "channels last": (
        "channels last.npy",
        lambda path: np.save(path, np.moveaxis(ODD, 0, -1)),
        True,
    ),
    "colours with opacity (RGBA)": ("rgba.png", _saved(cell(), "RGBA"), True),
    "palette": ("palette.png", _saved(cell(), "P"), True),
    "JPEG in CMYK": ("cmyk.jpg", _saved(cell(), "CMYK"), True),
    "1 bit a pixel": ("bits.tif", _tiff(cell() > 50), True),
    "16 bit with a hot pixel": (
        "hot.tif",
        _tiff(_with_value(65535).astype(np.uint16)),
        True,
    ),
    "volume of 6 slices": ("volume.tif", _tiff(cell(np.uint8, 6)), True),
    "float64": ("float64.tif", _tiff(cell(np.float64)), True),
    "int8": ("int8.tif", _tiff(cell(np.int8)), True),
    "int64": ("int64.npy", lambda path: np.save(path, cell(np.int64)), True),
    "truth values": ("bool.npy", lambda path: np.save(path, cell() > 50), True),
    "PNG that says 10⁶ × 10⁶": ("absurd.png", _absurd_png, False),
    "TIFF that says 10⁶ × 10⁶": ("absurd.tif", _absurd_tiff, False),
    "OME header that is damaged": ("broken.ome.tif", _broken_ome, False),
    "OME header that leads elsewhere": ("leads.ome.tif", _leading_elsewhere, False),
    "zarr without its description": (
        "a.zarr",
        lambda p: _zarr(p, "description"),
        False,
    ),
    "zarr without its pieces": ("b.zarr", lambda p: _zarr(p, "pieces"), False),
    "zarr with a damaged piece": ("c.zarr", lambda p: _zarr(p, "half"), False),
    "CZI cut off or not one": ("cut.czi", _bytes(b"ZISRAWFILE" + bytes(99)), False),
    "ND2 cut off or not one": ("cut.nd2", _bytes(b"\xda\xce\xbe\x0a" * 9), False),
    "LIF cut off or not one": ("cut.lif", _bytes(b"\x70\0\0\0" * 9), False),
    "very long name": (f"{'n' * 240}.tif", _tiff(cell()), True),
}
"""Kind of file: its name, what makes it, and whether it can be used."""

UNIX: dict[str, tuple[str, Maker, bool]] = {
    "no right to read": ("closed.tif", _closed, False),
    "link to a file that is gone": (
        "link.tif",
        lambda path: path.symlink_to("/gone/away.tif"),
        False,
    ),
    "link to itself": ("loop.tif", lambda path: path.symlink_to(path), False),
    "pipe": ("pipe.tif", lambda path: os.mkfifo(path), False),
    "socket": ("socket.tif", _socket, False),
    "device": ("device.tif", lambda path: path.symlink_to("/dev/zero"), False),
    "name that is no text": (os.fsdecode(b"m\xb5.tif"), _tiff(cell()), True),
}
"""As `KINDS`, on Unix; for root no file is closed."""

UNSEEN = ("picture.gif", "table.csv", "folder.tif")
"""What is not taken for an image: endings of others, and folders."""


def kinds() -> dict[str, tuple[str, Maker, bool]]:
    """Return the kinds that there can be here."""
    found = KINDS | (UNIX if os.name == "posix" else {})
    if os.name == "posix" and os.geteuid() == 0:
        del found["no right to read"]
    return found


def make_all(folder: Path) -> dict[str, str]:
    """Write a file of each kind, and a good one; return the kinds by name."""
    folder.mkdir(parents=True)
    tifffile.imwrite(folder / "good.tif", cell())
    made = {}
    for kind, (name, make, _) in kinds().items():
        make(folder / name)
        made[name] = kind
    return made


def table(folder: Path, done: dict[str, str], failed: dict[str, str]) -> str:
    """Return a table in Markdown: each kind, and what it got."""
    lines = ["| kind of file | what it gets |", "|---|---|"]
    for kind, (name, _, _) in kinds().items():
        told = "left out: its ending is not that of an image that is read here"
        if name.startswith("folder"):
            told = "a folder like any other: the images in it are segmented"
        name = readable(name)
        if name in failed:
            words = failed[name].replace(f"{folder}{os.sep}", "").replace("|", "\\|")
            told = words if len(name) < 50 else words.replace(name, "…")
        elif name in done:
            told = f"**done**. {done[name]}".strip()
        lines.append(f"| {kind} | {told} |")
    return "\n".join(lines)


HEAD = """# Bad files

What a folder run does with files that are damaged, odd or no images. The run goes on whatever it meets; at the end the summary names the files that failed, each with its sentence, and the exit code is 1. The good files are done. Give the same command again once the files are mended: only they are done then.

This table is made by `tests/bad_files.py`, which writes such a folder and segments it; `tests/test_bad_files.py` checks the same.
"""


TAIL = """
Files that you may not read get "… cannot be read (Permission denied). Check its rights.".

A file that something writes to while it is read is refused, too ("… changed while it was read. Run the same command again once nothing writes to it any more."). A zarr folder in which only some pieces are missing cannot be told from one in which they are zeros, since zarr leaves out pieces of zeros: copy such folders with a program that checks.
"""


def tried() -> str:
    """Say how many damaged files the readers were tried with."""
    results = Path(__file__).parents[1] / "benchmarks" / "results"
    drawn = json.loads((results / "fuzz.json").read_text(encoding="utf-8"))
    led = json.loads((results / "fuzz_atheris.json").read_text(encoding="utf-8"))
    return (
        f"\nThe readers were tried with {drawn['inputs']:,} files of "
        f"{len(drawn['formats'])} kinds damaged at random (`benchmarks/fuzz.py`, "
        f"`fuzz.json`): {drawn['read']:,} were read, "
        f"{drawn['refused_with_a_sentence']:,} got a sentence, and {drawn['errors']} "
        "ended in any other way. Model files, GeoJSON and ROIs were also tried with "
        f"{led['inputs']:,} inputs led by coverage (atheris, `fuzz_atheris.json`), "
        f"with {led['findings']} findings.\n"
    )


def main() -> None:
    """Segment a folder of all kinds, and print what each got."""
    from bright import Bright, segment

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "images")
        make_all(folder)
        report = segment(folder, Path(place, "results"), Bright(50))
        notes = {Path(name).name: note for name, note in report.notes.items()}
        done = {Path(name).name: notes.get(Path(name).name, "") for name in report.done}
        failed = {Path(name).name: words for name, words in report.failed.items()}
        sys.stdout.write(f"{HEAD}\n{table(folder, done, failed)}\n{TAIL}{tried()}")


if __name__ == "__main__":
    main()
