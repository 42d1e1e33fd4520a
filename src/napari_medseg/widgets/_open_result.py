"""Results of a run as layers: an image, and its labels over it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject, Signal

from napari_medseg.widgets._background import Background
from napari_medseg.widgets._file_layers import add_image_layers, add_labels_layer
from napari_medseg.widgets._layers import (
    class_colours,
    is_there,
    plane_shape,
    stack_shape,
)
from napari_medseg.widgets._result_files import ResultFiles, read_result

if TYPE_CHECKING:
    from pathlib import Path

    import napari
    from napari.layers import Image, Layer

OTHER_SIZE = "Its labels are of another size: the image was changed since."
KEPT = "{} was drawn on, so it stays."


class OpenResult(QObject):
    """Shows one image of a run at a time, in place of the one before.

    Labels that were drawn on meanwhile are not taken away.

    Parameters
    ----------
    viewer : napari.Viewer
        Gets the layers.
    parent : QObject, optional
        The parent.

    Attributes
    ----------
    told : Signal
        With a sentence for the user.
    """

    told = Signal(str)

    def __init__(self, viewer: napari.Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._asked: tuple[Path, str] | None = None
        self._layers: list[Layer] = []
        self._is_drawn = False
        self._files = Background("medseg-result", drop=True, parent=self)

    def open(self, out: Path, name: str) -> None:
        """Open an image and its labels soon; of several requests, the last counts.

        Parameters
        ----------
        out : Path
            Output folder of the run.
        name : str
            Name of the image in the ledger.
        """
        asked = self._asked = out, name
        self.told.emit(f"Opening {name}…")

        def read() -> ResultFiles | None:
            # the user may have chosen another one by now
            return read_result(out, name) if self._asked == asked else None

        self._files.submit(
            read,
            partial(self._on_read, asked),
            lambda error: self.told.emit(str(error)),
        )

    def _on_read(self, asked: tuple[Path, str], found: ResultFiles | None) -> None:
        if found is None or asked != self._asked:
            return
        told = [self._remove(), found.told]
        try:
            told.append(self._add(found))
        except (ValueError, TypeError) as error:
            told.append(f"{found.source} cannot be shown: {error}.")
        if self._layers:
            self._viewer.reset_view()
        self.told.emit(" ".join(filter(None, told)))

    def _remove(self) -> str:
        """Remove what was opened last; say so where it stays."""
        layers, self._layers = self._layers, []
        there = [layer for layer in layers if is_there(layer, self._viewer)]
        if self._is_drawn and there:
            return KEPT.format(there[-1].name)
        for layer in there:
            self._viewer.layers.remove(layer)
        return ""

    def _add(self, found: ResultFiles) -> str:
        """Add the layers; say where they do not fit."""
        self._is_drawn = False
        images: list[Image] = []
        if found.image is not None:
            images = add_image_layers(self._viewer, found.image)
            self._layers += images
        if found.labels is None:
            return ""
        shape = tuple(found.labels.data.shape)
        over = images[0] if images else None
        fits = over is None or shape == (*stack_shape(over), *plane_shape(over))
        labels = add_labels_layer(
            self._viewer, found.labels, over if fits else None, **_options(found)
        )
        for event in (labels.events.paint, labels.events.data):
            event.connect(self._on_drawn)
        self._layers.append(labels)
        return "" if fits else OTHER_SIZE

    def _on_drawn(self, event: Any) -> None:
        if any(layer == event.source for layer in self._layers):
            self._is_drawn = True


def _options(found: ResultFiles) -> dict[str, Any]:
    """Return what a layer of labels says of itself, as those of Segment do."""
    names = [item.name for item in found.classes]
    words = " objects" if found.is_objects else ""
    options: dict[str, Any] = {
        "name": f"{found.source.stem}: {found.model}{words}",
        "metadata": {
            "classes": names,
            "model": found.model,
            "result": "objects" if found.is_objects else "classes",
            "source": found.source.name,
        },
    }
    if names and not found.is_objects:
        listed = [{"name": item.name, "colour": item.colour} for item in found.classes]
        colours = class_colours(listed)
        options["colormap"] = DirectLabelColormap(color_dict=colours)
        options["features"] = {"index": range(len(names)), "class": names}
    return options
