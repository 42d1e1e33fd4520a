"""Job of the engine: measure the objects of a slice, or its classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_medseg._types import Progress
from napari_medseg.measurements import measure as measure_objects
from napari_medseg.measurements import measure_all_classes

if TYPE_CHECKING:
    from napari_medseg._types import Job
    from napari_medseg.engine.channel import Message
    from napari_medseg.engine.jobs import Context


def measure(arguments: Message, context: Context) -> Job[dict[str, list[Any]]]:
    """Measure the objects of a slice, or its classes.

    Parameters
    ----------
    arguments : dict
        ``labels``: ``int32 (Y, X)``; ``image``: ``float32 (C, Y, X)`` for the
        intensities, or None; ``scale``: size of a pixel along ``y`` and ``x``;
        ``unit``: of the scale; ``classes``: how many there are, where labels are
        classes; may be left out.
    context : Context
        Not used.

    Returns
    -------
    dict
        The columns of `napari_medseg.measurements.measure` or `measure_classes`.
    """
    yield Progress(0, 1, "measuring")
    labels, image = arguments["labels"], arguments["image"]
    size = arguments["scale"], arguments["unit"]
    count = arguments.get("classes")
    table = (
        measure_objects(labels, image, *size)
        if count is None
        else measure_all_classes(labels, count, image, *size)
    )
    columns: dict[str, list[Any]] = table.to_dict("list")
    return columns
