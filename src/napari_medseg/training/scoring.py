"""The held-out score: whole images, at their own resolution."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_medseg import metrics
from napari_medseg.models.backbone import autocast
from napari_medseg.models.framing import Blender

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor, nn

    from napari_medseg._types import FloatArray, LabelArray
    from napari_medseg.models.framing import Framing
    from napari_medseg.training.views import Example


@dataclass(frozen=True, slots=True)
class Score:
    """How well one image was segmented.

    Attributes
    ----------
    name : str
        Name of the image.
    dice, iou : float
        Mean over the foreground classes that are there.
    blank : bool
        Whether nothing was found on an image that has something.
    pq : float or None
        Panoptic quality of the objects, where objects were asked for.
    aupr : float or None
        Area under precision and recall, of a rare class that the image shows.
    """

    name: str
    dice: float
    iou: float
    blank: bool
    pq: float | None = None
    aupr: float | None = None

    @property
    def quality(self) -> float:
        """What decides which step is best."""
        if self.aupr is not None:
            return self.aupr
        return self.dice if self.pq is None else self.pq


def mean_quality(scores: Sequence[Score]) -> float:
    """Return what decides which step is best, over several images.

    Parameters
    ----------
    scores : sequence of Score
        At least one.

    Returns
    -------
    float
        Mean `Score.quality`; of a rare class over the images that show it, as Dice of
        the others says how a threshold fits, and not how pixels are ranked.
    """
    ranked = [score for score in scores if score.aupr is not None]
    return float(np.mean([score.quality for score in ranked or scores]))


@dataclass(frozen=True, slots=True)
class Summary:
    """Scores of several images.

    Attributes
    ----------
    dice, iou : float
        Means over the images.
    dice_sd : float
        Standard deviation of Dice over the images; 0 for a single one.
    images : int
        How many they are.
    pq : float or None
        Mean panoptic quality, where objects were asked for.
    aupr : float or None
        Mean area under precision and recall, of a rare class where it is shown.
    """

    dice: float
    iou: float
    dice_sd: float
    images: int
    pq: float | None = None
    aupr: float | None = None

    @classmethod
    def of(cls, scores: Sequence[Score]) -> Summary | None:
        """Summarise; None where there is no score."""
        if not scores:
            return None
        dice = np.array([score.dice for score in scores])
        iou = np.array([score.iou for score in scores])
        spread = float(dice.std(ddof=1)) if len(dice) > 1 else 0.0
        quality = [score.pq for score in scores if score.pq is not None]
        pq = float(np.mean(quality)) if quality else None
        ranked = [score.aupr for score in scores if score.aupr is not None]
        aupr = float(np.mean(ranked)) if ranked else None
        return cls(float(dice.mean()), float(iou.mean()), spread, len(dice), pq, aupr)

    def rounded(self) -> dict[str, float]:
        """Return the figures with as many digits as they are worth."""
        figures: dict[str, float] = {
            "dice": round(self.dice, 4),
            "iou": round(self.iou, 4),
            "dice_sd": round(self.dice_sd, 4),
            "images": self.images,
        }
        for name, value in (("pq", self.pq), ("aupr", self.aupr)):
            if value is not None:
                figures[name] = round(value, 4)
        return figures


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for a while; each part gets its own back."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def predict_windows(
    model: nn.Module,
    inputs: Iterable[Tensor],
    shape: tuple[int, int],
    framing: Framing,
    device: torch.device,
) -> FloatArray:
    """Segment an image whose windows are at hand.

    Parameters
    ----------
    model : Module
        Maps a batch of windows (or embeddings) to class logits.
    inputs : iterable of Tensor
        The windows of ``framing.boxes(shape)``, in their order.
    shape : tuple of int
        Height and width of the image.
    framing : Framing
        The windows.
    device : torch.device
        Where the model is.

    Returns
    -------
    ndarray
        ``float32 (K, Y, X)``, class probabilities.
    """
    blender: Blender | None = None
    for window, box in zip(inputs, framing.boxes(shape), strict=True):
        with evaluating(model), torch.inference_mode(), autocast(device):
            logits = model(window[None].float().to(device))[0]
        probabilities = framing.unwindow(logits.cpu(), box).softmax(dim=0).numpy()
        if blender is None:
            blender = Blender(len(probabilities), shape[1])
        blender.add(probabilities, box)
    if blender is None:
        raise ValueError("an image has at least one window")
    return blender.take(shape[0])


def score_image(example: Example, labels: LabelArray) -> Score:
    """Compare labels with the annotation, where there is one.

    Parameters
    ----------
    example : Example
        The image; pixels of its target that are -1 do not count.
    labels : ndarray
        ``int32 (Y, X)``.

    Returns
    -------
    Score
        Mean over the foreground classes in either; 1 where neither has any.
    """
    known = example.target >= 0
    truth, found = example.target[known], labels[known]
    present = sorted((set(np.unique(truth)) | set(np.unique(found))) - {0})
    pairs = [(found == index, truth == index) for index in present]
    return Score(
        example.name,
        float(np.mean([metrics.dice(*pair) for pair in pairs] or [1.0])),
        float(np.mean([metrics.iou(*pair) for pair in pairs] or [1.0])),
        blank=not found.any() and bool(truth.any()),
    )
