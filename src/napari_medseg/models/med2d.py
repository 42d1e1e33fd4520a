"""Med-2D SegNet: an encoder and decoder of about two million parameters.

After Sabrin, Chowdhury, Tapu, Sarkar and Bin Ali, "Med-2D SegNet" (arXiv 2504.14715).
This is a reconstruction and no reproduction: no code was published, and the paper
gives the parts of a block (expansion by 6, depthwise 7 x 7, global average pooling,
1 x 1 reduction, a residual path) and the number of parameters (2.07 million), but
neither stages nor widths. What is chosen here:

- widths 32-64-96-124-124, two blocks a stage, which gives 2,073,177 parameters for
  three channels and one output;
- the pooled features gate the reduced ones. As a 1 x 1 convolution and the mean
  commute, the reduction of the pooled features is the mean of the reduced ones, so
  the gate has no parameters of its own;
- a decoder that doubles bilinearly, joins the encoder's features of that size, and
  has two dense 3 x 3 convolutions, which a processor does faster than depthwise ones;
- a first convolution with stride 2, without which nearly all time goes into the first
  stage; the logits are doubled at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_medseg.models.convolution import convolution
from napari_medseg.models.networks import Network

if TYPE_CHECKING:
    from typing import Self

WIDTHS = (32, 64, 96, 124, 124)
"""Channels of each stage; 124 is the one width that the paper's notation hints at."""

BLOCKS = 2
"""Blocks a stage."""

EXPANSION = 6
"""Channels inside a block, as a multiple of those that enter it."""

KERNEL = 7
"""Side of the depthwise kernels."""


