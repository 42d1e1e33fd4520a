"""Segmenting planes of layers one after another, without a window of its own."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_medseg._types import Progress
from napari_medseg.engine import Lane
from napari_medseg.widgets._jobs import Relay
from napari_medseg.widgets._large import NOT_AGAIN, is_large, read_levels, spool
from napari_medseg.widgets._layers import Plane, as_image, part_of
from napari_medseg.widgets._reading import Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari.layers import Image

    from napari_medseg._types import FloatArray, LabelArray, MedsegError
    from napari_medseg.engine import Engine, Task
    from napari_medseg.widgets._large import LargeLabels


@dataclass(frozen=True, slots=True)
class Part:
    """What is segmented in one go.

    Attributes
    ----------
    layer : Image
        The images.
    plane : Plane
        Part of them.
    """

    layer: Image
    plane: Plane

    @property
    def key(self) -> str:
        """The name that the engine keeps the probabilities by."""
        # not id(): that of a layer that is gone may come again
        return f"{self.layer.unique_id} {self.plane}"


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be segmented, and how.

    Attributes
    ----------
    parts : tuple of Part
        What; the parts of a layer follow one another.
    model : str
        As `napari_medseg.inference.open_segmenter` takes it.
    how : mapping
        ``objects``, ``classes`` and ``phrase`` as the engine's job ``segment`` takes
        them.
    device : str
        Where to compute.
    title : str
        Name of the segmenter.
    mirrored : bool
        Whether each image is seen mirrored in four ways.
    """

    parts: tuple[Part, ...]
    model: str
    how: Mapping[str, Any]
    device: str = "auto"
    title: str = ""
    mirrored: bool = False

    @property
    def layers(self) -> list[Image]:
        """The layers, in their order."""
        found: list[Image] = []
        for part in self.parts:
            if not any(part.layer is layer for layer in found):
                found.append(part.layer)
        return found


@dataclass(frozen=True, slots=True)
class Labelled:
    """What the engine made of a part.

    Attributes
    ----------
    labels : ndarray or None
        ``int32 (Y, X)``; None of a large part.
    kinds : list of int
        Of objects the class of each, from the first on; 0 where it is not known.
    classes : list of dict or None
        Name and colour of each class; None where only a slider was moved.
    large : LargeLabels or None
        Of a large part: its labels, on the disk.
    segments : ndarray or None
        Of a phrase: ``int32 (Y, X)``, all segments, chosen or not.
    """

    labels: LabelArray | None
    kinds: list[int]
    classes: list[dict[str, str]] | None
    large: LargeLabels | None = None
    segments: LabelArray | None = None


@dataclass
class _State:
    """How far an order is."""

    order: Order
    place: int = 0
    ended: bool = False
    done: list[Part] = field(default_factory=list)
    failed: list[tuple[Image, str]] = field(default_factory=list)


