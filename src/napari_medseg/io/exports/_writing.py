"""Files and folders that appear whole or not at all, or a sentence why not."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_medseg._types import InputError
from napari_medseg.io.atomic import atomic_path, disk_errors, temporary_beside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def check_suffix(path: Path, *suffixes: str) -> None:
    """Refuse a name that the reading programs would not know.

    Parameters
    ----------
    path : Path
        The file to write.
    *suffixes : str
        The endings to choose from, in lower case.

    Raises
    ------
    InputError
        The name ends in none of them.
    """
    if not path.name.lower().endswith(suffixes):
        raise InputError(
            f"{path} must end in {' or '.join(suffixes)}. Choose such a name."
        )


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path that becomes ``path`` when the block succeeds.

    Parameters
    ----------
    path : Path
        The file to write.

    Yields
    ------
    Path
        The path to write to.

    Raises
    ------
    InputError
        The disk refuses.
    """
    with disk_errors(path), atomic_path(path) as temporary:
        yield temporary


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder name that becomes ``path`` when the block succeeds.

    Parameters
    ----------
    path : Path
        The folder to write. One that exists is removed when the new one is whole.

    Yields
    ------
    Path
        The folder to make and fill, beside ``path``.

    Raises
    ------
    InputError
        The disk refuses.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(path)
        try:
            yield temporary
            _flush_files(temporary)
            _put_in_place(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _flush_files(folder: Path) -> None:
    """Ask the system to put all files of a folder on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            # Windows refuses to flush a file that is open for reading only.
            with open(path, "r+b") as file:
                os.fsync(file.fileno())


def _put_in_place(folder: Path, target: Path) -> None:
    """Rename a folder; one that is in the way comes back if that fails."""
    if not target.exists():
        os.replace(folder, target)
        return
    # A folder that is not empty cannot be replaced in one step.
    old = temporary_beside(target, "old")
    os.replace(target, old)
    try:
        os.replace(folder, target)
    except OSError:
        os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
