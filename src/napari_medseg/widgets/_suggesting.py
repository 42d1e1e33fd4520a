"""Asking SAM for the object that clicks, boxes or drawn shapes mean."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_medseg.engine import Lane
from napari_medseg.widgets._jobs import Relay
from napari_medseg.widgets._layers import Plane, image_of
from napari_medseg.widgets._preferences import preferences

if TYPE_CHECKING:
    from napari.layers import Image
    from numpy.typing import NDArray

    from napari_medseg.engine import Engine


@dataclass(frozen=True, slots=True)
class Question:
    """What was clicked and drawn so far.

    Attributes
    ----------
    points : tuple of tuple of float
        Row and column of each click.
    adds : tuple of bool
        Whether each adds.
    box : tuple of float, optional
        Top, left, bottom, right.
    mask : ndarray, optional
        ``bool (Y, X)``: a label or a shape that covers the object.
    """

    points: tuple[tuple[float, float], ...] = ()
    adds: tuple[bool, ...] = ()
    box: tuple[float, float, float, float] | None = None
    mask: NDArray[Any] | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing was clicked or drawn."""
        return not self.points and self.box is None and self.mask is None


@dataclass(frozen=True, slots=True, eq=False)
class Suggestion:
    """What SAM takes for the object.

    Attributes
    ----------
    plane : Plane
        The slice.
    rows, columns : slice
        The part of the slice that the masks cover.
    masks : ndarray
        ``bool (M, h, w)``, the likeliest first.
    question : Question
        What SAM was asked: a mask has become a click and a box.
    sam : str
        The SAM that was asked.
    """

    plane: Plane
    rows: slice
    columns: slice
    masks: NDArray[Any]
    question: Question
    sam: str


class Suggester(QObject):
    """Has SAM look at slices, and answer questions on the slice in view.

    Parameters
    ----------
    engine : Engine
        Where it is computed.
    parent : QObject, optional
        The parent.

    Attributes
    ----------
    ready : Signal
        SAM has looked at the slice: clicks are answered at once.
    suggested : Signal
        With a `Suggestion`.
    told : Signal
        With a sentence for the user.
    """

    ready = Signal()
    suggested = Signal(object)
    told = Signal(str)

    def __init__(self, engine: Engine, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._engine = engine
        self._looking = Lane(engine)
        self._asking = Lane(engine)
        self._around = Lane(engine)
        self._layer: Image | None = None
        self._plane: Plane | None = None
        self._sam = ""
        self._process: int | None = None
        self._is_ready = self._has_failed = False
        self.question = Question()
        self._past: list[Question] = []

    def look(self, layer: Image, plane: Plane, sam: str) -> None:
        """Turn to a slice; questions on the one before are forgotten."""
        self.clear()
        self._around.cancel()
        self._layer, self._plane, self._sam = layer, plane, sam
        self._is_ready = self._has_failed = False
        relay = Relay(self)
        relay.progress.connect(lambda progress: self.told.emit(progress.message))
        relay.done.connect(self._on_looked)
        relay.failed.connect(self._on_look_failed)
        relay.ended.connect(relay.deleteLater)
        arguments = {
            "key": self._key,
            "image": image_of(layer, plane),
            "rgb": bool(layer.rgb),
            "sam": sam,
            "device": preferences().device,
        }
        self._looking.submit("look", arguments, relay, urgent=True)

    @property
    def _key(self) -> str:
        # not id(): that of a layer that is gone may come again
        name = self._layer.unique_id if self._layer is not None else ""
        return f"{name} {self._plane} {self._sam}"

    def _on_looked(self) -> None:
        self._is_ready, self._process = True, self._engine.pid
        self.ready.emit()
        self._look_around()
        if not self.question.empty:
            self._send()

    def _on_look_failed(self, error: Exception) -> None:
        self._has_failed = True
        self.told.emit(str(error))

    def _look_again(self) -> None:
        """Look once more, for the question that is open."""
        if self._layer is None or self._plane is None:
            return
        question, past = self.question, self._past
        self.look(self._layer, self._plane, self._sam)
        self.question, self._past = question, past

    def _look_around(self) -> None:
        """Have SAM prepare for clicks, as long as nothing else is to be done."""
        relay = Relay(self)
        relay.ended.connect(relay.deleteLater)
        self._around.submit("look_around", {"key": self._key}, relay)

    def click(self, place: tuple[float, float], *, adds: bool) -> None:
        """Add a click: on the object, or on what does not belong to it."""
        before = self.question
        start = replace(before, mask=None)
        points, whether = (*start.points, place), (*start.adds, adds)
        self._put(replace(start, points=points, adds=whether))

    def ask(self, question: Question) -> None:
        """Ask for the object of a box, a drawn shape or a label."""
        self._put(question)

    def take_back(self) -> None:
        """Undo the last click, box or shape."""
        if self._past:
            self.question = self._past.pop()
            self._send()

    def clear(self) -> None:
        """Forget what was clicked."""
        self._asking.cancel()
        self.question, self._past = Question(), []

    def _put(self, question: Question) -> None:
        self._past.append(self.question)
        self.question = question
        self._send()

    def _send(self) -> None:
        """Ask the engine; where SAM could not look, or not there, it looks first."""
        if self._layer is None or self._plane is None:
            return
        if self.question.empty:
            self._asking.cancel()
            self.suggested.emit(None)
            return
        if self._has_failed or (self._is_ready and self._engine.pid != self._process):
            self._look_again()
            return
        if not self._is_ready:
            return  # asked when SAM has looked
        plane, sam = self._plane, self._sam
        relay = Relay(self)
        question = self.question

        def show(answer: dict[str, Any]) -> None:
            # it may have been on its way when the question was forgotten
            if question is self.question:
                self._on_answered(plane, sam, answer)

        relay.done.connect(show)
        relay.failed.connect(lambda error: self.told.emit(str(error)))
        relay.ended.connect(relay.deleteLater)
        arguments = {
            "key": self._key,
            "points": [list(point) for point in question.points],
            "adds": list(question.adds),
            "box": None if question.box is None else list(question.box),
            "mask": question.mask,
        }
        self._asking.submit("prompt", arguments, relay, urgent=True)

    def _on_answered(self, plane: Plane, sam: str, answer: dict[str, Any]) -> None:
        top, left, bottom, right = answer["region"]
        points, box = [tuple(place) for place in answer["points"]], answer["box"]
        asked = Question(
            tuple(points), tuple(answer["adds"]), None if box is None else tuple(box)
        )
        masks = answer["masks"]
        found = Suggestion(
            plane, slice(top, bottom), slice(left, right), masks, asked, sam
        )
        self.suggested.emit(found)
