"""Every object of an image without a prompt: SAM is asked at each point of a grid.

The automatic mask generation of SAM (Kirillov et al., ICCV 2023, section 4 and the
appendix "Automatic mask generation details"). Each point gives three masks. Those
stay that SAM itself thinks good, that hardly change with the threshold, and that are
not the whole image. Objects do not lie in each other: of masks that share much, such
as those of a part and the whole, the best stays.

Images up to twice the working size are seen whole. Larger ones are seen in windows at
their own resolution, and as a whole for what the windows cut.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy import ndimage

from napari_medseg._config import to_dict
from napari_medseg._types import (
    InputError,
    JobError,
    Prediction,
    Progress,
    default_classes,
    finish,
)
from napari_medseg.io.normalise import Normalisation, normalise
from napari_medseg.models.backbone import load_backbone
from napari_medseg.models.devices import is_out_of_memory, resolve_device
from napari_medseg.models.everything_settings import EverythingConfig, usual_settings
from napari_medseg.models.grid import View, views_of
from napari_medseg.models.judging import stability
from napari_medseg.models.overlaps import Piece, lay, tidy
from napari_medseg.models.point_decoder import Answers, PointDecoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_medseg._types import FloatArray, Job, LabelArray, LabelClass
    from napari_medseg.models.backbone import Backbone
    from napari_medseg.models.framing import Box

GPU_BATCH = 64
"""Points at a time on a GPU."""

CPU_BATCH = 4
"""Points at a time on a processor, whose caches are small."""


class _Candidates(NamedTuple):
    """Masks of a view: logits ``(N, h, w)``, how good ``(N,)``, boxes ``(N, 4)``.

    Boxes are left, top, right and bottom in pixels of the mask, the last two just
    behind it.
    """

    logits: Tensor
    ranks: Tensor
    boxes: Tensor


class _Found(NamedTuple):
    """A mask at the image's resolution, perhaps seen from afar."""

    far: bool
    rank: float
    piece: Piece


def _boxes_round(masks: Tensor) -> Tensor:
    """Return left, top, right, bottom ``(N, 4)`` of ``bool (N, h, w)``, none empty."""
    lines = [masks.any(dim=dim).int() for dim in (1, 2)]
    firsts = [line.argmax(1) for line in lines]
    lasts = [line.shape[1] - line.flip(1).argmax(1) for line in lines]
    return torch.stack([*firsts, *lasts], dim=1)


def _likely(answers: Answers, view: View, config: EverythingConfig) -> _Candidates:
    """Keep the masks that are certain, not background and not cut."""
    side = int(answers.logits.shape[-1])
    rows, columns = view.content(side)
    shown = answers.logits[:, rows, columns].float()
    share = (shown > 0).float().mean(dim=(1, 2))
    sure = stability(shown, config.stability_offset)
    certain = (sure >= config.stability) & (share > 0) & (share <= config.max_share)
    kept = certain.nonzero()[:, 0]
    boxes = _boxes_round(shown[kept] > 0)
    shift = shown.new_tensor([view.box.left, view.box.top] * 2)
    fits = view.fits(boxes * (view.framing.tile / side) + shift)
    kept = kept[fits]
    # half the memory, and every sign stays as it is
    held = answers.logits[kept].cpu().to(torch.bfloat16)
    ranks = (answers.scores * sure)[kept]
    return _Candidates(held, ranks.cpu(), boxes[fits].cpu())


def _outlined(parts: Sequence[_Candidates], view: View, overlap: float) -> list[_Found]:
    """Choose the best masks of a view, and bring them to the image's resolution."""
    logits, ranks, boxes = (torch.cat(items) for items in zip(*parts, strict=True))
    # stable, as the same image gives the same objects
    order = torch.argsort(ranks, descending=True, stable=True).tolist()
    rows, columns = view.content(int(logits.shape[-1]))
    coarse = (_piece(logits[index], boxes[index].tolist()) for index in order)
    _, kept = lay(coarse, (rows.stop, columns.stop), overlap)
    found = []
    for index in [order[place] for place in kept]:
        mask = view.framing.unwindow(logits[index][None], view.box)[0].numpy() > 0
        for place in ndimage.find_objects(mask.astype(np.uint8)):
            # a slice would keep all of the view in memory
            piece = Piece(_shifted(place, view.box), mask[place].copy())
            found.append(_Found(view.above > 0, float(ranks[index]), piece))
    return found


def _piece(logits: Tensor, box: list[int]) -> Piece:
    """Return a mask ``(h, w)`` of which the box is known."""
    left, top, right, bottom = box
    place = slice(top, bottom), slice(left, right)
    return Piece(place, (logits[place] > 0).numpy())


def _shifted(place: tuple[slice, slice], box: Box) -> tuple[slice, slice]:
    """Return where a part of a view is in the image."""
    rows, columns = place
    return (
        slice(rows.start + box.top, rows.stop + box.top),
        slice(columns.start + box.left, columns.stop + box.left),
    )


