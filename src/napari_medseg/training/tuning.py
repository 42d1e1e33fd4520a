"""PTSAM as a training: annotated pairs in, a model file of a few kilobytes out.

With the encoder frozen, every view of a training image is embedded once and steps run
on SAM's mask decoder alone, which is what makes tuning a matter of a minute on a
processor. With encoder prompts the embedding changes at each step and nothing can be
kept. See `napari_medseg.models.prompts` for the method and its source.
"""

from __future__ import annotations

import hashlib
import platform
import time
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_medseg._config import to_dict
from napari_medseg._types import Job, Progress, default_classes
from napari_medseg.io.model_file import ModelCard, ModelFile
from napari_medseg.io.normalise import normalise
from napari_medseg.models.backbone import Backbone, load_backbone
from napari_medseg.models.devices import resolve_device
from napari_medseg.models.framing import Framing
from napari_medseg.models.prompts import (
    PromptedDecoder,
    PromptedEncoder,
    PromptedSam,
    trained_count,
)
from napari_medseg.models.sam import stride_of
from napari_medseg.training.report import Trained, TrainingReport, warnings_of
from napari_medseg.training.scoring import (
    Score,
    Summary,
    predict_windows,
    score_image,
)
from napari_medseg.training.splits import Split, split_images
from napari_medseg.training.supervised import Supervised
from napari_medseg.training.trainer import FitConfig, FitResult, fit, never
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

    from torch import Tensor, nn

    from napari_medseg.io.pairs import Pairs
    from napari_medseg.training.prompt_tuning import PromptTuning

IMAGES = "images"
"""Where an evaluation keeps the scores of its images."""

VIEWS = {"nano": 3}
"""Changed views an image, by kind of SAM; larger ones take seconds to embed one."""


def tune(
    pairs: Pairs,
    config: PromptTuning,
    *,
    date: str = "",
    checkpoints: Path | None = None,
    stop: Callable[[], bool] = never,
) -> Job[Trained]:
    """Tune SAM on annotated pairs.

    Parameters
    ----------
    pairs : Pairs
        Annotated images.
    config : PromptTuning
        Settings; the defaults need no touching.
    date : str
        Date for the model's card.
    checkpoints : Path, optional
        Folder to resume from and to write checkpoints to.
    stop : callable, optional
        Asked before each step; the best so far is kept when it says True.

    Yields
    ------
    Progress
        Embedding, then training, with loss and held-out Dice.

    Returns
    -------
    Trained
        Model file and report.

    Raises
    ------
    WeightsError
        The SAM is not there.
    InputError
        The pairs or settings cannot be used.
    JobError
        Memory ran out.
    """
    yield Progress(0, None, "loading SAM")
    study = _Study(pairs, config, load_backbone(config.sam), checkpoints, stop)
    yield from study.prepare()
    for split in study.splits:
        yield from study.train(split.training, split)
        if study.ended_early:
            break
    if not study.ended_early and len(study.splits) != 1:
        yield from study.train(range(len(pairs)), None)
    return study.result(date)


class _HeldOut:
    """Measures a model on the images of a split, whenever it is called."""

    def __init__(self, study: _Study, split: Split) -> None:
        self.study = study
        self.split = split
        self.model: nn.Module | None = None

    def __call__(self) -> dict[str, Any]:
        if self.model is None:
            raise ValueError("the model to measure was not given")
        scores = self.study.score(self.model, self.split.held_out)
        mean = float(np.mean([score.dice for score in scores]))
        # the history is kept in checkpoints, and a resumed run needs these again
        return {"score": mean, "held_out_dice": mean, IMAGES: list(map(asdict, scores))}


@dataclass
class _Part:
    """One training of the run: its model, how it went, what was measured."""

    model: nn.Module
    result: FitResult
    training: tuple[int, ...]
    held_out: tuple[int, ...]


