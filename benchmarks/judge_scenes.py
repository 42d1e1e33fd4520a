"""Images to train the judge on: training images of real sets, and generated scenes.

Of the real sets only images that `nano` was trained on too. Generated ones hold what
these lack: rings, worms, organs with something inside, large and small things.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from promptable import SETS, objects_of
from scipy import ndimage

from napari_medseg.io.images import read_annotation, read_image
from napari_medseg.io.normalise import Normalisation, normalise
from napari_medseg.models.framing import resize
from napari_medseg.samples import mixed_scene, two_kinds_scene
from napari_medseg.training.pack import is_held_out

REAL = ("dsb2018_nuclei", "usiigaci_phase_contrast", "bubil_multiannotator")
"""Sets whose training images are asked about."""

MADE = ("mixed", "organs", "two_kinds")
"""Sorts of generated scenes."""

SEED = 770_000
"""Of the generated scenes; no other benchmark uses seeds from here on."""


@dataclass(frozen=True)
class Scenery:
    """An image ``float32 (3, Y, X)`` in [0, 1] and the ids of its objects."""

    image: NDArray[np.float32]
    ids: NDArray[np.int64]


def real(folder: Path, index: int) -> Scenery:
    """Return one of the training images of a set."""
    share = SETS[folder.name]
    paths = sorted((folder / "images").iterdir())
    paths = [path for path in paths if not is_held_out(path.stem, share)]
    order = np.random.default_rng(0).permutation(len(paths))
    path = paths[order[index % len(paths)]]
    file = read_image(path)
    usual = Normalisation.for_channels(file.channels, file.rgb)
    image = normalise(file.plane(), usual)
    mask = next((folder / "masks").glob(f"{path.stem}.*"))
    return Scenery(image, objects_of(read_annotation(mask).labels))


def generated(source: str, rng: np.random.Generator) -> Scenery:
    """Return a scene of the package's generators."""
    if source == "organs":
        return organs(rng, int(rng.integers(160, 420)))
    size = int(rng.choice([256, 320, 448]))
    scene = (mixed_scene if source == "mixed" else two_kinds_scene)(rng, size)
    image = np.broadcast_to(scene.image, (3, size, size)).astype(np.float32) / 255
    usual = Normalisation.for_channels(3, rgb=True)
    return Scenery(normalise(image, usual), scene.instances.astype(np.int64))


def smooth(rng: np.random.Generator, size: int, sigma: float) -> NDArray[np.float32]:
    """Return smooth noise of unit variance."""
    noise = ndimage.gaussian_filter(rng.standard_normal((size, size)), sigma)
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def organs(rng: np.random.Generator, size: int) -> Scenery:
    """Return a body with organs in it, some with a wall or with something inside.

    Grey, blurred, of low contrast, as of X-rays, tomography and photographs.
    """
    grid = np.mgrid[:size, :size] / size
    warp = rng.uniform(0.01, 0.06)
    bent = grid + warp * np.stack([smooth(rng, size, size / 8) for _ in range(2)])

    def blob(row: float, column: float, radius: float) -> NDArray[np.float64]:
        """Return how deep each pixel lies in a bent ellipse, 1 in its middle."""
        turn, ratio = rng.uniform(0, np.pi), rng.uniform(0.5, 1.0)
        down, across = bent[0] - row, bent[1] - column
        along = down * np.cos(turn) + across * np.sin(turn)
        beside = down * np.sin(turn) - across * np.cos(turn)
        return 1 - np.hypot(along, beside / ratio) / radius

    picture = rng.uniform(0, 0.4) + rng.uniform(0, 0.05) * smooth(rng, size, size / 6)
    ids = np.zeros((size, size), np.int64)
    body = blob(0.5, 0.5, rng.uniform(0.4, 0.9))
    picture = np.where(body > 0, picture + rng.uniform(-0.3, 0.4), picture)
    for _ in range(int(rng.integers(1, 7))):
        depth = blob(*rng.uniform(0.15, 0.85, 2), np.exp(rng.uniform(-3.2, -0.9)))
        free = (depth > 0) & (ids == 0)
        if free.sum() < 0.7 * (depth > 0).sum():
            continue
        level = rng.choice([-1, 1]) * rng.uniform(0.08, 0.4)
        sort, inner = rng.random(), depth > rng.uniform(0.25, 0.6)
        grain = rng.uniform(0, 0.06) * smooth(rng, size, rng.uniform(1, 6))
        picture = np.where(free, picture + level + grain, picture)
        ids[free] = ids.max() + 1
        if sort < 0.35:
            # a wall, or something else, round what is inside
            picture = np.where(
                free & inner, picture - level * rng.uniform(0.5, 2), picture
            )
            ids[free & inner] = ids.max() + 1
    picture = ndimage.gaussian_filter(picture, rng.uniform(0.5, size / 120))
    picture += rng.uniform(0.0, 0.08) * smooth(rng, size, rng.uniform(0.3, 1.5))
    picture += rng.uniform(0, 0.1) * smooth(rng, size, size / 4)
    planes = np.repeat(picture[None], 3, axis=0).astype(np.float32)
    if rng.random() < 0.25:
        planes = planes * rng.uniform(0.4, 1.0, (3, 1, 1)).astype(np.float32)
    planes = (planes - planes.min()) / np.ptp(planes)
    return Scenery(normalise(planes, Normalisation.for_channels(3, rgb=True)), ids)


def cropped(scenery: Scenery, rng: np.random.Generator, share: float) -> Scenery:
    """Return a piece of an image round an object, magnified now and then."""
    shape = np.array(scenery.ids.shape)
    rows, columns = np.nonzero(scenery.ids)
    if not len(rows):
        return scenery
    pick = rng.integers(len(rows))
    sides = np.maximum(48, (shape * share).astype(int)).clip(max=shape)
    middle = np.array([rows[pick], columns[pick]])
    start = middle - (sides * rng.uniform(0.2, 0.8, 2)).astype(int)
    top, left = start.clip(0, shape - sides)
    part = np.s_[top : top + sides[0], left : left + sides[1]]
    image, ids = scenery.image[:, *part], scenery.ids[part]
    factor = rng.uniform(1.0, 1.0 / share) if rng.random() < 0.7 else 1.0
    height, width = (max(8, round(side * factor)) for side in sides)
    planes = resize(
        torch.from_numpy(np.ascontiguousarray(image))[None], (height, width)
    )
    down = np.minimum((np.arange(height) + 0.5) / factor, sides[0] - 1).astype(int)
    across = np.minimum((np.arange(width) + 0.5) / factor, sides[1] - 1).astype(int)
    return Scenery(planes[0].numpy(), ids[down][:, across])


def scenery_of(data: Path, source: str, index: int) -> Scenery:
    """Return the image of a source's number, whole or a piece of it."""
    rng = np.random.default_rng((SEED, len(source), index))
    made = source not in REAL
    scenery = generated(source, rng) if made else real(data / source, index)
    chance = {"mixed": 0.6, "two_kinds": 0.4, "organs": 0.3}.get(source, 0.4)
    if rng.random() < chance:
        low = 0.2 if made else 0.35
        scenery = cropped(scenery, rng, float(rng.uniform(low, 0.9)))
    return scenery
