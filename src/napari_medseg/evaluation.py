"""A folder of predictions against a folder of truths.

How the values of label images are read:

- With ``instances``, each value above 0 is one object. Dice, IoU, HD95 and boundary
  F compare the foreground (all objects together); AP and PQ compare the objects.
- Without, values are classes, and each is compared with its own. But the images are
  compared as foreground (above 0) and background where classes cannot be meant: when
  all predictions of the folder together have at most one foreground value, such as
  0/1 or 0/255, or when predictions or truths together have more than 20, as objects
  have. A truth with an id for each object or of 0/255 is thus fine for a prediction
  of 0/1. `Evaluation.kind` says which reading was used.

Stacks are scored slice by slice; their scores are means over the slices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_medseg._labels import check_shapes
from napari_medseg._types import InputError, MedsegError, Progress
from napari_medseg.io.images import image_files, image_stem, read_annotation
from napari_medseg.io.stems import MASK_ENDINGS
from napari_medseg.metrics import (
    class_table,
    count_finite,
    flatten_classes,
    object_scores,
    summarise,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from napari_medseg._types import Job, LabelArray

Kind = Literal["classes", "foreground", "instances"]

MOST_CLASSES = 20
"""With more different foreground values than these, labels are objects."""

_VOID = -1
"""The value of ignored pixels in a truth that was reduced to its foreground."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of a folder of predictions.

    Attributes
    ----------
    kind : str
        ``classes``, ``foreground`` or ``instances``: how values were read.
    mean : mapping of str to float
        Mean of each score over the images that have it.
    per_image : mapping
        Scores by the name of the image.
    counts : mapping of str to int
        On how many images each mean rests. HD95 does not exist where only one of
        prediction and truth is empty.
    failures : mapping of str to str
        Images that could not be scored, with the reason.
    unmatched : tuple of str
        Files of either folder without a partner in the other.
    """

    kind: Kind
    mean: Mapping[str, float]
    per_image: Mapping[str, Mapping[str, float]]
    counts: Mapping[str, int]
    failures: Mapping[str, str] = field(default_factory=dict)
    unmatched: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it, ``nan`` as None.

        Returns
        -------
        dict
            One entry for each attribute.
        """
        return {
            "mean": _plain(self.mean),
            "per_image": {name: _plain(row) for name, row in self.per_image.items()},
            "counts": dict(self.counts),
            "kind": self.kind,
            "failures": dict(self.failures),
            "unmatched": list(self.unmatched),
        }


@dataclass(frozen=True, slots=True)
class _Scores:
    """Scores of one slice: of each class, and of the objects where asked for."""

    classes: Mapping[int, Mapping[str, float]]
    objects: Mapping[str, float]


def evaluate_folders(
    pred: Path,
    truth: Path,
    *,
    instances: bool = False,
    ignore: int | None = None,
    spacing: Sequence[float] | None = None,
) -> Job[Evaluation]:
    """Score predictions against truths of the same names.

    The module says how values are read. An image that cannot be read or compared
    is listed in `Evaluation.failures` and does not stop the others.

    Parameters
    ----------
    pred, truth : Path
        Two folders, or two files. Files match by their stems, with or without
        ``_mask``, ``_label``, ``_labels`` or ``_seg`` at the end.
    instances : bool, default: False
        Whether each value is an object; adds ``ap50``, ``ap75``, ``pq``, ``sq``
        and ``rq``.
    ignore : int, optional
        Value of the truth whose pixels are left out.
    spacing : sequence of float, optional
        Size of a pixel along y and x, for HD95. Default: HD95 in pixels.

    Yields
    ------
    Progress
        One for each image read, then, with its scores, one for each image scored.

    Returns
    -------
    Evaluation
        The scores.

    Raises
    ------
    InputError
        A folder is missing, a match is ambiguous, or nothing matches.
    """
    pairs, unmatched = _match(Path(pred), Path(truth))
    failures: dict[str, str] = {}
    kind: Kind = "instances"
    if not instances:
        kind = yield from _find_kind(pairs, ignore)
    done = 0 if instances else len(pairs)
    total = done + len(pairs)
    scored: dict[str, list[_Scores]] = {}
    for step, (name, paths) in enumerate(pairs.items(), start=done + 1):
        try:
            images = [_read(path) for path in paths]
            check_shapes(*images)
            scored[name] = [
                _score(predicted, true, kind, ignore, spacing)
                for predicted, true in zip(*map(_slices, images), strict=True)
            ]
        except MedsegError as error:
            failures[name] = str(error)
            yield Progress(step, total, f"{name} could not be scored")
            continue
        yield Progress(step, total, f"Scored {name}", _join(scored[name], many=False))
    per_image = _tabulate(scored)
    return Evaluation(
        kind,
        summarise(per_image),
        per_image,
        count_finite(per_image),
        failures,
        unmatched,
    )


