"""Objects of many images as one COCO file of instances."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

import numpy as np

from napari_medseg._types import InputError
from napari_medseg.io.exports._objects import Crop, crops, label_image
from napari_medseg.io.exports._writing import check_suffix, whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_medseg._labels import AnyLabels

_Described: TypeAlias = tuple[dict[str, Any], Iterable[dict[str, Any]]]
"""What COCO says of an image, and of each of its objects, but for their numbers."""


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image and its objects.

    Attributes
    ----------
    file_name : str
        Name of the image's file, as whoever reads the COCO file shall find it.
    labels : ndarray of int or StoredLabels
        ``(Y, X)``, id of the object at each pixel; 0 is background.
    categories : mapping of int to int or None
        Category of each object by its id; None: all are of the first category.
    place : mapping of str to int
        What else is said of the image, such as its slice in a stack.
    """

    file_name: str
    labels: AnyLabels
    categories: Mapping[int, int] | None = None
    place: Mapping[str, int] = field(default_factory=dict)


def write_coco(
    path: str | Path, images: Iterable[CocoImage], categories: Mapping[int, str]
) -> None:
    """Write the objects of images as a COCO file of instances.

    Masks are stored as run lengths, not as polygons, so that holes and pieces are
    exact. Images and annotations are numbered from 1.

    Parameters
    ----------
    path : str or Path
        The file, ending ``.json``.
    images : iterable of CocoImage
        The images, in their order; each is asked for once.
    categories : mapping of int to str
        Names of the categories by their numbers.

    Raises
    ------
    InputError
        There is no category, an object is of none of them, labels are not a 2D
        image of integers from 0 up, the name has another ending, or the disk
        refuses.
    """
    path = Path(path)
    check_suffix(path, ".json")
    _check_categories(path, categories)
    with _new_text(path) as file:
        _write(file, _described(path, images, categories), categories)


def write_coco_part(
    path: str | Path, images: Iterable[CocoImage], categories: Mapping[int, str]
) -> None:
    """Write what `join_coco` makes a COCO file of: the objects of a few images.

    Parameters
    ----------
    path : str or Path
        The file, ending ``.jsonl``: for each image a line that describes it, then a
        line for each object.
    images, categories
        As for `write_coco`.

    Raises
    ------
    InputError
        As for `write_coco`.
    """
    path = Path(path)
    check_suffix(path, ".jsonl")
    _check_categories(path, categories)
    with _new_text(path) as file:
        for entry, found in _described(path, images, categories):
            for line in ({"image": entry}, *found):
                file.write(_dump(line) + "\n")


def join_coco(
    path: str | Path,
    parts: Iterable[Path],
    categories: Mapping[int, str],
    optional: Collection[int] = (),
) -> None:
    """Make one COCO file of parts, of which one at a time is in memory.

    Parameters
    ----------
    path : str or Path
        The file, ending ``.json``.
    parts : iterable of Path
        Files of `write_coco_part`, in the order that images shall have.
    categories : mapping of int to str
        Names of the categories by their numbers.
    optional : collection of int
        Categories that are left out where no object is of them.

    Raises
    ------
    InputError
        There is no category, a part is missing or damaged, the name has another
        ending, or the disk refuses.
    """
    path = Path(path)
    check_suffix(path, ".json")
    _check_categories(path, categories)
    described = (found for part in parts for found in _read_part(part))
    with _new_text(path) as file:
        _write(file, described, categories, optional)


def _read_part(path: Path) -> Iterator[_Described]:
    """Yield the images of a part with their annotations."""
    try:
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        starts = [number for number, line in enumerate(lines) if "image" in line]
        if not starts:
            raise ValueError("There is no image.")
        for start, end in pairwise([*starts, len(lines)]):
            yield lines[start]["image"], lines[start + 1 : end]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}, which holds the objects of one image, is missing or damaged. "
            "Segment that image again."
        ) from error


