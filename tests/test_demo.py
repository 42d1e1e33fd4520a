"""The main job in one go, on images so small that it takes seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imageio.v3 as imageio
import numpy as np
import pytest
from folders import SIZE, assert_refused, command, content, write_pairs

from napari_medseg import demo, load
from napari_medseg._types import InputError, Prediction, default_classes, finish
from napari_medseg.demo import (
    TaskResult,
    folder_task,
    generated_tasks,
    overlay,
    run_demo,
)
from napari_medseg.io.pairs import Pair, gather
from napari_medseg.models.classical import Otsu
from napari_medseg.samples import TWO_KINDS, make_two_kinds
from napari_medseg.training.baseline import better_otsu, mean_dice
from napari_medseg.training.prompt_tuning import PromptTuning

if TYPE_CHECKING:
    from napari_medseg._types import FloatArray, Progress

QUICK = PromptTuning(steps=2, views=0, working_size=128, validate=1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the demo's own images small and few: 3 to tune on, 2 to measure on."""
    monkeypatch.setattr(demo, "TRAINING", 3)
    monkeypatch.setattr(demo, "TESTING", 2)
    monkeypatch.setattr(demo, "make_two_kinds", partial(make_two_kinds, size=SIZE))


def test_both_kinds_are_asked_for_on_the_same_images(small: None) -> None:
    tasks = generated_tasks(7)
    assert [task.name for task in tasks] == list(TWO_KINDS)
    for task in tasks:
        assert (len(task.training), len(task.testing)) == (3, 2)
        assert task.training.classes == 2
    cells, rods = (list(task.training) + list(task.testing) for task in tasks)
    for cell, rod in zip(cells, rods, strict=True):
        assert np.array_equal(cell.image, rod.image)
        assert cell.annotation.any()
        assert rod.annotation.any()
        assert not (cell.annotation & rod.annotation).any()
    assert len({cell.image.tobytes() for cell in cells}) == 5
    again, other = generated_tasks(7)[0], generated_tasks(8)[0]
    assert again.training.digest == tasks[0].training.digest
    assert other.training.digest != tasks[0].training.digest


def test_the_demo_measures_and_writes(small: None, tmp_path: Path) -> None:
    tasks = generated_tasks(0)
    out = tmp_path / "not there yet" / "Vorführung"
    reports: list[Progress] = []
    job = run_demo(tasks, out, QUICK)
    with pytest.raises(StopIteration) as done:
        while True:
            reports.append(next(job))
    results: list[TaskResult] = done.value.value
    assert [result.name for result in results] == list(TWO_KINDS)
    for result, task in zip(results, tasks, strict=True):
        for score in (result.dice, result.untuned, result.otsu):
            assert 0 <= score <= 1
        assert result.images == 2
        assert result.seconds > 0
        assert result.dice == pytest.approx(mean_dice(load(result.model), task.testing))
        assert any(report.message.startswith(task.name) for report in reports)
        assert result.to_dict()["model"] == str(result.model)
    # one threshold finds both kinds and tells neither from the other
    assert results[0].otsu > 0.1
    assert results[1].otsu > 0.1
    assert content(out) == [
        "rod.medseg",
        "rod_image03.png",
        "rod_image04.png",
        "round_cell.medseg",
        "round_cell_image03.png",
        "round_cell_image04.png",
    ]
    for path in out.glob("*.png"):
        assert imageio.imread(path).shape == (SIZE, SIZE, 3)


def test_tuning_is_better_than_not_tuning(tmp_path: Path) -> None:
    scenes = make_two_kinds(12, 0, SIZE)
    pairs = gather(
        [
            Pair(
                f"image {index}",
                scene.image.astype(np.float32),
                (scene.kinds == 1).astype(np.int32),
            )
            for index, scene in enumerate(scenes)
        ],
        annotation="dense",
    )
    task = demo.Task("cells", pairs[:8], pairs[8:])
    config = replace(QUICK, steps=60, learning_rate=0.03)
    (result,) = finish(run_demo([task], tmp_path, config))
    assert result.dice > result.untuned


# --- a folder of one's own --------------------------------------------------------


def test_a_folder_of_pairs_is_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_pairs(tmp_path / "my data", 4)
    task = folder_task(data)
    assert task.name == "my data"
    assert [pair.name for pair in task.training] == ["cell 0", "cell 1", "cell 2"]
    assert [pair.name for pair in task.testing] == ["cell 3"]
    monkeypatch.setattr(demo, "TRAINING", 1)
    monkeypatch.setattr(demo, "TESTING", 2)
    task = folder_task(data)
    assert [pair.name for pair in task.training] == ["cell 0"]
    assert [pair.name for pair in task.testing] == ["cell 1", "cell 2"]


