"""Which axis of an array is which: guesses, the letters of files, units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import InputError
from napari_medseg.io.limits import check_shape
from napari_medseg.io.raw import ImageArray, LazyArray, Raw

if TYPE_CHECKING:
    from pathlib import Path

LETTERS = "TZCYX"
"""The axes of this package, in their order: time, depth, channel, row, column."""

MOST_CHANNELS = 5
"""Longest axis that is taken for channels when nothing says what it is."""

_UNITS = {
    "µm": ("um", "μm", "micron", "microns", "micrometer", "micrometre", "\\u00b5m"),
    "nm": ("nanometer", "nanometre"),
    "mm": ("millimeter", "millimetre"),
    "cm": ("centimeter", "centimetre"),
    "m": ("meter", "metre"),
    "s": ("sec", "second", "seconds"),
    "ms": ("millisecond", "milliseconds"),
    "min": ("minute", "minutes"),
}
_UNIT_WORDS = {
    "nm": "nanometer",
    "µm": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
    "ms": "millisecond",
    "s": "second",
    "min": "minute",
}
_UNIT_NAMES = {
    alias: unit for unit, names in _UNITS.items() for alias in (unit, *names)
}


def unit_name(unit: str) -> str:
    r"""Return one spelling for the many of a unit.

    Parameters
    ----------
    unit : str
        As a file has it: ``um``, ``micron``, ``micrometer``, ``\\u00B5m``, ….

    Returns
    -------
    str
        ``µm``, ``nm``, ``mm``, ``s``, …; what is not known stays as it is.
    """
    return _UNIT_NAMES.get(unit.strip().casefold(), unit.strip())


def unit_word(unit: str) -> str:
    """Return the name of a unit in letters of ASCII.

    Parameters
    ----------
    unit : str
        As `unit_name` gives it.

    Returns
    -------
    str
        Such as ``micrometer``, which OME-NGFF and tables use; what is not known stays
        as it is.
    """
    return _UNIT_WORDS.get(unit, unit)


def guess_axes(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    """Guess the axes of an array that says nothing about them.

    The rules, the first that fits:

    - two axes are ``YX``;
    - a last axis of 3 or 4 in uint8 or uint16 is colour (``S``);
    - an axis of at most 5, and four times shorter than the image's sides, is
      the channel: the first, else the last, else the second;
    - what is left in front is ``Z``, and before that ``T``.

    A stack of five or fewer slices is thus taken for channels; the ``axes``
    argument of `read_image` says better.

    Parameters
    ----------
    shape : tuple of int
        Two to five axes.
    dtype : numpy.dtype
        The array's type.

    Returns
    -------
    str
        One letter of ``TZCYXS`` for each axis, or an empty string where no rule
        fits.
    """
    count = len(shape)
    if count < 2:
        return ""
    if count == 2:
        return "YX"
    if shape[-1] in (3, 4) and dtype in (np.uint8, np.uint16):
        return _in_front("YXS", count)

    def channels(axis: int, sides: tuple[int, ...]) -> bool:
        return shape[axis] <= MOST_CHANNELS and 4 * shape[axis] <= min(sides)

    if channels(0, shape[-2:]) and count <= 4:
        return "C" + _in_front("YX", count - 1)
    if channels(-1, shape[-3:-1]):
        return _in_front("YXC", count)
    if count >= 4 and channels(-3, shape[-2:]):
        return _in_front("CYX", count)
    if count == 5 and channels(1, shape[-2:]):
        return "TCZYX"
    return _in_front("YX", count)


def _in_front(tail: str, count: int) -> str:
    """Put ``Z``, then ``T``, before ``tail`` until there are ``count`` letters."""
    missing = count - len(tail)
    return "TZ"[2 - missing :] + tail if 0 <= missing <= 2 else ""


def settle(path: Path, raw: Raw, axes: str | None) -> tuple[Raw, bool]:
    """Bring an array into the order ``TZCYX`` and drop alpha and empty axes.

    Parameters
    ----------
    path : Path
        The file, for error messages.
    raw : Raw
        What the reader found.
    axes : str or None
        The user's own words for the axes, which win.

    Returns
    -------
    raw : Raw
        Axes in the order ``TZCYX``, those of length 1 left out but for Y and X.
    colour : bool
        Whether the channels are red, green and blue.

    Raises
    ------
    InputError
        The array is not numbers, has no pixels, or its axes cannot be told.
    """
    _check_values(path, raw.data)
    shape = raw.data.shape
    letters = _user_axes(path, shape, axes) if axes else _file_axes(path, raw)
    if raw.colour and "S" not in letters:
        letters = letters.replace("C", "S")  # the user's "C" of a colour image
    samples = letters.find("S")
    colour = samples >= 0 and raw.colour is not False
    limits: dict[int, int] = {}
    if samples >= 0 and shape[samples] > 1:
        length = shape[samples]
        # Two samples are grey and opacity, four are a colour and opacity.
        dropped = raw.alpha or (raw.colour is None and length in (2, 4))
        limits = {samples: length - 1} if dropped else {}
        colour = colour and length - dropped == 3
        letters = _samples_to_channel(path, letters, shape)
    else:
        letters, colour = letters.replace("S", "-"), False
    kept = _kept(letters, shape, limits)
    order = "".join(letters[axis] for axis in kept)
    scale = {name: raw.scale[name] for name in order if name in raw.scale}
    units = {name: raw.units[name] for name in order if name in raw.units}
    return Raw(_arrange(raw.data, kept, limits), order, scale, units), colour


def _kept(letters: str, shape: tuple[int, ...], limits: dict[int, int]) -> list[int]:
    """Return the places of the axes to keep, in the order ``TZCYX``."""
    places = [letters.index(letter) for letter in LETTERS if letter in letters]
    return [
        place
        for place in places
        if letters[place] in "YX" or limits.get(place, shape[place]) > 1
    ]


def _check_values(path: Path, data: ImageArray) -> None:
    """Refuse what is not an image at all."""
    if data.dtype.kind == "c":
        raise InputError(
            f"{path} holds complex numbers, which are not an image. Save its "
            "magnitude (absolute value) or its phase instead."
        )
    if data.dtype.kind not in "buif":
        raise InputError(
            f"{path} holds {data.dtype} values, which are not an image. Save it as "
            "uint8, uint16 or float32."
        )
    if data.ndim < 2:
        size = " × ".join(str(length) for length in data.shape) or "a single number"
        raise InputError(
            f"{path} has {data.ndim} axes ({size}), but an image has rows and "
            "columns. Save it as a 2D image."
        )
    if 0 in data.shape:
        raise InputError(f"{path} has no pixels (shape {data.shape}). Export it again.")
    check_shape(path, data.shape)


def _user_axes(path: Path, shape: tuple[int, ...], axes: str) -> str:
    """Check the letters that the user gave."""
    letters = axes.upper()
    wrong = set(letters) - set(LETTERS + "S")
    if wrong or len(set(letters)) != len(letters) or not {"Y", "X"} <= set(letters):
        raise InputError(
            f"The axes {axes!r} for {path} are not understood: use each of the "
            "letters T, Z, C, Y, X at most once, with Y and X among them."
        )
    if len(letters) == len(shape):
        return letters
    long = [axis for axis, length in enumerate(shape) if length > 1]
    if len(letters) != len(long):
        raise InputError(
            f"The axes {axes!r} name {len(letters)} axes, but {path} has "
            f"{len(shape)} (shape {shape}). Give one letter for each."
        )
    result = ["-"] * len(shape)
    for axis, letter in zip(long, letters, strict=True):
        result[axis] = letter
    return "".join(result)


def _file_axes(path: Path, raw: Raw) -> str:
    """Return one letter per axis from the file's own letters or the guess."""
    shape = raw.data.shape
    named = raw.axes or "Q" * len(shape)
    # A length of 1 says nothing: such an axis must not take a letter that a real
    # axis needs. Rows and columns stay, be they 1 pixel long.
    if named.count("Q") == len(shape) or ("Q" in named and "S" not in named):
        return _guess_long_axes(path, raw)
    letters = [
        "-" if length == 1 and letter not in "YXS" else letter
        for letter, length in zip(named, shape, strict=True)
    ]
    for axis in range(len(shape) - 1, -1, -1):
        if letters[axis] in LETTERS + "S-":
            continue
        free = [name for name in "ZT" if name not in letters]
        few = shape[axis] <= MOST_CHANNELS and 4 * shape[axis] <= min(shape[-2:])
        if letters[axis] == "I" and few and not {"C", "S"} & set(letters):
            free = ["C"]
        if not free:
            raise _unclear(path, shape)
        letters[axis] = free[0]
    if not {"Y", "X"} <= set(letters):
        raise _unclear(path, shape)
    return "".join(letters)


