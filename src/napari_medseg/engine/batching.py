"""Job of the engine: a folder in, a folder out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_medseg._config import from_dict
from napari_medseg.batch import BatchSettings, segment_batch, watch_batch
from napari_medseg.engine.aside import aside

if TYPE_CHECKING:
    from napari_medseg._types import Job
    from napari_medseg.batch import BatchReport
    from napari_medseg.engine.channel import Message
    from napari_medseg.engine.jobs import Context


def batch(arguments: Message, context: Context) -> Job[dict[str, Any]]:
    """Segment files and folders; what an earlier run did stays done.

    Parameters
    ----------
    arguments : dict
        ``inputs``: files, folders and patterns; ``out``: folder of the results;
        ``settings``: those of `napari_medseg.batch.BatchSettings`; ``workers``,
        ``redo``, ``overwrite``, and ``cluster``, which may be left out: as of
        `napari_medseg.batch.segment_batch`; ``watch``: whether to go on as files come,
        until it is ended early; ``command``: the line for the terminal that does the
        same.
    context : Context
        Tells when the job is paused or ended early.

    Yields
    ------
    Progress
        Images that are there or failed by now, of all.

    Returns
    -------
    dict
        ``done``, ``skipped``, ``failed``: numbers of images; ``notes``: what the user
        should know, each with the number of images that it is said of; ``report``:
        the page to look at.
    """
    settings = from_dict(BatchSettings, arguments["settings"], "the settings")
    inputs = [Path(item) for item in arguments["inputs"]]
    out = Path(arguments["out"])
    names = ("workers", "redo", "overwrite", "command")
    how: dict[str, Any] = {name: arguments[name] for name in names}
    how["cluster"] = arguments.get("cluster") or None
    if arguments["watch"]:
        job = watch_batch(inputs, out, settings, lambda: context.end_early, **how)
    else:
        job = segment_batch(inputs, out, settings, **how)
    report = yield from aside(job, context)
    return _told(report)


def _told(report: BatchReport) -> dict[str, Any]:
    """Return a report without the names of thousands of images."""
    notes = Counter(report.notes.values())
    return {
        "done": len(report.done),
        "skipped": len(report.skipped),
        "failed": len(report.failed),
        "notes": [list(each) for each in notes.most_common()],
        "report": report.report,
    }
