"""From brightness to a picture: optics, colours, light, noise, the camera."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medseg._types import FloatArray
    from napari_medseg.samples._canvas import Canvas
    from napari_medseg.samples._noise import NoiseMaker
    from napari_medseg.samples._style import Style


def take(
    rng: np.random.Generator, noise: NoiseMaker, canvas: Canvas, style: Style
) -> NDArray[np.uint8]:
    """Take a picture of a canvas.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all chance.
    noise : NoiseMaker
        Draws the uneven light.
    canvas : Canvas
        What is under the microscope.
    style : Style
        The way of imaging.

    Returns
    -------
    ndarray
        ``uint8 (C, Y, X)``; C is 1 or 3.
    """
    size = canvas.size
    signal = _optics(rng, canvas.signal.reshape(size, size), style, noise.unit)
    signal, span = _stretch(signal)
    mode = int(rng.choice(4, p=style.colour))
    light = uneven_light(rng, size, float(rng.uniform(*style.light)))
    if mode < 2:
        image = signal[None]
    else:
        image = _colours(rng, signal, canvas, dark=mode == 3)
    # dark pixels of a transmitted picture also hold light
    floor = float(rng.uniform(0, 0.25))
    image = (floor + (1 - floor) * image) * light
    # enough light to see the faintest kind
    contrast = min(canvas.faintest / span, 0.5) * (1 - floor)
    photons = max(10 ** float(rng.uniform(*style.photons)), 0.7 / contrast**2)
    image = add_noise(rng, image, photons)
    image = _camera(rng, image, style)
    if mode == 1:
        tint = 1 - 0.3 * rng.random((3, 1, 1)).astype(np.float32)
        image = image * tint
    picture: NDArray[np.uint8] = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return picture


def blurred(image: FloatArray, sigma: float) -> FloatArray:
    """Return an image after a Gaussian blur over its last two axes.

    Parameters
    ----------
    image : ndarray
        ``float32 (..., Y, X)``.
    sigma : float
        Standard deviation in pixels.

    Returns
    -------
    ndarray
        ``float32``, of the same shape.
    """
    if sigma < 0.2:
        return image
    spread = (0.0,) * (image.ndim - 2) + (sigma, sigma)
    soft: FloatArray = ndimage.gaussian_filter(image, spread, truncate=3.0)
    return soft


def uneven_light(rng: np.random.Generator, size: int, strength: float) -> FloatArray:
    """Return a smooth field of light: a slope, a bowl, dark corners.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all chance.
    size : int
        Side in pixels.
    strength : float
        0 is even; at 1 the darkest place may get nearly no light.

    Returns
    -------
    ndarray
        ``float32 (Y, X)``, brightest 1.
    """
    run = np.linspace(-1, 1, size, dtype=np.float32)
    a, b, c, d, e = rng.uniform(-1, 1, 5).tolist()
    dim = abs(float(rng.normal(0, 0.5)))
    rows = a * run + (c - dim) * run**2
    columns = b * run + (d - dim) * run**2
    field = rows[:, None] + columns[None, :] + (e * run)[:, None] * run[None, :]
    field -= field.max()
    depth = strength * 0.8 / max(1.0, float(-field.min()))
    light: FloatArray = 1 + np.float32(depth) * field
    return light


def add_noise(
    rng: np.random.Generator, image: FloatArray, photons: float
) -> FloatArray:
    """Return an image with the noise of photons and of the read-out.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all chance.
    image : ndarray
        ``float32 (C, Y, X)``, 0 to 1.
    photons : float
        Photons at full brightness; few are noisy.

    Returns
    -------
    ndarray
        ``float32 (C, Y, X)``.
    """
    read = float(rng.uniform(0, 0.03))
    light = np.maximum(image, 0)
    if photons < 30:
        # the normal distribution is not near enough to Poisson's here
        counted = rng.poisson(light * photons).astype(np.float32)
        blank = rng.standard_normal(image.shape, np.float32)
        few: FloatArray = counted / np.float32(photons) + np.float32(read) * blank
        return few
    spread = np.sqrt(light / np.float32(photons) + np.float32(read**2))
    many: FloatArray = image + spread.astype(np.float32) * rng.standard_normal(
        image.shape, np.float32
    )
    return many


def _optics(
    rng: np.random.Generator, signal: FloatArray, style: Style, unit: float
) -> FloatArray:
    """Return the brightness after the optics: halo, relief, blur."""
    if rng.random() < style.halo:
        # bright seams: what a phase ring does is near to a high pass filter
        wide = float(rng.uniform(2.5, 8)) * unit
        signal = signal - float(rng.uniform(0.3, 0.85)) * blurred(signal, wide)
    if rng.random() < style.emboss:
        way = rng.uniform(0, 2 * np.pi)
        soft = blurred(signal, float(rng.uniform(0.8, 2)) * unit)
        slope = np.sin(way) * np.gradient(soft, axis=0)
        slope += np.cos(way) * np.gradient(soft, axis=1)
        signal = float(rng.uniform(0.05, 0.4)) * signal + 3 * slope.astype(np.float32)
    return blurred(signal, float(rng.uniform(*style.blur)) * unit)


def _stretch(signal: FloatArray) -> tuple[FloatArray, float]:
    """Return brightness with its bulk within 0 to 1, and what 1 was before."""
    low, high = np.quantile(signal[::3, ::3], [0.002, 0.998])
    span = max(float(high - low), 0.15) * 1.1
    scaled: FloatArray = (signal - np.float32(low)) / np.float32(span)
    return np.clip(scaled, 0, 1.3), span


def _colours(
    rng: np.random.Generator, signal: FloatArray, canvas: Canvas, *, dark: bool
) -> FloatArray:
    """Return a colour picture: each paint a light on dark or a stain on bright."""
    count = int(canvas.paints.max()) + 1
    palette = rng.random((3, count)).astype(np.float32)
    if not dark and rng.random() < 0.5:
        # the blue-violet and rose of the commonest stain
        violet, rose = (0.75, 0.85, 0.3), (0.15, 0.7, 0.25)
        pick = np.where(rng.random(count) < 0.6, 0, 1)
        pick[0] = 1
        both = np.asarray([violet, rose], np.float32)[pick].T
        palette = np.clip(both + 0.12 * palette - 0.06, 0.02, 1)
    palette /= palette.max(axis=0, keepdims=True)
    shape = (3, canvas.size, canvas.size)
    cover = palette[:, canvas.paints].reshape(shape)
    cover = blurred(cover, float(rng.uniform(0.5, 1.2)))
    if dark:
        return cover * signal
    density = float(rng.uniform(0.8, 2.2))
    faint = float(rng.uniform(0, 0.15))
    bright: FloatArray = np.exp(-density * cover * (signal + faint))
    return bright


def _camera(rng: np.random.Generator, image: FloatArray, style: Style) -> FloatArray:
    """Return the picture after gamma, contrast, inversion and hot pixels."""
    image = np.clip(image, 0, 1)
    if rng.random() < 0.5:
        image = image ** np.float32(np.exp(rng.uniform(-0.5, 0.5)))
    if rng.random() < style.invert:
        image = 1 - image
    if rng.random() < 0.35:
        span = float(rng.uniform(0.3, 1))
        image = span * image + float(rng.uniform(0, 1 - span))
    if rng.random() < 0.06:
        many = int(rng.integers(3, 60))
        at = rng.integers(0, image.shape[-1], (2, many))
        image[:, at[0], at[1]] = float(rng.choice([0.0, 1.0, 1.0]))
    if image.shape[0] == 1 and rng.random() < 0.5:
        # as most programs show a grey picture: from its darkest to its brightest
        low, high = np.quantile(image[0, ::3, ::3], [0.001, 0.999])
        image = (image - np.float32(low)) / np.float32(max(high - low, 0.05))
    return image
