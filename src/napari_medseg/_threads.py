"""How the threads of a computation wait for one another."""

from __future__ import annotations

import os

SPINS = "5000"
"""Turns that a thread waits awake, some tens of microseconds, before it sleeps."""


def share_processors() -> None:
    """Let threads that wait sleep soon, so that other programs can go on.

    By default threads of GNU OpenMP, which PyTorch uses on Linux, wait awake for
    milliseconds. Where another program computes too, a thread then waits for one that
    does not get its turn, and all of both go ten times slower. This must be said before
    PyTorch is imported, in a process of our own; what the user has said stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
