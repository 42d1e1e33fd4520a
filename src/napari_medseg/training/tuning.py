"""PTSAM as a training: annotated pairs in, a model file of a few kilobytes out.

With the encoder frozen, every view of a training image is embedded once and steps run
on SAM's mask decoder alone, which is what makes tuning a matter of a minute on a
processor. With encoder prompts the embedding changes at each step and nothing can be
kept. See `napari_medseg.models.prompts` for the method and its source.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_medseg._types import Job, Progress
from napari_medseg.io.model_file import ModelFile, with_states
from napari_medseg.models.backbone import load_backbone
from napari_medseg.models.comparison import Comparison
from napari_medseg.models.fine_embedding import FINE
from napari_medseg.models.prompts import (
    PROMPT_STD,
    STATISTICS,
    PromptedDecoder,
    PromptedEncoder,
    PromptedSam,
)
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.fineness import how_compared
from napari_medseg.training.goals import ClassGoal, ObjectGoal
from napari_medseg.training.learners import AdaptedSam
from napari_medseg.training.model_card import card_of
from napari_medseg.training.noisy import find_suspects
from napari_medseg.training.objectives import objective_of
from napari_medseg.training.report import Trained
from napari_medseg.training.snapshots import StateKeeper
from napari_medseg.training.start import MAY_BE_KNOWN, Start, read_start
from napari_medseg.training.study import Study, supervised
from napari_medseg.training.unlabelled import NONE, Unlabelled, read_unlabelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from segment_anything.modeling import Sam
    from torch import Tensor, nn

    from napari_medseg.io.pairs import Pairs
    from napari_medseg.training.goals import Goal
    from napari_medseg.training.learners import Adaptation
    from napari_medseg.training.prompt_tuning import ObjectTuning, PromptTuning
    from napari_medseg.training.report import TrainingReport
    from napari_medseg.training.study import ObjectiveFactory

PromptStudy = Study[AdaptedSam, "PromptTuning"]

CONDUCT = Conduct()
"""Nothing kept, nobody to stop it, nothing to look at."""

CLICK_NOISE = 0.02
"""Noise on prompts that begin as a click's embedding, so that they are not alike."""


@dataclass(frozen=True)
class Prompts:
    """The adaptation of PTSAM: prompts are trained, all of SAM is frozen.

    Attributes
    ----------
    decoder, encoder : int
        Prompts a class, and prompts a block of the image encoder.
    initial : str
        ``noise`` or ``click``.
    output : int
        Which of SAM's masks is read.
    background : bool
        Whether the background has a prompt set of its own.
    comparison : str
        How decoder prompts are compared with the embedding: ``fine``, ``embedding`` or
        ``none``; where a model is gone on from, that is as it was there.
    start : Start, optional
        The model to go on from.
    """

    decoder: int
    encoder: int = 0
    initial: str = "noise"
    output: int = 0
    background: bool = False
    comparison: str = "embedding"
    start: Start | None = None

    @classmethod
    def of(
        cls,
        config: PromptTuning,
        comparison: str,
        *,
        background: bool = False,
        start: Start | None = None,
    ) -> Prompts:
        """Return what a config asks for, with what `how_compared` says."""
        return cls(
            config.prompts,
            config.encoder_prompts,
            config.initial,
            config.output,
            background,
            comparison,
            start,
        )

    @property
    def keeps_embeddings(self) -> bool:
        """Whether the image encoder has no prompts."""
        return self.encoder == 0

    @property
    def fineness(self) -> int:
        """Looks at an image along each side."""
        return FINE if self.comparison == "fine" else 1

    def build(self, sam: Sam, classes: int, generator: torch.Generator) -> nn.Module:
        """Return SAM's frozen decoder, or all of SAM, with fresh prompts."""
        decoder = PromptedDecoder(
            sam,
            classes - 1,
            self.decoder,
            self.output,
            generator,
            background=self.background,
            comparison=self._comparison(sam.mask_decoder.transformer_dim),
        )
        if self.initial == "click":
            click = sam.prompt_encoder.point_embeddings[1].weight
            with torch.no_grad():
                noise = decoder.prompts.mul_(CLICK_NOISE / PROMPT_STD)
                noise.add_(click.to(noise.device))
        encoder = None
        if not self.keeps_embeddings:
            encoder = PromptedEncoder(sam, self.encoder, generator)
        if self.start is not None:
            self.start.fill(decoder.prompts, encoder.prompts if encoder else [])
        return decoder if encoder is None else PromptedSam(encoder, decoder)

    def _comparison(self, width: int) -> Comparison | None:
        """Return what compares prompts and embedding, if that is wanted."""
        if self.start is not None:
            return self.start.comparison
        return None if self.comparison == "none" else Comparison(width, self.fineness)

    def begin(self, model: nn.Module, windows: Iterable[Tensor]) -> None:
        """Measure the embeddings that prompts are compared with."""
        comparison = _comparison_of(model)
        # what is gone on from brings its own
        if comparison is None or self.start is not None:
            return
        with torch.no_grad():
            if isinstance(model, PromptedSam):
                device = model.decoder.prompts.device
                comparison.fit(
                    model.embed(window[None].to(device))[0] for window in windows
                )
            else:
                comparison.fit(windows)


