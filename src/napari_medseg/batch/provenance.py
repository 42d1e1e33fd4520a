"""The file in an output folder that says how its labels were made."""

from __future__ import annotations

import datetime
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from napari_medseg._config import to_dict
from napari_medseg._release import release
from napari_medseg._types import InputError
from napari_medseg.io.atomic import atomic_path
from napari_medseg.io.result_names import PROVENANCE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_medseg.batch.settings import BatchSettings
    from napari_medseg.batch.worker import Described

_LIBRARIES = ("numpy", "scipy", "scikit-image", "torch")
"""What results depend on beside this package."""


def provenance(
    settings: BatchSettings, described: Described, command: str = ""
) -> dict[str, Any]:
    """Return what is to be known of a run, to make the same labels again.

    Parameters
    ----------
    settings : BatchSettings
        Of the run.
    described : Described
        The segmenter.
    command : str
        The command that the user gave, where there was one.

    Returns
    -------
    dict
        As JSON holds it.
    """
    values = to_dict(settings)
    return {
        "napari-medseg": release(),
        "model": described.identity,
        "model_name": settings.model,
        "classes": [entry.name for entry in described.classes],
        **({"class_values": list(described.values)} if described.values else {}),
        "objects": values["objects"],
        "settings": values,
        "command": command,
        "started": now(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def write_provenance(out: Path, made: Mapping[str, Any]) -> None:
    """Write the file into an output folder.

    Parameters
    ----------
    out : Path
        The folder.
    made : mapping
        What `provenance` returns, and more.

    Raises
    ------
    InputError
        The folder cannot be written to.
    """
    text = json.dumps(made, indent=2, ensure_ascii=False) + "\n"
    try:
        with atomic_path(out / PROVENANCE) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{out} cannot be written to: {error.strerror or error}."
        ) from error


def now() -> str:
    """Return the time, to the second, with its time zone."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
