"""Segmenting planes of a layer one after another, without a window of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_medseg._types import MedsegError, Progress
from napari_medseg.engine import Lane
from napari_medseg.widgets._jobs import Relay
from napari_medseg.widgets._layers import Plane, image_of

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_medseg.engine import Engine, Task


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be segmented, and how.

    Attributes
    ----------
    layer : Image
        The images.
    planes : tuple of Plane
        Which parts of them.
    model : str
        As `napari_medseg.inference.open_segmenter` takes it.
    objects : dict or None
        Settings of objects; None gives classes.
    device : str
        Where to compute.
    """

    layer: Image
    planes: tuple[Plane, ...]
    model: str
    objects: dict[str, Any] | None
    device: str = "auto"

    def key(self, plane: Plane) -> str:
        """Return the name that the engine keeps a plane's probabilities by."""
        return f"{id(self.layer)} {plane}"


class SegmentRun(QObject):
    """Has the engine segment the planes of an order, and relabels them.

    Parameters
    ----------
    engine : Engine
        Where it is computed.
    parent : QObject, optional
        The parent.

    Attributes
    ----------
    progressed : Signal
        With a `Progress` over all planes.
    labelled : Signal
        With a plane, its labels, and the classes (None when relabelled).
    noted : Signal
        With a sentence that the user should know.
    ended : Signal
        With a sentence: empty when all went well.
    """

    progressed = Signal(object)
    labelled = Signal(object, object, object)
    noted = Signal(str)
    ended = Signal(str)

    def __init__(self, engine: Engine, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._engine = engine
        self._lane = Lane(engine)
        self._task: Task | None = None
        self._order: Order | None = None
        self._done: list[Plane] = []

    @property
    def running(self) -> bool:
        """Whether an order is under way."""
        return self._task is not None

    @property
    def order(self) -> Order | None:
        """The latest order."""
        return self._order

    def start(self, order: Order) -> None:
        """Begin an order; one at a time."""
        if self.running:
            raise RuntimeError("an order is under way")
        self._order, self._done = order, []
        self._next()

    def cancel(self) -> None:
        """End the order; what is labelled stays."""
        if self._task is not None:
            self._task.cancel()

    def relabel(self, objects: dict[str, Any] | None) -> None:
        """Make other labels of the probabilities that are there."""
        if self._order is not None and not self.running:
            self._relabel(list(self._done), objects)

    def _next(self) -> None:
        order = self._order
        if order is None:
            return
        place = len(self._done)
        if place == len(order.planes):
            self._end("")
            return
        plane = order.planes[place]
        try:
            image = image_of(order.layer, plane)
        except (MedsegError, OSError, ValueError, IndexError) as error:
            self._end(f"{order.layer.name} cannot be read: {error}")
            return
        relay = Relay(self)
        relay.progress.connect(self._on_progress)
        relay.done.connect(self._on_done)
        relay.failed.connect(lambda error: self._end(str(error)))
        relay.cancelled.connect(lambda: self._end("Cancelled."))
        relay.ended.connect(relay.deleteLater)
        arguments = {
            "key": order.key(plane),
            "image": image,
            "model": order.model,
            "device": order.device,
            "objects": order.objects,
        }
        self._task = self._engine.submit("segment", arguments, relay)

    def _on_progress(self, progress: Progress) -> None:
        if self._order is None:
            return
        total, place = len(self._order.planes), len(self._done)
        told = progress.message
        if total > 1:
            told = f"{told} ({place + 1} of {total})"
        self.progressed.emit(Progress(place, total, told))

    def _on_done(self, result: dict[str, Any]) -> None:
        if self._order is None:
            return
        plane = self._order.planes[len(self._done)]
        self._done.append(plane)
        self.labelled.emit(plane, result["labels"], result["classes"])
        if result["note"]:
            self.noted.emit(result["note"])
        self._next()

    def _end(self, told: str) -> None:
        self._task = None
        self.ended.emit(told)

    def _relabel(self, planes: list[Plane], objects: dict[str, Any] | None) -> None:
        """Relabel the first plane, then the others; a newer request ends this one."""
        if not planes or self._order is None:
            return
        plane, rest = planes[0], planes[1:]
        relay = Relay(self)

        def take(labels: Any) -> None:
            self.labelled.emit(plane, labels, None)
            self._relabel(rest, objects)

        relay.done.connect(take)
        relay.failed.connect(lambda error: self.noted.emit(str(error)))
        relay.ended.connect(relay.deleteLater)
        arguments = {"key": self._order.key(plane), "objects": objects}
        self._lane.submit("relabel", arguments, relay, urgent=True)
