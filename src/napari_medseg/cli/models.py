"""``napari-medseg models``: what is there, and how to get more."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_medseg._types import InputError
from napari_medseg.cli.console import follow, print_json, print_table, sentences
from napari_medseg.models import bundled, diffusion_store
from napari_medseg.models.diffusion_registry import DIFFUSIONS, DiffusionEntry
from napari_medseg.models.methods import METHODS
from napari_medseg.models.naming import unknown
from napari_medseg.models.registry import (
    CLASSICAL,
    EVERYTHING,
    SAMS,
    SPECIALISTS,
    SpecialistEntry,
    everything_name,
    everything_sam,
    lookup,
)

app = typer.Typer(
    help="List, describe, fetch, import and export models.", no_args_is_help=True
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
"""The option that makes output machine-readable."""


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List the SAMs, tuned and diffusion models, segmenters and methods."""
    from napari_medseg.models.weights import here, imported, locate

    rows: list[dict[str, Any]] = []
    for entry in SAMS.values():
        found = locate(entry) is not None
        rows.append(_row(entry.name, "SAM", entry.description, found))
    for tuned in SPECIALISTS.values():
        found = bundled.place(tuned.file).is_file()
        kind = "tuned" if tuned.method == "ptsam" else "trained"
        rows.append(_row(tuned.name, f"segmenter ({kind})", tuned.description, found))
    for name, path in imported().items():
        rows.append(_row(name, "SAM (imported)", str(path), True))
    for sam in here():
        rows.append(_row(everything_name(sam), "segmenter", _asking(sam), True))
    for name in dict.fromkeys((*DIFFUSIONS, *diffusion_store.here())):
        rows.append(_diffusion_row(name))
    for classical in CLASSICAL.values():
        rows.append(_row(classical.name, "segmenter", classical.description, True))
    for method in METHODS.values():
        rows.append(_row(method.name, "training method", method.description, True))
    if as_json:
        print_json(rows)
        return
    table = [
        [row["name"], row["kind"], "yes" if row["here"] else "no", row["description"]]
        for row in rows
    ]
    print_table(["name", "kind", "here", "what it is for"], table, figures=False)


def _asking(sam: str) -> str:
    """Describe the segmenter that asks this SAM for all objects."""
    return f"{EVERYTHING.description} By the SAM {sam}."


def _diffusion_row(name: str) -> dict[str, Any]:
    """Return the row of a diffusion model."""
    found = name in diffusion_store.here()
    if name in DIFFUSIONS:
        return _row(name, "diffusion model", DIFFUSIONS[name].description, found)
    kind = "diffusion model (imported)"
    return _row(name, kind, str(diffusion_store.place(name)), found)


def _row(name: str, kind: str, description: str, here: bool) -> dict[str, Any]:
    return {"name": name, "kind": kind, "here": here, "description": description}


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="A name, or a .medseg file.")],
    as_json: Json = False,
) -> None:
    """Show what is known of a model: licence, origin, scores."""
    with sentences(as_json=as_json):
        facts = _facts(model)
        if as_json:
            print_json(facts)
            return
        for name, value in facts.items():
            typer.echo(f"{name}: {value}")


def _facts(model: str) -> dict[str, Any]:
    """Return the card of a model file, or the entry of a name that `list` shows."""
    if Path(model).suffix.lower() == ".medseg":
        return _card(Path(model))
    if model in SPECIALISTS:
        return _specialist(SPECIALISTS[model])
    from napari_medseg.models.weights import imported, locate

    other = CLASSICAL.get(model) or METHODS.get(model)
    if other is not None:
        shown = ("name", "title", "description")
        return {name: getattr(other, name) for name in shown}
    if model in imported():
        note = "An imported checkpoint; ask who made it for its licence."
        return {"name": model, "description": note, "file": str(imported()[model])}
    if model in (*DIFFUSIONS, *diffusion_store.here()):
        return _diffusion(model)
    asked = everything_sam(model)
    if asked is not None and asked in (*SAMS, *imported()):
        return {
            "name": everything_name(asked),
            "title": EVERYTHING.title,
            "description": _asking(asked),
        }
    if model not in SAMS:
        everything = EVERYTHING.name
        names = (*SAMS, *SPECIALISTS, *imported(), everything, *DIFFUSIONS)
        names = (*names, *CLASSICAL, *METHODS)
        raise unknown("model", model, names)
    entry = SAMS[model]
    path = locate(entry)
    facts: dict[str, Any] = {
        "name": entry.name,
        "title": entry.title,
        "description": entry.description,
        "licence": entry.weights.licence,
        "licence_note": entry.weights.licence_note,
        "address": entry.weights.url,
        "sha256": entry.weights.sha256,
        "file": str(path) if path else None,
        "working_size": entry.working_size,
    }
    for name, beside in (("clicks", entry.clicks), ("judge", entry.judge)):
        if beside is not None:
            facts[name] = bundled.card(beside)
    return facts | bundled.card(entry.weights)


