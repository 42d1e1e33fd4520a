"""``napari-medseg segment``: folders of images, here or on a cluster."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path  # noqa: TC003  (read by typer)
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_medseg._types import InputError
from napari_medseg.cli.console import FAILED, follow, print_json, sentences
from napari_medseg.cli.models import Json  # noqa: TC001
from napari_medseg.cli.phrase import settings_of
from napari_medseg.cli.places import SeenChannels, channels_of
from napari_medseg.cli.run import Device  # noqa: TC001
from napari_medseg.models.registry import everything_sam

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_medseg._types import Job
    from napari_medseg.batch import BatchReport, BatchSettings

OF_OBJECTS = ("split", "seed_distance", "neck", "fill_holes")
"""Settings that classes do not have."""


def segment(
    inputs: Annotated[
        list[Path], typer.Argument(help="Images, folders and patterns (a*/*.tif).")
    ],
    model: Annotated[
        str, typer.Option(help="A .medseg file, or a name of `models list`.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    text: Annotated[
        str | None,
        typer.Option(
            help="With a diffusion model as --model: what to look for, such as "
            '"infected wound".'
        ),
    ] = None,
    instances: Annotated[
        bool, typer.Option("--instances", help="Write objects in place of classes.")
    ] = False,
    split: Annotated[
        str | None,
        typer.Option(help="How touching objects are cut: watershed, components."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Probability above which is object.", min=0, max=1),
    ] = None,
    min_size: Annotated[
        int | None,
        typer.Option(help="Smaller objects or islands, in pixels, are dropped.", min=0),
    ] = None,
    smoothing: Annotated[
        float | None,
        typer.Option(help="Blur, in pixels, of what is followed.", min=0, max=50),
    ] = None,
    seed_distance: Annotated[
        float | None,
        typer.Option(
            help="Centres nearer than this, in pixels, are one object.", min=0, max=1000
        ),
    ] = None,
    neck: Annotated[
        float | None,
        typer.Option(
            help="Objects are cut where narrower than this share of the smaller part.",
            min=0.05,
            max=0.99,
        ),
    ] = None,
    fill_holes: Annotated[
        bool | None, typer.Option(help="Fill the holes in objects (default: yes).")
    ] = None,
    export: Annotated[
        str | None,
        typer.Option(
            help="Write also, with commas between: csv, parquet, geojson, roi, coco, "
            "ome-zarr."
        ),
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write class probabilities, too.")
    ] = False,
    masks: Annotated[
        bool,
        typer.Option(
            "--masks", help="Write a mask of each class, too, where classes overlap."
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes; each has the model in its own memory (default: 1).", min=1
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(help="Address or file of a Dask scheduler, to use its workers."),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Go on with images as they are written, until Ctrl-C."
        ),
    ] = False,
    redo: Annotated[
        bool,
        typer.Option(
            "--redo", help="Do again what another model or other settings made."
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Do all again; replace labels of others, too."
        ),
    ] = False,
    references: Annotated[
        Path | None,
        typer.Option(
            help="Annotated images (a folder with images and masks in it): predict the "
            "quality of each result by them."
        ),
    ] = None,
    reference_masks: Annotated[
        Path | None, typer.Option(help="Folder of the masks of --references.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="What the model was tuned on, if it is not found: checkpoint of a "
            "SAM, or the model file that a channel was added to."
        ),
    ] = None,
    channels: SeenChannels = None,
    alone: Annotated[
        str | None,
        typer.Option(
            help="For a model that a channel was added to: see the old channel alone, "
            "or the new one alone (old, new)."
        ),
    ] = None,
    mirrored: Annotated[
        bool,
        typer.Option(
            "--mirrored",
            help="See each image mirrored in four ways and take the mean: mostly a "
            "little better, four times as long.",
        ),
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Segment images and folders; running it again does what is still missing."""
    with sentences(as_json=as_json), _told_to_go_on():
        from napari_medseg.batch import BatchSettings

        if workers is not None and cluster is not None:
            raise InputError(
                "--workers are processes of this computer; with --cluster, the "
                "workers are those of the cluster. Give one of the two."
            )
        choices = {
            "split": split,
            "threshold": threshold,
            "min_size": min_size,
            "smoothing": smoothing,
            "seed_distance": seed_distance,
            "neck": neck,
            "fill_holes": fill_holes,
        }
        if text is not None:
            model = settings_of(text, model=model).name
        if instances:
            _note_idle(model, choices)
        settings = BatchSettings(
            model=model,
            device=device,
            base=base,
            channels=channels_of(channels),
            alone=alone or "",
            mirrored=mirrored,
            formats=tuple(filter(None, (export or "").replace(",", " ").split())),
            probabilities=probabilities,
            masks=masks,
            references=None if references is None else str(references),
            reference_masks=None if reference_masks is None else str(reference_masks),
            **_labels(choices, instances=instances),
        )
        how = {
            "workers": workers or 1,
            "cluster": cluster,
            "redo": redo,
            "overwrite": overwrite,
            "command": _command(),
        }
        with _job(inputs, out, settings, how, watch=watch) as job:
            report = follow(job, quiet=as_json)
    _tell(report, out, as_json=as_json)


