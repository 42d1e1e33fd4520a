"""``napari-medseg evaluate``: label images against annotations."""

from __future__ import annotations

import math
from pathlib import Path  # noqa: TC003  (read by typer)
from typing import TYPE_CHECKING, Annotated

import typer

from napari_medseg._types import InputError
from napari_medseg.cli.console import (
    FAILED,
    follow,
    print_json,
    print_table,
    sentences,
)
from napari_medseg.cli.models import Json  # noqa: TC001  (read by typer)
from napari_medseg.cli.places import check_out
from napari_medseg.cli.run_file import LAYOUTS, check_layout
from napari_medseg.io.idrid import LAYOUT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_medseg._types import Job
    from napari_medseg.evaluation import Evaluation

NAMED = 3
"""Files without a partner that are named one by one."""


def evaluate(
    pred: Annotated[
        Path,
        typer.Option(
            help="Folder of label images to score; with probabilities in it, AUPR too."
        ),
    ],
    truth: Annotated[
        Path, typer.Option(help="Folder of annotations, or that of the layout.")
    ],
    instances: Annotated[
        bool, typer.Option("--instances", help="Score objects too: AP and PQ.")
    ] = False,
    ignore: Annotated[
        int | None, typer.Option(help="Value of unlabelled pixels in the truth.")
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            help="pairs, or idrid: retinal lesions in the folders of IDRiD, which "
            "--truth names."
        ),
    ] = LAYOUTS[0],
    out: Annotated[
        Path | None, typer.Option(help="A table to write, too (.csv, .parquet).")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the table that is there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Score label images against annotations, an image at a time and on average."""
    with sentences(as_json=as_json):
        if out is not None:
            check_out(out, (".csv", ".parquet"), (), overwrite=overwrite)
        job = _evaluating(pred, truth, layout, instances=instances, ignore=ignore)
        result = follow(job, quiet=as_json)
        if out is not None:
            _write(out, result)
    if as_json:
        print_json(result.to_dict())
    else:
        _print_evaluation(result)
    for reason in result.failures.values():
        typer.echo(f"Failed: {reason}", err=True)
    _tell_unmatched(result.unmatched)
    if layout == LAYOUT and not result.pooled:
        typer.echo(
            "Note: there are no probabilities, so no AUPR; segment --probabilities "
            "writes them.",
            err=True,
        )
    if result.failures:
        raise typer.Exit(FAILED)


def _tell_unmatched(names: Sequence[str]) -> None:
    """Say which files were not scored; of many, the first ones and how many more."""
    for name in names[:NAMED]:
        typer.echo(f"Note: {name} has no partner in the other folder.", err=True)
    if len(names) > NAMED:
        more = len(names) - NAMED
        typer.echo(f"Note: nor have {more} more; --json names all.", err=True)


def _evaluating(
    pred: Path, truth: Path, layout: str, *, instances: bool, ignore: int | None
) -> Job[Evaluation]:
    """Return the job that scores folders of a layout."""
    check_layout(layout)
    if layout != LAYOUT:
        from napari_medseg.evaluation import evaluate_folders

        return evaluate_folders(pred, truth, instances=instances, ignore=ignore)
    if instances or ignore is not None:
        raise InputError(
            "--instances and --ignore are for masks with one value a pixel; those of "
            "IDRiD are a mask a kind of lesion. Leave them out."
        )
    from napari_medseg.lesion_evaluation import evaluate_idrid

    return evaluate_idrid(pred, truth)


def _print_evaluation(result: Evaluation) -> None:
    """Print a row an image, the means, and a row a class where there are several."""
    mean, pooled = result.mean, result.pooled
    names = [name for name in mean if not any(_is_of(name, each) for each in mean)]
    rows = [[image, *_told(row, names)] for image, row in result.per_image.items()]
    rows.append(["mean", *_told(mean, names)])
    if pooled:
        rows.append(["all pixels", *_told(pooled, names)])
    print_table(["image", *names], rows)
    classes = [name.removeprefix("dice_") for name in mean if _is_of(name, "dice")]
    if not classes:
        return
    rows = [
        [each, *_told(mean, [f"{name}_{each}" for name in names])] for each in classes
    ]
    more = ["aupr of all pixels"] if pooled else []
    for row, each in zip(rows, classes, strict=True):
        row += _told(pooled, [f"aupr_{each}"] if pooled else [])
    print_table(["class", *names, *more], rows)


def _is_of(name: str, score: str) -> bool:
    """Tell whether a name is that of a score of a single class."""
    return name.startswith(f"{score}_")


def _told(scores: Mapping[str, float], names: list[str]) -> list[str]:
    """Return scores as they are shown, ``-`` where there is none."""
    found = [scores.get(name, math.nan) for name in names]
    return ["-" if math.isnan(score) else f"{score:.3f}" for score in found]


def _write(out: Path, result: Evaluation) -> None:
    """Write a table with a row an image."""
    import pandas as pd

    from napari_medseg.io.exports import write_table

    rows = [{"image": image, **row} for image, row in result.per_image.items()]
    write_table(out, pd.DataFrame(rows, columns=["image", *result.mean]))
