"""Losses on logits, with pixels that do not count.

Targets are class shares: a target pixel that covers half a nucleus is 0.5. That is
what an annotation becomes when it is averaged down to the decoder's resolution.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SMOOTH = 1.0
"""Added to numerator and denominator of soft Dice, so that empty masks are finite."""


def soft_cross_entropy(logits: Tensor, shares: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy against class shares, averaged over the pixels that count.

    Parameters
    ----------
    logits : Tensor
        ``(B, K, H, W)``.
    shares : Tensor
        ``(B, K, H, W)``, summing to 1 over K.
    weight : Tensor
        ``(B, H, W)`` in [0, 1]; 0 where a pixel does not count.

    Returns
    -------
    Tensor
        A scalar.
    """
    loss = -(shares * functional.log_softmax(logits, dim=1)).sum(dim=1)
    return (loss * weight).sum() / weight.sum().clamp(min=1.0)


def soft_dice(logits: Tensor, shares: Tensor, weight: Tensor) -> Tensor:
    """One minus soft Dice (Milletari et al., 3DV 2016), mean over foreground classes.

    Sums run over the batch, so that a class absent from one image of it does not
    weigh as a whole image.

    Parameters
    ----------
    logits, shares, weight : Tensor
        As for `soft_cross_entropy`.

    Returns
    -------
    Tensor
        A scalar in [0, 1].
    """
    probabilities = logits.softmax(dim=1)[:, 1:] * weight.unsqueeze(1)
    truth = shares[:, 1:] * weight.unsqueeze(1)
    overlap = (probabilities * truth).sum(dim=(0, 2, 3))
    total = probabilities.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3))
    return 1.0 - ((2.0 * overlap + SMOOTH) / (total + SMOOTH)).mean()


def binary_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Binary cross-entropy of each mask, averaged over the pixels that count.

    Parameters
    ----------
    logits, target, weight : Tensor
        ``(B, H, W)``; ``target`` is a share in [0, 1].

    Returns
    -------
    Tensor
        ``(B,)``.
    """
    loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (loss * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp(min=1.0)


def binary_dice(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """One minus soft Dice of each mask.

    Parameters
    ----------
    logits, target, weight : Tensor
        ``(B, H, W)``.

    Returns
    -------
    Tensor
        ``(B,)``.
    """
    probability = torch.sigmoid(logits) * weight
    target = target * weight
    overlap = (probability * target).sum(dim=(1, 2))
    total = probability.sum(dim=(1, 2)) + target.sum(dim=(1, 2))
    return 1.0 - (2.0 * overlap + SMOOTH) / (total + SMOOTH)


def focal_tversky(
    logits: Tensor,
    shares: Tensor,
    weight: Tensor,
    missed: float = 0.7,
    wrong: float = 0.3,
    power: float = 0.75,
) -> Tensor:
    """Focal Tversky loss of class 1 (Abraham and Khan, ISBI 2019).

    ``(1 - TI) ** power`` with ``TI = TP / (TP + missed FN + wrong FP)``, sums over the
    batch: what is missed of a small lesion costs more than what is found beside it.

    Parameters
    ----------
    logits, shares, weight : Tensor
        As for `soft_cross_entropy`, of two classes.
    missed, wrong : float
        Weights of what is not found and of what is wrongly found.
    power : float
        The published 1 / (4/3).

    Returns
    -------
    Tensor
        A scalar in [0, 1].
    """
    probability, truth = logits.softmax(dim=1)[:, 1], shares[:, 1]
    hits = (weight * probability * truth).sum()
    not_found = (weight * truth * (1.0 - probability)).sum()
    found_beside = (weight * probability * (1.0 - truth)).sum()
    index = (hits + SMOOTH) / (
        hits + missed * not_found + wrong * found_beside + SMOOTH
    )
    # the slope of the power is infinite where nothing is left to learn
    return (1.0 - index).clamp(min=1e-6) ** power
