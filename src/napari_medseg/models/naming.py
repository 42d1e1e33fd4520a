"""The refusal of a name that there is not, with the one that may be meant."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from napari_medseg._types import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable


def unknown(what: str, name: str, options: Iterable[str]) -> InputError:
    """Return the refusal of a name that is not among the options.

    Parameters
    ----------
    what : str
        What was asked for, such as ``SAM``.
    name : str
        The name given.
    options : iterable of str
        The names that there are.

    Returns
    -------
    InputError
        To be raised; its message lists the names, and says which may be meant.
    """
    names = list(options)
    spelt = {_folded(option): option for option in names}
    near = difflib.get_close_matches(_folded(name), spelt, n=1)
    hint = f" Did you mean {spelt[near[0]]!r}?" if near else ""
    return InputError(
        f"There is no {what} named {name!r}; there is {', '.join(names)}.{hint}"
    )


def _folded(name: str) -> str:
    """Return a name without what is easily mistaken: capitals, '-' for '_'."""
    return name.casefold().replace("-", "_").strip()
