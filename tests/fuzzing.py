"""Small real files of every format, ways to damage them, and what reads them."""

from __future__ import annotations

import io
import json
import shutil
import struct
import warnings
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import zarr
from PIL import Image
from roifile import ROI_TYPE, ImagejRoi

from napari_medseg._types import MedsegError
from napari_medseg.io import model_file
from napari_medseg.io.images import read_annotation, read_image
from napari_medseg.io.outlines import read_geojson, read_rois

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

SIZE = 24
"""Side of the images, in pixels."""

NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1)
"""What readers stumble over where they expect a length."""


@dataclass(frozen=True)
class Damage:
    """One change of a file.

    Attributes
    ----------
    kind : int
        Which: 0 a byte, 1 to 4 a number of 2, 4 or 8 bytes (either way round), 5 cut
        off, 6 take out, 7 repeat, 8 a digit of a text.
    where : int
        Place, modulo the length.
    value : int
        What is put there, or how much is taken out.
    """

    kind: int
    where: int
    value: int


KINDS = 9
"""Number of the kinds of damage."""


def damaged(data: bytes, damages: Sequence[Damage]) -> bytes:
    """Return a file with some changes."""
    for damage in damages:
        if data:
            data = _changed(data, damage)
    return data


def _changed(data: bytes, damage: Damage) -> bytes:
    place, value = damage.where % len(data), damage.value
    before, after = data[:place], data[place:]
    if damage.kind == 0:
        return before + bytes([value % 256]) + after[1:]
    if damage.kind <= 4:
        layout = ("<H", "<I", ">I", "<Q")[damage.kind - 1]
        length = struct.calcsize(layout)
        number = NUMBERS[value % len(NUMBERS)] % 256**length
        return before + struct.pack(layout, number) + after[length:]
    length = 1 + value % 64
    if damage.kind == 5:
        return before
    if damage.kind == 6:
        return before + after[length:]
    if damage.kind == 7:
        return before + after[:length] + after
    digits = [index for index, byte in enumerate(data) if 48 <= byte <= 57]
    if not digits:
        return data
    place = digits[damage.where % len(digits)]
    number = str(NUMBERS[value % len(NUMBERS)] - value % 2).encode()
    return data[:place] + number + data[place + 1 :]


# --- the files --------------------------------------------------------------------


def image(*shape: int, kind: Any = np.uint8) -> np.ndarray:
    """Return noise."""
    random = np.random.default_rng(0)
    return random.integers(1, 200, shape or (SIZE, SIZE)).astype(kind)


def seeds(folder: Path) -> dict[str, bytes]:
    """Write a file of each kind into a folder; return their bytes by name."""
    made: dict[str, bytes] = {}
    for write in (_tiffs, _rasters, _arrays, _outlines, _models, _containers):
        place = folder / write.__name__
        place.mkdir()
        write(place)
        for path in sorted(place.iterdir()):
            made[path.name] = _packed(path) if path.is_dir() else path.read_bytes()
    return made


def _tiffs(place: Path) -> None:
    stack = image(3, SIZE, SIZE, kind=np.uint16)
    tifffile.imwrite(place / "plain.tif", image())
    tifffile.imwrite(place / "tiled.tif", image(), tile=(16, 16), compression="zlib")
    grey: dict[str, Any] = {"photometric": "minisblack"}
    packed = grey | {"compression": "lzw", "predictor": True}
    tifffile.imwrite(place / "lzw.tif", stack, **packed)
    tifffile.imwrite(place / "colour.tif", image(SIZE, SIZE, 3), photometric="rgb")
    tifffile.imwrite(place / "big.tif", image(), bigtiff=True)
    tifffile.imwrite(place / "bits.tif", image() > 100)
    tifffile.imwrite(place / "float.tif", image(kind=np.float32), byteorder=">")
    tifffile.imwrite(place / "jpeg.tif", image(), compression="jpeg")
    tifffile.imwrite(place / "zstd.tif", image(), compression="zstd")
    described = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"}
    tifffile.imwrite(place / "stack.ome.tif", stack, metadata=described, **grey)
    tifffile.imwrite(
        place / "imagej.tif", stack, imagej=True, metadata={"axes": "ZYX", "unit": "um"}
    )


def _rasters(place: Path) -> None:
    Image.fromarray(image()).save(place / "grey.png")
    Image.fromarray(image(kind=np.uint16)).save(place / "deep.png")
    Image.fromarray(image(SIZE, SIZE, 4)).save(place / "alpha.png")
    Image.fromarray(image()).convert("P").save(place / "palette.png")
    Image.fromarray(image() > 100).save(place / "bits.png")
    Image.fromarray(image(SIZE, SIZE, 3)).save(place / "colour.jpg")
    Image.fromarray(image(SIZE, SIZE, 3)).save(place / "colour.bmp")
    Image.fromarray(image()).save(place / "grey.bmp")


