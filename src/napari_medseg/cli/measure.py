"""``napari-medseg measure``: the table of a label image, as the form fills it."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  (read by typer)
from typing import TYPE_CHECKING, Annotated

import typer

from napari_medseg._types import InputError, Progress
from napari_medseg.cli.console import follow, print_json, sentences
from napari_medseg.cli.models import Json  # noqa: TC001
from napari_medseg.cli.places import check_out, numbers, seen_channel

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from napari_medseg._types import Job
    from napari_medseg.io.image_file import ImageFile, LabelImage
    from napari_medseg.layer_data.label_stack import LabelStack

Size = tuple["Mapping[str, float]", "str | None"]


def measure(
    labels: Annotated[Path, typer.Argument(help="The label image.")],
    out: Annotated[Path, typer.Option(help="The table to write (.csv, .parquet).")],
    image: Annotated[
        Path | None, typer.Option(help="The image, for the intensities.")
    ] = None,
    channel: Annotated[
        int | None, typer.Option(help="Its only channel to measure, from 0.", min=0)
    ] = None,
    classes: Annotated[
        bool, typer.Option("--classes", help="Labels are classes, and not objects.")
    ] = False,
    names: Annotated[
        str, typer.Option(help="Names of the classes, background first: bg,cell.")
    ] = "",
    pixel_size: Annotated[
        str | None,
        typer.Option(help='Size of a pixel, "y,x", where the files do not say it.'),
    ] = None,
    unit: Annotated[str, typer.Option(help="Its unit.")] = "micrometer",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the table that is there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure size, shape and intensity of the objects of a label image.

    The table is that of the form Measure, and of folders. Of a stack, slices without
    labels have no rows.
    """
    with sentences(as_json=as_json):
        inputs = (labels,) if image is None else (labels, image)
        check_out(out, (".csv", ".parquet"), inputs, overwrite=overwrite)
        if image is None and channel is not None:
            raise InputError("--channel is of an image: give it with --image.")

        from napari_medseg.io.exports import write_table
        from napari_medseg.io.images import read_annotation, read_image

        read = read_annotation(labels)
        stack = _stack(labels, read, names, classes=classes)
        pixels = None if image is None else seen_channel(read_image(image), channel)
        size = _size(read, pixels, pixel_size, unit)
        table = follow(_measured(stack, pixels, size), quiet=as_json)
        write_table(out, table)
    one, many = ("class", "classes") if classes else ("object", "objects")
    there = table[(table["label"] > 0) & (table["area_px"] > 0)]
    # in stacks each slice may number its objects anew
    count = int(there["label"].nunique() if classes else len(there))
    if as_json:
        told = {"table": str(out), "rows": len(table), many: count}
        print_json(told | {"unit": size[1] or "px", "columns": list(table.columns)})
    else:
        typer.echo(f"Measured {count} {one if count == 1 else many}: {out}")


def _stack(path: Path, read: LabelImage, names: str, *, classes: bool) -> LabelStack:
    """Return labels as a layer would hold them."""
    from napari_medseg._types import LabelClass, default_classes
    from napari_medseg.layer_data.label_stack import CLASSES, OBJECTS, LabelStack

    given = [name.strip() for name in names.split(",")] if names else []
    if len(given) == 1 or not all(given):
        raise InputError(
            f"--names {names!r} cannot be used: give background and at least one "
            "class, with commas between, such as background,cell."
        )
    colours = [each.colour for each in default_classes(max(len(given), 2))]
    pairs = zip(given, colours, strict=False)
    return LabelStack(
        name=str(path),
        labels=read.labels,
        axes=read.axes,
        classes=tuple(LabelClass(*each) for each in pairs),
        meaning=CLASSES if classes else OBJECTS,
    )


def _size(
    labels: LabelImage, image: ImageFile | None, given: str | None, unit: str
) -> Size:
    """Return the size of a pixel: as given, else of the labels, else of the image."""
    from napari_medseg.batch.measuring import pixel_size
    from napari_medseg.io.axes import unit_name, unit_word

    if given is None:
        size = pixel_size(labels)
        return size if size[1] or image is None else pixel_size(image)
    sizes = numbers(given, "--pixel-size", ("y", "x"))
    if len(sizes) != 1 or min(sizes[0]) <= 0:
        raise InputError(
            f"--pixel-size {given!r} cannot be used: give two sizes above 0."
        )
    return dict(zip("yx", sizes[0], strict=True)), unit_word(unit_name(unit))


def _measured(
    stack: LabelStack, image: ImageFile | None, size: Size
) -> Job[pd.DataFrame]:
    """Measure the slices with labels, one after another."""
    from napari_medseg.layer_data.tables import measured_slice, put_together

    places = [{}] if image is None else list(image.indices())
    slices = list(stack.slices())
    if image is not None and (
        image.size != stack.labels.shape[-2:] or len(places) != len(slices)
    ):
        raise InputError(
            f"{image.path} and {stack.name} are not of one shape, so intensities "
            "cannot be measured; give the image that was segmented, or none."
        )
    if image is None:
        places = places * len(slices)
    full = [number for number, (_, part) in enumerate(slices) if part.any()]
    tables = []
    # where all is background, the first slice tells the columns
    for step, number in enumerate(full or [0]):
        yield Progress(step, len(full), "measuring")
        index, part = slices[number]
        pixels = None if image is None else image.region(places[number])
        tables.append(measured_slice(stack, index, part, pixels, size))
    return put_together(tables)
