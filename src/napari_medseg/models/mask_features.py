"""What can be said of a mask without knowing the truth: its features.

SAM's own estimate, the mask's shape and place in its window, how it differs from what
surrounds it in the image and in the embedding, how it lies to clicks and box, and how
far the masks of one prompt agree. All masks of a prompt are described at once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

from napari_medseg.models.candidates import resampled
from napari_medseg.models.judging import stability
from napari_medseg.models.mask_geometry import (
    corners_of,
    distances,
    grown,
    means_by_look,
    means_of,
    moments_of,
    values_at,
)

if TYPE_CHECKING:
    from torch import Tensor

    from napari_medseg.models.candidates import Candidates

OFFSETS = (0.5, 1.0, 3.0)
"""Say how far the threshold moves to see how sure an outline is."""

SEAMS = (2, 6)
"""Cells of a narrow and of a wide seam round a mask."""

TINY = 1e-3
"""Added to what is divided by."""

ON, OFF, CORNER = 1, 0, 2
"""How SAM calls clicks on an object, clicks beside it, and a box's first corner."""

NAMES = (
    *("expected", "rule", "rule behind the best", "rank"),
    *("mask 0", "mask 1", "mask 2", "mask 3", "parted by colour"),
    *(f"stability {offset}" for offset in OFFSETS),
    *("sure within", "sure around", "sure at the outline"),
    *("kept of drawn", "filled of kept"),
    *("log side", "share of window", "log magnification"),
    *("at open sides", "at the image's edge"),
    *("log compactness", "fills its box", "aspect", "elongation"),
    *("contrast near", "contrast far", "clearness near", "clearness far"),
    *("evenness", "texture near", "texture far", "edges at the outline"),
    *("alike round it", "embedding step"),
    *("boxed", "clicks on", "clicks beside", "clicks obeyed"),
    *("depth of the first click", "depth of clicks", "first click off the middle"),
    *("clicks beside it away",),
    *("fills the box", "of the box's area", "beyond the box", "short of the box"),
    *("like others", "like the likely", "like its look", "like other looks"),
    *("most like another", "looks"),
)
"""What each feature is, in their order."""


class _Areas(NamedTuple):
    """Masks ``bool (M, h, w)``, seams round them, and the masks' cells ``(M,)``.

    The rim is a cell on either side of the outline.
    """

    mask: Tensor
    near: Tensor
    far: Tensor
    rim: Tensor
    size: Tensor

    @classmethod
    def of(cls, masks: Tensor) -> _Areas:
        near, far = (grown(masks, cells) & ~masks for cells in SEAMS)
        rim = grown(masks, 1) & grown(~masks, 1)
        return cls(masks, near, far, rim, masks.sum(dim=(1, 2)).float())


def describe(candidates: Candidates, alike: Tensor) -> Tensor:
    """Describe the masks that one prompt is offered.

    Parameters
    ----------
    candidates : Candidates
        M masks.
    alike : Tensor
        ``float32 (M, M)`` from `agreement`.

    Returns
    -------
    Tensor
        ``float32 (M, F)``, the features of `NAMES`.
    """
    masks = candidates.masks.float()
    areas = _Areas.of(candidates.masks)
    area = areas.size
    parts = (
        *_by_sam(candidates),
        *_by_certainty(candidates, areas),
        *_by_place(candidates, masks, area),
        *_by_shape(masks, area),
        *_by_pixels(candidates, areas),
        *_by_embedding(candidates),
        *_by_clicks(candidates, masks, area),
        *_by_box(candidates, masks, area),
        *_by_agreement(candidates, alike),
    )
    return torch.stack(parts, dim=1)


def agreement(candidates: Candidates) -> Tensor:
    """Return the IoU of each two masks, of whatever looks.

    Parameters
    ----------
    candidates : Candidates
        M masks.

    Returns
    -------
    Tensor
        ``float32 (M, M)``. Masks of two looks are compared on the finer grid; what
        lies outside of its window cannot be in both. 0 of two empty masks.
    """
    masks, cell = candidates.masks.float(), candidates.frames[:, 2]
    groups = [candidates.look == index for index in range(len(cell))]
    both = masks.new_zeros(len(masks), len(masks))
    for first, one in enumerate(groups):
        for second, other in enumerate(groups):
            if (float(cell[first]), first) > (float(cell[second]), second):
                continue
            seen = resampled(masks[other], candidates, second, first)
            shared = masks[one].flatten(1) @ seen.flatten(1).T * cell[first] ** 2
            rows, columns = one.nonzero()[:, 0], other.nonzero()[:, 0]
            both[rows[:, None], columns] = shared
            both[columns[:, None], rows] = shared.T
    area = masks.sum(dim=(1, 2)) * cell[candidates.look] ** 2
    # on two grids an overlap may come out larger than a mask
    both = both.minimum(area[:, None]).minimum(area)
    return both / (area[:, None] + area - both).clamp(min=TINY)


