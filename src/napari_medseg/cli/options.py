"""Options of a command out of the fields of a config."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Annotated, Any, get_origin, get_type_hints

import typer

from napari_medseg._config import config_class

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import DataclassInstance

SCALARS = (int, float, str, bool)
"""Types that an option can have."""


def with_config_options(
    *homes: tuple[str, str],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of some configs.

    The command must take ``**settings`` and gets there what the user gave; an option
    that was not given is left out, so that the config's own default or a run file
    holds. Fields that the command has as parameters of its own are not added.

    Parameters
    ----------
    homes : tuple of str
        Module and class of each config.

    Returns
    -------
    callable
        A decorator.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)
        named = [
            item
            for item in own.parameters.values()
            if item.kind is not item.VAR_KEYWORD
        ]
        taken = {item.name for item in named}
        added: dict[str, inspect.Parameter] = {}
        for home in homes:
            for name, parameter in _parameters(config_class(home)).items():
                if name not in taken:
                    added.setdefault(name, parameter)

        def run(**given: Any) -> None:
            offered = {name: given.pop(name, None) for name in added}
            settings = {k: value for k, value in offered.items() if value is not None}
            command(**given, **settings)

        run.__name__ = command.__name__
        run.__doc__ = command.__doc__
        parameters = [
            item.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for item in [*named, *added.values()]
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {item.name: item.annotation for item in parameters}
        return run

    return decorate


def _parameters(kind: type[DataclassInstance]) -> dict[str, inspect.Parameter]:
    """Return an optional parameter for each field that an option can hold."""
    hints = get_type_hints(kind)
    found = {}
    for item in dataclasses.fields(kind):
        scalar = _scalar(hints[item.name])
        if scalar is None:
            continue
        help_text = item.metadata.get("help", "")
        if item.default is not None:
            help_text = f"{help_text} (default: {item.default})"
        option = typer.Option(
            help=help_text,
            min=item.metadata.get("ge") if scalar in (int, float) else None,
            max=item.metadata.get("le") if scalar in (int, float) else None,
            show_default=False,
        )
        found[item.name] = inspect.Parameter(
            item.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[scalar | None, option],
        )
    return found


def _scalar(hint: Any) -> type | None:
    """Return the type of an option for a field, or None where there is none."""
    if get_origin(hint) is tuple:
        return None
    options = getattr(hint, "__args__", (hint,))
    scalars = [option for option in options if option in SCALARS]
    return scalars[0] if len(scalars) == 1 else None
