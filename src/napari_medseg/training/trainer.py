"""The one training loop.

It owns devices, mixed precision, clipping, checkpoints, resume, early stop, the time
budget and progress. A method supplies an `Objective`, and a function that gives the
batch of a step. Both see only the seed and the number of the step, never a hidden
state, so that a resumed run goes on exactly as if it had not been interrupted.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Protocol,
    TypeAlias,
    TypeVar,
    runtime_checkable,
)

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from napari_medseg._config import check, setting
from napari_medseg._types import InputError, Job, JobError, Progress
from napari_medseg.models.devices import (
    is_out_of_memory,
    resolve_device,
    supports_bf16,
)
from napari_medseg.training.checkpoint import (
    Checkpoint,
    changing,
    load_snapshot,
    no_checkpoint,
    shapes,
    snapshot,
)
from napari_medseg.training.conduct import never

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

# "Using bfloat16 Automatic Mixed Precision" is no news to a user
logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)

BatchT = TypeVar("BatchT", contravariant=True)

Stopped = Literal["steps", "minutes", "patience", "cancelled"]
"""Why a training ended."""

Evaluate: TypeAlias = "Callable[[], Mapping[str, Any]]"
"""Gives held-out figures, ``score`` among them, as JSON can hold them."""


class Objective(Protocol[BatchT]):
    """How a model learns: what is trained, and the loss of a step."""

    def parameters(self, model: nn.Module) -> Iterable[dict[str, Any]]:
        """Return the parameter groups to train, as torch's optimisers take them.

        A group's ``lr_scale`` multiplies the learning rate of the run.
        """
        ...

    def step(self, model: nn.Module, batch: BatchT) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, and figures to report."""
        ...

    def after_step(self, model: nn.Module, step: int) -> None:
        """Do what is left to do once the weights have changed (a moving average)."""
        ...


