"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from napari_medseg._types import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """Give a temporary path that becomes ``target`` when the block succeeds.

    The temporary file lies in the folder of ``target``, so that the final rename
    never crosses a file system, and keeps its suffix, because writers choose the
    format by it. It is flushed to the disk before the rename: after a power cut
    the target is the old file or the new one, never a half.

    Parameters
    ----------
    target : str or Path
        The file to write. Its folder is made where it is missing. A file that
        exists is replaced; whether that is wanted is the caller's question.

    Yields
    ------
    Path
        The path to write to, ``.NAME.RANDOM.part.SUFFIX``.

    Raises
    ------
    OSError
        The folder cannot be made or written to. Whatever the block raises passes
        through; the temporary file is removed first.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(4)
    # Long names are cut: the additions must not push them over the 255 bytes
    # that most file systems allow.
    stem = target.stem.encode()[:180].decode(errors="ignore")
    temporary = target.with_name(f".{stem}.{token}.part{target.suffix}")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into a sentence.

    Parameters
    ----------
    path : Path
        What is written in the block.

    Raises
    ------
    InputError
        The disk refused.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{path} cannot be written ({reason}). Check the free space and the "
            "rights of the folder, or choose another folder."
        ) from error


def _flush(path: Path) -> None:
    """Ask the system to put the file's bytes on the disk."""
    # Windows refuses to flush a file that is open for reading only.
    with open(path, "r+b") as file:
        os.fsync(file.fileno())
