"""What a run writes for each image, and once for all of them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_medseg.batch._image_outputs import ImageOutputs, coco_categories, stack_axes
from napari_medseg.batch._parts import (
    CLASSES,
    COCO,
    IMAGES,
    OBJECTS,
    THUMBNAIL,
    part_path,
)
from napari_medseg.batch.names import refuse_outside
from napari_medseg.batch.tables import class_names, column_kinds, label_rows
from napari_medseg.io.atomic import disk_errors
from napari_medseg.io.exports import join_coco, join_tables, write_table
from napari_medseg.io.images import write_labels
from napari_medseg.io.result_names import facts_of, masks_name, probabilities_name
from napari_medseg.io.tiff import write_masks, write_probabilities
from napari_medseg.io.tiles import write_probability_tiles

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path, PurePosixPath

    from napari_medseg._labels import BoolArray, StoredLabels
    from napari_medseg._types import FloatArray, LabelArray, LabelClass
    from napari_medseg.batch.settings import BatchSettings
    from napari_medseg.io.image_file import ImageFile
    from napari_medseg.io.tiles import Stored

_COCO_FILE = "coco.json"

LABELS = ".tif"
"""Ending of label images."""

# Nor does this ending end as that of labels does; see `io.result_names`.
_ZARR, _ZARR_ENDING = "ome-zarr", ".ome.zarr"

_BESIDE = {"geojson": ".geojson", "roi": "_rois.zip"}
"""Endings of what lies beside the labels, by format."""

_TABLES = ("csv", "parquet")
"""Formats of tables; their names are their endings, too."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written for an image.

    Attributes
    ----------
    files : tuple of str
        Relative to the output folder, with ``/``; the labels come first.
    objects : int or None
        Objects found, all slices together; None where labels are classes.
    """

    files: tuple[str, ...]
    objects: int | None


def output_files(name: PurePosixPath, settings: BatchSettings) -> tuple[str, ...]:
    """Return what a run writes for an image.

    Parameters
    ----------
    name : PurePosixPath
        Name of the image in the run.
    settings : BatchSettings
        What is asked for.

    Returns
    -------
    tuple of str
        Relative to the output folder, with ``/``; the labels come first.
    """
    files = [f"{name}{LABELS}"]
    if settings.probabilities:
        files.append(probabilities_name(name))
    if settings.masks:
        files.append(masks_name(name))
    files += [f"{name}{_BESIDE[each]}" for each in _BESIDE if each in settings.formats]
    if "ome-zarr" in settings.formats:
        files.append(f"{_ZARR}/{name}{_ZARR_ENDING}")
    if "coco" in settings.formats:
        files.append(part_path(name, COCO))
    if _wants_tables(settings):
        files += [part_path(name, ending) for ending in _rows_of(settings).values()]
    return tuple(files)


def write_outputs(
    image: ImageFile,
    labels: LabelArray,
    probabilities: FloatArray | None,
    classes: tuple[LabelClass, ...],
    out: Path,
    name: PurePosixPath,
    settings: BatchSettings,
    *,
    class_labels: LabelArray | None = None,
    masks: BoolArray | None = None,
) -> Written:
    """Write all that is asked for of an image.

    Parameters
    ----------
    image : ImageFile
        The image.
    labels : ndarray
        ``int32 (*stack, Y, X)``, objects or classes.
    probabilities : ndarray or None
        ``float32 (*stack, K, Y, X)``, where they are to be written.
    classes : tuple of LabelClass
        The K classes, background first.
    out : Path
        Output folder.
    name : PurePosixPath
        Where in it the outputs go, without suffix; no other image has this name.
    settings : BatchSettings
        What is asked for.
    class_labels : ndarray, optional
        ``int32 (*stack, Y, X)``, class of each pixel where labels are objects: each
        object is of the class that most of its pixels have. Default: objects are of
        the one class that there is, or else of none.
    masks : ndarray, optional
        ``bool (*stack, K - 1, Y, X)``, of classes that overlap, where they are to be
        written.

    Returns
    -------
    Written
        The files, and how many objects there are.

    Raises
    ------
    InputError
        The name leads out of the folder, the image's file is damaged, or the disk
        refuses.
    """
    refuse_outside(out, [str(name), *output_files(name, settings)])
    axes = stack_axes(image) + "YX"
    described = _pixels_of(image)
    write_labels(out / f"{name}{LABELS}", labels, axes=axes, **described)
    settings = replace(
        settings, probabilities=probabilities is not None, masks=masks is not None
    )
    if probabilities is not None:
        write_probabilities(
            out / probabilities_name(name),
            probabilities,
            class_names(classes),
            axes=axes.replace("Y", "CY"),
            **described,
        )
    if masks is not None:
        names = class_names(classes)[1:]
        places = axes.replace("Y", "CY")
        write_masks(out / masks_name(name), masks, names, axes=places, **described)
    return write_beside(
        image, labels, classes, out, name, settings, class_labels=class_labels
    )


def write_stored_probabilities(
    image: ImageFile,
    steps: Stored,
    classes: tuple[LabelClass, ...],
    out: Path,
    name: PurePosixPath,
) -> None:
    """Write probabilities that do not lie in memory.

    Parameters
    ----------
    steps : array
        ``(*stack, K, Y, X)``, as `napari_medseg.io.tiles.write_probability_tiles`
        takes it.
    image, classes, out, name
        As for `write_outputs`.

    Raises
    ------
    InputError
        The name leads out of the folder, or the disk refuses.
    """
    refuse_outside(out, [probabilities_name(name)])
    write_probability_tiles(
        out / probabilities_name(name),
        steps,
        class_names(classes),
        axes=stack_axes(image) + "CYX",
        **_pixels_of(image),
    )


def _pixels_of(image: ImageFile) -> dict[str, Any]:
    """Return size and unit of pixels, as writers take them."""
    axes = stack_axes(image) + "YX"
    return {
        "scale": {axis: image.scale[axis] for axis in axes if axis in image.scale},
        "units": {axis: image.units[axis] for axis in axes if axis in image.units},
    }


def write_beside(
    image: ImageFile,
    labels: LabelArray | StoredLabels,
    classes: tuple[LabelClass, ...],
    out: Path,
    name: PurePosixPath,
    settings: BatchSettings,
    *,
    class_labels: LabelArray | StoredLabels | None = None,
) -> Written:
    """Write all that is asked for of an image but its labels and probabilities.

    Parameters
    ----------
    labels : ndarray or StoredLabels
        ``(*stack, Y, X)``, objects or classes; of labels that do not lie in memory,
        all slices.
    image, classes, out, name, settings, class_labels
        As for `write_outputs`.

    Returns
    -------
    Written
        The files, with those of labels and probabilities, and how many objects.

    Raises
    ------
    InputError
        As for `write_outputs`.
    """
    files = output_files(name, settings)
    refuse_outside(out, [str(name), *files, part_path(name, THUMBNAIL)])
    work = ImageOutputs(image, classes, bool(settings.objects))
    measured = _is_measured(settings)
    slices = [*work.slices(labels, class_labels, measured=measured)]
    for kind, write in (("geojson", work.write_geojson), ("roi", work.write_rois)):
        if kind in settings.formats:
            write(out / f"{name}{_BESIDE[kind]}", slices)
    if "ome-zarr" in settings.formats:
        work.write_ome_zarr(out / f"{_ZARR}/{name}{_ZARR_ENDING}", labels)
    if "coco" in settings.formats:
        work.write_coco_part(out / part_path(name, COCO), slices, str(name))
    if _wants_tables(settings):
        rows, images = _rows_of(settings).values()
        table = label_rows(slices, str(name), work.names)
        write_table(out / part_path(name, rows), table)
        table = work.image_rows(slices, str(name))
        write_table(out / part_path(name, images), table)
    work.write_thumbnail(out / part_path(name, THUMBNAIL), slices)
    found = sum(len(each.kinds) for each in slices) if settings.objects else None
    return Written(files, found)


def run_files(settings: BatchSettings) -> tuple[str, ...]:
    """Return what a run writes once for all images, but for its report.

    Parameters
    ----------
    settings : BatchSettings
        What is asked for.

    Returns
    -------
    tuple of str
        Relative to the output folder.
    """
    return tuple(_joined(settings))


def earlier_files(out: Path) -> set[str]:
    """Return the files for all images that earlier runs wrote.

    Parameters
    ----------
    out : Path
        Output folder.

    Returns
    -------
    set of str
        Relative to the output folder, as its provenance names them.
    """
    names = ("objects", "classes", "images")
    known = {f"{name}.{table}" for name in names for table in _TABLES}
    return (known | {_COCO_FILE}) & set(facts_of(out).files)


def drop_files(out: Path, files: Iterable[str]) -> None:
    """Remove results of an earlier run, which are not of the labels that are there.

    Parameters
    ----------
    out : Path
        Output folder.
    files : iterable of str
        Relative to it.

    Raises
    ------
    InputError
        The disk refuses.
    """
    for file in files:
        place = out / file
        with disk_errors(place):
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)


def finish_outputs(
    out: Path,
    names: Iterable[PurePosixPath],
    settings: BatchSettings,
    classes: tuple[LabelClass, ...],
) -> tuple[str, ...]:
    """Write what is one file for all images, from what each of them left.

    Parameters
    ----------
    out : Path
        Output folder.
    names : iterable of PurePosixPath
        The images that are done, in any order. What others left is not used; images
        that left nothing, because another run made them, are not in the files.
    settings : BatchSettings
        What is asked for.
    classes : tuple of LabelClass
        The classes, background first.

    Returns
    -------
    tuple of str
        The files, relative to the output folder.

    Raises
    ------
    InputError
        What an image left is damaged, or the disk refuses.
    """
    images = sorted(str(name) for name in names)
    kinds = column_kinds(class_names(classes))
    categories, spare = coco_categories(classes, bool(settings.objects))
    files: list[str] = []
    for file, ending in _joined(settings).items():
        parts = [out / part_path(name, ending) for name in images]
        parts = [part for part in parts if part.is_file()]
        if not parts:
            # what is there is of images that are no longer done
            with disk_errors(out / file):
                (out / file).unlink(missing_ok=True)
            continue
        if ending == COCO:
            join_coco(out / file, parts, categories, spare)
        else:
            join_tables(out / file, parts, kinds)
        files.append(file)
    return tuple(files)


def _wants_tables(settings: BatchSettings) -> bool:
    """Tell whether tables are asked for."""
    return any(table in settings.formats for table in _TABLES)


def _is_measured(settings: BatchSettings) -> bool:
    """Tell whether anything is asked for that holds measurements."""
    return _wants_tables(settings) or "geojson" in settings.formats


def _rows_of(settings: BatchSettings) -> dict[str, str]:
    """Return the names of tables, and the endings of the parts they are made of."""
    rows = {"objects": OBJECTS} if settings.objects else {"classes": CLASSES}
    return rows | {"images": IMAGES}


def _joined(settings: BatchSettings) -> dict[str, str]:
    """Return the files for all images, and the endings of their parts."""
    files = {
        f"{name}.{table}": ending
        for table in _TABLES
        if table in settings.formats
        for name, ending in _rows_of(settings).items()
    }
    return files | {_COCO_FILE: COCO} if "coco" in settings.formats else files
