"""Adding a channel: a UNETR, images with one channel more, and a small file beside it.

The study is that of any network; the learner is a frozen network with what was added to
it (`napari_medseg.models.adapters`), and each step sees both channels, the old ones
alone or the new one alone, drawn at random, so that each is learned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from napari_medseg._config import from_dict, to_dict
from napari_medseg._types import InputError, Job, Progress
from napari_medseg.io import model_file as model_files
from napari_medseg.io.model_file import ModelFile
from napari_medseg.io.normalise import Normalisation
from napari_medseg.models import networks
from napari_medseg.models.adapters import (
    MODES,
    AddedChannel,
    Mode,
    Present,
    WithoutAdapter,
    adapter_config,
    adapter_state,
)
from napari_medseg.models.bases import card_of_base
from napari_medseg.models.framing import Framing
from napari_medseg.models.methods import METHODS, NETWORKS
from napari_medseg.models.unetr import Unetr
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.goals import ClassGoal
from napari_medseg.training.model_card import card_of
from napari_medseg.training.report import Trained
from napari_medseg.training.scoring import Summary
from napari_medseg.training.start import MAY_BE_KNOWN
from napari_medseg.training.study import Study
from napari_medseg.training.supervised import LossConfig, Supervised

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor, nn

    from napari_medseg.io.pairs import Pairs
    from napari_medseg.training.channel_training import ChannelTraining
    from napari_medseg.training.report import TrainingReport
    from napari_medseg.training.study import AnyStudy
    from napari_medseg.training.supervised import LabelledBatch

ChannelStudy = Study["NewChannel", "ChannelTraining"]

CONDUCT = Conduct()
"""Nothing kept, nobody to stop it, nothing to look at."""


@dataclass(frozen=True, eq=False)
class NewChannel:
    """A UNETR that gets another channel.

    Attributes
    ----------
    base : Unetr
        The old network; frozen.
    file : ModelFile
        What it was read from.
    config : ChannelTraining
        Which channel is the new one, and what is added.
    """

    base: Unetr
    file: ModelFile
    config: ChannelTraining
    keeps_inputs: ClassVar[bool] = False
    shrink: ClassVar[int] = 1
    begun_as: ClassVar[str] = "the old model on its own channel"

    @property
    def identity(self) -> str:
        """The old model; the settings are those of the study."""
        return f"channel added to {model_files.digest(self.file)}"

    @property
    def augmentation(self) -> str:
        """How windows are changed."""
        return self.config.augmentation

    def normalisation(self, pairs: Pairs) -> Normalisation:
        """Return the old channels as they were scaled, and the new one last."""
        old = from_dict(
            Normalisation, self.file.card.normalisation, "the old model's normalisation"
        )
        if old.joint:
            raise InputError(
                f"{self.config.start_from} was trained on colour images, whose "
                "channels are scaled together; a channel cannot be added to those."
            )
        channels = channels_of(old.channels, pairs.channels, self.config.add_channel)
        return replace(old, channels=channels)

    def framing(self, pairs: Pairs) -> Framing:
        """Return the windows of the old model."""
        return from_dict(Framing, self.file.card.framing, "the old model's framing")

    def kept_views(self, most: int) -> int:
        """Return 0: views are made for their step."""
        return 0

    def prepare(self, inputs: Tensor, device: torch.device) -> Tensor:
        """Return the window as it is."""
        return inputs

    def build(
        self, channels: int, classes: int, generator: torch.Generator
    ) -> nn.Module:
        """Return the old network with what is added to it; see `Learner.build`."""
        known = len(self.file.card.classes)
        if classes != known:
            raise InputError(
                f"{self.config.start_from} knows {known - 1} classes of objects, and "
                f"these annotations show {classes - 1}. Annotate the same classes."
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator.initial_seed())
            return AddedChannel(self.base, adapter_config(to_dict(self.config)))

    def begin(self, model: nn.Module, windows: Iterable[Tensor]) -> None:
        """Do nothing: what is added begins by changing nothing."""

    def untuned(self, classes: int) -> nn.Module:
        """Return the old network, which sees its own channels."""
        return WithoutAdapter(self.base)

    @classmethod
    def of(cls, config: ChannelTraining) -> NewChannel:
        """Return the network that a config names.

        Raises
        ------
        InputError
            None is named, or it is no UNETR that was trained from scratch.
        ModelFileError
            The file is missing or damaged.
        """
        if not config.start_from:
            raise InputError(
                "Which model shall get another channel? Name the .medseg file of a "
                "UNETR (--start-from); `train --method unetr` makes one."
            )
        found = model_files.load(config.start_from)
        method = METHODS.get(found.card.kind)
        if method is None or method.trains != "unetr" or method.begins_with_a_model:
            raise InputError(
                f"{config.start_from} was made by the method {found.card.kind}; a "
                "channel can be added to a model of the method unetr alone."
            )
        base = networks.from_model_file(found)
        if not isinstance(base, Unetr):
            raise TypeError("the table's unetr is no Unetr")
        return cls(base, found, config)


def channels_of(
    old: Sequence[int], count: int, new: int | None = None
) -> tuple[int, ...]:
    """Return which channels of images are the old ones, and which is the new one.

    Parameters
    ----------
    old : sequence of int
        Channels that the old model was trained on, in its own images.
    count : int
        Channels of these images.
    new : int, optional
        The new one, where that is said.

    Returns
    -------
    tuple of int
        The old ones, then the new one. The old ones are all the others, where there
        are as many, in their order; else those of the same numbers as before.

    Raises
    ------
    InputError
        It cannot be told, or there is no such channel.
    """
    if new is None:
        others = [channel for channel in range(count) if channel not in old]
        if len(others) != 1 or max(old) >= count:
            raise InputError(
                f"The images have {count} channel{'s' * (count != 1)}, and the model "
                f"knows {len(old)}: say which is the new one (--add-channel, from 0)."
            )
        return (*old, others[0])
    if new >= count:
        raise InputError(
            f"add_channel is {new}, but the images have channels 0 to {count - 1}."
        )
    others = [channel for channel in range(count) if channel != new]
    if len(others) == len(old):
        return (*others, new)
    if new in old or max(old) >= count:
        raise InputError(
            f"The model knows {len(old)} channel{'s' * (len(old) != 1)}, and beside "
            f"the new one there are {count - 1} in the images. Save images of those "
            "that count alone."
        )
    return (*old, new)


class ModalityDropout:
    """Learn class shares from both channels, or from one of them alone, at random.

    Parameters
    ----------
    plain : Supervised
        The loss.
    both, old : float
        How often both channels are seen, and the old ones alone; else it is the new
        one. 0.6 and 0.2 in the paper.
    """

    def __init__(self, plain: Supervised, both: float = 0.6, old: float = 0.2) -> None:
        self.plain = plain
        self.both = both
        self.old = old

    def parameters(self, model: nn.Module) -> list[dict[str, Any]]:
        """Return the parameters that are not frozen, as one group."""
        return self.plain.parameters(model)

    def draw(self) -> Mode:
        """Return what the next step sees, by torch's generator."""
        place = float(torch.rand(()))
        if place < self.both:
            return "both"
        return "old" if place < self.both + self.old else "new"

    def step(
        self, model: nn.Module, batch: LabelledBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch and its parts."""
        if not isinstance(model, AddedChannel):
            raise TypeError("modality dropout is for networks with an added channel")
        return self.plain.step(Present(model, self.draw()), batch)

    def after_step(self, model: nn.Module, step: int) -> None:
        """Do nothing."""


def modality_dropout(study: AnyStudy, training: Sequence[int]) -> ModalityDropout:
    """Return the objective of a study that adds a channel."""
    config: Any = study.config
    plain = Supervised(LossConfig(config.cross_entropy, config.dice))
    return ModalityDropout(plain, config.both, config.old_alone)


def add_channel(
    pairs: Pairs, config: ChannelTraining, conduct: Conduct = CONDUCT
) -> Job[Trained]:
    """Add a channel to a UNETR.

    Parameters
    ----------
    pairs : Pairs
        Annotated images with the old channels and the new one.
    config : ChannelTraining
        Settings; ``start_from`` names the old model.
    conduct : Conduct
        How it is run: checkpoints, when to stop, what to preview.

    Yields
    ------
    Progress
        Training, with loss and held-out Dice with both channels.

    Returns
    -------
    Trained
        Model file of what was added, and report.

    Raises
    ------
    InputError
        The old model, the pairs or the settings cannot be used.
    ModelFileError
        The old model's file is missing or damaged.
    MedsegError
        peft is not installed.
    JobError
        Memory ran out.
    """
    yield Progress(0, None, "loading the old model")
    study = study_of(pairs, config, conduct)
    yield from study.run()
    report = replace(study.report(), alone=alone_scores(study))
    if report.held_out is not None:
        report = replace(report, warnings=(*report.warnings, MAY_BE_KNOWN))
    return Trained(model_file_of(study, report), report, study.replay)


def study_of(
    pairs: Pairs, config: ChannelTraining, conduct: Conduct = CONDUCT
) -> ChannelStudy:
    """Return the study of an added channel, ready to run."""
    learner = NewChannel.of(config)
    return Study(learner, ClassGoal(pairs), config, conduct, modality_dropout)


def alone_scores(study: ChannelStudy) -> dict[str, Summary]:
    """Return the held-out scores with either channel alone, by ``old`` and ``new``."""
    found: dict[str, Summary] = {}
    for mode in MODES:
        scores = [
            score
            for part in study.parts
            for score in _scores_of(study, part.model, mode, part.held_out)
        ]
        summary = Summary.of(scores) if mode != "both" else None
        if summary is not None:
            found[mode] = summary
    return found


def _scores_of(
    study: ChannelStudy, model: nn.Module, mode: Mode, images: Sequence[int]
) -> Iterable[Any]:
    """Measure a model that sees some channels only."""
    if not isinstance(model, AddedChannel):
        raise TypeError("a study of an added channel trains one")
    return study.score(Present(model, mode), images)


def model_file_of(study: ChannelStudy, report: TrainingReport) -> ModelFile:
    """Return the file of what was added: small, and useless without the old model."""
    model, learner = study.trained, study.learner
    if not isinstance(model, AddedChannel):
        raise TypeError("a study of an added channel trains one")
    tensors = {
        name: item.detach().cpu().contiguous().numpy()
        for name, item in adapter_state(model).items()
    }
    base = card_of_base(study.config.start_from, learner.file)
    card = card_of(
        study,
        report,
        "unetr-channel",
        f"{NETWORKS['unetr'].title} with an added channel",
        origin={"started_from": {"title": base["title"], "digest": base["sha256"]}},
        base=base,
        licence=base["licence"],
        # a path says who trained
        config={"start_from": Path(study.config.start_from).name},
    )
    return ModelFile(card, tensors)
