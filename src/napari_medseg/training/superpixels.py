"""Superpixels of images: found by SLIC in processes of their own, kept on the disk.

SLIC: Achanta et al., IEEE TPAMI 34, 2012, as scikit-image has it. The processes that
are started import this module, so there is no torch here.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from skimage.segmentation import slic

from napari_medseg._types import JobError, Progress
from napari_medseg.io.atomic import atomic_path
from napari_medseg.io.disk_room import make_room

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_medseg._types import Job, LabelArray

DISK_BYTES = 2 * 1024**3
"""Superpixels kept on disk, at most; those unused for longest go first."""

FEW = 4
"""So many images are done here; starting processes would take longer."""

MOST_WORKERS = 8
"""Processes, where nobody said how many."""


@dataclass(frozen=True)
class Slic:
    """How superpixels are found.

    Attributes
    ----------
    side : int
        Side of a superpixel in pixels; there are as many as squares of that side.
    compactness : float
        Of SLIC: distance against lightness (of 0 to 100).
    """

    side: int
    compactness: float = 10.0

    def find(self, image: NDArray[np.uint8]) -> LabelArray:
        """Find the superpixels of an image.

        Parameters
        ----------
        image : ndarray
            ``uint8 (C, Y, X)``; three channels are taken as colours, of any other
            number the mean.

        Returns
        -------
        ndarray
            ``int32 (Y, X)``, from 0 without gaps.
        """
        count, rows, columns = image.shape
        colours = image if count == 3 else image.mean(axis=0, keepdims=True)
        shown = np.broadcast_to(colours, (3, rows, columns)) / 255.0
        pieces = max(1, round(rows * columns / self.side**2))
        found = slic(
            np.moveaxis(shown, 0, -1),
            n_segments=pieces,
            compactness=self.compactness,
            start_label=0,
        )
        _, inverse = np.unique(found, return_inverse=True)
        result: LabelArray = inverse.reshape(rows, columns).astype(np.int32)
        return result

    def key(self, image: NDArray[np.uint8]) -> str:
        """Return what the superpixels of an image depend on, as a SHA-256."""
        made = f"{self} {version('scikit-image')} {image.shape}"
        digest = hashlib.sha256(made.encode())
        digest.update(np.ascontiguousarray(image).data)
        return digest.hexdigest()


class SuperpixelCache:
    """Superpixels by what they depend on.

    Parameters
    ----------
    folder : Path, optional
        Where to keep them; None keeps nothing.
    disk_bytes : int
        Limit; what was not used for longest is dropped.
    """

    def __init__(self, folder: Path | None, disk_bytes: int = DISK_BYTES) -> None:
        self.folder = folder
        self.disk_bytes = disk_bytes

    def get(self, key: str, shape: tuple[int, int]) -> LabelArray | None:
        """Return superpixels ``int32 (Y, X)``, or None where they are not here."""
        if self.folder is None:
            return None
        path = self.folder / f"{key}.npz"
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                found: NDArray[Any] = kept["superpixels"]
            path.touch()
        except FileNotFoundError:
            return None
        # numpy answers damaged bytes with almost any exception there is
        except Exception:
            found = np.zeros(0)
        if found.shape != shape or found.dtype != np.int32 or found.min() < 0:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        return found

    def put(self, key: str, found: LabelArray) -> None:
        """Keep superpixels."""
        if self.folder is None:
            return
        # a disk that is full or cannot be written only means finding them again
        with suppress(OSError):
            with atomic_path(self.folder / f"{key}.npz") as path:
                np.savez_compressed(path, superpixels=found)
            make_room(self.folder, "*.npz", self.disk_bytes)


def find_all(
    images: Sequence[NDArray[np.uint8]],
    settings: Slic,
    cache: SuperpixelCache,
    workers: int | None = None,
) -> Job[list[LabelArray]]:
    """Find the superpixels of many images.

    Parameters
    ----------
    images : sequence of ndarray
        ``uint8 (C, Y, X)``.
    settings : Slic
        How.
    cache : SuperpixelCache
        Those that were found before.
    workers : int, optional
        Processes; by default by the cores, and none for a few images.

    Yields
    ------
    Progress
        One an image.

    Returns
    -------
    list of ndarray
        ``int32 (Y, X)`` of each image.

    Raises
    ------
    JobError
        The processes were ended from outside.
    """
    keys = [settings.key(image) for image in images]
    found: dict[int, LabelArray] = {}
    for index, (key, image) in enumerate(zip(keys, images, strict=True)):
        known = cache.get(key, (image.shape[1], image.shape[2]))
        if known is not None:
            found[index] = known
    missing = [index for index in range(len(images)) if index not in found]
    total, told = len(images), "finding superpixels"
    yield Progress(len(found), total, told)
    count = min(workers or _usual(), len(missing))
    if count <= 1 or (workers is None and len(missing) <= FEW):
        for index in missing:
            found[index] = settings.find(images[index])
            cache.put(keys[index], found[index])
            yield Progress(len(found), total, told)
    else:
        for index, labels in _in_processes(images, missing, settings, count):
            found[index] = labels
            cache.put(keys[index], labels)
            yield Progress(len(found), total, told)
    return [found[index] for index in range(total)]


def _in_processes(
    images: Sequence[NDArray[np.uint8]],
    wanted: Sequence[int],
    settings: Slic,
    count: int,
) -> Any:
    """Give the superpixels of images as they are found, in no order."""
    # a process that is forked beside threads of torch may hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context)
    waiting = iter(wanted)
    running: dict[Any, int] = {}
    try:
        while True:
            # a few at a time, so that the images are not all copied at once
            while len(running) < 2 * count:
                index = next(waiting, None)
                if index is None:
                    break
                running[pool.submit(settings.find, images[index])] = index
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for each in done:
                yield running.pop(each), each.result()
    except BrokenProcessPool as error:
        raise JobError(
            "A process that finds superpixels was ended, probably as memory ran out. "
            "Close other programs, or choose fewer workers."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _usual() -> int:
    """Return how many processes there are where nobody said how many."""
    return max(1, min(MOST_WORKERS, os.cpu_count() or 1))
