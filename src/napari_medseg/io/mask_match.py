"""Which of two folders of masks belong together: predictions and truths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_medseg._types import InputError
from napari_medseg.io.images import image_files, image_stem
from napari_medseg.io.stems import is_image, shared_folders, without_ending

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path


def match_masks(
    pred: Path, truth: Path
) -> tuple[dict[str, tuple[Path, Path]], tuple[str, ...]]:
    """Match files by stem, where either side may have the ending of a mask.

    `napari_medseg.io.pairs.match_files` expects endings on one side only, as images
    have none; here both sides are masks. Folders in the folders belong together by
    their names.

    Parameters
    ----------
    pred, truth : Path
        Two folders, or two images.

    Returns
    -------
    pairs : dict of str to (Path, Path)
        Prediction and truth by their name, that of the folder before it where they
        lie in one.
    unmatched : tuple of str
        Files of either folder without a partner. Folders that only ``pred`` has do not
        count: a run writes other things into some.

    Raises
    ------
    InputError
        A folder is missing, a match is ambiguous, or nothing matches.
    """
    if is_image(pred) and is_image(truth):
        return {image_stem(pred): (pred, truth)}, ()
    pairs: dict[str, tuple[Path, Path]] = {}
    alone: set[Path] = set()
    seen: set[Path] = set()
    for here, there in shared_folders(pred, truth):
        predicted, true = image_files(here), image_files(there)
        found = _matched(predicted, true)
        inner = here.relative_to(pred)
        pairs |= {(inner / name).as_posix(): both for name, both in found.items()}
        seen.update(true)
        alone |= {*predicted, *true}.difference(*found.values())
    if not pairs:
        raise InputError(
            f"No prediction in {pred} has the name of a truth in {truth}. Give both "
            "the same name; it may end in _mask, _label, _labels or _seg."
        )
    alone |= set(image_files(truth, recursive=True)) - seen
    return pairs, tuple(str(path) for path in sorted(alone))


def _matched(
    predicted: Iterable[Path], true: Iterable[Path]
) -> dict[str, tuple[Path, Path]]:
    """Match the files of two folders."""
    groups: dict[str, tuple[list[Path], list[Path]]] = {}
    for side, paths in enumerate((predicted, true)):
        for path in paths:
            key = without_ending(image_stem(path))
            groups.setdefault(key, ([], []))[side].append(path)
    pairs: dict[str, tuple[Path, Path]] = {}
    for key, (some, others) in sorted(groups.items()):
        if some and others:
            pairs |= _pair_up(key, some, others)
    return pairs


def _pair_up(
    key: str, predicted: Sequence[Path], true: Sequence[Path]
) -> dict[str, tuple[Path, Path]]:
    """Pair the files whose names differ at most in the ending of a mask."""
    first, second = _by_stem(predicted), _by_stem(true)
    if first.keys() == second.keys() and len(first) == len(predicted) == len(true):
        return {stem: (path, second[stem]) for stem, path in first.items()}
    if len(predicted) == len(true) == 1:
        return {key: (predicted[0], true[0])}
    names = " and ".join(str(path) for path in (*predicted, *true))
    raise InputError(
        f"Which prediction belongs to which truth is ambiguous: {names}. Keep one of "
        "each, or give both the same name."
    )


def _by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Return files by their stems."""
    return {image_stem(path): path for path in paths}
