"""Images of anything: one to four kinds of things, imaged one way or another."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from napari_medseg.samples._canvas import Canvas
from napari_medseg.samples._imaging import take
from napari_medseg.samples._membranes import paint_network
from napari_medseg.samples._noise import NoiseMaker
from napari_medseg.samples._scene import Scene, tidy
from napari_medseg.samples._style import draw_style
from napari_medseg.samples._things import (
    Easel,
    paint_blobs,
    paint_filaments,
    paint_regions,
    paint_rods,
    paint_spots,
)

Painter = Callable[[Easel, int, int], None]

GROUNDS = ("region", "membrane", "cell")
"""Kinds that fill the image; the others lie on top of them."""

THINGS: dict[str, tuple[Painter, float]] = {
    "blob": (lambda *at: paint_blobs(*at, hollow=False), 0.42),
    "ring": (lambda *at: paint_blobs(*at, hollow=True), 0.13),
    "rod": (paint_rods, 0.19),
    "filament": (paint_filaments, 0.16),
    "spot": (paint_spots, 0.1),
}
"""A painter and a weight for each kind that lies in heaps."""

KINDS = (*GROUNDS, *THINGS)
"""The names of all kinds; a second kind of the same sort has " 2" after it."""

SMALLEST = 6
"""Pixels of the smallest object in an image of 256 pixels a side."""


def mixed_scene(rng: np.random.Generator, size: int = 256) -> Scene:
    """Generate an image of one to four kinds of things, varied without end.

    Blobs, rings, rods, filaments, membranes, cells, textured regions and spots,
    each kind with an appearance of its own, in the manner of fluorescence, phase
    contrast, bright field, electron microscopy, histology or of none of these.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all chance: the same state gives the same scene.
    size : int
        Side of the image in pixels. Things grow with it.

    Returns
    -------
    Scene
    """
    while True:
        style = draw_style(rng)
        noise = NoiseMaker(rng, size)
        ground = float(rng.uniform(*style.ground))
        canvas = Canvas(size, ground * noise.texture().ravel())
        names = _paint(Easel(rng, noise, canvas, style, ground))
        shape = (size, size)
        smallest = max(3, round(SMALLEST * noise.unit**2))
        labels = tidy(
            canvas.instances.reshape(shape),
            canvas.kinds.reshape(shape),
            names,
            smallest,
        )
        # every object may have fallen off the image
        if labels[2]:
            return Scene(take(rng, noise, canvas, style), *labels)


def _paint(easel: Easel) -> tuple[str, ...]:
    """Paint all kinds of a scene and return their names."""
    rng = easel.rng
    wanted = int(rng.choice([1, 2, 3, 4], p=[0.25, 0.37, 0.26, 0.12]))
    names = _paint_ground(easel, wanted)
    weights = np.asarray([weight for _, weight in THINGS.values()])
    sorts = list(THINGS)
    while len(names) < wanted:
        sort = sorts[int(rng.choice(len(sorts), p=weights / weights.sum()))]
        kind = len(names) + 1
        THINGS[sort][0](easel, kind, kind)
        names.append(_unique(sort, names))
    if rng.random() < 0.3:
        paint_spots(easel, 0, wanted + 2)
    return tuple(names)


def _paint_ground(easel: Easel, wanted: int) -> list[str]:
    """Paint what fills the image, if anything, and return its names."""
    rng = easel.rng
    chance = rng.random()
    if chance < 0.17:
        paint_regions(easel, 1, 1)
        return ["region"]
    if chance < 0.4:
        if wanted > 1 and rng.random() < 0.4:
            paint_network(easel, (2, 2), (1, 1))
            return ["cell", "membrane"]
        if rng.random() < 0.5:
            paint_network(easel, None, (1, 1))
            return ["cell"]
        paint_network(easel, (1, 1), None)
        return ["membrane"]
    return []


def _unique(sort: str, names: list[str]) -> str:
    """Return a name that no kind of the scene has yet."""
    same = sum(name.split()[0] == sort for name in names)
    return f"{sort} {same + 1}" if same else sort
