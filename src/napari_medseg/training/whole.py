"""Networks trained whole: annotated pairs in, a model file of some megabytes out.

The same study as prompt tuning, with another learner: nothing is kept between steps,
all channels of the images are seen, in windows at the images' own resolution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from napari_medseg._types import Job, Progress
from napari_medseg.io.model_file import ModelFile
from napari_medseg.models.methods import NETWORKS
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.goals import ClassGoal, ObjectGoal
from napari_medseg.training.learners import WholeNetwork
from napari_medseg.training.model_card import card_of
from napari_medseg.training.noisy import find_suspects
from napari_medseg.training.objectives import objective_of
from napari_medseg.training.pretrained import settled
from napari_medseg.training.report import Trained
from napari_medseg.training.study import Study, supervised
from napari_medseg.training.unlabelled import NONE, Unlabelled, read_unlabelled

if TYPE_CHECKING:
    from napari_medseg.io.pairs import Pairs
    from napari_medseg.training.goals import Goal
    from napari_medseg.training.network_training import Med2dObjects, NetworkTraining
    from napari_medseg.training.report import TrainingReport
    from napari_medseg.training.study import ObjectiveFactory

CONDUCT = Conduct()
"""Nothing kept, nobody to stop it, nothing to look at."""

C = TypeVar("C", bound="NetworkTraining")

WholeStudy = Study[WholeNetwork, "NetworkTraining"]


def train_network(
    pairs: Pairs, config: NetworkTraining, conduct: Conduct = CONDUCT
) -> Job[Trained]:
    """Train a network on annotated pairs, from scratch.

    Parameters
    ----------
    pairs : Pairs
        Annotated images.
    config : NetworkTraining
        Settings; the defaults need no touching. Its class says which network.
    conduct : Conduct
        How it is run: checkpoints, when to stop, what to preview.

    Yields
    ------
    Progress
        Training, with loss and held-out Dice.

    Returns
    -------
    Trained
        Model file and report.

    Raises
    ------
    InputError
        The pairs or settings cannot be used.
    JobError
        Memory ran out.
    """
    return (yield from _train(ClassGoal(pairs), config, conduct))


def train_objects(
    pairs: Pairs, config: Med2dObjects, conduct: Conduct = CONDUCT
) -> Job[Trained]:
    """Train a network to tell touching objects apart.

    Parameters
    ----------
    pairs : Pairs
        Annotated images, in which each object is drawn whole.
    config, conduct
        As for `train_network`.

    Yields
    ------
    Progress
        Training, with loss and held-out scores.

    Returns
    -------
    Trained
        Model file and report.

    Raises
    ------
    InputError
        The pairs or settings cannot be used; scribbles are no objects.
    JobError
        Memory ran out.
    """
    goal = ObjectGoal(pairs, config.border)
    return (yield from _train(goal, config, conduct))


def study_of(
    goal: Goal,
    config: NetworkTraining,
    conduct: Conduct = CONDUCT,
    objective: ObjectiveFactory = supervised,
    unlabelled: Unlabelled = NONE,
) -> WholeStudy:
    """Return the study of a network, ready to run."""
    learner = WholeNetwork.of(config)
    return Study(learner, goal, config, conduct, objective, unlabelled)


def _train(goal: Goal, config: NetworkTraining, conduct: Conduct) -> Job[Trained]:
    """Run a study and put model file and report together."""
    config, note = yield from begun(config)
    yield Progress(0, None, "preparing the images")
    objective = objective_of(config)
    others = yield from read_unlabelled(config.unlabelled, goal.pairs, config.seed)
    study = study_of(goal, config, conduct, objective, others)
    yield from study.run()
    suspects = yield from find_suspects(study)
    report = study.report().with_suspects(suspects).with_note(note)
    return Trained(model_file_of(study, report), report, study.replay, suspects)


def begun(config: C) -> Job[tuple[C, str]]:
    """Fetch published weights for an encoder, where they are asked for.

    Parameters
    ----------
    config : NetworkTraining
        Settings.

    Yields
    ------
    Progress
        Before it is waited for a network.

    Returns
    -------
    config : NetworkTraining
        Settings that need no network any more.
    note : str
        What the user should know; mostly empty.
    """
    if getattr(config, "encoder_weights", "none") != "none":
        yield Progress(0, None, "looking for ImageNet's weights")
    return settled(config)


def model_file_of(study: WholeStudy, report: TrainingReport) -> ModelFile:
    """Return the model file of a study that was run, with all its weights."""
    tensors = {
        # in one order, whatever the layout in memory is
        name: item.detach().cpu().contiguous().numpy()
        for name, item in study.trained.state_dict().items()
    }
    entry = NETWORKS[study.config.network]
    parts = isinstance(study.goal, ObjectGoal)
    title = f"{entry.title} for objects" if parts else entry.title
    kind = f"{entry.name}-objects" if parts else entry.name
    pretrained = study.learner.pretrained
    # a path says who trained
    config = {"pretrained": pretrained.name if pretrained else ""}
    origin = pretrained.origin if pretrained else None
    card = card_of(study, report, kind, title, origin=origin, config=config)
    return ModelFile(card, tensors)
