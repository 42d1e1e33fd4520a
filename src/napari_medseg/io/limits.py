"""What is refused before it takes memory: absurd sizes, bombs, what is no file."""

from __future__ import annotations

import errno
import math
import os
import stat
from typing import TYPE_CHECKING

from napari_medseg._types import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MOST_PIXELS = 10**11
"""Most pixels of one slice: the largest slides that are scanned have a tenth."""

MOST_VALUES = 10**14
"""Most values of one image, all slices and channels."""

AT_ONCE = 2**30
"""Bytes that may always be decoded at once (1 GiB)."""

RATIO = 200
"""What is larger must not be more than so many times larger than its file.

Deflate packs zeros 1000 times, other methods far more; images of things, with their
noise, 2 to 20 times.
"""

_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def refuse_odd(path: Path) -> None:
    """Refuse what is there, or not, but is neither a file nor a folder.

    Opening a pipe waits until somebody writes to it, and a device may never end.

    Parameters
    ----------
    path : Path
        What somebody gave as an image.

    Raises
    ------
    InputError
        Nothing is there, a link leads nowhere, its folder is closed, or it is a pipe,
        a socket or a device.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        if path.is_symlink():
            raise InputError(
                f"{path} is a link to {os.readlink(path)}, which is not there. Connect "
                "the drive on which it is, or remove the link."
            ) from error
        raise InputError(
            f"{path} does not exist. Check the name and the folder."
        ) from error
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) == errno.ELOOP:
            raise InputError(f"{path} is a link to itself. Remove it.") from error
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{path} cannot be read ({reason}). Check its name and its rights."
        ) from error
    for is_kind, name in _KINDS:
        if is_kind(mode):
            raise InputError(f"{path} is {name}, not a file. Give the image itself.")


def check_shape(path: Path, shape: Sequence[int]) -> None:
    """Refuse an image larger than any microscope's.

    Parameters
    ----------
    path : Path
        The file.
    shape : sequence of int
        As its header says.

    Raises
    ------
    InputError
        It is larger.
    """
    slice_pixels = math.prod(sorted(int(length) for length in shape)[-2:])
    if slice_pixels > MOST_PIXELS or math.prod(map(int, shape)) > MOST_VALUES:
        raise InputError(
            f"{path} says that it holds {_words(shape)} pixels, which no real image "
            "has: its header is damaged or was made up. Export it again from the "
            "original."
        )


def check_whole(
    path: Path, shape: Sequence[int], itemsize: int, stored: int | None = None
) -> None:
    """Refuse what would take much memory at once, and has next to nothing in it.

    Parameters
    ----------
    path : Path
        The file.
    shape : sequence of int
        Of what must be decoded at once.
    itemsize : int
        Bytes of a value.
    stored : int, optional
        Bytes that hold it, at most; those of the file by default.

    Raises
    ------
    InputError
        It would take more than 1 GiB and more than 200 times what is stored.
    """
    check_shape(path, shape)
    size = math.prod(int(length) for length in shape) * itemsize
    if size <= AT_ONCE:
        return
    held = path.stat().st_size if stored is None else stored
    if size > RATIO * held:
        raise InputError(
            f"{path} says that it holds {_words(shape)} pixels ({size / 1e9:,.1f} GB) "
            f"in {held:,} bytes: it is damaged, or made to fill the memory. If it is "
            "neither, save it as a tiled TIFF or OME-Zarr."
        )


def _words(shape: Sequence[int]) -> str:
    return " × ".join(str(length) for length in shape)