def tune(
    pairs: Pairs,
    config: PromptTuning,
    conduct: Conduct = CONDUCT,
) -> Job[Trained]:
    """Tune SAM on annotated pairs.

    Parameters
    ----------
    pairs : Pairs
        Annotated images.
    config : PromptTuning
        Settings; the defaults need no touching.
    conduct : Conduct
        How it is run: checkpoints, when to stop, what to preview.

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
    return (yield from _tune(ClassGoal(pairs), config, conduct))


def tune_objects(
    pairs: Pairs,
    config: ObjectTuning,
    conduct: Conduct = CONDUCT,
) -> Job[Trained]:
    """Tune SAM to tell touching objects apart.

    Background, interior and border have a prompt set each; `find_objects` of
    `napari_medseg.instances` grows an object from each piece of interior.

    Parameters
    ----------
    pairs : Pairs
        Annotated images, in which each object is drawn whole.
    config, conduct
        As for `tune`.

    Yields
    ------
    Progress
        Embedding, then training, with loss and held-out scores.

    Returns
    -------
    Trained
        Model file and report.

    Raises
    ------
    WeightsError, JobError
        As for `tune`.
    InputError
        The pairs or settings cannot be used; scribbles are no objects.
    """
    goal = ObjectGoal(pairs, config.border)
    return (yield from _tune(goal, config, conduct))


def study_of(
    goal: Goal,
    config: PromptTuning,
    conduct: Conduct = CONDUCT,
    objective: ObjectiveFactory = supervised,
    unlabelled: Unlabelled = NONE,
) -> PromptStudy:
    """Return the study of a prompt tuning, ready to run."""
    parts = isinstance(goal, ObjectGoal)
    backbone = load_backbone(config.sam)
    start = None
    if config.start_from:
        start = read_start(config.start_from, _method(parts=parts), backbone)
    # prompts that are gone on from mean something compared as they were
    comparison = start.compared if start else how_compared(config, backbone, goal.pairs)
    adaptation = Prompts.of(config, comparison, background=parts, start=start)
    learner = AdaptedSam(backbone, adaptation, config.working_size, config.views)
    return Study(learner, goal, config, conduct, objective, unlabelled)


def _tune(goal: Goal, config: PromptTuning, conduct: Conduct) -> Job[Trained]:
    """Run a study and put model file and report together."""
    yield Progress(0, None, "loading SAM")
    keeper = StateKeeper(objective_of(config), config.snapshots)
    others = yield from read_unlabelled(config.unlabelled, goal.pairs, config.seed)
    study = study_of(goal, config, conduct, keeper, others)
    yield from study.run()
    suspects = yield from find_suspects(study)
    report = study.report().with_suspects(suspects)
    states = keeper.until(report.steps)
    if config.start_from and report.held_out is not None:
        report = replace(report, warnings=(*report.warnings, MAY_BE_KNOWN))
    model_file = model_file_of(study, report)
    earlier = _earlier(study.trained, states)
    found = with_states(model_file, earlier)
    return Trained(found, report, study.replay, suspects)


def _earlier(
    model: nn.Module, states: Sequence[Mapping[str, Tensor]]
) -> list[dict[str, NDArray[Any]]]:
    """Return earlier states of what was trained, as a model file names them."""
    last = {name: item.detach().clone() for name, item in model.named_parameters()}
    found = []
    for state in states:
        model.load_state_dict(state, strict=False)
        found.append(_as_stored(_prompt_tensors(model)))
    model.load_state_dict(last, strict=False)
    return found


def model_file_of(study: PromptStudy, report: TrainingReport) -> ModelFile:
    """Return the model file of a study that was run."""
    backbone = study.learner.backbone
    parts = isinstance(study.goal, ObjectGoal)
    name = "PTSAM for objects" if parts else "PTSAM"
    # a path says who tuned
    begun = Path(study.config.start_from).name
    config = {"sam": backbone.name, "start_from": begun}
    # as it was decided: settings may leave it to the images
    config["comparison"] = getattr(study.learner.adaptation, "comparison", "none")
    card = card_of(
        study,
        report,
        _method(parts=parts),
        f"{name} on {backbone.title}",
        origin=_origin(study.learner.adaptation),
        base=backbone.card(),
        licence=backbone.licence,
        config=config,
    )
    tensors = _prompt_tensors(study.trained) | _statistics(study.trained)
    return ModelFile(card, _as_stored(tensors))


def _method(*, parts: bool) -> str:
    """Return the name of the method that learns parts of objects, or classes."""
    return "ptsam-objects" if parts else "ptsam"


def _origin(adaptation: Adaptation) -> dict[str, Any]:
    """Return what a card says of the model that a training went on from."""
    start = getattr(adaptation, "start", None)
    if start is None:
        return {}
    return {"started_from": {"title": start.title, "digest": start.digest}}


def _as_stored(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    """Return tensors as a model file holds them."""
    return {
        name: value.detach().cpu().numpy().astype(np.float32)
        for name, value in tensors.items()
    }


def _prompt_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the trained prompts under the names they have in a model file."""
    if isinstance(model, PromptedSam):
        encoder = torch.stack(list(model.encoder_prompts))
        return {"decoder_prompts": model.decoder.prompts, "encoder_prompts": encoder}
    return {"decoder_prompts": model.get_parameter("prompts")}


def _statistics(model: nn.Module) -> dict[str, Tensor]:
    """Return what was measured of the embeddings, where prompts are compared."""
    comparison = _comparison_of(model)
    return {} if comparison is None else {STATISTICS: comparison.statistics}


def _comparison_of(model: nn.Module) -> Comparison | None:
    """Return what compares the prompts of a model with the embedding."""
    decoder = model.decoder if isinstance(model, PromptedSam) else model
    return decoder.comparison if isinstance(decoder, PromptedDecoder) else None
