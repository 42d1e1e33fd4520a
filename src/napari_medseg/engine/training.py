"""Job of the engine: train on annotated images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medseg._config import config_class, from_dict, to_dict
from napari_medseg._types import Progress
from napari_medseg.api import train_job
from napari_medseg.io import model_file
from napari_medseg.io.pairs import Pair, Pairs, gather, read_pairs
from napari_medseg.models.registry import lookup_method
from napari_medseg.training.conduct import Conduct

if TYPE_CHECKING:
    from napari_medseg._types import Job
    from napari_medseg.engine.channel import Message
    from napari_medseg.engine.jobs import Context


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
