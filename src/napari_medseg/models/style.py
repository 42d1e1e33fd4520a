"""Other styles in training, so that a network does not learn those of one microscope.

From Mamba-Sea (IEEE TMI 2025, arXiv 2504.17515): `SequenceStyle` changes the style of
features along a run of a sequence (local sequence-wise style augmentation), and
`AppearanceVariation` the appearance of whole images. Both act on batches alone.
`Shades` sends grey values through random curves (Zhou et al., "Models Genesis",
MICCAI 2019), of which some fall, as objects that are dark in one microscope are bright
in another. All act in training mode: in use nothing is random.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SHARE = 0.75
"""Length of the run that is restyled, as a share of the sequence."""

APPLIED = 0.9
"""How often anything is changed at all."""

CURVES = 0.8
"""How often shades follow a random curve, where they do."""

FALLING = 0.5
"""How many of the curves of shades fall: bright becomes dark."""

STEPS = 128
"""Pieces of a straight line that stand for a curve."""

EPSILON = 1e-6
"""Added to variances before their root is taken."""


class SequenceStyle(nn.Module):
    """Restyles a run of each sequence by what the batch shows of other styles.

    With ``mu`` and ``sigma``, mean and standard deviation of a channel along a
    sequence, and ``S`` their standard deviation over the batch, a channel becomes
    ``(sigma + e1 S_sigma) (y - mu) / sigma + mu + e2 S_mu`` inside the run, with e1
    and e2 standard normal. (The paper's text; the code published with it restyled
    whole sequences, which is ``share=1``.)

    Parameters
    ----------
    share : float
        Length of the run, as a share of the sequence; 0 changes nothing.
    applied : float
        How often anything is changed.
    """

    def __init__(self, share: float = SHARE, applied: float = APPLIED) -> None:
        super().__init__()
        self.share = share
        self.applied = applied

    def forward(self, features: Tensor) -> Tensor:
        """Restyle features ``(B, C, L)`` in training mode; else they are returned."""
        batch, _, length = features.shape
        if not self.training or batch < 2 or self.share == 0.0:
            return features
        if torch.rand(()) >= self.applied:
            return features
        run = max(1, int(self.share * length))
        starts = torch.randint(0, length - run + 1, (batch, 1, 1))
        places = torch.arange(length)
        inside = ((places >= starts) & (places < starts + run)).to(features.device)
        noise = torch.randn(2, *features.shape[:2], 1).to(features)
        return torch.where(inside, restyled(features, *noise), features)


def restyled(features: Tensor, for_mean: Tensor, for_spread: Tensor) -> Tensor:
    """Give sequences other means and spreads, as far as those of the batch differ.

    Parameters
    ----------
    features : Tensor
        ``(B, C, L)``.
    for_mean, for_spread : Tensor
        ``(B, C, 1)``, how many standard deviations of the batch.

    Returns
    -------
    Tensor
        ``(B, C, L)``.
    """
    mean = features.mean(dim=2, keepdim=True)
    spread = (features.var(dim=2, keepdim=True, correction=0) + EPSILON).sqrt()
    means = (mean.var(dim=0, keepdim=True) + EPSILON).sqrt()
    spreads = (spread.var(dim=0, keepdim=True) + EPSILON).sqrt()
    wanted = spread + for_spread * spreads
    return wanted * (features - mean) / spread + mean + for_mean * means


class FeatureStyle(SequenceStyle):
    """Restyles maps of features ``(B, C, H, W)`` in the order of their rows.

    The same for any network: put it behind a stage, or before a decoder.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Restyle ``(B, C, H, W)`` in training mode; else they are returned."""
        return super().forward(features.flatten(2)).view_as(features)


class AppearanceVariation(nn.Module):
    """Changes the dark part of images by a small network that is trained along.

    A convolution, three times one and the same residual block, and another
    convolution give an image that is added and brought to [0, 1]; it replaces the
    pixels of brightness below a threshold (global appearance variation).

    Parameters
    ----------
    channels : int
        Channels of the images.
    below : float
        Brightness below which pixels are changed, of images in [0, 1].
    applied : float
        How often an image is changed.
    """

    def __init__(self, channels: int, below: float = 0.4, applied: float = 0.8) -> None:
        super().__init__()
        self.below = below
        self.applied = applied
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.shared = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        self.last = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Change images ``(B, C, H, W)`` in [0, 1], in training mode."""
        if not self.training or len(images) < 2:
            return images
        found = self.first(images).relu()
        for _ in range(3):
            found = found + self.shared(found)
        varied = images + self.last(found).sigmoid()
        low = varied.amin(dim=(1, 2, 3), keepdim=True)
        high = varied.amax(dim=(1, 2, 3), keepdim=True)
        varied = ((varied - low) / (high - low).clamp(min=EPSILON)).clamp(1e-4, 1.0)
        dark = images.mean(dim=1, keepdim=True) < self.below
        chosen = torch.rand(len(images), 1, 1, 1).to(images) < self.applied
        return torch.where(dark & chosen, varied, images)


class Shades(nn.Module):
    """Sends the shades of images through random curves, one an image.

    Parameters
    ----------
    applied : float
        How often an image is changed.
    falling : float
        How many of the curves fall.
    """

    def __init__(self, applied: float = 1.0, falling: float = FALLING) -> None:
        super().__init__()
        self.applied = applied
        self.falling = falling

    def forward(self, images: Tensor) -> Tensor:
        """Change images ``(B, C, H, W)`` in [0, 1], in training mode."""
        if not self.training:
            return images
        count = len(images)
        falls = torch.rand(count, 1, 1, 1) < self.falling
        chosen = torch.rand(count, 1, 1, 1) < self.applied
        turned = torch.where(falls.to(images.device), 1 - images, images)
        varied = along_curves(turned, torch.rand(count, 2, 2).to(images))
        return torch.where(chosen.to(images.device), varied, images)


def along_curves(values: Tensor, controls: Tensor) -> Tensor:
    """Send values through rising Bézier curves from (0, 0) to (1, 1).

    Parameters
    ----------
    values : Tensor
        ``float (B, ...)`` in [0, 1].
    controls : Tensor
        ``float (B, 2, 2)`` in [0, 1]: of each curve two control points, x and y. Their
        coordinates are put in order, so that a curve rises.

    Returns
    -------
    Tensor
        As ``values``.
    """
    first, second = controls.sort(dim=1).values.unbind(dim=1)
    at = torch.linspace(0, 1, STEPS + 1).to(values)[:, None]
    rest = 1 - at
    # (B, STEPS + 1, 2)
    points = (
        3 * rest**2 * at * first[:, None] + 3 * rest * at**2 * second[:, None] + at**3
    )
    across, up = (each.contiguous() for each in points.unbind(dim=2))
    flat = values.flatten(1).contiguous()
    right = torch.searchsorted(across, flat).clamp(1, STEPS)
    low, high = across.gather(1, right - 1), across.gather(1, right)
    share = ((flat - low) / (high - low).clamp(min=EPSILON)).clamp(0, 1)
    found = torch.lerp(up.gather(1, right - 1), up.gather(1, right), share)
    return found.view_as(values)
