"""Which images are meant, and what their outputs are called."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from glob import glob, has_magic
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from napari_medseg._types import InputError
from napari_medseg.batch.ledger import LEDGER
from napari_medseg.io.containers import (
    CONTAINER_SUFFIXES,
    file_of,
    scene_name,
    scenes_of,
)
from napari_medseg.io.images import IMAGE_SUFFIXES, image_files, image_stem
from napari_medseg.io.zarr_store import is_zarr

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Work:
    """One image to segment.

    Attributes
    ----------
    source : Path
        The image, as a path that means the same in every process; of a file that
        holds several, as `napari_medseg.io.containers` has it.
    name : PurePosixPath
        Where its outputs go in the output folder, without suffix.
    """

    source: Path
    name: PurePosixPath


@dataclass(frozen=True, slots=True)
class Found:
    """An image that was given.

    Attributes
    ----------
    source : Path
        The image.
    base : Path
        The folder from which on the output has the image's folders.
    """

    source: Path
    base: Path

    @property
    def plain_name(self) -> PurePosixPath:
        """The name that its outputs have where no other image wants it."""
        file, scene = file_of(self.source), scene_name(self.source)
        folder = PurePosixPath(file.parent.relative_to(self.base).as_posix())
        return folder / image_stem(file) / scene


def plan_work(
    inputs: Iterable[Path], out: Path, known: Mapping[str, str] | None = None
) -> list[Work]:
    """List the images of files, folders and patterns, and name their outputs.

    Parameters
    ----------
    inputs, out
        As of `find_images`.
    known
        As of `name_images`.

    Returns
    -------
    list of Work
        As of `name_images`.

    Raises
    ------
    InputError
        As of `find_images`.
    """
    found = with_scenes(find_images(inputs, out))
    return name_images(found, out, known or {})


def with_scenes(found: Iterable[Found]) -> list[Found]:
    """Put the images that a file holds into its place.

    Parameters
    ----------
    found : iterable of Found
        Files. Those that can hold several images are opened.

    Returns
    -------
    list of Found
        One for each image.
    """
    return [
        Found(source, each.base)
        for each in found
        for source in (
            scenes_of(each.source)
            if each.source.suffix.lower() in CONTAINER_SUFFIXES
            else [each.source]
        )
    ]


def find_images(inputs: Iterable[Path], out: Path) -> list[Found]:
    """List the images of files, folders and patterns.

    Parameters
    ----------
    inputs : iterable of Path
        Images; folders, whose subfolders are kept in the output; patterns such as
        ``plate*/*.tif``, where ``**`` is any number of folders.
    out : Path
        Output folder. What lies in it, or in the output folder of another run inside
        a folder that was given, is no image to segment.

    Returns
    -------
    list of Found
        Each image once, also where it was given in two spellings.

    Raises
    ------
    InputError
        An input does not exist or is the output folder, or there is no image at all.
    """
    found: dict[str, Found] = {}
    for item in inputs:
        for each in _listed(item, out):
            found.setdefault(os.path.normcase(each.source), each)
    if not found:
        raise InputError(
            "There is no image in what was given. Give image files or folders of them."
        )
    return list(found.values())


def name_images(
    found: Iterable[Found], out: Path, known: Mapping[str, str]
) -> list[Work]:
    """Name the outputs of images.

    Parameters
    ----------
    found : iterable of Found
        The images.
    out : Path
        Output folder.
    known : mapping of str to str
        Names of images that were segmented into the folder earlier, by source; they
        keep them. Labels of these are left out.

    Returns
    -------
    list of Work
        No two have one name, not even on systems that take ``A`` for ``a``. Images
        of one name from several folders get their folders into it, those that
        differ in their ending alone get the ending.
    """
    own = {_absolute(out / f"{name}.tif") for name in known.values()}
    images = [
        each
        for each in found
        if each.source not in own or readable(each.source) in known
    ]
    names = _kept(images, _names(images), known)
    return [Work(each.source, name) for each, name in zip(images, names, strict=True)]


def readable(text: str | Path) -> str:
    r"""Return a path or a message as text that can be printed and stored.

    Parameters
    ----------
    text : str or Path
        Names of files that are not in the system's encoding have parts that are no
        text.

    Returns
    -------
    str
        With such parts spelt out, as ``\udcb5``.
    """
    return str(text).encode("utf-8", "backslashreplace").decode("utf-8")


def _listed(item: Path, out: Path) -> Iterator[Found]:
    """Give the images of one input."""
    place = _absolute(item)
    if scene_name(place) and file_of(place).is_file():
        yield Found(place, file_of(place).parent)
    elif not item.exists():
        if not has_magic(str(item)):
            raise InputError(f"{item} does not exist; check the path.")
        yield from _matching(item, out)
    elif not _is_folder(item):
        yield Found(place, place.parent)
    elif item.resolve() == out.resolve():
        raise InputError(
            f"{item} holds the images, so labels cannot go there; choose another "
            "folder for the output, such as one in it."
        )
    else:
        inside = map(_absolute, image_files(item, recursive=True))
        yield from (Found(path, place) for path in _no_outputs(inside, place, out))


def _matching(pattern: Path, out: Path) -> Iterator[Found]:
    """Give the images that a pattern means, which the shell left as it was."""
    fixed = [*takewhile(lambda part: not has_magic(part), pattern.parts)]
    base = _absolute(Path(*fixed))
    matches: list[Path] = []
    for match in map(_absolute, map(Path, glob(str(pattern), recursive=True))):
        if _is_folder(match):
            matches += image_files(match, recursive=True)
        elif match.suffix.lower() in IMAGE_SUFFIXES:
            matches.append(match)
    # what lies in a zarr folder is a part of an image
    images = [
        path
        for path in sorted(set(matches))
        if base in path.parents and not _in_zarr(path, base)
    ]
    if not images:
        raise InputError(
            f"No image matches {pattern}. Check the path; the endings of images are "
            f"{', '.join(IMAGE_SUFFIXES)}."
        )
    yield from (Found(path, base) for path in _no_outputs(images, base, out))


def _is_folder(path: Path) -> bool:
    """Tell whether a path is a folder, and not a zarr image."""
    return path.is_dir() and path.suffix.lower() != ".zarr" and not is_zarr(path)


def _in_zarr(path: Path, base: Path) -> bool:
    """Tell whether a path lies in a zarr folder below ``base``."""
    between = path.parent.relative_to(base).parts
    return any(part.lower().endswith(".zarr") for part in between)


def _absolute(path: Path) -> Path:
    """Return a path that means the same in every process; links stay links."""
    return Path(os.path.abspath(path))


def _no_outputs(paths: Iterable[Path], base: Path, out: Path) -> Iterator[Path]:
    """Leave out what lies in a folder below ``base`` into which a run has written."""
    labels = out.resolve()
    known = {base: False}

    def written(folder: Path) -> bool:
        if folder not in known:
            known[folder] = (
                written(folder.parent)
                or (folder / LEDGER).is_file()
                or folder.resolve() == labels
            )
        return known[folder]

    return (path for path in paths if not written(path.parent))


def _names(images: Sequence[Found]) -> list[PurePosixPath]:
    """Return a name for each image, unlike that of any other."""
    folders = _prefixes(images)
    names = [
        folders.get(each.base, PurePosixPath()) / each.plain_name for each in images
    ]
    files = [file_of(each.source) for each in images]
    for longer in (_with_ending, _with_digest):
        # the images of one file stay together
        clashing = {files[index] for group in _clashes(names) for index in group}
        for index, file in enumerate(files):
            if file in clashing:
                names[index] = longer(names[index], images[index].source)
    return [PurePosixPath(re.sub("[\ud800-\udfff]", "_", str(name))) for name in names]


def _prefixes(images: Sequence[Found]) -> dict[Path, PurePosixPath]:
    """Return a folder for each input that has names in common with another."""
    bases: set[Path] = set()
    for group in _clashes([each.plain_name for each in images]):
        sharing = {images[index].base for index in group}
        if len(sharing) > 1:
            bases |= sharing
    if not bases:
        return {}
    try:
        common = Path(os.path.commonpath(bases))
    except ValueError:  # several drives
        return {base: PurePosixPath(*_parts(base)) for base in bases}
    return {base: PurePosixPath(base.relative_to(common).as_posix()) for base in bases}


def _parts(path: Path) -> list[str]:
    """Return the parts of a path, its drive as a folder."""
    return [re.sub(r"[:\\/]+", "", part) for part in path.parts]


def _kept(
    images: Sequence[Found], names: list[PurePosixPath], known: Mapping[str, str]
) -> list[PurePosixPath]:
    """Return the names with those that images had already, and no other's."""
    sources = [readable(each.source) for each in images]
    here = set(sources)
    taken = {
        _key(PurePosixPath(name)): source
        for source, name in known.items()
        # an image that is gone, or was moved, leaves its name to its successor
        if source in here or file_of(Path(source)).exists()
    }
    result = []
    for each, source, name in zip(images, sources, names, strict=True):
        other = taken.get(_key(name))
        if source in known:
            choices = [PurePosixPath(known[source])]
        elif other is not None and other not in here and _is_same(other, each.source):
            taken[_key(name)] = source  # the image, by another path
            choices = [name]
        else:
            choices = _choices(name, each, other)
        free = (item for item in choices if taken.get(_key(item), source) == source)
        chosen = next(free, choices[-1])
        taken[_key(chosen)] = source
        result.append(chosen)
    return result


def _is_same(other: str, source: Path) -> bool:
    """Tell whether two paths lead to one file."""
    first = Path(other)
    with suppress(OSError):
        same = os.path.samefile(file_of(first), file_of(source))
        return same and scene_name(first) == scene_name(source)
    return False


def _choices(
    name: PurePosixPath, each: Found, other: str | None
) -> list[PurePosixPath]:
    """Return names for an image, the last of them unlike every other."""
    choices = [name]
    beside = file_of(each.source).parent
    if other is not None and file_of(Path(other)).parent == beside:
        choices.append(_with_ending(name, each.source))
    return [*choices, each.base.name / name, _with_digest(name, each.source)]


def _with_ending(name: PurePosixPath, source: Path) -> PurePosixPath:
    """Return a name with the ending of its image in it."""
    file, scene = file_of(source), scene_name(source)
    place = name.parent if scene else name
    return place.with_name(file.name.replace(".", "_")) / scene


def _with_digest(name: PurePosixPath, source: Path) -> PurePosixPath:
    """Return a name with a few digits that tell the image from every other."""
    digits = hashlib.sha256(readable(source).encode()).hexdigest()[:8]
    return name.with_name(f"{name.name}_{digits}")


def _clashes(names: Sequence[PurePosixPath]) -> list[list[int]]:
    """Return the groups of names that some system takes for one."""
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        groups[_key(name)].append(index)
    return [group for group in groups.values() if len(group) > 1]


def _key(name: PurePosixPath) -> str:
    """Return what is the same for names that some system takes for one."""
    return unicodedata.normalize("NFC", str(name)).casefold()
