"""The block of which networks that are trained whole are made."""

from __future__ import annotations

from torch import nn


def convolution(
    entering: int, leaving: int, kernel: int = 3, stride: int = 1
) -> nn.Sequential:
    """Return a convolution with normalisation and activation.

    Parameters
    ----------
    entering, leaving : int
        Channels.
    kernel : int
        Side of the kernel, an odd number.
    stride : int
        Pixels of the input per pixel of the output.

    Returns
    -------
    Sequential
        Maps ``(B, entering, H, W)`` to ``(B, leaving, H / stride, W / stride)``.
    """
    margin = kernel // 2
    return nn.Sequential(
        nn.Conv2d(entering, leaving, kernel, stride, margin, bias=False),
        nn.BatchNorm2d(leaving),
        nn.ReLU(inplace=True),
    )
