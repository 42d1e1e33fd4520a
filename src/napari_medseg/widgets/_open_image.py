"""An image of a folder that is open: its layers, and what is drawn on them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg.widgets import _autosave
from napari_medseg.widgets._annotation_files import digest_of
from napari_medseg.widgets._canvas import annotation_name
from napari_medseg.widgets._file_layers import add_image_layers
from napari_medseg.widgets._layers import empty_labels, is_there, placement

if TYPE_CHECKING:
    from pathlib import Path

    import napari
    from napari.layers import Image, Labels

    from napari_medseg._types import LabelArray
    from napari_medseg.widgets._annotation_files import Opened

TOOLS = ("brush_size", "opacity", "contour", "preserve_labels", "contiguous")
"""What of an annotation layer the next image's has too."""


def at_once(viewer: napari.Viewer) -> AbstractContextManager[None]:
    """Return a block in which layers come and go, and the canvas is drawn anew once.

    Otherwise napari collects garbage for each layer that goes, which takes longer than
    all the rest. Versions before 0.9 know no such block.
    """
    block = getattr(viewer.layers, "batched_update", nullcontext)
    found: AbstractContextManager[None] = block()
    return found


def fingerprint(labels: LabelArray | None) -> bytes:
    """Return what tells labels from others of the same shape; none are empty ones."""
    return b"" if labels is None or not labels.any() else digest_of(labels)


class OpenImage:
    """The layers of an image of a folder, and of its annotation.

    Parameters
    ----------
    viewer : napari.Viewer
        Gets the layers.
    opened : Opened
        The files.
    saved_as : bytes
        The `fingerprint` of its annotation as it is on the disk.

    Attributes
    ----------
    opened : Opened
        The files.
    images : list of Image
        Its layers: one for each channel.
    annotation : Labels
        What is drawn.
    changes : int
        How often something was drawn.
    saved : int
        How often by the time it was last saved.
    shown : int
        How often the annotation was shown anew without another slice.
    saved_as : bytes
        The `fingerprint` of what was last saved.
    may_replace : bool
        Whether the user knows that another program wrote the annotation meanwhile.

    Raises
    ------
    ValueError, TypeError
        napari cannot show the image.
    """

    def __init__(self, viewer: napari.Viewer, opened: Opened, saved_as: bytes) -> None:
        self._viewer = viewer
        self.opened = opened
        self.images: list[Image] = add_image_layers(viewer, opened.image)
        first, labels = self.images[0], opened.file.labels
        self.annotation: Labels = viewer.add_labels(
            empty_labels(first) if labels is None else labels,
            name=annotation_name(first),
            **placement(first),
        )
        self.changes = self.saved = self.shown = 0
        self.saved_as = saved_as
        self.may_replace = False

    @property
    def path(self) -> Path:
        """The image's file."""
        return self.opened.entry.path

    @property
    def identity(self) -> str:
        """What it is kept by."""
        return _autosave.file_identity(self.path)

    @property
    def is_drawn(self) -> bool:
        """Whether something was drawn that is not saved."""
        return self.changes != self.saved

    def differs(self) -> bool:
        """Tell whether what is drawn is not what was saved, by looking at all of it."""
        return fingerprint(np.asarray(self.annotation.data)) != self.saved_as

    @property
    def is_whole(self) -> bool:
        """Whether all its layers are still in the viewer."""
        layers = (self.annotation, *self.images)
        return all(is_there(layer, self._viewer) for layer in layers)

    def remove(self) -> None:
        """Remove its layers."""
        for layer in (self.annotation, *self.images):
            if is_there(layer, self._viewer):
                self._viewer.layers.remove(layer)

    def tools(self) -> dict[str, Any]:
        """Return how the user paints, so that the next image is painted so too."""
        layer = self.annotation
        return {
            "settings": {name: getattr(layer, name) for name in TOOLS},
            "label": int(layer.selected_label),
            "mode": str(layer.mode),
            "painting": self._viewer.layers.selection.active is layer,
        }

    def take_tools(self, tools: dict[str, Any] | None, kind: str) -> None:
        """Paint as on the image before; objects get numbers that are free.

        Parameters
        ----------
        tools : dict or None
            From `tools` of the image before, if there was one.
        kind : str
            What the values of the annotation mean.
        """
        layer = self.annotation
        if tools is not None:
            for name, value in tools["settings"].items():
                setattr(layer, name, value)
            layer.mode = tools["mode"]
            layer.selected_label = tools["label"]
            if tools["painting"]:
                self._viewer.layers.selection.active = layer
        if kind == "instances":
            layer.selected_label = int(np.max(layer.data)) + 1
