"""The plain objective: class shares of annotated pixels, cross-entropy and Dice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from napari_medseg._config import check, setting
from napari_medseg.models.networks import outputs_of
from napari_medseg.training import losses

if TYPE_CHECKING:
    from torch import Tensor, nn


class LabelledBatch(NamedTuple):
    """Inputs with what is known of their pixels.

    Attributes
    ----------
    inputs : Tensor
        What the model takes: embeddings ``(B, 256, h, w)`` or images
        ``(B, C, S, S)``.
    shares : Tensor
        ``(B, K, H, W)``, the share of each class in each pixel of the model's output.
    weight : Tensor
        ``(B, H, W)``, the share of each pixel that is annotated.
    numbers : Tensor
        ``int64 (B,)``, of which image each is a view.
    places : Tensor
        ``(B, 2, 3)``, where in the image each view lies; see `views.View`.
    """

    inputs: Tensor
    shares: Tensor
    weight: Tensor
    numbers: Tensor
    places: Tensor


@dataclass(frozen=True)
class LossConfig:
    """What the supervised loss is made of."""

    cross_entropy: float = setting(1.0, "Weight of the cross-entropy.", ge=0.0)
    dice: float = setting(1.0, "Weight of the Dice loss.", ge=0.0)

    def __post_init__(self) -> None:
        check(self)


class Supervised:
    """Learn class shares; trains whatever parameters of the model are not frozen.

    Parameters
    ----------
    config : LossConfig
        The loss.
    """

    def __init__(self, config: LossConfig | None = None) -> None:
        self.config = config or LossConfig()

    def parameters(self, model: nn.Module) -> list[dict[str, Any]]:
        """Return the parameters that are not frozen, as one group."""
        trained = [item for item in model.parameters() if item.requires_grad]
        return [{"params": trained}]

    def step(
        self, model: nn.Module, batch: LabelledBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, over all outputs of the model, and its parts."""
        found = outputs_of(model, batch.inputs)
        target = batch.shares, batch.weight
        entropy = torch.stack([losses.soft_cross_entropy(x, *target) for x in found])
        dice = torch.stack([losses.soft_dice(logits, *target) for logits in found])
        entropy, dice = entropy.sum(), dice.sum()
        loss = self.config.cross_entropy * entropy + self.config.dice * dice
        return loss, {"cross_entropy": entropy, "dice_loss": dice}

    def after_step(self, model: nn.Module, step: int) -> None:
        """Do nothing."""
