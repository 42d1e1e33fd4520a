"""What the engine does for the widgets: the same as the core, in plain values."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from napari_medseg._types import (
    InputError,
    JobError,
    Prediction,
    default_classes,
    finish,
)
from napari_medseg.engine import Engine
from napari_medseg.engine.jobs import JOBS, Context, Shelf
from napari_medseg.engine.prompting import cropped, look, look_around, prompt
from napari_medseg.engine.segmenting import forget, relabel, segment
from napari_medseg.engine.training import check, train
from napari_medseg.inference import load, open_segmenter
from napari_medseg.instances import ObjectConfig, labels_of
from napari_medseg.models import everything
from napari_medseg.models.everything_settings import EverythingConfig
from napari_medseg.models.framing import Box

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 64


def picture(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return an image with two bright squares, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((SIZE, SIZE), np.int32)
    labels[10:30, 8:28] = 1
    labels[36:56, 30:50] = 1
    image = 0.2 + 0.6 * labels + rng.normal(0, 0.05, labels.shape)
    return image[None].astype(np.float32), labels


def clicks(**changes: Any) -> dict[str, Any]:
    plain = {"key": "a", "points": [[20, 20]], "adds": [True], "box": None}
    return plain | {"mask": None} | changes


def looked(sam: str) -> Context:
    context = Context()
    arguments = {"key": "a", "image": picture()[0], "rgb": False}
    finish(look(arguments | {"sam": sam, "device": "cpu"}, context))
    return context


def test_every_job_is_there() -> None:
    from importlib import import_module

    for module, function in JOBS.values():
        assert callable(getattr(import_module(module), function))


def test_a_click_is_answered(sam: str) -> None:
    context = looked(sam)
    answer = finish(prompt(clicks(), context))
    top, left, bottom, right = answer["region"]
    assert 0 <= top < bottom <= SIZE and 0 <= left < right <= SIZE
    assert answer["masks"].shape == (3, bottom - top, right - left)
    boxed = finish(prompt(clicks(points=[], adds=[], box=[5, 5, 30, 30]), context))
    assert 1 <= len(boxed["masks"]) <= 3
    drawn = finish(prompt(clicks(mask=picture()[1] > 0), context))
    assert 1 <= len(drawn["masks"]) <= 3


def test_sam_looks_around_only_while_nobody_clicks(sam: str) -> None:
    context = looked(sam)
    around = look_around({"key": "a"}, context)
    next(around)
    assert context.rest == 0
    finish(prompt(clicks(), context))
    next(around)
    assert context.rest > 0


def test_sam_looks_around_no_image_that_is_forgotten(sam: str) -> None:
    context = looked(sam)
    around = look_around({"key": "a"}, context)
    next(around)
    finish(forget({"key": "a"}, context))
    assert list(around) == []
    assert list(look_around({"key": "a"}, context)) == []


def test_only_the_part_with_masks_is_sent() -> None:
    masks = np.zeros((2, 20, 30), bool)
    masks[0, 3:5, 7:9] = masks[1, 10, 20] = True
    part, found = cropped(Box(100, 200, 120, 230), masks)
    assert part == (103, 207, 111, 221)
    np.testing.assert_array_equal(found, masks[:, 3:11, 7:21])


def test_empty_masks_are_one_pixel() -> None:
    part, found = cropped(Box(5, 6, 25, 36), np.zeros((3, 20, 30), bool))
    assert part == (5, 6, 6, 7)
    assert found.shape == (3, 1, 1)
    assert not found.any()


def test_an_image_that_was_not_looked_at(sam: str) -> None:
    with pytest.raises(JobError, match="has not looked"):
        finish(prompt(clicks(key="b"), looked(sam)))
    context = looked(sam)
    finish(forget({"key": "a"}, context))
    with pytest.raises(JobError, match="has not looked"):
        finish(prompt(clicks(), context))


def request(model: str, **changes: Any) -> dict[str, Any]:
    plain = {"key": "a", "image": picture()[0], "model": model, "device": "cpu"}
    return plain | {"objects": None} | changes


def test_segmenting_gives_what_the_core_gives() -> None:
    context = Context()
    result = finish(segment(request("otsu"), context))
    prediction = open_segmenter("otsu", "cpu").predict(picture()[0])
    np.testing.assert_array_equal(result["labels"], prediction.labels)
    assert result["classes"][0]["name"] == "background"
    settings = {"min_size": 5, "split": "components"}
    relabelled = finish(relabel({"key": "a", "objects": settings}, context))
    objects = relabelled["labels"]
    assert relabelled["kinds"] == [1, 1]
    wanted = labels_of(prediction, ObjectConfig(**settings))
    np.testing.assert_array_equal(objects, wanted)
    assert objects.max() == 2


def test_others_have_their_turn_between_the_windows_of_a_model() -> None:
    image = np.tile(picture()[0], (1, 9, 9))
    job = segment(request("med2d-nuclei", image=image), Context())
    steps = 0
    while True:
        try:
            next(job)
        except StopIteration as ended:
            labels = ended.value["labels"]
            break
        steps += 1
    assert steps > 4
    wanted = open_segmenter("med2d-nuclei", "cpu").predict(image)
    np.testing.assert_array_equal(labels, wanted.labels)


def test_all_that_sam_finds_comes_step_by_step(
    sam: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = EverythingConfig(
        points_per_side=4, pred_iou=0, stability=0, max_share=1, batch=4
    )
    monkeypatch.setattr(everything, "usual_settings", lambda kind: settings)
    context, name = Context(), f"everything:{sam}"
    job = segment(request(name, objects={"min_size": 0}), context)
    # loading, segmenting, looking at the image, and each batch of points
    assert [bool(next(job).message) for _ in range(3 + 4)]
    result = finish(job)
    prediction = open_segmenter(name, "cpu").predict(picture()[0])
    wanted = labels_of(prediction, ObjectConfig(min_size=0))
    np.testing.assert_array_equal(result["labels"], wanted)
    union = finish(relabel({"key": "a", "objects": None}, context))
    np.testing.assert_array_equal(union["labels"], prediction.labels)


def test_objects_of_several_classes_know_theirs() -> None:
    context = Context()
    finish(segment(request("otsu"), context))
    labels = picture()[1]
    kinds = np.where(np.arange(SIZE)[:, None] < 33, labels, 2 * labels)
    probabilities = np.eye(3, dtype=np.float32)[kinds].transpose(2, 0, 1)
    context.shelf.put("prediction", "a", Prediction(probabilities, default_classes(3)))
    settings = {"min_size": 5}
    made = finish(relabel({"key": "a", "objects": settings}, context))
    assert made["labels"].max() == 2
    assert sorted(made["kinds"]) == [1, 2]
    assert made["kinds"][made["labels"][20, 20] - 1] == 1
    classes = finish(relabel({"key": "a", "objects": None}, context))
    np.testing.assert_array_equal(classes["labels"], kinds)


def test_probabilities_that_are_gone() -> None:
    with pytest.raises(JobError, match="segment again"):
        finish(relabel({"key": "a", "objects": None}, Context()))


def test_images_that_are_not_annotated_yet_are_one_line(tmp_path: Path) -> None:
    image, labels = picture()
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number in range(6):
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", image[0])
    tifffile.imwrite(tmp_path / "masks" / "3.tif", labels.astype(np.uint8))
    arguments = {name: str(tmp_path / name) for name in ("images", "masks")}
    rows = finish(check(arguments | {"annotation": "dense"}, Context()))
    assert [row["severity"] for row in rows] == ["warning", "good"]
    assert rows[0]["name"] == "5 images" and "no mask" in rows[0]["told"]
    for number in (0, 1):
        (tmp_path / "images" / f"{number}.tif").unlink()
    rows = finish(check(arguments | {"annotation": "dense"}, Context()))
    assert len(rows) == 4


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match="objects"):
        finish(segment(request("otsu", objects={"colour": 1}), Context()))


def training(folder: Path, sam: str, **changes: Any) -> dict[str, Any]:
    images = [picture(seed) for seed in range(4)]
    plain = {
        "method": "ptsam",
        "config": {"sam": sam, "steps": 3, "views": 1, "working_size": SIZE},
        "pairs": [
            {"name": f"im{i}", "image": image, "annotation": labels, "rgb": False}
            for i, (image, labels) in enumerate(images)
        ],
        "annotation": "dense",
        "watch": picture(9)[0],
        "out": str(folder / "cells.medseg"),
        "date": "2026-01-01",
        "checkpoints": None,
    }
    return plain | changes


def test_training_writes_the_model_and_says_how_it_went(
    tmp_path: Path, sam: str
) -> None:
    job = train(training(tmp_path, sam), Context())
    reports = []
    while True:
        try:
            reports.append(next(job))
        except StopIteration as ended:
            result = ended.value
            break
    assert any(item.preview is not None for item in reports)
    assert any("held_out_dice" in item.metrics for item in reports)
    assert load(result["model"], "cpu", sam).classes
    assert result["report"]["parameters"] == 2048
    assert result["history"]
    assert result["config"]["steps"] == 3


def test_training_ends_early_with_a_model(tmp_path: Path, sam: str) -> None:
    context = Context(end_early=True)
    result = finish(train(training(tmp_path, sam), context))
    assert (tmp_path / "cells.medseg").exists()
    assert result["report"]["steps"] == 0


def test_the_shelf_drops_what_was_not_used_for_longest() -> None:
    shelf = Shelf({"image": 2})
    shelf.put("image", "a", 1)
    shelf.put("image", "b", 2)
    assert shelf.get("image", "a") == 1
    shelf.put("image", "c", 3)
    assert shelf.get("image", "b") is None
    assert shelf.get("image", "a") == 1
    assert shelf.made("image", "a", lambda: 4) == 1
    assert shelf.made("image", "d", lambda: 4) == 4
    shelf.drop("image", "d")
    shelf.drop("image", "d")
    assert shelf.get("image", "d") is None


def test_the_shelf_drops_what_takes_too_much_room() -> None:
    shelf = Shelf({"prediction": 10}, room=100)
    for number in range(4):
        shelf.put("prediction", str(number), number, 40)
    assert [shelf.get("prediction", str(number)) for number in range(4)] == [
        None,
        None,
        2,
        3,
    ]
    shelf.put("prediction", "large", 5, 1000)
    assert shelf.get("prediction", "3") is None
    assert shelf.get("prediction", "large") == 5
    shelf.put("prediction", "large", 6, 10)
    shelf.put("prediction", "small", 7, 90)
    assert shelf.get("prediction", "large") == 6


class Ending:
    """A listener that keeps the end alone."""

    def __init__(self) -> None:
        self.result: Any = None
        self.error: Exception | None = None
        self.over = threading.Event()

    def on_progress(self, progress: Any) -> None:
        pass

    def on_done(self, result: Any) -> None:
        self.result = result
        self.over.set()

    def on_failed(self, error: Exception) -> None:
        self.error = error
        self.over.set()

    def on_cancelled(self) -> None:
        self.over.set()


def test_the_real_engine_tunes_and_applies(tmp_path: Path, sam: str) -> None:
    """What comes back from the other process equals what the core computes here."""
    engine = Engine()

    def run(name: str, arguments: dict[str, Any]) -> Any:
        ending = Ending()
        engine.submit(name, arguments, ending)
        assert ending.over.wait(240), "the job did not end"
        assert ending.error is None, ending.error
        return ending.result

    try:
        run(
            "look",
            {"key": "a", "image": picture()[0], "rgb": False}
            | {"sam": sam, "device": "cpu"},
        )
        answer = run("prompt", clicks())
        assert answer["masks"].dtype == bool
        model = run("train", training(tmp_path, sam))["model"]
        labels = run("segment", request(model))["labels"]
    finally:
        engine.close()
    wanted = load(model, "cpu").predict(picture()[0]).labels
    np.testing.assert_array_equal(labels, wanted)
    here = finish(prompt(clicks(), looked(sam)))
    np.testing.assert_array_equal(answer["masks"], here["masks"])
