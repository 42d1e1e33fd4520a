"""Model files that are opened in napari: they open the Segment form.

A model is no layer. napari lets a reader say so: it returns one layer of nothing,
and nothing is added.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari

from napari_medseg._types import InputError
from napari_medseg.io.model_file import read_card
from napari_medseg.widgets.segment import SegmentWidget

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "Segment (medseg)"
"""As napari calls the form in its menus, so that there is one of it."""


def segment_form(viewer: napari.Viewer) -> SegmentWidget:
    """Return the Segment form of a viewer, opened where it is not.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.

    Returns
    -------
    SegmentWidget
        In sight.
    """
    for widget in viewer.window.dock_widgets.values():
        if isinstance(widget, SegmentWidget):
            dock = widget.parentWidget()
            if dock is not None:
                dock.show()
                dock.raise_()
            return widget
    form = SegmentWidget(viewer)
    viewer.window.add_dock_widget(form, name=NAME)
    form.reset_choices()
    return form


def list_models_again(viewer: napari.Viewer) -> None:
    """Have the Segment forms that are open list a model that was tuned meanwhile."""
    for widget in viewer.window.dock_widgets.values():
        if isinstance(widget, SegmentWidget):
            widget.models.refresh()


def model_reader(path: str | list[str]) -> Callable[[str], list[Any]] | None:
    """Return what opens a model file, for napari."""
    return None if isinstance(path, list) else open_model


def open_model(path: str) -> list[tuple[None]]:
    """Open the Segment form of the viewer with a model chosen.

    Parameters
    ----------
    path : str
        The model file.

    Returns
    -------
    list
        napari's word for no layers.

    Raises
    ------
    InputError
        There is no viewer to open it in.
    ModelFileError
        It is no model file.
    """
    viewer = napari.current_viewer()
    if viewer is None:
        raise InputError(
            f"{path} is a model, which is opened in a viewer. To use it without one: "
            "napari-medseg segment --model."
        )
    read_card(path)  # what is no model opens no form
    segment_form(viewer).choose_model(Path(path))
    return [(None,)]
