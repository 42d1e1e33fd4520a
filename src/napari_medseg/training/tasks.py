"""Many tasks, which contradict each other, on the same image.

PTSAM steers a frozen mask decoder by prompt tokens alone. A decoder can be steered
only if it was trained so: on one image, this token asks for the objects, that one for
their borders, a third for the large ones, a fourth for whatever answers to some
filter. This module makes the targets of such tasks from an image and its objects.

Two families:

* *named* tasks, found from the objects: foreground, border, interior, large, …, and
  the kinds of a generated image;
* *filter* tasks: pixels where a random combination of filter responses is large.
  There is no end of them, and they need no labels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

OBJECT_TASKS = (
    "foreground",
    "background",
    "border",
    "interior",
    "surroundings",
    "large",
    "small",
    "elongated",
    "compact",
    "bright",
    "dark",
)
"""Tasks found from the objects of any image."""

FILTER_SIGMAS = (1.0, 2.0, 4.0, 8.0)
"""Scales of the filters, in pixels of the maps."""

FILTER_TASKS = tuple(
    f"{name} {sigma:g}"
    for name in ("intensity", "edge", "spot", "ridge", "crest", "texture")
    for sigma in FILTER_SIGMAS
)
"""Filter responses that filter tasks combine."""

Z_MAX = 4.0
"""Filter responses, in standard deviations, are cut here."""


def gaussian(images: Tensor, sigma: float) -> Tensor:
    """Blur ``(B, C, H, W)`` with a Gaussian of ``sigma`` pixels, mirrored edges."""
    radius = min(math.ceil(3 * sigma), min(images.shape[-2:]) - 1)
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(images.dtype)
    channels = images.shape[1]
    rows = kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    padded = functional.pad(images, (radius,) * 4, mode="reflect")
    return functional.conv2d(
        functional.conv2d(padded, rows, groups=channels), columns, groups=channels
    )


def filter_responses(grey: Tensor) -> Tensor:
    """Return the filter bank of grey images, each response standardised.

    Parameters
    ----------
    grey : Tensor
        ``(B, 1, H, W)``.

    Returns
    -------
    Tensor
        ``(B, len(FILTER_TASKS), H, W)``, mean 0 and standard deviation 1 within each
        image, cut at ±4: smoothed intensity, gradient magnitude, difference of
        Gaussians (spots), the larger eigenvalue of the Hessian (dark ridges), minus
        its smaller one (bright crests), and the local standard deviation (texture).
    """
    smooth = [gaussian(grey, sigma) for sigma in FILTER_SIGMAS]
    wider = [*smooth[1:], gaussian(grey, 2 * FILTER_SIGMAS[-1])]
    edges, ridges, crests = zip(*(_derivatives(item) for item in smooth), strict=True)
    spots = [fine - coarse for fine, coarse in zip(smooth, wider, strict=True)]
    squares = [gaussian(grey**2, sigma) for sigma in FILTER_SIGMAS]
    textures = [
        torch.sqrt((square - mean**2).clamp(min=0))
        for square, mean in zip(squares, smooth, strict=True)
    ]
    bank = torch.cat([*smooth, *edges, *spots, *ridges, *crests, *textures], dim=1)
    mean = bank.mean(dim=(2, 3), keepdim=True)
    deviation = bank.std(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    return ((bank - mean) / deviation).clamp(-Z_MAX, Z_MAX)


def _derivatives(smooth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return gradient magnitude and the Hessian's eigenvalues, the smaller negated."""
    dy, dx = torch.gradient(smooth, dim=(2, 3))
    dyy, dyx = torch.gradient(dy, dim=(2, 3))
    dxx = torch.gradient(dx, dim=3)[0]
    half_gap = torch.sqrt((0.5 * (dyy - dxx)) ** 2 + dyx**2)
    middle = 0.5 * (dyy + dxx)
    return torch.sqrt(dx**2 + dy**2), middle + half_gap, half_gap - middle


def object_maps(ids: Tensor, grey: Tensor) -> Tensor:
    """Return the maps of `OBJECT_TASKS`.

    Parameters
    ----------
    ids : Tensor
        ``int64 (B, H, W)``, 0 background, each object an id.
    grey : Tensor
        ``(B, 1, H, W)``.

    Returns
    -------
    Tensor
        ``float32 (B, len(OBJECT_TASKS), H, W)`` of 0 and 1.
    """
    inside = ids > 0
    labels = ids.float().unsqueeze(1)
    border = spread(labels, 5) != -spread(-labels, 5)
    core = spread(labels, 9) == -spread(-labels, 9)
    near = spread(inside.float().unsqueeze(1), 13) > 0
    maps = [
        inside,
        ~inside,
        border[:, 0],
        core[:, 0] & inside,
        near[:, 0] & ~inside,
        *_by_object(ids, grey),
    ]
    return torch.stack([item.float() for item in maps], dim=1)


