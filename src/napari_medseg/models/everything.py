"""Every object of an image without a prompt: SAM is asked at each point of a grid.

The automatic mask generation of SAM (Kirillov et al., ICCV 2023, section 4 and the
appendix "Automatic mask generation details"). Each point gives three masks. Those
stay that SAM itself thinks good, that hardly change with the threshold, and that are
not the whole image; of masks with nearly the same box the likeliest stays.

Images up to twice the working size are seen whole. Larger ones are seen in windows at
their own resolution, and as a whole for what the windows cut.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy import ndimage
from skimage.measure import label
from torchvision.ops import nms  # type: ignore[import-untyped]

from napari_medseg._config import check, setting, to_dict
from napari_medseg._types import (
    InputError,
    JobError,
    Prediction,
    Progress,
    default_classes,
    finish,
)
from napari_medseg.io.normalise import Normalisation, normalise
from napari_medseg.models import sam as sams
from napari_medseg.models.backbone import autocast
from napari_medseg.models.devices import is_out_of_memory, resolve_device
from napari_medseg.models.framing import Box, Framing
from napari_medseg.models.interactive import ADD, CHOICES, PADDING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_medseg._types import FloatArray, Job, LabelArray, LabelClass
    from napari_medseg.models.backbone import Backbone

EDGE = 20 / 1024
"""A mask that ends so near to where a window ends, in shares of it, may be cut."""


@dataclass(frozen=True, slots=True)
class EverythingConfig:
    """How SAM is asked for all objects.

    Thresholds are those of its authors, for their largest SAM. Smaller ones expect
    less of their masks; with the bundled one lower thresholds find more.

    Attributes
    ----------
    points_per_side, pred_iou, stability, stability_offset, overlap, min_size
        See the help text of each field.
    max_share, batch
        Likewise.
    """

    points_per_side: int = setting(
        32, "Points along each side; more find smaller objects.", ge=1, le=256
    )
    pred_iou: float = setting(
        0.88, "Masks that SAM itself expects to be worse are left out.", ge=0, le=1
    )
    stability: float = setting(
        0.95, "Masks whose outline is less sure are left out.", ge=0, le=1
    )
    stability_offset: float = setting(
        1.0, "How far the threshold moves to see if an outline is sure.", ge=0, le=20
    )
    overlap: float = setting(
        0.7, "Of two masks whose boxes overlap more than this, one stays.", ge=0, le=1
    )
    min_size: int = setting(
        16, "Objects and holes with fewer pixels than this are removed.", ge=0
    )
    max_share: float = setting(
        0.95, "Masks of a larger share of the image are background.", ge=0.01, le=1
    )
    batch: int = setting(64, "Points at a time; fewer need less memory.", ge=1, le=4096)

    def __post_init__(self) -> None:
        check(self)


class _Candidates(NamedTuple):
    """Masks of a view: ``(N, h, w)`` logits, ``(N,)`` expected IoU, ``(N, 4)`` boxes.

    Boxes are left, top, right and bottom in pixels of the image, the last two just
    behind the mask.
    """

    logits: Tensor
    scores: Tensor
    boxes: Tensor


class _Found(NamedTuple):
    """A mask ``bool (height, width)`` of the box round it, perhaps seen from afar."""

    far: bool
    score: float
    box: Box
    mask: NDArray[np.bool_]


class _View(NamedTuple):
    """A part of an image of ``shape``, looked at for objects longer than ``above``."""

    framing: Framing
    box: Box
    shape: tuple[int, int]
    above: float = 0.0

    def points(self, per_side: int) -> Tensor:
        """Return a grid ``(N, 2)``: x and y in pixels of the working image."""
        down, across = (
            # not two points on one pixel
            (torch.arange(count) + 0.5) * (length * self.framing.scale / count) - 0.5
            for length in self.box.shape
            for count in [min(per_side, length)]
        )
        return torch.cartesian_prod(down, across).flip(-1)

    def content(self, side: int) -> tuple[slice, slice]:
        """Return which part of a mask ``side`` wide shows the image."""
        share = side / self.framing.size
        rows, columns = self.framing.scaled(self.box.shape)
        return slice(math.ceil(rows * share)), slice(math.ceil(columns * share))

    def fits(self, boxes: Tensor) -> Tensor:
        """Tell which objects are seen whole, and nowhere better than here."""
        top, left, bottom, right = self.box
        low, high = boxes.new_tensor([left, top]), boxes.new_tensor([right, bottom])
        end = boxes.new_tensor(self.shape[::-1])
        starts, ends = boxes[:, :2], boxes[:, 2:]
        margin = EDGE * self.framing.tile
        # where the image itself ends nothing is cut
        cut = ((low > 0) & (starts < low + margin)) | (
            (high < end) & (ends > high - margin)
        )
        return ~cut.any(dim=1) & ((ends - starts).amax(dim=1) > self.above)


def _views(shape: tuple[int, int], size: int) -> list[_View]:
    """Choose how an image is looked at: windows, then all of it if they are several."""
    near = Framing.for_images([shape], size)
    views = [_View(near, box, shape) for box in near.boxes(shape)]
    if len(views) == 1:
        return views
    whole = Framing(tile=max(shape), size=size)
    # what two windows share, without the edges of both: smaller objects are whole there
    above = (near.overlap - 2 * EDGE) * near.tile
    return [*views, _View(whole, whole.boxes(shape)[0], shape, above)]


def stability(logits: Tensor, offset: float) -> Tensor:
    """Return how little masks change when the threshold moves.

    Parameters
    ----------
    logits : Tensor
        ``(N, h, w)``.
    offset : float
        How far the threshold, 0, moves up and down.

    Returns
    -------
    Tensor
        ``float32 (N,)``, IoU of the masks above ``offset`` and above ``-offset``; 0
        for empty ones.
    """
    inner = (logits > offset).sum(dim=(1, 2))
    outer = (logits > -offset).sum(dim=(1, 2))
    # the inner mask is part of the outer one
    return inner / outer.clamp(min=1)


def distinct(boxes: Tensor, scores: Tensor, overlap: float) -> Tensor:
    """Choose among boxes that are nearly the same: greedy non-maximum suppression.

    Parameters
    ----------
    boxes : Tensor
        ``(N, 4)``: left, top, right, bottom.
    scores : Tensor
        ``(N,)``; the highest stays, of equal ones the first.
    overlap : float
        IoU above which two boxes are the same.

    Returns
    -------
    Tensor
        ``int64 (M,)``, the boxes that stay, the best first.
    """
    # by rank, as not every device keeps equal scores in order
    order = torch.argsort(scores, descending=True, stable=True)
    ranks = -torch.arange(len(order), dtype=torch.float32, device=boxes.device)
    kept: Tensor = nms(boxes[order].float(), ranks, overlap)
    return order[kept]


def _boxes_round(masks: Tensor) -> Tensor:
    """Return left, top, right, bottom ``(N, 4)`` of ``bool (N, h, w)``, none empty."""
    lines = [masks.any(dim=dim).int() for dim in (1, 2)]
    firsts = [line.argmax(1) for line in lines]
    lasts = [line.shape[1] - line.flip(1).argmax(1) for line in lines]
    return torch.stack([*firsts, *lasts], dim=1)


def _decode(
    backbone: Backbone, embedding: Tensor, points: Tensor, size: int
) -> sams.Decoded:
    """Ask SAM what lies at each of several points ``(N, 2)`` of one embedding."""
    sam, device, count = backbone.sam, embedding.device, len(points)
    places = torch.stack([points, torch.zeros_like(points)], dim=1).to(device)
    kinds = torch.tensor([[ADD, PADDING]], device=device).expand(count, -1)
    grid = (int(embedding.shape[2]), int(embedding.shape[3]))
    with torch.inference_mode(), autocast(device):
        return sams.decode(
            sam.mask_decoder,
            embedding.expand(count, -1, -1, -1),
            sams.position_code(sam.prompt_encoder, grid),
            sams.point_tokens(sam.prompt_encoder, places, kinds, (size, size)),
            sams.no_mask_embedding(sam.prompt_encoder),
        )


def _likely(
    decoded: sams.Decoded, view: _View, config: EverythingConfig
) -> _Candidates:
    """Keep the masks that are good, certain, not background and not cut."""
    side = int(decoded.masks.shape[-1])
    rows, columns = view.content(side)
    scores = decoded.iou[:, CHOICES].flatten().float()
    good = scores > config.pred_iou
    scores, logits = scores[good], decoded.masks[:, CHOICES].flatten(0, 1)[good].float()
    shown = logits[:, rows, columns]
    share = (shown > 0).float().mean(dim=(1, 2))
    certain = stability(shown, config.stability_offset) >= config.stability
    kept = (certain & (share > 0) & (share <= config.max_share)).nonzero()[:, 0]
    shift = shown.new_tensor([view.box.left, view.box.top] * 2)
    boxes = _boxes_round(shown[kept] > 0) * (view.framing.tile / side) + shift
    fits = view.fits(boxes)
    kept = kept[fits]
    # half the memory, and every sign stays as it is
    held = logits[kept].cpu().to(torch.bfloat16)
    return _Candidates(held, scores[kept].cpu(), boxes[fits].cpu())


def _outlined(
    parts: Sequence[_Candidates], view: _View, overlap: float
) -> list[_Found]:
    """Bring the best masks of a view to the image's resolution, one by one."""
    logits, scores, boxes = (torch.cat(items) for items in zip(*parts, strict=True))
    found = []
    for index in distinct(boxes, scores, overlap).tolist():
        mask = view.framing.unwindow(logits[index][None], view.box)[0].numpy() > 0
        for rows, columns in ndimage.find_objects(mask.astype(np.uint8)):
            down, across, _, _ = view.box
            ends = (rows.stop + down, columns.stop + across)
            box = Box(rows.start + down, columns.start + across, *ends)
            # a slice would keep all of the view in memory
            cut = mask[rows, columns].copy()
            found.append(_Found(view.above > 0, float(scores[index]), box, cut))
    return found


