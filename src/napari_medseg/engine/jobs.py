"""What the engine can be asked to do.

A job is a function of plain arguments and a `Context` that returns a generator of
`Progress`; its result is plain too (see `napari_medseg.engine.channel`). What the
arguments are is told where the function stands.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

JOBS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "look": ("napari_medseg.engine.prompting", "look"),
        "look_around": ("napari_medseg.engine.prompting", "look_around"),
        "prompt": ("napari_medseg.engine.prompting", "prompt"),
        "check": ("napari_medseg.engine.training", "check"),
        "train": ("napari_medseg.engine.training", "train"),
        "compare": ("napari_medseg.engine.comparing", "compare"),
        "segment": ("napari_medseg.engine.segmenting", "segment"),
        "segment_stored": ("napari_medseg.engine.large_layers", "segment_stored"),
        "relabel": ("napari_medseg.engine.segmenting", "relabel"),
        "measure": ("napari_medseg.engine.measuring", "measure"),
        "export": ("napari_medseg.engine.exporting", "export"),
        "batch": ("napari_medseg.engine.batching", "batch"),
        "estimate": ("napari_medseg.engine.estimating", "estimate"),
        "forget": ("napari_medseg.engine.segmenting", "forget"),
    }
)
"""Module and function by name; the module is imported when the job begins."""


@dataclass
class Shelf:
    """Things that later jobs may need; those unused for longest are dropped.

    Attributes
    ----------
    limits : mapping
        How many of each kind are kept.
    room : int
        Bytes that the things of one kind may take, as far as `put` is told; the
        latest is always kept.
    """

    limits: Mapping[str, int] = field(
        default_factory=lambda: {
            "SAM": 2,
            "image": 6,
            "segmenter": 3,
            "prediction": 1000,
            "partition": 1000,
        }
    )
    room: int = 1 << 30
    _kept: dict[str, OrderedDict[str, Any]] = field(default_factory=dict)
    _sizes: dict[tuple[str, str], int] = field(default_factory=dict)

    def put(self, kind: str, key: str, thing: Any, size: int = 0) -> None:
        """Keep a thing of so many bytes."""
        kept = self._kept.setdefault(kind, OrderedDict())
        kept[key] = thing
        kept.move_to_end(key)
        self._sizes[kind, key] = size
        while len(kept) > self.limits.get(kind, 1) or (
            len(kept) > 1 and self._taken(kind) > self.room
        ):
            self.drop(kind, next(iter(kept)))

    def _taken(self, kind: str) -> int:
        return sum(self._sizes[kind, key] for key in self._kept[kind])

    def get(self, kind: str, key: str) -> Any:
        """Return a thing, or None where it was never put or is dropped."""
        kept = self._kept.get(kind, OrderedDict())
        if key in kept:
            kept.move_to_end(key)
        return kept.get(key)

    def made(self, kind: str, key: str, make: Callable[[], Any]) -> Any:
        """Return a thing, made now where it is not there."""
        thing = self.get(kind, key)
        if thing is None:
            thing = make()
            self.put(kind, key, thing)
        return thing

    def drop(self, kind: str, key: str) -> None:
        """Forget a thing, if it is there."""
        self._kept.get(kind, OrderedDict()).pop(key, None)
        self._sizes.pop((kind, key), None)


@dataclass
class Context:
    """What a job may ask of the engine.

    Attributes
    ----------
    shelf : Shelf
        What jobs leave for later ones, as long as the engine lives.
    end_early : bool
        Whether the user wants what there is so far.
    paused : bool
        Whether the user wants the job to wait; no step of it is done meanwhile.
    rest : float
        Seconds after a step in which the job has nothing to do; set with each step.
    """

    shelf: Shelf = field(default_factory=Shelf)
    end_early: bool = False
    paused: bool = False
    rest: float = 0.0
