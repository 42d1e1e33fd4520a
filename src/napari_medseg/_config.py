"""Configs: frozen dataclasses whose fields give forms, options and run files.

A field made by `setting` carries its help text, bounds and choices; `check`
enforces them. The same declaration therefore serves the tooltip of a form, the
``--help`` of a command and the run file that replays a training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from napari_medseg._types import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    C = TypeVar("C", bound=DataclassInstance)
else:
    C = TypeVar("C")


def setting(
    default: Any,
    help: str,
    *,
    ge: float | None = None,
    le: float | None = None,
    choices: Sequence[str] | None = None,
) -> Any:
    """Declare one field of a config.

    Parameters
    ----------
    default : object
        The default; users should not need to touch it.
    help : str
        What the setting does, in words a biologist knows.
    ge, le : float, optional
        Smallest and largest value allowed.
    choices : sequence of str, optional
        The values allowed.

    Returns
    -------
    dataclasses.Field
        A field with ``metadata``.
    """
    metadata = {"help": help, "ge": ge, "le": le, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def config_class(home: tuple[str, str]) -> type[DataclassInstance]:
    """Import a config class.

    Parameters
    ----------
    home : tuple of str
        Its module and name, as `napari_medseg.models.methods` lists them.

    Returns
    -------
    type
        The class.
    """
    module, name = home
    kind: type[DataclassInstance] = getattr(import_module(module), name)
    return kind


def check(config: DataclassInstance) -> None:
    """Check every field of a config against its bounds and choices.

    Call it from ``__post_init__``.

    Parameters
    ----------
    config : dataclass instance
        The config to check.

    Raises
    ------
    InputError
        A value is out of bounds or not among the choices.
    """
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if value is None:
            continue
        low, high = item.metadata.get("ge"), item.metadata.get("le")
        choices = item.metadata.get("choices")
        if low is not None and not value >= low:
            raise InputError(f"{item.name} is {value}; it must be at least {low}.")
        if high is not None and not value <= high:
            raise InputError(f"{item.name} is {value}; it must be at most {high}.")
        if choices is not None and value not in choices:
            options = ", ".join(str(choice) for choice in choices)
            raise InputError(f"{item.name} is {value!r}; choose one of {options}.")


def to_dict(config: DataclassInstance) -> dict[str, Any]:
    """Return a config as plain values that JSON and YAML can hold.

    Parameters
    ----------
    config : dataclass instance
        The config.

    Returns
    -------
    dict
        Field names and values; tuples become lists.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return value

    result: dict[str, Any] = plain(dataclasses.asdict(config))
    return result


def from_dict(kind: type[C], values: Mapping[str, Any], source: str) -> C:
    """Build a config from plain values, refusing names it does not know.

    Parameters
    ----------
    kind : type
        The config's class.
    values : mapping
        Names and values, as `to_dict` gives them.
    source : str
        Where the values come from, for the error message.

    Returns
    -------
    object
        The config.

    Raises
    ------
    InputError
        A name is unknown or a value has the wrong type or is out of bounds.
    """
    hints = get_type_hints(kind)
    known = {item.name for item in dataclasses.fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(
            f"{source}: {unknown[0]!r} is not a setting of {kind.__name__}. "
            f"The settings are {', '.join(sorted(known))}."
        )
    arguments = {
        name: _coerce(hints[name], value, f"{source}: {name}")
        for name, value in values.items()
    }
    try:
        return kind(**arguments)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    type(None): "nothing",
}


def _coerce(hint: Any, value: Any, where: str) -> Any:
    """Return ``value`` as ``hint`` asks for it, or refuse it with a sentence."""
    options = getattr(hint, "__args__", ()) if "|" in str(hint) else (hint,)
    for option in options:
        if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
            return from_dict(option, value, where)  # type: ignore[arg-type]
        origin = getattr(option, "__origin__", option)
        if origin is tuple and isinstance(value, (list, tuple)):
            return tuple(_coerce(option.__args__[0], item, where) for item in value)
        if origin is float and isinstance(value, (int, float)):
            return float(value)
        if origin is int and isinstance(value, bool):
            continue
        if isinstance(origin, type) and isinstance(value, origin):
            return value
    wanted = " or ".join(_WORDS.get(option, str(option)) for option in options)
    raise InputError(f"{where} is {value!r}, but it must be {wanted}.")
