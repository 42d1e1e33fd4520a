"""The labels layers that a run fills, one for each image layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject, QTimer, Signal

from napari_medseg._labels import number_on
from napari_medseg.widgets._layers import (
    class_colours,
    empty_labels,
    flat_placement,
    is_there,
    placement,
)
from napari_medseg.widgets._measuring import Measurer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import napari
    from napari.layers import Image, Labels

    from napari_medseg._types import LabelArray
    from napari_medseg.engine import Engine
    from napari_medseg.widgets._large import LargeLabels
    from napari_medseg.widgets._segmenting import Labelled, Order, Part

MEASURE_DELAY = 400
"""Milliseconds that labels rest before they are measured."""


class Result:
    """The labels of one image layer.

    Parameters
    ----------
    image : Image
        The image layer.
    classes : sequence of mapping
        Name and colour of each class.
    """

    def __init__(self, image: Image, classes: Sequence[Mapping[str, str]]) -> None:
        self.image = image
        self.classes = classes
        self.labels: Labels | None = None
        self.is_drawn = False
        self._top = 0
        self._kinds: dict[int, int] = {}

    def begin(self, labels: Labels) -> None:
        """Go on with a layer, until somebody draws on it."""
        self.labels, self.is_drawn = labels, False

        def note(event: Any = None) -> None:
            if self.labels is labels:
                self.is_drawn = True

        for emitter in (labels.events.paint, labels.events.data):
            emitter.connect(note)

    def numbered(
        self, labels: LabelArray, kinds: Sequence[int], *, first: bool
    ) -> LabelArray:
        """Return objects with numbers that no slice before has: one row each."""
        if first:
            self._top, self._kinds = 0, {}
        numbered = number_on(labels, self._top)
        self._kinds |= dict(enumerate(kinds, self._top + 1))
        if self.labels is not None:
            self.labels.metadata["kinds"] = self._kinds
        self._top = max(self._top, int(numbered.max(initial=0)))
        return numbered


class ResultLayers(QObject):
    """Puts labels into layers over their images, and has them measured.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    engine : callable
        Returns the engine that measures.
    parent : QObject, optional
        The parent.

    Attributes
    ----------
    told : Signal
        With a sentence on the measurements.
    """

    told = Signal(str)

    def __init__(
        self,
        viewer: napari.Viewer,
        engine: Callable[[], Engine],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._engine = engine
        self._order: Order | None = None
        self._kind = "classes"
        self._results: list[Result] = []
        self._large: list[Labels] = []  # on the disk
        self._waiting: list[Result] = []
        self._measurer: Measurer | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(MEASURE_DELAY)
        self._timer.timeout.connect(self.measure)

    @property
    def layers(self) -> list[Labels]:
        """The labels layers that are still in the viewer."""
        found = [each.labels for each in self._there() if each.labels is not None]
        return found + [each for each in self._large if is_there(each, self._viewer)]

    def _there(self) -> list[Result]:
        return [
            result
            for result in self._results
            if result.labels is not None and is_there(result.labels, self._viewer)
        ]

    def begin(self, order: Order, kind: str) -> None:
        """Take results of a new order; ``kind`` is ``classes`` or ``objects``."""
        self._timer.stop()
        self._order, self._kind = order, kind
        self._results, self._large, self._waiting = [], [], []

    def change(self, kind: str) -> bool:
        """Put what comes next into new layers: labels that mean something else.

        Parameters
        ----------
        kind : str
            ``classes`` or ``objects``.

        Returns
        -------
        bool
            Whether there are results to be made so.
        """
        self._kind = kind
        self._waiting = []
        for result in self._results:
            result.labels = None
        return bool(self._results)

    def take(self, part: Part, made: Labelled) -> None:
        """Put labels into the layer of their image, made where there is none.

        Those that come of a slider bring no layer back that somebody deleted.
        """
        order = self._order
        if order is None or not is_there(part.layer, self._viewer):
            if made.large is not None:
                made.large.remove()
            return
        if made.large is not None:
            self._add_large(order, part, made, made.large)
        if made.labels is None:
            return
        result = self._result(part.layer, made.classes)
        gone = result.labels is not None and not is_there(result.labels, self._viewer)
        if gone and made.classes is None:
            return
        # what was corrected by hand stays: a slider makes another layer beside it
        drawn = result.is_drawn and made.classes is None
        if result.labels is None or gone or drawn:
            result.begin(self._add(order, result))
        labels = made.labels
        if result.labels is None:
            return
        if self._kind == "objects":
            first = next(each for each in order.parts if each.layer is part.layer)
            labels = result.numbered(labels, made.kinds, first=part == first)
        part.plane.of(result.labels.data)[...] = labels
        result.labels.refresh()
        if made.classes is None:
            self.measure_soon()

    def _result(
        self, image: Image, classes: Sequence[Mapping[str, str]] | None
    ) -> Result:
        for result in self._results:
            if result.image is image:
                return result
        self._results.append(Result(image, classes or ()))
        return self._results[-1]

    def _add(self, order: Order, result: Result) -> Labels:
        """Add a labels layer over an image layer."""
        image = result.image
        options = self._options(order, image, result.classes) | placement(image)
        labels: Labels = self._viewer.add_labels(empty_labels(image), **options)
        return labels

    def _add_large(
        self, order: Order, part: Part, made: Labelled, large: LargeLabels
    ) -> None:
        """Add a labels layer of one slice, which stays on the disk."""
        options = self._options(order, part.layer, made.classes or ())
        options |= flat_placement(part.layer)
        if part.plane.index:
            options["name"] += f" {list(part.plane.index)}"
        options["metadata"]["kinds"] = dict(enumerate(made.kinds, 1))
        several = len(large.levels) > 1
        layer: Labels = self._viewer.add_labels(
            large.levels if several else large.levels[0],
            multiscale=several,
            **options,
        )
        layer.editable = False
        large.remove_with(layer)
        self._large.append(layer)

    def _options(
        self, order: Order, image: Image, classes: Sequence[Mapping[str, str]]
    ) -> dict[str, Any]:
        """Return name, colours and notes of a labels layer."""
        names = [str(item["name"]) for item in classes]
        words = " (objects)" if self._kind == "objects" else ""
        path = image.source.path
        options: dict[str, Any] = {
            "name": f"{image.name}: {order.title}{words}",
            "metadata": {
                "classes": names,
                "colours": [str(item["colour"]) for item in classes],
                "model": order.model,
                "result": self._kind,
                "source": Path(path).name if path else "",
            },
        }
        if self._kind == "classes":
            colours = class_colours(classes)
            options["colormap"] = DirectLabelColormap(color_dict=colours)
            options["features"] = {"index": range(len(names)), "class": names}
        return options

    def measure_soon(self) -> None:
        """Measure the layers once their labels have come to rest."""
        self._timer.start()

    def measure(self) -> None:
        """Fill the features tables, one layer after another."""
        self._waiting = self._there()
        self._measure_next()

    def _measure_next(self) -> None:
        waiting = [item for item in self._waiting if item in self._there()]
        waiting = [item for item in waiting if is_there(item.image, self._viewer)]
        if not waiting:
            self._waiting = []
            return
        result, self._waiting = waiting[0], waiting[1:]
        if self._measurer is None:
            self._measurer = Measurer(self._engine(), self)
            self._measurer.ended.connect(self._on_measured)
        if result.labels is not None:
            self._measurer.start(result.labels, result.image)

    def _on_measured(self, told: str) -> None:
        self.told.emit(told)
        self._measure_next()
