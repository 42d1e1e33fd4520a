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
from scipy import ndimage

from napari_medseg._types import InputError, Job, Progress
from napari_medseg.io.normalise import Normalisation, normalise
from napari_medseg.models import sam as sams
from napari_medseg.models.backbone import autocast
from napari_medseg.models.devices import resolve_device
from napari_medseg.models.framing import Box, Framing
from napari_medseg.models.judging import likeness
from napari_medseg.models.sized import Asked, SizedView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_medseg._types import FloatArray
    from napari_medseg.models.backbone import Backbone
    from napari_medseg.models.sized import Found

ADD, TAKE_AWAY, CORNER, OTHER_CORNER, PADDING = 1, 0, 2, 3, -1
"""What SAM calls the points that it is given."""

SINGLE, CHOICES = slice(0, 1), slice(1, 4)
"""SAM's masks: the one for several points or a box, and three for a single click."""

ALIKE = 0.8
"""Masks of a larger IoU are no choice."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is known of an object: clicks, a box, or both.

    Attributes
    ----------
    points : tuple of tuple of float
        Row and column of each click, in pixels; pixel centres are whole numbers.
    adds : tuple of bool
        Whether each click is on the object, or on what does not belong to it.
    box : tuple of float, optional
        Top, left, bottom and right of a box round the object, centres of pixels that
        are still inside.
    """

    points: tuple[tuple[float, float], ...] = ()
    adds: tuple[bool, ...] = ()
    box: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        if len(self.points) != len(self.adds):
            raise ValueError("each click is on the object, or is not")
        if not self.points and self.box is None:
            raise InputError("Click on an object, or draw a box round it, first.")

    @classmethod
    def of_clicks(
        cls,
        points: Sequence[Sequence[float]],
        adds: Sequence[bool],
        box: Sequence[float] | None = None,
    ) -> Self:
        """Return a prompt whose clicks on the object come first.

        The order of clicks means nothing, but another one rounds differently: here
        the same clicks give the same mask to the bit.

        Parameters
        ----------
        points : sequence of row and column
            The clicks, in pixels.
        adds : sequence of bool
            Whether each is on the object.
        box : sequence of float, optional
            Top, left, bottom and right.

        Raises
        ------
        InputError
            There is neither a click nor a box.
        """
        if len(points) != len(adds):
            raise ValueError("each click is on the object, or is not")
        order = sorted(range(len(points)), key=lambda place: not adds[place])
        return cls(
            tuple((float(points[i][0]), float(points[i][1])) for i in order),
            tuple(bool(adds[i]) for i in order),
            None if box is None else (box[0], box[1], box[2], box[3]),
        )

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_]) -> Self:
        """Return the box round a mask and a click where it is deepest.

        Parameters
        ----------
        mask : ndarray
            ``bool (Y, X)``: a label, or what was drawn round an object.

        Returns
        -------
        Prompt
            The object that fills the mask.

        Raises
        ------
        InputError
            The mask is empty.
        """
        if not mask.any():
            raise InputError("The shape covers no pixel; draw it on the image.")
        rows, columns = np.nonzero(mask)
        top, left = float(rows.min()), float(columns.min())
        box = (top, left, float(rows.max()), float(columns.max()))
        return cls((deepest(mask),), (True,), box)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Top, left, bottom and right of all clicks and the box."""
        corners = [*self.points]
        if self.box is not None:
            corners += [self.box[:2], self.box[2:]]
        rows, columns = zip(*corners, strict=True)
        return min(rows), min(columns), max(rows), max(columns)


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What SAM takes for the object.

    Attributes
    ----------
    region : Box
        The part of the image that was looked at.
    masks : ndarray
        ``bool (M, height, width)`` of the region, the likeliest first: one, or three
        for a single click, which may mean a part or the whole.
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
        self.whole = Framing(tile=max(*self.shape, 8), size=size)
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
            One mask, or three to choose from after a single click.

        Raises
        ------
        InputError
            A click lies outside the image.
        """
        top, left, bottom, right = prompt.extent
        height, width = self.shape
        if min(top, left) < -0.5 or bottom > height - 0.5 or right > width - 0.5:
            raise InputError("The click is outside the image; click on the image.")
        several = len(prompt.points) == 1 and prompt.box is None
        if self._sized is not None:
            found = self._sized.find(as_asked(prompt), prompt.extent)
            return _answer_of(found, 3 if several else 1)
        framing, box = self._window(prompt)
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
        if key not in self._embeddings:
            window = framing.window(self.image, box)
            found = self.backbone.embed(window, self.device)
            embedding = found.float()[None].to(self.device)
            sam, grid = self.backbone.sam.to(self.device), embedding.shape[2:]
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
        sam = self.backbone.sam
        places, labels = _sam_points(prompt)
        shift = torch.tensor([box.left, box.top], dtype=torch.float32)
        # from centres of the image's pixels to those of the working image
        points = (torch.tensor(places) - shift + 0.5) * framing.scale - 0.5
        size = (framing.size, framing.size)
        with torch.inference_mode(), autocast(self.device):
            return sams.decode(
                sam.mask_decoder,
                embedding,
                code,
                sams.point_tokens(
                    sam.prompt_encoder,
                    points[None].to(self.device),
                    torch.tensor([labels], device=self.device),
                    size,
                ),
                sams.no_mask_embedding(sam.prompt_encoder),
                choice,
            )


def _sam_points(
    prompt: Prompt,
) -> tuple[list[tuple[float, float]], list[int]]:
    """Return clicks and corners as SAM lists them: x and y, and what each is."""
    places = [(column, row) for row, column in prompt.points]
    labels = [ADD if adds else TAKE_AWAY for adds in prompt.adds]
    if prompt.box is None:
        return [*places, (0.0, 0.0)], [*labels, PADDING]
    top, left, bottom, right = prompt.box
    corners = [(left, top), (right, bottom)]
    return [*places, *corners], [*labels, CORNER, OTHER_CORNER]


def as_asked(prompt: Prompt) -> Asked:
    """Return a prompt as SAM lists it."""
    places, labels = _sam_points(prompt)
    points = torch.tensor(places, dtype=torch.float32)
    return Asked(points, torch.tensor(labels), prompt.box is not None)


def _answer_of(found: Sequence[Found], most: int) -> Answer:
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
        if len(masks) == most:
            break
    return Answer(region, np.stack(masks), np.array(scores, np.float32))


def deepest(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Return row and column of the pixel of a mask that is farthest from its edge.

    Parameters
    ----------
    mask : ndarray
        ``bool (Y, X)``, not empty. Beyond the image nothing belongs to it.

    Returns
    -------
    tuple of float
    """
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), mask.shape)
    return float(row), float(column)


def corrected(
    prompt: Prompt, found: NDArray[np.bool_], wanted: NDArray[np.bool_]
) -> Prompt:
    """Add the click that somebody would set to correct a mask.

    Parameters
    ----------
    prompt : Prompt
        The clicks so far.
    found, wanted : ndarray
        ``bool (Y, X)``, what SAM found and what it should have.

    Returns
    -------
    Prompt
        With one more click, in the middle of the larger wrong region; the same where
        nothing is wrong.
    """
    missed, extra = wanted & ~found, found & ~wanted
    adds = bool(missed.sum() >= extra.sum())
    wrong = missed if adds else extra
    if not wrong.any():
        return prompt
    points: Sequence[tuple[float, float]] = (*prompt.points, deepest(wrong))
    return Prompt(tuple(points), (*prompt.adds, adds), prompt.box)
