"""CZI, ND2 and LIF files, read through bioio; each may hold several images.

The images of one file are its scenes (positions, wells, series). They are told apart
by a path: scene 2 of ``plate.czi`` is ``plate.czi/scene 2``, which is never a file.
So everything that is known by a path can be one scene of a file.
"""

from __future__ import annotations

import logging
import re
import sys
import warnings
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import InputError
from napari_medseg.io.apart import reader_process
from napari_medseg.io.axes import unit_name
from napari_medseg.io.limits import check_shape, check_whole
from napari_medseg.io.raw import LAZY_BYTES, Key, LazyArray, Raw, damaged

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

_PLUGINS = {".czi": "bioio_czi", ".nd2": "bioio_nd2", ".lif": "bioio_lif"}
"""bioio's plugin for each ending."""

_FATAL = frozenset({".czi"})
"""Files whose reader, when they are damaged, may end the whole program."""

CONTAINER_SUFFIXES = tuple(_PLUGINS)
"""Endings of the files that are read through bioio, in lower case."""

INSTALL = 'pip install "napari-medseg[formats]"'
"""What to type where bioio is missing."""

_SCENE = re.compile(r"scene ([1-9][0-9]{0,5})")


def file_of(path: Path) -> Path:
    """Return the file that holds an image.

    Parameters
    ----------
    path : Path
        An image; ``plate.czi/scene 2``, say.

    Returns
    -------
    Path
        ``plate.czi``; the path itself where it is no scene.
    """
    return path.parent if _number(path) is not None else path


def scene_name(path: Path) -> str:
    """Return the name of a scene in its file, such as ``scene 2``; or nothing."""
    return path.name if _number(path) is not None else ""


def scenes_of(path: Path) -> list[Path]:
    """List the images of a CZI, ND2 or LIF file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    list of Path
        Paths of its scenes; of a file with one scene, or that cannot be read, the
        file itself. Who reads it says what is wrong with it.
    """
    try:
        count = _asked(path, 0)["scenes"]
    except InputError:
        return [path]
    if count < 2:
        return [path]
    return [path / f"scene {number}" for number in range(1, count + 1)]


def read_container(path: Path) -> Raw:
    """Read a scene of a CZI, ND2 or LIF file; of a file the first.

    Parameters
    ----------
    path : Path
        The file, or one of `scenes_of` it.

    Returns
    -------
    Raw
        A mosaic is put together; a large image stays in its file.

    Raises
    ------
    InputError
        bioio is not installed, the file is damaged, or has no such scene.
    """
    file, scene = file_of(path), (_number(path) or 1) - 1
    known = _asked(file, scene)
    shape, dtype = tuple(known["shape"]), np.dtype(known["dtype"])
    check_shape(path, shape)
    data: NDArray[Any] | LazyArray
    reader = _BoxReader(file, scene)
    if np.prod(shape, dtype=float) * dtype.itemsize > LAZY_BYTES:
        check_whole(path, shape[3:], dtype.itemsize, file.stat().st_size)
        data = LazyArray(path, reader, shape, dtype)
    else:
        data = reader(tuple(slice(0, size) for size in shape))
    return Raw(data, known["order"], known["scale"], known["units"])


def look(file: Path, scene: int) -> dict[str, Any]:
    """Look at a scene of a file, without reading its pixels.

    Parameters
    ----------
    file : Path
        The file.
    scene : int
        Number of the scene, from 0.

    Returns
    -------
    dict
        ``scenes``: how many there are; ``shape``, ``dtype`` and ``order`` of this one;
        ``scale`` and ``units`` by axis. Plain values.

    Raises
    ------
    InputError
        bioio is not installed, the file is damaged, or has no such scene.
    """
    image = _opened(file, scene)

    def known() -> dict[str, Any]:
        scale, units = _pixel_size(image)
        return {
            "scenes": len(image.scenes),
            "shape": [int(length) for length in image.shape],
            "dtype": np.dtype(image.dtype).str,
            "order": str(image.dims.order),
            "scale": scale,
            "units": units,
        }

    found: dict[str, Any] = _guarded(file, known)
    return found


