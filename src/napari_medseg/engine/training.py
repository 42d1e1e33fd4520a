"""Jobs of the engine: check annotated images, and train on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medseg._config import config_class, from_dict, to_dict
from napari_medseg._types import InputError, Progress
from napari_medseg.api import train_job
from napari_medseg.io import model_file
from napari_medseg.io.pairs import (
    Pair,
    Pairs,
    check_pairs,
    gather,
    match_files,
    read_pairs,
)
from napari_medseg.models.registry import lookup_method
from napari_medseg.training.conduct import Conduct

if TYPE_CHECKING:
    from napari_medseg._types import Job
    from napari_medseg.engine.channel import Message
    from napari_medseg.engine.jobs import Context


def check(arguments: Message, context: Context) -> Job[list[dict[str, str]]]:
    """Say of each annotated image of a folder what is wrong with it, if anything.

    Parameters
    ----------
    arguments : dict
        ``images`` and ``masks``: two folders, or one twice; ``annotation``: what the
        values mean.
    context : Context
        Not used.

    Returns
    -------
    list of dict
        ``name``, ``told`` and ``severity`` (``error``, ``warning``, ``good``) of each;
        errors come first.
    """
    yield Progress(0, None, "checking the annotated images")
    folders = Path(arguments["images"]), Path(arguments["masks"])
    findings = check_pairs(*folders, arguments["annotation"])
    rows = [
        {
            "name": finding.file,
            "told": f"{finding.problem}: {finding.remedy}",
            "severity": finding.severity,
        }
        for finding in findings
    ]
    named = {finding.file for finding in findings}
    try:
        matched = match_files(*folders)
    except InputError:
        return rows  # which say so
    return rows + [
        {"name": image.name, "told": "good", "severity": "good"}
        for image, mask in matched
        if not {str(image), str(mask)} & named
    ]


def train(arguments: Message, context: Context) -> Job[dict[str, Any]]:
    """Train, and write the model file.

    Parameters
    ----------
    arguments : dict
        ``method`` and ``config``: its name, and settings that differ from the
        defaults; ``pairs``: a list of ``name``, ``image`` (``float32 (C, Y, X)``),
        ``annotation`` (``int32 (Y, X)``) and ``rgb``, or None with ``images`` and
        ``masks``, two folders; ``annotation``: what the values mean; ``watch``: an
        image to preview on, or None; ``out``: the file to write; ``date``;
        ``checkpoints``: folder to resume from, or None.
    context : Context
        Tells when to end early.

    Yields
    ------
    Progress
        Embedding and training, with figures and previews.

    Returns
    -------
    dict
        ``model``: the file; ``report``: `TrainingReport.to_dict`; ``history``:
        held-out figures by step; ``config``: the settings that give the same again.
    """
    yield Progress(0, None, "reading the annotated images")
    kind: type[Any] = config_class(lookup_method(arguments["method"]).config)
    config = from_dict(kind, arguments["config"], "the settings")
    conduct = Conduct(
        date=arguments["date"],
        checkpoints=_path(arguments["checkpoints"]),
        stop=lambda: context.end_early,
        watch=arguments["watch"],
    )
    trained = yield from train_job(_pairs(arguments), config, conduct)
    path = model_file.save(Path(arguments["out"]), trained.model_file)
    return {
        "model": str(path),
        "report": trained.report.to_dict(),
        "history": list(trained.report.history),
        "config": to_dict(trained.config),
    }


def _pairs(arguments: Message) -> Pairs:
    """Return the pairs of layers, or of two folders."""
    kind = arguments["annotation"]
    if arguments["pairs"] is None:
        folders = arguments["images"], arguments["masks"]
        return read_pairs(*folders, annotation=kind)
    pairs = [
        Pair(item["name"], item["image"], item["annotation"], rgb=item["rgb"])
        for item in arguments["pairs"]
    ]
    return gather(pairs, annotation=kind)


def _path(name: str | None) -> Path | None:
    return Path(name) if name else None