@contextmanager
def _new_text(path: Path) -> Iterator[TextIO]:
    """Open a text file that appears when it is whole."""
    with (
        whole_file(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        yield file


def _check_categories(path: Path, categories: Mapping[int, str]) -> None:
    """Refuse a file in which objects would be of no category."""
    if not categories:
        raise InputError(
            f"{path} needs at least one category for its objects. Give one, such as "
            "{1: 'object'}."
        )


def _write(
    file: TextIO,
    images: Iterable[_Described],
    categories: Mapping[int, str],
    optional: Collection[int] = (),
) -> None:
    """Write images and annotations with numbers; only the images are kept."""
    entries: list[dict[str, Any]] = []
    unused = set(optional)
    number = 0
    file.write('{"annotations":[')
    for entry, found in images:
        entries.append({"id": len(entries) + 1} | entry)
        for annotation in found:
            number += 1
            unused.discard(annotation["category_id"])
            ids = {"id": number, "image_id": len(entries)}
            file.write(("," if number > 1 else "") + _dump(ids | annotation))
    rest = {
        "info": {"description": "Objects found by napari-medseg"},
        "licenses": [],
        "images": entries,
        "categories": [
            {"id": int(key), "name": name, "supercategory": ""}
            for key, name in categories.items()
            if key not in unused
        ],
    }
    file.write("]," + _dump(rest).removeprefix("{"))


def _dump(value: Mapping[str, Any]) -> str:
    """Return JSON without blanks."""
    return json.dumps(value, separators=(",", ":"))


def _described(
    path: Path, images: Iterable[CocoImage], categories: Mapping[int, str]
) -> Iterator[_Described]:
    """Yield what COCO says of each image, and of its objects."""
    for image in images:
        labels = label_image(image.labels, f"The label image of {image.file_name}")
        height, width = labels.shape
        entry = {"file_name": image.file_name, "width": width, "height": height}
        found = _annotations(path, image, labels, categories)
        yield entry | dict(image.place), found


def _annotations(
    path: Path, image: CocoImage, labels: AnyLabels, categories: Mapping[int, str]
) -> Iterator[dict[str, Any]]:
    """Yield what COCO says of each object."""
    shape = (labels.shape[0], labels.shape[1])
    for crop in crops(labels):
        height, width = crop.mask.shape
        yield {
            "category_id": _category(path, image, crop.label, categories),
            "segmentation": {"size": list(shape), "counts": _counts(crop, shape)},
            "area": int(crop.mask.sum()),
            "bbox": [crop.x, crop.y, width, height],
            "iscrowd": 0,
        }


def _category(
    path: Path, image: CocoImage, label: int, categories: Mapping[int, str]
) -> int:
    """Return the category of an object, or refuse one that is not named."""
    if image.categories is None:
        return int(next(iter(categories)))
    category = image.categories.get(label)
    if category is None or category not in categories:
        raise InputError(
            f"{path} cannot be written: object {label} of {image.file_name} is of "
            f"category {category}, which is not in the list. Give the object one of "
            f"the categories {', '.join(map(str, categories))}."
        )
    return int(category)


def _counts(crop: Crop, shape: tuple[int, int]) -> list[int]:
    """Return the lengths of runs outside and inside in turn, down the columns."""
    high, wide = shape
    columns = np.pad(crop.mask.T, ((0, 0), (1, 1))).astype(np.int8)
    change = np.diff(columns, axis=1)
    starts, ends = (
        (crop.x + column) * high + crop.y + row
        for column, row in (np.nonzero(change > 0), np.nonzero(change < 0))
    )
    # A run that reaches the bottom goes on at the top of the next column.
    apart = starts[1:] != ends[:-1]
    starts = starts[np.append(True, apart)]
    ends = ends[np.append(apart, True)]
    bounds = np.stack([starts, ends], axis=1).ravel()
    counts = np.diff(bounds, prepend=0, append=high * wide)
    return [int(count) for count in (counts if counts[-1] else counts[:-1])]
