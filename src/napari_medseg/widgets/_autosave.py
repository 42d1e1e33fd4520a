"""Annotations kept on disk while they are drawn, and offered back after a crash."""

from __future__ import annotations

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_medseg.io.atomic import atomic_path
from napari_medseg.io.images import image_stem
from napari_medseg.models.weights import weights_folder

if TYPE_CHECKING:
    from concurrent.futures import Future

    from napari.layers import Image

    from napari_medseg._types import LabelArray

FOLDER = "annotations"
"""Folder of kept annotations, beside the weights."""

SET_ASIDE = 5
"""Annotations of one image that wait to be brought back, at most; the newest stay."""

PROBE = 4096
"""Pixels of an image that its identity is made of; a whole stack may be gigabytes."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An annotation that was kept.

    Attributes
    ----------
    path : Path
        The file.
    kind : str
        What its values mean: ``dense``, ``sparse`` or ``instances``.
    time : float
        When it was written, in seconds since 1970.
    pixels : int
        How many it has.
    """

    path: Path
    kind: str
    time: float
    pixels: int

    def read(self) -> LabelArray:
        """Return the annotation, ``int32 (..., Y, X)``."""
        labels: LabelArray = tifffile.imread(self.path).astype(np.int32)
        return labels


def identity(layer: Image) -> str:
    """Return what tells an image from others.

    That is its file and its name; of a layer that came from no file its name, shape
    and some pixels.
    """
    if layer.source.path:
        return file_identity(Path(layer.source.path), layer.name)
    data = layer.data[0] if layer.multiscale else layer.data
    shape = tuple(int(length) for length in data.shape)
    digest = hashlib.sha256(f"{layer.name} {shape} {data.dtype}".encode())
    first = np.asarray(data[(0,) * (len(shape) - 2 - bool(layer.rgb))]).ravel()
    digest.update(first[:: max(1, first.size // PROBE)].tobytes())
    return digest.hexdigest()[:24]


def file_identity(path: Path, layer_name: str | None = None) -> str:
    """Return what tells the image of a file from others, without reading it.

    Parameters
    ----------
    path : Path
        The file.
    layer_name : str, optional
        Name of its layer: a file may have several. By default the file's own.
    """
    place = os.path.normcase(os.path.abspath(path))
    own = image_stem(path)
    name = own if layer_name is None else layer_name
    return hashlib.sha256(f"{place} {name}".encode()).hexdigest()[:24]


def keep(name: str, labels: LabelArray, kind: str) -> Path:
    """Write an annotation; it replaces the one kept before, whole or not at all.

    Parameters
    ----------
    name : str
        From `identity`.
    labels : ndarray
        ``(..., Y, X)``.
    kind : str
        What the values mean.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OSError
        It cannot be written.
    """
    path = weights_folder() / FOLDER / f"{name}.tif"
    note: dict[str, Any] = {"annotation": kind}
    with atomic_path(path) as part:
        tifffile.imwrite(
            part,
            labels,
            compression="zlib",
            photometric="minisblack",
            description=json.dumps(note),
            metadata=None,
        )
    return path


def kept(name: str) -> Kept | None:
    """Return what was kept of an image last, if anything."""
    return _read(weights_folder() / FOLDER / f"{name}.tif")


def _read(path: Path) -> Kept | None:
    """Return what a file is that was kept; None where it cannot be read."""
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            note = json.loads(getattr(page, "description", "") or "{}")
            pixels = int(file.series[0].size)
        kind = str(note.get("annotation", "dense"))
        return Kept(path, kind, path.stat().st_mtime, pixels)
    except (OSError, ValueError, IndexError, tifffile.TiffFileError):
        return None


def set_aside(name: str) -> None:
    """Move what was kept of an image to where nothing replaces it.

    Raises
    ------
    OSError
        It cannot be moved.
    """
    path = weights_folder() / FOLDER / f"{name}.tif"
    # the time of the file stays: it says when it was drawn
    path.replace(path.with_name(f"{name}.{time.time_ns()}.tif"))
    for old in _places_aside(name)[SET_ASIDE:]:
        old.unlink(missing_ok=True)


def keep_aside(name: str, labels: LabelArray, kind: str) -> Path:
    """Write an annotation to where nothing replaces it; see `keep`."""
    return keep(f"{name}.{time.time_ns()}", labels, kind)


def kept_aside(name: str) -> list[Kept]:
    """Return what was set aside of an image, the newest first."""
    found = [_read(path) for path in _places_aside(name)]
    return [each for each in found if each is not None]


def _places_aside(name: str) -> list[Path]:
    folder = weights_folder() / FOLDER
    return sorted(folder.glob(f"{name}.*.tif"), reverse=True)


def kept_names() -> frozenset[str]:
    """Return the names (`identity`) of all images of which something is kept."""
    folder = weights_folder() / FOLDER
    names = (path.name.split(".")[0] for path in folder.glob("*.tif"))
    return frozenset(name for name in names if name)


def forget(name: str) -> None:
    """Remove what was kept of an image last; what was set aside stays."""
    (weights_folder() / FOLDER / f"{name}.tif").unlink(missing_ok=True)


class Keeper:
    """Keeps annotations on a thread of its own; a stack takes a second to pack."""

    def __init__(self) -> None:
        self._writer = ThreadPoolExecutor(1, "medseg-autosave")
        self._writing: Future[Path] | None = None

    def keep(self, name: str, labels: LabelArray, kind: str) -> str:
        """Write an annotation soon.

        Parameters
        ----------
        name : str
            From `identity`.
        labels : ndarray
            ``(..., Y, X)``, a copy that nobody draws on.
        kind : str
            What the values mean.

        Returns
        -------
        str
            What went wrong the last time; empty where nothing did.
        """
        before = self._writing
        error = before.exception() if before is not None and before.done() else None
        self._writing = self._writer.submit(keep, name, labels, kind)
        return str(error) if error is not None else ""

    @property
    def is_writing(self) -> bool:
        """Whether what was to be kept last is still being written."""
        return self._writing is not None and not self._writing.done()

    def finish(self) -> None:
        """Wait until what was to be kept last is written."""
        if self._writing is not None:
            self._writing.exception()

    def forget(self, name: str) -> None:
        """Remove what was kept of an image, once what was to be kept is written."""
        with suppress(RuntimeError):  # Python is ending, and starts no thread any more
            self._writer.submit(forget, name)

    def replaced(self, old: Kept) -> None:
        """Remove what was set aside, once what was to be kept last is written."""
        writing = self._writing

        def remove() -> None:
            if writing is None or writing.exception() is None:
                old.path.unlink(missing_ok=True)

        with suppress(RuntimeError):
            self._writer.submit(remove)
