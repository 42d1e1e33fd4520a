"""Caches on the disk that stay within a limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def make_room(folder: Path, pattern: str, most: int) -> None:
    """Remove the files unused for longest, but never the newest.

    Parameters
    ----------
    folder : Path
        The cache.
    pattern : str
        Which of its files count.
    most : int
        Bytes that they may take together.

    Raises
    ------
    OSError
        A file cannot be looked at or removed.
    """
    files = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
    total = sum(path.stat().st_size for path in files)
    for path in files[:-1]:
        if total <= most:
            break
        total -= path.stat().st_size
        path.unlink(missing_ok=True)
