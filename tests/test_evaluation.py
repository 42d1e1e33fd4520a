"""Folders of predictions against folders of truths."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
from skimage.io import imsave

from napari_medseg._types import InputError, finish
from napari_medseg.evaluation import evaluate_folders


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