class _Study:
    """A run of `tune`: the images as SAM sees them, and the trainings on them."""

    def __init__(
        self,
        pairs: Pairs,
        config: PromptTuning,
        backbone: Backbone,
        checkpoints: Path | None,
        stop: Callable[[], bool],
    ) -> None:
        self.started = time.monotonic()
        self.pairs = pairs
        self.config = config
        self.backbone = backbone
        self.checkpoints = checkpoints
        self.stop = stop
        self.device = resolve_device(config.device)
        self.normalisation = pairs.normalisation()
        self.examples = [
            Example(pair.name, normalise(pair.image, self.normalisation), target)
            for pair, target in zip(
                pairs, map(pairs.targets, range(len(pairs))), strict=True
            )
        ]
        shapes = [example.target.shape for example in self.examples]
        size = config.working_size or backbone.working_size
        self.view_config = ViewConfig(
            framing=Framing.for_images(shapes, size),
            classes=pairs.classes,
            shrink=stride_of(backbone.sam) // 4,
            seed=config.seed,
        )
        present = [frozenset(np.unique(item.target).tolist()) for item in self.examples]
        self.splits = split_images(present, config.validate, config.seed)
        self.windows: list[list[View]] = []
        self.views: list[list[View]] = []
        self.parts: list[_Part] = []

    @property
    def frozen(self) -> bool:
        """Whether the image encoder has no prompts, so that embeddings are kept."""
        return self.config.encoder_prompts == 0

    def prepare(self) -> Job[None]:
        """Make the windows of all images, and embed them where that can be kept."""
        count = self.config.views
        if count is None:
            count = VIEWS.get(self.backbone.kind, 1)
        if not self.frozen:
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
        yield Progress(total, total, "embedded")

    def _embedded(self, view: View) -> View:
        if not self.frozen:
            return view
        return view._replace(inputs=self.backbone.embed(view.inputs, self.device))

    def model(self) -> nn.Module:
        """Return a freshly prompted model; the same at every call."""
        config, sam = self.config, self.backbone.sam
        generator = torch.Generator().manual_seed(config.seed)
        decoder = PromptedDecoder(
            sam, self.pairs.classes - 1, config.prompts, generator=generator
        )
        if self.frozen:
            return decoder
        encoder = PromptedEncoder(sam, config.encoder_prompts, generator)
        return PromptedSam(encoder, decoder)

    def train(self, training: Iterable[int], split: Split | None) -> Job[None]:
        """Train one part of the run, measured on a split, or for the best steps."""
        model, training = self.model(), tuple(training)
        held_out = _HeldOut(self, split) if split else None
        if held_out:
            held_out.model = model
        settings = self._fit_config()
        if held_out is None and self.parts and settings.stop_at is None:
            settings = replace(settings, stop_at=self.best_step)
        result = yield from fit(
            model,
            Supervised(),
            self._batches(training),
            settings,
            evaluate=held_out,
            checkpoint=self._checkpoint(),
            stop=self.stop,
        )
        kept = split.held_out if split else ()
        self.parts.append(_Part(model, result, training, kept))

    def _checkpoint(self) -> Path | None:
        """Return the file of the next part, of these images and settings alone."""
        if self.checkpoints is None:
            return None
        config = replace(self.config, sam="", minutes=None, stop_at=(), device="auto")
        run = repr((config, self.backbone.digest, self.pairs.digest)).encode()
        name = f"{hashlib.sha256(run).hexdigest()[:16]}-part{len(self.parts)}"
        return self.checkpoints / f"{name}.safetensors"

    def _batches(self, training: Sequence[int]) -> KeptViews | FreshViews:
        config = self.config
        if self.frozen:
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
            learning_rate=config.learning_rate,
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
        probabilities = predict_windows(
            model,
            [view.inputs for view in self.windows[index]],
            example.target.shape,
            self.view_config.framing,
            self.device,
        )
        return score_image(example, probabilities.argmax(axis=0).astype(np.int32))

    def result(self, date: str) -> Trained:
        """Put model file and report together."""
        seconds = time.monotonic() - self.started
        report = self._report(seconds)
        config = replace(
            self.config,
            minutes=None,
            stop_at=tuple(part.result.steps for part in self.parts),
        )
        model = self.parts[-1].model
        return Trained(self._model_file(model, config, report, date), report, config)

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
        model = (
            bare if self.frozen else PromptedSam(self.backbone.sam.image_encoder, bare)
        )
        return tuned, self.score(model.to(self.device), images)

    def _report(self, seconds: float) -> TrainingReport:
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
        return [index for index in range(self.pairs.classes) if index not in shown]

    def _model_file(
        self, model: nn.Module, config: PromptTuning, report: TrainingReport, date: str
    ) -> ModelFile:
        tensors = {
            name: value.detach().cpu().numpy().astype(np.float32)
            for name, value in _prompt_tensors(model).items()
        }
        plain = to_dict(config)
        # where it was computed is no part of the model, and a path says who did
        plain["device"] = "auto"
        plain["sam"] = self.backbone.name
        card = ModelCard(
            kind="ptsam",
            title=f"PTSAM on {self.backbone.title}, {len(self.pairs)} images",
            classes=default_classes(self.pairs.classes),
            normalisation=to_dict(self.normalisation),
            base=self.backbone.card(),
            config=plain,
            provenance={
                "data": self.pairs.digest,
                "images": len(self.pairs),
                "annotation": self.pairs.annotation_kind,
                "class_values": list(self.pairs.class_values),
                "seed": config.seed,
                "date": date,
                "versions": {
                    "napari-medseg": _version(),
                    "torch": torch.__version__,
                    "python": platform.python_version(),
                },
            },
            scores={
                "held_out": report.held_out and report.held_out.rounded(),
                "untuned": report.untuned and report.untuned.rounded(),
            },
            licence=self.backbone.licence,
            framing=to_dict(self.view_config.framing),
        )
        return ModelFile(card, tensors)


def _version() -> str:
    """Return the version of this package; a training shall not fail for want of it."""
    try:
        return version("napari-medseg")
    except PackageNotFoundError:  # run from a folder, without being installed
        return "0.0.0"


def _prompt_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the trained prompts under the names they have in a model file."""
    if isinstance(model, PromptedSam):
        encoder = torch.stack(list(model.encoder_prompts))
        return {"decoder_prompts": model.decoder.prompts, "encoder_prompts": encoder}
    return {"decoder_prompts": model.get_parameter("prompts")}
