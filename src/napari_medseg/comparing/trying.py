"""The comparison: every recipe is tried, and measured alike."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_medseg._config import config_class
from napari_medseg._types import InputError, MedsegError, Progress
from napari_medseg.api import train_job
from napari_medseg.comparing.advice import Comparison, Tried, advice, rank
from napari_medseg.comparing.recipes import Recipe, recipes_for
from napari_medseg.inference import open_segmenter
from napari_medseg.io.model_file import save
from napari_medseg.models.methods import lookup_method
from napari_medseg.training.conduct import Conduct, never
from napari_medseg.training.goals import ClassGoal, ObjectGoal
from napari_medseg.training.views import Example

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_medseg._types import FloatArray, Job
    from napari_medseg.comparing.settings import CompareConfig
    from napari_medseg.io.pairs import Pairs
    from napari_medseg.training.goals import Goal
    from napari_medseg.training.scoring import Score

BORDER = 2.0
"""Of an object, in pixels; it plays no part in what is measured."""


def compare(
    pairs: Pairs,
    config: CompareConfig,
    *,
    date: str = "",
    stop: Callable[[], bool] = never,
) -> Job[Comparison]:
    """Try recipes on annotated images.

    Parameters
    ----------
    pairs : Pairs
        Annotated images, two at least.
    config : CompareConfig
        Which recipes, and how long it may take.
    date : str
        Date for the cards of what is trained.
    stop : callable
        Asked before each step; what was tried so far is compared when it says True.

    Yields
    ------
    Progress
        What is being tried.

    Returns
    -------
    Comparison
        All recipes, best first, and which to take.

    Raises
    ------
    InputError
        There are too few images, or an unknown recipe was asked for.
    """
    if len(pairs) < 2:
        raise InputError(
            "To compare, at least two annotated images are needed: one to learn from, "
            "one to measure on. Annotate more; eight say something."
        )
    recipes = recipes_for(pairs, config)
    trials = _Trials(pairs, config, _Judge(pairs), Conduct(date, stop=stop))
    started = time.monotonic()
    tried: list[Tried] = []
    for number, recipe in enumerate(recipes):
        if stop():
            break
        left = sum(bool(each.method) for each in recipes[number:])
        spent = (time.monotonic() - started) / 60.0
        minutes = max(0.0, config.minutes - spent) / max(1, left)
        job = trials.attempt(recipe, minutes)
        tried.append((yield from _labelled(job, f"{recipe.title}: ")))
    tried.sort(key=rank)
    return Comparison(tuple(tried), advice(tried))


def save_models(found: Comparison, folder: Path) -> dict[str, Path]:
    """Write the model files of what was trained.

    Parameters
    ----------
    found : Comparison
        From `compare`.
    folder : Path
        Where; it is made if need be.

    Returns
    -------
    dict of str to Path
        The files, by the name of the recipe.

    Raises
    ------
    OSError
        The folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return {
        item.recipe.name: save(folder / f"{item.recipe.name}.medseg", item.model)
        for item in found.tried
        if item.model is not None
    }


def _labelled(job: Job[Tried], label: str) -> Job[Tried]:
    """Pass progress on, saying of which recipe it is."""
    while True:
        try:
            progress = next(job)
        except StopIteration as ended:
            result: Tried = ended.value
            return result
        yield replace(progress, message=f"{label}{progress.message}")


@dataclass(frozen=True)
class _Trials:
    """What all recipes are tried on, and by which measure."""

    pairs: Pairs
    config: CompareConfig
    judge: _Judge
    conduct: Conduct

    def attempt(self, recipe: Recipe, minutes: float) -> Job[Tried]:
        """Try a recipe; what is wrong with it is no reason to stop the others."""
        started = time.monotonic()
        try:
            if recipe.method:
                found = yield from self._train(recipe, minutes)
            else:
                found = yield from self._apply(recipe)
        except MedsegError as error:
            found = Tried(recipe, problem=str(error))
        return replace(found, seconds=time.monotonic() - started)

    def _train(self, recipe: Recipe, minutes: float) -> Job[Tried]:
        """Train in folds, and once more on all images."""
        entry, pairs = lookup_method(recipe.method), self.pairs
        settings: dict[str, Any] = {
            "folds": self.config.folds,
            "minutes": minutes,
            "seed": self.config.seed,
            "device": self.config.device,
            **dict(recipe.settings),
        }
        if not entry.trains:
            settings["sam"] = self.config.sam
        scores: dict[int, Score] = {}

        def note(index: int, probabilities: FloatArray) -> None:
            scores[index] = self.judge(index, probabilities)

        ready: Any = config_class(entry.config)(**settings)
        conduct = replace(self.conduct, judge=note)
        trained = yield from train_job(pairs, ready, conduct)
        if len(scores) < len(pairs):
            return Tried(recipe, problem="It was ended before its last fold.")
        return replace(
            _scored(recipe, [scores[index] for index in range(len(pairs))]),
            parameters=trained.report.parameters,
            share=trained.config.steps / ready.steps,
            model=trained.model_file,
        )

    def _apply(self, recipe: Recipe) -> Job[Tried]:
        """Segment all images with what needs no training."""
        segmenter = open_segmenter(recipe.name, self.config.device)
        scores = []
        for index, pair in enumerate(self.pairs):
            yield Progress(index, len(self.pairs), f"segmenting {pair.name}")
            found = segmenter.predict(pair.image)
            scores.append(self.judge(index, found.probabilities))
        return _scored(recipe, scores)


def _scored(recipe: Recipe, scores: Sequence[Score]) -> Tried:
    """Put the scores of all images together."""
    quality = [score.pq for score in scores if score.pq is not None]
    return Tried(recipe, tuple(score.dice for score in scores), tuple(quality))


class _Judge:
    """Measures class probabilities of any recipe by one measure."""

    def __init__(self, pairs: Pairs) -> None:
        apart = pairs.annotation_kind == "instances"
        self.goal: Goal = ObjectGoal(pairs, BORDER) if apart else ClassGoal(pairs)
        self.examples = [
            Example(pair.name, pair.image, pairs.targets(index), index)
            for index, pair in enumerate(pairs)
        ]

    def __call__(self, index: int, probabilities: FloatArray) -> Score:
        """Compare class probabilities ``float32 (K, Y, X)`` with the annotation."""
        return self.goal.score(index, self.examples[index], probabilities)