def box(file: Path, scene: int, key: Key) -> NDArray[Any]:
    """Read a box of a scene.

    Parameters
    ----------
    file : Path
        The file.
    scene : int
        Number of the scene, from 0.
    key : tuple of slice
        One slice with start and stop for each axis.

    Returns
    -------
    ndarray
        The pixels.

    Raises
    ------
    InputError
        The file is damaged.
    """
    image = _opened(file, scene)
    found: NDArray[Any] = _guarded(file, lambda: _read_box(file, image, key))
    return found


def _asked(file: Path, scene: int) -> dict[str, Any]:
    """Look at a scene, in another process where the file may end this one."""
    _check_bioio(file)
    if file.suffix.lower() in _FATAL:
        return reader_process().look(file, scene)
    return look(file, scene)


def _number(path: Path) -> int | None:
    """Return the number of a scene, from 1; None where a path is no scene."""
    found = _SCENE.fullmatch(path.name)
    inside = found and path.parent.suffix.lower() in CONTAINER_SUFFIXES
    return int(found[1]) if found and inside else None


def _opened(file: Path, scene: int = 0) -> Any:
    """Open a file at a scene, as a ``bioio.BioImage``."""
    from bioio import BioImage

    reader = import_module(_PLUGINS[file.suffix.lower()]).Reader
    for plugin in ("bioio", *_PLUGINS.values()):
        # what it warns of is told by the errors here, or means nothing to a user
        logging.getLogger(plugin).setLevel(logging.ERROR)

    def open_it() -> Any:
        image = BioImage(file, reader=reader)
        if scene >= len(image.scenes):
            raise InputError(
                f"{file} has no scene {scene + 1}: it has {len(image.scenes)}. It was "
                "changed; give the file itself again."
            )
        image.set_scene(scene)
        return image

    return _guarded(file, open_it)


def _check_bioio(file: Path) -> None:
    """Refuse a file where what it is read with is missing."""
    kind = file.suffix.lower()
    for module in ("bioio", _PLUGINS[kind]):
        if sys.modules.get(module, module) is None or find_spec(module) is None:
            raise InputError(
                f"{file}: {kind[1:].upper()} files are read with bioio, which is not "
                f"installed here ({module} is missing). Install it ({INSTALL}), or "
                "save the image as OME-TIFF."
            )


def _guarded(path: Path, read: Callable[[], Any]) -> Any:
    """Read, and turn what the readers raise into a sentence."""
    try:
        with warnings.catch_warnings():
            # the readers' words to programmers; users can do nothing about them
            warnings.simplefilter("ignore")
            return read()
    except InputError:
        raise
    # three readers over three C libraries, each with errors of its own
    except Exception as error:
        raise damaged(file_of(path), error) from error


def _read_box(file: Path, image: Any, key: Key) -> NDArray[Any]:
    """Read a box, in this thread: a folder run has threads and processes of its own."""
    import dask

    order = image.dims.order
    with dask.config.set(scheduler="synchronous"):
        if "M" in image.reader.dims.order:
            data = np.asarray(image.dask_data[key])  # reads the tiles of the box alone
        else:
            # not its dask array, which is all zeros for colours (bioio-czi 3.0.1)
            parts = dict(zip(order, key, strict=True))
            data = np.asarray(image.get_image_data(order, **parts))
    # bioio leaves the colours of a CZI as they are stored: blue, green, red
    return data[..., ::-1] if "S" in order and file.suffix.lower() == ".czi" else data


@dataclass(frozen=True, slots=True)
class _BoxReader:
    """Reads a box of a scene; a plain object, so that it can be pickled."""

    file: Path
    scene: int

    def __call__(self, key: Key) -> NDArray[Any]:
        if self.file.suffix.lower() in _FATAL:
            return reader_process().box(self.file, self.scene, key)
        return box(self.file, self.scene, key)


def _pixel_size(image: Any) -> tuple[dict[str, float], dict[str, str]]:
    """Return pixel size and unit by axis; bioio gives µm and s unless it says so."""
    scale: dict[str, float] = {}
    units: dict[str, str] = {}
    for axis in "TZYX":
        value = getattr(image.scale, axis)
        if value is not None and np.isfinite(value) and value > 0:
            unit = getattr(image.dimension_properties, axis).unit
            scale[axis] = float(value)
            units[axis] = unit_name(str(unit or ("s" if axis == "T" else "µm")))
    return scale, units
