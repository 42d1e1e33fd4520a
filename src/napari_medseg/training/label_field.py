"""Where a label is wrong, as a field of doubts whose neighbours resemble each other.

Tadokoro, Takagi and Maeda (arXiv 2504.14795) give each pixel of a training image a
latent logit of its label being wrong. Before training the field is Gaussian with one
mean and a covariance that falls off with distance along rows and columns, so that
wrong labels come in patches; afterwards it is Gaussian with a mean and a standard
deviation of its own in each pixel. The covariances are Kronecker products of
Kac-Murdock-Szegő matrices, ``R[i, j] = rho ** abs(i - j)``, whose inverses have three
diagonals: everything here takes time in proportion to the number of pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_medseg._config import check, setting

NODES = 7
"""Points of the quadrature; the error is below 1.5e-3 for deviations up to 2."""


@dataclass(frozen=True)
class FieldConfig:
    """The field before training, and how it is fitted; values of the paper."""

    correlation: float = setting(
        0.75,
        "How alike neighbours are, in what is expected and in what is found.",
        ge=0.0,
        le=0.99,
    )
    mean: float = setting(-2.0, "Expected logit of a label being wrong.")
    deviation: float = setting(1.3133, "Expected standard deviation of it.", ge=1e-3)
    first_mean: float = setting(-5.0, "Where the mean of each pixel begins.")
    first_deviation: float = setting(1.3133, "Where its deviation begins.", ge=1e-3)
    rate: float = setting(0.1, "Learning rate of Adam on the field.", ge=0.0)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class Field:
    """What is thought of the labels of one image.

    Attributes
    ----------
    mean : Tensor
        ``float32 (h, w)``, the mean logit of each label being wrong.
    raw : Tensor
        ``float32 (h, w)``; its softplus is the standard deviation.
    """

    mean: Tensor
    raw: Tensor

    @classmethod
    def begin(cls, shape: tuple[int, int], config: FieldConfig) -> Field:
        """Return the field of an image that nothing is known of."""
        raw = math.log(math.expm1(config.first_deviation))
        return cls(torch.full(shape, config.first_mean), torch.full(shape, raw))

    @property
    def deviation(self) -> Tensor:
        """The standard deviation, ``(h, w)``."""
        return functional.softplus(self.raw)

    def rate(self) -> Tensor:
        """Return the probability that each label is wrong, ``(h, w)``."""
        return expected_rate(self.mean, self.deviation)


def expected_rate(mean: Tensor, deviation: Tensor) -> Tensor:
    """Return the expectation of the sigmoid of a Gaussian, by Gauss-Hermite.

    Parameters
    ----------
    mean, deviation : Tensor
        Of one shape.

    Returns
    -------
    Tensor
        Of the same shape, in (0, 1).
    """
    places, weights = _nodes(mean)
    return (weights * torch.sigmoid(mean + places * deviation)).sum(dim=0)


def _nodes(like: Tensor) -> tuple[Tensor, Tensor]:
    """Return places, in deviations, and weights of the quadrature, ``(NODES, 1…)``."""
    places, weights = np.polynomial.hermite.hermgauss(NODES)
    shape = (NODES, *[1] * like.ndim)
    return (
        torch.as_tensor(math.sqrt(2.0) * places).to(like).view(shape),
        torch.as_tensor(weights / math.sqrt(math.pi)).to(like).view(shape),
    )


def kl_divergence(mean: Tensor, deviation: Tensor, config: FieldConfig) -> Tensor:
    """Return how far a field is from what was expected, KL(q || p).

    ``q`` has the covariance ``D (R ⊗ R) D`` with the deviations on the diagonal of
    ``D``, ``p`` has ``s² (R ⊗ R)``; ``R`` is of one correlation in both.

    Parameters
    ----------
    mean, deviation : Tensor
        ``(h, w)``. The deviation is a standard deviation in every term.
    config : FieldConfig
        What was expected.

    Returns
    -------
    Tensor
        A scalar, summed over the pixels.
    """
    rho, scale = config.correlation, config.deviation
    off = mean - config.mean
    quadratic = (off * _stencils(off, rho, 1.0)).sum() / scale**2
    # the trace of a product of these matrices: its stencil has the inverse's middle
    # and, beside it, that times what R has there
    trace = (deviation * _stencils(deviation, rho, rho)).sum() / scale**2
    # the determinants of R are the same in both and cancel
    ratio = 2.0 * (math.log(scale) * mean.numel() - deviation.log().sum())
    return 0.5 * (quadratic + trace - mean.numel() + ratio)


def _stencils(values: Tensor, rho: float, beside: float) -> Tensor:
    """Apply the inverse of R along both axes, its neighbours times ``beside``."""
    along = _stencil(values, rho, beside)
    return _stencil(along.transpose(0, 1), rho, beside).transpose(0, 1)


def _stencil(values: Tensor, rho: float, beside: float) -> Tensor:
    """Apply the inverse of R along the rows of ``(h, w)``: three taps."""
    length = values.shape[0]
    if length == 1:
        return values
    middle = torch.full((length, 1), 1.0 + rho**2, dtype=values.dtype)
    middle[0] = middle[-1] = 1.0
    around = functional.pad(values[:-1], (0, 0, 1, 0)) + functional.pad(
        values[1:], (0, 0, 0, 1)
    )
    whole = middle.to(values.device) * values - rho * beside * around
    return whole / (1.0 - rho**2)


def gradients(
    mean: Tensor, deviation: Tensor, support: Tensor, config: FieldConfig
) -> tuple[Tensor, Tensor]:
    """Return the derivatives of ``sum(support * rate) + KL``.

    They are written out because recording them takes several times as long.

    Parameters
    ----------
    mean, deviation, support : Tensor
        ``(h, w)``; see `refine`.
    config : FieldConfig
        What was expected.

    Returns
    -------
    by_mean, by_deviation : Tensor
        ``(h, w)``.
    """
    rho, precision = config.correlation, config.deviation**-2
    places, weights = _nodes(mean)
    wrong = torch.sigmoid(mean + places * deviation)
    slopes = weights * wrong * (1.0 - wrong)
    by_mean = support * slopes.sum(dim=0)
    by_mean = by_mean + precision * _stencils(mean - config.mean, rho, 1.0)
    by_deviation = support * (places * slopes).sum(dim=0) - 1.0 / deviation
    return by_mean, by_deviation + precision * _stencils(deviation, rho, rho)


def refine(field: Field, support: Tensor, steps: int, config: FieldConfig) -> Field:
    """Bring a field nearer to what a network says of the labels; an E-step.

    Adam minimises ``sum(support * rate) + KL``: the loss of the paper with the network
    held still, less what does not depend on the field. It begins anew at each call.

    Parameters
    ----------
    field : Field
        The field so far.
    support : Tensor
        ``float32 (h, w)``: the log-probability of the given label less that of the
        others on average, where the network sees it; 0 where there is no label.
    steps : int
        Steps of Adam.
    config : FieldConfig
        What was expected, and the learning rate.

    Returns
    -------
    Field
        A new one.
    """
    mean, raw = field.mean.clone(), field.raw.clone()
    optimiser = torch.optim.Adam([mean, raw], lr=config.rate)
    for _ in range(steps):
        # not divided by the number of pixels: Adam does not mind the scale, but its
        # epsilon would in large images
        by_mean, by_deviation = gradients(
            mean, functional.softplus(raw), support, config
        )
        mean.grad, raw.grad = by_mean, by_deviation * torch.sigmoid(raw)
        optimiser.step()
    return Field(mean, raw)
