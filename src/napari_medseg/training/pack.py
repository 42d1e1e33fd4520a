"""Packs: training crops in one array file, made before a long training.

A pack holds crops around objects from folders of pairs, and generated scenes, all of
one size and in 8 bits, with the ids of their objects and, for generated ones, their
kinds. It travels to another machine as one compressed file, and gives the batches of
the ``promptable`` objective, each of which depends on seed and step alone.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from napari_medseg._types import InputError
from napari_medseg.io.atomic import atomic_path
from napari_medseg.models.framing import resize
from napari_medseg.models.sam import standardise
from napari_medseg.samples import KINDS, make_two_kinds, mixed_scene
from napari_medseg.training.augment import (
    random_affine,
    random_intensity,
    random_margin,
)
from napari_medseg.training.promptable import PromptableBatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_medseg.samples import Scene

CROP = 320
"""Side of a crop, in pixels."""


_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy raises for files that are not the archive it expects."""


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """A square cut out of a training image.

    Attributes
    ----------
    image : ndarray
        ``uint8 (3, CROP, CROP)``.
    ids : ndarray
        ``uint16 (CROP, CROP)``, 0 background.
    kinds : ndarray
        ``uint8 (CROP, CROP)``, index + 1 into `KINDS`, 0 where there is no name.
    """

    image: NDArray[np.uint8]
    ids: NDArray[np.uint16]
    kinds: NDArray[np.uint8]


def is_held_out(name: str, share: float = 0.25) -> bool:
    """Tell whether an image is kept from training, by its name alone.

    Parameters
    ----------
    name : str
        Stem of the file.
    share : float
        Share of names held out.

    Returns
    -------
    bool
        The same for the same name at every run.
    """
    first = hashlib.sha256(name.encode()).digest()[0]
    return first < 256 * share


