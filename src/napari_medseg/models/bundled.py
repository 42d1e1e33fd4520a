"""What comes with the package: the smallest SAM with its card, and tuned models.

Nothing here is ever downloaded; a file that is missing means a broken installation.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medseg._types import WeightsError

if TYPE_CHECKING:
    from napari_medseg.models.weights_file import WeightsFile

FOLDER = Path(__file__).parents[1] / "weights"
"""Folder of the files that come with the package."""


def place(name: str) -> Path:
    """Return where a file of the package is, or should be.

    Parameters
    ----------
    name : str
        Name of the file, such as ``nano.safetensors`` or ``nuclei-fluo.medseg``.

    Returns
    -------
    Path
        The file, whether or not it is there.
    """
    return FOLDER / name


def find(name: str) -> Path:
    """Return a file of the package.

    Parameters
    ----------
    name : str
        Name of the file, such as `SpecialistEntry.file`.

    Returns
    -------
    Path
        The file, which is there.

    Raises
    ------
    WeightsError
        The file is missing.
    """
    path = place(name)
    if not path.is_file():
        raise absent(name)
    return path


def absent(name: str) -> WeightsError:
    """Return the refusal for a file that should have come with the package.

    Parameters
    ----------
    name : str
        Name of the file.

    Returns
    -------
    WeightsError
        To be raised.
    """
    return WeightsError(
        f"{place(name)} is missing, which comes with the plugin; install "
        "napari-medseg again."
    )


def damaged(name: str) -> WeightsError:
    """Return the refusal for a file of the package that is not as it came.

    Parameters
    ----------
    name : str
        Name of the file.

    Returns
    -------
    WeightsError
        To be raised.
    """
    return WeightsError(
        f"{place(name)} is damaged, which comes with the plugin; install napari-medseg "
        "again."
    )


def card(weights: WeightsFile) -> dict[str, Any]:
    """Return what the card beside bundled weights says: data, training, scores.

    Parameters
    ----------
    weights : WeightsFile
        The weights, such as those of a SAM.

    Returns
    -------
    dict
        Empty where there is no card.
    """
    path = place(weights.name).with_suffix(".json")
    if not weights.bundled or not path.is_file():
        return {}
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts
