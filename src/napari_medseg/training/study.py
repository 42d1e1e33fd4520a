"""A study: training on some annotated images, measuring on the others.

What is common to every way of adapting a SAM to annotated images: windows and views,
embeddings that are kept where the encoder does not change, held-out images or folds,
the best step, a report. What is trained is an `Adaptation`, what is learned a goal
(`napari_medseg.training.goals`).
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import torch

from napari_medseg._types import Job, Progress
from napari_medseg.io.normalise import normalise
from napari_medseg.models.devices import resolve_device
from napari_medseg.models.framing import Framing
from napari_medseg.models.prompts import PromptedDecoder, PromptedSam, trained_count
from napari_medseg.models.sam import stride_of
from napari_medseg.training.report import TrainingReport, warnings_of
from napari_medseg.training.scoring import Score, Summary, predict_windows
from napari_medseg.training.splits import Split, split_images
from napari_medseg.training.supervised import LossConfig, Supervised
from napari_medseg.training.trainer import FitConfig, FitResult, fit
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
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from segment_anything.modeling import Sam
    from torch import nn

    from napari_medseg._types import FloatArray
    from napari_medseg.models.backbone import Backbone
    from napari_medseg.training.conduct import Conduct
    from napari_medseg.training.goals import Goal
    from napari_medseg.training.prompt_tuning import PromptTuning
    from napari_medseg.training.trainer import Objective

IMAGES = "images"
"""Where an evaluation keeps the scores of its images."""

VIEWS = {"nano": 3}
"""Changed views an image, by kind of SAM; larger ones take seconds to embed one."""


ObjectiveFactory: TypeAlias = "Callable[[Study, Sequence[int]], Objective[Any]]"
"""Gives how a part of a study learns, of the study and the images it trains on."""


def supervised(study: Study, training: Sequence[int]) -> Supervised:
    """Return the plain objective, with the weights of the study's config."""
    return Supervised(LossConfig(study.config.cross_entropy, study.config.dice))


class Adaptation(Protocol):
    """What of a SAM is trained."""

    @property
    def keeps_embeddings(self) -> bool:
        """Whether the image encoder is left as it is, so that embeddings are kept."""
        ...

    def build(self, sam: Sam, classes: int, generator: torch.Generator) -> nn.Module:
        """Return the module to train.

        Parameters
        ----------
        sam : Sam
            Must be left with the weights it has; what is to change is copied.
        classes : int
            Outputs of the module, background included.
        generator : torch.Generator
            Source of first values.

        Returns
        -------
        Module
            Maps embeddings ``(B, 256, h, w)``, or images ``(B, 3, S, S)`` where
            embeddings are not kept, to class logits; what is not trained is frozen.
        """
        ...


class _HeldOut:
    """Measures a model on the images of a split, whenever it is called."""

    def __init__(self, study: Study, split: Split) -> None:
        self.study = study
        self.split = split
        self.model: nn.Module | None = None

    def __call__(self) -> dict[str, Any]:
        if self.model is None:
            raise ValueError("the model to measure was not given")
        scores = self.study.score(self.model, self.split.held_out)
        summary = Summary.of(scores)
        if summary is None:
            raise ValueError("a split holds out at least one image")
        figures = {
            "score": float(np.mean([score.quality for score in scores])),
            "held_out_dice": summary.dice,
        }
        if summary.pq is not None:
            figures["held_out_pq"] = summary.pq
        # the history is kept in checkpoints, and a resumed run needs these again
        return figures | {IMAGES: list(map(asdict, scores))}


@dataclass
class _Part:
    """One training of the run: its model, how it went, what was measured."""

    model: nn.Module
    result: FitResult
    training: tuple[int, ...]
    held_out: tuple[int, ...]


