"""The files that describe one image: outlines, objects for COCO, rows, a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_medseg._labels import StoredLabels, label_windows
from napari_medseg.batch._thumbnail import outline_colours, thumbnail
from napari_medseg.batch.inputs import readable
from napari_medseg.batch.measuring import measure_areas, measure_objects, object_kinds
from napari_medseg.batch.tables import (
    Measured,
    class_names,
    image_rows,
    in_units,
)
from napari_medseg.io.atomic import atomic_path, disk_errors
from napari_medseg.io.exports import (
    CocoImage,
    LabelPlane,
    write_coco_part,
    write_geojson_planes,
    write_ome_zarr,
    write_rois_planes,
)
from napari_medseg.measurements import place_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pandas as pd

    from napari_medseg._labels import AnyLabels
    from napari_medseg._types import LabelArray, LabelClass
    from napari_medseg.io.image_file import ImageFile


def stack_axes(image: ImageFile) -> str:
    """Return the letters of the axes along which an image is a stack."""
    return "".join(letter for letter in image.axes if letter in "TZ")


def coco_categories(
    classes: Sequence[LabelClass], objects: bool
) -> tuple[dict[int, str], tuple[int, ...]]:
    """Return the categories of COCO files.

    Parameters
    ----------
    classes : sequence of LabelClass
        The classes, background first.
    objects : bool
        Whether labels are objects.

    Returns
    -------
    categories : dict of int to str
        Names by numbers, which are those of the classes.
    optional : tuple of int
        The category of objects whose class is not known, where there may be some.
    """
    names = dict(enumerate(class_names(classes)))
    names.pop(0, None)
    if not objects or len(names) == 1:
        return names, ()
    unknown = len(classes)
    return names | {unknown: "object"}, (unknown,)


class ImageOutputs:
    """Writes the files that describe one image.

    Parameters
    ----------
    image : ImageFile
        The image.
    classes : sequence of LabelClass
        The classes, background first.
    objects : bool
        Whether labels are objects, or else classes.

    Attributes
    ----------
    names : list of str
        Names of the classes; of objects, empty for the class that is not known.
    """

    def __init__(
        self, image: ImageFile, classes: Sequence[LabelClass], objects: bool
    ) -> None:
        self.names = class_names(classes)
        if objects:
            self.names[0] = ""  # an object whose class is not known
        self._image = image
        self._classes = classes
        self._objects = objects
        # as whoever gets the file and the images finds it
        self._file = readable(image.path.name)

    def slices(
        self,
        labels: LabelArray | StoredLabels,
        class_labels: LabelArray | StoredLabels | None,
        *,
        measured: bool,
    ) -> Iterator[Measured]:
        """Give each slice with what is known of its labels.

        Parameters
        ----------
        labels : ndarray or StoredLabels
            ``(*stack, Y, X)``.
        class_labels : ndarray or StoredLabels, optional
            ``(*stack, Y, X)``, class of each pixel where labels are objects.
        measured : bool
            Whether to measure objects or classes, too.

        Yields
        ------
        Measured
            A slice.
        """
        for index in self._image.indices():
            place = tuple(index.values())
            kinds = None if class_labels is None else _slice(class_labels, place)
            yield self._measured(index, _slice(labels, place), kinds, measured)

    def _measured(
        self,
        index: Mapping[str, int],
        labels: AnyLabels,
        class_labels: AnyLabels | None,
        measured: bool,
    ) -> Measured:
        """Return one slice with what is known of its labels."""
        table: pd.DataFrame | None = None
        count = len(self.names)
        if not self._objects:
            if measured:
                table = measure_areas(self._image, index, labels, count)
            return Measured(index, labels, {kind: kind for kind in range(count)}, table)
        if measured:
            table = measure_objects(self._image, index, labels)
            ids = table["label"].tolist()
        else:
            windows = label_windows(labels)
            ids = [label for window in windows for label, _ in window.boxes]
        kinds = dict.fromkeys(ids, 1 if count == 2 else 0)
        if count <= 2 or class_labels is None:
            return Measured(index, labels, kinds, table)
        kinds |= object_kinds(labels, class_labels, count)
        return Measured(index, labels, kinds, table, classed=True)

    def write_geojson(self, path: Path, slices: Sequence[Measured]) -> None:
        """Write outlines and measurements for QuPath."""
        write_geojson_planes(path, map(self._plane, slices))

    def write_rois(self, path: Path, slices: Sequence[Measured]) -> None:
        """Write outlines for ImageJ."""
        channels = 1 if self._image.rgb else self._image.channels
        write_rois_planes(path, map(self._plane, slices), channels=channels)

    def _plane(self, each: Measured) -> LabelPlane:
        """Return a slice as the writers of outlines take it."""
        colours = [entry.colour[:7] for entry in self._classes]
        classes = {
            label: (self.names[kind], colours[kind])
            for label, kind in each.kinds.items()
            if kind > 0
        }
        named = {} if self._objects else dict(enumerate(self.names))
        table = None if each.table is None else in_units(each.table)
        return LabelPlane(each.labels, each.index, named, classes, table)

    def write_coco_part(
        self, path: Path, slices: Sequence[Measured], name: str
    ) -> None:
        """Write the objects of an image, or its classes, for the COCO file."""
        categories, _ = coco_categories(self._classes, self._objects)
        unknown = len(self._classes)
        images = (
            CocoImage(
                self._path_of(name),
                each.labels,
                {label: kind or unknown for label, kind in each.kinds.items()},
                place_columns(each.index),
            )
            for each in slices
        )
        write_coco_part(path, images, categories)

    def write_ome_zarr(self, path: Path, labels: LabelArray | StoredLabels) -> None:
        """Write labels, all slices, as OME-Zarr."""
        axes = stack_axes(self._image) + "YX"
        write_ome_zarr(
            path, labels, axes=axes, scale=self._image.scale, units=self._image.units
        )

    def image_rows(self, slices: Sequence[Measured], name: str) -> pd.DataFrame:
        """Return the rows of the image in the table of images."""
        return image_rows(
            slices,
            self._image,
            name,
            self._path_of(name),
            self.names,
            objects=self._objects,
        )

    def write_thumbnail(self, path: Path, slices: Sequence[Measured]) -> None:
        """Draw the slice in the middle."""
        middle = slices[len(slices) // 2]
        colours = outline_colours(
            self._classes, objects=self._objects, rgb=self._image.rgb
        )
        picture = thumbnail(self._image, middle.index, middle.labels, colours)
        with disk_errors(path), atomic_path(path) as temporary:
            temporary.write_bytes(picture)

    def _path_of(self, name: str) -> str:
        """Return the image's file, in the folder that its name is in."""
        folder = name.rpartition("/")[0]
        return f"{folder}/{self._file}" if folder else self._file


def _slice(labels: LabelArray | StoredLabels, place: tuple[int, ...]) -> AnyLabels:
    """Return one slice of labels, in memory or not."""
    if isinstance(labels, StoredLabels):
        return StoredLabels(labels.data, place)
    found: LabelArray = labels[place]
    return found
