"""The plugin's other forms, opened from one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_medseg.widgets._file_layers import PLUGIN

if TYPE_CHECKING:
    import napari


def plugin_form(viewer: napari.Viewer, name: str) -> Any:
    """Return a form of the plugin in sight, opened where it is not.

    Parameters
    ----------
    viewer : Viewer
        The viewer.
    name : str
        As in the menu.

    Returns
    -------
    QWidget
        The form, with the layers listed.
    """
    dock, form = viewer.window.add_plugin_dock_widget(PLUGIN, name, tabify=True)
    dock.show()
    dock.raise_()
    form.reset_choices()
    return form
