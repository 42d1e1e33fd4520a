"""What is done to images before their lesions are looked for, in training and in use.

After Boulaabi et al. (AICCSA 2024, arXiv 2504.17306): the dark surround of a fundus
photograph is cut away, and contrast is equalised in tiles (CLAHE) on the lightness L of
CIE LAB alone, so that hues stay; of other images, on each channel. The paper's limits
cannot be read; those here are the usual ones, and in the card of each model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_medseg._config import check, setting
from napari_medseg.io.normalise import Normalisation, normalise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_medseg._types import FloatArray

FULL = 99.9
"""Percentile of an image's values that counts as white here."""

SMALLEST_FIELD = 0.2
"""A field of view covers at least this share of the image; else it is none."""

BINS = 256
"""Steps of brightness in the histograms of CLAHE."""


@dataclass(frozen=True)
class Preparation:
    """How images are prepared; a model's card holds it."""

    colour: bool = setting(False, "Whether images are red, green and blue.")
    crop: bool = setting(False, "Cut the dark surround away.")
    edge: float = setting(
        0.04, "Brightness, as a share of white, up to which is surround.", ge=0, le=1
    )
    clip: float = setting(
        2.0, "Contrast that CLAHE allows, as a multiple of none; 0 for no CLAHE.", ge=0
    )
    grid: int = setting(8, "Tiles of CLAHE along each side.", ge=1, le=64)

    def __post_init__(self) -> None:
        check(self)


class Place(NamedTuple):
    """Where a prepared image lies in its original.

    Attributes
    ----------
    top, left, bottom, right : int
        What is cut out, in pixels of the original.
    above, before : int
        Rows and columns that were added in front of it.
    side : int
        Side of the prepared image, or 0 where it is no square and nothing was added.
    shape : tuple of int
        Height and width of the original.
    """

    top: int
    left: int
    bottom: int
    right: int
    above: int
    before: int
    side: int
    shape: tuple[int, int]

    def cut(self, array: NDArray[Any], fill: Any = 0) -> NDArray[Any]:
        """Return the part of an array ``(..., Y, X)`` of the original, as prepared.

        Parameters
        ----------
        array : ndarray
            Of the original's height and width.
        fill : number
            What is added around it.

        Returns
        -------
        ndarray
            A copy.
        """
        part = array[..., self.top : self.bottom, self.left : self.right]
        if not self.side:
            return part.copy()
        whole = np.full((*array.shape[:-2], self.side, self.side), fill, array.dtype)
        whole[..., self._rows, self._columns] = part
        return whole

    def put_back(self, array: NDArray[Any], fill: Any = 0) -> NDArray[Any]:
        """Return an array ``(..., y, x)`` of the prepared image, as of the original.

        Parameters
        ----------
        array : ndarray
            Of the prepared image's height and width.
        fill : number
            The value outside what was cut out.

        Returns
        -------
        ndarray
            ``(..., Y, X)``, a copy.
        """
        whole = np.full((*array.shape[:-2], *self.shape), fill, array.dtype)
        part = array[..., self._rows, self._columns] if self.side else array
        whole[..., self.top : self.bottom, self.left : self.right] = part
        return whole

    @property
    def _rows(self) -> slice:
        return slice(self.above, self.above + self.bottom - self.top)

    @property
    def _columns(self) -> slice:
        return slice(self.before, self.before + self.right - self.left)


def prepare(image: FloatArray, preparation: Preparation) -> tuple[FloatArray, Place]:
    """Prepare an image.

    Parameters
    ----------
    image : ndarray
        ``float32 (C, Y, X)``.
    preparation : Preparation
        How.

    Returns
    -------
    image : ndarray
        ``float32 (C, y, x)`` in [0, 1]; of colours three channels.
    place : Place
        Where it lies.

    Raises
    ------
    InputError
        The image lacks a channel.
    """
    count = 3 if preparation.colour else len(image)
    whole = Normalisation(
        tuple(range(count)), lower=0.0, upper=FULL, joint=preparation.colour
    )
    scaled = normalise(image, whole)
    place = field_of_view(scaled, preparation)
    part = scaled[:, place.top : place.bottom, place.left : place.right]
    if preparation.clip:
        equalised = np.zeros_like(scaled)
        equalised[:, place.top : place.bottom, place.left : place.right] = equalise(
            part, preparation
        )
        scaled = equalised
    return place.cut(scaled), place


def field_of_view(scaled: FloatArray, preparation: Preparation) -> Place:
    """Find the square around what is not dark surround.

    Parameters
    ----------
    scaled : ndarray
        ``float32 (C, Y, X)`` in [0, 1].
    preparation : Preparation
        What counts as dark.

    Returns
    -------
    Place
        Around the largest connected part whose brightest channel is above the edge;
        the whole image where nothing is cut, or no part is large.
    """
    height, width = scaled.shape[1:]
    all_of_it = Place(0, 0, height, width, 0, 0, 0, (height, width))
    if not preparation.crop:
        return all_of_it
    from scipy import ndimage

    parts, count = ndimage.label(scaled.max(axis=0) > preparation.edge)
    if not count:
        return all_of_it
    sizes = np.bincount(parts.ravel())[1:]
    if sizes.max() < SMALLEST_FIELD * parts.size:
        return all_of_it
    rows, columns = ndimage.find_objects(parts)[int(sizes.argmax())]
    tall, wide = rows.stop - rows.start, columns.stop - columns.start
    side = max(tall, wide)
    return Place(
        rows.start,
        columns.start,
        rows.stop,
        columns.stop,
        (side - tall) // 2,
        (side - wide) // 2,
        side,
        (height, width),
    )


def equalise(scaled: FloatArray, preparation: Preparation) -> FloatArray:
    """Equalise contrast in tiles, limited (Zuiderveld, Graphics Gems IV, 1994).

    Parameters
    ----------
    scaled : ndarray
        ``float32 (C, y, x)`` in [0, 1].
    preparation : Preparation
        Limit and tiles; whether channels are colours.

    Returns
    -------
    ndarray
        The same shape, in [0, 1]; a constant channel stays as it is.
    """
    if not preparation.colour:
        return np.stack([_clahe(channel, preparation) for channel in scaled])
    from skimage.color import lab2rgb, rgb2lab

    lab = rgb2lab(scaled[:3], channel_axis=0)
    lab[0] = 100.0 * _clahe((lab[0] / 100.0).clip(0, 1), preparation)
    with np.errstate(invalid="ignore"):
        colours = _lab2rgb(lab2rgb, lab)
    return colours.clip(0, 1).astype(np.float32)


def _lab2rgb(convert: Any, lab: NDArray[Any]) -> NDArray[Any]:
    """Convert, without the warning for hues that a lighter pixel cannot have."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found: NDArray[Any] = convert(lab, channel_axis=0)
    return found


def _clahe(channel: NDArray[Any], preparation: Preparation) -> FloatArray:
    """Equalise one channel ``(y, x)`` in [0, 1]."""
    from skimage.exposure import equalize_adapthist

    if channel.max() <= channel.min():
        return channel.astype(np.float32)
    tile = tuple(max(1, side // preparation.grid) for side in channel.shape)
    found = equalize_adapthist(
        channel,
        kernel_size=tile,
        # a histogram without contrast holds 1 / BINS of a tile's pixels in each bin
        clip_limit=min(1.0, preparation.clip / BINS),
        nbins=BINS,
    )
    result: FloatArray = found.astype(np.float32)
    return result
