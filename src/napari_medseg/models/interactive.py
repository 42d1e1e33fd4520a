"""One image of a SAM, ready for clicks and boxes: what SAM itself was made for.

The image is embedded once; each answer then takes the mask decoder alone. Images up
to twice the working size are seen whole. Larger ones are seen whole for large boxes,
and at their own resolution, in the window round the prompt, for all others.

A SAM that knows objects of some sizes only looks at each place at several
magnifications instead (`napari_medseg.models.sized`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import torch

from napari_medseg._types import InputError, Job, Progress
from napari_medseg.io.normalise import Normalisation, normalise
from napari_medseg.models import sam as sams
from napari_medseg.models.backbone import autocast
from napari_medseg.models.clicks import as_asked
from napari_medseg.models.devices import resolve_device
from napari_medseg.models.framing import SMALLEST_TILE, Box, Framing
from napari_medseg.models.judging import likeness
from napari_medseg.models.sized import SizedView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_medseg._types import FloatArray
    from napari_medseg.models.backbone import Backbone
    from napari_medseg.models.clicks import Prompt
    from napari_medseg.models.found import Found

SINGLE, CHOICES = slice(0, 1), slice(1, 4)
"""SAM's masks: the one for several points or a box, and three for a single click."""

KEPT = 8
"""Windows whose embedding is at hand; the backbone keeps more, packed."""

ALIKE, MOST = 0.8, 3
"""Masks of a larger IoU are no choice, and more than so many are too many."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What SAM takes for the object.

    Attributes
    ----------
    region : Box
        The part of the image that was looked at.
    masks : ndarray
        ``bool (M, height, width)`` of the region, the likeliest first. A single click
        may mean a part or the whole, and has three. A SAM that looks several times
        draws many masks for any prompt: up to three that are unlike.
    scores : ndarray
        ``float32 (M,)``, SAM's own estimate of the IoU of each; less, where it looked
        several times, what speaks against the mask.
    """

    region: Box
    masks: NDArray[np.bool_]
    scores: FloatArray


