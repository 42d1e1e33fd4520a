"""Clicks and boxes for a SAM that knows objects of some sizes only.

It looks at a piece of the image at several magnifications (`napari_medseg.models.
looks`), and of all masks the best are kept: those of which SAM itself expects most,
and which have to do with the prompt (`napari_medseg.models.judging`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from napari_medseg.models import sam as sams
from napari_medseg.models.backbone import autocast
from napari_medseg.models.candidates import (
    COARSE,
    GRID,
    Candidates,
    Sight,
    coarsened,
    frame_of,
    means,
    open_sides,
    shown_by,
)
from napari_medseg.models.judging import (
    filling,
    inside,
    meant,
    obeying,
    stability,
)
from napari_medseg.models.looks import Extent, Look, looks_at, looks_round

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_medseg._types import FloatArray
    from napari_medseg.models.backbone import Backbone
    from napari_medseg.models.registry import KnownSizes

OFFSET = 1.0
"""How far the threshold moves to see whether an outline is sure."""

CUT = 0.1
"""What a mask that ends where its window ends counts, beside a whole one."""

ON, OFF = 1, 0
"""How SAM calls clicks on an object and beside it."""


class Asked(NamedTuple):
    """A prompt as SAM lists it, in pixels of the image.

    Attributes
    ----------
    points : Tensor
        ``float32 (N, 2)``, x and y; the last two are the corners of the box, if there
        is one, else the last one is SAM's padding.
    labels : Tensor
        ``int64 (N,)``, as for `napari_medseg.models.sam.point_tokens`.
    boxed : bool
        Whether there is a box.
    """

    points: Tensor
    labels: Tensor
    boxed: bool


class Said(NamedTuple):
    """What SAM says of a mask.

    Attributes
    ----------
    coarse : Tensor
        ``float32 (GRID, GRID)``, its logits.
    expected : float
        The IoU that SAM expects.
    """

    coarse: Tensor
    expected: float


class Found(NamedTuple):
    """A mask as it was seen in a window.

    Attributes
    ----------
    look : Look
        The window.
    logits : Tensor
        ``float32 (S, S)``, at the resolution of the network's input.
    mask : ndarray
        ``bool (S, S)``, the part of it that was meant.
    score : float
        The IoU that SAM expects, less what speaks against the mask.
    said : Said
        What SAM itself says of the mask.
    """

    look: Look
    logits: Tensor
    mask: NDArray[np.bool_]
    score: float
    said: Said

    def in_image(self) -> NDArray[np.bool_]:
        """Return the mask in pixels of the image, ``bool`` of the look's box."""
        kept = torch.from_numpy(self.mask)
        # smooth between pixels where the mask was kept, and off where it was not
        logits = torch.where(
            kept, self.logits.clamp(min=1e-3), self.logits.clamp(max=-1e-3)
        )
        found = self.look.framing.unwindow(logits[None], self.look.box)[0]
        return (found > 0).numpy()


