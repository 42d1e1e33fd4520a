"""Whether a labels layer is drawn on: painting, and what is undone and redone."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

if TYPE_CHECKING:
    import napari
    from napari.layers import Labels


class Drawn(QObject):
    """Tells when a labels layer is drawn on.

    napari does not say when something is undone or redone; the layer is only shown
    anew, as it is for another slice or another look.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.
    parent : QObject, optional
        The parent.

    Attributes
    ----------
    drawn : Signal
        Something was drawn.
    perhaps : Signal
        Something may have been undone or redone.
    """

    drawn = Signal()
    perhaps = Signal()

    def __init__(self, viewer: napari.Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layer: Labels | None = None
        self._view: tuple[Any, ...] = ()

    def watch(self, layer: Labels) -> None:
        """Tell of this layer from now on."""
        if self._layer is not None:
            events = self._layer.events
            for event in (events.paint, events.data):
                event.disconnect(self._on_drawn)
            events.set_data.disconnect(self._on_shown)
        self._layer, self._view = layer, self._in_view()
        for event in (layer.events.paint, layer.events.data):
            event.connect(self._on_drawn)
        layer.events.set_data.connect(self._on_shown)

    def _in_view(self) -> tuple[Any, ...]:
        dims = self._viewer.dims
        return tuple(dims.point), dims.ndisplay, tuple(dims.order)

    def _on_drawn(self, event: Any = None) -> None:
        with suppress(RuntimeError):  # the form was closed: Qt has deleted this
            self.drawn.emit()

    def _on_shown(self, event: Any = None) -> None:
        before, self._view = self._view, self._in_view()
        if before == self._view:  # not just another slice
            with suppress(RuntimeError):
                self.perhaps.emit()
