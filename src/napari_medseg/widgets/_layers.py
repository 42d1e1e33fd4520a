"""Layers as the core takes them, and results as layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg._types import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari.components import ViewerModel
    from napari.layers import Image, Layer

    from napari_medseg._types import FloatArray, LabelArray

Index = tuple[int, ...]
"""A slice of a stack: a place along each axis before the last two."""


@dataclass(frozen=True, slots=True)
class Plane:
    """Part of a slice of an image layer.

    Attributes
    ----------
    index : tuple of int
        The slice.
    rows, columns : slice
        The part; whole slices begin at 0 and end at the image's size.
    """

    index: Index
    rows: slice
    columns: slice

    def of(self, array: Any) -> Any:
        """Return this part of an array ``(..., Y, X)``."""
        return array[(*self.index, self.rows, self.columns)]


def stack_shape(layer: Image) -> tuple[int, ...]:
    """Return the shape of a layer's slices: all axes but the last two spatial ones."""
    shape = _full(layer).shape
    return tuple(shape[:-3] if layer.rgb else shape[:-2])


def plane_shape(layer: Image) -> tuple[int, int]:
    """Return height and width of an image layer."""
    shape = _full(layer).shape
    height, width = shape[-3:-1] if layer.rgb else shape[-2:]
    return int(height), int(width)


def whole(layer: Image, index: Index) -> Plane:
    """Return a whole slice of an image layer."""
    height, width = plane_shape(layer)
    return Plane(index, slice(0, height), slice(0, width))


def all_slices(layer: Image) -> list[Plane]:
    """Return every slice of an image layer, in order."""
    return [whole(layer, index) for index in np.ndindex(*stack_shape(layer))]


def slice_in_view(layer: Image, viewer: ViewerModel) -> Plane:
    """Return the slice of a layer that the viewer shows.

    Parameters
    ----------
    layer : Image
        Layer of the viewer.
    viewer : Viewer
        The viewer.

    Returns
    -------
    Plane
        The whole slice.

    Raises
    ------
    InputError
        The viewer shows the layer in three dimensions, or along other axes.
    """
    depth = len(stack_shape(layer))
    dims = viewer.dims
    if dims.ndisplay != 2 or tuple(dims.order[-2:]) != (dims.ndim - 2, dims.ndim - 1):
        raise InputError(
            "The viewer does not show the images as they were taken. Switch to 2D and "
            "to the usual order of the axes, then try again."
        )
    # a layer with fewer axes than the viewer has lies along its last ones
    place = layer.world_to_data(dims.point[-layer.ndim :])
    lengths = stack_shape(layer)
    index = tuple(
        int(np.clip(round(float(place[axis])), 0, lengths[axis] - 1))
        for axis in range(depth)
    )
    return whole(layer, index)


def region_in_view(layer: Image, viewer: ViewerModel) -> Plane:
    """Return the part of the slice in view that the canvas shows.

    Raises
    ------
    InputError
        As for `slice_in_view`, or nothing of the layer is in view.
    """
    plane = slice_in_view(layer, viewer)
    height, width = plane_shape(layer)
    factors = layer.downsample_factors[layer.data_level] if layer.multiscale else None
    corners = np.asarray(layer.corner_pixels)[:, -2:]
    if factors is not None:
        corners = corners * np.asarray(factors)[-2:]
    (top, left), (bottom, right) = corners.astype(int)
    rows = slice(max(0, int(top)), min(height, int(bottom) + 1))
    columns = slice(max(0, int(left)), min(width, int(right) + 1))
    if rows.stop <= rows.start or columns.stop <= columns.start:
        raise InputError(f"Nothing of {layer.name} is in view. Move it into view.")
    return Plane(plane.index, rows, columns)


def image_of(layer: Image, plane: Plane) -> FloatArray:
    """Return part of a layer as the core takes it.

    Parameters
    ----------
    layer : Image
        Of any type; colours may have a fourth channel, which is left out.
    plane : Plane
        Which part.

    Returns
    -------
    ndarray
        ``float32 (C, Y, X)``, a copy.
    """
    return as_image(part_of(layer, plane), layer.name, rgb=bool(layer.rgb))


def part_of(layer: Image, plane: Plane) -> Any:
    """Return part of a layer as it is: a view, or lazy where the layer is."""
    return plane.of(_full(layer))


def as_image(part: Any, name: str, *, rgb: bool) -> FloatArray:
    """Return what `part_of` gave as the core takes it; any thread may call.

    Parameters
    ----------
    part : array
        ``(Y, X)``, of colours ``(Y, X, 3 or 4)``.
    name : str
        The layer.
    rgb : bool
        Whether the last axis is colour.

    Returns
    -------
    ndarray
        ``float32 (C, Y, X)``, a copy.

    Raises
    ------
    InputError
        The values are complex.
    """
    data = np.asarray(part)
    if np.iscomplexobj(data):
        raise InputError(
            f"{name} holds complex numbers; show their magnitude as a layer."
        )
    channels = np.moveaxis(data[..., :3], -1, 0) if rgb else data[None]
    image: FloatArray = np.array(channels, np.float32, order="C")
    return image


def placement(layer: Image) -> dict[str, Any]:
    """Return what puts a labels layer over an image layer, axis by axis."""
    return {
        "scale": tuple(layer.scale),
        "translate": tuple(layer.translate),
        "rotate": layer.rotate,
        "shear": layer.shear,
        "affine": layer.affine.affine_matrix,
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }


def flat_placement(layer: Image) -> dict[str, Any]:
    """Return what puts a layer of two axes over every slice of an image layer."""
    whole = placement(layer)
    if len(whole["scale"]) == 2:
        return whole
    names = ("scale", "translate", "units", "axis_labels")
    flat = {name: tuple(whole[name])[-2:] for name in names}
    # the upper triangle of the shear, row by row: that of the last two is its end
    flat |= {"rotate": whole["rotate"][-2:, -2:], "shear": whole["shear"][-1:]}
    return flat | {"affine": whole["affine"][-3:, -3:]}


def class_colours(classes: Sequence[Mapping[str, str]]) -> dict[int | None, str]:
    """Return a labels layer's colours by class; other values are see-through."""
    colours: dict[int | None, str] = {
        index: str(item["colour"]) for index, item in enumerate(classes) if index
    }
    return {**colours, 0: "transparent", None: "transparent"}


def empty_labels(layer: Image) -> LabelArray:
    """Return labels of the shape of an image layer, all 0."""
    return np.zeros((*stack_shape(layer), *plane_shape(layer)), np.int32)


def refresh_values(layer: Layer) -> None:
    """Show that values have changed; a thumbnail would cost a second painting."""
    layer.refresh(thumbnail=False, highlight=False, extent=False)


def is_there(layer: Layer, viewer: ViewerModel) -> bool:
    """Tell whether a layer is still in the viewer."""
    return any(item is layer or item == layer for item in viewer.layers)


def _full(layer: Image) -> Any:
    """Return the data of a layer at its full resolution."""
    return layer.data[0] if layer.multiscale else layer.data
