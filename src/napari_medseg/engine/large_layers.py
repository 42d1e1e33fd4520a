"""Job of the engine: a slice that does not fit into memory, from disk to disk."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._config import from_dict
from napari_medseg._labels import StoredLabels
from napari_medseg._types import BandSegmenter, InputError, Progress
from napari_medseg.batch.measuring import object_kinds
from napari_medseg.engine.segmenting import opened
from napari_medseg.instances import ClassConfig, ObjectConfig
from napari_medseg.io.images import read_image
from napari_medseg.io.pixels import FilePixels
from napari_medseg.large import segment_large
from napari_medseg.scratch import IMAGE, Rows, new_array

if TYPE_CHECKING:
    from collections.abc import Callable

    import zarr

    from napari_medseg._types import Job, LabelClass, Prediction
    from napari_medseg.engine.channel import Message
    from napari_medseg.engine.jobs import Context

FACTOR = 4
"""Every so many rows and columns are in the next level of a pyramid."""

SMALLEST = 2048
"""Levels larger than this on a side have another one above them."""

_BAND = 1024


def segment_stored(arguments: Message, context: Context) -> Job[dict[str, Any]]:
    """Segment an image that lies on the disk; it and its labels never lie in memory.

    Parameters
    ----------
    arguments : dict
        ``folder``: where `napari_medseg.scratch.IMAGE` lies, a zarr array
        ``(C, Y, X)``; the labels are left there in its place. The others are those of
        `napari_medseg.engine.segmenting.segment`.
    context : Context
        Keeps the segmenter.

    Yields
    ------
    Progress
        With every band of rows and every block.

    Returns
    -------
    dict
        ``levels``: paths of zarr arrays ``int32 (Y, X)``, the labels and every fourth
        pixel of them, again and again until they are small; ``kinds``, ``classes``,
        ``note``: as of `segment`.

    Raises
    ------
    InputError
        The segmenter takes only images that fit into memory.
    """
    yield Progress(0, None, "loading the model")
    segmenter = opened(arguments, context)
    folder = Path(arguments["folder"])
    image = read_image(folder / IMAGE, "CYX")
    if not isinstance(segmenter, BandSegmenter):
        height, width = image.size
        raise InputError(
            f"The image has {height} × {width} pixels, and this segmenter takes only "
            "images that fit into memory. Choose another one, or a region."
        )
    config: ObjectConfig | ClassConfig
    if arguments["objects"] is None:
        given = arguments.get("classes") or {}
        config = from_dict(ClassConfig, given, "the settings of classes")
    else:
        config = from_dict(
            ObjectConfig, arguments["objects"], "the settings of objects"
        )
    kinds = _Kinds(folder, image.size, segmenter.classes, config)
    made = yield from segment_large(
        FilePixels(image, {}), segmenter, config, folder, kinds.keep
    )
    levels = yield from _levels(folder, made.labels)
    found = kinds.of(made.labels, made.highest)
    for path in folder.iterdir():
        if path not in levels:
            shutil.rmtree(path, ignore_errors=True)
    return {
        "levels": [str(path) for path in levels],
        "kinds": found,
        "classes": [asdict(item) for item in segmenter.classes],
        "note": made.note,
    }


class _Kinds:
    """The class of each pixel, where objects are of several.

    Parameters
    ----------
    folder : Path
        Where it is kept.
    shape : tuple of int
        Rows and columns.
    classes : tuple of LabelClass
        The classes.
    config : ObjectConfig or ClassConfig
        Whether there are objects.
    """

    def __init__(
        self,
        folder: Path,
        shape: tuple[int, int],
        classes: tuple[LabelClass, ...],
        config: ObjectConfig | ClassConfig,
    ) -> None:
        self._count = len(classes)
        self._objects = isinstance(config, ObjectConfig)
        wanted = self._objects and self._count > 2
        self._rows = (
            Rows(new_array(folder / "kinds", shape, np.uint8)) if wanted else None
        )
        self.keep: Callable[[Prediction], None] = self._keep

    def _keep(self, band: Prediction) -> None:
        if self._rows is not None:
            self._rows.append(band.labels.astype(np.uint8))

    def of(self, labels: zarr.Array[Any], total: int) -> list[int]:
        """Return the class of each object, 0 where it is not known."""
        if not self._objects:
            return []
        if self._rows is None:
            return [1] * total
        stored = StoredLabels(self._rows.array)
        kinds = object_kinds(StoredLabels(labels), stored, self._count)
        return [kinds.get(label, 0) for label in range(1, total + 1)]


def _levels(folder: Path, labels: zarr.Array[Any]) -> Job[list[Path]]:
    """Write smaller and smaller copies, for a viewer to show."""
    paths, below = [folder / "labels"], labels
    while max(below.shape) > SMALLEST:
        height, width = below.shape
        yield Progress(0, None, "making smaller copies")
        path = folder / f"labels {len(paths)}"
        shape = (-(-height // FACTOR), -(-width // FACTOR))
        level = new_array(path, shape, np.int32)
        rows = Rows(level)
        for top in range(0, height, _BAND):
            band = np.asarray(below[top : min(top + _BAND, height)])
            rows.append(band[::FACTOR, ::FACTOR].copy())
        paths.append(path)
        below = level
    return paths
