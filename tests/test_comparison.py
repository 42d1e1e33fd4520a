"""Prompts that are also compared with the embedding: evidence, tuning, model file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from test_tuning import config, pairs, train

from napari_medseg._types import ModelFileError, finish
from napari_medseg.inference import Segmenter
from napari_medseg.io import model_file
from napari_medseg.models.comparison import TEMPERATURE, Comparison
from napari_medseg.models.prompts import PromptedDecoder
from napari_medseg.models.sam import build_sam
from napari_medseg.training.goals import ClassGoal
from napari_medseg.training.tuning import model_file_of, study_of

if TYPE_CHECKING:
    from pathlib import Path

WIDTH = 5


def embedding(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3.0 + 2.0 * torch.randn(*shape, generator=generator)


def slow_evidence(
    pixel: np.ndarray, prompts: np.ndarray, mean: np.ndarray, deviation: np.ndarray
) -> float:
    """The equation of the module's docstring, for one pixel and one class."""
    z = (pixel - mean) / deviation
    if len(prompts) == 1:
        prompts = np.stack([prompts[0], np.zeros_like(z)])
    share = np.exp(-((z - prompts) ** 2).sum(1) / TEMPERATURE)
    half = -(-len(prompts) // 2)
    return float(np.log(share[:half].sum()) - np.log(share[half:].sum()))


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_evidence_is_that_of_the_nearer_prompts(count: int) -> None:
    comparison = Comparison(WIDTH)
    comparison.fit([embedding(WIDTH, 4, 6), embedding(WIDTH, 3, 2, seed=1)])
    prompts = 0.5 * torch.randn(2, count, WIDTH)
    pixels = embedding(3, WIDTH, 4, 6, seed=2)
    found = comparison(pixels, prompts)[:, 0]
    assert found.shape == (3, 2, 4, 6)
    for image, group, row, column in np.ndindex(*found.shape):
        expected = slow_evidence(
            pixels[image, :, row, column].numpy(),
            prompts[group].numpy(),
            comparison.mean.numpy(),
            comparison.deviation.numpy(),
        )
        assert float(found[image, group, row, column]) == pytest.approx(
            expected, abs=1e-4
        )


def test_statistics_are_those_of_all_pixels() -> None:
    windows = [embedding(WIDTH, 4, 6), embedding(WIDTH, 3, 2, seed=1)]
    comparison = Comparison(WIDTH)
    comparison.fit(iter([item.half() for item in windows]))
    pixels = np.concatenate([item.flatten(1).numpy() for item in windows], axis=1)
    np.testing.assert_allclose(comparison.mean, pixels.mean(1), atol=2e-3)
    np.testing.assert_allclose(comparison.deviation, pixels.std(1), atol=2e-3)


def test_a_channel_that_says_nothing_does_no_harm() -> None:
    comparison = Comparison(WIDTH)
    comparison.fit([torch.ones(WIDTH, 2, 2)])
    found = comparison(torch.ones(1, WIDTH, 2, 2), torch.randn(1, 8, WIDTH))
    assert found.isfinite().all()


def test_evidence_is_not_rounded_under_autocast() -> None:
    comparison = Comparison(WIDTH)
    prompts, pixels = torch.randn(1, 8, WIDTH), embedding(1, WIDTH, 4, 4)
    expected = comparison(pixels, prompts)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(comparison(pixels, prompts), expected)


def test_it_is_added_to_what_the_decoder_says() -> None:
    sam = build_sam("nano")
    width = sam.mask_decoder.transformer_dim
    comparison = Comparison(width)
    plain = PromptedDecoder(sam, classes=2)
    both = PromptedDecoder(sam, classes=2, comparison=comparison)
    both.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        # the first class's prompts speak for what is high in the first channel
        for decoder in (plain, both):
            decoder.prompts.zero_()
            decoder.prompts[0, :4, 0] = 2.0
        pixels = torch.zeros(1, width, 4, 4)
        pixels[0, 0, :2] = 2.0
        added = both(pixels) - plain(pixels)
    # z - p and z differ by 4 in their squares in the upper half and in the lower
    assert added.shape == (1, 3, 16, 16)
    assert torch.allclose(added[0, 1, :6], torch.tensor(4 / TEMPERATURE), atol=1e-4)
    assert torch.allclose(added[0, 1, 10:], torch.tensor(-4 / TEMPERATURE), atol=1e-4)
    assert not added[0, 0].any() and not added[0, 2].any()


def test_prompts_learn_through_it() -> None:
    comparison = Comparison(WIDTH)
    prompts = torch.zeros(1, 8, WIDTH, requires_grad=True)
    comparison(embedding(1, WIDTH, 4, 4), prompts).sum().backward()
    assert prompts.grad is not None and prompts.grad.abs().sum(2).all()


def test_as_published_nothing_is_compared(sam: str) -> None:
    trained = train(pairs(2), sam, comparison="none")
    assert set(trained.model_file.tensors) == {"decoder_prompts"}


def test_statistics_are_not_measured_on_held_out_images(sam: str) -> None:
    settings = config(sam, steps=2, validate=3)
    study = study_of(ClassGoal(pairs(8)), settings)
    finish(study.run())
    (split,) = study.splits
    expected = Comparison(256)
    seen = [study.windows[index] for index in split.training]
    expected.fit(view.inputs for views in seen for view in views)
    assert torch.equal(study.trained.get_buffer("comparison.mean"), expected.mean)


@pytest.mark.parametrize(
    ("extra", "comparison"), [(0, "fine"), (0, "embedding"), (2, "embedding")]
)
def test_a_model_file_compares_as_the_training_did(
    extra: int, comparison: str, sam: str, tmp_path: Path
) -> None:
    changes = {"encoder_prompts": extra, "comparison": comparison}
    settings = config(sam, validate=0, learning_rate=0.05, **changes)
    study = study_of(ClassGoal(pairs(3)), settings)
    finish(study.run())
    made = model_file_of(study, study.report())
    path = model_file.save(tmp_path / "a.medseg", made)
    again = Segmenter(model_file.load(path), "cpu", sam).predict(pairs(3)[0].image)
    expected = study.predict(study.trained, 0)
    np.testing.assert_allclose(again.probabilities, expected, atol=5e-3)
    tensors = {"decoder_prompts": made.tensors["decoder_prompts"]}
    if extra:
        tensors["encoder_prompts"] = made.tensors["encoder_prompts"]
    bare = Segmenter(replace(made, tensors=tensors), "cpu", sam)
    plain = bare.predict(pairs(3)[0].image).probabilities
    assert np.abs(plain - expected).max() > 0.05


@pytest.mark.parametrize("comparison", ["embedding", "none"])
def test_what_is_gone_on_from_is_compared_as_it_was(
    comparison: str, sam: str, tmp_path: Path
) -> None:
    first = train(pairs(2), sam, validate=0, comparison=comparison).model_file
    path = model_file.save(tmp_path / "first.medseg", first)
    compared = comparison == "embedding"
    other = "none" if compared else "embedding"
    settings = {"validate": 0, "start_from": str(path), "comparison": other}
    again = train(pairs(4), sam, **settings).model_file
    name = "embedding_statistics"
    assert (name in again.tensors) is compared
    if compared:
        assert np.array_equal(again.tensors[name], first.tensors[name])


@pytest.mark.parametrize("wrong", ["shape", "zero", "nan", "mean"])
def test_damaged_statistics_are_refused(wrong: str, sam: str) -> None:
    trained = train(pairs(2), sam, steps=1).model_file
    values = np.array(trained.tensors["embedding_statistics"])
    if wrong == "shape":
        values = values[:, :7]
    else:
        row = 0 if wrong == "mean" else 1
        values[row, 3] = 0.0 if wrong == "zero" else np.nan
    tensors = {**trained.tensors, "embedding_statistics": values}
    with pytest.raises(ModelFileError, match="embedding_statistics do not fit"):
        Segmenter(model_file.ModelFile(trained.card, tensors), base=sam)
