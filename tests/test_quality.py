"""Quality without labels: looks, reverse segmentation, single results, folders."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from scipy.stats import spearmanr

from napari_medseg._types import InputError, Prediction, default_classes, finish
from napari_medseg.io.pairs import Pair, gather
from napari_medseg.metrics import dice, hd95, iou
from napari_medseg.quality.accuracy import best_of, cell_scores, nearest
from napari_medseg.quality.degrading import WAYS, degrade
from napari_medseg.quality.estimating import estimate, prepare
from napari_medseg.quality.judging import EMPTY, merged
from napari_medseg.quality.looks import Looker
from napari_medseg.quality.references import (
    describe_references,
    fingerprint,
    reference_folders,
)
from napari_medseg.quality.reverse import Example, Ridge
from napari_medseg.quality.settings import QualitySettings
from napari_medseg.samples import make_two_kinds

SIZE = 96
SETTINGS = QualitySettings(device="cpu", compared=6, working_size=256)


def scenes(count, seed):
    """Return images of round cells among rods, with the cells drawn."""
    made = make_two_kinds(count, seed, SIZE)
    return [
        Pair(f"cell {index}", scene.image, (scene.kinds == 1).astype(np.int32))
        for index, scene in enumerate(made)
    ]


@pytest.fixture(scope="module")
def pairs():
    """Return annotated images."""
    return gather(scenes(12, 3), annotation="dense")


@pytest.fixture(scope="module")
def prepared(pairs):
    """Return what is prepared of them, fitted to masks made worse."""
    return finish(prepare(pairs, 2, SETTINGS))


class Drawn:
    """A segmenter that knows the truth of each image, and makes it worse."""

    def __init__(self, pairs, worse, classes=2):
        self.classes = default_classes(classes)
        self.identity = "drawn"
        self.truths = {
            fingerprint(pair.image): worse(pair.annotation, place)
            for place, pair in enumerate(pairs)
        }

    def predict(self, image):
        """Segment an image."""
        labels = self.truths[fingerprint(image)]
        planes = np.stack([labels == k for k in range(len(self.classes))])
        return Prediction(planes.astype(np.float32), self.classes)


def write(folder, pairs):
    """Write images as TIFFs; return the folder."""
    folder.mkdir()
    for pair in pairs:
        tifffile.imwrite(folder / f"{pair.name}.tif", pair.image[0])
    return folder


def test_maps_are_those_of_the_matrix(pairs):
    (look,) = Looker.for_pairs(pairs, SETTINGS).looks(pairs[0].image, 1)
    weights = np.random.default_rng(0).standard_normal((look.width, 2))
    matrix, maps = look.matrix(), look.project(weights.astype(np.float32))
    assert matrix.shape == (np.prod(look.grid), look.width)
    assert maps.reshape(2, -1).T == pytest.approx(matrix @ weights, abs=1e-3)
    assert look.against(maps) == pytest.approx(
        matrix.T @ maps.reshape(2, -1).T, rel=1e-3
    )
    assert look.moments == pytest.approx(matrix.T @ matrix)


def test_cells_lie_where_their_labels_do(pairs):
    (look,) = Looker.for_pairs(pairs, SETTINGS).looks(pairs[0].image, 1)
    rows, columns = np.indices((SIZE, SIZE), np.int32)
    assert look.grid == (64, 64)
    assert look.span == pytest.approx(SIZE / 64)
    middles = (np.arange(64) + 0.5) * look.span
    assert np.abs(look.cells(rows)[:, 0] + 0.5 - middles).max() <= 0.5
    assert np.abs(look.cells(columns)[0] + 0.5 - middles).max() <= 0.5


def test_a_wide_image_is_seen_in_windows_of_the_references_size(pairs):
    looker = Looker.for_pairs(pairs, SETTINGS)
    wide = np.concatenate([pair.image for pair in pairs[:3]], axis=2)
    looks = looker.looks(wide, 9)
    assert len(looks) == 4
    assert {look.box.shape for look in looks} == {(SIZE, SIZE)}
    assert [look.box.left for look in looker.looks(wide, 2)] == [64, 192]
    (small,) = looker.looks(pairs[0].image[:, :40, :60], 9)
    assert small.grid == (27, 40)


def test_ridge_solves_the_normal_equations(pairs):
    looks = Looker.for_pairs(pairs, SETTINGS).looks(pairs[0].image, 1)
    labels = looks[0].cells(pairs[0].annotation)
    matrix = looks[0].matrix().astype(float)
    gram = matrix.T @ matrix
    penalty = 0.01 * np.trace(gram) / len(gram)
    expected = np.linalg.solve(
        gram + penalty * np.eye(len(gram)), matrix.T @ (labels.ravel() == 1)
    )
    learned = Ridge(0.01).learn([Example(looks[0], labels)], 2)
    assert learned.weights[:, 0] == pytest.approx(expected, abs=1e-3)
    cut = learned.cuts[0]
    values = matrix @ learned.weights[:, 0]
    best = max(
        dice(values > each, labels.ravel())
        for each in np.quantile(values, np.linspace(0, 1, 200))
    )
    assert dice(values > cut, labels.ravel()) >= best - 1e-3


def test_what_is_not_known_is_not_learned(pairs):
    (look,) = Looker.for_pairs(pairs, SETTINGS).looks(pairs[0].image, 1)
    labels = look.cells(pairs[0].annotation)
    scribbles = np.where(np.arange(64) % 4 == 0, labels, -1)
    drawn = Ridge().learn([Example(look, scribbles)], 2).draw(look)
    assert dice(drawn, labels) > 0.8
    assert Ridge().learn([Example(look, np.minimum(scribbles, 0))], 2) is None


def test_cell_scores_are_those_of_the_metrics():
    pred, truth = np.zeros((2, 20, 20), np.int32)
    pred[3:9, 3:9], truth[4:12, 4:12] = 1, 1
    found = cell_scores(pred, truth, 2.5)
    assert found["dice"] == dice(pred, truth)
    assert found["iou"] == iou(pred, truth)
    assert found["hd95"] == 2.5 * hd95(pred, truth)
    truth[0, 0] = -1
    assert math.isnan(cell_scores(pred, truth, 1.0)["hd95"])


def test_scores_are_means_over_the_classes_in_either():
    pred, truth = np.zeros((2, 20, 20), np.int32)
    truth[:5], truth[10:15] = 1, 2
    pred[:5] = 1
    assert cell_scores(pred, truth, 1.0)["dice"] == 0.5


def test_the_best_distance_is_the_smallest():
    rows = [{"dice": x, "iou": x / 2, "hd95": 10 * x} for x in (0.2, 0.4, 0.9)]
    rows.append({"dice": 0.0, "iou": 0.0, "hd95": math.nan})
    assert best_of(rows, 1.0) == {"dice": 0.9, "iou": 0.45, "hd95": 2.0}
    assert best_of(rows, 0.5)["hd95"] == 4.0


@pytest.mark.parametrize("way", WAYS)
def test_stronger_changes_are_worse(way):
    labels = np.zeros((80, 80), np.int32)
    for row in range(3):
        for column in range(3):
            labels[8 + 24 * row : 22 + 24 * row, 8 + 24 * column : 22 + 24 * column] = 1
    labels[50:] *= 2
    scores = [
        np.mean(
            [dice(degrade(labels, way, strength, seed), labels) for seed in range(8)]
        )
        for strength in (0, 0.2, 0.5, 0.9)
    ]
    assert scores[0] == 1
    assert (np.diff(scores) < 0).all(), scores
    changed = degrade(labels, way, 0.5, 0)
    assert set(np.unique(changed)) <= {0, 1, 2}
    assert (degrade(labels, way, 0.5, 0) == changed).all()


def test_known_quality_is_recovered(prepared, tmp_path):
    new = scenes(15, 77)

    def worse(labels, place):
        return degrade(labels, WAYS[place % len(WAYS)], 0.9 * place / 15, place)

    segmenter = Drawn(new, worse)
    result = finish(estimate(write(tmp_path / "new", new), segmenter, prepared, 3))
    real = {
        f"{pair.name}.tif": dice(worse(pair.annotation, place), pair.annotation)
        for place, pair in enumerate(new)
    }
    names = list(result.per_image)
    predicted = [result.per_image[name].quality for name in names]
    assert spearmanr(predicted, [real[name] for name in names]).statistic > 0.8
    assert predicted == sorted(predicted)
    mean = result.mean["dice"]
    assert mean.low <= np.mean(list(real.values())) <= mean.high
    assert len(result.next) == 3
    assert "12 annotated images" in result.basis
    assert "made worse" in result.basis


def test_it_is_json_of_the_shape_of_an_evaluation(prepared, tmp_path):
    new = scenes(3, 5)
    new[1] = replace(new[1], annotation=np.zeros_like(new[1].annotation))
    folder = write(tmp_path / "new", new)
    (folder / "broken.tif").write_bytes(b"II*\0")
    result = finish(estimate(folder, Drawn(new, lambda labels, _: labels), prepared))
    values = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert set(values) >= {"mean", "per_image", "counts", "kind", "failures"}
    assert set(values["mean"]) >= {"dice", "iou", "hd95", "dice_low", "dice_high"}
    assert list(values["failures"]) == ["broken.tif"]
    assert "broken.tif" in values["failures"]["broken.tif"]
    # where nothing was found there is no score, and a look at it comes first
    assert next(iter(values["per_image"])) == "cell 1.tif"
    assert values["per_image"]["cell 1.tif"]["dice"] is None
    assert values["notes"]["cell 1.tif"] == EMPTY
    row = values["per_image"]["cell 0.tif"]
    assert row["dice_low"] <= row["dice"] <= row["dice_high"] <= 1
    assert values["counts"]["dice"] == 2


def test_a_reference_is_not_compared_with_itself(prepared, pairs):
    judge = prepared.judge
    judgement = judge.judge(pairs[0].image, pairs[0].annotation)
    others = finish(describe_references(pairs.subset(range(1, 12)), 2, SETTINGS))
    apart = replace(judge, annotated=others).judge(pairs[0].image, pairs[0].annotation)
    assert judgement.reverse == apart.reverse
    assert judgement.forward == apart.forward


def test_references_without_objects_have_no_part_in_reverse_scores(pairs):
    # they would be drawn right by whatever draws nothing there
    blank = replace(pairs[1], annotation=np.zeros_like(pairs[1].annotation))
    some = gather([pairs[0], blank], annotation="dense")
    judge = finish(prepare(some, 2, SETTINGS)).judge
    assert len(judge.annotated.references) == 1
    bad = judge.judge(pairs[5].image, degrade(pairs[5].annotation, "blobs", 1.0, 0))
    assert bad.reverse["dice"] < 0.9


def test_a_result_is_compared_with_what_learned_the_references(prepared, pairs):
    judge = prepared.judge
    (pair,) = scenes(1, 9)
    (example,) = judge.examples(pair.image, pair.annotation)
    every = [Example(each.look, each.labels) for each in judge.annotated.references]
    drawn = judge.segmenter.learn(every, 2).draw(example.look)
    found = judge.judge(pair.image, pair.annotation)
    assert found.forward["dice"] == pytest.approx(dice(example.labels, drawn))


def test_the_nearest_references_come_first(prepared):
    references = prepared.judge.annotated.references
    look = references[4].look
    first, *_ = nearest([look], references, 3)
    assert first is references[4]


def test_few_references_give_a_rank_and_a_sentence(pairs):
    few = finish(prepare(pairs[:3], 2, SETTINGS))
    assert few.judge.lines == {}
    assert "3 annotated images" in few.basis
    assert "only ranked" in few.basis
    good = few.judge.judge(pairs[5].image, pairs[5].annotation)
    bad = few.judge.judge(pairs[5].image, 1 - pairs[5].annotation)
    assert math.isnan(good.predicted["dice"].value)
    assert good.quality > bad.quality


def test_scribbles_are_compared_where_they_are():
    drawn = []
    for pair in scenes(10, 3):
        labels = pair.annotation + 1
        labels[:, np.arange(SIZE) % 6 != 0] = 0
        drawn.append(replace(pair, annotation=labels))
    sparse = finish(prepare(gather(drawn, annotation="sparse"), 2, SETTINGS))
    assert "scribbles" in sparse.basis
    (pair,) = scenes(1, 9)
    good = sparse.judge.judge(pair.image, pair.annotation)
    bad = sparse.judge.judge(pair.image, 1 - pair.annotation)
    assert good.quality > bad.quality
    assert math.isnan(good.reverse["hd95"])


def test_several_classes(tmp_path):
    made = make_two_kinds(5, 3, SIZE)
    kinds = [
        Pair(f"both {index}", scene.image, scene.kinds.astype(np.int32))
        for index, scene in enumerate(made)
    ]
    classes = int(max(pair.annotation.max() for pair in kinds)) + 1
    assert classes > 2
    prepared = finish(prepare(gather(kinds, annotation="dense"), classes, SETTINGS))
    image, labels = kinds[0].image, kinds[0].annotation
    good = prepared.judge.judge(image, labels)
    one_lost = prepared.judge.judge(image, np.where(labels == 1, labels, 0))
    assert good.quality > one_lost.quality
    with pytest.raises(InputError, match="classes"):
        finish(prepare(gather(kinds, annotation="dense"), classes + 1, SETTINGS))


def test_masks_of_other_values_are_matched_by_those_of_the_training():
    made = [
        Pair(f"{index}", scene.image, np.where(scene.kinds == 2, 7, 0).astype(np.int32))
        for index, scene in enumerate(make_two_kinds(3, 3, SIZE))
    ]
    pairs = gather(made, annotation="dense")
    found = finish(describe_references(pairs, 3, SETTINGS, class_values=(0, 3, 7)))
    assert set(np.unique([each.labels for each in found.references])) == {0, 2}


def test_references_of_other_sizes(pairs):
    uneven = [
        replace(
            pair,
            image=pair.image[:, : 90 - 4 * i],
            annotation=pair.annotation[: 90 - 4 * i],
        )
        for i, pair in enumerate(pairs[:4])
    ]
    prepared = finish(prepare(gather(uneven, annotation="dense"), 2, SETTINGS))
    (pair,) = scenes(1, 9)
    assert prepared.judge.judge(pair.image, pair.annotation).quality > 0.5


def test_references_without_anything_drawn_are_refused(pairs):
    blank = [replace(p, annotation=np.zeros_like(p.annotation)) for p in pairs]
    with pytest.raises(InputError, match="Nothing is drawn"):
        finish(prepare(gather(blank, annotation="dense"), 2, SETTINGS))


def test_states_of_a_model_take_the_place_of_masks_made_worse(pairs):
    pairs = pairs[:10]
    states = [
        Drawn(pairs, lambda labels, i, s=s: degrade(labels, "drop", s, i))
        for s in np.linspace(0.9, 0, 9)
    ]
    prepared = finish(prepare(pairs, 2, SETTINGS, states))
    assert "9 states" in prepared.basis
    assert prepared.folder.lines["dice"].points <= 9


def test_a_stack_is_the_mean_of_its_slices(prepared, pairs):
    judge = prepared.judge
    each = [judge.judge(pair.image, pair.annotation) for pair in pairs[:2]]
    blank = judge.judge(pairs[2].image, np.zeros((SIZE, SIZE), np.int32))
    both = merged([*each, blank])
    mean = np.mean([one.reverse["dice"] for one in each])
    assert both.reverse["dice"] == pytest.approx(mean)
    assert both.note == ""
    assert merged([blank, blank]).note == EMPTY


def test_where_references_are_looked_for(tmp_path):
    assert reference_folders(tmp_path) == (tmp_path, tmp_path)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    assert reference_folders(tmp_path) == (tmp_path / "images", tmp_path / "masks")
    other = tmp_path / "elsewhere"
    assert reference_folders(tmp_path, other) == (tmp_path, other)
