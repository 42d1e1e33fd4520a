"""The image in view, segmented again and again as a training goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_medseg._types import InputError
from napari_medseg.widgets._layers import (
    Plane,
    empty_labels,
    image_of,
    is_there,
    placement,
    refresh_values,
    slice_in_view,
)

if TYPE_CHECKING:
    import napari
    from napari.layers import Image, Labels

    from napari_medseg._types import FloatArray

NO_PREVIEW = "(No preview: the viewer shows no single slice of the image.)"


class Preview:
    """Shows on the slice in view what a model in training makes of it.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.

    Attributes
    ----------
    remark : str
        Why there is no preview, where there should be one.
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        self._watched: tuple[Image, Plane] | None = None
        self._layer: Labels | None = None
        self.remark = ""

    def watch(self, layer: Image | None) -> FloatArray | None:
        """Choose the slice in view of a layer, and return it.

        Parameters
        ----------
        layer : Image or None
            None: nothing is previewed.

        Returns
        -------
        ndarray or None
            ``float32 (C, Y, X)``; None, too, where the viewer does not show the layer
            slice by slice: a training goes on without a preview, and `remark` says so.
        """
        self._watched = self._layer = None
        self.remark = ""
        if layer is None:
            return None
        try:
            plane = slice_in_view(layer, self._viewer)
            image = image_of(layer, plane)
        except InputError:
            self.remark = NO_PREVIEW
            return None
        self._watched = (layer, plane)
        return image

    def begin(self) -> None:
        """Add the layer of the preview, which napari takes a moment for.

        The layer that was chosen stays chosen: somebody may go on drawing on it.
        """
        if self._watched is None or not is_there(self._watched[0], self._viewer):
            return
        image, _ = self._watched
        chosen = set(self._viewer.layers.selection)
        self._layer = self._viewer.add_labels(
            empty_labels(image), name=f"{image.name}: preview", **placement(image)
        )
        self._viewer.layers.selection = chosen

    def show(self, labels: Any) -> None:
        """Show labels ``(Y, X)`` of the slice, unless its layer is gone."""
        if self._watched is None or not is_there(self._watched[0], self._viewer):
            return
        if self._layer is None or not is_there(self._layer, self._viewer):
            self.begin()
        if self._layer is not None:
            self._watched[1].of(self._layer.data)[...] = labels
            refresh_values(self._layer)
