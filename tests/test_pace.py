"""A training that was given minutes plans its steps, and does not end half-way."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from test_network_training import QUICK, _small, pair

from napari_medseg._types import finish
from napari_medseg.io.pairs import gather
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.goals import ClassGoal
from napari_medseg.training.noisy import spatial_noise
from napari_medseg.training.pace import FEWEST, affordable_steps
from napari_medseg.training.whole import WholeStudy, study_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["_small"]  # a fixture that makes the network small


def study(minutes: float, checkpoints: Path | None = None) -> WholeStudy:
    pairs = gather([pair(number) for number in range(4)], annotation="dense")
    config = replace(QUICK, steps=400, folds=2, minutes=minutes)
    return study_of(ClassGoal(pairs), config, Conduct(checkpoints=checkpoints))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a second pass whenever somebody looks at the clock."""
    seconds = itertools.count()
    monkeypatch.setattr("time.monotonic", lambda: float(next(seconds)))


@pytest.mark.usefixtures("clock")
def test_steps_fit_into_the_minutes() -> None:
    few, more = (affordable_steps(study(9.0), minutes) for minutes in (3.0, 6.0))
    assert FEWEST < few < more < 400
    # three more minutes for three parts are as many seconds, and a step takes some
    assert (more - few) * 3 <= 180


@pytest.mark.usefixtures("clock")
def test_there_are_never_more_than_asked_for_nor_none() -> None:
    assert affordable_steps(study(9.0), 1e6) == 400
    assert affordable_steps(study(9.0), 0.0) == FEWEST


@pytest.mark.usefixtures("clock")
def test_what_comes_later_in_a_training_is_planned_for() -> None:
    plain = affordable_steps(study(9.0), 3.0)
    slower = study(9.0)
    slower.objective = spatial_noise
    assert FEWEST < affordable_steps(slower, 3.0) < plain


@pytest.mark.usefixtures("clock")
def test_the_replay_has_the_steps_that_were_planned() -> None:
    planned = study(2.0)
    finish(planned.run())
    assert planned.replay.steps < 400
    assert planned.replay.minutes is None


@pytest.mark.usefixtures("clock")
def test_a_run_that_can_be_resumed_keeps_its_steps(tmp_path: Path) -> None:
    planned = study(0.1, tmp_path)
    finish(planned.run())
    assert planned.replay.steps == 400
