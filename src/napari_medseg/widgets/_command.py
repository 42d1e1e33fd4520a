"""What a form says, as a line for the terminal that gives the same result."""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_medseg.io.atomic import atomic_path
from napari_medseg.io.images import write_labels
from napari_medseg.widgets._annotated import slice_digits
from napari_medseg.widgets._layers import all_slices
from napari_medseg.widgets._saving import plain_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari.layers import Image, Labels

    from napari_medseg.widgets._in_file import InFile
    from napari_medseg.widgets._suggesting import Question

PROGRAM = "napari-medseg"

STORABLE = ("uint8", "uint16", "int16", "float32")
"""Types of images that every program reads; others become ``float32``."""


def train_command(
    images: Path,
    masks: Path,
    out: Path,
    *,
    method: str,
    annotation: str,
    config: Mapping[str, Any],
    channels: Sequence[int] = (),
) -> str:
    """Return the line that trains as the form does.

    Parameters
    ----------
    images, masks : Path
        Folders.
    out : Path
        The model file to write.
    method, annotation : str
        As the command takes them.
    config : mapping
        Settings that differ from the defaults.
    channels : sequence of int
        Channels of the images that are used; empty for all.

    Returns
    -------
    str
        To paste into a terminal.
    """
    words = ["train", "--images", str(images), "--masks", str(masks)]
    words += ["--method", method, "--annotation", annotation, *_channels(channels)]
    return _line([*words, *_options(config), "--out", str(out)])


def segment_command(
    inputs: Sequence[Path],
    out: Path,
    *,
    model: str,
    objects: Mapping[str, Any] | None,
    classes: Mapping[str, Any] | None = None,
    device: str = "auto",
    channels: Sequence[int] = (),
    mirrored: bool = False,
    formats: Sequence[str] = (),
    probabilities: bool = False,
    masks: bool = False,
    workers: int = 1,
    cluster: str = "",
    watch: bool = False,
) -> str:
    """Return the line that segments as the form does.

    Parameters
    ----------
    inputs : sequence of Path
        Images or folders.
    out : Path
        Folder of the labels.
    model : str
        Name or file of the segmenter.
    objects : mapping or None
        Settings of objects; None gives classes.
    classes : mapping, optional
        Settings of classes.
    device : str
        Where to compute.
    channels : sequence of int
        Channels of the images that the model sees; empty for those that it learned.
    mirrored : bool
        Whether each image is seen mirrored in four ways.
    formats : sequence of str
        What is written beside the labels.
    probabilities : bool
        Whether class probabilities are written, too.
    masks : bool
        Whether a mask of each class is written, too.
    workers : int
        Processes.
    cluster : str
        Address of a Dask scheduler in place of processes; empty for none.
    watch : bool
        Whether to go on as files come.

    Returns
    -------
    str
        To paste into a terminal.
    """
    words = ["segment", *map(str, inputs), "--model", model]
    if objects is not None:
        words += ["--instances", *_options(objects)]
    words += _options(classes or {})
    if device != "auto":
        words += ["--device", device]
    words += [*_channels(channels), *(["--mirrored"] if mirrored else [])]
    if formats:
        words += ["--export", ",".join(formats)]
    if probabilities:
        words += ["--probabilities"]
    words += ["--masks"] if masks else []
    if cluster:
        words += ["--cluster", cluster]
    elif workers > 1:
        words += ["--workers", str(workers)]
    if watch:
        words += ["--watch"]
    return _line([*words, "--out", str(out)])


def prompt_command(
    place: InFile,
    out: Path,
    question: Question,
    *,
    sam: str,
    idea: int = 1,
    device: str = "auto",
) -> str:
    """Return the line that asks SAM as the form did.

    Parameters
    ----------
    place : InFile
        The slice of the image.
    out : Path
        The label image to write.
    question : Question
        Clicks and box; without a mask.
    sam : str
        The SAM.
    idea : int
        Which of its masks, from 1.
    device : str
        Where to compute.

    Returns
    -------
    str
        To paste into a terminal.
    """
    words = ["prompt", str(place.path)]
    clicks = list(zip(question.points, question.adds, strict=True))
    for option, wanted in (("--points", True), ("--negative", False)):
        found = [_numbers(point) for point, adds in clicks if adds is wanted]
        if found:
            words += [option, ";".join(found)]
    if question.box is not None:
        words += ["--boxes", _numbers(question.box)]
    if place.index:
        words += ["--slice", ",".join(map(str, place.index))]
    if place.channel is not None:
        words += ["--channel", str(place.channel)]
    if idea != 1:
        words += ["--idea", str(idea)]
    if device != "auto":
        words += ["--device", device]
    return _line([*words, "--sam", sam, "--out", str(out)])


