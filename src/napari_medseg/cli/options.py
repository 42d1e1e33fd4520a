"""Options of a command out of the fields of a config."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Annotated, Any, get_origin, get_type_hints

import typer

from napari_medseg._config import config_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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
        added = {
            name: parameter
            for name, parameter in _parameters(map(config_class, homes)).items()
            if name not in taken
        }

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


def _parameters(
    kinds: Iterable[type[DataclassInstance]],
) -> dict[str, inspect.Parameter]:
    """Return an optional parameter for each field that an option can hold."""
    scalars: dict[str, type] = {}
    alike: dict[str, list[dataclasses.Field[Any]]] = {}
    for kind in kinds:
        hints = get_type_hints(kind)
        for item in dataclasses.fields(kind):
            scalar = _scalar(hints[item.name])
            if scalar is not None:
                scalars.setdefault(item.name, scalar)
                alike.setdefault(item.name, []).append(item)
    found = {}
    for name, items in alike.items():
        number = scalars[name] in (int, float)
        option = typer.Option(
            help=_help(items),
            min=items[0].metadata.get("ge") if number else None,
            max=items[0].metadata.get("le") if number else None,
            show_default=False,
        )
        found[name] = inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[scalars[name] | None, option],
        )
    return found


def _help(items: Sequence[dataclasses.Field[Any]]) -> str:
    """Return the help of fields of one name, in which configs may differ."""
    texts = dict.fromkeys(item.metadata.get("help", "") for item in items)
    defaults = dict.fromkeys(item.default for item in items)
    shown = " or ".join(str(each) for each in defaults if each is not None)
    by_method = ", by method" if len(defaults) > 1 else ""
    return " / ".join(texts) + (f" (default: {shown}{by_method})" if shown else "")


def _scalar(hint: Any) -> type | None:
    """Return the type of an option for a field, or None where there is none."""
    if get_origin(hint) is tuple:
        return None
    options = getattr(hint, "__args__", (hint,))
    scalars = [option for option in options if option in SCALARS]
    return scalars[0] if len(scalars) == 1 else None
