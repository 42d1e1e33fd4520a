"""Names that stay in the output folder, wherever they come from."""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import TYPE_CHECKING

from napari_medseg._types import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def leads_out(name: str) -> bool:
    """Tell whether a name would lead out of the folder that it is to be in.

    Parameters
    ----------
    name : str
        Relative, with ``/``.

    Returns
    -------
    bool
        Also for what is no name at all.
    """
    parts = name.split("/")
    if os.name == "nt":
        parts = name.replace("\\", "/").split("/")
        if PurePath(name).drive:
            return True
    return not parts[0] or parts[-1] in ("", ".") or ".." in parts or "\0" in name


def refuse_outside(out: Path, files: Iterable[str]) -> None:
    """Refuse to write outside the output folder, be it through a link in it.

    Parameters
    ----------
    out : Path
        Output folder.
    files : iterable of str
        Relative to it, with ``/``.

    Raises
    ------
    InputError
        One of them would lie elsewhere.
    """
    inside = os.path.realpath(out)
    known: set[str] = set()
    for file in files:
        if leads_out(file):
            raise InputError(
                f"{file} cannot be the name of an output, as it leads out of the "
                "output folder. Rename the image."
            )
        folder = os.path.dirname(f"{inside}/{file}")
        if folder in known:
            continue
        known.add(folder)
        place = os.path.realpath(folder)
        if os.path.commonpath([inside, place]) != inside:
            raise InputError(
                f"{folder} is a link to {place}, which is not in the output folder. "
                "Remove the link, or choose another folder for the output."
            )