def crops_of_pair(
    image: NDArray[np.float32],
    ids: NDArray[np.int32],
    side: int,
    count: int,
    rng: np.random.Generator,
) -> list[Crop]:
    """Cut crops around objects of an annotated image.

    Parameters
    ----------
    image : ndarray
        ``float32 (3, Y, X)`` in [0, 1].
    ids : ndarray
        ``int32 (Y, X)``, 0 background, each object an id.
    side : int
        The image is first resized so that its longest side has so many pixels.
    count : int
        Crops to cut.
    rng : Generator
        Source of randomness.

    Returns
    -------
    list of Crop
        Smaller images are mirrored at their edges to fill a crop.
    """
    factor = side / max(ids.shape)
    height, width = (max(8, round(length * factor)) for length in ids.shape)
    shape = (height, width)
    planes = resize(torch.from_numpy(image)[None], shape)[0].numpy()
    small = (planes.clip(0, 1) * 255).astype(np.uint8)
    whole = torch.from_numpy(ids.astype(np.float32))[None, None]
    labels = functional.interpolate(whole, size=shape, mode="nearest-exact")[0, 0]
    margin = [(0, max(0, CROP - length)) for length in shape]
    small = np.pad(small, [(0, 0), *margin], mode="symmetric")
    numbered = np.pad(labels.numpy().astype(np.uint16), margin, mode="symmetric")
    rows, columns = np.nonzero(numbered)
    crops = []
    for _ in range(count):
        corner = []
        pick = rng.integers(len(rows)) if len(rows) else 0
        for place, length in zip((rows, columns), numbered.shape, strict=True):
            centre = place[pick] if len(rows) else length // 2
            start = int(centre) - int(rng.integers(CROP // 4, 3 * CROP // 4))
            corner.append(int(np.clip(start, 0, length - CROP)))
        cut = tuple(slice(start, start + CROP) for start in corner)
        kinds = np.zeros((CROP, CROP), np.uint8)
        crops.append(Crop(small[:, *cut].copy(), numbered[cut].copy(), kinds))
    return crops


TWO_KINDS_AS = {"round cell": "blob", "rod": "rod"}
"""Which of `KINDS` the two kinds of the demo's scenes are."""


def two_kinds_crops(count: int, seed: int) -> Iterable[Crop]:
    """Generate scenes of round cells and rods, told apart by shape alone.

    Parameters
    ----------
    count : int
        How many.
    seed : int
        Of the generator; the demo uses those below 1000.

    Yields
    ------
    Crop
        A generated crop.
    """
    for scene in make_two_kinds(count, seed, CROP):
        yield _crop_of(replace(scene, kind_names=tuple(TWO_KINDS_AS.values())))


def generated_crops(count: int, seed: int) -> Iterable[Crop]:
    """Generate scenes of several kinds of objects.

    Parameters
    ----------
    count : int
        How many.
    seed : int
        Of the generator.

    Yields
    ------
    Crop
        A generated crop.
    """
    for index in range(count):
        yield _crop_of(mixed_scene(np.random.default_rng((seed, index)), CROP))


def _crop_of(scene: Scene) -> Crop:
    """Return a generated scene as a crop."""
    names = scene.kind_names
    table = np.zeros(len(names) + 1, np.uint8)
    table[1:] = [_kind_number(name, names) for name in names]
    image = np.broadcast_to(scene.image, (3, CROP, CROP))
    return Crop(
        np.ascontiguousarray(image),
        scene.instances.astype(np.uint16),
        table[scene.kinds],
    )


def _kind_number(name: str, names: Sequence[str]) -> int:
    """Return index + 1 into `KINDS`, or 0 where two kinds share the name's sort."""
    return KINDS.index(name) + 1 if name in KINDS and f"{name} 2" not in names else 0


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """Training crops.

    Attributes
    ----------
    images : ndarray
        ``uint8 (N, 3, CROP, CROP)``.
    ids : ndarray
        ``uint16 (N, CROP, CROP)``.
    kinds : ndarray
        ``uint8 (N, CROP, CROP)``.
    source : ndarray
        ``uint8 (N,)``, index into ``names``.
    names : tuple of str
        Names of the sources, such as data sets.
    """

    images: NDArray[np.uint8]
    ids: NDArray[np.uint16]
    kinds: NDArray[np.uint8]
    source: NDArray[np.uint8]
    names: tuple[str, ...]

    @classmethod
    def from_crops(cls, sources: Sequence[tuple[str, Sequence[Crop]]]) -> Pack:
        """Put the crops of named sources into one pack."""
        crops = [crop for _, group in sources for crop in group]
        index = [i for i, (_, group) in enumerate(sources) for _ in group]
        return cls(
            np.stack([crop.image for crop in crops]),
            np.stack([crop.ids for crop in crops]),
            np.stack([crop.kinds for crop in crops]),
            np.array(index, np.uint8),
            tuple(name for name, _ in sources),
        )

    def save(self, path: Path) -> None:
        """Write the pack; grey crops are stored with one channel."""
        grey = np.array([bool((crop == crop[:1]).all()) for crop in self.images])
        with atomic_path(path) as part:
            np.savez_compressed(
                part,
                first=self.images[:, 0],
                colours=self.images[~grey, 1:],
                grey=grey,
                ids=self.ids,
                kinds=self.kinds,
                source=self.source,
                names=np.array(self.names),
            )

    @classmethod
    def load(cls, path: Path) -> Pack:
        """Read a pack.

        Raises
        ------
        InputError
            The file is not a pack.
        """
        try:
            # numpy leaves a damaged file open that it has opened itself
            with path.open("rb") as stream, np.load(stream) as file:
                images = np.repeat(file["first"][:, None], 3, axis=1)
                images[~file["grey"], 1:] = file["colours"]
                names = tuple(str(name) for name in file["names"])
                return cls(images, file["ids"], file["kinds"], file["source"], names)
        except _UNREADABLE as error:
            raise InputError(
                f"{path} is not a pack of training crops; make it again."
            ) from error


@dataclass(frozen=True, slots=True)
class BatchShape:
    """One shape of a batch.

    Attributes
    ----------
    images : int
        Images a batch.
    size : int
        Side of the crops, in pixels of the working image.
    zoom : tuple of float
        Range of magnifications; larger crops need larger ones to be filled.
    share : float
        How often this shape is drawn, beside the others.
    """

    images: int
    size: int
    zoom: tuple[float, float] = (0.6, 1.7)
    share: float = 1.0


class PackBatches:
    """Batches of the ``promptable`` objective, out of a pack.

    Parameters
    ----------
    pack : Pack
        The crops.
    weights : sequence of float
        How often each source is drawn.
    shapes : sequence of BatchShape
        One is drawn for each step: many small crops, or a few large ones with the
        objects that small crops cannot hold.
    seed : int
        Of everything drawn.
    """

    def __init__(
        self,
        pack: Pack,
        weights: Sequence[float],
        shapes: Sequence[BatchShape],
        seed: int,
    ) -> None:
        self.pack = pack
        self.shapes = tuple(shapes)
        self.seed = seed
        counts = np.bincount(pack.source, minlength=len(pack.names))
        share = np.asarray(weights, float) / np.maximum(counts, 1)
        each = share[pack.source]
        self.probabilities = each / each.sum()
        wanted = np.array([shape.share for shape in self.shapes], float)
        self.shares = wanted / wanted.sum()

    def __call__(self, step: int) -> PromptableBatch:
        """Return the batch of a step."""
        rng = np.random.default_rng((self.seed, step))
        shape = self.shapes[rng.choice(len(self.shapes), p=self.shares)]
        pick = rng.choice(len(self.probabilities), shape.images, p=self.probabilities)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        images = torch.from_numpy(self.pack.images[pick]).float() / 255.0
        maps = np.stack([self.pack.ids[pick], self.pack.kinds[pick]], axis=1)
        warped = random_affine(
            images,
            torch.from_numpy(maps.astype(np.int64)),
            shape.size,
            generator,
            shape.zoom,
        )
        changed = random_intensity(warped.images, generator)
        changed = stretch(changed)
        inputs, valid = random_margin(standardise(changed), generator)
        known = valid.long()
        return PromptableBatch(
            inputs,
            changed.mean(dim=1, keepdim=True),
            warped.maps[:, 0] * known,
            warped.maps[:, 1] * known,
            valid,
            torch.tensor(int(rng.integers(2**62))),
        )


def stretch(images: torch.Tensor) -> torch.Tensor:
    """Stretch each image between its 1st and 99th percentile, to [0, 1].

    Parameters
    ----------
    images : Tensor
        ``(B, 3, H, W)``.

    Returns
    -------
    Tensor
        The same shape.
    """
    flat = images.flatten(1)[:, ::7].sort(dim=1).values
    count = flat.shape[1]
    low = flat[:, round(0.01 * (count - 1))].view(-1, 1, 1, 1)
    high = flat[:, round(0.99 * (count - 1))].view(-1, 1, 1, 1)
    return ((images - low) / (high - low).clamp(min=1e-3)).clamp(0, 1)
