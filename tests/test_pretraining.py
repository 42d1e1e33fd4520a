"""Pretraining: images without labels in, an encoder out that trainings begin with."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch
from folders import assert_refused, command, write_pairs
from safetensors.numpy import save_file

from napari_medseg import api
from napari_medseg._types import InputError, ModelFileError, finish
from napari_medseg.io import encoder_file, model_file
from napari_medseg.io.encoder_file import EncoderCard, EncoderFile
from napari_medseg.io.pairs import read_pairs
from napari_medseg.models.backbone import load_backbone
from napari_medseg.models.med2d import Med2dSegNet
from napari_medseg.training.conduct import Conduct
from napari_medseg.training.network_training import Med2dTraining
from napari_medseg.training.pretrained import encoder_state, read_pretrained
from napari_medseg.training.pretraining import pretrain
from napari_medseg.training.pretraining_settings import Pretraining

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_medseg.training.pretraining import PretrainingResult

QUICK = Pretraining(
    steps=3, batch=4, window=32, superpixel=8, points=32, workers=1, device="cpu"
)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the network small; `test_networks` has it in full."""

    def build(kind: type[Med2dSegNet], channels: int, classes: int) -> Med2dSegNet:
        return kind(channels, classes, (6, 8, 10), blocks=1)

    monkeypatch.setattr(Med2dSegNet, "build", classmethod(build))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "data")


def learn(data: Path, config: Pretraining = QUICK, **conduct: Any) -> PretrainingResult:
    job = pretrain(data / "images", "med2d", config, Conduct(**conduct))
    return finish(job)


def stop_after(count: int) -> Callable[[], bool]:
    asked = iter([False] * count)
    return lambda: next(asked, True)


