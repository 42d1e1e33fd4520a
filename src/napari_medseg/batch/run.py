"""A folder in, a folder out.

One bad file never stops the others: it is listed with what is wrong. What is there
already is left alone, so that running the same command again goes on where the last
run ended; a provenance file in the output folder says which model and settings made
it, and another model is never mixed in unasked.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._config import to_dict
from napari_medseg._release import release
from napari_medseg._types import InputError, Job, MedsegError, Progress
from napari_medseg.instances import ObjectConfig, find_objects
from napari_medseg.io.atomic import atomic_path
from napari_medseg.io.images import (
    image_files,
    image_stem,
    read_image,
    write_labels,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari_medseg._types import AnySegmenter, LabelArray, Prediction
    from napari_medseg.io.images import ImageFile

PROVENANCE = "medseg.json"
"""Name of the file in the output folder that says how its labels were made."""


@dataclass(frozen=True, slots=True)
class Work:
    """One image to segment.

    Attributes
    ----------
    source : Path
        The image.
    target : Path
        The label image to write.
    """

    source: Path
    target: Path


@dataclass(frozen=True)
class BatchReport:
    """What became of a folder.

    Attributes
    ----------
    done, skipped : tuple of str
        Images segmented now, and those whose labels were there already.
    failed : mapping of str to str
        Images that could not be segmented, with the reason.
    notes : mapping of str to str
        What a user should know of single images (memory ran out, say).
    seconds : float
        Wall time.
    """

    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: Mapping[str, str]
    notes: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON holds it."""
        return {
            "done": list(self.done),
            "skipped": list(self.skipped),
            "failed": dict(self.failed),
            "notes": dict(self.notes),
            "seconds": round(self.seconds, 2),
        }


def plan_work(inputs: Iterable[Path], out: Path) -> list[Work]:
    """List the images of files and folders, and where their labels go.

    Parameters
    ----------
    inputs : iterable of Path
        Images, and folders, whose subfolders are kept in the output.
    out : Path
        Output folder.

    Returns
    -------
    list of Work
        No two write the same file: images of one name but different endings get the
        ending into the name of their labels.

    Raises
    ------
    InputError
        An input does not exist or is the output folder, or there is no image at all.
    """
    found: dict[Path, Path] = {}
    spelt: set[str] = set()  # one file may be given twice, in two spellings
    for item in inputs:
        for path, folder in _listed(item, out):
            place = os.path.abspath(path)
            if place not in spelt:
                spelt.add(place)
                found[path] = folder
    if not found:
        raise InputError(
            "There is no image in what was given. Give image files or folders of them."
        )
    names = Counter(
        (folder / image_stem(path)).as_posix().casefold()
        for path, folder in found.items()
    )
    return [
        Work(path, out / folder / _label_name(path, folder, names))
        for path, folder in found.items()
    ]


def _listed(item: Path, out: Path) -> list[tuple[Path, Path]]:
    """Return the images of one input, each with the folder it has in the output."""
    if not item.exists():
        raise InputError(f"{item} does not exist; check the path.")
    if not item.is_dir() or item.suffix.lower() == ".zarr":
        return [(item, Path())]
    own, labels = item.resolve(), out.resolve()
    if own == labels:
        raise InputError(
            f"{item} holds the images, so labels cannot go there; choose another "
            "folder for the output, such as one in it."
        )
    # labels of an earlier run are no images to segment
    inside = own in labels.parents
    return [
        (path, path.parent.relative_to(item))
        for path in image_files(item, recursive=True)
        if not (inside and labels in path.resolve().parents)
    ]


def _label_name(path: Path, folder: Path, names: Counter[str]) -> str:
    """Return the name of an image's labels, unlike that of any other."""
    stem = image_stem(path)
    if names[(folder / stem).as_posix().casefold()] == 1:
        return f"{stem}.tif"
    return f"{path.name.replace('.', '_')}.tif"


def segment_files(
    inputs: Iterable[Path],
    segmenter: AnySegmenter,
    out: Path,
    *,
    objects: ObjectConfig | None = None,
    overwrite: bool = False,
) -> Job[BatchReport]:
    """Segment files and folders.

    Parameters
    ----------
    inputs : iterable of Path
        Images and folders.
    segmenter : AnySegmenter
        What to apply.
    out : Path
        Folder for label TIFFs, made if need be.
    objects : ObjectConfig, optional
        Write objects, found by these settings, in place of classes.
    overwrite : bool
        Replace labels that are there.

    Yields
    ------
    Progress
        One an image.

    Returns
    -------
    BatchReport
        What was done, skipped, and failed.

    Raises
    ------
    InputError
        There is nothing to do, two images would write one file, labels would replace
        an image, or the output folder holds the work of another model or settings.
    """
    started = time.monotonic()
    work = plan_work(inputs, out)
    _check_targets(work)
    made = _made(segmenter, objects)
    mixed = _claim(out, made, work, overwrite=overwrite)
    done: list[str] = []
    skipped: list[str] = []
    failed: dict[str, str] = {}
    notes: dict[str, str] = {}
    for index, item in enumerate(work):
        name = str(item.source)
        yield Progress(index, len(work), f"segmenting {item.source.name}")
        if item.target.exists() and not overwrite:
            skipped.append(name)
            continue
        try:
            note = _segment_one(item, segmenter, objects)
        except (MedsegError, OSError, ValueError) as error:
            reason = str(error)
            failed[name] = reason if name in reason else f"{name}: {reason}"
            continue
        done.append(name)
        if note:
            notes[name] = note
    yield Progress(len(work), len(work), "done")
    if mixed and not _others(out, work, set(done)):
        _note(out, made)
    seconds = time.monotonic() - started
    return BatchReport(tuple(done), tuple(skipped), failed, notes, seconds)


