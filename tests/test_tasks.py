"""The tasks that nano is trained on, against scipy, numpy and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.measure import regionprops

from napari_medseg.training.tasks import (
    FILTER_SIGMAS,
    FILTER_TASKS,
    OBJECT_TASKS,
    Z_MAX,
    filter_responses,
    gaussian,
    kind_maps,
    object_features,
    object_maps,
    random_combinations,
    spread,
    task_names,
)


def picture(shape: tuple[int, int] = (60, 72), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.random(shape), 1.5).astype(np.float32)


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image)[None, None]


def standardised(image: np.ndarray) -> np.ndarray:
    deviation = max(image.std(ddof=1), 1e-6)
    return ((image - image.mean()) / deviation).clip(-Z_MAX, Z_MAX)


@pytest.mark.parametrize("sigma", [1.0, 1.2, 2.0, 4.0, 8.0])
def test_gaussian_is_scipys(sigma: float) -> None:
    image = picture()
    expected = ndimage.gaussian_filter(
        image, sigma, mode="mirror", radius=int(np.ceil(3 * sigma))
    )
    found = gaussian(tensor(image), sigma)[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_gaussian_of_small_and_many_images() -> None:
    small = torch.rand(2, 3, 5, 9)
    blurred = gaussian(small, 8.0)
    assert blurred.shape == small.shape
    torch.testing.assert_close(gaussian(small[:1, 1:2], 8.0), blurred[:1, 1:2])
    constant = torch.full((1, 1, 20, 20), 0.3)
    torch.testing.assert_close(gaussian(constant, 4.0), constant)


def test_filter_responses_are_their_definitions() -> None:
    image = picture().astype(float)
    found = filter_responses(tensor(image))[0].numpy()
    assert found.shape == (len(FILTER_TASKS), 60, 72)
    for place, sigma in enumerate(FILTER_SIGMAS):
        smooth, wider = (
            ndimage.gaussian_filter(image, each, mode="mirror", radius=int(3 * each))
            for each in (sigma, 2 * sigma)
        )
        square = ndimage.gaussian_filter(
            image**2, sigma, mode="mirror", radius=int(3 * sigma)
        )
        dy, dx = np.gradient(smooth)
        (dyy, dyx), (_, dxx) = np.gradient(dy), np.gradient(dx)
        hessian = np.stack([np.stack([dyy, dyx], -1), np.stack([dyx, dxx], -1)], -1)
        expected = {
            "intensity": smooth,
            "edge": np.hypot(dx, dy),
            "spot": smooth - wider,
            "ridge": np.linalg.eigvalsh(hessian)[..., 1],
            "crest": -np.linalg.eigvalsh(hessian)[..., 0],
            "texture": np.sqrt(np.maximum(square - smooth**2, 0)),
        }
        for row, (name, response) in enumerate(expected.items()):
            index = row * len(FILTER_SIGMAS) + place
            assert FILTER_TASKS[index] == f"{name} {sigma:g}"
            if name == "spot" and sigma == 8.0:
                continue  # its wider Gaussian does not fit into the image
            np.testing.assert_allclose(
                found[index], standardised(response), atol=1e-3, err_msg=name
            )


def test_filter_responses_are_standardised_and_finite() -> None:
    images = torch.cat([tensor(picture(seed=1)), torch.zeros(1, 1, 60, 72)])
    bank = filter_responses(images)
    assert torch.isfinite(bank).all()
    assert bank.abs().max() <= Z_MAX
    assert bank[1].abs().max() == 0
    alone = filter_responses(images[:1])
    torch.testing.assert_close(bank[:1], alone, atol=5e-3, rtol=0)


def labelled(seed: int = 0) -> np.ndarray:
    """Return objects of random shapes, with a number missing."""
    rng = np.random.default_rng(seed)
    ids = ndimage.label(ndimage.gaussian_filter(rng.random((60, 72)), 3) > 0.51)[0]
    ids[ids == 2] = 0
    return ids


def test_object_features_are_those_of_scikit_image() -> None:
    ids, grey = labelled(), picture()
    area, elongation, brightness = object_features(
        torch.from_numpy(ids).long(), torch.from_numpy(grey)
    )
    properties = regionprops(ids, intensity_image=grey)
    assert len(properties) > 3
    assert area[0] == elongation[0] == brightness[0] == 0
    assert area[2] == 0
    for item in properties:
        assert float(area[item.label]) == item.area
        assert float(brightness[item.label]) == pytest.approx(
            item.intensity_mean, rel=1e-4
        )
        # scikit-image adds 1/12 to each variance; both are there to keep lines finite
        minor = max(item.axis_minor_length, 1e-6)
        if item.area > 30:
            assert float(elongation[item.label]) == pytest.approx(
                item.axis_major_length / minor, rel=0.05
            )


def test_elongation_grows_with_length_and_not_with_direction() -> None:
    ids = torch.zeros(80, 80, dtype=torch.long)
    for number, length in enumerate([6, 12, 24, 48], start=1):
        ids[10 * number : 10 * number + 6, 5 : 5 + length] = number
    grey = torch.zeros(80, 80)
    elongation = object_features(ids, grey)[1][1:]
    assert elongation[0] == pytest.approx(1.0, abs=0.02)
    assert (elongation.diff() > 0).all()
    turned = object_features(ids.T.contiguous(), grey)[1][1:]
    torch.testing.assert_close(turned, elongation, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def maps() -> dict[str, torch.Tensor]:
    """Return the maps of three discs that do not touch, and a bright long bar."""
    rows, columns = np.mgrid[:96, :96]
    ids = np.zeros((96, 96), np.int64)
    for number, (y, x, radius) in enumerate(
        [(20, 20, 14), (60, 22, 8), (24, 70, 10)], start=1
    ):
        ids[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = number
    ids[70:78, 45:90] = 4
    grey = np.where(ids == 4, 0.9, np.where(ids == 1, 0.8, 0.2)).astype(np.float32)
    result = object_maps(torch.from_numpy(ids)[None], tensor(grey))[0]
    named = dict(zip(OBJECT_TASKS, result > 0, strict=True))
    assert torch.equal(result, (result > 0).float())
    return {**named, "ids": torch.from_numpy(ids)}


def test_foreground_and_background(maps: dict[str, torch.Tensor]) -> None:
    assert torch.equal(maps["foreground"], maps["ids"] > 0)
    assert torch.equal(maps["background"], maps["ids"] == 0)


def test_border_interior_and_surroundings(maps: dict[str, torch.Tensor]) -> None:
    inside = (maps["ids"] > 0).numpy()

    def square(width: int) -> np.ndarray:
        return np.ones((width, width), bool)

    outer = ndimage.binary_dilation(inside, square(5))
    inner = ndimage.binary_erosion(inside, square(5), border_value=1)
    np.testing.assert_array_equal(maps["border"].numpy(), outer & ~inner)
    deep = ndimage.binary_erosion(inside, square(9), border_value=1)
    np.testing.assert_array_equal(maps["interior"].numpy(), deep)
    near = ndimage.binary_dilation(inside, square(13)) & ~inside
    np.testing.assert_array_equal(maps["surroundings"].numpy(), near)


@pytest.mark.parametrize(
    ("first", "second", "of_first"),
    [
        ("large", "small", {1, 4}),
        ("elongated", "compact", {4}),
        ("bright", "dark", {1, 4}),
    ],
)
def test_objects_are_told_apart(
    first: str, second: str, of_first: set[int], maps: dict[str, torch.Tensor]
) -> None:
    """By halves: the two of them share no pixel and make up the foreground."""
    assert not (maps[first] & maps[second]).any()
    assert torch.equal(maps[first] | maps[second], maps["foreground"])
    found = set(maps["ids"][maps[first]].unique().tolist())
    assert of_first <= found
    for number in range(1, 5):
        assert len(maps[first][maps["ids"] == number].unique()) == 1
    if first == "large":
        areas = [int((maps["ids"] == number).sum()) for number in range(1, 5)]
        assert found == {1, 4} and sorted(areas)[-2:] == sorted([areas[0], areas[3]])


def test_touching_objects_have_a_border_between_them() -> None:
    ids = torch.ones(1, 20, 20, dtype=torch.long)
    ids[:, :, 10:] = 2
    maps = dict(
        zip(OBJECT_TASKS, object_maps(ids, torch.zeros(1, 1, 20, 20))[0], strict=True)
    )
    columns = maps["border"].any(dim=0)
    assert columns.tolist() == [8 <= column <= 11 for column in range(20)]


def test_images_of_a_batch_do_not_mix() -> None:
    first, second = torch.from_numpy(np.stack([labelled(0), labelled(1)])).long()
    grey = torch.cat([tensor(picture(seed=0)), tensor(picture(seed=1))])
    both = object_maps(torch.stack([first, second]), grey)
    torch.testing.assert_close(both[:1], object_maps(first[None], grey[:1]))
    torch.testing.assert_close(both[1:], object_maps(second[None], grey[1:]))


def test_image_without_objects() -> None:
    ids = torch.zeros(1, 12, 12, dtype=torch.long)
    maps = object_maps(ids, torch.rand(1, 1, 12, 12))[0]
    assert maps[OBJECT_TASKS.index("background")].min() == 1
    assert maps.sum() == 144


def test_spread_is_the_largest_value_around() -> None:
    image = picture()
    found = spread(tensor(image), 7)[0, 0].numpy()
    np.testing.assert_array_equal(found, ndimage.maximum_filter(image, 7))


def test_kinds_have_a_map_each() -> None:
    kinds = torch.tensor([[[0, 1], [3, 1]]])
    maps = kind_maps(kinds, 3)
    assert maps.shape == (1, 3, 2, 2)
    for index in range(3):
        assert torch.equal(maps[0, index], (kinds[0] == index + 1).float())


def test_random_combinations_have_length_1() -> None:
    coefficients, offset = random_combinations(500, torch.Generator().manual_seed(0))
    assert coefficients.shape == (500, len(FILTER_TASKS))
    torch.testing.assert_close(coefficients.norm(dim=1), torch.ones(500))
    active = (coefficients != 0).sum(dim=1)
    assert set(active.tolist()) == {1, 2, 3, 4}
    assert (coefficients != 0).any(dim=0).all()
    assert offset.shape == (500,)
    again = random_combinations(500, torch.Generator().manual_seed(0))
    assert torch.equal(again[0], coefficients) and torch.equal(again[1], offset)


def test_every_task_has_a_name_of_its_own() -> None:
    names = task_names(["blob", "rod"])
    assert len(names) == len(OBJECT_TASKS) + 2 + len(FILTER_TASKS) + 1
    assert len(set(names)) == len(names)
    assert names[-1] == "offset"