def _guess_long_axes(path: Path, raw: Raw) -> str:
    """Guess the axes, leaving out the superfluous ones of length 1."""
    shape = raw.data.shape
    axes = list(range(len(shape)))
    while len(axes) > 2 and 1 in (lengths := [shape[axis] for axis in axes]):
        # A last axis of 1 after rows and columns is a channel; others come first.
        axes.pop(lengths.index(1))
    if len(axes) == 2 and shape[-1] in (3, 4) and 1 in shape[:-1] and len(shape) > 2:
        axes = list(range(len(shape)))[-3:]  # a colour image one pixel high or wide
    guess = guess_axes(tuple(shape[axis] for axis in axes), raw.data.dtype)
    if not guess:
        raise _unclear(path, shape)
    result = ["-"] * len(shape)
    for axis, letter in zip(axes, guess, strict=True):
        result[axis] = letter
    return "".join(result)


def _unclear(path: Path, shape: tuple[int, ...]) -> InputError:
    """Return the error for axes that nobody can tell."""
    return InputError(
        f"The axes of {path} cannot be told from its shape {shape}. Save it as an "
        'OME-TIFF, or name them, such as axes="TZCYX".'
    )


def _samples_to_channel(path: Path, letters: str, shape: tuple[int, ...]) -> str:
    """Make the colour samples the channel axis."""
    if "C" in letters:
        if shape[letters.index("C")] > 1:
            raise InputError(
                f"{path} has {shape[letters.index('C')]} channels that are colour "
                "images themselves. Save one channel, or the channels as grey images."
            )
        letters = letters.replace("C", "-")
    return letters.replace("S", "C")


def _arrange(data: ImageArray, kept: list[int], limits: dict[int, int]) -> ImageArray:
    """Order the axes, leaving out those not kept (of length 1 after the cut)."""
    if isinstance(data, LazyArray):
        return data.arranged(kept, limits)
    cut = tuple(
        slice(limits.get(axis)) if axis in kept else 0 for axis in range(data.ndim)
    )
    remaining = sorted(kept)
    result = np.transpose(data[cut], [remaining.index(axis) for axis in kept])
    return np.asarray(result) if not isinstance(data, np.memmap) else result
