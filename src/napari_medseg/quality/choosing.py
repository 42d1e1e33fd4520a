"""What to annotate next: images that are done badly, and unlike one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_medseg._types import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_medseg._types import FloatArray

UNKNOWN_QUALITY = 0.5
"""What is assumed of an image whose quality is not known."""

LEAST_WEIGHT = 0.05
"""Weight of a perfect result, so that unlike images are still told apart."""


def annotate_next(
    summaries: FloatArray,
    quality: Sequence[float],
    count: int,
    annotated: FloatArray | None = None,
) -> list[int]:
    """Choose images to annotate, the most telling first.

    Farthest-first (the greedy k-centre of Gonzalez 1985): each time the image whose
    distance to all that are annotated or chosen, times how bad it is, is greatest.

    Parameters
    ----------
    summaries : ndarray
        ``float32 (N, E)``, what each image is like; `Look.summary` gives them.
    quality : sequence of float
        N predicted qualities from 0 to 1; ``nan`` where not known.
    count : int
        How many to choose; all where there are fewer.
    annotated : ndarray, optional
        ``float32 (M, E)``, of images that are annotated already.

    Returns
    -------
    list of int
        Places in ``summaries``.

    Raises
    ------
    InputError
        The numbers of images and qualities differ, or ``count`` is below 1.
    """
    points = _unit(summaries)
    if len(points) != len(quality):
        raise InputError(
            f"There are {len(points)} images but {len(quality)} qualities; each image "
            "needs one (nan where it is not known)."
        )
    if count < 1:
        raise InputError(f"{count} images cannot be chosen; ask for at least 1.")
    known = np.nan_to_num(np.asarray(quality, float), nan=UNKNOWN_QUALITY)
    weight = np.maximum(1 - np.clip(known, 0, 1), LEAST_WEIGHT)
    # no two directions are farther apart than 2
    distance = np.full(len(points), 2.0)
    for centre in _unit(annotated) if annotated is not None else ():
        distance = np.minimum(distance, _distances(points, centre))
    chosen: list[int] = []
    left = np.ones(len(points), bool)
    while len(chosen) < min(count, len(points)):
        # of images without any difference left, the worst
        gain = np.where(left, weight * (distance + 1e-6), -1.0)
        best = int(gain.argmax())
        chosen.append(best)
        left[best] = False
        distance = np.minimum(distance, _distances(points, points[best]))
    return chosen


def _unit(vectors: FloatArray) -> NDArray[np.float64]:
    """Return vectors of length 1."""
    points = np.asarray(vectors, np.float64)
    length = np.linalg.norm(points, axis=1, keepdims=True)
    unit: NDArray[np.float64] = points / np.maximum(length, 1e-12)
    return unit


def _distances(
    points: NDArray[np.float64], centre: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the distance of each point from one of them."""
    found: NDArray[np.float64] = np.linalg.norm(points - centre, axis=1)
    return found
