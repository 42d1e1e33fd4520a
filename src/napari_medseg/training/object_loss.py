"""How far what a mask decoder draws is from what was wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from napari_medseg.training import losses

if TYPE_CHECKING:
    from torch import Tensor

    from napari_medseg.models.sam import Decoded


def mask_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return binary cross-entropy plus Dice of masks.

    Parameters
    ----------
    logits, target, weight : Tensor
        ``(R, h, w)``; the weight is 0 where nothing is known.

    Returns
    -------
    Tensor
        ``(R,)``.
    """
    entropy = losses.binary_cross_entropy(logits.float(), target, weight)
    return entropy + losses.binary_dice(logits.float(), target, weight)


def object_loss(
    decoded: Decoded, target: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the loss of all four masks of single objects, and of the expected IoU.

    As SAM is trained (Kirillov et al., ICCV 2023, A): the first mask is the answer to
    any prompt; of the three others only the best one learns, so that they may differ.

    Parameters
    ----------
    decoded : Decoded
        Of R prompts.
    target, weight : Tensor
        ``(R, h, w)``, as for `mask_loss`.

    Returns
    -------
    loss : Tensor
        ``()``.
    iou : Tensor
        ``()``, the mean of the first mask.
    """
    each = torch.stack(
        [mask_loss(decoded.masks[:, mask], target, weight) for mask in range(4)], dim=1
    )
    with torch.no_grad():
        predicted = (decoded.masks > 0) & (weight > 0).unsqueeze(1)
        truth = (target > 0.5).unsqueeze(1)
        overlap = (predicted & truth).sum(dim=(2, 3))
        iou = overlap / (predicted | truth).sum(dim=(2, 3)).clamp(min=1)
    quality = functional.mse_loss(decoded.iou.float(), iou.float())
    loss = each[:, 0] + 0.5 * each[:, 1:].min(dim=1).values
    return loss.mean() + quality, iou[:, 0].mean()
