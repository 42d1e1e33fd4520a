"""XNet-Plus: three U-Nets side by side, for the image, its coarse and its fine part.

After the network of WT-BCP (arXiv 2504.14445), which is that of XNet v2 (Zhou et al.,
arXiv 2409.00947). A Haar wavelet parts an image into low and high frequencies; a main
U-Net sees the image, one the low and one the high frequencies, a little of each mixed
into the other. The main one borrows fine features near the surface from the third and
coarse ones in the depth from the second, and gives the answer; the other two have
outputs of their own in training.

What is decided here:

* the wavelets are part of the network. They are computed of whatever it is given, after
  images were mixed, and mixed with the same weights in training and in use;
* base width 16, where the published network has 64 and about 113 million parameters;
* each channel has its own wavelets, and a part in which nothing differs becomes 0
  (the published code divides by zero);
* an image of odd height or width is continued by its last row or column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_medseg.models.convolution import convolution
from napari_medseg.models.networks import Network

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

WIDTH = 16
"""Channels of the first level; each level below has twice as many."""

LEVELS = 5
"""Levels of each U-Net."""

HIGH_IN_LOW = 0.1
"""How much of the high frequencies is mixed into the low ones, in 2D."""

LOW_IN_HIGH = 0.9
"""How much of the mixed low frequencies is mixed into the high ones, in 2D."""


class Frequencies(NamedTuple):
    """Two parts of images, ``(B, C, H, W)`` each.

    Attributes
    ----------
    low, high : Tensor
        Coarse and fine.
    """

    low: Tensor
    high: Tensor


def haar(images: Tensor) -> Frequencies:
    """Part images by one level of the Haar wavelet.

    Of each block ``[[a, b], [c, d]]`` the low band is ``(a + b + c + d) / 2``, and the
    three others sum to ``(3a - b - c - d) / 2``.

    Parameters
    ----------
    images : Tensor
        ``(B, C, H, W)``.

    Returns
    -------
    Frequencies
        The low band, and the sum of the three high ones, ``(B, C, H / 2, W / 2)``,
        rounded up.
    """
    height, width = images.shape[-2:]
    even = functional.pad(images, (0, width % 2, 0, height % 2), mode="replicate")
    low = 2.0 * functional.avg_pool2d(even, 2)
    return Frequencies(low, 2.0 * even[..., ::2, ::2] - low)


def frequencies(images: Tensor) -> Frequencies:
    """Return what the second and the third network see of images.

    Parameters
    ----------
    images : Tensor
        ``(B, C, H, W)``.

    Returns
    -------
    Frequencies
        Of the same size. Each band is brought to [0, 1], enlarged and mixed with the
        other; the fine one gets of the coarse one as it is mixed.
    """
    low, high = (_enlarged(_spread(band), images) for band in haar(images))
    mixed = low + HIGH_IN_LOW * high
    return Frequencies(mixed, high + LOW_IN_HIGH * mixed)


def _spread(band: Tensor) -> Tensor:
    """Bring each channel of each image to [0, 1]; 0 where all is alike."""
    lowest = band.amin(dim=(2, 3), keepdim=True)
    width = band.amax(dim=(2, 3), keepdim=True) - lowest
    return (band - lowest) / torch.where(width > 0, width, 1.0)


def _enlarged(band: Tensor, like: Tensor) -> Tensor:
    shape = (like.shape[-2], like.shape[-1])
    return functional.interpolate(
        band, size=shape, mode="bilinear", align_corners=False
    )


class XNetPlus(Network):
    """XNet-Plus; its output has the resolution of its input.

    Parameters
    ----------
    in_channels : int
        Channels of the images.
    classes : int
        Outputs, background included.
    width : int
        Channels of the first level.
    wavelets : bool
        Whether the second and the third network see low and high frequencies; else
        all three see the image as it is, which tells what the wavelets are worth.
    """

    settings: ClassVar[tuple[str, ...]] = ("width", "bands")

    def __init__(
        self,
        in_channels: int,
        classes: int,
        width: int = WIDTH,
        *,
        wavelets: bool = True,
    ) -> None:
        super().__init__()
        self.wavelets = wavelets
        widths = tuple(width << level for level in range(LEVELS))
        self.main_encoder = _Encoder(in_channels, widths)
        self.low_encoder = _Encoder(in_channels, widths)
        self.high_encoder = _Encoder(in_channels, widths)
        # near the surface with the fine features, in the depth with the coarse ones
        self.joints = nn.ModuleList(_double(2 * each, each) for each in widths[:-1])
        self.main_decoder = _Decoder(widths, classes)
        self.low_decoder = _Decoder(widths, classes)
        self.high_decoder = _Decoder(widths, classes)
        # where kernels and features lie so, processors take less time
        self.to(memory_format=torch.channels_last)

    @classmethod
    def build(cls, in_channels: int, classes: int, **settings: Any) -> Self:
        """Return the network with fresh weights; see `Network.build`."""
        width = int(settings.get("width", WIDTH))
        # files of before there was a choice say nothing
        wavelets = settings.get("bands") != "none"
        return cls(in_channels, classes, width, wavelets=wavelets)

    def forward(self, images: Tensor) -> Tensor:
        """Segment windows.

        Parameters
        ----------
        images : Tensor
            ``(B, in_channels, H, W)``, standardised; 32 pixels a side or more.

        Returns
        -------
        Tensor
            ``(B, classes, H, W)``, logits of the main network.
        """
        low, high = self._parts(images)
        main = self.main_encoder(images, LEVELS)
        # no more of the other two than the main one borrows
        coarse, fine = self.low_encoder(low, LEVELS - 1), self.high_encoder(high, 2)
        logits: Tensor = self.main_decoder(self._joined(main, coarse, fine), main[-1])
        return logits

    def outputs(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of main, low and high network; see `Network.outputs`."""
        parts = self._parts(images)
        main = self.main_encoder(images, LEVELS)
        low = self.low_encoder(parts.low, LEVELS)
        high = self.high_encoder(parts.high, LEVELS)
        joined = self._joined(main, low, high)
        return (
            self.main_decoder(joined, main[-1]),
            self.low_decoder([*low[:2], *joined[2:]], low[-1]),
            self.high_decoder([*joined[:2], *high[2:-1]], high[-1]),
        )

    def _parts(self, images: Tensor) -> Frequencies:
        """Return what the second and the third network see."""
        if self.wavelets:
            return frequencies(images.float())
        return Frequencies(images, images)

    def _joined(
        self, main: Sequence[Tensor], low: Sequence[Tensor], high: Sequence[Tensor]
    ) -> list[Tensor]:
        """Join the main features of each level but the lowest with borrowed ones."""
        borrowed = [*high[:2], *low[2 : LEVELS - 1]]
        return [
            joint(torch.cat([own, other], dim=1))
            for joint, own, other in zip(
                self.joints, main[: LEVELS - 1], borrowed, strict=True
            )
        ]