def test_an_encoder_is_learned_and_the_same_again(data: Path, tmp_path: Path) -> None:
    first, second = learn(data), learn(data)
    paths = [
        encoder_file.save(tmp_path / f"{index}.safetensors", each.file)
        for index, each in enumerate((first, second))
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    fresh = encoder_state(Med2dSegNet.build(1, 2))
    assert first.file.tensors.keys() == fresh.keys()
    assert first.images == 4 and first.steps == 3 and first.stride == 4
    assert {"loss", "instance", "intra", "inter"} <= first.figures.keys()
    assert all(np.isfinite(value) for value in first.figures.values())
    card = encoder_file.load(paths[0]).card
    assert card == first.file.card and card.kind == "med2d" and card.channels == 1


def test_it_learns_to_tell_windows_and_superpixels_apart(data: Path) -> None:
    config = replace(QUICK, steps=25, learning_rate=3e-3)
    losses = [
        progress.metrics
        for progress in pretrain(data / "images", "med2d", config)
        if progress.message == "pretraining"
    ]
    for name in ("instance", "intra"):
        values = [each[name] for each in losses]
        assert np.mean(values[-6:]) < np.mean(values[:4]), name


def test_a_run_that_was_cut_off_goes_on(data: Path, tmp_path: Path) -> None:
    whole = learn(data)
    job = pretrain(data / "images", "med2d", QUICK, Conduct(checkpoints=tmp_path / "c"))
    for progress in job:
        if progress.message == "pretraining" and progress.step == 2:
            break
    job.close()
    resumed = learn(data, checkpoints=tmp_path / "c")
    for name, values in whole.file.tensors.items():
        np.testing.assert_array_equal(resumed.file.tensors[name], values)


def test_a_run_that_was_ended_is_replayed(data: Path) -> None:
    ended = learn(data, stop=stop_after(2))
    assert ended.steps == ended.config.stop_at == 2
    again = learn(data, ended.config)
    assert again.file.digest == ended.file.digest


def test_slices_and_problems(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stacks"
    folder.mkdir()
    stack = np.random.default_rng(0).integers(0, 255, (5, 40, 50)).astype(np.uint8)
    tifffile.imwrite(folder / "stack.tif", stack, metadata={"axes": "ZYX"})
    (folder / "broken.tif").write_bytes(b"II*\0 no more")
    config = replace(QUICK, steps=1, slices=0.1, reduction=2)
    result = finish(pretrain(folder, "med2d", config))
    assert result.images == 5
    assert any("broken.tif" in warning for warning in result.warnings)
    assert any("few to pretrain on" in warning for warning in result.warnings)


def test_what_cannot_be_used_is_refused(data: Path, tmp_path: Path) -> None:
    def refused(match: str, folder: Path = data / "images", **changes: Any) -> None:
        method = changes.pop("method", "med2d")
        with pytest.raises(InputError, match=match):
            finish(pretrain(folder, method, replace(QUICK, **changes)))

    refused("no encoder to pretrain named 'unet'.*nano", method="unet")
    refused("must be a multiple of 8", window=52)
    refused("stride is 3; this encoder has 2, 4, 8", stride=3)
    refused("does not exist", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    refused("no image to learn from", tmp_path / "empty")
    colours = np.zeros((30, 30, 3), np.uint8)
    tifffile.imwrite(data / "images" / "z.tif", colours, photometric="rgb")
    refused(r"z\.tif has 3 channels \(red, green, blue\), and .* 1 channel\.")
    with pytest.raises(InputError, match="batch is 1; it must be at least 2"):
        replace(QUICK, batch=1)


# --- networks that begin with it


@pytest.fixture
def weights(data: Path, tmp_path: Path) -> Path:
    return encoder_file.save(tmp_path / "cells.safetensors", learn(data).file)


def train(data: Path, weights: Path | str, **changes: Any) -> Any:
    pairs = read_pairs(data / "images", data / "masks")
    settings: dict[str, Any] = {"steps": 1, "window": 64, "batch": 2, "validate": 0}
    config = Med2dTraining(
        device="cpu", pretrained=str(weights), **{**settings, **changes}
    )
    return finish(api.train_job(pairs, config))


def test_a_training_begins_where_the_encoder_ended(data: Path, weights: Path) -> None:
    learned = encoder_file.load(weights)
    # a step that is infinitely small, so that the beginning is what is left
    trained = train(data, weights, learning_rate=1e-12, seed=9).model_file
    for name, values in learned.tensors.items():
        if "running" not in name and "num_batches" not in name:
            np.testing.assert_allclose(trained.tensors[name], values, atol=1e-6)
    assert trained.card.config["pretrained"] == "cells.safetensors"
    assert trained.card.provenance["pretrained"] == {
        "title": learned.card.title,
        "digest": learned.digest,
    }
    fresh = train(data, "", learning_rate=1e-12, seed=9).model_file
    assert "pretrained" not in fresh.card.provenance
    head = "head.weight"
    np.testing.assert_allclose(fresh.tensors[head], trained.tensors[head], atol=1e-6)


def test_a_training_looks_as_coarsely_as_the_pretraining_did(
    data: Path, tmp_path: Path
) -> None:
    file = learn(data, replace(QUICK, steps=1, reduction=2)).file
    weights = encoder_file.save(tmp_path / "coarse.safetensors", file)

    def scale(**changes: Any) -> float:
        framing = train(data, weights, **changes).model_file.card.framing
        return framing["size"] / framing["tile"]

    assert scale() == 0.5
    assert scale(reduction=1) == 1.0


def test_the_statistics_of_normalisation_come_along(weights: Path) -> None:
    network = Med2dSegNet.build(1, 2)
    start = read_pretrained(str(weights), "med2d")
    start.fill(network, 1)
    for name, item in encoder_state(network).items():
        np.testing.assert_array_equal(item.numpy(), start.file.tensors[name])


def test_weights_that_do_not_fit_are_refused(
    data: Path, weights: Path, tmp_path: Path
) -> None:
    learned = encoder_file.load(weights)

    def saved(name: str, **changes: Any) -> Path:
        tensors = changes.pop("tensors", learned.tensors)
        card = replace(learned.card, **changes)
        return encoder_file.save(tmp_path / name, EncoderFile(card, tensors))

    with pytest.raises(InputError, match="with 3 channels, and these have 1"):
        train(data, saved("rgb.safetensors", channels=3))
    with pytest.raises(InputError, match="Give it with --sam"):
        train(data, saved("sam.safetensors", kind="nano"))
    with pytest.raises(InputError, match="an encoder of unet, and this trains med2d"):
        train(data, saved("unet.safetensors", kind="unet"))
    with pytest.raises(InputError, match="not those of this network"):
        train(data, saved("few.safetensors", tensors={"a": np.zeros(2, np.float32)}))


def test_files_of_others_are_refused(data: Path, weights: Path, tmp_path: Path) -> None:
    tuned = model_file.save(tmp_path / "a.medseg", train(data, "").model_file)
    plain = tmp_path / "plain.safetensors"
    save_file({"x": np.ones(3)}, plain)
    whole = weights.read_bytes()
    cut, changed = tmp_path / "cut.safetensors", tmp_path / "changed.safetensors"
    cut.write_bytes(whole[:-40])
    changed.write_bytes(whole[:-40] + bytes(40))
    text = tmp_path / "text.safetensors"
    text.write_text("not tensors at all", encoding="utf-8")
    for path, told in (
        (tuned, "is a tuned model, not a file of pretrained weights"),
        (plain, "a safetensors file of something else"),
        (cut, "damaged or cut off"),
        (changed, "changed after it was saved"),
        (text, "is not a file of pretrained weights"),
        (tmp_path / "none.safetensors", "does not exist"),
    ):
        with pytest.raises(ModelFileError, match=told):
            encoder_file.load(path)
    with pytest.raises(ModelFileError, match="has no card"):
        model_file.load(weights)
    with pytest.raises(ModelFileError, match="'title' of the card"):
        encoder_file.save(plain, EncoderFile(EncoderCard("med2d", "", 1), {}))


# --- SAM


def test_nano_becomes_a_sam_of_its_own(data: Path, tmp_path: Path) -> None:
    config = replace(QUICK, steps=2, batch=2)
    result = finish(pretrain(data / "images", "nano", config))
    path = encoder_file.save(tmp_path / "own.safetensors", result.file)
    before, after = load_backbone("nano"), load_backbone(str(path))
    assert after.kind == "nano" and after.digest != before.digest
    changed = {
        name.split(".")[0]
        for name, item in before.sam.state_dict().items()
        if not torch.equal(item, after.sam.state_dict()[name])
    }
    assert changed == {"image_encoder"}, "prompts and decoder stay as they are"
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        old, new = (each.sam.image_encoder(images) for each in (before, after))
    assert (new - old).square().mean() < 0.05 * old.square().mean()
    assert 0 <= result.figures["drift"] < 0.05
    assert result.file.card.licence == before.licence


# --- the command


def test_the_command_pretrains_trains_and_replays(data: Path, tmp_path: Path) -> None:
    quick = (
        *("--steps", "2", "--batch", "2", "--window", "32", "--device", "cpu"),
        *("--superpixel", "8", "--workers", "1"),
    )
    out = tmp_path / "own.safetensors"
    first = ("pretrain", "--images", data / "images", "--method", "med2d", "--out", out)
    told = command(*first, *quick, "--json")
    assert json.loads(told.stdout)["steps"] == 2
    assert_refused(command(*first, *quick), "exists")
    again = tmp_path / "again.safetensors"
    run_file = out.with_suffix(".run.yaml")
    result = command("pretrain", "--config", run_file, "--out", again)
    assert "train --method med2d --pretrained" in result.stdout
    assert again.read_bytes() == out.read_bytes()
    pairs = ("--images", data / "images", "--masks", data / "masks")
    model = tmp_path / "model.medseg"
    command(
        *("train", *pairs, "--method", "med2d", "--pretrained", out, "--out", model),
        *("--steps", "1", "--window", "64", "--batch", "2", "--device", "cpu"),
    )
    assert model_file.load(model).card.provenance["pretrained"]["digest"]
    replayed = tmp_path / "replayed.medseg"
    command("train", "--config", model.with_suffix(".run.yaml"), "--out", replayed)
    assert replayed.read_bytes() == model.read_bytes()


def test_the_command_refuses_with_a_sentence(data: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "own.safetensors")
    images = ("--images", data / "images")
    assert_refused(command("pretrain", *out), "--images is missing")
    assert_refused(
        command("pretrain", *images, "--out", tmp_path / "a.pth"), "must end"
    )
    assert_refused(command("pretrain", *images, *out, "--method", "vit_b"), "vit_b")
    other = tmp_path / "other.yaml"
    other.write_text("masks: here\n", encoding="utf-8")
    assert_refused(command("pretrain", "--config", other, *out), "is not the run file")
