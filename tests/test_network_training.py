"""Networks trained whole: any images, the same file every time, an honest report."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch
from folders import command

from napari_medseg import api
from napari_medseg._config import from_dict, to_dict
from napari_medseg._types import InputError, ModelFileError, default_classes, finish
from napari_medseg.inference import Segmenter, open_segmenter
from napari_medseg.instances import ObjectConfig, labels_of
from napari_medseg.io import model_file
from napari_medseg.io.normalise import Normalisation
from napari_medseg.io.pairs import Pair, Pairs, gather
from napari_medseg.models.framing import Framing
from napari_medseg.models.med2d import Med2dSegNet
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.goals import ClassGoal
from napari_medseg.training.network_training import (
    Med2dObjects,
    Med2dTraining,
    NetworkTraining,
)
from napari_medseg.training.scoring import Summary
from napari_medseg.training.whole import study_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_medseg.training.report import Trained

SIZE = 64

WIDTHS = (8, 12, 16)
"""Of the network in these tests: the same one, with less of everything."""

QUICK = Med2dTraining(steps=2, window=SIZE, batch=2, device="cpu")


IN_FULL = Med2dSegNet.build.__func__
"""Builds the network as users have it."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the network small; `test_networks` has it in full."""

    def build(kind: type[Med2dSegNet], channels: int, classes: int) -> Med2dSegNet:
        return kind(channels, classes, WIDTHS, blocks=1)

    monkeypatch.setattr(Med2dSegNet, "build", classmethod(build))