def spread(maps: Tensor, width: int) -> Tensor:
    """Take the largest value in a square of ``width`` pixels around each pixel."""
    half = width // 2
    rows = functional.max_pool2d(maps, (width, 1), stride=1, padding=(half, 0))
    return functional.max_pool2d(rows, (1, width), stride=1, padding=(0, half))


def _by_object(ids: Tensor, grey: Tensor) -> list[Tensor]:
    """Split the objects of each image by area, by shape and by brightness."""
    halves: list[list[Tensor]] = [[], [], []]
    for image_ids, image_grey in zip(ids, grey[:, 0], strict=True):
        area, elongation, brightness = object_features(image_ids, image_grey)
        there = area > 0
        for maps, feature in zip(halves, (area, elongation, brightness), strict=True):
            middle = feature[there].median() if there.any() else feature.new_zeros(())
            maps.append((there & (feature > middle))[image_ids])
    inside = ids > 0
    result = []
    for maps in halves:
        upper = torch.stack(maps)
        result += [upper, inside & ~upper]
    return result


def object_features(ids: Tensor, grey: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Measure each object of an image.

    Parameters
    ----------
    ids : Tensor
        ``int64 (H, W)``.
    grey : Tensor
        ``(H, W)``.

    Returns
    -------
    area, elongation, brightness : Tensor
        Indexed by id; pixels, ratio of the principal axes, mean grey value. The entry
        of the background (id 0) is 0.
    """
    count = int(ids.max()) + 1
    flat = ids.flatten()
    height, width = ids.shape
    rows = torch.arange(height, dtype=torch.float32, device=ids.device)
    columns = torch.arange(width, dtype=torch.float32, device=ids.device)
    y = rows.view(-1, 1).expand(height, width).flatten()
    x = columns.expand(height, width).flatten()

    def mean(values: Tensor) -> Tensor:
        total = torch.bincount(flat, weights=values, minlength=count)
        return total.float() / area.clamp(min=1)

    area = torch.bincount(flat, minlength=count).float()
    my, mx = mean(y), mean(x)
    yy, xx = mean(y * y) - my**2, mean(x * x) - mx**2
    xy = mean(x * y) - mx * my
    gap = torch.sqrt((0.5 * (yy - xx)) ** 2 + xy**2)
    middle = 0.5 * (yy + xx)
    elongation = torch.sqrt((middle + gap + 0.1) / (middle - gap).clamp(min=0.1))
    brightness = mean(grey.flatten().float())
    area, elongation, brightness = (
        item.clone() for item in (area, elongation, brightness)
    )
    for item in (area, elongation, brightness):
        item[0] = 0
    return area, elongation, brightness


def kind_maps(kinds: Tensor, count: int) -> Tensor:
    """Return one map a kind, ``(B, count, H, W)``, of kinds numbered from 1."""
    wanted = torch.arange(1, count + 1, device=kinds.device).view(1, -1, 1, 1)
    return (kinds.unsqueeze(1) == wanted).float()


def random_combinations(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw coefficients of filter tasks.

    Parameters
    ----------
    rows : int
        Number of tasks.
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    coefficients : Tensor
        ``(rows, len(FILTER_TASKS))``, one to four of them not 0, of length 1.
    offset : Tensor
        ``(rows,)``; the target is where combination plus offset is above 0.
    """
    count = len(FILTER_TASKS)
    active = torch.randint(1, 5, (rows, 1), generator=generator)
    order = torch.rand(rows, count, generator=generator).argsort(dim=1)
    coefficients = torch.randn(rows, count, generator=generator) * (order < active)
    length = coefficients.norm(dim=1, keepdim=True).clamp(min=1e-3)
    offset = 0.8 * torch.randn(rows, generator=generator) - 0.4
    return coefficients / length, offset


def task_names(kinds: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all basis tasks: of objects, of kinds, of filters."""
    return (*OBJECT_TASKS, *kinds, *FILTER_TASKS, "offset")
