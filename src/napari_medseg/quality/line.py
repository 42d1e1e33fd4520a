"""A straight line from reverse scores to real ones, and how sure it is.

The line of the Segmentation Performance Evaluator (arXiv 2504.15667): real scores of
masks of different quality against their reverse scores, by least squares. The
interval is that of a new observation in ordinary least squares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from collections.abc import Sequence

FEWEST_POINTS = 8
"""A line is fitted through no fewer points."""

MARGIN = 0.1
"""So far beyond the fitted reverse scores the line is used, as a share of them."""

CHANCE = 0.05
"""A rise that chance alone gives more often than this is no rise."""


class Predicted(NamedTuple):
    """A predicted score.

    Attributes
    ----------
    value : float
        The score; ``nan`` where it is not predicted.
    low, high : float
        Where the true value is expected.
    """

    value: float
    low: float
    high: float


NOTHING = Predicted(math.nan, math.nan, math.nan)
"""No prediction."""


@dataclass(frozen=True)
class Line:
    """A fitted line, ``real = slope * reverse + intercept``.

    Attributes
    ----------
    slope, intercept : float
        Of the line.
    points : int
        Points it was fitted to.
    low, high : float
        Smallest and largest reverse score among them.
    mean, spread : float
        Mean of the reverse scores, and the sum of squares around it.
    residual : float
        Standard deviation of the real scores around the line, n - 2 in place of n.
    most : float
        Largest value of the score; the smallest is 0.
    """

    slope: float
    intercept: float
    points: int
    low: float
    high: float
    mean: float
    spread: float
    residual: float
    most: float

    def covers(self, reverse: float) -> bool:
        """Tell whether a reverse score is among the fitted ones, or hardly beyond."""
        room = MARGIN * (self.high - self.low)
        return self.low - room <= reverse <= self.high + room

    def predict(self, reverse: float, confidence: float) -> Predicted:
        """Predict the real score.

        Parameters
        ----------
        reverse : float
            The reverse score.
        confidence : float
            Share of the true values that the interval shall hold.

        Returns
        -------
        Predicted
            `NOTHING` beyond the fitted reverse scores.
        """
        if math.isnan(reverse) or not self.covers(reverse):
            return NOTHING
        value = self.slope * reverse + self.intercept
        quantile = float(stats.t.ppf((1 + confidence) / 2, self.points - 2))
        far = (reverse - self.mean) ** 2 / self.spread
        half = quantile * self.residual * math.sqrt(1 + 1 / self.points + far)
        return Predicted(
            *(self._clip(each) for each in (value, value - half, value + half))
        )

    def at(self, reverse: float) -> float:
        """Return the line at a reverse score, or at the end that is nearer to it.

        It is for putting results in order: beyond the ends nothing is predicted.
        """
        inside = min(max(reverse, self.low), self.high)
        return self._clip(self.slope * inside + self.intercept)

    def _clip(self, value: float) -> float:
        return min(max(value, 0.0), self.most)


def fit_line(
    reverse: Sequence[float], real: Sequence[float], most: float = 1.0
) -> Line | None:
    """Fit the line.

    Parameters
    ----------
    reverse, real : sequence of float
        Scores of the same masks; where one is not finite, the point is left out.
    most : float
        Largest value of the score.

    Returns
    -------
    Line or None
        None with fewer than `FEWEST_POINTS` points, or where the real scores do not
        rise with the reverse ones.
    """
    x, y = np.asarray(reverse, float), np.asarray(real, float)
    kept = np.isfinite(x) & np.isfinite(y)
    x, y = x[kept], y[kept]
    if len(x) < FEWEST_POINTS or np.ptp(x) <= 0:
        return None
    fitted = stats.linregress(x, y, alternative="greater")
    if not fitted.pvalue < CHANCE:
        return None
    rest = y - fitted.slope * x - fitted.intercept
    return Line(
        float(fitted.slope),
        float(fitted.intercept),
        len(x),
        float(x.min()),
        float(x.max()),
        float(x.mean()),
        float(((x - x.mean()) ** 2).sum()),
        math.sqrt(float((rest**2).sum()) / (len(x) - 2)),
        most,
    )