def _check_targets(work: list[Work]) -> None:
    """Refuse two images that would write one file, and labels in place of an image."""
    sources = {str(item.source.resolve()).casefold() for item in work}
    places: dict[str, Path] = {}
    for item in work:
        place = item.target.as_posix().casefold()
        if place in places:
            raise InputError(
                f"{places[place]} and {item.source} would both be written to "
                f"{item.target}. Give their common folder in place of the files, or "
                "rename one."
            )
        if str(item.target.resolve()).casefold() in sources:
            raise InputError(
                f"The labels of {item.source} would replace the image {item.target}; "
                "choose another folder for the output."
            )
        places[place] = item.source


def _made(segmenter: AnySegmenter, objects: ObjectConfig | None) -> dict[str, Any]:
    """Return what the provenance file says of how labels are made."""
    return {
        "napari-medseg": release(),
        "model": segmenter.identity,
        "classes": [entry.name for entry in segmenter.classes],
        "objects": to_dict(objects) if objects else None,
    }


def _claim(
    out: Path, made: Mapping[str, Any], work: list[Work], *, overwrite: bool
) -> bool:
    """Write how the labels are made, unless the folder was made otherwise.

    Returns
    -------
    bool
        Whether labels that were made otherwise are there, to be overwritten. The
        provenance file says so until none is left: a run that is killed half-way must
        not pass for a whole one.
    """
    same = _made_alike(out, made)
    there = [item.target for item in work if item.target.exists()]
    if same is None and there and not overwrite:
        raise InputError(
            f"{there[0]} is there already, and no run of napari-medseg wrote it. "
            "Choose another folder, or ask for it to be overwritten (--overwrite)."
        )
    if same is False and not overwrite:
        raise InputError(
            f"{out} holds labels made by another model or other settings. Choose "
            "another folder, or ask for them to be overwritten (--overwrite)."
        )
    mixed = same is False or (same is None and bool(there))
    _note(out, {**made, "mixed": True} if mixed else made)
    return mixed


def _made_alike(out: Path, made: Mapping[str, Any]) -> bool | None:
    """Tell whether all labels in a folder were made this way; None where it is new."""
    try:
        before = json.loads((out / PROVENANCE).read_text(encoding="utf-8"))
        alike = all(before[key] == made[key] for key in ("model", "objects"))
        return alike and not before.get("mixed")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        return False


def _note(out: Path, made: Mapping[str, Any]) -> None:
    """Write the provenance file."""
    try:
        with atomic_path(out / PROVENANCE) as temporary:
            temporary.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{out} cannot be written to: {error.strerror or error}."
        ) from error


def _others(out: Path, work: list[Work], done: set[str]) -> bool:
    """Tell whether the folder holds labels that this run did not make."""
    own = {item.source.resolve() for item in work}
    own |= {item.target.resolve() for item in work if str(item.source) in done}
    return any(path.resolve() not in own for path in image_files(out, recursive=True))


def _segment_one(
    item: Work, segmenter: AnySegmenter, objects: ObjectConfig | None
) -> str:
    """Segment every slice of an image and write its labels; return a note."""
    image = read_image(item.source)
    slices: list[LabelArray] = []
    note = ""
    for _, plane in image.slices():
        prediction = segmenter.predict(plane)
        note = note or prediction.note
        slices.append(labels_of(prediction, objects))
    _write(image, slices, item.target)
    return note


def labels_of(prediction: Prediction, objects: ObjectConfig | None) -> LabelArray:
    """Return the classes of a prediction, or its objects.

    Parameters
    ----------
    prediction : Prediction
        What a segmenter said.
    objects : ObjectConfig or None
        How objects are found; None gives classes.

    Returns
    -------
    ndarray
        ``int32 (Y, X)``.
    """
    if objects is None:
        return prediction.labels
    foreground = 1.0 - prediction.probabilities[0]
    return find_objects(foreground.astype(np.float32), objects, prediction.interior)


def _write(image: ImageFile, slices: list[LabelArray], target: Path) -> None:
    """Write labels with the stack axes, scale and units of their image."""
    stack = [
        (letter, length)
        for letter, length in zip(image.axes, image.data.shape, strict=True)
        if letter in "TZ"
    ]
    lengths = [length for _, length in stack]
    labels = np.stack(slices).reshape(*lengths, *slices[0].shape)
    axes = "".join(letter for letter, _ in stack) + "YX"
    target.parent.mkdir(parents=True, exist_ok=True)
    write_labels(
        target,
        labels,
        axes=axes,
        scale={key: size for key, size in image.scale.items() if key in axes},
        units={key: unit for key, unit in image.units.items() if key in axes},
    )
