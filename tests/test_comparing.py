"""Recipes are tried on images they have not seen, and the advice can be followed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from napari_medseg._types import InputError, finish
from napari_medseg.cli.app import app
from napari_medseg.comparing import trying
from napari_medseg.comparing.advice import Tried, advice, chosen
from napari_medseg.comparing.recipes import Recipe, recipes_for
from napari_medseg.comparing.settings import CompareConfig
from napari_medseg.comparing.trying import compare
from napari_medseg.inference import Segmenter, load, open_segmenter
from napari_medseg.io.pairs import Pair, Pairs, gather
from napari_medseg.models.med2d import Med2dSegNet

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 64


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the network small; `test_networks` has it in full."""

    def build(kind: type[Med2dSegNet], channels: int, classes: int) -> Med2dSegNet:
        return kind(channels, classes, (8, 12, 16), blocks=1)

    monkeypatch.setattr(Med2dSegNet, "build", classmethod(build))


def pair(number: int) -> Pair:
    """Return an image with two bright discs, which a threshold finds."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    labels = np.zeros((SIZE, SIZE), np.int32)
    for value, left in ((1, 16), (2, 46)):
        y = rng.integers(14, SIZE - 14)
        labels[(rows - y) ** 2 + (columns - left) ** 2 < 90] = value
    image = rng.normal(0.2, 0.03, labels.shape) + 0.5 * (labels > 0)
    return Pair(f"im{number}", image[None].astype(np.float32), labels)


def pairs(count: int, annotation: Any = "instances") -> Pairs:
    return gather([pair(number) for number in range(count)], annotation=annotation)


def tried(name: str, scores: list[float], parameters: int = 0) -> Tried:
    return Tried(Recipe(name, name), tuple(scores), parameters=parameters)


def test_what_fits_is_tried() -> None:
    numbered = [each.name for each in recipes_for(pairs(3), CompareConfig())]
    classes = [each.name for each in recipes_for(pairs(3, "dense"), CompareConfig())]
    assert {"otsu", "nuclei-fluo", "nano", "ptsam", "ptsam-objects"} <= set(numbered)
    # two classes are no business of thresholds and of models for one kind of object
    assert classes == ["ptsam", "med2d", "ptsam-encoder"]
    named = recipes_for(pairs(3, "dense"), CompareConfig(recipes=("xnet",)))
    assert [each.name for each in named] == ["xnet"]


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(InputError, match="otsu"):
        recipes_for(pairs(3), CompareConfig(recipes=("otzu",)))


def test_one_image_is_too_few() -> None:
    with pytest.raises(InputError, match="two annotated images"):
        finish(compare(pairs(1), CompareConfig()))


def test_each_image_is_measured_by_a_training_that_did_not_see_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trying, "train_job", spied := Spy(trying.train_job))
    config = CompareConfig(recipes=("otsu", "otsu_dark", "med2d"), minutes=0.2)
    found = finish(compare(pairs(3), config))
    assert len(spied.judged) == len(set(spied.judged)) == 3
    best, network, worst = (found.tried[index] for index in (0, 1, 2))
    assert best.recipe.name == "otsu"
    assert np.mean(best.dice) > 0.95
    assert np.mean(best.pq) > 0.9
    assert {network.recipe.name, worst.recipe.name} == {"med2d", "otsu_dark"}
    assert "Take Otsu threshold, bright objects" in found.advice


class Spy:
    """Notes which images were judged."""

    def __init__(self, job: Any) -> None:
        self.job = job
        self.judged: list[int] = []

    def __call__(self, pairs: Any, config: Any, conduct: Any) -> Any:
        from dataclasses import replace

        def judge(index: int, probabilities: Any) -> None:
            assert config.folds == 3
            self.judged.append(index)
            conduct.judge(index, probabilities)

        return self.job(
            pairs, replace(config, steps=2, window=SIZE), replace(conduct, judge=judge)
        )


def test_what_cannot_be_tried_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, device: str) -> Any:
        if name == "otsu":
            raise InputError("Not today.")
        return open_segmenter(name, device)

    monkeypatch.setattr(trying, "open_segmenter", refuse)
    found = finish(compare(pairs(2), CompareConfig(recipes=("otsu", "otsu_dark"))))
    assert [item.recipe.name for item in found.tried] == ["otsu_dark", "otsu"]
    assert found.tried[1].problem == "Not today."
    assert found.chosen.recipe.name == "otsu_dark"


def test_nothing_at_all_is_an_error() -> None:
    broken = Tried(Recipe("a", "A"), problem="It is Sunday.")
    with pytest.raises(InputError, match="It is Sunday"):
        chosen([broken])


def test_the_simplest_that_may_be_the_best_is_advised() -> None:
    network = tried("network", [0.9, 0.8, 0.85, 0.9], 1000)
    alike = tried("threshold", [0.91, 0.78, 0.86, 0.88])
    worse = tried("cheap", [0.5, 0.4, 0.45, 0.5])
    assert chosen([network, alike, worse]) is alike
    assert "cannot tell the two apart" in advice([network, alike, worse])
    # the same difference on every image is no chance
    shifted = tried("threshold", [0.89, 0.79, 0.84, 0.89])
    assert chosen([network, shifted]) is network
    assert "Next comes threshold" in advice([network, shifted])


def test_too_little_time_is_told() -> None:
    slow = Tried(Recipe("slow", "Slow"), (0.2, 0.3), parameters=9, share=0.1)
    quick = tried("quick", [0.8, 0.9])
    assert "Too little time for Slow" in advice([quick, slow])
    assert "Too little time" not in advice([quick])


def test_command_tells_and_keeps_the_models(tmp_path: Path) -> None:
    for number in range(2):
        item = pair(number)
        for folder, array in (("images", item.image[0]), ("masks", item.annotation)):
            (tmp_path / folder).mkdir(exist_ok=True)
            tifffile.imwrite(tmp_path / folder / f"{item.name}.tif", array)
    line = ["compare", "--images", str(tmp_path / "images")]
    line += ["--masks", str(tmp_path / "masks"), "--annotation", "instances"]
    line += ["--recipes", "otsu,med2d", "--minutes", "0.1", "--folds", "2"]
    result = CliRunner().invoke(app, [*line, "--out", str(tmp_path / "kept"), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["chosen"] == "otsu"
    assert [item["name"] for item in told["tried"]] == ["otsu", "med2d"]
    assert isinstance(load(told["models"]["med2d"]), Segmenter)
    again = CliRunner().invoke(app, [*line, "--out", str(tmp_path / "kept")])
    assert again.exit_code == 2
    assert "not an empty folder" in again.output
