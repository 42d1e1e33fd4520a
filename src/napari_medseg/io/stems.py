"""Which mask belongs to which image, told by their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_medseg._types import InputError
from napari_medseg.io.images import image_files, image_stem, inner_folders

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

MASK_ENDINGS = ("_mask", "_masks", "_label", "_labels", "_seg")
"""What the name of a mask may have after the name of its image."""


@dataclass(frozen=True, slots=True)
class Matching:
    """What belongs together in two folders.

    Attributes
    ----------
    pairs : tuple of (Path, Path)
        Images with their masks, sorted by image.
    images : tuple of Path
        Images without a mask.
    masks : tuple of Path
        Masks without an image.
    """

    pairs: tuple[tuple[Path, Path], ...]
    images: tuple[Path, ...]
    masks: tuple[Path, ...]


def match_files(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Match images and masks by their names.

    Parameters
    ----------
    images, masks : Path
        Two folders, in which folders of one name belong together too; or one
        folder, where endings tell masks from images; or one file each.

    Returns
    -------
    list of (Path, Path)
        Image and mask, sorted by image.

    Raises
    ------
    InputError
        A folder is missing, a match is ambiguous, or nothing matches.
    """
    return list(match(images, masks).pairs)


def match(images: Path, masks: Path) -> Matching:
    """Match images and masks, and say what is left over.

    Parameters
    ----------
    images, masks : Path
        As for `match_files`.

    Returns
    -------
    Matching
        At least one pair.

    Raises
    ------
    InputError
        A folder is missing, a match is ambiguous, or nothing matches.
    """
    if is_image(images) and is_image(masks):
        return Matching(((images, masks),), (), ())
    image_paths: list[Path] = []
    mask_paths: list[Path] = []
    pairs: list[tuple[Path, Path]] = []
    alone: list[Path] = []
    lonely: list[Path] = []
    for here, there in shared_folders(images, masks):
        listed, masks_listed = _listed(here), _listed(there)
        if here.resolve() == there.resolve():
            listed, masks_listed = told_apart(listed)
        found, left = masks_of(_unique(listed), masks_listed)
        for image, own in found.items():
            if len(own) > 1:
                raise several_masks(image, own)
            pairs += [(image, mask) for mask in own]
            alone += [] if own else [image]
        image_paths += listed
        mask_paths += masks_listed
        lonely += left
    if not pairs:
        raise _nothing(images, masks, image_paths, mask_paths)
    return Matching(tuple(pairs), tuple(alone), tuple(lonely))


def masks_of(
    by_stem: Mapping[str, Path], masks: Iterable[Path]
) -> tuple[dict[Path, list[Path]], list[Path]]:
    """Give masks to images by their names.

    Parameters
    ----------
    by_stem : mapping of str to Path
        Images by `napari_medseg.io.images.image_stem`.
    masks : iterable of Path
        Masks.

    Returns
    -------
    found : dict of Path to list of Path
        The masks of each image, in the order of the images.
    lonely : list of Path
        Masks without an image.
    """
    found: dict[Path, list[Path]] = {path: [] for path in by_stem.values()}
    lonely = []
    for mask in masks:
        stem = image_stem(mask)
        owner = by_stem.get(stem) or by_stem.get(without_ending(stem))
        if owner is None:
            lonely.append(mask)
        else:
            found[owner].append(mask)
    return found, lonely


def several_masks(image: Path, masks: Sequence[Path]) -> InputError:
    """Say that an image has more than one mask."""
    names = " and ".join(path.name for path in masks)
    return InputError(
        f"{image.name} has several masks in {masks[0].parent}: {names}. Keep one of "
        "them there."
    )


def shared_folders(first: Path, second: Path) -> Iterator[tuple[Path, Path]]:
    """Give two folders, then those of one name that lie in both.

    Parameters
    ----------
    first, second : Path
        The folders; or images, which have none in them.

    Yields
    ------
    tuple of (Path, Path)
        A folder in the first and one in the second.
    """
    yield first, second
    if not (first.is_dir() and second.is_dir()) or first.resolve() == second.resolve():
        return
    names = set(inner_folders(first)) & set(inner_folders(second))
    for name in sorted(names):
        yield from shared_folders(first / name, second / name)


def is_image(path: Path) -> bool:
    """Tell whether a path is one image, a file or a zarr folder."""
    return path.is_file() or (path.is_dir() and path.suffix.lower() == ".zarr")


def _listed(path: Path) -> list[Path]:
    """List a folder; a single image is a list of one."""
    return [path] if is_image(path) else image_files(path)


def without_ending(stem: str) -> str:
    """Return the name of the image that a mask's name speaks of.

    Parameters
    ----------
    stem : str
        Of the name of a mask.

    Returns
    -------
    str
        Without the ending of a mask, if it has one.
    """
    lower = stem.lower()
    for ending in MASK_ENDINGS:
        if lower.endswith(ending) and len(stem) > len(ending):
            return stem[: -len(ending)]
    return stem


def told_apart(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """Split one folder into images and masks by the endings."""
    masks = [path for path in paths if _has_ending(path)]
    return [path for path in paths if not _has_ending(path)], masks


def _has_ending(path: Path) -> bool:
    """Tell whether a name ends as that of a mask."""
    stem = image_stem(path)
    return without_ending(stem) != stem


def _unique(paths: Iterable[Path]) -> dict[str, Path]:
    """Return images by stem, refusing two of one name."""
    found: dict[str, Path] = {}
    for path in paths:
        stem = image_stem(path)
        if stem in found:
            raise InputError(
                f"{found[stem].name} and {path.name} in {path.parent} have the same "
                "name but for the ending, so their masks and results could not be "
                "told apart. Rename or remove one."
            )
        found[stem] = path
    return found


def _nothing(
    images: Path, masks: Path, image_paths: list[Path], mask_paths: list[Path]
) -> InputError:
    """Say why there are no pairs."""
    if images.resolve() == masks.resolve():
        return InputError(
            f"No image in {images} has a mask beside it. Name the mask of cell.tif "
            "cell_mask.tif, or put the masks into a folder of their own."
        )
    for folder, paths in ((images, image_paths), (masks, mask_paths)):
        if not paths:
            return InputError(
                f"{folder} holds no images (TIFF, PNG, BMP, NumPy, OME-Zarr). Give the "
                "folder that holds them."
            )
    return InputError(
        f"No mask in {masks} belongs to an image in {images}: "
        f"{mask_paths[0].name} does not have the name of an image such as "
        f"{image_paths[0].name}. Give mask and image the same name; the mask's may "
        "end in _mask, _label, _labels or _seg."
    )
