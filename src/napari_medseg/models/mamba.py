"""VM-UNet: a U-shaped network of state space models that scan an image four ways.

After Ruan and Xiang, "VM-UNet" (arXiv 2402.02491), whose blocks are those of VMamba
(Liu et al., NeurIPS 2024), with the style augmentation of Mamba-Sea (IEEE TMI 2025,
arXiv 2504.17515) inside each scan. With a width of 96 and three channels it has the
27.43 million parameters of the paper; the usual width here is a quarter of that, which
a processor can train. Weights are drawn anew: those of ImageNet are not used.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_medseg.models.networks import Network
from napari_medseg.models.selective_scan import selective_scan
from napari_medseg.models.style import SequenceStyle

if TYPE_CHECKING:
    from typing import Self

PATCH = 4
"""Side of the patches that become a token, in pixels."""

DEPTHS = (2, 2, 2, 2)
"""Blocks of each stage of the encoder."""

DECODER_DEPTHS = (2, 2, 2, 1)
"""Blocks of each stage of the decoder, from the deepest on."""

STATE = 16
"""Numbers of a state for each channel."""

LONGEST_DROP = 0.2
"""Share of the training steps in which the deepest block is passed by."""


class VmUnet(Network):
    """VM-UNet; its output has the resolution of its input.

    Parameters
    ----------
    in_channels : int
        Channels of the images.
    classes : int
        Outputs, background included.
    width : int
        Channels of the first stage; each later one has twice as many.
    style : float
        Share of a sequence that is restyled in training; 0 for none.
    """

    settings: ClassVar[tuple[str, ...]] = ("width", "style")
    encoder: ClassVar[tuple[str, ...]] = ("embed", "norm", "down", "merges")

    def __init__(
        self, in_channels: int, classes: int, width: int = 24, style: float = 0.75
    ) -> None:
        super().__init__()
        widths = [width << stage for stage in range(len(DEPTHS))]
        drops = np.linspace(0.0, LONGEST_DROP, sum(DEPTHS)).tolist()
        self.embed = nn.Conv2d(in_channels, width, PATCH, stride=PATCH)
        self.norm = nn.LayerNorm(width)
        self.down = nn.ModuleList(
            _stage(each, depth, [drops.pop(0) for _ in range(depth)], style)
            for each, depth in zip(widths, DEPTHS, strict=True)
        )
        self.merges = nn.ModuleList(PatchMerging(each) for each in widths[:-1])
        drops = np.linspace(LONGEST_DROP, 0.0, sum(DECODER_DEPTHS)).tolist()
        self.up = nn.ModuleList(
            _stage(each, depth, [drops.pop(0) for _ in range(depth)], style)
            for each, depth in zip(widths[::-1], DECODER_DEPTHS, strict=True)
        )
        self.expands = nn.ModuleList(PatchExpanding(each) for each in widths[:0:-1])
        self.enlarge = nn.Linear(width, PATCH * PATCH * (width // PATCH), bias=False)
        self.last = nn.LayerNorm(width // PATCH)
        self.head = nn.Conv2d(width // PATCH, classes, 1)

    @classmethod
    def build(cls, in_channels: int, classes: int, **settings: Any) -> Self:
        """Return the network with fresh weights; see `Network.build`."""
        return cls(in_channels, classes, **settings)

    def features(self, images: Tensor) -> dict[int, Tensor]:
        """Return what leaves each stage; see `Network.features`."""
        _, left = self._encoded(images)
        return {
            PATCH << index: tokens.permute(0, 3, 1, 2)
            for index, tokens in enumerate(left)
        }

    def _encoded(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the tokens ``(B, h, w, C)`` that enter and leave each stage."""
        tokens = self.norm(self.embed(images).permute(0, 2, 3, 1))
        entered: list[Tensor] = []
        left: list[Tensor] = []
        for index, stage in enumerate(self.down):
            entered.append(tokens)
            left.append(stage(tokens))
            if index < len(self.merges):
                tokens = self.merges[index](left[-1])
        return entered, left

    def forward(self, images: Tensor) -> Tensor:
        """Segment windows.

        Parameters
        ----------
        images : Tensor
            ``(B, in_channels, H, W)``, standardised.

        Returns
        -------
        Tensor
            ``(B, classes, H, W)``, logits.
        """
        height, width = images.shape[-2:]
        multiple = PATCH << (len(DEPTHS) - 1)
        margin = (0, -width % multiple, 0, -height % multiple)
        padded = functional.pad(images, margin, mode="replicate")
        # as VM-UNet has it: what enters a stage goes to the decoder
        kept, left = self._encoded(padded)
        tokens = left[-1]
        for index, stage in enumerate(self.up):
            if index:
                tokens = self.expands[index - 1](tokens) + kept[-1 - index]
            tokens = stage(tokens)
        fine = self.last(_shuffled(self.enlarge(tokens), PATCH))
        logits: Tensor = self.head(fine.permute(0, 3, 1, 2))
        return logits[..., :height, :width]


