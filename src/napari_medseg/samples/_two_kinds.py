"""Round cells and rods: one brightness, two shapes; what the demo tells apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_medseg.samples._canvas import Canvas, Look
from napari_medseg.samples._imaging import add_noise, blurred, uneven_light
from napari_medseg.samples._noise import NoiseMaker
from napari_medseg.samples._scene import Scene, tidy
from napari_medseg.samples._shapes import Shape, blob, rod

if TYPE_CHECKING:
    from napari_medseg._types import FloatArray

TWO_KINDS = ("round cell", "rod")
"""The kinds of `two_kinds_scene`."""

CLEARANCE = 2.5
"""Least distance of two objects in pixels, so that they stay apart in the blur."""


def two_kinds_scene(rng: np.random.Generator, size: int = 256) -> Scene:
    """Generate an image of round cells and rods of equal brightness.

    Both kinds cover about the same area and are as bright as each other, so that
    a threshold finds both and tells neither from the other. No two objects touch.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of all chance: the same state gives the same scene.
    size : int
        Side of the image in pixels. In 256 pixels a side the cells have a radius
        of 9 to 16 pixels and the rods are 5 to 7 wide and 30 to 50 long.

    Returns
    -------
    Scene
        A grey image; the kinds are `TWO_KINDS`, and both are present.
    """
    noise = NoiseMaker(rng, size)
    canvas = Canvas(size, np.zeros(size * size, np.float32))
    _place(rng, noise, canvas)
    labels = tidy(
        canvas.instances.reshape(size, size),
        canvas.kinds.reshape(size, size),
        TWO_KINDS,
        1,
    )
    signal = _equally_bright(canvas, float(rng.uniform(0.8, 1.4)) * noise.unit)
    ground = np.float32(rng.uniform(0.02, 0.07)) * noise.cloud(1.5)
    floor, gain = float(rng.uniform(0.12, 0.25)), float(rng.uniform(0.5, 0.65))
    light = uneven_light(rng, size, float(rng.uniform(0.1, 0.3)))
    even = np.float32(floor) + np.float32(gain) * (signal + ground)
    photons = float(10 ** rng.uniform(2, 2.8))
    image = add_noise(rng, (even * light)[None].astype(np.float32), photons)
    picture = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return Scene(picture, *labels)


def make_two_kinds(count: int, seed: int, size: int = 256) -> list[Scene]:
    """Generate several images of round cells and rods.

    Parameters
    ----------
    count : int
        How many.
    seed : int
        The same seed gives the same scenes, and more of them when more are asked.
    size : int
        Side of the images in pixels.

    Returns
    -------
    list of Scene
    """
    rng = np.random.default_rng(seed)
    return [two_kinds_scene(rng, size) for _ in range(count)]


def _place(rng: np.random.Generator, noise: NoiseMaker, canvas: Canvas) -> None:
    """Put down cells and rods until enough of the image is covered."""
    look = Look(
        level=1.0,
        jitter=0.13,
        profile="dome",
        rim=1.0,
        core=1.0,
        edge=1.0,
        cover=1.0,
        texture=noise.band(5 * noise.unit, 0.8).ravel(),
        grain=0.06,
    )
    goal = float(rng.uniform(0.12, 0.26)) * canvas.size**2 / 2
    areas = [0, 0]
    failures = 0
    # whichever covers less comes next: the areas end up within one object
    while min(areas) < goal and failures < 200:
        kind = 0 if areas[0] <= areas[1] else 1
        shape = _draw(rng, kind, noise.unit, canvas.size)
        if not canvas.free(shape, 0.0, CLEARANCE):
            failures += 1
            continue
        canvas.lay(rng, shape, look, kind + 1, kind + 1)
        areas[kind] += int((shape.depth > 0).sum())


def _draw(rng: np.random.Generator, kind: int, unit: float, size: int) -> Shape:
    """Return a cell (0) or a rod (1) anywhere in the image."""
    row, column = rng.uniform(0.02 * size, 0.98 * size, 2).tolist()
    if kind == 0:
        radius = float(rng.uniform(9, 16)) * unit
        stretch = float(rng.uniform(1, 1.15))
        cell = blob(rng, (row, column), radius, stretch, 0.03, size)
        # as flat on top as a rod: beyond a few pixels the depth does not count
        return Shape(cell.index, cell.depth, min(cell.radius, 3 * unit))
    return rod(
        float(rng.uniform(0, np.pi)),
        (row, column),
        float(rng.uniform(30, 50)) * unit,
        float(rng.uniform(5, 7)) * unit,
        float(rng.uniform(-0.06, 0.06)),
        0.0,
        size,
    )


def _equally_bright(canvas: Canvas, sigma: float) -> FloatArray:
    """Return the blurred brightness, the kinds made equally bright after the blur.

    The blur takes more from a thin rod than from a cell.
    """
    shape = (canvas.size, canvas.size)
    halves = []
    for kind in (1, 2):
        own = np.where(canvas.paints == kind, canvas.signal, np.float32(0))
        halves.append(blurred(own.reshape(shape), sigma))
    kinds = canvas.kinds.reshape(shape)
    cells, rods = (
        float(half[kinds == kind].mean()) for kind, half in enumerate(halves, 1)
    )
    both: FloatArray = halves[0] + halves[1] * np.float32(cells / rods)
    return both
