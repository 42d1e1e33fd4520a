"""Going on from a tuned model, in place of beginning with noise."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from folders import assert_refused, command, write_pairs
from test_tuning import config, pairs, train

from napari_medseg._types import InputError, ModelFileError
from napari_medseg.io import model_file
from napari_medseg.training.start import MAY_BE_KNOWN

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tuned(sam: str, tmp_path: Path) -> Path:
    trained = train(pairs(2), sam, seed=5, steps=6)
    return model_file.save(tmp_path / "first.medseg", trained.model_file)


@pytest.mark.parametrize("extra", [0, 2])
def test_the_prompts_begin_where_the_other_model_ended(
    extra: int, sam: str, tmp_path: Path
) -> None:
    settings = {"validate": 0, "encoder_prompts": extra}
    first = train(pairs(2), sam, **settings).model_file
    path = model_file.save(tmp_path / "first.medseg", first)
    # a step that is infinitely small, so that the beginning is what is left
    again = train(
        pairs(2),
        sam,
        **settings,
        start_from=str(path),
        steps=1,
        learning_rate=1e-12,
        seed=9,
    ).model_file
    for name, values in first.tensors.items():
        np.testing.assert_allclose(again.tensors[name], values, atol=1e-6)


def test_the_card_says_from_what_and_the_score_what_it_is_worth(
    tuned: Path, sam: str
) -> None:
    trained = train(pairs(8), sam, start_from=str(tuned))
    card = trained.model_file.card
    first = model_file.load(tuned)
    assert card.provenance["started_from"] == {
        "title": first.card.title,
        "digest": model_file.digest(first),
    }
    assert card.config["start_from"] == "first.medseg"
    assert MAY_BE_KNOWN in trained.report.warnings
    assert MAY_BE_KNOWN not in train(pairs(8), sam).report.warnings


def test_steps_are_smaller_than_from_noise(sam: str) -> None:
    fresh = config(sam)
    assert replace(fresh, start_from="x").peak_rate == fresh.peak_rate / 4
    assert replace(fresh, start_from="x", learning_rate=0.3).peak_rate == 0.3


def test_models_that_do_not_fit_are_refused(
    tuned: Path, sam: str, tmp_path: Path
) -> None:
    def go_on(**changes: object) -> None:
        train(pairs(2, 3), sam, **{"start_from": str(tuned), **changes})

    with pytest.raises(InputError, match=r"1 sets of 8 prompts .*ask for 2 sets of 8"):
        go_on()
    with pytest.raises(InputError, match=r"was tuned on .*, not on "):
        train(pairs(2), "nano", start_from=str(tuned), steps=1)
    with pytest.raises(ModelFileError, match=r"none\.medseg"):
        go_on(start_from=str(tmp_path / "none.medseg"))


def test_the_command_replays_it(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "data")
    data = ("--images", root / "images", "--masks", root / "masks")
    quick = ("--steps", "2", "--views", "1", "--working-size", "64", "--validate", "0")
    begin = ("--start-from", "nuclei-fluo")
    first, second = tmp_path / "a.medseg", tmp_path / "b.medseg"
    command("train", *data, "--out", first, *quick, *begin)
    run_file = first.with_suffix(".run.yaml")
    go_on = ("--config", run_file, "--out", second)
    command("train", *go_on)
    assert first.read_bytes() == second.read_bytes()
    other = ("--start-from", tmp_path / "none.medseg", "--overwrite")
    assert_refused(command("train", *go_on, *other), "none.medseg")
