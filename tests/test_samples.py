from __future__ import annotations

import numpy as np
import pytest
from skimage.filters import threshold_otsu

from napari_medseg.samples import (
    KINDS,
    TWO_KINDS,
    Scene,
    make_two_kinds,
    mixed_layers,
    mixed_scene,
    two_kinds_layers,
    two_kinds_scene,
)

MAKERS = [mixed_scene, two_kinds_scene]


@pytest.fixture(scope="module")
def pairs() -> list[Scene]:
    return make_two_kinds(12, seed=3)


@pytest.fixture(scope="module")
def mixtures() -> list[Scene]:
    return [mixed_scene(np.random.default_rng(seed), 128) for seed in range(150)]


def check(scene: Scene, size: int) -> None:
    assert scene.image.dtype == np.uint8
    assert scene.image.shape in [(1, size, size), (3, size, size)]
    for labels in (scene.instances, scene.kinds):
        assert labels.dtype == np.int32
        assert labels.shape == (size, size)
    np.testing.assert_array_equal(scene.instances > 0, scene.kinds > 0)
    count = len(scene.kind_names)
    assert set(np.unique(scene.kinds[scene.kinds > 0])) == set(range(1, count + 1))
    assert len(set(scene.kind_names)) == count
    ids = [scene.objects_of(kind) for kind in range(1, count + 1)]
    # each object in one kind, and no number left out
    together = np.sort(np.concatenate(ids))
    np.testing.assert_array_equal(together, np.arange(1, scene.instances.max() + 1))


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


@pytest.mark.parametrize("make", MAKERS)
def test_the_same_seed_gives_the_same_scene(make) -> None:
    for seed in range(5):
        one, other = (make(np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.instances, other.instances)
        np.testing.assert_array_equal(one.kinds, other.kinds)
        assert one.kind_names == other.kind_names


@pytest.mark.parametrize("make", MAKERS)
def test_other_seeds_give_other_scenes(make) -> None:
    one, other = (make(np.random.default_rng(seed)) for seed in (0, 1))
    assert not np.array_equal(one.kinds, other.kinds)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("size", [64, 96, 250, 512, 513])
def test_any_size(make, size: int) -> None:
    for seed in range(4):
        check(make(np.random.default_rng(seed), size), size)


def test_mixed_labels_are_consistent(mixtures: list[Scene]) -> None:
    for scene in mixtures:
        check(scene, 128)
        assert 1 <= len(scene.kind_names) <= 4


def test_every_kind_grey_and_colour_come_up(mixtures: list[Scene]) -> None:
    seen = {name.split()[0] for scene in mixtures for name in scene.kind_names}
    assert seen == set(KINDS)
    assert {scene.image.shape[0] for scene in mixtures} == {1, 3}
    assert {len(scene.kind_names) for scene in mixtures} == {1, 2, 3, 4}


def test_mixed_images_hold_a_picture(mixtures: list[Scene]) -> None:
    spreads = [float(scene.image.std()) for scene in mixtures]
    assert min(spreads) > 1
    assert np.median(spreads) > 15


def test_both_kinds_cover_alike_in_each_image(pairs: list[Scene]) -> None:
    for scene in pairs:
        assert scene.kind_names == TWO_KINDS
        assert scene.image.shape[0] == 1
        cells, rods = ((scene.kinds == kind).sum() for kind in (1, 2))
        assert 0.42 < cells / (cells + rods) < 0.58


def test_kinds_are_equally_bright(pairs: list[Scene]) -> None:
    means = np.asarray(
        [[s.image[0][s.kinds == kind].mean() for kind in (1, 2)] for s in pairs]
    )
    spreads = np.asarray(
        [[s.image[0][s.kinds == kind].std() for kind in (1, 2)] for s in pairs]
    )
    ground = np.asarray([s.image[0][s.kinds == 0].mean() for s in pairs])
    contrast = means.mean(axis=1) - ground
    # light falls unevenly on a few objects: alike in each, equal on the whole
    assert np.all(np.abs(means[:, 0] - means[:, 1]) < 0.15 * contrast)
    totals = means.mean(axis=0)
    assert abs(totals[0] - totals[1]) < 0.03 * totals.mean()
    assert np.all(np.abs(np.log(spreads[:, 0] / spreads[:, 1])) < 0.5)


def test_a_threshold_finds_both_and_tells_neither(pairs: list[Scene]) -> None:
    for scene in pairs:
        bright = scene.image[0] > threshold_otsu(scene.image[0])
        assert dice(bright, scene.kinds > 0) > 0.8
        for kind in (1, 2):
            assert 0.5 < dice(bright, scene.kinds == kind) < 0.74


def test_rods_and_cells_do_not_touch(pairs: list[Scene]) -> None:
    for scene in pairs:
        for axis in (0, 1):
            one = np.moveaxis(scene.instances, axis, 0)
            before, after = one[:-1], one[1:]
            assert not np.any((before > 0) & (after > 0) & (before != after))


def test_more_scenes_begin_with_the_same() -> None:
    few, many = make_two_kinds(1, seed=5, size=96), make_two_kinds(3, seed=5, size=96)
    np.testing.assert_array_equal(few[0].image, many[0].image)


@pytest.mark.parametrize(
    ("layers", "names"), [(two_kinds_layers, TWO_KINDS), (mixed_layers, KINDS)]
)
def test_sample_layers(layers, names: tuple[str, ...]) -> None:
    image, kinds, objects = layers()
    assert [layer[2] for layer in (image, kinds, objects)] == [
        "image",
        "labels",
        "labels",
    ]
    assert image[0].dtype == np.uint8
    assert image[0].shape == kinds[0].shape == objects[0].shape == (6, 256, 256)
    assert kinds[1]["metadata"]["classes"] == ["background", *names]
    assert kinds[0].max() <= len(names)
    np.testing.assert_array_equal(kinds[0] > 0, objects[0] > 0)
    assert len({layer[1]["name"] for layer in (image, kinds, objects)}) == 3


# what the viewer's own imports warn of is not for us to mend
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("layers", [two_kinds_layers, mixed_layers])
def test_the_viewer_takes_the_layers(layers) -> None:
    create = pytest.importorskip("napari.layers").Layer.create
    made = [create(*layer) for layer in layers()]
    assert [layer.ndim for layer in made] == [3, 3, 3]
