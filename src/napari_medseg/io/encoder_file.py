"""Files of weights that were pretrained without labels (``.safetensors``).

Tensors and a card, under the limits of the model file and with a digest over both;
the card has a key of its own, so that the two kinds of file are told apart. Nothing
in a file is ever executed. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medseg._types import ModelFileError
from napari_medseg.io import _tensor_file as tensor_file
from napari_medseg.io._card_schema import parse, plain

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

FORMAT_VERSION = 1
"""Version of the format that this program writes; it reads this and older ones."""

SUFFIX = ".safetensors"
"""Ending of the files."""

_KEY = "pretrained"

_WHAT = "file of pretrained weights"


@dataclass(frozen=True, slots=True)
class EncoderCard:
    """What a file of pretrained weights says of itself.

    Attributes
    ----------
    kind : str
        What the weights are of: the name of a network, or ``nano``.
    title : str
        Name shown to the user.
    channels : int
        Channels of the images that they take.
    normalisation : mapping
        How the images were normalised.
    config : mapping
        The full config of the pretraining.
    provenance : mapping
        Digest of the images, counts, seed, versions, date.
    figures : mapping
        The last losses.
    licence : str
        SPDX identifier of the licence of the weights.
    version : int
        Version of the file format.
    """

    kind: str
    title: str
    channels: int
    normalisation: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    licence: str = "LicenseRef-unspecified"
    version: int = FORMAT_VERSION


@dataclass(frozen=True, slots=True)
class EncoderFile:
    """A file of pretrained weights in memory.

    Attributes
    ----------
    card : EncoderCard
        What the file says of itself.
    tensors : mapping of str to ndarray
        The weights, by the names they have in their network.
    """

    card: EncoderCard
    tensors: Mapping[str, NDArray[Any]]

    @property
    def digest(self) -> str:
        """SHA-256 over card and tensors."""
        return tensor_file.content_digest(_to_json(self.card, Path()), self.tensors)


def save(path: str | os.PathLike[str], encoder_file: EncoderFile) -> Path:
    """Write a file; the same content always gives the same bytes.

    Parameters
    ----------
    path : path-like
        The file to write; it is there whole or not at all.
    encoder_file : EncoderFile
        Card and tensors.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ModelFileError
        Card or tensors cannot be held, or the file cannot be written.
    """
    path = Path(path)
    tensors = {
        name: tensor_file.storable(name, encoder_file.tensors[name], path)
        for name in sorted(encoder_file.tensors)
    }
    card = _to_json(encoder_file.card, path)
    tensor_file.write(path, _KEY, card, tensors, _WHAT)
    return path


def load(path: str | os.PathLike[str]) -> EncoderFile:
    """Read a file, trusting nothing in it.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    EncoderFile
        Card and tensors.

    Raises
    ------
    ModelFileError
        The file is missing, damaged, of another kind, or made by a later version of
        this program; the message says which.
    """
    path = Path(path)
    data = tensor_file.read(path, tensor_file.MAX_FILE)
    header = tensor_file.header_of(data, path, _WHAT)
    card = _card_of(header, path)
    tensors = tensor_file.tensors_of(data, header, path)
    tensor_file.check_digest(card, tensors, path)
    tensor_file.check_finite(tensors, path)
    del card[tensor_file.DIGEST]
    return EncoderFile(EncoderCard(**card), tensors)


def _card_of(header: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the card in a header, checked."""
    raw = tensor_file.card_text(header, _KEY, path)
    if raw is None:
        other = tensor_file.card_text(header, "card", path) is not None
        found = "a tuned model" if other else "a safetensors file of something else"
        raise ModelFileError(
            f"{path} is {found}, not a {_WHAT}. `napari-medseg pretrain` writes those."
        )
    card = parse(raw, f"{path}: the card")
    version = card.get("version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ModelFileError(
            f"{path} was made by a later version of napari-medseg (format {version}; "
            f"this one reads {FORMAT_VERSION}); update napari-medseg."
        )
    _check(card, {**_SCHEMA, tensor_file.DIGEST: str}, path)
    return card


def _to_json(card: EncoderCard, path: Path) -> dict[str, Any]:
    """Return a card as checked JSON values."""
    values = {item.name: getattr(card, item.name) for item in fields(card)}
    result: dict[str, Any] = plain(values, str(path))
    _check(result, _SCHEMA, path)
    return result


def _check(card: Mapping[str, Any], schema: Mapping[str, type], path: Path) -> None:
    """Refuse a card with fields missing, unknown or of another type."""
    for name in {*schema, *card}:
        wanted, value = schema.get(name), card.get(name)
        fits = wanted is not None and isinstance(value, wanted)
        if not fits or isinstance(value, bool) or value == "":
            raise ModelFileError(
                f"{path}: {name!r} of the card is missing, unknown or not what it "
                "must be; the file is damaged or was made by another program."
            )
    if not 1 <= card["channels"] <= 10_000 or card["version"] < 1:
        raise ModelFileError(f"{path}: the card has numbers that cannot be.")


_SCHEMA: Mapping[str, type] = {
    "kind": str,
    "title": str,
    "channels": int,
    "normalisation": Mapping,
    "config": Mapping,
    "provenance": Mapping,
    "figures": Mapping,
    "licence": str,
    "version": int,
}
