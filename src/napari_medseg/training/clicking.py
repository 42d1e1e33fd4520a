"""The objective that trains a decoder for clicks and boxes alone: ``clicking``.

The decoder that prompts are tuned through has to be steered by tokens of all sorts. A
second one, on the same embeddings, is asked for single objects and nothing else, by a
click or a box, and by clicks that correct what it drew before. The image encoder stays
as it is, so embeddings serve both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_medseg._config import check, setting
from napari_medseg.models import sam as sams
from napari_medseg.training.drawing import Canvas
from napari_medseg.training.object_loss import object_loss
from napari_medseg.training.single_objects import (
    ObjectRows,
    draw_objects,
    sample_middles,
    sample_points,
)

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from napari_medseg.training.drawing import Rows
    from napari_medseg.training.promptable import PromptableBatch
    from napari_medseg.training.single_objects import Sample


@dataclass(frozen=True)
class ClickingConfig:
    """What is asked of each image of a step."""

    objects: int = setting(4, "Single objects an image.", ge=1)
    corrections: int = setting(5, "Clicks added where a mask was wrong.", ge=0, le=8)
    middle: float = setting(
        0.7, "Share of steps whose clicks are in the middle of what is meant.", ge=0
    )
    canvas: int = setting(512, "Side of the working image that crops are of.", ge=16)

    def __post_init__(self) -> None:
        check(self)


class ClickModel(nn.Module):
    """A SAM of which prompt encoder and mask decoder are trained.

    Parameters
    ----------
    sam : Sam
        Its image encoder is only used.
    """

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.sam = sam
        self.to(memory_format=torch.channels_last)

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """Return what is trained, by name; masks as prompts are not asked with."""
        parts = (self.sam.prompt_encoder, self.sam.mask_decoder)
        return [
            (name, item)
            for part in parts
            for name, item in part.named_parameters()
            if "mask_downscaling" not in name
        ]


class Clicking:
    """Train the decoder of a `ClickModel`.

    Parameters
    ----------
    config : ClickingConfig
        What is asked.
    """

    def __init__(self, config: ClickingConfig) -> None:
        self.config = config

    def parameters(self, model: nn.Module) -> list[dict[str, Any]]:
        """Return prompt encoder and decoder; only matrices decay."""
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, item in _checked(model).trained():
            item.requires_grad_(True)
            groups[item.ndim > 1 and "embed" not in name].append(item)
        return [
            {"params": groups[True]},
            {"params": groups[False], "weight_decay": 0.0},
        ]

    def after_step(self, model: nn.Module, step: int) -> None:
        """Do nothing."""

    def step(
        self, model: nn.Module, batch: PromptableBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, and the mean IoU."""
        config = self.config
        generator = torch.Generator().manual_seed(int(batch.seed))
        canvas = Canvas.draw(batch, config.canvas, generator)
        scene = _Seen.encode(_checked(model), batch, canvas)
        # where there is no object, nothing is learned
        loss = 0.0 * scene.model.sam.mask_decoder.iou_token.weight.sum()
        figures: dict[str, Tensor] = {}
        middle = float(torch.rand(1, generator=generator)) < config.middle
        sample = sample_middles if middle else sample_points
        groups = draw_objects(batch, config.objects, generator, sample)
        count = sum(len(objects.image) for objects in groups)
        for objects in groups:
            asked = self._corrected(scene, objects, generator, sample)
            part, iou = scene.loss(asked)
            share = len(objects.image) / count
            loss = loss + share * part
            figures["iou"] = figures.get("iou", 0.0) + share * iou
        return loss, figures

    def _corrected(
        self,
        scene: _Seen,
        objects: ObjectRows,
        generator: torch.Generator,
        sample: Sample,
    ) -> ObjectRows:
        """Click where the answer is wrong, a few times, on objects given by clicks."""
        if not (objects.labels[:, -1] == -1).all():
            return objects
        times = torch.randint(0, self.config.corrections + 1, (1,), generator=generator)
        for _ in range(int(times)):
            objects = objects.corrected(scene.drawn(objects), generator, sample)
        return objects


class _Seen(NamedTuple):
    """A batch that was encoded once.

    Attributes
    ----------
    model : ClickModel
        The network.
    canvas : Canvas
        Where the crops lie.
    embeddings, code : Tensor
        ``(B, 256, h, w)``.
    valid : Tensor
        ``(B, 4 * h, 4 * w)``.
    """

    model: ClickModel
    canvas: Canvas
    embeddings: Tensor
    code: Tensor
    valid: Tensor

    @classmethod
    def encode(cls, model: ClickModel, batch: PromptableBatch, canvas: Canvas) -> _Seen:
        """Run the image encoder, which is not trained."""
        encoder = model.sam.image_encoder.eval()
        with torch.no_grad():
            embeddings = sams.encode(encoder, batch.images)
        grid = (int(embeddings.shape[2]), int(embeddings.shape[3]))
        shrink = sams.stride_of(model.sam) // 4
        valid = functional.avg_pool2d(batch.valid.unsqueeze(1), shrink)[:, 0]
        return cls(model, canvas, embeddings, canvas.code(model.sam, grid), valid)

    def drawn(self, objects: ObjectRows) -> Tensor:
        """Return what the decoder draws, ``bool (R, 4 * h, 4 * w)``."""
        with torch.no_grad():
            rows = objects.rows(self.model.sam, self.canvas)
            return self._decode(rows).masks[:, 0] > 0

    def loss(self, objects: ObjectRows) -> tuple[Tensor, Tensor]:
        """Return loss and mean IoU."""
        rows = objects.rows(self.model.sam, self.canvas)
        return object_loss(self._decode(rows), rows.target, self.valid[objects.image])

    def _decode(self, rows: Rows) -> sams.Decoded:
        """Run the decoder."""
        sam = self.model.sam
        return sams.decode(
            sam.mask_decoder,
            self.embeddings[rows.image],
            self.code[rows.image],
            rows.tokens,
            sams.no_mask_embedding(sam.prompt_encoder),
        )


def _checked(model: nn.Module) -> ClickModel:
    if not isinstance(model, ClickModel):
        raise TypeError(f"{type(model).__name__} is not a ClickModel")
    return model
