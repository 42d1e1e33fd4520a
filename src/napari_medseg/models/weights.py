"""Where weights live on this computer, and how they get there.

Downloads go to a ``.part`` file, continue where they stopped, and get their real
name only after their SHA-256 was checked. The job reports while it downloads,
which a blocking fetch could not; pooch only says where caches belong.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from napari_medseg._types import WeightsError
from napari_medseg.io.atomic import atomic_path
from napari_medseg.models import bundled
from napari_medseg.models.registry import (
    SAMS,
    SamEntry,
    lookup,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_medseg._types import Job
    from napari_medseg.models.weights_file import WeightsFile

FOLDER_VARIABLE = "NAPARI_MEDSEG_WEIGHTS"
"""Environment variable that names another folder for weights."""

IMPORTED = "imported"
"""Folder of imported checkpoints, below the weights."""

_PLACES = "places"

_SUFFIXES = (".pth", ".pt", ".safetensors")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What somebody may call a checkpoint or a model of their own."""


def weights_folder() -> Path:
    """Return the folder of this user's weights; it need not exist yet.

    Returns
    -------
    Path
        The folder that ``NAPARI_MEDSEG_WEIGHTS`` names, or else the cache folder
        of the operating system.
    """
    named = os.environ.get(FOLDER_VARIABLE, "").strip()
    if named:
        return Path(named).expanduser().absolute()
    import pooch  # takes a while, which opening a form shall not

    return Path(pooch.os_cache("napari-medseg"))


def locate(entry: SamEntry) -> Path | None:
    """Return where the weights of a SAM are, or None where they are not here.

    Only the length of the file is looked at, so that this is quick enough for a
    menu; `verify` reads the whole file.

    Parameters
    ----------
    entry : SamEntry
        The SAM.

    Returns
    -------
    Path or None
        The file.
    """
    weights = entry.weights
    path = place(weights)
    try:
        length = path.stat().st_size if path.is_file() else None
    except OSError:
        return None
    if length is None or (weights.bytes is not None and length != weights.bytes):
        return None
    return path


def imported() -> Mapping[str, Path]:
    """Return the fine-tuned checkpoints that were imported, by name.

    Returns
    -------
    mapping of str to Path
        Names and files, in alphabetical order.
    """
    folder = weights_folder() / IMPORTED
    if not folder.is_dir():
        return {}
    files = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    return {path.stem: path for path in files if NAME.fullmatch(path.stem)}


def here() -> list[str]:
    """Return the names of the SAMs whose weights are on this computer.

    Returns
    -------
    list of str
        Those of the package, then imported ones.
    """
    official = [entry.name for entry in SAMS.values() if locate(entry) is not None]
    return [*official, *(name for name in imported() if name not in SAMS)]


def remember(digest: str, path: Path) -> None:
    """Note where a checkpoint file lies, for the models that are tuned on it.

    Parameters
    ----------
    digest : str
        SHA-256 of its weights.
    path : Path
        The file.

    Notes
    -----
    A model file names its SAM by hash alone, since a path says who made it.
    """
    folder = weights_folder() / _PLACES
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / f"{digest}.txt") as temporary:
            temporary.write_text(str(path.absolute()), encoding="utf-8")
    except OSError:
        # a folder that cannot be written only means being asked for the file later
        return


def recall(digest: str) -> str | None:
    """Return where the checkpoint file of a hash was last, if it is still there.

    Parameters
    ----------
    digest : str
        SHA-256 of its weights.

    Returns
    -------
    str or None
        Its path.
    """
    try:
        noted = weights_folder() / _PLACES / f"{digest}.txt"
        path = noted.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return path if Path(path).is_file() else None


def find(name: str) -> Path:
    """Return the file of a SAM or of an imported checkpoint.

    Parameters
    ----------
    name : str
        ``nano``, ``vit_b``, … or the name of an imported checkpoint.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        There is no such name.
    WeightsError
        Its weights are not on this computer.
    """
    own = imported().get(name) if name not in SAMS else None
    if own is not None:
        return own
    entry = lookup(name)
    path = locate(entry)
    if path is None:
        raise _absent(entry)
    return path


def verify(entry: SamEntry) -> Path:
    """Check the weights of a SAM on this computer against their SHA-256.

    Parameters
    ----------
    entry : SamEntry
        The SAM.

    Returns
    -------
    Path
        The file, which is as published. A bundled file has no published hash; for
        it only its presence is checked.

    Raises
    ------
    WeightsError
        The file is missing or is not the published one.
    """
    path = place(entry.weights)
    if not path.is_file():
        raise _absent(entry)
    published = entry.weights.sha256
    if published is not None and locate(entry) != path:
        raise WeightsError(not_published(path, entry))
    if published is not None and file_digest(path) != published:
        raise WeightsError(not_published(path, entry))
    return path


def fetch(entry: SamEntry, *, attempts: int = 4, pause: float = 1.0) -> Job[Path]:
    """Bring the weights of a SAM here, continuing a download that was cut off.

    Parameters
    ----------
    entry : SamEntry
        The SAM.
    attempts : int
        Tries in a row without any byte arriving before giving up.
    pause : float
        Seconds to wait after the first failed try; doubled after each further.

    Yields
    ------
    Progress
        Bytes so far and in all.

    Returns
    -------
    Path
        The file, checked against its SHA-256.

    Raises
    ------
    WeightsError
        The weights could not be fetched; the message says why and what to do.
    """
    # importing network code can wait until something is downloaded
    from napari_medseg.models._download import bring

    weights = entry.weights
    if weights.url is None:
        return verify(entry)
    path = place(weights)
    yield from bring(weights, path, attempts=attempts, pause=pause)
    return path


def place(weights: WeightsFile) -> Path:
    """Return where the file of these weights is, or will be."""
    if weights.bundled:
        return bundled.place(weights.name)
    return weights_folder() / weights.name


def make_room(target: Path, length: int) -> None:
    """Make the folder of a file, and refuse in advance what will not fit on its disk.

    Parameters
    ----------
    target : Path
        The file; what is there of it counts.
    length : int
        Its bytes in the end.

    Raises
    ------
    WeightsError
        There is not as much room, or the folder cannot be used.
    """
    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        done = target.stat().st_size if target.exists() else 0
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise WeightsError(
            f"{folder} cannot be used for weights: {error.strerror}. Set the "
            f"environment variable {FOLDER_VARIABLE} to another folder."
        ) from error
    if free < length - done:
        raise WeightsError(
            f"{target.name} needs {(length - done) / 1e6:,.0f} MB, but only "
            f"{free / 1e6:,.0f} MB are free in {folder}. Make room, or set the "
            f"environment variable {FOLDER_VARIABLE} to a folder on another disk."
        )


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file that a person gave.

    Raises
    ------
    WeightsError
        It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}.") from error


def _absent(entry: SamEntry) -> WeightsError:
    """Return the refusal for weights that are not on this computer."""
    if entry.weights.bundled:
        return bundled.absent(entry.weights.name)
    return WeightsError(
        f"The weights of {entry.title} are not on this computer. Run "
        f"`napari-medseg models fetch {entry.name}`, or, without internet, download "
        f"{entry.weights.url} on another computer and run `napari-medseg models "
        "import FILE`."
    )


def not_published(path: Path, entry: SamEntry) -> str:
    """Return the sentence for a file that is not the published one."""
    return (
        f"{path} is not the published checkpoint of {entry.name} (its length or "
        "SHA-256 differs): it is damaged, cut off or another model. Run "
        f"`napari-medseg models fetch {entry.name}` for a whole one; a fine-tuned "
        "checkpoint needs a name of its own."
    )
