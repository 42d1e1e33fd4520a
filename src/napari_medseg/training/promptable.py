"""The objective that trains a promptable SAM from nothing: ``promptable``.

One encoder pass serves several tasks on each image (`napari_medseg.training.tasks`).
A task is given to the decoder in one of three ways:

* by learned tokens: each named task and each filter has its own 8 × 256 numbers in
  the space of SAM's prompt tokens, and a combination of filters is given by the same
  combination of their tokens. This is what PTSAM later tunes;
* by exemplars: points on what is wanted and on what is not;
* by a click, clicks or a box on a single object, as SAM itself is trained.

A linear read-out of the decoder's 32 upscaled channels must tell all named tasks and
filter responses at once, so that the channels stay a rich basis to steer in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_medseg._config import check, setting
from napari_medseg.models import sam as sams
from napari_medseg.training import losses, tasks
from napari_medseg.training.drawing import (
    SMALLEST_SHARE,
    TOKENS,
    Maps,
    Rows,
    exemplar_rows,
    filter_rows,
    named_rows,
    object_rows,
    target_maps,
    with_noise,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segment_anything.modeling import Sam


class PromptableBatch(NamedTuple):
    """Images with what is known of the objects on them.

    Attributes
    ----------
    images : Tensor
        ``float32 (B, 3, S, S)``, standardised and padded as the encoder takes them.
    grey : Tensor
        ``float32 (B, 1, S, S)`` in [0, 1].
    ids : Tensor
        ``int64 (B, S, S)``, 0 background, each object an id.
    kinds : Tensor
        ``int64 (B, S, S)``, 0 where the kind of object has no name.
    valid : Tensor
        ``float32 (B, S, S)``, 0 on padding.
    seed : Tensor
        ``int64 ()``: the tasks drawn depend on it alone.
    """

    images: Tensor
    grey: Tensor
    ids: Tensor
    kinds: Tensor
    valid: Tensor
    seed: Tensor


@dataclass(frozen=True)
class PromptableConfig:
    """Which tasks are drawn for each image of a step."""

    named: int = setting(2, "Tasks an image given by learned tokens.", ge=0)
    filters: int = setting(2, "Filter tasks an image given by tokens.", ge=0)
    exemplars: int = setting(0, "Tasks an image given by example points.", ge=0)
    objects: int = setting(1, "Single objects an image, by clicks or box.", ge=0)
    token_noise: float = setting(0.05, "Noise added to learned tokens.", ge=0.0)
    readout: float = setting(0.3, "Weight of the linear read-out.", ge=0.0)

    def __post_init__(self) -> None:
        check(self)


class PromptableModel(nn.Module):
    """A SAM with the learned tokens of the tasks and the linear read-out.

    Parameters
    ----------
    sam : Sam
        All of it is trained.
    kinds : sequence of str
        Names of the kinds of objects that the training images distinguish.
    """

    def __init__(self, sam: Sam, kinds: Sequence[str]) -> None:
        super().__init__()
        self.sam = sam
        self.kinds = tuple(kinds)
        names = tasks.task_names(self.kinds)
        self.task_tokens = nn.Parameter(0.3 * torch.randn(len(names), TOKENS, 256))
        self.readout = nn.Conv2d(32, len(names) - 1, 1)
        # convolutions on processors are ten times faster this way round
        self.to(memory_format=torch.channels_last)

    @property
    def named(self) -> int:
        """Number of named tasks; filters and the offset come behind them."""
        return len(tasks.OBJECT_TASKS) + len(self.kinds)


class Promptable:
    """Train everything of a `PromptableModel`.

    Parameters
    ----------
    config : PromptableConfig
        The mix of tasks.
    """

    def __init__(self, config: PromptableConfig) -> None:
        self.config = config

    def parameters(self, model: nn.Module) -> list[dict[str, Any]]:
        """Return all parameters; only matrices decay, and tokens learn faster."""
        return parameter_groups(model)

    def after_step(self, model: nn.Module, step: int) -> None:
        """Do nothing."""

    def step(
        self, model: nn.Module, batch: PromptableBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch; see the module's docstring."""
        if not isinstance(model, PromptableModel):
            raise TypeError(f"{type(model).__name__} is not a PromptableModel")
        generator = torch.Generator().manual_seed(int(batch.seed))
        maps = target_maps(batch, len(model.kinds), sams.stride_of(model.sam) // 4)
        embeddings = sams.encode(model.sam.image_encoder, batch.images)
        figures: dict[str, Tensor] = {}
        loss = embeddings.new_zeros(())
        rows = self._token_rows(model, batch, maps, generator)
        decoded = self._decode(model, embeddings, rows)
        weight = maps.valid[rows.image]
        loss_tokens = _mask_loss(decoded.masks[:, 0].float(), rows.target, weight)
        loss = loss + loss_tokens.mean()
        figures |= _by_family(loss_tokens, self._families(batch))
        readout = self._readout_loss(model, decoded, rows, maps)
        loss = loss + self.config.readout * readout
        figures["readout"] = readout
        objects = object_rows(model, batch, self.config.objects, generator)
        if objects is not None:
            loss_objects, quality = self._object_loss(model, embeddings, objects, maps)
            loss = loss + 0.5 * loss_objects
            figures |= {"objects": loss_objects, "object_iou": quality}
        return loss, figures

    def _families(self, batch: PromptableBatch) -> dict[str, int]:
        """Return how many rows each family has, in order."""
        count = batch.images.shape[0]
        config = self.config
        return {
            "named": count * config.named,
            "filters": count * config.filters,
            "exemplars": count * config.exemplars,
        }

    def _token_rows(
        self,
        model: PromptableModel,
        batch: PromptableBatch,
        maps: Maps,
        generator: torch.Generator,
    ) -> Rows:
        """Draw named, filter and exemplar tasks."""
        config = self.config
        size = batch.images.shape[-1]
        groups = []
        if config.named:
            rows = named_rows(model, maps, config.named, generator)
            groups.append(with_noise(rows, config.token_noise, generator))
        if config.filters:
            rows = filter_rows(model, maps, config.filters, generator)
            groups.append(with_noise(rows, config.token_noise, generator))
        if config.exemplars:
            rows = exemplar_rows(model, maps, config.exemplars, size, generator)
            groups.append(rows)
        return Rows(*(torch.cat(parts) for parts in zip(*groups, strict=True)))

    def _decode(
        self, model: PromptableModel, embeddings: Tensor, rows: Rows
    ) -> sams.Decoded:
        sam = model.sam
        grid = (int(embeddings.shape[2]), int(embeddings.shape[3]))
        return sams.decode(
            sam.mask_decoder,
            embeddings[rows.image],
            sams.position_code(sam.prompt_encoder, grid),
            rows.tokens,
            sams.no_mask_embedding(sam.prompt_encoder),
        )

    def _readout_loss(
        self, model: PromptableModel, decoded: sams.Decoded, rows: Rows, maps: Maps
    ) -> Tensor:
        """Read every basis map off the upscaled features of one row an image."""
        chosen = slice(0, None, max(1, len(rows.image) // maps.valid.shape[0]))
        return readout_loss(model, decoded.features[chosen], maps, rows.image[chosen])

    def _object_loss(
        self, model: PromptableModel, embeddings: Tensor, rows: Rows, maps: Maps
    ) -> tuple[Tensor, Tensor]:
        """Train all four masks and the predicted IoU on single objects."""
        decoded = self._decode(model, embeddings, rows)
        masks = decoded.masks.float()
        weight = maps.valid[rows.image]
        each = torch.stack(
            [_mask_loss(masks[:, index], rows.target, weight) for index in range(4)], 1
        )
        with torch.no_grad():
            predicted = (masks > 0) & (weight > 0).unsqueeze(1)
            truth = (rows.target > 0.5).unsqueeze(1)
            overlap = (predicted & truth).sum(dim=(2, 3))
            iou = overlap / (predicted | truth).sum(dim=(2, 3)).clamp(min=1)
        quality = functional.mse_loss(decoded.iou.float(), iou.float())
        loss = each[:, 0] + 0.5 * each[:, 1:].min(dim=1).values
        return loss.mean() + quality, iou[:, 0].mean()


class DenseWarmUp:
    """Train the encoder and the decoder's upscaling before any prompt is used.

    The embedding is upscaled without the transformer in between, and all named tasks
    and filter responses are read off by a 1×1 convolution. It learns in minutes what
    prompted training alone would need hours for.
    """

    def parameters(self, model: nn.Module) -> list[dict[str, Any]]:
        """Return all parameters; those the loss does not reach stay as they are."""
        return parameter_groups(model)

    def after_step(self, model: nn.Module, step: int) -> None:
        """Do nothing."""

    def step(
        self, model: nn.Module, batch: PromptableBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch; see the class's docstring."""
        if not isinstance(model, PromptableModel):
            raise TypeError(f"{type(model).__name__} is not a PromptableModel")
        sam = model.sam
        maps = target_maps(batch, len(model.kinds), sams.stride_of(sam) // 4)
        embeddings = sams.encode(sam.image_encoder, batch.images)
        dense = sams.no_mask_embedding(sam.prompt_encoder)
        features = sam.mask_decoder.output_upscaling(embeddings + dense)
        everyone = torch.arange(len(features), device=features.device)
        loss = readout_loss(model, features, maps, everyone)
        return loss, {"readout": loss}


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return the groups of a `PromptableModel`: matrices, the rest, task tokens."""
    groups: dict[str, list[nn.Parameter]] = {"matrix": [], "other": [], "token": []}
    for name, item in model.named_parameters():
        plain = item.ndim < 2 or "embed" in name
        kind = "token" if "task_tokens" in name else "other" if plain else "matrix"
        groups[kind].append(item)
    return [
        {"params": groups["matrix"]},
        {"params": groups["other"], "weight_decay": 0.0},
        # a token is drawn seldom, and has far to go
        {"params": groups["token"], "weight_decay": 0.0, "lr_scale": 10.0},
    ]


def readout_loss(
    model: PromptableModel, features: Tensor, maps: Maps, image: Tensor
) -> Tensor:
    """Compare what is read off upscaled features with every basis map.

    Parameters
    ----------
    model : PromptableModel
        Whose read-out to use.
    features : Tensor
        ``(R, 32, h, w)``.
    maps : Maps
        The targets of the batch.
    image : Tensor
        ``int64 (R,)``, which image of the batch a row is of.

    Returns
    -------
    Tensor
        Cross-entropy and Dice of the named tasks, smooth L1 of the filters.
    """
    output = model.readout(features).float()
    weight = maps.valid[image].unsqueeze(1)
    named, filters = output.split([model.named, len(tasks.FILTER_TASKS)], dim=1)
    truth = maps.named[image]
    entropy = functional.binary_cross_entropy_with_logits(named, truth, weight=weight)
    there = truth.mean(dim=(2, 3)) > SMALLEST_SHARE
    everywhere = weight.expand_as(named)[there]
    dice = losses.binary_dice(named[there], truth[there], everywhere).mean()
    distance = functional.smooth_l1_loss(filters * weight, maps.filters[image] * weight)
    return entropy + dice + distance


def _mask_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return binary cross-entropy plus Dice of each row."""
    return losses.binary_cross_entropy(logits, target, weight) + losses.binary_dice(
        logits, target, weight
    )


def _by_family(loss: Tensor, families: dict[str, int]) -> dict[str, Tensor]:
    parts = loss.split(list(families.values()))
    return {
        name: part.mean()
        for name, part in zip(families, parts, strict=True)
        if len(part)
    }
