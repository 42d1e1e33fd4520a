"""What the engine can be asked to do.

A job is a function of plain arguments and a `Context` that returns a generator of
`Progress`; its result is plain too (see `napari_medseg.engine.channel`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

JOBS: dict[str, tuple[str, str]] = {}
"""Module and function by name; the module is imported when the job begins."""


@dataclass
class Context:
    """What a job may ask of the engine.

    Attributes
    ----------
    kept : dict
        What jobs leave for later ones, as long as the engine lives.
    end_early : bool
        Whether the user wants what there is so far.
    """

    kept: dict[str, Any]
    end_early: bool = False
