"""The card of a model file: canonical JSON, and the schema it must keep."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from napari_medseg._types import ModelFileError

MAX_DEPTH = 16
"""Deepest nesting of the JSON in a card."""

_MAX_TEXT = 10_000

_MAX_CLASSES = 1_000

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}([0-9a-fA-F]{2})?")

_SHA256 = re.compile(r"[0-9a-f]{64}")

Check = Callable[[Any], str | None]
"""A check of one value: None where it holds, else what it must be."""


def canonical(value: Any) -> bytes:
    """Return plain JSON values as the one text that stands for them.

    Parameters
    ----------
    value : object
        Plain values, as `plain` and `parse` give them.

    Returns
    -------
    bytes
        UTF-8, with sorted keys and without spaces.
    """
    text = json.dumps(
        value,
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    return text.encode()


def parse(raw: bytes, where: str) -> dict[str, Any]:
    """Read a JSON object that nobody vouches for.

    Parameters
    ----------
    raw : bytes
        The text, UTF-8.
    where : str
        What is read, for the error message.

    Returns
    -------
    dict
        Its values; all numbers are finite.

    Raises
    ------
    ModelFileError
        It is not JSON, not an object, names a key twice, or is nested too deeply.
    """
    try:
        value = json.loads(
            raw.decode(),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
        result = plain(value, where)
        canonical(result)
    # RecursionError: json itself gives up on absurd nesting
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{where} is damaged or unsafe ({str(error)[:200]}); copy or download "
            "the file again."
        ) from error
    if not isinstance(result, dict):
        raise ModelFileError(f"{where} is not a JSON object.")
    return result


def plain(value: Any, where: str) -> Any:
    """Return a value as plain JSON values.

    Parameters
    ----------
    value : object
        Mappings, sequences, text, numbers (numpy's too), booleans, None.
    where : str
        What is converted, for the error message.

    Returns
    -------
    object
        Dicts, lists, str, int, float, bool and None. Numbers that are not finite
        become None: a score that could not be computed is not known.

    Raises
    ------
    ModelFileError
        A value is of another type, a key is not text, or it is nested too deeply.
    """
    return _plain(value, where, 0)


def _plain(value: Any, where: str, depth: int) -> Any:
    """Do the work of `plain` at one depth."""
    if depth > MAX_DEPTH:
        raise ModelFileError(
            f"{where} is nested more than {MAX_DEPTH} deep, which no card needs."
        )
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ModelFileError(f"{where}: the key {key!r} is not text.")
        return {str(key): _plain(item, where, depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_plain(item, where, depth + 1) for item in value]
    raise ModelFileError(
        f"{where} holds a value of type {type(value).__name__}, which JSON cannot hold."
    )


def check_card(card: Mapping[str, Any], where: str) -> None:
    """Check a card's JSON values against the schema.

    Parameters
    ----------
    card : mapping
        The values, without the digest.
    where : str
        The file, for the error message.

    Raises
    ------
    ModelFileError
        A field is missing, unknown, or not what it must be.
    """
    _check_fields(card, _CARD, f"{where}: the card")
    for index, entry in enumerate(card["classes"]):
        _check_fields(entry, _CLASS, f"{where}: class {index} of the card")
    if card["base"]:
        _check_fields(card["base"], _BASE, f"{where}: the card's base")


def _check_fields(values: Any, schema: Mapping[str, Check], where: str, /) -> None:
    """Check the fields of one object: all there, none unknown, each as it must be."""
    if not isinstance(values, Mapping):
        raise ModelFileError(f"{where} is not an object with fields.")
    for name in schema:
        if name not in values:
            raise ModelFileError(f"{where} lacks the field {name!r}.")
    for name, value in values.items():
        if name not in schema:
            raise ModelFileError(f"{where} has the unknown field {name!r}.")
        wanted = schema[name](value)
        if wanted is not None:
            shown = repr(value)[:60]
            raise ModelFileError(f"{where}: {name} is {shown}, but must be {wanted}.")


def _text(value: Any) -> str | None:
    """Check for text that is not empty."""
    held = isinstance(value, str) and 0 < len(value.strip()) and len(value) <= _MAX_TEXT
    return None if held else f"text of 1 to {_MAX_TEXT:,} characters"


def _object(value: Any) -> str | None:
    """Check for an object."""
    return None if isinstance(value, Mapping) else "an object with fields"


def _classes(value: Any) -> str | None:
    """Check for a list of classes, background first."""
    held = isinstance(value, list) and 2 <= len(value) <= _MAX_CLASSES
    return None if held else f"a list of 2 to {_MAX_CLASSES:,} classes"


def _natural(value: Any) -> str | None:
    """Check for a whole number from 1 on; true and false are not numbers here."""
    held = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    return None if held else "a whole number from 1 on"


def _sha256(value: Any) -> str | None:
    """Check for a SHA-256."""
    held = isinstance(value, str) and _SHA256.fullmatch(value)
    return None if held else "a SHA-256 in lower case"


def _colour(value: Any) -> str | None:
    """Check for a colour."""
    held = isinstance(value, str) and _COLOUR.fullmatch(value)
    return None if held else "a colour such as #e69f00"


_CARD: Mapping[str, Check] = {
    "version": _natural,
    "kind": _text,
    "title": _text,
    "classes": _classes,
    "normalisation": _object,
    "base": _object,
    "config": _object,
    "provenance": _object,
    "scores": _object,
    "licence": _text,
    "framing": _object,
}

_CLASS: Mapping[str, Check] = {"name": _text, "colour": _colour}

_BASE: Mapping[str, Check] = {
    "name": _text,
    "sha256": _sha256,
    "working_size": _natural,
    "title": _text,
    "licence": _text,
}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object's fields, refusing one that is named twice."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is there twice")
    return result


def _refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which are not JSON."""
    raise ValueError(f"{name} is not a number of JSON")


def _finite(text: str) -> float:
    """Return a number, refusing one too large for a float."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value
