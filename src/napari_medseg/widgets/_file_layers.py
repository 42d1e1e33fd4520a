"""An image file as layers of a viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

# no public way tells a layer its file
from napari.layers._source import layer_source

from napari_medseg.io.images import LazyArray, image_stem
from napari_medseg.widgets._layers import placement

if TYPE_CHECKING:
    import napari
    from napari.layers import Image, Labels

    from napari_medseg.io.images import ImageFile

PLUGIN = "napari-medseg"

COLOURS = ("magenta", "green", "cyan", "yellow", "red", "blue")
"""Colours of the channels of an image that is no colour image."""

PIXEL = "pixel"
"""Unit of an axis whose pixel size is not known."""


def add_image_layers(viewer: napari.Viewer, image: ImageFile) -> list[Image]:
    """Add an image file to a viewer, with its pixel size.

    Parameters
    ----------
    viewer : Viewer
        The viewer.
    image : ImageFile
        The file; large ones stay on the disk.

    Returns
    -------
    list of Image
        One layer; one for each channel where the channels are no colours.
    """
    name = image_stem(image.path)
    placed = _placement(image)
    with layer_source(path=str(image.path), reader_plugin=PLUGIN):
        if image.rgb:
            colours = _channel_last(image)
            return [_add(viewer, colours, placed, name=name, rgb=True)]
        if image.channels == 1:
            return [_add(viewer, image.data, placed, name=name, rgb=False)]
        return [
            _add(
                viewer,
                _Channel(image.data, image.axes.index("C"), channel),
                placed,
                # counted as commands and tables count
                name=f"{name}: channel {channel}",
                rgb=False,
                colormap=COLOURS[channel % len(COLOURS)],
                blending="additive",
            )
            for channel in range(image.channels)
        ]


def add_labels_layer(
    viewer: napari.Viewer,
    labels: ImageFile,
    over: Image | None = None,
    **options: Any,
) -> Labels:
    """Add a file of labels to a viewer.

    Parameters
    ----------
    viewer : Viewer
        The viewer.
    labels : ImageFile
        The file; large ones stay on the disk and cannot be drawn on.
    over : Image, optional
        The layer that it is laid over; by default it has its own pixel size.
    **options
        Of `napari.layers.Labels`.

    Returns
    -------
    Labels
        The layer.
    """
    with layer_source(path=str(labels.path), reader_plugin=PLUGIN):
        placed = _placement(labels) if over is None else placement(over)
        try:
            layer: Labels = viewer.add_labels(labels.data, **placed, **options)
        except ValueError:
            del placed["units"]
            layer = viewer.add_labels(labels.data, **placed, **options)
    layer.editable = not isinstance(labels.data, LazyArray)
    return layer


def _add(
    viewer: napari.Viewer, data: Any, placed: dict[str, Any], **options: Any
) -> Image:
    """Add a layer; without units, where napari does not know them."""
    if isinstance(data, _Channel) and not isinstance(data.whole, LazyArray):
        data = np.asarray(data)
    try:
        layer: Image = viewer.add_image(data, **placed, **options)
    except ValueError:
        placed = {key: value for key, value in placed.items() if key != "units"}
        layer = viewer.add_image(data, **placed, **options)
    return layer


def _placement(image: ImageFile) -> dict[str, Any]:
    """Return pixel size, units and names of a layer's axes."""
    axes = image.axes.replace("C", "")
    return {
        "scale": [image.scale.get(axis, 1.0) for axis in axes],
        "units": [image.units.get(axis) or PIXEL for axis in axes],
        "axis_labels": [axis.lower() for axis in axes],
    }


def _channel_last(image: ImageFile) -> Any:
    """Return colours as napari takes them."""
    channel = image.axes.index("C")
    order = [axis for axis in range(len(image.axes)) if axis != channel]
    if isinstance(image.data, LazyArray):
        return image.data.arranged([*order, channel], {})
    return np.moveaxis(image.data, channel, -1)


class _Channel:
    """One channel of an array, read part by part.

    Parameters
    ----------
    whole : ndarray or LazyArray
        All channels.
    axis, channel : int
        Which axis they lie along, and which this is.
    """

    def __init__(self, whole: Any, axis: int, channel: int) -> None:
        self.whole = whole
        self._axis, self._channel = axis, channel
        self.dtype = whole.dtype
        self.shape = (*whole.shape[:axis], *whole.shape[axis + 1 :])
        self.ndim = len(self.shape)

    def __getitem__(self, key: Any) -> Any:
        keys = list(key) if isinstance(key, tuple) else [key]
        keys += [slice(None)] * (self.ndim - len(keys))
        keys.insert(self._axis, self._channel)
        return self.whole[tuple(keys)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Read everything."""
        whole = self[(slice(None),) * self.ndim]
        return whole if dtype is None else whole.astype(dtype)
