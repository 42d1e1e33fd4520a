"""Places in an image as they are typed, and the file that a command writes."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Annotated

import typer

from napari_medseg._types import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from napari_medseg.io.image_file import ImageFile

CLICK = ("row", "column")
"""The numbers of a click."""

BOX = ("top", "left", "bottom", "right")
"""The numbers of a box."""

UsedChannels = Annotated[
    str | None,
    typer.Option(
        help="Channels of the images that are used, from 0: 2, or 0,2 (default: all, "
        "of which a SAM sees the first three)."
    ),
]
"""``--channels`` of what is trained."""

SeenChannels = Annotated[
    str | None,
    typer.Option(
        help="Channels of images that the model sees, from 0: 2, or 0,2 (default: "
        "what it learned, else the first ones)."
    ),
]
"""``--channels`` of what is applied."""


def numbers(text: str, option: str, names: tuple[str, ...]) -> list[list[float]]:
    """Return groups of numbers: ``"1,2; 3,4"``.

    Parameters
    ----------
    text : str
        What was typed; groups end with a semicolon, numbers with a comma.
    option : str
        Where, such as ``--points``.
    names : tuple of str
        What the numbers of a group are.

    Returns
    -------
    list of list of float
        One list a group.

    Raises
    ------
    InputError
        There is something else.
    """
    found = []
    for group in filter(None, (part.strip() for part in text.split(";"))):
        try:
            values = [float(word) for word in group.split(",")]
        except ValueError:
            values = []
        if len(values) != len(names) or not all(map(math.isfinite, values)):
            raise InputError(
                f"{option}: {group!r} cannot be used. Give {','.join(names)} as "
                "numbers, such as "
                f"{','.join(str(10 * n) for n in range(1, len(names) + 1))}, with a "
                "semicolon between several."
            )
        found.append(values)
    return found


def slice_of(image: ImageFile, text: str | None) -> dict[str, int]:
    """Return which slice of a stack is meant.

    Parameters
    ----------
    image : ImageFile
        The image.
    text : str or None
        A number for each axis of the stack, with commas between.

    Returns
    -------
    dict of str to int
        As `ImageFile.indices` gives it.

    Raises
    ------
    InputError
        There is no such slice, or none is given for a stack.
    """
    lengths = {
        letter: length
        for letter, length in zip(image.axes, image.data.shape, strict=True)
        if letter in "TZ"
    }
    wanted = text.split(",") if text is not None else []
    if not lengths and wanted:
        raise InputError(f"{image.path} is no stack; leave --slice out.")
    words = {"T": "time", "Z": "depth"}
    told = ", ".join(f"{words[each]} 0 to {n - 1}" for each, n in lengths.items())
    try:
        places = [int(word) for word in wanted]
    except ValueError:
        places = []
    if len(places) != len(lengths) or any(
        not 0 <= place < length
        for place, length in zip(places, lengths.values(), strict=True)
    ):
        problem = "is a stack" if text is None else f"has no slice {text!r}"
        raise InputError(
            f"{image.path} {problem}. Say with --slice which one is meant ({told}), "
            "with a comma between the two where there are two."
        )
    return dict(zip(lengths, places, strict=True))


def channels_of(text: str | None) -> tuple[int, ...]:
    """Return which channels are meant: ``"2"`` or ``"0,2"``.

    Parameters
    ----------
    text : str or None
        What was typed after ``--channels``; None for nothing.

    Returns
    -------
    tuple of int
        Numbers from 0; empty for no choice.

    Raises
    ------
    InputError
        There is something else.
    """
    words = [word.strip() for word in text.split(",")] if text is not None else []
    if not all(word.isascii() and word.isdigit() for word in words):
        raise InputError(
            f"--channels {text!r} cannot be used. Give the number of a channel, the "
            "first of which is 0, or several with commas between, such as 2 or 0,2."
        )
    return tuple(map(int, words))


def seen_channel(image: ImageFile, channel: int | None) -> ImageFile:
    """Return an image of which one channel is read, or all.

    Parameters
    ----------
    image : ImageFile
        The image.
    channel : int or None
        Which, from 0; None for all.

    Raises
    ------
    InputError
        There is no such channel.
    """
    return image if channel is None else image.of_channels([channel])


def check_out(
    out: Path, endings: tuple[str, ...], inputs: tuple[Path, ...], *, overwrite: bool
) -> None:
    """Refuse what cannot be written, before any work.

    Parameters
    ----------
    out : Path
        The file to write.
    endings : tuple of str
        Those it may have, in lower case.
    inputs : tuple of Path
        Files that are read: they are never replaced.
    overwrite : bool
        Whether a file that is there may be replaced.

    Raises
    ------
    InputError
        It cannot be written, or would replace what nobody wants replaced.
    """
    if out.suffix.lower() not in endings:
        raise InputError(f"{out} must end in {' or '.join(endings)}.")
    folder = out.absolute().parent
    if not folder.is_dir():
        raise InputError(f"The folder {folder} does not exist; make it.")
    if out.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{out} cannot be written; choose another name.")
    if not out.exists():
        return
    if any(path.exists() and out.samefile(path) for path in inputs):
        raise InputError(f"{out} is what is read here; choose another name.")
    if not overwrite:
        raise InputError(f"{out} exists; choose another name, or add --overwrite.")
