"""Jobs of the engine that overtake each other: clicks, sliders, slices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_medseg._types import MedsegError, Progress
    from napari_medseg.engine.client import Engine, Listener, Task


class Lane:
    """Jobs of which only the latest counts, such as the preview of a slider.

    A job that was overtaken ends at its next step and never by force, which would end
    the jobs of others along with it.

    Parameters
    ----------
    engine : Engine
        Where they run.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._generation = 0
        self._task: Task | None = None

    def submit(
        self,
        name: str,
        arguments: Mapping[str, Any],
        listener: Listener,
        *,
        urgent: bool = False,
    ) -> Task:
        """Drop the job before and start this one; see `Engine.submit`."""
        self.cancel()
        current = _Current(self, self._generation, listener)
        self._task = self._engine.submit(name, arguments, current, urgent=urgent)
        return self._task

    def cancel(self) -> None:
        """Forget the job under way: whatever it says is stale."""
        self._generation += 1
        if self._task is not None and self._task.running:
            self._task.drop()
        self._task = None

    def is_current(self, generation: int) -> bool:
        """Tell whether no later job was submitted."""
        return generation == self._generation


class _Current:
    """Passes on what a job says as long as it is the latest of its lane."""

    def __init__(self, lane: Lane, generation: int, listener: Listener) -> None:
        self._lane = lane
        self._generation = generation
        self._listener = listener

    @property
    def _stale(self) -> bool:
        return not self._lane.is_current(self._generation)

    def on_progress(self, progress: Progress) -> None:
        if not self._stale:
            self._listener.on_progress(progress)

    def on_done(self, result: Any) -> None:
        if not self._stale:
            self._listener.on_done(result)

    def on_failed(self, error: MedsegError) -> None:
        if not self._stale:
            self._listener.on_failed(error)

    def on_cancelled(self) -> None:
        if not self._stale:
            self._listener.on_cancelled()
