"""Folders: thousands of images, one that does not fit into memory, and kills.

    python benchmarks/batch.py folder --data DIR [--count 10000] [--minutes M]
    python benchmarks/batch.py large --data DIR [--side 20000]
    python benchmarks/batch.py kills --data DIR [--count 20]

Each takes ``--quick``, and puts its figures into ``benchmarks/results/batch.json``.
With ``--work DIR`` images and results are kept there, and `folder` goes on where it was
stopped. The share of the bare model's rate and the memory mean something on a busy
computer, too; seconds do not.
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import folder as folders
import kills as killing
import large as larges
import typer

from napari_medseg.batch import BatchSettings
from napari_medseg.instances import ObjectConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer(add_completion=False)

RESULTS = Path(__file__).parent / "results" / "batch.json"

Data = Annotated[Path, typer.Option(help="Folder of the data sets.")]
Work = Annotated[Path | None, typer.Option(help="Folder for images and results.")]
Model = Annotated[str, typer.Option(help="The segmenter.")]
Quick = Annotated[bool, typer.Option("--quick", help="A small version.")]
Out = Annotated[Path, typer.Option("--json", help="Where the figures go.")]


@app.command()
def folder(
    data: Data,
    count: Annotated[int, typer.Option(help="Images.")] = 10_000,
    side: Annotated[int, typer.Option(help="Side of each, in pixels.")] = 128,
    model: Model = "nuclei-fluo",
    objects: Annotated[
        bool, typer.Option(help="Find objects, and write their table.")
    ] = False,
    minutes: Annotated[float | None, typer.Option(help="When to stop.")] = None,
    work: Work = None,
    quick: Quick = False,
    json_path: Out = RESULTS,
) -> None:
    """Measure a folder of small images."""
    settings = BatchSettings(
        model,
        "cpu",
        objects=ObjectConfig() if objects else None,
        formats=("csv",) if objects else (),
    )
    with place(work) as root:
        images = root / "images"
        folders.write_images(data, images, 200 if quick else count, side)
        out = root / f"labels {model}{' objects' if objects else ''}"
        found = folders.measure(images, out, settings, minutes)
    found = {"model": model, "side": side, "objects": objects} | found
    name = f"folder {model}{' objects' if objects else ''}{' quick' if quick else ''}"
    keep(json_path, name, found)
    typer.echo(
        f"{found['images']} images of {side} × {side}, {model}: {found['rate']:.1f} "
        f"images/s, {found['share']:.0%} of the bare model's {found['bare_rate']:.1f} "
        f"({found['cpu_share']:.0%} by the time of the processor); memory grew by "
        f"{found['growth_mb']:.0f} MB from the first tenth "
        f"({found['first_tenth_mb']:.0f} MB) on; {found['failed']} failed."
    )


@app.command()
def large(
    data: Data,
    side: Annotated[int, typer.Option(help="Side of the image, in pixels.")] = 20_000,
    model: Model = "nuclei-fluo",
    work: Work = None,
    quick: Quick = False,
    json_path: Out = RESULTS,
) -> None:
    """Measure an image that does not fit into memory."""
    side = 9_000 if quick else side
    with place(work) as root:
        found = larges.measure(data, root / str(side), side, model)
    keep(json_path, f"large {model} {side}", found)
    typer.echo(
        f"{side} × {side}, {model}: {found['seconds']:.0f} s, {found['objects']} "
        f"objects, {found['above_the_model_gb']:.2f} GB above the model."
    )


@app.command()
def kills(
    data: Data,
    count: Annotated[int, typer.Option(help="Kills.")] = 20,
    images: Annotated[int, typer.Option(help="Images.")] = 40,
    model: Model = "nano",
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
    quick: Quick = False,
    json_path: Out = RESULTS,
) -> None:
    """Kill a run again and again."""
    # each process has one thread: several of them share few processors
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with place(None) as root:
        folders.write_images(data, root / "images", images, 128)
        number = 4 if quick else count
        found = killing.measure(root / "images", root, model, number, seed)
    keep(json_path, f"kills {model}{' quick' if quick else ''}", found)
    typer.echo(
        f"{len(found['kills'])} kills of {model} on {images} images, "
        f"{found['with_images_in_work']} of them with images in work: "
        f"{found['faults'] or 'all outputs as undisturbed, none lost, none twice'}."
    )
    if found["faults"]:
        raise typer.Exit(1)


@contextmanager
def place(work: Path | None) -> Iterator[Path]:
    """Give the folder to work in."""
    if work is not None:
        yield work
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def keep(path: Path, name: str, found: dict[str, Any]) -> None:
    """Put figures beside those that are there."""
    every = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(every | {name: found}, indent=1) + "\n")


if __name__ == "__main__":
    app()
