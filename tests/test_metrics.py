"""Scores against MONAI, scikit-image and plain slow loops."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from skimage.metrics import hausdorff_distance

from napari_medseg import metrics
from napari_medseg._types import InputError

torch = pytest.importorskip("torch")

with warnings.catch_warnings():
    # MONAI's imports warn of what its own dependencies deprecate.
    warnings.simplefilter("ignore")
    monai_metrics = pytest.importorskip("monai.metrics")

pytestmark = pytest.mark.filterwarnings("ignore:monai:FutureWarning")


def blobs(seed, shape=(48, 56), level=0.0):
    """Return a random mask of smooth blobs."""
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, 3) > level


def objects(seed, shape=(64, 64), level=0.02):
    """Return random objects with scattered ids."""
    labels = ndimage.label(blobs(seed, shape, level))[0]
    ids = np.random.default_rng(seed).permutation(np.arange(1, 200))
    return np.concatenate([[0], ids])[labels].astype(np.int32)


def one_hot(mask):
    """Return a mask as MONAI wants it, (1, 2, Y, X)."""
    return torch.from_numpy(np.stack([~mask, mask])[None].astype(np.float32))


PAIRS = [(blobs(seed), blobs(seed + 100, level=0.03)) for seed in range(6)]
PAIRS += [(mask, ndimage.binary_dilation(mask, iterations=2)) for mask, _ in PAIRS[:2]]


@pytest.mark.parametrize("pair", PAIRS)
def test_areas_agree_with_monai(pair):
    pred, truth = map(one_hot, pair)
    options = {"include_background": False}
    dice = float(monai_metrics.compute_dice(pred, truth, **options))
    iou = float(monai_metrics.compute_iou(pred, truth, **options))
    assert metrics.dice(*pair) == pytest.approx(dice, abs=1e-6)
    assert metrics.iou(*pair) == pytest.approx(iou, abs=1e-6)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("spacing", [None, (0.5, 0.5), (2.0, 0.7)])
def test_hd95_agrees_with_monai(pair, spacing):
    expected = monai_metrics.compute_hausdorff_distance(
        *map(one_hot, pair), percentile=95, spacing=spacing
    )
    assert metrics.hd95(*pair, spacing=spacing) == pytest.approx(
        float(expected), abs=1e-4
    )


@pytest.mark.parametrize("pair", PAIRS)
def test_greatest_distance_agrees_with_scikit_image(pair):
    edges = [metrics.surface(mask) for mask in pair]
    distances = metrics.surface_distances(*pair)
    assert max(side.max() for side in distances) == pytest.approx(
        hausdorff_distance(*edges)
    )


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("tolerance", [1.0, 2.0])
def test_surfaces_within_tolerance_agree_with_monai(pair, tolerance):
    # MONAI has no boundary F. Its surface Dice pools the pixels of both surfaces,
    # where F is the harmonic mean of two shares; both rest on the same distances.
    first, second = metrics.surface_distances(*pair)
    near = np.count_nonzero(first <= tolerance), np.count_nonzero(second <= tolerance)
    expected = monai_metrics.compute_surface_dice(*map(one_hot, pair), [tolerance])
    assert sum(near) / (len(first) + len(second)) == pytest.approx(
        float(expected), abs=1e-6
    )
    shares = near[0] / len(first), near[1] / len(second)
    assert metrics.boundary_f(*pair, tolerance=tolerance) == pytest.approx(
        2 * shares[0] * shares[1] / sum(shares)
    )


def test_boundary_f_agrees_with_dilated_boundaries():
    # The form of Perazzi et al.: boundaries dilated by a disc of the tolerance.
    offsets = np.mgrid[-2:3, -2:3]
    disc = np.hypot(*offsets) <= 2
    pred, truth = PAIRS[0]
    edges = metrics.surface(pred), metrics.surface(truth)
    fat = [ndimage.binary_dilation(edge, disc) for edge in edges]
    precision = (edges[0] & fat[1]).sum() / edges[0].sum()
    recall = (edges[1] & fat[0]).sum() / edges[1].sum()
    expected = 2 * precision * recall / (precision + recall)
    assert metrics.boundary_f(pred, truth) == pytest.approx(expected)


def test_known_distances_of_shifted_squares():
    pred, truth = np.zeros((2, 40, 40), np.uint8)
    pred[10:20, 10:20] = 255
    truth[10:20, 15:25] = 255
    assert metrics.dice(pred, truth) == 0.5
    assert metrics.iou(pred, truth) == pytest.approx(1 / 3)
    assert metrics.hd95(pred, truth) == 5
    assert metrics.hd95(pred, truth, spacing=(1, 0.25)) == 1.25
    assert metrics.boundary_f(pred, truth, tolerance=5) == 1


def test_empty_masks():
    empty, full = np.zeros((8, 8), bool), np.ones((8, 8), bool)
    assert metrics.dice(empty, empty) == metrics.iou(empty, empty) == 1
    assert metrics.hd95(empty, empty) == 0
    assert metrics.boundary_f(empty, empty) == 1
    for pair in ((empty, full), (full, empty)):
        assert metrics.dice(*pair) == metrics.iou(*pair) == 0
        assert metrics.boundary_f(*pair) == 0
        assert math.isnan(metrics.hd95(*pair))
    scores = metrics.class_scores(np.zeros((4, 4), int), np.zeros((4, 4), int))
    assert scores == {"dice": 1, "iou": 1, "hd95": 0, "boundary_f": 1}


def test_ignored_pixels_change_nothing():
    truth = np.zeros((30, 30), np.int16)
    truth[5:20, 5:20] = 1
    pred = truth.copy()
    truth[:, 12:] = -1
    pred[:, 12:] = 0
    perfect = {"dice": 1, "iou": 1, "hd95": 0, "boundary_f": 1}
    assert metrics.class_scores(pred, truth, ignore=-1) == perfect
    pred[25:28, 15:28] = 2
    assert metrics.class_scores(pred, truth, ignore=-1) == perfect
    assert metrics.object_scores(pred, truth, ignore=-1)["ap50"] == 1
    assert metrics.object_scores(pred, truth)["ap50"] < 1


def test_predictions_half_ignored_are_no_false_positives():
    truth = np.zeros((10, 20), np.uint8)
    truth[:, 10:] = 255
    pred = np.zeros((10, 20), np.uint8)
    pred[2:6, 8:16] = 1
    assert metrics.average_precision(pred, truth, ignore=255) == 1
    pred[2:6, 2:16] = 1
    assert metrics.average_precision(pred, truth, ignore=255) == 0


def test_class_scores_mean_over_the_classes_present():
    pred = np.zeros((20, 20), np.int32)
    truth = pred.copy()
    truth[2:8, 2:8] = pred[2:8, 2:8] = 1
    truth[12:18, 12:18] = 2
    scores = metrics.class_scores(pred, truth, (1, 2, 3))
    assert scores["dice_1"] == 1
    assert scores["dice_2"] == 0
    assert scores["dice"] == 0.5
    assert "dice_3" not in scores
    assert scores["hd95"] == scores["hd95_1"] == 0
    assert math.isnan(scores["hd95_2"])
    assert "dice_1" not in metrics.class_scores(pred, pred)


def slow_scores(pred, truth, threshold, strict=False):
    """Count and sum by plain loops: TP, FP, FN and the IoU of the matches."""
    rows, columns = (np.unique(labels[labels > 0]) for labels in (pred, truth))
    table = np.zeros((len(rows), len(columns)))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            table[i, j] = metrics.iou(pred == row, truth == column)
    good = table > threshold if strict else table >= threshold
    weight = good * (1 + table / (2 * max(1, *table.shape)))
    matches = list(zip(*linear_sum_assignment(-weight), strict=True))
    ious = [table[pair] for pair in matches if good[pair]]
    return len(ious), len(rows) - len(ious), len(columns) - len(ious), sum(ious)


@pytest.mark.parametrize("seed", range(5))
def test_object_scores_agree_with_slow_loops(seed):
    truth = objects(seed)
    pred = np.roll(truth, seed, axis=1)
    pred[objects(seed + 50) > 0] = 0
    scores = metrics.object_scores(pred, truth)
    for name, threshold in (("ap50", 0.5), ("ap75", 0.75)):
        tp, fp, fn, _ = slow_scores(pred, truth, threshold)
        assert scores[name] == pytest.approx(tp / (tp + fp + fn))
    tp, fp, fn, total = slow_scores(pred, truth, 0.5, strict=True)
    assert scores["pq"] == pytest.approx(total / (tp + fp / 2 + fn / 2))
    assert math.isnan(scores["sq"]) == (tp == 0)
    if tp:
        assert scores["pq"] == pytest.approx(scores["sq"] * scores["rq"])
    for threshold in (0.05, 0.2):
        tp, fp, fn, _ = slow_scores(pred, truth, threshold)
        found = metrics.average_precision(pred, truth, threshold)
        assert found == pytest.approx(tp / (tp + fp + fn))


def test_matching_is_one_to_one_and_of_greatest_weight():
    # Greedy by IoU would take the middle pair and lose a match.
    truth = np.array([[1, 1, 1, 1, 2, 2, 2, 2]])
    pred = np.array([[7, 7, 3, 3, 3, 3, 3, 0]])
    overlap = metrics.object_overlap(pred, truth)
    rows, columns, iou = metrics.match_objects(overlap, 0.25)
    assert sorted(zip(rows, columns, strict=True)) == [(0, 1), (1, 0)]
    assert sorted(iou) == [0.5, 0.5]


def test_panoptic_quality_agrees_with_monai():
    truth = ndimage.label(objects(3))[0]
    pred = ndimage.label(np.roll(objects(3), 2, axis=0))[0]
    expected = monai_metrics.compute_panoptic_quality(
        torch.from_numpy(pred), torch.from_numpy(truth), match_iou_threshold=0.5
    )
    quality = metrics.panoptic_quality(pred, truth)
    assert quality.pq == pytest.approx(float(expected), abs=1e-4)


def test_objects_of_empty_images():
    empty, full = np.zeros((6, 6), np.uint16), np.ones((6, 6), np.uint16)
    assert set(metrics.object_scores(empty, empty).values()) == {1.0}
    for pair in ((empty, full), (full, empty)):
        scores = metrics.object_scores(*pair)
        assert scores["ap50"] == scores["ap75"] == scores["pq"] == scores["rq"] == 0
        assert math.isnan(scores["sq"])


def test_huge_ids_and_thousands_of_objects():
    grid = np.arange(2500).reshape(50, 50) + 1
    truth = np.kron(grid, np.ones((8, 8), np.int64))
    pred = (truth * 800_000).astype(np.int64)
    scores = metrics.object_scores(pred, truth)
    assert set(scores.values()) == {1.0}


def test_summary_leaves_nan_out_and_counts():
    rows = {
        "a": {"dice": 1.0, "hd95": math.nan},
        "b": {"dice": 0.5, "hd95": 3.0, "dice_2": 0.2},
        "c": {"dice": 0.0, "hd95": math.nan, "x": math.nan},
    }
    summary = metrics.summarise(rows)
    assert list(summary) == ["dice", "hd95", "dice_2", "x"]
    assert summary["dice"] == 0.5
    assert summary["hd95"] == 3
    assert math.isnan(summary["x"])
    assert metrics.count_finite(rows) == {"dice": 3, "hd95": 1, "dice_2": 1, "x": 0}
    assert metrics.summarise({}) == {}


def test_bad_input_gets_a_sentence():
    small, large = np.zeros((4, 5), int), np.zeros((4, 6), int)
    for score in (metrics.dice, metrics.hd95, metrics.class_scores):
        with pytest.raises(InputError, match="4 × 5 pixels and the truth 4 × 6"):
            score(small, large)
    with pytest.raises(InputError, match="same size"):
        metrics.object_scores(small, large)
    with pytest.raises(InputError, match="float64"):
        metrics.object_scores(small, small.astype(float))
    with pytest.raises(InputError, match="spacing"):
        metrics.hd95(small, small, spacing=(1, 0))
