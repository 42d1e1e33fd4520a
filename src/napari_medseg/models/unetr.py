"""UNETR: a vision transformer with the decoder of a U-Net, for images.

After Hatamizadeh et al., "UNETR: Transformers for 3D Medical Image Segmentation"
(WACV 2022, arXiv 2103.10504), in two dimensions, of MONAI's parts. Windows are cut
into patches of 16 pixels a side, which a transformer compares; a decoder takes what it
says at four depths, and the pixels themselves.

What is decided here:

* 192 numbers a token and 12 blocks, as of a ViT-Tiny (768 in the paper), and 16
  channels at full resolution: 6.5 million parameters, for processors;
* what the decoder takes lies at a quarter, a half and three quarters of the depth,
  whatever that is: blocks 3, 6 and 9 of 12, counted from 0, as in MONAI;
* the places of patches are learned on a grid of 16 by 16, that of the usual window,
  and resampled for any other; a window whose sides are no multiples of 16 is filled up
  with zeros, which are cut off the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from monai.networks.nets.unetr import UNETR
from torch import Tensor, nn
from torch.nn import functional

from napari_medseg.models.networks import Network

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

PATCH = 16
"""Pixels of a patch, along each side."""

GRID = 16
"""Patches along each side of the window for which places are learned."""

HIDDEN, DEPTH, HEADS = 192, 12, 6
"""Numbers of a token, blocks of the transformer, and heads of each."""

FINE = 16
"""Channels at full resolution; each level below has twice as many."""


class Unetr(Network):
    """UNETR in two dimensions; its output has the resolution of its input.

    Parameters
    ----------
    in_channels : int
        Channels of the images.
    classes : int
        Outputs, background included.
    hidden : int
        Numbers of a token; a multiple of ``heads``.
    depth : int
        Blocks of the transformer, 4 to 12.
    heads : int
        Heads of each.
    """

    settings: ClassVar[tuple[str, ...]] = ("hidden", "depth", "heads")
    restyled: ClassVar[tuple[str, ...]] = ("body.encoder1",)

    def __init__(
        self,
        in_channels: int,
        classes: int,
        hidden: int = HIDDEN,
        depth: int = DEPTH,
        heads: int = HEADS,
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.in_channels = in_channels
        self.body = UNETR(
            in_channels,
            classes,
            GRID * PATCH,
            feature_size=FINE,
            hidden_size=hidden,
            mlp_dim=4 * hidden,
            num_heads=heads,
            spatial_dims=2,
        )
        vit = self.body.vit
        vit.blocks = vit.blocks[:depth]
        for block in vit.blocks:
            # for attention to another sequence, of which there is none
            block.norm_cross_attn = block.cross_attn = nn.Identity()

    @classmethod
    def build(cls, in_channels: int, classes: int, **settings: Any) -> Self:
        """Return the network with fresh weights; see `Network.build`."""
        return cls(in_channels, classes, **settings)

    def forward(self, images: Tensor) -> Tensor:
        """Segment windows.

        Parameters
        ----------
        images : Tensor
            ``(B, in_channels, H, W)``, standardised; 32 pixels a side or more.

        Returns
        -------
        Tensor
            ``(B, classes, H, W)``, logits.
        """
        filled = fill_up(images)
        tokens = self.embedding(filled)
        logits = self.decode(tokens, self.blocks, self.body.encoder1(filled))
        return logits[..., : images.shape[-2], : images.shape[-1]]

    @property
    def embedding(self) -> nn.Module:
        """What makes a token of each patch."""
        embedding: nn.Module = self.body.vit.patch_embedding.patch_embeddings
        return embedding

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks of the transformer."""
        blocks: nn.ModuleList = self.body.vit.blocks
        return blocks

    def decode(
        self, tokens: Tensor, blocks: Iterable[nn.Module], skip: Tensor
    ) -> Tensor:
        """Return the logits of embedded patches.

        Parameters
        ----------
        tokens : Tensor
            ``(B, hidden, h, w)``, patches as they were embedded, without their places.
        blocks : iterable of Module
            Those of the transformer, which may be adapted ones.
        skip : Tensor
            ``(B, FINE, 16 h, 16 w)``, the pixels at full resolution.

        Returns
        -------
        Tensor
            ``(B, classes, 16 h, 16 w)``.
        """
        rows, columns = tokens.shape[-2:]
        found = tokens.flatten(2).transpose(1, 2) + self._places(rows, columns)
        states = []
        for block in blocks:
            found = block(found)
            states.append(found)
        chosen = [states[part * len(states) // 4] for part in (1, 2, 3)]
        fine, middle, coarse, deepest = (
            state.transpose(1, 2).unflatten(2, (rows, columns)).contiguous()
            for state in (*chosen, self.body.vit.norm(found))
        )
        body = self.body
        found = body.decoder5(deepest, body.encoder4(coarse))
        found = body.decoder4(found, body.encoder3(middle))
        found = body.decoder3(found, body.encoder2(fine))
        logits: Tensor = body.out(body.decoder2(found, skip))
        return logits

    def _places(self, rows: int, columns: int) -> Tensor:
        """Return what is learned of places, ``(1, rows * columns, hidden)``."""
        places: Tensor = self.body.vit.patch_embedding.position_embeddings
        if (rows, columns) == (GRID, GRID):
            return places
        grid = places.transpose(1, 2).unflatten(2, (GRID, GRID))
        other = functional.interpolate(
            grid, size=(rows, columns), mode="bilinear", align_corners=False
        )
        return other.flatten(2).transpose(1, 2)


def fill_up(images: Tensor) -> Tensor:
    """Continue images by zeros, below and on the right, to whole patches.

    Parameters
    ----------
    images : Tensor
        ``(B, C, H, W)``.

    Returns
    -------
    Tensor
        ``(B, C, H', W')``, multiples of 16.
    """
    height, width = images.shape[-2:]
    return functional.pad(images, (0, -width % PATCH, 0, -height % PATCH))
