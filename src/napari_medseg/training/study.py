"""A study: training on some annotated images, measuring on the others.

What is common to all that learns from annotated images: windows and views, embeddings
that are kept where an encoder does not change, held-out images or folds, the best
step, a report. What is trained is a learner (`napari_medseg.training.learners`), what
is learned a goal (`napari_medseg.training.goals`), how it is learned an objective.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import numpy as np
import torch

from napari_medseg._types import InputError, Job, Progress
from napari_medseg.io.normalise import normalise
from napari_medseg.models.devices import resolve_device
from napari_medseg.models.heap import give_back
from napari_medseg.models.style import CURVES
from napari_medseg.training.kept import Kept
from napari_medseg.training.learners import Learner
from napari_medseg.training.measuring import HeldOut, report_of
from napari_medseg.training.pace import affordable_steps
from napari_medseg.training.scoring import Score, predict_windows
from napari_medseg.training.settings import TrainingSettings
from napari_medseg.training.splits import Split, split_images
from napari_medseg.training.supervised import LossConfig, Supervised
from napari_medseg.training.trainer import FitConfig, FitResult, fit
from napari_medseg.training.unlabelled import MOST, NONE, Unlabelled
from napari_medseg.training.views import (
    Example,
    FreshViews,
    KeptViews,
    View,
    ViewConfig,
    changed_view,
    plain_views,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from napari_medseg._types import FloatArray
    from napari_medseg.training.conduct import Conduct
    from napari_medseg.training.goals import Goal
    from napari_medseg.training.report import TrainingReport
    from napari_medseg.training.trainer import Objective

LearnerT = TypeVar("LearnerT", bound=Learner, covariant=True)

SettingsT = TypeVar("SettingsT", bound=TrainingSettings, covariant=True)

AnyStudy: TypeAlias = "Study[Learner, TrainingSettings]"

ObjectiveFactory: TypeAlias = "Callable[[AnyStudy, Sequence[int]], Objective[Any]]"
"""Gives how a part of a study learns, of the study and the images it trains on."""


NO_PREVIEW = "(No preview: the image in view has too few channels.)"

LOOKED_AT = 600
"""Views that a training looks at: 200 steps of three. More are not made by default."""

FIRST_IMAGES = 4
"""Training images that a learner sees first, where nothing is kept of them."""


def supervised(study: AnyStudy, training: Sequence[int]) -> Supervised:
    """Return the plain objective, with the weights of the study's config."""
    return Supervised(LossConfig(study.config.cross_entropy, study.config.dice))


@dataclass
class _Part:
    """One training of the run: its model, how it went, what was measured."""

    model: nn.Module
    objective: Objective[Any]
    result: FitResult
    training: tuple[int, ...]
    held_out: tuple[int, ...]