class VssBlock(nn.Module):
    """A scan four ways, with a residual path that is at times all there is.

    Parameters
    ----------
    channels : int
        Channels.
    drop : float
        How often the scan is passed by in training (stochastic depth).
    style : float
        As of `VmUnet`.
    """

    def __init__(self, channels: int, drop: float, style: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.scan = FourWayScan(channels, style)
        self.drop = drop

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to the same shape."""
        found: Tensor = self.scan(self.norm(tokens))
        if self.training and self.drop:
            kept = torch.rand(len(tokens), 1, 1, 1) >= self.drop
            found = found * kept.to(found) / (1.0 - self.drop)
        return tokens + found


class FourWayScan(nn.Module):
    """Selective scans along rows and columns, in both directions, summed (SS2D).

    Parameters
    ----------
    channels : int
        Channels; twice as many inside.
    style : float
        As of `VmUnet`.
    """

    def __init__(self, channels: int, style: float) -> None:
        super().__init__()
        inside, self.rank = 2 * channels, math.ceil(channels / 16)
        self.enter = nn.Linear(channels, 2 * inside, bias=False)
        self.near = nn.Conv2d(inside, inside, 3, padding=1, groups=inside)
        ways = 4
        self.select = nn.Parameter(torch.empty(ways, self.rank + 2 * STATE, inside))
        self.widen = nn.Parameter(torch.empty(ways, inside, self.rank))
        self.step_bias = nn.Parameter(torch.empty(ways, inside))
        exponents = torch.arange(1.0, STATE + 1).log()
        self.decay_log = nn.Parameter(exponents.expand(ways, inside, STATE).clone())
        self.skip = nn.Parameter(torch.ones(ways, inside))
        self.style = SequenceStyle(style)
        self.norm = nn.LayerNorm(inside)
        self.leave = nn.Linear(inside, channels, bias=False)
        self._draw()

    def _draw(self) -> None:
        """Draw first weights; step widths lie between 0.001 and 0.1 (Mamba)."""
        nn.init.kaiming_uniform_(self.select, a=math.sqrt(5.0))
        nn.init.uniform_(self.widen, -(self.rank**-0.5), self.rank**-0.5)
        low, high = math.log(1e-3), math.log(1e-1)
        steps = (torch.rand_like(self.step_bias) * (high - low) + low).exp()
        with torch.no_grad():
            # the inverse of softplus
            self.step_bias.copy_(steps + torch.log(-torch.expm1(-steps)))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to the same shape."""
        height, width = tokens.shape[1:3]
        content, gate = self.enter(tokens).chunk(2, dim=-1)
        content = functional.silu(self.near(content.permute(0, 3, 1, 2)))
        rows = content.flatten(2)
        columns = content.transpose(2, 3).flatten(2)
        total = torch.zeros_like(rows, dtype=torch.float32)
        for way, sequence in enumerate((rows, columns, rows, columns)):
            backwards = way >= 2
            ordered = sequence.flip(2) if backwards else sequence
            found = self._along(way, ordered)
            found = found.flip(2) if backwards else found
            if way % 2:
                found = found.unflatten(2, (width, height)).transpose(2, 3).flatten(2)
            total = total + found
        merged = self.norm(total.unflatten(2, (height, width)).permute(0, 2, 3, 1))
        result: Tensor = self.leave(merged * functional.silu(gate))
        return result

    def _along(self, way: int, sequence: Tensor) -> Tensor:
        """Scan sequences ``(B, D, L)`` in the order that they have."""
        chosen = self.select[way] @ sequence
        rank, entry, exit_ = chosen.split((self.rank, STATE, STATE), dim=1)
        widths = self.widen[way] @ rank
        steps = functional.softplus(widths.float() + self.step_bias[way, :, None])
        decay = -self.decay_log[way].float().exp()
        found = selective_scan(sequence, steps, decay, entry, exit_)
        styled: Tensor = self.style(found + self.skip[way, :, None] * sequence)
        return styled


class PatchMerging(nn.Module):
    """Four neighbours become one token of twice the channels.

    Parameters
    ----------
    channels : int
        Channels that enter.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduce = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H / 2, W / 2, 2C)``; H and W are even."""
        batch, height, width, channels = tokens.shape
        squares = tokens.view(batch, height // 2, 2, width // 2, 2, channels)
        together = squares.permute(0, 1, 3, 2, 4, 5).flatten(3)
        result: Tensor = self.reduce(self.norm(together))
        return result


class PatchExpanding(nn.Module):
    """One token becomes four neighbours of half the channels.

    Parameters
    ----------
    channels : int
        Channels that enter.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Linear(channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(channels // 2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, 2H, 2W, C / 2)``."""
        result: Tensor = self.norm(_shuffled(self.expand(tokens), 2))
        return result


def _shuffled(tokens: Tensor, factor: int) -> Tensor:
    """Spread channels ``(B, H, W, f * f * C)`` over ``(B, f * H, f * W, C)``."""
    batch, height, width, _ = tokens.shape
    apart = tokens.view(batch, height, width, factor, factor, -1)
    return apart.permute(0, 1, 3, 2, 4, 5).reshape(
        batch, factor * height, factor * width, -1
    )


def _stage(
    channels: int, depth: int, drops: list[float], style: float
) -> nn.Sequential:
    """Return blocks one after another."""
    return nn.Sequential(
        *(VssBlock(channels, drops[index], style) for index in range(depth))
    )