@runtime_checkable
class Stateful(Protocol):
    """An objective that learns something of its own, which checkpoints must keep."""

    def state(self) -> dict[str, Tensor]:
        """Return what is to be kept."""
        ...

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up what was kept: tensors of the names and shapes of `state`."""
        ...


@runtime_checkable
class Growing(Protocol):
    """An objective whose later steps do more than its first."""

    def do_later_work(self, model: nn.Module) -> float:
        """Do once what is added later, after a step; return how often a step has it."""
        ...


@dataclass(frozen=True)
class FitConfig:
    """Settings of the loop."""

    steps: int = setting(300, "Number of optimisation steps.", ge=1)
    stop_at: int | None = setting(
        None, "Stop after so many of the steps; the schedule stays that of all.", ge=0
    )
    learning_rate: float = setting(3e-3, "Peak learning rate.", ge=0.0)
    warmup: float = setting(
        0.05, "Share of the steps over which the learning rate rises.", ge=0, le=1
    )
    final: float = setting(
        0.05, "Learning rate at the end, as a share of its peak.", ge=0, le=1
    )
    weight_decay: float = setting(0.0, "Decay of the trained numbers.", ge=0.0)
    clip: float = setting(1.0, "Longest gradient allowed; longer ones are cut.", ge=0)
    minutes: float | None = setting(None, "Stop after so many minutes.", ge=0.0)
    evaluate_every: int = setting(
        25, "Measure the held-out score every so many steps.", ge=1
    )
    patience: int | None = setting(
        None, "Stop after so many measurements without a better score.", ge=1
    )
    checkpoint_minutes: float = setting(
        1.0, "Write a checkpoint every so many minutes.", ge=0.0
    )
    seed: int = setting(0, "Seed of everything random.", ge=0)
    device: str = setting(
        "auto", "Where to compute.", choices=("auto", "cpu", "cuda", "mps")
    )

    def __post_init__(self) -> None:
        check(self)


@dataclass
class FitResult:
    """How a training went.

    Attributes
    ----------
    steps : int
        Steps done.
    best_step : int
        The step whose weights the model now has.
    best_score : float or None
        Its held-out score, or None where nothing was held out.
    history : list of dict
        ``step`` and all that each evaluation gave.
    stopped : str
        Why it ended: ``steps``, ``minutes``, ``patience`` or ``cancelled``.
    """

    steps: int = 0
    best_step: int = 0
    best_score: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    stopped: Stopped = "steps"


def fit(
    model: nn.Module,
    objective: Objective[Any],
    batches: Callable[[int], Any],
    config: FitConfig,
    *,
    evaluate: Evaluate | None = None,
    checkpoint: Path | None = None,
    stop: Callable[[], bool] = never,
) -> Job[FitResult]:
    """Train a model.

    Parameters
    ----------
    model : Module
        Left with the best weights, on the device of the run.
    objective : Objective
        What is trained, and the loss.
    batches : callable
        Gives the batch of a step (0, 1, …); must depend on the step alone.
    config : FitConfig
        Settings of the loop.
    evaluate : callable, optional
        Gives held-out figures; ``score`` among them decides which step is best. It
        is also asked before the first step and after the last, however the run
        ends. Without it the last step is kept.
    checkpoint : Path, optional
        File to resume from, if it is there, and to write to.
    stop : callable, optional
        Asked before each step; the best weights so far are kept when it says True.

    Yields
    ------
    Progress
        One a step.

    Returns
    -------
    FitResult
        How it went.

    Raises
    ------
    InputError
        The checkpoint is damaged, or of another model or seed.
    JobError
        The loss became not a number, or memory ran out.
    """
    try:
        run = _Run(model, objective, config, checkpoint)
        yield from run.steps(batches, evaluate, stop)
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise JobError(
                "Training ran out of memory. Close other programs, choose a smaller "
                "batch or working size, or the device 'cpu'."
            ) from error
        raise
    return run.result


class _Run:
    """State of one call of `fit`."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective[Any],
        config: FitConfig,
        checkpoint: Path | None,
    ) -> None:
        device = resolve_device(config.device)
        self.fabric = Fabric(
            accelerator=device.type,
            devices=1,
            precision="bf16-mixed" if supports_bf16(device) else "32-true",
        )
        self.model = model
        self.objective = objective
        self.config = config
        self.checkpoint = checkpoint
        self.result = FitResult()
        self.best: dict[str, Tensor] = {}
        self.seconds = 0.0
        # what an objective trains beside it is made where the model is
        model.to(self.fabric.device)
        groups = [
            {**group, "lr_scale": group.get("lr_scale", 1.0)}
            for group in objective.parameters(model)
        ]
        self.trained = [item for group in groups for item in group["params"]]
        optimiser = torch.optim.AdamW(
            groups, lr=config.learning_rate, weight_decay=config.weight_decay
        )
        _, self.optimiser = self.fabric.setup(model, optimiser)
        if checkpoint is not None and checkpoint.exists():
            self._resume(checkpoint)

    @property
    def last_step(self) -> int:
        """The step after which the run is over."""
        config = self.config
        return config.steps if config.stop_at is None else config.stop_at

    def steps(
        self,
        batches: Callable[[int], Any],
        evaluate: Evaluate | None,
        stop: Callable[[], bool],
    ) -> Job[None]:
        """Run the loop."""
        config, result = self.config, self.result
        started = time.monotonic() - self.seconds
        saved = self.seconds
        try:
            if result.steps % config.evaluate_every == 0:
                self._measure(evaluate)
            while (reason := self._reason_to_stop(stop)) is None:
                figures = self._step(batches(result.steps), result.steps)
                result.steps += 1
                self.objective.after_step(self.model, result.steps)
                self.seconds = time.monotonic() - started
                last = result.steps == self.last_step
                if last or result.steps % config.evaluate_every == 0:
                    figures |= self._measure(evaluate)
                if self.seconds - saved > 60.0 * config.checkpoint_minutes:
                    saved = self.seconds
                    self._save()
                yield Progress(result.steps, self.last_step, "training", figures)
            result.stopped = reason
        finally:
            self._save()
        # where it happened to be stopped is no step that a resumed run would measure
        self._measure(evaluate)
        if self.best:
            load_snapshot(self.model, self.best)

    def _reason_to_stop(self, stop: Callable[[], bool]) -> Stopped | None:
        config, result = self.config, self.result
        if result.steps >= self.last_step:
            return "steps"
        if stop():
            return "cancelled"
        if config.minutes is not None and self.seconds >= 60.0 * config.minutes:
            return "minutes"
        waited = (result.steps - result.best_step) // config.evaluate_every
        if config.patience is not None and waited >= config.patience:
            return "patience"
        return None

    def _step(self, batch: Any, step: int) -> dict[str, float]:
        """Take one optimisation step; random numbers depend on the step alone."""
        config = self.config
        factor = learning_rate_factor(step, config)
        for group in self.optimiser.param_groups:
            group["lr"] = config.learning_rate * group["lr_scale"] * factor
        device = self.fabric.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(config.seed * 1_000_003 + step)
            # not through Fabric's module, which would round the targets to bfloat16
            with self.fabric.autocast():
                loss, figures = self.objective.step(
                    self.model, self.fabric.to_device(batch)
                )
            if not torch.isfinite(loss):
                raise JobError(
                    f"The loss is not a number at step {step}. Choose a smaller "
                    "learning rate."
                )
            self.fabric.backward(loss)
        if config.clip > 0:
            torch.nn.utils.clip_grad_norm_(self.trained, config.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return {"loss": float(loss.detach())} | {
            name: float(value.detach()) for name, value in figures.items()
        }

    def _measure(self, evaluate: Evaluate | None) -> dict[str, float]:
        """Evaluate, once a step, and keep the weights if they are the best so far.

        Returns the figures that are plain numbers.
        """
        result = self.result
        if evaluate is None:
            result.best_step = result.steps
            return {}
        if result.history and result.history[-1]["step"] == result.steps:
            return {}
        figures = dict(evaluate())
        result.history.append({"step": float(result.steps), **figures})
        score = figures["score"]
        if result.best_score is None or score > result.best_score:
            result.best_score, result.best_step = score, result.steps
            self.best = snapshot(self.model)
        return {key: item for key, item in figures.items() if isinstance(item, float)}

    def _save(self) -> None:
        """Write down where the run is, if that is wanted."""
        if self.checkpoint is None:
            return
        result = self.result
        groups = {
            "model": snapshot(self.model),
            "best": self.best,
            "objective": _state(self.objective),
        }
        for index, item in enumerate(self.trained):
            groups[f"optimiser.{index}"] = self.optimiser.state.get(item, {})
        note = {
            "steps": result.steps,
            "best_step": result.best_step,
            "best_score": result.best_score,
            "history": result.history,
            "seconds": self.seconds,
            "seed": self.config.seed,
        }
        Checkpoint.of(groups, note).write(self.checkpoint)

    def _resume(self, path: Path) -> None:
        """Take up a run where its checkpoint left it."""
        kept = Checkpoint.read(path)
        try:
            note = kept.note
            result = FitResult(
                note["steps"], note["best_step"], note["best_score"], note["history"]
            )
            seed, self.seconds = note["seed"], note["seconds"]
        except (KeyError, TypeError) as error:
            raise no_checkpoint(path) from error
        if seed != self.config.seed:
            raise InputError(
                f"{path} is the checkpoint of a run with seed {seed}, not "
                f"{self.config.seed}. Delete it, or use that seed."
            )
        model, own = kept.group("model"), kept.group("objective")
        if shapes(model) != shapes(changing(self.model)) or shapes(own) != shapes(
            _state(self.objective)
        ):
            raise InputError(
                f"{path} is the checkpoint of another model. Delete it to start again."
            )
        load_snapshot(self.model, model)
        self.best = kept.group("best")
        for index, item in enumerate(self.trained):
            self.optimiser.state[item] = {
                key: value if key == "step" else torch.empty_like(item).copy_(value)
                for key, value in kept.group(f"optimiser.{index}").items()
            }
        if isinstance(self.objective, Stateful):
            self.objective.load_state(own)
        self.result = result


def learning_rate_factor(step: int, config: FitConfig) -> float:
    """Return the learning rate of a step as a share of its peak.

    A linear rise over ``warmup``, then half a cosine down to ``final``.

    Parameters
    ----------
    step : int
        0, 1, ….
    config : FitConfig
        Settings of the loop.

    Returns
    -------
    float
        In (0, 1].
    """
    rising = max(1, round(config.warmup * config.steps))
    if step < rising:
        return (step + 1) / rising
    along = (step - rising) / max(1, config.steps - rising)
    return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * along))


def _state(objective: Objective[Any]) -> dict[str, Tensor]:
    """Return what an objective wants kept; nothing of one that has no state."""
    return objective.state() if isinstance(objective, Stateful) else {}
