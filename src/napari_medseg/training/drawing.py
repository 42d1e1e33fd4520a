"""Drawing tasks: which pixels are wanted, and how the decoder is told so.

Each row is one task on one image of a batch: its target at the decoder's resolution
and the prompt tokens that ask for it. Single objects, which are asked for by clicks and
boxes, are in `napari_medseg.training.single_objects`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from napari_medseg.models import sam as sams
from napari_medseg.training import tasks

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from napari_medseg.training.promptable import PromptableBatch, PromptableModel

TOKENS = 8
"""Learned tokens a task, as PTSAM has a class."""

SMALLEST_SHARE = 0.004
"""A task that marks less of an image is no task on it."""

DISC_RADIUS = 32.0
"""Pixels around a click that a task asked for "here" is wanted in."""


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


class Canvas(NamedTuple):
    """Where each crop of a batch lies in the working image it stands for.

    Position codes depend on the place in the whole working image. A crop that is
    trained on as if it were a whole would learn distances that are wrong later.

    Attributes
    ----------
    size : int
        Side of the working image, in pixels.
    offset : Tensor
        ``float32 (B, 2)``, x and y of the upper left corner of each crop.
    """

    size: int
    offset: Tensor

    @classmethod
    def draw(
        cls, batch: PromptableBatch, size: int, generator: torch.Generator
    ) -> Canvas:
        """Lay crops at random into working images of ``size``, or larger if need be."""
        count, side = batch.ids.shape[0], batch.ids.shape[-1]
        room = max(0, size - side)
        offset = room * torch.rand(count, 2, generator=generator)
        return cls(max(size, side), offset.round().to(batch.images.device))

    def code(self, sam: Sam, grid: tuple[int, int]) -> Tensor:
        """Return the position code of each crop's embedding, ``(B, 256, h, w)``."""
        stride = sams.stride_of(sam)
        device = self.offset.device
        rows, columns = (
            stride * (torch.arange(length, device=device) + 0.5) for length in grid
        )
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        points = torch.stack([x, y], dim=2).flatten(0, 1) + self.offset.unsqueeze(1)
        encoder = sam.prompt_encoder.pe_layer
        code: Tensor = encoder.forward_with_coords(points, (self.size, self.size))
        maps: Tensor = code.transpose(1, 2).unflatten(2, grid)
        return maps

    def tokens(self, sam: Sam, image: Tensor, points: Tensor, labels: Tensor) -> Tensor:
        """Encode points of crops, ``(R, N, 2)``, as prompt tokens.

        Parameters
        ----------
        sam : Sam
            Whose prompt encoder to use.
        image : Tensor
            ``int64 (R,)``, which crop a row is of.
        points, labels : Tensor
            As for `napari_medseg.models.sam.point_tokens`, in pixels of the crop.

        Returns
        -------
        Tensor
            ``(R, N, 256)``.
        """
        moved = points + self.offset[image].unsqueeze(1)
        size = (self.size, self.size)
        return sams.point_tokens(sam.prompt_encoder, moved, labels, size)


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


def named_rows(
    model: PromptableModel, maps: Maps, count: int, generator: torch.Generator
) -> Rows:
    """Draw named tasks that mark some, but not all, of their image."""
    share = maps.named.mean(dim=(2, 3)).cpu()
    usable = ((share > SMALLEST_SHARE) & (share < 0.97)).float() + 1e-6
    task = torch.multinomial(usable, count, generator=generator).flatten()
    image = torch.arange(len(share)).repeat_interleave(count)
    task, image = task.to(maps.valid.device), image.to(maps.valid.device)
    return Rows(image, model.task_tokens[task], maps.named[image, task])


def filter_rows(
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


def with_noise(rows: Rows, amount: float, generator: torch.Generator) -> Rows:
    """Blur learned tokens a little, so that their neighbourhood means the same."""
    noise = torch.randn(rows.tokens.shape, generator=generator)
    return rows._replace(tokens=rows.tokens + amount * noise.to(rows.tokens.device))


def region_rows(
    model: PromptableModel,
    maps: Maps,
    canvas: Canvas,
    count: int,
    size: int,
    generator: torch.Generator,
) -> Rows:
    """Draw named tasks that are wanted only inside a box, or only around a click.

    The place has to be read from the prompt and nothing else, which teaches the
    decoder what a position code is long before it knows what an object is.
    """
    rows = named_rows(model, maps, count, generator)
    number = len(rows.image)
    device = rows.image.device
    middle = size * torch.rand(number, 1, 2, generator=generator)
    half = torch.exp(2.0 + 1.8 * torch.rand(number, 1, 2, generator=generator))
    is_box = torch.rand(number, generator=generator) < 0.5
    corners = torch.cat([middle - half, middle + half], dim=1).clamp(0, size - 1)
    clicks = torch.cat([middle, torch.zeros_like(middle)], dim=1)
    points = torch.where(is_box.view(-1, 1, 1), corners, clicks).to(device)
    labels = torch.where(
        is_box.unsqueeze(1), torch.tensor([2, 3]), torch.tensor([1, -1])
    ).to(device)
    inside = _regions(points, is_box.to(device), size, rows.target.shape[-1])
    tokens = canvas.tokens(model.sam, rows.image, points, labels)
    return Rows(
        rows.image, torch.cat([tokens, rows.tokens], dim=1), rows.target * inside
    )


def _regions(points: Tensor, is_box: Tensor, size: int, width: int) -> Tensor:
    """Draw each box, or the disc around each click, ``(R, width, width)``."""
    scale = size / width
    place = scale * (torch.arange(width, device=points.device) + 0.5) - 0.5
    x, y = place.view(1, 1, -1), place.view(1, -1, 1)
    first, second = points.view(-1, 2, 2, 1, 1).unbind(dim=1)
    box = (x >= first[:, 0]) & (x <= second[:, 0])
    box = box & (y >= first[:, 1]) & (y <= second[:, 1])
    away = (x - first[:, 0]) ** 2 + (y - first[:, 1]) ** 2
    disc = away <= DISC_RADIUS**2
    return torch.where(is_box.view(-1, 1, 1), box, disc).float()
