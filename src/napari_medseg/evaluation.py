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
- Where the folder of predictions says that their model has several classes, so do
  the predictions, even if only one of them was found; and truths whose classes have
  other values, such as 127 and 255, are numbered as the model numbers them.

Stacks are scored slice by slice; their scores are means over the slices.

Where a prediction has class probabilities beside it (`napari_medseg.io.result_names`),
AUPR is given as well, which knows no threshold: of each class, or of the foreground.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from napari_medseg._labels import check_shapes
from napari_medseg._types import InputError, MedsegError, Progress
from napari_medseg.io.images import read_annotation, read_image
from napari_medseg.io.mask_match import match_masks
from napari_medseg.io.result_names import (
    RunFacts,
    facts_of,
    probabilities_of,
    run_folder,
)
from napari_medseg.metrics import (
    class_table,
    count_finite,
    flatten_classes,
    object_scores,
    summarise,
)
from napari_medseg.precision_recall import Rankings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from napari_medseg._types import FloatArray, Job, LabelArray

Kind = Literal["classes", "foreground", "instances", "overlapping"]

MOST_CLASSES = 20
"""With more different foreground values than these, labels are objects."""

_VOID = -1
"""The value of ignored pixels in a truth whose values were changed."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of a folder of predictions.

    Attributes
    ----------
    kind : str
        ``classes``, ``foreground`` or ``instances``: how values were read; or
        ``overlapping``, where each class has a mask of its own.
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
    pooled : mapping of str to float
        ``aupr``, and that of each class, over the pixels of all images together;
        empty where no prediction has probabilities.
    """

    kind: Kind
    mean: Mapping[str, float]
    per_image: Mapping[str, Mapping[str, float]]
    counts: Mapping[str, int]
    failures: Mapping[str, str] = field(default_factory=dict)
    unmatched: tuple[str, ...] = ()
    pooled: Mapping[str, float] = field(default_factory=dict)

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
            "pooled": _plain(self.pooled),
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
        The scores; with ``aupr`` where there are probabilities.

    Raises
    ------
    InputError
        A folder is missing, a match is ambiguous, or nothing matches.
    """
    pred = Path(pred)
    pairs, unmatched = match_masks(pred, Path(truth))
    failures: dict[str, str] = {}
    scorer = _Scorer("instances", ignore, spacing)
    if not instances:
        made = facts_of(run_folder(pred if pred.is_dir() else pred.parent))
        seen = yield from _look(pairs, ignore)
        numbers = _numbers_of(seen, made)
        scorer = _Scorer(_kind_of(seen, made), ignore, spacing, numbers)
    done = 0 if instances else len(pairs)
    total = done + len(pairs)
    scored: dict[str, list[_Scores]] = {}
    for step, (name, paths) in enumerate(pairs.items(), start=done + 1):
        try:
            scored[name] = scorer.score(*paths)
        except MedsegError as error:
            failures[name] = str(error)
            yield Progress(step, total, f"{name} could not be scored")
            continue
        yield Progress(step, total, f"Scored {name}", _join(scored[name], many=False))
    per_image = _tabulate(scored)
    return Evaluation(
        scorer.kind,
        summarise(per_image),
        per_image,
        count_finite(per_image),
        failures,
        unmatched,
        scorer.rankings.scores(),
    )


def probabilities_beside(labels: Path, shape: tuple[int, ...]) -> list[FloatArray]:
    """Read the class probabilities that were written with a label image.

    Parameters
    ----------
    labels : Path
        The label image.
    shape : tuple of int
        Its shape, ``(*stack, Y, X)``.

    Returns
    -------
    list of ndarray
        ``float32 (K, Y, X)`` of each slice; empty where there are none.

    Raises
    ------
    InputError
        They are of another shape, or damaged.
    """
    path = _probabilities_of(labels)
    if path is None:
        return []
    image = read_image(path)
    count = math.prod(shape[:-2])
    if (image.size, image.slice_count) != (shape[-2:], count) or image.channels < 2:
        raise InputError(
            f"{path} does not fit {labels}: the probabilities are of another run. "
            "Segment the images again, or move that folder away."
        )
    return [plane for _, plane in image.slices()]


def _probabilities_of(labels: Path) -> Path | None:
    """Return the probabilities that a run wrote with labels, if they are there."""
    return probabilities_of(labels, run_folder(labels.parent))


class _Seen(NamedTuple):
    """The foreground values of predictions and truths, and more of the predictions."""

    predicted: set[int]
    true: set[int]
    several: bool


def _look(pairs: Mapping[str, tuple[Path, Path]], ignore: int | None) -> Job[_Seen]:
    """Look at all values, and whether there are probabilities of several classes."""
    seen = _Seen(set(), set(), several=False)
    for step, (name, paths) in enumerate(pairs.items(), start=1):
        for path, values in zip(paths, seen[:2], strict=True):
            try:
                found = np.unique(_read(path))
            except MedsegError:
                continue  # listed as a failure when it is to be scored
            values.update(int(value) for value in found if value > 0)
        seen = seen._replace(several=seen.several or _has_classes(paths[0]))
        yield Progress(step, 2 * len(pairs), f"Read {name}")
    if ignore is not None:
        seen.true.discard(ignore)
    return seen


def _kind_of(seen: _Seen, made: RunFacts) -> Kind:
    """Tell from all values, and from how the labels were made, what they are."""
    objects = max(len(seen.predicted), len(seen.true)) > MOST_CLASSES
    several = seen.several or len(seen.predicted) > 1
    if len(made.names) > 2 and not made.objects:
        # a model may have missed all of its classes but one
        several = several or len(seen.true) > 1
    return "classes" if several and not objects else "foreground"


def _numbers_of(seen: _Seen, made: RunFacts) -> dict[int, int]:
    """Return which class each value of the truths is, where the values are others.

    A model numbers its classes 0, 1, 2, …, whatever they were in the masks that it
    was trained on, such as 0, 127 and 255.
    """
    count = len(made.names)
    own = set(range(1, count))
    if count <= 2 or made.objects or seen.true <= own:
        return {}
    if len(made.values) == count and seen.true <= set(made.values[1:]):
        return {value: number for number, value in enumerate(made.values)}
    if len(seen.true) == len(own):  # the model does not tell
        return {value: number for number, value in enumerate(sorted(seen.true), 1)}
    return {}


def _has_classes(labels: Path) -> bool:
    """Tell whether a prediction has probabilities of more than one class."""
    path = _probabilities_of(labels)
    try:
        # background is one of the channels
        return path is not None and read_image(path).channels > 2
    except MedsegError:
        return False  # listed as a failure when it is to be scored


@dataclass
class _Scorer:
    """Scores images alike, and ranks the pixels of all of them.

    Attributes
    ----------
    kind, ignore, spacing
        As for `evaluate_folders`.
    numbers : mapping of int to int
        Which class a value of the truths is; the others are what they are.
    rankings : Rankings
        Of the images scored so far that have probabilities.
    """

    kind: Kind
    ignore: int | None
    spacing: Sequence[float] | None
    numbers: Mapping[int, int] = field(default_factory=dict)
    rankings: Rankings = field(default_factory=Rankings)

    def score(self, pred: Path, truth: Path) -> list[_Scores]:
        """Score the slices of a prediction."""
        images = [_read(path) for path in (pred, truth)]
        check_shapes(*images)
        shares = probabilities_beside(pred, images[0].shape)
        slices = zip(*map(_slices, images), strict=True)
        return [
            self._score(found, true, shares[index] if shares else None)
            for index, (found, true) in enumerate(slices)
        ]

    def _score(
        self, pred: LabelArray, truth: LabelArray, shares: FloatArray | None
    ) -> _Scores:
        """Score one slice."""
        if self.kind == "classes":
            classes = self._numbered(truth)
            void = None if self.ignore is None else _VOID
            table = class_table(pred, classes, spacing=self.spacing, ignore=void)
            self._rank(table, classes, void, shares)
            return _Scores(table, {})
        foreground = (truth > 0).astype(np.int32)
        if self.ignore is not None:
            foreground[truth == self.ignore] = _VOID
        found = (pred > 0).astype(np.int32)
        table = class_table(found, foreground, spacing=self.spacing, ignore=_VOID)
        if shares is not None:
            shares = np.stack([shares[0], 1.0 - shares[0]])
        self._rank(table, foreground, _VOID, shares)
        if self.kind == "foreground":
            return _Scores(table, {})
        return _Scores(table, object_scores(pred, truth, ignore=self.ignore))

    def _numbered(self, truth: LabelArray) -> LabelArray:
        """Return the class of each pixel of a truth."""
        classes = truth.astype(np.int32)
        for value, number in self.numbers.items():
            classes[truth == value] = number
        if self.ignore is not None:
            classes[truth == self.ignore] = _VOID
        return classes

    def _rank(
        self,
        table: dict[int, dict[str, float]],
        truth: LabelArray,
        ignore: int | None,
        shares: FloatArray | None,
    ) -> None:
        """Add AUPR to the scores of the classes; images without a class count too."""
        if shares is None:
            return
        known = None if ignore is None else truth != ignore
        for value in range(1, len(shares)):
            aupr = self.rankings.add(value, shares[value], truth == value, known)
            if value in table:
                table[value]["aupr"] = aupr


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
