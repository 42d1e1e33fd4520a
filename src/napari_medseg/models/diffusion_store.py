"""Diffusion models on this computer: fetched by file, or imported from a folder.

Each is a folder below the weights, ``diffusion/NAME``, in the layout of diffusers, with
a note of its licence and of the SHA-256 of its files. Nothing else than safetensors,
JSON and the list of merges of the tokenizer is ever copied. torch is not needed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medseg._types import InputError, WeightsError
from napari_medseg.io.atomic import atomic_path
from napari_medseg.models.diffusion_registry import DIFFUSIONS, DiffusionEntry
from napari_medseg.models.naming import unknown
from napari_medseg.models.weights import NAME, file_digest, make_room, weights_folder

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from napari_medseg._types import Job

FOLDER = "diffusion"
"""Folder of the diffusion models, below the weights."""

NOTE = "medseg.json"
"""File in a model's folder: title, licence, SHA-256 of each file."""

_TAKEN = re.compile(
    r"unet/config\.json|vae/config\.json|text_encoder/config\.json"
    r"|(unet|vae)/diffusion_pytorch_model(\.fp16)?\.safetensors"
    r"|text_encoder/model(\.fp16)?\.safetensors"
    r"|tokenizer/(vocab\.json|merges\.txt)"
)
"""What is taken of a model; whatever else lies there is left."""


def is_taken(name: str) -> bool:
    """Tell whether a file, relative to a model's folder, is read at all."""
    return _TAKEN.fullmatch(name) is not None


def place(name: str) -> Path:
    """Return the folder of a model of this name; it need not exist."""
    return weights_folder() / FOLDER / name


def here() -> list[str]:
    """Return the names of the models on this computer: known ones, then imported."""
    folder = weights_folder() / FOLDER
    found = (
        sorted(each.parent.name for each in folder.glob(f"*/{NOTE}"))
        if folder.is_dir()
        else []
    )
    known = [name for name in DIFFUSIONS if name in found]
    return [*known, *(name for name in found if name not in DIFFUSIONS)]


def find(name: str) -> Path:
    """Return the folder of a model.

    Parameters
    ----------
    name : str
        A name of `here`, or a folder; empty for the first that is here.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        There is no such model.
    WeightsError
        It is known, but not on this computer.
    """
    there = here()
    if not name and there:
        return place(there[0])
    if name in there:
        return place(name)
    entry = DIFFUSIONS.get(name or next(iter(DIFFUSIONS)))
    if entry is not None:
        raise _absent(entry)
    if Path(name).is_dir():
        return Path(name)
    raise unknown("diffusion model", name, [*DIFFUSIONS, *there])


