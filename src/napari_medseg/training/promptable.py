"""The objective that trains a promptable SAM from nothing: ``promptable``.

One encoder pass serves several tasks on each image (`napari_medseg.training.tasks`).
A task is given to the decoder in one of three ways:

* by learned tokens: each named task and each filter has its own 8 × 256 numbers in
  the space of SAM's prompt tokens, and a combination of filters is given by the same
  combination of their tokens. This is what PTSAM later tunes;
* by learned tokens and a box, or a click: the task is wanted only there;
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
    Canvas,
    Maps,
    Rows,
    filter_rows,
    named_rows,
    region_rows,
    target_maps,
    with_noise,
)
from napari_medseg.training.object_loss import mask_loss, object_loss
from napari_medseg.training.single_objects import ObjectRows, draw_objects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segment_anything.modeling import Sam


PLACE_WEIGHT = 0.5
"""Weight of the tasks that are given by a place, beside those given by tokens."""


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

    named: int = setting(2, "Tasks an image given by learned tokens.", ge=1)
    filters: int = setting(1, "Filter tasks an image given by tokens.", ge=0)
    regions: int = setting(1, "Named tasks an image wanted in one place only.", ge=0)
    objects: int = setting(2, "Single objects an image, by clicks or box.", ge=0)
    corrections: int = setting(4, "Clicks added where a mask was wrong.", ge=0, le=8)
    canvas: int = setting(512, "Side of the working image that crops are of.", ge=16)
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
        config = self.config
        generator = torch.Generator().manual_seed(int(batch.seed))
        canvas = Canvas.draw(batch, config.canvas, generator)
        scene = _Scene.encode(model, batch, canvas)
        loss, figures = self._steering_loss(scene, generator)
        if config.regions:
            size = batch.ids.shape[-1]
            rows = region_rows(
                model, scene.maps, canvas, config.regions, size, generator
            )
            figures["regions"] = scene.mask_loss(scene.decode(rows), rows).mean()
            loss = loss + PLACE_WEIGHT * figures["regions"]
        groups = draw_objects(batch, config.objects, generator)
        count = sum(len(objects.image) for objects in groups)
        for objects in groups:
            share = len(objects.image) / count
            corrected = self._corrected(scene, canvas, objects, generator)
            object_loss, iou = scene.object_loss(corrected.rows(model.sam, canvas))
            loss = loss + PLACE_WEIGHT * share * object_loss
            for name, value in (("objects", object_loss), ("object_iou", iou)):
                figures[name] = figures.get(name, 0.0) + share * value
        return loss, figures

    def _corrected(
        self,
        scene: _Scene,
        canvas: Canvas,
        objects: ObjectRows,
        generator: torch.Generator,
    ) -> ObjectRows:
        """Click where the answer is wrong, a few times, on objects given by clicks."""
        if not (objects.labels[:, -1] == -1).all():
            return objects
        times = torch.randint(0, self.config.corrections + 1, (1,), generator=generator)
        for _ in range(int(times)):
            with torch.no_grad():
                decoded = scene.decode(objects.rows(scene.model.sam, canvas))
            objects = objects.corrected(decoded.masks[:, 0] > 0, generator)
        return objects

    def _steering_loss(
        self, scene: _Scene, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of named and filter tasks, and of the linear read-out."""
        config, model, maps = self.config, scene.model, scene.maps
        groups = {"named": named_rows(model, maps, config.named, generator)}
        if config.filters:
            groups["filters"] = filter_rows(model, maps, config.filters, generator)
        rows = Rows(*(torch.cat(parts) for parts in zip(*groups.values(), strict=True)))
        rows = with_noise(rows, config.token_noise, generator)
        decoded = scene.decode(rows)
        each = scene.mask_loss(decoded, rows)
        parts = each.split([len(group.image) for group in groups.values()])
        figures = {name: part.mean() for name, part in zip(groups, parts, strict=True)}
        figures["readout"] = scene.readout_loss(decoded, rows)
        return each.mean() + config.readout * figures["readout"], figures


class _Scene(NamedTuple):
    """A batch that was encoded once, ready for many tasks.

    Attributes
    ----------
    model : PromptableModel
        The network.
    embeddings : Tensor
        ``(B, 256, h, w)``.
    code : Tensor
        ``(B, 256, h, w)``, position code of each crop.
    maps : Maps
        The targets.
    """

    model: PromptableModel
    embeddings: Tensor
    code: Tensor
    maps: Maps

    @classmethod
    def encode(
        cls, model: PromptableModel, batch: PromptableBatch, canvas: Canvas
    ) -> _Scene:
        """Run the image encoder, and make the targets."""
        maps = target_maps(batch, len(model.kinds), sams.stride_of(model.sam) // 4)
        embeddings = sams.encode(model.sam.image_encoder, batch.images)
        grid = (int(embeddings.shape[2]), int(embeddings.shape[3]))
        return cls(model, embeddings, canvas.code(model.sam, grid), maps)

    def decode(self, rows: Rows) -> sams.Decoded:
        """Run the mask decoder, one row a task."""
        sam = self.model.sam
        return sams.decode(
            sam.mask_decoder,
            self.embeddings[rows.image],
            self.code[rows.image],
            rows.tokens,
            sams.no_mask_embedding(sam.prompt_encoder),
        )

    def mask_loss(self, decoded: sams.Decoded, rows: Rows) -> Tensor:
        """Return the loss of the first mask of each row, ``(R,)``."""
        weight = self.maps.valid[rows.image]
        return mask_loss(decoded.masks[:, 0], rows.target, weight)

    def readout_loss(self, decoded: sams.Decoded, rows: Rows) -> Tensor:
        """Read every basis map off the upscaled features of one row an image."""
        images = self.maps.valid.shape[0]
        chosen = slice(0, None, max(1, len(rows.image) // images))
        return readout_loss(
            self.model, decoded.features[chosen], self.maps, rows.image[chosen]
        )

    def object_loss(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Return the loss of single objects, and the mean IoU of the first mask."""
        weight = self.maps.valid[rows.image]
        return object_loss(self.decode(rows), rows.target, weight)


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


def tie_positions(sam: Sam, gain: float = 2.5) -> None:
    """Let freshly initialised cross-attention look where a prompt points.

    Queries and keys of an attention between tokens and image both carry SAM's
    position code, whose inner product falls off with distance. With the same
    projection for both, a point attends to what is near it from the first step on;
    with two random ones that has to be found by training.

    Parameters
    ----------
    sam : Sam
        Randomly initialised; changed.
    gain : float
        Factor of both projections; larger ones look more sharply.
    """
    transformer = sam.mask_decoder.transformer
    attentions = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        attentions += [
            layer.cross_attn_token_to_image,
            layer.cross_attn_image_to_token,
        ]
    with torch.no_grad():
        for attention in attentions:
            attention.q_proj.weight *= gain
            attention.k_proj.weight.copy_(attention.q_proj.weight)
