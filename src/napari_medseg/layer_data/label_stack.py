"""The labels of a layer, with what the layer says of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import InputError, LabelClass, default_classes
from napari_medseg.io.axes import unit_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pandas as pd

    from napari_medseg._labels import Array

PIXEL = "pixel"
"""What napari calls the unit of a layer that has none."""

TIMES = ("s", "ms", "min", "h", "hour", "day")
"""Units that a time can have."""

CLASSES, OBJECTS = "classes", "objects"
"""What labels mean: a class, or one object each."""

_MEANINGS = {"dense": CLASSES, "instances": OBJECTS}
"""Meaning of an annotation, by its kind."""


@dataclass(frozen=True, slots=True)
class LabelStack:
    """Labels of an image or a stack of images, and what is known of them.

    Attributes
    ----------
    name : str
        Of the layer.
    labels : ndarray of int
        One axis for each of ``axes``; 0 is background. May be lazy: it is read when
        it is needed.
    axes : str
        ``YX``, ``ZYX``, ``TYX`` or ``TZYX``.
    scale : mapping of str to float
        Pixel size by axis letter; an axis whose size nobody knows is left out.
    units : mapping of str to str
        Unit by axis letter.
    classes : tuple of LabelClass
        The classes, background first; may be empty.
    meaning : str
        ``classes``: a label is the number of a class; or ``objects``.
    table : pandas.DataFrame, optional
        Measurements, with the label in the column ``index``.
    source : str
        Name of the image's file; empty where it has none.
    kinds : mapping of int to int
        Class of each object, where there are several classes and it is known.
    """

    name: str
    labels: Any
    axes: str = "YX"
    scale: Mapping[str, float] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    classes: tuple[LabelClass, ...] = ()
    meaning: str = OBJECTS
    table: pd.DataFrame | None = None
    source: str = ""
    kinds: Mapping[int, int] = field(default_factory=dict)

    def read(self) -> LabelStack:
        """Return the stack with its labels in memory.

        Raises
        ------
        InputError
            They cannot be read, or are not whole numbers.
        """
        try:
            labels = np.asarray(self.labels)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.name} cannot be read: {error}.") from error
        if labels.dtype.kind not in "bui":
            raise InputError(
                f"{self.name} holds {labels.dtype} values, but labels are whole "
                "numbers. Convert the layer to labels first."
            )
        return replace(self, labels=labels)

    def slices(self) -> Iterator[tuple[dict[str, int], Array]]:
        """Yield the index of each slice, by axis letter, and its labels ``(Y, X)``."""
        letters = self.axes[:-2]
        for index in np.ndindex(*self.labels.shape[:-2]):
            yield dict(zip(letters, index, strict=True)), self.labels[index]

    def kind_of(self, label: int) -> int:
        """Return the class of a label; 0 where it is background or not known."""
        if self.meaning == CLASSES:
            return label
        kind = 1 if len(self.classes) == 2 else self.kinds.get(label, 0)
        return kind if 0 < kind < len(self.classes) else 0


def label_stack(data: Any, meta: Mapping[str, Any]) -> LabelStack:
    """Return the labels of a layer.

    Parameters
    ----------
    data, meta
        The first two of the three parts of a labels layer as napari gives them to a
        writer (``Layer.as_layer_data_tuple``).

    Returns
    -------
    LabelStack
        Its array is the layer's own, not a copy.

    Raises
    ------
    InputError
        The layer has too few or too many axes.
    """
    name = str(meta.get("name") or "labels")
    labels = data[0] if meta.get("multiscale") else data
    shape = tuple(labels.shape)
    first = max(0, len(shape) - 4)
    if len(shape) < 2 or any(length != 1 for length in shape[:first]):
        raise InputError(
            f"{name} has {len(shape)} axes ({' × '.join(map(str, shape))}); rows and "
            "columns, and before them depth and time, can be written. Take a part of "
            "it as a layer of its own."
        )
    if first:  # an index without axes would read a lazy array whole
        labels = labels[(0,) * first]
    count = len(shape) - first
    axes = _letters(_last(meta.get("axis_labels"), count), count)
    scale, units = _sizes(
        axes, _last(meta.get("scale"), count), _last(meta.get("units"), count)
    )
    about = meta.get("metadata") or {}
    return LabelStack(
        name=name,
        labels=labels,
        axes=axes,
        scale=scale,
        units=units,
        classes=_classes(about, meta.get("colormap")),
        meaning=meaning(about),
        table=meta.get("features"),
        source=str(about.get("source") or ""),
        kinds=dict(about.get("kinds") or {}),
    )


def meaning(about: Mapping[str, Any]) -> str:
    """Tell from the metadata of a labels layer what its labels mean.

    Parameters
    ----------
    about : mapping
        ``Layer.metadata``, as the forms of this package and its samples fill it.

    Returns
    -------
    str
        `CLASSES` or `OBJECTS`; objects where nothing is said.
    """
    told = about.get("result") or _MEANINGS.get(str(about.get("annotation")))
    if told in (CLASSES, OBJECTS):
        return str(told)
    return CLASSES if about.get("classes") else OBJECTS


def to_plain(stack: LabelStack) -> dict[str, Any]:
    """Return a stack as values that another process can be sent.

    Parameters
    ----------
    stack : LabelStack
        The stack; its labels are an array in memory.

    Returns
    -------
    dict
        For `from_plain`. Of the table what is neither number nor text becomes text.
    """
    table = stack.table
    columns = {} if table is None else table.to_dict("list")
    return {
        "name": stack.name,
        "labels": stack.labels,
        "axes": stack.axes,
        "scale": dict(stack.scale),
        "units": dict(stack.units),
        "classes": [[each.name, each.colour] for each in stack.classes],
        "meaning": stack.meaning,
        "table": [
            [str(name), [_plain_value(value) for value in values]]
            for name, values in columns.items()
        ],
        "source": stack.source,
        "kinds": [[int(label), int(kind)] for label, kind in stack.kinds.items()],
    }


def _plain_value(value: Any) -> Any:
    kinds = (bool, int, float, str, type(None))
    return value if isinstance(value, kinds) else str(value)


def from_plain(plain: Mapping[str, Any]) -> LabelStack:
    """Return the stack that `to_plain` was given.

    Parameters
    ----------
    plain : mapping
        From `to_plain`.

    Returns
    -------
    LabelStack
        The stack.
    """
    import pandas as pd

    columns = dict(plain["table"])
    classes = tuple(LabelClass(*each) for each in plain["classes"])
    table = pd.DataFrame(columns) if columns else None
    kinds = dict(plain["kinds"])
    made = {"classes": classes, "table": table, "kinds": kinds}
    return LabelStack(**{**plain, **made})


def _last(values: Sequence[Any] | None, count: int) -> list[Any]:
    """Return the last of some values, one for each axis, or as many times None."""
    found = list(values) if values is not None else []
    return [None] * (count - len(found)) + found[len(found) - count :]


def _letters(names: Sequence[Any], count: int) -> str:
    """Return the letters of the axes; a single axis in front may be named time."""
    if count != 3:
        return "TZYX"[4 - count :]
    first = str(names[0] or "").casefold()
    return "TYX" if first in ("t", "time") else "ZYX"


def _sizes(
    axes: str, scale: Sequence[Any], units: Sequence[Any]
) -> tuple[dict[str, float], dict[str, str]]:
    """Return pixel size and unit by axis, without what is not known."""
    sizes: dict[str, float] = {}
    names: dict[str, str] = {}
    for letter, size, unit in zip(axes, scale, units, strict=True):
        length = abs(float(size)) if size is not None else 1.0
        name = unit_name(str(unit)) if unit is not None else PIXEL
        known = name in TIMES if letter == "T" else name != PIXEL
        # a number without a unit is kept for places; for times no file has a word
        if length > 0 and (known or (length != 1 and letter != "T")):
            sizes[letter], names[letter] = length, name
    return sizes, names


def _classes(about: Mapping[str, Any], colormap: Any) -> tuple[LabelClass, ...]:
    """Return the classes; where labels are classes, in the colours that are shown."""
    names = [str(name) for name in about.get("classes") or ()]
    if len(names) < 2:
        return ()
    colours = [each.colour for each in default_classes(len(names))]
    told = list(about.get("colours") or ())
    if len(told) == len(names):
        colours = [str(colour)[:7] for colour in told]
    if colormap is not None and meaning(about) == CLASSES:
        shown = [_hex(colormap.map(index)) for index in range(1, len(names))]
        colours = [colours[0], *shown]
    return tuple(LabelClass(*each) for each in zip(names, colours, strict=True))


def _hex(colour: Any) -> str:
    """Return ``#rrggbb`` of a colour whose parts run from 0 to 1."""
    parts = [round(255 * float(part)) for part in np.ravel(colour)[:3]]
    return f"#{bytes(parts).hex()}"
