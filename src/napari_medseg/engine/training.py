"""Jobs of the engine: check annotated images, and train on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medseg._config import config_class, from_dict, to_dict
from napari_medseg._types import InputError, Progress
from napari_medseg.api import train_job
from napari_medseg.io import model_file
from napari_medseg.io.channel_choice import ChannelChoice
from napari_medseg.io.pairs import (
    NO_MASK,
    Pair,
    Pairs,
    check_pairs,
    gather,
    match_files,
    read_pairs,
)
from napari_medseg.models.methods import lookup_method
from napari_medseg.training.conduct import Conduct

if TYPE_CHECKING:
    from napari_medseg._types import Job
    from napari_medseg.engine.channel import Message
    from napari_medseg.engine.jobs import Context
    from napari_medseg.io.pairs import Finding

MOST_LEFT_OUT = 3
"""Most images without an annotation that `check` lists one by one."""


def check(arguments: Message, context: Context) -> Job[list[dict[str, str]]]:
    """Say of each annotated image of a folder what is wrong with it, if anything.

    Parameters
    ----------
    arguments : dict
        ``images`` and ``masks``: two folders, or one twice; ``annotation``: what the
        values mean; ``channels`` of the images, which may be left out.
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
    kind, channels = arguments["annotation"], _channels(arguments)
    findings = check_pairs(*folders, kind, channels=channels)
    rows = [_row(finding) for finding in findings if finding.problem != NO_MASK]
    rows += _left_out([finding for finding in findings if finding.problem == NO_MASK])
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


def _row(finding: Finding) -> dict[str, str]:
    told = f"{finding.problem}: {finding.remedy}"
    return {"name": finding.file, "told": told, "severity": finding.severity}


def _left_out(findings: list[Finding]) -> list[dict[str, str]]:
    """Return a row for each image that is not annotated, or one where there are many.

    Of a folder that somebody has begun to annotate, most images are not.
    """
    if len(findings) <= MOST_LEFT_OUT:
        return [_row(finding) for finding in findings]
    told = "have no mask and are left out: annotate more of them if you like"
    name = f"{len(findings)} images"
    return [{"name": name, "told": told, "severity": findings[0].severity}]


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
        held-out figures by step; ``config``: the settings that give the same again;
        ``suspects``: of layers, how probably each label is wrong, a ``float32 (Y, X)``
        for each of the pairs, where labels were doubted; else none.
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
    trained = yield from train_job(pairs_of(arguments), config, conduct)
    path = model_file.save(Path(arguments["out"]), trained.model_file)
    return {
        "model": str(path),
        "report": trained.report.to_dict(),
        "history": list(trained.report.history),
        "config": to_dict(trained.config),
        "suspects": []
        if arguments["pairs"] is None
        else [suspect.probability for suspect in trained.suspects],
    }


def pairs_of(arguments: Message) -> Pairs:
    """Return the pairs of layers, or of two folders.

    Parameters
    ----------
    arguments : dict
        ``pairs``, ``images``, ``masks`` and ``annotation``; see `train`; ``channels``
        of the images of folders, which may be left out.

    Returns
    -------
    Pairs
        Annotated images.

    Raises
    ------
    InputError
        They cannot be used.
    """
    kind = arguments["annotation"]
    if arguments["pairs"] is None:
        folders = arguments["images"], arguments["masks"]
        return read_pairs(*folders, annotation=kind, channels=_channels(arguments))
    pairs = [
        Pair(item["name"], item["image"], item["annotation"], rgb=item["rgb"])
        for item in arguments["pairs"]
    ]
    return gather(pairs, annotation=kind)


def _channels(arguments: Message) -> ChannelChoice:
    """Return the channels of the images of folders that were chosen."""
    return ChannelChoice(tuple(arguments.get("channels", ())))


def _path(name: str | None) -> Path | None:
    return Path(name) if name else None
