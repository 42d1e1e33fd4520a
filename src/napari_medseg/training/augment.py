"""Random changes of images that leave what they show the same.

All of it works on batches of tensors, on any device; what is drawn depends on the
generator alone.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

from napari_medseg.training.tasks import gaussian

if TYPE_CHECKING:
    from torch import Tensor


class Warped(NamedTuple):
    """Images and maps after the same geometric change.

    Attributes
    ----------
    images : Tensor
        ``float32 (B, 3, S, S)``.
    maps : Tensor
        ``int64 (B, M, S, S)``.
    """

    images: Tensor
    maps: Tensor


def uniform(
    shape: tuple[int, ...], low: float, high: float, generator: torch.Generator
) -> Tensor:
    """Draw from a uniform distribution, on the processor."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def random_affine(
    images: Tensor,
    maps: Tensor,
    size: int,
    generator: torch.Generator,
    zoom: tuple[float, float] = (0.6, 1.7),
) -> Warped:
    """Cut a turned, mirrored and zoomed square out of each image.

    Parameters
    ----------
    images : Tensor
        ``float32 (B, 3, H, W)``.
    maps : Tensor
        ``int64 (B, M, H, W)``, sampled without interpolation.
    size : int
        Side of the result, in pixels.
    generator : torch.Generator
        Source of randomness.
    zoom : tuple of float
        Range of magnifications, drawn evenly on a logarithmic scale.

    Returns
    -------
    Warped
        Squares; beyond an edge the image is mirrored.
    """
    batch, _, height, width = images.shape
    angle = uniform((batch,), -math.pi, math.pi, generator)
    factor = torch.exp(
        uniform((batch,), math.log(zoom[0]), math.log(zoom[1]), generator)
    )
    flip = torch.where(torch.rand(batch, generator=generator) < 0.5, -1.0, 1.0)
    half = torch.tensor([size / width, size / height])
    scale = 1.0 / factor
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = cos * half[0] * flip, -sin * half[0]
    theta[:, 1, 0], theta[:, 1, 1] = sin * half[1] * flip, cos * half[1]
    room = (1.0 - scale.unsqueeze(1) * half).clamp(min=0.05)
    theta[:, :, 2] = uniform((batch, 2), -1.0, 1.0, generator) * room
    grid = functional.affine_grid(
        theta.to(images.device), [batch, 1, size, size], align_corners=False
    )
    mirrored = partial(
        functional.grid_sample,
        grid=grid,
        padding_mode="reflection",
        align_corners=False,
    )
    warped = mirrored(images, mode="bilinear")
    labels = mirrored(maps.float(), mode="nearest")
    return Warped(warped, labels.round().long())


def random_intensity(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, gamma, polarity, colour, sharpness and noise.

    Parameters
    ----------
    images : Tensor
        ``float32 (B, 3, H, W)`` in [0, 1].
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    Tensor
        The same shape, in [0, 1].
    """
    batch = images.shape[0]
    device = images.device

    def draw(low: float, high: float) -> Tensor:
        return uniform((batch, 1, 1, 1), low, high, generator).to(device)

    def chance(share: float) -> Tensor:
        return (torch.rand(batch, 1, 1, 1, generator=generator) < share).to(device)

    images = torch.where(chance(0.25), 1.0 - images, images)
    images = images.clamp(0, 1) ** torch.exp(draw(-0.6, 0.6))
    images = images.clone()
    blurred = torch.nonzero(torch.rand(batch, generator=generator) < 0.3).flatten()
    if len(blurred):
        images[blurred] = gaussian(images[blurred], 1.2)
    images = (images - 0.5) * draw(0.6, 1.3) + 0.5 + draw(-0.15, 0.15)
    order = torch.randperm(3, generator=generator).to(device)
    images = torch.where(chance(0.3), images[:, order], images)
    grey = images.mean(dim=1, keepdim=True).expand_as(images)
    images = torch.where(chance(0.2), grey, images)
    shape = (batch, 1, *images.shape[2:])
    noise = torch.randn(shape, generator=generator).to(device)
    images = images + torch.where(chance(0.6), draw(0.0, 0.08), draw(0.0, 0.0)) * noise
    return images.clamp(0, 1)


def random_margin(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Blank the lower or right margin of some images, as SAM's padding does.

    Parameters
    ----------
    images : Tensor
        ``(B, 3, S, S)``, as the encoder takes them (padding is 0).
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    images : Tensor
        The same shape.
    valid : Tensor
        ``(B, S, S)``, 1 where there is image.
    """
    batch, _, height, width = images.shape
    share = torch.ones(batch, 2)
    padded = torch.rand(batch, 2, generator=generator) < 0.12
    share = torch.where(padded, uniform((batch, 2), 0.5, 1.0, generator), share)
    rows = torch.arange(height).view(1, -1, 1) < share[:, 0].view(-1, 1, 1) * height
    columns = torch.arange(width).view(1, 1, -1) < share[:, 1].view(-1, 1, 1) * width
    valid = (rows & columns).float().to(images.device)
    return images * valid.unsqueeze(1), valid
