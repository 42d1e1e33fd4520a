"""Measuring a labels layer, into its own table of features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_medseg._types import MedsegError
from napari_medseg.engine import Lane
from napari_medseg.layer_data.label_stack import CLASSES, LabelStack, label_stack
from napari_medseg.layer_data.tables import described, physical_size, put_together
from napari_medseg.widgets._jobs import Relay
from napari_medseg.widgets._layers import (
    as_image,
    part_of,
    plane_shape,
    stack_shape,
    whole,
)
from napari_medseg.widgets._reading import Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from napari.layers import Image, Labels

    from napari_medseg.engine import Engine


class Measurer(QObject):
    """Measures the objects of a labels layer, or its classes, slice by slice.

    Parameters
    ----------
    engine : Engine
        Where it is computed.
    parent : QObject, optional
        The parent.

    Attributes
    ----------
    ended : Signal
        With a sentence: how many objects, or what went wrong.
    """

    ended = Signal(str)

    def __init__(self, engine: Engine, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._lane = Lane(engine)
        self._reading = Reading(self)
        self._generation = 0  # of measurements: older ones are forgotten
        self._labels: Labels | None = None
        self._image: Image | None = None
        self._stack: LabelStack | None = None  # the labels as plain data
        self._left: list[tuple[int, ...]] = []
        self._tables: list[pd.DataFrame] = []

    def start(self, labels: Labels, image: Image | None) -> None:
        """Begin; a measurement under way is forgotten.

        Parameters
        ----------
        labels : Labels
            The objects; the table of its features is replaced in the end.
        image : Image, optional
            For the intensities; of the same shape.
        """
        wanted = tuple(labels.data.shape)
        if image is not None and (*stack_shape(image), *plane_shape(image)) != wanted:
            self.ended.emit(
                f"{image.name} and {labels.name} are not of one shape, so intensities "
                "cannot be measured; choose the image that was segmented, or none."
            )
            return
        try:
            stack = label_stack(*labels.as_layer_data_tuple()[:2])
        except MedsegError as error:
            self.ended.emit(str(error))
            return
        self._labels, self._image, self._stack = labels, image, stack
        self._tables = []
        self._generation += 1
        self._lane.cancel()
        data = stack.labels
        self._read([data], lambda: _full_slices(data), self._begin)

    def _read(
        self,
        arrays: Sequence[Any],
        function: Callable[[], Any],
        then: Callable[[Any], None],
    ) -> None:
        """Read for this measurement; a later one drops the result."""
        generation = self._generation

        def take(result: Any) -> None:
            if generation == self._generation:
                then(result)

        def refuse(error: Exception) -> None:
            if generation == self._generation and self._labels is not None:
                self.ended.emit(f"{self._labels.name} cannot be measured: {error}")

        self._reading.read(arrays, function, take, refuse)

    def _begin(self, indices: list[tuple[int, ...]]) -> None:
        self._left = indices
        self._next()

    def _next(self) -> None:
        stack, image = self._stack, self._image
        if stack is None:
            return
        if not self._left:
            self._finish(stack)
            return
        index = self._left.pop(0)
        plane = stack.labels[index]
        if image is None:
            self._read(
                [plane],
                lambda: (np.array(plane, np.int32), None),
                lambda pair: self._ask(index, *pair),
            )
            return
        # axes of length 1 in front are left out of the labels
        depth = len(stack_shape(image)) - len(index)
        part = part_of(image, whole(image, (0,) * depth + index))
        name, rgb = image.name, bool(image.rgb)
        self._read(
            [plane, part],
            lambda: (np.array(plane, np.int32), as_image(part, name, rgb=rgb)),
            lambda pair: self._ask(index, *pair),
        )

    def _ask(self, index: tuple[int, ...], plane: Any, image: Any) -> None:
        stack = self._stack
        if stack is None:
            return
        scale, unit = physical_size(stack)
        relay = Relay(self)
        relay.done.connect(lambda columns: self._on_done(index, columns))
        relay.failed.connect(lambda error: self.ended.emit(str(error)))
        relay.ended.connect(relay.deleteLater)
        arguments = {
            "labels": plane,
            "image": image,
            "scale": scale,
            "unit": unit,
            "classes": len(stack.classes) if stack.meaning == CLASSES else None,
        }
        self._lane.submit("measure", arguments, relay)

    def _on_done(self, index: tuple[int, ...], columns: dict[str, list[Any]]) -> None:
        if self._stack is not None:
            import pandas as pd  # long to import, and a form is opened more often

            place = dict(zip(self._stack.axes, index, strict=False))
            self._tables.append(described(pd.DataFrame(columns), self._stack, place))
        self._next()

    def _finish(self, stack: LabelStack) -> None:
        """Show the table, and say of how many objects or classes it is."""
        table = put_together(self._tables)
        count = 0
        if len(table):
            # by this column napari finds the row of the label under the mouse
            table.insert(0, "index", table.pop("label"))
            there = table[(table["index"] > 0) & (table["area_px"] > 0)]
            count = there["index"].nunique()
        are_classes = stack.meaning == CLASSES
        if self._labels is not None and (len(table) or not are_classes):
            self._labels.features = table
        one, several = ("class", "classes") if are_classes else ("object", "objects")
        many = f"1 {one}" if count == 1 else f"{count} {several}"
        self.ended.emit(f"Measured {many}; see the layer's features table.")


def _full_slices(data: Any) -> list[tuple[int, ...]]:
    """Return the indices of the slices with labels; any thread may call."""
    indices = np.ndindex(*data.shape[:-2])
    return [index for index in indices if np.any(np.asarray(data[index]))]
