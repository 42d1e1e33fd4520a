"""Outlines as regions of interest (ROI) of ImageJ."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg.io.exports._objects import LabelPlane, label_image
from napari_medseg.io.exports._writing import check_suffix, whole_file
from napari_medseg.io.exports.polygons import Polygon, each_outline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from roifile import ImagejRoi

    from napari_medseg._labels import Array, DoubleArray

# The words of a composite ROI's path, which are java.awt.geom.PathIterator's.
_MOVE, _LINE, _CLOSE = 0.0, 1.0, 4.0


def write_rois(
    path: str | Path, labels: Array, *, names: Mapping[int, str] | None = None
) -> None:
    """Write the outlines of objects for the ROI manager of ImageJ and Fiji.

    Each object is one ROI, named by its label with leading zeros: a traced polygon,
    or a composite where it has holes or several pieces.

    Parameters
    ----------
    path : str or Path
        The file, ending ``.zip``.
    labels : ndarray of int
        ``(Y, X)``, id of the object at each pixel; 0 is background.
    names : mapping of int to str, optional
        Names by id, unlike each other; default: its number.

    Raises
    ------
    InputError
        The labels are not a 2D image of integers from 0 up, the name has another
        ending, or the disk refuses.
    """
    write_rois_planes(path, [LabelPlane(labels, {}, names or {})])


def write_rois_planes(
    path: str | Path, planes: Iterable[LabelPlane], *, channels: int = 1
) -> None:
    """Write the outlines of objects in the slices of a stack, in one file.

    The ROIs are named and placed by slice: ImageJ shows each where it belongs.

    Parameters
    ----------
    path : str or Path
        The file, ending ``.zip``.
    planes : iterable of LabelPlane
        The slices; each is asked for once, when those before it are written.
        Classes and measurements are not used.
    channels : int
        Channels of the image that the ROIs are to be shown on.

    Raises
    ------
    InputError
        As for `write_rois`.
    """
    import roifile

    path = Path(path)
    check_suffix(path, ".zip")
    rois = (roi for plane in planes for roi in _rois(path, plane, channels))
    with whole_file(path) as temporary:
        roifile.roiwrite(temporary, rois, mode="w")


def _rois(path: Path, plane: LabelPlane, channels: int) -> Iterator[ImagejRoi]:
    """Yield the ROIs of a slice."""
    image = label_image(plane.labels, f"The label image for {path}")
    # the highest number of labels on the disk is not known yet
    digits = len(str(image.max())) if isinstance(image, np.ndarray) else 6
    place = "".join(
        f"{axis.lower()}{number + 1:03d}-" for axis, number in plane.index.items()
    )
    for label, polygons in each_outline(image):
        name = plane.names.get(label, f"{label:0{max(4, digits)}d}")
        # it names a file in the archive, too
        roi = _roi(place + re.sub(r"[/\\:]", "_", name), polygons)
        _put(roi, plane.index, channels)
        yield roi


def _put(roi: ImagejRoi, index: Mapping[str, int], channels: int) -> None:
    """Say where in a stack a ROI belongs; ImageJ counts from 1."""
    if len(index) == 1 and channels == 1:
        # ImageJ takes slices for frames, or frames for slices; this fits both
        (roi.position,) = (number + 1 for number in index.values())
    elif index:
        roi.z_position = index.get("Z", 0) + 1
        roi.t_position = index.get("T", 0) + 1


def _roi(name: str, polygons: Sequence[Polygon]) -> ImagejRoi:
    """Return one object as the simplest ROI that holds all of it."""
    if len(polygons) == 1 and not polygons[0].holes:
        return _traced(name, polygons[0].exterior)
    return _composite(name, polygons)


def _traced(name: str, exterior: DoubleArray) -> ImagejRoi:
    """Return a ROI as ImageJ's wand makes it, along the edges of pixels."""
    from roifile import ROI_TYPE, ImagejRoi

    roi = ImagejRoi.frompoints(exterior[:-1].astype(np.int64), name=name)
    roi.roitype = ROI_TYPE.TRACED
    return roi


def _composite(name: str, polygons: Sequence[Polygon]) -> ImagejRoi:
    """Return a ROI of several rings, of which the holes run the other way."""
    from roifile import ROI_TYPE, ImagejRoi

    rings = [ring for each in polygons for ring in (each.exterior, *each.holes)]
    words = np.concatenate([_path(ring) for ring in rings])
    vertices = np.concatenate([each.exterior for each in polygons])
    left, top = vertices.min(axis=0).astype(int).tolist()
    right, bottom = vertices.max(axis=0).astype(int).tolist()
    return ImagejRoi(
        roitype=ROI_TYPE.RECT,
        name=name,
        left=left,
        top=top,
        right=right,
        bottom=bottom,
        shape_roi_size=len(words),
        multi_coordinates=words.astype(np.float32),
    )


def _path(ring: DoubleArray) -> DoubleArray:
    """Return a ring as one row of words and coordinates."""
    steps = np.full((len(ring) - 1, 3), _LINE)
    steps[0, 0] = _MOVE
    steps[:, 1:] = ring[:-1]
    return np.append(steps.ravel(), _CLOSE)