class Study(Generic[LearnerT, SettingsT]):
    """The images as a learner sees them, and the trainings on them.

    Parameters
    ----------
    learner : Learner
        What is trained.
    goal : Goal
        The annotated images and what is learned from them.
    config : TrainingSettings
        Steps, learning rate, batch, images held out, seed, device and the loss.
    conduct : Conduct
        Checkpoints, when to stop, what to preview.
    objective : callable
        Gives how each part learns; asked once a part, after `prepare`, with the study
        and the indices of the images that the part is trained on.
    unlabelled : Unlabelled
        Images without annotation, for an objective that learns from them.
    """

    def __init__(
        self,
        learner: LearnerT,
        goal: Goal,
        config: SettingsT,
        conduct: Conduct,
        objective: ObjectiveFactory = supervised,
        unlabelled: Unlabelled = NONE,
    ) -> None:
        self.started = time.monotonic()
        self.learner = learner
        self.goal = goal
        self.pairs = pairs = goal.pairs
        self.config = config
        self.conduct = conduct
        self.objective = objective
        self.device = resolve_device(config.device)
        self.normalisation = learner.normalisation(pairs)
        framing = learner.framing(pairs)
        self.view_config = ViewConfig(
            framing,
            goal.classes,
            learner.shrink,
            config.seed,
            learner.augmentation,
            # what is kept cannot be changed later, by the objective
            CURVES if learner.keeps_inputs and config.meets_other_shades else 0.0,
        )
        self.examples = [
            Example(
                pair.name,
                normalise(pair.image, self.normalisation),
                goal.target(index, learner.shrink / framing.scale),
                index,
            )
            for index, pair in enumerate(pairs)
        ]
        present = [frozenset(np.unique(item.target).tolist()) for item in self.examples]
        self.splits = split_images(
            present,
            config.validate,
            config.seed,
            config.folds,
            [pair.stack for pair in pairs],
        )
        self.domains = pairs.domains(config.domains)
        self.unlabelled = unlabelled
        unlabelled.check_same(config.unlabelled_data)
        self.others = [
            self._example_without(name, image, len(pairs) + index)
            for index, (name, image) in enumerate(
                zip(unlabelled.names, unlabelled.images, strict=True)
            )
        ]
        self.other_windows: list[View] = []
        self.windows: list[list[View]] = []
        self.views: list[list[View]] = []
        self.kept = Kept()
        self.watched: Example | None = None
        self.no_preview = ""
        self.parts: list[_Part] = []

    def run(self) -> Job[None]:
        """Do the whole study: embed, train on each split, and once more on all."""
        yield from self.prepare()
        self._take_time()
        for split in self.splits:
            yield from self.train(split.training, split)
            if self.conduct.judge is not None:
                for index in split.held_out:
                    self.conduct.judge(index, self.predict(self.trained, index))
            if self.ended_early:
                return
        if len(self.splits) != 1:
            yield from self.train(range(len(self.pairs)), None)

    def prepare(self) -> Job[None]:
        """Make the windows of all images, and embed them, where that can be kept."""
        if self.conduct.watch is not None:
            try:
                self.watched = self._example_without("watched", self.conduct.watch, 0)
            except InputError:  # of another kind than what is trained on
                self.no_preview = NO_PREVIEW
        if not self.learner.keeps_inputs:
            return
        # beside an image's own windows; by no setting, as a replay has other steps
        count = self.learner.kept_views(LOOKED_AT // len(self.examples) - 1)
        alone = self.splits[0].training if len(self.splits) == 1 else None
        total = len(self.examples) + len(self.others)
        for index, example in enumerate(self.examples):
            yield Progress(index, total, f"embedding {example.name}")
            plain = plain_views(example, self.view_config)
            changed = (
                changed_view(example, index * count + number, self.view_config)
                for number in range(count if alone is None or index in alone else 0)
            )
            self.windows.append([self._kept(view) for view in plain])
            self.views.append([self._kept(view) for view in changed])
            give_back()
        for index, example in enumerate(self.others, len(self.examples)):
            yield Progress(index, total, f"embedding {example.name}")
            plain = plain_views(example, self.view_config)
            # evenly over a large image, so that time and memory have a bound
            step = -(-len(plain) * len(self.others) // MOST)
            self.other_windows += map(self._kept, plain[:: max(1, step)])
            give_back()
        yield Progress(total, total, "embedded")

    def _take_time(self) -> None:
        """Plan as many steps as fit into the minutes given.

        A run that can be resumed keeps its steps, by which its checkpoints are found.
        """
        config = self.config
        if config.minutes is None or config.stop_at or self.conduct.checkpoints:
            return
        spent = (time.monotonic() - self.started) / 60.0
        steps = affordable_steps(self, config.minutes - spent)
        self.config = replace(config, steps=steps)

    def _example_without(self, name: str, image: FloatArray, number: int) -> Example:
        """Return an image without annotation as an example, all background."""
        seen = normalise(image, self.normalisation)
        return Example(name, seen, np.zeros(seen.shape[1:], np.int32), number)

    def _prepared(self, view: View) -> View:
        if not self.learner.keeps_inputs:
            return view
        return view._replace(inputs=self.learner.prepare(view.inputs, self.device))

    def _kept(self, view: View) -> View:
        made = self._prepared(view)
        return made._replace(inputs=self.kept.keep(made.inputs))

    def model(self, training: Iterable[int]) -> nn.Module:
        """Return the module to train on some of the images; `prepare` comes first.

        The same at every call.
        """
        generator = torch.Generator().manual_seed(self.config.seed)
        channels = len(self.normalisation.channels)
        model = self.learner.build(channels, self.goal.classes, generator)
        # a SAM underneath is where the training before has brought it
        model.to(self.device)
        self.learner.begin(model, self._first_windows(training))
        return model

    def _first_windows(self, training: Iterable[int]) -> Iterator[Tensor]:
        """Give windows of the training images: all that are kept, or of a few."""
        if self.learner.keeps_inputs:
            kept = (view for index in training for view in self.windows[index])
            yield from (view.inputs for view in kept)
            return
        for index in islice(training, FIRST_IMAGES):
            yield from self._inputs(self.examples[index])

    def train(self, training: Iterable[int], split: Split | None) -> Job[None]:
        """Train one part of the run, measured on a split, or for the best steps."""
        training = tuple(training)
        model = self.model(training)
        held_out = HeldOut(self, split, model) if split else None
        settings = self._fit_config()
        if held_out is None and self.parts and settings.stop_at is None:
            settings = replace(settings, stop_at=self.best_step)
        objective = self.objective(self, training)
        job = fit(
            model,
            objective,
            self.batches(training),
            settings,
            evaluate=held_out,
            checkpoint=self.checkpoint(),
            stop=self.conduct.stop,
        )
        result = yield from self._with_previews(job, model, settings.evaluate_every)
        kept = split.held_out if split else ()
        self.parts.append(_Part(model, objective, result, training, kept))

    def _with_previews(
        self, job: Job[FitResult], model: nn.Module, every: int
    ) -> Job[FitResult]:
        """Pass a training's progress on, with a preview every so many steps."""
        seen: list[Tensor] | None = None
        while True:
            try:
                progress = next(job)
            except StopIteration as ended:
                result: FitResult = ended.value
                return result
            if self.watched is not None and progress.step % every == 0:
                if seen is None:
                    seen = self._inputs(self.watched)
                probabilities = self._predict(model, self.watched, seen)
                labels = self.goal.labels(probabilities)
                progress = replace(progress, preview=labels)
            if self.no_preview:
                told = f"{progress.message} {self.no_preview}".strip()
                progress = replace(progress, message=told)
            yield progress

    def checkpoint(self) -> Path | None:
        """Return the file of the next part, of these images and settings alone."""
        folder = self.conduct.checkpoints
        if folder is None:
            return None
        data = self.pairs.digest + (self.unlabelled.digest if self.others else "")
        made = (self.config.lasting, self.learner.identity, data)
        run = repr(made).encode()
        name = f"{hashlib.sha256(run).hexdigest()[:16]}-part{len(self.parts)}"
        return folder / f"{name}.safetensors"

    def batches(self, training: Sequence[int]) -> KeptViews | FreshViews:
        """Return the batches of some of the images; `prepare` comes first."""
        config = self.config
        if self.learner.keeps_inputs:
            views = [
                view
                for index in training
                for view in self.windows[index] + self.views[index]
            ]
            kinds = [self.domains[view.number] for view in views]
            return KeptViews(views, config.batch, config.seed, kinds)
        examples = [self.examples[index] for index in training]
        kinds = [self.domains[index] for index in training]
        return FreshViews(examples, self.view_config, config.batch, kinds)

    def _fit_config(self) -> FitConfig:
        """Return the settings of the next part."""
        config, number = self.config, len(self.parts)
        minutes = config.minutes
        if minutes is not None:
            spent = (time.monotonic() - self.started) / 60.0
            minutes = max(0.0, minutes - spent) / max(1, self.part_count - number)
        return FitConfig(
            steps=config.steps,
            stop_at=config.stop_at[number] if number < len(config.stop_at) else None,
            learning_rate=config.peak_rate,
            weight_decay=config.weight_decay,
            evaluate_every=max(1, config.steps // 12),
            minutes=minutes,
            seed=config.seed,
            device=config.device,
        )

    @property
    def part_count(self) -> int:
        """How many trainings the run has: one, or the folds and a last one."""
        return 1 if len(self.splits) <= 1 else len(self.splits) + 1

    @property
    def ended_early(self) -> bool:
        """Whether the user stopped the run, now or when it was first done."""
        done, recorded = len(self.parts), len(self.config.stop_at)
        replayed = recorded == done and done < self.part_count
        return bool(self.parts) and (
            self.parts[-1].result.stopped == "cancelled" or replayed
        )

    @property
    def best_step(self) -> int:
        """The step with the best held-out score over all folds."""
        totals: dict[int, list[float]] = {}
        for part in self.parts:
            for entry in part.result.history:
                totals.setdefault(int(entry["step"]), []).append(entry["score"])
        folds = max((len(values) for values in totals.values()), default=0)
        means = {
            step: float(np.mean(values))
            for step, values in totals.items()
            if len(values) == folds
        }
        return max(means, key=lambda step: (means[step], -step), default=0)

    def score(self, model: nn.Module, images: Sequence[int]) -> list[Score]:
        """Measure a model on whole images."""
        return [self._score_one(model, index) for index in images]

    def _score_one(self, model: nn.Module, index: int) -> Score:
        probabilities = self.predict(model, index)
        return self.goal.score(index, self.examples[index], probabilities)

    def predict(self, model: nn.Module, index: int) -> FloatArray:
        """Return class probabilities ``float32 (K, Y, X)`` of one of the images."""
        example = self.examples[index]
        kept = self.windows[index] if self.learner.keeps_inputs else None
        inputs = [view.inputs for view in kept] if kept else self._inputs(example)
        return self._predict(model, example, inputs)

    def _inputs(self, example: Example) -> list[Tensor]:
        """Return what the model takes of the windows of a whole image."""
        views = plain_views(example, self.view_config)
        return [self._prepared(view).inputs for view in views]

    def _predict(
        self, model: nn.Module, example: Example, inputs: Sequence[Tensor]
    ) -> FloatArray:
        shape = (example.target.shape[0], example.target.shape[1])
        framing = self.view_config.framing
        return predict_windows(model, inputs, shape, framing, self.device)

    @property
    def trained(self) -> nn.Module:
        """The module of the last part, with its best weights."""
        return self.parts[-1].model

    @property
    def replay(self) -> SettingsT:
        """The config that gives the same again."""
        steps = tuple(part.result.steps for part in self.parts)
        data = (self.unlabelled.digest,) if len(self.unlabelled) else ()
        return replace(self.config, minutes=None, stop_at=steps, unlabelled_data=data)

    def report(self) -> TrainingReport:
        """Say how it went."""
        return report_of(self)
