"""``napari-medseg pretrain``: an encoder from images that nobody annotated."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from napari_medseg._config import from_dict, to_dict
from napari_medseg._types import InputError
from napari_medseg.cli.console import follow, print_json, sentences
from napari_medseg.cli.models import Json  # noqa: TC001  (read by typer)
from napari_medseg.cli.options import with_config_options
from napari_medseg.cli.places import UsedChannels, channels_of, check_out
from napari_medseg.cli.run import today
from napari_medseg.cli.run_file import FORMAT, check_channels, check_values, read_yaml
from napari_medseg.io.atomic import atomic_path
from napari_medseg.models.methods import NETWORKS

if TYPE_CHECKING:
    from napari_medseg.training.pretraining import PretrainingResult

SETTINGS = ("napari_medseg.training.pretraining_settings", "Pretraining")
"""Where the config is."""

ENDING = ".safetensors"
"""Of the file that is written."""


@dataclass(frozen=True)
class PretrainingRun:
    """A run file: a pretraining written down so that it can be repeated.

    Attributes
    ----------
    pretrain : str
        What is pretrained.
    images : str
        Folder.
    channels : str or None
        Channels of the images that are used, from 0, such as ``2``; None for all.
    date : str
        Of the first run; the card has it.
    config : dict
        Settings.
    format : int
        Version of the format.
    """

    pretrain: str
    images: str
    channels: str | None = None
    date: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @classmethod
    def read(cls, path: Path) -> dict[str, Any]:
        """Read the values of a run file, and refuse what is none."""
        values = read_yaml(path)
        known = {item.name for item in fields(cls)}
        config = values.get("config", {})
        if not values.keys() <= known or not isinstance(config, dict):
            raise InputError(
                f"{path} is not the run file of a pretraining. `napari-medseg "
                "pretrain` writes one beside each file of weights."
            )
        check_values(values, ("pretrain", "images", "date"), path)
        check_channels(values, path)
        return values

    def save(self, path: Path) -> None:
        """Write the run file."""
        with atomic_path(path) as temporary:
            text = yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True)
            temporary.write_text(text, encoding="utf-8")


@with_config_options(SETTINGS)
def pretrain(
    out: Annotated[
        Path, typer.Option(help="The file of weights to write (.safetensors).")
    ],
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of images; folders in it are looked into."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help=f"What is pretrained: {', '.join(NETWORKS)}, or nano, which becomes a "
            "SAM of its own."
        ),
    ] = None,
    channels: UsedChannels = None,
    config: Annotated[
        Path | None, typer.Option(help="Run file of a pretraining to repeat.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Folder of checkpoints: go on where a killed run stopped."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file if it exists.")
    ] = False,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Pretrain an encoder on images without labels, for trainings to begin with."""
    with sentences(as_json=as_json):
        run_path = out.with_suffix(".run.yaml")
        read = (config,) if config is not None else ()
        check_out(out, (ENDING,), read, overwrite=overwrite)
        if not overwrite and run_path.exists() and run_path not in read:
            raise InputError(f"{run_path} exists; choose another name, or --overwrite.")
        run = _run(config, images, method, channels, settings)
        from napari_medseg.io import encoder_file
        from napari_medseg.io.channel_choice import ChannelChoice
        from napari_medseg.training import pretraining
        from napari_medseg.training.conduct import Conduct
        from napari_medseg.training.pretraining_settings import Pretraining

        chosen = from_dict(Pretraining, run.config, str(config or "the command line"))
        conduct = Conduct(run.date, resume)
        choice = ChannelChoice(channels_of(run.channels))
        job = pretraining.pretrain(
            Path(run.images), run.pretrain, chosen, conduct, choice
        )
        result = follow(job, quiet=as_json)
        encoder_file.save(out, result.file)
        replace(run, config=to_dict(result.config)).save(run_path)
        _tell(result, out, run_path, as_json=as_json)


def _run(
    config: Path | None,
    images: Path | None,
    method: str | None,
    channels: str | None,
    settings: dict[str, Any],
) -> PretrainingRun:
    """Put together what a run file says and what the command line adds to it."""
    values: dict[str, Any] = (
        {"date": today()} if config is None else PretrainingRun.read(config)
    )
    if images is not None:
        values["images"] = str(images.absolute())
    if method is not None:
        values["pretrain"] = method
    if channels is not None:
        values["channels"] = channels
    if "images" not in values:
        raise InputError("--images is missing: give the folder, or --config.")
    values.setdefault("pretrain", next(iter(NETWORKS)))
    values["config"] = {**values.get("config", {}), **settings}
    return PretrainingRun(**values)


def _tell(
    result: PretrainingResult, out: Path, run_path: Path, *, as_json: bool
) -> None:
    """Say how it went, and what to do with the file."""
    kind = result.file.card.kind
    use = (
        f"train --method {kind} --pretrained"
        if kind in NETWORKS
        else "train --method ptsam --sam"
    )
    if as_json:
        print_json(
            {
                "file": str(out),
                "run_file": str(run_path),
                "images": result.images,
                "steps": result.steps,
                "stride": result.stride,
                "figures": dict(result.figures),
                "warnings": list(result.warnings),
                "bytes": out.stat().st_size,
            }
        )
        return
    for warning in result.warnings:
        typer.echo(f"Warning: {warning}", err=True)
    loss = result.figures.get("loss", float("nan"))
    typer.echo(
        f"{result.images} images, {result.steps} steps, loss {loss:.3f} at the end; "
        f"superpixels were compared at stride {result.stride}."
    )
    typer.echo(
        f"{out} has {out.stat().st_size:,} bytes; `napari-medseg {use} {out}` begins "
        f"with it. {run_path} repeats the pretraining."
    )