def find_everything(
    image: FloatArray,
    backbone: Backbone,
    config: EverythingConfig,
    device: str = "auto",
) -> Job[LabelArray]:
    """Find the objects of an image without any prompt.

    Parameters
    ----------
    image : ndarray
        ``float32 (3, Y, X)`` in [0, 1], normalised.
    backbone : Backbone
        The SAM.
    config : EverythingConfig
        Points and thresholds.
    device : {"auto", "cpu", "cuda", "mps"}
        Where to compute.

    Yields
    ------
    Progress
        One for each batch of points, and one before the first.

    Returns
    -------
    ndarray
        ``int32 (Y, X)``, 0 for background, ids from 1 without gaps. The same input
        gives the same ids.

    Raises
    ------
    InputError
        The image has not three channels, or no pixel.
    JobError
        Memory ran out.
    """
    try:
        found = yield from _search(image, backbone, config, resolve_device(device))
        return _labelled(found, (image.shape[1], image.shape[2]), config)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise JobError(
            "Memory ran out while SAM looked for objects. Close other programs, or "
            "choose the processor (cpu) in place of the graphics card."
        ) from None


def _search(
    image: FloatArray,
    backbone: Backbone,
    config: EverythingConfig,
    device: torch.device,
) -> Job[list[_Found]]:
    """Look at every view of an image."""
    if image.ndim != 3 or len(image) != 3 or not image.size:
        raise InputError(
            f"SAM cannot look at an image of shape {image.shape}; it takes three "
            "channels over at least one pixel, (3, Y, X)."
        )
    views = views_of((image.shape[1], image.shape[2]), backbone.working_size)
    batch = config.batch or (CPU_BATCH if device.type == "cpu" else GPU_BATCH)
    grids = [view.points(config.points_per_side).split(batch) for view in views]
    done, total = 0, sum(map(len, grids))
    yield Progress(done, total, "SAM is looking at the image")
    found: list[_Found] = []
    backbone.sam.to(device)
    for view, grid in zip(views, grids, strict=True):
        window = view.framing.window(image, view.box)
        embedding = backbone.embed(window, device).float().to(device)
        decoder = PointDecoder(backbone.sam, embedding, view.framing.size)
        parts = []
        for points in grid:
            answers = _asked(decoder, points, config.pred_iou)
            parts.append(_likely(answers, view, config))
            done += 1
            yield Progress(done, total, "looking for objects")
        found += _outlined(parts, view, config.overlap)
    return found


def _asked(decoder: PointDecoder, points: Tensor, worst: float) -> Answers:
    """Ask at points, fewer at a time where memory runs out."""
    try:
        return decoder.ask(points, worst)
    except (RuntimeError, MemoryError) as error:
        if len(points) == 1 or not is_out_of_memory(error):
            raise
        # the frames of the error hold the tensors that did not fit
        error.__traceback__ = None
    halves = [_asked(decoder, half, worst) for half in points.chunk(2)]
    return Answers(*(torch.cat(items) for items in zip(*halves, strict=True)))


def _labelled(
    found: Sequence[_Found], shape: tuple[int, int], config: EverythingConfig
) -> LabelArray:
    """Put the objects of all views together, each once."""
    # first what was seen near: it is sharper
    ordered = sorted(found, key=lambda each: (each.far, -each.rank))
    labels, _ = lay((each.piece for each in ordered), shape, config.overlap)
    return tidy(labels, config.min_part)


@dataclass(frozen=True, slots=True)
class Everything:
    """A segmenter that needs neither training nor prompts: all that SAM finds.

    Attributes
    ----------
    backbone : Backbone
        The SAM.
    config : EverythingConfig
        Points and thresholds.
    device : {"auto", "cpu", "cuda", "mps"}
        Where to compute.
    """

    backbone: Backbone
    config: EverythingConfig
    device: str = "auto"

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """Background and object."""
        return default_classes(2)

    @property
    def identity(self) -> str:
        """SHA-256 of the weights' hash and the settings."""
        settings = {"everything": to_dict(self.config), "sam": self.backbone.digest}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def predict(self, image: FloatArray) -> Prediction:
        """Segment an image.

        Parameters
        ----------
        image : ndarray
            ``float32 (C, Y, X)``, as it was read. Of more than three channels the
            first three count.

        Returns
        -------
        Prediction
            The objects; probabilities are 1 on them and 0 elsewhere.

        Raises
        ------
        InputError, JobError
            As for `find_everything`.
        """
        return finish(self.predicting(image))

    def predicting(self, image: FloatArray) -> Job[Prediction]:
        """Segment an image step by step, so that others can have their turn.

        Parameters
        ----------
        image : ndarray
            As for `predict`.

        Yields
        ------
        Progress
            As of `find_everything`.

        Returns
        -------
        Prediction
            As of `predict`.

        Raises
        ------
        InputError, JobError
            As for `find_everything`.
        """
        channels = len(image)
        usual = Normalisation.for_channels(channels, rgb=channels == 3)
        scaled = normalise(image, usual)
        objects = yield from find_everything(
            scaled, self.backbone, self.config, self.device
        )
        found = (objects > 0).astype(np.float32)
        both = np.stack([1 - found, found])
        return Prediction(both, self.classes, objects=objects)


def open_everything(sam: str, device: str = "auto") -> Everything:
    """Open the segmenter of all that a SAM finds, with the settings that suit it.

    Parameters
    ----------
    sam : str
        Name or checkpoint, as of `napari_medseg.models.backbone.load_backbone`.
    device : {"auto", "cpu", "cuda", "mps"}
        Where to compute.

    Returns
    -------
    Everything
        Ready to predict.

    Raises
    ------
    InputError, WeightsError
        As for `load_backbone`.
    """
    backbone = load_backbone(sam)
    return Everything(backbone, usual_settings(backbone.kind), device)
