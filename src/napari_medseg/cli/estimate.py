"""``napari-medseg estimate``: predicted quality of images nobody annotated."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  (read by typer)
from typing import TYPE_CHECKING, Annotated

import typer

from napari_medseg._config import from_dict
from napari_medseg.cli.console import (
    FAILED,
    follow,
    print_json,
    print_table,
    sentences,
)
from napari_medseg.cli.models import Json  # noqa: TC001
from napari_medseg.cli.places import SeenChannels, channels_of
from napari_medseg.cli.run import Device  # noqa: TC001

if TYPE_CHECKING:
    from napari_medseg.quality.estimating import Estimate
    from napari_medseg.quality.line import Predicted


def estimate(
    images: Annotated[Path, typer.Option(help="Folder of images without masks.")],
    model: Annotated[
        str, typer.Option(help="A .medseg file, or a name of `models list`.")
    ],
    references: Annotated[
        Path,
        typer.Option(
            help="Annotated images: a folder with images and masks in it, or a folder "
            "of images with --reference-masks."
        ),
    ],
    reference_masks: Annotated[
        Path | None, typer.Option(help="Folder of the masks of --references.")
    ] = None,
    annotation: Annotated[
        str,
        typer.Option(help="What the masks hold: auto, dense, sparse or instances."),
    ] = "auto",
    ignore: Annotated[
        int | None, typer.Option(help="Mask value of unlabelled pixels.")
    ] = None,
    annotate_next: Annotated[
        int,
        typer.Option(
            "--next",
            help="Name so many images to annotate next: bad and unlike.",
            min=0,
        ),
    ] = 0,
    confidence: Annotated[
        float,
        typer.Option(
            help="Share of true values that an interval shall hold.", min=0.5, max=0.99
        ),
    ] = 0.9,
    compared: Annotated[
        int, typer.Option(help="References each result is compared with.", min=1)
    ] = 16,
    channels: SeenChannels = None,
    base: Annotated[
        str | None, typer.Option(help="Checkpoint of the SAM the model was tuned on.")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Segment images without masks; predict how good the results are, worst first."""
    with sentences(as_json=as_json):
        from napari_medseg.quality.settings import QualitySettings
        from napari_medseg.reviewing import References, estimate_folder

        given = {"confidence": confidence, "compared": compared, "device": device}
        settings = from_dict(QualitySettings, given, "the command line")
        job = estimate_folder(
            images,
            model,
            References(references, reference_masks, annotation, ignore),
            settings,
            count=annotate_next,
            base=base,
            channels=channels_of(channels),
        )
        result = follow(job, quiet=as_json)
    if as_json:
        print_json(result.to_dict())
    else:
        _tell(result)
    for reason in result.failures.values():
        typer.echo(f"Failed: {reason}", err=True)
    if result.failures:
        raise typer.Exit(FAILED)


def _tell(result: Estimate) -> None:
    """Print the table, the worst first, and what it rests on."""
    rows = [
        [
            name,
            _words(each.predicted["dice"]),
            _words(each.predicted["iou"]),
            _words(each.predicted["hd95"], digits=1),
            f"{each.reverse['dice']:.3f}",
            f"{each.forward['dice']:.3f}",
        ]
        for name, each in result.per_image.items()
    ]
    mean = [_words(result.mean[score]) for score in ("dice", "iou")]
    distance = _words(result.mean["hd95"], digits=1)
    rows.append(["mean", *mean, distance, f"{result.reverse['dice']:.3f}", ""])
    headings = [
        "image",
        "predicted Dice",
        "IoU",
        "HD95",
        "reverse Dice",
        "forward Dice",
    ]
    print_table(headings, rows)
    typer.echo(result.basis)
    for name, each in result.per_image.items():
        if each.note:
            typer.echo(f"Note: {name}: {each.note}", err=True)
    if result.next:
        typer.echo(f"Annotate next: {', '.join(result.next)}")


def _words(predicted: Predicted, digits: int = 2) -> str:
    """Return a predicted score with its interval; nothing where there is none."""
    value, low, high = predicted
    if value != value:
        return ""
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
