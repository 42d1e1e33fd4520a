"""The command ``napari-medseg``."""

from __future__ import annotations

import logging

import typer

from napari_medseg._threads import share_processors
from napari_medseg.cli import models, run
from napari_medseg.cli.compare import compare
from napari_medseg.cli.estimate import estimate
from napari_medseg.cli.evaluate import evaluate
from napari_medseg.cli.measure import measure
from napari_medseg.cli.pretrain import pretrain
from napari_medseg.cli.prompt import prompt
from napari_medseg.cli.segment import segment

app = typer.Typer(
    name="napari-medseg",
    help="Tune SAM on about 16 annotated images with 2,048 numbers, and segment the "
    "rest.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.command()(run.demo)
app.command()(run.train)
app.command()(segment)
app.command()(prompt)
app.command()(measure)
app.command()(evaluate)
app.command()(estimate)
app.command()(compare)
app.command()(pretrain)
app.add_typer(models.app, name="models")


def main() -> None:
    """Run the command line."""
    share_processors()
    # what readers log of a damaged file, this program says in a sentence
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    app()
