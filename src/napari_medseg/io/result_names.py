"""What lies beside the labels of a run is called so, and looked for there again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path, PurePosixPath

T = TypeVar("T")

PROVENANCE = "medseg.json"
"""The file in an output folder that says how its labels were made."""

# No ending is the end of another one, nor that of labels: so no image, whatever it is
# called, has labels of the name that another image's probabilities have. A folder of
# their own keeps apart what programs would open along with the labels of a folder.


def probabilities_name(name: str | PurePosixPath) -> str:
    """Return the file of an image's class probabilities.

    Parameters
    ----------
    name : str or PurePosixPath
        Name of the image in the run.

    Returns
    -------
    str
        Relative to the output folder, with ``/``.
    """
    return f"probabilities/{name}_probabilities.tiff"


def masks_name(name: str | PurePosixPath) -> str:
    """Return the file of an image's masks, where classes overlap.

    Parameters
    ----------
    name : str or PurePosixPath
        Name of the image in the run.

    Returns
    -------
    str
        Relative to the output folder, with ``/``.
    """
    return f"masks/{name}_masks.tiff"


def masks_of(labels: Path, folder: Path) -> Path | None:
    """Return the masks of single classes that were written with a label image.

    Parameters
    ----------
    labels, folder
        As for `probabilities_of`.

    Returns
    -------
    Path or None
        The file, if it is there.
    """
    return _beside(labels, folder, masks_name)


def probabilities_of(labels: Path, folder: Path) -> Path | None:
    """Return the class probabilities that were written with a label image.

    Parameters
    ----------
    labels : Path
        The label image.
    folder : Path
        The output folder that it lies in.

    Returns
    -------
    Path or None
        The file, if it is there.
    """
    return _beside(labels, folder, probabilities_name)


def _beside(labels: Path, folder: Path, named: Callable[[str], str]) -> Path | None:
    """Return a file that belongs to a label image, if it is there."""
    inside = labels.absolute().relative_to(folder.absolute()).with_suffix("")
    path = folder / named(inside.as_posix())
    return path if path.is_file() else None


class RunFacts(NamedTuple):
    """What an output folder tells of the labels in it.

    Attributes
    ----------
    names : tuple of str
        Of the classes, background first, each at the place of its value; empty where
        the folder does not tell.
    values : tuple of int
        What the classes were in the masks that the model was trained on; empty where
        that is not known.
    objects : bool
        Whether the labels are numbered objects.
    files : tuple of str
        What there is of all images together, relative to the folder.
    basis, references : str
        On what the predicted quality of the labels rests: a sentence, and a digest.
    """

    names: tuple[str, ...] = ()
    values: tuple[int, ...] = ()
    objects: bool = False
    files: tuple[str, ...] = ()
    basis: str = ""
    references: str = ""


def facts_of(folder: Path) -> RunFacts:
    """Return what an output folder tells of the labels in it.

    Parameters
    ----------
    folder : Path
        The folder.

    Returns
    -------
    RunFacts
        What it says; little or nothing where it is no output folder.
    """
    try:
        made = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return RunFacts()
    if not isinstance(made, dict):
        return RunFacts()
    names, files = (_listed(made, key, str) for key in ("classes", "files"))
    values = _listed(made, "class_values", int)
    return RunFacts(
        names,
        values,
        made.get("objects") is not None,
        files,
        str(made.get("quality") or ""),
        str(made.get("references") or ""),
    )


def _listed(made: dict[str, Any], key: str, kind: type[T]) -> tuple[T, ...]:
    """Return a list of the file; nothing where it is none of what it should be."""
    found = made.get(key)
    if not isinstance(found, list) or {*map(type, found)} - {kind}:
        return ()
    return tuple(found)


def run_folder(folder: Path) -> Path:
    """Return the output folder that a folder lies in.

    Parameters
    ----------
    folder : Path
        Holds labels: of the images that lie in a folder of the images, or all.

    Returns
    -------
    Path
        The nearest folder that says how its labels were made, or the folder itself.
    """
    for place in (folder, *folder.absolute().parents):
        if (place / PROVENANCE).is_file():
            return place
    return folder
