"""The model file (``.medseg``): tensors and a card in one safetensors file.

The card is canonical JSON under the one key ``card`` of the file's header, and
carries a SHA-256 over itself and the tensors, so that a file that was damaged on
the way is refused. Nothing in a model file is ever executed. No torch here: the
viewer's process reads cards too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import LabelClass, ModelFileError
from napari_medseg.io._card_schema import check_card, parse, plain
from napari_medseg.io._tensor_file import (
    DIGEST,
    MAX_FILE,
    MAX_HEADER,
    card_text,
    check_digest,
    check_finite,
    content_digest,
    header_of,
    read,
    storable,
    tensors_of,
    write,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

FORMAT_VERSION = 1
"""Version of the format that this program writes; it reads this and older ones."""

_CARD = "card"
"""Key of the card in the header's metadata."""

_STATES = "states/"
"""Beginning of the names of tensors that hold earlier states, one behind the other."""

MAX_STATES = 8_000_000
"""Bytes of earlier states in a model file, at most; of more, some are left out."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a model file says of itself.

    Attributes
    ----------
    kind : str
        Method that made the model, such as ``ptsam``; it says how to read it.
    title : str
        Name shown to the user.
    classes : tuple of LabelClass
        The classes, background first.
    normalisation : mapping
        How images are normalised, channel mapping included.
    base : mapping
        The model underneath: ``name``, ``sha256``, ``working_size``, ``title``,
        ``licence``; empty where there is none.
    config : mapping
        The full config of the method.
    provenance : mapping
        Digest of the data, counts, seed, versions, date.
    scores : mapping
        Held-out scores, and on how many images they rest.
    licence : str
        SPDX identifier of the model's licence.
    framing : mapping
        How images are cut and scaled to the working size.
    version : int
        Version of the file format.
    """

    kind: str
    title: str
    classes: tuple[LabelClass, ...]
    normalisation: Mapping[str, Any] = field(default_factory=dict)
    base: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    licence: str = "LicenseRef-unspecified"
    framing: Mapping[str, Any] = field(default_factory=dict)
    version: int = FORMAT_VERSION


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file in memory.

    Attributes
    ----------
    card : ModelCard
        What the file says of itself.
    tensors : mapping of str to ndarray
        The trained numbers by name.
    """

    card: ModelCard
    tensors: Mapping[str, NDArray[Any]]


def save(path: str | os.PathLike[str], model_file: ModelFile) -> Path:
    """Write a model file; the same content always gives the same bytes.

    Tuples in the card become lists, and numbers that are not finite become null,
    as JSON has neither.

    Parameters
    ----------
    path : path-like
        The file to write; it is there whole or not at all.
    model_file : ModelFile
        Card and tensors.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ModelFileError
        The card or a tensor cannot be held by a model file, or the file cannot be
        written.
    """
    path = Path(path)
    tensors = {
        name: storable(name, model_file.tensors[name], path)
        for name in sorted(model_file.tensors)
    }
    card = _card_to_json(model_file.card, path)
    write(path, _CARD, card, tensors)
    return path


def load(path: str | os.PathLike[str]) -> ModelFile:
    """Read a model file, trusting nothing in it.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    ModelFile
        Card and tensors.

    Raises
    ------
    ModelFileError
        The file is missing, damaged, not a model file, or made by a later version
        of this program; the message says which.
    """
    path = Path(path)
    data = read(path, MAX_FILE)
    header = header_of(data, path)
    card = _card_of(header, path)
    tensors = tensors_of(data, header, path)
    check_digest(card, tensors, path)
    check_finite(tensors, path)
    return ModelFile(_card_from_json(card), tensors)


def read_card(path: str | os.PathLike[str]) -> ModelCard:
    """Read only the card of a model file, for lists and tooltips.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    ModelCard
        The card; its digest is not checked, as that takes the tensors.

    Raises
    ------
    ModelFileError
        As for `load`, as far as the header goes.
    """
    path = Path(path)
    data = read(path, MAX_HEADER + 8)
    return _card_from_json(_card_of(header_of(data, path), path))


def _card_of(header: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the card in a header as JSON, checked against the schema."""
    raw = card_text(header, _CARD, path)
    if raw is None:
        raise ModelFileError(
            f"{path} has no card: it is a safetensors file, but not a model file "
            "(.medseg)."
        )
    card = parse(raw, f"{path}: the card")
    version = card.get("version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ModelFileError(
            f"{path} was made by a later version of napari-medseg (format {version}; "
            f"this one reads {FORMAT_VERSION}); update napari-medseg."
        )
    digest = card.pop(DIGEST, None)
    check_card(card, str(path))
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ModelFileError(f"{path}: the card has no digest of the model.")
    card[DIGEST] = digest
    return card


