"""How a study goes: what is measured on held-out images, and beside what."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_medseg.models.prompts import trained_count
from napari_medseg.training.baseline import better_otsu
from napari_medseg.training.report import TrainingReport, warnings_of
from napari_medseg.training.scoring import Score, Summary, mean_quality

if TYPE_CHECKING:
    from torch import nn

    from napari_medseg.training.splits import Split
    from napari_medseg.training.study import AnyStudy

IMAGES = "images"
"""Where an evaluation keeps the scores of its images."""


@dataclass(frozen=True)
class HeldOut:
    """Measures a model on the images of a split, whenever it is called."""

    study: AnyStudy
    split: Split
    model: nn.Module

    def __call__(self) -> dict[str, Any]:
        """Return ``score``, what else is to be shown, and the scores of the images."""
        scores = self.study.score(self.model, self.split.held_out)
        summary = Summary.of(scores)
        if summary is None:
            raise ValueError("a split holds out at least one image")
        figures = {
            "score": mean_quality(scores),
            "held_out_dice": summary.dice,
        }
        if summary.pq is not None:
            figures["held_out_pq"] = summary.pq
        # the history is kept in checkpoints, and a resumed run needs these again
        return figures | {IMAGES: list(map(asdict, scores))}


def report_of(study: AnyStudy) -> TrainingReport:
    """Say how a study went.

    Parameters
    ----------
    study : Study
        After its last training.

    Returns
    -------
    TrainingReport
        Scores on held-out images, beside those of the learner as it was before, or of
        Otsu's threshold where it begins from scratch.
    """
    seconds = time.monotonic() - study.started
    tuned, untuned = _held_out_scores(study), _untuned_scores(study)
    otsu = [] if untuned else _otsu_scores(study)
    last = study.parts[-1]
    report = TrainingReport(
        parameters=trained_count(last.model),
        seconds=seconds,
        steps=last.result.steps,
        best_step=last.result.best_step,
        held_out=Summary.of(tuned),
        untuned=Summary.of(untuned),
        otsu=Summary.of(otsu),
        images=len(study.pairs),
        unlabelled=len(study.unlabelled),
        untuned_name=study.learner.begun_as,
        history=[
            {key: value for key, value in entry.items() if key != IMAGES}
            for part in study.parts
            for entry in part.result.history
        ],
    )
    warnings = warnings_of(report, tuned, _absent_classes(study), study.ended_early)
    return replace(report, warnings=(*warnings, *study.unlabelled.notes))


def _held_out_scores(study: AnyStudy) -> list[Score]:
    """Return the scores at the best step."""
    return [
        Score(**score)
        for part in study.parts
        for entry in part.result.history
        if entry["step"] == study.best_step
        for score in entry[IMAGES]
    ]


def _untuned_scores(study: AnyStudy) -> list[Score]:
    """Return the scores of the learner as it was before; none from scratch."""
    model = study.learner.untuned(study.pairs.classes)
    if model is None:
        return []
    images = [index for part in study.parts for index in part.held_out]
    return study.score(model.to(study.device), images)


def _otsu_scores(study: AnyStudy) -> list[Score]:
    """Return the scores of Otsu's threshold, for objects of one class."""
    if study.pairs.classes != 2:
        return []
    scores = []
    for part in study.parts:
        if part.held_out:
            otsu = better_otsu(study.pairs.subset(part.training))
            for index in part.held_out:
                found = otsu.predict(study.pairs[index].image).probabilities
                scores.append(study.goal.score(index, study.examples[index], found))
    return scores


def _absent_classes(study: AnyStudy) -> list[int]:
    """Return the classes that no image trained on in the end shows."""
    shown: set[int] = set()
    for index in study.parts[-1].training:
        shown |= set(np.unique(study.examples[index].target).tolist())
    return [index for index in range(study.goal.classes) if index not in shown]
