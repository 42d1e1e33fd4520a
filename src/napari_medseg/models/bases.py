"""The model underneath an added channel: found by its hash, never by a path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medseg._types import ModelFileError
from napari_medseg.io import model_file as model_files
from napari_medseg.models.networks import from_model_file
from napari_medseg.models.unetr import Unetr
from napari_medseg.models.weights import recall, remember

if TYPE_CHECKING:
    from napari_medseg.io.model_file import ModelCard, ModelFile


def card_of_base(path: str, found: ModelFile) -> dict[str, Any]:
    """Return what the card of an added channel says of the model underneath.

    Parameters
    ----------
    path : str
        Its file; only the name is told, and its place is noted on this computer.
    found : ModelFile
        What is in it.

    Returns
    -------
    dict
        As ``base`` of a card.
    """
    digest = model_files.digest(found)
    remember(digest, Path(path))
    return {
        "name": Path(path).name,
        "sha256": digest,
        "working_size": int(found.card.framing["size"]),
        "title": found.card.title,
        "licence": found.card.licence,
    }


def base_of(card: ModelCard, path: str | None) -> Unetr:
    """Load the network that a channel was added to.

    Parameters
    ----------
    card : ModelCard
        Of the added channel.
    path : str, optional
        The model file to look into first; else the place that was noted for its hash.

    Returns
    -------
    Unetr
        Frozen, in evaluation mode.

    Raises
    ------
    ModelFileError
        It is not here, or the file holds another model.
    """
    wanted = card.base
    file = path or recall(str(wanted.get("sha256")))
    if file is None:
        raise ModelFileError(
            f"This model adds a channel to another, {wanted.get('title')} "
            f"({wanted.get('name')}), which is not here. Put that file into the same "
            "folder, or name it with --base."
        )
    found = model_files.load(file)
    if model_files.digest(found) != wanted.get("sha256"):
        raise ModelFileError(
            f"{file} is another model than the one that the channel was added to "
            f"({wanted.get('title')}, {wanted.get('name')}); it may have been trained "
            "again since. Put the old file into the same folder, name it with --base, "
            "or add the channel to this one by a new training."
        )
    network = from_model_file(found)
    if not isinstance(network, Unetr):
        raise ModelFileError(f"{file} is no UNETR, and a channel can be added to none.")
    remember(str(wanted["sha256"]), Path(file))
    return network
