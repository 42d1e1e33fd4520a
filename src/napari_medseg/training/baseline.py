"""What a trained model is compared with where it has no untuned self: a threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_medseg import metrics
from napari_medseg.models.classical import Otsu

if TYPE_CHECKING:
    from napari_medseg._types import AnySegmenter
    from napari_medseg.io.pairs import Pairs


def better_otsu(pairs: Pairs) -> Otsu:
    """Return Otsu's threshold for bright or for dark objects, by the training pairs."""
    return max((Otsu(), Otsu(dark=True)), key=lambda otsu: mean_dice(otsu, pairs))


def mean_dice(segmenter: AnySegmenter, pairs: Pairs) -> float:
    """Return the mean Dice of the foreground of some pairs.

    Parameters
    ----------
    segmenter : AnySegmenter
        What to measure.
    pairs : Pairs
        Annotated images; unlabelled pixels do not count.

    Returns
    -------
    float
        From 0 to 1.
    """
    scores = []
    for index, pair in enumerate(pairs):
        target = pairs.targets(index)
        found = segmenter.predict(pair.image).labels
        known = target >= 0
        scores.append(metrics.dice(found[known] > 0, target[known] > 0))
    return float(np.mean(scores))
