"""``napari-medseg compare``: which way to segment suits annotated images."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  (read by typer)
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_medseg._config import from_dict
from napari_medseg._types import InputError
from napari_medseg.cli.console import follow, print_json, print_table, sentences
from napari_medseg.cli.models import Json  # noqa: TC001
from napari_medseg.cli.options import with_config_options
from napari_medseg.cli.places import UsedChannels, channels_of
from napari_medseg.cli.run import today
from napari_medseg.comparing.settings import CompareConfig

if TYPE_CHECKING:
    from napari_medseg.comparing.advice import Comparison


@with_config_options(("napari_medseg.comparing.settings", "CompareConfig"))
def compare(
    images: Annotated[Path, typer.Option(help="Folder of the images (or an image).")],
    masks: Annotated[Path, typer.Option(help="Folder of their annotations.")],
    annotation: Annotated[
        str,
        typer.Option(help="What the masks hold: auto, dense, sparse or instances."),
    ] = "auto",
    ignore: Annotated[
        int | None, typer.Option(help="Mask value of unlabelled pixels.")
    ] = None,
    channels: UsedChannels = None,
    recipes: Annotated[
        str, typer.Option(help="Only these, by commas; by default all that fit.")
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the model files of what was trained."),
    ] = None,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Try several ways to segment on annotated images, and say which to take."""
    with sentences(as_json=as_json):
        names = tuple(name.strip() for name in recipes.split(",") if name.strip())
        given = {**settings, "recipes": names}
        config = from_dict(CompareConfig, given, "the command line")
        _check_out(out)
        from napari_medseg.comparing import trying
        from napari_medseg.io.channel_choice import ChannelChoice
        from napari_medseg.io.pairs import as_annotation, read_pairs

        kind = as_annotation(annotation)
        choice = ChannelChoice(channels_of(channels))
        pairs = read_pairs(
            images, masks, annotation=kind, ignore=ignore, channels=choice
        )
        for finding in pairs.findings:
            typer.echo(f"Note: {finding}", err=True)
        job = trying.compare(pairs, config, date=today())
        found = follow(job, quiet=as_json)
        saved = trying.save_models(found, out) if out is not None else {}
        if as_json:
            files = {name: str(path) for name, path in saved.items()}
            print_json(found.to_dict() | {"models": files})
            return
        _print(found, saved, channels)


def _check_out(out: Path | None) -> None:
    """Refuse a folder that holds something, before any work."""
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not an empty folder; choose another for --out.")


def _print(found: Comparison, saved: dict[str, Path], channels: str | None) -> None:
    """Print the ranked table, and the advice below it."""
    rows = [
        [
            item.recipe.title,
            *(f"{value:.3f}" if value is not None else "" for value in item.figures),
            f"{item.parameters:,}" if item.parameters else "",
            f"{item.seconds:.0f} s",
        ]
        for item in found.tried
        if item.scores
    ]
    print_table(["", "Dice", "PQ", "numbers", "time"], rows)
    for item in found.tried:
        if item.problem:
            typer.echo(f"Not tried: {item.recipe.title}. {item.problem}", err=True)
    typer.echo(found.advice)
    taken = found.chosen.recipe.name
    model = saved.get(taken, taken)
    if found.chosen.model is None or taken in saved:
        # compared by the objects, so that is what is asked for
        more = " --instances" if found.chosen.figures[1] is not None else ""
        # what was trained remembers its channels
        if channels is not None and taken not in saved:
            more += f" --channels {channels}"
        typer.echo(f"napari-medseg segment IMAGES --model {model} --out RESULTS{more}")
    else:
        typer.echo("With --out FOLDER the trained models are kept.")
