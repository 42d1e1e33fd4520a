"""Which labels look wrong, as a layer over the images they were drawn on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg.widgets._layers import (
    Plane,
    all_slices,
    is_there,
    placement,
    plane_shape,
    stack_shape,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari
    from napari.layers import Image, Labels

    from napari_medseg._types import FloatArray


class SuspectLabels:
    """Shows, after a training that doubted labels, how probably each is wrong.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    """

    def __init__(self, viewer: napari.Viewer) -> None:
        self._viewer = viewer
        self._image: Image | None = None
        self._planes: list[Plane] = []
        self._layer: Image | None = None

    def watch(self, image: Image | None, labels: Labels | None) -> None:
        """Remember which slices are annotated: those that are trained on.

        Parameters
        ----------
        image, labels : layer or None
            Images and their annotation, of one shape; None: nothing will be shown.
        """
        if image is not self._image:
            self._layer = None  # which is of other images
        self._image, self._planes = image, []
        if image is not None and labels is not None:
            self._planes = [
                plane
                for plane in all_slices(image)
                if np.asarray(plane.of(labels.data)).any()
            ]

    def show(self, suspects: Sequence[Any]) -> None:
        """Show ``float32 (Y, X)`` for each slice remembered, in their order.

        Parameters
        ----------
        suspects : sequence of ndarray
            None of them: nothing is shown, as where the images are gone.
        """
        image = self._image
        if not suspects or image is None or not is_there(image, self._viewer):
            return
        data: FloatArray = np.zeros(
            (*stack_shape(image), *plane_shape(image)), np.float32
        )
        for plane, found in zip(self._planes, suspects, strict=True):
            plane.of(data)[...] = found
        if self._layer is not None and is_there(self._layer, self._viewer):
            if self._layer.data.shape == data.shape:
                self._layer.data = data
                return
        self._layer = self._viewer.add_image(
            data,
            name=f"{image.name}: suspect labels",
            colormap="magma",
            blending="additive",
            contrast_limits=(0.0, 1.0),
            **placement(image),
        )
