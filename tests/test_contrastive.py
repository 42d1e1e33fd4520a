"""SuperCL's losses against plain loops, its views, and its superpixels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.nn import functional

from napari_medseg._types import finish
from napari_medseg.training import superpixels as module
from napari_medseg.training.contrastive import (
    at_features,
    contrast,
    fitting_stride,
    intra_image,
    joined_windows,
    linked,
    same_group,
    same_instance,
    superpixel_means,
)
from napari_medseg.training.pretraining_images import Plain, Windows
from napari_medseg.training.pretraining_views import moved, relit, views_of
from napari_medseg.training.superpixels import Slic, SuperpixelCache, find_all

if TYPE_CHECKING:
    from pathlib import Path

    from napari_medseg._types import LabelArray


def loop(vectors: torch.Tensor, positives: torch.Tensor, temperature: float) -> float:
    """The published equation, number by number."""
    losses = []
    for i in range(len(vectors)):
        others = [a for a in range(len(vectors)) if a != i]
        alike = [p for p in others if positives[i, p]]
        if not alike:
            continue
        exps = {
            a: math.exp(
                float(functional.cosine_similarity(vectors[i], vectors[a], dim=0))
                / temperature
            )
            for a in others
        }
        total = sum(exps.values())
        terms = [math.log(exps[p] / total) for p in alike]
        losses.append(-temperature / 0.07 * sum(terms) / len(alike))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_contrast_is_the_equation(temperature: float) -> None:
    torch.manual_seed(0)
    vectors = torch.randn(9, 5, requires_grad=True)
    labels = torch.tensor([0, 1, 0, 2, 1, 1, 3, 0, 2])  # 3 is alone
    positives = labels[:, None] == labels[None]
    found = contrast(vectors, positives, temperature)
    wanted = loop(vectors.detach(), positives, temperature)
    assert found.item() == pytest.approx(wanted, rel=1e-4)
    found.backward()
    assert torch.isfinite(vectors.grad).all() and vectors.grad.any()  # type: ignore[union-attr]


def test_contrast_of_what_has_no_partner_is_nothing() -> None:
    vectors = torch.randn(4, 3, requires_grad=True)
    found = contrast(vectors, torch.eye(4, dtype=torch.bool), 0.1)
    found.backward()
    assert found.item() == 0.0 and torch.isfinite(vectors.grad).all()  # type: ignore[union-attr]


def test_intra_image_compares_within_each_window_alone() -> None:
    torch.manual_seed(1)
    grid, labels = torch.randn(4, 6, 3, 4), torch.randint(0, 3, (2, 3, 4))
    found = intra_image(grid, labels, points=100, temperature=0.1)
    each = []
    for index in range(2):
        both = torch.cat([grid[index].flatten(1).T, grid[2 + index].flatten(1).T])
        owners = labels[index].flatten().repeat(2)
        each.append(loop(both, owners[:, None] == owners[None], 0.1))
    assert float(found) == pytest.approx(sum(each) / 2, rel=1e-4)


def test_fewer_points_are_drawn_alike_in_both_views() -> None:
    """Two views that are the same have a loss as if each place met itself."""
    torch.manual_seed(2)
    half = torch.randn(1, 8, 6, 6)
    labels = torch.arange(36).view(1, 6, 6)
    found = intra_image(torch.cat([half, half]), labels, points=5, temperature=0.01)
    assert float(found) < 0.05


def test_superpixel_means_are_those_of_each_window() -> None:
    torch.manual_seed(3)
    values, labels = torch.randn(2, 4, 5), torch.randint(0, 3, (2, 4, 5))
    found = superpixel_means(values, labels)
    for index in range(2):
        for label in range(3):
            inside = labels[index] == label
            mean = values[index][inside].mean()
            torch.testing.assert_close(found[index][inside], mean.expand(inside.sum()))


def test_nearest_neighbours_are_linked_into_components() -> None:
    angles = torch.tensor([0.0, 0.1, 0.25, 2.0, 2.2])
    vectors = torch.stack([angles.cos(), angles.sin()], dim=1)
    groups = linked(vectors)
    # 2 is nearest to 1, which is nearest to 0: one component
    assert groups[0] == groups[1] == groups[2] != groups[3] == groups[4]


def test_groups_have_the_other_view_and_no_gradient() -> None:
    torch.manual_seed(4)
    grid = torch.randn(6, 4, 3, 3, requires_grad=True)
    alike = same_group(grid, torch.randint(0, 4, (3, 3, 3)))
    assert alike.dtype == torch.bool and torch.equal(alike, alike.T)
    assert all(alike[i, i + 3] for i in range(3)) and alike.sum(1).min() >= 2
    assert joined_windows(same_instance(torch.zeros(3), 0.0)) == 0
    everything = torch.ones(6, 6, dtype=torch.bool)
    assert joined_windows(everything) == 2


def test_same_instances_and_slices_at_one_height() -> None:
    nan = math.nan
    positions = torch.tensor([0.0, 0.05, 0.5, nan])
    alone = same_instance(positions, 0.0)
    assert alone.sum() == 16
    near = same_instance(positions, 0.1)
    assert near[0, 1] and near[0, 5] and not near[0, 2] and not near[3, 2]
    assert near[3, 7] and near[3].sum() == 2


def test_labels_are_read_at_the_centres_of_features() -> None:
    labels = torch.arange(64).view(1, 8, 8)
    assert at_features(labels, (8, 8)).equal(labels)
    assert at_features(labels, (2, 4)).tolist() == [
        [[17, 19, 21, 23], [49, 51, 53, 55]]
    ]


def test_the_stride_fits_the_superpixels() -> None:
    strides = (2, 4, 8, 16, 32)
    sizes = {4: 2, 8: 4, 15: 4, 16: 8, 40: 16, 500: 32}
    assert {size: fitting_stride(strides, size) for size in sizes} == sizes
    assert fitting_stride((4, 8, 16), 4) == 4


# --- views


def discs(count: int = 3) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
    disc = ((rows - 14) ** 2 + (columns - 30) ** 2 < 60).float()
    return (0.1 + 0.7 * disc).expand(count, 2, 48, 48).clone()


def test_views_are_in_range_and_follow_the_seed() -> None:
    images = torch.cat([discs(), torch.rand(2, 2, 48, 48), torch.zeros(1, 2, 48, 48)])
    torch.manual_seed(5)
    first = views_of(images)
    torch.manual_seed(5)
    again = views_of(images)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other) and one.shape == images.shape
        assert one.min() >= 0 and one.max() <= 1 + 1e-5
    assert not torch.equal(first.first, first.second)


def bright(images: torch.Tensor) -> torch.Tensor:
    """Return where images are brighter than half way between dark and bright."""
    low, high = images.amin((1, 2, 3), True), images.amax((1, 2, 3), True)
    return images > (low + high) / 2


def test_only_the_moved_views_are_moved() -> None:
    torch.manual_seed(6)
    images = discs(8)
    lit = relit(images)
    assert (bright(lit) == bright(images)).float().mean() > 0.98
    assert (bright(moved(lit)) == bright(images)).float().mean() < 0.98


def test_changes_of_brightness_are_not_taken_back() -> None:
    """Stretched to [0, 1], views would hardly differ, and all would be blurred."""
    torch.manual_seed(7)
    images = discs(40) + 0.05 * torch.rand(40, 2, 48, 48)
    lit = relit(images)
    assert lit.mean((1, 2, 3)).std() > 0.2 * lit.mean()
    grain = (lit - functional.avg_pool2d(lit, 3, 1, 1)).std((1, 2, 3)) / lit.mean()
    assert grain.max() > 1.3 * grain.min(), "some are blurred, and some are not"


# --- superpixels


def picture(seed: int = 0, side: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = rng.normal(60, 4, (1, side, side + 16))
    image[0, 10:30, 20:44] += 100
    return image.clip(0, 255).astype(np.uint8)


def test_superpixels_are_as_large_as_asked_and_keep_to_edges() -> None:
    image = picture()
    found = Slic(side=8).find(image)
    assert found.dtype == np.int32 and found.shape == image.shape[1:]
    assert np.array_equal(np.unique(found), np.arange(found.max() + 1))
    assert 0.5 < found.max() / (64 * 80 / 64) < 1.6
    bright = np.zeros(found.shape, bool)
    bright[10:30, 20:44] = True
    shares = np.bincount(found.ravel(), bright.ravel()) / np.bincount(found.ravel())
    assert ((shares < 0.1) | (shares > 0.9)).mean() > 0.9
    colours = np.repeat(image, 3, axis=0)
    assert np.array_equal(Slic(side=8).find(colours), found)


def test_kept_superpixels_are_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [picture(seed) for seed in range(3)]
    cache = SuperpixelCache(tmp_path)
    first = finish(find_all(images, Slic(8), cache))
    asked: list[int] = []
    real = Slic.find

    def counted(self: Slic, image: np.ndarray) -> LabelArray:
        asked.append(1)
        return real(self, image)

    monkeypatch.setattr(Slic, "find", counted)
    assert all(map(np.array_equal, first, finish(find_all(images, Slic(8), cache))))
    assert asked == []
    finish(find_all(images, Slic(9), cache))
    assert len(asked) == 3, "other settings, other superpixels"
    for path in tmp_path.glob("*.npz"):
        path.write_bytes(path.read_bytes()[:40])
    assert all(map(np.array_equal, first, finish(find_all(images, Slic(8), cache))))
    assert len(asked) == 6, "damaged files are found anew"


def test_the_cache_stays_within_its_limit(tmp_path: Path) -> None:
    cache = SuperpixelCache(tmp_path, disk_bytes=1)
    images = [picture(seed) for seed in range(3)]
    finish(find_all(images, Slic(8), cache))
    assert len(list(tmp_path.iterdir())) == 1


def test_processes_find_the_same(tmp_path: Path) -> None:
    images = [picture(seed) for seed in range(3)]
    here = finish(find_all(images, Slic(8), SuperpixelCache(None)))
    there = finish(find_all(images, Slic(8), SuperpixelCache(tmp_path), workers=2))
    assert all(map(np.array_equal, here, there))
    assert len(list(tmp_path.iterdir())) == 3
    assert module.MOST_WORKERS >= 1


# --- windows


def test_windows_depend_on_the_step_alone_and_keep_their_superpixels() -> None:
    rng = np.random.default_rng(0)
    images, maps = [], []
    for index, shape in enumerate([(70, 90), (40, 100), (20, 25)]):
        labels = rng.integers(0, 200, shape).astype(np.int32)
        # the picture says which superpixel a pixel is of
        pixels = labels[None].astype(np.uint8)
        images.append(Plain(str(index), pixels, math.nan))
        maps.append(labels)
    windows = Windows(images, maps, side=64, batch=4, seed=3)
    first = windows(7)
    for one, other in zip(first, windows(7), strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)
    assert first.images.shape == (4, 1, 64, 64)
    for step in range(3):
        batch = windows(step)
        seen = (batch.images[:, 0] * 255).round().long()
        assert torch.equal(seen, batch.superpixels)
    assert not torch.equal(windows(0).images, windows(1).images)