class SegmentRun(QObject):
    """Has the engine segment the parts of an order, and relabels them.

    A layer that fails does not stop the others: its other parts are left out, and it
    is named in the end.

    Parameters
    ----------
    engine : Engine
        Where it is computed.
    parent : QObject, optional
        The parent.

    Attributes
    ----------
    progressed : Signal
        With a `Progress` over all parts.
    labelled : Signal
        With a part, and what was `Labelled`.
    noted : Signal
        With a sentence that the user should know.
    ended : Signal
        With a sentence: empty when all went well.
    """

    progressed = Signal(object)
    labelled = Signal(object, object)
    noted = Signal(str)
    ended = Signal(str)

    def __init__(self, engine: Engine, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._engine = engine
        self._lane = Lane(engine)
        self._reading = Reading(self)
        self._task: Task | None = None
        self._state: _State | None = None
        self._generation = 0  # of the labels: older ones are not taken

    @property
    def running(self) -> bool:
        """Whether an order is under way."""
        return self._state is not None and not self._state.ended

    @property
    def order(self) -> Order | None:
        """The latest order."""
        return self._state.order if self._state else None

    def start(self, order: Order) -> None:
        """Begin an order; one at a time."""
        if self.running:
            raise RuntimeError("an order is under way")
        self._lane.cancel()
        self._generation += 1
        self._state = _State(order)
        self._next(self._state)

    def cancel(self) -> None:
        """End the order; what is labelled stays."""
        if self._task is not None:
            self._task.cancel()
        elif self.running:
            self._end("Cancelled.")

    def relabel(self, how: Mapping[str, Any]) -> None:
        """Make other labels of the probabilities that are there."""
        if self._state is not None and not self.running:
            self._generation += 1
            parts = [part for part in self._state.done if not is_large(part.plane)]
            self._relabel(self._state.order, parts, how)
            if len(parts) < len(self._state.done):
                self.noted.emit(NOT_AGAIN)

    def _next(self, state: _State) -> None:
        """Read the next part, and have it segmented; end where there is none."""
        if state.place == len(state.order.parts):
            self._end(_summary(state))
            return
        part = state.order.parts[state.place]

        def ask(image: FloatArray | Path) -> None:
            if not state.ended:
                self._ask(state, part, image)
            elif isinstance(image, Path):
                shutil.rmtree(image, ignore_errors=True)

        def leave_out(error: Exception) -> None:
            if not state.ended:
                self._leave_out(state, f"{part.layer.name} cannot be read: {error}")

        self._read(part, ask, leave_out)

    def _read(
        self,
        part: Part,
        then: Callable[[Any], None],
        otherwise: Callable[[Exception], None],
    ) -> None:
        array, name, rgb = (
            part_of(part.layer, part.plane),
            part.layer.name,
            bool(part.layer.rgb),
        )
        read = spool if is_large(part.plane) else as_image
        self._reading.read([array], lambda: read(array, name, rgb=rgb), then, otherwise)

    def _ask(self, state: _State, part: Part, image: FloatArray | Path) -> None:
        relay = self._relay()
        relay.progress.connect(self._on_progress)
        relay.done.connect(self._on_done)
        relay.failed.connect(self._on_failed)
        relay.cancelled.connect(lambda: self._end("Cancelled."))
        if isinstance(image, Path):
            self._ask_stored(state.order, image, relay)
            return
        arguments = _question(state.order, part, image, state.order.how)
        self._task = self._engine.submit("segment", arguments, relay)

    def _ask_stored(self, order: Order, folder: Path, relay: Relay) -> None:
        """Have an image segmented that lies on the disk."""

        def clear(*_: object) -> None:
            shutil.rmtree(folder, ignore_errors=True)

        relay.failed.connect(clear)
        relay.cancelled.connect(clear)
        arguments = {
            "folder": str(folder),
            "model": order.model,
            "device": order.device,
            "mirrored": order.mirrored,
            **order.how,
        }
        self._task = self._engine.submit("segment_stored", arguments, relay)

    def _relay(self) -> Relay:
        relay = Relay(self)
        relay.ended.connect(relay.deleteLater)
        return relay

    def _leave_out(self, state: _State, reason: str) -> None:
        """Note that a layer failed, and go on with the next one."""
        parts, layer = state.order.parts, state.order.parts[state.place].layer
        state.failed.append((layer, reason))
        while state.place < len(parts) and parts[state.place].layer is layer:
            state.place += 1
        self._next(state)

    def _on_progress(self, progress: Progress) -> None:
        if self._state is None:
            return
        total, place = len(self._state.order.parts), self._state.place
        told = progress.message
        if total > 1:
            told = f"{told} ({place + 1} of {total})"
        self.progressed.emit(Progress(place, total, told))

    def _on_done(self, result: dict[str, Any]) -> None:
        state = self._state
        if state is None:
            return
        self._task = None
        part = state.order.parts[state.place]
        state.done.append(part)
        state.place += 1
        self.labelled.emit(part, _made(result))
        if result["note"]:
            self.noted.emit(result["note"])
        self._next(state)

    def _on_failed(self, error: MedsegError) -> None:
        self._task = None
        if self._state is not None:
            self._leave_out(self._state, str(error))

    def _end(self, told: str) -> None:
        self._task = None
        if self._state is not None:
            self._state.ended = True
        self.ended.emit(told)

    def _relabel(self, order: Order, parts: list[Part], how: Mapping[str, Any]) -> None:
        """Relabel the first part, then the others; a newer request ends this one."""
        if not parts:
            return
        part, rest = parts[0], parts[1:]
        generation = self._generation

        def take(result: dict[str, Any]) -> None:
            if generation != self._generation:
                return
            self.labelled.emit(part, _made(result | {"classes": None}))
            self._relabel(order, rest, how)

        def again(error: MedsegError) -> None:
            """Segment anew: the engine keeps as many probabilities as fit."""
            self.noted.emit("Segmenting again: its probabilities are not kept.")
            self._read(part, ask, lambda error: self.noted.emit(str(error)))

        def ask(image: FloatArray) -> None:
            relay = self._relay()
            relay.done.connect(take)
            relay.failed.connect(lambda error: self.noted.emit(str(error)))
            # not in the lane: a slider that moves on would throw away what is half done
            self._engine.submit("segment", _question(order, part, image, how), relay)

        relay = self._relay()
        relay.done.connect(take)
        relay.failed.connect(again)
        arguments = {"key": part.key, **how}
        self._lane.submit("relabel", arguments, relay, urgent=True)


def _question(
    order: Order, part: Part, image: FloatArray, how: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the engine's job ``segment`` takes."""
    return {
        "key": part.key,
        "image": image,
        "model": order.model,
        "device": order.device,
        "mirrored": order.mirrored,
        **how,
    }


def _made(result: dict[str, Any]) -> Labelled:
    """Return what the engine made of a part."""
    large = read_levels(result["levels"]) if "levels" in result else None
    labels, segments = result.get("labels"), result.get("segments")
    return Labelled(labels, result["kinds"], result["classes"], large, segments)


def _summary(state: _State) -> str:
    """Say in a sentence which layers failed; nothing where none did."""
    if not state.failed:
        return ""
    reasons = [
        reason if layer.name in reason else f"{layer.name}: {reason}"
        for layer, reason in state.failed
    ]
    total = len(state.order.layers)
    if total == 1:
        return state.failed[0][1]
    return f"{len(reasons)} of {total} layers failed. {' '.join(reasons)}"
