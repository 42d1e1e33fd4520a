"""A network of membranes that encloses cells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg.samples._shapes import MARGIN, Shape
from napari_medseg.samples._style import draw_look
from napari_medseg.samples._things import Easel, between

if TYPE_CHECKING:
    from napari_medseg._types import FloatArray, LabelArray


@dataclass(frozen=True, slots=True, eq=False)
class Tiling:
    """A tiling of the image by cells.

    Attributes
    ----------
    cells : ndarray
        ``int32 (Y * X,)``, the cell of each pixel, 0 to N - 1.
    distance : ndarray
        ``float32 (Y * X,)``, distance in pixels to the nearest border of cells.
    """

    cells: LabelArray
    distance: FloatArray


def tiling(easel: Easel, pitch: float, stretch: float, warp: float) -> Tiling:
    """Return the cells nearest to jittered points, with warped borders.

    Parameters
    ----------
    easel : Easel
        Chance and size.
    pitch : float
        Mean width of a cell in pixels.
    stretch : float
        Height of the cells over their width.
    warp : float
        How far borders are moved, in pixels.

    Returns
    -------
    Tiling
    """
    rng, size = easel.rng, easel.canvas.size
    steps = np.arange(size, dtype=np.float32)
    down = np.repeat(steps[:, None] / stretch, size, axis=1)
    across = np.repeat(steps[None, :], size, axis=0)
    if warp:
        down += warp * easel.noise.smooth(2 * pitch)
        across += warp * easel.noise.smooth(2 * pitch)
    down = (down / pitch).astype(np.float32).ravel()
    across = (across / pitch).astype(np.float32).ravel()
    # a rim of cells beyond the image, so that each pixel has all its neighbours
    first = np.floor([down.min(), across.min()]).astype(np.int64) - 1
    last = np.floor([down.max(), across.max()]).astype(np.int64) + 2
    rows, columns = (last - first).tolist()
    seeds = rng.uniform(0.1, 0.9, (2, rows, columns)).astype(np.float32)
    seeds[0] += np.arange(rows, dtype=np.float32)[:, None] + first[0]
    seeds[1] += np.arange(columns, dtype=np.float32)[None, :] + first[1]
    home = (np.floor(down).astype(np.int64) - first[0]) * columns
    home += np.floor(across).astype(np.int64) - first[1]
    return _nearest(down, across, seeds.reshape(2, -1), home, columns, pitch)


def _nearest(
    down: FloatArray,
    across: FloatArray,
    seeds: FloatArray,
    home: np.ndarray[tuple[int], np.dtype[np.int64]],
    columns: int,
    pitch: float,
) -> Tiling:
    """Return the tiling by the nearest of the nine seeds round each pixel."""
    best = np.full(down.shape, np.inf, np.float32)
    second = best.copy()
    cell = np.zeros(down.shape, np.int64)
    other = cell.copy()
    for shift in (r * columns + c for r in (-1, 0, 1) for c in (-1, 0, 1)):
        seed = home + shift
        square = (seeds[0][seed] - down) ** 2 + (seeds[1][seed] - across) ** 2
        nearer = square < best
        runner = np.where(nearer, best, square)
        rival = np.where(nearer, cell, seed)
        closer = runner < second
        second = np.where(closer, runner, second)
        other = np.where(closer, rival, other)
        best = np.where(nearer, square, best)
        cell = np.where(nearer, seed, cell)
    between = np.hypot(*(seeds[:, cell] - seeds[:, other]))
    distance = (second - best) * np.float32(pitch / 2) / (between + np.float32(1e-6))
    return Tiling(cell.astype(np.int32), distance)


def paint_network(
    easel: Easel, walls: tuple[int, int] | None, cells: tuple[int, int] | None
) -> None:
    """Paint membranes, the cells between them, or both.

    Parameters
    ----------
    easel : Easel
        Canvas and chance.
    walls, cells : tuple of int or None
        Kind and stain of the membranes and of the cells; None leaves them bare.
    """
    rng, canvas = easel.rng, easel.canvas
    pitch = between(rng, 16, 60) * easel.unit
    stretch = float(rng.choice([1.0, 1.0, 1.6, 2.5]))
    tiles = tiling(easel, pitch, stretch, pitch * float(rng.uniform(0, 0.25)))
    thickness = max(min(between(rng, 1.8, 7) * easel.unit, pitch / 4), 1.5)
    if cells:
        _fill(easel, tiles, thickness, *cells)
    look = draw_look(rng, easel.noise, easel.style, easel.ground, ("flat", "dome"))
    look = replace(look, edge=float(rng.choice([1.0, 2.0])))
    if walls or rng.random() < 0.4:
        depth = thickness / 2 - tiles.distance
        index = np.flatnonzero(depth > -MARGIN)
        shape = Shape(index, depth[index], thickness / 2)
        if walls:
            easel.see(look)
            canvas.lay(rng, shape, look, *walls, solid=False)
        else:
            canvas.lay(rng, shape, look, 0, cells[1] + 1 if cells else 0)


def _fill(easel: Easel, tiles: Tiling, thickness: float, kind: int, paint: int) -> None:
    """Paint the cells, each with its own brightness, and label each."""
    rng, canvas = easel.rng, easel.canvas
    look = draw_look(rng, easel.noise, easel.style, easel.ground, ("flat",))
    easel.see(look)
    easel.fill(look)
    count = int(tiles.cells.max()) + 1
    # some cells may be missing, as in a layer that is not yet closed
    present = rng.random(count) < float(rng.choice([1.0, 1.0, 0.8, 0.5]))
    ids = np.where(present, np.cumsum(present), 0).astype(np.int32)
    depth = tiles.distance - thickness / 2
    index = np.flatnonzero((depth > -MARGIN) & present[tiles.cells])
    cell, depth = tiles.cells[index], depth[index]
    level = look.level * (1 + look.jitter * rng.standard_normal(count))
    value = level.astype(np.float32)[cell] + look.grain * look.texture[index]
    alpha = np.clip(depth / look.edge + 0.5, 0, 1)
    below = canvas.signal[index]
    canvas.signal[index] = below + alpha * (value - look.cover * below)
    inside = index[depth > 0]
    canvas.kinds[inside] = kind
    canvas.paints[inside] = paint
    canvas.instances[inside] = canvas.count + ids[tiles.cells[inside]]
    canvas.count += int(ids.max())