def _by_sam(candidates: Candidates) -> list[Tensor]:
    """Say what SAM and the rule think of the mask, and which of its four it is."""
    rule = candidates.rule
    order = torch.zeros_like(candidates.look)
    for index in range(len(candidates.frames)):
        own = candidates.look == index
        order[own] = torch.arange(int(own.sum()))
    better = (rule[None] > rule[:, None]).sum(dim=1)
    # the masks of colours come after SAM's
    order[candidates.parted] = 4
    which = functional.one_hot(order, 5).float().unbind(1)
    best = rule.max() - rule
    return [candidates.expected, rule, best, better / len(rule), *which]


def _by_certainty(candidates: Candidates, areas: _Areas) -> list[Tensor]:
    """Say how sure the drawing is, and how much of it is left."""
    logits = candidates.logits
    sure = torch.tanh(logits / 4)
    drawn = logits > 0
    within, around = (means_of(sure, part) for part in (areas.mask, areas.far))
    both = (drawn & areas.mask).sum(dim=(1, 2))
    whole = drawn.sum(dim=(1, 2)).clamp(min=1)
    return [
        *(stability(logits, offset).float() for offset in OFFSETS),
        within,
        around,
        means_of(sure.abs_(), areas.rim),
        both / whole,
        1 - both / areas.size.clamp(min=1),
    ]


def _by_place(candidates: Candidates, masks: Tensor, area: Tensor) -> list[Tensor]:
    """Say how large the mask is, and whether it ends where its window does."""
    look = candidates.look
    shown, pixels = candidates.shown[look], candidates.pixels[look]
    last = (shown.ceil() - 1).long().clamp(0, masks.shape[-1] - 1)
    index = torch.arange(len(masks))
    sides = torch.stack(
        [
            masks[:, 0].sum(dim=1),
            masks[:, :, 0].sum(dim=1),
            masks[index, last[:, 0]].sum(dim=1),
            masks[index, :, last[:, 1]].sum(dim=1),
        ],
        dim=1,
    )
    side, goes_on = area.clamp(min=1).sqrt(), candidates.open[look].float()
    return [
        (side * pixels).log(),
        area / shown.prod(dim=1),
        (pixels / candidates.frames[look, 2]).log(),
        (sides * goes_on).sum(dim=1) / side,
        (sides * (1 - goes_on)).sum(dim=1) / side,
    ]


def _by_shape(masks: Tensor, area: Tensor) -> list[Tensor]:
    """Say how round, how full and how long the mask is."""
    padded = functional.pad(masks, (1, 1, 1, 1))
    outline = padded.diff(dim=1).abs().sum(dim=(1, 2))
    outline = outline + padded.diff(dim=2).abs().sum(dim=(1, 2))
    low, high = corners_of(masks)
    height, width = (high - low + 1).unbind(1)
    _, spread = moments_of(masks, area)
    mean = (spread[:, 0] + spread[:, 1]) / 2
    off = ((spread[:, 0] - spread[:, 1]) ** 2 / 4 + spread[:, 2] ** 2).sqrt()
    return [
        (outline**2 / (16 * area.clamp(min=1))).clamp(min=TINY).log(),
        area / (height * width).clamp(min=1),
        (height / width.clamp(min=1)).clamp(min=TINY).log().abs(),
        (off / mean.clamp(min=TINY)).clamp(max=1),
    ]


def _by_pixels(candidates: Candidates, areas: _Areas) -> list[Tensor]:
    """Say how the mask differs from what surrounds it in the image."""
    pictures, look = candidates.pictures, candidates.look
    grey = pictures.mean(dim=1)
    steps = functional.pad(grey.diff(dim=1).abs(), (0, 0, 0, 1))
    steps = steps + functional.pad(grey.diff(dim=2).abs(), (0, 1))
    layers = torch.cat([pictures, steps[:, None], pictures**2], dim=1)
    there = _shown_cells(candidates)
    usual = means_by_look(layers, there, torch.arange(len(there)))[look]
    spread = _variance(usual).sqrt().mean(dim=1) + TINY
    on_image = there[look]
    parts = (areas.mask, areas.near & on_image, areas.far & on_image)
    inner, *outer = (means_by_look(layers, part, look) for part in parts)
    contrast, clear, texture = [], [], []
    for around in outer:
        apart = (inner[:, :3] - around[:, :3]).abs()
        noise = _variance(inner) + _variance(around)
        contrast.append(apart.max(dim=1).values / spread)
        clear.append((apart / (noise + TINY).sqrt()).max(dim=1).values.clamp(max=10))
        ratio = (inner[:, 3] + TINY) / (around[:, 3] + TINY)
        texture.append(ratio.log().clamp(-3, 3))
    edges = means_by_look(steps[:, None], areas.rim & on_image, look)[:, 0]
    even = _variance(inner).mean(dim=1).sqrt() / spread
    steep = (edges / (usual[:, 3] + TINY)).clamp(max=10)
    return [*contrast, *clear, even, *texture, steep]


