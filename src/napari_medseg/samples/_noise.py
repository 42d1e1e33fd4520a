"""Random fields, made in the frequency domain: the textures of the images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import fft

if TYPE_CHECKING:
    from napari_medseg._types import FloatArray


class NoiseMaker:
    """Draws square random fields of one size.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all chance.
    size : int
        Side of the fields in pixels.
    """

    __slots__ = ("_angle", "_frequency", "_rng", "size", "unit")

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.size = size
        # things grow with the image, but do not shrink to less than they need
        self.unit = max(size / 256, 0.5)
        self._rng = rng
        down = fft.fftfreq(size).astype(np.float32)[:, None]
        across = fft.rfftfreq(size).astype(np.float32)[None, :]
        self._frequency: FloatArray = np.hypot(down, across)
        # kept away from zero: band filters take its logarithm
        self._frequency[0, 0] = 0.5 / size
        self._angle: FloatArray = np.arctan2(down, across)

    def smooth(self, wavelength: float) -> FloatArray:
        """Return a field without detail finer than about a wavelength.

        Parameters
        ----------
        wavelength : float
            In pixels.

        Returns
        -------
        ndarray
            ``float32 (Y, X)``, of mean 0 and standard deviation 1.
        """
        return self._field(np.exp(-((self._frequency * wavelength) ** 2)))

    def band(self, wavelength: float, octaves: float, grain: float = 0.0) -> FloatArray:
        """Return a field whose detail is around one wavelength.

        Parameters
        ----------
        wavelength : float
            In pixels.
        octaves : float
            Width of the band.
        grain : float
            How much the detail runs one way: 0 not at all, 4 strongly.

        Returns
        -------
        ndarray
            ``float32 (Y, X)``, of mean 0 and standard deviation 1.
        """
        spread = np.log2(self._frequency * wavelength) / octaves
        response = np.exp(-0.5 * spread**2) / self._frequency
        if grain:
            way = float(self._rng.uniform(0, np.pi))
            response *= np.exp(grain * (np.cos(2 * (self._angle - way)) - 1))
        return self._field(response)

    def cloud(self, steepness: float) -> FloatArray:
        """Return a field with detail at all scales, as clouds have.

        Parameters
        ----------
        steepness : float
            Exponent of the falling amplitude; 1 is rough, 2 smooth.

        Returns
        -------
        ndarray
            ``float32 (Y, X)``, of mean 0 and standard deviation 1.
        """
        return self._field((self._frequency + 1 / 128) ** -steepness)

    def texture(self) -> FloatArray:
        """Return a field of a random sort: fine, coarse, striped, ridged, spotted.

        Returns
        -------
        ndarray
            ``float32 (Y, X)``, of mean 0 and standard deviation 1.
        """
        rng = self._rng
        sort = rng.choice(4, p=[0.42, 0.28, 0.14, 0.16])
        if sort == 0:
            return self.cloud(rng.uniform(0.8, 2))
        wavelength = self.unit * float(np.exp(rng.uniform(1.3, 3.4)))
        if sort == 1:
            return self.band(wavelength, rng.uniform(0.3, 1))
        if sort == 2:
            return self.band(wavelength, rng.uniform(0.25, 0.6), rng.uniform(1, 4))
        # folding makes ridges of a smooth field, cubing makes spots of it
        field = self.band(wavelength, rng.uniform(0.3, 0.8))
        folded = -np.abs(field) if rng.random() < 0.5 else field**3
        return _standard(folded)

    def _field(self, response: FloatArray) -> FloatArray:
        """Return white noise, filtered."""
        size = self.size
        parts = self._rng.standard_normal((2, size, size // 2 + 1), np.float32)
        spectrum = np.empty(parts.shape[1:], np.complex64)
        spectrum.real = parts[0] * response
        spectrum.imag = parts[1] * response
        spectrum[0, 0] = 0
        return _standard(fft.irfft2(spectrum, s=(size, size)))


def _standard(field: FloatArray) -> FloatArray:
    """Return a field scaled to mean 0 and standard deviation 1."""
    centred = field - field.mean()
    scaled: FloatArray = (centred / (centred.std() + 1e-6)).astype(np.float32)
    return scaled
