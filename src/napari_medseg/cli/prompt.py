"""``napari-medseg prompt``: the objects of clicks, boxes or a phrase."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  (read by typer)
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from napari_medseg._types import InputError
from napari_medseg.cli.console import follow, print_json, sentences
from napari_medseg.cli.models import Json  # noqa: TC001
from napari_medseg.cli.phrase import Asked, by_phrase, check_use, settings_of
from napari_medseg.cli.places import (
    BOX,
    CLICK,
    check_out,
    numbers,
    seen_channel,
    slice_of,
)
from napari_medseg.cli.run import Device  # noqa: TC001

if TYPE_CHECKING:
    from napari_medseg._types import LabelArray
    from napari_medseg.io.image_file import ImageFile
    from napari_medseg.models.clicks import Prompt
    from napari_medseg.models.prompted import Prompted

Numbers = list[list[float]]


def prompt(
    image: Annotated[Path, typer.Argument(help="The image.")],
    out: Annotated[Path, typer.Option(help="The label image to write (.tif).")],
    points: Annotated[
        str, typer.Option(help='Clicks on the object: "row,column; row,column".')
    ] = "",
    negative: Annotated[
        str, typer.Option(help="Clicks on what does not belong to it, likewise.")
    ] = "",
    boxes: Annotated[
        str,
        typer.Option(help='A box round each object: "top,left,bottom,right; …".'),
    ] = "",
    each: Annotated[
        bool, typer.Option("--each", help="Each click of --points is another object.")
    ] = False,
    sam: Annotated[str, typer.Option(help="The SAM that is asked.")] = "nano",
    text: Annotated[
        str | None,
        typer.Option(
            help='What to look for, such as "infected wound": a diffusion model is '
            "asked, and clicks add its segments or take them away."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="With --text: the diffusion model, a name or a folder."),
    ] = None,
    tau: Annotated[
        float | None,
        typer.Option(
            help="With --text: how alike the parts of a segment are (default: 0.9); "
            "lower gives more segments."
        ),
    ] = None,
    background: Annotated[
        str | None,
        typer.Option(help="With --text: what surrounds it (default: background)."),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            help="With --text: side of the square that is looked at, in pixels; "
            "smaller finds smaller things."
        ),
    ] = None,
    segments: Annotated[
        Path | None, typer.Option(help="With --text: all segments go here (.tif).")
    ] = None,
    objects: Annotated[
        bool,
        typer.Option(
            "--objects", help="With --text: each part that stands alone is an object."
        ),
    ] = False,
    idea: Annotated[
        int,
        typer.Option(
            help="SAM's likeliest mask is 1, the next 2, as in Annotate.", min=1
        ),
    ] = 1,
    at: Annotated[
        str | None,
        typer.Option("--slice", help="Of a stack: its slice, from 0 (time,depth)."),
    ] = None,
    channel: Annotated[
        int | None, typer.Option(help="SAM sees this channel alone, from 0.", min=0)
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file that is there.")
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Have SAM outline the objects of clicks and boxes: the same labels as Annotate.

    Rows and columns are in pixels, counted from 0, as napari shows them below the
    image. All clicks are on one object, unless there is --each; each box is an object.
    With --text, a diffusion model says what a phrase means.
    """
    with sentences(as_json=as_json):
        check_out(out, (".tif", ".tiff"), (image,), overwrite=overwrite)
        clicks = numbers(points, "--points", CLICK)
        others = numbers(negative, "--negative", CLICK)
        given = {
            "model": model,
            "tau": tau,
            "background": background,
            "window": window,
        }
        if text is not None:
            check_use(boxes=boxes, each=each, idea=idea)
            if segments is not None:
                tifs = (".tif", ".tiff")
                check_out(segments, tifs, (image, out), overwrite=overwrite)
            config = settings_of(text, **given)
            places = (clicks, others, at, channel, segments)
            by_phrase(
                Asked(image, out, config, *places, objects=objects, device=device),
                as_json=as_json,
            )
            return
        _refuse_alone(given | {"segments": segments, "objects": objects or None})
        framed = numbers(boxes, "--boxes", BOX)
        groups = _groups(clicks, others, framed, each=each)

        from napari_medseg.io.images import read_image
        from napari_medseg.models.backbone import load_backbone
        from napari_medseg.models.prompted import segment_prompts

        file = seen_channel(read_image(image), channel)
        index = slice_of(file, at)
        prompts = [_prompt(file, *group) for group in groups]
        pixels = file.region(index)
        backbone = load_backbone(sam)
        job = segment_prompts(
            pixels, prompts, backbone, device, rgb=file.rgb, idea=idea
        )
        found = follow(job, quiet=as_json)
        write_slice(out, file, index, found.labels)
    _tell(found, sam, out, as_json=as_json)