def _arrays(place: Path) -> None:
    np.save(place / "array.npy", image(2, SIZE, SIZE))
    np.savez(place / "archive.npy.npz", image())
    shutil.move(place / "archive.npy.npz", place / "archive.npy")
    for version in (2, 3):
        options = {"chunks": (16, 16), "zarr_format": version}
        zarr.create_array(str(place / f"v{version}.zarr"), data=image(), **options)
    group = zarr.open_group(str(place / "ome.zarr"), mode="w", zarr_format=2)
    group.create_array("0", data=image(2, SIZE, SIZE), chunks=(1, 16, 16))
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    scale = [{"type": "scale", "scale": [1.0, 0.5, 0.5]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": datasets}]


def _outlines(place: Path) -> None:
    corners = np.array([[1, 1], [9, 1], [9, 9]])
    rois = {
        f"{kind.name}.roi": ImagejRoi.frompoints(corners, name=kind.name)
        for kind in (ROI_TYPE.POLYGON, ROI_TYPE.POINT)
    }
    oval = ImagejRoi(roitype=ROI_TYPE.OVAL, left=2, top=3, right=12, bottom=9)
    rois["oval.roi"] = oval
    with zipfile.ZipFile(place / "rois.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, roi in rois.items():
            archive.writestr(name, roi.tobytes())
    for name, roi in rois.items():
        (place / name).write_bytes(roi.tobytes())
    ring = [[0, 0], [9, 0], [9, 9], [0, 0]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "classification": {"name": "cell", "color": [1, 2, 3]},
            "measurements": {"area": 3.5},
        },
    }
    content = {"type": "FeatureCollection", "features": [feature]}
    (place / "cells.geojson").write_text(json.dumps(content))


def _models(place: Path) -> None:
    from napari_medseg._types import default_classes

    card = model_file.ModelCard("ptsam", "cells", default_classes(2))
    numbers = {"prompt": np.ones((2, 8), np.float32), "bias": np.zeros(3)}
    model_file.save(place / "model.medseg", model_file.ModelFile(card, numbers))


def _containers(place: Path) -> None:
    from microscope_files import write_czi, write_lif, write_nd2

    write_czi(place / "cells.czi", [image(1, 2, SIZE, SIZE, kind=np.uint16)] * 2)
    write_lif(place / "cells.lif", {"a": image(2, 1, SIZE, SIZE)})
    write_nd2(place / "cells.nd2", [image(2, SIZE, SIZE, kind=np.uint16)] * 2)


def _packed(folder: Path) -> bytes:
    """Return a folder as one stored (not packed) zip file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
    return content.getvalue()


# --- reading ----------------------------------------------------------------------


def read(name: str, seed: bytes, damages: Sequence[Damage], folder: Path) -> str:
    """Read a damaged file.

    Returns
    -------
    str
        ``read``, or the sentence that it got. Anything else is an error.
    """
    path = folder / f"damaged-{name}"
    if name.endswith(".zarr"):
        _unpack_damaged(seed, damages, path)
    else:
        path.write_bytes(damaged(seed, damages))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _reader(name)(path)
    except MedsegError as error:
        sentence = str(error)
        assert sentence.strip() and "\n" not in sentence[:-1], sentence
        return sentence
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return "read"


def _unpack_damaged(seed: bytes, damages: Sequence[Damage], path: Path) -> None:
    """Write a folder, in which a file of those that there are is damaged."""
    with zipfile.ZipFile(io.BytesIO(seed)) as archive:
        names = archive.namelist()
        chosen = names[damages[0].value % len(names)] if damages else ""
        for name in names:
            data = archive.read(name)
            target = path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(damaged(data, damages) if name == chosen else data)


def _reader(name: str) -> Callable[[Path], object]:
    """Return what reads files of a name."""
    if name.endswith(".medseg"):
        return _read_model
    if name.endswith(".geojson"):
        return read_geojson
    if name.endswith((".roi", ".zip")):
        return read_rois
    return _read_image


def _read_image(path: Path) -> None:
    """Read an image as a folder run does, and as an annotation."""
    for _, plane in read_image(path).slices():
        assert plane.ndim == 3 and plane.dtype == np.float32
    read_annotation(path)


def _read_model(path: Path) -> None:
    model_file.read_card(path)
    model_file.load(path)
