"""Many points on one image get the answers of segment-anything, in whatever order."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from networks import random_nano

from napari_medseg.models.point_decoder import PointDecoder

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

POINTS = torch.tensor([[3.0, 4.0], [50.0, 20.5], [32.0, 63.0], [0.0, 0.0]])

NONE = -1e9
"""No mask is worse than this."""


@cache
def sam() -> Sam:
    return random_nano(0, 64)


def embedding(height: int = 8, width: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(256, height, width, generator=generator)


def answers_of_segment_anything(
    maps: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        sparse, dense = sam().prompt_encoder(
            points=(POINTS[:, None], torch.ones(len(POINTS), 1)), boxes=None, masks=None
        )
        masks, scores = sam().mask_decoder.predict_masks(
            maps[None], sam().prompt_encoder.get_dense_pe(), sparse, dense
        )
    return masks[:, 1:].flatten(0, 1), scores[:, 1:].flatten()


def test_answers_are_those_of_segment_anything() -> None:
    maps = embedding()
    found = PointDecoder(sam(), maps, 64, torch.float32).ask(POINTS, NONE)
    masks, scores = answers_of_segment_anything(maps)
    assert found.logits.shape == (12, 32, 32)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.logits, masks, rtol=1e-3, atol=1e-3)


def test_bfloat16_changes_little() -> None:
    maps = embedding()
    found = PointDecoder(sam(), maps, 64, torch.bfloat16).ask(POINTS, NONE)
    masks, scores = answers_of_segment_anything(maps)
    assert ((found.logits > 0) == (masks > 0)).float().mean() > 0.97
    np.testing.assert_allclose(found.scores, scores, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_batch_makes_no_difference(batch: int) -> None:
    decoder = PointDecoder(sam(), embedding(), 64, torch.float32)
    whole = decoder.ask(POINTS, NONE)
    parts = [decoder.ask(points, NONE) for points in POINTS.split(batch)]
    logits = torch.cat([part.logits for part in parts])
    np.testing.assert_allclose(logits, whole.logits, rtol=1e-4, atol=1e-4)


def test_masks_that_are_not_good_enough_are_left_out() -> None:
    decoder = PointDecoder(sam(), embedding(), 64, torch.float32)
    every = decoder.ask(POINTS, NONE)
    worst = float(every.scores.median())
    some = decoder.ask(POINTS, worst)
    chosen = every.scores > worst
    assert 0 < chosen.sum() < len(chosen)
    np.testing.assert_allclose(some.scores, every.scores[chosen])
    np.testing.assert_allclose(some.logits, every.logits[chosen], atol=1e-4)
    none = decoder.ask(POINTS, 1e9)
    assert none.logits.shape == (0, 32, 32)
    assert none.scores.shape == (0,)