class InteractiveImage:
    """An image that answers clicks and boxes.

    Parameters
    ----------
    image : ndarray
        ``float32 (3, Y, X)`` in [0, 1], normalised.
    backbone : Backbone
        The SAM.
    device : {"auto", "cpu", "cuda", "mps"}
        Where to compute.
    """

    def __init__(
        self, image: FloatArray, backbone: Backbone, device: str = "auto"
    ) -> None:
        self.image = image
        self.backbone = backbone
        self.device = resolve_device(device)
        self.shape = (int(image.shape[1]), int(image.shape[2]))
        size = backbone.working_size
        self.whole = Framing(tile=max(*self.shape, SMALLEST_TILE), size=size)
        self.near = Framing.for_images([self.shape], size)
        self._embeddings: dict[tuple[Framing, Box], tuple[Tensor, Tensor]] = {}
        sizes = backbone.sizes
        self._sized = SizedView(image, backbone, sizes, self.device) if sizes else None

    @classmethod
    def of_image(
        cls, image: FloatArray, backbone: Backbone, device: str, *, rgb: bool
    ) -> Self:
        """Return an image, normalised as is usual, from what its file or layer has.

        Parameters
        ----------
        image : ndarray
            ``float32 (C, Y, X)``.
        backbone, device
            As for the class.
        rgb : bool
            Whether the channels are red, green and blue.
        """
        usual = Normalisation.for_channels(len(image), rgb)
        return cls(normalise(image, usual), backbone, device)

    def embed(self) -> Job[None]:
        """Embed the image as a whole, so that the first click need not wait."""
        yield Progress(0, 1, "SAM is looking at the image")
        if self._sized is None:
            self._embedding(self.whole, self.whole.boxes(self.shape)[0])
        else:
            self._sized.prepare()
        yield Progress(1, 1, "ready for clicks")

    def look_around(self) -> Job[None]:
        """Embed what clicks may need that were not made yet."""
        if self._sized is not None:
            yield from self._sized.ahead()

    def answer(self, prompt: Prompt) -> Answer:
        """Find the object that a prompt means.

        Parameters
        ----------
        prompt : Prompt
            Clicks, a box, or both.

        Returns
        -------
        Answer
            What may be meant, the likeliest first.

        Raises
        ------
        InputError
            A click lies outside the image.
        """
        top, left, bottom, right = prompt.extent
        height, width = self.shape
        if min(top, left) < -0.5 or bottom > height - 0.5 or right > width - 0.5:
            raise InputError("The click is outside the image; click on the image.")
        if self._sized is not None:
            return _answer_of(self._sized.find(as_asked(prompt), prompt.extent))
        framing, box = self._window(prompt)
        several = len(prompt.points) == 1 and prompt.box is None
        choice = CHOICES if several else SINGLE
        decoded = self._decode(framing, box, prompt, choice)
        scores = decoded.iou[0, choice].float().cpu().numpy()
        order = np.argsort(-scores, kind="stable")
        logits = framing.unwindow(decoded.masks[0].float().cpu(), box)
        return Answer(box, (logits.numpy() > 0)[order], scores[order])

    def _window(self, prompt: Prompt) -> tuple[Framing, Box]:
        """Choose the window: the one in whose middle the prompt lies, or all."""
        top, left, bottom, right = prompt.extent

        def off_centre(box: Box) -> float:
            down = (top + bottom) / 2 - (box.top + box.bottom - 1) / 2
            across = (left + right) / 2 - (box.left + box.right - 1) / 2
            return max(abs(down), abs(across))

        box = min(self.near.boxes(self.shape), key=off_centre)
        inside = (
            box.top - 0.5 <= top
            and box.left - 0.5 <= left
            and bottom <= box.bottom - 0.5
            and right <= box.right - 0.5
        )
        if inside:
            return self.near, box
        return self.whole, self.whole.boxes(self.shape)[0]

    def _embedding(self, framing: Framing, box: Box) -> tuple[Tensor, Tensor]:
        """Embed a window and encode its places, once: no click need wait for it."""
        key = (framing, box)
        if key in self._embeddings:
            self._embeddings[key] = self._embeddings.pop(key)  # the latest comes last
        else:
            if len(self._embeddings) >= KEPT:
                del self._embeddings[next(iter(self._embeddings))]
            window = framing.window(self.image, box)
            found = self.backbone.embed(window, self.device)
            embedding = found.float()[None].to(self.device)
            sam, grid = self.backbone.answering(self.device), embedding.shape[2:]
            with torch.inference_mode():
                code = sams.position_code(
                    sam.prompt_encoder, (int(grid[0]), int(grid[1]))
                )
            self._embeddings[key] = embedding, code
        return self._embeddings[key]

    def _decode(
        self, framing: Framing, box: Box, prompt: Prompt, choice: slice
    ) -> sams.Decoded:
        """Run prompt encoder and mask decoder, for some of the masks."""
        embedding, code = self._embedding(framing, box)
        sam = self.backbone.answering(self.device)
        asked = as_asked(prompt)
        shift = torch.tensor([box.left, box.top], dtype=torch.float32)
        # from centres of the image's pixels to those of the working image
        points = (asked.points - shift + 0.5) * framing.scale - 0.5
        size = (framing.size, framing.size)
        with torch.inference_mode(), autocast(self.device):
            return sams.decode(
                sam.mask_decoder,
                embedding,
                code,
                sams.point_tokens(
                    sam.prompt_encoder,
                    points[None].to(self.device),
                    asked.labels[None].to(self.device),
                    size,
                ),
                sams.no_mask_embedding(sam.prompt_encoder),
                choice,
            )


def _answer_of(found: Sequence[Found]) -> Answer:
    """Return the best masks that are not alike, in the region that was looked at."""
    boxes = np.array([each.look.box for each in found])
    top, left = (int(edge) for edge in boxes[:, :2].min(axis=0))
    bottom, right = (int(edge) for edge in boxes[:, 2:].max(axis=0))
    region = Box(top, left, bottom, right)
    masks: list[NDArray[np.bool_]] = []
    scores: list[float] = []
    for each in found:
        rows, columns = each.look.box.slices
        mask = np.zeros(region.shape, bool)
        mask[
            rows.start - top : rows.stop - top,
            columns.start - left : columns.stop - left,
        ] = each.in_image()
        if all(likeness(mask, other) < ALIKE for other in masks):
            masks.append(mask)
            scores.append(each.score)
        if len(masks) == MOST:
            break
    return Answer(region, np.stack(masks), np.array(scores, np.float32))