class _Encoder(nn.Module):
    """The way down of a U-Net: two convolutions a level, halved between levels."""

    def __init__(self, entering: int, widths: Sequence[int]) -> None:
        super().__init__()
        entries = (entering, *widths[:-1])
        self.levels = nn.ModuleList(
            _double(entry, width) for entry, width in zip(entries, widths, strict=True)
        )

    def forward(self, images: Tensor, depth: int) -> list[Tensor]:
        """Return the features of the first ``depth`` levels."""
        found = images.contiguous(memory_format=torch.channels_last)
        kept: list[Tensor] = []
        for level in self.levels[:depth]:
            if kept:
                found = functional.max_pool2d(found, 2)
            found = level(found)
            kept.append(found)
        return kept


class _Decoder(nn.Module):
    """The way up of a U-Net: doubled, joined with what was kept, two convolutions."""

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        pairs = list(zip(widths[1:], widths[:-1], strict=True))[::-1]
        self.enlarge = nn.ModuleList(
            convolution(lower, upper) for lower, upper in pairs
        )
        self.levels = nn.ModuleList(_double(2 * upper, upper) for _, upper in pairs)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, kept: Sequence[Tensor], found: Tensor) -> Tensor:
        """Map features, the first level first, and the lowest ones to logits."""
        for enlarge, level, beside in zip(
            self.enlarge, self.levels, reversed(kept), strict=True
        ):
            shape = (beside.shape[-2], beside.shape[-1])
            found = enlarge(functional.interpolate(found, size=shape, mode="nearest"))
            found = level(torch.cat([beside, found], dim=1))
        logits: Tensor = self.head(found)
        return logits


def _double(entering: int, leaving: int) -> nn.Sequential:
    """Return two convolutions with normalisation and activation."""
    return nn.Sequential(convolution(entering, leaving), convolution(leaving, leaving))