def measure_command(
    labels: Path,
    out: Path,
    *,
    image: Path | None = None,
    channel: int | None = None,
    classes: bool = False,
    names: Sequence[str] = (),
    size: tuple[Mapping[str, float], str | None] | None = None,
) -> str:
    """Return the line that measures as the form does.

    Parameters
    ----------
    labels : Path
        The label image.
    out : Path
        The table to write.
    image : Path, optional
        The image, for the intensities.
    channel : int, optional
        Its only channel that is measured.
    classes : bool
        Whether labels are classes.
    names : sequence of str
        Names of the classes, background first.
    size : tuple, optional
        Size of a pixel along ``y`` and ``x``, and its unit, where it is not that of
        the files.

    Returns
    -------
    str
        To paste into a terminal.
    """
    words = ["measure", str(labels)]
    if image is not None:
        words += ["--image", str(image)]
    if channel is not None:
        words += ["--channel", str(channel)]
    words += ["--classes"] if classes else []
    words += ["--names", ",".join(names)] if names else []
    if size is not None:
        sizes, unit = size
        told = _numbers([sizes.get(axis, 1.0) for axis in "yx"])
        words += ["--pixel-size", told, "--unit", unit or "px"]
    return _line([*words, "--out", str(out)])


def estimate_command(
    images: Path,
    model: str,
    references: Path,
    *,
    annotation: str,
    following: int,
    channels: Sequence[int] = (),
) -> str:
    """Return the line that predicts quality as the form does.

    Parameters
    ----------
    images : Path
        Folder of the images.
    model : str
        Name or file of the segmenter.
    references : Path
        Annotated images.
    annotation : str
        What their masks hold.
    following : int
        How many images to name that should be annotated next.
    channels : sequence of int
        Channels of the images that the model sees; empty for those that it learned.

    Returns
    -------
    str
        To paste into a terminal.
    """
    words = ["estimate", "--images", str(images), "--model", model]
    words += ["--references", str(references), "--annotation", annotation]
    words += _channels(channels)
    return _line([*words, "--next", str(following)])


def _channels(channels: Sequence[int]) -> list[str]:
    """Return channels as the commands take them."""
    return ["--channels", ",".join(map(str, channels))] if channels else []


def _numbers(values: Sequence[float]) -> str:
    """Return numbers that are read back as the very same."""
    return ",".join(repr(float(value)) for value in values)


def save_annotated(image: Image, labels: Labels, folder: Path) -> tuple[Path, Path]:
    """Write the annotated slices of two layers, for the command to train on.

    They get a new folder of their own: nothing that is there is replaced, and the
    command trains on nothing else.

    Parameters
    ----------
    image, labels : layer
        Images and their annotation.
    folder : Path
        Gets the new folder, in which there are ``images`` and ``masks``.

    Returns
    -------
    images, masks : Path
        The two folders.

    Raises
    ------
    InputError, OSError
        A file cannot be written.
    """
    plain = plain_name(image.name)
    own = _new_folder(folder, f"{plain} training")
    places = own / "images", own / "masks"
    for place in places:
        place.mkdir()
    data = image.data[0] if image.multiscale else image.data
    for plane in all_slices(image):
        drawn = np.asarray(plane.of(labels.data))
        if not drawn.any():
            continue
        name = " ".join([plain, *slice_digits(image, plane.index)]) + ".tif"
        _write_image(places[0] / name, np.asarray(plane.of(data)), rgb=image.rgb)
        write_labels(places[1] / name, drawn)
    return places


def _new_folder(parent: Path, name: str) -> Path:
    """Make a folder that was not there, with a number where its name is taken."""
    parent.mkdir(parents=True, exist_ok=True)
    number, place = 1, parent / name
    while True:
        try:
            place.mkdir()
        except FileExistsError:
            number += 1
            place = parent / f"{name} {number}"
        else:
            return place


def _write_image(path: Path, plane: np.ndarray[Any, Any], *, rgb: bool) -> None:
    """Write a slice so that it is read back with the very values."""
    values = plane if plane.dtype.name in STORABLE else plane.astype(np.float32)
    if rgb:
        values = values[..., :3]
    with atomic_path(path) as part:
        photometric = "rgb" if rgb else "minisblack"
        tifffile.imwrite(part, values, photometric=photometric, compression="zlib")


def _options(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as options of the command."""
    words: list[str] = []
    for name, value in settings.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def _line(words: Sequence[str]) -> str:
    """Return words as a line that the terminal of this system takes apart again."""
    whole = [PROGRAM, *words]
    return subprocess.list2cmdline(whole) if os.name == "nt" else shlex.join(whole)