def halved(model_file: ModelFile) -> ModelFile:
    """Return a model file that takes half the space.

    Whatever computes with it fills its own weights, in their own precision; measure
    the model that is read from such a file, which is not quite the one before.

    Parameters
    ----------
    model_file : ModelFile
        The model.

    Returns
    -------
    ModelFile
        With ``float16`` in place of ``float32``; other tensors are as they were.

    Raises
    ------
    ModelFileError
        A number is too large for half precision.
    """
    halves = {}
    for name, value in model_file.tensors.items():
        if value.dtype != np.float32:
            halves[name] = value
            continue
        if np.abs(value).max(initial=0) > np.finfo(np.float16).max:
            raise ModelFileError(
                f"The tensor {name!r} holds numbers that are too large for half "
                "precision; save the model in full precision."
            )
        halves[name] = value.astype(np.float16)
    return replace(model_file, tensors=halves)


def with_states(
    model_file: ModelFile, states: Sequence[Mapping[str, NDArray[Any]]]
) -> ModelFile:
    """Return a model file that also holds earlier states of its tensors.

    They are kept in half the precision, and every other one is left out until they
    take no more than `MAX_STATES` bytes.

    Parameters
    ----------
    model_file : ModelFile
        The model.
    states : sequence of mapping
        The tensors as they were, the earliest first.

    Returns
    -------
    ModelFile
        With a tensor ``states/NAME`` for each tensor; unchanged without states.
    """
    kept = list(states)
    while sum(2 * item.size for state in kept for item in state.values()) > MAX_STATES:
        kept = kept[1::2]
    if not kept:
        return model_file
    stacked = {
        f"{_STATES}{name}": np.stack([state[name] for state in kept]).astype(np.float16)
        for name in kept[0]
    }
    return replace(model_file, tensors={**model_file.tensors, **stacked})


def states_in(model_file: ModelFile) -> list[dict[str, NDArray[Any]]]:
    """Return the earlier states that a model file holds, the earliest first.

    Parameters
    ----------
    model_file : ModelFile
        The model.

    Returns
    -------
    list of dict
        ``float32`` tensors by their names in the file; empty where there are none.
    """
    stacked = {
        name.removeprefix(_STATES): value.astype(np.float32)
        for name, value in model_file.tensors.items()
        if name.startswith(_STATES) and value.ndim
    }
    count = min((len(value) for value in stacked.values()), default=0)
    return [
        {name: value[index] for name, value in stacked.items()}
        for index in range(count)
    ]


def digest(model_file: ModelFile) -> str:
    """Return the SHA-256 that a model file carries over its card and tensors.

    Parameters
    ----------
    model_file : ModelFile
        Card and tensors.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    nowhere = Path("model")
    card = _card_to_json(model_file.card, nowhere)
    tensors = {
        name: storable(name, value, nowhere)
        for name, value in model_file.tensors.items()
    }
    return content_digest(card, tensors)


def beside(path: str | os.PathLike[str], card: ModelCard) -> str | None:
    """Return the model file underneath another that lies in its folder.

    Parameters
    ----------
    path : path-like
        A model file.
    card : ModelCard
        Its card.

    Returns
    -------
    str or None
        The model file of the name that the card gives, if it is there; whether it is
        the right one is for who reads it to see.
    """
    # a card is not trusted to name other folders
    name = Path(str(card.base.get("name", ""))).name
    other = Path(path).parent / name
    there = name.lower().endswith(".medseg") and other.is_file()
    return str(other) if there else None


def _card_to_json(card: ModelCard, path: Path) -> dict[str, Any]:
    """Return a card as checked JSON values."""
    values = {item.name: getattr(card, item.name) for item in fields(card)}
    values["classes"] = [
        {"name": entry.name, "colour": entry.colour} for entry in card.classes
    ]
    result: dict[str, Any] = plain(values, str(path))
    if result["version"] != FORMAT_VERSION:
        raise ModelFileError(
            f"{path}: this version of napari-medseg writes format {FORMAT_VERSION}, "
            f"not {result['version']}."
        )
    check_card(result, str(path))
    return result


def _card_from_json(values: Mapping[str, Any]) -> ModelCard:
    """Return the card of checked JSON values."""
    known = {name: value for name, value in values.items() if name != DIGEST}
    known["classes"] = tuple(
        LabelClass(entry["name"], entry["colour"]) for entry in values["classes"]
    )
    return ModelCard(**known)
