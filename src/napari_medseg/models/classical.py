"""Segmenters without training: what every other one has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg._types import Prediction, default_classes
from napari_medseg.io.normalise import Normalisation, normalise

if TYPE_CHECKING:
    from napari_medseg._types import FloatArray, LabelClass


@dataclass(frozen=True, slots=True)
class Otsu:
    """The threshold of Otsu (IEEE Trans. SMC 9, 1979) on the mean of the channels.

    Of more than three channels the first three count; NaN is background.

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
        channels = len(image)
        usual = Normalisation.for_channels(channels, rgb=channels == 3)
        grey = normalise(image, usual).mean(axis=0)
        known = ~np.isnan(image[list(usual.channels)]).any(axis=0)
        found = np.zeros_like(grey)
        if known.any() and grey[known].min() < grey[known].max():
            bright = grey > otsu_threshold(grey[known])
            found[known & (bright != self.dark)] = 1
        return Prediction(np.stack([1 - found, found]), self.classes)


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
