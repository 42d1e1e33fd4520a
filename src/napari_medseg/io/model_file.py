"""The model file (``.medseg``): tensors and a card in one safetensors file.

The card is canonical JSON under the one key ``card`` of the file's header, and
carries a SHA-256 over itself and the tensors, so that a file that was damaged on
the way is refused. Nothing in a model file is ever executed. No torch here: the
viewer's process reads cards too.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from napari_medseg._types import LabelClass, ModelFileError
from napari_medseg.io._card_schema import canonical, check_card, parse, plain
from napari_medseg.io.atomic import atomic_path

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

FORMAT_VERSION = 1
"""Version of the format that this program writes; it reads this and older ones."""

MAX_HEADER = 1_000_000
"""Longest header in bytes; a real one has a few thousand."""

MAX_FILE = 2_000_000_000
"""Longest model file in bytes."""

MAX_TENSORS = 10_000
"""Most tensors in a model file."""

_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "<u1",
    "BOOL": "|b1",
}
"""Data types of safetensors that a model file may hold, as numpy names them."""

_DIGEST = "digest"

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
        name: _storable(name, model_file.tensors[name], path)
        for name in sorted(model_file.tensors)
    }
    card = _card_to_json(model_file.card, path)
    card[_DIGEST] = _digest(card, tensors)
    text = canonical(card).decode()
    data = safetensors.numpy.save(tensors, metadata={"card": text})
    (header,) = struct.unpack("<Q", data[:8])
    if header > MAX_HEADER or len(data) > MAX_FILE or len(tensors) > MAX_TENSORS:
        raise ModelFileError(
            f"{path} would be too large for a model file: {len(tensors):,} tensors, "
            f"{header:,} bytes of header, {len(data):,} bytes in all."
        )
    try:
        with atomic_path(path) as temporary:
            Path(temporary).write_bytes(data)
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be written: {error.strerror or error}."
        ) from error
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
    data = _read(path, MAX_FILE)
    header = _header(data, path)
    card = _card_of(header, path)
    tensors = _tensors_of(data, header, path)
    _check_digest(card, tensors, path)
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise ModelFileError(
                f"{path}: the tensor {name!r} holds numbers that are not finite; the "
                "model cannot work. Train it again."
            )
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
    data = _read(path, MAX_HEADER + 8)
    return _card_from_json(_card_of(_header(data, path), path))


def _read(path: Path, limit: int) -> bytes:
    """Return the first ``limit`` bytes of a file that is not absurdly long."""
    try:
        if path.exists() and not path.is_file():
            raise ModelFileError(f"{path} is not a file, so it is no model file.")
        length = path.stat().st_size
        if length > MAX_FILE:
            raise ModelFileError(
                f"{path} is {length / 1e9:.1f} GB long, more than any model file "
                f"({MAX_FILE / 1e9:.0f} GB)."
            )
        with path.open("rb") as file:
            data = file.read(limit)
    except FileNotFoundError:
        raise ModelFileError(f"{path} does not exist.") from None
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read: {error.strerror or error}."
        ) from error
    if not data:
        raise ModelFileError(f"{path} is empty (0 bytes); copy or download it again.")
    return data


def _header(data: bytes, path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file as a checked dict."""
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else -1
    if not data[8:9] == b"{":
        raise ModelFileError(
            f"{path} is not a model file (.medseg), or only the start of one."
        )
    if length > MAX_HEADER:
        raise ModelFileError(
            f"{path} is not a model file: its header says {length:,} bytes, and "
            f"{MAX_HEADER:,} are the most."
        )
    if len(data) < 8 + length:
        raise ModelFileError(f"{path} is cut off; copy or download it again.")
    header = parse(data[8 : 8 + length], f"{path}: the header")
    if len(header) - 1 > MAX_TENSORS:
        raise ModelFileError(
            f"{path} says that it holds {len(header) - 1:,} tensors; {MAX_TENSORS:,} "
            "are the most."
        )
    return header


def _card_of(header: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the card in a header as JSON, checked against the schema."""
    metadata = header.get("__metadata__")
    text = metadata.get("card") if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise ModelFileError(
            f"{path} has no card: it is a safetensors file, but not a model file "
            "(.medseg)."
        )
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise ModelFileError(f"{path}: the card is damaged ({error}).") from error
    card = parse(raw, f"{path}: the card")
    version = card.get("version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ModelFileError(
            f"{path} was made by a later version of napari-medseg (format {version}; "
            f"this one reads {FORMAT_VERSION}); update napari-medseg."
        )
    digest = card.pop(_DIGEST, None)
    check_card(card, str(path))
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ModelFileError(f"{path}: the card has no digest of the model.")
    card[_DIGEST] = digest
    return card


def _tensors_of(
    data: bytes, header: Mapping[str, Any], path: Path
) -> dict[str, NDArray[Any]]:
    """Return the tensors by name, after safetensors checked their offsets."""
    for name, entry in header.items():
        dtype = entry.get("dtype") if isinstance(entry, dict) else None
        if name != "__metadata__" and str(dtype) not in _DTYPES:
            raise ModelFileError(
                f"{path}: the tensor {name!r} is of a type ({dtype}) that a model "
                "file cannot hold."
            )
    try:
        # checks that the offsets tile the file exactly and fit the shapes
        tensors: dict[str, NDArray[Any]] = safetensors.numpy.load(data)
    except (SafetensorError, ValueError, OverflowError, KeyError) as error:
        raise ModelFileError(
            f"{path} is damaged or cut off ({error}); copy or download it again."
        ) from error
    # copied, as views of the file would be read-only and keep all of it in memory
    return {name: tensors[name].copy() for name in sorted(tensors)}


def _storable(name: object, value: NDArray[Any], path: Path) -> NDArray[Any]:
    """Return a tensor as safetensors needs it: contiguous, little-endian, finite."""
    if not isinstance(name, str) or not name or name == "__metadata__":
        raise ModelFileError(f"{path}: {name!r} cannot be the name of a tensor.")
    # not ascontiguousarray, which would turn a single number into a list of one
    array = np.asarray(value, order="C")
    if array.dtype.newbyteorder("<").str not in _DTYPES.values():
        raise ModelFileError(
            f"{path}: the tensor {name!r} is of type {array.dtype}, which a model "
            "file cannot hold."
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ModelFileError(
            f"{path} was not written: the tensor {name!r} holds numbers that are not "
            "finite, so the training went wrong. Train again with a lower learning "
            "rate."
        )
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


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
        name: _storable(name, value, nowhere)
        for name, value in model_file.tensors.items()
    }
    return _digest(card, tensors)


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
    known = {name: value for name, value in values.items() if name != _DIGEST}
    known["classes"] = tuple(
        LabelClass(entry["name"], entry["colour"]) for entry in values["classes"]
    )
    return ModelCard(**known)


def _digest(card: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 over a card without its digest and over all tensors."""
    digest = hashlib.sha256()
    digest.update(canonical({k: v for k, v in card.items() if k != _DIGEST}))
    for name in sorted(tensors):
        array = tensors[name]
        head = [name, array.dtype.newbyteorder("<").str, list(array.shape)]
        digest.update(b"\n" + json.dumps(head).encode() + b"\n")
        digest.update(np.ascontiguousarray(array).reshape(-1).data.cast("B"))
    return digest.hexdigest()


def _check_digest(
    card: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], path: Path
) -> None:
    """Refuse a file whose content is not what was saved."""
    if _digest(card, tensors) != card[_DIGEST]:
        raise ModelFileError(
            f"{path} was changed after it was saved, or damaged on the way; copy or "
            "download it again."
        )
