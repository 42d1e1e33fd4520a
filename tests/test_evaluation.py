"""Folders of predictions against folders of truths."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.io import imsave

from napari_medseg._types import InputError, finish
from napari_medseg.evaluation import evaluate_folders
from napari_medseg.io.exports import write_ome_zarr
from napari_medseg.io.images import write_labels
from napari_medseg.io.tiff import write_probabilities


@pytest.fixture
def folders(tmp_path):
    pred, truth = tmp_path / "pred", tmp_path / "truth"
    pred.mkdir()
    truth.mkdir()
    return pred, truth


def save(path, labels):
    """Write a label image."""
    if path.suffix == ".tif":
        tifffile.imwrite(path, labels)
    else:
        imsave(path, labels, check_contrast=False)


def square(start, value=1, dtype=np.uint8):
    """Return a square of 10 pixels that begins at column ``start``."""
    labels = np.zeros((30, 40), dtype)
    labels[10:20, start : start + 10] = value
    return labels


def test_foreground_against_ids_and_against_255(folders):
    pred, truth = folders
    ids = square(5, 7, np.uint16) + square(20, 300, np.uint16)
    save(pred / "a.tif", (ids > 0).astype(np.uint8))
    save(truth / "a_mask.tif", ids)
    save(pred / "b_labels.tif", square(5))
    save(truth / "b_seg.png", square(10, 255))
    job = evaluate_folders(*folders)
    reports = []
    with pytest.raises(StopIteration) as done:
        while True:
            reports.append(next(job))
    result = done.value.value
    assert [report.step for report in reports] == [1, 2, 3, 4]
    assert {report.total for report in reports} == {4}
    assert result.kind == "foreground"
    assert result.per_image["a"] == {"dice": 1, "iou": 1, "hd95": 0, "boundary_f": 1}
    assert result.per_image["b"]["dice"] == 0.5
    assert result.mean["dice"] == 0.75
    assert reports[-1].metrics["dice"] == 0.5


def test_instances(folders):
    pred, truth = folders
    ids = square(5, 7, np.uint16) + square(20, 300, np.uint16)
    save(truth / "a.tif", ids)
    save(pred / "a.tif", square(5, 2, np.uint16))
    result = finish(evaluate_folders(*folders, instances=True))
    assert result.kind == "instances"
    assert result.mean["ap50"] == result.mean["ap75"] == 0.5
    assert result.mean["pq"] == pytest.approx(1 / 1.5)
    assert result.mean["dice"] == pytest.approx(2 / 3)
    assert {"dice", "iou", "hd95", "boundary_f", "ap50", "pq"} <= set(result.mean)


def test_classes_and_an_ignored_value(folders):
    pred, truth = folders
    both = square(5) + 2 * square(20)
    save(pred / "a.png", both)
    save(truth / "a.png", square(5) + 2 * square(25))
    ignored = both.copy()
    ignored[:, 25:] = 255
    save(pred / "b.png", both)
    save(truth / "b.png", ignored)
    save(pred / "c.png", square(5))
    save(truth / "c.png", square(5))
    result = finish(evaluate_folders(*folders, ignore=255))
    assert result.kind == "classes"
    assert result.per_image["a"]["dice_1"] == 1
    assert result.per_image["a"]["dice"] == 0.75
    assert result.per_image["b"]["dice"] == 1
    assert result.per_image["c"]["dice_1"] == 1
    assert "dice_2" not in result.per_image["c"]
    assert result.mean["dice_2"] == 0.75
    assert result.counts["dice_2"] == 2


def test_predictions_of_objects_are_read_as_foreground(folders):
    grid = np.kron(np.arange(30).reshape(5, 6), np.ones((5, 5), int)).astype(np.uint8)
    save(folders[0] / "a.png", grid)
    save(folders[1] / "a.png", (grid > 0).astype(np.uint8))
    result = finish(evaluate_folders(*folders))
    assert (result.kind, result.mean["dice"]) == ("foreground", 1)


def test_bad_files_are_listed_and_the_rest_is_scored(folders):
    pred, truth = folders
    for name in ("good", "damaged", "size", "empty"):
        save(pred / f"{name}.png", square(5))
        save(truth / f"{name}.png", square(5))
    (pred / "damaged.png").write_bytes(b"not an image")
    save(truth / "size.png", square(5)[:20])
    save(truth / "empty.png", np.zeros_like(square(5)))
    save(truth / "lonely.png", square(5))
    result = finish(evaluate_folders(*folders))
    assert set(result.per_image) == {"good", "empty"}
    assert set(result.failures) == {"damaged", "size"}
    assert "damaged.png" in result.failures["damaged"]
    assert "same size" in result.failures["size"]
    assert [name.endswith("lonely.png") for name in result.unmatched] == [True]
    assert result.counts == {"dice": 2, "iou": 2, "hd95": 1, "boundary_f": 2}
    text = json.dumps(result.to_dict(), allow_nan=False)
    assert json.loads(text)["per_image"]["empty"]["hd95"] is None
    assert json.loads(text)["mean"]["hd95"] == 0


def test_stacks_are_scored_slice_by_slice(folders):
    stack = np.stack([square(5), square(8), np.zeros_like(square(5))] * 4)
    other = stack.copy()
    other[1::3] = square(13)
    for folder, data in zip(folders, (stack, other), strict=True):
        tifffile.imwrite(folder / "a.tif", data, imagej=True, metadata={"axes": "ZYX"})
    result = finish(evaluate_folders(*folders))
    assert result.mean["dice"] == pytest.approx((1 + 0.5 + 1) / 3)


def test_two_files(folders):
    save(folders[0] / "mine.png", square(5))
    save(folders[1] / "yours.png", square(5))
    job = evaluate_folders(folders[0] / "mine.png", folders[1] / "yours.png")
    assert list(finish(job).per_image) == ["mine"]


def test_names_that_differ_only_in_endings_match_exactly(folders):
    for folder in folders:
        save(folder / "x.png", square(5))
        save(folder / "x_seg.png", square(8))
    assert list(finish(evaluate_folders(*folders)).per_image) == ["x", "x_seg"]
    save(folders[1] / "x_mask.png", square(5))
    with pytest.raises(InputError, match=r"ambiguous.*x_mask\.png"):
        finish(evaluate_folders(*folders))


def test_nothing_matches_or_a_folder_is_missing(folders, tmp_path):
    save(folders[0] / "a.png", square(5))
    with pytest.raises(InputError, match="No prediction"):
        finish(evaluate_folders(*folders))
    with pytest.raises(InputError, match="does not exist"):
        finish(evaluate_folders(folders[0], tmp_path / "nowhere"))


def beside(path, probabilities):
    """Write class probabilities where a run writes them."""
    target = path.parent / "probabilities" / f"{path.stem}_probabilities.tiff"
    target.parent.mkdir(exist_ok=True)
    names = [f"class {index}" for index in range(probabilities.shape[-3])]
    axes = "ZCYX"[-probabilities.ndim :]
    write_probabilities(target, probabilities, names, axes=axes)
    return target


def average_precision_score(truth, scores):
    """Sum precision times the recall that it adds, from threshold to threshold."""
    truth, scores = np.asarray(truth, bool), np.asarray(scores)
    total, recall = 0.0, 0.0
    for threshold in np.unique(scores)[::-1]:
        found = scores >= threshold
        reached = (found & truth).sum() / truth.sum()
        total += (reached - recall) * (found & truth).sum() / found.sum()
        recall = reached
    return total


def shares_of(*classes):
    """Return probabilities of some classes, background first."""
    stacked = np.stack(classes).astype(np.float32)
    return np.concatenate([1 - stacked.max(axis=0, keepdims=True), stacked])


def test_probabilities_give_aupr_of_each_class(folders):
    pred, truth = folders
    rng = np.random.default_rng(0)
    chances, truths = [], []
    for name in ("a", "b"):
        labels = square(5) + 2 * square(20)
        # whole steps of those in which probabilities are written
        shares = rng.integers(1, 2000, (2, *labels.shape)) / 4096
        shares[0][labels == 1] += 0.25
        save(pred / f"{name}.tif", np.zeros_like(labels))
        save(truth / f"{name}.tif", labels)
        beside(pred / f"{name}.tif", shares_of(*shares))
        chances.append(shares)
        truths.append(labels)
    save(pred / "c.tif", labels)  # no probabilities
    save(truth / "c.tif", labels)
    result = finish(evaluate_folders(*folders))
    assert result.kind == "classes", "though nothing was found in the first two"
    for value in (1, 2):
        wanted = [
            average_precision_score((labels == value).ravel(), share[value - 1].ravel())
            for labels, share in zip(truths, chances, strict=True)
        ]
        key = f"aupr_{value}"
        assert result.per_image["a"][key] == pytest.approx(wanted[0], abs=2e-3)
        assert result.mean[key] == pytest.approx(np.mean(wanted), abs=2e-3)
        assert result.counts[key] == 2
        together = average_precision_score(
            np.concatenate([(labels == value).ravel() for labels in truths]),
            np.concatenate([share[value - 1].ravel() for share in chances]),
        )
        assert result.pooled[key] == pytest.approx(together, abs=2e-3)
    both = (result.pooled["aupr_1"] + result.pooled["aupr_2"]) / 2
    assert result.pooled["aupr"] == pytest.approx(both)
    assert "aupr" not in result.per_image["c"]
    assert result.to_dict()["pooled"]["aupr"] == result.pooled["aupr"]


def test_aupr_of_the_foreground_and_of_a_stack_without_what_is_ignored(folders):
    pred, truth = folders
    ids = square(5, 7) + square(20, 9)
    share = np.where(ids > 0, 0.5, 0.25)
    share[0, 0] = 0.75  # wrong, but not to be counted
    ignored = ids.copy()
    ignored[0, 0] = 255
    write_labels(pred / "a.tif", np.stack([ids, ids]), axes="ZYX")
    write_labels(truth / "a.tif", np.stack([ignored, ignored]), axes="ZYX")
    beside(pred / "a.tif", np.stack([shares_of(share), shares_of(1 - share)]))
    result = finish(evaluate_folders(*folders, instances=True, ignore=255))
    # in the second slice all of the background is above all objects
    both = (1 + 200 / 1199) / 2
    assert result.failures == {}
    assert result.per_image["a"]["aupr"] == pytest.approx(both, abs=1e-3)
    assert set(result.pooled) == {"aupr"}


def test_probabilities_of_another_run_are_told(folders):
    pred, truth = folders
    for name in ("a", "b"):
        save(pred / f"{name}.tif", square(5))
        save(truth / f"{name}.tif", square(5))
    beside(pred / "a.tif", shares_of(np.zeros((30, 41))))
    result = finish(evaluate_folders(*folders))
    assert "does not fit" in result.failures["a"] and set(result.per_image) == {"b"}
    assert result.pooled == {}


def test_folders_in_the_folders_are_scored_too(folders):
    pred, truth = folders
    for folder in folders:
        (folder / "day1").mkdir()
        save(folder / "a.png", square(5))
    save(pred / "day1" / "a.png", square(5))
    save(truth / "day1" / "a_mask.png", square(10))
    # what a run writes beside its labels is no prediction; a truth must not be missed
    for path in (pred / "probabilities" / "a.png", truth / "day2" / "a.png"):
        path.parent.mkdir()
        save(path, square(5))
    result = finish(evaluate_folders(*folders))
    assert {name: row["dice"] for name, row in result.per_image.items()} == {
        "a": 1,
        "day1/a": 0.5,
    }
    assert result.unmatched == (str(truth / "day2" / "a.png"),)


def test_a_zarr_folder_is_one_prediction(folders):
    for folder in folders:
        write_ome_zarr(folder / "a.zarr", square(5).astype(np.int32))
    one, other = (folder / "a.zarr" for folder in folders)
    assert list(finish(evaluate_folders(one, other)).per_image) == ["a"]
    assert list(finish(evaluate_folders(*folders)).per_image) == ["a"]


def made(folder, **facts):
    """Say in a folder how its labels were made, as a run does."""
    (folder / "medseg.json").write_text(json.dumps({"objects": None} | facts))


KINDS = square(5, 1) + square(20, 2)


@pytest.mark.parametrize("told", [{"class_values": [0, 127, 255]}, {}])
def test_truths_are_numbered_as_the_model_numbers_its_classes(folders, told):
    pred, truth = folders
    made(pred, classes=["background", "round", "rod"], **told)
    save(pred / "a.tif", KINDS)
    save(truth / "a.png", np.array([0, 127, 255], np.uint8)[KINDS])
    result = finish(evaluate_folders(*folders))
    assert result.kind == "classes"
    assert (result.mean["dice_1"], result.mean["dice_2"]) == (1, 1)
    # a truth whose values are those of the model stays what it is
    save(truth / "a.png", KINDS)
    assert finish(evaluate_folders(*folders)).mean["dice"] == 1


def test_a_class_that_was_never_found_is_missed(folders):
    pred, truth = folders
    made(pred, classes=["background", "round", "rod"])
    save(pred / "a.tif", (KINDS > 0).astype(np.uint8))
    save(truth / "a.png", KINDS)
    result = finish(evaluate_folders(*folders))
    assert result.kind == "classes"
    assert result.mean["dice_2"] == 0
    save(truth / "a.png", 255 * (KINDS > 0).astype(np.uint8))
    assert finish(evaluate_folders(*folders)).kind == "foreground"


def test_ignored_pixels_stay_ignored_where_truths_are_numbered(folders):
    pred, truth = folders
    made(pred, classes=["background", "round", "rod"], class_values=[0, 127, 255])
    save(pred / "a.tif", KINDS + square(30, 1))
    marked = np.array([0, 127, 255], np.uint8)[KINDS] + square(30, 2)
    save(truth / "a.png", marked)
    result = finish(evaluate_folders(*folders, ignore=2))
    assert (result.mean["dice_1"], result.mean["dice_2"]) == (1, 1)


def test_probabilities_of_images_in_a_folder_are_found(folders, monkeypatch):
    pred, _ = folders
    made(pred, classes=["background", "object"])
    for folder in folders:
        (folder / "day1").mkdir()
        save(folder / "day1" / "a.tif", square(5))
    (pred / "probabilities" / "day1").mkdir(parents=True)
    shares = np.stack([1.0 - square(5), square(5)]).astype(np.float32)
    name = pred / "probabilities" / "day1" / "a_probabilities.tiff"
    write_probabilities(name, shares, ["background", "object"])
    # also with a path as somebody types it
    monkeypatch.chdir(pred.parent)
    result = finish(evaluate_folders(Path("pred"), Path("truth")))
    assert result.per_image["day1/a"]["aupr"] == 1
    inner = finish(evaluate_folders(Path("pred/day1"), Path("truth/day1")))
    assert inner.per_image["a"]["aupr"] == 1
