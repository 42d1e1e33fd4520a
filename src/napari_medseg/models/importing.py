"""Checkpoints that somebody has as a file: recognised or tried, then copied here."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from napari_medseg._types import InputError, WeightsError
from napari_medseg.io.atomic import atomic_path
from napari_medseg.models.registry import (
    EVERYTHING,
    SAMS,
    SPECIALISTS,
    SamEntry,
)
from napari_medseg.models.weights import (
    IMPORTED,
    NAME,
    file_digest,
    imported,
    make_room,
    not_published,
    place,
    weights_folder,
)

if TYPE_CHECKING:
    import os


def import_file(
    path: str | os.PathLike[str], name: str | None = None, *, replace: bool = False
) -> Path:
    """Copy a checkpoint from a file into the weights folder.

    An official checkpoint is recognised by its SHA-256 whatever the file is
    called. Any other must be a fine-tuned checkpoint that loads.

    Parameters
    ----------
    path : path-like
        The checkpoint.
    name : str, optional
        The SAM that it is expected to be (``vit_b``, …), or the name that a
        fine-tuned checkpoint gets; by default that of its file.
    replace : bool
        Whether a fine-tuned checkpoint of the same name is replaced.

    Returns
    -------
    Path
        The copy.

    Raises
    ------
    WeightsError
        The file cannot be read, is not the checkpoint that ``name`` says, or is
        not a checkpoint of SAM.
    InputError
        The name cannot be used, or is taken.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path} does not exist or is not a file.")
    entry = _recognise(path)
    if entry is not None:
        if name is not None and name != entry.name:
            raise WeightsError(
                f"{path} is the checkpoint of {entry.name}, not of {name}."
            )
        return _copy(path, place(entry.weights))
    if name is not None and name in SAMS:
        raise WeightsError(not_published(path, SAMS[name]))
    return _import_tuned(path, name, replace=replace)


def _import_tuned(path: Path, name: str | None, *, replace: bool) -> Path:
    """Copy a fine-tuned checkpoint after checking that it loads."""
    # reading weights needs torch, which listing and downloading them does not
    from napari_medseg.models.checkpoints import read_state

    name = path.stem if name is None else name
    reserved = (*SAMS, *SPECIALISTS, EVERYTHING.name)
    if not NAME.fullmatch(name) or name in reserved:
        raise InputError(
            f"{name!r} cannot be the name of a checkpoint: use letters, digits, "
            f"'-', '_' and '.', and none of {', '.join(reserved)}."
        )
    read_state(path)
    target = weights_folder() / IMPORTED / (name + path.suffix.lower())
    taken = imported().get(name)
    if taken is not None and not _same_file(taken, path) and not replace:
        raise InputError(
            f"There is a checkpoint named {name!r} already ({taken}); give another "
            "name, or ask for it to be replaced."
        )
    copied = _copy(path, target)
    if taken is not None and taken != target:
        taken.unlink(missing_ok=True)
    return copied


def _recognise(path: Path) -> SamEntry | None:
    """Return the SAM whose official file this is; hashed only if a length fits."""
    length = path.stat().st_size
    fitting = [entry for entry in SAMS.values() if entry.weights.bytes == length]
    if not fitting:
        return None
    digest = file_digest(path)
    return next((e for e in fitting if e.weights.sha256 == digest), None)


def _copy(path: Path, target: Path) -> Path:
    """Copy a file so that its target is either whole or not there."""
    if target.exists() and target.samefile(path):
        return target
    make_room(target, path.stat().st_size)
    try:
        with atomic_path(target) as temporary:
            shutil.copyfile(path, temporary)
    except OSError as error:
        raise WeightsError(
            f"{path} could not be copied to {target}: {error.strerror}."
        ) from error
    return target


def _same_file(one: Path, other: Path) -> bool:
    """Tell whether two files hold the same bytes."""
    if one.stat().st_size != other.stat().st_size:
        return False
    return file_digest(one) == file_digest(other)
