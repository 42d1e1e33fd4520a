"""Whether an image is the one that was segmented."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from napari_medseg.io.containers import file_of
from napari_medseg.io.limits import refuse_odd
from napari_medseg.io.zarr_store import files_in


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the file system says of an image: quick to ask, and mostly enough.

    Attributes
    ----------
    size : int
        Bytes; of a zarr folder those of all its files.
    modified : int
        The last change of it or of anything in it, in nanoseconds since 1970.
    """

    size: int
    modified: int


def stamp(path: Path) -> Stamp:
    """Return the stamp of an image.

    Parameters
    ----------
    path : Path
        A file or a zarr folder; of a scene, the file that holds it counts.

    Returns
    -------
    Stamp
        Size and date.

    Raises
    ------
    OSError
        It is not there.
    """
    path = file_of(path)
    if not path.is_dir():
        found = path.stat()
        return Stamp(found.st_size, found.st_mtime_ns)
    size, modified = 0, path.stat().st_mtime_ns
    for entry in files_in(path):
        found = entry.stat()
        size += found.st_size
        modified = max(modified, found.st_mtime_ns)
    return Stamp(size, modified)


def digest(path: Path) -> str:
    """Return the SHA-256 of an image's content.

    Parameters
    ----------
    path : Path
        A file or a zarr folder, of which names and contents of all files count; of a
        scene, the file that holds it.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    OSError
        It is not there or may not be read.
    InputError
        It is a pipe or a device, or one lies in it.
    """
    path = file_of(path)
    if not path.is_dir():
        return _file_digest(path)
    whole = hashlib.sha256()
    for entry in sorted(files_in(path), key=lambda entry: entry.path):
        name = os.path.relpath(entry.path, path).replace(os.sep, "/")
        whole.update(name.encode("utf-8", "surrogateescape") + b"\0")
        whole.update(_file_digest(entry.path).encode())
    return whole.hexdigest()


def _file_digest(path: str | Path) -> str:
    refuse_odd(Path(path))  # a pipe in a zarr folder would never end
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
