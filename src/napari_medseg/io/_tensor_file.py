"""Tensors with a card in one safetensors file, read without trusting it.

What model files and files of pretrained weights have in common: limits of size, a
header that is checked before it is believed, a digest over card and tensors. No torch
here.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from napari_medseg._types import ModelFileError
from napari_medseg.io._card_schema import canonical, parse
from napari_medseg.io.atomic import atomic_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MAX_HEADER = 1_000_000
"""Longest header in bytes; a real one has a few thousand."""

MAX_FILE = 2_000_000_000
"""Longest model file in bytes."""

MAX_TENSORS = 10_000
"""Most tensors in a model file."""

DTYPES = {
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

DIGEST = "digest"
"""Name of the digest in a card."""

MODEL_FILE = "model file (.medseg)"
"""What a file is called in sentences, unless it is something else."""


def read(path: Path, limit: int) -> bytes:
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


def header_of(data: bytes, path: Path, what: str = MODEL_FILE) -> dict[str, Any]:
    """Return the header of a safetensors file as a checked dict."""
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else -1
    if not data[8:9] == b"{":
        raise ModelFileError(f"{path} is not a {what}, or only the start of one.")
    if length > MAX_HEADER:
        raise ModelFileError(
            f"{path} is not a {what}: its header says {length:,} bytes, and "
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


def tensors_of(
    data: bytes, header: Mapping[str, Any], path: Path
) -> dict[str, NDArray[Any]]:
    """Return the tensors by name, after safetensors checked their offsets."""
    for name, entry in header.items():
        dtype = entry.get("dtype") if isinstance(entry, dict) else None
        if name != "__metadata__" and str(dtype) not in DTYPES:
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


def storable(name: object, value: NDArray[Any], path: Path) -> NDArray[Any]:
    """Return a tensor as safetensors needs it: contiguous, little-endian, finite."""
    if not isinstance(name, str) or not name or name == "__metadata__":
        raise ModelFileError(f"{path}: {name!r} cannot be the name of a tensor.")
    # not ascontiguousarray, which would turn a single number into a list of one
    array = np.asarray(value, order="C")
    if array.dtype.newbyteorder("<").str not in DTYPES.values():
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


def content_digest(card: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 over a card without its digest and over all tensors."""
    digest = hashlib.sha256()
    digest.update(canonical({k: v for k, v in card.items() if k != DIGEST}))
    for name in sorted(tensors):
        array = tensors[name]
        head = [name, array.dtype.newbyteorder("<").str, list(array.shape)]
        digest.update(b"\n" + json.dumps(head).encode() + b"\n")
        digest.update(np.ascontiguousarray(array).reshape(-1).data.cast("B"))
    return digest.hexdigest()


def check_digest(
    card: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]], path: Path
) -> None:
    """Refuse a file whose content is not what was saved."""
    if content_digest(card, tensors) != card[DIGEST]:
        raise ModelFileError(
            f"{path} was changed after it was saved, or damaged on the way; copy or "
            "download it again."
        )


def check_finite(tensors: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Refuse numbers that no network can work with."""
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise ModelFileError(
                f"{path}: the tensor {name!r} holds numbers that are not finite; the "
                "model cannot work. Train it again."
            )


def card_text(header: Mapping[str, Any], key: str, path: Path) -> bytes | None:
    """Return the card under a key of the header's metadata; None without one."""
    metadata = header.get("__metadata__")
    text = metadata.get(key) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        return None
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ModelFileError(f"{path}: the card is damaged ({error}).") from error


def write(
    path: Path,
    key: str,
    card: dict[str, Any],
    tensors: Mapping[str, NDArray[Any]],
    what: str = "model file",
) -> None:
    """Write a checked card, with its digest, and tensors from `storable`.

    The same content always gives the same bytes.
    """
    card[DIGEST] = content_digest(card, tensors)
    text = canonical(card).decode()
    data = safetensors.numpy.save(dict(tensors), metadata={key: text})
    (header,) = struct.unpack("<Q", data[:8])
    if header > MAX_HEADER or len(data) > MAX_FILE or len(tensors) > MAX_TENSORS:
        raise ModelFileError(
            f"{path} would be too large for a {what}: {len(tensors):,} tensors, "
            f"{header:,} bytes of header, {len(data):,} bytes in all."
        )
    try:
        with atomic_path(path) as temporary:
            Path(temporary).write_bytes(data)
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be written: {error.strerror or error}."
        ) from error
