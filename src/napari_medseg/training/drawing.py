"""Drawing tasks: which pixels are wanted, and how the decoder is told so.

Each row is one task on one image of a batch: its target at the decoder's resolution
and the prompt tokens that ask for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from napari_medseg.models import sam as sams
from napari_medseg.training import tasks

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from napari_medseg.training.promptable import PromptableBatch, PromptableModel

TOKENS = 8
"""Learned tokens a task, as PTSAM has a class."""

SMALLEST_SHARE = 0.004
"""A task that marks less of an image is no task on it."""


class Rows(NamedTuple):
    """Tasks to decode, one a row.

    Attributes
    ----------
    image : Tensor
        ``int64 (R,)``, which image of the batch.
    tokens : Tensor
        ``(R, N, 256)``.
    target : Tensor
        ``(R, h, w)`` in [0, 1].
    """

    image: Tensor
    tokens: Tensor
    target: Tensor


class Maps(NamedTuple):
    """Targets of a batch at the decoder's resolution.

    Attributes
    ----------
    named : Tensor
        ``(B, T, h, w)`` in [0, 1].
    filters : Tensor
        ``(B, F, h, w)``, standardised.
    valid : Tensor
        ``(B, h, w)``.
    """

    named: Tensor
    filters: Tensor
    valid: Tensor


def target_maps(batch: PromptableBatch, kinds: int, shrink: int) -> Maps:
    """Return the targets of a batch, ``shrink`` times smaller than its images."""

    def smaller(maps: Tensor) -> Tensor:
        return functional.avg_pool2d(maps, shrink) if shrink > 1 else maps

    # in bfloat16 little would be left of second derivatives of a smooth image
    with torch.autocast(batch.grey.device.type, enabled=False):
        named = torch.cat(
            [
                tasks.object_maps(batch.ids, batch.grey),
                tasks.kind_maps(batch.kinds, kinds),
            ],
            dim=1,
        )
        filters = tasks.filter_responses(smaller(batch.grey))
        valid = smaller(batch.valid.unsqueeze(1))[:, 0]
        return Maps(smaller(named), filters, valid)


def named_rows(
    model: PromptableModel, maps: Maps, count: int, generator: torch.Generator
) -> Rows:
    """Draw named tasks that mark some, but not all, of their image."""
    share = maps.named.mean(dim=(2, 3)).cpu()
    usable = ((share > SMALLEST_SHARE) & (share < 0.97)).float() + 1e-6
    task = torch.multinomial(usable, count, generator=generator).flatten()
    image = torch.arange(len(share)).repeat_interleave(count)
    task, image = task.to(maps.valid.device), image.to(maps.valid.device)
    return Rows(image, model.task_tokens[task], maps.named[image, task])


def filter_rows(
    model: PromptableModel, maps: Maps, count: int, generator: torch.Generator
) -> Rows:
    """Draw random combinations of filters, given by the same mix of their tokens."""
    batch = maps.valid.shape[0]
    image = torch.arange(batch).repeat_interleave(count).to(maps.valid.device)
    mix, offset = tasks.random_combinations(batch * count, generator)
    mix, offset = mix.to(maps.valid.device), offset.to(maps.valid.device)
    response = torch.einsum("rf,rfhw->rhw", mix, maps.filters[image])
    weights = torch.cat([mix, offset.unsqueeze(1)], dim=1)
    tokens = torch.einsum("rf,fnd->rnd", weights, model.task_tokens[model.named :])
    target = (response + offset.view(-1, 1, 1) > 0).float()
    return Rows(image, tokens, target)


def with_noise(rows: Rows, amount: float, generator: torch.Generator) -> Rows:
    """Blur learned tokens a little, so that their neighbourhood means the same."""
    noise = torch.randn(rows.tokens.shape, generator=generator)
    return rows._replace(tokens=rows.tokens + amount * noise.to(rows.tokens.device))


def exemplar_rows(
    model: PromptableModel,
    maps: Maps,
    count: int,
    size: int,
    generator: torch.Generator,
) -> Rows:
    """Draw named and filter tasks, given by points on them and points off them."""
    named = named_rows(model, maps, count, generator)
    filters = filter_rows(model, maps, count, generator)
    use_filter = torch.rand(len(named.image), generator=generator) < 0.4
    pick = use_filter.to(named.target.device).view(-1, 1, 1)
    target = torch.where(pick, filters.target, named.target)
    return Rows(
        named.image, exemplar_tokens(model.sam, target, size, generator), target
    )


def exemplar_tokens(
    sam: Sam, target: Tensor, size: int, generator: torch.Generator
) -> Tensor:
    """Encode points on the target and points off it.

    Parameters
    ----------
    sam : Sam
        Whose prompt encoder to use.
    target : Tensor
        ``(R, h, w)``.
    size : int
        Side of the working image, in pixels.
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    Tensor
        ``(R, 8, 256)``: up to four points of each sort, padding for the rest.
    """
    half = TOKENS // 2
    wanted, points_on = sample_points(target > 0.5, half, size, generator)
    unwanted, points_off = sample_points(target <= 0.5, half, size, generator)
    rows = target.shape[0]
    keep = torch.randint(1, half + 1, (rows, 1), generator=generator)
    shown = (torch.arange(half) < keep).to(target.device)
    on = torch.where(wanted & shown, 1, -1)
    off = torch.where(unwanted & shown, 0, -1)
    return sams.point_tokens(
        sam.prompt_encoder,
        torch.cat([points_on, points_off], dim=1),
        torch.cat([on, off], dim=1),
        (size, size),
    )


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
    scale = size / width
    x = ((index % width) + 0.5) * scale - 0.5
    y = ((index // width) + 0.5) * scale - 0.5
    return score > 0, torch.stack([x, y], dim=2)


def object_rows(
    model: PromptableModel,
    batch: PromptableBatch,
    count: int,
    generator: torch.Generator,
) -> Rows | None:
    """Draw single objects, each with a click, a box, or several clicks.

    Parameters
    ----------
    model : PromptableModel
        Whose prompt encoder to use.
    batch : PromptableBatch
        The images and their objects.
    count : int
        Objects an image.
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    Rows or None
        None when no image has an object large enough.
    """
    size = batch.ids.shape[-1]
    shrink = sams.stride_of(model.sam) // 4
    image, masks = [], []
    for index, ids in enumerate(batch.ids):
        area = torch.bincount(ids.flatten())
        area[0] = 0
        found = torch.nonzero(area >= 40).flatten().cpu()
        for pick in torch.randperm(len(found), generator=generator)[:count]:
            image.append(index)
            masks.append(ids == found[pick])
    if not masks:
        return None
    stacked = torch.stack(masks)
    target = functional.avg_pool2d(stacked.float().unsqueeze(1), shrink)[:, 0]
    if torch.rand((), generator=generator) < 0.6:
        points, labels = _click_or_box(stacked, generator)
    else:
        points, labels = _several_clicks(stacked, generator)
    tokens = sams.point_tokens(model.sam.prompt_encoder, points, labels, (size, size))
    return Rows(torch.tensor(image, device=target.device), tokens, target)


def _click_or_box(masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Give each mask one click and a padding point, or the two corners of a box."""
    rows, _, size = masks.shape
    _, click = sample_points(masks, 1, size, generator)
    clicks = torch.cat([click, torch.zeros_like(click)], dim=1)
    boxes = jittered_boxes(masks, generator)
    is_box = (torch.rand(rows, generator=generator) < 0.5).to(masks.device)
    points = torch.where(is_box.view(-1, 1, 1), boxes, clicks)
    labels = torch.where(
        is_box.unsqueeze(1), points.new_tensor([2, 3]), points.new_tensor([1, -1])
    )
    return points, labels.long()


def _several_clicks(masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Give each mask up to three clicks on it and up to two beside it."""
    size = masks.shape[-1]
    on, points_on = sample_points(masks, 3, size, generator)
    near = tasks.spread(masks.float().unsqueeze(1), 31)[:, 0] > 0
    off, points_off = sample_points(near & ~masks, 2, size, generator)
    there = torch.cat([on, off], dim=1).cpu()
    keep = torch.rand(there.shape, generator=generator) < 0.7
    keep[:, 0] = True
    kind = torch.tensor([1, 1, 1, 0, 0]).expand(there.shape)
    labels = torch.where(there & keep, kind, -1)
    labels = torch.cat([labels, torch.full((len(labels), 1), -1)], dim=1)
    points = torch.cat([points_on, points_off, torch.zeros_like(points_on[:, :1])], 1)
    return points, labels.to(masks.device)


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
