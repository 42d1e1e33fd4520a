"""Objects of many images as one COCO file of instances."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import InputError
from napari_medseg.io.exports._objects import Crop, crops, label_image
from napari_medseg.io.exports._writing import check_suffix, whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from napari_medseg._labels import Array


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image and its objects.

    Attributes
    ----------
    file_name : str
        Name of the image's file, as whoever reads the COCO file shall find it.
    labels : ndarray of int
        ``(Y, X)``, id of the object at each pixel; 0 is background.
    categories : mapping of int to int or None
        Category of each object by its id; None: all are of the first category.
    """

    file_name: str
    labels: Array
    categories: Mapping[int, int] | None = None


def write_coco(
    path: str | Path, images: Sequence[CocoImage], categories: Mapping[int, str]
) -> None:
    """Write the objects of images as a COCO file of instances.

    Masks are stored as run lengths, not as polygons, so that holes and pieces are
    exact. Images and annotations are numbered from 1.

    Parameters
    ----------
    path : str or Path
        The file, ending ``.json``.
    images : sequence of CocoImage
        The images, in their order.
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
    if not categories:
        raise InputError(
            f"{path} needs at least one category for its objects. Give one, such as "
            "{1: 'object'}."
        )
    text = json.dumps(_content(path, images, categories), separators=(",", ":"))
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _content(
    path: Path, images: Sequence[CocoImage], categories: Mapping[int, str]
) -> dict[str, Any]:
    """Return what the file holds."""
    entries: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        labels = label_image(image.labels, f"The label image of {image.file_name}")
        height, width = labels.shape
        entries.append(
            {
                "id": number,
                "file_name": image.file_name,
                "width": width,
                "height": height,
            }
        )
        for found in _annotations(path, image, labels, categories):
            own = {"id": len(annotations) + 1, "image_id": number}
            annotations.append(own | found)
    return {
        "info": {"description": "Objects found by napari-medseg"},
        "licenses": [],
        "images": entries,
        "annotations": annotations,
        "categories": [
            {"id": int(number), "name": name, "supercategory": ""}
            for number, name in categories.items()
        ],
    }


def _annotations(
    path: Path, image: CocoImage, labels: Array, categories: Mapping[int, str]
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