def _by_embedding(candidates: Candidates) -> list[Tensor]:
    """Say how the mask differs from what surrounds it in the embedding."""
    within, around = candidates.within, candidates.around
    alike = functional.cosine_similarity(within, around, dim=1)
    step = (within - around).norm(dim=1) / (within.norm(dim=1) + TINY)
    return [alike, step.clamp(max=5)]


def _by_clicks(candidates: Candidates, masks: Tensor, area: Tensor) -> list[Tensor]:
    """Say how the mask lies to the clicks."""
    places = _places(candidates)
    labels = candidates.labels
    on, off = (places[:, labels == kind] for kind in (ON, OFF))
    radius = (area / math.pi).clamp(min=1).sqrt()
    boxed = torch.full_like(area, float((labels == CORNER).any()))
    counts = [torch.full_like(area, float(group.shape[1])) for group in (on, off)]
    zero = torch.zeros_like(area)
    first = least = centre = away = zero
    if on.shape[1]:
        depth = torch.stack(
            [distances(place, masks < 0.5) for place in on.unbind(1)], dim=1
        )
        first, least = depth[:, 0] / radius, depth.min(dim=1).values / radius
        middle, _ = moments_of(masks, area)
        centre = (on[:, 0] - middle).norm(dim=1) / radius
    if off.shape[1]:
        gaps = [distances(place, masks > 0.5) for place in off.unbind(1)]
        away = torch.stack(gaps, dim=1).min(dim=1).values / radius
    obeyed = values_at(masks, on).sum(dim=1) + (1 - values_at(masks, off)).sum(dim=1)
    hits = obeyed / max(1, on.shape[1] + off.shape[1])
    far = [first, least, centre, away]
    return [boxed, *counts, hits, *(item.clamp(max=5) for item in far)]


def _by_box(candidates: Candidates, masks: Tensor, area: Tensor) -> list[Tensor]:
    """Say how the mask fills the box."""
    if not (candidates.labels == CORNER).any():
        return [torch.zeros_like(area)] * 4
    box = _places(candidates)[:, -2:]
    low, high = box[:, 0], box[:, 1]
    own_low, own_high = corners_of(masks)
    sides = (high - low + 1).clamp(min=1)
    shared = (high.minimum(own_high) - low.maximum(own_low) + 1).clamp(min=0).prod(1)
    own = (own_high - own_low + 1).clamp(min=0).prod(1)
    beyond = torch.cat([(low - own_low) / sides, (own_high - high) / sides], dim=1)
    return [
        shared / (sides.prod(1) + own - shared).clamp(min=TINY),
        area / sides.prod(1),
        beyond.max(dim=1).values.clamp(-2, 2),
        beyond.min(dim=1).values.clamp(-2, 2),
    ]


def _by_agreement(candidates: Candidates, alike: Tensor) -> list[Tensor]:
    """Say how far the masks of one prompt agree with this one."""
    count = len(alike)
    others = 1 - torch.eye(count)
    same = (candidates.look[:, None] == candidates.look).float() * others
    across = others - same
    weight = candidates.rule.clamp(min=0)[None] * others
    return [
        *(
            (alike * part).sum(dim=1) / part.sum(dim=1).clamp(min=TINY)
            for part in (others, weight, same, across)
        ),
        (alike * others).max(dim=1).values,
        torch.full((count,), float(len(candidates.frames))),
    ]


def _variance(means: Tensor) -> Tensor:
    """Return variances of the three colours from `_mean` of them and their squares."""
    return (means[:, 4:] - means[:, :3] ** 2).clamp(min=0)


def _shown_cells(candidates: Candidates) -> Tensor:
    """Return where windows show the image, ``bool (L, h, w)``."""
    size = candidates.masks.shape[-1]
    middles = torch.arange(size) + 0.5
    rows, columns = (middles < candidates.shown[:, axis, None] for axis in (0, 1))
    return rows[:, :, None] & columns[:, None]


def _places(candidates: Candidates) -> Tensor:
    """Return rows and columns of the points in each mask's cells, ``(M, P, 2)``."""
    frames = candidates.frames[candidates.look]
    points = candidates.points.flip(1)[None]
    return (points - frames[:, None, :2] + 0.5) / frames[:, None, 2:] - 0.5
