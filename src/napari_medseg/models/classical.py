"""Segmenters without training: what every other one has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg._types import Prediction, default_classes
from napari_medseg.io.normalise import Normalisation, apply_limits, limits
from napari_medseg.io.pixels import ArrayPixels
from napari_medseg.models.registry import CLASSICAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_medseg._types import AnySegmenter, FloatArray, LabelClass, Pixels
    from napari_medseg.io.normalise import Limits

BAND = 1024
"""Rows of a large image that are done at a time."""


@dataclass(frozen=True, slots=True)
class Otsu:
    """The threshold of Otsu (IEEE Trans. SMC 9, 1979) on the mean of the channels.

    Of more than three channels the first three count; NaN is background. Of more than
    4 million pixels every n-th row and column gives the threshold.

    Attributes
    ----------
    dark : bool
        Whether objects are darker than their surroundings.
    """

    dark: bool = False

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """Background and object."""
        return default_classes(2)

    @property
    def identity(self) -> str:
        """Its name."""
        return "otsu_dark" if self.dark else "otsu"

    def predict(self, image: FloatArray) -> Prediction:
        """Segment an image.

        Parameters
        ----------
        image : ndarray
            ``float32 (C, Y, X)``.

        Returns
        -------
        Prediction
            Probabilities of 0 and 1.
        """
        (whole,) = self._predicted(ArrayPixels(image), rows=image.shape[-2])
        return whole

    def bands(self, pixels: Pixels) -> Iterator[Prediction]:
        """Segment an image that may not fit into memory.

        Parameters
        ----------
        pixels : Pixels
            The image.

        Yields
        ------
        Prediction
            Of the next rows; all of them together are what `predict` gives.
        """
        yield from self._predicted(pixels, BAND)

    def _predicted(self, pixels: Pixels, rows: int) -> Iterator[Prediction]:
        """Find the threshold in a sample, and apply it to so many rows at a time."""
        channels, height, width = pixels.shape
        usual = Normalisation.for_channels(channels, rgb=channels == 3)
        sample = pixels.sample()
        scale = limits(sample, usual)
        grey, known = _grey(sample, usual, scale)
        threshold = None
        if known.any() and grey[known].min() < grey[known].max():
            threshold = otsu_threshold(grey[known])
        for top in range(0, height, rows):
            part = slice(top, min(top + rows, height))
            grey, known = _grey(pixels.region(part, slice(0, width)), usual, scale)
            found = np.zeros_like(grey)
            if threshold is not None:
                found[known & ((grey > threshold) != self.dark)] = 1
            yield Prediction(np.stack([1 - found, found]), self.classes)


def open_classical(name: str) -> AnySegmenter | None:
    """Open a segmenter without training; torch is not needed for it.

    Parameters
    ----------
    name : str
        A name that `models list` shows.

    Returns
    -------
    AnySegmenter or None
        Ready to predict; None where the name is that of another kind.
    """
    entry = CLASSICAL.get(name)
    if entry is None:
        return None
    module, factory = entry.factory
    segmenter: AnySegmenter = getattr(import_module(module), factory)(**entry.options)
    return segmenter


def _grey(
    image: FloatArray, usual: Normalisation, scale: Limits
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return the mean of the channels, and where it is known: NaN is not."""
    grey: FloatArray = apply_limits(image, usual, scale).mean(axis=0)
    known = np.logical_not(np.isnan(image[list(usual.channels)]).any(axis=0))
    return grey, known


def otsu_threshold(grey: FloatArray) -> float:
    """Return the threshold that parts the values best; 0.5 for a constant image.

    Parameters
    ----------
    grey : ndarray
        ``float32``, of any shape.

    Returns
    -------
    float
        Values above it are bright.
    """
    from skimage.filters import threshold_otsu

    if grey.min() == grey.max():
        return 0.5
    return float(threshold_otsu(grey))  # type: ignore[no-untyped-call]
