"""Objects apart: what is learned of them, how they grow, and the whole way round."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_medseg._types import InputError, finish
from napari_medseg.inference import Segmenter
from napari_medseg.instances import ObjectConfig, find_objects, labels_of
from napari_medseg.io import model_file
from napari_medseg.io.pairs import Pair, Pairs, gather
from napari_medseg.models.prompts import PromptedDecoder, trained_count
from napari_medseg.models.sam import build_nano
from napari_medseg.training.goals import BORDER, INTERIOR, ObjectGoal, parts_of
from napari_medseg.training.prompt_tuning import ObjectTuning
from napari_medseg.training.tuning import tune_objects
from napari_medseg.training.views import Example

if TYPE_CHECKING:
    from pathlib import Path

    from napari_medseg._types import LabelArray

SIZE = 64


def touching() -> LabelArray:
    """Return two squares that share an edge, and a line of one pixel."""
    ids = np.zeros((SIZE, SIZE), np.int32)
    ids[10:40, 5:30] = 7
    ids[10:40, 30:55] = 3
    ids[50, 5:60] = 9
    return ids


def pair(number: int) -> Pair:
    rng = np.random.default_rng(number)
    ids = np.roll(touching(), int(rng.integers(6)), axis=1)
    image = (ids > 0) * 0.6 + 0.2 + rng.normal(0, 0.05, ids.shape)
    return Pair(f"im{number}", image[None].astype(np.float32), ids)


def pairs(count: int) -> Pairs:
    return gather([pair(number) for number in range(count)], annotation="instances")


def test_parts_of_objects() -> None:
    ids = touching()
    parts = parts_of(ids, 3.0)
    assert ((parts > 0) == (ids > 0)).all()
    assert (parts[10:40, 27:33] == BORDER).all(), "where they touch there is a border"
    assert (parts[18:32, 12:24] == INTERIOR).all()
    assert set(np.unique(parts[ids == 9])) <= {INTERIOR, BORDER}
    assert not parts_of(np.zeros((5, 5), np.int32), 2.0).any()


@pytest.mark.parametrize("thickness", [1, 2, 3, 7])
def test_thin_objects_have_an_interior(thickness: int) -> None:
    ids = np.zeros((SIZE, SIZE), np.int32)
    ids[20 : 20 + thickness, 5:60] = 1
    ids[40:60, 5:60] = 2  # a thick one changes nothing for it
    parts = parts_of(ids, 50.0)
    assert (parts[ids == 1] == INTERIOR).any()
    assert (parts[ids == 2] == BORDER).any()


def test_the_edge_of_the_image_is_no_border() -> None:
    ids = np.ones((SIZE, SIZE), np.int32)
    ids[:, 40:] = 0
    parts = parts_of(ids, 3.0)
    assert (parts[:, :30] == INTERIOR).all()


def test_objects_grow_from_their_interior() -> None:
    """What is one blob of foreground becomes the two objects that are there."""
    ids = touching()
    parts = parts_of(ids, 3.0)
    foreground = (ids > 0).astype(np.float32)
    interior = (parts == INTERIOR).astype(np.float32)
    found = find_objects(foreground, ObjectConfig(min_size=4), interior)
    assert ((found > 0) == (ids > 0)).all()
    for index in (7, 3, 9):
        inside = found[ids == index]
        counts = np.bincount(inside)
        assert counts.max() > 0.95 * inside.size
    assert len(np.unique(found)) == 4
    joined = find_objects(
        foreground, ObjectConfig(min_size=4, split="components"), interior
    )
    assert len(np.unique(joined)) == 3


def test_an_object_without_interior_is_kept() -> None:
    foreground = np.zeros((SIZE, SIZE), np.float32)
    foreground[5:8, 5:50] = 0.9
    found = find_objects(foreground, ObjectConfig(), np.zeros_like(foreground))
    assert found.max() == 1
    assert ((found > 0) == (foreground > 0.5)).all()


def test_score_of_objects() -> None:
    goal = ObjectGoal(pairs(1), 2.0)
    target = goal.target(0, 1.0)
    example = Example("a", np.zeros((3, SIZE, SIZE), np.float32), target)
    right = np.stack([target == part for part in range(3)]).astype(np.float32)
    score = goal.score(0, example, right)
    assert score.dice == 1.0
    assert score.pq is not None and score.pq > 0.9
    assert score.quality == score.pq
    # SAM without prompts says nothing of parts
    bare = goal.score(0, example, np.stack([right[0], 1 - right[0]]))
    assert bare.dice == 1.0
    nothing = goal.score(
        0, example, np.stack([np.ones_like(right[0]), *(0 * right[1:])])
    )
    assert nothing.pq == 0.0 and nothing.blank


def test_scribbles_and_classes_are_no_objects() -> None:
    data = pairs(1)
    scribbles = gather([pair(0)], annotation="sparse")
    with pytest.raises(InputError, match="drawn whole"):
        ObjectGoal(scribbles, 2.0)
    classes = gather([pair(0)], annotation="dense")
    with pytest.raises(InputError, match="several classes"):
        ObjectGoal(classes, 2.0)
    assert ObjectGoal(data, 2.0).classes == 3


def test_masks_without_ids_are_parted_where_they_do_not_touch() -> None:
    ids = (touching() > 0).astype(np.int32)
    data = gather([Pair("a", ids[None].astype(np.float32), ids)], annotation="dense")
    assert len(np.unique(ObjectGoal(data, 2.0).objects(0))) == 3


def test_three_prompt_sets_are_6144_numbers() -> None:
    decoder = PromptedDecoder(build_nano(SIZE), 2, background=True)
    assert trained_count(decoder) == 6_144
    with torch.no_grad():
        logits = decoder(torch.randn(1, 256, 4, 4))
    assert logits.shape == (1, 3, 16, 16)
    assert logits[:, 0].abs().max() > 0


def test_from_annotations_to_objects(sam: str, tmp_path: Path) -> None:
    settings = ObjectTuning(
        sam=sam, working_size=SIZE, steps=2, views=0, device="cpu", output=1
    )
    trained = finish(tune_objects(pairs(8), settings))
    card = trained.model_file.card
    assert card.kind == "ptsam-objects"
    assert [entry.name for entry in card.classes] == ["background", "object"]
    assert trained.report.parameters == 6_144
    assert trained.report.held_out is not None
    assert trained.report.held_out.pq is not None
    assert "pq" in card.scores["held_out"]
    path = model_file.save(tmp_path / "cells.medseg", trained.model_file)
    assert path.stat().st_size < 40_000
    segmenter = Segmenter(model_file.load(path), "cpu", sam)
    prediction = segmenter.predict(pair(3).image)
    assert prediction.probabilities.shape == (2, SIZE, SIZE)
    np.testing.assert_allclose(prediction.probabilities.sum(axis=0), 1.0, atol=1e-5)
    assert prediction.interior is not None
    assert (prediction.interior <= prediction.probabilities[1] + 1e-5).all()
    assert labels_of(prediction, ObjectConfig()).shape == (SIZE, SIZE)
    again = finish(tune_objects(pairs(8), trained.config))
    assert model_file.digest(again.model_file) == segmenter.identity
