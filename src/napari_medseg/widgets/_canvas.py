"""The layers of an annotation: what is drawn, SAM's suggestion, shapes for SAM."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Shapes
from napari.utils.colormaps import DirectLabelColormap

from napari_medseg.widgets._autosave import file_identity
from napari_medseg.widgets._layers import (
    Plane,
    empty_labels,
    flat_placement,
    is_there,
    placement,
    plane_shape,
    refresh_values,
    stack_shape,
)
from napari_medseg.widgets._suggesting import Question, Suggestion

if TYPE_CHECKING:
    import napari
    from napari.layers import Image, Layer

SUGGESTION = "SAM's suggestion"
SHAPES = "boxes and shapes for SAM"

YELLOW = "#ffe100"
"""Of the suggestion."""


DRAWN_ON = "drawn on"
"""What image an annotation belongs to, in its layer's metadata."""


def annotation_name(image: Image) -> str:
    """Return what the annotation layer of an image layer is called."""
    return f"{image.name}: annotation"


class AnnotationCanvas:
    """The layers that an image is annotated with.

    An annotation of the same image that is there already is taken over, so that work
    goes on where it was left.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    image : Image
        The image that is annotated.
    annotation : Labels, optional
        The layer that is drawn on; by default one that was drawn on this image, or that
        has its name and size and comes from elsewhere.

    Attributes
    ----------
    annotation : Labels
        What is drawn, over the whole stack.
    suggestion : Labels
        SAM's suggestion for the slice in view.
    shapes : Shapes
        Boxes and outlines that ask SAM.
    """

    def __init__(
        self, viewer: napari.Viewer, image: Image, annotation: Labels | None = None
    ) -> None:
        self._viewer = viewer
        self.image = image
        shape = plane_shape(image)
        name = annotation_name(image)
        self.annotation: Labels = (
            annotation
            or self._annotation_of(image)
            or viewer.add_labels(empty_labels(image), name=name, **placement(image))
        )
        note = {DRAWN_ON: _marks_of(image)}
        self.annotation.metadata = {**self.annotation.metadata, **note}
        self.remove_helpers()
        self.shapes: Shapes = viewer.add_shapes(
            None, ndim=2, name=SHAPES, **flat_placement(image)
        )
        self.suggestion: Labels = viewer.add_labels(
            np.zeros(shape, np.int32),
            name=SUGGESTION,
            opacity=0.6,
            # unlike any class: what is only suggested shall not look painted
            colormap=DirectLabelColormap(color_dict={None: "transparent", 1: YELLOW}),
            **flat_placement(image),
        )
        self._shown: Suggestion | None = None
        self._drawn: tuple[slice, slice] | None = None
        self._choice = 0
        self._painted: tuple[Suggestion, int] | None = None

    def _annotation_of(self, image: Image) -> Labels | None:
        """Return the layer that an image was annotated on, or None."""
        size, marks = (*stack_shape(image), *plane_shape(image)), set(_marks_of(image))
        fitting = [
            item
            for item in self._viewer.layers
            if isinstance(item, Labels) and tuple(item.data.shape) == size
        ]
        for item in fitting:
            if marks.intersection(item.metadata.get(DRAWN_ON, ())):
                return item
        # another image may have had the same name: its annotation is noted to be so
        name = annotation_name(image)
        for item in fitting:
            if item.name == name and DRAWN_ON not in item.metadata:
                return item
        return None

    def _found(self, kind: type[Layer], name: str) -> Any:
        """Return a layer of the viewer by kind and name, or None."""
        for item in self._viewer.layers:
            if isinstance(item, kind) and item.name == name:
                return item
        return None

    def remove_helpers(self) -> None:
        """Remove what asks SAM and what it suggests; the annotation stays."""
        for old in (self._found(Shapes, SHAPES), self._found(Labels, SUGGESTION)):
            if old is not None:
                self._viewer.layers.remove(old)

    def has(self, layer: Layer) -> bool:
        """Tell whether one of these layers is still in the viewer."""
        return is_there(layer, self._viewer)

    def place_of(self, position: Any) -> tuple[float, float] | None:
        """Return row and column of a place of the world; None beside the image."""
        place = self.image.world_to_data(position[-self.image.ndim :])
        row, column = (float(each) for each in place[-2:])
        height, width = plane_shape(self.image)
        inside = -0.5 <= row < height - 0.5 and -0.5 <= column < width - 0.5
        return (row, column) if inside else None

    def show(self, suggestion: Suggestion | None) -> None:
        """Show the likeliest mask of a suggestion, or none."""
        self._shown, self._choice = suggestion, 0
        self._draw()

    def show_next(self) -> None:
        """Show the next mask of the suggestion."""
        if self._shown is not None:
            self._choice = (self._choice + 1) % len(self._shown.masks)
            self._draw()

    def _draw(self) -> None:
        if not self.has(self.suggestion):
            return
        if self._shown is None and self._drawn is None:
            return  # the window is not painted for nothing
        if self._drawn is not None:
            self.suggestion.data[self._drawn] = 0
        self._drawn = None
        if self._shown is not None:
            self._drawn = (self._shown.rows, self._shown.columns)
            self.suggestion.data[self._drawn] = self._shown.masks[self._choice]
        refresh_values(self.suggestion)

    def paint(self, label: int) -> bool:
        """Put the suggestion into the annotation; napari's own undo takes it back.

        Where the layer preserves labels, other labels stay as they are.

        Parameters
        ----------
        label : int
            The value to paint.

        Returns
        -------
        bool
            Whether there was a suggestion, and a layer to paint on.
        """
        found, target = self._shown, self.annotation
        if found is None or not self.has(target):
            return False
        rows, columns = np.nonzero(found.masks[self._choice])
        places = (rows + found.rows.start, columns + found.columns.start)
        index = tuple(np.full(len(rows), place) for place in found.plane.index)
        whole = (*index, *places)
        if target.preserve_labels:
            drawn = np.asarray(target.data[whole])
            free = (drawn == 0) | (drawn == label)
            whole = tuple(axis[free] for axis in whole)
        target.data_setitem(whole, label)
        self._painted = found, self._choice
        return True

    @property
    def latest(self) -> tuple[Suggestion, int] | None:
        """What is suggested, else what was painted last; and which of its masks."""
        if self._shown is not None:
            return self._shown, self._choice
        return self._painted

    def next_label(self) -> int:
        """Return the lowest label above all that are drawn."""
        return int(np.asarray(self.annotation.data).max()) + 1

    def shape_question(self) -> Question | None:
        """Return what the shape that was drawn last asks for, if there is one."""
        if not self.has(self.shapes) or not self.shapes.data:
            return None
        if self.shapes.shape_type[-1] == "rectangle":
            corners = np.asarray(self.shapes.data[-1])[:, -2:]
            far = np.asarray(plane_shape(self.image)) - 1
            top, left = np.clip(corners.min(axis=0), 0, far).tolist()
            bottom, right = np.clip(corners.max(axis=0), 0, far).tolist()
            return Question(box=(top, left, bottom, right))
        masks = self.shapes.to_masks(plane_shape(self.image))
        return Question(mask=np.asarray(masks[-1]))

    def label_question(self, plane: Plane) -> Question | None:
        """Return what the chosen label asks for, if it is on the slice."""
        drawn = np.asarray(plane.of(self.annotation.data))
        mask = drawn == self.annotation.selected_label
        return Question(mask=mask) if mask.any() else None

    def clear_shapes(self) -> None:
        """Remove the shapes that asked SAM."""
        if self.has(self.shapes) and self.shapes.data:
            self.shapes.data = []


def _marks_of(image: Image) -> list[str]:
    """Return what tells an image layer from others, of the same name too.

    That is the layer, and its file: the image may be opened again.
    """
    marks = [str(image.unique_id)]
    if image.source.path:
        marks.append(file_identity(Path(image.source.path), image.name))
    return marks