def note_of(folder: Path) -> dict[str, Any]:
    """Return the note in a model's folder; empty where there is none."""
    try:
        found = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def digest_of(folder: Path) -> str:
    """Return one SHA-256 for all files of a model, from its note or from the files.

    Raises
    ------
    WeightsError
        A file cannot be read.
    """
    files = note_of(folder).get("files")
    if not isinstance(files, dict):
        files = {name: file_digest(folder / name) for name in _files(folder)}
    told = json.dumps(files, sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


def fetch(entry: DiffusionEntry, *, attempts: int = 4, pause: float = 1.0) -> Job[Path]:
    """Bring a model here; a download that was cut off is continued.

    Ask the user about `DiffusionEntry.licence_note` first.

    Parameters
    ----------
    entry : DiffusionEntry
        The model.
    attempts : int
        Tries in a row without any byte arriving before giving up.
    pause : float
        Seconds to wait after the first failed try; doubled after each further.

    Yields
    ------
    Progress
        Bytes so far of a file.

    Returns
    -------
    Path
        Its folder; every file is checked against its SHA-256.

    Raises
    ------
    WeightsError
        It could not be fetched; the message says why and what to do.
    """
    # importing network code can wait until something is downloaded
    from napari_medseg.models._download import bring

    folder = place(entry.name)
    total = sum(file.bytes or 0 for file in entry.files)
    make_room(folder / "all", total - _length_below(folder))
    for file in entry.files:
        yield from bring(file, folder / file.name, attempts=attempts, pause=pause)
    _write_note(
        folder,
        title=entry.title,
        licence=entry.licence,
        licence_note=entry.licence_note,
        files={file.name: str(file.sha256) for file in entry.files},
    )
    return folder


def import_folder(
    source: str | os.PathLike[str], name: str | None = None, *, replace: bool = False
) -> Path:
    """Copy a model from a folder in the layout of diffusers.

    A model whose files are those of a known one becomes that one.

    Parameters
    ----------
    source : path-like
        The folder, with ``unet``, ``text_encoder``, ``tokenizer`` and mostly ``vae``.
    name : str, optional
        Its name here; by default that of the folder.
    replace : bool
        Whether a model of the same name is replaced.

    Returns
    -------
    Path
        Its folder among the weights.

    Raises
    ------
    WeightsError
        It is no such model, is damaged or cannot be copied.
    InputError
        The name cannot be used, or is taken.
    MedsegError
        diffusers or transformers is not installed, so that it cannot be tried.
    """
    source = Path(source).resolve()
    # reading weights needs torch, which listing and downloading them does not
    from napari_medseg.models.diffusion import check_layout, read_diffusion

    check_layout(source)
    files = {part: file_digest(source / part) for part in _files(source)}
    known = _recognised(files)
    name = known.name if known else source.name if name is None else name
    if not NAME.fullmatch(name) or (name in DIFFUSIONS and known is None):
        raise InputError(
            f"{name!r} cannot be the name of an imported diffusion model: use letters, "
            f"digits, '-', '_' and '.', and none of {', '.join(DIFFUSIONS)}."
        )
    target = place(name)
    if target.exists() and note_of(target).get("files") == files:
        return target
    if target.exists() and known is None and not replace:
        raise InputError(
            f"There is a diffusion model named {name!r} already; give another name, or "
            "ask for it to be replaced."
        )
    read_diffusion(source)
    told = known or DiffusionEntry(
        name=name,
        title=name,
        description="",
        files=(),
        licence="LicenseRef-unspecified",
        licence_note="An imported diffusion model; ask who made it for its licence.",
    )
    _copy(source, target, files)
    _write_note(
        target,
        title=told.title,
        licence=told.licence,
        licence_note=told.licence_note,
        files=files,
    )
    return target


def _copy(source: Path, target: Path, files: dict[str, str]) -> None:
    """Copy the files of a model; until its note is written it is not there."""
    if target.exists() and target.samefile(source):
        return  # somebody put it where it belongs
    make_room(target / "all", sum((source / part).stat().st_size for part in files))
    try:
        if target.exists():
            shutil.rmtree(target)
        for part, digest in files.items():
            path = target / part
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                shutil.copyfile(source / part, temporary)
            if file_digest(path) != digest:
                raise WeightsError(
                    f"{source / part} was changed while it was copied; import it again."
                )
    except OSError as error:
        raise WeightsError(
            f"{source} could not be copied to {target}: {error.strerror or error}."
        ) from error


def _recognised(files: dict[str, str]) -> DiffusionEntry | None:
    """Return the known model of which these are the files, whatever they are called."""
    digests = set(files.values())
    for entry in DIFFUSIONS.values():
        if {file.sha256 for file in entry.files} <= digests:
            return entry
    return None


def _files(folder: Path) -> Iterator[str]:
    """Return the files of a model that are read, relative to its folder."""
    for path in sorted(folder.glob("*/*")):
        part = f"{path.parent.name}/{path.name}"
        plain = part.replace(".fp16.", ".")
        # where both are there, the one in full precision is read
        second = plain != part and (folder / plain).is_file()
        if is_taken(part) and path.is_file() and not second:
            yield part


def _write_note(folder: Path, **facts: Any) -> None:
    with atomic_path(folder / NOTE) as temporary:
        temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _length_below(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    paths = folder.rglob("*") if folder.is_dir() else ()
    return sum(path.stat().st_size for path in paths if path.is_file())


def _absent(entry: DiffusionEntry) -> WeightsError:
    return WeightsError(
        f"The weights of {entry.title} are not on this computer. Run `napari-medseg "
        f"models fetch {entry.name}`, which shows the licence first; or, without "
        "internet, copy the model's folder in the layout of diffusers here and run "
        "`napari-medseg models import FOLDER`."
    )