def _find_kind(pairs: Mapping[str, tuple[Path, Path]], ignore: int | None) -> Job[Kind]:
    """Tell from all values whether they are classes."""
    predicted: set[int] = set()
    true: set[int] = set()
    for step, (name, paths) in enumerate(pairs.items(), start=1):
        for path, values in zip(paths, (predicted, true), strict=True):
            try:
                found = np.unique(_read(path))
            except MedsegError:
                continue  # listed as a failure when it is to be scored
            values.update(int(value) for value in found if value > 0)
        yield Progress(step, 2 * len(pairs), f"Read {name}")
    if ignore is not None:
        true.discard(ignore)
    objects = max(len(predicted), len(true)) > MOST_CLASSES
    return "foreground" if objects or len(predicted) <= 1 else "classes"


def _score(
    pred: LabelArray,
    truth: LabelArray,
    kind: Kind,
    ignore: int | None,
    spacing: Sequence[float] | None,
) -> _Scores:
    """Score one slice."""
    if kind == "classes":
        return _Scores(class_table(pred, truth, spacing=spacing, ignore=ignore), {})
    foreground = (truth > 0).astype(np.int32)
    if ignore is not None:
        foreground[truth == ignore] = _VOID
    table = class_table(
        (pred > 0).astype(np.int32), foreground, spacing=spacing, ignore=_VOID
    )
    if kind == "foreground":
        return _Scores(table, {})
    return _Scores(table, object_scores(pred, truth, ignore=ignore))


def _tabulate(scored: Mapping[str, list[_Scores]]) -> dict[str, dict[str, float]]:
    """Return the scores of each image, of single classes where there are several."""
    classes = {
        index for rows in scored.values() for row in rows for index in row.classes
    }
    return {name: _join(rows, len(classes) > 1) for name, rows in scored.items()}


def _join(rows: Sequence[_Scores], many: bool) -> dict[str, float]:
    """Return the mean scores over the slices of an image."""
    return summarise(
        {
            str(index): flatten_classes(row.classes, many=many) | dict(row.objects)
            for index, row in enumerate(rows)
        }
    )


def _read(path: Path) -> LabelArray:
    """Read a label image; what goes wrong is an `InputError` that names the file."""
    try:
        return read_annotation(path).labels
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} could not be read ({error}). Save it again as TIFF or PNG."
        ) from error


def _slices(labels: LabelArray) -> Iterator[LabelArray]:
    """Yield the 2D slices of an image or a stack."""
    yield from labels.reshape(-1, *labels.shape[-2:])


def _plain(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Return scores with None for what is not finite, which JSON cannot hold."""
    return {
        name: value if math.isfinite(value) else None for name, value in scores.items()
    }


def _match(
    pred: Path, truth: Path
) -> tuple[dict[str, tuple[Path, Path]], tuple[str, ...]]:
    """Match files by stem, where either side may have the ending of a mask.

    `napari_medseg.io.pairs.match_files` expects endings on one side only, as images
    have none; here both sides are masks.
    """
    if pred.is_file() and truth.is_file():
        return {image_stem(pred): (pred, truth)}, ()
    groups: dict[str, tuple[list[Path], list[Path]]] = {}
    for side, folder in enumerate((pred, truth)):
        for path in image_files(folder):
            key = _without_ending(image_stem(path))
            groups.setdefault(key, ([], []))[side].append(path)
    pairs: dict[str, tuple[Path, Path]] = {}
    unmatched: list[Path] = []
    for key, (predicted, true) in sorted(groups.items()):
        if predicted and true:
            pairs.update(_pair_up(key, predicted, true))
        else:
            unmatched += predicted + true
    if not pairs:
        raise InputError(
            f"No prediction in {pred} has the name of a truth in {truth}. Give both "
            "the same name; it may end in _mask, _label, _labels or _seg."
        )
    return pairs, tuple(str(path) for path in unmatched)


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


def _without_ending(stem: str) -> str:
    """Return a stem without the ending of a mask."""
    for ending in MASK_ENDINGS:
        if stem.lower().endswith(ending) and len(stem) > len(ending):
            return stem[: -len(ending)]
    return stem
