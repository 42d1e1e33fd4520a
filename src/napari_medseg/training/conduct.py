"""How a training is run, apart from what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_medseg._types import FloatArray


def never() -> bool:
    """Return False: what a training that nobody stops asks before each step."""
    return False


@dataclass(frozen=True)
class Conduct:
    """How a training is run, apart from what it gives.

    Attributes
    ----------
    date : str
        Date for the model's card.
    checkpoints : Path, optional
        Folder to resume from and to write checkpoints to.
    stop : callable
        Asked before each step; the best so far is kept when it says True.
    watch : ndarray, optional
        An image ``float32 (C, Y, X)`` that is segmented now and then while the
        training goes on, for a preview.
    judge : callable, optional
        Given the index of each image held out and what was made of it, class
        probabilities ``float32 (K, Y, X)``, when the training that did not see it has
        ended.
    """

    date: str = ""
    checkpoints: Path | None = None
    stop: Callable[[], bool] = never
    watch: FloatArray | None = None
    judge: Callable[[int, FloatArray], None] | None = None
