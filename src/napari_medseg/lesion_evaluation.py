"""A folder of predictions against the folders of IDRiD, where lesions overlap.

Each kind of lesion has a mask of its own and is compared by itself. Which value of the
labels is which kind is told by the names of the classes in the output folder
(`napari_medseg.io.result_names`); where they say nothing, by the order of
`napari_medseg.io.idrid.KINDS`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_medseg._types import InputError, MedsegError, Progress
from napari_medseg.evaluation import Evaluation, probabilities_beside
from napari_medseg.io.idrid import KINDS, read_truths
from napari_medseg.io.images import (
    image_files,
    image_stem,
    read_annotation,
    read_image,
)
from napari_medseg.io.result_names import facts_of, masks_of
from napari_medseg.io.stems import without_ending
from napari_medseg.metrics import (
    class_table,
    count_finite,
    flatten_classes,
    summarise,
)
from napari_medseg.precision_recall import Ranking, Rankings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from napari_medseg._labels import BoolArray
    from napari_medseg._types import Job
    from napari_medseg.io.idrid import Truth


def evaluate_idrid(
    pred: Path, root: Path, *, spacing: Sequence[float] | None = None
) -> Job[Evaluation]:
    """Score predictions of lesions against the masks in the folders of IDRiD.

    Parameters
    ----------
    pred : Path
        Folder of label images with the names of the photographs, of either set; best
        the output folder of a run with probabilities, so that AUPR can be given, and
        with masks, which are then scored in place of labels: lesions overlap.
    root : Path
        The folder that holds ``1. Original Images``, or the one around it.
    spacing : sequence of float, optional
        Size of a pixel along y and x, for HD95. Default: HD95 in pixels.

    Yields
    ------
    Progress
        One for each image scored.

    Returns
    -------
    Evaluation
        Of the kind ``overlapping``, with scores such as ``dice_MA``, by the letters of
        each kind: Dice, IoU, HD95, boundary F, ``lesion_recall`` (the share of
        annotated lesions of which some pixel is found) and, where there are
        probabilities, AUPR. Kinds that the model does not know are left out.

    Raises
    ------
    InputError
        Folders are missing, or nothing matches.
    """
    truths = read_truths(root)
    paths = {without_ending(image_stem(path)): path for path in image_files(pred)}
    both = {name: path for name, path in paths.items() if name in truths}
    if not both:
        raise InputError(
            f"No prediction in {pred} has the name of an image in {root}, such as "
            f"{next(iter(truths))}. Give the folder that segment filled."
        )
    scorer = _Scorer(_values_of(pred), spacing)
    per_image: dict[str, dict[str, float]] = {}
    failures: dict[str, str] = {}
    for step, (name, path) in enumerate(both.items(), start=1):
        try:
            per_image[name] = scorer.score(path, truths[name])
            said = f"Scored {name}"
        except MedsegError as error:
            failures[name] = str(error)
            said = f"{name} could not be scored"
        yield Progress(step, len(both), said)
    return Evaluation(
        "overlapping",
        summarise(per_image),
        per_image,
        count_finite(per_image),
        failures,
        _unmatched(paths, truths),
        scorer.rankings.scores(),
    )


def _values_of(pred: Path) -> dict[int, int]:
    """Return which kind each value of the labels in a folder is."""
    kinds = {kind.name: number for number, kind in enumerate(KINDS, 1)}
    names = facts_of(pred).names
    told = {value: kinds[name] for value, name in enumerate(names) if name in kinds}
    return told or {number: number for number in kinds.values()}


def _unmatched(
    paths: Mapping[str, Path], truths: Mapping[str, Truth]
) -> tuple[str, ...]:
    """Return predictions without a truth, and images of their sets not predicted."""
    sets = {truths[name].part for name in paths if name in truths}
    alone = [path for name, path in paths.items() if name not in truths]
    alone += [
        truth.image
        for name, truth in truths.items()
        if truth.part in sets and name not in paths
    ]
    return tuple(map(str, alone))


def _masks_beside(labels: Path, shape: tuple[int, ...]) -> BoolArray | None:
    """Return the masks that were written with a label image, ``(K - 1, Y, X)``."""
    path = masks_of(labels, labels.parent)
    if path is None:
        return None
    found: BoolArray = read_image(path).plane() > 0
    if found.shape[1:] != shape:
        raise InputError(
            f"{path} does not fit {labels}: the masks are of another run. Segment the "
            "images again, or move that folder away."
        )
    return found


@dataclass
class _Scorer:
    """Scores images alike, and ranks the pixels of all of them.

    Attributes
    ----------
    kinds : mapping of int to int
        The kind of lesion that each value of the labels is.
    spacing : sequence of float or None
        As for `evaluate_idrid`.
    rankings : Rankings
        Of the images scored so far that have probabilities, by the letters of a kind.
    """

    kinds: Mapping[int, int]
    spacing: Sequence[float] | None
    rankings: Rankings = field(default_factory=Rankings)

    def score(self, path: Path, truth: Truth) -> dict[str, float]:
        """Score each kind of lesion in an image."""
        labels = read_annotation(path).labels
        if labels.ndim != 2:
            raise InputError(f"{path} is a stack; a single image is needed.")
        probabilities = probabilities_beside(path, labels.shape)
        masks = _masks_beside(path, labels.shape)
        table: dict[str, dict[str, float]] = {}
        for value, kind in self.kinds.items():
            if kind not in truth.folders:
                continue  # annotated in no image of this set
            letters = KINDS[kind - 1].letters
            true = truth.mask(kind, labels.shape)
            whole = masks is not None and value <= len(masks)
            found = masks[value - 1] if masks is not None and whole else labels == value
            scores = self._compared(found, true)
            if probabilities and value < len(probabilities[0]):
                aupr = self.rankings.add(letters, probabilities[0][value], true)
                scores = scores and {**scores, "aupr": aupr}
            if scores:
                table[letters] = scores
        return flatten_classes(table, many=True)

    def _compared(self, found: BoolArray, true: BoolArray) -> dict[str, float]:
        """Compare two masks; nothing is said where both are empty."""
        table = class_table(
            found.astype(np.int32), true.astype(np.int32), spacing=self.spacing
        )
        if not table:
            return {}
        lesions = Ranking()
        lesions.add(found.astype(np.float32), true)
        return {**table[1], "lesion_recall": lesions.lesion_recall(0.5)}
