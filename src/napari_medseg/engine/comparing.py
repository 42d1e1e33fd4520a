"""Job of the engine: which way to segment suits annotated images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medseg._config import from_dict
from napari_medseg._types import Progress
from napari_medseg.comparing.settings import CompareConfig
from napari_medseg.comparing.trying import compare as compare_recipes
from napari_medseg.comparing.trying import save_models
from napari_medseg.engine.training import pairs_of

if TYPE_CHECKING:
    from napari_medseg._types import Job
    from napari_medseg.engine.channel import Message
    from napari_medseg.engine.jobs import Context


def compare(arguments: Message, context: Context) -> Job[dict[str, Any]]:
    """Try several ways to segment on annotated images.

    Parameters
    ----------
    arguments : dict
        ``pairs``, ``images``, ``masks`` and ``annotation`` as of
        `napari_medseg.engine.training.train`; ``settings``: those of `CompareConfig`
        that differ from the defaults; ``out``: folder for the models; ``date``.
    context : Context
        Tells when to end early.

    Yields
    ------
    Progress
        What is being tried.

    Returns
    -------
    dict
        As `napari_medseg.comparing.advice.Comparison.to_dict` gives it, and
        ``models``: the files of what was trained, by the name of the recipe.
    """
    yield Progress(0, None, "reading the annotated images")
    config = from_dict(CompareConfig, arguments["settings"], "the settings")
    job = compare_recipes(
        pairs_of(arguments),
        config,
        date=arguments["date"],
        stop=lambda: context.end_early,
    )
    found = yield from job
    saved = save_models(found, Path(arguments["out"]))
    models = {name: str(path) for name, path in saved.items()}
    return found.to_dict() | {"models": models}