def pair(number: int, classes: int = 2, channels: int = 1) -> Pair:
    """Return a noisy image with one disc a class, seen in the last channel."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:SIZE, : SIZE + 10]
    labels = np.zeros(rows.shape, np.int32)
    for index in range(1, classes):
        y, x = rng.integers(12, SIZE - 12, 2)
        labels[(rows - y) ** 2 + (columns - x) ** 2 < 120] = index
    image = rng.normal(0.2, 0.05, (channels, *labels.shape))
    image[-1] += 0.4 * labels
    return Pair(f"im{number}", image.astype(np.float32), labels)


def pairs(count: int, **options: int) -> Pairs:
    return gather([pair(number, **options) for number in range(count)])


def train(data: Pairs, config: NetworkTraining = QUICK, **conduct: Any) -> Trained:
    return finish(api.train_job(data, config, Conduct(**conduct)))


def stop_after(count: int) -> Callable[[], bool]:
    asked = iter([False] * count)
    return lambda: next(asked, True)


def digest(trained: Trained) -> str:
    return model_file.digest(trained.model_file)


@pytest.mark.parametrize(("count", "held_out"), [(1, 0), (2, 2), (3, 3), (16, 4)])
def test_any_number_of_images(count: int, held_out: int) -> None:
    trained = train(pairs(count), replace(QUICK, steps=1))
    report = trained.report
    assert report.parameters == sum(
        item.size
        for name, item in trained.model_file.tensors.items()
        if name.endswith(("weight", "bias"))
    )
    assert report.untuned is None, "a network from scratch has no untuned self"
    if held_out:
        assert report.held_out is not None and report.otsu is not None
        assert report.held_out.images == report.otsu.images == held_out
    else:
        assert report.held_out is report.otsu is None
    said = json.loads(json.dumps(report.to_dict()))
    assert said["untuned"] is said["untuned_scores"] is None


@pytest.mark.parametrize("channels", [2, 5])
def test_all_channels_are_seen(channels: int, tmp_path: Path) -> None:
    """The network learns from the last channel, which a SAM might not see."""
    config = replace(QUICK, steps=60, augmentation="turns", validate=2)
    trained = train(pairs(6, channels=channels), config)
    normalisation = trained.model_file.card.normalisation
    assert normalisation["channels"] == list(range(channels))
    path = model_file.save(tmp_path / "model.medseg", trained.model_file)
    segmenter = open_segmenter(str(path), "cpu")
    fresh = pair(77, channels=channels)
    found = segmenter.predict(fresh.image).labels
    both = np.logical_and(found, fresh.annotation).sum()
    assert 2 * both / (found.sum() + fresh.annotation.sum()) > 0.6
    with pytest.raises(InputError, match="has 1 channel"):
        segmenter.predict(fresh.image[:1])


def test_colours_are_scaled_alike() -> None:
    coloured = [replace(item, rgb=True) for item in pairs(2, channels=3)]
    study = study_of(ClassGoal(gather(coloured)), QUICK)
    assert study.normalisation.joint
    assert study.normalisation.channels == (0, 1, 2)


def test_classes_and_scribbles() -> None:
    whole = [pair(number, classes=4) for number in range(4)]
    drawn = [replace(item, annotation=item.annotation + 1) for item in whole]
    for item in drawn:
        item.annotation[1::3] = 0
    data = gather(drawn, annotation="sparse")
    trained = train(data, replace(QUICK, validate=1))
    card = trained.model_file.card
    assert len(card.classes) == 4
    assert trained.report.otsu is None, "a threshold knows two classes"
    prediction = Segmenter(trained.model_file, "cpu").predict(whole[0].image)
    assert prediction.probabilities.shape == (4, SIZE, SIZE + 10)
    np.testing.assert_allclose(prediction.probabilities.sum(axis=0), 1.0, atol=1e-5)


def test_touching_objects(tmp_path: Path) -> None:
    data = gather([pair(number) for number in range(3)], annotation="instances")
    config = Med2dObjects(steps=2, window=SIZE, batch=2, device="cpu", validate=1)
    trained = train(data, config)
    assert trained.model_file.card.kind == "med2d-objects"
    assert trained.report.held_out is not None
    assert trained.report.held_out.pq is not None
    prediction = Segmenter(trained.model_file, "cpu").predict(data[0].image)
    assert prediction.interior is not None
    assert labels_of(prediction, ObjectConfig()).shape == (SIZE, SIZE + 10)


def test_the_score_is_that_of_the_model_in_the_file(tmp_path: Path) -> None:
    """Measured anew by the inference that users have, from the file."""
    data = pairs(8)
    trained = train(data, replace(QUICK, steps=12, validate=3))
    path = model_file.save(tmp_path / "model.medseg", trained.model_file)
    study = study_of(ClassGoal(data), QUICK)
    segmenter = open_segmenter(str(path), "cpu")
    (split,) = study_of(ClassGoal(data), replace(QUICK, validate=3)).splits
    scores = [
        study.goal.score(
            index,
            study.examples[index],
            segmenter.predict(data[index].image).probabilities,
        )
        for index in split.held_out
    ]
    assert trained.report.held_out == Summary.of(scores)


@pytest.mark.parametrize(("count", "calls"), [(1, 1), (2, 3), (8, 1), (8, 99)])
def test_a_run_is_replayed(count: int, calls: int) -> None:
    """Stopped in some part or not, from what a run file holds of the config."""
    torch.manual_seed(5)
    state = torch.get_rng_state()
    stopped = train(pairs(count), stop=stop_after(calls))
    assert torch.equal(torch.get_rng_state(), state)
    text = json.dumps(to_dict(stopped.config))
    torch.manual_seed(6)
    again = train(pairs(count), from_dict(Med2dTraining, json.loads(text), "run.yaml"))
    assert digest(again) == digest(stopped)
    other = train(pairs(count), replace(stopped.config, seed=1))
    assert digest(other) != digest(stopped)


@pytest.mark.parametrize("reports", [3, 5])
def test_a_killed_run_is_resumed(reports: int, tmp_path: Path) -> None:
    expected = train(pairs(8), replace(QUICK, steps=4))
    folder = tmp_path / "checkpoints"
    conduct = Conduct(checkpoints=folder)
    job = api.train_job(pairs(8), replace(QUICK, steps=4), conduct)
    for _, _ in zip(job, range(reports), strict=False):
        pass
    job.close()
    assert list(folder.iterdir())
    resumed = train(pairs(8), replace(QUICK, steps=4), checkpoints=folder)
    assert digest(resumed) == digest(expected)
    other = train(pairs(8), replace(QUICK, steps=4, window=80), checkpoints=folder)
    assert digest(other) != digest(expected)


def test_the_image_in_view_is_previewed() -> None:
    job = api.train_job(pairs(2), QUICK, Conduct(watch=pair(9).image))
    seen = [item.preview for item in job if item.preview is not None]
    assert len(seen) >= 2
    assert all(labels.shape == (SIZE, SIZE + 10) for labels in seen)


def test_statistics_are_not_learned_from_held_out_images() -> None:
    """Measuring a model leaves it as it is, and in training mode."""
    study = study_of(ClassGoal(pairs(2)), QUICK)
    model = study.model((0, 1))
    before = {name: item.clone() for name, item in model.state_dict().items()}
    study.score(model, [0, 1])
    assert all(part.training for part in model.modules())
    after = model.state_dict()
    assert all(torch.equal(item, after[name]) for name, item in before.items())


def test_a_threshold_that_does_as_well_is_named() -> None:
    report = train(pairs(8), replace(QUICK, learning_rate=0.0)).report
    assert report.otsu is not None and report.otsu.dice > 0.9
    assert any("no better than Otsu's threshold" in item for item in report.warnings)
    assert not any("SAM" in item for item in report.warnings)


def test_windows_have_the_resolution_of_the_images() -> None:
    study = study_of(ClassGoal(pairs(2)), QUICK)
    assert study.view_config.framing.scale == 1.0
    coarser = study_of(ClassGoal(pairs(2)), replace(QUICK, reduction=2))
    assert coarser.view_config.framing.scale == 0.5
    with pytest.raises(InputError, match="multiple of 16"):
        study_of(ClassGoal(pairs(2)), replace(QUICK, window=SIZE + 4))


def test_no_window_is_larger_than_the_images() -> None:
    study = study_of(ClassGoal(pairs(2)), replace(QUICK, window=1024))
    framing = study.view_config.framing
    assert framing.size == 96  # for images 74 pixels across
    assert framing.scale == 1.0


def test_large_objects_are_seen_coarsely_unless_it_is_said_otherwise() -> None:
    mask = np.zeros((512, 512), np.int32)
    mask[100:400, 100:400] = 1
    image = np.zeros((1, 512, 512), np.float32)
    large = gather([Pair("one", image, mask)])
    framing = study_of(ClassGoal(large), QUICK).view_config.framing
    assert framing.scale == 1 / 4
    # 512 pixels are 128 then
    whole = replace(QUICK, window=256)
    assert study_of(ClassGoal(large), whole).view_config.framing.size == 128
    fine = study_of(ClassGoal(large), replace(QUICK, reduction=1)).view_config.framing
    assert fine.scale == 1.0


def test_a_damaged_model_file_is_refused() -> None:
    trained = train(pairs(1), replace(QUICK, steps=1))
    card, tensors = trained.model_file.card, dict(trained.model_file.tensors)
    del tensors["head.bias"]
    with pytest.raises(ModelFileError, match="do not fit its card"):
        Segmenter(model_file.ModelFile(card, tensors), "cpu")
    one_more = replace(card, classes=(*card.classes, card.classes[1]))
    with pytest.raises(ModelFileError, match="do not fit its card"):
        Segmenter(replace(trained.model_file, card=one_more), "cpu")


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("xnet", {"width": 4000}),
        ("xnet", {"width": None}),
        ("mamba", {"width": "a"}),
        ("unetr", {"hidden": 50}),
        ("deeplab", {"backbone": "tu-hf-hub:somebody/something"}),
    ],
)
def test_a_card_asks_for_no_more_than_the_method_allows(
    kind: str, settings: dict[str, object]
) -> None:
    card = model_file.ModelCard(
        kind=kind,
        title="A stranger's",
        classes=default_classes(2),
        normalisation=to_dict(Normalisation.of_all_channels(1)),
        config=settings,
        framing=to_dict(Framing(tile=64, size=64)),
    )
    with pytest.raises(ModelFileError, match="cannot be used: its card"):
        Segmenter(model_file.ModelFile(card, {"a": np.zeros(1, np.float32)}), "cpu")


def said(*words: str | Path) -> str:
    """Run a command and return what it says."""
    done = command(*words)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, replay from the run file to the byte, look at it, segment a folder."""
    monkeypatch.setattr(Med2dSegNet, "build", classmethod(IN_FULL))
    images, masks = tmp_path / "images", tmp_path / "masks"
    for folder in (images, masks):
        folder.mkdir()
    for item in pairs(4, channels=2):
        tifffile.imwrite(
            images / f"{item.name}.tif", item.image, metadata={"axes": "CYX"}
        )
        tifffile.imwrite(masks / f"{item.name}.tif", item.annotation)
    out = tmp_path / "model.medseg"
    settings = ("--steps", "2", "--window", "64", "--batch", "2", "--validate", "1")
    places = ("--images", images, "--masks", masks)
    told = said("train", "--method", "med2d", *places, "--out", out, *settings)
    assert "Otsu's threshold" in told and "untuned" not in told
    again = tmp_path / "again.medseg"
    replay = ("--config", out.with_suffix(".run.yaml"), "--out", again, "--json")
    assert json.loads(said("train", *replay))["untuned"] is None
    assert again.read_bytes() == out.read_bytes()
    assert "Med-2D SegNet" in said("models", "info", out)
    assert 8_000_000 < out.stat().st_size < 9_000_000
    shutil.rmtree(masks)
    labels = tmp_path / "labels"
    said("segment", images, "--model", out, "--out", labels)
    assert len(list(labels.glob("*.tif"))) == 4


def test_a_network_doubts_its_labels(tmp_path: Path) -> None:
    """Whole images at their own resolution; a replay gives the same file."""
    config = replace(QUICK, steps=4, label_noise="spatial")
    trained = train(pairs(3), config)
    assert [item.name for item in trained.suspects] == ["im0", "im1", "im2"]
    for item in trained.suspects:
        assert item.probability.shape == (SIZE, SIZE + 10)
        assert item.probability.std() > 0
    again = train(pairs(3), trained.config)
    files = [
        model_file.save(tmp_path / f"{number}.medseg", item.model_file)
        for number, item in enumerate((trained, again))
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert train(pairs(3)).suspects == ()
