"""Tuning: any number of images, the same file every time, and an honest report."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from napari_medseg._config import from_dict, to_dict
from napari_medseg._types import InputError, WeightsError, finish
from napari_medseg.io import model_file
from napari_medseg.io.pairs import Pair, Pairs, gather, read_pairs
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.goals import ClassGoal
from napari_medseg.training.kept import Kept
from napari_medseg.training.prompt_tuning import PromptTuning
from napari_medseg.training.report import Trained, TrainingReport, warnings_of
from napari_medseg.training.scoring import Score, Summary, score_image
from napari_medseg.training.supervised import LossConfig, Supervised
from napari_medseg.training.suspects import Suspect
from napari_medseg.training.tuning import model_file_of, study_of, tune
from napari_medseg.training.views import Example

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_medseg.training.study import AnyStudy

SIZE = 64


def pair(number: int, classes: int = 2) -> Pair:
    """Return a noisy image with one disc a class."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    labels = np.zeros((SIZE, SIZE), np.int32)
    for index in range(1, classes):
        y, x = rng.integers(12, SIZE - 12, 2)
        labels[(rows - y) ** 2 + (columns - x) ** 2 < 120] = index
    image = 0.4 * labels + rng.normal(0.2, 0.05, labels.shape)
    return Pair(f"im{number}", image.astype(np.float32)[None], labels)


def pairs(count: int, classes: int = 2) -> Pairs:
    return gather([pair(number, classes) for number in range(count)])


def config(sam: str, **changes: Any) -> PromptTuning:
    few = {"working_size": SIZE, "steps": 4, "views": 1, "device": "cpu"}
    return PromptTuning(sam=sam, **{**few, **changes})


def train(
    data: Pairs, sam: str | PromptTuning, *, options: Any = None, **changes: Any
) -> Trained:
    settings = config(sam, **changes) if isinstance(sam, str) else sam
    return finish(tune(data, settings, Conduct(**(options or {}))))


def stop_after(count: int) -> Callable[[], bool]:
    asked = iter([False] * count)
    return lambda: next(asked, True)


def saved(trained: Trained, path: Path) -> bytes:
    return model_file.save(path, trained.model_file).read_bytes()


def same(first: Trained, second: Trained, folder: Path) -> bool:
    return saved(first, folder / "1.medseg") == saved(second, folder / "2.medseg")


@pytest.mark.parametrize(
    ("count", "held_out"), [(1, None), (2, 2), (3, 3), (15, 3), (16, 4), (17, 4)]
)
def test_any_number_of_images(
    count: int, held_out: int | None, sam: str, tmp_path: Path
) -> None:
    trained = train(pairs(count), sam, batch=5)
    report = trained.report
    assert report.parameters == 2048
    assert report.images == count
    assert len(saved(trained, tmp_path / "model.medseg")) < 20_000
    shapes = {name: item.shape for name, item in trained.model_file.tensors.items()}
    assert shapes == {"decoder_prompts": (1, 8, 256), "embedding_statistics": (2, 256)}
    scores = trained.model_file.card.scores
    if held_out is None:
        assert report.held_out is report.untuned is None
        assert scores["held_out"] is scores["untuned"] is None
    else:
        assert report.held_out is not None and report.untuned is not None
        assert report.held_out.images == report.untuned.images == held_out
        assert scores["held_out"]["images"] == held_out
        assert 0 <= report.held_out.dice <= 1
        assert report.history[0]["step"] == 0
    assert json.loads(json.dumps(report.to_dict()))["parameters"] == 2048


