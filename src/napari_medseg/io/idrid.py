"""The folders of IDRiD: fundus photographs, with a mask for each kind of lesion.

The layout is that of the Indian Diabetic Retinopathy Image Dataset (Porwal et al., Data
2018), part A: ``1. Original Images`` and ``2. All Segmentation Groundtruths``, in both
``a. Training Set`` and ``b. Testing Set``; masks lie in a folder a kind and end in its
two letters, ``IDRiD_01_MA.tif``. A mask that is not there means that nothing is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg._types import InputError
from napari_medseg.io.images import read_image
from napari_medseg.io.pair_set import Pair, Pairs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_medseg._labels import BoolArray
    from napari_medseg._types import FloatArray

LAYOUT = "idrid"
"""Name of the layout in commands and run files."""

IMAGES = "1. Original Images"

MASKS = "2. All Segmentation Groundtruths"

TRAINING = "a. Training Set"

TESTING = "b. Testing Set"

ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff")


@dataclass(frozen=True)
class _Kind:
    """A kind of lesion: its folder, the letters of its masks, its name."""

    folder: str
    letters: str
    name: str


KINDS = (
    _Kind("1. Microaneurysms", "MA", "microaneurysms"),
    _Kind("2. Haemorrhages", "HE", "haemorrhages"),
    _Kind("3. Hard Exudates", "EX", "hard exudates"),
    _Kind("4. Soft Exudates", "SE", "soft exudates"),
    _Kind("5. Optic Disc", "OD", "optic disc"),
)
"""What is annotated; the place in the list, from 1, is the class."""

UPPERMOST = (5, 2, 3, 4, 1)
"""The order in which classes are painted where one label a pixel is needed."""


@dataclass(frozen=True)
class Truth:
    """The masks of an image, which are read when they are asked for.

    Attributes
    ----------
    image : Path
        The image.
    part : str
        Which of the sets it is in.
    folders : mapping of int to Path
        Where the masks of each class lie, of those that have any in this set.
    """

    image: Path
    part: str
    folders: Mapping[int, Path]

    def mask(self, value: int, shape: tuple[int, ...]) -> BoolArray:
        """Read the mask of a class.

        Parameters
        ----------
        value : int
            The class; one of `folders`.
        shape : tuple of int
            Height and width of the image.

        Returns
        -------
        ndarray
            ``bool (Y, X)``; nothing where there is no such mask.

        Raises
        ------
        InputError
            The file is of another size, or damaged.
        """
        return _mask(self.image, self.folders[value], value, shape)


def read_truths(root: Path) -> dict[str, Truth]:
    """Find the annotations of all images of a folder of this layout, both sets.

    Parameters
    ----------
    root : Path
        As for `read_idrid`.

    Returns
    -------
    dict of str to Truth
        By the image's name without ending.

    Raises
    ------
    InputError
        The folders are not there, or hold no mask or no image.
    """
    refused = None
    found: dict[str, Truth] = {}
    for part in (TRAINING, TESTING):
        try:
            folders, paths = _contents(root, part)
        except InputError as error:
            refused = refused or error
            continue
        found |= {path.stem: Truth(path, part, folders) for path in paths}
    if not found and refused is not None:
        raise refused
    return found


def read_idrid(root: Path, part: str = TRAINING) -> Pairs:
    """Read the annotated images of a folder of this layout.

    Parameters
    ----------
    root : Path
        The folder that holds ``1. Original Images``, or the one around it.
    part : str
        Which of the sets.

    Returns
    -------
    Pairs
        With `Pair.layers`, as lesions overlap; classes without any mask are left out.

    Raises
    ------
    InputError
        The folders are not there, or a file cannot be used.
    """
    folders, paths = _contents(root, part)
    values = list(folders)
    classes = (0, *values)
    pairs = tuple(_pair(path, folders, classes) for path in paths)
    names = ("background", *(KINDS[value - 1].name for value in values))
    return Pairs(pairs, "dense", classes, class_names=names)


def _contents(root: Path, part: str) -> tuple[dict[int, Path], list[Path]]:
    """Return where the masks of each class lie that has any, and the images."""
    base = _base(root, part)
    folders = {
        value: base / MASKS / part / kind.folder for value, kind in enumerate(KINDS, 1)
    }
    values = [value for value, folder in folders.items() if _any_mask(folder)]
    if not values:
        raise InputError(
            f"{base / MASKS / part} holds no mask. Its folders must be called "
            f"{KINDS[0].folder}, …, and masks such as IDRiD_01_MA.tif."
        )
    paths = sorted(
        path for path in (base / IMAGES / part).iterdir() if _is_picture(path)
    )
    if not paths:
        raise InputError(f"{base / IMAGES / part} holds no image.")
    return {value: folders[value] for value in values}, paths


def _base(root: Path, part: str) -> Path:
    """Return the folder in which images and masks lie."""
    around = sorted(root.glob(f"*/{IMAGES}")) if root.is_dir() else []
    for base in (root, *(path.parent for path in around)):
        if (base / IMAGES / part).is_dir() and (base / MASKS / part).is_dir():
            return base
    raise InputError(
        f"{root} has not the folders of IDRiD: {IMAGES}/{part} and {MASKS}/{part} are "
        "looked for. Give the folder that was unpacked."
    )


def _any_mask(folder: Path) -> bool:
    """Tell whether a folder of masks holds one."""
    return folder.is_dir() and any(map(_is_picture, folder.iterdir()))


def _is_picture(path: Path) -> bool:
    """Tell whether a path is a picture by its name; macOS puts hidden files beside."""
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".")


def _pair(path: Path, folders: dict[int, Path], classes: tuple[int, ...]) -> Pair:
    """Read an image with its masks."""
    image = _pixels(path)
    if len(image) < 3:
        raise InputError(f"{path} is no colour image, as those of IDRiD are.")
    layers = np.stack(
        [_mask(path, folders[value], value, image.shape[1:]) for value in classes[1:]]
    )
    labels = np.zeros(image.shape[1:], np.int32)
    for value in UPPERMOST:
        if value in classes:
            labels[layers[classes.index(value) - 1]] = value
    return Pair(
        path.stem,
        image[:3],
        labels,
        path,
        class_values=classes,
        rgb=True,
        layers=layers,
    )


def _mask(
    image: Path, folder: Path, value: int, shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Read the mask of a kind of lesion; nothing where there is none."""
    wanted = f"{image.stem}_{KINDS[value - 1].letters}"
    found = [folder / f"{wanted}{ending}" for ending in ENDINGS]
    path = next((each for each in found if each.is_file()), None)
    if path is None:
        return np.zeros(shape, bool)
    # of red, green, blue and opacity the last says nothing
    mask: NDArray[np.bool_] = _pixels(path)[:3].max(axis=0) > 0
    if mask.shape != shape:
        raise InputError(
            f"{path} has {mask.shape[0]} × {mask.shape[1]} pixels, and its image "
            f"{shape[0]} × {shape[1]}. Give the mask of this image."
        )
    return mask


def _pixels(path: Path) -> FloatArray:
    """Read the one plane of an image."""
    planes = [plane for _, plane in read_image(path).slices()]
    if len(planes) != 1:
        raise InputError(f"{path} is a stack; a single image is needed.")
    return planes[0]
