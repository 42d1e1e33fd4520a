"""The image encoder of ``nano``, the SAM small enough to ship with the package.

A pyramid of dense 3×3 convolutions (quick on a processor, where matrix units like
them), ending in a few of SAM's own transformer blocks at stride 16, whose output is
merged with the finer levels into an embedding of 256 channels at stride 8. Prompt
encoder and mask decoder are SAM's own, so everything built on SAM works on ``nano``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.image_encoder import Block
from torch import nn
from torch.nn import functional

from napari_medseg.models import vit

if TYPE_CHECKING:
    from torch import Tensor

EMBEDDING_CHANNELS = 256
"""Channels of a SAM embedding; the mask decoder expects them."""

STRIDE = 8
"""Pixels of the working image per embedding pixel."""

WINDOW = 16
"""Side of an attention window, in tokens of 16 pixels."""


class ConvNorm(nn.Sequential):
    """A 3×3 convolution, batch normalisation and ReLU.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    stride : int
        1, or 2 to halve the resolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions added to their input (He et al., CVPR 2016).

    Parameters
    ----------
    channels : int
        Channels in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        return functional.relu(x + self.second(self.first(x)))


class NanoEncoder(nn.Module):
    """Image encoder of ``nano``.

    Parameters
    ----------
    widths : tuple of int
        Channels at strides 4, 8 and 16.
    depths : tuple of int
        Residual blocks at strides 4, 8 and 16.
    blocks : int
        Transformer blocks at stride 16.
    heads : int
        Attention heads of each transformer block.
    img_size : int
        Working size the encoder is made for, in pixels; any multiple of 16 works.
    """

    def __init__(
        self,
        widths: tuple[int, int, int] = (64, 128, 256),
        depths: tuple[int, int, int] = (2, 3, 2),
        blocks: int = 4,
        heads: int = 4,
        img_size: int = 512,
    ) -> None:
        super().__init__()
        self.img_size = img_size
        fine, middle, coarse = widths
        self.stem = nn.Sequential(ConvNorm(3, 32, 2), ConvNorm(32, fine, 2))
        self.fine = _stage(fine, depths[0])
        self.middle = nn.Sequential(
            ConvNorm(fine, middle, 2), *_stage(middle, depths[1])
        )
        self.coarse = nn.Sequential(
            ConvNorm(middle, coarse, 2), *_stage(coarse, depths[2])
        )
        self.blocks = nn.ModuleList(
            Block(
                coarse,
                heads,
                use_rel_pos=True,
                window_size=WINDOW,
                input_size=(WINDOW, WINDOW),
            )
            for _ in range(blocks)
        )
        self.from_fine = nn.Conv2d(fine, EMBEDDING_CHANNELS, 3, stride=2, padding=1)
        self.from_middle = nn.Conv2d(middle, EMBEDDING_CHANNELS, 1)
        self.from_coarse = nn.Conv2d(coarse, EMBEDDING_CHANNELS, 1)
        self.neck = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(EMBEDDING_CHANNELS, EMBEDDING_CHANNELS, 3, padding=1, bias=False),
            LayerNorm2d(EMBEDDING_CHANNELS),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Embed images.

        Parameters
        ----------
        x : Tensor
            ``(B, 3, H, W)``, normalised as SAM does; H and W multiples of 16.

        Returns
        -------
        Tensor
            ``(B, 256, H / 8, W / 8)``.
        """
        return self.features(x)[STRIDE]

    def features(self, images: Tensor) -> dict[int, Tensor]:
        """Return what the encoder says of images, finer and coarser.

        Parameters
        ----------
        images : Tensor
            As for `forward`.

        Returns
        -------
        dict of int to Tensor
            By stride, the finest first: ``(B, C, H / stride, W / stride)``; at stride
            8 the embedding.
        """
        fine = self.fine(self.stem(images))
        middle = self.middle(fine)
        tokens = self.coarse(middle).permute(0, 2, 3, 1)
        for block in self.blocks:
            tokens = vit.through(block, tokens)
        tokens = tokens.permute(0, 3, 1, 2)
        coarse = self.from_coarse(tokens)
        coarse = functional.interpolate(coarse, scale_factor=2.0, mode="nearest")
        merged = coarse + self.from_middle(middle) + self.from_fine(fine)
        return {4: fine, STRIDE: self.neck(merged), 16: tokens}


def _stage(channels: int, depth: int) -> nn.Sequential:
    """Return ``depth`` residual blocks."""
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(depth)))