class Med2dSegNet(Network):
    """Med-2D SegNet; its output has the resolution of its input.

    Parameters
    ----------
    in_channels : int
        Channels of the images.
    classes : int
        Outputs, background included.
    widths : tuple of int
        Channels of each stage.
    blocks : int
        Blocks a stage.
    """

    restyled: ClassVar[tuple[str, ...]] = ("stages.0", "stages.1")
    encoder: ClassVar[tuple[str, ...]] = ("stem", "stages")

    def __init__(
        self,
        in_channels: int,
        classes: int,
        widths: tuple[int, ...] = WIDTHS,
        blocks: int = BLOCKS,
    ) -> None:
        super().__init__()
        self.stem = convolution(in_channels, widths[0], stride=2)
        entries = (widths[0], *widths[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(
                MedBlock(entry, width),
                *(MedBlock(width, width) for _ in range(blocks - 1)),
            )
            for entry, width in zip(entries, widths, strict=True)
        )
        deeper = widths[:0:-1]
        self.joints = nn.ModuleList(
            nn.Sequential(convolution(below + width, width), convolution(width, width))
            for below, width in zip(deeper, widths[-2::-1], strict=True)
        )
        self.head = nn.Conv2d(widths[0], classes, 1)
        # where kernels and features lie so, processors take half the time
        self.to(memory_format=torch.channels_last)

    @classmethod
    def build(cls, in_channels: int, classes: int, **settings: Any) -> Self:
        """Return the network with fresh weights; see `Network.build`."""
        return cls(in_channels, classes)

    def features(self, images: Tensor) -> dict[int, Tensor]:
        """Return the features of each stage; see `Network.features`."""
        found = self.stem(images.contiguous(memory_format=torch.channels_last))
        kept: dict[int, Tensor] = {}
        for index, stage in enumerate(self.stages):
            if kept:
                found = functional.max_pool2d(found, 2)
            found = stage(found)
            kept[2 ** (index + 1)] = found
        return kept

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
        kept = list(self.features(images).values())
        found = kept.pop()
        for joint in self.joints:
            beside = kept.pop()
            found = joint(torch.cat([_enlarge(found, beside), beside], dim=1))
        return _enlarge(self.head(found), images)


class MedBlock(nn.Module):
    """Expansion, depthwise convolution, reduction, a gate, and a residual path.

    Parameters
    ----------
    entering, leaving : int
        Channels.
    """

    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__()
        inside = EXPANSION * entering
        self.expand = convolution(entering, inside, kernel=1)
        self.depthwise = DepthwiseConv(inside, KERNEL)
        self.norm = nn.BatchNorm2d(inside)
        self.reduce = nn.Sequential(
            nn.Conv2d(inside, leaving, 1, bias=False), nn.BatchNorm2d(leaving)
        )
        self.shortcut: nn.Module = (
            nn.Identity()
            if entering == leaving
            else nn.Conv2d(entering, leaving, 1, bias=False)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, entering, H, W)`` to ``(B, leaving, H, W)``."""
        inside = functional.relu(self.norm(self.depthwise(self.expand(features))))
        reduced = self.reduce(inside)
        gate = reduced.mean(dim=(2, 3), keepdim=True).sigmoid()
        result: Tensor = self.shortcut(features) + gate * reduced
        return result


class DepthwiseConv(nn.Module):
    """A convolution of each channel by itself, of the same size, without bias.

    Parameters
    ----------
    channels : int
        Channels.
    kernel : int
        Side of the kernels, odd.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel, kernel))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(B, channels, H, W)`` to the same shape."""
        if features.device.type == "cpu" and torch.is_grad_enabled():
            result: Tensor = _CpuDepthwise.apply(features, self.weight)
            return result
        return _depthwise(features, self.weight)


class _CpuDepthwise(torch.autograd.Function):
    """A depthwise convolution whose backward pass is quick on a processor.

    The library's gradient of depthwise kernels takes most of a training's time. Here
    the gradient of the input is a depthwise convolution by the mirrored kernel, and
    that of the kernel comes from products of rows: for a row offset, the matrix of
    all products of a column of the one with a column of the other, whose diagonals
    sum to the kernel's entries.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor) -> Tensor:
        """Convolve."""
        if torch.is_autocast_enabled("cpu"):
            features = features.to(torch.get_autocast_dtype("cpu"))
        ctx.save_for_backward(features, weight)
        return _depthwise(features, weight.to(features.dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of features and weight."""
        features, weight = ctx.saved_tensors
        gradient = gradients[0].to(features.dtype)
        before = kernel = None
        if ctx.needs_input_grad[0]:
            mirrored = weight.flip(2, 3).to(features.dtype)
            before = _depthwise(gradient, mirrored)
        if ctx.needs_input_grad[1]:
            kernel = _kernel_gradient(features, gradient, weight.shape[-1])
            kernel = kernel.to(weight.dtype)
        return before, kernel


def _kernel_gradient(features: Tensor, gradient: Tensor, side: int) -> Tensor:
    """Return the gradient ``(C, 1, side, side)`` of depthwise kernels."""
    batch, channels, height, width = features.shape
    margin = side // 2
    padded = functional.pad(features, (margin,) * 4).contiguous()
    rows = padded.reshape(batch * channels, height + 2 * margin, width + 2 * margin)
    across = gradient.contiguous().reshape(batch * channels, height, width).mT
    found = features.new_empty(batch * channels, side, side, dtype=torch.float32)
    for top in range(side):
        products = torch.bmm(across, rows[:, top : top + height])
        for left in range(side):
            diagonal = products.diagonal(left, 1, 2)
            found[:, top, left] = diagonal.sum(1, dtype=torch.float32)
    return found.view(batch, channels, 1, side, side).sum(0)


def _depthwise(features: Tensor, weight: Tensor) -> Tensor:
    margin = weight.shape[-1] // 2
    return functional.conv2d(features, weight, padding=margin, groups=len(weight))


def _enlarge(features: Tensor, like: Tensor) -> Tensor:
    """Bring features to the height and width of others, bilinearly."""
    shape = (like.shape[-2], like.shape[-1])
    return functional.interpolate(
        features, size=shape, mode="bilinear", align_corners=False
    )
