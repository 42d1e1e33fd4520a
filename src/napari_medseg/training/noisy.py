"""Learning from labels of which some are wrong, and finding those.

The method of Tadokoro, Takagi and Maeda ("Bayesian learning with spatially correlated
label noise", arXiv 2504.14795): each training image has a field of doubts
(`napari_medseg.training.label_field`). The network learns from softened labels, less
from those that are doubted; the field learns from the network, which labels it keeps
contradicting. Single contradicted pixels are left as they are: it takes a patch.

What is decided here, since the paper trains on whole images of one size:

* A field belongs to a *whole* training image, at the resolution of the network's
  output. Views (windows, turned, magnified) are places in it: the softened labels of
  a view are the field's, carried along. A label thus has one probability, whatever
  window it is seen through, and the network's opinion of it is that on the unchanged
  image, where it is best. Windows with fields of their own would have none of this.
* After each step the fields of the images just seen take steps with the network held
  still; the network is asked once, not at each of them. They are 30, not 10: from
  where a field begins it takes about a hundred to doubt a patch, and a training of a
  few hundred steps sees each image a dozen times.
* The fields wait for half of the training: a network that knows little yet contradicts
  everything, is believed, and both stay there. Prompt tuning may take a hundred steps
  before it finds what is wanted.
* Pixels without a label say nothing of themselves and have a field like any other,
  which their neighbours shape.
* Expectations are computed by quadrature, not by drawing, and the deviation is a
  standard deviation in every term.

What it cannot do: where the network is wrong in the same way everywhere, good labels
are doubted. Held-out images are scored by the labels that they have, wrong ones
included, and so is the choice of the best step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from napari_medseg._config import check, setting
from napari_medseg._types import Job, Progress
from napari_medseg.models.framing import resize
from napari_medseg.training.label_field import Field, FieldConfig, refine
from napari_medseg.training.snapshots import Keeping
from napari_medseg.training.supervised import LossConfig, Supervised
from napari_medseg.training.suspects import DOUBTED, Suspect
from napari_medseg.training.views import whole_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from napari_medseg._types import FloatArray
    from napari_medseg.training.study import AnyStudy
    from napari_medseg.training.supervised import LabelledBatch

LEAST = 1e-6
"""Smallest probability that a network is taken to give."""


@dataclass(frozen=True)
class NoiseConfig:
    """How fields of doubts and the network take turns."""

    field: FieldConfig = field(default_factory=FieldConfig)
    steps: int = setting(30, "Steps of a field after each step of training.", ge=1)
    wait: float = setting(0.5, "Share of the training before they begin.", ge=0, le=1)
    last_steps: int = setting(200, "Steps of each field after the training.", ge=1)

    def __post_init__(self) -> None:
        check(self)


class Given:
    """The labels that an image was given, and what is thought of them.

    Parameters
    ----------
    shares : Tensor
        ``float32 (K, h, w)``, the share of each class in each pixel of the field.
    weight : Tensor
        ``float32 (h, w)``, the share of each that is annotated.
    config : FieldConfig
        The field.
    windows : int
        In how many windows the network takes the image. So many times it is seen
        before the field takes steps, since the network is asked about all of it.
    """

    def __init__(
        self, shares: Tensor, weight: Tensor, config: FieldConfig, windows: int = 1
    ) -> None:
        self.shares = shares
        self.weight = weight
        self.config = config
        self.windows = windows
        self.seen = 0
        self.field = Field.begin((weight.shape[0], weight.shape[1]), config)

    @property
    def field(self) -> Field:
        """What is thought of the labels."""
        return self._field

    @field.setter
    def field(self, value: Field) -> None:
        self._field = value
        self.rate = value.rate()

    def refine(self, probabilities: FloatArray, steps: int) -> None:
        """Take steps towards what a network says.

        Parameters
        ----------
        probabilities : ndarray
            ``float32 (K, Y, X)`` of the whole image, at any resolution.
        steps : int
            How many.
        """
        shape = (self.weight.shape[0], self.weight.shape[1])
        seen = resize(torch.from_numpy(probabilities)[None], shape)[0]
        logs = seen.clamp(min=LEAST).log()
        others = (1.0 - self.shares) / (len(self.shares) - 1)
        support = ((self.shares - others) * logs).sum(dim=0) * self.weight
        self.field = refine(self.field, support, steps, self.config)


class SpatialNoise:
    """Learn class shares, softened where labels are doubted; doubt as one learns.

    Parameters
    ----------
    given : mapping of int to Given
        The labels of each training image.
    predict : callable
        Gives a model's class probabilities ``float32 (K, Y, X)`` of such an image.
    wait : int
        Steps of training before the fields begin.
    config : NoiseConfig
        How fields and network take turns.
    loss : LossConfig
        The loss of the network.
    """

    def __init__(
        self,
        given: Mapping[int, Given],
        predict: Callable[[nn.Module, int], FloatArray],
        wait: int,
        config: NoiseConfig | None = None,
        loss: LossConfig | None = None,
    ) -> None:
        self.given = given
        self.predict = predict
        self.wait = wait
        self.config = config or NoiseConfig()
        self.plain = Supervised(loss)
        self._seen: list[int] = []

    def parameters(self, model: nn.Module) -> list[dict[str, Any]]:
        """Return the parameters that are not frozen, as one group."""
        return self.plain.parameters(model)

    def step(
        self, model: nn.Module, batch: LabelledBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch against softened labels, and its parts."""
        self._seen = sorted(set(batch.numbers.tolist()))
        rates = self.rates(batch)
        loss, figures = self.plain.step(
            model, batch._replace(shares=soften(batch.shares, rates))
        )
        counted = (rates * batch.weight).sum() / batch.weight.sum().clamp(min=1.0)
        return loss, figures | {"doubt": counted}

    def rates(self, batch: LabelledBatch) -> Tensor:
        """Return how probably each label of a batch is wrong, ``(B, H, W)``."""
        size = [1, 1, *batch.weight.shape[1:]]
        found = []
        for number, place in zip(batch.numbers.tolist(), batch.places, strict=True):
            # coarse numbers would place labels a pixel beside
            with torch.autocast(place.device.type, enabled=False):
                grid = functional.affine_grid(
                    place[None].float(), size, align_corners=False
                )
            whole = self.given[number].rate[None, None].to(grid.device)
            found.append(
                functional.grid_sample(
                    whole, grid, padding_mode="border", align_corners=False
                )[0, 0]
            )
        return torch.stack(found)

    def after_step(self, model: nn.Module, step: int) -> None:
        """Let the fields of the images just seen follow the network."""
        if step <= self.wait:
            return
        for number in self._seen:
            given = self.given[number]
            given.seen += 1
            if given.seen % given.windows == 0:
                self._follow(model, number)

    def do_later_work(self, model: nn.Module) -> float:
        """Let the field of an image follow; return how many do so in a step."""
        self._follow(model, self._seen[0])
        share = sum(1 / self.given[number].windows for number in self._seen)
        return share * (1.0 - self.config.wait)

    def _follow(self, model: nn.Module, number: int) -> None:
        """Let the field of an image take steps."""
        probabilities = ask(self.predict, model, number)
        self.given[number].refine(probabilities, self.config.steps)

    def state(self) -> dict[str, Tensor]:
        """Return the fields, for a checkpoint."""
        kept = {}
        for number, given in self.given.items():
            kept[f"{number}.mean"] = given.field.mean
            kept[f"{number}.raw"] = given.field.raw
            kept[f"{number}.seen"] = torch.tensor(given.seen)
        return kept

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the fields of a checkpoint up again."""
        for number, given in self.given.items():
            given.field = Field(state[f"{number}.mean"], state[f"{number}.raw"])
            given.seen = int(state[f"{number}.seen"])


def soften(shares: Tensor, rates: Tensor) -> Tensor:
    """Move what is doubted of each label to the other classes, in equal parts.

    Parameters
    ----------
    shares : Tensor
        ``(B, K, H, W)``, summing to 1 over K.
    rates : Tensor
        ``(B, H, W)``, how probably each label is wrong.

    Returns
    -------
    Tensor
        ``(B, K, H, W)``, summing to 1 over K.
    """
    others = (1.0 - shares) / (shares.shape[1] - 1)
    return shares + rates.unsqueeze(1) * (others - shares)


def ask(
    predict: Callable[[nn.Module, int], FloatArray], model: nn.Module, number: int
) -> FloatArray:
    """Return what a model in training says of an image, as it will be used."""
    training = model.training
    model.eval()
    try:
        return predict(model, number)
    finally:
        model.train(training)


def spatial_noise(study: AnyStudy, training: Sequence[int]) -> SpatialNoise:
    """Return the objective of a study that doubts its labels."""
    config = NoiseConfig()
    return SpatialNoise(
        {number: given_labels(study, number, config) for number in training},
        study.predict,
        round(config.wait * study.config.steps),
        config,
        LossConfig(study.config.cross_entropy, study.config.dice),
    )


def given_labels(study: AnyStudy, number: int, config: NoiseConfig) -> Given:
    """Return the labels of an image of a study, of which nothing is thought yet."""
    example = study.examples[number]
    shares, weight = whole_labels(example, study.view_config)
    shape = (example.target.shape[0], example.target.shape[1])
    windows = len(study.view_config.framing.boxes(shape))
    return Given(shares, weight, config.field, windows)


def find_suspects(study: AnyStudy) -> Job[tuple[Suspect, ...]]:
    """Ask a trained study which labels it doubts, on all of its images.

    The network is held still. Fields go on from where the training left them; those
    of held-out images begin here.

    Parameters
    ----------
    study : Study
        That was run. One that did not doubt its labels finds none suspect.

    Yields
    ------
    Progress
        One an image.

    Returns
    -------
    tuple of Suspect
        One for each image, in their order.
    """
    objective = study.parts[-1].objective
    if isinstance(objective, Keeping):
        objective = objective.objective
    if not isinstance(objective, SpatialNoise):
        return ()
    config, known = objective.config, objective.given
    found = []
    for number, example in enumerate(study.examples):
        yield Progress(number, len(study.examples), "looking for wrong labels")
        given = known.get(number) or given_labels(study, number, config)
        given.refine(ask(study.predict, study.trained, number), config.last_steps)
        shape = (example.target.shape[0], example.target.shape[1])
        rate = resize(given.rate[None, None], shape)[0, 0].clamp(0, 1).numpy()
        labelled = example.target >= 0
        doubted = (rate > DOUBTED) & labelled
        share = float(doubted.sum() / max(1, labelled.sum()))
        probability = np.where(labelled, rate, 0.0).astype(np.float32)
        found.append(Suspect(example.name, probability, share))
    return tuple(found)