def _labels(choices: dict[str, Any], *, instances: bool) -> dict[str, Any]:
    """Return the settings of objects or of classes that were given."""
    from napari_medseg.object_settings import ClassConfig, ObjectConfig

    given = {name: value for name, value in choices.items() if value is not None}
    if instances:
        return {"objects": ObjectConfig(**given)}
    for name in OF_OBJECTS:
        if name in given:
            option = name.replace("_", "-")
            raise InputError(f"--{option} is for objects: add --instances.")
    return {"classes": ClassConfig(**given)}


def _note_idle(model: str, choices: dict[str, Any]) -> None:
    """Say which settings change nothing, as the model finds objects itself."""
    from napari_medseg.object_settings import OF_FOUND_OBJECTS

    if everything_sam(model) is None:
        return
    for name, value in choices.items():
        if value is not None and name not in OF_FOUND_OBJECTS:
            option = name.replace("_", "-")
            told = f"--{option} changes nothing: SAM finds these objects one by one."
            typer.echo(f"Note: {told}", err=True)


@contextmanager
def _job(
    inputs: list[Path],
    out: Path,
    settings: BatchSettings,
    how: dict[str, Any],
    *,
    watch: bool,
) -> Iterator[Job[BatchReport]]:
    """Give the job that does what was asked for."""
    from napari_medseg.batch import segment_batch, watch_batch

    if not watch:
        yield segment_batch(inputs, out, settings, **how)
        return
    with _until_ctrl_c() as stopped:
        typer.echo(f"Waiting for images; Ctrl-C ends it. Results: {out}", err=True)
        yield watch_batch(inputs, out, settings, stopped, **how)


@contextmanager
def _until_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C end what is done in good order; a second one ends it at once."""
    stop = Event()

    def end(*_: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield stop.is_set
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _told_to_go_on() -> Iterator[None]:
    """Say after an interruption that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("What was done is kept; the same command goes on.", err=True)
        raise


def _command() -> str:
    """Return the command that was given, as the terminal takes it."""
    words = ["napari-medseg", *sys.argv[1:]]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _tell(report: BatchReport, out: Path, *, as_json: bool) -> None:
    """Say what became of the images; end by what went wrong."""
    if as_json:
        print_json(report.to_dict())
    else:
        typer.echo(
            f"{len(report.done)} segmented, {len(report.skipped)} were there already, "
            f"{len(report.failed)} failed; labels are in {out}."
        )
        typer.echo(f"Report: {report.report}")
    images = defaultdict(list)
    for name, note in report.notes.items():
        images[note].append(name)
    for note, names in images.items():
        more = f" and {len(names) - 1} more" if names[1:] else ""
        typer.echo(f"Note: {names[0]}{more}: {note}", err=True)
    for reason in report.failed.values():
        typer.echo(f"Failed: {reason}", err=True)
    if report.failed:
        raise typer.Exit(FAILED)
