"""SuperCL: how an encoder learns from images without labels.

After Xu et al. (IEEE TIP 35:1636, 2026; arXiv 2504.14737): the model, the windows it
sees, and the objective; its losses are in `napari_medseg.training.contrastive`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from napari_medseg.models.sam import standardise
from napari_medseg.training.contrastive import (
    at_features,
    contrast,
    intra_image,
    joined_windows,
    same_group,
    same_instance,
)
from napari_medseg.training.pretraining_views import views_of

if TYPE_CHECKING:
    from collections.abc import Iterable


HEAD = 512
"""Channels of the instance head."""


class WindowBatch(NamedTuple):
    """Windows of images without labels.

    Attributes
    ----------
    images : Tensor
        ``float32 (B, C, S, S)`` in [0, 1].
    superpixels : Tensor
        ``int64 (B, S, S)``.
    positions : Tensor
        ``float64 (B,)``: height in its stack, 0 to 1; NaN for what is no slice.
    """

    images: Tensor
    superpixels: Tensor
    positions: Tensor


@dataclass(frozen=True)
class Weights:
    """What the loss is made of; see `napari_medseg.training.pretraining_settings`."""

    instance: float = 1.0
    intra: float = 1.0
    inter: float = 0.5
    keep: float = 0.0
    temperature: float = 0.1
    points: int = 256
    slices: float = 0.0


class Encoder(Protocol):
    """Anything with features at several strides."""

    def features(self, images: Tensor) -> dict[int, Tensor]:
        """Return ``(B, C, H / stride, W / stride)`` by stride, the finest first."""
        ...


class ContrastiveModel(nn.Module):
    """An encoder, and the head that instances are compared by.

    Parameters
    ----------
    encoder : Module
        With `Encoder.features`; what is frozen of it stays as it is.
    stride : int
        Which features are compared within images.
    reference : Module, optional
        The encoder as it was, to stay near.
    embedding : int
        Stride of the features that shall stay.
    width : int
        Channels of the coarsest features.
    """

    def __init__(
        self,
        encoder: nn.Module,
        stride: int,
        width: int,
        reference: nn.Module | None = None,
        embedding: int = 0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.stride = stride
        self.head = nn.Sequential(
            nn.Linear(width, HEAD), nn.ReLU(inplace=True), nn.Linear(HEAD, HEAD)
        )
        self.reference = reference
        self.embedding = embedding

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features.

        Parameters
        ----------
        images : Tensor
            ``(N, C, S, S)``, standardised.

        Returns
        -------
        grid : Tensor
            ``(N, D, S / stride, S / stride)``.
        instances : Tensor
            ``(N, 512)``.
        """
        found = features_of(self.encoder, images)
        coarsest = found[max(found)]
        return found[self.stride], self.head(coarsest.mean(dim=(2, 3)))

    def drift(self, images: Tensor) -> Tensor:
        """Return how far the encoder went from what it was, as a share of that."""
        if self.reference is None:
            return images.new_zeros(())
        with torch.no_grad():
            before = features_of(self.reference, images)[self.embedding].float()
        now = features_of(self.encoder, images)[self.embedding].float()
        return (now - before).square().mean() / before.square().mean()


class SuperCL:
    """The objective: trains what is not frozen.

    Parameters
    ----------
    weights : Weights
        What the loss is made of.
    """

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    def parameters(self, model: nn.Module) -> Iterable[dict[str, Any]]:
        """Return the parameters that are not frozen, as one group."""
        return [{"params": [each for each in model.parameters() if each.requires_grad]}]

    def step(
        self, model: nn.Module, batch: WindowBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch and its parts."""
        weights = self.weights
        count = len(batch.images)
        device = batch.images.device.type
        with torch.autocast(device, enabled=False):
            inputs = standardise(torch.cat(views_of(batch.images)))
        grid, instances = model(inputs)
        zero = instances.new_zeros((), dtype=torch.float32)
        drift = zero
        if weights.keep > 0 and isinstance(model, ContrastiveModel):
            drift = model.drift(standardise(batch.images))
        # bfloat16 is too coarse for what is divided by a small temperature
        with torch.autocast(device, enabled=False):
            grid = grid[: 2 * count].float()
            instances = instances[2 * count :].float()
            labels = at_features(batch.superpixels, (grid.shape[2], grid.shape[3]))
            known = same_instance(batch.positions.to(grid.device), weights.slices)
            instance = contrast(instances, known, weights.temperature)
            intra, inter, joined = zero, zero, zero
            if weights.intra > 0:
                intra = intra_image(grid, labels, weights.points, weights.temperature)
            if weights.inter > 0:
                alike = same_group(grid.detach(), labels)
                inter = contrast(instances, alike, weights.temperature)
                joined = joined_windows(alike)
            loss = (
                weights.instance * instance
                + weights.intra * intra
                + weights.inter * inter
                + weights.keep * drift
            )
        figures = {"instance": instance, "intra": intra, "inter": inter}
        figures["joined"] = joined
        return loss, figures | ({"drift": drift} if weights.keep > 0 else {})

    def after_step(self, model: nn.Module, step: int) -> None:
        """Do nothing."""


def features_of(encoder: nn.Module, images: Tensor) -> dict[int, Tensor]:
    """Return an encoder's features by stride; see `Encoder`."""
    found: dict[int, Tensor] = encoder.features(images)  # type: ignore[operator]
    return found