def test_the_folder_at_hand_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_pairs(tmp_path / "data", 2))
    assert folder_task(Path()).name == "data"


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="two folders, images and masks"):
            folder_task(folder)
    with pytest.raises(InputError, match="holds one pair"):
        folder_task(write_pairs(tmp_path / "one", 1))
    data = write_pairs(tmp_path / "bad", 3)
    (data / "images" / "cell 1.tif").write_bytes(b"")
    with pytest.raises(InputError, match=r"cell 1\.tif"):
        folder_task(data)


# --- scores and pictures ----------------------------------------------------------


class Everything:
    """Finds an object everywhere."""

    identity = "everything"
    classes = default_classes(2)

    def predict(self, image: FloatArray) -> Prediction:
        ones = np.ones(image.shape[1:], np.float32)
        return Prediction(np.stack([0 * ones, ones]), self.classes)


def test_unlabelled_pixels_do_not_count() -> None:
    annotation = np.zeros((10, 10), np.int32)
    annotation[:5] = 1
    annotation[5:] = 9
    pair = Pair("a", np.zeros((1, 10, 10), np.float32), annotation)
    assert mean_dice(Everything(), gather([pair], annotation="dense", ignore=9)) == 1
    halves = Pair("b", pair.image, (annotation == 1).astype(np.int32))
    score = mean_dice(Everything(), gather([halves], annotation="dense"))
    assert score == pytest.approx(2 / 3)


@pytest.mark.parametrize("dark", [False, True])
def test_the_side_of_the_threshold_is_chosen_by_the_training_images(dark: bool) -> None:
    image = np.zeros((1, 20, 20), np.float32)
    image[:, 5:9, 5:9] = 1
    truth = image[0].astype(np.int32)
    pair = Pair("a", 1 - image if dark else image, truth)
    assert better_otsu(gather([pair], annotation="dense")) == Otsu(dark=dark)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_an_overlay_shows_both_outlines(channels: int) -> None:
    image = np.random.default_rng(0).random((channels, 30, 40)).astype(np.float32)
    truth, found = np.zeros((2, 30, 40), np.int32)
    truth[2:12, 2:12] = 1
    found[15:25, 15:25] = 3
    picture = overlay(image, truth, found)
    assert picture.shape == (30, 40, 3)
    assert picture.dtype == np.uint8
    yellow, blue = [255, 216, 25], [51, 153, 255]
    assert picture[2, 5].tolist() == yellow
    assert picture[15, 20].tolist() == blue
    assert picture[7, 7].tolist() not in (yellow, blue)


# --- the command ------------------------------------------------------------------


@pytest.fixture
def quick(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command tune for a second."""

    def config(**options: Any) -> PromptTuning:
        return replace(QUICK, **options)

    module = "napari_medseg.training.prompt_tuning.PromptTuning"
    monkeypatch.setattr(module, config)


def test_the_command(quick: None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = command("demo", "--out", out, "--seed", 3, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert {"dice", "untuned", "otsu", "seconds", "tasks"} == set(report)
    assert set(report["tasks"]) == set(TWO_KINDS)
    for name in ("dice", "untuned", "otsu"):
        each = [task[name] for task in report["tasks"].values()]
        assert report[name] == pytest.approx(np.mean(each), abs=1e-3)
    assert load(report["tasks"]["rod"]["model"]).model_file.card.config["seed"] == 3


def test_the_command_on_a_folder(quick: None, tmp_path: Path) -> None:
    data, out = write_pairs(tmp_path / "data", 3), tmp_path / "out"
    result = command("demo", "--data", data, "--out", out)
    assert result.exit_code == 0, result.output
    for word in ("Dice of", "tuned", "untuned", "Otsu", "data", str(out)):
        assert word in result.stdout.replace("\n", "")
    assert content(out) == ["data.medseg", "data_cell 2.png"]


def test_what_the_command_refuses(quick: None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    call = ["demo", "--out", out]
    assert_refused(command(*call, "--data", tmp_path / "nowhere"), "nowhere")
    assert_refused(command(*call, "--sam", "nan0"), "Did you mean 'nano'?")
    assert_refused(command(*call, "--device", "tpu"), "tpu")
    assert_refused(command(*call, "--seed", -1), "--seed")
    assert_refused(command(*call, "--seed", 10**20), "seed")
    assert list(out.rglob("*")) == []
    file = tmp_path / "file"
    file.write_text("mine")
    assert_refused(command("demo", "--out", file), str(file))
    assert file.read_text() == "mine"