def find_everything(
    image: FloatArray,
    backbone: Backbone,
    config: EverythingConfig,
    device: str = "auto",
) -> Job[LabelArray]:
    """Find the objects of an image without any prompt.

    Smaller masks lie on larger ones, so that a cell and its nucleus, say, both keep
    pixels of their own; by score the larger would often hide the smaller.

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
        raise _in_words(error) from None


def _in_words(error: Exception) -> Exception:
    """Return what to raise: a sentence where memory ran out."""
    if not is_out_of_memory(error):
        return error
    return JobError(
        "Memory ran out while SAM looked for objects. Ask for fewer points at a time "
        "(batch), or close other programs."
    )


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
    views = _views((image.shape[1], image.shape[2]), backbone.working_size)
    grids = [view.points(config.points_per_side).split(config.batch) for view in views]
    done, total = 0, sum(map(len, grids))
    yield Progress(done, total, "SAM is looking at the image")
    found: list[_Found] = []
    backbone.sam.to(device)
    for view, grid in zip(views, grids, strict=True):
        window = view.framing.window(image, view.box)
        embedding = backbone.embed(window, device).float()[None].to(device)
        parts = []
        for points in grid:
            decoded = _decode(backbone, embedding, points, view.framing.size)
            parts.append(_likely(decoded, view, config))
            done += 1
            yield Progress(done, total, "looking for objects")
        found += _outlined(parts, view, config.overlap)
    return found


def _labelled(
    found: Sequence[_Found], shape: tuple[int, int], config: EverythingConfig
) -> LabelArray:
    """Paint the masks of all views, each object once."""
    labels: LabelArray = np.zeros(shape, np.int32)
    # first what was seen near: it is sharper
    ordered = sorted(found, key=lambda each: (each.far, -each.score))
    boxes = torch.tensor(
        [[box.left, box.top, box.right, box.bottom] for _, _, box, _ in ordered]
    ).reshape(-1, 4)
    kept = distinct(boxes, -torch.arange(len(ordered)), config.overlap).tolist()
    kept.sort(key=lambda index: -int(ordered[index].mask.sum()))
    for name, index in enumerate(kept, start=1):
        labels[ordered[index].box.slices][ordered[index].mask] = name
    return _tidied(labels, config.min_size)


def _tidied(labels: LabelArray, size: int) -> LabelArray:
    """Remove islands, then holes, of fewer than ``size`` pixels; close gaps in ids."""
    # the frame joins all background at the image's edge, which is no hole
    framed = np.pad(labels, 1)
    parts = label(framed, connectivity=2)  # type: ignore[no-untyped-call]
    framed[(np.bincount(parts.ravel()) < size)[parts]] = 0
    holes, count = ndimage.label(framed == 0)
    lowest, highest = _around(framed)
    each = np.arange(1, count + 1)
    low = ndimage.minimum(lowest, holes, each)
    high = ndimage.maximum(highest, holes, each)
    small = np.bincount(holes.ravel(), minlength=count + 1)[1:] < size
    # a gap between two objects is no hole either
    fill = np.where(small & (low == high), high, 0)
    fill[holes[0, 0] - 1] = 0
    framed += np.append(0, fill).astype(np.int32)[holes]
    ids = np.cumsum(np.bincount(framed.ravel()) > 0) - 1
    result: LabelArray = ids[framed[1:-1, 1:-1]].astype(np.int32)
    return result


def _around(labels: LabelArray) -> tuple[LabelArray, LabelArray]:
    """Return the lowest and highest id of each pixel and its 8 neighbours."""
    objects = np.where(labels == 0, np.iinfo(np.int32).max, labels)
    return ndimage.minimum_filter(objects, 3), ndimage.maximum_filter(labels, 3)


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
    config: EverythingConfig = EverythingConfig()
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

    def objects(self, image: FloatArray) -> LabelArray:
        """Find the objects of an image.

        Parameters
        ----------
        image : ndarray
            ``float32 (C, Y, X)``, as it was read. Of more than three channels the
            first three count.

        Returns
        -------
        ndarray
            ``int32 (Y, X)``, as of `find_everything`.

        Raises
        ------
        InputError, JobError
            As for `find_everything`.
        """
        channels = len(image)
        usual = Normalisation.for_channels(channels, rgb=channels == 3)
        scaled = normalise(image, usual)
        return finish(find_everything(scaled, self.backbone, self.config, self.device))

    def predict(self, image: FloatArray) -> Prediction:
        """Segment an image.

        Parameters
        ----------
        image : ndarray
            As for `objects`.

        Returns
        -------
        Prediction
            Probabilities of 0 and 1. The interior is where an object touches no
            other, so that `napari_medseg.instances.find_objects` tells them apart,
            but for those that are too thin; `objects` gives all of them.

        Raises
        ------
        InputError, JobError
            As for `objects`.
        """
        labels = self.objects(image)
        lowest, highest = _around(labels)
        found = (labels > 0).astype(np.float32)
        inside = ((lowest == labels) & (highest == labels)).astype(np.float32)
        return Prediction(np.stack([1 - found, found]), self.classes, "", inside)