def _diffusion(name: str) -> dict[str, Any]:
    """Return what is known of a diffusion model."""
    folder = diffusion_store.place(name)
    entry = DIFFUSIONS.get(name)
    facts: dict[str, Any] = {"name": name}
    if entry is not None:
        facts |= {
            "title": entry.title,
            "description": entry.description,
            "licence": entry.licence,
            "licence_note": entry.licence_note,
            "licence_address": entry.licence_url,
            "bytes": sum(file.bytes or 0 for file in entry.files),
        }
    facts |= diffusion_store.note_of(folder)
    return facts | {"folder": str(folder) if folder.is_dir() else None}


def _card(path: Path) -> dict[str, Any]:
    """Return the card of a model file."""
    import dataclasses

    from napari_medseg.io.model_file import read_card

    return dataclasses.asdict(read_card(path))


def _specialist(entry: SpecialistEntry) -> dict[str, Any]:
    """Return the entry of a tuned model, and the card in its file where it is here."""
    path = bundled.place(entry.file)
    facts: dict[str, Any] = {
        "name": entry.name,
        "title": entry.title,
        "description": entry.description,
        "file": str(path) if path.is_file() else None,
    }
    # the card's own title is the fuller one
    return facts | (_card(path) if path.is_file() else {})


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="vit_b, vit_l, vit_h or sd15.")],
    accept: Annotated[
        bool,
        typer.Option(
            "--accept-licence", help="Agree to the licence without being asked."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Download a SAM or a diffusion model; one that was cut off is continued."""
    from napari_medseg.models.weights import fetch as fetch_job

    with sentences(as_json=as_json):
        if name in DIFFUSIONS:
            _fetch_diffusion(DIFFUSIONS[name], accept=accept, as_json=as_json)
            return
        entry = lookup(name)
        typer.echo(f"{entry.title}: {entry.weights.licence_note}", err=True)
        path = follow(fetch_job(entry), quiet=as_json)
        if as_json:
            print_json({"name": name, "file": str(path)})
        else:
            typer.echo(f"{entry.title} is here: {path}")


def _fetch_diffusion(entry: DiffusionEntry, *, accept: bool, as_json: bool) -> None:
    """Download a diffusion model once its licence is agreed to."""
    typer.echo(f"{entry.title}: {entry.licence_note}", err=True)
    typer.echo(f"The whole licence: {entry.licence_url}", err=True)
    if not accept and not sys.stdin.isatty():
        raise InputError(
            f"The licence of {entry.title} has to be agreed to. Read it, and add "
            "--accept-licence."
        )
    if not accept and not typer.confirm("Do you agree to the licence?", err=True):
        raise InputError("Nothing was downloaded, as the licence was not agreed to.")
    path = follow(diffusion_store.fetch(entry), quiet=as_json)
    if as_json:
        print_json({"name": entry.name, "folder": str(path)})
    else:
        typer.echo(f"{entry.title} is here: {path}")


@app.command("import")
def import_checkpoint(
    file: Annotated[
        Path,
        typer.Argument(
            help="A SAM checkpoint (.pth, .safetensors), or the folder of a diffusion "
            "model in the layout of diffusers."
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Name for a checkpoint or model of your own.")
    ] = None,
    replace: Annotated[
        bool, typer.Option(help="Replace an imported checkpoint of that name.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Import a checkpoint or a diffusion model, for computers without internet."""
    from napari_medseg.models.importing import import_file

    with sentences(as_json=as_json):
        if file.is_dir():
            folder = diffusion_store.import_folder(file, name, replace=replace)
            told = {"name": folder.name, "folder": str(folder)}
            if as_json:
                print_json(told)
            else:
                typer.echo(f"Imported as {folder.name}: {folder}")
            return
        path = import_file(file, name, replace=replace)
        if as_json:
            print_json({"name": path.stem, "file": str(path)})
        else:
            typer.echo(f"Imported as {path.stem}: {path}")


@app.command("export")
def export_model(
    model: Annotated[Path, typer.Argument(help="A tuned model (.medseg).")],
    out: Annotated[Path, typer.Option(help="The package to write (.zip).")],
    author: Annotated[
        list[str] | None,
        typer.Option(help="Who made the model; once for each author."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Checkpoint of the SAM the model was tuned on.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the package if it exists.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write a tuned model as a BioImage.IO package, for other programs."""
    with sentences(as_json=as_json):
        from napari_medseg.exchange import export_bioimageio

        job = export_bioimageio(
            model, out, authors=author or (), base=base, overwrite=overwrite
        )
        done = follow(job, quiet=as_json)
        if as_json:
            print_json(done.to_dict())
            return
        for warning in done.warnings:
            typer.echo(f"Note: {warning}", err=True)
        typer.echo(f"{done.path} is a BioImage.IO package.")
