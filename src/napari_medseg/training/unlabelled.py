"""Images that nobody annotated, read from a folder to learn from beside the others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg._types import InputError, Job, Progress
from napari_medseg.io.channel_choice import ChannelChoice
from napari_medseg.io.images import image_files, read_image
from napari_medseg.io.normalise import suited
from napari_medseg.io.stems import told_apart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_medseg._types import FloatArray
    from napari_medseg.io.image_file import ImageFile
    from napari_medseg.io.pairs import Pairs

MOST = 256
"""Images, or slices of stacks, that are used; of more, so many are drawn."""

MOST_BYTES = 1024**3 // 2
"""Memory that they may take as they are read; prepared they take up to four times."""

SMALLEST_SIDE = 8
"""Images with fewer rows or columns hold nothing to learn from."""

NAMED = 5
"""Files that could not be used and are named, at most."""


@dataclass(frozen=True)
class Unlabelled:
    """Images without annotation.

    Attributes
    ----------
    names : tuple of str
        Of their files.
    images : tuple of ndarray
        ``float32 (C, Y, X)`` each, with the channels of the annotated ones.
    notes : tuple of str
        Sentences on what was left out.
    """

    names: tuple[str, ...] = ()
    images: tuple[FloatArray, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def digest(self) -> str:
        """SHA-256 over the images, in their order."""
        whole = hashlib.sha256()
        for image in self.images:
            whole.update(_digest(image))
        return whole.hexdigest()

    def check_same(self, wanted: tuple[str, ...]) -> None:
        """Refuse other images than those of the training that is repeated.

        Parameters
        ----------
        wanted : tuple of str
            The digest of a run file; empty where none was done before.

        Raises
        ------
        InputError
            Images were added, taken away or changed since.
        """
        if wanted and wanted != (self.digest,):
            raise InputError(
                "The images without annotation are others than those of the training "
                "that is to be repeated: some were added, taken away or changed. "
                "Bring the folder back, or train anew without the run file."
            )


NONE = Unlabelled()
"""No image without annotation."""


def read_unlabelled(folder: str, pairs: Pairs, seed: int) -> Job[Unlabelled]:
    """Read the images of a folder that are not among the annotated ones.

    Stacks are taken slice by slice. Files whose names end as those of masks do are no
    images. Annotated images are left out, held-out ones too, by what they show: the
    folder may be that of all images.

    Parameters
    ----------
    folder : str
        The folder; folders in it are looked into. Empty for none.
    pairs : Pairs
        The annotated images.
    seed : int
        Of what is drawn where there are more than `MOST`.

    Yields
    ------
    Progress
        One a file.

    Returns
    -------
    Unlabelled
        With a note on files that cannot be used.

    Raises
    ------
    InputError
        The folder is missing, or holds nothing that can be used.
    """
    if not folder:
        return NONE
    files, _ = told_apart(image_files(Path(folder), recursive=True))
    known = {_digest(pair.image) for pair in pairs}
    names: list[str] = []
    images: list[FloatArray] = []
    problems: list[str] = []
    room = MOST_BYTES
    order = np.random.default_rng((seed, 5)).permutation(len(files))
    for done, place in enumerate(order):
        yield Progress(done, len(files), "reading images without annotation")
        if len(images) >= MOST or room <= 0:
            break
        path = files[place]
        try:
            file = ChannelChoice(pairs.shown).of(read_image(path))
            _check_room(path, file, room)
            for image in _slices(file, pairs, seed):
                _check(path, image, pairs)
                if _digest(image) not in known and len(images) < MOST and room > 0:
                    names.append(path.name)
                    images.append(image)
                    room -= image.nbytes
        except InputError as error:
            problems.append(str(error))
    if not images:
        raise InputError(_nothing(folder, len(files), problems))
    notes = (_told(problems),) if problems else ()
    return Unlabelled(tuple(names), tuple(images), notes)


def _slices(file: ImageFile, pairs: Pairs, seed: int) -> Iterator[FloatArray]:
    """Give the slices of a file, those of a stack in an order that is drawn.

    Colours and grey images are made what the annotated images are, before they are
    compared with them.
    """
    seen = pairs.normalisation()
    indices = list(file.indices())
    for place in np.random.default_rng((seed, 6)).permutation(len(indices)):
        image = file.region(indices[place])
        yield suited(image, seen) if file.rgb or len(image) == 1 else image


def _check_room(path: Path, file: ImageFile, room: int) -> None:
    """Refuse an image that is larger than the memory that is left for all."""
    rows, columns = file.size
    if rows * columns * file.channels * np.float32().itemsize > room:
        raise InputError(
            f"{path} has {columns} × {rows} pixels, too many beside the others. Cut it "
            "into pieces, or leave it out."
        )


def _check(path: Path, image: FloatArray, pairs: Pairs) -> None:
    """Refuse an image that the network cannot take, or that shows nothing."""
    wanted, found = pairs.channels, image.shape[0]
    if found != wanted:
        raise InputError(
            f"{path} has {found} channel{'s' * (found != 1)} and the annotated images "
            f"have {wanted}. Save it as they are."
        )
    rows, columns = image.shape[1:]
    if min(rows, columns) < SMALLEST_SIDE:
        raise InputError(f"{path} is only {columns} × {rows} pixels. Leave it out.")
    if np.nanmin(image, initial=np.inf) >= np.nanmax(image, initial=-np.inf):
        raise InputError(f"{path} is constant or empty. Leave it out.")


def _digest(image: FloatArray) -> bytes:
    """Return a SHA-256 of an image and its shape."""
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image, dtype="<f4").data)
    return digest.digest()


def _told(problems: list[str]) -> str:
    more = len(problems) - NAMED
    rest = f" … and {more} more." if more > 0 else ""
    count = len(problems)
    return (
        f"{count} of the files without annotation {'was' if count == 1 else 'were'} "
        f"left out. {' '.join(problems[:NAMED])}{rest}"
    )


def _nothing(folder: str, files: int, problems: list[str]) -> str:
    """Say why a folder gives nothing to learn from."""
    if not files:
        return f"{folder} holds no image. Give the folder of images without annotation."
    if problems:
        return f"No image of {folder} can be used. {' '.join(problems[:NAMED])}"
    return (
        f"All images of {folder} are annotated ones; there is nothing more to learn "
        "from. Add images to it, or leave --unlabelled out."
    )
