"""From any image to the inputs of a model, each in [0, 1]: three for a SAM.

A grey image will do where colours are asked for, and colours where one channel is: see
`suited`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from napari_medseg._config import check, setting
from napari_medseg._types import FloatArray, InputError
from napari_medseg.io.images import sample_step

if TYPE_CHECKING:
    from numpy.typing import NDArray

Limits: TypeAlias = tuple[tuple[float, float], ...]
"""For each of the inputs, the values that become 0 and 1."""

LUMINANCE = (0.2126, 0.7152, 0.0722)
"""What red, green and blue count in the grey of a colour (ITU-R BT.709)."""


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Which channels a model sees and how their values are scaled.

    Attributes
    ----------
    channels : tuple of int
        The image channel that feeds each of the model's inputs.
    lower, upper : float
        Percentiles of the finite values that become 0 and 1.
    joint : bool
        One pair of limits for all inputs, which keeps the hue of colour images,
        instead of one for each channel.
    """

    channels: tuple[int, ...] = setting(
        (0, 0, 0), "Image channel (from 0) for each of the model's inputs."
    )
    lower: float = setting(
        1.0, "Percentage of the darkest pixels that become black.", ge=0, le=100
    )
    upper: float = setting(
        99.0, "Pixels brighter than this percentage become white.", ge=0, le=100
    )
    joint: bool = setting(
        False, "Scale all channels alike, which keeps the hue of colour images."
    )

    def __post_init__(self) -> None:
        check(self)
        whole = all(
            isinstance(channel, int) and channel >= 0 for channel in self.channels
        )
        if not self.channels or not whole:
            raise InputError(
                f"channels is {self.channels}; it must be whole numbers from 0, one "
                "for each input of the model."
            )
        if self.lower >= self.upper:
            raise InputError(
                f"lower is {self.lower} and upper is {self.upper}; lower must be "
                "smaller."
            )

    @classmethod
    def of_all_channels(cls, count: int, rgb: bool = False) -> Normalisation:
        """Return the choice that shows a model every channel once.

        Parameters
        ----------
        count : int
            Number of channels of the images.
        rgb : bool
            Whether the first three are red, green and blue, which are scaled alike;
            what follows them (transparency) is left out.

        Returns
        -------
        Normalisation
            Of ``count`` inputs, or of three for colours.
        """
        colours = rgb and count >= 3
        return cls(channels=tuple(range(3 if colours else count)), joint=colours)

    @classmethod
    def for_channels(cls, count: int, rgb: bool = False) -> Normalisation:
        """Return the usual choice of three for images of so many channels.

        Parameters
        ----------
        count : int
            Number of channels of the images.
        rgb : bool
            Whether they are red, green and blue.

        Returns
        -------
        Normalisation
            One channel feeds all inputs; two feed one and two; of more, the first
            three are used.

        Raises
        ------
        InputError
            ``count`` is not positive.
        """
        if count < 1:
            raise InputError(f"An image has at least one channel, not {count}.")
        channels = {1: (0, 0, 0), 2: (0, 1, 1)}.get(count, (0, 1, 2))
        return cls(channels=channels, joint=rgb and count >= 3)


def limits(image: FloatArray, normalisation: Normalisation) -> Limits:
    """Find the values of an image that become 0 and 1.

    Percentiles leave a few hot pixels without effect. Of more than 4 million pixels
    every n-th row and column is used.

    Parameters
    ----------
    image : ndarray
        ``float32 (C, Y, X)``; NaN and infinity are left out.
    normalisation : Normalisation
        Channels and percentiles.

    Returns
    -------
    tuple of (float, float)
        Low and high for each of the inputs; equal where a channel is
        constant or has no finite value.

    Raises
    ------
    InputError
        The image lacks a channel that the model uses.
    """
    _check_channels(image, normalisation)
    step = sample_step(*image.shape[1:])
    sample = suited(image[:, ::step, ::step], normalisation)
    if normalisation.joint:
        both = _limits_of(sample[sorted(set(normalisation.channels))], normalisation)
        return (both,) * len(normalisation.channels)
    each = {
        channel: _limits_of(sample[channel], normalisation)
        for channel in set(normalisation.channels)
    }
    return tuple(each[channel] for channel in normalisation.channels)


def apply_limits(
    image: FloatArray, normalisation: Normalisation, found: Limits
) -> FloatArray:
    """Scale an image, or a tile of it, with limits that are known.

    Parameters
    ----------
    image : ndarray
        ``float32 (C, y, x)``.
    normalisation : Normalisation
        The channels.
    found : tuple of (float, float)
        What `limits` found for the whole image.

    Returns
    -------
    ndarray
        ``float32 (I, y, x)`` in [0, 1], I inputs; NaN is 0, infinity 1.

    Raises
    ------
    InputError
        The image lacks a channel that the model uses.
    """
    _check_channels(image, normalisation)
    image = suited(image, normalisation)
    inputs = list(zip(normalisation.channels, found, strict=True))
    scaled = {
        (channel, bounds): _scale(image[channel], *bounds)
        for channel, bounds in dict.fromkeys(inputs)
    }
    return np.stack([scaled[key] for key in inputs])