def _groups(
    clicks: Numbers, others: Numbers, boxes: Numbers, *, each: bool
) -> list[tuple[Numbers, Numbers, list[float] | None]]:
    """Return clicks on, clicks beside and the box of each object."""
    if not clicks and not others and not boxes:
        raise InputError("Say where the objects are, with --points or --boxes.")
    if each and (others or boxes):
        raise InputError(
            "With --each every click of --points is an object of its own: leave "
            "--negative and --boxes out."
        )
    if each:
        return [([click], [], None) for click in clicks]
    if len(boxes) > 1:
        if clicks or others:
            raise InputError(
                "Each box is an object of its own, so nobody can tell to which the "
                "clicks belong. Give one box with clicks, or boxes alone."
            )
        return [([], [], box) for box in boxes]
    return [(clicks, others, boxes[0] if boxes else None)]


def _prompt(
    image: ImageFile, clicks: Numbers, others: Numbers, box: list[float] | None
) -> Prompt:
    """Return what SAM is asked, once it is known to lie on the image."""
    from napari_medseg.models.clicks import Prompt

    height, width = image.size
    inside = f"rows 0 to {height - 1} and columns 0 to {width - 1}"
    for row, column in (*clicks, *others):
        if not (-0.5 <= row < height - 0.5 and -0.5 <= column < width - 0.5):
            raise InputError(
                f"The click {row:g},{column:g} is outside the image, which has "
                f"{inside}. The row comes first."
            )
    if box is not None:
        top, left, bottom, right = box
        told = ",".join(f"{edge:g}" for edge in box)
        if bottom < top or right < left:
            raise InputError(
                f"The box {told} ends before it begins; give top,left,bottom,right."
            )
        if bottom < 0 or right < 0 or top > height - 1 or left > width - 1:
            raise InputError(
                f"The box {told} is outside the image, which has {inside}."
            )
        # as a box that is drawn beyond the image in the viewer
        far = np.array([height - 1, width - 1] * 2)
        box = np.clip(box, 0, far).tolist()
    whether = [True] * len(clicks) + [False] * len(others)
    return Prompt.of_clicks([*clicks, *others], whether, box)


def _refuse_alone(given: dict[str, Any]) -> None:
    """Refuse options that say nothing to SAM."""
    for name, value in given.items():
        if value is not None:
            raise InputError(f"--{name} is for a phrase: add --text, or leave it out.")


def write_slice(
    out: Path, image: ImageFile, index: dict[str, int], found: LabelArray
) -> None:
    """Write labels with the axes of the image: of a stack, 0 on other slices.

    Parameters
    ----------
    out : Path
        The file.
    image : ImageFile
        Whose axes and scale the file gets.
    index : dict of str to int
        The slice.
    found : ndarray
        ``int32 (Y, X)`` of the slice.
    """
    from napari_medseg.io.images import write_labels

    axes = image.axes.replace("C", "")
    shape = [image.data.shape[image.axes.index(letter)] for letter in axes]
    labels = np.zeros(shape, found.dtype)
    labels[tuple(index.values())] = found
    write_labels(out, labels, axes=axes, scale=image.scale, units=image.units)


def _tell(found: Prompted, sam: str, out: Path, *, as_json: bool) -> None:
    """Say what was found."""
    sizes = np.bincount(found.labels.ravel(), minlength=len(found.scores) + 1)[1:]
    rows: list[dict[str, Any]] = [
        {"label": label, "area_px": int(size), "score": round(score, 4)}
        for label, (size, score) in enumerate(
            zip(sizes, found.scores, strict=True), start=1
        )
    ]
    empty = [str(row["label"]) for row in rows if not row["area_px"]]
    if as_json:
        print_json({"labels": str(out), "sam": sam, "objects": rows})
    else:
        for row in rows:
            typer.echo(
                f"Object {row['label']}: {row['area_px']} pixels; SAM expects an IoU "
                f"of {row['score']:.2f}."
            )
        typer.echo(f"Labels: {out}")
    if empty:
        typer.echo(
            f"Note: nothing is left of object {', '.join(empty)}: SAM found nothing "
            "there, or a later object lies on top.",
            err=True,
        )
