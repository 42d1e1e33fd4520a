"""A folder without annotations: what its results are worth, the worst first."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_medseg._config import to_dict
from napari_medseg._types import InputError, MedsegError, Progress
from napari_medseg.io.channel_choice import ALL, ChannelChoice
from napari_medseg.io.images import image_files, read_image
from napari_medseg.io.stems import is_image
from napari_medseg.quality.accuracy import SCORES
from napari_medseg.quality.choosing import annotate_next
from napari_medseg.quality.folder import FolderLine, fit_folder, predict_folder
from napari_medseg.quality.judging import Judge, Judgement, fit_lines, merged
from napari_medseg.quality.line import FEWEST_POINTS, Predicted
from napari_medseg.quality.masks import known_masks
from napari_medseg.quality.references import (
    FEWEST_IMAGES,
    describe_references,
    fingerprint,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_medseg._types import AnySegmenter, Job
    from napari_medseg.io.pairs import Pairs
    from napari_medseg.quality.reverse import Example
    from napari_medseg.quality.settings import QualitySettings

SUPPORT = 64
"""Images that a folder's reverse score rests on, at most."""


class Prepared(NamedTuple):
    """All that results are judged by.

    Attributes
    ----------
    judge : Judge
        Judges single results.
    folder : FolderLine
        Judges sets of them.
    basis : str
        On what it rests, in a sentence.
    digest : str
        SHA-256 of the annotated images and the settings: other ones judge otherwise.
    """

    judge: Judge
    folder: FolderLine
    basis: str
    digest: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """Predicted scores of a folder, in the form of `evaluation.Evaluation`.

    Attributes
    ----------
    mean : mapping of str to Predicted
        Predicted mean of each score over the folder.
    reverse : mapping of str to float
        Reverse scores of the folder.
    per_image : mapping of str to Judgement
        The worst first; those where nothing was found before all others.
    basis : str
        On what it rests, in a sentence.
    failures : mapping of str to str
        Images that could not be done, with the reason.
    next : tuple of str
        What to annotate next, the most telling first.
    """

    mean: Mapping[str, Predicted]
    reverse: Mapping[str, float]
    per_image: Mapping[str, Judgement]
    basis: str
    failures: Mapping[str, str] = field(default_factory=dict)
    next: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it, ``nan`` as None.

        Returns
        -------
        dict
            ``mean`` and ``per_image`` as those of an evaluation, with the interval
            as ``dice_low`` and ``dice_high``, …, and the reverse scores as
            ``reverse_dice``, and, of images, ``forward_dice``, …; ``counts``,
            ``basis``, ``notes``, ``failures`` and ``next``.
        """
        rows = self.per_image
        return {
            "mean": _row(self.mean, self.reverse),
            "per_image": {
                name: _row(each.predicted, each.reverse, each.forward)
                for name, each in rows.items()
            },
            "counts": {
                score: sum(
                    not math.isnan(each.predicted[score].value)
                    for each in rows.values()
                )
                for score in SCORES
            },
            "kind": "predicted",
            "basis": self.basis,
            "notes": {name: each.note for name, each in rows.items() if each.note},
            "failures": dict(self.failures),
            "next": list(self.next),
        }


def prepare(
    pairs: Pairs,
    classes: int,
    settings: QualitySettings,
    states: Sequence[AnySegmenter] = (),
    class_values: Sequence[int] = (),
) -> Job[Prepared]:
    """Describe annotated images, and fit the lines to them.

    Parameters
    ----------
    pairs : Pairs
        Annotated images like those to be judged; best not those trained on.
    classes : int
        Number of classes of the results, background included.
    settings : QualitySettings
        How quality is predicted.
    states : sequence of AnySegmenter
        Earlier states of the model, and the model. With too few of them, the masks
        are made worse in place of them.
    class_values : sequence of int
        The mask value of each class of the model, where known.

    Yields
    ------
    Progress
        What is being done.

    Returns
    -------
    Prepared
        To judge results by.

    Raises
    ------
    InputError
        The masks do not fit the model.
    WeightsError
        The SAM is not there.
    """
    annotated = yield from describe_references(pairs, classes, settings, class_values)
    judge = Judge(annotated, settings)
    enough = len(states) >= FEWEST_POINTS
    masks = yield from known_masks(annotated, states if enough else ())
    judge = replace(judge, lines=(yield from fit_lines(judge, masks)))
    folder = yield from fit_folder(judge, masks)
    basis = _basis(judge, folder, len(states) if enough else 0)
    what = f"{pairs.digest} {json.dumps(to_dict(settings), sort_keys=True)}"
    digest = hashlib.sha256(what.encode()).hexdigest()
    return Prepared(judge, folder, basis, digest)


def estimate(
    images: Path | Sequence[Path],
    segmenter: AnySegmenter,
    prepared: Prepared,
    count: int = 0,
    channels: ChannelChoice = ALL,
) -> Job[Estimate]:
    """Segment images without annotations, and predict how good the results are.

    Parameters
    ----------
    images : Path or sequence of Path
        A folder, with the folders in it, or files.
    segmenter : AnySegmenter
        The model.
    prepared : Prepared
        Of `prepare`, for the classes of the model.
    count : int
        How many images to name that should be annotated next.
    channels : ChannelChoice
        Which channels of the images the model sees.

    Yields
    ------
    Progress
        One an image.

    Returns
    -------
    Estimate
        The worst first.

    Raises
    ------
    InputError
        There is no image.
    """
    files = _files(images)
    judged: dict[str, Judgement] = {}
    failures: dict[str, str] = {}
    wanted = set(np.random.default_rng(0).permutation(len(files))[:SUPPORT] + 1)
    support: list[tuple[Example, ...]] = []
    for step, path in enumerate(files, start=1):
        name = _name(path, images)
        try:
            judged[name], examples = _judge_file(
                path, segmenter, prepared.judge, channels
            )
        except (MedsegError, OSError, ValueError) as error:
            reason = str(error)
            failures[name] = reason if str(path) in reason else f"{path}: {reason}"
            yield Progress(step, len(files), f"{name} could not be judged")
            continue
        # what describes thousands of images would not fit into memory
        if step in wanted and not math.isnan(judged[name].quality):
            support.append(examples)
        yield Progress(step, len(files), f"judged {name}")
    mean, reverse = predict_folder(prepared.judge, prepared.folder, support)
    return Estimate(
        mean,
        reverse or dict.fromkeys(SCORES, math.nan),
        dict(sorted(judged.items(), key=lambda item: _order(item[1]))),
        prepared.basis,
        failures,
        _next(judged, prepared, count),
    )


def _files(images: Path | Sequence[Path]) -> list[Path]:
    """Return the files of a folder, or those that were given."""
    if not isinstance(images, Path):
        return list(images)
    files = [images] if is_image(images) else image_files(images, recursive=True)
    if not files:
        raise InputError(f"There is no image in {images}.")
    return files


def _name(path: Path, images: Path | Sequence[Path]) -> str:
    """Return the name of an image, with the folders in the folder that it lies in."""
    if isinstance(images, Path) and path != images:
        return path.relative_to(images).as_posix()
    return path.name


def _judge_file(
    path: Path, segmenter: AnySegmenter, judge: Judge, channels: ChannelChoice
) -> tuple[Judgement, tuple[Example, ...]]:
    """Segment and judge an image, of a stack all slices; give windows of the first."""
    first: tuple[Example, ...] = ()
    slices = []
    image = read_image(path)
    for _, plane in channels.of(image).slices():
        examples = judge.examples(plane, segmenter.predict(plane).labels)
        slices.append(judge.judged(examples, fingerprint(plane)))
        first = first or examples
    whole = merged(slices)
    return replace(whole, note=f"{channels.note(image)} {whole.note}".strip()), first


def _order(judgement: Judgement) -> tuple[bool, float, float]:
    """Return what results are sorted by: those without anything come first."""
    if math.isnan(judgement.quality):
        return False, 0.0, 0.0
    # beyond the ends of the line all have one quality
    return True, judgement.quality, judgement.reverse["dice"]


def _next(
    judged: Mapping[str, Judgement], prepared: Prepared, count: int
) -> tuple[str, ...]:
    """Return what to annotate next."""
    if not judged or count < 1:
        return ()
    names = list(judged)
    summaries = np.stack([judged[name].summary for name in names])
    quality = [judged[name].quality for name in names]
    annotated = prepared.judge.annotated.summaries
    chosen = annotate_next(summaries, quality, count, annotated)
    return tuple(names[index] for index in chosen)


def _basis(judge: Judge, folder: FolderLine, states: int) -> str:
    """Say on what predictions rest, and how sure they are."""
    annotated = judge.annotated
    count = len(annotated.pairs)
    images = "1 annotated image" if count == 1 else f"{count} annotated images"
    ranks = "So results are only ranked, the worst first, and no Dice is predicted."
    if count < FEWEST_IMAGES:
        return (
            f"There are {images}; {FEWEST_IMAGES} are needed to say how good results "
            f"are. {ranks}"
        )
    if not annotated.whole:
        return (
            "The references are scribbles, on which no mask of known quality can be "
            f"made. {ranks}"
        )
    if "dice" not in judge.lines:
        return (
            f"On {images}, how well the references are drawn in reverse says nothing "
            f"of how good a mask is. The order means little, and no Dice is predicted."
        )
    made = (
        f"{states} states of the training" if states else "masks made worse on purpose"
    )
    share = round(100 * judge.settings.confidence)
    return (
        f"Fitted to {images} with {made}; {share} of 100 true values are expected "
        "within their intervals, on images like these."
    )


def _row(
    predicted: Mapping[str, Predicted],
    reverse: Mapping[str, float],
    forward: Mapping[str, float] | None = None,
) -> dict[str, float | None]:
    """Return scores, intervals and signs as one row."""
    row: dict[str, float] = {name: predicted[name].value for name in SCORES}
    for name in SCORES:
        row[f"{name}_low"] = predicted[name].low
        row[f"{name}_high"] = predicted[name].high
    row |= {f"reverse_{name}": reverse[name] for name in SCORES}
    row |= {f"forward_{name}": value for name, value in (forward or {}).items()}
    return {
        name: round(value, 4) if math.isfinite(value) else None
        for name, value in row.items()
    }