def normalise(image: FloatArray, normalisation: Normalisation) -> FloatArray:
    """Turn an image into the inputs of a model.

    Parameters
    ----------
    image : ndarray
        ``float32 (C, Y, X)``.
    normalisation : Normalisation
        Channels and percentiles.

    Returns
    -------
    ndarray
        ``float32 (I, Y, X)`` in [0, 1], I inputs. NaN is 0, infinity 1, a constant
        channel 0.

    Raises
    ------
    InputError
        The image lacks a channel that the model uses.
    """
    return apply_limits(image, normalisation, limits(image, normalisation))


def suited(image: FloatArray, normalisation: Normalisation) -> FloatArray:
    """Return an image with the channels that a normalisation speaks of.

    Parameters
    ----------
    image : ndarray
        ``float32 (C, y, x)``. Three channels are taken for red, green and blue.
    normalisation : Normalisation
        Channels, and whether they are colours.

    Returns
    -------
    ndarray
        ``float32``: where colours are asked for, a grey image three times; where the
        first channel alone is, the luminance of colours, as a stain that was saved in
        blue is not in red. Other images as they are.
    """
    count = len(image)
    if normalisation.joint and count == 1:
        return in_colours(image)
    if count == 3 and set(normalisation.channels) == {0}:
        return _luminance(image)
    return image


def in_colours(image: FloatArray) -> FloatArray:
    """Show a grey image as red, green and blue, which are then alike.

    Parameters
    ----------
    image : ndarray
        ``float32 (1, Y, X)``.

    Returns
    -------
    ndarray
        ``float32 (3, Y, X)``; a view of the image, to be read only.
    """
    return np.broadcast_to(image, (3, *image.shape[1:]))


def _luminance(colours: FloatArray) -> FloatArray:
    """Return the grey of colours ``(3, y, x)``, ``(1, y, x)``; of grey ones exactly."""
    red, green, blue = colours
    with np.errstate(invalid="ignore"):  # infinite in one, and minus so in another
        mixed = sum(
            np.float32(share) * channel
            for share, channel in zip(LUMINANCE, colours, strict=True)
        )
    grey: FloatArray = np.where((red == green) & (green == blue), red, mixed)
    return grey[np.newaxis]


def _check_channels(image: FloatArray, normalisation: Normalisation) -> None:
    """Refuse an image with too few channels."""
    if image.ndim != 3:
        raise InputError(
            f"An image of shape {image.shape} was given where (C, Y, X) is needed. "
            "Add a channel axis, or take one slice of the stack."
        )
    if normalisation.joint and len(image) == 1:
        return
    needed = max(normalisation.channels) + 1
    if image.shape[0] < needed:
        raise InputError(
            f"The model uses channel {needed}, but this image has "
            f"{image.shape[0]} channel{'s' * (image.shape[0] != 1)}. Use images with "
            "the same channels as those the model was tuned on, or choose other "
            "channels."
        )


def _limits_of(
    values: NDArray[np.float32], normalisation: Normalisation
) -> tuple[float, float]:
    """Return the percentiles of the finite values, as doubles."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if finite.size == 0:
        return 0.0, 0.0
    percent = (normalisation.lower, normalisation.upper)
    low, high = np.percentile(finite, percent).tolist()
    if low == high:
        # Nearly all pixels are alike, as in fluorescence with few cells: what
        # differs from them is the picture.
        other = finite[finite != low]
        if other.size:
            first, last = np.percentile(other, percent).tolist()
            low, high = min(low, first), max(high, last)
    return low, high


def _scale(channel: NDArray[np.float32], low: float, high: float) -> FloatArray:
    """Scale one channel; no warning, whatever the values are."""
    # Halves: the width of the widest range would overflow.
    half = np.float32(high / 2) - np.float32(low / 2)
    if half <= 0:
        half = np.float32(np.inf)
    with np.errstate(invalid="ignore", under="ignore"):
        clipped = np.clip(channel, np.float32(low), np.float32(high))
        scaled = (clipped / 2 - np.float32(low / 2)) / half
    scaled = np.where(np.isnan(channel), np.float32(0), scaled)
    scaled = np.where(channel == np.inf, np.float32(1), scaled)
    result: FloatArray = np.clip(scaled, 0, 1).astype(np.float32)
    return result
