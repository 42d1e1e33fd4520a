"""Single objects to ask for, and the clicks and boxes that ask."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from napari_medseg.models import sam as sams
from napari_medseg.training.drawing import Canvas, Rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from segment_anything.modeling import Sam

    from napari_medseg.training.promptable import PromptableBatch

SMALLEST_OBJECT = 40
"""Pixels of the smallest object that is asked for by itself."""

SEVERAL_SHARE = 0.35
"""Share of single objects that are given by several clicks."""


def sample_points(
    masks: Tensor, count: int, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw points inside masks.

    Parameters
    ----------
    masks : Tensor
        ``bool (R, h, w)``.
    count : int
        Points a mask.
    size : int
        Side of the working image, in pixels.
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    there : Tensor
        ``bool (R, count)``, False where the mask has too few pixels.
    points : Tensor
        ``(R, count, 2)``, x and y in pixels of the working image.
    """
    rows, height, width = masks.shape
    scores = torch.rand(rows, height * width, generator=generator).to(masks.device)
    score, index = (scores * masks.flatten(1)).topk(count, dim=1)
    return score > 0, _places(index, masks, size)


def _places(index: Tensor, masks: Tensor, size: int) -> Tensor:
    """Return x and y of pixels that are numbered row by row."""
    width = masks.shape[-1]
    scale = size / width
    x = ((index % width) + 0.5) * scale - 0.5
    y = ((index // width) + 0.5) * scale - 0.5
    return torch.stack([x, y], dim=2)


def sample_middles(
    masks: Tensor, count: int, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw points where people click: far from the edge of the largest part.

    Parameters and results are those of `sample_points`; the points of a mask differ
    little.
    """
    flat = np.pad(masks.cpu().numpy(), [(0, 0), (1, 1), (1, 1)])
    depth = torch.from_numpy(
        np.stack([ndimage.distance_transform_edt(mask) for mask in flat])
    )[:, 1:-1, 1:-1]
    chance = 0.5 + 0.5 * torch.rand(depth.shape, generator=generator)
    score, index = (depth * chance).flatten(1).topk(count, dim=1)
    return (score > 0).to(masks.device), _places(index.to(masks.device), masks, size)


Sample: TypeAlias = (
    "Callable[[Tensor, int, int, torch.Generator], tuple[Tensor, Tensor]]"
)
"""How points are drawn, such as `sample_points`."""


class ObjectRows(NamedTuple):
    """Single objects to ask for, with the points that ask.

    Attributes
    ----------
    image : Tensor
        ``int64 (R,)``, which image of the batch.
    masks : Tensor
        ``bool (R, S, S)``, the objects.
    points, labels : Tensor
        ``(R, N, 2)`` and ``(R, N)``, as for `napari_medseg.models.sam.point_tokens`.
    """

    image: Tensor
    masks: Tensor
    points: Tensor
    labels: Tensor

    def rows(self, sam: Sam, canvas: Canvas) -> Rows:
        """Return targets and tokens."""
        shrink = sams.stride_of(sam) // 4
        target = functional.avg_pool2d(self.masks.float().unsqueeze(1), shrink)[:, 0]
        tokens = canvas.tokens(sam, self.image, self.points, self.labels)
        return Rows(self.image, tokens, target)

    def corrected(
        self,
        found: Tensor,
        generator: torch.Generator,
        sample: Sample = sample_points,
    ) -> ObjectRows:
        """Add a click where the mask that was found is wrong, as SAM is trained.

        Parameters
        ----------
        found : Tensor
            ``bool (R, h, w)``, at the decoder's resolution.
        generator : torch.Generator
            Source of randomness.
        sample : callable
            How the click is drawn.

        Returns
        -------
        ObjectRows
            The click is on the object where it was missed, off it where too much was
            found; where nothing is wrong, the first click is given again.
        """
        side = self.masks.shape[-1]
        whole = functional.interpolate(found.float().unsqueeze(1), size=(side, side))
        wrong = (whole[:, 0] > 0.5) != self.masks
        there, point = sample(wrong, 1, side, generator)
        x, y = (point[:, 0] + 0.5).long().unbind(dim=1)
        rows = torch.arange(len(self.masks), device=self.masks.device)
        missed = self.masks[rows, y.clamp(0, side - 1), x.clamp(0, side - 1)]
        point = torch.where(there.unsqueeze(2), point, self.points[:, :1])
        label = torch.where(there, missed.long().unsqueeze(1), self.labels[:, :1])
        # the padding point stays last
        points = torch.cat([self.points[:, :-1], point, self.points[:, -1:]], dim=1)
        labels = torch.cat([self.labels[:, :-1], label, self.labels[:, -1:]], dim=1)
        return self._replace(points=points, labels=labels)


def draw_objects(
    batch: PromptableBatch,
    count: int,
    generator: torch.Generator,
    sample: Sample = sample_points,
) -> list[ObjectRows]:
    """Draw single objects, some with a click or a box, some to be corrected.

    Parameters
    ----------
    batch : PromptableBatch
        The images and their objects.
    count : int
        Objects an image.
    generator : torch.Generator
        Source of randomness.
    sample : callable
        How single clicks are drawn.

    Returns
    -------
    list of ObjectRows
        None, one or two groups. The first has a click and a padding point or the two
        corners of a box; the second, one or more clicks and a padding point.
    """
    image, masks = _draw_objects(batch, count, generator)
    several = torch.rand(len(image), generator=generator) < SEVERAL_SHARE
    groups = []
    single = partial(_click_or_box, sample=sample)
    for use, draw in ((~several, single), (several, _several_clicks)):
        pick = use.to(image.device)
        if use.any():
            points, labels = draw(masks[pick], generator)
            groups.append(ObjectRows(image[pick], masks[pick], points, labels))
    return groups


def _draw_objects(
    batch: PromptableBatch, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return images ``(R,)`` and masks ``bool (R, S, S)`` of some objects."""
    image, masks = [], [torch.zeros_like(batch.ids[:0], dtype=torch.bool)]
    for index, ids in enumerate(batch.ids):
        area = torch.bincount(ids.flatten())
        area[0] = 0
        found = torch.nonzero(area >= SMALLEST_OBJECT).flatten().cpu()
        for pick in torch.randperm(len(found), generator=generator)[:count]:
            image.append(index)
            masks.append((ids == found[pick]).unsqueeze(0))
    return torch.tensor(image, device=batch.ids.device), torch.cat(masks)


def _click_or_box(
    masks: Tensor, generator: torch.Generator, sample: Sample
) -> tuple[Tensor, Tensor]:
    """Give each mask one click and a padding point, or the two corners of a box."""
    rows, _, size = masks.shape
    _, click = sample(masks, 1, size, generator)
    clicks = torch.cat([click, torch.zeros_like(click)], dim=1)
    boxes = jittered_boxes(masks, generator)
    is_box = (torch.rand(rows, generator=generator) < 0.5).to(masks.device)
    points = torch.where(is_box.view(-1, 1, 1), boxes, clicks)
    labels = torch.where(
        is_box.unsqueeze(1), points.new_tensor([2, 3]), points.new_tensor([1, -1])
    )
    return points, labels.long()


def _several_clicks(masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Give each mask one to three clicks on it, and a padding point.

    Their number is the same for all masks; where a mask is too small for a click, the
    first one is given again.
    """
    count = int(torch.randint(1, 4, (1,), generator=generator))
    there, points = sample_points(masks, count, masks.shape[-1], generator)
    points = torch.where(there.unsqueeze(2), points, points[:, :1])
    labels = torch.ones_like(there, dtype=torch.long)
    padding = torch.zeros_like(points[:, :1])
    return torch.cat([points, padding], dim=1), functional.pad(labels, (0, 1), value=-1)


def jittered_boxes(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Return the bounding boxes of masks, each side moved by up to a tenth.

    Parameters
    ----------
    masks : Tensor
        ``bool (R, S, S)``, none of them empty.
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    Tensor
        ``(R, 2, 2)``: upper left and lower right corner, x and y.
    """
    boxes = []
    for mask in masks:
        rows = torch.nonzero(mask.any(dim=1)).flatten()
        columns = torch.nonzero(mask.any(dim=0)).flatten()
        boxes.append(torch.stack([columns[0], rows[0], columns[-1], rows[-1]]))
    corners = torch.stack(boxes).float()
    side = (corners[:, 2:] - corners[:, :2]).repeat(1, 2)
    move = 0.1 * (2 * torch.rand(corners.shape, generator=generator) - 1)
    moved = corners + side * move.to(corners.device)
    return moved.clamp(0, masks.shape[-1] - 1).view(-1, 2, 2)
