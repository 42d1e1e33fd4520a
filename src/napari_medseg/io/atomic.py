"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from napari_medseg._types import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KINDS = ("part", "old", "scratch")
"""In temporary names: what becomes the target, what it replaces, a folder beside."""

_TEMPORARY = re.compile(
    rf"\.(?P<stem>.*)\.[0-9a-f]{{8}}\.({'|'.join(KINDS)})(?P<suffix>\.[^.]*)?",
    re.DOTALL,
)
"""Names that `temporary_beside` gives."""


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
    temporary = temporary_beside(target)
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_beside(target: Path, kind: str = "part") -> Path:
    """Return a hidden name that is free, in the folder of a target.

    Parameters
    ----------
    target : Path
        The file or folder that is made.
    kind : str
        One of `KINDS`.

    Returns
    -------
    Path
        ``.NAME.RANDOM.KIND.SUFFIX``.
    """
    stem = _short(target.stem)
    return target.with_name(f".{stem}.{secrets.token_hex(4)}.{kind}{target.suffix}")


class Origin(NamedTuple):
    """Of which file or folder something was to become a part.

    Attributes
    ----------
    folder : str
        Where both lie.
    stem, suffix : str
        Beginning of the name, cut where it is long, and its ending.
    """

    folder: str
    stem: str
    suffix: str

    @classmethod
    def of(cls, target: Path) -> Origin:
        """Return what the temporary names of a target tell of it."""
        return cls(str(target.parent), _short(target.stem), target.suffix)


def temporaries_in(folders: Iterable[Path]) -> dict[Path, Origin]:
    """Find what was left half done by processes that ended.

    Parameters
    ----------
    folders : iterable of Path
        Where to look, folders in them not included; some need not be there.

    Returns
    -------
    dict of Path to Origin
        Temporary files and folders, and what they were to become.
    """
    found = {}
    for folder in folders:
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            looks = _TEMPORARY.fullmatch(name)
            if looks:
                suffix = looks["suffix"] or ""
                found[folder / name] = Origin(str(folder), looks["stem"], suffix)
    return found


def _short(stem: str) -> str:
    """Cut a long name: with what is added it must fit into the 255 bytes of disks."""
    return stem.encode(errors="surrogateescape")[:180].decode(errors="ignore")


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
