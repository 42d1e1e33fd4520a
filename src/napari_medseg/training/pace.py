"""How many steps fit into the time that a training was given.

A training that is cut off by the clock ends with its learning rate high, and is much
worse than a shorter one that was planned as such. So a few steps and one evaluation are
timed on a model that is thrown away, and the steps are chosen to fit.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from napari_medseg.training.trainer import FitConfig, Growing, fit

if TYPE_CHECKING:
    from napari_medseg.training.study import AnyStudy

TIMED = 3
"""Steps that are timed; one before them warms up."""

EVALUATIONS = 14
"""How often a part measures itself, first and last included."""

FEWEST = 10
"""Steps that are done in any case."""


def affordable_steps(study: AnyStudy, minutes: float) -> int:
    """Return the steps of each part that fit into the time that is left.

    Parameters
    ----------
    study : Study
        Prepared, with nothing trained yet.
    minutes : float
        Time for all its parts.

    Returns
    -------
    int
        As many as were asked for, or fewer.
    """
    split = study.splits[0] if study.splits else None
    training = split.training if split else tuple(range(len(study.pairs)))
    model = study.model(training)
    config = FitConfig(steps=TIMED + 1, learning_rate=1e-6, device=study.config.device)
    objective = study.objective(study, training)
    times = []
    for _ in fit(model, objective, study.batches(training), config):
        times.append(time.monotonic())
    step = (times[-1] - times[0]) / TIMED
    if isinstance(objective, Growing):
        began = time.monotonic()
        often = objective.do_later_work(model)
        step += often * (time.monotonic() - began)
    measuring = 0.0
    if split is not None:
        began = time.monotonic()
        study.score(model, split.held_out[:1])
        each = time.monotonic() - began
        measured = sum(len(split.held_out) for split in study.splits)
        measuring = EVALUATIONS * each * measured
    left = 60.0 * minutes - measuring
    return max(FEWEST, min(study.config.steps, int(left / step / study.part_count)))
