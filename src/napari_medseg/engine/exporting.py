"""Job of the engine: write the labels of a layer to a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_medseg._types import Progress
from napari_medseg.layer_data.label_files import write_stack
from napari_medseg.layer_data.label_stack import from_plain

if TYPE_CHECKING:
    from napari_medseg._types import Job
    from napari_medseg.engine.channel import Message
    from napari_medseg.engine.jobs import Context


def export(arguments: Message, context: Context) -> Job[str]:
    """Write labels in one of the formats for other programs.

    Parameters
    ----------
    arguments : dict
        ``stack``: from `napari_medseg.layer_data.label_stack.to_plain`; ``path``: the
        file; ``format``: one of `napari_medseg.io.exports.FORMATS`.
    context : Context
        Not used.

    Yields
    ------
    Progress
        Once.

    Returns
    -------
    str
        The file that was written.
    """
    yield Progress(0, 1, f"writing {arguments['path']}")
    stack = from_plain(arguments["stack"])
    return str(write_stack(stack, arguments["path"], arguments["format"]))