class SizedView:
    """An image that is looked at at several magnifications.

    Parameters
    ----------
    image : ndarray
        ``float32 (3, Y, X)`` in [0, 1], normalised.
    backbone : Backbone
        The SAM.
    sizes : KnownSizes
        The sizes of objects that it knows.
    device : torch.device
        Where to compute.
    """

    def __init__(
        self,
        image: FloatArray,
        backbone: Backbone,
        sizes: KnownSizes,
        device: torch.device,
    ) -> None:
        self.image = image
        self.backbone = backbone
        self.sizes = sizes
        self.device = device
        self.shape = (int(image.shape[1]), int(image.shape[2]))
        self._sights: dict[Look, Sight] = {}
        self._codes: dict[int, Tensor] = {}

    def find(self, asked: Asked, extent: Extent) -> list[Found]:
        """Find what a prompt may mean.

        Parameters
        ----------
        asked : Asked
            Clicks, a box, or both.
        extent : tuple of float
            Top, left, bottom and right of all of them.

        Returns
        -------
        list of Found
            Four masks of each look, the best first.
        """
        found = self.offered(asked, extent)
        if self.backbone.judge is not None:
            scores = self.backbone.judge.scores(self.candidates(found, asked)).tolist()
            found = [
                each._replace(score=score)
                for each, score in zip(found, scores, strict=True)
            ]
        return sorted(found, key=lambda each: -each.score)

    def offered(self, asked: Asked, extent: Extent) -> list[Found]:
        """Return what `find` does, in the order of the looks."""
        looks = self._looks(asked, extent)
        # further clicks on an object look at the same windows
        before = self._sights
        self._sights = {
            look: before[look] if look in before else self._sight(look)
            for look in looks
        }
        return [each for look in looks for each in self._seen(look, asked)]

    def candidates(self, found: Sequence[Found], asked: Asked) -> Candidates:
        """Bring what was found to one size, in the order of the looks."""
        looks = list(dict.fromkeys(each.look for each in found))
        masks = {
            look: torch.from_numpy(
                np.stack([each.mask for each in found if each.look == look])
            )
            for look in looks
        }
        shares = [coarsened(mask, GRID) for mask in masks.values()]
        parts = [
            means(self._sights[look].gist, coarsened(share, COARSE))
            for look, share in zip(looks, shares, strict=True)
        ]
        within, around = (torch.cat(items) for items in zip(*parts, strict=True))
        return Candidates(
            logits=torch.stack([each.said.coarse for each in found]),
            masks=torch.cat(shares) > 0.5,
            look=torch.tensor([looks.index(each.look) for each in found]),
            expected=torch.tensor([each.said.expected for each in found]),
            rule=torch.tensor([each.score for each in found]),
            within=within,
            around=around,
            pictures=torch.stack([self._sights[look].picture for look in looks]),
            frames=torch.tensor([frame_of(look) for look in looks]),
            shown=shown_by(looks),
            open=torch.tensor([open_sides(look, self.shape) for look in looks]),
            pixels=torch.tensor([look.framing.size / GRID for look in looks]),
            points=asked.points,
            labels=asked.labels,
        )

    def prepare(self) -> None:
        """Embed the image as a whole, as far as most clicks look at it so."""
        middle = (self.shape[0] // 2, self.shape[1] // 2)
        working = self.backbone.working_size
        extent = (*middle, *middle)
        for look in looks_round(middle, extent, self.shape, working, self.sizes):
            if look.box.shape == self.shape:
                self._sights[look] = self._sight(look)

    def _looks(self, asked: Asked, extent: Extent) -> tuple[Look, ...]:
        """Choose where to look."""
        if asked.boxed:
            return looks_at(extent, self.shape, self.sizes)
        x, y = asked.points[0].tolist()
        working = self.backbone.working_size
        return looks_round((y, x), extent, self.shape, working, self.sizes)

    def _sight(self, look: Look) -> Sight:
        """Embed a window."""
        window = look.framing.window(self.image, look.box)
        embedding = self.backbone.embed(window, self.device).float()[None]
        return Sight.of(window, embedding.to(self.device))

    def _seen(self, look: Look, asked: Asked) -> list[Found]:
        """Ask SAM at one look, and judge its masks."""
        decoded = self._decoded(look, asked)
        size = look.framing.size
        # a copy, as what was made in inference mode may not be changed
        drawn = decoded.masks.float().cpu()
        logits = functional.interpolate(drawn, (size, size), mode="bilinear")[0].clone()
        height, width = look.framing.scaled(look.box.shape)
        # nothing is found in the margin
        logits[:, height:] = -OFFSET
        logits[:, :, width:] = -OFFSET
        said = _said(decoded)
        expected = torch.tensor([each.expected for each in said])
        scores = expected * stability(logits, OFFSET)
        return [
            _judged(look, *each, asked, self.shape)
            for each in zip(logits, scores.tolist(), said, strict=True)
        ]

    def _decoded(self, look: Look, asked: Asked) -> sams.Decoded:
        """Run prompt encoder and mask decoder on a window.

        A window is the middle of a working image, as `nano` was trained on pieces of
        one: its position codes are those of that place.
        """
        sam, canvas = self.backbone.on(self.device), self.backbone.working_size
        points = look.to_window(asked.points) + (canvas - look.framing.size) // 2
        with torch.inference_mode(), autocast(self.device):
            tokens = sams.point_tokens(
                sam.prompt_encoder,
                points[None].to(self.device),
                asked.labels[None].to(self.device),
                (canvas, canvas),
            )
            return sams.decode(
                sam.mask_decoder,
                self._sights[look].embedding,
                self._code(look.framing.size),
                tokens,
                sams.no_mask_embedding(sam.prompt_encoder),
            )

    def _code(self, size: int) -> Tensor:
        """Return the position code of the middle of a working image."""
        if size not in self._codes:
            sam, canvas = self.backbone.sam, self.backbone.working_size
            stride = sams.stride_of(sam)
            start = (canvas - size) // 2 // stride
            part = slice(start, start + size // stride)
            grid = (canvas // stride, canvas // stride)
            code = sams.position_code(sam.prompt_encoder, grid)
            self._codes[size] = code[..., part, part]
        return self._codes[size]


def _said(decoded: sams.Decoded) -> list[Said]:
    """Take down what SAM says of each of the four masks of one window."""
    coarse = coarsened(decoded.masks[0].cpu(), GRID).clone()
    expected = decoded.iou[0].float().cpu().clamp(min=0).tolist()
    return [Said(*each) for each in zip(coarse, expected, strict=True)]


def _judged(
    look: Look,
    logits: Tensor,
    score: float,
    said: Said,
    asked: Asked,
    shape: tuple[int, int],
) -> Found:
    """Keep the part of a mask that was meant, and say how good it is."""
    end = look.framing.size - 1
    places = look.to_window(asked.points).round().clamp(0, end).int().tolist()
    labels = asked.labels.tolist()
    on, off = (
        [(y, x) for (x, y), label in zip(places, labels, strict=True) if label == kind]
        for kind in (ON, OFF)
    )
    mask = (logits > 0).numpy()
    if asked.boxed:
        (left, top), (right, bottom) = places[-2:]
        box = (top, left, bottom, right)
        mask = meant(inside(mask, box), on, off)
        score *= filling(mask, box)
    else:
        mask = meant(mask, on, off)
        score *= CUT if _is_cut(mask, look, shape) else 1.0
    adds = [True] * len(on) + [False] * len(off)
    score *= obeying(mask, [*on, *off], adds)
    return Found(look, logits, mask, score, said)


def _is_cut(mask: NDArray[np.bool_], look: Look, shape: tuple[int, int]) -> bool:
    """Tell whether a mask ends where its window ends, but not the image."""
    box = look.box
    height, width = look.framing.scaled(box.shape)
    return bool(
        (box.top > 0 and mask[0].any())
        or (box.left > 0 and mask[:, 0].any())
        or (box.bottom < shape[0] and mask[height - 1].any())
        or (box.right < shape[1] and mask[:, width - 1].any())
    )
