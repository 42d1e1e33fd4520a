"""Prompts as prototypes: what the embedding itself says of each pixel.

SAM's decoder reads masks off 32 channels. What the 256 channels of the embedding hold
beyond those, prompts cannot call up through the decoder. So they are compared with
the embedding as well: the first half of a class's prompts speak for it, the others
against it, and the nearer ones decide (soft nearest-prototype classification, Seo,
Bode and Obermayer, IEEE Transactions on Neural Networks 14, 2003, equation 3). With
z a pixel of the embedding, each channel standardised, p the prompts and T = 8:

    evidence = log Σ_for exp(-|z - p|² / T) - log Σ_against exp(-|z - p|² / T)

It is added to the decoder's logit. Not a number more is trained. This is no part of
PTSAM as it was published. A fine comparison is one with the embeddings of
`napari_medseg.models.fine_embedding`, four times as many pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from napari_medseg._types import FloatArray

TEMPERATURE = 8.0
"""T, in squared standard deviations of a channel."""

LEAST_DEVIATION = 1e-3
"""A channel that says the same everywhere is not blown up to more than this allows."""


class Comparison(nn.Module):
    """Compares the pixels of embeddings with prompts.

    Parameters
    ----------
    width : int
        Channels of an embedding.
    fineness : int
        Looks along each side, as for `fine_embedding`; 1 compares with the embedding
        itself.

    Attributes
    ----------
    mean, deviation : Tensor
        ``float32 (width,)``: of each channel, over the embeddings that were given to
        `fit`. They are measured, not trained.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int, fineness: int = 1) -> None:
        super().__init__()
        self.fineness = fineness
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    @classmethod
    def of(cls, statistics: FloatArray, fineness: int) -> Comparison:
        """Return one with the means and deviations ``(2, width)`` of a model file."""
        made = cls(statistics.shape[1], fineness)
        mean, deviation = torch.from_numpy(np.array(statistics, np.float32))
        made.mean.copy_(mean)
        made.deviation.copy_(deviation)
        return made

    @property
    def statistics(self) -> Tensor:
        """Means and deviations, ``float32 (2, width)``, as a model file holds them."""
        return torch.stack([self.mean, self.deviation])

    def fit(self, embeddings: Iterable[Tensor]) -> None:
        """Measure mean and standard deviation of each channel.

        Parameters
        ----------
        embeddings : iterable of Tensor
            ``(fineness² * width, h, w)`` each; at least one. Measured is the first
            look of each, which stands for all.
        """
        total, squares = torch.zeros(2, len(self.mean), dtype=torch.float64)
        pixels = 0
        for item in embeddings:
            values = item[: len(self.mean)].flatten(1).cpu().double()
            total += values.sum(1)
            squares += values.square().sum(1)
            pixels += values.shape[1]
        mean = total / pixels
        variance = (squares / pixels - mean**2).clamp(min=LEAST_DEVIATION**2)
        self.mean.copy_(mean)
        self.deviation.copy_(variance.sqrt())

    def forward(self, embeddings: Tensor, prompts: Tensor) -> Tensor:
        """Return the evidence for each class in each pixel.

        Parameters
        ----------
        embeddings : Tensor
            ``(B, L * width, h, w)``, of L = fineness² looks.
        prompts : Tensor
            ``float32 (sets, count, width)``. Of an odd number one more speaks for the
            class; a single one is compared with the mean of the embeddings.

        Returns
        -------
        Tensor
            ``float32 (B, L, sets, h, w)``.
        """
        sets, count, width = prompts.shape
        looks = self.fineness**2
        with torch.autocast(embeddings.device.type, enabled=False):
            each = embeddings.float().unflatten(1, (looks, width)).flatten(0, 1)
            near = self._nearness(each, prompts.reshape(-1, width))
            near = near.unflatten(0, (-1, looks)).unflatten(2, (sets, count))
            favour, against = near.split([count - count // 2, count // 2], dim=3)
            evidence: Tensor = favour.logsumexp(3)
            # of a single prompt, the mean itself is the other prototype: at 0
            return evidence - against.logsumexp(3) if count > 1 else evidence

    def _nearness(self, embeddings: Tensor, prototypes: Tensor) -> Tensor:
        """Return -|z - p|² / T but for |z|², which is the same for all prototypes.

        ``(B, P, h, w)`` for prototypes ``(P, width)``.
        """
        weight = prototypes * (2.0 / TEMPERATURE / self.deviation)
        length = prototypes.square().sum(1) / TEMPERATURE
        bias = -length - weight @ self.mean
        return functional.conv2d(embeddings, weight[:, :, None, None], bias)
