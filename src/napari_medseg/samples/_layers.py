"""The samples as layers: what File > Open Sample puts into the viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg.samples._mixed import KINDS, mixed_scene
from napari_medseg.samples._two_kinds import TWO_KINDS, make_two_kinds

if TYPE_CHECKING:
    from napari_medseg._types import LabelArray
    from napari_medseg.samples._scene import Scene

LayerData = tuple[np.ndarray[Any, np.dtype[Any]], dict[str, Any], str]
"""Data, keyword arguments and type of a layer."""

COUNT = 6
"""Images in each sample stack."""


def two_kinds_layers() -> list[LayerData]:
    """Return a stack of images of round cells and rods, with annotations.

    Returns
    -------
    list of tuple
        An image ``uint8 (N, Y, X)``, its kinds ``int32 (N, Y, X)`` (0 is
        background) and its objects ``int32 (N, Y, X)``, each as a tuple of data,
        keyword arguments and layer type.
    """
    scenes = make_two_kinds(COUNT, seed=0)
    kinds = np.stack([scene.kinds for scene in scenes])
    return _layers("round cells and rods", scenes, kinds, TWO_KINDS)


def mixed_layers() -> list[LayerData]:
    """Return a stack of images of all kinds of things, with annotations.

    Returns
    -------
    list of tuple
        As of `two_kinds_layers`; the kinds are `KINDS` on all images.
    """
    rng = np.random.default_rng(0)
    scenes: list[Scene] = []
    while len(scenes) < COUNT:
        scene = mixed_scene(rng)
        if scene.image.shape[0] == 1:
            scenes.append(scene)
    kinds = np.stack([_common_kinds(scene) for scene in scenes])
    return _layers("mixed things", scenes, kinds, KINDS)


def _common_kinds(scene: Scene) -> LabelArray:
    """Return the kinds of a scene, numbered as in `KINDS`."""
    numbers = [0, *(KINDS.index(name.split()[0]) + 1 for name in scene.kind_names)]
    renumbered: LabelArray = np.asarray(numbers, np.int32)[scene.kinds]
    return renumbered


def _layers(
    title: str, scenes: list[Scene], kinds: LabelArray, names: tuple[str, ...]
) -> list[LayerData]:
    """Return image, kinds and objects as layers."""
    images = np.stack([scene.image[0] for scene in scenes])
    objects = np.stack([scene.instances for scene in scenes])
    described = {
        "index": np.arange(len(names) + 1),
        "class": np.asarray(["background", *names]),
    }
    about = {"classes": ["background", *names]}
    return [
        (images, {"name": title, "colormap": "gray"}, "image"),
        (
            kinds,
            {"name": f"{title}: kinds", "features": described, "metadata": about},
            "labels",
        ),
        (objects, {"name": f"{title}: objects", "visible": False}, "labels"),
    ]
