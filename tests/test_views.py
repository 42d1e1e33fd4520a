"""Views: image and target stay together, and chance is a function of two numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from napari_medseg.models.framing import Framing
from napari_medseg.models.sam import PIXEL_MEAN, PIXEL_STD
from napari_medseg.training import views
from napari_medseg.training.views import (
    Example,
    FreshViews,
    KeptViews,
    View,
    ViewConfig,
    changed_view,
    plain_views,
    stack,
    whole_labels,
)


def config(tile: int = 64, size: int = 64, classes: int = 2) -> ViewConfig:
    return ViewConfig(Framing(tile=tile, size=size), classes, shrink=2, seed=0)


def shaded(number: int, **changes: Any) -> View:
    """Return a view of a self-portrait whose shades follow a curve."""
    changed = replace(config(), curves=1.0, **changes)
    return changed_view(self_portrait(blobs((70, 90))), number, changed)


def blobs(shape: tuple[int, int] = (64, 64), seed: int = 0) -> np.ndarray:
    """Return a target without symmetry: a bar, a square and random grains."""
    rng = np.random.default_rng(seed)
    target = np.zeros(shape, np.int32)
    target[5:12, 4 : shape[1] // 2] = 1
    target[shape[0] // 2 : shape[0] // 2 + 14, 6:20] = 1
    target[rng.integers(0, shape[0] - 4, 5), rng.integers(0, shape[1] - 4, 5)] = 1
    return target


def self_portrait(target: np.ndarray, name: str = "a") -> Example:
    """Return an example whose image is its own target."""
    image = np.repeat((target > 0)[None].astype(np.float32), 3, axis=0)
    return Example(name, image, target)


def grey(view: View) -> torch.Tensor:
    """Undo the standardisation of a view's inputs, at the output's resolution."""
    mean, std = torch.tensor(PIXEL_MEAN), torch.tensor(PIXEL_STD)
    image = (view.inputs * std.view(3, 1, 1) + mean.view(3, 1, 1)) / 255.0
    return torch.nn.functional.avg_pool2d(image[None], 2)[0, 0]


def correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])


def same(first: View, second: View) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(*map(torch.as_tensor, pair)) for pair in pairs)


def test_some_curves_turn_bright_to_dark_and_move_nothing() -> None:
    falling = 0
    for number in range(30):
        view = shaded(number)
        known = view.weight > 0.999
        alike = correlation(grey(view)[known], view.shares[1].float()[known])
        assert abs(alike) > 0.3
        falling += alike < 0
        plain = changed_view(self_portrait(blobs((70, 90))), number, config())
        assert torch.equal(plain.shares, view.shares)
        assert torch.equal(plain.place, view.place)
    assert 8 <= falling <= 22


def test_a_view_that_is_only_turned_keeps_its_shades() -> None:
    for number in range(5):
        plain = replace(config(), augmentation="turns")
        wanted = changed_view(self_portrait(blobs((70, 90))), number, plain)
        assert same(shaded(number, augmentation="turns"), wanted)


@pytest.mark.parametrize("number", range(30))
def test_image_and_target_are_changed_alike(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "_brighten", lambda image, rng: image)
    view = changed_view(self_portrait(blobs((70, 90))), number, config())
    known = view.weight > 0.999
    shares = view.shares[1].float()
    assert shares[known].max() > 0.2
    torch.testing.assert_close(grey(view)[known], shares[known], atol=2e-3, rtol=0)


@pytest.mark.parametrize("shape", [(64, 64), (70, 90), (150, 90), (40, 64)])
def test_maps_of_an_image_follow_its_views(shape: tuple[int, int]) -> None:
    """Turned, mirrored, magnified, padded; windows of larger images too."""
    example = replace(self_portrait(blobs(shape)), number=7)
    known = config()
    whole, weight = whole_labels(example, known)
    assert (weight == 1).all()
    made = [changed_view(example, number, known) for number in range(16)]
    for view in [*plain_views(example, known), *made]:
        assert view.number == 7
        size = [1, 1, *view.weight.shape]
        grid = functional.affine_grid(view.place[None], size, align_corners=False)
        carried = functional.grid_sample(whole[None, 1:], grid, align_corners=False)
        inside = view.weight > 0.999
        off = (carried[0, 0] - view.shares[1].float())[inside].abs()
        assert float(off.mean()) < 0.05
        assert float(off.max()) < 0.6


def test_brightness_changes_leave_what_is_shown() -> None:
    target = np.zeros((64, 64), np.int32)
    target[20:44, 20:44] = 1
    seen = []
    for number in range(30):
        view = changed_view(self_portrait(target), number, config())
        known = view.weight > 0.999
        shown, shares = grey(view)[known], view.shares[1].float()[known]
        assert correlation(shown, shares) > 0.98
        seen.append(float(shown[shares < 0.01].mean()))
    assert np.ptp(seen) > 0.05


def test_views_differ_by_number_and_by_seed() -> None:
    example = self_portrait(blobs())
    first = changed_view(example, 3, config())
    np.random.default_rng(9).random(5)
    torch.rand(5)
    assert same(changed_view(example, 3, config()), first)
    assert not same(changed_view(example, 4, config()), first)
    assert not same(changed_view(example, 3, replace(config(), seed=1)), first)


def test_views_show_all_turns_and_mirrors() -> None:
    """Of a mark in a corner, so that it tells all eight apart."""
    target = np.zeros((64, 64), np.int32)
    target[2:20, 2:8] = 1
    example = self_portrait(target)
    seen = set()
    for number in range(80):
        share = changed_view(example, number, config()).shares[1].float()
        where = torch.nonzero(share > 0.5).float()
        if len(where):
            middle = (where.mean(dim=0) > 12).tolist()
            seen.add((*middle, bool(where.std(dim=0).diff() > 0)))
    assert len(seen) == 8


@pytest.mark.parametrize("shape", [(64, 64), (50, 90), (200, 130), (20, 24)])
@pytest.mark.parametrize("classes", [2, 4])
def test_shares_sum_to_1(shape: tuple[int, int], classes: int) -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(-1, classes, shape).astype(np.int32)
    example = Example("a", rng.random((3, *shape), dtype=np.float32), target)
    settings = config(classes=classes)
    for view in (
        *plain_views(example, settings),
        changed_view(example, 0, settings),
    ):
        assert view.inputs.shape == (3, 64, 64)
        assert view.shares.shape == (classes, 32, 32)
        assert view.weight.shape == (32, 32)
        shares, weight = view.shares.float(), view.weight.float()
        assert torch.isfinite(shares).all()
        assert shares.min() >= 0
        torch.testing.assert_close(
            shares.sum(dim=0), torch.ones(32, 32), atol=3e-3, rtol=0
        )
        assert 0 <= float(weight.min()) and float(weight.max()) <= 1


def test_shares_are_averages_of_the_annotation() -> None:
    target = np.random.default_rng(0).integers(0, 3, (64, 64)).astype(np.int32)
    (view,) = plain_views(self_portrait(target), config(classes=3))
    blocks = target.reshape(32, 2, 32, 2)
    for index in range(3):
        expected = (blocks == index).mean(axis=(1, 3))
        np.testing.assert_array_equal(view.shares[index].numpy(), expected)
    assert (view.weight == 1).all()


def test_pixels_that_are_not_annotated_have_no_weight() -> None:
    target = blobs()
    target[:32] = -1
    target[40, 40] = -1
    (view,) = plain_views(self_portrait(target), config())
    expected = (target >= 0).reshape(32, 2, 32, 2).mean(axis=(1, 3))
    np.testing.assert_array_equal(view.weight.numpy(), expected)
    # what remains of a pixel of which one quarter is unknown
    assert view.shares[:, 20, 20].tolist() == [1, 0]
    nothing = np.full((64, 64), -1, np.int32)
    for view in (
        *plain_views(self_portrait(nothing), config()),
        changed_view(self_portrait(nothing), 0, config()),
    ):
        assert view.weight.max() == 0
        assert (view.shares[0] == 1).all()


def test_padding_has_no_weight() -> None:
    (view,) = plain_views(self_portrait(blobs((48, 64))), config())
    assert view.weight[:24].min() == 1
    assert view.weight[24:].max() == 0
    assert view.inputs[:, 48:].abs().max() == 0
    (small,) = plain_views(self_portrait(blobs((20, 40))), config())
    assert small.weight[:10, :20].min() == 1
    assert float(small.weight.sum()) == 200


def test_plain_views_cover_a_large_image() -> None:
    example = self_portrait(blobs((130, 100)))
    settings = config()
    made = plain_views(example, settings)
    boxes = settings.framing.boxes((130, 100))
    assert len(made) == len(boxes) > 4
    for view, box in zip(made, boxes, strict=True):
        part = example.target[box.slices].reshape(32, 2, 32, 2).mean(axis=(1, 3))
        np.testing.assert_array_equal(view.shares[1].numpy(), part)


def marked(count: int) -> list[View]:
    """Return views that are told apart by their inputs."""
    return [
        View(
            torch.full((1, 2, 2), float(index)),
            torch.zeros(2, 2, 2).half(),
            torch.ones(2, 2).half(),
            index,
            torch.eye(2, 3),
        )
        for index in range(count)
    ]


def marks(batch: Any) -> list[int]:
    return [int(value) for value in batch.inputs[:, 0, 0, 0]]


@pytest.mark.parametrize(("count", "batch"), [(12, 4), (7, 3), (5, 4), (1, 1)])
def test_kept_views_are_seen_once_a_round(count: int, batch: int) -> None:
    batches = KeptViews(marked(count), batch, seed=0)
    sequence = [mark for step in range(3 * count) for mark in marks(batches(step))]
    assert len(sequence) == 3 * count * batch
    rounds = [sequence[i : i + count] for i in range(0, len(sequence), count)]
    assert all(sorted(one) == list(range(count)) for one in rounds)
    if count > 5:
        assert len(set(map(tuple, rounds))) > 1


def test_batches_depend_on_seed_and_step_alone() -> None:
    batches, again = (KeptViews(marked(12), 4, seed=0) for _ in range(2))
    backwards = [marks(again(step)) for step in reversed(range(6))]
    assert [marks(batches(step)) for step in range(6)] == backwards[::-1]
    other = KeptViews(marked(12), 4, seed=1)
    assert [marks(other(step)) for step in range(6)] != backwards[::-1]


def test_batch_larger_than_the_set() -> None:
    batches = KeptViews(marked(3), 16, seed=0)
    assert sorted(marks(batches(0))) == sorted(marks(batches(1))) == [0, 1, 2]
    fresh = FreshViews([self_portrait(blobs())], config(), batch=3)
    assert fresh(0).inputs.shape == (3, 3, 64, 64)


def test_fresh_views_are_new_at_every_step_and_alike_at_every_run() -> None:
    examples = [self_portrait(blobs(seed=seed), str(seed)) for seed in range(3)]
    batches, again = (FreshViews(examples, config(), 2) for _ in range(2))
    for step in (5, 0, 5):
        first, second = batches(step), again(step)
        assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
        assert {item.dtype for item in first[:3]} == {torch.float32}
    inputs = torch.cat([batches(step).inputs for step in range(6)])
    assert len({item.numpy().tobytes() for item in inputs}) == 12


def test_fresh_views_show_every_image_as_often() -> None:
    # an image of one brightness is known by it, whatever the changes
    shapes = [np.full((64, 64), index, np.int32) for index in range(4)]
    examples = [
        Example(str(index), np.zeros((3, 64, 64), np.float32), target)
        for index, target in enumerate(shapes)
    ]
    batches = FreshViews(examples, config(classes=4), 3)
    seen = Counter(
        int(shares.sum(dim=(1, 2)).argmax())
        for step in range(8)
        for shares in batches(step).shares * batches(step).weight[:, None]
    )
    assert seen == {0: 6, 1: 6, 2: 6, 3: 6}


def test_stack_gives_float32() -> None:
    batch = stack(marked(2))
    assert {item.dtype for item in batch[:3]} == {torch.float32}
    assert batch.numbers.tolist() == [0, 1]
    assert batch.shares.shape == (2, 2, 2, 2)
