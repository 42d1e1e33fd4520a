"""The line from reverse scores to real ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from napari_medseg.quality.line import NOTHING, fit_line


def points(count=20, noise=0.05, seed=0):
    """Return reverse and real scores around a known line."""
    rng = np.random.default_rng(seed)
    reverse = rng.uniform(0.2, 0.9, count)
    return reverse, 0.8 * reverse + 0.1 + noise * rng.standard_normal(count)


def test_slope_and_intercept_are_those_of_numpy():
    reverse, real = points()
    line = fit_line(reverse, real)
    assert (line.slope, line.intercept) == pytest.approx(np.polyfit(reverse, real, 1))


def test_the_interval_is_that_of_a_new_point_in_ordinary_least_squares():
    reverse, real = points()
    line = fit_line(reverse, real)
    design = np.stack([reverse, np.ones_like(reverse)], 1)
    _, squares, *_ = np.linalg.lstsq(design, real, rcond=None)
    variance = squares[0] / (len(real) - 2)
    at = np.array([0.5, 1.0])
    spread = variance * (1 + at @ np.linalg.inv(design.T @ design) @ at)
    quantile = 1.734064  # of Student's t with 18 degrees of freedom, at 0.95
    value, low, high = line.predict(0.5, 0.9)
    assert high - value == pytest.approx(quantile * math.sqrt(spread), rel=1e-5)
    assert value - low == pytest.approx(high - value)


def test_the_interval_holds_the_share_of_true_values_that_it_says():
    inside = []
    for seed in range(100):
        line = fit_line(*points(12, seed=seed))
        for x, truth in zip(*points(20, seed=1000 + seed), strict=True):
            if line.covers(x):
                _, low, high = line.predict(x, 0.8)
                inside.append(low <= truth <= high)
    assert 0.77 < np.mean(inside) < 0.83


def test_it_does_not_extrapolate():
    reverse, real = np.linspace(0.4, 0.6, 10), np.linspace(0.3, 0.8, 10)
    line = fit_line(reverse, real)
    assert line.predict(0.615, 0.9).value == pytest.approx(0.8375)
    assert line.predict(0.385, 0.9).value == pytest.approx(0.2625)
    for beyond in (0.63, 0.37, math.nan):
        assert line.predict(beyond, 0.9) == NOTHING


def test_values_stay_between_0_and_the_most():
    reverse = np.linspace(0.0, 1.0, 20)
    line = fit_line(reverse, np.clip(1.4 * reverse - 0.2, 0, 1))
    assert line.predict(1.05, 0.9).value == 1.0
    assert line.predict(0.0, 0.9).low == 0.0
    distances = fit_line(reverse, 100 * reverse, most=math.inf)
    assert distances.predict(1.0, 0.9).value == pytest.approx(100)


@pytest.mark.parametrize(
    ("reverse", "real"),
    [
        (np.linspace(0, 1, 7), np.linspace(0, 1, 7)),  # too few
        (np.full(10, 0.5), np.linspace(0, 1, 10)),  # no spread
        (np.linspace(0, 1, 10), np.linspace(1, 0, 10)),  # falls
        (np.linspace(0, 1, 10), np.tile([0.2, 0.8], 5)),  # chance
        (np.linspace(0, 1, 10), np.full(10, np.nan)),
    ],
)
def test_no_line_where_the_points_do_not_give_one(reverse, real):
    assert fit_line(reverse, real) is None


def test_points_that_are_not_known_are_left_out():
    reverse, real = points()
    more = np.append(reverse, [0.5, np.nan]), np.append(real, [np.nan, 0.5])
    assert fit_line(*more) == fit_line(reverse, real)
