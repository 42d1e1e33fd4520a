"""Objects from probabilities, and their measurements."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import perimeter_crofton, regionprops_table

from napari_medseg._types import InputError, Prediction, default_classes
from napari_medseg.instances import (
    ClassConfig,
    ObjectConfig,
    find_classes,
    find_objects,
    labels_of,
    measure,
)
from napari_medseg.measurements import measure_classes


def disc(centre, radius, shape=(64, 96)):
    """Return a disc as a probability of 0 and 1."""
    grid = np.indices(shape) - np.reshape(centre, (2, 1, 1))
    return (np.hypot(*grid) <= radius).astype(np.float32)


TOUCHING = np.maximum(disc((32, 30), 14), disc((32, 54), 12))
WHOLE = ObjectConfig(split="components")


def test_watershed_splits_touching_discs_and_components_do_not():
    assert find_objects(TOUCHING, WHOLE).max() == 1
    labels = find_objects(TOUCHING, ObjectConfig())
    assert labels.dtype == np.int32
    assert labels.max() == 2
    np.testing.assert_array_equal(labels > 0, TOUCHING > 0)
    assert labels[32, 25] != labels[32, 60]
    areas = np.bincount(labels.ravel())[1:]
    assert sorted(areas) == pytest.approx([math.pi * 144, math.pi * 196], rel=0.05)


def test_watershed_leaves_single_shapes_whole():
    rod = np.zeros((40, 120), np.float32)
    rod[15:24, 5:115] = 1
    ellipse = disc((32, 48), 20)[:, ::2]
    for shape in (rod, ellipse, disc((32, 48), 3)):
        assert find_objects(shape, ObjectConfig()).max() == 1


def test_a_valley_in_the_probability_splits_what_has_no_neck():
    block = np.zeros((40, 60), np.float32)
    block[10:30, 8:52] = 0.95
    block[10:30, 28:32] = 0.55
    assert find_objects(block, ObjectConfig()).max() == 2
    assert find_objects(np.minimum(block, 0.55), ObjectConfig()).max() == 1


def test_every_group_of_pixels_keeps_an_object():
    noise = np.random.default_rng(0).random((96, 96)).astype(np.float32)
    noise = ndimage.gaussian_filter(noise, 1)
    config = ObjectConfig(min_size=0, fill_holes=False, seed_distance=20)
    labels = find_objects(noise, config)
    np.testing.assert_array_equal(labels > 0, noise > 0.5)
    ids = np.unique(labels)
    np.testing.assert_array_equal(ids, np.arange(len(ids)))
    np.testing.assert_array_equal(labels, find_objects(noise, config))


def test_seeds_nearer_than_the_distance_are_one_object():
    assert find_objects(TOUCHING, ObjectConfig(seed_distance=40)).max() == 1


def test_small_objects_go_and_ids_close_up():
    image = np.maximum(disc((10, 10), 1), disc((40, 40), 9))
    image = np.maximum(image, disc((40, 80), 9))
    labels = find_objects(image, WHOLE)
    assert sorted(np.unique(labels)) == [0, 1, 2]
    assert labels[10, 10] == 0
    assert find_objects(image, ObjectConfig(min_size=0)).max() == 3


def test_holes_of_one_object_are_filled_but_not_what_several_enclose():
    ring = disc((32, 48), 20) - disc((32, 48), 8)
    for split in ("components", "watershed"):
        filled = find_objects(ring, ObjectConfig(split=split, neck=0.3))
        np.testing.assert_array_equal(filled > 0, disc((32, 48), 20) > 0)
        kept = find_objects(ring, ObjectConfig(split=split, fill_holes=False))
        assert kept[32, 48] == 0
    angles = np.arange(6) * math.pi / 3
    cells = [disc((32 + 20 * math.sin(a), 48 + 20 * math.cos(a)), 11) for a in angles]
    labels = find_objects(np.max(cells, axis=0), ObjectConfig())
    assert labels.max() == 6
    assert labels[32, 48] == 0


@pytest.mark.parametrize("split", ["components", "watershed"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (20, 20)])
def test_extreme_images(split, shape):
    config = ObjectConfig(split=split, min_size=1)
    assert find_objects(np.zeros(shape, np.float32), config).max() == 0
    assert find_objects(np.full(shape, np.nan, np.float32), config).max() == 0
    full = find_objects(np.ones(shape, np.float32), config)
    assert full.min() == full.max() == 1
    assert full.shape == shape


def test_threshold_agrees_with_the_most_probable_class():
    probability = np.array([[0.5, 0.51], [0.2, 0.9]], np.float32)
    labels = find_objects(probability, ObjectConfig(min_size=0, split="components"))
    np.testing.assert_array_equal(labels > 0, [[False, True], [False, True]])


def test_config_is_checked():
    with pytest.raises(InputError, match="threshold"):
        ObjectConfig(threshold=1.5)
    with pytest.raises(InputError, match="components, watershed"):
        ObjectConfig(split="cut")
    with pytest.raises(InputError, match="2D image"):
        find_objects(np.zeros((2, 4, 4), np.float32), ObjectConfig())


@pytest.mark.parametrize("count", [2, 3, 5])
def test_classes_are_by_default_the_likeliest(count):
    logits = np.random.default_rng(0).normal(size=(count, 40, 50)).astype(np.float32)
    logits[:, :5] = np.float32(0.3)  # all alike: background
    powers = np.exp(logits)
    probabilities = powers / powers.sum(axis=0)
    prediction = Prediction(probabilities, default_classes(count))
    for config in (None, ClassConfig()):
        np.testing.assert_array_equal(labels_of(prediction, config), prediction.labels)


def test_threshold_of_classes():
    front = np.array([[0.2, 0.4, 0.6, 0.8, np.nan]], np.float32)
    two = np.stack([1 - front, front])
    assert find_classes(two, ClassConfig(threshold=0.3)).tolist() == [[0, 1, 1, 1, 0]]
    assert find_classes(two, ClassConfig(threshold=0.7)).tolist() == [[0, 0, 0, 1, 0]]
    assert not find_classes(two, ClassConfig(threshold=1)).any()
    # against background alone: the other class takes nothing from it
    three = np.array([[[0.3]], [[0.25]], [[0.45]]], np.float32)
    assert find_classes(three, ClassConfig(threshold=0.55)) == 2
    assert find_classes(three, ClassConfig(threshold=0.65)) == 0


def test_islands_become_what_surrounds_them():
    classes = np.zeros((30, 30), int)
    classes[5:20, 5:20] = 1
    classes[10:12, 10:12] = 2
    classes[25, 25] = 2
    probabilities = np.eye(3, dtype=np.float32)[classes].transpose(2, 0, 1)
    labels = find_classes(probabilities, ClassConfig(min_size=5))
    assert labels.dtype == np.int32
    assert (labels[5:20, 5:20] == 1).all()
    assert labels.sum() == 225
    kept = find_classes(probabilities, ClassConfig(min_size=4))
    assert (kept[10:12, 10:12] == 2).all()
    assert kept[25, 25] == 0
    assert not find_classes(probabilities, ClassConfig(min_size=1000)).any()
    full = find_classes(np.ones((2, 3, 3), np.float32), ClassConfig(threshold=0.1))
    assert full.all()
    assert not find_classes(np.ones((2, 3, 3)), ClassConfig(0.1, min_size=10)).any()


def test_smoothing_takes_specks_away():
    front = np.zeros((20, 20), np.float32)
    front[5:15, 5:15] = 1
    front[9, 9] = 0
    front[1, 1] = 1
    labels = find_classes(np.stack([1 - front, front]), ClassConfig(smoothing=1))
    assert labels[9, 9] == 1
    assert labels[1, 1] == 0


def test_probabilities_of_one_class_are_refused():
    with pytest.raises(InputError, match="two classes"):
        find_classes(np.zeros((1, 3, 3), np.float32), ClassConfig())
    with pytest.raises(InputError, match="smoothing"):
        ClassConfig(smoothing=-1)


def test_measurements_of_known_shapes_with_pixel_size():
    labels = np.zeros((60, 80), np.int64)
    labels[10:20, 20:60] = 3_000_000_000
    labels[disc((40, 30), 15, labels.shape) > 0] = 7
    image = np.stack([np.full(labels.shape, 5.0), np.indices(labels.shape)[1]])
    scale = {"Y": 0.5, "X": 0.5, "T": 3.0}
    table = measure(labels, image.astype(np.float32), scale, "µm")
    assert list(table["label"]) == [7, 3_000_000_000]
    assert set(table["unit"]) == {"µm"}
    round_, box = table.iloc[0], table.iloc[1]
    assert box["area_px"] == 400
    assert box["area"] == 100
    assert (box["centroid_y"], box["centroid_x"]) == (14.5, 39.5)
    corners = box[["bbox_y0", "bbox_x0", "bbox_y1", "bbox_x1"]]
    assert list(corners) == [10, 20, 20, 60]
    assert box["solidity"] == 1
    crofton = perimeter_crofton(labels > 7, directions=4)
    assert box["perimeter"] == pytest.approx(0.5 * crofton)
    assert box["perimeter"] == pytest.approx(50, rel=0.07)
    assert abs(box["orientation"]) == pytest.approx(math.pi / 2)
    assert round_["eccentricity"] == pytest.approx(0, abs=0.05)
    assert round_["axis_major_length"] == pytest.approx(15, rel=0.03)
    assert round_["area"] == pytest.approx(math.pi * 7.5**2, rel=0.02)
    assert round_["perimeter"] == pytest.approx(2 * math.pi * 7.5, rel=0.03)
    assert round_["mean_intensity_0"] == 5
    assert round_["std_intensity_0"] == 0
    intensities = ["mean_intensity_1", "min_intensity_1", "max_intensity_1"]
    assert list(box[intensities]) == [39.5, 20, 59]
    assert box["std_intensity_1"] == pytest.approx(np.arange(20, 60).std())


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.3)])
def test_shapes_are_those_of_scikit_image(spacing):
    rough = ndimage.gaussian_filter(np.random.default_rng(0).random((90, 120)), 1)
    labels = ndimage.label(rough > 0.53)[0]
    table = measure(labels, None, dict(zip("yx", spacing, strict=True)))
    in_pixels = ("area", "centroid", "bbox", "solidity")
    moments = ("axis_major_length", "axis_minor_length", "eccentricity", "orientation")
    expected = regionprops_table(labels, properties=in_pixels)
    expected |= regionprops_table(labels, properties=moments, spacing=spacing)
    names = {"area": "area_px", "centroid-0": "centroid_y", "centroid-1": "centroid_x"}
    names |= {"bbox-0": "bbox_y0", "bbox-1": "bbox_x0"}
    names |= {"bbox-2": "bbox_y1", "bbox-3": "bbox_x1"}
    round_ = table["eccentricity"] < 1e-6
    assert len(table) > 50 and round_.any()
    assert (table["orientation"][round_] == 0).all()
    for old, values in expected.items():
        found = table[names.get(old, old)]
        if old == "orientation":  # an axis has two ends
            turn = np.abs(found - values)
            assert np.minimum(turn, math.pi - turn)[~round_].max() < 1e-6
            continue
        np.testing.assert_allclose(found, values, rtol=1e-7, atol=1e-6)
    size = table["centroid_y"] * spacing[0], table["centroid_x"] * spacing[1]
    np.testing.assert_array_equal(table["position_y"], size[0])
    np.testing.assert_array_equal(table["position_x"], size[1])


def test_pixels_that_are_not_square():
    # An ellipse on the sensor that is a disc of 20 µm in the specimen.
    grid = np.indices((60, 120)) - np.reshape((30, 60), (2, 1, 1))
    labels = (np.hypot(grid[0], grid[1] / 2) <= 20).astype(np.int32)
    row = measure(labels, None, {"y": 1.0, "x": 0.5}).iloc[0]
    assert row["unit"] == "px"
    assert row["area"] == pytest.approx(math.pi * 400, rel=0.01)
    assert row["eccentricity"] == pytest.approx(0, abs=0.1)
    assert row["axis_minor_length"] == pytest.approx(40, rel=0.02)
    assert row["perimeter"] == pytest.approx(2 * math.pi * 20, rel=0.03)


def test_measurements_of_classes():
    labels = np.zeros((10, 20), np.int32)
    labels[:, 5:10] = 3
    labels[:2, 15:] = 1
    image = np.indices(labels.shape)[1].astype(np.float32)
    table = measure_classes(labels, image, {"y": 0.5, "x": 2}, "µm")
    assert list(table["label"]) == [1, 3]
    assert list(table["area_px"]) == [10, 50]
    assert list(table["area"]) == [10, 50]
    assert list(table["share"]) == [0.05, 0.25]
    assert list(table["mean_intensity_0"]) == [17, 7]
    assert len(measure_classes(0 * labels, image)) == 0


def test_empty_and_tiny_label_images():
    image = np.zeros((2, 8, 8), np.float32)
    empty = measure(np.zeros((8, 8), np.int32), image)
    labels = np.zeros((8, 8), np.int32)
    labels[3, 3], labels[5, 1:4] = 1, 2
    for scale in ({"y": 2.0, "x": 2.0}, {"y": 1.0, "x": 2.0}):
        tiny = measure(labels, image, scale)
        assert len(empty) == 0
        assert list(empty.columns) == list(tiny.columns)
        assert (empty.dtypes == tiny.dtypes).all()
        assert list(tiny["area_px"]) == [1, 3]


def test_bad_measurements_get_a_sentence():
    labels = np.ones((8, 8), np.int32)
    with pytest.raises(InputError, match="same Y and X"):
        measure(labels, np.zeros((1, 8, 9)))
    with pytest.raises(InputError, match="pixel size"):
        measure(labels, None, {"y": 0.0, "x": 1.0})
    with pytest.raises(InputError, match="2D image"):
        measure(labels[None])
