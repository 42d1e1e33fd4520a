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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from segment_anything.modeling import Sam

TOKENS = 8
"""Learned tokens a task, as PTSAM has a class."""


SMALLEST_SHARE = 0.004
"""A task that marks less of an image is no task on it."""


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


class Rows(NamedTuple):
    """Tasks to decode, one a row.

    Attributes
    ----------
    image : Tensor
        ``int64 (R,)``, which image of the batch.
    tokens : Tensor
        ``(R, N, 256)``.
    target : Tensor
        ``(R, h, w)`` in [0, 1].
    """

    image: Tensor
    tokens: Tensor
    target: Tensor


class Maps(NamedTuple):
    """Targets of a batch at the decoder's resolution.

    Attributes
    ----------
    named : Tensor
        ``(B, T, h, w)`` in [0, 1].
    filters : Tensor
        ``(B, F, h, w)``, standardised.
    valid : Tensor
        ``(B, h, w)``.
    """

    named: Tensor
    filters: Tensor
    valid: Tensor


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
            rows = _named_rows(model, maps, config.named, generator)
            groups.append(_with_noise(rows, config.token_noise, generator))
        if config.filters:
            rows = _filter_rows(model, maps, config.filters, generator)
            groups.append(_with_noise(rows, config.token_noise, generator))
        if config.exemplars:
            rows = _exemplar_rows(model, maps, config.exemplars, size, generator)
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


def target_maps(batch: PromptableBatch, kinds: int, shrink: int) -> Maps:
    """Return the targets of a batch, ``shrink`` times smaller than its images."""

    def smaller(maps: Tensor) -> Tensor:
        return functional.avg_pool2d(maps, shrink) if shrink > 1 else maps

    # in bfloat16 little would be left of second derivatives of a smooth image
    with torch.autocast(batch.grey.device.type, enabled=False):
        named = torch.cat(
            [
                tasks.object_maps(batch.ids, batch.grey),
                tasks.kind_maps(batch.kinds, kinds),
            ],
            dim=1,
        )
        filters = tasks.filter_responses(smaller(batch.grey))
        valid = smaller(batch.valid.unsqueeze(1))[:, 0]
        return Maps(smaller(named), filters, valid)


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


def _named_rows(
    model: PromptableModel, maps: Maps, count: int, generator: torch.Generator
) -> Rows:
    """Draw named tasks that mark some, but not all, of their image."""
    share = maps.named.mean(dim=(2, 3)).cpu()
    usable = ((share > SMALLEST_SHARE) & (share < 0.97)).float() + 1e-6
    task = torch.multinomial(usable, count, generator=generator).flatten()
    image = torch.arange(len(share)).repeat_interleave(count)
    task, image = task.to(maps.valid.device), image.to(maps.valid.device)
    return Rows(image, model.task_tokens[task], maps.named[image, task])


def _filter_rows(
    model: PromptableModel, maps: Maps, count: int, generator: torch.Generator
) -> Rows:
    """Draw random combinations of filters, given by the same mix of their tokens."""
    batch = maps.valid.shape[0]
    image = torch.arange(batch).repeat_interleave(count).to(maps.valid.device)
    mix, offset = tasks.random_combinations(batch * count, generator)
    mix, offset = mix.to(maps.valid.device), offset.to(maps.valid.device)
    response = torch.einsum("rf,rfhw->rhw", mix, maps.filters[image])
    weights = torch.cat([mix, offset.unsqueeze(1)], dim=1)
    tokens = torch.einsum("rf,fnd->rnd", weights, model.task_tokens[model.named :])
    target = (response + offset.view(-1, 1, 1) > 0).float()
    return Rows(image, tokens, target)


def _with_noise(rows: Rows, amount: float, generator: torch.Generator) -> Rows:
    """Blur learned tokens a little, so that their neighbourhood means the same."""
    noise = torch.randn(rows.tokens.shape, generator=generator)
    return rows._replace(tokens=rows.tokens + amount * noise.to(rows.tokens.device))


def _exemplar_rows(
    model: PromptableModel,
    maps: Maps,
    count: int,
    size: int,
    generator: torch.Generator,
) -> Rows:
    """Draw named and filter tasks, given by points on them and points off them."""
    named = _named_rows(model, maps, count, generator)
    filters = _filter_rows(model, maps, count, generator)
    use_filter = torch.rand(len(named.image), generator=generator) < 0.4
    pick = use_filter.to(named.target.device).view(-1, 1, 1)
    target = torch.where(pick, filters.target, named.target)
    return Rows(
        named.image, exemplar_tokens(model.sam, target, size, generator), target
    )


def exemplar_tokens(
    sam: Sam, target: Tensor, size: int, generator: torch.Generator
) -> Tensor:
    """Encode points on the target and points off it.

    Parameters
    ----------
    sam : Sam
        Whose prompt encoder to use.
    target : Tensor
        ``(R, h, w)``.
    size : int
        Side of the working image, in pixels.
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    Tensor
        ``(R, 8, 256)``: up to four points of each sort, padding for the rest.
    """
    half = TOKENS // 2
    wanted, points_on = sample_points(target > 0.5, half, size, generator)
    unwanted, points_off = sample_points(target <= 0.5, half, size, generator)
    rows = target.shape[0]
    keep = torch.randint(1, half + 1, (rows, 1), generator=generator)
    shown = (torch.arange(half) < keep).to(target.device)
    on = torch.where(wanted & shown, 1, -1)
    off = torch.where(unwanted & shown, 0, -1)
    return sams.point_tokens(
        sam.prompt_encoder,
        torch.cat([points_on, points_off], dim=1),
        torch.cat([on, off], dim=1),
        (size, size),
    )


