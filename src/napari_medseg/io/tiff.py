"""TIFF, ImageJ TIFF and OME-TIFF: reading with metadata, writing what was found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import InputError
from napari_medseg.io.atomic import atomic_path, disk_errors
from napari_medseg.io.axes import LETTERS, unit_name
from napari_medseg.io.limits import check_shape, check_whole
from napari_medseg.io.raw import (
    LAZY_BYTES,
    READER_ERRORS,
    Key,
    LazyArray,
    Raw,
    damaged,
)
from napari_medseg.io.tiff_checks import check_complete, check_header

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

# Resolution units of the TIFF tag in µm. Inches are left out: they are the dots
# per inch of paint programs and say nothing about the object.
_RESOLUTION_UNITS = {3: 10_000.0, 4: 1_000.0, 5: 1.0}

STEPS = 4096
"""Probabilities are written in steps of one part in this many."""


def read_tiff(path: Path) -> Raw:
    """Read the first image of a TIFF file with its axes and pixel size.

    Metadata of OME, then of ImageJ and tifffile, then the resolution tags win over
    guesses. Of a pyramid the finest level is read.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Raw
        A large file in tiles, strips or pages stays on the disk.

    Raises
    ------
    InputError
        The file is damaged or cut short.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            check_header(path, file)
            series = file.series[0]
            check_shape(path, series.shape)
            check_complete(path, file, series)
            scale, units = _pixel_size(file, series)
            page = series.keyframe
            # 1 and 2 are the two kinds of opacity that TIFF knows.
            alpha = tuple(int(extra) for extra in page.extrasamples)[-1:] in [
                (1,),
                (2,),
            ]
            return Raw(
                data=_load(path, series),
                axes=series.axes,
                scale=scale,
                units=units,
                colour=page.photometric in (2, 6),  # RGB, YCbCr
                alpha=alpha,
            )
    except READER_ERRORS as error:
        raise damaged(path, error) from error


def _load(path: Path, series: Any) -> NDArray[Any] | LazyArray:
    """Decode the series, or leave a large one on the disk."""
    page = series.keyframe
    # One strip that holds a whole page would be decoded anew for every tile.
    piece = int(np.prod(page.chunks)) * page.dtype.itemsize
    if series.nbytes > LAZY_BYTES and 16 * piece <= series.nbytes:
        check_whole(path, page.chunks, page.dtype.itemsize)
        return LazyArray(path, _BoxReader(str(path)), series.shape, series.dtype)
    check_whole(path, series.shape, series.dtype.itemsize)
    array: NDArray[Any] = series.asarray()
    return array


@dataclass(frozen=True, slots=True)
class _BoxReader:
    """Reads a box of a TIFF series; a plain object, so that it can be pickled."""

    path: str

    def __call__(self, key: Key) -> NDArray[Any]:
        import tifffile
        import zarr

        with tifffile.TiffFile(self.path) as file:
            store = file.series[0].levels[0].aszarr()
            try:
                array: Any = zarr.open(store, mode="r")
                return np.asarray(array[key])
            finally:
                store.close()


def _pixel_size(file: Any, series: Any) -> tuple[dict[str, float], dict[str, str]]:
    """Return pixel size and unit by axis, from the best metadata there is."""
    if file.is_ome and file.ome_metadata:
        return _ome_size(file.ome_metadata)
    scale: dict[str, float] = {}
    units: dict[str, str] = {}
    found = dict((file.shaped_metadata or ({},))[0] if file.is_shaped else {})
    found |= file.imagej_metadata or {}
    unit = unit_name(str(found.get("unit") or ""))
    resolution = series.keyframe.tags.get(296)
    factor = _RESOLUTION_UNITS.get(int(resolution.value) if resolution else 1)
    if unit not in ("", "pixel", "pixels"):
        factor = 1.0  # ImageJ's unit is that of its resolution tags
    elif factor is not None:
        unit = "µm"
    for axis, tag in (("X", 282), ("Y", 283)):
        entry = series.keyframe.tags.get(tag)
        above, below = entry.value if entry else (0, 0)
        if factor is not None and above and below:
            scale[axis], units[axis] = factor * below / above, unit
    if scale and _positive(found.get("spacing")):
        scale["Z"], units["Z"] = float(found["spacing"]), unit
    if _positive(found.get("finterval")):
        # ImageJ names the unit where it is not seconds
        unit = unit_name(str(found.get("tunit") or "s"))
        scale["T"], units["T"] = float(found["finterval"]), unit
    return scale, units


