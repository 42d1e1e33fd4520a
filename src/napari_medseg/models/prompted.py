"""Labels of an image by clicks and boxes that are known beforehand: no window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg._types import InputError, Job, LabelArray, Progress
from napari_medseg.models.interactive import InteractiveImage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_medseg._types import FloatArray
    from napari_medseg.models.backbone import Backbone
    from napari_medseg.models.clicks import Prompt


@dataclass(frozen=True, slots=True, eq=False)
class Prompted:
    """The objects of some prompts.

    Attributes
    ----------
    labels : ndarray
        ``int32 (Y, X)``: 1 for the object of the first prompt, and so on. Where
        objects overlap, the later one lies on top, as if painted one after another.
    scores : tuple of float
        SAM's own estimate of the IoU of each.
    """

    labels: LabelArray
    scores: tuple[float, ...]


def segment_prompts(
    image: FloatArray,
    prompts: Sequence[Prompt],
    backbone: Backbone,
    device: str = "auto",
    *,
    rgb: bool = False,
    idea: int = 1,
) -> Job[Prompted]:
    """Find the object of each prompt, as the viewer does.

    Parameters
    ----------
    image : ndarray
        ``float32 (C, Y, X)``, as the file has it.
    prompts : sequence of Prompt
        One an object.
    backbone : Backbone
        The SAM.
    device : {"auto", "cpu", "cuda", "mps"}
        Where to compute.
    rgb : bool
        Whether the channels are red, green and blue.
    idea : int
        Which of SAM's masks is taken: 1 is the likeliest. A larger SAM has more than
        one for a single click only, which may mean a part or the whole.

    Yields
    ------
    Progress
        Looking at the image, then asking.

    Returns
    -------
    Prompted
        Labels and scores.

    Raises
    ------
    InputError
        A prompt lies outside the image, or SAM has fewer ideas.
    """
    view = InteractiveImage.of_image(image, backbone, device, rgb=rgb)
    yield from view.embed()
    labels = np.zeros(view.shape, np.int32)
    scores = []
    for number, prompt in enumerate(prompts, start=1):
        yield Progress(number - 1, len(prompts), "asking SAM")
        answer = view.answer(prompt)
        if not 1 <= idea <= len(answer.masks):
            count = len(answer.masks)
            several = f"are {count} ideas" if count > 1 else "is one idea"
            raise InputError(
                f"There is no idea {idea} for object {number}: there {several}. "
                "Take another, or add a click."
            )
        labels[answer.region.slices][answer.masks[idea - 1]] = number
        scores.append(float(answer.scores[idea - 1]))
    yield Progress(len(prompts), len(prompts), "asking SAM")
    return Prompted(labels, tuple(scores))
