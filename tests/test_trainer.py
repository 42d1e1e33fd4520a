"""The training loop: what it leaves behind, and that nothing is lost on the way."""

from __future__ import annotations

import math
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from napari_medseg._types import InputError, JobError, Progress, finish
from napari_medseg.models.backbone import autocast
from napari_medseg.training.scoring import Score, mean_quality
from napari_medseg.training.trainer import (
    FitConfig,
    FitResult,
    fit,
    learning_rate_factor,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

CPU = torch.device("cpu")


class Toy(nn.Module):
    """Has all that a resumed run must bring back: dropout, buffers, frozen layers."""

    def __init__(self, width: int = 8, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.frozen = nn.Linear(4, 4).requires_grad_(False)
            self.first = nn.Linear(4, width)
            self.norm = nn.BatchNorm1d(width)
            self.last = nn.Linear(width, 1)
        self.dropout = nn.Dropout(0.3)
        self.same_layer_again = self.frozen

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(self.frozen(x)))
        result: Tensor = self.last(self.dropout(torch.relu(x)))
        return result


class Regression:
    """Trains what is not frozen, or the parts of the model that are named."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.steps_seen: list[int] = []

    def parameters(self, model: nn.Module) -> list[dict[str, Any]]:
        return [
            {
                "params": [
                    item
                    for name, item in model.named_parameters()
                    if item.requires_grad and (not self.names or name in self.names)
                ]
            }
        ]

    def step(
        self, model: nn.Module, batch: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss = functional.mse_loss(model(batch[0]).float(), batch[1])
        return loss, {"twice": 2 * loss}

    def after_step(self, model: nn.Module, step: int) -> None:
        self.steps_seen.append(step)


class Failing(Regression):
    """Raises, or gives a loss that is not a number, at a step."""

    def __init__(self, at: int, failure: BaseException | None = None) -> None:
        super().__init__()
        self.at, self.failure = at, failure

    def step(
        self, model: nn.Module, batch: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss, figures = super().step(model, batch)
        if len(self.steps_seen) < self.at:
            return loss, figures
        if self.failure is not None:
            raise self.failure
        return loss * math.nan, figures


def batches(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(16, 4, generator=generator)
    return x, x.sum(dim=1, keepdim=True)


def held_out(model: nn.Module) -> Callable[[], dict[str, Any]]:
    """Measure as a training does, and give more than plain numbers."""

    def evaluate() -> dict[str, Any]:
        model.eval()
        x, y = batches(10_000)
        with torch.no_grad():
            error = float(functional.mse_loss(model(x), y))
        model.train()
        return {"score": -error, "error": error, "images": [["a", error]]}

    return evaluate


def scripted(scores: list[float]) -> Callable[[], dict[str, float]]:
    left: Iterator[float] = iter(scores)
    return lambda: {"score": next(left)}


def config(**changes: Any) -> FitConfig:
    settings = {"steps": 12, "evaluate_every": 5, "device": "cpu", **changes}
    return FitConfig(**{"learning_rate": 0.05, **settings})


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: item.clone() for name, item in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


def run(model: nn.Module, settings: FitConfig, **options: Any) -> FitResult:
    options.setdefault("evaluate", held_out(model))
    return finish(fit(model, Regression(), batches, settings, **options))


def interrupt(model: nn.Module, settings: FitConfig, path: Path, steps: int) -> None:
    """Train some steps and cancel, as closing the viewer does."""
    job = fit(
        model,
        Regression(),
        batches,
        settings,
        evaluate=held_out(model),
        checkpoint=path,
    )
    for _ in range(steps):
        next(job)
    job.close()


@pytest.mark.parametrize("steps", [1, 4, 5, 7, 12])
def test_resumed_run_is_as_if_never_interrupted(steps: int, tmp_path: Path) -> None:
    whole = Toy()
    expected = run(whole, config())
    path = tmp_path / "checkpoint.safetensors"
    interrupt(Toy(), config(), path, steps)
    torch.rand(7)  # whatever else the new process does with chance
    resumed = Toy(seed=99)
    resumed.frozen.load_state_dict(whole.frozen.state_dict())
    result = run(resumed, config(), checkpoint=path)
    assert same(weights(resumed), weights(whole))
    assert result == expected
    assert [entry["step"] for entry in result.history] == [0, 5, 10, 12]


def test_run_that_the_user_stopped_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    whole = Toy()
    expected = run(whole, config())
    path = tmp_path / "checkpoint.safetensors"
    asked: Iterator[bool] = iter([*[False] * 7, True])
    stopped = run(Toy(), config(), checkpoint=path, stop=lambda: next(asked))
    assert stopped.stopped == "cancelled"
    # what it leaves is measured where it was stopped
    assert [entry["step"] for entry in stopped.history] == [0, 5, 7]
    resumed = Toy()
    assert run(resumed, config(), checkpoint=path) == expected
    assert same(weights(resumed), weights(whole))


class Counting(Regression):
    """Learns something of its own: the sum of the losses so far."""

    def __init__(self, length: int = 1) -> None:
        super().__init__()
        self.total = torch.zeros(length)

    def step(
        self, model: nn.Module, batch: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        loss, figures = super().step(model, batch)
        self.total = self.total + loss.detach()
        return loss, figures

    def state(self) -> dict[str, Tensor]:
        return {"total": self.total}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.total = state["total"]


def test_what_an_objective_learns_is_kept_in_checkpoints(tmp_path: Path) -> None:
    whole = Counting()
    finish(fit(Toy(), whole, batches, config()))
    path = tmp_path / "checkpoint.safetensors"
    job = fit(Toy(), Counting(), batches, config(), checkpoint=path)
    for _ in range(5):
        next(job)
    job.close()
    with pytest.raises(InputError, match="another model"):
        finish(fit(Toy(), Counting(2), batches, config(), checkpoint=path))
    with pytest.raises(InputError, match="another model"):
        finish(fit(Toy(), Regression(), batches, config(), checkpoint=path))
    resumed = Counting()
    finish(fit(Toy(), resumed, batches, config(), checkpoint=path))
    assert torch.equal(resumed.total, whole.total)


def test_killed_run_resumes_from_its_last_checkpoint(tmp_path: Path) -> None:
    whole = Toy()
    expected = run(whole, config())
    path, copy = tmp_path / "checkpoint.safetensors", tmp_path / "copy.safetensors"
    model = Toy()
    job = fit(
        model,
        Regression(),
        batches,
        config(checkpoint_minutes=0.0),
        evaluate=held_out(model),
        checkpoint=path,
    )
    for _ in range(6):
        next(job)
    shutil.copy(path, copy)  # the process dies here: nothing is tidied up
    resumed = Toy()
    assert run(resumed, config(), checkpoint=copy) == expected
    assert same(weights(resumed), weights(whole))
    job.close()
    assert {item.name for item in tmp_path.iterdir()} == {path.name, copy.name}


def test_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    model, again = Toy(), Toy()
    expected = run(model, config(), checkpoint=path)
    objective = Regression()
    job = fit(
        again, objective, batches, config(), evaluate=scripted([]), checkpoint=path
    )
    assert finish(job) == expected
    assert objective.steps_seen == []
    assert same(weights(again), weights(model))


def test_failed_first_step_is_measured_once(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    model = Toy()
    job = fit(
        model,
        Failing(0),
        batches,
        config(),
        evaluate=held_out(model),
        checkpoint=path,
    )
    with pytest.raises(JobError):
        finish(job)
    again = Toy()
    result = run(again, config(), checkpoint=path)
    assert [entry["step"] for entry in result.history] == [0, 5, 10, 12]


def test_best_weights_are_left_not_the_last() -> None:
    model = Toy()
    seen: list[dict[str, Tensor]] = []
    scores = scripted([0.1, 0.6, 0.9, 0.2])

    def evaluate() -> dict[str, float]:
        seen.append(weights(model))
        return scores()

    result = run(model, config(steps=15), evaluate=evaluate)
    assert (result.best_step, result.best_score) == (10, 0.9)
    assert (result.steps, result.stopped) == (15, "steps")
    assert same(weights(model), seen[2])
    assert not same(seen[2], seen[3])


def test_resumed_run_does_not_forget_its_best_score(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    model, resumed = Toy(), Toy()
    settings = config(steps=15)
    job = fit(
        model,
        Regression(),
        batches,
        settings,
        evaluate=scripted([0.1, 0.9]),
        checkpoint=path,
    )
    for _ in range(5):
        next(job)
    best = weights(model)
    next(job)
    job.close()
    result = run(resumed, settings, evaluate=scripted([0.5, 0.6]), checkpoint=path)
    assert (result.best_step, result.best_score) == (5, 0.9)
    assert same(weights(resumed), best)


def test_last_weights_are_left_where_nothing_is_measured() -> None:
    model, prefix = Toy(), Toy()
    result = run(model, config(), evaluate=None)
    assert (result.steps, result.best_step, result.best_score) == (12, 12, None)
    assert result.history == []
    stop = iter([False] * 7 + [True])
    result = run(prefix, config(), evaluate=None, stop=lambda: next(stop))
    assert (result.steps, result.best_step, result.stopped) == (7, 7, "cancelled")


@pytest.mark.parametrize(
    ("scores", "best"), [([0.1, 0.9, 0.3], 5), ([0.5, 0.2, 0.1], 0)]
)
def test_stop_keeps_the_best(scores: list[float], best: int) -> None:
    model = Toy()
    seen = {0: weights(model)}
    stop = iter([False] * 7 + [True])
    job = fit(
        model,
        Regression(),
        batches,
        config(),
        evaluate=scripted(scores),
        stop=lambda: next(stop),
    )
    for _ in range(7):
        report = next(job)
        seen[report.step] = weights(model)
    result = finish(job)
    assert (result.steps, result.stopped) == (7, "cancelled")
    assert result.best_step == best
    assert same(weights(model), seen[best])


def test_stop_before_the_first_measurement_keeps_what_was_learnt() -> None:
    model, prefix = Toy(), Toy()
    stop = iter([False] * 3 + [True])
    result = run(
        model, config(), evaluate=scripted([0.1, 0.9]), stop=lambda: next(stop)
    )
    assert (result.best_step, result.best_score) == (3, 0.9)
    run(prefix, config(stop_at=3), evaluate=None)
    assert same(weights(model), weights(prefix))


def test_no_minutes_no_step() -> None:
    model, untouched = Toy(), Toy()
    objective = Regression()
    evaluate = held_out(model)
    job = fit(model, objective, batches, config(minutes=0.0), evaluate=evaluate)
    result = finish(job)
    assert (result.steps, result.stopped) == (0, "minutes")
    assert objective.steps_seen == []
    assert same(weights(model), weights(untouched))
    assert result.best_score is not None


def test_minutes_count_across_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(
        "napari_medseg.training.trainer.time.monotonic", lambda: float(next(clock))
    )
    path = tmp_path / "checkpoint.safetensors"
    settings = config(steps=100, minutes=1.0)
    interrupt(Toy(), settings, path, 4)
    result = run(Toy(), settings, checkpoint=path)
    assert (result.steps, result.stopped) == (6, "minutes")


def test_patience() -> None:
    scores = scripted([0.1, 0.5, 0.4, 0.3, 0.2, 0.9])
    settings = config(steps=50, evaluate_every=2, patience=3)
    result = run(Toy(), settings, evaluate=scores)
    assert (result.steps, result.stopped, result.best_step) == (8, "patience", 2)


@pytest.mark.parametrize("stop_at", [0, 3, 7, 12])
def test_stop_at_is_the_prefix_of_the_whole_schedule(stop_at: int) -> None:
    whole, prefix = Toy(), Toy()
    job = fit(whole, Regression(), batches, config())
    for _ in range(stop_at):
        next(job)
    result = run(prefix, config(stop_at=stop_at), evaluate=None)
    assert result.steps == stop_at
    assert same(weights(prefix), weights(whole))


def test_loop_is_that_of_plain_torch() -> None:
    """Clipping, AdamW, schedule and seeds, against the few lines they stand for."""
    settings = config(weight_decay=0.1, clip=0.05, seed=3)
    model, plain = Toy(), Toy()
    result = run(model, settings, evaluate=None)
    trained = [item for item in plain.parameters() if item.requires_grad]
    optimiser = torch.optim.AdamW(trained, weight_decay=0.1)
    with torch.random.fork_rng():
        for step in range(12):
            factor = learning_rate_factor(step, settings)
            optimiser.param_groups[0]["lr"] = 0.05 * factor
            torch.manual_seed(3 * 1_000_003 + step)
            with autocast(CPU):
                loss, _ = Regression().step(plain, batches(step))
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 0.05)
            optimiser.step()
    assert result.steps == 12
    assert same(weights(model), weights(plain))


def test_loss_that_is_not_a_number_is_a_sentence(tmp_path: Path) -> None:
    model = Toy()
    path = tmp_path / "checkpoint.safetensors"
    job = fit(model, Failing(2), batches, config(), checkpoint=path)
    next(job)
    next(job)
    before = {name: item.detach().clone() for name, item in model.named_parameters()}
    with pytest.raises(JobError, match=r"not a number at step 2.*learning rate"):
        next(job)
    assert same(dict(model.named_parameters()), before)
    assert path.exists()


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_memory_that_ran_out_is_a_sentence(failure: BaseException) -> None:
    job = fit(Toy(), Failing(1, failure), batches, config())
    with pytest.raises(JobError, match="out of memory") as caught:
        finish(job)
    assert caught.value.__cause__ is failure


def test_other_errors_are_not_taken_for_memory() -> None:
    job = fit(Toy(), Failing(1, RuntimeError("shapes differ")), batches, config())
    with pytest.raises(RuntimeError, match="shapes differ"):
        finish(job)


def test_cancelling_writes_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "checkpoint.safetensors"
    interrupt(Toy(), config(), path, 3)
    assert path.exists()
    result = run(Toy(), config(stop_at=3), checkpoint=path)
    assert result.steps == 3


def test_checkpoint_holds_nothing_frozen(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    interrupt(Toy(), config(), path, 1)
    names = set(load_file(path))
    assert "model.first.weight" in names
    assert "model.norm.running_mean" in names
    assert not [name for name in names if "frozen" in name or "again" in name]


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("no checkpoint at all")
    elif how == "no note":
        save_file(load_file(path), path)
    else:
        save_file(load_file(path), path, {"run": how})


@pytest.mark.parametrize(
    "how", ["truncated", "empty", "text", "no note", "{", "[1]", '{"steps": 3}']
)
def test_damaged_checkpoint_is_refused(how: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    interrupt(Toy(), config(), path, 1)
    damage(path, how)
    with pytest.raises(InputError, match=r"checkpoint\.safetensors .*Delete it"):
        run(Toy(), config(), checkpoint=path)


def test_checkpoint_of_another_seed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    interrupt(Toy(), config(seed=4), path, 1)
    with pytest.raises(InputError, match="seed 4, not 5"):
        run(Toy(), config(seed=5), checkpoint=path)


@pytest.mark.parametrize("other", ["wider", "more", "fewer", "frozen"])
def test_checkpoint_of_another_model_is_refused(other: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    models = {"wider": Toy(width=9), "more": Toy(), "fewer": Toy(), "frozen": Toy()}
    models["more"].extra = nn.Linear(1, 1)
    models["fewer"].norm = nn.Identity()
    models["frozen"].first.requires_grad_(False)
    interrupt(Toy(), config(), path, 1)
    before = weights(models[other])
    with pytest.raises(InputError, match="another model"):
        run(models[other], config(), checkpoint=path)
    assert same(weights(models[other]), before)


def test_learning_rate_rises_then_falls_as_a_cosine() -> None:
    settings = config(steps=40, warmup=0.1, final=0.2)
    factors = [learning_rate_factor(step, settings) for step in range(40)]
    assert factors[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 36, eta_min=0.2)
    for factor in factors[4:]:
        assert factor == pytest.approx(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
    assert schedule.get_last_lr() == pytest.approx([0.2])


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0])
def test_learning_rate_of_short_runs(steps: int, warmup: float) -> None:
    settings = config(steps=steps, warmup=warmup)
    factors = [learning_rate_factor(step, settings) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == 1


def test_groups_have_learning_rates_of_their_own() -> None:
    class Scaled(Regression):
        def parameters(self, model: nn.Module) -> list[dict[str, Any]]:
            return [
                {"params": [model.first.weight]},
                {"params": [model.last.weight], "lr_scale": 10.0},
            ]

    model, start = Toy(), Toy()
    next(fit(model, Scaled(), batches, config(clip=0.0, warmup=0.0)))
    # AdamW's first step is the learning rate in every coordinate with a gradient
    with torch.no_grad():
        slow = (model.first.weight - start.first.weight).abs().max()
        fast = (model.last.weight - start.last.weight).abs().max()
    assert float(slow) == pytest.approx(0.05, rel=1e-3)
    assert float(fast) == pytest.approx(0.5, rel=1e-3)


def test_random_numbers_are_of_the_step_alone() -> None:
    first, second = Toy(), Toy()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    run(first, config())
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    run(second, config())
    assert same(weights(first), weights(second))
    third = Toy()
    run(third, config(seed=1))
    assert not same(weights(first), weights(third))


def test_only_what_the_objective_names_is_changed() -> None:
    model, start = Toy(), Toy()
    finish(fit(model, Regression("last.weight", "last.bias"), batches, config()))
    before = dict(start.named_parameters())
    changed = {
        name
        for name, item in model.named_parameters()
        if not torch.equal(item, before[name])
    }
    assert changed == {"last.weight", "last.bias"}


def test_progress_says_where_it_stands() -> None:
    model = Toy()
    objective = Regression()
    job = fit(model, objective, batches, config(), evaluate=held_out(model))
    reports = list(job)
    assert [report.step for report in reports] == list(range(1, 13))
    assert objective.steps_seen == list(range(1, 13))
    assert all(isinstance(report, Progress) for report in reports)
    assert {report.total for report in reports} == {12}
    for report in reports:
        measured = report.step in (5, 10, 12)
        more = {"score", "error"} if measured else set()
        assert set(report.metrics) == {"loss", "twice"} | more
        assert all(type(value) is float for value in report.metrics.values())
    losses = [report.metrics["loss"] for report in reports]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"learning_rate": -1.0}, {"warmup": 2.0}, {"patience": 0}]
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        config(**wrong)


def test_a_rare_class_is_measured_where_it_is_shown() -> None:
    shown = [Score("a", 0.0, 0.0, False, aupr=aupr) for aupr in (0.6, 0.8)]
    others = [Score("b", 1.0, 1.0, False), Score("c", 0.0, 0.0, False)]
    assert mean_quality([*shown, *others]) == pytest.approx(0.7)
    assert mean_quality(others) == 0.5
