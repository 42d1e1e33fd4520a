"""Learning from images without annotation: a mean teacher and copy-paste both ways.

After Bai et al., "Bidirectional copy-paste for semi-supervised medical image
segmentation" (CVPR 2023), as used by WT-BCP (arXiv 2504.14445). The network first
learns from annotated views that are pasted into one another. Then a teacher, a moving
average of it, labels views without annotation; a rectangle of an annotated view is
pasted into each of half of them, and a rectangle of each of the others into an
annotated view. So true and guessed labels lie side by side in every image. A network
with several outputs is also to say the same with each of them.

What is decided here:

* one schedule and one optimiser for both phases, of which the first has the published
  share of the steps;
* as many mixed views a step as there would be annotated ones: both halves go through
  the network together, and the budget is that of a plain training but for the teacher;
* nothing is removed from what the teacher says. The published code keeps the largest
  component of each class, which suits an organ and would erase all cells but one;
* the consistency is part of the one loss, so that its gradient arrives (in two of
  three published scripts it is computed and thrown away);
* what is mixed is what the network takes. Where SAM's encoder is frozen that is its
  embeddings, which are kept: a rectangle of one embedding is pasted into another, and
  nothing need be embedded anew. Where the encoder has prompts, images are mixed. A
  network that takes wavelets takes those of the mixed image, here and in use;
* rectangles lie on the grid of the coarser of input and output.

Which step is best is decided on held-out annotated images, of the network itself, not
of its teacher, as published.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.func import functional_call
from torch.nn import functional

from napari_medseg._config import check, setting
from napari_medseg.models.networks import outputs_of
from napari_medseg.training import losses
from napari_medseg.training.checkpoint import changing
from napari_medseg.training.supervised import LabelledBatch, LossConfig, Supervised
from napari_medseg.training.views import FreshViews, KeptViews

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from napari_medseg.training.study import AnyStudy

OTHER_SEED = 500_009
"""Added to the seed for views without annotation, which shall change in other ways."""


@dataclass(frozen=True)
class SemiConfig:
    """How annotated and other images are learned from together."""

    alone: float = setting(
        0.25, "Share of the training on annotated images alone.", ge=0.0, le=1.0
    )
    decay: float = setting(
        0.99, "How much of the teacher stays as it is in a step.", ge=0.0, le=1.0
    )
    guessed: float = setting(0.5, "Weight of labels of the teacher.", ge=0.0)
    consistency: float = setting(
        0.5, "Weight, at the end, of saying the same with all outputs.", ge=0.0
    )
    hole: float = setting(
        2 / 3, "Height and width of what is pasted, as a share.", ge=0.0, le=1.0
    )

    def __post_init__(self) -> None:
        check(self)


class MeanTeacher:
    """Learn from annotated views, and from others by what a teacher says of them.

    Parameters
    ----------
    others : callable
        Gives the views without annotation of a step, as a `LabelledBatch` whose labels
        do not count; its weight says where there is image.
    steps : int
        Of the whole training.
    seed : int
        Of where rectangles lie.
    config : SemiConfig
        How both are learned from.
    loss : LossConfig
        The loss of each region.
    """

    def __init__(
        self,
        others: Callable[[int], LabelledBatch],
        steps: int,
        seed: int,
        config: SemiConfig | None = None,
        loss: LossConfig | None = None,
    ) -> None:
        self.others = others
        self.steps = steps
        self.seed = seed
        self.config = config or SemiConfig()
        self.plain = Supervised(loss)
        self.alone = round(self.config.alone * steps)
        self.done = 0
        self.teacher: dict[str, Tensor] = {}

    def parameters(self, model: nn.Module) -> list[dict[str, Any]]:
        """Return the parameters that are not frozen, as one group."""
        self.teacher = {
            name: item.detach().clone() for name, item in changing(model).items()
        }
        return self.plain.parameters(model)

    def step(
        self, model: nn.Module, batch: LabelledBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, with others mixed into it, and its parts."""
        frame = self.frame(batch)
        if self.done < self.alone:
            return self.plain.step(model, mix(batch, _rolled(batch), frame))
        device = batch.inputs.device
        # what is stored in half precision is not stacked under mixed precision
        with torch.autocast(device.type, enabled=False):
            drawn = self.others(self.done)
        others = LabelledBatch(*(item.to(device) for item in drawn))
        count = min(len(batch.inputs), len(others.inputs))
        guessed = self.label(model, others)
        # one half is pasted into annotated views, annotated ones into the other half
        first, second = slice(0, (count + 1) // 2), slice((count + 1) // 2, count)
        outside = mix(_part(guessed, first), _part(batch, first), frame)
        inside = mix(_part(batch, second), _part(guessed, second), frame)
        whole = LabelledBatch(
            *(torch.cat(both) for both in zip(outside, inside, strict=True))
        )
        found = outputs_of(model, whole.inputs)
        halves = (first, self.config.guessed, 1.0), (second, 1.0, self.config.guessed)
        supervised = torch.stack(
            [
                0.5
                * self.region_loss(logits[half], _part(whole, half), frame, *weights)
                for half, *weights in halves
                for logits in found
                if len(logits[half])
            ]
        ).sum()
        figures = {"mixed": supervised}
        if len(found) == 1:
            return supervised, figures
        agreement = consistency([logits[first] for logits in found], outside.weight)
        loss = supervised + self.consistency_weight * agreement
        return loss, figures | {"consistency": agreement}

    @property
    def consistency_weight(self) -> float:
        """The weight of the consistency now; it rises evenly to that of the config."""
        share = (self.done - self.alone + 1) / max(1, self.steps - self.alone)
        return self.config.consistency * min(1.0, share)

    def region_loss(
        self,
        logits: Tensor,
        batch: LabelledBatch,
        frame: Tensor,
        around: float,
        hole: float,
    ) -> Tensor:
        """Return the loss of mixed views, each region by itself.

        Parameters
        ----------
        logits : Tensor
            ``(B, K, h, w)``.
        batch : LabelledBatch
            The views.
        frame : Tensor
            ``(g, g)``: 1 around what was pasted, 0 in it.
        around, hole : float
            Weights of the two regions.

        Returns
        -------
        Tensor
            A scalar.
        """
        wanted = self.plain.config
        mask = spread(frame, (logits.shape[-2], logits.shape[-1]))
        total = logits.new_zeros(())
        for factor, region in ((around, mask), (hole, 1.0 - mask)):
            weight = batch.weight * region
            entropy = losses.soft_cross_entropy(logits, batch.shares, weight)
            dice = losses.soft_dice(logits, batch.shares, weight)
            total = total + factor * (
                wanted.cross_entropy * entropy + wanted.dice * dice
            )
        return total

    def frame(self, batch: LabelledBatch) -> Tensor:
        """Return where views stay as they are in this step: 1, and 0 in a rectangle.

        ``(g, g)``, on the coarser of the grids of input and output.
        """
        sides = (batch.inputs.shape[-2:], batch.shares.shape[-2:])
        rows, columns = (int(min(side)) for side in zip(*sides, strict=True))
        rng = np.random.default_rng((self.seed, 7, self.done))
        frame = torch.ones(rows, columns, device=batch.inputs.device)
        height, width = (max(1, round(self.config.hole * n)) for n in (rows, columns))
        top = int(rng.integers(rows - height + 1))
        left = int(rng.integers(columns - width + 1))
        frame[top : top + height, left : left + width] = 0.0
        return frame

    def label(self, model: nn.Module, others: LabelledBatch) -> LabelledBatch:
        """Return views with the classes that the teacher finds likeliest."""
        device = others.inputs.device
        self.teacher = {key: item.to(device) for key, item in self.teacher.items()}
        with torch.no_grad():
            logits = functional_call(model, self.teacher, (others.inputs,)).float()
        return others._replace(shares=likeliest(logits))

    def after_step(self, model: nn.Module, step: int) -> None:
        """Let the teacher follow the network: ``0.99 × teacher + 0.01 × network``.

        It begins as what the network is after the phase on annotated images alone.
        """
        self.done = step
        if step < self.alone:
            return
        decay = 0.0 if step == self.alone else self.config.decay
        with torch.no_grad():
            for name, item in changing(model).items():
                mine = self.teacher[name].to(item.device)
                if item.is_floating_point():
                    self.teacher[name] = decay * mine + (1.0 - decay) * item.detach()
                else:
                    self.teacher[name] = item.detach().clone()

    def state(self) -> dict[str, Tensor]:
        """Return the teacher, for a checkpoint."""
        kept = {f"teacher.{name}": item for name, item in self.teacher.items()}
        return kept | {"done": torch.tensor(self.done)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the teacher of a checkpoint up again."""
        self.done = int(state["done"])
        self.teacher = {name: state[f"teacher.{name}"] for name in self.teacher}


def spread(frame: Tensor, shape: tuple[int, int]) -> Tensor:
    """Bring a frame ``(g, g)`` to a finer grid, without anything in between."""
    return functional.interpolate(frame[None, None], size=shape, mode="nearest")[0, 0]


def mix(around: LabelledBatch, hole: LabelledBatch, frame: Tensor) -> LabelledBatch:
    """Paste a rectangle of some views into others, with what is known of it.

    Parameters
    ----------
    around, hole : LabelledBatch
        As many views each; the first stay as they are but for the rectangle.
    frame : Tensor
        ``(g, g)``: 1 where they stay, 0 in the rectangle.

    Returns
    -------
    LabelledBatch
        Numbers and places are those of ``around``.
    """

    def joined(own: Tensor, other: Tensor) -> Tensor:
        mask = spread(frame, (own.shape[-2], own.shape[-1]))
        return own * mask + other * (1.0 - mask)

    return around._replace(
        inputs=joined(around.inputs, hole.inputs),
        shares=joined(around.shares, hole.shares),
        weight=joined(around.weight, hole.weight),
    )


def likeliest(logits: Tensor) -> Tensor:
    """Return the likeliest class of each pixel as shares, ``(B, K, h, w)``."""
    classes = logits.argmax(dim=1)
    return functional.one_hot(classes, logits.shape[1]).movedim(-1, 1).float()


def consistency(outputs: Sequence[Tensor], weight: Tensor) -> Tensor:
    """Return how far the outputs of a network are from saying the same.

    Parameters
    ----------
    outputs : sequence of Tensor
        Logits ``(B, K, h, w)``, that of use first.
    weight : Tensor
        ``(B, h, w)``, how much each pixel counts.

    Returns
    -------
    Tensor
        A scalar: the Dice loss of each other output against the likeliest classes of
        the first, and of the first against those of each other.
    """
    main, *others = outputs
    wanted = likeliest(main)
    parts = [losses.soft_dice(other, wanted, weight) for other in others]
    parts += [losses.soft_dice(main, likeliest(other), weight) for other in others]
    return torch.stack(parts).sum()


def _rolled(batch: LabelledBatch) -> LabelledBatch:
    """Return the batch with each view in the place of the one before it."""
    return LabelledBatch(*(item.roll(-1, dims=0) for item in batch))


def _part(batch: LabelledBatch, part: slice) -> LabelledBatch:
    return LabelledBatch(*(item[part] for item in batch))


def other_views(study: AnyStudy) -> KeptViews | FreshViews:
    """Return the batches of the images without annotation of a study."""
    config = study.config
    seed = (config.seed + OTHER_SEED) % 2**31
    if study.learner.keeps_inputs:
        return KeptViews(study.other_windows, config.batch, seed)
    changed = replace(study.view_config, seed=seed)
    return FreshViews(study.others, changed, config.batch)


def mean_teacher(study: AnyStudy, training: Sequence[int]) -> MeanTeacher:
    """Return the objective of a study that has images without annotation."""
    config = study.config
    loss = LossConfig(config.cross_entropy, config.dice)
    return MeanTeacher(
        other_views(study), config.steps, config.seed, SemiConfig(), loss
    )