def _positive(value: object) -> bool:
    """Tell whether a metadata value is a usable length."""
    return isinstance(value, (int, float)) and np.isfinite(value) and value > 0


def _ome_size(text: str) -> tuple[dict[str, float], dict[str, str]]:
    """Return the physical sizes of the first image of an OME header."""
    import tifffile

    image = tifffile.xml2dict(text).get("OME", {}).get("Image", {})
    pixels = (image[0] if isinstance(image, list) else image).get("Pixels", {})
    scale: dict[str, float] = {}
    units: dict[str, str] = {}
    for axis in "XYZ":
        value = pixels.get(f"PhysicalSize{axis}")
        if _positive(value):
            scale[axis] = float(value)
            units[axis] = unit_name(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    if _positive(pixels.get("TimeIncrement")):
        scale["T"] = float(pixels["TimeIncrement"])
        units["T"] = unit_name(pixels.get("TimeIncrementUnit", "s"))
    return scale, units


def write_labels(
    path: str | Path,
    labels: NDArray[Any],
    *,
    axes: str = "YX",
    scale: Mapping[str, float] | None = None,
    units: Mapping[str, str] | None = None,
) -> None:
    """Write a label image as a compressed OME-TIFF, whole or not at all.

    The smallest of uint8, uint16 and uint32 that holds the labels is used. A file
    that exists is replaced.

    Parameters
    ----------
    path : str or Path
        The file, ending ``.tif`` or ``.tiff``.
    labels : ndarray
        Integers or booleans, not negative, with one axis for each of ``axes``.
    axes : str
        Letters of ``TZCYX``, one for each axis.
    scale : mapping of str to float, optional
        Pixel size by axis letter.
    units : mapping of str to str, optional
        Unit by axis letter; µm, and s for ``T``, where left out.

    Raises
    ------
    InputError
        The labels cannot be stored as such a file, or the disk refuses.
    """
    path = Path(path)
    data = _storable(path, np.asarray(labels), axes)
    _write_ome(path, data, ome_metadata(axes, scale or {}, units or {}))


def write_probabilities(
    path: str | Path,
    probabilities: NDArray[Any],
    names: Sequence[str],
    *,
    axes: str = "CYX",
    scale: Mapping[str, float] | None = None,
    units: Mapping[str, str] | None = None,
) -> None:
    """Write class probabilities as a compressed OME-TIFF, whole or not at all.

    The values are ``float32``, which every program opens, rounded to 1/4096, which
    makes the file several times smaller. A file that exists is replaced.

    Parameters
    ----------
    path : str or Path
        The file, ending ``.tif`` or ``.tiff``.
    probabilities : ndarray
        From 0 to 1, with one axis for each of ``axes``; ``C`` is the class.
    names : sequence of str
        Names of the classes, background first.
    axes : str
        Letters of ``TZCYX``, one for each axis, ``C`` among them.
    scale, units : mapping, optional
        As for `write_labels`.

    Raises
    ------
    InputError
        Axes, names or ending do not fit, or the disk refuses.
    """
    path = Path(path)
    values = np.asarray(probabilities)
    _check_suffix(path, "probabilities are")
    _check_axes(path, values, axes, "probabilities")
    _check_names(path, values, axes, names)
    # A step of a power of two: the last bits are 0, and so compress well.
    rounded = in_steps(values)
    rounded /= np.float32(STEPS)
    metadata = ome_metadata(axes, scale or {}, units or {})
    metadata["Channel"] = {"Name": list(names)}
    _write_ome(path, rounded, metadata)


def write_masks(
    path: str | Path,
    masks: NDArray[np.bool_],
    names: Sequence[str],
    *,
    axes: str = "CYX",
    scale: Mapping[str, float] | None = None,
    units: Mapping[str, str] | None = None,
) -> None:
    """Write masks of classes that overlap as a compressed OME-TIFF of 0 and 1.

    Parameters
    ----------
    path : str or Path
        The file, ending ``.tif`` or ``.tiff``; one that exists is replaced.
    masks : ndarray
        ``bool``, with one axis for each of ``axes``; ``C`` is the class.
    names : sequence of str
        Names of the classes, without background.
    axes, scale, units
        As for `write_probabilities`.

    Raises
    ------
    InputError
        Axes, names or ending do not fit, or the disk refuses.
    """
    path = Path(path)
    _check_suffix(path, "masks are")
    _check_axes(path, masks, axes, "masks")
    _check_names(path, masks, axes, names)
    metadata = ome_metadata(axes, scale or {}, units or {})
    metadata["Channel"] = {"Name": list(names)}
    _write_ome(path, masks.astype(np.uint8), metadata)


def _check_names(
    path: Path, values: NDArray[Any], axes: str, names: Sequence[str]
) -> None:
    """Refuse names that are not those of the channels."""
    if "C" not in axes or values.shape[axes.index("C")] != len(names):
        raise InputError(
            f"{path}: an array of shape {values.shape} with the axes {axes!r} does "
            f"not hold one image for each of the {len(names)} classes. Name each."
        )


def in_steps(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return probabilities as the numbers of steps in which they are written.

    Parameters
    ----------
    values : ndarray
        From 0 to 1.

    Returns
    -------
    ndarray
        ``float32`` whole numbers from 0 to `STEPS`.
    """
    steps: NDArray[np.float32] = np.multiply(values, STEPS, dtype=np.float32)
    return np.rint(steps, out=steps)


def _write_ome(path: Path, data: NDArray[Any], metadata: dict[str, Any]) -> None:
    """Write a compressed OME-TIFF under a temporary name and rename it."""
    import tifffile

    with disk_errors(path), atomic_path(path) as temporary:
        # A tag says that one channel is meant: without it, three slices of uint8
        # would be taken for a colour image.
        tifffile.imwrite(
            temporary,
            data,
            ome=True,
            compression="zlib",
            photometric="minisblack",
            metadata=metadata,
        )


def ome_metadata(
    axes: str, scale: Mapping[str, float], units: Mapping[str, str]
) -> dict[str, Any]:
    """Return axes and pixel size in the words of OME."""
    metadata: dict[str, Any] = {"axes": axes}
    for axis, value in scale.items():
        if axis in "XYZ":
            metadata[f"PhysicalSize{axis}"] = float(value)
            metadata[f"PhysicalSize{axis}Unit"] = units.get(axis) or "µm"
        elif axis == "T":
            metadata["TimeIncrement"] = float(value)
            metadata["TimeIncrementUnit"] = units.get(axis) or "s"
    return metadata


def _storable(path: Path, labels: NDArray[Any], axes: str) -> NDArray[Any]:
    """Check the labels and bring them into the smallest type."""
    _check_suffix(path, "label images are")
    if labels.dtype.kind not in "bui":
        raise InputError(
            f"{path}: labels are whole numbers, but these are {labels.dtype}. "
            "Convert them first."
        )
    _check_axes(path, labels, axes, "labels")
    low, high = int(labels.min()), int(labels.max())
    kinds = (np.uint8, np.uint16, np.uint32)
    fitting = [kind for kind in kinds if high <= np.iinfo(kind).max]
    if low < 0 or not fitting:
        raise InputError(
            f"{path}: labels run from {low} to {high}, but a label image holds 0 to "
            "4294967295. Number the objects anew."
        )
    return labels.astype(fitting[0])


def _check_suffix(path: Path, what: str) -> None:
    """Refuse a name that other programs would not take for a TIFF."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"{path} must end in .tif or .tiff: {what} written as TIFF.")


def _check_axes(path: Path, values: NDArray[Any], axes: str, what: str) -> None:
    """Refuse axes that are not those of the array."""
    known = set(axes) <= set(LETTERS) and len(set(axes)) == len(axes) == values.ndim
    if not known or values.size == 0:
        raise InputError(
            f"{path}: {what} of shape {values.shape} do not fit the axes {axes!r}. "
            "Give one of the letters T, Z, C, Y, X for each axis."
        )
