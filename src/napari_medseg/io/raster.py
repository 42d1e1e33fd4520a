"""PNG, JPEG, BMP and NumPy files."""

from __future__ import annotations

import struct
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import InputError
from napari_medseg.io.limits import check_whole
from napari_medseg.io.raw import LAZY_BYTES, READER_ERRORS, Raw, damaged

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_ORIENTATION = 0x0112
"""EXIF's name for the way a camera was held."""

_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")


def read_raster(path: Path, *, indices: bool = False) -> Raw:
    """Read a PNG, JPEG or BMP file.

    Parameters
    ----------
    path : Path
        The file.
    indices : bool
        Give the indices of a palette instead of its colours; annotations are
        stored so.

    Returns
    -------
    Raw
        ``(Y, X)`` or ``(Y, X, samples)``.

    Raises
    ------
    InputError
        The file is damaged or too large.
    """
    try:
        if path.suffix.lower() == ".png" and _is_plain_png(path):
            _check_png(path)
            return _read_plain_png(path)
        return _read_pillow(path, indices)
    except READER_ERRORS as error:
        raise damaged(path, error) from error


def is_turned(path: Path) -> bool:
    """Tell whether a picture has a note to show it turned, which is not followed.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    bool
        Whether it is a JPEG whose EXIF orientation is not the usual one.
    """
    from PIL import Image

    if path.suffix.lower() not in (".jpg", ".jpeg"):
        return False
    try:
        with Image.open(path) as picture:
            return bool(picture.getexif().get(_ORIENTATION, 1) != 1)
    except (OSError, ValueError, SyntaxError):
        return False  # whoever reads the picture says so


def _is_plain_png(path: Path) -> bool:
    """Tell whether a PNG has no palette and whole bytes for samples."""
    with open(path, "rb") as file:
        header = file.read(29)
    depth, colour = header[24:25], header[25:26]
    if not header.startswith(b"\x89PNG"):
        return False
    return depth in (b"\x08", b"\x10") and colour != b"\x03"


def _check_png(path: Path) -> None:
    """Refuse a PNG whose header says that it is far larger than its file."""
    with open(path, "rb") as file:
        header = file.read(26)
    width, height, depth, colour = struct.unpack(">IIBB", header[16:26])
    samples = {0: 1, 2: 3, 4: 2, 6: 4}.get(colour, 1)
    check_whole(path, (height, width), samples * depth // 8)


def _read_plain_png(path: Path) -> Raw:
    """Decode with libpng itself: Pillow would cut 16-bit colours to 8 bits."""
    from imagecodecs import png_decode

    data: NDArray[Any] = png_decode(path.read_bytes())
    samples = data.shape[2] if data.ndim == 3 else 1
    return Raw(
        data,
        axes="YX" if data.ndim == 2 else "YXS",
        colour=samples >= 3,
        alpha=samples in (2, 4),
    )


def _read_pillow(path: Path, indices: bool) -> Raw:
    """Decode with Pillow, through imageio."""
    import imageio.v3 as iio
    from PIL.Image import DecompressionBombError, DecompressionBombWarning

    try:
        with (
            warnings.catch_warnings(),
            iio.imopen(path, "r", plugin="pillow") as opened,
        ):
            file: Any = opened  # typed as if plugins took no options
            # Whole-slide sized images are wanted here; the error far above stays.
            warnings.simplefilter("ignore", DecompressionBombWarning)
            mode = file.metadata()["mode"]
            convert = {"CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB"}.get(mode)
            if mode == "P" and indices:
                # Asked for its own mode, Pillow leaves the palette alone.
                convert = "P"
            data = np.asarray(file.read(index=0, mode=convert))
    except DecompressionBombError as error:
        raise InputError(
            f"{path} is too large for its format. Save it as a tiled TIFF or OME-Zarr."
        ) from error
    if mode == "P" and data.ndim == 3 and _is_grey(data):
        # A grey image that a program stored with a palette of greys.
        data, mode = data[..., 0], "L"
    alpha = mode in _ALPHA_MODES or (data.ndim == 3 and data.shape[2] in (2, 4))
    axes = "YX" if data.ndim == 2 else "YXS"
    return Raw(
        data, axes=axes, colour=data.ndim == 3 and data.shape[2] > 2, alpha=alpha
    )


def _is_grey(data: NDArray[Any]) -> bool:
    """Tell whether red, green and blue are the same everywhere."""
    return bool((data[..., :3] == data[..., :1]).all())


def read_numpy(path: Path) -> Raw:
    """Read a .npy file; objects (pickles) are refused.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Raw
        A large array stays in its file, as a read-only memory map.

    Raises
    ------
    InputError
        The file is damaged, or holds Python objects.
    """
    try:
        with open(path, "rb") as file:
            if file.read(2) == b"PK":
                raise InputError(
                    f"{path} is an archive of several arrays. Save one array with "
                    "numpy.save."
                )
        # mapped first: a header that speaks of more than the file has is noticed so
        # before memory is taken
        with np.errstate(all="ignore"):
            data = np.load(path, mmap_mode="r", allow_pickle=False)
        if data.nbytes <= LAZY_BYTES:
            data = np.array(data)
    except READER_ERRORS as error:
        words = ("allow_pickle", "Object arrays", "Python objects")
        if any(word in str(error) for word in words):
            raise InputError(
                f"{path} holds Python objects or is no .npy file; objects are never "
                "loaded, because they can run code. Save a plain number array with "
                "numpy.save."
            ) from error
        raise damaged(path, error) from error
    return Raw(data)
