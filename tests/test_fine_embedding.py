"""A fine embedding says what the encoder says, of places between its own pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from test_tuning import config, pairs, train
from torch.nn import functional

from napari_medseg.io import model_file
from napari_medseg.io.pairs import Pair, gather
from napari_medseg.models.backbone import load_backbone
from napari_medseg.models.fine_embedding import as_one_map, fine_embedding
from napari_medseg.models.prompts import PromptedDecoder, PromptedSam
from napari_medseg.training.fineness import how_compared
from napari_medseg.training.goals import ClassGoal
from napari_medseg.training.prompt_tuning import PromptTuning
from napari_medseg.training.tuning import study_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from napari_medseg.io.pairs import Pairs

STRIDE = 8


def encode(images: Tensor) -> Tensor:
    """Tell of each place the mean of its pixels."""
    return functional.avg_pool2d(images, STRIDE)


def ramps(height: int, width: int) -> Tensor:
    """Return images ``(2, 2, height, width)`` that say where each pixel is."""
    rows, columns = torch.meshgrid(
        torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij"
    )
    both = torch.stack([rows, columns])
    return torch.stack([both, 2 * both])


@pytest.mark.parametrize("fineness", [1, 2])
def test_looks_are_put_where_they_belong(fineness: int) -> None:
    images = ramps(64, 96)
    looks = fine_embedding(encode, images, fineness)
    assert looks.shape == (2, fineness**2 * 2, 8, 12)
    maps = as_one_map(looks.unflatten(1, (fineness**2, 2)), (32, 48))
    places = functional.avg_pool2d(images, 2)
    inner = (..., slice(4, -4), slice(4, -4))
    torch.testing.assert_close(maps[inner], places[inner])


def test_the_first_look_is_the_embedding() -> None:
    images = torch.rand(1, 3, 64, 64)
    looks = fine_embedding(encode, images)
    assert torch.equal(looks[:, :3], encode(images))


def test_it_sees_what_lies_between_pixels_of_the_embedding() -> None:
    lines = torch.zeros(1, 1, 64, 64)
    lines[..., 4:12] = 1.0  # half of the first place, and half of the second
    looks = fine_embedding(encode, lines).unflatten(1, (4, 1))
    fine = as_one_map(looks, (16, 16))[0, 0, 8]
    plain = as_one_map(looks[:, :1], (16, 16))[0, 0, 8]
    assert fine.max() > 0.9
    assert plain.max() < 0.6


def stripes(width: int, *, sparse: bool = False) -> Pairs:
    """Return an image with stripes of a width, as wide as the gaps between them."""
    rows = np.arange(512) // width % 2
    labels = np.repeat(rows[:, None], 512, axis=1).astype(np.int32)
    pair = Pair("stripes", labels[None].astype(np.float32), labels + sparse)
    return gather([pair], annotation="sparse" if sparse else "dense")


@pytest.mark.parametrize(
    ("width", "changes", "expected"),
    [
        (8, {}, "fine"),
        (48, {}, "embedding"),
        # seen at half the resolution, they are thin
        (48, {"working_size": 256}, "fine"),
        (8, {"encoder_prompts": 8}, "embedding"),
        (64, {"comparison": "fine"}, "fine"),
        (8, {"comparison": "none"}, "none"),
    ],
)
def test_thin_objects_are_compared_finely(
    width: int, changes: dict[str, Any], expected: str
) -> None:
    nano = load_backbone("nano")
    found = how_compared(PromptTuning(**changes), nano, stripes(width))
    assert found == expected


def test_a_slow_sam_looks_once_and_so_do_scribbles() -> None:
    nano = load_backbone("nano")
    slow = replace(nano, kind="vit_b")
    assert how_compared(PromptTuning(), slow, stripes(8)) == "embedding"
    scribbles = stripes(8, sparse=True)
    assert how_compared(PromptTuning(), nano, scribbles) == "embedding"


def test_the_decoder_sees_the_first_look_alone(sam: str) -> None:
    study = study_of(ClassGoal(pairs(1)), config(sam))
    backbone = study.learner.backbone
    decoder = PromptedDecoder(backbone.sam)
    looks = torch.randn(1, 4 * 256, 8, 8)
    with torch.no_grad():
        assert torch.equal(decoder(looks), decoder(looks[:, :256]))
    assert PromptedSam(backbone.sam.image_encoder, decoder).embed(
        torch.zeros(1, 3, 64, 64)
    ).shape == (1, 256, 8, 8)


@pytest.mark.parametrize("comparison", ["fine", "embedding"])
def test_a_card_says_how_prompts_are_compared(
    comparison: str, sam: str, tmp_path: Path
) -> None:
    first = train(pairs(2), sam, validate=0, comparison=comparison).model_file
    assert first.card.config["comparison"] == comparison
    # and whoever goes on from it goes on so
    path = model_file.save(tmp_path / "first.medseg", first)
    again = train(pairs(2), sam, validate=0, start_from=str(path)).model_file
    assert again.card.config["comparison"] == comparison


def test_fine_prompts_want_a_fine_embedding(sam: str) -> None:
    study = study_of(ClassGoal(pairs(2)), config(sam, comparison="fine"))
    window = torch.zeros(3, 64, 64)
    assert study.learner.prepare(window, study.device).shape == (1024, 8, 8)
    plain = study_of(ClassGoal(pairs(2)), config(sam, comparison="embedding"))
    assert plain.learner.prepare(window, plain.device).shape == (256, 8, 8)
