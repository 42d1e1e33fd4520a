"""Job of the engine: predict the quality of images without annotations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medseg._config import from_dict
from napari_medseg.engine.aside import aside
from napari_medseg.quality.settings import QualitySettings
from napari_medseg.reviewing import References, estimate_folder

if TYPE_CHECKING:
    from napari_medseg._types import Job
    from napari_medseg.engine.channel import Message
    from napari_medseg.engine.jobs import Context


def estimate(arguments: Message, context: Context) -> Job[dict[str, Any]]:
    """Segment images without annotations, and predict how good the results are.

    Parameters
    ----------
    arguments : dict
        ``images``: folder or image, or a list of images; ``model``: name or file;
        ``references``: folder of annotated images; ``masks``: folder of their masks,
        or None;
        ``annotation``, ``ignore``: of the masks; ``settings``: those of
        `napari_medseg.quality.settings.QualitySettings`; ``next``: how many images to
        name that should be annotated next; ``base``: checkpoint of the SAM, or None;
        ``channels`` of the images that are seen, which may be left out.
    context : Context
        Tells when the job is paused.

    Yields
    ------
    Progress
        What is being done.

    Returns
    -------
    dict
        As `napari_medseg.quality.estimating.Estimate.to_dict` gives it.
    """
    masks = arguments["masks"]
    references = References(
        Path(arguments["references"]),
        None if masks is None else Path(masks),
        arguments["annotation"],
        arguments["ignore"],
    )
    settings = from_dict(QualitySettings, arguments["settings"], "the settings")
    given = arguments["images"]
    job = estimate_folder(
        Path(given) if isinstance(given, str) else [Path(each) for each in given],
        arguments["model"],
        references,
        settings,
        count=arguments["next"],
        base=arguments["base"],
        channels=arguments.get("channels", ()),
    )
    return (yield from aside(job, context)).to_dict()