@pytest.mark.parametrize(
    ("looked_at", "asked", "views"),
    [
        (600, None, 3),
        (16, None, 3),
        (12, None, 2),
        (7, None, 0),
        (3, None, 0),
        (7, 2, 2),
    ],
)
def test_no_more_views_are_embedded_than_are_looked_at(
    looked_at: int,
    asked: int | None,
    views: int,
    sam: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But as many as were asked for."""
    monkeypatch.setattr("napari_medseg.training.study.LOOKED_AT", looked_at)
    settings = config(sam, views=asked, validate=0)
    study = study_of(ClassGoal(pairs(4)), settings)
    finish(study.prepare())
    assert [len(kept) for kept in study.views] == [views] * 4
    assert [len(kept) for kept in study.windows] == [1] * 4


@pytest.mark.parametrize("views", [None, 1])
def test_a_run_of_few_minutes_is_replayed(
    views: int | None, sam: str, tmp_path: Path
) -> None:
    """It did fewer steps than it was begun for, and the replay knows of those alone."""
    first = train(pairs(8), sam, steps=30, views=views, minutes=1e-9)
    assert first.report.steps < 30
    assert same(train(pairs(8), first.config), first, tmp_path)


def test_embeddings_that_are_kept_on_the_disk_train_alike(
    sam: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(pairs(8), sam)
    monkeypatch.setenv("NAPARI_MEDSEG_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(Kept.__init__, "__defaults__", (3 * 256 * 8 * 8 * 2, None))
    assert same(train(pairs(8), sam), plain, tmp_path)
    assert (tmp_path / "weights").is_dir()
    assert not list((tmp_path / "weights").glob("*/*.bin"))


def test_the_score_is_that_of_the_model_in_the_file(sam: str) -> None:
    """Segmented anew, whole image by whole image, from the file's own numbers."""
    data = pairs(8)
    trained = train(data, sam, validate=3, learning_rate=0.05)
    study = study_of(ClassGoal(data), trained.config)
    finish(study.prepare())
    (split,) = study.splits
    model = study.model(split.training)
    with torch.no_grad():
        numbers = trained.model_file.tensors["decoder_prompts"]
        model.get_parameter("prompts").copy_(torch.from_numpy(numbers))
    scores = study.score(model, split.held_out)
    assert trained.report.held_out == Summary.of(scores)
    assert len({score.dice for score in scores}) > 1


def test_tuning_twice_in_one_process_is_alike(sam: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = train(pairs(8), sam)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    second = train(pairs(8), sam)
    assert same(first, second, tmp_path)
    assert replace(first.report, seconds=0) == replace(second.report, seconds=0)
    other = train(pairs(8), sam, seed=1)
    assert not same(first, other, tmp_path)


@pytest.mark.parametrize(
    ("count", "calls"),
    [(1, 2), (3, 0), (3, 6), (3, 16), (8, 1), (8, 3), (3, 99)],
)
def test_run_that_was_stopped_is_replayed(
    count: int, calls: int, sam: str, tmp_path: Path
) -> None:
    """Folds stopped in any part, from what a run file holds of the config."""
    settings = {"steps": 5, "learning_rate": 0.05}
    stopped = train(pairs(count), sam, **settings, options={"stop": stop_after(calls)})
    text = json.dumps(to_dict(stopped.config))
    again = train(pairs(count), from_dict(PromptTuning, json.loads(text), "run.yaml"))
    assert same(stopped, again, tmp_path)
    assert again.config == stopped.config
    said = any("stopped early" in item for item in stopped.report.warnings)
    assert said or calls > 15  # there the last part may need no step


def test_run_that_ran_out_of_time_is_replayed(
    sam: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(10**6))
    with monkeypatch.context() as patch:
        patch.setattr("time.monotonic", lambda: float(next(clock)))
        short = train(pairs(3), sam, steps=50, minutes=0.5, learning_rate=0.05)
    *folds, _ = short.config.stop_at
    assert len(folds) == 3
    assert all(0 < steps < 50 for steps in folds)
    assert short.config.minutes is None
    assert same(short, train(pairs(3), short.config), tmp_path)


def test_no_minutes_gives_a_model_nevertheless(sam: str) -> None:
    trained = train(pairs(8), sam, minutes=0.0)
    assert trained.report.steps == 0
    assert trained.model_file.tensors["decoder_prompts"].shape == (1, 8, 256)


@pytest.mark.parametrize(
    ("count", "reports"), [(3, 3), (3, 8), (3, 16), (3, 20), (8, 12)]
)
def test_cancelled_run_is_resumed(
    count: int, reports: int, sam: str, tmp_path: Path
) -> None:
    expected = train(pairs(count), sam, learning_rate=0.05)
    folder = tmp_path / "checkpoints"
    settings = config(sam, learning_rate=0.05)
    job = tune(pairs(count), settings, Conduct(checkpoints=folder))
    messages = [report.message for report, _ in zip(job, range(reports), strict=False)]
    job.close()
    assert folder.exists() == ("training" in messages)
    resumed = train(pairs(count), settings, options={"checkpoints": folder})
    assert same(expected, resumed, tmp_path)
    assert replace(expected.report, seconds=0) == replace(resumed.report, seconds=0)
    finished = train(pairs(count), settings, options={"checkpoints": folder})
    assert same(expected, finished, tmp_path)
    assert finished.report.held_out == expected.report.held_out


@pytest.mark.parametrize(("count", "reports"), [(3, 9), (8, 12)])
def test_run_that_doubts_its_labels_is_resumed_and_replayed(
    count: int, reports: int, sam: str, tmp_path: Path
) -> None:
    """What was thought of the labels when it ended is taken up again."""
    settings = config(sam, learning_rate=0.05, label_noise="spatial")
    expected = train(pairs(count), settings)
    folder = tmp_path / "checkpoints"
    job = tune(pairs(count), settings, Conduct(checkpoints=folder))
    for _ in range(reports):
        next(job)
    job.close()
    (path,) = list(folder.iterdir())[:1]
    assert any(name.startswith("objective.") for name in load_file(path))
    resumed = train(pairs(count), settings, options={"checkpoints": folder})
    assert same(expected, resumed, tmp_path)
    assert replace(expected.report, seconds=0) == replace(resumed.report, seconds=0)
    for first, second in zip(expected.suspects, resumed.suspects, strict=True):
        np.testing.assert_array_equal(first.probability, second.probability)
    text = json.dumps(to_dict(expected.config))
    again = train(pairs(count), from_dict(PromptTuning, json.loads(text), "run.yaml"))
    assert same(expected, again, tmp_path)
    assert not same(expected, train(pairs(count), sam, learning_rate=0.05), tmp_path)


def test_every_image_says_which_labels_it_doubts(sam: str) -> None:
    """Held-out ones too; what is not annotated is not doubted."""
    data = [pair(number) for number in range(8)]
    for item in data:
        item.annotation[:20] = 255
    trained = train(
        gather(data, annotation="dense", ignore=255), sam, label_noise="spatial"
    )
    assert [item.name for item in trained.suspects] == [item.name for item in data]
    for item in trained.suspects:
        assert item.probability.shape == (SIZE, SIZE)
        assert item.probability.dtype == np.float32
        assert not item.probability[:20].any()
        assert 0 < item.probability[20:].min()
        assert item.probability.max() < 1
        doubted = item.probability[20:] > 0.5
        assert item.share == pytest.approx(float(doubted.mean()))
    shares = trained.report.suspects
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert set(shares) == {item.name for item in data}
    assert train(gather(data, ignore=255), sam).suspects == ()


def test_labels_are_doubted_where_embeddings_change_at_each_step(sam: str) -> None:
    """With prompts in the encoder, views are made anew for each step."""
    trained = train(pairs(2), sam, encoder_prompts=1, label_noise="spatial", validate=0)
    assert all(item.probability.std() > 0 for item in trained.suspects)


def test_the_report_names_the_most_suspect_images() -> None:
    blank = np.zeros((2, 2), np.float32)
    suspects = [
        Suspect("fine", blank, 0.0),
        Suspect("bad", blank, 0.0314),
        Suspect("worse", blank, 0.2),
    ]
    report = TrainingReport(1, 1.0, 1, 1, None, None, 3).with_suspects(suspects)
    (sentence,) = report.warnings
    assert "2 of 3 images" in sentence
    assert "worse (20.0%), bad (3.1%)." in sentence
    assert "fine" not in sentence
    assert list(report.to_dict()["suspects"]) == ["worse", "bad", "fine"]
    assert TrainingReport(1, 1.0, 1, 1, None, None, 3).with_suspects([]).warnings == ()


def test_checkpoints_of_other_images_or_settings_are_not_resumed(
    sam: str, tmp_path: Path
) -> None:
    options = {"checkpoints": tmp_path / "checkpoints"}
    train(pairs(8), sam, options=options)
    others = gather([pair(number) for number in range(50, 58)])
    resumed = train(others, sam, options=options)
    assert same(resumed, train(others, sam), tmp_path)
    faster = train(others, sam, learning_rate=0.05, options=options)
    assert same(faster, train(others, sam, learning_rate=0.05), tmp_path)


def test_three_classes(sam: str) -> None:
    data = pairs(8, classes=4)
    trained = train(data, sam)
    assert trained.report.parameters == 3 * 2048
    assert trained.model_file.tensors["decoder_prompts"].shape == (3, 8, 256)
    assert [item.name for item in trained.model_file.card.classes] == [
        "background",
        "class 1",
        "class 2",
        "class 3",
    ]


def scribbled(number: int) -> Pair:
    """Return a pair of which only some rows are annotated: 1 background, 2 object."""
    whole = pair(number)
    labels = whole.annotation + 1
    labels[1::3] = 0
    return replace(whole, annotation=labels)


def test_sparse_annotations_leave_out_what_is_unlabelled(sam: str) -> None:
    data = gather([scribbled(number) for number in range(8)], annotation="sparse")
    assert (data.targets(0)[1::3] == -1).all()
    trained = train(data, sam)
    assert trained.report.parameters == 2048
    assert trained.model_file.card.provenance["annotation"] == "sparse"
    assert trained.model_file.card.provenance["class_values"] == [1, 2]
    assert np.isfinite(trained.model_file.tensors["decoder_prompts"]).all()


def test_what_is_not_annotated_does_not_count_in_the_score() -> None:
    target = np.array([[0, 1, -1], [1, -1, 0]], np.int32)
    example = Example("a", np.zeros((3, 2, 3), np.float32), target)
    right = np.array([[0, 1, 1], [1, 0, 0]], np.int32)
    assert score_image(example, right) == Score("a", 1.0, 1.0, False)
    blank = score_image(example, np.zeros((2, 3), np.int32))
    assert blank == Score("a", 0.0, 0.0, True)
    nothing = replace(example, target=np.full((2, 3), -1, np.int32))
    assert score_image(nothing, right) == Score("a", 1.0, 1.0, False)


def test_encoder_prompts(sam: str) -> None:
    """Both sets of prompts are trained, and nothing else of SAM changes."""
    settings = {"encoder_prompts": 2, "steps": 2, "batch": 2, "validate": 1}
    study = study_of(ClassGoal(pairs(3)), config(sam, **settings))
    state = study.learner.backbone.sam.state_dict()
    before = {name: item.clone() for name, item in state.items()}
    finish(study.prepare())
    (split,) = study.splits
    finish(study.train(split.training, split))
    assert all(torch.equal(item, before[name]) for name, item in state.items())
    report = study.report()
    tensors = model_file_of(study, report).tensors
    assert tensors["decoder_prompts"].shape == (1, 8, 256)
    assert tensors["encoder_prompts"].shape == (4, 2, 256)
    assert report.parameters == 2048 + 4 * 2 * 256
    assert report.untuned is not None
    again = train(pairs(3), sam, **settings).model_file.tensors
    assert all(np.array_equal(tensors[name], again[name]) for name in again)


def test_a_study_learns_by_the_objective_that_it_is_given(sam: str) -> None:
    """Asked once a part, with the images of the part; its loss is what is trained."""
    asked: list[tuple[int, ...]] = []

    def objective(study: AnyStudy, training: Sequence[int]) -> Supervised:
        asked.append(tuple(training))
        return Supervised(LossConfig(0.0, 0.0))

    settings = config(sam, steps=2, learning_rate=0.1)
    study = study_of(ClassGoal(pairs(3)), settings, objective=objective)
    finish(study.run())
    assert asked == [*(split.training for split in study.splits), (0, 1, 2)]
    fresh = study.model((0, 1, 2)).get_parameter("prompts")
    assert torch.equal(study.trained.get_parameter("prompts"), fresh)


def test_card_holds_no_local_path(sam: str) -> None:
    trained = train(pairs(2), sam, steps=1, options={"date": "2025-01-01"})
    card = trained.model_file.card
    text = json.dumps({**asdict(card)}, default=str)
    assert "at home" not in text and str(np.__file__) not in text
    assert card.base["name"] == card.config["sam"] == "random.safetensors"
    assert card.config["device"] == "auto"
    assert card.provenance["date"] == "2025-01-01"
    assert card.provenance["data"] == pairs(2).digest
    assert trained.config.sam == sam


def test_progress_is_named_and_numbered(sam: str) -> None:
    reports = list(tune(pairs(8), config(sam)))
    assert reports[0].message == "loading SAM"
    names = [item.message for item in reports if item.message.startswith("embedding")]
    assert names == [f"embedding im{number}" for number in range(8)]
    training = [item for item in reports if item.message == "training"]
    assert [item.step for item in training] == [1, 2, 3, 4]
    assert {item.total for item in training} == {4}
    assert "held_out_dice" in training[-1].metrics
    assert all(isinstance(item, float) for item in training[-1].metrics.values())


def test_input_that_cannot_be_used(sam: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 of 3 images"):
        train(pairs(3), sam, validate=3)
    with pytest.raises(WeightsError, match=r"nowhere\.pth"):
        train(pairs(3), str(tmp_path / "nowhere.pth"))


def test_single_image_is_warned_of(sam: str) -> None:
    (warning,) = train(pairs(1), sam).report.warnings
    assert "no held-out score" in warning and "at least two" in warning


def test_no_held_out_image_is_warned_of(sam: str) -> None:
    (warning,) = train(pairs(8), sam, validate=0).report.warnings
    assert "no image was held out" in warning


def test_no_better_than_untuned_is_said_to_be_so(sam: str) -> None:
    # the decoder of random weights, and prompts that stay noise
    settings = {"learning_rate": 0.0, "comparison": "none"}
    warnings = train(pairs(8), sam, **settings).report.warnings
    assert any("no better than SAM untuned" in item for item in warnings)


def test_class_that_is_not_trained_on_is_named(sam: str) -> None:
    first, second = pair(0, classes=3), pair(1, classes=3)
    only_1 = replace(first, annotation=np.minimum(first.annotation, 1))
    only_2 = replace(second, annotation=2 * (second.annotation > 0).astype(np.int32))
    data = gather([only_1, only_2], annotation="dense")
    warnings = train(data, sam, validate=1).report.warnings
    assert sum("that was trained on shows class" in item for item in warnings) == 1
    assert not any("shows class" in item for item in train(data, sam).report.warnings)


def report(dice: float, untuned: float, images: int = 16) -> TrainingReport:
    held_out, bare = (
        Summary(value, value, 0.1, images // 4) for value in (dice, untuned)
    )
    return TrainingReport(2048, 1.0, 10, 10, held_out, bare, images)


def test_warnings_say_what_is_wrong() -> None:
    good = [Score(str(number), 0.9, 0.8, False) for number in range(4)]
    assert warnings_of(report(0.9, 0.3), good, [], False) == []
    (text,) = warnings_of(report(0.9, 0.9), good, [], False)
    assert "Dice 0.90" in text and "no better" in text
    bad = [*good[:2], Score("x.tif", 0, 0, True), Score("y.tif", 0, 0, True)]
    (text,) = warnings_of(report(0.9, 0.3), bad, [], False)
    assert "2 of 4" in text and "x.tif, y.tif" in text
    (text,) = warnings_of(report(0.9, 0.3), good, [0, 2], False)[:1]
    assert "background" in text
    (text,) = warnings_of(report(0.9, 0.3), good, [], True)
    assert "stopped early" in text
    (text,) = warnings_of(report(0.9, 0.3, images=5), good, [], False)
    assert "1 of 5" in text


def test_summary_of_scores() -> None:
    scores = [Score(str(dice), dice, dice / 2, False) for dice in (0.2, 0.4, 0.9)]
    summary = Summary.of(scores)
    assert summary is not None
    assert summary.dice == pytest.approx(0.5)
    assert summary.iou == pytest.approx(0.25)
    assert summary.dice_sd == pytest.approx(np.std([0.2, 0.4, 0.9], ddof=1))
    assert Summary.of(scores[:1]) == Summary(0.2, 0.1, 0.0, 1)
    assert Summary.of([]) is None


@pytest.mark.slow
def test_tuning_beats_the_untuned_sam_on_real_images(
    shared_data: Path, tmp_path: Path
) -> None:
    """Eight crops of fluorescent nuclei, with the weights that come along."""
    source = shared_data / "dsb2018_nuclei"
    for path in sorted((source / "images").glob("fluo_*"))[:320:40]:
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
            shutil.copy(source / folder / path.name, tmp_path / folder)
    whole = read_pairs(tmp_path / "images", tmp_path / "masks", annotation="instances")
    crops = gather(
        [
            replace(
                pair,
                image=pair.image[:, :256, :256],
                annotation=pair.annotation[:256, :256],
            )
            for pair in whole
        ],
        annotation="instances",
    )
    settings = PromptTuning(working_size=256, steps=60, views=2, device="cpu")
    report = train(crops, settings).report
    assert report.held_out is not None and report.untuned is not None
    assert report.held_out.images == report.untuned.images == 2
    assert report.held_out.dice > report.untuned.dice + 0.05
    assert report.held_out.dice > 0.6
    assert not any("no better" in warning for warning in report.warnings)


def test_a_watched_image_with_too_few_channels_fails_no_training(sam: str) -> None:
    grey = pairs(4)
    stains = [
        Pair(each.name, np.repeat(each.image, 2, axis=0), each.annotation)
        for each in grey.pairs
    ]
    job = tune(
        gather(stains, annotation="dense"),
        config(sam, steps=2),
        Conduct(watch=grey.pairs[0].image),
    )
    reports = list(job)
    assert not any(item.preview is not None for item in reports)
    assert "too few channels" in reports[-1].message


def test_a_watched_image_is_previewed_as_the_training_goes_on(sam: str) -> None:
    image = pair(9).image
    settings = config(sam, steps=4)
    reports = list(tune(pairs(4), settings, Conduct(watch=image)))
    previews = [item.preview for item in reports if item.preview is not None]
    assert len(previews) >= 4
    for preview in previews:
        assert preview.shape == image.shape[1:]
        assert preview.dtype == np.int32
    plain = finish(tune(pairs(4), settings))
    watched = finish(tune(pairs(4), settings, Conduct(watch=image)))
    for name, tensor in plain.model_file.tensors.items():
        np.testing.assert_array_equal(tensor, watched.model_file.tensors[name])
