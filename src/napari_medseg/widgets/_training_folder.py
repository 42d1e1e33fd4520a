"""The images that a model is tuned on, and what is added to them by reviewing."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_medseg._types import InputError
from napari_medseg.batch.names import refuse_outside
from napari_medseg.io.atomic import atomic_path, temporary_beside
from napari_medseg.io.images import image_files, image_stem
from napari_medseg.io.stems import MASK_ENDINGS

if TYPE_CHECKING:
    from pathlib import Path

RECORD = "medseg-review.json"
"""Beside ``images`` and ``masks``: under which name each accepted image lies there."""


@dataclass(frozen=True, slots=True)
class TrainingFolder:
    """A folder with ``images`` and ``masks``, to which accepted results are added.

    Attributes
    ----------
    path : Path
        The folder; it is made when the first result is accepted.
    """

    path: Path

    @property
    def images(self) -> Path:
        """Folder of the images."""
        return self.path / "images"

    @property
    def masks(self) -> Path:
        """Folder of their masks."""
        return self.path / "masks"

    @property
    def holds_masks(self) -> bool:
        """Whether there is any mask yet."""
        return self.masks.is_dir() and bool(image_files(self.masks))

    def record(self) -> dict[str, str]:
        """Return the name of each accepted image, by where the image came from.

        Raises
        ------
        InputError
            There is a record, but it is damaged.
        """
        place = self.path / RECORD
        try:
            found = json.loads(place.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise _damaged(place) from error
        names = found.get("accepted") if isinstance(found, dict) else None
        if not isinstance(names, dict) or not all(map(_is_name, names.values())):
            raise _damaged(place)
        return names

    def mask(self, stem: str) -> Path:
        """Return where the mask of an accepted image lies."""
        return self.masks / f"{stem}.tif"

    def draft(self, name: str) -> Path:
        """Return where a correction waits that is not accepted yet."""
        place = f"drafts/{name}.tif"
        refuse_outside(self.path, [place])
        return self.path / place

    def add(self, source: Path) -> str:
        """Copy an image into the folder, under a name that nothing there has.

        Parameters
        ----------
        source : Path
            The image. Where it was accepted before, its name stays.

        Returns
        -------
        str
            Its name, without the ending.

        Raises
        ------
        InputError
            It cannot be copied.
        """
        record = self.record()
        key = str(source)
        stem = record.get(key) or self._free(image_stem(source))
        name = f"{stem}{_ending(source)}"
        refuse_outside(self.path, [f"images/{name}", f"masks/{stem}.tif"])
        try:
            if not (self.images / name).exists():
                _copy(source, self.images / name)
            if key not in record:
                self._write(record | {key: stem})
        except OSError as error:
            raise InputError(
                f"{source} cannot be copied to {self.images}: "
                f"{error.strerror or error}. Check the free space and the rights."
            ) from error
        return stem

    def _free(self, wanted: str) -> str:
        """Return a name that no image and no mask has, also but for an ending."""
        folders = (each for each in (self.images, self.masks) if each.is_dir())
        taken = {
            name
            for folder in folders
            for path in image_files(folder)
            for name in _alike(image_stem(path))
        } | {name for stem in self.record().values() for name in _alike(stem)}
        found, number = wanted, 1
        while not taken.isdisjoint(_alike(found)):
            number += 1
            found = f"{wanted} {number}"
        return found

    def _write(self, record: dict[str, str]) -> None:
        text = json.dumps({"accepted": record}, indent=1, ensure_ascii=False)
        with atomic_path(self.path / RECORD) as part:
            part.write_text(text + "\n", encoding="utf-8")


def _alike(stem: str) -> set[str]:
    """Return a name, and that of the image whose mask it could be."""
    plain = stem.casefold()
    ending = next((each for each in MASK_ENDINGS if plain.endswith(each)), "")
    return {plain, plain.removesuffix(ending)} - {""}


def _ending(source: Path) -> str:
    """Return all that follows the name: ``.ome.tif``, say."""
    name = source.name
    before = source.stem
    if before.lower().endswith(".ome"):
        before = before[: -len(".ome")]
    return name[len(before) :]


def _is_name(value: Any) -> bool:
    """Tell whether a value is the name of a file, and no place elsewhere."""
    return isinstance(value, str) and bool(value) and not set(value) & set("/\\\0:")


def _damaged(place: Path) -> InputError:
    return InputError(
        f"{place} says which images were accepted, but cannot be read. Put a good copy "
        "in its place, or remove it: then they are listed as to do again."
    )


def _copy(source: Path, target: Path) -> None:
    """Copy a file, or an image that is a folder, whole or not at all."""
    if source.is_file():
        with atomic_path(target) as part:
            shutil.copyfile(source, part)
        return
    if not source.is_dir():
        raise InputError(
            f"{source} is not a file of its own, so it cannot join the training "
            "images. Save it as a TIFF, and segment that."
        )
    part = temporary_beside(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(source, part)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
