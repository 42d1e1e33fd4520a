"""The objective of small lesions: focal Tversky loss of class 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_medseg.models.networks import outputs_of
from napari_medseg.training import losses
from napari_medseg.training.supervised import Supervised

if TYPE_CHECKING:
    from torch import Tensor, nn

    from napari_medseg.training.supervised import LabelledBatch


class FocalTversky(Supervised):
    """Learn class 1 by `losses.focal_tversky`; all that is not frozen is trained."""

    def step(
        self, model: nn.Module, batch: LabelledBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, over all outputs of the model, and its parts."""
        found = outputs_of(model, batch.inputs)
        each = [losses.focal_tversky(x, batch.shares, batch.weight) for x in found]
        loss = torch.stack(each).sum()
        return loss, {"focal_tversky": loss}