def sample_points(
    masks: Tensor, count: int, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw points inside masks.

    Parameters
    ----------
    masks : Tensor
        ``bool (R, h, w)``.
    count : int
        Points a mask.
    size : int
        Side of the working image, in pixels.
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    there : Tensor
        ``bool (R, count)``, False where the mask has too few pixels.
    points : Tensor
        ``(R, count, 2)``, x and y in pixels of the working image.
    """
    rows, height, width = masks.shape
    scores = torch.rand(rows, height * width, generator=generator).to(masks.device)
    score, index = (scores * masks.flatten(1)).topk(count, dim=1)
    scale = size / width
    x = ((index % width) + 0.5) * scale - 0.5
    y = ((index // width) + 0.5) * scale - 0.5
    return score > 0, torch.stack([x, y], dim=2)


def object_rows(
    model: PromptableModel,
    batch: PromptableBatch,
    count: int,
    generator: torch.Generator,
) -> Rows | None:
    """Draw single objects, each with a click, a box, or several clicks.

    Parameters
    ----------
    model : PromptableModel
        Whose prompt encoder to use.
    batch : PromptableBatch
        The images and their objects.
    count : int
        Objects an image.
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    Rows or None
        None when no image has an object large enough.
    """
    size = batch.ids.shape[-1]
    shrink = sams.stride_of(model.sam) // 4
    image, masks = [], []
    for index, ids in enumerate(batch.ids):
        area = torch.bincount(ids.flatten())
        area[0] = 0
        found = torch.nonzero(area >= 40).flatten().cpu()
        for pick in torch.randperm(len(found), generator=generator)[:count]:
            image.append(index)
            masks.append(ids == found[pick])
    if not masks:
        return None
    stacked = torch.stack(masks)
    target = functional.avg_pool2d(stacked.float().unsqueeze(1), shrink)[:, 0]
    if torch.rand((), generator=generator) < 0.6:
        points, labels = _click_or_box(stacked, generator)
    else:
        points, labels = _several_clicks(stacked, generator)
    tokens = sams.point_tokens(model.sam.prompt_encoder, points, labels, (size, size))
    return Rows(torch.tensor(image, device=target.device), tokens, target)


def _click_or_box(masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Give each mask one click and a padding point, or the two corners of a box."""
    rows, _, size = masks.shape
    _, click = sample_points(masks, 1, size, generator)
    clicks = torch.cat([click, torch.zeros_like(click)], dim=1)
    boxes = jittered_boxes(masks, generator)
    is_box = (torch.rand(rows, generator=generator) < 0.5).to(masks.device)
    points = torch.where(is_box.view(-1, 1, 1), boxes, clicks)
    labels = torch.where(
        is_box.unsqueeze(1), points.new_tensor([2, 3]), points.new_tensor([1, -1])
    )
    return points, labels.long()


def _several_clicks(masks: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Give each mask up to three clicks on it and up to two beside it."""
    size = masks.shape[-1]
    on, points_on = sample_points(masks, 3, size, generator)
    near = tasks.spread(masks.float().unsqueeze(1), 31)[:, 0] > 0
    off, points_off = sample_points(near & ~masks, 2, size, generator)
    there = torch.cat([on, off], dim=1).cpu()
    keep = torch.rand(there.shape, generator=generator) < 0.7
    keep[:, 0] = True
    kind = torch.tensor([1, 1, 1, 0, 0]).expand(there.shape)
    labels = torch.where(there & keep, kind, -1)
    labels = torch.cat([labels, torch.full((len(labels), 1), -1)], dim=1)
    points = torch.cat([points_on, points_off, torch.zeros_like(points_on[:, :1])], 1)
    return points, labels.to(masks.device)


def jittered_boxes(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Return the bounding boxes of masks, each side moved by up to a tenth.

    Parameters
    ----------
    masks : Tensor
        ``bool (R, S, S)``, none of them empty.
    generator : torch.Generator
        Source of randomness.

    Returns
    -------
    Tensor
        ``(R, 2, 2)``: upper left and lower right corner, x and y.
    """
    boxes = []
    for mask in masks:
        rows = torch.nonzero(mask.any(dim=1)).flatten()
        columns = torch.nonzero(mask.any(dim=0)).flatten()
        boxes.append(torch.stack([columns[0], rows[0], columns[-1], rows[-1]]))
    corners = torch.stack(boxes).float()
    side = (corners[:, 2:] - corners[:, :2]).repeat(1, 2)
    move = 0.1 * (2 * torch.rand(corners.shape, generator=generator) - 1)
    moved = corners + side * move.to(corners.device)
    return moved.clamp(0, masks.shape[-1] - 1).view(-1, 2, 2)
