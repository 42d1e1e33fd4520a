"""Embeddings of more pixels than the encoder gives, by looking at an image again.

An encoder tells of an image every 8 or 16 pixels. Of the same image moved by half of
that it tells what lies in between (shift and stitch: Shelhamer, Long and Darrell, IEEE
TPAMI 39, 2017, section 3.2). Nothing is trained for it; it takes four times the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

FINE = 2
"""Pixels of a fine embedding for each of the encoder's own, along a side."""


def fine_embedding(
    encode: Callable[[Tensor], Tensor], images: Tensor, fineness: int = FINE
) -> Tensor:
    """Embed images, and the same images moved by parts of the encoder's stride.

    Parameters
    ----------
    encode : callable
        Maps images ``(B, C, H, W)`` to embeddings ``(B, D, h, w)``.
    images : Tensor
        ``(B, C, H, W)``.
    fineness : int
        Looks along each side; 1 gives the embedding alone.

    Returns
    -------
    Tensor
        ``(B, fineness² * D, h, w)``: the embedding itself, then those of the image
        moved to the left, up, and both.
    """
    first = encode(images)
    if fineness == 1:
        return first
    step = images.shape[-1] // (first.shape[-1] * fineness)
    looks = [first]
    for place in range(1, fineness**2):
        down, across = divmod(place, fineness)
        looks.append(encode(_moved(images, down * step, across * step)))
    return torch.cat(looks, dim=1)


def _moved(images: Tensor, up: int, left: int) -> Tensor:
    """Move images by pixels; the last row and column are repeated."""
    filled = functional.pad(images, (0, left, 0, up), mode="replicate")
    return filled[..., up:, left:]


def as_one_map(looks: Tensor, size: tuple[int, int]) -> Tensor:
    """Put what was said of each look where it belongs, and resize it.

    Parameters
    ----------
    looks : Tensor
        ``(B, L, K, h, w)``, of the L looks of `fine_embedding`.
    size : tuple of int
        Height and width that are wanted.

    Returns
    -------
    Tensor
        ``(B, K, *size)``, bilinear.
    """
    fineness = round(looks.shape[1] ** 0.5)
    maps = functional.pixel_shuffle(looks.transpose(1, 2).flatten(1, 2), fineness)
    maps = functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    # the first look's pixels lie in the middle of their stride, not of its first part
    late = tuple(
        round(side / length * (fineness - 1) / (2 * fineness))
        for side, length in zip(size, looks.shape[-2:], strict=True)
    )
    filled = functional.pad(maps, (late[1], 0, late[0], 0), mode="replicate")
    return filled[..., : size[0], : size[1]]