class Study:
    """The images as SAM sees them, and the trainings on them.

    Parameters
    ----------
    backbone : Backbone
        The SAM.
    adaptation : Adaptation
        What of it is trained.
    goal : Goal
        The annotated images and what is learned from them.
    config : PromptTuning
        Views, steps, learning rate, images held out, seed and device are used.
    conduct : Conduct
        Checkpoints, when to stop, what to preview.
    objective : callable
        Gives how each part learns; asked once a part, after `prepare`, with the study
        and the indices of the images that the part is trained on.
    """

    def __init__(
        self,
        backbone: Backbone,
        adaptation: Adaptation,
        goal: Goal,
        config: PromptTuning,
        conduct: Conduct,
        objective: ObjectiveFactory = supervised,
    ) -> None:
        self.started = time.monotonic()
        self.backbone = backbone
        self.adaptation = adaptation
        self.goal = goal
        self.pairs = pairs = goal.pairs
        self.config = config
        self.conduct = conduct
        self.objective = objective
        self.watched: list[View] = []
        self.device = resolve_device(config.device)
        self.normalisation = pairs.normalisation()
        size = config.working_size or backbone.working_size
        framing = Framing.for_images([pair.annotation.shape for pair in pairs], size)
        shrink = stride_of(backbone.sam) // 4
        self.view_config = ViewConfig(framing, goal.classes, shrink, config.seed)
        self.examples = [
            Example(
                pair.name,
                normalise(pair.image, self.normalisation),
                goal.target(index, shrink / framing.scale),
            )
            for index, pair in enumerate(pairs)
        ]
        present = [frozenset(np.unique(item.target).tolist()) for item in self.examples]
        self.splits = split_images(present, config.validate, config.seed)
        self.windows: list[list[View]] = []
        self.views: list[list[View]] = []
        self.parts: list[_Part] = []

    def run(self) -> Job[None]:
        """Do the whole study: embed, train on each split, and once more on all."""
        yield from self.prepare()
        for split in self.splits:
            yield from self.train(split.training, split)
            if self.ended_early:
                return
        if len(self.splits) != 1:
            yield from self.train(range(len(self.pairs)), None)

    def prepare(self) -> Job[None]:
        """Make the windows of all images, and embed them where that can be kept."""
        count = self.config.views
        if count is None:
            count = VIEWS.get(self.backbone.kind, 1)
        if not self.adaptation.keeps_embeddings:
            count = 0
        alone = self.splits[0].training if len(self.splits) == 1 else None
        total = len(self.examples)
        for index, example in enumerate(self.examples):
            yield Progress(index, total, f"embedding {example.name}")
            plain = plain_views(example, self.view_config)
            changed = (
                changed_view(example, index * count + number, self.view_config)
                for number in range(count if alone is None or index in alone else 0)
            )
            self.windows.append([self._embedded(view) for view in plain])
            self.views.append([self._embedded(view) for view in changed])
        if self.conduct.watch is not None:
            image = normalise(self.conduct.watch, self.normalisation)
            blank = np.zeros(image.shape[1:], np.int32)
            seen = plain_views(Example("watched", image, blank), self.view_config)
            self.watched = [self._embedded(view) for view in seen]
        yield Progress(total, total, "embedded")

    def _embedded(self, view: View) -> View:
        if not self.adaptation.keeps_embeddings:
            return view
        return view._replace(inputs=self.backbone.embed(view.inputs, self.device))

    def model(self) -> nn.Module:
        """Return the module to train; the same at every call."""
        generator = torch.Generator().manual_seed(self.config.seed)
        return self.adaptation.build(self.backbone.sam, self.goal.classes, generator)

    def train(self, training: Iterable[int], split: Split | None) -> Job[None]:
        """Train one part of the run, measured on a split, or for the best steps."""
        model, training = self.model(), tuple(training)
        held_out = _HeldOut(self, split) if split else None
        if held_out:
            held_out.model = model
        settings = self._fit_config()
        if held_out is None and self.parts and settings.stop_at is None:
            settings = replace(settings, stop_at=self.best_step)
        job = fit(
            model,
            self.objective(self, training),
            self.batches(training),
            settings,
            evaluate=held_out,
            checkpoint=self._checkpoint(),
            stop=self.conduct.stop,
        )
        result = yield from self._with_previews(job, model, settings.evaluate_every)
        kept = split.held_out if split else ()
        self.parts.append(_Part(model, result, training, kept))

    def _with_previews(
        self, job: Job[FitResult], model: nn.Module, every: int
    ) -> Job[FitResult]:
        """Pass a training's progress on, with a preview every so many steps."""
        while True:
            try:
                progress = next(job)
            except StopIteration as ended:
                result: FitResult = ended.value
                return result
            watch = self.conduct.watch
            if watch is not None and progress.step % every == 0:
                shape = (watch.shape[1], watch.shape[2])
                probabilities = self._predict(model, self.watched, shape)
                seen = self.goal.labels(probabilities)
                progress = replace(progress, preview=seen)
            yield progress

    def _checkpoint(self) -> Path | None:
        """Return the file of the next part, of these images and settings alone."""
        folder = self.conduct.checkpoints
        if folder is None:
            return None
        config = replace(self.config, sam="", minutes=None, stop_at=(), device="auto")
        made = (config, self.adaptation, self.backbone.digest, self.pairs.digest)
        run = repr(made).encode()
        name = f"{hashlib.sha256(run).hexdigest()[:16]}-part{len(self.parts)}"
        return folder / f"{name}.safetensors"

    def batches(self, training: Sequence[int]) -> KeptViews | FreshViews:
        """Return the batches of some of the images; `prepare` comes first."""
        config = self.config
        if self.adaptation.keeps_embeddings:
            views = [
                view
                for index in training
                for view in self.windows[index] + self.views[index]
            ]
            return KeptViews(views, config.batch, config.seed)
        examples = [self.examples[index] for index in training]
        return FreshViews(examples, self.view_config, config.batch)

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
        example = self.examples[index]
        shape = (example.target.shape[0], example.target.shape[1])
        probabilities = self._predict(model, self.windows[index], shape)
        return self.goal.score(index, example, probabilities)

    def _predict(
        self, model: nn.Module, windows: Sequence[View], shape: tuple[int, int]
    ) -> FloatArray:
        inputs = [view.inputs for view in windows]
        framing = self.view_config.framing
        return predict_windows(model, inputs, shape, framing, self.device)

    @property
    def trained(self) -> nn.Module:
        """The module of the last part, with its best weights."""
        return self.parts[-1].model

    @property
    def replay(self) -> PromptTuning:
        """The config that gives the same again."""
        steps = tuple(part.result.steps for part in self.parts)
        return replace(self.config, minutes=None, stop_at=steps)

    def _held_out_scores(self) -> tuple[list[Score], list[Score]]:
        """Return the scores at the best step, and those of SAM without prompts."""
        tuned: list[Score] = []
        images: list[int] = []
        for part in self.parts:
            for entry in part.result.history:
                if entry["step"] == self.best_step:
                    tuned += [Score(**score) for score in entry[IMAGES]]
                    images += part.held_out
        bare = PromptedDecoder(self.backbone.sam, self.pairs.classes - 1, count=0)
        kept = self.adaptation.keeps_embeddings
        model = bare if kept else PromptedSam(self.backbone.sam.image_encoder, bare)
        return tuned, self.score(model.to(self.device), images)

    def report(self) -> TrainingReport:
        """Say how it went."""
        seconds = time.monotonic() - self.started
        tuned, untuned = self._held_out_scores()
        last = self.parts[-1]
        report = TrainingReport(
            parameters=trained_count(last.model),
            seconds=seconds,
            steps=last.result.steps,
            best_step=last.result.best_step,
            held_out=Summary.of(tuned),
            untuned=Summary.of(untuned),
            images=len(self.pairs),
            history=[
                {key: value for key, value in entry.items() if key != IMAGES}
                for part in self.parts
                for entry in part.result.history
            ],
        )
        warnings = warnings_of(report, tuned, self._absent_classes(), self.ended_early)
        return replace(report, warnings=tuple(warnings))

    def _absent_classes(self) -> list[int]:
        """Return the classes that no image trained on in the end shows."""
        shown: set[int] = set()
        for index in self.parts[-1].training:
            shown |= set(np.unique(self.examples[index].target).tolist())
        return [index for index in range(self.goal.classes) if index not in shown]
