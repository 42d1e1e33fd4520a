"""Earlier states of a training, kept beside the best one.

How good an unlabelled result is can be told from states of known and different
quality (`napari_medseg.quality`). Prompts learn fast, so states are taken at steps
that grow by a factor: bad ones are as many as good ones.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from napari_medseg.io.atomic import atomic_path
from napari_medseg.training.trainer import Stateful

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from napari_medseg.training.study import AnyStudy, ObjectiveFactory
    from napari_medseg.training.trainer import Objective


def snapshot_steps(count: int, steps: int) -> tuple[int, ...]:
    """Return the steps after which the state is kept.

    Parameters
    ----------
    count : int
        How many, at most; short trainings have fewer.
    steps : int
        Steps of the training.

    Returns
    -------
    tuple of int
        Rising by about the same factor from the first step to the last.
    """
    if count <= 0:
        return ()
    exponents = [index / max(1, count - 1) for index in range(count)]
    return tuple(sorted({round(steps**exponent) for exponent in exponents}))


@dataclass
class Keeping:
    """An objective that keeps states of what it trains.

    Attributes
    ----------
    objective : Objective
        Says what a step is.
    wanted : tuple of int
        After which steps.
    path : Path, optional
        Where they are kept, too, so that a resumed run has those from before.
    states : dict
        What was trained, by step and by name.
    """

    objective: Objective[Any]
    wanted: tuple[int, ...]
    path: Path | None = None
    states: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path is None or not self.path.exists():
            return
        # a damaged file only means fewer states
        with suppress(SafetensorError, OSError, ValueError):
            for key, value in load_file(self.path).items():
                step, _, name = key.partition(" ")
                self.states.setdefault(int(step), {})[name] = value

    def parameters(self, model: nn.Module) -> Iterable[dict[str, Any]]:
        """Return the parameter groups to train."""
        return self.objective.parameters(model)

    def step(self, model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, and figures to report."""
        return self.objective.step(model, batch)

    def after_step(self, model: nn.Module, step: int) -> None:
        """Keep the state, if it is wanted."""
        self.objective.after_step(model, step)
        if step not in self.wanted:
            return
        self.states[step] = {
            name: value.detach().cpu().clone()
            for name, value in model.named_parameters()
            if value.requires_grad
        }
        if self.path is not None:
            flat = {
                f"{step} {name}": value.contiguous()
                for step, state in self.states.items()
                for name, value in state.items()
            }
            with atomic_path(self.path) as temporary:
                save_file(flat, temporary)

    def state(self) -> dict[str, Tensor]:
        """Return what the objective learned itself, for checkpoints."""
        inner = self.objective
        return inner.state() if isinstance(inner, Stateful) else {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Give the objective back what it had learned."""
        if isinstance(self.objective, Stateful):
            self.objective.load_state(state)

    def until(self, step: int) -> list[dict[str, Tensor]]:
        """Return the states up to a step, the earliest first."""
        return [self.states[each] for each in sorted(self.states) if each <= step]


@dataclass
class StateKeeper:
    """Gives objectives that keep states, and keeps those of the last part of a study.

    Attributes
    ----------
    factory : callable
        Gives the objectives themselves.
    count : int
        States, at most.
    last : Keeping, optional
        The objective of the last part.
    """

    factory: ObjectiveFactory
    count: int
    last: Keeping | None = None

    def __call__(self, study: AnyStudy, training: Sequence[int]) -> Keeping:
        """Return the objective of the next part."""
        steps = snapshot_steps(self.count, study.config.steps)
        file = study.checkpoint()
        path = file and file.with_suffix(".states.safetensors")
        self.last = Keeping(self.factory(study, training), steps, path)
        return self.last

    def until(self, step: int) -> list[dict[str, Tensor]]:
        """Return the states of the last part up to a step, the earliest first."""
        return [] if self.last is None else self.last.until(step)
