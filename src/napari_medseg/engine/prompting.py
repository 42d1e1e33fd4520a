"""Jobs of the engine: SAM looks at an image, and answers clicks and boxes on it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import JobError, Progress
from napari_medseg.models.backbone import Backbone, load_backbone
from napari_medseg.models.clicks import Prompt
from napari_medseg.models.framing import Box
from napari_medseg.models.interactive import InteractiveImage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medseg._types import Job
    from napari_medseg.engine.channel import Message
    from napari_medseg.engine.jobs import Context


CALM = 0.5
"""Seconds after a click in which nothing else is embedded."""


def look(arguments: Message, context: Context) -> Job[None]:
    """Embed an image, so that `prompt` answers at once.

    Parameters
    ----------
    arguments : dict
        ``key``: the image's name from now on; ``image``: ``float32 (C, Y, X)``;
        ``rgb``: whether it is red, green and blue; ``sam``: name or checkpoint;
        ``device``.
    context : Context
        Keeps SAM and the image.

    Yields
    ------
    Progress
        Loading, then embedding.
    """
    yield Progress(0, None, "loading SAM")
    name, image = arguments["sam"], arguments["image"]
    backbone: Backbone = context.shelf.made("SAM", name, lambda: load_backbone(name))
    device, rgb = arguments["device"], arguments["rgb"]
    view = InteractiveImage.of_image(image, backbone, device, rgb=rgb)
    yield from view.embed()
    context.shelf.put("image", arguments["key"], view)


def look_around(arguments: Message, context: Context) -> Job[None]:
    """Embed more of an image that was looked at, while nothing else is to be done.

    Parameters
    ----------
    arguments : dict
        ``key``: the image.
    context : Context
        Holds the image.

    Yields
    ------
    Progress
        A window each. It ends early when the image is forgotten.
    """
    view: InteractiveImage | None = context.shelf.get("image", arguments["key"])
    if view is None:
        return
    for progress in view.look_around():
        clicked = context.shelf.get("click", "latest")
        if clicked is not None:
            # whoever clicks shall not wait for a window of this in between
            context.rest = max(0.0, CALM - (time.monotonic() - clicked))
        yield progress
        if context.shelf.get("image", arguments["key"]) is not view:
            return


def prompt(arguments: Message, context: Context) -> Job[dict[str, Any]]:
    """Answer a prompt on an image that was looked at.

    Parameters
    ----------
    arguments : dict
        ``key``: the image; ``points``: rows and columns; ``adds``: whether each adds;
        ``box``: top, left, bottom, right, or None; ``mask``: ``bool (Y, X)`` to take
        box and click from in their place, or None.
    context : Context
        Holds the image.

    Returns
    -------
    dict
        ``region``: top, left, bottom, right of the smallest part of the image that
        holds all masks; ``masks``: ``bool (M, h, w)`` of it, the likeliest first;
        ``scores``: the IoU that SAM expects of each; ``points``, ``adds`` and ``box``
        as SAM was asked, which tells what a mask was taken for.

    Raises
    ------
    JobError
        The image was not looked at, or is forgotten.
    """
    yield Progress(0, 1, "asking SAM")
    view: InteractiveImage | None = context.shelf.get("image", arguments["key"])
    if view is None:
        raise JobError("SAM has not looked at this image yet; choose the layer again.")
    mask = arguments["mask"]
    wanted = (
        Prompt.of_clicks(arguments["points"], arguments["adds"], arguments["box"])
        if mask is None
        else Prompt.of_mask(mask)
    )
    answer = view.answer(wanted)
    context.shelf.put("click", "latest", time.monotonic())
    region, masks = cropped(answer.region, answer.masks)
    return {
        "region": list(region),
        "masks": masks,
        "scores": answer.scores,
        "points": [list(point) for point in wanted.points],
        "adds": list(wanted.adds),
        "box": None if wanted.box is None else list(wanted.box),
    }


def cropped(region: Box, masks: NDArray[np.bool_]) -> tuple[Box, NDArray[np.bool_]]:
    """Leave out what no mask covers: objects are small, and the rest is to be sent.

    Parameters
    ----------
    region : Box
        Part of an image.
    masks : ndarray
        ``bool (M, h, w)`` of it.

    Returns
    -------
    tuple of Box and ndarray
        The part with masks, and the masks there; one pixel where they are empty.
    """
    rows, columns = (np.flatnonzero(masks.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    top, bottom = (int(rows[0]), int(rows[-1]) + 1) if len(rows) else (0, 1)
    left, right = (int(columns[0]), int(columns[-1]) + 1) if len(columns) else (0, 1)
    part = Box(
        region.top + top, region.left + left, region.top + bottom, region.left + right
    )
    return part, masks[:, top:bottom, left:right]
