"""The four views of a window that SuperCL compares.

After Xu et al., "SuperCL" (IEEE TIP 35:1636, 2026; arXiv 2504.14737). The first two
differ in brightness and sharpness alone, so that pixels stay in their places; the
third and the fourth are those two, each moved in its own way. All of it draws from
torch's generator, which the training loop seeds before each step.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from napari_medseg.training.tasks import gaussian

BRIGHTNESS = (0.4, 1.2)
"""Factors of brightness. The published code begins at 0: nothing is left to see."""

CONTRAST = (0.8, 1.2)
"""Factors of contrast."""

BLUR = (1.0, 3.0)
"""Standard deviation of the blur, in pixels; its kernel has three of them."""

BLURRED = 0.5
"""Share of views that are blurred. The published code blurs all of them, so that the
encoder never sees an image as sharp as those it is for."""

ELASTIC = 0.67
"""Share of views that are bent, turned and scaled; the others are cut closer."""

ALPHA, SIGMA = (100.0, 350.0), (14.0, 17.0)
"""Strength of the bending, and how smooth it is in pixels."""

SCALE = (0.7, 1.3)
"""Magnifications of a view that is bent."""

CLOSER = (0.6, 1.0)
"""Share of the side that a closer view shows; the paper does not say how much."""


class Views(NamedTuple):
    """Four views of each window, ``float32 (B, C, S, S)`` in [0, 1].

    Attributes
    ----------
    first, second : Tensor
        In their places, with another brightness and sharpness.
    third, fourth : Tensor
        These two, moved.
    """

    first: Tensor
    second: Tensor
    third: Tensor
    fourth: Tensor


def views_of(images: Tensor) -> Views:
    """Make the views of windows.

    Parameters
    ----------
    images : Tensor
        ``float32 (B, C, S, S)`` in [0, 1].

    Returns
    -------
    Views
        Random ones.
    """
    first, second = relit(images), relit(images)
    return Views(first, second, moved(first), moved(second))


def relit(images: Tensor) -> Tensor:
    """Change brightness and contrast, and blur some.

    The published code then stretches each view to [0, 1], which takes the changes of
    brightness and contrast back, but for what was clipped. Here they stay.

    Parameters
    ----------
    images : Tensor
        ``float32 (B, C, S, S)`` in [0, 1].

    Returns
    -------
    Tensor
        The same shape, in [0, 1].
    """
    changed = (images * _drawn(images, *BRIGHTNESS)).clamp(0, 1)
    mean = changed.mean(dim=(1, 2, 3), keepdim=True)
    changed = ((changed - mean) * _drawn(images, *CONTRAST) + mean).clamp(0, 1)
    some = _chance(len(images), BLURRED).view(-1, 1, 1, 1).to(images.device)
    return torch.where(some, _blurred(changed, _drawn(images, *BLUR)), changed)


def moved(images: Tensor) -> Tensor:
    """Mirror, then bend, turn and scale, or cut closer.

    Parameters
    ----------
    images : Tensor
        ``float32 (B, C, S, S)``.

    Returns
    -------
    Tensor
        The same shape; beyond an edge the image is mirrored.
    """
    count, _, height, width = images.shape
    bent = _chance(count, ELASTIC)
    angle = torch.where(bent, _uniform(count, 0.0, 2 * math.pi), torch.zeros(count))
    shown = torch.where(bent, 1.0 / _uniform(count, *SCALE), _uniform(count, *CLOSER))
    flips = torch.where(torch.rand(count, 2) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * shown, torch.sin(angle) * shown
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = cos * flips[:, 0], -sin * flips[:, 1]
    theta[:, 1, 0], theta[:, 1, 1] = sin * flips[:, 0], cos * flips[:, 1]
    room = torch.where(bent, torch.zeros(count), 1.0 - shown)
    theta[:, :, 2] = (2 * torch.rand(count, 2) - 1) * room[:, None]
    shape = [count, 1, height, width]
    grid = functional.affine_grid(theta, shape, align_corners=False)
    # from pixels to the half width that torch counts in
    pixels = torch.tensor([2.0 / width, 2.0 / height])
    grid = grid + bent.view(-1, 1, 1, 1) * _bending(count, height, width) * pixels
    return functional.grid_sample(
        images,
        grid.to(images.device),
        mode="bilinear",
        padding_mode="reflection",
        align_corners=False,
    )


def _bending(count: int, height: int, width: int) -> Tensor:
    """Return smooth displacements ``(B, H, W, 2)`` in pixels."""
    noise = 2 * torch.rand(count, 2, height, width) - 1
    sigma = float(_uniform(1, *SIGMA))
    smooth = gaussian(noise, sigma) * _uniform(count, *ALPHA).view(-1, 1, 1, 1)
    return smooth.permute(0, 2, 3, 1)


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image with three pixels a direction, by its own sigma."""
    side = torch.exp(-0.5 / sigma**2)
    middle = 1.0 / (1.0 + 2.0 * side)
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    across = middle * (padded[..., 1:-1] + side * (padded[..., :-2] + padded[..., 2:]))
    return middle * (
        across[..., 1:-1, :] + side * (across[..., :-2, :] + across[..., 2:, :])
    )


def _uniform(count: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(count)


def _chance(count: int, share: float) -> Tensor:
    return torch.rand(count) < share


def _drawn(images: Tensor, low: float, high: float) -> Tensor:
    """Draw a number for each image, to multiply it with."""
    return _uniform(len(images), low, high).view(-1, 1, 1, 1).to(images.device)
