"""What the user set in napari's Preferences, where napari has them for plugins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari import settings

if TYPE_CHECKING:
    from qtpy.QtWidgets import QComboBox

PLUGIN = "napari-medseg"


@dataclass(frozen=True, slots=True)
class Preferences:
    """The preferences of this plugin, as ``napari.yaml`` declares them.

    Attributes
    ----------
    device : str
        Where to compute.
    sam : str
        Name of the SAM that a form begins with.
    """

    device: str = "auto"
    sam: str = "nano"


def preferences() -> Preferences:
    """Return the user's preferences; the defaults before napari 0.9."""
    read = getattr(settings, "get_plugin_settings", None)
    if read is None:
        return Preferences()
    try:
        computing = read(PLUGIN).computing
    except KeyError:  # the plugin is disabled, or used without being installed
        return Preferences()
    return Preferences(computing.device, computing.sam)


def choose_sam(box: QComboBox) -> None:
    """Choose the preferred SAM in a box whose data are names, if it is there."""
    place = box.findData(preferences().sam)
    if place >= 0:
        box.setCurrentIndex(place)
