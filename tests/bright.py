"""Folders of squares, and segmenters that take no time to find them.

Processes of a pool import this module by its name: what they open lies here.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_medseg._types import (
    FloatArray,
    InputError,
    JobError,
    LabelClass,
    Prediction,
    default_classes,
    finish,
)
from napari_medseg.batch import LEDGER, PROVENANCE, BatchReport, segment_files
from napari_medseg.batch._parts import COCO, OBJECTS, THUMBNAIL, part_path
from napari_medseg.io.atomic import temporary_beside
from napari_medseg.io.images import read_annotation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_medseg.batch import BatchSettings

STUMBLE = 99
"""First pixel of images over which segmenters of this module stumble."""


@dataclass
class Bright:
    """Finds what is above a value; stumbles over images that begin with 99."""

    limit: float = 100
    error: Exception = field(default_factory=lambda: JobError("Memory ran out."))
    note: str = ""
    pause: float = 0.0
    seen: int = 0

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        return default_classes(2)

    @property
    def identity(self) -> str:
        return f"bright {self.limit:g}"

    def predict(self, image: FloatArray) -> Prediction:
        self.seen += 1
        time.sleep(self.pause)
        if image[0, 0, 0] == STUMBLE:
            self.stumble()
        found = (image[0] > self.limit).astype(np.float32)
        return Prediction(np.stack([1 - found, found]), self.classes, self.note)

    def stumble(self) -> None:
        raise self.error


class Deadly(Bright):
    """Ends its process where the other stumbles, as the system does without memory."""

    def stumble(self) -> None:
        os._exit(9)


class Halfway(Bright):
    """Ends its process where the other stumbles, once, while it writes ``b``.

    It leaves what a killed process leaves: half a label image, half a table, half a
    picture, half an OME-Zarr folder.
    """

    def __init__(self, out: Path) -> None:
        super().__init__()
        self.out = out

    def stumble(self) -> None:
        died = self.out.with_name("died")
        if died.exists():
            return
        died.touch()
        write_halves(self.out)
        os._exit(9)


def write_halves(out: Path) -> None:
    """Write what a process leaves that is killed while it writes ``b``."""
    for target in (
        out / "b.tif",
        out / "b.geojson",
        *(out / part_path("b", ending) for ending in (OBJECTS, COCO, THUMBNAIL)),
    ):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary_beside(target).write_bytes(b"half")
    folder = temporary_beside(out / "ome-zarr" / "b.ome.zarr")
    (folder / "0").mkdir(parents=True)
    (folder / "0" / "0.0").write_bytes(b"half")
    temporary_beside(out / "b.tif", "scratch").mkdir()


def open_halfway(settings: BatchSettings) -> Halfway:
    """Open ``halfway OUT``."""
    return Halfway(Path(settings.model.split(maxsplit=1)[1]))


def open_bright(settings: BatchSettings) -> Bright:
    """Open ``bright``, or ``bright LIMIT``, or ``bright LIMIT PAUSE``."""
    numbers = [float(word) for word in settings.model.split()[1:]]
    limit = numbers[0] if numbers else 100.0
    return Bright(limit, pause=numbers[1] if numbers[1:] else 0.0)


def open_nothing(settings: BatchSettings) -> Bright:
    """Refuse to open anything."""
    raise InputError(f"{settings.model} is not there.")


def open_deadly(settings: BatchSettings) -> Bright:
    """Open the segmenter that ends its process."""
    return Deadly()


def square(start: int) -> np.ndarray:
    """Return a dark image with a bright square."""
    image = np.full((20, 30), 10, np.uint8)
    image[5:15, start : start + 10] = 200
    return image


def save(path: Path, image: np.ndarray) -> Path:
    """Write an image, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, image, photometric="minisblack")
    return path


def save_squares(folder: Path, count: int = 3) -> Path:
    """Write so many images with a square each, ``a.tif`` or ``000.tif`` first."""
    names = "abc" if count == 3 else [f"{index:03d}" for index in range(count)]
    for index, name in enumerate(names):
        save(folder / f"{name}.tif", square(index % 20))
    return folder


def save_noise(folder: Path, count: int, side: int = 96) -> Path:
    """Write images with many objects."""
    rng = np.random.default_rng(0)
    for index in range(count):
        image = rng.integers(0, 255, (side, side), np.uint8)
        save(folder / f"{index:02d}.tif", image)
    return folder


def segment(images: Path, out: Path, model: Bright, **options: Any) -> BatchReport:
    """Segment a folder in this process."""
    return finish(segment_files([images], model, out, **options))


def names(paths: Iterable[str]) -> list[str]:
    """Return the names of files without their folders."""
    return [Path(path).name for path in paths]


def label_files(out: Path) -> list[str]:
    """Return the label images of an output folder, and whatever is half done."""
    found = [*out.rglob("*.tif"), *out.rglob(".*.part*")]
    return sorted(path.relative_to(out).as_posix() for path in found)


def halves_in(out: Path) -> list[str]:
    """Return what is half done in an output folder: hidden, but not on purpose."""
    hidden = [path for path in out.rglob(".*") if not path.name.startswith(".z")]
    names = {path.relative_to(out).as_posix() for path in hidden}
    return sorted(names - {".medseg", ".medseg.lock"})


def labels_in(out: Path) -> dict[str, np.ndarray]:
    """Return the labels of an output folder by name."""
    return {name: read_annotation(out / name).labels for name in label_files(out)}


def same_labels(one: Path, other: Path) -> bool:
    """Tell whether two output folders hold the same labels."""
    first, second = labels_in(one), labels_in(other)
    return first.keys() == second.keys() and all(
        np.array_equal(first[name], second[name]) for name in first
    )


DATED = (LEDGER, PROVENANCE, "report.html")
"""Files of an output folder that hold dates and times."""


def same_results(one: Path, other: Path) -> bool:
    """Tell whether two runs wrote the same: labels, exports, tables, hidden parts."""
    first, second = (
        {
            path.relative_to(out).as_posix(): _content(path)
            for path in out.rglob("*")
            if path.is_file() and not path.name.startswith((*DATED, ".medseg.lock"))
        }
        for out in (one, other)
    )
    assert first.keys() == second.keys()
    return all(np.array_equal(first[name], second[name]) for name in first)


def _content(path: Path) -> Any:
    """Return the pixels of a TIFF, which has a number of its own, or else the bytes."""
    if path.suffix in (".tif", ".tiff"):
        return tifffile.imread(path)
    return np.frombuffer(path.read_bytes(), np.uint8)


def coco_of(out: Path) -> Any:
    """Return the COCO file of an output folder."""
    return json.loads((out / "coco.json").read_text(encoding="utf-8"))


def provenance_of(out: Path) -> Any:
    """Return what the provenance file says."""
    return json.loads((out / PROVENANCE).read_text(encoding="utf-8"))
