"""``demo`` and ``train``."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_medseg._config import config_class, from_dict
from napari_medseg._types import InputError
from napari_medseg.cli.console import follow, print_json, print_table, sentences
from napari_medseg.cli.models import Json  # noqa: TC001  (read by typer)
from napari_medseg.cli.options import with_config_options
from napari_medseg.cli.places import UsedChannels, channels_of
from napari_medseg.cli.run_file import RunFile
from napari_medseg.io.idrid import LAYOUT
from napari_medseg.models.methods import METHODS, lookup_method

if TYPE_CHECKING:
    from napari_medseg.io.pairs import Pairs

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]


def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with images and masks; else images are generated."),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder for model files and overlays.")
    ] = Path("medseg-demo"),
    sam: Annotated[str, typer.Option(help="The SAM to tune.")] = "nano",
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0)] = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Tune on 16 annotated images, segment others, and say how it went."""
    with sentences(as_json=as_json):
        from napari_medseg.demo import folder_task, generated_tasks, run_demo
        from napari_medseg.training.prompt_tuning import PromptTuning

        tasks = [folder_task(data)] if data else generated_tasks(seed)
        config = PromptTuning(sam=sam, seed=seed, device=device)
        results = follow(run_demo(tasks, out, config), quiet=as_json)
        count = len(results)
        mean = {
            name: round(sum(getattr(item, name) for item in results) / count, 4)
            for name in ("dice", "untuned", "otsu")
        }
        seconds = round(sum(item.seconds for item in results), 2)
        if as_json:
            tasks_json = {item.name: item.to_dict() for item in results}
            print_json({**mean, "seconds": seconds, "tasks": tasks_json})
            return
        rows = [
            [
                item.name,
                f"{item.dice:.3f}",
                f"{item.untuned:.3f}",
                f"{item.otsu:.3f}",
                str(item.images),
                f"{item.seconds:.0f} s",
            ]
            for item in results
        ]
        headings = ["Dice of", "tuned", "untuned", "Otsu", "images", "tuning"]
        print_table(headings, rows)
        typer.echo(f"Model files and overlays are in {out}.")


@with_config_options(*(method.config for method in METHODS.values()))
def train(
    out: Annotated[Path, typer.Option(help="The model file to write (.medseg).")],
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images (or an image).")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of their annotations.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help=f"One of {', '.join(METHODS)}.")
    ] = None,
    annotation: Annotated[
        str | None,
        typer.Option(help="What the masks hold: auto, dense, sparse or instances."),
    ] = None,
    ignore: Annotated[
        int | None, typer.Option(help="Mask value of unlabelled pixels.")
    ] = None,
    channels: UsedChannels = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help="pairs, or idrid: retinal lesions in the folders of IDRiD, which "
            "--images names."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Run file of a training to repeat.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Folder of checkpoints: go on where a killed run stopped."),
    ] = None,
    suspects: Annotated[
        Path | None,
        typer.Option(
            help="Folder for images of suspect labels (with --label-noise spatial)."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the model file if it exists.")
    ] = False,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Train on annotated images; writes the model file and a run file beside it."""
    with sentences(as_json=as_json):
        from napari_medseg.api import train_job
        from napari_medseg.training.conduct import Conduct

        run_path = _check_out(out, config, overwrite=overwrite)
        given = {
            "images": images,
            "masks": masks,
            "method": method,
            "annotation": annotation,
            "ignore": ignore,
            "channels": channels,
            "layout": layout,
        }
        run = RunFile.assemble(config, given, settings, today())
        kind = config_class(lookup_method(run.method).config)
        chosen = from_dict(kind, run.config, str(config or "the command line"))
        _check_suspects(suspects, chosen)
        pairs = _read(run)
        for finding in pairs.findings:
            typer.echo(f"Note: {finding}", err=True)
        job = train_job(pairs, chosen, Conduct(run.date, resume))
        trained = follow(job, quiet=as_json)
        from napari_medseg.io.model_file import save

        save(out, trained.model_file)
        run.done(trained.config).save(run_path)
        if suspects is not None:
            from napari_medseg.training.suspects import write_suspects

            write_suspects(suspects, trained.suspects, pairs)
        report = trained.report.to_dict()
        report |= {
            "model": str(out),
            "run_file": str(run_path),
            "bytes": out.stat().st_size,
        }
        if as_json:
            print_json(report)
            return
        _print_training(trained.report, out, run_path)


def today() -> str:
    """Return the date of today; a run file keeps it, so that a replay has the same."""
    return datetime.date.today().isoformat()


def _check_out(out: Path, config: Path | None, *, overwrite: bool) -> Path:
    """Refuse what cannot be written, before any work; return the run file's path."""
    if out.suffix.lower() != ".medseg":
        raise InputError(f"{out} must end in .medseg, the ending of model files.")
    folder = out.absolute().parent
    if not folder.is_dir():
        raise InputError(f"The folder {folder} does not exist; make it.")
    run_path = out.with_suffix(".run.yaml")
    for path in (out, run_path):
        if path.is_dir() or not os.access(folder, os.W_OK):
            raise InputError(f"{path} cannot be written; choose another name.")
        repeated = config is not None and path.absolute() == config.absolute()
        if path.exists() and not overwrite and not repeated:
            raise InputError(f"{path} exists; choose another name, or add --overwrite.")
    return run_path


def _read(run: RunFile) -> Pairs:
    """Read the annotated images of a run."""
    if run.layout == LAYOUT and run.channels is not None:
        raise InputError(
            "--channels is of pairs of images and masks; photographs of --layout idrid "
            "are seen in colour. Leave it out."
        )
    if run.layout == LAYOUT:
        from napari_medseg.io.idrid import read_idrid

        return read_idrid(Path(run.images))
    from napari_medseg.io.channel_choice import ChannelChoice
    from napari_medseg.io.pairs import read_pairs

    return read_pairs(
        run.images,
        run.masks,
        annotation=run.annotation,
        ignore=run.ignore,
        channels=ChannelChoice(channels_of(run.channels)),
    )


def _check_suspects(folder: Path | None, config: Any) -> None:
    """Refuse a folder for suspect labels where there will be none."""
    if folder is None:
        return
    if getattr(config, "label_noise", "none") == "none":
        raise InputError(
            "--suspects writes which labels look wrong, which only a training with "
            "--label-noise spatial finds out. Add it, or leave --suspects out."
        )
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; choose a folder for suspect labels.")


def _print_training(report: Any, out: Path, run_path: Path) -> None:
    """Say how a training went."""
    if report.held_out is not None:
        tuned = report.held_out
        other = ""
        if report.compared is not None:
            name, scores = report.compared
            other = f" ({name}: {scores.dice:.3f})"
        typer.echo(
            f"Held-out Dice {tuned.dice:.3f} ± {tuned.dice_sd:.3f} on {tuned.images} "
            f"images that were not trained on{other}."
        )
    for mode, scores in report.alone.items():
        typer.echo(f"With the {mode} channel alone: Dice {scores.dice:.3f}.")
    if report.classes:
        columns = ("dice", "aupr", "lesion_recall", "threshold")
        rows = [
            [name, *(_shown(scores.get(each)) for each in columns)]
            for name, scores in report.classes.items()
        ]
        print_table(["class", "Dice", "AUPR", "lesions found", "threshold"], rows)
    for warning in report.warnings:
        typer.echo(f"Warning: {warning}", err=True)
    typer.echo(
        f"{report.parameters:,} numbers trained in {report.seconds:.0f} s; "
        f"{out} has {out.stat().st_size:,} bytes. {run_path} repeats the training."
    )


def _shown(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.3f}"
