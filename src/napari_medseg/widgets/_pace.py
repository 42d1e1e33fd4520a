"""How long a run will still take, in words."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FEWEST = 2
"""Images that must be done before anything is said of the others."""

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


class Pace:
    """Tells from the images that are done how long the others will take.

    Parameters
    ----------
    clock : callable
        Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: int | None = None
        self._step = 0
        self._began = self._at = 0.0
        self._paused: float | None = None

    def take(self, step: int) -> None:
        """Note how many images are done by now."""
        if self._first is None:
            self._first = self._step = step
            self._began = self._at = self._clock()
        elif step != self._step:
            self._step, self._at = step, self._clock()

    def pause(self) -> None:
        """Note that nothing is done for a while."""
        self._paused = self._clock()

    def resume(self) -> None:
        """Note the end of a pause, which counts for nothing."""
        if self._paused is not None:
            length = self._clock() - self._paused
            self._began, self._at = self._began + length, self._at + length
            self._paused = None

    def left(self, total: int) -> float | None:
        """Return the seconds until all are done; None where it is too early to say."""
        done = self._step - (self._first or 0)
        if done < FEWEST:
            return None
        return (total - self._step) * (self._at - self._began) / done


def in_words(seconds: float) -> str:
    """Return a time as people say it.

    Parameters
    ----------
    seconds : float
        The time.

    Returns
    -------
    str
        Such as ``about 12 minutes``.
    """
    if seconds < MINUTE:
        return "less than a minute"
    if seconds < 1.5 * MINUTE:
        return "about a minute"
    if seconds < 1.5 * HOUR:
        return f"about {round(seconds / MINUTE)} minutes"
    if seconds < 1.5 * DAY:
        return f"about {round(seconds / HOUR)} hours"
    return f"about {round(seconds / DAY)} days"


def how_far(step: int, total: int | None, seconds: float | None) -> str:
    """Say how far a run is.

    Parameters
    ----------
    step : int
        Images that are done.
    total : int or None
        All images, where that is known.
    seconds : float or None
        What is left, where that can be said.

    Returns
    -------
    str
        Such as ``123 of 1,000, about 12 minutes left``.
    """
    if total is None:
        return f"{step:,} images so far"
    told = f"{step:,} of {total:,}"
    return told if seconds is None else f"{told}, {in_words(seconds)} left"
