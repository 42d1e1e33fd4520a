"""Generated images, alike at every run: sample data and training material."""

from __future__ import annotations

from napari_medseg.samples._layers import mixed_layers, two_kinds_layers
from napari_medseg.samples._mixed import KINDS, mixed_scene
from napari_medseg.samples._scene import Scene
from napari_medseg.samples._two_kinds import (
    TWO_KINDS,
    make_two_kinds,
    two_kinds_scene,
)

__all__ = [
    "KINDS",
    "TWO_KINDS",
    "Scene",
    "make_two_kinds",
    "mixed_layers",
    "mixed_scene",
    "two_kinds_layers",
    "two_kinds_scene",
]
