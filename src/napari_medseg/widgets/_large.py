"""Slices that do not fit into memory: to the disk and back, part by part."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg import large
from napari_medseg.io.atomic import disk_errors
from napari_medseg.io.images import read_image
from napari_medseg.scratch import IMAGE, new_array
from napari_medseg.widgets._layers import as_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Layer

    from napari_medseg.widgets._layers import Plane

BAND = 1024
"""Rows that are read at a time."""

NOT_AGAIN = (
    "Sliders do not act on labels of a large image; press Segment to make them anew."
)


def is_large(plane: Plane) -> bool:
    """Tell whether a part of a layer is too large to be segmented in memory."""
    rows, columns = (part.stop - part.start for part in (plane.rows, plane.columns))
    return bool(rows * columns > large.LARGE_PIXELS)


def spool(part: Any, name: str, *, rgb: bool) -> Path:
    """Write a part of a layer to the disk, some rows at a time; any thread may call.

    Parameters
    ----------
    part : array
        ``(Y, X)``, of colours ``(Y, X, 3 or 4)``; mostly a lazy one.
    name : str
        The layer.
    rgb : bool
        Whether the last axis is colour.

    Returns
    -------
    Path
        A new folder with `IMAGE`, a zarr array ``float32 (C, Y, X)``.

    Raises
    ------
    InputError
        The values are complex, or the disk refuses.
    """
    height, width = part.shape[:2]
    folder = Path(tempfile.mkdtemp(prefix="medseg-"))
    try:
        with disk_errors(folder):
            shape = (3 if rgb else 1, height, width)
            array = new_array(folder / IMAGE, shape, np.float32)
            for top in range(0, height, BAND):
                rows = slice(top, min(top + BAND, height))
                array[:, rows] = as_image(part[rows], name, rgb=rgb)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


@dataclass(frozen=True, slots=True)
class LargeLabels:
    """Labels of a large slice, on the disk.

    Attributes
    ----------
    levels : list of array
        ``int32 (Y, X)``, the finest first, and smaller copies.
    folder : Path
        Where they lie.
    """

    levels: list[Any]
    folder: Path

    def remove(self) -> None:
        """Remove the folder: nobody is there to see the labels."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_with(self, layer: Layer) -> None:
        """Remove the folder once a layer is gone, or the program ends."""
        weakref.finalize(layer, shutil.rmtree, self.folder, ignore_errors=True)


def read_levels(paths: Sequence[str]) -> LargeLabels:
    """Open the levels of labels, which the engine's job ``segment_stored`` names."""
    levels = [read_image(Path(path), "YX").data for path in paths]
    return LargeLabels(levels, Path(paths[0]).parent)
